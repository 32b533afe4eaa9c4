"""Two hundred damaged audio files by formula: ten kinds of damage, twenty variants of each, over ten formats."""

import io
import shutil
import struct
import subprocess
import tempfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

RATE = 16_000
SECONDS = 2.0
VARIANTS = 20
HUGE = (1 << 36) - 1  # samples, the most that a FLAC header can announce
# By suffix: format and subtype of libsndfile, or the codec of the ffmpeg program.
FORMATS = {
    ".wav": ("WAV", "PCM_16"),
    ".flac": ("FLAC", "PCM_16"),
    ".ogg": ("OGG", "VORBIS"),
    ".opus": ("OGG", "OPUS"),
    ".mp3": ("MP3", "MPEG_LAYER_III"),
    ".aiff": ("AIFF", "PCM_16"),
    ".w64": ("W64", "PCM_16"),
    ".au": ("AU", "PCM_16"),
    ".caf": ("CAF", "PCM_16"),
    ".m4a": (None, "aac"),
}


@dataclass(frozen=True)
class Damaged:
    """A file.

    Args:
        kind (`str`): of damage.
        suffix (`str`): of its name.
        content (`bytes`): what is in it.
        original (`bytes`, *optional*): the recording that it was made from, encoded and whole.
        is_bad (`bool`, *optional*): whether it must be named, as nothing that is right can come of it.
    """

    kind: str
    suffix: str
    content: bytes
    original: bytes | None = None
    is_bad: bool = False


def recording(seed: int, seconds: float = SECONDS) -> np.ndarray:
    """Three tones that come and go, and noise: float32 of shape `(samples,)`."""
    generator = np.random.default_rng(seed)
    time = np.arange(round(seconds * RATE)) / RATE
    tones = sum(
        np.sin(2 * np.pi * generator.uniform(200, 6000) * time) * np.sin(2 * np.pi * generator.uniform(0.5, 4) * time)
        for _ in range(3)
    )
    return (0.15 * tones + 0.03 * generator.standard_normal(len(time))).astype(np.float32)


def encode(samples: np.ndarray, suffix: str, rate: int = RATE, subtype: str | None = None) -> bytes:
    """Samples as a file's content."""
    audio_format, usual = FORMATS[suffix]
    if audio_format is None:
        command = ["ffmpeg", "-v", "error", "-f", "f32le", "-ar", str(rate), "-ac", "1", "-i", "-", "-c:a", usual]
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "clip.m4a")
            subprocess.run([*command, "-bitexact", path], input=samples.tobytes(), check=True)
            return path.read_bytes()
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format=audio_format, subtype=subtype or usual)
    return buffer.getvalue()


def damaged_files(seed: int = 0) -> Iterator[Damaged]:
    """All of them, kind by kind."""
    suffixes = [suffix for suffix in FORMATS if FORMATS[suffix][0] or shutil.which("ffmpeg")]
    for place, (kind, make) in enumerate(KINDS.items()):
        for variant in range(VARIANTS):
            generator = np.random.default_rng([seed, place, variant])
            suffix = suffixes[variant % len(suffixes)]
            original = encode(recording(1000 * place + variant), suffix)
            yield make(Damaged(kind, suffix, original, original), variant, generator)


def patch(content: bytes, offset: int, new: bytes) -> bytes:
    """Content with some bytes replaced."""
    return content[:offset] + new + content[offset + len(new) :]


def _changed(whole: Damaged, content: bytes, **changes) -> Damaged:
    fields = {"kind": whole.kind, "suffix": whole.suffix, "content": content, "original": whole.original}
    return Damaged(**fields | changes)


def _flipped(content: bytes, begin: int, stop: int, count: int, generator: np.random.Generator) -> bytes:
    changed = bytearray(content)
    for place in generator.integers(begin, stop, count):
        changed[place] ^= 1 << int(generator.integers(8))
    return bytes(changed)


def _truncated(whole: Damaged, variant: int, generator) -> Damaged:
    return _changed(whole, whole.content[: int(generator.uniform(0.01, 0.99) * len(whole.content))])


