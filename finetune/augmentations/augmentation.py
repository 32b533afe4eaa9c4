"""All augmentations of a run: the table of their classes, the random numbers of a clip, and the walk through the stages.

Source: Gong et al. 2021, the released data loader, whose three augmentations come in its order; differs from it by those
that it does not have. Every draw is a function of (seed, epoch, index of the clip, how often it came in this epoch), never
of a global generator, so that resuming and the number of workers or processes change nothing. Numbers are drawn and
waveforms changed where the clip is read; what touches every value of a spectrogram is applied to the whole batch on the
training device.
"""

from collections.abc import Sequence
from dataclasses import Field, dataclass, field, fields, make_dataclass, replace

import numpy as np
import torch

from modeling_ast import ASTConfig
from modeling_ast.features.kaldi import num_frames
from modeling_ast.layers.patch_grid import patch_grid_of

from .augmentation_step import ORIGINAL_STREAM, AugmentationStep, TrainingClip
from .background_noise import BackgroundNoise
from .band_limit import BandLimit
from .filter_augment import FilterAugment
from .gain import Gain
from .heard_padding import HeardPadding
from .masks import Masks
from .mixup import Mixup
from .noise_and_roll import NoiseAndRoll
from .noise_floor import NoiseFloor
from .patchout import Patchout
from .quiet_ends import QuietEnds
from .room import Room
from .speed_change import SpeedChange

# In the order in which they are applied. A new one needs no more than its class and its place here: flags, recipes, data
# sets, batches, the trainer and the run summary take them from this table.
AUGMENTATIONS: tuple[type[AugmentationStep], ...] = (
    SpeedChange,
    QuietEnds,
    Mixup,
    Room,
    BackgroundNoise,
    Gain,
    HeardPadding,
    FilterAugment,
    NoiseFloor,
    BandLimit,
    Masks,
    NoiseAndRoll,
    Patchout,
)


def argument_fields(kinds: Sequence[type[AugmentationStep]]) -> list[tuple[str, type, Field]]:
    """List the fields of augmentations, to make one group of arguments of them.

    Args:
        kinds (sequence of `type`): subclasses of [`AugmentationStep`].

    Returns:
        Name, type and default with help text of each field, as `dataclasses.make_dataclass` takes them.
    """
    return [
        (item.name, item.type, field(default=item.default, metadata=item.metadata))
        for kind in kinds
        for item in fields(kind)
    ]


AugmentationFields = make_dataclass("AugmentationFields", argument_fields(AUGMENTATIONS))
AugmentationFields.__doc__ = "The fields of all augmentations of the table."


@dataclass(frozen=True)
class Draws:
    """The random numbers of one visit to a clip; see [`Augmentation.draw`].

    Args:
        key (`tuple[int, int, int]`): epoch, index of the clip and visit: with these the clip can be asked for again.
        values (`dict[str, dict]`): by the name of each augmentation what it drew; see [`AugmentationStep.draw`].
    """

    key: tuple[int, int, int]
    values: dict[str, dict]

    def __getitem__(self, name: str) -> dict:
        return self.values[name]

    @property
    def partners(self) -> dict[str, int]:
        """Places of the other clips that take part in this one, by the names of the augmentations that want them."""
        places = {name: drawn.get("partner") for name, drawn in self.values.items()}
        return {name: place for name, place in places.items() if place is not None}

    def with_partners(self, places: dict[str, int]) -> "Draws":
        """Put other partners in place of those that were drawn.

        Args:
            places (`dict[str, int]`): the places of the clips that `partners` names, in their stead.

        Returns:
            [`Draws`]: new ones.
        """
        changed = {name: self.values[name] | {"partner": place} for name, place in places.items()}
        return replace(self, values=self.values | changed)


def collate_draws(draws: list[Draws]) -> dict[str, dict[str, torch.Tensor | list]]:
    """Put the draws of the clips of a batch together.

    Args:
        draws (`list[Draws]`): those of each clip.

    Returns:
        By the names of the augmentations and of their values, tensors of shape `(batch, ...)` for what NumPy drew, and
        lists for all else; see [`AugmentationStep.draw`].
    """
    return {
        name: {value: _together([of_clip[name][value] for of_clip in draws]) for value in drawn}
        for name, drawn in draws[0].values.items()
    }


