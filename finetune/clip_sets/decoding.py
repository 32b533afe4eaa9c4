"""One pass over many clips: each decoded once, in several processes if wanted, or if that is found to help; memory flat."""

import multiprocessing
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import datasets
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from modeling_ast.audio import AudioError, AudioNote, AudioReader
from modeling_ast.tagging.ahead import processors

from ..sources.data_errors import own_message
from .loader_errors import loader_errors
from .waveforms import WHOLE, ClipDataset, clip_name, fetched, hear_clip, one_thread, refuse_too_short

READ_ALONE = 1.0  # seconds of reading after which it is known what the rest takes
WORTH_WORKERS = 2.0  # seconds of reading that are left; processes are there in some tenths of one
MOST_WORKERS = 8  # where nobody said how many


def workers_that_read() -> int:
    """Tell how many processes may read clips where nobody said how many, and nothing else is done meanwhile.

    Returns:
        `int`: one for each processor, 8 at most; 0 where there is one processor, the user gave a process one
        (`OMP_NUM_THREADS=1`), this process may have no children, or processes are not forked, and would import everything anew.
    """
    # Asked for without `allow_none` the method of a session that has chosen none yet would be fixed.
    method = multiprocessing.get_start_method(allow_none=True) or multiprocessing.get_all_start_methods()[0]
    if os.environ.get("OMP_NUM_THREADS") == "1" or method != "fork" or multiprocessing.current_process().daemon:
        return 0
    share = processors() // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return min(share, MOST_WORKERS) if share > 1 else 0


class _Keys:
    """Keys that several loaders take in turn."""

    def __init__(self, keys: Iterable):
        self.left = iter(keys)
        self.asked = False

    def __iter__(self) -> Iterator:
        return self

    def __next__(self):
        self.asked = True
        return next(self.left)


def read_in_turn(clips: Dataset, keys: Iterable, number: int, num_workers: int | None) -> Iterator:
    """Read clips in the order of their keys, whoever reads them.

    Args:
        clips (`Dataset`): gives what is read for a key.
        keys (iterable): of all of them.
        number (`int`): how many there are.
        num_workers (`int`, *optional*): processes that read; 0 for this one. If not given, this one begins, and others take over
            if what is left takes longer than they do to begin: [`workers_that_read`]. Each of these holds one clip at a time.

    Yields:
        What `clips` gives.

    Raises:
        Exception: what reading raises, here or in a process, and what the keys raise.
    """
    left = _Keys(keys)
    loader = partial(
        DataLoader,
        clips,
        batch_size=None,
        sampler=left,
        collate_fn=_as_it_is,
        # A loader without one draws from the global generator, and the model's initial weights would be others.
        generator=torch.Generator(),
    )
    if num_workers is not None or not workers_that_read():
        yield from loader(num_workers=num_workers or 0)
        return
    alone, spent = iter(loader()), 0.0
    began = time.perf_counter()
    for timed, item in enumerate(alone):  # without the first, with which libraries are loaded and functions compiled
        if timed:
            spent += time.perf_counter() - began
        yield item
        if spent > READ_ALONE:
            break
        began = time.perf_counter()
    else:
        return
    if spent / timed * (number - timed - 1) < WORTH_WORKERS:
        yield from alone
        return
    left.asked = False
    try:
        helped = iter(loader(num_workers=workers_that_read(), prefetch_factor=1))
    except OSError:
        if left.asked:  # of the keys, of which some are taken
            raise
        helped = alone  # no process can be made
    yield from helped


class _WaveformsAlone(Dataset):
    """Clips without label and augmentation, by their places."""

    def __init__(self, clips: ClipDataset):
        self.clips = clips

    def __getitem__(self, place: int) -> np.ndarray:
        return self.clips.clip(place)


def sampled_clips(clips: ClipDataset, count: int, seed: int, num_workers: int | None = None) -> Iterator[np.ndarray]:
    """Read what [`ClipDataset.sample`] gives, in several processes if that helps.

    Args:
        clips ([`ClipDataset`]): of a split.
        count (`int`): how many; 0 for all.
        seed (`int`): of the draw.
        num_workers (`int`, *optional*): see [`read_in_turn`].

    Yields:
        See [`ClipDataset.sample`].

    Raises:
        AudioError: if a clip cannot be decoded.
    """
    if not clips.at_hand or not clips.hears_audio:
        yield from clips.sample(count, seed)
        return
    places = clips.sampled_places(count, seed)
    try:
        with loader_errors():
            yield from read_in_turn(_WaveformsAlone(clips), places, len(places), num_workers)
    except AudioError as error:
        raise type(error)(own_message(error)) from None


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
    num_workers: int | None,
    description: str,
    keep: bool = True,
) -> Iterator[DecodedClip]:
    """Decode clips in their order, whether they can be used or not.

    Args:
        audio (`datasets.Dataset`): with the undecoded column `"audio"`.
        rows (sequence of `int`): which of its clips.
        reader ([`AudioReader`]): how they are heard.
        max_samples (`int`): samples of a clip's beginning that are of interest; see [`hear_clip`].
        num_workers (`int`, *optional*): processes that decode; see [`read_in_turn`]. If not given, whole clips that are kept
            are decoded here: of recordings of hours there is then one in memory.
        description (`str`): what the progress bar is headed with; there is none away from a terminal.
        keep (`bool`, defaults to `True`): hand on these samples; `False` where only lengths and faults are of interest.

    Returns:
        What came out of each clip, one after the other; with its fault if it cannot be decoded, is empty, too short,
        holds NaN or is refused.
    """
    clips = _ClipsToDecode(audio, reader, max_samples, keep)
    if keep and max_samples == WHOLE and num_workers is None:
        num_workers = 0
    return _decoded(clips, [int(row) for row in rows], len(rows), num_workers, description)


def decoded_rows(
    rows: Iterable[tuple[int, dict]],
    number: int,
    reader: AudioReader,
    max_samples: int,
    num_workers: int | None,
    description: str,
) -> Iterator[tuple[DecodedClip, dict]]:
    """[`decoded_clips`] for the rows of a stream, whose waveforms are not kept.

    Args:
        rows (iterable of `tuple[int, dict]`): place and row of each clip.
        number (`int`): how many these are.
        reader ([`AudioReader`]): how they are heard.
        max_samples (`int`): samples of a clip's beginning that are of interest; see [`hear_clip`].
        num_workers (`int`, *optional*): processes that decode; see [`read_in_turn`].
        description (`str`): what the progress bar is headed with; there is none away from a terminal.

    Yields:
        What came out of the clip, and its row without the bytes.
    """
    return _decoded(_RowsToDecode(reader, max_samples), rows, number, num_workers, description)


def _decoded(clips: Dataset, keys: Iterable, number: int, num_workers: int | None, description: str) -> Iterator:
    read = read_in_turn(clips, keys, number, num_workers)
    with loader_errors():
        yield from tqdm(read, total=number, desc=description, unit="clip", leave=False, disable=None)


def _as_it_is(item):
    return item
