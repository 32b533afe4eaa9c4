"""The clips of a stream on their way to the model: as keys, in an order of their own, to where they are decoded.

The main process reads clips undecoded, shuffles them in a buffer and hands them as keys to the loader's workers, which
decode them. Order and draws are functions of (seed, epoch, place of the clip), so the batches do not depend on the number
of workers, a resumed run takes the batches that were left, without decoding those before, and several processes make the
same global batches as one. Of these each decodes its own part alone and opens no audio files but of these clips and their
mixup partners; a table that holds the audio itself is passed over by each process.

Differs from training on a data set that is at hand: clips that are far apart in the data do not meet in a batch, and the
mixup partner comes from the buffer, not from the whole training set.
"""

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
from torch.utils.data import Sampler

from modeling_ast.audio import Heard

from ..augmentations.augmentation import Draws
from ..sources.labels import label_of
from .sampling import ORDER_STREAM
from .waveforms import ClipDataset, clip_name, fetched


@dataclass(frozen=True)
class StreamedClip:
    """An undecoded clip on its way to where it is decoded: the key of an item of [`StreamedClips`].

    Args:
        row (`dict`): `"audio"` and `"label"` of the clip.
        draws ([`Draws`], *optional*): random numbers of this visit, for a clip that is augmented.
        partners (`dict[str, dict]`): rows of the clips that take part in it, by the names of the augmentations that want them.
    """

    row: dict
    draws: Draws | None = None
    partners: dict[str, dict] = field(default_factory=dict)


class StreamedClips(ClipDataset):
    """Decoded clips of a stream, with their targets, asked for by the [`StreamedClip`] keys of [`StreamSampler`].

    They can also be asked for by their place in the stream, which reads it from its beginning.

    Args:
        split ([`ClipStream`]): the clips.
        *args: as of [`ClipDataset`].
        **kwargs: likewise.

    Attributes:
        order_seed (`int`, *optional*): seed of the order of the training that is going on.
    """

    at_hand = False
    order_seed: int | None = None

    def __getitem__(self, key: StreamedClip | int) -> dict:
        if isinstance(key, int):
            key = StreamedClip(self._row(key))
        if key.draws is None:
            return self._plain(key.row)
        return self._augmented(key.row, key.draws, key.partners)

    def _row(self, index: int) -> dict:
        return next(itertools.islice(self.split, index, None))

    def name(self, index: int) -> str:
        """See [`ClipDataset.name`]; the stream is read from its beginning.

        Args:
            index (`int`): place of the clip in the stream.

        Returns:
            Path of its file.
        """
        return clip_name(self._row(index)["audio"])

    def label_counts(self) -> np.ndarray:
        """See [`ClipDataset.label_counts`]; told by the first pass.

        Returns:
            `np.ndarray` of shape `(labels,)`, int64.
        """
        return self.split.label_counts()

    def decode(self, clip: dict) -> tuple[Heard, int | list[int] | np.ndarray]:
        """See [`ClipDataset.decode`]: the clip is its row, and a file that lies elsewhere is fetched."""
        return self._hear(fetched(clip["audio"])), label_of(clip)

    def training_sampler(self, seed: int) -> "StreamSampler":
        """Order the clips for a training: shuffled anew in each epoch, with the draws of their augmentation.

        Args:
            seed (`int`): seed of the order.

        Returns:
            [`StreamSampler`].
        """
        self.order_seed = seed
        return StreamSampler(self, seed)

    def evaluation_sampler(self) -> "StreamSampler":
        """Leave the clips in their order, to be scored.

        Returns:
            [`StreamSampler`].
        """
        return StreamSampler(self)

    def first_keys(self, count: int) -> list[StreamedClip]:
        """See [`ClipDataset.first_keys`].

        Args:
            count (`int`): how many.

        Returns:
            Keys of the first clips of the stream.
        """
        return list(itertools.islice(self.evaluation_sampler(), count))

    def keys_of_first_epoch(self, count: int, seed: int) -> list[tuple[StreamedClip, StreamedClip]]:
        """See [`ClipDataset.keys_of_first_epoch`].

        Args:
            count (`int`): how many.
            seed (`int`): seed of the order.

        Returns:
            Of the first clips of the shuffled order of epoch 0, each without and with its draws.
        """
        augmented = itertools.islice(StreamSampler(self, seed), count)
        return [(StreamedClip(clip.row), clip) for clip in augmented]

    def replay(self, draws: Iterable[tuple[int, int, int]]) -> Iterator[tuple[StreamedClip, list[dict], list[str]]]:
        """See [`ClipDataset.replay`]; the clips come by again in the same order.

        Args:
            draws (iterable of `tuple[int, int, int]`): epoch, index and visit of each item.

        Yields:
            The key of the item; the rows of its clip and of its partners; and their names.
        """
        draws, sampler = list(draws), StreamSampler(self, self.order_seed)
        for epoch in sorted({epoch for epoch, *_ in draws}):
            sampler.set_epoch(epoch)
            for clip in sampler:
                if clip.draws.key in draws:
                    rows = [clip.row, *clip.partners.values()]
                    yield clip, rows, [clip_name(row["audio"]) for row in rows]

    def sample(self, count: int, seed: int) -> Iterator[np.ndarray]:
        """See [`ClipDataset.sample`].

        Args:
            count (`int`): how many; 0 for all.
            seed (`int`): seed of the order.

        Returns:
            The first clips of the shuffled order of epoch 0, without augmentation; nothing after them is read.
        """
        rows = (row for _, row, _ in shuffled(self.split, self.split.shuffle_buffer, seed, 0))
        return (self._read(row)[0] for row in itertools.islice(rows, count or None))


