"""The feature extractor: its settings and paddings, every kind of input, what is refused and what is warned of."""

import json
from collections import deque

import numpy as np
import pytest
import torch
from kaldi_reference import MAX_TOLERANCE, MEAN_TOLERANCE
from torch.overrides import TorchFunctionMode
from transformers.models.audio_spectrogram_transformer.feature_extraction_audio_spectrogram_transformer import (
    ASTFeatureExtractor as StockFeatureExtractor,
)

from modeling_ast import ASTFeatureExtractor, feature_extraction_ast
from modeling_ast.audio.arrays import look_like_channels
from modeling_ast.features.kaldi import num_frames, num_samples


@pytest.mark.parametrize("num_mel_bins", [64, 128])
def test_a_batch_of_several_lengths_equals_stock_transformers(drum_clips, num_mel_bins):
    settings = {"max_length": 60, "num_mel_bins": num_mel_bins, "mean": -6.5, "std": 5.5}  # cuts some, pads some
    theirs = StockFeatureExtractor(**settings)(drum_clips, sampling_rate=16_000, return_tensors="pt").input_values
    ours = ASTFeatureExtractor(**settings)(drum_clips, sampling_rate=16_000, return_tensors="pt").input_values
    difference = (ours - theirs).abs() * 2 * settings["std"]
    assert ours.shape == theirs.shape == (len(drum_clips), 60, num_mel_bins)
    assert difference.mean() < MEAN_TOLERANCE
    assert difference.max() < MAX_TOLERANCE


@pytest.mark.parametrize("kind", ["read-only", "reversed"])
def test_arrays_that_torch_cannot_take_as_they_are_are_copied(drum_clips, kind):
    clip = drum_clips[0]
    given = clip[::-1]
    expected = clip[::-1].copy()
    if kind == "read-only":
        given = clip.copy()
        given.flags.writeable = False
        expected = clip
    features = [
        ASTFeatureExtractor()(array, sampling_rate=16_000, return_tensors="pt").input_values
        for array in (given, expected)
    ]
    assert torch.equal(*features)


@pytest.mark.parametrize("dtype", [np.int16, np.float32])
def test_the_given_waveform_is_left_as_it_was(dtype):
    clip = np.arange(8000).astype(dtype)
    before = clip.copy()
    ASTFeatureExtractor()([clip, clip], sampling_rate=16_000)
    ASTFeatureExtractor()(clip, sampling_rate=16_000)
    assert np.array_equal(clip, before)


def test_settings_are_interchangeable_with_stock_transformers(tmp_path):
    ours = ASTFeatureExtractor(max_length=64, mean=np.float32(-6.5), std=np.float32(5.5))
    ours.save_pretrained(tmp_path / "ours")
    theirs = StockFeatureExtractor.from_pretrained(tmp_path / "ours")
    assert (theirs.max_length, theirs.mean, theirs.std) == (64, -6.5, 5.5)
    theirs.save_pretrained(tmp_path / "theirs")
    again = ASTFeatureExtractor.from_pretrained(tmp_path / "theirs")
    assert json.loads(again.to_json_string()) == json.loads(ours.to_json_string())


def test_padding_modes(drum_clips):
    extractor = ASTFeatureExtractor(max_length=80)
    frames = [min(num_frames(len(clip), 16_000), 80) for clip in drum_clips]
    full = extractor(drum_clips, sampling_rate=16_000, return_tensors="pt").input_values
    longest = extractor(drum_clips, sampling_rate=16_000, return_tensors="pt", padding="longest")
    assert longest.input_values.shape[1] == max(frames)
    assert longest.attention_mask.sum(dim=1).tolist() == frames
    torch.testing.assert_close(longest.input_values, full[:, : max(frames)])
    padding_value = (0 - extractor.mean) / (2 * extractor.std)
    shortest = int(np.argmin(frames))
    torch.testing.assert_close(
        full[shortest, frames[shortest] :], torch.full((80 - frames[shortest], 128), padding_value)
    )
    unpadded = extractor(drum_clips, sampling_rate=16_000, padding=False).input_values
    assert [len(clip) for clip in unpadded] == [max(count, 16) for count in frames]
    assert extractor(drum_clips, sampling_rate=16_000, max_length=32, return_tensors="np").input_values.shape[1] == 32


