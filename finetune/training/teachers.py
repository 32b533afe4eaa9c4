"""Teachers of a training: an AST, another audio classifier of Transformers, or scores that were stored beforehand.

Waveforms are augmented once, by the student's draws, and each of the two computes its own features of them. What acts on
features (masks, noise, roll) acts on those of an AST teacher at the same times and frequencies; other classifiers hear
waveforms alone. A teacher hears all of a clip whatever patchout leaves out, in evaluation mode, without gradients, and is part
of no checkpoint. Labels are matched by their names.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import nn
from torchaudio.functional import resample
from transformers import AutoFeatureExtractor, AutoModelForAudioClassification, PreTrainedConfig

from modeling_ast import ASTConfig, ASTFeatureExtractor
from modeling_ast.features.kaldi import mel_edges, mel_scale, num_frames
from modeling_ast.features.padding import frame_mask, pad_frames
from modeling_ast.layers.patch_grid import NUM_CLASS_TOKENS, patch_grid_of, patches_along
from modeling_ast.layers.patch_layout import PatchLayout
from modeling_ast.loading import load_checkpoint
from modeling_ast.scores import problem_type_of

from ..arguments.teacher_arguments import TeacherArguments
from ..augmentations.augmentation import Augmentation
from ..clip_sets.collator import raw_features
from ..clip_sets.waveforms import ClipDataset
from ..scores.stored_scores import SUFFIXES, read_stored_scores
from ..sources.data_errors import DataError, names_in_short
from .distillation import MULTI_LABEL, TEACHER_SCORES, TEACHER_STATES, TEACHER_TOKENS, new_layer_maps, soft_scores
from .trainer_card import shown_checkpoint

SINGLE_LABEL = "single_label_classification"
FRAMES_A_SECOND = 100
RECORDED = ("teacher_sha256", "teacher_revision")  # fields that a run writes into the recipe that it saves


@dataclass(frozen=True)
class Student:
    """What a teacher has to know of the model that it teaches.

    Args:
        config ([`ASTConfig`]): with its labels and its `problem_type`.
        feature_extractor ([`ASTFeatureExtractor`]): that of the training.
        augmentation ([`Augmentation`]): of the training clips.
        clips ([`ClipDataset`]): the training clips.
        seed (`int`, defaults to 0): of the first weights of maps between layers.
        hears_audio (`bool`, defaults to `True`): whether its clips are audio, and not finished features.
    """

    config: ASTConfig
    feature_extractor: ASTFeatureExtractor
    augmentation: Augmentation
    clips: ClipDataset
    seed: int = 0
    hears_audio: bool = True

    @property
    def labels(self) -> list[str]:
        """Names in output order."""
        return [self.config.id2label[index] for index in range(self.config.num_labels)]


class Teacher(ABC):
    """What gives [`ASTTrainer`] the scores that a student is compared with.

    Args:
        asked ([`TeacherArguments`]): temperature, weight and layers.
        student ([`Student`]): the model that is taught.

    Attributes:
        kind (`str`): what it is, for the run summary.
        sha256 (`str`): of its weights, or of its file.
        revision (`str`, *optional*): commit of a teacher of the Hub.
        num_parameters, num_bytes (`int`): of its weights, or bytes of the scores.
        layer_maps (`nn.ModuleList`, *optional*): the map of each pair of layers; the trainer trains them and keeps them in the
            checkpoints of the training, not with the model.
        autocast (callable): makes the context in which a teacher computes; the trainer puts that of its precision here.
    """

    kind: ClassVar[str]
    sha256: str
    revision: str | None = None
    layer_maps: nn.ModuleList | None = None
    num_parameters: int = 0
    num_bytes: int = 0

    def __init__(self, asked: TeacherArguments, student: Student):
        self.asked, self.student = asked, student
        self.name = shown_checkpoint(asked.teacher)
        self.autocast: Callable[[], AbstractContextManager] = nullcontext

    @property
    def layers(self) -> list[int]:
        """Layers of the student that are compared, from 1."""
        return [own for own, _ in self.asked.layer_pairs]

    def to(self, device: torch.device) -> "Teacher":
        """Move it to where the student is trained.

        Args:
            device (`torch.device`): of the training.

        Returns:
            [`Teacher`]: itself.
        """
        if self.layer_maps is not None:
            self.layer_maps.to(device)
        return self

    @abstractmethod
    def targets(self, batch: dict, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor | list]:
        """Look at a training batch.

        Args:
            batch (`dict`): as [`ASTDataCollator`] makes it, on the training device.
            inputs (`dict[str, torch.Tensor]`): what the student takes of it.

        Returns:
            `dict`: what [`distillation_loss`](finetune.training.distillation.distillation_loss) needs of the teacher.
        """

    def stand_ins(self, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor | list]:
        """Make targets of the right shapes and of no meaning, to time the student alone.

        Args:
            inputs (`dict[str, torch.Tensor]`): what the student takes.

        Returns:
            `dict`: as of `targets`.
        """
        features, config = inputs["input_values"], self.student.config
        found = {TEACHER_SCORES: features.new_full((len(features), config.num_labels), 1 / config.num_labels)}
        if self.layer_maps is not None:
            rows, columns = patch_grid_of(config, features.shape[1])
            tokens = NUM_CLASS_TOKENS + rows * columns
            found[TEACHER_STATES] = [
                features.new_zeros(len(features), tokens, layer_map.out_features) for layer_map in self.layer_maps
            ]
        return found

    def notes(self) -> list[str]:
        """Say how it hears the clips otherwise than the student.

        Returns:
            `list[str]`: notes in words.
        """
        return []

    def section(self) -> dict:
        """Tell what taught a model, for the run summary.

        Returns:
            `dict`: which teacher, and its part in the loss.
        """
        asked = self.asked
        return {
            "name": self.name,
            "kind": self.kind,
            **({"revision": self.revision} if self.revision else {}),
            "sha256": self.sha256,
            **({"parameters": self.num_parameters} if self.num_parameters else {}),
            "weight": asked.teacher_weight,
            **({"temperature": asked.teacher_temperature} if asked.teacher_weight else {}),
            **({"layers": asked.teacher_layers, "layer_weight": asked.teacher_layer_weight} if self.layers else {}),
        }

    def recorded(self) -> dict[str, str]:
        """Tell which teacher it was, as fields of the recipe that a run saves.

        Returns:
            `dict[str, str]`: digest, and commit of a teacher of the Hub.
        """
        return {"teacher_sha256": self.sha256} | ({"teacher_revision": self.revision} if self.revision else {})

    def in_words(self) -> str:
        """Say what teaches the model, and how.

        Returns:
            `str`: a part of a line.
        """
        asked = self.asked
        size = f" of {self.num_parameters:,} parameters" if self.num_parameters else ""
        parts = []
        if asked.teacher_weight:
            parts.append(f"{asked.teacher_weight:.0%} of the loss at temperature {asked.teacher_temperature:g}")
        if self.layers:
            parts.append(f"layers {' '.join(asked.teacher_layers)} with weight {asked.teacher_layer_weight:g}")
        return "; ".join([f"taught by {self.name} ({self.kind}{size}), {', '.join(parts)}", *self.notes()])

    def _columns(self, labels: Sequence[str]) -> list[int]:
        """Which of the teacher's scores belong to the student's labels, in their order."""
        missing = [label for label in self.student.labels if label not in labels]
        if missing:
            raise DataError(
                f"The teacher {self.name} has no scores for {len(missing)} of {len(self.student.labels)} labels: "
                f"{names_in_short(missing)}; it has {names_in_short(list(labels))}. Labels are matched by their names: rename them "
                "in the data or in the teacher's id2label, or pass another --teacher"
                + (", or --teacher_weight 0 with --teacher_layers." if self.kind == ASTTeacher.kind else ".")
            )
        return [list(labels).index(label) for label in self.student.labels]

    def _refuse_exclusive(self, exclusive: bool):
        if exclusive and self.student.config.problem_type == MULTI_LABEL:
            raise DataError(
                f"The scores of the teacher {self.name} add up to 1, and the student's labels are independent. Pass a multi-label "
                "model as --teacher, or, where every clip has one label, --loss cross_entropy."
            )


class _ModelTeacher(Teacher):
    """A teacher that hears the clips."""

    model: nn.Module
    sampling_rate: int

    def _set(self, model: nn.Module, config: PreTrainedConfig):
        self.model = model.eval().requires_grad_(False)
        self.num_parameters = sum(parameter.numel() for parameter in model.parameters())
        self.num_bytes = sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())
        self.revision = getattr(config, "_commit_hash", None)
        self.sha256 = weights_digest(model.state_dict().items())
        self.columns = None
        if self.asked.teacher_weight:
            labels = [config.id2label[index] for index in range(config.num_labels)]
            self.columns = self._columns(labels)
            problem_type = problem_type_of(config)
            if problem_type == "regression":
                raise DataError(f"The teacher {self.name} is a regression and has no labels. Pass another --teacher.")
            self._refuse_exclusive(problem_type == SINGLE_LABEL)

    def to(self, device: torch.device) -> "Teacher":
        """See [`Teacher.to`].

        Args:
            device (`torch.device`): of the training.

        Returns:
            [`Teacher`]: itself.
        """
        self.model.to(device)
        return super().to(device)

    def _scores(self, logits: torch.Tensor) -> dict[str, torch.Tensor]:
        if self.columns is None:
            return {}
        problem_type = self.student.config.problem_type
        return {TEACHER_SCORES: soft_scores(logits[:, self.columns], self.asked.teacher_temperature, problem_type)}

    def _waveforms(self, batch: dict) -> tuple[torch.Tensor, torch.Tensor]:
        """Waveforms at the teacher's sampling rate, and their lengths."""
        waveforms, lengths = batch["waveforms"], batch["lengths"]
        own = self.student.feature_extractor.sampling_rate
        if own == self.sampling_rate:
            return waveforms, lengths
        return resample(waveforms, own, self.sampling_rate), -(-lengths * self.sampling_rate // own)

    def _rate_note(self) -> list[str]:
        own = self.student.feature_extractor.sampling_rate
        return [] if own == self.sampling_rate else [f"it hears the clips resampled to {self.sampling_rate} Hz"]


class ASTTeacher(_ModelTeacher):
    """An AST, whose features are augmented as those of the student.

    Args:
        asked ([`TeacherArguments`]): which checkpoint.
        student ([`Student`]): the model that is taught.

    Raises:
        CheckpointError: if it cannot be loaded.
        DataError: if labels, layers or features do not fit those of the student.
    """

    kind = "AST"

    def __init__(self, asked: TeacherArguments, student: Student):
        super().__init__(asked, student)
        model, self.feature_extractor = load_checkpoint(asked.teacher, revision=asked.teacher_revision)
        self.config, self.sampling_rate = model.config, self.feature_extractor.sampling_rate
        self._set(model, model.config)
        extractor = student.feature_extractor
        same = (extractor.num_mel_bins, extractor.sampling_rate) == (self.config.num_mel_bins, self.sampling_rate)
        if not (same or student.hears_audio):
            raise DataError(
                f"The clips are finished features of {extractor.num_mel_bins} mel bins at {extractor.sampling_rate} Hz, and the "
                f"teacher {self.name} takes {self.config.num_mel_bins} at {self.sampling_rate} Hz. Train on audio, or pass a "
                "teacher of the same features."
            )
        self._set_layers()

    def _set_layers(self):
        own, config = self.student.config, self.config
        for name, layers, number in (
            ("student", self.layers, own.num_hidden_layers),
            ("teacher", [layer for _, layer in self.asked.layer_pairs], config.num_hidden_layers),
        ):
            if max(layers, default=0) > number:
                raise DataError(
                    f"teacher_layers names layer {max(layers)} of the {name}, which has {number}. Pass pairs STUDENT:TEACHER from 1 "
                    f"to {own.num_hidden_layers} and 1 to {config.num_hidden_layers}."
                )
        if not self.layers:
            return
        if self._is_shorter:
            raise DataError(
                f"teacher_layers compares the outputs of all patches, and the teacher {self.name} hears {config.max_length} frames, "
                f"the student {own.max_length}. Pass --max_length {config.max_length}, or leave out --teacher_layers."
            )
        self.layer_maps = new_layer_maps(len(self.layers), own.hidden_size, config.hidden_size, self.student.seed)

    @property
    def _is_shorter(self) -> bool:
        return self.feature_extractor.max_length < self.student.feature_extractor.max_length

    def notes(self) -> list[str]:
        """See [`Teacher.notes`]: another sampling rate, and what is cut off.

        Returns:
            `list[str]`: notes in words.
        """
        cut = f"it hears no more than the first {self.feature_extractor.max_length / FRAMES_A_SECOND:g} s of a clip"
        return self._rate_note() + ([cut] if self._is_shorter else [])

    def targets(self, batch: dict, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor | list]:
        """See [`Teacher.targets`].

        Args:
            batch (`dict`): as the collator makes it.
            inputs (`dict[str, torch.Tensor]`): what the student takes of it.

        Returns:
            `dict`: scores, and outputs of layers for the student's tokens where they are compared.
        """
        with torch.no_grad():
            taken = self.inputs(batch, inputs["input_values"].shape[1])
            with self.autocast():
                outputs = self.model(**taken, output_hidden_states=bool(self.layers))
            found = self._scores(outputs.logits)
            if self.layers:
                layout = self._layout(inputs)
                tokens = self._tokens(layout, taken["input_values"].shape[1])  # (batch or 1, tokens)
                found[TEACHER_STATES] = [
                    _taken(outputs.hidden_states[layer], tokens) for _, layer in self.asked.layer_pairs
                ]
                real = layout.token_mask()
                found |= {} if real is None else {TEACHER_TOKENS: real}
        return found

    def inputs(self, batch: dict, width: int) -> dict[str, torch.Tensor]:
        """Compute the teacher's own features of a batch, augmented as those of the student.

        Args:
            batch (`dict`): as the collator makes it.
            width (`int`): frames of the student's features, padding included.

        Returns:
            `input_values` and perhaps `attention_mask`, as the teacher takes them.
        """
        own, extractor = self.student.feature_extractor, self.feature_extractor
        if "waveforms" in batch:
            waveforms, lengths = self._waveforms(batch)
            features, _ = extractor.log_mel(waveforms, lengths, width, width)
            frames = num_frames(batch["lengths"], own.sampling_rate).clamp(max=own.max_length)
        else:
            features, frames = raw_features(batch, own, width)
        # Of the student: what it masks and rolls is what the teacher does not hear either.
        augmented = frames if own.padding == "longest" else torch.full_like(frames, width)
        augmentation, draws = self.student.augmentation, batch.get("draws")
        if draws is not None:
            features = augmentation.change_log_mel_of_teacher(features, augmented, draws, self._other_bins)
        features = extractor.normalize(features)
        if draws is not None:
            features = augmentation.change_normalized(features, augmented, draws)
        features = features[:, : extractor.max_length]
        if extractor.padding == "longest":
            taken = {"input_values": features}
            heard = augmented.clamp(max=features.shape[1])
            padded = own.padding == "longest" and batch["is_padded"]
            return taken | ({"attention_mask": frame_mask(heard, features.shape[1])} if padded else {})
        filled = torch.full_like(frames, features.shape[1])
        silence = float(extractor.normalize(torch.tensor(extractor.padding_value)))
        return {"input_values": pad_frames(features, filled, silence, extractor.max_length)}

    @cached_property
    def _other_bins(self) -> tuple[int, torch.Tensor] | None:
        """Mel bins of the student, and which of them each bin of the teacher lies in; `None` if they are the same."""
        own = self.student.feature_extractor
        if (own.num_mel_bins, own.sampling_rate) == (self.config.num_mel_bins, self.sampling_rate):
            return None
        return own.num_mel_bins, nearest_bins(
            self.config.num_mel_bins, self.sampling_rate, own.num_mel_bins, own.sampling_rate
        )

    def _layout(self, inputs: dict[str, torch.Tensor]) -> PatchLayout:
        """The patches that are the student's tokens."""
        config, mask = self.student.config, inputs.get("attention_mask")
        real = None
        if mask is not None:
            real = patches_along(mask.sum(dim=1), config.patch_size, config.time_stride).clamp(min=1)
        kept = inputs.get("patches_kept")
        features = inputs["input_values"]
        kept = None if kept is None else kept.to(features.device)
        return PatchLayout(patch_grid_of(config, features.shape[1]), real, kept)

    def _tokens(self, layout: PatchLayout, frames: int) -> torch.Tensor:
        """For each token of the student that of the teacher which hears the same, or the nearest to it."""
        own, config = self.student.config, self.config
        rates = self.student.feature_extractor.sampling_rate, self.sampling_rate
        rows, columns = patch_grid_of(config, frames)
        half = own.patch_size // 2
        middles = [row * own.frequency_stride + half for row in range(layout.grid[0])]
        of_bins = nearest_bins(own.num_mel_bins, rates[0], config.num_mel_bins, rates[1])[middles]
        nearest_rows = ((of_bins - config.patch_size // 2) / config.frequency_stride).round().long()
        starts = torch.arange(layout.grid[1]) * own.time_stride
        nearest_columns = (starts / config.time_stride).round().long()
        grid = nearest_rows.clamp(0, rows - 1)[:, None] * columns + nearest_columns.clamp(0, columns - 1)
        patches = grid.flatten()[None]  # (1, patches)
        if layout.kept is not None:
            patches = patches.to(layout.kept.device)[0][layout.kept]
        class_tokens = torch.arange(NUM_CLASS_TOKENS, device=patches.device).expand(len(patches), -1)
        return torch.cat((class_tokens, patches + NUM_CLASS_TOKENS), dim=1)


def _taken(states: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    places = tokens.to(states.device).expand(len(states), -1)
    return states.gather(1, places[:, :, None].expand(-1, -1, states.shape[2]))


@cache
def nearest_bins(num_bins: int, rate: int, other_bins: int, other_rate: int) -> torch.Tensor:
    """For each mel bin of one kind of features the bin of another kind whose middle is nearest on the mel scale.

    Args:
        num_bins (`int`): mel bins of the one kind.
        rate (`int`): its sampling rate, in Hz.
        other_bins (`int`): mel bins of the other.
        other_rate (`int`): its sampling rate.

    Returns:
        `torch.Tensor` of shape `(num_bins,)`, int64.
    """
    middles, others = (
        torch.tensor([mel_scale(hz) for hz in mel_edges(*sizes)[1:-1].tolist()])
        for sizes in ((num_bins, rate), (other_bins, other_rate))
    )
    return (middles[:, None] - others[None, :]).abs().argmin(dim=1)


class PipelineTeacher(_ModelTeacher):
    """Any audio classifier that `transformers.pipeline("audio-classification")` loads, with its own feature extractor.

    Clips of one length are given to it together and none is padded, so that it answers as the pipeline does for each alone.

    Args:
        asked ([`TeacherArguments`]): which model.
        student ([`Student`]): the model that is taught.

    Raises:
        DataError: if its labels do not fit those of the student, its classifier was never trained, the clips are no waveforms,
            or layers are to be compared.
    """

    kind = "audio classifier"

    def __init__(self, asked: TeacherArguments, student: Student):
        super().__init__(asked, student)
        if self.layers:
            raise DataError(
                f"teacher_layers compares patches, which the teacher {self.name} does not have: it is no AST. Leave out "
                "--teacher_layers."
            )
        if not student.hears_audio:
            raise DataError(
                f"The teacher {self.name} hears waveforms, and the clips are finished features. Train on audio, or pass an AST "
                "or a file of scores as --teacher."
            )
        place = {} if asked.teacher_revision is None else {"revision": asked.teacher_revision}
        self.feature_extractor = AutoFeatureExtractor.from_pretrained(asked.teacher, **place)
        model, info = AutoModelForAudioClassification.from_pretrained(
            asked.teacher, dtype=torch.float32, output_loading_info=True, **place
        )
        if info["missing_keys"]:
            raise DataError(
                f"The teacher {self.name} has no weights for {names_in_short(sorted(info['missing_keys']))}, so its scores would be "
                "random. Pass a model that was fine-tuned as a classifier."
            )
        self.sampling_rate = self.feature_extractor.sampling_rate
        self._set(model, model.config)

    def notes(self) -> list[str]:
        """See [`Teacher.notes`]: another sampling rate, and augmentations that act on features.

        Returns:
            `list[str]`: notes in words.
        """
        steps = [
            name
            for step in self.student.augmentation.active
            if not step.needs_waveforms
            for name in step.strengths_given
        ]
        alone = f"it hears waveforms, so that {', '.join(steps)} change what the student hears alone"
        return self._rate_note() + ([alone] if steps else [])

    def targets(self, batch: dict, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor | list]:
        """See [`Teacher.targets`].

        Args:
            batch (`dict`): as the collator makes it.
            inputs (`dict[str, torch.Tensor]`): not looked at.

        Returns:
            `dict`: the scores.
        """
        waveforms, lengths = self._waveforms(batch)
        of_clips = waveforms.float().cpu().numpy()
        clips = [clip[:length] for clip, length in zip(of_clips, lengths.tolist(), strict=True)]
        logits: list[torch.Tensor | None] = [None] * len(clips)
        with torch.no_grad():
            for length in dict.fromkeys(map(len, clips)):
                places = [place for place, clip in enumerate(clips) if len(clip) == length]
                for place, found in zip(places, self._logits([clips[place] for place in places]), strict=True):
                    logits[place] = found
            return self._scores(torch.stack(logits))

    def _logits(self, clips: list[np.ndarray]) -> torch.Tensor:
        taken = self.feature_extractor(clips, sampling_rate=self.sampling_rate, return_tensors="pt")
        with self.autocast():
            return self.model(**taken.to(self.model.device)).logits


class StoredTeacher(Teacher):
    """Scores of the training clips that a file holds; those of mixed clips are mixed.

    Args:
        asked ([`TeacherArguments`]): which file.
        student ([`Student`]): the model that is taught.

    Raises:
        DataError: if clips or labels have no scores, the clips are streamed, or an augmentation makes other sounds of them.
    """

    kind = "stored scores"

    def __init__(self, asked: TeacherArguments, student: Student):
        super().__init__(asked, student)
        if self.layers or not asked.teacher_weight:
            raise DataError(
                f"teacher_layers needs a model, and {self.name} is a file of scores. Leave it out and pass --teacher_weight 0.5, or "
                "the model as --teacher."
            )
        if not student.clips.at_hand:
            raise DataError(
                "The clips are streamed and have no stored scores. Leave out --streaming, or pass a model as --teacher."
            )
        try:
            student.augmentation.refuse_stored_scores()
        except ValueError as error:
            raise DataError(str(error)) from None
        stored = read_stored_scores(asked.teacher)
        columns = self._columns(stored.labels)
        self._refuse_exclusive(stored.add_up is True)
        places = stored.places_of([student.clips.name(index) for index in range(len(student.clips))])
        logits = torch.from_numpy(stored.logits()[places][:, columns])
        self.scores = soft_scores(logits, asked.teacher_temperature, student.config.problem_type)
        self.num_bytes = self.scores.numel() * self.scores.element_size()
        self.sha256 = hashlib.sha256(Path(asked.teacher).read_bytes()).hexdigest()

    def notes(self) -> list[str]:
        """See [`Teacher.notes`]: what was scored are the clips as they are.

        Returns:
            `list[str]`: notes in words.
        """
        active = [name for step in self.student.augmentation.active for name in step.strengths_given]
        mixed = self.student.augmentation.label_mixing_strengths
        alone = [name for name in active if name not in mixed]
        notes = [f"{', '.join(mixed)} mix(es) the scores too"] if mixed else []
        return notes + ([f"{', '.join(alone)} change what the student hears alone"] if alone else [])

    def to(self, device: torch.device) -> "Teacher":
        """See [`Teacher.to`].

        Args:
            device (`torch.device`): of the training.

        Returns:
            [`Teacher`]: itself.
        """
        self.scores = self.scores.to(device)
        return super().to(device)

    def targets(self, batch: dict, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor | list]:
        """See [`Teacher.targets`].

        Args:
            batch (`dict`): as the collator makes it, with the `keys` of its clips.
            inputs (`dict[str, torch.Tensor]`): not looked at.

        Returns:
            `dict`: the scores.
        """
        places = [index for _, index, _ in batch["keys"]]
        return {TEACHER_SCORES: self.student.augmentation.mix_scores(self.scores, places, batch["draws"])}


def load_teacher(asked: TeacherArguments, student: Student) -> Teacher:
    """Load the teacher that was asked for.

    Args:
        asked ([`TeacherArguments`]): with its `teacher`.
        student ([`Student`]): the model that is taught.

    Returns:
        [`Teacher`]: on the CPU.

    Raises:
        DataError: if it is none, does not fit the student, or is another one than `teacher_sha256` says.
    """
    name, is_file = asked.teacher, Path(asked.teacher).suffix.lower() in SUFFIXES
    if is_file and not Path(name).is_file():
        raise DataError(
            f"There is no file {name}. Pass a file of scores, a checkpoint folder or a Hub id as --teacher."
        )
    if asked.teacher_revision and Path(name).exists():
        raise DataError(
            f"teacher_revision={asked.teacher_revision!r} is of a model on the Hub, and {name} lies here. Leave it out."
        )
    state = torch.random.get_rng_state()
    try:
        teacher = (StoredTeacher if is_file else _kind_of_model(asked))(asked, student)
    except (ValueError, OSError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(str(error).replace("--model_name_or_path", "--teacher")) from error
    finally:
        torch.random.set_rng_state(state)  # first weights of a model that is then loaded take no draw from the student
    if asked.teacher_sha256 and asked.teacher_sha256 != teacher.sha256:
        raise DataError(
            f"teacher_sha256 says {asked.teacher_sha256:.80}, and {name} has {teacher.sha256}: it is another teacher than that of "
            "the recipe. Put that one there, or leave out --teacher_sha256."
        )
    return teacher


def _kind_of_model(asked: TeacherArguments) -> type[Teacher]:
    place = {} if asked.teacher_revision is None else {"revision": asked.teacher_revision}
    try:
        found = PreTrainedConfig.get_config_dict(asked.teacher, **place)[0]
    except OSError as error:
        raise DataError(
            f"There is no teacher {asked.teacher}: {str(error).splitlines()[0]} Pass a folder with config.json, a Hub id, or a file "
            f"of scores ({', '.join(SUFFIXES)}) as --teacher."
        ) from error
    return ASTTeacher if found.get("model_type") == ASTConfig.model_type else PipelineTeacher


def weights_digest(tensors: Iterable[tuple[str, torch.Tensor]]) -> str:
    """SHA-256 of weights, whatever files they were in.

    Args:
        tensors (iterable of pairs of `str` and `torch.Tensor`): of a `state_dict`.

    Returns:
        `str`: 64 hexadecimal digits.
    """
    digest = hashlib.sha256()
    for name, tensor in tensors:
        digest.update(
            name.encode() + tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        )
    return digest.hexdigest()
