"""The features against `torchaudio.compliance.kaldi` and stock Transformers, on real clips."""

import builtins
import json
import subprocess
import sys
import threading
import time
import weakref
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import torchaudio.compliance.kaldi as kaldi
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from transformers.models.audio_spectrogram_transformer.feature_extraction_audio_spectrogram_transformer import (
    ASTFeatureExtractor as StockFeatureExtractor,
)

from modeling_ast import ASTFeatureExtractor, feature_extraction_ast
from modeling_ast.audio.arrays import look_like_channels
from modeling_ast.features import log_mel, log_mel_kernels
from modeling_ast.features.log_mel import log_mel_spectrogram, mel_filter_bank, num_frames, num_samples

# Every step before the Fourier transform is rounded as Kaldi's, so that even almost empty bins come out alike.
MEAN_TOLERANCE, MAX_TOLERANCE = 1e-6, 1e-5


@pytest.fixture(params=["compiled loops", "one expression"])
def way(request, monkeypatch):
    """With Numba, and as where it is not."""
    if request.param == "one expression":
        monkeypatch.setattr(log_mel, "_kernels", lambda: None)
    return request.param


def clear_kept_constants():
    for kept in (
        *(log_mel.symmetric_hann_window, log_mel.mel_filter_bank, log_mel._filters),
        *(log_mel_kernels._packed_filters, log_mel_kernels._window),
    ):
        kept.cache_clear()
    log_mel_kernels._of_thread.__dict__.clear()


def kaldi_fbank(waveform: torch.Tensor, num_mel_bins: int = 128) -> torch.Tensor:
    return kaldi.fbank(waveform[None], sample_frequency=16_000, window_type="hanning", num_mel_bins=num_mel_bins)


def test_mel_filters_equal_kaldi_bit_for_bit():
    expected, _ = kaldi.get_mel_banks(128, 512, 16_000.0, 20.0, 0.0, 100.0, -500.0, 1.0)
    filters = mel_filter_bank(128, 16_000)
    assert torch.equal(filters[:-1].T, expected)
    assert not filters[-1].any()


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


@pytest.fixture
def torch_threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize("num_mel_bins", [4, 40, 200])
def test_any_number_of_mel_bins_equals_kaldi(drum_clips, num_mel_bins, way):
    waveform = torch.from_numpy(drum_clips[0])
    difference = log_mel_spectrogram(waveform[None], num_mel_bins=num_mel_bins)[0] - kaldi_fbank(
        waveform, num_mel_bins
    )
    assert difference.abs().max() < MAX_TOLERANCE


def test_features_computed_in_several_threads_at_once_are_those_computed_alone(drum_clips):
    extractor = ASTFeatureExtractor(max_length=96)

    def features(clip):
        return extractor(clip, sampling_rate=16_000, return_tensors="pt").input_values

    alone = [features(clip) for clip in drum_clips]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(features, drum_clips * 5))
    assert all(torch.equal(ours, expected) for ours, expected in zip(together, alone * 5, strict=True))


IN_A_FORKED_WORKER = """
import sys
import threading
import time
import numpy, soundfile, torch
from torch.utils.data import DataLoader
from modeling_ast import ASTFeatureExtractor
from modeling_ast.features import log_mel_kernels
waveform = numpy.tile(soundfile.read(sys.argv[1], dtype="float32")[0], 40)  # several blocks
extractor = ASTFeatureExtractor(max_length=2048)

def features(_):
    return extractor(waveform, sampling_rate=16_000, return_tensors="pt").input_values

def threads(_):
    torch.set_num_threads(2)  # a worker has one of itself
    seen = set()

    def work(pieces):
        for _ in pieces:
            seen.add(threading.get_ident())
            time.sleep(0.01)

    log_mel_kernels._in_threads(work, list(range(20)))
    return len(seen)

def in_worker(function):
    return next(iter(DataLoader(
        [0], batch_size=None, num_workers=1, collate_fn=function, multiprocessing_context="fork", timeout=60
    )))

torch.set_num_threads(2)
expected = features(0)
print(log_mel_kernels._pool is not None, [torch.equal(in_worker(features), expected) for _ in range(5)])
print(threads(0), in_worker(threads))
"""