def test_without_truncation_a_long_clip_stays_whole():
    clip = np.zeros(num_samples(300, 16_000), np.float32)
    extractor = ASTFeatureExtractor(max_length=100)
    whole = extractor(clip, sampling_rate=16_000, truncation=False, return_tensors="pt").input_values
    assert whole.shape[1] == 300
    assert extractor(clip, sampling_rate=16_000, return_tensors="pt").input_values.shape[1] == 100


def test_a_clip_shorter_than_a_patch_is_padded_to_one():
    outputs = ASTFeatureExtractor()(np.ones(800, np.float32), sampling_rate=16_000, padding="longest")
    assert outputs.input_values[0].shape == (16, 128)
    assert outputs.attention_mask[0].tolist() == [1] * 3 + [0] * 13


PACKED = np.dtype([("flag", np.int8), ("sample", np.float32)])


@pytest.mark.parametrize(
    "kind",
    [
        "array",
        "list",
        "deque",
        "deque of clips",
        "tensor",
        "int16",
        "int16 tensor",
        "int16 list",
        "int16 big-endian",
        "int32",
        "int32 tensor",
        "int32 big-endian",
        "float64",
        "float64 big-endian",
        "longdouble",
        "packed",
        "batch",
    ],
)
def test_every_kind_of_input_gives_the_same_features(drum_clips, kind):
    clip = (drum_clips[0] * 2**15).astype(np.int16) / np.float32(2**15)
    integers = (clip * 2**15).astype(np.int16)
    packed = np.zeros(len(clip), PACKED)
    packed["sample"] = clip
    given = {
        "array": clip,
        "list": clip.tolist(),
        "deque": deque(clip.tolist()),
        "deque of clips": deque([clip]),
        "tensor": torch.from_numpy(clip),
        "int16": integers,
        "int16 tensor": torch.from_numpy(integers),
        "int16 list": [*integers],
        "int16 big-endian": integers.astype(">i2"),
        "int32": integers.astype(np.int32) * 2**16,
        "int32 tensor": torch.from_numpy(integers.astype(np.int32) * 2**16),
        "int32 big-endian": (integers.astype(np.int32) * 2**16).astype(">i4"),
        "float64": clip.astype(np.float64),
        "float64 big-endian": clip.astype(">f8"),
        "longdouble": clip.astype(np.longdouble),
        "packed": packed["sample"],
        "batch": clip[None],
    }[kind]
    extractor = ASTFeatureExtractor(max_length=64)
    expected = extractor([clip], sampling_rate=16_000, return_tensors="pt").input_values
    assert torch.equal(extractor(given, sampling_rate=16_000, return_tensors="pt").input_values, expected)


def test_clips_of_a_list_may_be_of_different_kinds(drum_clips):
    first, second = drum_clips[:2]
    integers = torch.from_numpy((second * 2**15).astype(np.int16))
    extractor = ASTFeatureExtractor(max_length=64)
    settings = {"sampling_rate": 16_000, "return_tensors": "pt"}
    mixed = extractor([first.astype(np.float64), integers, second.tolist()], **settings).input_values
    expected = extractor([first, integers.numpy() / np.float32(2**15), second], **settings).input_values
    assert torch.equal(mixed, expected)


