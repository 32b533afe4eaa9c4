"""Audio files to mono waveforms: decoding, channels, sampling rates, and what of a file could not be heard."""

from .errors import (
    CANCELLED,
    CHECK_SPELLING,
    CUT_OFF,
    DAMAGED,
    HEADER,
    HEARD_LESS,
    LEFT_OUT,
    SILENT,
    AudioError,
    AudioNote,
    MissingAudioError,
)
from .files import AUDIO_SUFFIXES, find_audio_files
from .reading import AudioReader, DecodedAudio, Heard, audio_duration, decode_audio, read_audio

__all__ = [
    "AUDIO_SUFFIXES",
    "CANCELLED",
    "CHECK_SPELLING",
    "CUT_OFF",
    "DAMAGED",
    "HEADER",
    "HEARD_LESS",
    "LEFT_OUT",
    "SILENT",
    "AudioError",
    "AudioNote",
    "AudioReader",
    "DecodedAudio",
    "Heard",
    "MissingAudioError",
    "audio_duration",
    "decode_audio",
    "find_audio_files",
    "read_audio",
]
