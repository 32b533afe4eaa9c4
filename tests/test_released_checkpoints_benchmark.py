"""`benchmarks.released_checkpoints` with seeded weights, all of them served on loopback; the outside truth is stock Transformers."""

import dataclasses
import io
import json
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
import torch
from hub_repositories import Commit, File, Repo
from safetensors.torch import load_file, save_file
from transformers.models.audio_spectrogram_transformer import modeling_audio_spectrogram_transformer as stock
from transformers.models.audio_spectrogram_transformer.feature_extraction_audio_spectrogram_transformer import (
    ASTFeatureExtractor as StockFeatureExtractor,
)

from benchmarks import released_checkpoints as benchmark
from benchmarks.conversion_agreement import original_weights
from conversion.convert_ast_checkpoint import convert_checkpoint
from conversion.released_checkpoints import RELEASED

TINY = "checkpoint/tiny224_f10_t10_T1024_n527"
AUDIOSET, SPEECH = "audioset_16_16_0.4422", "speechcommands_10_10_0.9812"
POSITIONS = {AUDIOSET: 2 + 8 * 64, SPEECH: 2 + 12 * 12}
LAYERS = 2  # of the original's 12
CHANGED = "audio_spectrogram_transformer.encoder.layer.1.attention.output.dense.weight"
CHILD = f"""
import dataclasses, json
from conversion import original_checkpoint, weight_map
from conversion import released_checkpoints as table
weight_map.NUM_LAYERS = original_checkpoint.NUM_LAYERS = table.NUM_LAYERS = {LAYERS}
from benchmarks import released_checkpoints as benchmark
settings = json.load(open("settings.json"))
table.RELEASED = {{name: dataclasses.replace(table.RELEASED[name], **row) for name, row in settings["rows"].items()}}
benchmark.PUBLISHED_LOGITS = settings["published"]
print("returned", benchmark.main(["--download_dir", "downloads"]))
"""


def wav(frequency: float, seconds: float, format: str) -> bytes:
    """A tone with some noise, as a file."""
    samples = np.sin(2 * np.pi * frequency * np.arange(int(16_000 * seconds)) / 16_000)
    noise = np.random.default_rng(0).standard_normal(len(samples))
    file = io.BytesIO()
    soundfile.write(file, (0.3 * samples + 0.01 * noise).astype(np.float32), 16_000, format=format, subtype="PCM_16")
    return file.getvalue()


def serve(hub, kind: str, repo_id: str, revision: str = "main", **files: bytes) -> None:
    """Put files on the Hub, those of weights into its blob store."""
    stored = {path: File(content, large=len(content) > 1_000_000) for path, content in files.items()}
    hub.blobs |= {file.sha256: file.content for file in stored.values() if file.large}
    commit = Commit("files", "", repo_id.split("/")[0], {".gitattributes": File(b""), **stored})
    hub.repos[kind, repo_id] = Repo(kind, repo_id, False, {"main": commit, revision: commit})


def parquet(*clips: bytes) -> bytes:
    """A table of clips as the Hub converts an audio data set."""
    file = io.BytesIO()
    audio = [{"bytes": content, "path": f"{number}.wav"} for number, content in enumerate(clips)]
    pq.write_table(pa.table({"audio": audio, "label": list(range(len(clips)))}), file)
    return file.getvalue()


def stock_logits(folder: Path, clip: bytes) -> list[float]:
    """The first three logits, by stock Transformers."""
    waveform, _ = soundfile.read(io.BytesIO(clip), dtype="float32")
    features = StockFeatureExtractor.from_pretrained(folder)(waveform, sampling_rate=16_000, return_tensors="pt")
    with torch.no_grad():
        return stock.ASTForAudioClassification.from_pretrained(folder).eval()(**features).logits[0, :3].tolist()


@pytest.fixture
def released(hub, tmp_path, monkeypatch):
    """Two tiny checkpoints of two layers at the authors' place, their conversions on the Hub, one with a changed tensor, and the clips."""
    for module in ("weight_map", "original_checkpoint", "released_checkpoints"):
        monkeypatch.setattr(f"conversion.{module}.NUM_LAYERS", LAYERS)
    clips = {AUDIOSET: wav(440, 10, "FLAC"), SPEECH: wav(600, 1, "WAV")}
    settings = {"rows": {}, "published": {}}
    for name, clip in clips.items():
        row = dataclasses.replace(RELEASED[name], model_size="tiny224")
        weights = {
            key: tensor
            for key, tensor in original_weights(TINY).items()
            if not (block := re.match(r"v\.blocks\.(\d+)\.", key)) or int(block[1]) < LAYERS
        }
        weights["v.pos_embed"] = weights["v.pos_embed"][:, : POSITIONS[name]]
        for part in ("mlp_head.1.weight", "mlp_head.1.bias"):
            weights[part] = weights[part][: row.dataset.num_labels]
        path, folder = tmp_path / f"{name}.pth", tmp_path / name
        torch.save({f"module.{key}": tensor.clone() for key, tensor in weights.items()}, path)
        serve(hub, "models", f"authors/{name}", **{path.name: path.read_bytes()})
        convert_checkpoint(path, folder, released=row, report=lambda line: None)
        settings["published"][name] = stock_logits(folder, clip)
        if name == SPEECH:
            tensors = load_file(folder / "model.safetensors")
            tensors[CHANGED][0, :5] += 0.25
            save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        files = {each: (folder / each).read_bytes() for each in ("config.json", "model.safetensors")}
        serve(hub, "models", f"user/{name}", **files)
        address = f"{hub.endpoint}/authors/{name}/resolve/main/{path.name}"
        settings["rows"][name] = {"model_size": "tiny224", "hub_id": f"user/{name}", "address": address}
    serve(hub, "datasets", benchmark.SAMPLE_REPOSITORY, **{benchmark.SAMPLE_FILE: clips[AUDIOSET]})
    tables = {
        f"{folder}/0000.parquet": parquet(*contents)
        for folder, contents in {
            "v0.01/validation": [wav(900, 1, "WAV")],
            "v0.02/train": [wav(900, 1, "WAV")],
            "v0.02/validation": [clips[SPEECH], wav(900, 1, "WAV")],
        }.items()
    }
    serve(hub, "datasets", "google/speech_commands", "refs/convert/parquet", **tables)
    return settings


