"""`ast-doctor`: is everything here that AST needs, and does it really work?

What has to be installed, and in which versions, is read from the installed distribution's metadata (its source is
`setup.cfg`), and every package is imported, every decoder decodes a tone. Nothing is installed or changed.
"""

import configparser
import dataclasses
import importlib
import importlib.metadata
import importlib.util
import io
import json
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from .system.flags import FlagParser
from .system.installation import DISTRIBUTION, INSTALL_PORTAUDIO, install_command
from .system.processor import processor_name
from .system.terminal import shell_command

DEVELOPMENT_EXTRA = "dev"  # test and style tools, which no user needs
RUNTIME_EXTRA = "runtime"  # what tags without PyTorch
WITHOUT_PYTORCH = "use without PyTorch"  # the name of a check
IMPORT_NAMES = {
    "scikit-learn": "sklearn",
    "faiss-cpu": "faiss",
}  # where it is not the distribution's name with underscores
# These three hold code compiled for one another: one that fails is mended by installing them together.
TORCH_FAMILY = ("torch", "torchaudio", "torchcodec")
TRIED_FORMATS = ("WAV", "FLAC", "OGG", "MP3")  # of those that libsndfile reads, what most files are
PROGRAM_DOES = (
    "it decodes what torchcodec cannot, or not to its end, passes over damaged spots, and stock Transformers' pipeline needs it for "
    "paths"
)
TONE_HZ = 440
TONE_SAMPLING_RATE = 16_000


@dataclasses.dataclass(frozen=True)
class Check:
    """One line of the report.

    Attributes:
        section (`str`): heading under which the line stands.
        name (`str`): what was looked at.
        works (`bool`): whether it is there and works.
        detail (`str`): version or device, or what is wrong.
        required (`bool`): whether AST cannot do without it.
        mend (`str`): the command that installs or repairs it.
    """

    section: str
    name: str
    works: bool
    detail: str
    required: bool = True
    mend: str = ""


@shell_command("ast-doctor")
def main(argv: list[str] | None = None) -> int:
    """Check everything and print a table.

    Args:
        argv (`list[str]`, *optional*): arguments after the program's name, by default those of the process.

    Returns:
        0 if everything that is required works, otherwise 1.
    """
    parser = FlagParser(
        prog="ast-doctor",
        description="Check the packages, audio decoders and devices that AST uses, and say how to get what is missing.",
        epilog="The exit code is 0 if everything that is required works, otherwise 1.",
    )
    parser.add_argument("--json", action="store_true", help="print the same as one JSON object")
    args = parser.parse_args(argv)

    checks = [*check_system(), *check_packages(), *check_decoders(), *check_devices()]
    missing = [check for check in checks if check.required and not check.works]
    if args.json:
        rows = [dataclasses.asdict(check) for check in checks]
        print(json.dumps({"works": not missing, "checks": rows}, indent=2))
    else:
        print("\n".join(report_lines(checks)))
    return 1 if missing else 0


def report_lines(checks: list[Check]) -> Iterator[str]:
    """Lay the checks out as a table, then say what is missing and which command helps.

    Args:
        checks (`list[Check]`): in the order of the report.

    Yields:
        Lines without line end.
    """
    width = max(len(check.name) for check in checks)
    section = None
    for check in checks:
        if check.section != section:
            section = check.section
            yield section
        mark = "ok" if check.works else "MISSING" if check.required else "-"
        yield f"  {check.name:<{width}}  {mark:<7}  {check.detail}"
    for required, heading in ((False, "Not here, and not needed for the main job:"), (True, "Missing:")):
        commands: dict[str, list[str]] = {}
        for check in checks:
            if check.required == required and not check.works and check.mend:
                commands.setdefault(check.mend, []).append(check.name)
        if commands:
            yield ""
            yield heading
        for command, names in commands.items():
            yield f"  {', '.join(names)}"
            yield f"      {command}"
    if all(check.works for check in checks if check.required):
        yield ""
        if any(check.name == WITHOUT_PYTORCH for check in checks):
            yield "Everything that use without PyTorch needs is here."
        else:
            yield "Everything that AST needs is here."


def check_system() -> Iterator[Check]:
    """Look up the interpreter, the operating system and the processor.

    Yields:
        A [`Check`] for each.
    """
    yield Check("System", "Python", True, f"{platform.python_version()} ({sys.executable})")
    yield Check("System", "Operating system", True, platform.platform())
    affinity = getattr(os, "sched_getaffinity", None)  # Linux only; a container may use fewer cores than there are
    usable = len(affinity(0)) if affinity else os.cpu_count()
    yield Check("System", "Processor", True, f"{platform.machine()}, {usable} of {os.cpu_count()} cores usable")


