"""The compiled loops: their logarithms, their threads, forked processes, and a machine without Numba."""

import builtins
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor

import forked_python
import numpy as np
import pytest
import soundfile
import torch

from modeling_ast import ASTFeatureExtractor
from modeling_ast.features import kaldi, log_mel
from modeling_ast.features.kaldi import mel_filter_bank


def run_apart(code: str, *arguments: str):
    """Run code in a process of its own, in which torch is imported and Numba is not."""
    child = forked_python.run(["-c", "import sys\nassert 'numba' not in sys.modules\n" + code, *arguments])
    assert child.returncode == 0, child.stderr
    return child


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
    child = run_apart(IN_A_FORKED_WORKER, drum_rows[0]["path"])
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
    child = run_apart(code, path)
    features, has_kernels = child.stdout.splitlines()
    (expected,) = ASTFeatureExtractor(max_length=32)(soundfile.read(path, dtype="float32")[0], sampling_rate=16_000)[
        "input_values"
    ]
    np.testing.assert_allclose(np.array(features.split(), np.float32), expected[-1], atol=1e-5)
    assert has_kernels == str(missing != "numba")
    assert ("Numba does not import" in child.stderr) == (missing == "numba")


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
    assert run_apart(code).stdout == "1 0 True\n" * 2


def test_logarithms_are_those_of_numpy_to_the_last_digits(log_mel_kernels):
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
        *(kaldi.SMALLEST_ENERGY, 1.0, 0.0),
        features,
    )
    energies = (spectra[:, ::2].astype(np.float64) ** 2) @ filters
    expected = np.log(np.maximum(energies, kaldi.SMALLEST_ENERGY))
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
def test_an_error_in_a_thread_arrives_when_all_are_done(torch_threads, who, log_mel_kernels):
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


def test_a_thread_that_comes_although_none_could_be_started_is_waited_for(torch_threads, monkeypatch, log_mel_kernels):
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


def test_what_no_thread_could_be_started_for_holds_nothing(torch_threads, monkeypatch, log_mel_kernels):
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


def test_nobody_waits_for_threads_that_are_busy_elsewhere(torch_threads, monkeypatch, log_mel_kernels):
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
    assert run_apart(code, drum_rows[0]["path"]).stdout == "True\n"