def _strengths(steps: Sequence[AugmentationStep]) -> str:
    return ", ".join(name for step in steps for name in step.strengths_given)


def _turned_off(steps: Sequence[AugmentationStep]) -> str:
    """What to type so that augmentations are off; of those that take sounds of a folder all is left out, as what says how would be refused."""
    numbers = [f"--{name} 0" for step in steps if not step.folder_fields for name in step.strengths_given]
    folders = [
        f"--{item.name}"
        for step in steps
        if step.folder_fields
        for item in fields(step)
        if item.name in step.folder_fields + step.strengths or getattr(step, item.name) != item.default
    ]
    parts = [f"Pass {' '.join(numbers)}"] if numbers else []
    parts += [f"{'leave' if numbers else 'Leave'} out {' and '.join(folders)}"] if folders else []
    return ", and ".join(parts)


def _together(values: list) -> torch.Tensor | list:
    return torch.from_numpy(np.stack(values)) if isinstance(values[0], (np.ndarray, np.generic)) else values


class Augmentation:
    """What is done to the training clips of a run: the augmentations of the table, and perhaps others, in their order.

    The same one is given to the data set, which draws the numbers and changes waveforms, and to the trainer, which changes
    features.

    Args:
        others ([`AugmentationStep`]): augmentations that are not in the table, applied after those of it at each stage.
        fields: those of the augmentations in the table, by their names; what is not given stays off.

    Raises:
        TypeError: for a field that none of them has.
        ValueError: for a strength that cannot be, and for two augmentations of one name or one stream of random numbers.

    Attributes:
        steps (`tuple[AugmentationStep, ...]`): all, in their order.
        active (`tuple[AugmentationStep, ...]`): those that are on, in the order in which they are applied.
    """

    def __init__(self, *others: AugmentationStep, **strengths: float | str | None):
        given = AugmentationFields(**strengths)
        of_table = (kind(**{item.name: getattr(given, item.name) for item in fields(kind)}) for kind in AUGMENTATIONS)
        self.steps = (*of_table, *others)
        self.active = tuple(step for step in self.steps if step.strengths_given)
        _refuse_shared(self.steps)
        streams = {step.stream for step in self.active}
        self._drawing = [step for step in self.steps if step.stream in streams]
        self._lengthening = [step for step in self.active if _hears_padding(step)]
        self._resizing = [step for step in self.active if _tells_its_length(step)]
        self._leaving_out = [step for step in self.active if _leaves_patches_out(step)]
        if len(self._leaving_out) > 1:
            both = " and ".join(step.name for step in self._leaving_out)
            raise ValueError(f"{both} both choose the patches that the model computes. Leave one of them out.")

    @property
    def label_mixing_strengths(self) -> list[str]:
        """Names of the fields because of which labels are mixed, so that all have to be vectors; none if they are not."""
        return [name for step in self.active if step.mixes_labels for name in step.strengths_given]

    def draw(self, seed: int, epoch: int, index: int, num_clips: int, visit: int = 0) -> Draws:
        """Draw all random numbers for one visit to a clip in one epoch.

        Args:
            seed (`int`): seed of the run.
            epoch (`int`): epoch, from 0.
            index (`int`): the clip's place in the training set.
            num_clips (`int`): how many clips a mixup partner is drawn from, uniformly: the size of the training set.
            visit (`int`, defaults to 0): how often the clip came before in this epoch; each visit has its own numbers.

        Returns:
            [`Draws`]: of the steps that are on, and of those that share a stream with one, so that turning another on leaves the
            numbers of all others.
        """
        return self._draw(self._drawing, seed, epoch, index, visit, num_clips)

    @staticmethod
    def _draw(
        steps: Sequence[AugmentationStep], seed: int, epoch: int, index: int, visit: int, num_clips: int
    ) -> Draws:
        """The draws of some steps, of all that share a stream."""
        key = (seed, epoch, index, visit) if visit else (seed, epoch, index)
        generators = {
            stream: np.random.default_rng((stream, *key)) for stream in dict.fromkeys(step.stream for step in steps)
        }
        values = {step.name: step.draw(generators[step.stream], num_clips) for step in steps}
        return Draws((epoch, index, visit), values)

    def look_at_files(self) -> list[str]:
        """Look at the sounds that augmentations draw from, before a training.

        Returns:
            What is said of them in words.

        Raises:
            AudioError: if there are none, or one cannot be used.
        """
        return [words for step in self.active for words in step.look_at_files()]

    def recorded(self) -> dict:
        """Tell what the run summary says of the augmentations; see [`AugmentationStep.recorded`].

        Returns:
            `dict`: the fields of all of them.
        """
        return {name: value for step in self.steps for name, value in step.recorded().items()}

    def samples_needed(self, max_samples: int) -> int:
        """Tell how many samples of a clip can be among those that the model hears in training.

        Args:
            max_samples (`int`): samples that the model hears.

        Returns:
            `int`: samples, from the beginning of the clip.
        """
        for step in reversed(self.active):
            max_samples = step.samples_needed(max_samples)
        return max_samples

    def refuse_without_waveforms(self):
        """Refuse what cannot be done to finished features.

        Raises:
            ValueError: if an augmentation that is on changes waveforms.
        """
        refused = [step for step in self.active if step.needs_waveforms]
        if refused:
            raise ValueError(
                f"{_strengths(refused)} change(s) waveforms, but with features_column_name there are only finished features. "
                f"{_turned_off(refused)}; masks, filters, noise and roll work."
            )

    def refuse_stored_scores(self):
        """Refuse what makes another sound of a clip than the one that a teacher has scored beforehand.

        Raises:
            ValueError: if an augmentation that is on does.
        """
        refused = [step for step in self.active if not step.keeps_scores]
        if refused:
            raise ValueError(
                f"{_strengths(refused)} change(s) what is heard, and the teacher's stored scores are those of the clips as they are. "
                f"{_turned_off(refused)}, or pass the model itself as --teacher."
            )

    def mix_scores(self, scores: torch.Tensor, places: Sequence[int], draws: dict[str, dict]) -> torch.Tensor:
        """Mix stored scores as the clips of a batch were mixed.

        Args:
            scores (`torch.Tensor` of shape `(clips, labels)`): probabilities of all training clips, by their place.
            places (sequence of `int`): of the clips of the batch.
            draws (`dict[str, dict]`): from [`collate_draws`].

        Returns:
            `torch.Tensor` of shape `(batch, labels)`.
        """
        of_batch = scores[places]
        for step in self.active:
            drawn = _drawn(step, draws)
            if "partner" in drawn:
                partners = [
                    own if other is None else other for own, other in zip(places, drawn["partner"], strict=True)
                ]
                of_batch = step.mix_scores(of_batch, drawn, scores[partners])
        return of_batch

    def change_heard(self, clip: TrainingClip, draws: Draws) -> TrainingClip:
        """Change a clip before it is cut to the model's length.

        Args:
            clip ([`TrainingClip`]): its waveform has up to `samples_needed` samples.
            draws ([`Draws`]): of this visit.

        Returns:
            [`TrainingClip`]: the clip, perhaps of another length.
        """
        for step in self.active:
            clip = step.change_heard(clip, draws[step.name])
        return clip

    def change_waveform(self, clip: TrainingClip, draws: Draws, partners: dict[str, TrainingClip]) -> TrainingClip:
        """Change a clip that is cut to the model's length.

        Args:
            clip ([`TrainingClip`]): the clip.
            draws ([`Draws`]): of this visit.
            partners (`dict[str, TrainingClip]`): the clips that `draws.partners` names.

        Returns:
            [`TrainingClip`]: the clip, of the same length.
        """
        for step in self.active:
            clip = step.change_waveform(clip, draws[step.name], partners.get(step.name))
        return clip

    @property
    def hears_padding(self) -> bool:
        """Whether clips may be heard longer than they are, with `padding="longest"`."""
        return bool(self._lengthening)

    @property
    def tells_lengths(self) -> bool:
        """Whether [`Augmentation.frames_of_visits`] tells other lengths than clips have."""
        return bool(self._lengthening or self._resizing)

    def frames_heard(self, frames: torch.Tensor, max_length: int, draws: dict[str, dict]) -> torch.Tensor:
        """Tell how many frames of each clip are no padding to the model, with `padding="longest"`.

        Args:
            frames (`torch.Tensor` of shape `(batch,)`): frames of each clip.
            max_length (`int`): frames that the model hears at most.
            draws (`dict[str, dict]`): from [`collate_draws`], on the device of the features.

        Returns:
            `torch.Tensor` of shape `(batch,)`: from a clip's own frames to `max_length`.

        Raises:
            ValueError: if an augmentation that is on was not drawn for the batch.
        """
        for step in self._lengthening:
            frames = step.frames_heard(frames, max_length, _drawn(step, draws))
        return frames

    def frames_of_visits(
        self,
        seed: int,
        keys: Sequence[tuple[int, int, int]],
        num_clips: int,
        samples: np.ndarray,
        max_length: int,
        sampling_rate: int,
    ) -> np.ndarray:
        """Tell beforehand how long clips are heard in visits to them, so that equals can be visited together.

        Args:
            seed (`int`): seed of the run.
            keys (sequence of `(int, int, int)`): epoch, index of the clip and visit, of each.
            num_clips (`int`): as of [`Augmentation.draw`].
            samples (`np.ndarray` of shape `(visits,)`): of the clips.
            max_length (`int`): frames that the model hears at most.
            sampling_rate (`int`): of the samples, in Hz.

        Returns:
            `np.ndarray` of shape `(visits,)`, frames: those of [`Augmentation.frames_heard`], but that a change of speed is not looked at.
        """
        telling = self._resizing + self._lengthening
        streams = {step.stream for step in telling}
        steps = [step for step in self.steps if step.stream in streams]
        draws = collate_draws([self._draw(steps, seed, *key, num_clips) for key in keys])
        for step in self._resizing:
            samples = step.samples_heard(samples, sampling_rate, _drawn(step, draws))
        frames = np.minimum(num_frames(samples, sampling_rate), max_length)
        return self.frames_heard(torch.from_numpy(frames), max_length, draws).numpy()

    def change_log_mel(self, features: torch.Tensor, frames: torch.Tensor, draws: dict[str, dict]) -> torch.Tensor:
        """Change the log-mel features of a batch before they are normalised.

        Args:
            features (`torch.Tensor` of shape `(batch, frames, mel bins)`): raw log-mel values.
            frames (`torch.Tensor` of shape `(batch,)`): frames of each clip that may be changed, from its first.
            draws (`dict[str, dict]`): from [`collate_draws`], on the device of the features.

        Returns:
            `torch.Tensor` of the same shape.

        Raises:
            ValueError: if an augmentation that is on was not drawn for the batch.
        """
        for step in self.active:
            features = step.change_log_mel(features, frames, _drawn(step, draws))
        return features

    def change_log_mel_of_teacher(
        self,
        features: torch.Tensor,
        frames: torch.Tensor,
        draws: dict[str, dict],
        bins: tuple[int, torch.Tensor] | None = None,
    ) -> torch.Tensor:
        """Change the features that a teacher computed of a batch, before they are normalised, as those of the student.

        Args:
            features (`torch.Tensor` of shape `(batch, frames, teacher's mel bins)`): as many frames as the student's.
            frames (`torch.Tensor` of shape `(batch,)`): as of `change_log_mel`.
            draws (`dict[str, dict]`): likewise.
            bins (`tuple[int, torch.Tensor]`, *optional*): mel bins of the student, and of shape `(teacher's mel bins,)` the
                nearest of them to each of the teacher's; the two have the same if not given.

        Returns:
            `torch.Tensor` of the same shape, with 0 at the times and frequencies that are hidden from the student.
        """
        for step in self.active:
            drawn, hidden = _drawn(step, draws), None
            if bins is not None:
                hidden = step.hidden((features.shape[1], bins[0]), frames, drawn)
            if hidden is None:
                features = step.change_log_mel(features, frames, drawn)
            else:
                features = features.masked_fill(hidden[:, :, bins[1].to(hidden.device)], 0.0)
        return features

    def change_normalized(self, features: torch.Tensor, frames: torch.Tensor, draws: dict[str, dict]) -> torch.Tensor:
        """Change the normalised features of a batch.

        Args:
            features (`torch.Tensor` of shape `(batch, frames, mel bins)`): normalised log-mel values.
            frames (`torch.Tensor` of shape `(batch,)`): as of `change_log_mel`.
            draws (`dict[str, dict]`): likewise.

        Returns:
            `torch.Tensor` of the same shape.

        Raises:
            ValueError: as of `change_log_mel`.
        """
        for step in self.active:
            features = step.change_normalized(features, frames, _drawn(step, draws))
        return features

    def check_model(self, config: ASTConfig):
        """Refuse what cannot be done in the training of a model.

        Args:
            config ([`ASTConfig`]): of the model.

        Raises:
            ValueError: if the fields of an augmentation that is on do not fit its patches.
        """
        for step in self.active:
            step.check_grid(config.patch_grid)

    def patches_computed(self, config: ASTConfig, frames: int) -> tuple[int, int]:
        """Tell how many patches of a clip without padding are computed in training.

        Args:
            config ([`ASTConfig`]): of the model.
            frames (`int`): of the clip.

        Returns:
            Those that stay, and all of them.
        """
        rows, columns = patch_grid_of(config, frames)
        for step in self._leaving_out:
            drawn = {name: _together([value]) for name, value in step.draw(np.random.default_rng(0), 1).items()}
            kept = step.patches_kept([columns], columns, config.patch_grid, drawn)
            if kept is not None:
                return kept.shape[1], rows * columns
        return rows * columns, rows * columns

    def extra_inputs(
        self, features: torch.Tensor, frames: torch.Tensor, draws: dict[str, dict], config: ASTConfig | None = None
    ) -> dict[str, torch.Tensor]:
        """Make what the model takes beside features and labels.

        Args:
            features (`torch.Tensor` of shape `(batch, frames, mel bins)`): the features that the model takes.
            frames (`torch.Tensor` of shape `(batch,)`): as of `change_log_mel`.
            draws (`dict[str, dict]`): likewise.
            config ([`ASTConfig`], *optional*): of the model that is trained, by which patches are left out; if not given,
                none are, as for a teacher, which hears all of a clip.

        Returns:
            `dict[str, torch.Tensor]`: keyword arguments of the model.
        """
        inputs = {}
        for step in self._leaving_out if config is not None else ():
            # Read by the host, for which a device is waited for: without it the number of tokens would not be known.
            columns = [max(1, patch_grid_of(config, count)[1]) for count in frames.tolist()]
            width = patch_grid_of(config, features.shape[1])[1]
            kept = step.patches_kept(columns, width, config.patch_grid, _drawn(step, draws))
            if kept is not None:
                inputs["patches_kept"] = kept
        for step in self.active:
            inputs |= step.extra_inputs(features, frames, _drawn(step, draws))
        return inputs