def check_packages() -> Iterator[Check]:
    """Compare installed versions with the required ones, and import each package.

    Where PyTorch is not installed and the packages that tag without it are, only these are required: the others are for
    training and model folders.

    Yields:
        A [`Check`] for each package.
    """
    try:
        from packaging.requirements import Requirement
    except ImportError:
        yield Check("Packages", "packaging", False, "needed to read the requirements", mend="pip install packaging")
        return
    try:
        requirements = [Requirement(line) for line in importlib.metadata.requires(DISTRIBUTION) or ()]
        extras = importlib.metadata.metadata(DISTRIBUTION).get_all("Provides-Extra") or ()
        yield Check("Packages", DISTRIBUTION, True, importlib.metadata.version(DISTRIBUTION))
    except importlib.metadata.PackageNotFoundError:
        checkout = Path(__file__).resolve().parents[1]
        yield Check("Packages", DISTRIBUTION, False, "not installed", mend=install_command())
        requirements, extras = [Requirement(line) for line in requirements_of_checkout(checkout)], ()

    required = [item for item in requirements if item.marker is None or item.marker.evaluate({"extra": ""})]
    runtime = [item for item in requirements if item not in required and _is_of_extra(item, RUNTIME_EXTRA)]
    if runtime and not _is_installed("torch") and all(check_package(item, "", True).works for item in runtime):
        yield from _check_packages_without_pytorch(required, runtime)
        required = [*required, *runtime]
    else:
        family = " ".join(f'"{item.name}{item.specifier}"' for item in required if item.name in TORCH_FAMILY)
        for item in required:
            yield check_package(item, "Packages", required=True, reinstall=family if item.name in TORCH_FAMILY else "")
    names = {item.name for item in required}  # which an extra may name again
    for extra in extras:
        if extra != DEVELOPMENT_EXTRA:
            for item in requirements:
                if item.name not in names and _is_of_extra(item, extra):
                    yield check_package(item, f"Optional: {DISTRIBUTION}[{extra}]", required=False)


def _is_of_extra(requirement, extra: str) -> bool:
    return requirement.marker.evaluate({"extra": extra})


def _is_installed(distribution: str) -> bool:
    try:
        importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _check_packages_without_pytorch(required: list, runtime: list) -> Iterator[Check]:
    """Check an installation that only tags with files of `ast-export --waveform`."""
    yield Check("Packages", WITHOUT_PYTORCH, True, "ast-tag with a file of ast-export --waveform")
    for item in runtime:
        yield check_package(item, "Packages", required=True)
    names = {item.name for item in runtime}
    for item in required:
        if item.name not in names:
            check = check_package(item, "For training, export and model folders", required=False)
            yield check if check.works else dataclasses.replace(check, mend=install_command())


def requirements_of_checkout(checkout: Path) -> list[str]:
    """Read the required packages from a checkout that is not installed.

    Args:
        checkout (`Path`): its folder.

    Returns:
        Requirements as pip takes them; none if this is no checkout.
    """
    config = configparser.ConfigParser()
    config.read(checkout / "setup.cfg", encoding="utf-8")
    return config.get("options", "install_requires", fallback="").strip().splitlines()


def check_package(requirement, section: str, required: bool, reinstall: str = "") -> Check:
    """Check one package's version and import it.

    Args:
        requirement (`packaging.requirements.Requirement`): name and versions.
        section (`str`): heading for the check.
        required (`bool`): whether AST cannot do without it.
        reinstall (`str`): what to install again, if not only the package, when it is there and does not import.

    Returns:
        [`Check`].
    """
    extras = f"[{','.join(sorted(requirement.extras))}]" if requirement.extras else ""
    wanted = f'"{requirement.name}{extras}{requirement.specifier}"'
    install = f"pip install {wanted}"
    try:
        version = importlib.metadata.version(requirement.name)
    except importlib.metadata.PackageNotFoundError:
        return Check(section, requirement.name, False, "not installed", required, install)
    if not requirement.specifier.contains(version, prereleases=True):
        detail = f"{version} is installed, {requirement.specifier} is needed"
        return Check(section, requirement.name, False, detail, required, install)
    try:
        module = importlib.import_module(IMPORT_NAMES.get(requirement.name, requirement.name.replace("-", "_")))
    except Exception as error:  # whatever an import throws is what the user needs to see
        detail = f"{version} does not import: {explain(error)}"
        mend = f"pip install --force-reinstall {reinstall or wanted}"
        if requirement.name == "sounddevice" and isinstance(error, OSError):  # PortAudio is missing, not the package
            mend = f"on {INSTALL_PORTAUDIO}"
        return Check(section, requirement.name, False, detail, required, mend)
    if requirement.name == "soundfile":
        version += f" (libsndfile {module.__libsndfile_version__})"
    return Check(section, requirement.name, True, version, required)


