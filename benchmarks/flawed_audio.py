"""Small files of which less is heard than they hold, or whose header says something else: one of each kind of note."""

import struct
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import soundfile

RATE, SECONDS = 16_000, 0.8
KINDS = ("cut_off", "damaged", "left_out", "cancelled", "silent", "header")


def write_flawed(folder: Path, kinds: Iterable[str] = KINDS) -> dict[str, Path]:
    """Write a file of each kind.

    Args:
        folder (`Path`): where to.
        kinds (iterable of `str`): which of `KINDS`.

    Returns:
        The files by kind, called after it.
    """
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, round(RATE * SECONDS))
    written = {}
    for kind in kinds:
        path = written[kind] = folder / f"{kind}.{'flac' if kind == 'damaged' else 'wav'}"
        samples = {"cancelled": np.stack([noise, -noise], axis=1), "silent": 0 * noise}.get(kind, noise)
        soundfile.write(path, samples, RATE)
        content = bytearray(path.read_bytes())
        at = content.find(b"data") + 4  # where a WAV file says how many bytes of samples it has
        if kind == "cut_off":
            del content[at + 4 + len(noise) :]
        elif kind == "damaged":
            content[len(content) // 2 : len(content) // 2 + 200] = bytes(200)
        elif kind == "left_out":  # joined to another that is none
            content += b"RIFF" + struct.pack("<I", 100) + b"WAVEfmt " + bytes(88)
        elif kind == "header":
            content[at : at + 4] = bytes(4)
        path.write_bytes(content)
    return written
