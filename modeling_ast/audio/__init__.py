"""Audio files to mono waveforms: decoding, channels, sampling rates, and what of a file could not be heard."""

from .channels import parse_channels
from .decoders import DecodedAudio
from .errors import (
    CANCELLED,
    CHECK_SPELLING,
    CUT_OFF,
    DAMAGED,
    HEADER,
    HEARD_LESS,
    KINDS_IN_WORDS,
    LEFT_OUT,
    SILENT,
    AudioError,
    AudioNote,
    MissingAudioError,
    errors_of_file,
    files_of_each_kind,
    notes_in_words,
)
from .excerpts import ExcerptReader, FileLayout, file_layout
from .ffmpeg import FFMPEG_COMMANDS
from .files import AUDIO_SUFFIXES, find_audio_files
from .limits import AudioLimits
from .reading import (
    AudioLength,
    AudioReader,
    Heard,
    HeardAnewError,
    SoundStream,
    audio_duration,
    audio_length,
    decode_audio,
    read_audio,
)
from .resampling import DEFAULT_RESAMPLER, NEW_RESAMPLER, RESAMPLERS, checked_resampler, resample
from .silence import is_silent
from .wav_pipe import WavPipe

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
    "KINDS_IN_WORDS",
    "LEFT_OUT",
    "NEW_RESAMPLER",
    "RESAMPLERS",
    "SILENT",
    "AudioError",
    "AudioLength",
    "AudioLimits",
    "AudioNote",
    "AudioReader",
    "DecodedAudio",
    "ExcerptReader",
    "FileLayout",
    "Heard",
    "HeardAnewError",
    "MissingAudioError",
    "SoundStream",
    "WavPipe",
    "audio_duration",
    "audio_length",
    "checked_resampler",
    "decode_audio",
    "errors_of_file",
    "files_of_each_kind",
    "file_layout",
    "find_audio_files",
    "is_silent",
    "notes_in_words",
    "parse_channels",
    "read_audio",
    "resample",
]