def test_downloads_conversions_and_clips_agree_with_stock(hub, released):
    (hub.home / "settings.json").write_text(json.dumps(released))
    said = hub.run(CHILD).stdout
    audioset, speech = said[: said.index(f"{SPEECH}: ")], said[said.index(f"{SPEECH}: ") :]
    assert f"downloading {released['rows'][AUDIOSET]['address']}" in audioset
    assert f"{AUDIOSET}: 43 of 43 tensors are the Hub's\n" in audioset
    as_published = r"^  {} frames: logits \S+ \S+ \S+, as published, largest difference \S+e-0[5-9]$"
    assert re.search(as_published.format(1024), audioset, re.MULTILINE)
    told = f"{SPEECH}: 42 of 43 tensors are the Hub's\n  {CHANGED}: 5 of 36864 values differ, by up to 2.5e-01\n"
    assert speech.startswith(told)
    assert re.search(as_published.format(128), speech, re.MULTILINE)
    published = " ".join(f"{logit:.4f}" for logit in released["published"][SPEECH])
    assert re.search(rf"^  1024 frames: logits .*, published {published}, largest difference \d", speech, re.MULTILINE)
    assert speech.endswith("1 of 2 checkpoints agree with the Hub's copies and the published logits.\nreturned 1\n")


def test_only_agreement_of_all_returns_0(monkeypatch, capsys):
    found = {
        AUDIOSET: benchmark.Comparison(AUDIOSET, 2, {}, (0.0, 1.0), {1024: (0.0, 1.0002)}),
        SPEECH: benchmark.Comparison(SPEECH, 2, {}, (0.0, 1.0), {128: (0.0, 1.00005), 1024: (float("nan"), 1.0)}),
    }

    def compare(row, download_dir, folder):
        if row.name not in found:
            raise OSError("user/missing is not\na repository")
        return found[row.name]

    monkeypatch.setattr(benchmark, "compare_released", compare)
    assert benchmark.main([SPEECH]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{SPEECH}: 2 of 2 tensors are the Hub's",
        "  128 frames: logits 0.0000 1.0001, as published, largest difference 5.0e-05",
        "  1024 frames: logits nan 1.0000, published 0.0000 1.0000, largest difference nan",
        "1 of 1 checkpoints agree with the Hub's copies and the published logits.",
    ]
    assert benchmark.main(["audioset_14_14_0.4431", AUDIOSET]) == 1
    assert capsys.readouterr().out.splitlines() == [
        "audioset_14_14_0.4431: not compared: user/missing is not a repository",
        f"{AUDIOSET}: 2 of 2 tensors are the Hub's",
        "  1024 frames: logits 0.0000 1.0002, published 0.0000 1.0000, largest difference 2.0e-04",
        "  no number of frames gives the published logits within 0.0001",
        "0 of 2 checkpoints agree with the Hub's copies and the published logits.",
    ]


def test_tensors_of_other_names_and_shapes_are_told():
    ones, twos = torch.ones(2), torch.ones(1, 2)
    assert benchmark.unlike_tensors({"a": ones, "b": ones, "c": ones}, {"b": ones, "c": twos, "d": ones}) == {
        "a": "is only in the converted checkpoint",
        "c": "is (2,), (1, 2) on the Hub",
        "d": "is only in the copy of the Hub",
    }


def test_a_clip_of_another_kind_is_refused(monkeypatch, tmp_path):
    path = tmp_path / "sample_audio.flac"
    soundfile.write(path, np.zeros((100, 2)), 44_100)
    monkeypatch.setattr(benchmark, "hf_hub_download", lambda *arguments, **options: str(path))
    with pytest.raises(
        ValueError, match=r"sample_audio.flac has 44100 Hz and shape \(100, 2\), expected one channel at 16000"
    ):
        benchmark.sample_clip.__wrapped__()


def test_an_unknown_name_is_refused_and_all_have_logits(capsys):
    with pytest.raises(SystemExit) as caught:
        benchmark.main(["audioset_10_10_0.459"])
    assert caught.value.code == 2
    assert (
        "audioset_10_10_0.459 is no released checkpoint; there are audioset_10_10_0.4593, " in capsys.readouterr().err
    )
    assert benchmark.PUBLISHED_LOGITS.keys() == RELEASED.keys()


def test_a_table_for_128_frames_takes_no_1024_in_stock(tiny_sizes):
    """Why the script's clip of Speech Commands cannot have been padded to 1024 frames with the model as it is published."""
    model = stock.ASTForAudioClassification(stock.ASTConfig(**tiny_sizes | {"max_length": 128}))
    with pytest.raises(RuntimeError, match=r"size of tensor a \(1214\) must match the size of tensor b \(146\)"):
        model(torch.zeros(1, 1024, 128))
