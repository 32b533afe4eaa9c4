"""Log-mel features against `torchaudio.compliance.kaldi`, by both ways in which they are computed."""

import threading
from pathlib import Path

import forked_python
import numpy as np
import pytest
import torch
import torchaudio.compliance.kaldi
from kaldi_reference import MAX_TOLERANCE, MEAN_TOLERANCE, kaldi_fbank
from torch.utils._python_dispatch import TorchDispatchMode

from modeling_ast import ASTFeatureExtractor
from modeling_ast.features import kaldi, log_mel
from modeling_ast.features.kaldi import mel_filter_bank, num_frames
from modeling_ast.features.log_mel import log_mel_spectrogram


def clear_kept_constants(log_mel_kernels):
    for kept in (
        *(kaldi.symmetric_hann_window, kaldi.mel_filter_bank, log_mel._filters),
        *(log_mel_kernels._packed_filters, log_mel_kernels._window),
    ):
        kept.cache_clear()
    log_mel_kernels._of_thread.__dict__.clear()


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("offset", [0.0, 0.2], ids=["", "with an offset"])
@pytest.mark.parametrize(
    ("dtype", "mean", "largest"), [(torch.float32, MEAN_TOLERANCE, MAX_TOLERANCE), (torch.float64, 1e-12, 1e-12)]
)
def test_log_mel_equals_kaldi_on_real_clips(drum_clips, dtype, mean, largest, offset, threads, torch_threads, way):
    torch_threads(threads)
    for clip in drum_clips:
        waveform = torch.from_numpy(clip).to(dtype) + offset
        difference = (log_mel_spectrogram(waveform[None])[0] - kaldi_fbank(waveform)).abs()
        assert difference.mean() < mean
        assert difference.max() < largest


@pytest.mark.parametrize("num_mel_bins", [4, 40, 200])
def test_any_number_of_mel_bins_equals_kaldi(drum_clips, num_mel_bins, way):
    waveform = torch.from_numpy(drum_clips[0])
    difference = log_mel_spectrogram(waveform[None], num_mel_bins=num_mel_bins)[0] - kaldi_fbank(
        waveform, num_mel_bins
    )
    assert difference.abs().max() < MAX_TOLERANCE


@pytest.mark.parametrize("mode", ["inference", "autocast", "gradients"])
def test_features_do_not_depend_on_the_mode_around_them(drum_clips, mode, way):
    waveform = torch.from_numpy(drum_clips[0])[None]
    expected = log_mel_spectrogram(waveform)
    log_mel_spectrogram(waveform, num_mel_bins=64)  # so that what is kept between calls is made anew in the mode
    context = {
        "inference": torch.inference_mode(),
        "autocast": torch.autocast("cpu", torch.bfloat16),
        "gradients": torch.enable_grad(),
    }[mode]
    with context:
        features = log_mel_spectrogram(waveform.clone().requires_grad_(mode == "gradients"))
    assert torch.equal(features, expected)
    assert torch.equal(log_mel_spectrogram(waveform), expected), "and leave nothing behind"


@pytest.mark.parametrize(("dtype", "largest"), [(torch.float32, MAX_TOLERANCE), (torch.float64, 1e-6)])
def test_log_mel_of_a_recording_longer_than_a_block_equals_kaldi(drum_clips, dtype, largest, log_mel_kernels):
    recording = torch.from_numpy(np.concatenate(drum_clips * 4)).to(dtype)
    features = log_mel_spectrogram(recording[None])[0]
    assert len(features) > max(log_mel.FRAMES_PER_EXPRESSION, log_mel_kernels.FRAMES_PER_BLOCK)
    assert (features - kaldi_fbank(recording)).abs().max() < largest


def test_a_list_of_very_different_lengths_gives_each_clip_the_features_it_gets_alone(
    drum_clips, way, monkeypatch, log_mel_kernels
):
    # So that groups of clips end for either reason, long clips stand beside short ones, and clips end within blocks.
    monkeypatch.setattr(log_mel, "FRAMES_PER_EXPRESSION", 350)
    monkeypatch.setattr(log_mel_kernels, "FRAMES_PER_BLOCK", 2)  # fewer than there are clips
    monkeypatch.setattr(log_mel_kernels, "_of_thread", threading.local())  # memory for such blocks is not kept
    monkeypatch.setattr(log_mel, "FRAMES_PER_ROUND", 700)
    monkeypatch.setattr(log_mel_kernels, "FRAMES_OF_LONG_CLIP", 100)
    clips = [np.tile(clip, repeats) for clip, repeats in zip(drum_clips, [1, 7, 1, 3] * 6, strict=False)]
    extractor = ASTFeatureExtractor(max_length=200)
    for padding in ("max_length", "longest", False):
        together = extractor(clips, sampling_rate=16_000, padding=padding, return_attention_mask=True)
        for row, clip in enumerate(clips):
            alone = extractor(clip, sampling_rate=16_000, padding=False).input_values[0]
            features = together.input_values[row]
            np.testing.assert_allclose(features[: len(alone)], alone, atol=0 if way == "compiled loops" else 1e-6)
            np.testing.assert_allclose(features[len(alone) :], -extractor.mean / (2 * extractor.std), rtol=1e-6)
            real = min(num_frames(len(clip), 16_000), 200)
            assert together.attention_mask[row].tolist() == [1] * real + [0] * (len(features) - real)


