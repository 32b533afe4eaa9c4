"""Clips whose labels are known because they were made: tones and noises by formula, words by a speech synthesiser.

The plucked string follows Karplus and Strong (Computer Music Journal, 1983), the bell Chowning's frequency modulation
(Journal of the AES, 1973). Words are spoken by `flite` (Black and Lenzo, 2001) and its voices, whose licences let the
result be shared; every voice is heard as several speakers that differ in pitch, rate and vocal tract length.
"""

import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import soundfile
from scipy.signal import butter, fftconvolve, lfilter, sosfilt

from modeling_ast.audio import resample

from .clips import SAMPLING_RATE
from .fetch import SourceError

DIGITS = "zero one two three four five six seven eight nine"
LETTERS = "a b c d e f g h i j k l m n o p q r s t u v w x y z"
PHONETIC = (
    "alpha bravo charlie delta echo foxtrot golf hotel india juliet kilo lima mike november oscar papa quebec romeo "
    "sierra tango uniform victor whiskey xray yankee zulu"
)
WORDS = (
    "yes no up down left right on off stop go start end open close push pull hello goodbye please thanks sorry again "
    "ten eleven twelve twenty thirty forty fifty hundred thousand million minus plus today tomorrow yesterday monday "
    "tuesday wednesday thursday friday saturday sunday january march april june august october red green blue yellow "
    "black white water fire house tree bird cat dog bed happy sad wow forward backward follow learn visual sheila "
    "marvin mother father sister brother table chair window door music light night morning summer winter river "
    "mountain paper pencil number telephone minute second hour first last next only quick slow"
)
VOICES = {"awb": 110.0, "kal16": 105.0, "rms": 95.0, "slt": 170.0}  # mean pitch of flite's voices in Hz
SPEAKERS = 12  # a voice
LETTER_A = "ay"  # flite reads a lone "a" as the article


def spoken_words(flite: Path, seed: int) -> Iterator[tuple[np.ndarray, str, str]]:
    """Speak every word by every speaker of every voice.

    Args:
        flite (`Path`): the unpacked packages' folder that holds the program below `flite` and its libraries below
            `libflite1` and `libasound2`.
        seed (`int`): of the speakers.

    Yields:
        Waveform of shape `(samples,)` at 16 kHz, `words_en/word`, and the speaker as the recording.

    Raises:
        SourceError: if the program cannot be run.
    """
    said = {word: word for word in f"{DIGITS} {PHONETIC} {WORDS}".split()}
    said |= {f"letter_{letter}": LETTER_A if letter == "a" else letter for letter in LETTERS.split()}
    said["xray"] = "x ray"
    for voice, pitch in VOICES.items():
        for speaker in range(SPEAKERS):
            draw = np.random.default_rng([seed, sum(voice.encode()), speaker])
            tract = draw.uniform(0.82, 1.22)  # above 1: a shorter vocal tract, a higher voice
            mean = pitch * draw.uniform(0.75, 1.35) / tract**0.5
            rate = draw.uniform(0.8, 1.35)
            spread = draw.uniform(4, 25)
            for label, text in said.items():
                settings = {
                    "duration_stretch": rate * tract * draw.uniform(0.9, 1.12),
                    "int_f0_target_mean": mean * draw.uniform(0.93, 1.07),
                    "int_f0_target_stddev": spread,
                }
                waveform = speak(flite, text, voice, settings)
                waveform = resample(waveform, round(SAMPLING_RATE * tract), SAMPLING_RATE)
                yield waveform * _level(waveform, draw), f"words_en/{label}", f"flite:{voice}-{speaker:02d}"


def speak(flite: Path, text: str, voice: str, settings: dict[str, float]) -> np.ndarray:
    """Speak a text by flite.

    Args:
        flite (`Path`): see [`spoken_words`].
        text (`str`): what is said.
        voice (`str`): a voice of flite, with 16 kHz.
        settings (`dict[str, float]`): flite's features, such as `duration_stretch`.

    Returns:
        `np.ndarray` of shape `(samples,)` at 16 kHz, without the silence around.

    Raises:
        SourceError: if flite is not there or fails.
    """
    folders = [str(path) for name in ("libflite1", "libasound2") for path in sorted((flite / name).glob("usr/lib/*"))]
    environment = {**os.environ, "LD_LIBRARY_PATH": ":".join(folders)}
    with tempfile.NamedTemporaryFile(suffix=".wav") as file:
        features = [word for name, value in settings.items() for word in ("--setf", f"{name}={value:.4f}")]
        command = [str(flite / "flite/usr/bin/flite"), "-voice", voice, *features, "-t", text, "-o", file.name]
        try:
            run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        except OSError as error:
            raise SourceError(
                f"flite cannot be run: {error}. Its Debian package is for this system's processor only."
            ) from None
        if run.returncode or run.stderr:
            raise SourceError(f"`{' '.join(command)}` failed: {run.stderr.strip()}")
        waveform = soundfile.read(file.name, dtype="float32")[0]
    heard = np.flatnonzero(np.abs(waveform) > 0.01 * np.abs(waveform).max(initial=1e-9))
    margin = SAMPLING_RATE // 50
    return waveform[max(heard[0] - margin, 0) : heard[-1] + margin] if len(heard) else waveform


