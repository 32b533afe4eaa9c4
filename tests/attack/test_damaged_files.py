"""Two hundred damaged files in one call: each is right or named, no other is lost, memory and time stay small.

What is right is told from outside: the scores of a file of which nothing is said are those of what libsndfile or the ffmpeg
program makes of it, or of the recording that it was made from, as a plain WAV of floats.
"""

import io
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import torchaudio
from damaged_audio import RATE, Damaged, damaged_files, recording

from modeling_ast.tagging.tagger import AudioTagger
from tests.modeling_ast.tagging.tagged_models import save_checkpoint
from tests.tiny_trainings import flags, summary_in

pytestmark = pytest.mark.attack

ATTACK = "damaged files"
GOOD_OF_A_CLASS = 12
MOST_MEMORY = 1.2e9  # bytes, of one command in all
LONGEST = 5.0  # seconds for a file
LABELS = tuple("abcdefghijklmnop")  # many, so that some score tells two sounds apart
TOLERANCE = 1e-4  # of probabilities: float32, and other resamplers than torchaudio's are not used


@dataclass
class DamagedFolder:
    """A folder of classes with good files and damaged ones.

    Args:
        path (`Path`): the folder.
        damaged (`dict[Path, Damaged]`): by path.
        good (`list[Path]`): the others.
    """

    path: Path
    damaged: dict[Path, Damaged] = field(default_factory=dict)
    good: list[Path] = field(default_factory=list)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> DamagedFolder:
    found = DamagedFolder(tmp_path_factory.mktemp("damaged"))
    for place, label in enumerate("abc"):
        (found.path / label).mkdir()
        for number in range(GOOD_OF_A_CLASS):
            path = found.path / label / f"good_{label}{number:02d}.wav"
            soundfile.write(path, recording(10_000 + 100 * place + number), RATE)
            found.good.append(path)
    counts: Counter[str] = Counter()
    for number, damaged in enumerate(damaged_files()):
        name = f"{damaged.kind}_{counts[damaged.kind]:02d}{damaged.suffix}"
        counts[damaged.kind] += 1
        path = found.path / "abc"[number % 3] / name
        path.write_bytes(damaged.content)
        found.damaged[path] = damaged
    assert (len(counts), set(counts.values())) == (10, {20})
    return found


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    return save_checkpoint(tmp_path_factory.mktemp("checkpoint"), "multi_label_classification", labels=LABELS)


def run(module: str, *arguments: str | Path) -> tuple[int, str, str, float, float]:
    """Run a command: its exit code, output, error stream, most bytes of memory, and seconds."""
    started = time.perf_counter()
    command = [sys.executable, "-m", module, *map(str, arguments)]
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        child = subprocess.Popen(command, stdout=output, stderr=errors)
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.perf_counter() - started
        shown = []
        for stream in (output, errors):
            stream.seek(0)
            shown.append(stream.read().decode(errors="replace"))
    return child.returncode, *shown, 1024 * usage.ru_maxrss, seconds