class StreamSampler(Sampler):
    """Yields [`StreamedClip`] keys in an order that is a function of (seed, epoch).

    Args:
        clips ([`StreamedClips`]): what is read, with the augmentation whose draws go with the clips and its seed.
        seed (`int`, *optional*): seed of the order; the order of the stream, without augmentation, if not given.
    """

    def __init__(self, clips: StreamedClips, seed: int | None = None):
        self.clips = clips
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int):
        """Choose the order of the next pass.

        Args:
            epoch (`int`): which has an order of its own.
        """
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.clips)

    def __iter__(self) -> Iterator[StreamedClip]:
        clips, epoch = self.clips, self.epoch
        if self.seed is None:
            yield from map(StreamedClip, clips.split)
            return
        for place, row, buffer in shuffled(clips.split, clips.split.shuffle_buffer, self.seed, epoch):
            if clips.augmentation is None:
                yield StreamedClip(row)
                continue
            draws = clips.augmentation.draw(clips.seed, epoch, place, len(buffer))
            partners = {name: buffer[drawn] for name, drawn in draws.partners.items()}
            draws = draws.with_partners({name: of_stream for name, (of_stream, _) in partners.items()})
            yield StreamedClip(row, draws, {name: partner for name, (_, partner) in partners.items()})


def shuffled(
    rows: Iterable[dict], buffer_size: int, seed: int, epoch: int
) -> Iterator[tuple[int, dict, list[tuple[int, dict]]]]:
    """Rows in a random order, of which no more are held than the buffer takes.

    Args:
        rows (iterable of `dict`): the stream.
        buffer_size (`int`): how many are held; each next one is drawn among these.
        seed (`int`): seed of the order.
        epoch (`int`): which has an order of its own.

    Yields:
        The place of the row in the stream, the row, and the buffer of (place, row) from which it was drawn, which still
        holds it.
    """
    generator = np.random.default_rng((ORDER_STREAM, seed, epoch))
    numbered = enumerate(rows)
    buffer = list(itertools.islice(numbered, buffer_size))
    for arrived in numbered:
        drawn = int(generator.integers(buffer_size))
        yield *buffer[drawn], buffer
        buffer[drawn] = arrived
    for drawn in generator.permutation(len(buffer)):
        yield *buffer[drawn], buffer
