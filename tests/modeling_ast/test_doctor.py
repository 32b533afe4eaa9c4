"""The doctor: a real run on this machine, and made-up illnesses."""

import importlib.metadata
import importlib.util
import json
import subprocess
import sys

import numpy as np
import pytest
from packaging.requirements import Requirement

from modeling_ast import doctor
from modeling_ast.doctor import Check

FFMPEG_NOT_FOUND = """Could not load libtorchcodec. Likely causes:
  1. FFmpeg is not properly installed
FFmpeg version 9:
OSError: libavutil.so.61: cannot open shared object file: No such file or directory
OSError: Could not load this library: /somewhere/libtorchcodec_core9.so
FFmpeg version 7:
OSError: {}: cannot open shared object file: No such file or directory
"""


@pytest.fixture(scope="module")
def checks():
    found = [*doctor.check_system(), *doctor.check_packages(), *doctor.check_decoders(), *doctor.check_devices()]
    return {check.name: check for check in found}


def test_every_requirement_is_looked_at(checks):
    requirements = [*map(Requirement, importlib.metadata.requires("ast-kit"))]
    always = {requirement.name for requirement in requirements if requirement.marker is None}
    for requirement in requirements:
        if requirement.marker is None:
            check = checks[requirement.name]
            assert check.works, check
            assert check.required
            assert check.detail.startswith(importlib.metadata.version(requirement.name))
        elif requirement.name == "ast-kit":  # the test tools' way to say: and the other extras
            assert requirement.extras
        elif "dev" in str(requirement.marker):
            assert requirement.name not in checks
        else:  # what an extra names that is needed anyway is no option
            assert checks[requirement.name].required == (requirement.name in always)


def test_decoders_are_tried(checks):
    for audio_format in ("WAV", "FLAC", "OGG", "MP3"):
        assert checks[f"soundfile: {audio_format}"].detail == "decodes"
    assert not checks["torchcodec: M4A, AAC, WMA ..."].required
    assert not checks["ffmpeg program"].required
    assert checks["CPU"].works


def test_decoder_that_plays_something_else_is_found_out():
    def decode_to_noise(_content):
        return np.random.default_rng(0).normal(size=16_000), 16_000

    assert "a tone of 440 Hz came back as" in doctor.find_decoder_fault(decode_to_noise, "WAV")
    assert doctor.find_decoder_fault(doctor.decode_tone_with_soundfile, "WAV") == ""


def test_decoder_that_fails_is_explained():
    def fail(_content):
        raise RuntimeError("first line\nsecond line")

    assert doctor.find_decoder_fault(fail, "WAV") == "first line"


def test_torchcodec_without_ffmpeg_is_explained():
    without = RuntimeError(FFMPEG_NOT_FOUND.format("libavutil.so.59"))
    assert doctor.explain(without) == "FFmpeg's libraries (libavutil and others) are not found"
    lacking_python = RuntimeError(FFMPEG_NOT_FOUND.format("libpython3.so"))
    assert doctor.explain(lacking_python).startswith("OSError: libpython3.so: cannot open")
    assert doctor.explain(ValueError()) == "ValueError"


def test_torchaudio_built_for_another_cuda(monkeypatch):
    words = "Detected that PyTorch and TorchAudio were compiled with different CUDA versions.\nInstall others."
    monkeypatch.delitem(sys.modules, "torchaudio", raising=False)

    def import_module(name):
        if name == "torchaudio":
            raise RuntimeError(words)
        return sys.modules.get(name) or sys

    monkeypatch.setattr(doctor.importlib, "import_module", import_module)
    checks = {check.name: check for check in doctor.check_packages() if check.name in ("torch", "torchaudio")}
    assert checks["torch"].works
    assert not checks["torchaudio"].works
    assert checks["torchaudio"].required
    assert checks["torchaudio"].detail.endswith(f"does not import: {words.splitlines()[0]}")
    command = checks["torchaudio"].mend
    assert command.startswith('pip install --force-reinstall "torch<')
    assert '"torchaudio>=' in command


def test_missing_and_old_packages():
    missing = doctor.check_package(Requirement("no-such-package-here>=2"), "Packages", required=True)
    assert (missing.works, missing.detail, missing.mend) == (
        False,
        "not installed",
        'pip install "no-such-package-here>=2"',
    )
    old = doctor.check_package(Requirement("numpy>=999"), "Packages", required=True)
    assert not old.works
    assert old.detail == f"{np.__version__} is installed, >=999 is needed"
    assert old.mend == 'pip install "numpy>=999"'


def test_the_command_that_installs_a_package_has_its_extras():
    missing = doctor.check_package(Requirement("no-such-package-here[data,air]>=2"), "Packages", required=False)
    assert missing.mend == 'pip install "no-such-package-here[air,data]>=2"'


def test_sounddevice_without_its_library(monkeypatch):
    def fail(_name):
        raise OSError("PortAudio library not found")

    monkeypatch.setattr(doctor.importlib, "import_module", fail)
    monkeypatch.setattr(doctor.importlib.metadata, "version", lambda _name: "0.5.6")
    check = doctor.check_package(Requirement("sounddevice>=0.5.6"), "Packages", required=False)
    assert check.detail == "0.5.6 does not import: PortAudio library not found"
    assert check.mend == "on Debian and Ubuntu with: apt-get install libportaudio2"
    assert "force-reinstall" in doctor.check_package(Requirement("other"), "Packages", required=False).mend