@pytest.mark.parametrize(
    ("clips", "message"),
    [
        ([np.ones(800, np.float32), np.ones((2, 800), np.float32)], r"Clip 1 has shape \(2, 800\), expected a mono"),
        ([np.ones((800, 2), np.float32)], r"Clip 0 has shape \(800, 2\).*audio\.mean\(axis=1\)"),
        (np.ones((800, 2), np.float32), r"shape \(800, 2\), which is 800 clips of 2 samples.*audio\.mean\(axis=1\)"),
        (torch.ones(2, 800, 3), r"Clip 0 has shape \(800, 3\).*audio\.mean\(axis=1\)"),
        (np.float32(1)[()], "Clip 0 is a float32"),
        (np.ones(()), r"Clip 0 has shape \(\), expected a mono waveform of shape \(samples,\)\.$"),
        ("a.wav", r"Clip 0 is a str, 'a\.wav', expected a waveform.*read_audio"),
        ([np.ones(800, np.float32), None], "Clip 1 is a NoneType, expected"),
        ([{"array": np.ones(800)}], r"Clip 0 is a dict, expected.*row\['audio'\]\['array'\]"),
        ([[1.0] * 800, [[1.0] * 800, [1.0]]], "Clip 1 is a list of parts of unequal shapes"),
        ([[1.0] * 800, [[np.ones((2, 3)), np.ones((2, 4))]]], "Clip 1 is a list of parts of unequal shapes"),
        ([1] * 800, "Clip 0 has dtype int64, expected floats"),
        ([[1] * 800], "Clip 0 has dtype int64, expected floats"),
        ([np.ones(399, np.float32)], "Clip 0 has 399 samples, one analysis window needs 400"),
        ([np.ones(800, np.float32), np.zeros(0, np.float32)], "Clip 1 has 0 samples"),
        ([np.full(800, np.nan, np.float32)], "Clip 0 holds NaN"),
        ([np.full(800, np.inf, np.float32)], "Clip 0 holds NaN or infinite"),
        ([np.ones(800, np.int64)], "Clip 0 has dtype int64"),
        (
            [np.arange(8000, dtype=np.int32)],
            r"Clip 0 has dtype int32 and no sample beyond 7999.*astype\(numpy\.int16\)",
        ),
        ([np.arange(800, dtype=np.uint16)], "Clip 0 has dtype uint16, expected floats"),
        ([np.ones(800, bool)], "Clip 0 has dtype bool, expected floats"),
        ([np.ones(800, np.float32), np.array([np.nan, *[0.0] * 799], np.float32)], "Clip 1 holds NaN"),
        ([], "An empty list"),
    ],
)
def test_input_without_sensible_features_is_refused(clips, message):
    with pytest.raises(ValueError, match=message):
        ASTFeatureExtractor()(clips, sampling_rate=16_000)


@pytest.mark.parametrize("amplitude", [1e8, 1e20, 3e38])
def test_samples_of_which_no_finite_features_come_are_refused(amplitude):
    loud = np.full(8000, amplitude, np.float32) * np.sin(np.arange(8000), dtype=np.float32)
    extract = ASTFeatureExtractor()
    if amplitude < 1e9:  # its norm is beyond the bound, its peak is not
        loud = np.tile(loud, 20)
        assert extract(loud, sampling_rate=16_000, return_tensors="pt").input_values.isfinite().all()
    else:
        with pytest.raises(ValueError, match=r"Clip 1 has samples up to \de\+\d\d|Clip 1 has samples up to \d\.\de\+"):
            extract([np.ones(800, np.float32), loud], sampling_rate=16_000)


def test_float64_samples_beyond_float32_are_refused():
    with pytest.raises(ValueError, match=r"Clip 0 has samples up to 1\.0e\+39"):
        ASTFeatureExtractor()(np.full(800, 1e39), sampling_rate=16_000)


@pytest.mark.parametrize(("dtype", "offset"), [(np.uint8, 128), (np.int8, 0)])
def test_integers_of_8_bits_have_the_full_scale_of_wav_files(drum_clips, dtype, offset):
    clip = np.round(drum_clips[0] * 100)
    given, expected = (clip + offset).astype(dtype), (clip / 128).astype(np.float32)
    extractor = ASTFeatureExtractor(max_length=64)
    for array in (given, torch.from_numpy(given)):
        features = extractor(array, sampling_rate=16_000, return_tensors="np").input_values
        np.testing.assert_array_equal(
            features, extractor(expected, sampling_rate=16_000, return_tensors="np").input_values
        )


@pytest.fixture
def said(monkeypatch, caplog):
    """What is warned of, as in a new process; a sampling rate that was not given is another matter."""
    monkeypatch.setattr(feature_extraction_ast, "_said", set())
    monkeypatch.setattr(feature_extraction_ast.logger, "propagate", True)
    return lambda: [record.getMessage() for record in caplog.records]


