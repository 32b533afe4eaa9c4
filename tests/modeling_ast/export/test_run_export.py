"""The command line of the ONNX export: what it says, what it refuses, and what it leaves as it was."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from onnx_files import CANDIDATES, candidate, metadata

from modeling_ast import checkpoint_export, quantization, run_export
from modeling_ast.quantization import QuantizationReport
from modeling_ast.system.installation import install_command
from modeling_ast.tagging.none_of_these import KnownClips

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


def test_without_recordings_synthetic_sounds_are_used_and_said(
    capsys, monkeypatch, without_export, checkpoint, tmp_path
):
    compared = []
    compare = quantization._logits_of_clips
    monkeypatch.setattr(
        quantization, "_logits_of_clips", lambda sessions, clips: compared.extend(clips) or compare(sessions, clips)
    )
    assert run_export.main([str(checkpoint), str(tmp_path / "m.onnx"), "--int8"]) == 0
    shown = capsys.readouterr().out
    assert "Compared on 64 synthetic clips" in shown
    assert "Pass --clips FOLDER" in shown
    for name in CANDIDATES:
        assert sum(line.startswith((f"{name}  ", f"{name} *")) for line in shown.splitlines()) == 1
    last = shown.splitlines()[-1]
    assert last.startswith(f"{tmp_path / 'm.onnx'}: 0.")
    assert "of 64 synthetic clips" in last
    assert len(compared) == 64
    assert json.loads((tmp_path / "m.quantization.json").read_text())["synthetic_clips"] is True


def quantization_report(**of_candidate) -> QuantizationReport:
    return QuantizationReport(
        chosen="QInt8",
        candidates=[candidate(**of_candidate)],
        num_clips=100,
        synthetic_clips=False,
        float32_bytes=100,
        float32_seconds=2.0,
        float32_difference_to_pytorch=1e-6,
        threads=1,
        processor="any",
        versions={},
    )


@pytest.mark.parametrize(("speedup", "told"), [(0.98, True), (1.0, False)])
def test_8_bit_weights_that_gain_no_time_are_told(speedup, told):
    report = quantization_report(labels_kept=100, speedup=speedup)
    lines = list(run_export.format_report(report, Path("m.onnx")))
    assert any("no faster for this model here" in line for line in lines) == told


@pytest.mark.parametrize(("kept", "warned"), [(98, True), (99, False)])
def test_labels_that_are_lost_are_told(kept, warned):
    report = quantization_report(labels_kept=kept)
    lines = list(run_export.format_report(report, Path("m.onnx")))
    assert any("without --int8" in line for line in lines) == warned
    assert not any("synthetic" in line for line in lines)
    assert lines[-1].endswith(f"2.00 times as fast, top label kept on {kept} of 100 clips")
    assert json.loads(json.dumps(asdict(report)))["candidates"][0]["labels_kept"] == kept
    assert replace(report, chosen="QInt8").chosen_candidate.name == "QInt8"


def test_last_line_of_the_float32_export(capsys, monkeypatch, without_export, checkpoint, tmp_path):
    assert run_export.main([str(checkpoint), str(tmp_path / "m.onnx")]) == 0
    megabytes = (tmp_path / "m.onnx").stat().st_size / 1e6
    expected = f"{tmp_path / 'm.onnx'}: {megabytes:.1f} MB, largest difference to PyTorch's logits 0.0e+00"
    assert capsys.readouterr().out.splitlines()[-1] == expected


def test_that_a_file_knows_no_training_clips_is_told(capsys, monkeypatch, without_export, checkpoint, tmp_path):
    folder = shutil.copytree(checkpoint, tmp_path / "knowing")
    KnownClips(np.eye(32, dtype=np.float32), 1, 1.0).save(folder)
    assert run_export.main([str(folder), str(tmp_path / "m.onnx")]) == 0
    said = f"does not tell clips that are none of the labels (--none_of_these); ast-tag with {folder} does."
    assert capsys.readouterr().out.splitlines()[-1].endswith(said)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["{folder}/gone", "{folder}/m.onnx"], "There is no folder {folder}/gone. Pass one that ast-finetune"),
        (["user/name", "{folder}/m.onnx"], "hf download user/name --local-dir CHECKPOINT_DIR"),
        (["{folder}", "{folder}/m.onnx"], "has no config.json and no preprocessor_config.json"),
        (["{checkpoint}", "{folder}/m.pt"], "{folder}/m.pt does not end in .onnx. Pass for example {folder}/m.onnx"),
        (["{checkpoint}", "{folder}/no/m.onnx"], "Type: mkdir -p {folder}/no"),
        (["{checkpoint}", "{folder}/folder.onnx"], "is a folder. Pass the name of a file"),
        (
            ["{checkpoint}", "{folder}"],
            "{folder} is a folder. Pass the name of a file, for example {folder}/model.onnx",
        ),
        (["{checkpoint}", "."], "ast-export: . is a folder. Pass the name of a file, for example model.onnx"),
        (["{checkpoint}", ".."], "ast-export: .. is a folder. Pass the name of a file, for example ../model.onnx"),
        (
            ["{checkpoint}", "{folder}/folder.onnx/null.onnx", "--overwrite"],
            "null.onnx is no file but a device, a pipe",
        ),
        (["{checkpoint}", "{folder}/there.onnx"], "there.onnx already exists. Pass --overwrite"),
        (
            ["{checkpoint}", "{folder}/other.onnx", "--int8"],
            "other.quantization.json already exists. Pass --overwrite",
        ),
        (
            ["{checkpoint}", "{folder}/m.onnx", "--int8", "--clips", "{folder}/no.wav"],
            "no file or folder {folder}/no.wav",
        ),
        (["{checkpoint}", "{folder}/m.onnx", "--int8", "--clips", "{folder}/text.wav"], "text.wav holds text"),
        (["{checkpoint}", "{folder}/m.onnx", "--int8", "--clips", "{folder}/brief.wav"], "brief.wav cannot be used"),
    ],
)
def test_what_cannot_be_used_is_explained_in_one_line(capsys, checkpoint, tmp_path, arguments, words):
    (tmp_path / "folder.onnx").mkdir()
    (tmp_path / "there.onnx").write_text("before")
    (tmp_path / "folder.onnx" / "null.onnx").symlink_to(os.devnull)
    (tmp_path / "other.quantization.json").write_text("before")
    (tmp_path / "text.wav").write_text("not audio")
    soundfile.write(tmp_path / "brief.wav", np.zeros(399), 16_000)
    before = sorted(os.listdir(tmp_path))
    places = {"folder": tmp_path, "checkpoint": checkpoint}
    assert run_export.main([argument.format(**places) for argument in arguments]) == 2
    shown = capsys.readouterr()
    (line,) = [line for line in shown.err.splitlines() if line.startswith("ast-export: ")]
    assert words.format(**places) in line
    assert shown.out == ""
    assert sorted(os.listdir(tmp_path)) == before
    assert (tmp_path / "there.onnx").read_text() == "before"


def test_int8_is_not_advised_for_frames(capsys, monkeypatch, checkpoint, tmp_path):
    folder = shutil.copytree(checkpoint, tmp_path / "frames")
    config = json.loads((folder / "config.json").read_text())
    config["architectures"] = ["ASTForAudioFrameClassification"]
    (folder / "config.json").write_text(json.dumps(config))

    def export(_folder, path, _settings):
        path.write_bytes(b"")
        return 0.0

    monkeypatch.setattr(checkpoint_export, "export_checkpoint", export)
    assert run_export.main([str(folder), str(tmp_path / "m.onnx"), "--float16"]) == 0
    assert capsys.readouterr().out.endswith("On a CPU that is no faster; for one, leave --float16 out.\n")


def test_channels_are_those_of_the_clips_and_not_of_the_file(monkeypatch, without_export, checkpoint, tmp_path):
    channels = np.random.default_rng(0).uniform(-0.5, 0.5, (8000, 2)).astype(np.float32)
    soundfile.write(tmp_path / "stereo.wav", channels, 16_000, subtype="FLOAT")
    given, export = [], quantization.export_quantized_onnx
    monkeypatch.setattr(
        quantization,
        "export_quantized_onnx",
        lambda model, extractor, path, clips, *rest: (
            given.extend(clips) or export(model, extractor, path, clips, *rest)
        ),
    )
    arguments = ["--waveform", "--int8", "--clips", str(tmp_path / "stereo.wav"), "--channels", "right"]
    assert run_export.main([str(checkpoint), str(tmp_path / "m.onnx"), *arguments]) == 0
    (clip,) = given
    np.testing.assert_array_equal(clip["waveform"][0], channels[:, 1])
    assert json.loads(metadata(tmp_path / "m.onnx")["channels"]) == "mean"


def test_clips_without_int8_are_refused(capsys, checkpoint, tmp_path):
    with pytest.raises(SystemExit) as ended:
        run_export.main([str(checkpoint), str(tmp_path / "m.onnx"), "--clips", str(tmp_path)])
    assert ended.value.code == 2
    assert "--clips is what --int8 is compared on. Add --int8" in capsys.readouterr().err


def test_overwrite_replaces_files(without_export, checkpoint, exported, recordings, tmp_path):
    for name in ("m.onnx", "m.quantization.json"):
        (tmp_path / name).write_text("before")
    arguments = [str(checkpoint), str(tmp_path / "m.onnx"), "--overwrite"]
    assert run_export.main(arguments) == 0
    assert (tmp_path / "m.onnx").read_bytes() == exported.read_bytes()
    clip = next(recordings.iterdir())
    assert run_export.main([*arguments, "--int8", "--clips", str(clip)]) == 0
    assert "quantization" in metadata(tmp_path / "m.onnx")
    assert json.loads((tmp_path / "m.quantization.json").read_text())["num_clips"] == 1


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
def test_missing_packages_are_named(capsys, monkeypatch, checkpoint, tmp_path, package):
    monkeypatch.setitem(sys.modules, package, None)
    clips = ["--int8", "--clips", str(tmp_path / "gone.wav")]  # about which is complained only after that
    assert run_export.main([str(checkpoint), str(tmp_path / "m.onnx"), *clips]) == 2
    shown = capsys.readouterr().err
    assert f"needs {package}, " in shown
    assert f"Type: {install_command('onnx')}" in shown


@pytest.mark.parametrize("flags", [[], ["--int8"]])
def test_full_disk_leaves_what_was_there(capsys, monkeypatch, without_export, checkpoint, tmp_path, flags):
    def fail(_descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    (tmp_path / "m.onnx").write_text("before")
    assert run_export.main([str(checkpoint), str(tmp_path / "m.onnx"), "--overwrite", *flags]) == 1
    assert "m.onnx was not written: [Errno 28] No space left on device. Name a place" in capsys.readouterr().err
    assert os.listdir(tmp_path) == ["m.onnx"]
    assert (tmp_path / "m.onnx").read_text() == "before"


@pytest.mark.parametrize(("arguments", "code"), [(["--help"], 0), (["gone", "m.onnx"], 2), (["gone"], 2)])
def test_help_and_wrong_arguments_import_nothing_heavy(arguments, code):
    script = (
        "import sys\n"
        "from modeling_ast.run_export import main\n"
        "try:\n    code = main(sys.argv[1:])\n"
        "except SystemExit as ended:\n    code = ended.code\n"
        "print(code, sorted({'torch', 'transformers', 'numpy', 'onnx', 'onnxruntime'} & set(sys.modules)))\n"
    )
    child = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=True)
    assert child.stdout.splitlines()[-1] == f"{code} []"


def test_module_runs_as_a_program():
    child = subprocess.run(
        [sys.executable, "-m", "modeling_ast.run_export", "gone", "m.onnx"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert child.returncode == 2
    assert child.stderr.startswith("ast-export: There is no folder gone.")