def test_sounddevice_that_is_broken_itself_is_installed_again(monkeypatch):
    def fail(_name):
        raise ImportError("cannot import name 'x'")

    monkeypatch.setattr(doctor.importlib, "import_module", fail)
    monkeypatch.setattr(doctor.importlib.metadata, "version", lambda _name: "0.5.6")
    check = doctor.check_package(Requirement("sounddevice>=0.5.6"), "Packages", required=False)
    assert check.mend == 'pip install --force-reinstall "sounddevice>=0.5.6"'


def test_what_the_ffmpeg_program_is_for(monkeypatch):
    monkeypatch.setattr(doctor.shutil, "which", lambda _name: None)
    checks = {check.name: check for check in doctor.check_decoders()}
    detail = checks["ffmpeg program"].detail
    assert detail.startswith(
        "not found; it decodes what torchcodec cannot, or not to its end, passes over damaged spots"
    )
    assert "only" not in detail


@pytest.fixture
def only_installed(monkeypatch):
    """Let no other distributions be installed than these, and the kit itself."""
    version, find_spec = importlib.metadata.version, importlib.util.find_spec

    def leave(*names):
        def version_of(name):
            if name not in ("ast-kit", *names):
                raise importlib.metadata.PackageNotFoundError(name)
            return version(name)

        monkeypatch.setattr(doctor.importlib.metadata, "version", version_of)
        monkeypatch.setattr(
            doctor.importlib.util, "find_spec", lambda name: find_spec(name) if name in names else None
        )
        monkeypatch.setattr(doctor, "check_devices", lambda: iter(()))  # of PyTorch

    return leave


def test_an_installation_without_pytorch_is_whole(only_installed, monkeypatch, capsys):
    pytest.importorskip("onnxruntime")
    monkeypatch.setattr(doctor, "install_command", lambda: "pip install --editable checkout")
    only_installed("onnxruntime", "numpy", "soundfile", "soxr")
    assert doctor.main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "Everything that use without PyTorch needs is here."
    (line,) = [line for line in lines if line.startswith("  use without PyTorch ")]
    assert line.endswith(" ok       ast-tag with a file of ast-export --waveform")
    assert not [line for line in lines if "MISSING" in line]
    assert lines.count("      pip install --editable checkout") == 1
    training = lines[lines.index("For training, export and model folders") :]
    assert training[1].split()[:2] == ["torch", "-"]
    assert [line for line in lines if line.startswith("  sounddevice ")], "which needs no PyTorch"
    for once in ("onnxruntime", "numpy", "soundfile", "soxr"):
        assert len([line for line in lines if line.startswith(f"  {once} ")]) == 1, once
    (torchcodec,) = [line for line in lines if line.startswith("  torchcodec: M4A")]
    assert "torchcodec is not installed; the ffmpeg program " in torchcodec
    assert not [line for line in lines if line.startswith("  torchcodec: M4A") and "apt-get" in line]


def test_half_an_installation_without_pytorch_is_broken(only_installed, capsys):
    only_installed("numpy", "soundfile", "soxr")
    assert doctor.main([]) == 1
    assert "use without PyTorch" not in capsys.readouterr().out


def test_checkout_that_is_not_installed(monkeypatch):
    installed = importlib.metadata.requires("ast-kit")

    def requires(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(doctor.importlib.metadata, "requires", requires)
    monkeypatch.setattr(doctor, "install_command", lambda: "pip install --editable checkout")
    checks = {check.name: check for check in doctor.check_packages()}
    assert not checks["ast-kit"].works
    assert checks["ast-kit"].required
    assert checks["ast-kit"].mend == "pip install --editable checkout"
    assert {Requirement(line).name for line in installed if "extra ==" not in line} | {"ast-kit"} == set(checks)


@pytest.mark.parametrize(("works", "code"), [(True, 0), (False, 1)])
def test_exit_code_and_closing_words(monkeypatch, capsys, works, code):
    found = [
        Check("Packages", "needed", works, "detail", mend="pip install needed"),
        Check("Packages", "also needed", works, "detail", mend="pip install needed"),
        Check("Optional", "extra", False, "not installed", required=False, mend="pip install extra"),
        Check("Devices", "CUDA", False, "none", required=False),
    ]
    monkeypatch.setattr(doctor, "check_system", lambda: iter(found))
    for name in ("check_packages", "check_decoders", "check_devices"):
        monkeypatch.setattr(doctor, name, lambda: iter(()))
    assert doctor.main([]) == code
    shown = capsys.readouterr().out
    lines = shown.splitlines()
    assert ("Everything that AST needs is here." in lines) is works
    assert ("Missing:" in lines) is not works
    assert lines.count("      pip install needed") == (0 if works else 1)
    assert "      pip install extra" in lines
    assert shown.count("CUDA") == 1

    assert doctor.main(["--json"]) == code
    report = json.loads(capsys.readouterr().out)
    assert report["works"] is works
    assert [check["name"] for check in report["checks"]] == ["needed", "also needed", "extra", "CUDA"]


def test_help_imports_nothing_heavy():
    script = (
        "import sys\n"
        "from modeling_ast.doctor import main\n"
        "try:\n    main(['--help'])\n"
        "except SystemExit as ended:\n"
        "    heavy = {'torch', 'transformers', 'datasets', 'numpy', 'packaging'} & set(sys.modules)\n"
        "    print(ended.code, sorted(heavy))\n"
    )
    child = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert child.stdout.splitlines()[-1] == "0 []"
