"""Files that are made to be decoded, and what is asked of what comes of them."""

import io
import shutil
import struct
import subprocess

import numpy as np
import pytest
import soundfile

from modeling_ast.audio import audio_length
from modeling_ast.audio.mp3 import frame_header

RATE = 16_000
needs_ffmpeg = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="the ffmpeg program is not installed")


def noise(seconds=2.0, rate=RATE, channels=1):
    """Noise whose loudness rises and falls, so that variable bit rates vary."""
    samples = np.random.default_rng(0).normal(size=(int(seconds * rate), channels)) * 0.1
    return samples * (1 + np.sin(np.arange(len(samples)) * 6 / rate))[:, None]


def encode(samples, audio_format="WAV", rate=RATE, **settings):
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=audio_format, **settings)
    return file.getvalue()


def patch(content, place, value):
    return content[:place] + value + content[place + len(value) :]


def kinds(decoded):
    return [note.kind for note in decoded.notes]


def assert_length_is_told(content, decoded):
    length = audio_length(content)
    assert length.seconds == pytest.approx(len(decoded.samples) / decoded.sampling_rate, abs=1e-4)
    assert not length.is_estimate


def damaged(content, share=0.5, number=400):
    spot = int(len(content) * share)
    return patch(content, spot, np.random.default_rng(1).bytes(number))


def ffmpeg_file(path, *arguments):
    subprocess.run(["ffmpeg", "-v", "error", *map(str, arguments), path], check=True)
    return path


ID3 = b"ID3\x04\0\0\0\0\x03\0" + bytes(384)
ID3V1 = b"TAG" + bytes(125)
APE_ITEM = struct.pack("<II", 300, 0) + b"Title\0" + b"x" * 300
APE = APE_ITEM + b"APETAGEX" + struct.pack("<IIII", 2000, len(APE_ITEM) + 32, 1, 0) + bytes(8)  # without a header
MP2_FRAME = bytes([0xFF, 0xFD, 0x84, 0xC0])  # 44.1 kHz, mono, 128 kbit/s; libsndfile writes layer III only


def mp2(*bitrate_indices):
    """Silence of layer II: no sub-band has bits."""
    frames = []
    for index in bitrate_indices:
        head = MP2_FRAME[:2] + bytes([index << 4, 0xC0])
        frames.append(head + bytes(frame_header(head).size - 4))
    return b"".join(frames)