def test_features_in_a_forked_worker_are_those_of_the_process(drum_rows):
    # In a process of its own: MKL's allocator may hang in a fork made while other threads that used it are ending,
    # as those of the test above are.
    command = [sys.executable, "-c", IN_A_FORKED_WORKER, drum_rows[0]["path"]]
    child = subprocess.run(command, capture_output=True, text=True, check=True)
    assert child.stdout == f"True {[True] * 5}\n2 2\n"


WITHOUT = {
    "numba": "sys.modules['numba'] = None",
    "a folder for what was compiled": """
import numba
njit = numba.njit
def refuse_to_cache(*args, cache=False, **options):
    if cache:
        raise RuntimeError("cannot cache function: no locator available")
    return njit(*args, **options)
numba.njit = refuse_to_cache
""",
}


@pytest.mark.parametrize("missing", WITHOUT)
def test_features_are_the_same_without(missing, drum_rows):
    code = f"""
import sys
{WITHOUT[missing]}
import soundfile
from modeling_ast import ASTFeatureExtractor
waveform = soundfile.read(sys.argv[1], dtype="float32")[0]
features = ASTFeatureExtractor(max_length=32)([waveform] * 2, sampling_rate=16_000).input_values
print(*features[1][-1])
print("modeling_ast.features.log_mel_kernels" in sys.modules)
"""
    path = drum_rows[0]["path"]
    child = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True)
    features, has_kernels = child.stdout.splitlines()
    (expected,) = ASTFeatureExtractor(max_length=32)(soundfile.read(path, dtype="float32")[0], sampling_rate=16_000)[
        "input_values"
    ]
    np.testing.assert_allclose(np.array(features.split(), np.float32), expected[-1], atol=1e-5)
    assert has_kernels == str(missing != "numba")
    assert ("Numba does not import" in child.stderr) == (missing == "numba")


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
def test_log_mel_of_a_recording_longer_than_a_block_equals_kaldi(drum_clips, dtype, largest):
    recording = torch.from_numpy(np.concatenate(drum_clips * 4)).to(dtype)
    features = log_mel_spectrogram(recording[None])[0]
    assert len(features) > max(log_mel.FRAMES_PER_EXPRESSION, log_mel_kernels.FRAMES_PER_BLOCK)
    assert (features - kaldi_fbank(recording)).abs().max() < largest


@pytest.mark.parametrize("num_mel_bins", [64, 128])
def test_a_batch_of_several_lengths_equals_stock_transformers(drum_clips, num_mel_bins):
    settings = {"max_length": 60, "num_mel_bins": num_mel_bins, "mean": -6.5, "std": 5.5}  # cuts some, pads some
    theirs = StockFeatureExtractor(**settings)(drum_clips, sampling_rate=16_000, return_tensors="pt").input_values
    ours = ASTFeatureExtractor(**settings)(drum_clips, sampling_rate=16_000, return_tensors="pt").input_values
    difference = (ours - theirs).abs() * 2 * settings["std"]
    assert ours.shape == theirs.shape == (len(drum_clips), 60, num_mel_bins)
    assert difference.mean() < MEAN_TOLERANCE
    assert difference.max() < MAX_TOLERANCE


def test_a_list_of_very_different_lengths_gives_each_clip_the_features_it_gets_alone(drum_clips, way, monkeypatch):
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


@pytest.mark.parametrize("error", [ImportError, OSError])
def test_whatever_numba_fails_with_features_are_computed(monkeypatch, caplog, error):
    import_module = builtins.__import__

    def fail(name, *args):
        if name == "log_mel_kernels":
            raise error("libgomp is not what it was")
        return import_module(name, *args)

    monkeypatch.setattr(builtins, "__import__", fail)
    monkeypatch.setattr(log_mel.logger, "propagate", True)  # so that the test reads what is said
    assert log_mel._kernels.__wrapped__() is None
    assert "Numba does not import: libgomp is not what it was" in caplog.text


