"""Which processor this machine has."""

import platform
from pathlib import Path


def processor_name() -> str:
    """Name the processor as the system does; Linux has the name in a file only, which `platform.processor` does not read.

    Returns:
        The name, such as `"Intel(R) Xeon(R) Gold 6230"`, or the architecture where the system gives none.
    """
    cpu_info = Path("/proc/cpuinfo")
    if cpu_info.is_file():
        for line in cpu_info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
