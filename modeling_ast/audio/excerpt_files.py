"""Stretches of an audio file as they are: with all channels, at its own sampling rate, and of PCM with its own bits.

Where libsndfile reads a file rightly as one recording it is moved to each stretch, so that an excerpt of a recording of hours
costs what the excerpt lasts. All others are decoded up to the last stretch, as [`decode_audio`] does it.
"""

import io
import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from . import ogg
from .decoders import frames_of, open_stream, streams_of
from .errors import AudioError
from .excerpts import layout_of_format
from .formats import recordings, sniff_format
from .reading import HEARD_WHOLE, decode_audio, opened_audio

EXACT = {
    "PCM_16": "int16",
    "PCM_24": "int32",
    "PCM_32": "int32",
}  # subtypes of libsndfile that integers hold as they are
OTHERS = "FLOAT"


@dataclass(frozen=True)
class Excerpt:
    """A stretch of an audio file.

    Args:
        samples (`np.ndarray` of shape `(samples, channels)`): int16 or int32 at their full scale, or float32.
        sampling_rate (`int`): the file's own, in Hz.
        subtype (`str`): of libsndfile, with which a WAV holds these samples as they are.
    """

    samples: np.ndarray
    sampling_rate: int
    subtype: str


def read_excerpts(source: str | os.PathLike, spans: Sequence[tuple[float, float]]) -> list[Excerpt]:
    """Read stretches of an audio file.

    Args:
        source (`str` or `os.PathLike`): the file.
        spans (sequence of `(float, float)`): where each begins and ends, in seconds of what [`decode_audio`] gives.

    Returns:
        `list[Excerpt]`: one for each, to the nearest sample; shorter than asked where the file ends before.

    Raises:
        AudioError: if the file cannot be decoded, or ends before one of them begins.
    """
    if not spans:
        return []
    excerpts = _without_decoding_all(source, spans)
    if excerpts is None:
        decoded = decode_audio(source, seconds=max(end for _, end in spans))
        rate = decoded.sampling_rate
        excerpts = [
            Excerpt(decoded.samples[round(start * rate) : round(end * rate)], rate, OTHERS) for start, end in spans
        ]
    for (start, _), excerpt in zip(spans, excerpts, strict=True):
        if not len(excerpt.samples):
            raise AudioError(
                f"{source} ends before {start:.2f} s, of which a stretch was asked for. Was it changed meanwhile?"
            )
    return excerpts


def write_excerpt(path: str | os.PathLike, excerpt: Excerpt):
    """Write a WAV with exactly these samples; the same ones give the same bytes.

    Args:
        path (`str` or `os.PathLike`): file to write, in a folder that is not complete yet.
        excerpt ([`Excerpt`]): from [`read_excerpts`].
    """
    import soundfile

    written = io.BytesIO()
    soundfile.write(written, excerpt.samples, excerpt.sampling_rate, format="WAV", subtype=excerpt.subtype)
    content = bytearray(written.getbuffer())
    # libsndfile says beside floats how loud they are, and the time at which it looked.
    peak = content.find(b"PEAK", 0, content.find(b"data"))
    if peak >= 0:
        content[peak + 12 : peak + 16] = bytes(4)
    with open(path, "wb") as file:
        file.write(content)


def _without_decoding_all(source: str | os.PathLike, spans: Sequence[tuple[float, float]]) -> list[Excerpt] | None:
    """Excerpts where libsndfile can be moved to each; `None` where the file has to be decoded from its beginning."""
    import soundfile

    with opened_audio(source, held_whole=HEARD_WHOLE) as (content, name):
        parts = recordings(content, sniff_format(content))
        if len(parts) > 1:
            return None
        audio_format = sniff_format(parts[0])
        try:
            streams = streams_of(parts[0], audio_format, name)
            if len(streams) > 1 or streams[0].silences:
                return None
            with open_stream(streams[0]) as file:
                if streams[0].check_holes and ogg.page_damage(streams[0].content, file.samplerate).holes:
                    return None
                return [_read(file, streams[0], span) for span in spans]
        except (soundfile.SoundFileError, _ShortError):
            return None


class _ShortError(Exception):
    """A stretch of which less is there than the file announces, as of a damaged one."""


def _read(file, stream, span: tuple[float, float]) -> Excerpt:
    rate, dtype, frames = file.samplerate, EXACT.get(file.subtype, "float32"), frames_of(stream, file)
    start, end = (min(round(second * rate) + stream.skipped, frames) for second in span)
    place = layout_of_format(file.format, frames, rate).place_before(start)
    file.seek(place)
    samples = file.read(end - place, dtype=dtype, always_2d=True)[start - place :]
    if len(samples) < end - start:
        raise _ShortError
    return Excerpt(samples, rate, file.subtype if file.subtype in EXACT else OTHERS)
