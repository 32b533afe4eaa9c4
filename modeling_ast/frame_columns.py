"""Where the columns of a patch grid lie in time, and which labels they have where stretches of time are marked.

A column is what a frame head tells labels of: all patches that begin at one frame. It is `patch_size` frames wide, and its
neighbour begins `time_stride` frames later: 100 ms with the paper's stride of 10 frames of 10 ms, where columns overlap. So
that each moment belongs to one column, a column stands for the `time_stride` frames around its middle; the first one
stands for all before that as well, the last one for all up to the end.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from .layers.patch_grid import patches_along

LEAST_SHARE = 0.5  # of a column's time that is marked with a label, where it counts


@dataclass(frozen=True)
class FrameColumns:
    """The columns of a model's patch grid.

    Args:
        patch_size (`int`, defaults to 16): frames of 10 ms that a column is wide.
        time_stride (`int`, defaults to 10): frames between the beginnings of two columns.
    """

    patch_size: int = 16
    time_stride: int = 10

    @classmethod
    def of(cls, config) -> "FrameColumns":
        """Tell the columns of a model.

        Args:
            config ([`ASTConfig`]): the model's.

        Returns:
            [`FrameColumns`].
        """
        return cls(config.patch_size, config.time_stride)

    @property
    def seconds(self) -> float:
        """Time between the beginnings of two columns."""
        from .features.kaldi import FRAME_SHIFT_MS  # which imports torch

        return self.time_stride * FRAME_SHIFT_MS / 1000

    def number(self, frames: int) -> int:
        """Count the columns of a clip, of which the model hears no padding.

        Args:
            frames (`int`): frames of the clip.

        Returns:
            Columns all of whose frames are the clip's; one of a clip that is shorter than a patch.
        """
        return max(patches_along(frames, self.patch_size, self.time_stride), 1)

    def edges(self, frames: int) -> np.ndarray:
        """Tell the time that each column of a clip stands for.

        Args:
            frames (`int`): frames of the clip.

        Returns:
            `np.ndarray` of shape `(columns + 1,)`, float64, seconds from the clip's beginning: column `c` stands for the time
            from edge `c` up to edge `c + 1`. The last edge is the end of the last frame.
        """
        from .features.kaldi import FRAME_LENGTH_MS, FRAME_SHIFT_MS

        between = self.first_edge + np.arange(1, self.number(frames)) * self.seconds
        return np.concatenate([[0.0], between, [(FRAME_LENGTH_MS + (frames - 1) * FRAME_SHIFT_MS) / 1000]])

    @property
    def first_edge(self) -> float:
        """Seconds from a clip's beginning to that of the `time_stride` frames around the middle of its first column."""
        from .features.kaldi import FRAME_LENGTH_MS, FRAME_SHIFT_MS

        middle = (self.patch_size - 1) * FRAME_SHIFT_MS / 2 + FRAME_LENGTH_MS / 2
        return middle / 1000 - self.seconds / 2

    def targets(
        self,
        stretches: Iterable[tuple[float, float, int]],
        num_labels: int,
        frames: int,
        least_share: float = LEAST_SHARE,
    ) -> np.ndarray:
        """Tell which labels each column of a clip has.

        A column has a label where stretches with it cover at least `least_share` of the time that it stands for. That no sound
        is too short to be learned, a stretch that lies in the clip as a whole also counts in the column with which it has
        the most time in common, however little that is. What of a stretch lies outside the clip counts nothing.

        Args:
            stretches (iterable of `(float, float, int)`): start and end in seconds from the clip's beginning, and the index
                of a label; in any order, and overlapping or not.
            num_labels (`int`): how many labels there are.
            frames (`int`): frames of the clip.
            least_share (`float`, defaults to 0.5): above 0, at most 1.

        Returns:
            `np.ndarray` of shape `(columns, num_labels)`, float32: 1 where a column has a label, else 0.

        Raises:
            ValueError: if a stretch ends before it begins or has no such label, or the share is none.
        """
        if not 0 < least_share <= 1:
            raise ValueError(f"least_share={least_share} is no share of a column. Pass a number above 0, up to 1.")
        edges = self.edges(frames)
        lengths = np.diff(edges)
        of_labels: dict[int, list[tuple[float, float]]] = {}
        for start, end, label in stretches:
            if not start <= end or not 0 <= label < num_labels:
                raise ValueError(
                    f"A stretch from {start} s to {end} s with label {label} cannot be, as it has to end after its beginning "
                    f"and there are {num_labels} labels. Pass (start, end, label index) with a label from 0 to "
                    f"{num_labels - 1}."
                )
            of_labels.setdefault(int(label), []).append((float(start), float(end)))
        targets = np.zeros((len(lengths), num_labels), dtype=np.float32)
        for label, spans in of_labels.items():
            covered = sum(_overlaps(start, end, edges) for start, end in _joined(spans))
            # Sums of times in seconds: what is half a column is half of it in spite of the last digit.
            targets[covered >= least_share * lengths - 1e-9, label] = 1
            for start, end in spans:
                if edges[0] <= start < end <= edges[-1]:
                    targets[_overlaps(start, end, edges).argmax(), label] = 1
        return targets


def _joined(spans: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """The time that is in any of the spans, as spans that do not overlap."""
    joined: list[tuple[float, float]] = []
    for start, end in sorted(spans):
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((start, end))
    return joined


def _overlaps(start: float, end: float, edges: np.ndarray) -> np.ndarray:
    """Seconds that a span has in common with each column."""
    return np.clip(np.minimum(end, edges[1:]) - np.maximum(start, edges[:-1]), 0, None)