def test_a_second_process_compiles_nothing_and_threads_run_side_by_side():
    code = """
from modeling_ast.features import log_mel_kernels as kernels
for loop in (kernels._cut_frames, kernels._write_features):
    print(sum(loop.stats.cache_hits.values()), sum(loop.stats.cache_misses.values()), loop.targetoptions["nogil"])
"""
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed == "1 0 True\n" * 2


def test_more_clips_than_the_expression_takes_frames_at_once(drum_clips, monkeypatch):
    monkeypatch.setattr(log_mel, "_kernels", lambda: None)
    monkeypatch.setattr(log_mel, "FRAMES_PER_EXPRESSION", 3)
    waveforms = torch.from_numpy(np.stack([clip[:1000] for clip in drum_clips if len(clip) >= 1000]))
    assert len(waveforms) > 3
    features = log_mel_spectrogram(waveforms)
    for row, waveform in zip(features, waveforms, strict=True):
        assert (row - kaldi_fbank(waveform)).abs().max() < MAX_TOLERANCE


def test_logarithms_are_those_of_numpy_to_the_last_digits():
    # One FFT bin beside the middle of each mel filter, with energies around 1, whose logarithms are around 0.
    sampling_rate, generator = 16_000, np.random.default_rng(0)
    filters = mel_filter_bank(128, sampling_rate).double().numpy()
    spectra = np.zeros((64, 2 * len(filters)), np.float32)
    spectra[:, ::2] = np.sqrt(generator.uniform(0.2, 2, (64, len(filters))))
    space = log_mel_kernels._Workspace(128, sampling_rate)
    features = np.empty((64, 128), np.float32)
    log_mel_kernels._write_features(
        spectra,
        *log_mel_kernels._packed_filters(128, sampling_rate),
        *(space.powers, space.by_bin, space.energies),
        *(log_mel.SMALLEST_ENERGY, 1.0, 0.0),
        features,
    )
    energies = (spectra[:, ::2].astype(np.float64) ** 2) @ filters
    expected = np.log(np.maximum(energies, log_mel.SMALLEST_ENERGY))
    near_zero = np.abs(expected) < 0.5
    assert near_zero.sum() > 1000
    assert np.abs(features - expected)[near_zero].max() < 4e-7


def test_features_do_not_depend_on_the_number_of_threads(drum_clips, torch_threads):
    found = []
    for threads in (1, 2, 3):
        torch_threads(threads)
        found.append(ASTFeatureExtractor(max_length=300)(drum_clips * 2, sampling_rate=16_000, return_tensors="pt"))
    assert torch.equal(found[0].input_values, found[1].input_values)
    assert torch.equal(found[0].input_values, found[2].input_values)


@pytest.mark.parametrize("who", ["helper", "caller"])
def test_an_error_in_a_thread_arrives_when_all_are_done(torch_threads, who):
    torch_threads(2)
    caller, pieces_done = threading.get_ident(), []
    both = threading.Barrier(2, timeout=10)

    def fail(pieces):
        both.wait()  # until the other one has started too
        for piece in pieces:
            if (threading.get_ident() == caller) == (who == "caller"):
                raise OSError("no memory")
            time.sleep(0.05)  # long enough that the other one gets a piece
            pieces_done.append(piece)

    with pytest.raises(OSError, match="no memory"):
        log_mel_kernels._in_threads(fail, list(range(20)))
    before = list(pieces_done)
    time.sleep(0.2)
    assert pieces_done == before
    assert who == "helper" or len(before) < 20, "what is left over is left"


