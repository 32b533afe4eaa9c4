"""How this kit is installed, and what to type to get an optional part of it: it is on no package index.

pip writes where a distribution came from into its `direct_url.json` (PEP 610); nothing is asked of the network.
"""

import importlib.metadata
import json
import re
import shlex
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

DISTRIBUTION = "ast-kit"
# The library that the package sounddevice records through; on macOS and Windows it comes with the package.
INSTALL_PORTAUDIO = "Debian and Ubuntu with: apt-get install libportaudio2"


def install_command(extra: str | None = None) -> str:
    """The command that installs the kit's packages with those of an extra, and works as the kit is installed here.

    Args:
        extra (`str`, *optional*): such as `"onnx"`; only what is always needed if not given.

    Returns:
        `str`: in a checkout `pip install -e '.[onnx]'`, with the checkout's path where that is not the working directory;
        of an archive or repository that it was installed from the same with `'ast-kit[onnx] @ URL'`; where that is not
        known, such as for a wheel from a private index, the packages of the extra by name.
    """
    brackets = f"[{extra}]" if extra else ""
    # An editable installation leaves a second entry in the checkout, without a word of where it came from.
    found = list(importlib.metadata.distributions(name=DISTRIBUTION))
    distribution = next((one for one in found if one.read_text("direct_url.json")), found[0] if found else None)
    if distribution is None:
        checkout = Path(__file__).resolve().parents[2]
        if (checkout / "setup.cfg").is_file():
            return _of_folder(checkout, brackets, editable=True)
        return f"pip install -e '.{brackets}' in a checkout of the kit"  # files that were copied without it
    origin = json.loads(distribution.read_text("direct_url.json") or "{}")
    url = origin.get("url", "")
    if "dir_info" in origin and (folder := _path_of(url)).is_dir():
        return _of_folder(folder, brackets, editable=origin["dir_info"].get("editable", False))
    if "vcs_info" in origin:
        vcs = origin["vcs_info"]
        part = f"#subdirectory={origin['subdirectory']}" if "subdirectory" in origin else ""
        return f"pip install '{DISTRIBUTION}{brackets} @ {vcs['vcs']}+{url}@{vcs['commit_id']}{part}'"
    if "archive_info" in origin and (not url.startswith("file:") or _path_of(url).is_file()):
        return f"pip install '{DISTRIBUTION}{brackets} @ {url}'"
    return f"pip install {' '.join(_requirements(distribution, extra))}"


def _path_of(url: str) -> Path:
    return Path(url2pathname(urlsplit(url).path))


def _of_folder(folder: Path, brackets: str, editable: bool) -> str:
    place = "." if folder == Path.cwd() else str(folder)
    option = "-e " if editable else ""
    return (
        f"pip install {option}'{place}{brackets}'"
        if place == "."
        else f"pip install {option}{shlex.quote(place + brackets)}"
    )


def _requirements(distribution: importlib.metadata.Distribution, extra: str | None) -> list[str]:
    """The requirements of an extra, or those that are always needed, quoted for a shell."""
    lines = [line.partition(";") for line in distribution.requires or ()]
    marker = re.compile(rf"""extra\s*==\s*['"]{re.escape(extra)}['"]""") if extra else None
    return [
        f'"{requirement.strip()}"'
        for requirement, _, condition in lines
        if (marker.search(condition) if marker else "extra" not in condition)
    ]


@cache
def package_version(package: str) -> str | None:
    """Look up the version of an installed package.

    Args:
        package (`str`): its name as pip knows it.

    Returns:
        The version; `None` of what is not installed, such as a checkout that runs as it is.
    """
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
