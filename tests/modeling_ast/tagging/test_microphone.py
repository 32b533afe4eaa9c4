"""`--microphone`, with a stand-in for the package `sounddevice` that plays a waveform, as no test has a sound device."""

import json
import queue
import sys
import threading
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from tagged_models import HOP, WINDOW, noise, write

from modeling_ast import run_tagging
from modeling_ast.audio import AudioError
from modeling_ast.tagging import microphone as microphone_module
from modeling_ast.tagging.microphone import Microphone

LENGTH = 3 * WINDOW
DEVICES = [
    {"index": 0, "name": "Speaker", "max_input_channels": 0, "default_samplerate": 48_000.0},
    {"index": 1, "name": "Built-in Microphone", "max_input_channels": 32, "default_samplerate": 16_000.0},
    {"index": 2, "name": "USB Microphone", "max_input_channels": 1, "default_samplerate": 16_000.0},
]


class PortAudioError(Exception):
    pass


class StandIn(ModuleType):
    """What of the package is used, with its behaviour: a callback in a thread of its own, whose memory is written to again."""

    PortAudioError = PortAudioError

    def __init__(self, waveform, devices=DEVICES, overflows=(), busy=False):
        super().__init__("sounddevice")
        self.waveform, self.devices, self.overflows, self.busy = waveform, devices, overflows, busy
        self.opened, self.closed = [], 0

    def query_devices(self, device=None, kind=None):
        if device is None and kind is None:
            return self.devices
        found = [each for each in self.devices if each["max_input_channels"]]
        if isinstance(device, int):
            found = [each for each in found if each["index"] == device]
        elif device is not None:
            found = [each for each in found if device.lower() in each["name"].lower()]
        elif not found:
            raise PortAudioError("Error querying device -1")
        if not found or (isinstance(device, str) and len(found) > 1):
            raise ValueError(f"No input device matching {device!r}" if not found else "Multiple input devices found")
        return found[0]

    def InputStream(self, **settings):  # noqa: N802, the package's own name
        if self.busy:
            raise PortAudioError("Device unavailable [PaErrorCode -9985]")
        self.opened.append(settings)
        stream = SimpleNamespace(active=True)

        def play():
            memory = np.empty((settings["blocksize"], settings["channels"]), np.float32)
            for number, start in enumerate(range(0, len(self.waveform), len(memory))):
                piece = self.waveform[start : start + len(memory), None]
                memory[: len(piece)] = piece
                status = SimpleNamespace(input_overflow=number in self.overflows)
                settings["callback"](memory[: len(piece)], len(piece), None, status)
                memory[:] = np.nan
            stream.active = False

        def close():
            self.closed += 1

        stream.start, stream.close = threading.Thread(target=play, daemon=True).start, close
        return stream


@pytest.fixture
def plays(monkeypatch):
    def install(waveform=None, **settings):
        stand_in = StandIn(noise(LENGTH) if waveform is None else waveform, **settings)
        monkeypatch.setitem(sys.modules, "sounddevice", stand_in)
        return stand_in

    monkeypatch.setattr(microphone_module, "PATIENCE", 0.2)
    return install


def flags_of(folder):
    return ["--model_name_or_path", str(folder), "--device", "cpu", "--format", "jsonl", "--timeline"]


def test_a_microphone_gives_what_a_file_of_its_sound_gives(multi_label, tmp_path, plays, capsys):
    path = write(tmp_path / "a.wav", noise(LENGTH))
    assert run_tagging.main([str(path), *flags_of(multi_label)]) == 0
    (expected,) = map(json.loads, capsys.readouterr().out.splitlines())
    stand_in = plays(overflows=(3, 5))
    assert run_tagging.main(["--microphone", *flags_of(multi_label)]) == 0
    shown = capsys.readouterr()
    (row,) = map(json.loads, shown.out.splitlines())
    assert row["file"] == "microphone"
    spans = [
        [[each[key] for key in ("start", "end", "label")] for each in found["segments"]] for found in (row, expected)
    ]
    assert spans[0] == spans[1]
    lines = shown.err.splitlines()
    assert "ast-tag: Listening to Built-in Microphone, 2 channel(s) at 16000 Hz; Ctrl-C ends it." in lines
    windows = len([*range(0, LENGTH - WINDOW, HOP), LENGTH - WINDOW])
    assert any(line.startswith(f"ast-tag: {windows} windows, told ") for line in lines)
    assert "ast-tag: Sound was lost 2 times" in lines[-1]
    (settings,) = stand_in.opened
    assert (settings["device"], settings["samplerate"], settings["dtype"]) == (None, 16_000, "float32")
    assert stand_in.closed == 1