def _header_flips(whole: Damaged, variant: int, generator) -> Damaged:
    return _changed(whole, _flipped(whole.content, 0, 64, 1 + variant // 3, generator))


def _body_flips(whole: Damaged, variant: int, generator) -> Damaged:
    size = len(whole.content)
    return _changed(whole, _flipped(whole.content, min(4096, size // 2), size, 1 + 3 * variant, generator))


def _zeroed(whole: Damaged, variant: int, generator) -> Damaged:
    size = len(whole.content)
    length = min(int(generator.integers(256, 8192)), size // 4)
    start = int(generator.integers(size // 3, size - length))
    return _changed(whole, patch(whole.content, start, bytes(length)))


def _wrong_sizes(whole: Damaged, variant: int, generator) -> Damaged:
    sizes = (0, 1, 0x7FFF_FFFF, 0xFFFF_FFFF, int(generator.integers(1 << 32)))
    places = {
        ".wav": [4, 16, 40],
        ".flac": [4, 18],
        ".ogg": [6, 22],
        ".opus": [6, 26],
        ".mp3": [0, 40],
        ".aiff": [4, 16, 42],
        ".w64": [16, 56, 120],
        ".au": [4, 8],
        ".caf": [12, 60],
        ".m4a": [0, 24],
    }[whole.suffix]
    size = struct.pack("<I" if whole.suffix in (".wav", ".w64") else ">I", sizes[variant // 4 % len(sizes)])
    return _changed(whole, patch(whole.content, places[int(generator.integers(len(places)))], size))


def ogg_checksum(page: bytes) -> int:
    """CRC of an Ogg page, whose own field is taken as 0 (RFC 3533)."""
    value = 0
    for byte in patch(page, 22, bytes(4)):
        value ^= byte << 24
        for _ in range(8):
            value = (value << 1 ^ 0x04C11DB7 if value & 1 << 31 else value << 1) & 0xFFFF_FFFF
    return value


def with_last_granule(content: bytes, granule: int) -> bytes:
    at = content.rfind(b"OggS")
    page = patch(content[at:], 6, struct.pack("<Q", granule))
    return content[:at] + patch(page, 22, struct.pack("<I", ogg_checksum(page)))


def flac_of_silence(samples: int, channels: int = 1) -> bytes:
    """A FLAC file of so many samples in frames of 65535, of which each takes some ten bytes."""
    block = 65_535
    info = struct.pack(">HH", block, block) + bytes(6)
    info += (RATE << 44 | channels - 1 << 41 | 15 << 36 | samples).to_bytes(8, "big") + bytes(16)
    return b"".join(
        [b"fLaC\x80\x00\x00\x22" + info, *(flac_frame(number, channels, block) for number in range(samples // block))]
    )


def flac_frame(number: int, channels: int = 1, block: int = 65_535) -> bytes:
    """A frame of silence."""
    head = b"\xff\xf8" + bytes([7 << 4, channels - 1 << 4]) + _utf8(number) + struct.pack(">H", block - 1)
    head += bytes([_crc(head, 8, 0x07)])
    body = head + bytes(3 * channels)  # a constant subframe: its header, and a sample of 16 bits
    return body + _crc(body, 16, 0x8005).to_bytes(2, "big")


def _utf8(number: int) -> bytes:
    return chr(number).encode() if number < 0xD800 else bytes((0xF0, 0x90 | number >> 12 & 63, 0x80, 0x80))


def _crc(data: bytes, width: int, polynomial: int) -> int:
    value = 0
    for byte in data:
        value ^= byte << width - 8
        for _ in range(8):
            value = (value << 1 ^ polynomial if value >> width - 1 else value << 1) & (1 << width) - 1
    return value


def _claims(whole: Damaged, variant: int, generator) -> Damaged:
    """Headers that announce 2^36 samples, and real silence that a few bytes a block make so much of."""
    content, suffix = whole.content, whole.suffix
    far = HUGE - variant
    if suffix == ".wav" and variant < 10:
        size = 2 * far
        ds64 = struct.pack("<4sIQQQI", b"ds64", 28, size + 72, size, far, 0)
        head = b"RF64\xff\xff\xff\xffWAVE" + ds64 + content[12:36] + b"data\xff\xff\xff\xff"
        content = head + content[44:]
    elif suffix == ".wav":  # in bytes for a sampling rate of 1 GHz
        content = patch(content, 24, struct.pack("<II", 1_000_000_000, 2_000_000_000))
        content = patch(content, 40, struct.pack("<I", 0xFFFF_FFF0))
    elif suffix == ".flac" and variant < 10:
        content = patch(content, 21, bytes([content[21] | 15]) + struct.pack(">I", far & 0xFFFF_FFFF))
    elif suffix == ".flac":
        content = flac_of_silence(65_535 * 10_000, 8)
    elif suffix in (".ogg", ".opus"):
        content = with_last_granule(content, far if variant < 10 else (1 << 62) - 1)
    elif suffix == ".mp3":
        at = max(content.find(b"Info"), content.find(b"Xing"))
        frames = 0xFFFF_FFFF if variant < 10 else 1 << 27
        content = patch(content, at + 8, struct.pack(">I", frames)) if at > 0 else content
        if variant >= 10:  # with a damaged spot, in which the frames that are missing would have been
            content = patch(content, len(content) // 2, bytes(2000))
    elif suffix == ".aiff":
        content = patch(content, content.find(b"COMM") + 10, struct.pack(">I", 0xFFFF_FFF0))
        content = patch(content, content.find(b"SSND") + 4, struct.pack(">I", 0xFFFF_FFFA))
    elif suffix == ".w64":
        at = content.find(b"data\xf3\xac")
        content = patch(content, at + 16, struct.pack("<Q", 2 * far + 24))
    elif suffix == ".au":
        content = patch(content, 8, struct.pack(">I", 0xFFFF_FFF0))
    elif suffix == ".caf":
        at = content.find(b"data")
        content = patch(content, at + 4, struct.pack(">q", 2 * far + 4))
    elif suffix == ".m4a":
        at = content.find(b"mdhd")
        content = patch(content, at + 20, struct.pack(">I", 0xFFFF_FFF0))
    return _changed(whole, content, is_bad=suffix == ".flac" and variant >= 10)


LEVELS = (1e38, -3e38, np.nan, np.inf, -np.inf, 1e30, 1e10, 2.0**31, 32_768.0, 1e300)


def _numbers(whole: Damaged, variant: int, generator) -> Damaged:
    """Floats that are no samples: all, or a single one in an otherwise good file."""
    level, suffix = LEVELS[variant % len(LEVELS)], (".wav", ".aiff", ".w64", ".au", ".caf")[variant % 5]
    samples = recording(variant).astype(np.float64)
    if variant < 10:
        samples = samples / np.abs(samples).max() * level
    else:
        samples[int(generator.integers(len(samples)))] = level
    subtype = "DOUBLE" if abs(level) > 3.4e38 else "FLOAT"
    return _changed(whole, encode(samples, suffix, subtype=subtype), suffix=suffix, original=None, is_bad=True)


def _rates_and_channels(whole: Damaged, variant: int, generator) -> Damaged:
    rates = (0, 1, 7, 999, 1_000, 192_000, 500_001, 4_000_000_000, 0xFFFF_FFFF, RATE)
    rate = rates[variant % len(rates)]
    channels = 1 if variant < 10 and rate != RATE else (0, 2, 64, 1_000, 1_024, 1_025, 65_535)[variant % 7]
    samples = recording(variant)
    content = encode(samples, ".wav")
    head = struct.pack("<HII", channels, rate, 2 * rate * channels & 0xFFFF_FFFF)
    content = patch(content, 22, head + struct.pack("<H", 2 * channels & 0xFFFF))
    # Nobody can tell that these are not the rate and channels that it was made with.
    return _changed(whole, content, suffix=".wav", original=content)


def _other_suffix(whole: Damaged, variant: int, generator) -> Damaged:
    others = [suffix for suffix in FORMATS if suffix != whole.suffix]
    return _changed(whole, whole.content, suffix=others[int(generator.integers(len(others)))])


def mp3_frames(count: int, alternating: bool) -> bytes:
    """MPEG-2 frames of 24 bytes without audio, all mono or, four by four, mono and stereo: streams of 96 bytes."""
    mono, stereo = (b"\xff\xf3\x14" + mode + bytes(20) for mode in (b"\xc0", b"\x00"))
    return (4 * mono + 4 * (stereo if alternating else mono)) * (count // 8)


def _garbage(whole: Damaged, variant: int, generator) -> Damaged:
    id3 = b"ID3\x04\0\0" + bytes((0x7F, 0x7F, 0x7F, 0x7F))
    noise = generator.bytes(20_000)
    contents = (
        b"",
        noise,
        bytes(20_000),
        b"\xff" * 20_000,
        b"<!doctype html><title>404</title>",
        id3 + noise,  # a tag of 256 MB
        b"ID3\x04\0\0\0\0\0\0" * 100_000,  # of nothing but tags
        b"ID3\x04\0\0\0\0\0\x0a" + bytes(10),
        b"TAG" + bytes(125),
        noise[:1],
        whole.content[:12],
        b"RIFF\xff\xff\xff\xffWAVE" + b"junk\0\0\0\0" * 200_000,
        b"fLaC" + b"\x01\0\0\0" * 200_000,
        b"\0\0\0\x20ftypM4A " + bytes(20) + b"\0\0\0\x08free" * 200_000,
        b"\x1a\x45\xdf\xa3\x80" + b"\xec\x80" * 400_000,
        encode(recording(variant, 0.1), ".wav") * 1_500,
        encode(recording(variant, 0.1), ".mp3") * 300,
        mp3_frames(100_000, alternating=True),
        mp3_frames(20_000, alternating=False),  # eight minutes
        zlib.compress(noise),
    )
    # Joined recordings and frames of silence are audio.
    original = None
    if variant == 16:
        of_one = soundfile.read(io.BytesIO(encode(recording(variant, 0.1), ".mp3")), dtype="float32")[0]
        original = encode(np.tile(of_one, 300), ".wav", subtype="FLOAT")
    return _changed(whole, contents[variant], original=original, is_bad=not 15 <= variant <= 18)


KINDS: dict[str, Callable[[Damaged, int, np.random.Generator], Damaged]] = {
    "truncated": _truncated,
    "header_flips": _header_flips,
    "body_flips": _body_flips,
    "zeroed": _zeroed,
    "wrong_sizes": _wrong_sizes,
    "claims": _claims,
    "numbers": _numbers,
    "rates_and_channels": _rates_and_channels,
    "other_suffix": _other_suffix,
    "garbage": _garbage,
}
