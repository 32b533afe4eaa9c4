"""Columns of arrays: heard as the same clips are as files, whatever numbers they hold, or refused in words."""

import io
import json
import shutil

import datasets
import numpy as np
import pandas as pd
import pytest
import soundfile
from tiny_trainings import FIELDS

from finetune.arguments.groups import DataArguments
from finetune.clip_sets.streaming import load_streams
from finetune.clip_sets.waveforms import hear_clip
from finetune.failures.input_errors import InputError
from finetune.fine_tuning import fine_tune
from finetune.sources.clips import clips_of_dataset, load_clips
from finetune.sources.data_errors import DataError
from modeling_ast.audio import AudioReader

TINY = FIELDS | {"max_length": 32, "num_train_epochs": 1, "save_strategy": "no"}


@pytest.fixture(scope="module")
def samples():
    """16-bit samples of twelve clips of 0.2 s; one is quiet, one silent."""
    generator = np.random.default_rng(0)
    clips = [generator.integers(-20_000, 20_000, 3200).astype(np.int16) for _ in range(12)]
    return [*clips[:10], clips[10] // 200, clips[11] * 0]


@pytest.fixture(scope="module")
def files(samples):
    """The same clips as 16-bit WAV files at 16 kHz."""
    return [wav(clip, "PCM_16") for clip in samples]


def wav(clip: np.ndarray, subtype: str, rate: int = 16_000) -> bytes:
    content = io.BytesIO()
    soundfile.write(content, clip, rate, format="WAV", subtype=subtype)
    return content.getvalue()


def heard(dataset: datasets.Dataset, **columns) -> list[np.ndarray]:
    """The waveforms that a training gets."""
    clips = clips_of_dataset(dataset, DataArguments(dataset_name="in Python", **columns), "the data set")
    return [hear_clip(row["audio"], AudioReader()).waveform for row in clips.rows]


def with_labels(audio: list, **columns) -> datasets.Dataset:
    return datasets.Dataset.from_dict({"audio": audio, "label": ["a", "b"] * (len(audio) // 2)} | columns)


NUMBERS = {
    "int16": lambda clip: clip,
    "list of int": lambda clip: clip.tolist(),
    "int64": lambda clip: clip.astype(np.int64),
    "int32 of 16 bits": lambda clip: clip.astype(np.int32),
    "int32": lambda clip: clip.astype(np.int32) * 2**16,
    "int64 of 32 bits": lambda clip: clip.astype(np.int64) * 2**16,
    "float32": lambda clip: clip / np.float32(2**15),
    "float64": lambda clip: clip / 2**15,
    "list of float": lambda clip: (clip / 2**15).tolist(),
    "two equal channels": lambda clip: np.stack([clip, clip]),
    "two equal channels of float": lambda clip: np.stack([clip, clip]) / 2**15,
}


@pytest.mark.parametrize("numbers", NUMBERS)
def test_arrays_are_heard_as_the_same_clips_in_files(samples, files, numbers):
    arrays = [{"array": NUMBERS[numbers](clip), "sampling_rate": 16_000} for clip in samples]
    for found, file in zip(heard(with_labels(arrays)), files, strict=True):
        np.testing.assert_array_equal(found, soundfile.read(io.BytesIO(file), dtype="float32")[0])


@pytest.mark.parametrize(("numbers", "subtype"), [(np.uint8, "PCM_U8"), (np.int8, "PCM_U8"), (np.int32, "PCM_24")])
def test_integers_of_other_widths_have_the_full_scale_of_files(samples, numbers, subtype):
    expected = [soundfile.read(io.BytesIO(wav(clip / 2**15, subtype)), dtype="float32")[0] for clip in samples]
    offset, scale = {np.uint8: (2**7, 2**7), np.int8: (0, 2**7), np.int32: (0, 2**31)}[numbers]
    arrays = [{"array": (clip * scale + offset).astype(numbers), "sampling_rate": 16_000} for clip in expected]
    for found, wanted in zip(heard(with_labels(arrays)), expected, strict=True):
        np.testing.assert_array_equal(found, wanted)


def test_arrays_of_other_rates_are_resampled_as_files_are(samples):
    rates = [8000, 16_000, 22_050, 32_000] * 3
    arrays = [{"array": clip, "sampling_rate": rate} for clip, rate in zip(samples, rates, strict=True)]
    in_files = [wav(clip, "PCM_16", rate) for clip, rate in zip(samples, rates, strict=True)]
    for found, wanted in zip(heard(with_labels(arrays)), heard(with_labels(in_files)), strict=True):
        np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("kind", ["beside a column of rates", "raw", "array of two dimensions", "split in two"])
def test_other_layouts_of_arrays(samples, files, kind, tmp_path):
    columns = {}
    if kind == "beside a column of rates":
        dataset = with_labels(samples, sampling_rate=[16_000] * 12).rename_column("audio", "wave")
        columns = {"audio_column_name": "wave"}
    elif kind == "raw":
        dataset = with_labels([{"raw": clip, "sampling_rate": 16_000, "path": "a.wav"} for clip in samples])
    elif kind == "array of two dimensions":
        features = {"array": datasets.Array2D((1, 3200), "int16"), "sampling_rate": datasets.Value("int32")}
        features = datasets.Features({"audio": features, "label": datasets.Value("string")})
        rows = {"audio": [{"array": clip[None], "sampling_rate": 16_000} for clip in samples], "label": ["a", "b"] * 6}
        dataset = datasets.Dataset.from_dict(rows, features)
    else:
        rows = with_labels([{"array": clip, "sampling_rate": 16_000} for clip in samples]).with_format("numpy")
        rows.save_to_disk(tmp_path / "rows")  # as a data set larger than the memory is
        dataset = datasets.DatasetDict(
            zip(("train", "test"), rows.train_test_split(6, shuffle=False).values(), strict=True)
        )
        dataset["train"] = datasets.load_from_disk(tmp_path / "rows").select(range(6))
    for found, file in zip(heard(dataset, **columns), files, strict=True):
        np.testing.assert_array_equal(found, soundfile.read(io.BytesIO(file), dtype="float32")[0])


@pytest.mark.parametrize("table", ["clips.jsonl", "clips.parquet"])
def test_arrays_in_a_table(samples, files, tmp_path, table):
    rows = [
        {"audio": {"array": clip, "sampling_rate": 16_000}, "label": "ab"[row % 2]} for row, clip in enumerate(samples)
    ]
    if table.endswith("parquet"):
        pd.DataFrame(rows).to_parquet(tmp_path / table)
    else:
        (tmp_path / table).write_text("".join(json.dumps(row, default=np.ndarray.tolist) + "\n" for row in rows))
    clips = load_clips(DataArguments(dataset_name=str(tmp_path / table)), pooled=False)
    for row, file in zip(clips.rows, files, strict=True):
        found = hear_clip(row["audio"], AudioReader()).waveform
        np.testing.assert_array_equal(found, soundfile.read(io.BytesIO(file), dtype="float32")[0])


def test_a_training_on_arrays_is_that_on_the_same_files(samples, files, tmp_path):
    arrays = [{"array": clip, "sampling_rate": 16_000} for clip in samples]
    summaries = [
        fine_tune(with_labels(audio), output_dir=tmp_path / name, **TINY)
        for name, audio in (("arrays", arrays), ("files", files))
    ]
    assert summaries[0]["evaluation"] == summaries[1]["evaluation"]
    assert summaries[0]["history"][0]["loss"] == summaries[1]["history"][0]["loss"]


def need_ffmpeg():
    if shutil.which("ffmpeg") is None:
        pytest.skip("datasets.Audio encodes arrays with FFmpeg's libraries")


def arrays(values, **others):
    return [{"array": value, "sampling_rate": 16_000} | others for value in values]


@pytest.mark.parametrize(
    ("audio", "columns", "message"),
    [
        (lambda clips: arrays([clip.astype(np.float32) for clip in clips]), {}, r"Row 1 .*% of its samples beyond 2 .*by 32768"),
        (lambda clips: arrays([clip.astype(np.int64) // 200 for clip in clips]), {}, r"holds int64, and the samples of all clips lie from -100 to 99, .*Store 16-bit"),
        (lambda clips: arrays([clip.astype(np.int64) * 100 + 1 for clip in clips]), {}, "holds int64, and the samples"),
        (lambda clips: arrays([clip.astype(np.uint16) for clip in clips]), {}, "holds uint16, and the samples"),
        (lambda clips: arrays([clip > 0 for clip in clips]), {}, "Row 1 of the audio column holds values of type bool"),
        (lambda clips: arrays([np.stack([clip, clip], axis=1) for clip in clips]), {}, r"shape \(3200, 2\), expected \(channels, samples\)\. Store array\.T"),
        (lambda clips: arrays([[clip, clip[1:]] for clip in clips]), {}, "has channels of 3200 and of 3199 samples"),
        (lambda clips: arrays(clips, sampling_rate=None), {}, "Row 1 of the audio column has no sampling_rate"),
        (lambda clips: arrays(clips, sampling_rate=0), {}, "has the sampling rate 0, expected a whole number of Hz"),
        (lambda clips: arrays(clips, sampling_rate=500), {}, "Row 1 .* has the sampling rate 500, expected .* from 1000 to"),
        (lambda clips: [*arrays(clips[:11]), None], {}, r"Row\(s\) 12 have no audio"),
        (lambda clips: clips, {}, "without a sampling_rate, which nothing else says. Store"),
        (lambda clips: arrays(clips), {"features": True}, "nothing but full scale: they were given to datasets.Audio as integers"),
        (lambda clips: arrays([clip.astype(np.float32) for clip in clips]), {"features": True}, "nothing but full scale"),
    ],
)  # fmt: skip
def test_arrays_that_cannot_be_heard_are_refused_in_words(samples, audio, columns, message):
    dataset = with_labels(audio(samples))
    if columns:
        need_ffmpeg()
        features = datasets.Features({"audio": datasets.Audio(), "label": datasets.Value("string")})
        dataset = datasets.Dataset.from_dict({"audio": audio(samples), "label": ["a", "b"] * 6}, features)
    with pytest.raises(DataError, match=message):
        heard(dataset)


def test_a_float_array_may_overshoot_as_decoders_do(samples):
    loud = [np.clip(clip / 2**15 * 4, -1.3, 1.3).astype(np.float32) for clip in samples]
    for found, wanted in zip(heard(with_labels(arrays(loud))), loud, strict=True):
        np.testing.assert_array_equal(found, wanted)


def test_the_type_audio_of_floats_is_taken(samples):
    need_ffmpeg()
    features = datasets.Features({"audio": datasets.Audio(), "label": datasets.Value("string")})
    rows = {"audio": arrays([clip / 2**15 for clip in samples]), "label": ["a", "b"] * 6}
    for found, clip in zip(heard(datasets.Dataset.from_dict(rows, features)), samples, strict=True):
        np.testing.assert_allclose(found, clip / 2**15, atol=2**-15)


def test_the_error_of_a_run_says_what_to_type(samples, tmp_path):
    with pytest.raises(InputError, match="Divide all arrays by their full scale"):
        fine_tune(with_labels(arrays([clip * 1.0 for clip in samples])), output_dir=tmp_path / "run", **TINY)


def test_arrays_are_not_streamed(samples, tmp_path):
    rows = [{"audio": audio, "label": "ab"[row % 2]} for row, audio in enumerate(arrays(samples))]
    for name in ("train", "eval"):
        pd.DataFrame(rows).to_parquet(tmp_path / f"{name}.parquet")
    files = {f"{name}_file": str(tmp_path / f"{name}.parquet") for name in ("train", "eval")}
    streams, _ = load_streams(DataArguments(**files, streaming=True))
    rows = iter(streams["train"])
    with pytest.raises(DataError, match="holds arrays, which are not read a piece at a time. Leave out --streaming"):
        next(rows)