def test_one_channel_of_interleaved_ones_gives_its_own_features(drum_clips, way):
    channel = np.tile(drum_clips[0], 10)
    interleaved = np.stack([channel, np.flip(channel)], axis=1)
    extractor = ASTFeatureExtractor(max_length=600)
    found, expected = (
        extractor(clip, sampling_rate=16_000, return_tensors="pt").input_values
        for clip in (interleaved[:, 0], channel)
    )
    assert torch.equal(found, expected)


def test_groups_of_similar_lengths_hold_little_padding_and_no_huge_tensor():
    lengths = np.random.default_rng(0).integers(400, 40_000, 200).tolist() + [10**6]
    most = 200_000
    groups = log_mel._similar_lengths(lengths, most)
    assert sorted(index for group in groups for index in group) == list(range(201))
    for group in groups:
        held = [lengths[index] for index in group]
        assert max(held) <= log_mel.LONGEST_OVER_SHORTEST * min(held)
        assert len(group) == 1 or len(group) * max(held) <= most
        assert group == sorted(group)
    assert len(groups) < 70, "clips are put together"
    assert log_mel._similar_lengths([5000] * 9, 20_000) == [[0, 1, 2, 3], [4, 5, 6, 7], [8]]


def test_more_clips_than_the_expression_takes_frames_at_once(drum_clips, monkeypatch):
    monkeypatch.setattr(log_mel, "_kernels", lambda: None)
    monkeypatch.setattr(log_mel, "FRAMES_PER_EXPRESSION", 3)
    waveforms = torch.from_numpy(np.stack([clip[:1000] for clip in drum_clips if len(clip) >= 1000]))
    assert len(waveforms) > 3
    features = log_mel_spectrogram(waveforms)
    for row, waveform in zip(features, waveforms, strict=True):
        assert (row - kaldi_fbank(waveform)).abs().max() < MAX_TOLERANCE


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e25])
def test_what_is_not_finite_stays_visible(bad, way):
    waveform = torch.randn(1, 8000)
    waveform[0, 1000] = bad
    features = log_mel_spectrogram(waveform)[0]
    touched = slice((1000 - 400) // 160 + 1, 1000 // 160 + 1)  # frames that hold the sample
    heard = mel_filter_bank(128, 16_000).any(dim=0)  # one filter lies between two FFT bins
    assert not features[touched, heard].isfinite().any()
    assert features[: touched.start].isfinite().all()
    assert features[touched.stop :].isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_features_do_not_depend_on_the_default_dtype(drum_clips, way, dtype, log_mel_kernels):
    expected = ASTFeatureExtractor()(drum_clips[:2], sampling_rate=16_000, return_tensors="pt").input_values
    clear_kept_constants(log_mel_kernels)
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        found = ASTFeatureExtractor()(drum_clips[:2], sampling_rate=16_000, return_tensors="pt").input_values
    finally:
        torch.set_default_dtype(before)
    assert torch.equal(found, expected)


def test_log_mel_has_a_shape_on_the_device_meta():
    assert log_mel_spectrogram(torch.empty(2, 16_000, device="meta")).shape == (2, 98, 128)


def test_an_empty_batch_is_refused():
    with pytest.raises(ValueError, match="at least one clip"):
        log_mel_spectrogram(torch.empty(0, 16_000))


@pytest.mark.parametrize(
    "place",
    [
        torch.zeros(98, 64),
        torch.zeros(98, 128, dtype=torch.float64),
        torch.zeros(98, 128, device="meta"),
        torch.zeros(98, 256)[:, ::2],
    ],
    ids=["fewer mel bins", "float64", "another device", "strided"],
)
def test_places_that_are_unlike_are_refused(place, way):
    places = [torch.zeros(98, 128), place]
    with pytest.raises(
        ValueError, match=r"A place has shape \(98, .*the first one \(98, 128\), torch\.float32 on cpu"
    ):
        log_mel.write_log_mel([torch.ones(16_000)] * 2, places, 16_000)
    assert not places[0].any()


def test_no_waveform_at_all_is_refused():
    with pytest.raises(ValueError, match="No waveform was given"):
        log_mel.write_log_mel([], [], 16_000)


@pytest.mark.parametrize("frames", [0, 99])
def test_a_place_for_more_frames_than_there_are_or_for_none_is_refused(frames, way):
    places = [torch.zeros(10, 128), torch.zeros(frames, 128)]
    with pytest.raises(ValueError, match=f"16000 samples has 98 frames at 16000 Hz, its place has {frames}"):
        log_mel.write_log_mel([torch.ones(16_000)] * 2, places, 16_000)


def test_places_may_hold_fewer_frames_than_the_waveforms_have(drum_clips, way):
    waveforms = [torch.from_numpy(clip) for clip in drum_clips]
    places = [torch.empty(min(10, num_frames(len(clip), 16_000)), 128) for clip in drum_clips]
    log_mel.write_log_mel(waveforms, places, 16_000, scale=2.0, offset=1.0)
    for waveform, place in zip(waveforms, places, strict=True):
        assert (place - (2 * kaldi_fbank(waveform)[: len(place)] + 1)).abs().max() < 2 * MAX_TOLERANCE


@pytest.mark.parametrize("sampling_rate", [8_000, 22_050, 48_000])
def test_other_sampling_rates_equal_kaldi(drum_clips, sampling_rate, way):
    waveform = torch.from_numpy(drum_clips[0])
    expected = torchaudio.compliance.kaldi.fbank(
        waveform[None], sample_frequency=sampling_rate, window_type="hanning", num_mel_bins=64
    )
    found = log_mel_spectrogram(waveform[None], sampling_rate, 64)[0]
    assert found.shape == expected.shape
    assert (found - expected).abs().max() < MAX_TOLERANCE


@pytest.mark.parametrize(
    "setting",
    [
        "float32",
        "without Numba",
        "int16",
        *(pytest.param(name, marks=pytest.mark.long) for name in ("read-only", "two halves")),
    ],
)
def test_one_hour_costs_memory_for_itself_and_its_features_and_a_chunk(setting):
    code = """
import sys
assert "numba" not in sys.modules
if sys.argv[1] == "without Numba":
    sys.modules["numba"] = None
import numpy as np
from modeling_ast import ASTFeatureExtractor

def status(field):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(field))

extractor = ASTFeatureExtractor(padding="longest")
extractor(np.ones(400, np.float32), sampling_rate=16_000)  # imports Numba
before = status("VmRSS")
hour = np.tile(np.random.default_rng(0).standard_normal(60 * 16_000, dtype=np.float32), 60)
if sys.argv[1] == "int16":
    hour = (1000 * hour[: len(hour) // 2]).astype(np.int16)
    hour = np.concatenate([hour, hour])
hour.flags.writeable = sys.argv[1] != "read-only"
clips = np.split(hour, 2) if sys.argv[1] == "two halves" else hour
with open("/proc/self/clear_refs", "w") as file:
    file.write("5")  # the peak starts anew
features = extractor(clips, sampling_rate=16_000, truncation=False, return_tensors="np").input_values
print(features.nbytes, status("VmHWM") - before)
"""
    if not Path("/proc/self/status").exists():
        pytest.skip("the system has no /proc to read the memory from")
    child = forked_python.run(["-c", code, setting])
    assert child.returncode == 0, child.stderr
    size, used = (int(number) for number in child.stdout.split())
    assert size == (359_996 if setting == "two halves" else 359_998) * 128 * 4
    samples = 3600 * 16_000 * (2 if setting == "int16" else 4)
    assert used < min(0.6e9, size + samples + 0.1e9)


class DevicesOfTransforms(TorchDispatchMode):
    """Notes where Fourier transforms are computed."""

    def __init__(self):
        super().__init__()
        self.devices = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function is torch.ops.aten._fft_r2c.default:
            self.devices.append(args[0].device.type)
        return function(*args, **(kwargs or {}))


def test_the_work_is_done_where_the_features_are_to_be():
    waveforms = [torch.ones(16_000), torch.ones(160_000, dtype=torch.int16)]
    places = [torch.empty(frames, 128, device="meta") for frames in (98, 998)]
    with DevicesOfTransforms() as transforms:
        log_mel.write_log_mel(waveforms, places, 16_000)
    assert transforms.devices == ["meta", "meta"]


@pytest.mark.parametrize("way", ["compiled", "exported"])
def test_the_filter_bank_goes_into_a_graph(drum_clips, way):
    waveforms = torch.from_numpy(drum_clips[0])[None]
    expected = log_mel_spectrogram(waveforms)
    if way == "compiled":
        function = torch.compile(log_mel_spectrogram, fullgraph=True, backend="eager")
    else:

        class FilterBank(torch.nn.Module):
            def forward(self, waveforms):
                return log_mel_spectrogram(waveforms)

        function = torch.export.export(FilterBank(), (waveforms,)).module()
    assert (function(waveforms) - expected).abs().max() < MAX_TOLERANCE
    assert torch.equal(log_mel_spectrogram(waveforms), expected), "and nothing of the graph stays behind"