def test_a_thread_that_comes_although_none_could_be_started_is_waited_for(torch_threads, monkeypatch):
    torch_threads(2)
    helps, done = threading.Event(), []

    class Pool:
        """As the library's, which keeps what was submitted when no thread can be started, for one that gets free."""

        def submit(self, function):
            threading.Thread(target=function).start()
            raise RuntimeError("can't start new thread")

    def work(pieces):
        if threading.current_thread() is threading.main_thread():
            helps.wait(10)
        for piece in pieces:
            if threading.current_thread() is not threading.main_thread():
                helps.set()
                time.sleep(0.2)
            done.append(piece)

    monkeypatch.setattr(log_mel_kernels, "_kept_pool", Pool)
    log_mel_kernels._in_threads(work, list(range(20)))
    assert sorted(done) == list(range(20))


def test_what_no_thread_could_be_started_for_holds_nothing(torch_threads, monkeypatch):
    torch_threads(2)
    kept = []

    class Pool:
        def submit(self, function):
            kept.append(function)
            raise RuntimeError("can't start new thread")

    monkeypatch.setattr(log_mel_kernels, "_kept_pool", Pool)
    memory = np.empty((998, 128), np.float32)
    log_mel.write_log_mel([torch.randn(160_000)], [torch.from_numpy(memory)], 16_000)
    gone = weakref.ref(memory)
    del memory
    assert len(kept) == 1
    assert gone() is None
    kept[0]()  # late, and without an error


def test_nobody_waits_for_threads_that_are_busy_elsewhere(torch_threads, monkeypatch):
    torch_threads(2)
    is_over = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        pool.submit(is_over.wait, 10)
        monkeypatch.setattr(log_mel_kernels, "_kept_pool", lambda: pool)
        done = []
        log_mel_kernels._in_threads(done.extend, list(range(20)))
        assert done == list(range(20))
        assert not is_over.is_set()
        is_over.set()


def test_features_in_a_thread_that_outlives_the_main_one(drum_rows):
    code = """
import sys, threading, time
import numpy, soundfile, torch
from modeling_ast import ASTFeatureExtractor
torch.set_num_threads(2)
waveform = numpy.tile(soundfile.read(sys.argv[1], dtype="float32")[0], 40)
extractor = ASTFeatureExtractor(max_length=2048)
expected = extractor(waveform, sampling_rate=16_000).input_values[0]

def late():
    threading.main_thread().join()
    print((extractor(waveform, sampling_rate=16_000).input_values[0] == expected).all())

threading.Thread(target=late).start()
"""
    command = [sys.executable, "-c", code, drum_rows[0]["path"]]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "True\n"


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
def test_features_do_not_depend_on_the_default_dtype(drum_clips, way, dtype):
    expected = ASTFeatureExtractor()(drum_clips[:2], sampling_rate=16_000, return_tensors="pt").input_values
    clear_kept_constants()
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
    expected = kaldi.fbank(waveform[None], sample_frequency=sampling_rate, window_type="hanning", num_mel_bins=64)
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
hour = np.random.default_rng(0).standard_normal(3600 * 16_000, dtype=np.float32)
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
    printed = subprocess.run([sys.executable, "-c", code, setting], capture_output=True, text=True, check=True).stdout
    size, used = (int(number) for number in printed.split())
    assert size == (359_996 if setting == "two halves" else 359_998) * 128 * 4
    samples = 3600 * 16_000 * (2 if setting == "int16" else 4)
    assert used < min(0.6e9, size + samples + 0.1e9)


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


def test_a_mask_that_is_not_wanted_is_not_returned(drum_clips):
    outputs = ASTFeatureExtractor(padding="longest")(drum_clips, sampling_rate=16_000, return_attention_mask=False)
    assert [*outputs] == ["input_values"]


def test_a_whole_number_as_padding_value_is_accepted():
    features = ASTFeatureExtractor(padding_value=0)(np.ones(800, np.float32), sampling_rate=16_000)
    assert features.input_values[0].shape == (1024, 128)


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