def _hears_padding(step: AugmentationStep) -> bool:
    return type(step).frames_heard is not AugmentationStep.frames_heard


def _tells_its_length(step: AugmentationStep) -> bool:
    return type(step).samples_heard is not AugmentationStep.samples_heard


def _leaves_patches_out(step: AugmentationStep) -> bool:
    return type(step).patches_kept is not AugmentationStep.patches_kept


def _drawn(step: AugmentationStep, draws: dict[str, dict]) -> dict:
    """What a step drew for the clips of a batch."""
    if step.name not in draws:
        raise ValueError(
            f"{step.name} was not drawn for this batch, which has {', '.join(draws)}. Give the data set and the trainer the same "
            "Augmentation."
        )
    return draws[step.name]


def _refuse_shared(steps: Sequence[AugmentationStep]):
    """Raise a `ValueError` for steps of one name, or of one stream, whose draws would depend on each other."""
    names, streams = {}, {}
    for step in steps:
        kind = type(step).__name__
        if step.name in names:
            raise ValueError(f"{names[step.name]} and {kind} are both called {step.name!r}. Give one another name.")
        if step.stream in streams and not (step.stream == ORIGINAL_STREAM and type(step) in AUGMENTATIONS):
            raise ValueError(
                f"{streams[step.stream]} and {kind} both draw from stream {step.stream}. Give {kind} a number of its own: "
                f"{max(step.stream for step in steps) + 1}."
            )
        names[step.name] = streams[step.stream] = kind
