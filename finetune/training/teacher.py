"""What every teacher of a training is: scores for the batches of a student, matched by the names of labels.

A teacher is in evaluation mode, without gradients, and part of no checkpoint. [`load_teacher`](finetune.training.teachers.load_teacher)
makes the kind that was asked for.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn
from torchaudio.functional import resample
from transformers import PreTrainedConfig

from modeling_ast import ASTConfig, ASTFeatureExtractor
from modeling_ast.layers.patch_grid import NUM_CLASS_TOKENS, patch_grid_of
from modeling_ast.scores import problem_type_of

from ..arguments.teacher_arguments import TeacherArguments
from ..augmentations.augmentation import Augmentation
from ..clip_sets.waveforms import ClipDataset
from ..sources.data_errors import DataError, names_in_short
from .distillation import MULTI_LABEL, TEACHER_SCORES, TEACHER_STATES, soft_scores
from .trainer_card import shown_checkpoint

AST_KIND = "AST"
SINGLE_LABEL = "single_label_classification"


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
                + (", or --teacher_weight 0 with --teacher_layers." if self.kind == AST_KIND else ".")
            )
        return [list(labels).index(label) for label in self.student.labels]

    def _refuse_exclusive(self, exclusive: bool):
        if exclusive and self.student.config.problem_type == MULTI_LABEL:
            raise DataError(
                f"The scores of the teacher {self.name} add up to 1, and the student's labels are independent. Pass a multi-label "
                "model as --teacher, or, where every clip has one label, --loss cross_entropy."
            )


class ModelTeacher(Teacher):
    """A teacher that hears the clips."""

    model: nn.Module
    sampling_rate: int

    def _set(self, model: nn.Module, config: PreTrainedConfig):
        self.model = model.requires_grad_(False)
        self.num_parameters = sum(parameter.numel() for parameter in model.parameters())
        self.num_bytes = sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())
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