def synthetic_sounds(seed: int, count: int) -> Iterator[tuple[np.ndarray, str, str]]:
    """Make sounds of every label of every set, in turn.

    Args:
        seed (`int`): of everything drawn.
        count (`int`): clips a label.

    Yields:
        Waveform of shape `(samples,)` at 16 kHz, `label_set/label`, and a recording: each tenth clip of a label shares one.
    """
    for number, (label, make) in enumerate(sorted(_makers().items())):
        for index in range(count):
            draw = np.random.default_rng([seed, number, index])
            waveform = _in_a_place(make(draw), draw)
            yield (waveform * _level(waveform, draw)).astype(np.float32), label, f"synthetic:{index % 10}"


def _level(waveform: np.ndarray, draw: np.random.Generator) -> float:
    """Draw a factor that brings the largest sample to between -24 and -0.5 dB."""
    return 10 ** (draw.uniform(-24, -0.5) / 20) / max(float(np.abs(waveform).max(initial=0)), 1e-9)


def _in_a_place(waveform: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    """Put a sound into a room and some noise, each at times."""
    if draw.random() < 0.4:  # an exponentially decaying noise, the late part of a room's response
        seconds = draw.uniform(0.05, 0.5)
        tail = draw.standard_normal(round(seconds * SAMPLING_RATE)) * np.exp(-_time(seconds) * 6.9 / seconds)
        wet = fftconvolve(waveform, tail)[: len(waveform)]
        share = draw.uniform(0.1, 0.6) * np.abs(waveform).max() / max(np.abs(wet).max(), 1e-9)
        waveform = waveform + share * wet
    if draw.random() < 0.5:
        color = lfilter([1], [1, -draw.uniform(0, 0.98)], draw.standard_normal(len(waveform)))
        decibels = draw.uniform(15, 50)
        waveform = waveform + color * 10 ** (-decibels / 20) * np.std(waveform) / np.std(color)
    return waveform


def _makers() -> dict[str, Callable[[np.random.Generator], np.ndarray]]:
    """List what can be made."""
    names = ["c", "c_sharp", "d", "d_sharp", "e", "f", "f_sharp", "g", "g_sharp", "a", "a_sharp", "b"]
    made = {f"sound_kind/{kind}": make for kind, make in KINDS.items()}
    made |= {f"drums/{drum}": make for drum, make in DRUMS.items()}
    made |= {f"pitch_class/{name}": lambda draw, step=step: _pitched(draw, step) for step, name in enumerate(names)}
    made |= {f"envelope/{name}": lambda draw, name=name: _shaped(draw, name) for name in ENVELOPES}
    made |= {f"modulation_hz/{rate}": lambda draw, rate=rate: _modulated(draw, rate) for rate in (2, 4, 8, 16, 32, 64)}
    made |= {f"chord_kind/{name}": lambda draw, name=name: _chord(draw, name) for name in CHORDS}
    return made | {f"count/{number}": lambda draw, number=number: _repeated(draw, number) for number in range(1, 7)}


def _time(seconds: float) -> np.ndarray:
    return np.arange(round(seconds * SAMPLING_RATE)) / SAMPLING_RATE


def _decay(time: np.ndarray, seconds: float) -> np.ndarray:
    return np.exp(-time * 4.6 / seconds)  # -40 dB after so long


def _band_noise(draw: np.random.Generator, length: int, low: float, high: float) -> np.ndarray:
    """Make noise between two frequencies."""
    corners = [max(low, 20), min(high, 0.49 * SAMPLING_RATE)]
    noise = sosfilt(butter(2, corners, "bandpass", fs=SAMPLING_RATE, output="sos"), draw.standard_normal(length))
    return noise / max(np.std(noise), 1e-9)


def _tone(draw: np.random.Generator, frequency: float, seconds: float) -> np.ndarray:
    """Make a steady tone of a drawn timbre: harmonics that fall off, odd ones or all, a little vibrato at times."""
    time = _time(seconds)
    vibrato = draw.choice([0, 0, 0.003]) * np.sin(2 * np.pi * draw.uniform(4, 7) * time)
    phase = 2 * np.pi * np.cumsum(frequency * (1 + vibrato)) / SAMPLING_RATE
    step, fall, most = draw.choice([1, 2]), draw.uniform(0.6, 2.5), int(min(20, 0.45 * SAMPLING_RATE / frequency))
    return sum(np.sin(n * phase + draw.uniform(0, 6.28)) / n**fall for n in range(1, most + 1, step))


def _pluck(draw: np.random.Generator, frequency: float | None = None) -> np.ndarray:
    """Pluck a string (Karplus and Strong)."""
    period = SAMPLING_RATE / (frequency or draw.uniform(70, 800)) - 0.5  # the averaging delays by half a sample
    whole, part = int(period), period % 1
    burst = np.zeros(round(draw.uniform(0.4, 1.5) * SAMPLING_RATE))
    burst[: whole + 1] = draw.uniform(-1, 1, whole + 1)
    feedback = draw.uniform(0.985, 0.999)
    loop = np.zeros(whole + 3)
    loop[0] = 1
    loop[whole : whole + 3] = -feedback * np.convolve([1 - part, part], [0.5, 0.5])
    return lfilter([1], loop, burst)


def _bell(draw: np.random.Generator, frequency: float | None = None) -> np.ndarray:
    """Strike a bell (Chowning): the modulator's ratio is no whole number and its depth decays."""
    time, carrier = _time(draw.uniform(0.5, 1.5)), frequency or draw.uniform(150, 1500)
    fall = _decay(time, draw.uniform(0.5, 2))
    modulator = np.sin(2 * np.pi * carrier * draw.choice([1.4, 2.76, 3.5, 0.71]) * time)
    return fall * np.sin(2 * np.pi * carrier * time + draw.uniform(1, 8) * fall * modulator)


def _sweep(draw: np.random.Generator, upward: bool) -> np.ndarray:
    """Sweep a tone through the frequencies."""
    time = _time(draw.uniform(0.2, 1.5))
    low = draw.uniform(80, 800)
    frequency = low * draw.uniform(2, 9) ** np.linspace(0, 1, len(time))
    phase = 2 * np.pi * np.cumsum(frequency if upward else frequency[::-1]) / SAMPLING_RATE
    return np.sign(np.sin(phase)) * 0.5 if draw.random() < 0.3 else np.sin(phase)


def _thump(draw):
    time = _time(draw.uniform(0.2, 0.7))
    fall = draw.uniform(40, 70) + draw.uniform(60, 250) * np.exp(-time * draw.uniform(15, 50))
    click = _band_noise(draw, len(time), 1000, 6000) * np.exp(-time * 300) * draw.uniform(0, 0.2)
    return np.sin(2 * np.pi * np.cumsum(fall) / SAMPLING_RATE) * _decay(time, draw.uniform(0.15, 0.6)) + click


def _rattle(draw):
    time = _time(draw.uniform(0.15, 0.5))
    skin = np.sin(2 * np.pi * draw.uniform(150, 260) * time) * np.exp(-time * draw.uniform(15, 40))
    wires = _band_noise(draw, len(time), draw.uniform(800, 2500), 7800) * _decay(time, draw.uniform(0.1, 0.4))
    return skin + draw.uniform(0.2, 0.8) * wires


def _hiss_short(draw):
    time = _time(draw.uniform(0.05, 0.25))
    return _band_noise(draw, len(time), draw.uniform(3000, 6000), 7900) * _decay(time, draw.uniform(0.03, 0.15))


def _hiss_long(draw):
    return _metal(draw, draw.uniform(0.6, 1.4), draw.uniform(1500, 3000))


def _skin_tone(draw):
    time, base = _time(draw.uniform(0.3, 0.8)), draw.uniform(80, 300)
    modes = zip((1, 1.59, 2.14, 2.3, 2.65), draw.uniform(0.1, 1, 5), strict=True)  # of a round membrane
    bend = 1 + 0.15 * np.exp(-time * 20)
    return sum(
        a * np.sin(2 * np.pi * np.cumsum(base * m * bend) / SAMPLING_RATE) * _decay(time, 0.6 / m) for m, a in modes
    )


def _metal(draw, seconds: float, low: float):
    """Inharmonic square waves and noise, as drum machines make their cymbals."""
    time = _time(seconds * 1.2)
    squares = sum(np.sign(np.sin(2 * np.pi * f * time)) for f in draw.uniform(low, 4 * low, 6)) / 6
    return (draw.uniform(0.2, 1) * _band_noise(draw, len(time), low, 7900) + squares) * _decay(time, seconds)


def _ride(draw):
    body = 0.4 * _metal(draw, draw.uniform(0.6, 1.2), draw.uniform(1500, 3000))
    time = np.arange(len(body)) / SAMPLING_RATE
    ping = sum(np.sin(2 * np.pi * f * time) for f in draw.uniform(2000, 6000, 3)) * _decay(time, 0.4)
    return body + draw.uniform(0.2, 0.6) * ping


def _cowbell(draw):
    time, low = _time(draw.uniform(0.15, 0.5)), draw.uniform(450, 900)
    pair = np.sign(np.sin(2 * np.pi * low * time)) + np.sign(np.sin(2 * np.pi * low * draw.uniform(1.4, 1.6) * time))
    return pair * _decay(time, draw.uniform(0.1, 0.4))


def _clap(draw):
    time = _time(draw.uniform(0.2, 0.4))
    bursts = sum(np.exp(-np.maximum(time - at, 0) * 150) * (time >= at) for at in (0, 0.011, 0.022))
    tail = _decay(np.maximum(time - 0.03, 0), 0.2) * (time >= 0.03)
    return _band_noise(draw, len(time), draw.uniform(600, 1000), draw.uniform(2000, 4000)) * (bursts + tail)


def _wood(draw):
    time = _time(draw.uniform(0.08, 0.25))
    return sum(np.sin(2 * np.pi * f * time) for f in draw.uniform(600, 3000, 3)) * _decay(
        time, draw.uniform(0.03, 0.1)
    )


def _engine(draw):
    time = _time(draw.uniform(0.8, 1.5))
    rate = draw.uniform(20, 90) * (1 + draw.uniform(-0.4, 0.4) * time / time[-1])
    pulses = np.diff(np.floor(np.cumsum(rate) / SAMPLING_RATE), prepend=0) * draw.uniform(0.6, 1, len(time))
    return lfilter([1], np.poly(0.97 * np.exp(1j * np.array([1, -1]) * draw.uniform(0.05, 0.5))).real, pulses)


def _rain(draw):
    length = round(draw.uniform(0.8, 1.5) * SAMPLING_RATE)
    drops = (draw.random(length) < draw.uniform(0.001, 0.02)) * draw.exponential(1, length)
    return lfilter([1, -1], [1, -draw.uniform(0.3, 0.9)], drops)


def _wind(draw):
    time = _time(draw.uniform(1, 1.5))
    swell = 1 + 0.8 * np.sin(2 * np.pi * draw.uniform(0.5, 2) * time + draw.uniform(0, 6.28))
    low = draw.uniform(100, 800)
    return _band_noise(draw, len(time), low, low * draw.uniform(1.5, 3)) * swell


def _chirps(draw):
    call = _sweep(np.random.default_rng(draw.integers(2**31)), bool(draw.integers(2)))[
        : round(draw.uniform(0.04, 0.15) * SAMPLING_RATE)
    ]
    call = call * np.hanning(len(call))
    gaps = [np.zeros(round(draw.uniform(0.02, 0.15) * SAMPLING_RATE)) for _ in range(draw.integers(3, 8))]
    return np.concatenate([part for gap in gaps for part in (call, gap)])


def _siren(draw):
    time = _time(draw.uniform(0.8, 1.5))
    frequency = draw.uniform(400, 900) * 2 ** (draw.uniform(0.2, 0.7) * np.sin(2 * np.pi * draw.uniform(1, 6) * time))
    return np.sin(2 * np.pi * np.cumsum(frequency) / SAMPLING_RATE)


def _clicks(draw):
    time = _time(draw.uniform(0.5, 1.5))
    train = np.diff(np.floor(time * draw.uniform(3, 30)), prepend=-1)
    return lfilter([1], np.poly(0.9 * np.exp(1j * np.array([1, -1]) * draw.uniform(0.3, 2.5))).real, train)


KINDS = {
    "pluck": _pluck,
    "bell": _bell,
    "sweep_up": lambda draw: _sweep(draw, True),
    "sweep_down": lambda draw: _sweep(draw, False),
    "thump": _thump,
    "rattle": _rattle,
    "hiss_short": _hiss_short,
    "hiss_long": _hiss_long,
    "skin": _skin_tone,
    "wood": _wood,
    "engine": _engine,
    "rain": _rain,
    "wind": _wind,
    "chirps": _chirps,
    "siren": _siren,
    "clicks": _clicks,
    "organ": lambda draw: _tone(draw, draw.uniform(80, 900), draw.uniform(0.4, 1.5)),
    "noise": lambda draw: _band_noise(
        draw, round(draw.uniform(0.3, 1.2) * SAMPLING_RATE), draw.uniform(30, 2000), draw.uniform(2500, 7800)
    ),
}
DRUMS = {
    "kick": _thump,
    "snare": _rattle,
    "hat_closed": _hiss_short,
    "hat_open": lambda draw: _metal(draw, draw.uniform(0.3, 0.7), draw.uniform(2500, 4500)),
    "crash": lambda draw: _metal(draw, draw.uniform(0.9, 1.5), draw.uniform(900, 2000)),
    "ride": _ride,
    "tom": _skin_tone,
    "bell": _cowbell,
    "clap": _clap,
    "sidestick": _wood,
}
ENVELOPES = ("strike", "swell", "steady", "gated", "reversed", "double")
CHORDS = {
    "major": (0, 4, 7),
    "minor": (0, 3, 7),
    "diminished": (0, 3, 6),
    "augmented": (0, 4, 8),
    "octave": (0, 12),
    "fifth": (0, 7),
    "second": (0, 2),
}


def _pitched(draw: np.random.Generator, step: float) -> np.ndarray:
    """Make a note: a tone, a plucked string or a struck one."""
    frequency = 440 * 2 ** ((step - 9) / 12 + draw.integers(-2, 2) + draw.uniform(-0.1, 0.1) / 12)
    if draw.random() < 0.3:
        return _pluck(draw, frequency)
    note = _tone(draw, frequency, draw.uniform(0.3, 1.2))
    time = np.arange(len(note)) / SAMPLING_RATE
    return note * (_decay(time, draw.uniform(0.3, 2)) if draw.random() < 0.6 else np.minimum(1, time / 0.03))


def _chord(draw: np.random.Generator, kind: str) -> np.ndarray:
    """Make tones together."""
    root, seconds, timbre = draw.uniform(45, 70), draw.uniform(0.5, 1.5), draw.integers(2**31)
    steps = [440 * 2 ** ((root + step - 69) / 12) for step in CHORDS[kind]]
    notes = sum(_tone(np.random.default_rng(timbre), frequency, seconds) for frequency in steps)
    return notes * _decay(_time(seconds), draw.uniform(0.5, 4))


def _bed(draw: np.random.Generator, seconds: float) -> np.ndarray:
    low = draw.uniform(50, 2000)
    noise = _band_noise(draw, round(seconds * SAMPLING_RATE), low, low * draw.uniform(2, 4))
    return noise if draw.random() < 0.5 else _tone(draw, draw.uniform(100, 1200), seconds)


def _shaped(draw: np.random.Generator, envelope: str) -> np.ndarray:
    """Make a tone or a noise whose loudness takes a course."""
    seconds = draw.uniform(0.4, 1.2)
    time = _time(seconds)
    strike = _decay(time, seconds * draw.uniform(0.3, 0.8))
    half = round(len(time) * draw.uniform(0.4, 0.6))
    course = {
        "strike": strike,
        "reversed": strike[::-1],
        "swell": np.sin(np.pi * time / seconds),
        "steady": np.minimum(1, np.minimum(time, seconds - time) / 0.01),
        "gated": (np.floor(time * draw.uniform(5, 14)) % 2 == 0) * 1.0,
        "double": strike + np.concatenate([np.zeros(half), strike[: len(time) - half]]),
    }
    return _bed(draw, seconds) * course[envelope]


def _modulated(draw: np.random.Generator, rate: float) -> np.ndarray:
    """Make a tone or a noise whose loudness goes up and down."""
    seconds = draw.uniform(0.8, 1.5)
    turn = np.sin(2 * np.pi * rate * draw.uniform(0.9, 1.1) * _time(seconds) + draw.uniform(0, 6.28))
    return _bed(draw, seconds) * (1 + draw.uniform(0.5, 1) * turn)


def _repeated(draw: np.random.Generator, number: int) -> np.ndarray:
    """Make a short sound that is heard some times, at uneven distances."""
    once = draw.choice([_wood, _hiss_short, _thump])(draw)[: round(0.12 * SAMPLING_RATE)]
    sound = np.zeros(round((0.3 + 0.25 * number) * SAMPLING_RATE))
    for index in range(number):
        start = round((0.05 + 0.25 * index + draw.uniform(0, 0.1)) * SAMPLING_RATE)
        sound[start : start + len(once)] += once
    return sound
