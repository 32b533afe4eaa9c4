"""Small files of which less is heard than they hold, one of each kind of note, and the words that are said of each."""

import struct
from pathlib import Path

import numpy as np
import soundfile

RATE, SECONDS = 16_000, 0.8
WORDS = {
    "cut_off": "cut_off.wav is cut off: 0.40 of the 0.80 s that its header announces are there",
    "damaged": "damaged.flac is damaged: ",
    "left_out": "left_out.wav: recording 2 of the 2 that are joined in it is not heard",
    "cancelled": "cancelled.wav: its 2 channels cancel, and their mean, which is what is heard, is silent. Pass --channels left.",
    "silent": "silent.wav is silent. Check the microphone and its volume",
    "header": "header.wav has a wrong header",
}


def write_flawed(folder: Path, kinds=tuple(WORDS)) -> dict[str, Path]:
    """Write the files, those of several kinds with other samples each."""
    noise = np.random.default_rng(len(str(folder))).uniform(-0.5, 0.5, round(RATE * SECONDS))
    written = {}
    for kind in kinds:
        path = written[kind] = folder / f"{kind}.{'flac' if kind == 'damaged' else 'wav'}"
        samples = {"cancelled": np.stack([noise, -noise], axis=1), "silent": 0 * noise}.get(kind, noise)
        soundfile.write(path, samples, RATE)
        content = bytearray(path.read_bytes())
        at = content.find(b"data") + 4  # where a WAV file says the bytes of its samples
        if kind == "cut_off":
            del content[at + 4 + len(noise) :]
        elif kind == "damaged":
            content[len(content) // 2 : len(content) // 2 + 200] = bytes(200)
        elif kind == "left_out":
            content += b"RIFF" + struct.pack("<I", 100) + b"WAVEfmt " + bytes(88)  # joined to another that is none
        elif kind == "header":
            content[at : at + 4] = bytes(4)
        path.write_bytes(content)
    return written
