"""How much memory a process can still take, also where a container has a limit of its own."""

from pathlib import Path

import psutil

# Where Linux says the limits of control groups: version 2 in one tree, version 1 in that of memory.
GROUPS = (
    ("memory.max", "memory.current", "inactive_file", Path("/sys/fs/cgroup")),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file", Path("/sys/fs/cgroup/memory")),
)


def free_memory(
    groups: tuple[tuple[str, str, str, Path], ...] = GROUPS, process: Path = Path("/proc/self/cgroup")
) -> int:
    """Tell how many bytes can be taken before the machine, or the container that this process runs in, has none left.

    Args:
        groups (`tuple`): for each version of control groups the names of the files that hold its limit and its use, what
            its statistics call pages that can be given up, and the folder of all groups.
        process (`Path`): file that says in which groups this process is.

    Returns:
        `int`: bytes, 0 if a limit is passed already.
    """
    free = psutil.virtual_memory().available
    for limit_name, used_name, given_up_name, root in groups:
        for group in _groups_of_process(process, root):
            limit, used = _number(group / limit_name), _number(group / used_name)
            if limit is not None and used is not None:
                free = min(free, limit - used + _statistic(group / "memory.stat", given_up_name))
    return max(0, free)


def _groups_of_process(process: Path, root: Path) -> list[Path]:
    """The folders of the groups that this process is in, up to that of all; inside a container that is its own."""
    try:
        lines = process.read_text(encoding="utf-8").splitlines()
    except OSError:
        return [root]
    folders = {root: None}
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers in ("", "memory"):
            group = root / path.lstrip("/")
            folders |= dict.fromkeys(folder for folder in (group, *group.parents) if folder.is_relative_to(root))
    return list(folders)


def _number(file: Path) -> int | None:
    """The number in a file; `None` if there is none, as where no limit is set."""
    try:
        return int(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _statistic(file: Path, name: str) -> int:
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.split()[:1] == [name]), 0)
