"""Words spoken by speech synthesisers, each by speakers that differ in voice, accent, pitch, rate and vocal tract length.

`flite` (Black and Lenzo, 2001) joins stretches of four people's recordings, whose licences let the result be shared. `espeak-ng`
(Duddington; Dunn) makes formants by rule, which sounds less human and has many accents; the program is under the GPL, what it says
is not part of it.
"""

import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile

from modeling_ast.audio import resample

from .clips import SAMPLING_RATE, drawn_level
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
TEXTS = {word: word for word in f"{DIGITS} {PHONETIC} {WORDS}".split()} | {"xray": "x ray"}
TEXTS |= {f"letter_{letter}": letter for letter in LETTERS.split()}
TEXTS["letter_a"] = "ay"  # a lone "a" is read as the article
FLITE, ESPEAK = "flite", "espeak-ng"  # packages of sources.yaml
VOICES = {"awb": 110.0, "kal16": 105.0, "rms": 95.0, "slt": 170.0}  # mean pitch of flite's voices in Hz
SPEAKERS = 12  # a voice of flite
ACCENTS = ["en-gb", "en-gb-scotland", "en-gb-x-gbclan", "en-gb-x-gbcwmd", "en-gb-x-rp", "en-us", "en-us-nyc", "en-029"]
VARIANTS = [
    "m1",
    "m2",
    "m3",
    "m4",
    "m5",
    "m6",
    "m7",
    "m8",
    "f1",
    "f2",
    "f3",
    "f4",
    "f5",
    "klatt",
    "klatt2",
    "klatt4",
]  # of espeak-ng, nearest to people
VARIANTS_AN_ACCENT = 4


def spoken_by_flite(unpacked: Path, seed: int) -> Iterator[tuple[np.ndarray, str, str]]:
    """Have every word spoken by every speaker of every voice of flite.

    Args:
        unpacked (`Path`): the packages' folder that holds the program below `flite` and its libraries below `libflite1` and
            `libasound2`.
        seed (`int`): of the speakers.

    Yields:
        Waveform of shape `(samples,)` at 16 kHz, `words_en/word`, and the speaker as the recording.

    Raises:
        SourceError: if the program cannot be run.
    """
    for voice, pitch in VOICES.items():
        for speaker in range(SPEAKERS):
            draw = np.random.default_rng([seed, sum(voice.encode()), speaker])
            tract = draw.uniform(0.82, 1.22)  # above 1: a shorter vocal tract, a higher voice
            mean = pitch * draw.uniform(0.75, 1.35) / tract**0.5
            rate = draw.uniform(0.8, 1.35)
            spread = draw.uniform(4, 25)
            for label, text in TEXTS.items():
                settings = {
                    "duration_stretch": rate * tract * draw.uniform(0.9, 1.12),
                    "int_f0_target_mean": mean * draw.uniform(0.93, 1.07),
                    "int_f0_target_stddev": spread,
                }
                waveform = say_by_flite(unpacked, text, voice, settings)
                waveform = resample(waveform, round(SAMPLING_RATE * tract), SAMPLING_RATE)
                yield waveform * drawn_level(waveform, draw), f"words_en/{label}", f"{FLITE}:{voice}-{speaker:02d}"


def spoken_by_espeak(unpacked: Path, seed: int) -> Iterator[tuple[np.ndarray, str, str]]:
    """Have every word spoken in every accent of espeak-ng, by as many of its speakers as `VARIANTS_AN_ACCENT`.

    Args:
        unpacked (`Path`): the packages' folder that holds the program below `espeak-ng`, and its libraries and voices below
            `libespeak-ng1`, `libpcaudio0`, `libsonic0` and `espeak-ng-data`.
        seed (`int`): of the speakers.

    Yields:
        Waveform of shape `(samples,)` at 16 kHz, `words_en/word`, and the speaker as the recording.

    Raises:
        SourceError: if the program cannot be run.
    """
    for number, accent in enumerate(ACCENTS):
        for speaker in range(VARIANTS_AN_ACCENT):
            draw = np.random.default_rng([seed, number, speaker, len(ESPEAK)])
            variant = VARIANTS[(number * VARIANTS_AN_ACCENT + speaker) % len(VARIANTS)]
            tract = draw.uniform(0.88, 1.14)
            pitch, words_a_minute = draw.integers(25, 76), draw.uniform(120, 210) / tract
            for label, text in TEXTS.items():
                settings = {
                    "p": int(pitch + draw.integers(-6, 7)),
                    "s": round(words_a_minute * draw.uniform(0.9, 1.12)),
                }
                waveform, rate = say_by_espeak(unpacked, text, f"{accent}+{variant}", settings)
                waveform = resample(waveform, round(rate * tract), SAMPLING_RATE)
                yield waveform * drawn_level(waveform, draw), f"words_en/{label}", f"{ESPEAK}:{accent}+{variant}"


