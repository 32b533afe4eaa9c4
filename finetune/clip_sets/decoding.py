"""One pass over many clips before training: each decoded once, in several processes if wanted, memory flat."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import datasets
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from modeling_ast.audio import AudioError, AudioNote, AudioReader

from .loader_errors import loader_errors
from .waveforms import WHOLE, clip_name, fetched, hear_clip, one_thread, refuse_too_short


@dataclass(frozen=True)
class DecodedClip:
    """What came out of one file.

    Args:
        row (`int`): which clip it is.
        waveform (`np.ndarray` of shape `(samples,)`, *optional*): its beginning, float32, if it is kept and can be used.
        length (`int`): samples of the whole clip; of one that lasts much longer than what is handed on, of its beginning.
        fault (`str`, *optional*): why it cannot be used.
        notes (`tuple[AudioNote, ...]`): what is to be said of one that can.
    """

    row: int
    waveform: np.ndarray | None
    length: int
    fault: str | None = None
    notes: tuple[AudioNote, ...] = ()


def look_at_clip(audio: dict, reader: AudioReader, max_samples: int) -> tuple[int, tuple[AudioNote, ...]]:
    """Decode what [`hear_clip`] decodes, and keep nothing of it: the memory does not grow with the length of a file.

    Args:
        audio (`dict`): see [`hear_clip`].
        reader ([`AudioReader`]): see [`hear_clip`].
        max_samples (`int`): see [`hear_clip`].

    Returns:
        Samples that were decoded, and what is to be said of the clip.

    Raises:
        AudioError: see [`hear_clip`].
    """
    if max_samples != WHOLE or audio["bytes"] is not None:
        heard = hear_clip(audio, reader, max_samples)
        return len(heard.waveform), heard.notes
    stream = reader.stream(audio["path"], clip_name(audio))
    with one_thread():
        length = sum(stream.heard_by(list, lambda lengths, block: lengths.append(block.shape[1])))
    refuse_too_short(audio, length, reader)
    return length, stream.notes


class _RowsToDecode(Dataset):
    """Asked for by place and row of a clip."""

    def __init__(self, reader: AudioReader, max_samples: int, keep: bool = False):
        self.reader = reader
        self.max_samples = max_samples
        self.keep = keep

    def __getitem__(self, key: tuple[int, dict]) -> tuple[DecodedClip, dict]:
        place, row = key
        without_bytes = row | {"audio": {"bytes": None, "path": row["audio"]["path"]}}
        try:
            audio = fetched(row["audio"])
            if not self.keep:
                length, notes = look_at_clip(audio, self.reader, self.max_samples)
                return DecodedClip(place, None, length, notes=notes), without_bytes
            heard = hear_clip(audio, self.reader, self.max_samples)
        except AudioError as error:
            return DecodedClip(place, None, 0, str(error)), without_bytes
        waveform, length = heard.waveform, len(heard.waveform)
        # A view of its beginning would keep the whole of it in memory.
        beginning = waveform[: self.max_samples].copy() if length > self.max_samples else waveform
        return DecodedClip(place, beginning, length, notes=heard.notes), without_bytes


class _ClipsToDecode(_RowsToDecode):
    """Asked for by the place of a clip in a table, of which every process reads its rows by itself."""

    def __init__(self, audio: datasets.Dataset, reader: AudioReader, max_samples: int, keep: bool):
        super().__init__(reader, max_samples, keep)
        self.audio = audio

    def __getitem__(self, row: int) -> DecodedClip:
        return super().__getitem__((row, self.audio[row]))[0]


def decoded_clips(
    audio: datasets.Dataset,
    rows: Sequence[int],
    reader: AudioReader,
    max_samples: int,
    num_workers: int,
    description: str,
    keep: bool = True,
) -> Iterator[DecodedClip]:
    """Decode clips in their order, whether they can be used or not.

    Args:
        audio (`datasets.Dataset`): with the undecoded column `"audio"`.
        rows (sequence of `int`): which of its clips.
        reader ([`AudioReader`]): how they are heard.
        max_samples (`int`): samples of a clip's beginning that are of interest; see [`hear_clip`].
        num_workers (`int`): processes that decode; 0 for this one.
        description (`str`): what the progress bar is headed with; there is none away from a terminal.
        keep (`bool`, defaults to `True`): hand on these samples; `False` where only lengths and faults are of interest.

    Returns:
        What came out of each clip, one after the other; with its fault if it cannot be decoded, is empty, too short,
        holds NaN or is refused.
    """
    clips = _ClipsToDecode(audio, reader, max_samples, keep)
    return _decoded(clips, [int(row) for row in rows], len(rows), num_workers, description)


def decoded_rows(
    rows: Iterable[tuple[int, dict]],
    number: int,
    reader: AudioReader,
    max_samples: int,
    num_workers: int,
    description: str,
) -> Iterator[tuple[DecodedClip, dict]]:
    """[`decoded_clips`] for the rows of a stream, whose waveforms are not kept.

    Args:
        rows (iterable of `tuple[int, dict]`): place and row of each clip.
        number (`int`): how many these are.
        reader ([`AudioReader`]): how they are heard.
        max_samples (`int`): samples of a clip's beginning that are of interest; see [`hear_clip`].
        num_workers (`int`): processes that decode; 0 for this one.
        description (`str`): what the progress bar is headed with; there is none away from a terminal.

    Yields:
        What came out of the clip, and its row without the bytes.
    """
    return _decoded(_RowsToDecode(reader, max_samples), rows, number, num_workers, description)


def _decoded(clips: Dataset, keys: Iterable, number: int, num_workers: int, description: str) -> Iterator:
    loader = DataLoader(
        clips,
        batch_size=None,
        sampler=keys,
        num_workers=num_workers,
        collate_fn=_as_it_is,
        # A loader without one draws from the global generator, and the model's initial weights would be others.
        generator=torch.Generator(),
    )
    with loader_errors():
        yield from tqdm(loader, total=number, desc=description, unit="clip", leave=False, disable=None)


def _as_it_is(item):
    return item