def check_decoders() -> Iterator[Check]:
    """Try whether a tone comes back from each format, and whether the `ffmpeg` program is there.

    Yields:
        A [`Check`] for each.
    """
    from .audio import FFMPEG_COMMANDS

    install_ffmpeg = "; ".join(f"{system}: {command}" for system, command in FFMPEG_COMMANDS.items())
    for audio_format in TRIED_FORMATS:
        fault = find_decoder_fault(decode_tone_with_soundfile, audio_format)
        mend = "pip install --force-reinstall soundfile"
        yield Check("Decoders", f"soundfile: {audio_format}", not fault, fault or "decodes", mend=mend)
    program = shutil.which("ffmpeg")
    name = "torchcodec: M4A, AAC, WMA ..."
    if importlib.util.find_spec("torchcodec") is None:  # how to get it is said with the packages
        instead = "; the ffmpeg program decodes them" if program else "; the ffmpeg program would decode them"
        yield Check("Decoders", name, False, f"torchcodec is not installed{instead}", required=False)
    else:
        fault = find_decoder_fault(decode_tone_with_torchcodec, "WAV")
        yield Check("Decoders", name, not fault, fault or "decodes", required=False, mend=install_ffmpeg)
    detail = program or f"not found; {PROGRAM_DOES}"
    yield Check("Decoders", "ffmpeg program", program is not None, detail, required=False, mend=install_ffmpeg)


def find_decoder_fault(decode, audio_format: str) -> str:
    """Encode a tone, decode it and listen.

    Args:
        decode (callable): takes the bytes of a file, returns a waveform of shape `(samples,)` and its rate in Hz.
        audio_format (`str`): a format that soundfile writes.

    Returns:
        What is wrong, empty if the tone came back.
    """
    try:
        import numpy as np
        import soundfile

        tone = np.sin(2 * np.pi * TONE_HZ * np.arange(TONE_SAMPLING_RATE) / TONE_SAMPLING_RATE) / 2
        encoded = io.BytesIO()
        soundfile.write(encoded, tone, TONE_SAMPLING_RATE, format=audio_format)
        waveform, rate = decode(encoded.getvalue())
        heard = np.abs(np.fft.rfft(waveform)).argmax() * rate / len(waveform)
    except Exception as error:  # whatever a decoder throws is what the user needs to see
        return explain(error)
    return "" if abs(heard - TONE_HZ) < TONE_HZ / 100 else f"a tone of {TONE_HZ} Hz came back as {heard:.0f} Hz"


def decode_tone_with_soundfile(content: bytes) -> tuple:
    """Decode a mono file with libsndfile, for [`find_decoder_fault`].

    Args:
        content (`bytes`): the file.

    Returns:
        The waveform, `np.ndarray` of shape `(samples,)`, and its sampling rate in Hz.
    """
    import soundfile

    return soundfile.read(io.BytesIO(content))


def decode_tone_with_torchcodec(content: bytes) -> tuple:
    """Decode a mono file with FFmpeg's libraries, for [`find_decoder_fault`].

    Args:
        content (`bytes`): the file.

    Returns:
        The waveform, `np.ndarray` of shape `(samples,)`, and its sampling rate in Hz.
    """
    from torchcodec.decoders import AudioDecoder

    samples = AudioDecoder(content).get_all_samples()
    return samples.data[0].numpy(), samples.sample_rate


def explain(error: Exception) -> str:
    """Put an error in one line: its first, or what torchcodec hides below a list of guesses.

    Args:
        error (`Exception`): what an import or a decoder raised.

    Returns:
        The line.
    """
    lines = str(error).strip().splitlines() or [type(error).__name__]
    if "Could not load libtorchcodec" not in lines[0]:
        return lines[0]
    # One error for each FFmpeg version it knows; all but the installed one say that libav* was not found.
    faults = [line for line in lines if line.startswith("OSError: ")]
    faults = [line for line in faults if "libav" not in line and "Could not load this library" not in line]
    return faults[0] if faults else "FFmpeg's libraries (libavutil and others) are not found"


def check_devices() -> Iterator[Check]:
    """Look up what torch can compute on.

    Yields:
        A [`Check`] for each kind of device.
    """
    try:
        import torch
    except Exception:  # already reported with the packages
        return
    capability = torch.backends.cpu.get_cpu_capability()
    yield Check("Devices", "CPU", True, f"{processor_name()}, {torch.get_num_threads()} threads, {capability}")
    for index in range(torch.cuda.device_count()):
        memory = torch.cuda.get_device_properties(index).total_memory / 2**30
        yield Check("Devices", f"cuda:{index}", True, f"{torch.cuda.get_device_name(index)}, {memory:.0f} GB")
    if not torch.cuda.is_available():
        yield Check("Devices", "CUDA", False, "torch finds no CUDA device", required=False)
    has_mps = torch.backends.mps.is_available()
    detail = "Apple GPU" if has_mps else "torch finds no Apple GPU"
    yield Check("Devices", "MPS", has_mps, detail, required=False)


if __name__ == "__main__":
    sys.exit(main())
