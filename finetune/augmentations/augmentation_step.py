"""The base class of an augmentation: its flags, its random numbers, and the stages at which it can change a clip."""

import os
from dataclasses import asdict, dataclass
from typing import ClassVar, NamedTuple

import numpy as np
import torch

from .sound_folder import SoundFolder

# The three augmentations of the original draw from one generator, one after the other, as they always did.
ORIGINAL_STREAM = 2


class TrainingClip(NamedTuple):
    """A clip on its way to the batch.

    Args:
        waveform (`np.ndarray` of shape `(samples,)`): float32, in [-1, 1] as a file has it.
        label (`int`, `list[int]` or `np.ndarray` of shape `(labels,)`): as the data set has it; a float32 vector if an
            augmentation that is on mixes labels.
        sampling_rate (`int`): of the waveform, in Hz.
    """

    waveform: np.ndarray
    label: int | list[int] | np.ndarray
    sampling_rate: int


@dataclass(frozen=True)
class AugmentationStep:
    """One augmentation. A subclass is a frozen dataclass that overrides `draw` and the stages at which it changes a clip.

    Its fields are numbers from 0 on, or name folders of sounds, with a default at which it is off and help text in their metadata:
    they become flags of `ast-finetune` when the class is in the table [`AUGMENTATIONS`]. Stages come in this order: `change_heard` and
    `change_waveform` where the clip is read, then for a whole batch on the training device `frames_heard`, `change_log_mel`,
    `change_normalized`, `patches_kept` and `extra_inputs`. A step that is off is passed over, and none is applied to clips that are scored.

    Attributes:
        name (`str`): under which its random numbers are found.
        stream (`int`): sets its random numbers apart from others of the same seed, epoch and clip. A new augmentation takes
            a number that no other has, so that the draws of the others stay as they are.
        strengths (`tuple[str, ...]`): the fields that turn it on where they are not 0.
        mixes_labels (`bool`): whether it changes labels, which are vectors then.
        sounds_the_same (`bool`): whether what was scored of the clip as it is stays right of the waveform that it makes.
        may_be_negative (`tuple[str, ...]`): fields that are numbers below 0 too.
        folder_fields (`tuple[str, ...]`): fields that name a folder of sounds, wherever that lies.
    """

    name: ClassVar[str]
    stream: ClassVar[int]
    strengths: ClassVar[tuple[str, ...]]
    mixes_labels: ClassVar[bool] = False
    sounds_the_same: ClassVar[bool] = False
    may_be_negative: ClassVar[tuple[str, ...]] = ()
    folder_fields: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self):
        for name, value in asdict(self).items():
            if name not in self.may_be_negative + self.folder_fields and value < 0:
                raise ValueError(f"{name}={value} is negative. Pass 0 to turn it off.")

    @property
    def strengths_given(self) -> list[str]:
        """Names of the fields that turn it on as they are; none if it is off."""
        return [name for name in self.strengths if getattr(self, name)]

    @property
    def needs_waveforms(self) -> bool:
        """Whether it changes waveforms, which clips of finished features do not have."""
        of_waveforms = ("change_heard", "change_waveform")
        return any(getattr(type(self), stage) is not getattr(AugmentationStep, stage) for stage in of_waveforms)

    @property
    def keeps_scores(self) -> bool:
        """Whether scores that were stored for the clips as they are can teach beside it.

        What hides a part of the features, or of the patches, hides it from the student alone, as it does beside labels.
        """
        mixes_scores = type(self).mix_scores is not AugmentationStep.mix_scores
        return not self.needs_waveforms or self.sounds_the_same or mixes_scores

    def folders(self) -> dict[str, SoundFolder]:
        """Tell which folders of sounds it draws from.

        Returns:
            `dict[str, SoundFolder]`: by what they hold; none if it is off.
        """
        return {}

    def look_at_files(self) -> list[str]:
        """Look at the files that it draws from, before a training.

        Returns:
            What is said of them in words.

        Raises:
            AudioError: if there are none, or one cannot be used.
        """
        return []

    def recorded(self) -> dict:
        """Tell what the run summary says of it.

        Returns:
            `dict`: its fields; of folders their names, and by what they hold the number and a digest of their files. Of a
            folder that is not used, nothing.
        """
        values = asdict(self)
        if not self.folder_fields:
            return values
        if not self.strengths_given:
            return {}
        values |= {name: os.path.basename(os.path.abspath(values[name])) for name in self.folder_fields}
        return values | {kind: folder.recorded() for kind, folder in self.folders().items()}

    def draw(self, generator: np.random.Generator, num_clips: int) -> dict:
        """Draw its random numbers for one visit to a clip, always equally many, whether it is on or off.

        Args:
            generator (`np.random.Generator`): that of its stream for this seed, epoch, clip and visit.
            num_clips (`int`): how many clips there are to choose a partner from.

        Returns:
            `dict`: values by their names. In a batch, NumPy's arrays and scalars become tensors on the training device,
            with a first dimension of clips; Python's own numbers stay with the host, in a list. `"partner"` is the place of
            another clip that the step takes part of, or `None`.
        """
        raise NotImplementedError(f"{type(self).__name__} has no method draw.")

    def samples_needed(self, max_samples: int) -> int:
        """Tell how many samples of a clip can be among the first `max_samples` that `change_heard` leaves.

        Args:
            max_samples (`int`): samples that are kept afterwards.

        Returns:
            `int`: samples, from the beginning of the clip.
        """
        return max_samples

    def change_heard(self, clip: TrainingClip, drawn: dict) -> TrainingClip:
        """Change a clip before it is cut to the model's length; a mixup partner is not changed at this stage.

        Args:
            clip ([`TrainingClip`]): its waveform has up to `samples_needed` samples.
            drawn (`dict`): what `draw` returned for it.

        Returns:
            [`TrainingClip`]: the clip, perhaps of another length.
        """
        return clip

    def samples_heard(self, samples: np.ndarray, sampling_rate: int, drawn: dict) -> np.ndarray:
        """Tell beforehand how many samples `change_heard` makes of clips, by which those of one length are visited together.

        A step that does not tell it makes batches with more padding, and nothing else.

        Args:
            samples (`np.ndarray` of shape `(visits,)`): of the clips.
            sampling_rate (`int`): of the samples, in Hz.
            drawn (`dict`): what `draw` returned for each visit, together.

        Returns:
            `np.ndarray` of shape `(visits,)`.
        """
        return samples

    def change_waveform(self, clip: TrainingClip, drawn: dict, partner: TrainingClip | None) -> TrainingClip:
        """Change a clip that is cut to the model's length.

        Args:
            clip ([`TrainingClip`]): the clip.
            drawn (`dict`): what `draw` returned for it.
            partner ([`TrainingClip`], *optional*): the other clip that was drawn, cut but not changed, its label as a
                vector.

        Returns:
            [`TrainingClip`]: the clip, of the same length.
        """
        return clip

    def mix_scores(self, scores: torch.Tensor, drawn: dict, partners: torch.Tensor) -> torch.Tensor:
        """Mix what was scored of the clips of a batch and of their partners, as their labels are mixed.

        Args:
            scores (`torch.Tensor` of shape `(batch, labels)`): probabilities of the clips.
            drawn (`dict`): what `draw` returned for each clip, together.
            partners (`torch.Tensor` of shape `(batch, labels)`): those of the other clips that were drawn; of a clip without
                one, its own.

        Returns:
            `torch.Tensor` of shape `(batch, labels)`.
        """
        return scores

    def hidden(self, size: tuple[int, int], frames: torch.Tensor, drawn: dict) -> torch.Tensor | None:
        """Tell which parts of the log-mel features `change_log_mel` sets to 0, where it does no more than that.

        A teacher whose mel bins are others has the same frequencies hidden by it.

        Args:
            size (`tuple[int, int]`): frames and mel bins of the features.
            frames (`torch.Tensor` of shape `(batch,)`): as of `change_log_mel`.
            drawn (`dict`): likewise.

        Returns:
            `torch.Tensor` of shape `(batch, frames, mel bins)`, bool; `None` if it changes features otherwise, or not.
        """
        return None

    def frames_heard(self, frames: torch.Tensor, max_length: int, drawn: dict) -> torch.Tensor:
        """Tell how many frames of each clip are no padding to the model; asked with `padding="longest"` alone.

        Args:
            frames (`torch.Tensor` of shape `(batch,)`): frames of each clip.
            max_length (`int`): frames that the model hears at most.
            drawn (`dict`): what `draw` returned for each clip, together.

        Returns:
            `torch.Tensor` of shape `(batch,)`: from a clip's own frames to `max_length`.
        """
        return frames

    def change_log_mel(self, features: torch.Tensor, frames: torch.Tensor, drawn: dict) -> torch.Tensor:
        """Change the log-mel features of a batch before they are normalised.

        Args:
            features (`torch.Tensor` of shape `(batch, frames, mel bins)`): raw log-mel values.
            frames (`torch.Tensor` of shape `(batch,)`): frames of each clip that may be changed, from its first; all of
                them with `padding="max_length"`, as in the original, and those of `frames_heard` with `"longest"`.
            drawn (`dict`): what `draw` returned for each clip, together.

        Returns:
            `torch.Tensor` of the same shape.
        """
        return features

    def change_normalized(self, features: torch.Tensor, frames: torch.Tensor, drawn: dict) -> torch.Tensor:
        """Change the normalised features of a batch.

        Args:
            features (`torch.Tensor` of shape `(batch, frames, mel bins)`): normalised log-mel values.
            frames (`torch.Tensor` of shape `(batch,)`): as of `change_log_mel`.
            drawn (`dict`): likewise.

        Returns:
            `torch.Tensor` of the same shape.
        """
        return features

    def check_grid(self, grid: tuple[int, int]) -> None:
        """Refuse what cannot be done with the patches of a model; called before a training.

        Args:
            grid (`tuple[int, int]`): patches along frequency and along time of the model's `max_length`.

        Raises:
            ValueError: if its fields do not fit.
        """

    def patches_kept(self, columns: list[int], width: int, grid: tuple[int, int], drawn: dict) -> torch.Tensor | None:
        """Choose the patches that the model computes.

        Args:
            columns (`list[int]`): patches of each clip along time, one at least; padding is none of them, but for that of
                `padding="max_length"`, which the model hears.
            width (`int`): patches of the batch along time.
            grid (`tuple[int, int]`): patches along frequency and along time of the model's `max_length`.
            drawn (`dict`): what `draw` returned for each clip, together.

        Returns:
            `torch.Tensor` of shape `(batch, kept)`, int64, on the host, as [`ASTModel.forward`] takes it; `None` for all.
        """
        return None

    def extra_inputs(self, features: torch.Tensor, frames: torch.Tensor, drawn: dict) -> dict[str, torch.Tensor]:
        """Make what the model takes beside features and labels, such as which patches are hidden from it.

        Args:
            features (`torch.Tensor` of shape `(batch, frames, mel bins)`): the features that the model takes.
            frames (`torch.Tensor` of shape `(batch,)`): as of `change_log_mel`.
            drawn (`dict`): likewise.

        Returns:
            `dict[str, torch.Tensor]`: keyword arguments of the model, of its labels too where it replaces them.
        """
        return {}