# Package that speaks, what it yields, and the licence of what it says.
SYNTHESISERS = {FLITE: (spoken_by_flite, "MIT-Festival"), ESPEAK: (spoken_by_espeak, "CC0-1.0")}


def say_by_flite(unpacked: Path, text: str, voice: str, settings: dict[str, float]) -> np.ndarray:
    """Have a text spoken by flite.

    Args:
        unpacked (`Path`): see [`spoken_by_flite`].
        text (`str`): what is said.
        voice (`str`): a voice of flite, with 16 kHz.
        settings (`dict[str, float]`): flite's features, such as `duration_stretch`.

    Returns:
        `np.ndarray` of shape `(samples,)` at 16 kHz, without the silence around.

    Raises:
        SourceError: if flite is not there or fails.
    """
    features = [word for name, value in settings.items() for word in ("--setf", f"{name}={value:.4f}")]
    command = [str(unpacked / FLITE / "usr/bin/flite"), "-voice", voice, *features, "-t", text, "-o"]
    return _said(command, [unpacked / name for name in ("libflite1", "libasound2")])[0]


def say_by_espeak(unpacked: Path, text: str, voice: str, settings: dict[str, int]) -> tuple[np.ndarray, int]:
    """Have a text spoken by espeak-ng.

    Args:
        unpacked (`Path`): see [`spoken_by_espeak`].
        text (`str`): what is said.
        voice (`str`): a voice with its variant, such as `en-us+f2`.
        settings (`dict[str, int]`): single-letter options of the program, such as `p`, the pitch from 0 to 99.

    Returns:
        `np.ndarray` of shape `(samples,)`, without the silence around, and its sampling rate in Hz.

    Raises:
        SourceError: if espeak-ng is not there or fails.
    """
    data = next(iter(sorted((unpacked / "espeak-ng-data").glob("usr/lib/*"))), unpacked)
    options = [word for name, value in settings.items() for word in (f"-{name}", str(value))]
    command = [str(unpacked / ESPEAK / "usr/bin/espeak-ng"), f"--path={data}", "-v", voice, *options, text, "-w"]
    return _said(command, [unpacked / name for name in ("libespeak-ng1", "libpcaudio0", "libsonic0")])


def _said(command: list[str], libraries: list[Path]) -> tuple[np.ndarray, int]:
    """Run a program that takes a file to write as its last argument; samples without the silence around, and their rate."""
    folders = [str(path) for library in libraries for path in sorted(library.glob("usr/lib/*"))]
    environment = {**os.environ, "LD_LIBRARY_PATH": ":".join(folders)}
    with tempfile.NamedTemporaryFile(suffix=".wav") as file:
        try:
            run = subprocess.run([*command, file.name], env=environment, capture_output=True, text=True, check=False)
        except OSError as error:
            raise SourceError(
                f"{Path(command[0]).name} cannot be run: {error}. Its Debian package is for this system's processor only."
            ) from None
        if run.returncode or run.stderr:
            raise SourceError(f"`{' '.join(command)}` failed: {run.stderr.strip()}")
        waveform, rate = soundfile.read(file.name, dtype="float32")
    heard = np.flatnonzero(np.abs(waveform) > 0.01 * np.abs(waveform).max(initial=1e-9))
    margin = rate // 50
    return (waveform[max(heard[0] - margin, 0) : heard[-1] + margin] if len(heard) else waveform), rate
