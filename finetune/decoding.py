"""One pass over many clips before training: each decoded once, in several processes if wanted, memory flat."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import datasets
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from modeling_ast.audio import AudioError

from .data import read_clip


@dataclass(frozen=True)
class DecodedClip:
    """What came out of one file.

    Args:
        row (`int`): which clip it is.
        waveform (`np.ndarray` of shape `(samples,)`, *optional*): its beginning, float32, if it is kept and can be used.
        length (`int`): samples of the whole clip; of one that lasts much longer than what is handed on, of its beginning.
        fault (`str`, *optional*): why it cannot be used.
    """

    row: int
    waveform: np.ndarray | None
    length: int
    fault: str | None = None


class _ClipsToDecode(Dataset):
    def __init__(self, audio: datasets.Dataset, rows: Sequence[int], sampling_rate: int, max_samples: int, keep: bool):
        self.audio = audio
        self.rows = rows
        self.sampling_rate = sampling_rate
        self.max_samples = max_samples
        self.keep = keep

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, place: int) -> DecodedClip:
        row = int(self.rows[place])
        try:
            waveform = read_clip(self.audio[row]["audio"], self.sampling_rate, self.max_samples)
        except AudioError as error:
            return DecodedClip(row, None, 0, str(error))
        length = len(waveform)
        if not self.keep:
            return DecodedClip(row, None, length)
        # A view of its beginning would keep the whole of it in memory.
        return DecodedClip(row, waveform[: self.max_samples].copy() if length > self.max_samples else waveform, length)


def decoded_clips(
    audio: datasets.Dataset,
    rows: Sequence[int],
    sampling_rate: int,
    max_samples: int,
    num_workers: int,
    description: str,
    keep: bool = True,
) -> Iterator[DecodedClip]:
    """Decode clips in their order; one that cannot be decoded, is empty, too short or holds NaN comes with its fault.

    Args:
        audio (`datasets.Dataset`): with the undecoded column `"audio"`.
        rows (sequence of `int`): which of its clips.
        sampling_rate (`int`): rate to decode to, in Hz.
        max_samples (`int`): samples of a clip's beginning that are of interest; see [`read_clip`].
        num_workers (`int`): processes that decode; 0 for this one.
        description (`str`): what the progress bar is headed with; there is none away from a terminal.
        keep (`bool`, defaults to `True`): hand on these samples; `False` where only lengths and faults are of interest.
    """
    clips = _ClipsToDecode(audio, rows, sampling_rate, max_samples, keep)
    loader = DataLoader(
        clips,
        batch_size=None,
        num_workers=num_workers,
        collate_fn=_as_it_is,
        # A loader without one draws from the global generator, and the model's initial weights would be others.
        generator=torch.Generator(),
    )
    yield from tqdm(loader, desc=description, unit="clip", leave=False, disable=None)


def _as_it_is(clip: DecodedClip) -> DecodedClip:
    return clip