def channels_of(recording: np.ndarray, kind: str) -> np.ndarray:
    """A recording in two channels, as it would be from the microphones of `kind`."""
    noise = np.random.default_rng(0).standard_normal((2, len(recording))).astype(np.float32) * recording.std()
    return {
        "equal": np.stack([recording, recording]),
        "of other levels": np.stack([recording, 0.3 * recording + 0.1 * noise[1]]),
        "nearly equal": np.stack([recording, recording]) + 0.3 * noise,
        "opposite": np.stack([recording, -recording]),
        "with an offset": np.stack([recording, recording + 0.5]),
        "of a mix": np.stack([recording + 0.5 * np.roll(recording, 4000), 0.5 * recording + np.roll(recording, 4000)]),
        "five": np.stack([recording, recording, 0.5 * recording, recording, recording + 0.5 * noise[0]]),
    }[kind]


@pytest.mark.parametrize("as_what", ["array", "tensor", "int16"])
@pytest.mark.parametrize(
    "kind", ["equal", "of other levels", "nearly equal", "opposite", "with an offset", "of a mix", "five"]
)
def test_channels_given_as_a_batch_are_said_once(drum_clips, kind, as_what, said):
    channels = channels_of(np.concatenate(drum_clips), kind)
    channels = {
        "array": channels,
        "tensor": torch.from_numpy(channels),
        "int16": (channels * 2**12).astype(np.int16),
    }[as_what]
    extractor = ASTFeatureExtractor(max_length=32)
    for _ in range(2):
        assert extractor(channels, sampling_rate=16_000, return_tensors="pt").input_values.shape[0] == len(channels)
    (message,) = said()
    assert message.startswith(f"The audio has shape {tuple(channels.shape)}, and its rows are nearly equal")
    assert "pass audio.mean(axis=0)" in message


def test_two_long_rows_without_likeness_may_be_channels_too(said):
    noise = np.random.default_rng(0).uniform(-1, 1, (2, 80_000)).astype(np.float32)
    ASTFeatureExtractor(max_length=300)(noise, sampling_rate=16_000)
    (message,) = said()
    assert "two rows of 5.0 s; it is taken as 2 clips" in message


@pytest.mark.parametrize("kind", ["list", "stack", "padded stack", "many rows", "one row", "silence"])
def test_a_batch_of_clips_is_no_reason_to_warn(drum_clips, kind, said):
    recordings = [np.concatenate(drum_clips[start::5]) for start in range(5)]
    same_length = np.stack([recording[:16_000] for recording in recordings])
    given = {
        "list": [recordings[0], recordings[0]],
        "stack": same_length[:2],
        "padded stack": np.pad(same_length[:3], ((0, 0), (0, 30_000))),
        "many rows": np.stack([recordings[0]] * 9),
        "one row": recordings[0][None],
        "silence": np.zeros((2, 16_000), np.float32),
    }[kind]
    ASTFeatureExtractor()(given, sampling_rate=16_000)
    assert not said()


def test_rows_are_looked_at_here_and_there_only(drum_clips):
    rows = np.zeros((2, 10_000_000), np.float32)
    looked_at = []

    class Rows(np.ndarray):
        def __getitem__(self, key):
            found = super().__getitem__(key)
            looked_at.append(found.size)
            return found.view(np.ndarray)

    look_like_channels(rows.view(Rows))
    assert sum(looked_at) < 2 * 2 * 1024


@pytest.mark.parametrize("max_length", [16_000, 160_000, 4097])
def test_a_number_of_samples_as_max_length_is_said_once(max_length, said):
    extractor, clip = ASTFeatureExtractor(), np.ones(16_000, np.float32)
    for _ in range(2):
        extractor(clip, sampling_rate=16_000, max_length=max_length, truncation=True, padding="longest")
    (message,) = said()
    seconds = f"{0.025 + (max_length - 1) * 0.01:.1f} s"
    assert f"max_length={max_length} counts frames of 10 ms" in message
    assert seconds in message
    assert "1024 frames (10.3 s)" in message
    assert f"pass max_length={num_frames(max_length, 16_000)}" in message


@pytest.mark.parametrize("max_length", [None, 16, 1024, 4096])
def test_other_lengths_are_no_reason_to_warn(max_length, said):
    ASTFeatureExtractor()(np.ones(16_000, np.float32), sampling_rate=16_000, max_length=max_length, padding=True)
    assert not said()


