"""What every test shares: no network, a tiny model, and the shipped clips."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"  # before huggingface_hub is imported

import csv
import gc
import shutil
import signal
import subprocess
from pathlib import Path

import forked_python
import pytest
import soundfile
from hub_server import HubServer
from undrawn_pictures import leave_out_pictures

UNDRAWN = pytest.MonkeyPatch()
DRUMS = Path(__file__).parents[1] / "finetune" / "sample_data" / "drums"


def runs_tests(session: pytest.Session) -> bool:
    """Whether this process runs tests itself, not by others."""
    return session.config.getoption("dist", "no") == "no"


@pytest.hookimpl(wrapper=True)
def pytest_collection(session: pytest.Session):
    """What is imported for all tests stays: to look for garbage in it meanwhile is a fifth of the time that it takes."""
    gc.disable()
    if runs_tests(session):
        forked_python.begin(stock=True)
    try:
        return (yield)
    finally:
        gc.enable()


def pytest_collection_finish():
    """What was imported for all tests stays, and is not to be looked at again in every collection."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 100)


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session):
    """Let processes be forked off this one as it is before the first test."""
    if runs_tests(session):
        forked_python.begin()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item):
    """Freeze what earlier tests left: `Trainer` collects garbage around every training, and would look at it each time.

    Then leave out the drawing of what a run pictures, half the time of a tiny one; `pytest.mark.pictures` has it drawn.

    This holds for the fixtures that a test is the first to need, too.
    """
    if any(gc.get_count()[1:]):
        gc.collect()
        gc.freeze()
    UNDRAWN.undo()
    if item.get_closest_marker("pictures") is None:
        leave_out_pictures(UNDRAWN)


@pytest.fixture
def hasty_estimates(monkeypatch):
    """A dry run measures two steps and pictures two clips, as where nobody reads what a training would cost."""
    from finetune.dry_runs import cost_estimate, dry_run

    for name, value in {"ENOUGH_STEPS": 2, "FEWEST_STEPS": 2, "ENOUGH_SECONDS": 0}.items():
        monkeypatch.setattr(cost_estimate, name, value)
    for name in ("FEWEST_PICTURED", "CLIPS_PICTURED"):
        monkeypatch.setattr(dry_run, name, 2)


@pytest.fixture
def tiny_sizes() -> dict:
    """Configuration of a model that runs in milliseconds; its two attention heads are 16 wide."""
    return {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "max_length": 96,
    }


@pytest.fixture(scope="session")
def drum_rows() -> list[dict]:
    """Rows of the drums' metadata.csv, with full paths under `path`."""
    with open(DRUMS / "metadata.csv", newline="") as file:
        return [row | {"path": str(DRUMS / row["file_name"])} for row in csv.DictReader(file)]


@pytest.fixture(scope="session")
def drum_clips(drum_rows) -> list:
    """Every twentieth drum clip as float32 samples at 16 kHz, of 22 lengths."""
    return [soundfile.read(row["path"], dtype="float32")[0] for row in drum_rows[::20]]


@pytest.fixture
def small_disk(tmp_path):
    """Mount a tmpfs of so many MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = []

    def mount(megabytes: float) -> Path:
        options = f"size={int(megabytes * 1024)}k"
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", disk]
        if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode:
            pytest.skip("mounting a small tmpfs needs root")
        mounted.append(disk)
        return disk

    yield mount
    for path in mounted:
        subprocess.run(["umount", path], check=True)


@pytest.fixture
def interruptible():
    """A shell's background job, as tests may be, ignores Ctrl-C, and one of `nohup` the end of the terminal."""
    handlers = {signal.SIGINT: signal.default_int_handler, signal.SIGHUP: signal.SIG_DFL}
    previous = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    yield
    for number, handler in previous.items():
        signal.signal(number, handler)


@pytest.fixture
def hub(tmp_path):
    """A small Hub on loopback, see `hub_server.py`; a request that it does not know fails the test."""
    with HubServer(tmp_path / "hub") as server:
        yield server
    assert not server.unexpected, "\n".join(server.unexpected)
