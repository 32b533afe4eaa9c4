"""ONNX Runtime's WebAssembly, from the npm package that its makers publish.

The package is taken by `npm pack`, from where npm is set to look, or from a folder or archive of it that is there already. The
version is pinned, and so is the digest of each file.
"""

import hashlib
import shutil
import subprocess
import tarfile
from pathlib import Path

from ..system.atomic_files import temporary_folder

PACKAGE, VERSION = "onnxruntime-web", "1.30.0"
# SHA-256 of what a page needs: the part without GPU, and WebAssembly with vector instructions, which runs in one thread where
# there is no SharedArrayBuffer.
FILES = {
    "ort.wasm.min.js": "faece07e84faa9001f5104bbe4e5c70861d06cb2376a0dea1fa0ad33a67adc81",
    "ort-wasm-simd-threaded.mjs": "e13f7f94fc51b4ca72b12faeb1ee95f4ace6dfbc8939bc718aabdc0a27c4299b",
    "ort-wasm-simd-threaded.wasm": "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2",
}
FETCHING_SECONDS = 600


class RuntimePackageError(ValueError):
    """The package cannot be had; the message says why, and what to type."""


def copy_runtime(folder: str | Path, given: str | Path | None = None):
    """Put the files of ONNX Runtime into a folder.

    Args:
        folder (`str` or `Path`): where to, which is there.
        given (`str` or `Path`, *optional*): the package's folder, or its `.tgz`; fetched with npm if not given.

    Raises:
        RuntimePackageError: if npm or the package is not there, or a file is not the pinned one.
    """
    with temporary_folder(PACKAGE) as temporary:
        source = _fetched(temporary) if given is None else Path(given)
        for name, content in content_of_package(source).items():
            (Path(folder) / name).write_bytes(content)


def content_of_package(source: str | Path) -> dict[str, bytes]:
    """Read what a page needs of the package.

    Args:
        source (`str` or `Path`): the package's folder, or its `.tgz`.

    Returns:
        The files' content by their names.

    Raises:
        RuntimePackageError: if it is no such package, or a file is not the pinned one.
    """
    contents = {name: _content(Path(source), name) for name in FILES}
    for name, content in contents.items():
        if hashlib.sha256(content).hexdigest() != FILES[name]:
            raise RuntimePackageError(
                f"{source}: {name} is not that of {PACKAGE} {VERSION}. Pass --runtime_package with what "
                f"npm pack {PACKAGE}@{VERSION} writes."
            )
    return contents


def _fetched(folder: Path) -> Path:
    """The package's archive, by npm."""
    instead = f"Type npm pack {PACKAGE}@{VERSION} where it can be had, and pass --runtime_package with the file that it writes."
    npm = shutil.which("npm")
    if npm is None:
        raise RuntimePackageError(
            f"A page needs the npm package {PACKAGE}, and there is no npm here to fetch it with. Install npm, or: {instead}"
        )
    command = [npm, "pack", f"{PACKAGE}@{VERSION}", "--ignore-scripts", "--pack-destination", str(folder)]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=FETCHING_SECONDS)
    except subprocess.TimeoutExpired as error:
        raise RuntimePackageError(f"npm did not fetch {PACKAGE} in {FETCHING_SECONDS} s. {instead}") from error
    found = list(folder.glob("*.tgz"))
    if done.returncode or len(found) != 1:
        said = [line for line in done.stderr.splitlines() if line.strip()]
        raise RuntimePackageError(f"npm could not fetch {PACKAGE} {VERSION} ({'; '.join(said[:3])}). {instead}")
    return found[0]


def _content(source: Path, name: str) -> bytes:
    """A file of the package, of its folder or its archive."""
    try:
        if source.is_dir():
            return (source / "dist" / name).read_bytes()
        with tarfile.open(source) as archive:
            member = archive.extractfile(f"package/dist/{name}")
            return b"" if member is None else member.read()
    except (OSError, KeyError, tarfile.TarError, EOFError) as error:
        raise RuntimePackageError(
            f"{source} is no package {PACKAGE}: it has no dist/{name} ({error}). Pass --runtime_package with the folder "
            f"node_modules/{PACKAGE}, or with the file that npm pack {PACKAGE}@{VERSION} writes."
        ) from error
