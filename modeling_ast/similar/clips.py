"""Clips that are searched for or marked: files and stretches of files, and one vector of each."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..audio.errors import AudioError
from ..audio.excerpts import ExcerptReader
from ..tagging.none_of_these import OFF

SECONDS = r"\d+(?:\.\d+)?"


@dataclass(frozen=True)
class Clip:
    """A file, or of it what is from `start` to `end`, in seconds; `name` is how it was given, `label` what it was marked as."""

    name: str
    file: Path
    start: float = 0.0
    end: float | None = None
    label: str | None = None

    @property
    def is_whole(self) -> bool:
        """Whether all of the file is meant."""
        return not self.start and self.end is None


@dataclass(frozen=True)
class EmbeddedClip:
    """A clip with its vector, `np.ndarray` of shape `(hidden,)`, or why it has none; and what is to be said of it."""

    clip: Clip
    vector: np.ndarray | None = None
    error: str | None = None
    said: tuple[str, ...] = ()


def parse_clip(text: str) -> Clip:
    """Read which clip is meant: `FILE`, or `FILE#t=START,END` for a stretch of it.

    Args:
        text (`str`): START or END, in seconds, may be left out. What is there under a name is a file.

    Returns:
        [`Clip`].

    Raises:
        AudioError: if there is no such file, or the stretch is none.

    Source: W3C, "Media Fragments URI 1.0", section 4.2.1, with seconds alone.
    """
    path, _, fragment = text.rpartition("#")
    if path and not Path(text).exists() and Path(path).exists():
        found = re.fullmatch(rf"t=({SECONDS})?(?:,({SECONDS}))?", fragment)
        if not found or not any(found.groups()):
            raise AudioError(f"{text}: #{fragment} is no stretch. Type for example '{path}#t=12.5,14', in seconds.")
        start, end = (None if each is None else float(each) for each in found.groups())
        if end is not None and end <= (start or 0.0):
            raise AudioError(f"{text} ends before it begins. Type for example '{path}#t=12.5,14', in seconds.")
        return Clip(text, Path(path), start or 0.0, end)
    if not Path(text).is_file():
        what = "is a folder, not a clip" if Path(text).is_dir() else f"is not there (looked in {Path.cwd()})"
        raise AudioError(f"{text} {what}. Name audio files, or stretches of them such as 'FILE#t=12.5,14'.")
    return Clip(text, Path(text))


def embed_clips(tagger, clips: Sequence[Clip], settings: dict) -> Iterator[EmbeddedClip]:
    """Embed clips: a clip's vector is the mean of those that a folder would get of it.

    Args:
        tagger ([`AudioTagger`]): the model.
        clips (sequence of [`Clip`]): what is embedded.
        settings (`dict`): see [`Description.settings`].

    Yields:
        [`EmbeddedClip`], in their order.
    """
    settings = settings | {"top_k": 1, "none_of_these": OFF}
    of_files = iter(tagger.tag_files([clip.file for clip in clips if clip.is_whole], **settings))
    excerpts = ExcerptReader(tagger.reader)
    # Of a stretch the channel that is heard was taken before.
    mono = type(tagger)(
        tagger.model, tagger.feature_extractor, tagger.device.type, replace(tagger.reader, channels="mean")
    )
    for clip in clips:
        if clip.is_whole:
            result, notes = next(of_files), ()
        else:
            try:
                waveform, notes = _stretch(excerpts, clip)
            except AudioError as error:
                yield EmbeddedClip(clip, error=str(error))
                continue
            result = mono.tag_stream([waveform], tagger.sampling_rate, clip.name, **settings)
        said, error = tuple(note.text for note in (*notes, *result.notes)), result.error
        if error is None and result.embeddings is None:
            error = f"{clip.name} is silent, and has no vector. Name another clip."
        vector = None if error is not None else result.embeddings.vectors.mean(axis=0, dtype=np.float64)
        yield EmbeddedClip(clip, vector, error, said)


def _stretch(excerpts: ExcerptReader, clip: Clip) -> tuple[np.ndarray, tuple]:
    rate, length = excerpts.reader.sampling_rate, excerpts.num_samples(clip.file)
    start = round(clip.start * rate)
    if start >= length:
        raise AudioError(f"{clip.name}: {clip.file} ends after {length / rate:.2f} s. Name an earlier stretch.")
    end = length if clip.end is None else min(round(clip.end * rate), length)
    heard = excerpts.hear(clip.file, start, end - start)
    return heard.waveform, heard.notes
