"""Audio files to mono waveforms: decoding, channels, sampling rates, and what of a file could not be heard."""

from .decoders import DecodedAudio
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
from .ffmpeg import FFMPEG_COMMANDS
from .files import AUDIO_SUFFIXES, find_audio_files
from .reading import AudioLength, AudioReader, Heard, audio_duration, audio_length, decode_audio, read_audio
from .resampling import DEFAULT_RESAMPLER, NEW_RESAMPLER, RESAMPLERS, checked_resampler, resample

__all__ = [
    "AUDIO_SUFFIXES",
    "CANCELLED",
    "CHECK_SPELLING",
    "CUT_OFF",
    "DAMAGED",
    "DEFAULT_RESAMPLER",
    "FFMPEG_COMMANDS",
    "HEADER",
    "HEARD_LESS",
    "LEFT_OUT",
    "NEW_RESAMPLER",
    "RESAMPLERS",
    "SILENT",
    "AudioError",
    "AudioLength",
    "AudioNote",
    "AudioReader",
    "DecodedAudio",
    "Heard",
    "MissingAudioError",
    "audio_duration",
    "audio_length",
    "checked_resampler",
    "decode_audio",
    "find_audio_files",
    "read_audio",
    "resample",
]