@pytest.mark.parametrize("kind", ["16-bit samples", "one of a list", "a tenth beyond 2", "a tensor of half precision"])
def test_floats_far_beyond_full_scale_are_said_once(drum_clips, kind, said):
    clip = np.concatenate(drum_clips)
    given = {
        "16-bit samples": clip * 2**15,
        "one of a list": [clip, clip[:8000] * 2**15],
        "a tenth beyond 2": np.where(np.arange(16_000) % 9, 0.1, 2.5).astype(np.float32),
        "a tensor of half precision": torch.from_numpy(clip[:8000] * 2**11).half(),
    }[kind]
    extractor = ASTFeatureExtractor()
    for _ in range(2):
        extractor(given, sampling_rate=16_000)
    (message,) = said()
    assert message.startswith(f"Clip {int(kind == 'one of a list')} has ")
    assert "of its samples beyond 2 (up to " in message
    assert "Divide it by its full scale, 16-bit samples by 32768." in message


def test_overshooting_as_decoders_do_is_no_reason_to_warn(said):
    overshooting = 1.5 * np.sign(np.sin(np.arange(16_000))).astype(np.float32)
    peaks = np.where(np.arange(16_000) % 12, 0.5, 5).astype(np.float32)
    ASTFeatureExtractor()([overshooting, peaks], sampling_rate=16_000)
    assert not said()


class AcceleratorOnTheProcessor(TorchFunctionMode):
    """Takes the place of a device that is not there: notes what is asked to be on it, and keeps that on the processor."""

    def __init__(self):
        super().__init__()
        self.asked = []

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        place = [value for value in (*args, *kwargs.values()) if isinstance(value, torch.device)]
        if place == [torch.device("cuda")]:
            self.asked.append(getattr(function, "__name__", str(function)))
            args = [torch.device("cpu") if value in place else value for value in args]
            kwargs = {name: torch.device("cpu") if value in place else value for name, value in kwargs.items()}
        return function(*args, **kwargs)


def test_the_device_of_a_call_is_where_the_work_is_done(drum_clips):
    clips = [drum_clips[0], (drum_clips[1] * 2**15).astype(np.int16)]
    extractor = ASTFeatureExtractor(padding="longest")
    settings = {"sampling_rate": 16_000, "return_tensors": "pt"}
    expected = extractor(clips, **settings)
    with AcceleratorOnTheProcessor() as accelerator:
        found = extractor(clips, **settings, device="cuda")
    assert accelerator.asked == ["empty", "tensor"]  # for the features, and for the mask's counts of frames
    assert torch.equal(found.input_values, expected.input_values)
    assert torch.equal(found.attention_mask, expected.attention_mask)


def test_a_mask_that_is_not_wanted_is_not_returned(drum_clips):
    outputs = ASTFeatureExtractor(padding="longest")(drum_clips, sampling_rate=16_000, return_attention_mask=False)
    assert [*outputs] == ["input_values"]


def test_a_whole_number_as_padding_value_is_accepted():
    features = ASTFeatureExtractor(padding_value=0)(np.ones(800, np.float32), sampling_rate=16_000)
    assert features.input_values[0].shape == (1024, 128)


def test_normalize_has_a_gradient():
    features = torch.zeros(2, 3, requires_grad=True)
    ASTFeatureExtractor(std=2.0).normalize(features).sum().backward()
    assert torch.equal(features.grad, torch.full((2, 3), 0.25))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"max_length": 0}, "max_length=0 is not a number of frames"),
        ({"padding": "shortest"}, "shortest is not a valid PaddingStrategy, please select one of"),
        ({"return_tensors": "pd"}, "pd is not a valid TensorType, please select one of"),
    ],
)
def test_settings_of_a_call_that_mean_nothing_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        ASTFeatureExtractor()(np.ones(800, np.float32), sampling_rate=16_000, **arguments)


def test_a_wrong_sampling_rate_is_refused():
    with pytest.raises(ValueError, match=r"44100 Hz, this checkpoint hears 16000 Hz\. Resample"):
        ASTFeatureExtractor()(np.ones(8000, np.float32), sampling_rate=44_100)


def test_unequal_lengths_without_padding_do_not_make_a_tensor():
    clips = [np.ones(8000, np.float32), np.ones(16000, np.float32)]
    with pytest.raises(ValueError, match="padding=False"):
        ASTFeatureExtractor()(clips, sampling_rate=16_000, padding=False, return_tensors="pt")