def test_an_interruption_gives_what_was_heard_so_far(multi_label, plays, monkeypatch, capsys):
    class Interrupted(queue.SimpleQueue):
        """As of somebody who presses Ctrl-C when all was heard."""

        def get(self, timeout):
            try:
                return super().get(timeout=timeout)
            except queue.Empty:
                raise KeyboardInterrupt from None

    stand_in = plays()
    monkeypatch.setattr(microphone_module, "queue", SimpleNamespace(SimpleQueue=Interrupted, Empty=queue.Empty))
    with pytest.raises(KeyboardInterrupt):
        run_tagging.main.__wrapped__(["--microphone", *flags_of(multi_label)])
    (row,) = map(json.loads, capsys.readouterr().out.splitlines())
    assert len(row["labels"]) == 3
    assert stand_in.closed == 1


@pytest.mark.parametrize(
    ("device", "found"), [("2", "USB Microphone"), ("usb", "USB Microphone"), (None, "Built-in Microphone")]
)
def test_devices_are_chosen_by_number_or_name(plays, device, found):
    plays()
    assert Microphone(device).name == found


def test_more_channels_are_opened_only_if_one_is_named(plays):
    plays()
    assert [Microphone("1", channels).channels for channels in ("mean", "left", 5, 99)] == [2, 2, 5, 32]
    assert Microphone("2", "mean").channels == 1


@pytest.mark.parametrize(
    ("device", "devices", "words"),
    [
        (
            "desk",
            DEVICES,
            r"There is no one device 'desk' to record from \(No input .*of: 1 Built-in Microphone, 2 USB Microphone",
        ),
        ("microphone", DEVICES, r"There is no one device 'microphone' to record from \(Multiple"),
        ("0", DEVICES, "There is no one device 0 to record from"),
        (None, DEVICES[:1], r"There is no device here to record from \(Error querying device -1\). Plug in"),
        ("1", [], "There is no device here to record from"),
    ],
)
def test_a_device_that_is_not_there_is_told(plays, device, devices, words):
    plays(devices=devices)
    with pytest.raises(AudioError, match=words):
        Microphone(device)


def test_a_device_that_is_held_is_told(plays):
    plays(busy=True)
    with pytest.raises(
        AudioError, match="Built-in Microphone cannot be opened: Device unavailable .* Another program may"
    ):
        next(Microphone().chunks())


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            ImportError("No module named 'sounddevice'"),
            "--microphone needs the package sounddevice, .* Type: pip install",
        ),
        (OSError("PortAudio library not found"), "--microphone: PortAudio library not found. Install it, on Debian"),
    ],
)
def test_without_the_package_it_is_told_what_to_type(multi_label, monkeypatch, capsys, error, words):
    class Failing:
        def find_spec(self, name, _path=None, _target=None):
            if name == "sounddevice":
                raise error

    monkeypatch.delitem(sys.modules, "sounddevice", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Failing(), *sys.meta_path])
    with pytest.raises(AudioError, match=words):
        Microphone()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["a.wav", "--microphone"], "--microphone is sound from a microphone, and is tagged alone"),
        (["-", "--microphone"], "--microphone is sound from a microphone, and is tagged alone"),
        (["--microphone", "--files_from", "l"], "--microphone is sound from a microphone, and is tagged alone"),
        (["--microphone", "--output", "x"], "--output is about files"),
    ],
)
def test_what_needs_a_file_is_refused_of_a_microphone(multi_label, capsys, arguments, words):
    with pytest.raises(SystemExit) as ended:
        run_tagging.main([*arguments, "--model_name_or_path", str(multi_label)])
    assert ended.value.code == 2
    assert words in capsys.readouterr().err