def outside(content: bytes) -> list[np.ndarray]:
    """What libsndfile and the ffmpeg program make of a file: mono at 16 kHz each, if anything."""
    found = []
    try:
        samples, rate = soundfile.read(io.BytesIO(content), dtype="float32", always_2d=True)
        waveform = torch.from_numpy(samples.mean(axis=1))
        found.append(
            torchaudio.functional.resample(waveform, rate, RATE).numpy() if rate != RATE else waveform.numpy()
        )
    except (soundfile.SoundFileError, RuntimeError, ValueError, MemoryError):
        pass  # a header that it does not read, or that announces more than fits
    if shutil.which("ffmpeg"):
        command = ["ffmpeg", "-v", "quiet", "-i", "-", "-ac", "1", "-ar", str(RATE), "-f", "f32le", "-t", "300", "-"]
        found.append(np.frombuffer(subprocess.run(command, input=content, capture_output=True).stdout, np.float32))
    return [waveform for waveform in found if len(waveform) >= RATE // 20 and np.isfinite(waveform).all()]


def scores_of(tagger: AudioTagger, waveform: np.ndarray, path: Path) -> dict[str, float]:
    soundfile.write(path, waveform, RATE, subtype="FLOAT")
    (tags,) = tagger.tag_files([path], top_k=len(LABELS))
    return {tag.label: tag.score for tag in tags.labels}


def distance(found: dict[str, float], other: dict[str, float]) -> float:
    return max(abs(score - other[label]) for label, score in found.items()) if other else np.inf


def test_each_file_is_tagged_rightly_or_named(folder, checkpoint, tmp_path, show_figures):
    output = tmp_path / "tags.jsonl"
    code, _, errors, peak, seconds = run(
        "modeling_ast.run_tagging", folder.path, "--model_name_or_path", checkpoint, "--format", "jsonl", "--output",
        output, "--device", "cpu", "--top_k", str(len(LABELS)),
    )  # fmt: skip
    assert code == 1, errors[-2000:]
    assert "Traceback" not in errors
    rows = {Path(row["file"]): row for row in map(json.loads, output.read_text().splitlines())}
    refused = {
        path for path in folder.damaged if re.search(rf"^ast-tag: {re.escape(str(path))}\b", errors, re.M)
    } - set(rows)
    noted = {path for path, row in rows.items() if row.get("notes")}
    assert set(folder.good) <= set(rows)
    assert set(rows) | refused == {*folder.good, *folder.damaged}
    assert not set(folder.good) & noted

    tagger = AudioTagger.from_pretrained(checkpoint, "cpu")
    wrong, apart, silent, farthest = [], [], 0, 0.0
    for path, damaged in folder.damaged.items():
        if damaged.is_bad and path not in refused:
            wrong.append(f"{path.name} is not refused")
        if path in refused or path in noted:
            continue
        silent += 1
        own = {row["label"]: row["score"] for row in rows[path]["labels"]}
        candidates = [
            waveform for content in {damaged.content, damaged.original} - {None} for waveform in outside(content)
        ]
        scores = [scores_of(tagger, waveform, tmp_path / "outside.wav") for waveform in candidates]
        nearest = min((distance(own, other) for other in scores), default=np.inf)
        farthest = max(farthest, nearest)
        if nearest > TOLERANCE:
            wrong.append(f"{path.name} has scores {nearest:.3f} from those of any decoder, and nothing is said of it")
        apart.append(distance(own, scores_of(tagger, recording(7), tmp_path / "outside.wav")))
    slowest = {path: _seconds(tagger, path) for path in folder.damaged}
    slow = max(slowest, key=slowest.get)
    show_figures(
        ATTACK,
        f"ast-tag, {len(folder.damaged)} damaged and {len(folder.good)} good: {len(rows)} results, {len(noted)} of them with a note "
        f"and {silent} damaged ones without, {len(refused)} named, exit code {code}, {peak / 1e6:.0f} MB at most, {seconds:.0f} s in all, "
        f"slowest {slow.name} {slowest[slow]:.2f} s; without a note {farthest:.0e} from a decoder at most, "
        f"{np.min(apart):.3f} from another recording at least",
    )  # fmt: skip
    assert not wrong, "\n".join(wrong)
    assert np.min(apart) > 100 * TOLERANCE  # or the comparison would tell nothing
    assert peak < MOST_MEMORY
    assert slowest[slow] < LONGEST, slow


def _seconds(tagger: AudioTagger, path: Path) -> float:
    started = time.perf_counter()
    list(tagger.tag_files([path]))
    return time.perf_counter() - started


def _name(clip: dict) -> str:
    """A file's own name, which is told below the data folder or as outside of it; here no two have one name."""
    return re.split("/|: ", clip["file"])[-1]


@pytest.mark.parametrize("way", [(), ("--streaming",)], ids=["files", "stream"])
def test_a_training_leaves_out_what_cannot_be_used_and_names_it(folder, tmp_path, show_figures, way):
    output = tmp_path / "run"
    source = folder.path
    if "--streaming" in way:
        source = tmp_path / "clips.csv"
        rows = [
            f"{path},{path.parent.name},{'test' if number % 4 == 0 else 'train'}"
            for number, path in enumerate([*folder.damaged, *folder.good])
        ]
        source.write_text("\n".join(["path,label,split", *rows]))
    fixed = [*flags(source, output, num_train_epochs=1, save_strategy="no"), *way]
    code, shown, errors, peak, seconds = run("finetune.run_finetune", *fixed, "--skip_bad_audio")
    assert code == 0, errors[-2000:]
    assert "Traceback" not in errors
    data = summary_in(output)["data"]
    skipped, noted = ({_name(clip) for clip in data[which]} for which in ("skipped_clips", "audio_notes"))
    assert all(_name(clip) in clip["reason"] for clip in data["skipped_clips"])
    names = {path.name: damaged for path, damaged in folder.damaged.items()}
    assert skipped | noted <= set(names)
    # What is tagged without a word is trained on without one; the refused kind of cut-off files is in addition to it.
    assert {name for name, damaged in names.items() if damaged.is_bad} <= skipped | noted
    clips = sum(split["clips"] for split in data["splits"].values())
    assert clips == len(folder.good) + len(names) - len(skipped)
    assert f"{len(skipped)} clip(s) that cannot be used left out" in shown
    show_figures(
        ATTACK,
        f"ast-finetune --skip_bad_audio {' '.join(way)}: {clips} trained on and scored, {len(noted)} of them with a note, "
        f"{len(skipped)} left out and named, exit code {code}, {peak / 1e6:.0f} MB at most, {seconds:.0f} s",
    )  # fmt: skip
    assert peak < 2 * MOST_MEMORY  # an optimiser, an evaluation and a card come on top

    code, _, errors, *_ = run("finetune.run_finetune", *fixed, "--overwrite_output_dir")
    assert code == 2
    assert "clips looked at cannot be used:" in errors
    assert "--skip_bad_audio to leave them out" in errors
    assert any(name in errors for name in skipped)


def test_an_evaluation_leaves_them_out_too(folder, checkpoint, tmp_path):
    relabelled = save_checkpoint(tmp_path / "model", "single_label_classification", labels=("a", "b", "c"))
    code, _, errors, *_ = run(
        "finetune.run_evaluate", "--model_name_or_path", relabelled, "--dataset_name", folder.path, "--skip_bad_audio",
        "--output", tmp_path / "scores.json", "--device", "cpu",
    )  # fmt: skip
    assert code == 0, errors[-2000:]
    skipped = {_name(clip) for clip in json.loads((tmp_path / "scores.json").read_text())["skipped_clips"]}
    assert skipped <= {path.name for path in folder.damaged}
    assert len(skipped) > 50
