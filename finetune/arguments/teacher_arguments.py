"""By what teacher a model is taught beside its labels: a part of the fourth group of fields."""

import re
from dataclasses import dataclass, field

from .given import ArgumentGroup


@dataclass
class TeacherArguments(ArgumentGroup):
    """Distillation: a teacher, and what part it has in the loss."""

    teacher: str | None = field(
        default=None,
        metadata={
            "help": "Learn from the scores of this model too: a checkpoint folder or Hub id of an AST or of another audio "
            "classifier of Transformers, or a CSV, JSON-lines, JSON or npz file of its scores of the training clips."
        },
    )
    teacher_revision: str | None = field(
        default=None, metadata={"help": "Branch, tag or commit of a teacher on the Hub; a run records the commit."}
    )
    teacher_sha256: str | None = field(
        default=None,
        metadata={"help": "Digest of the teacher, as a run records it in its recipe: another teacher is refused."},
    )
    teacher_temperature: float = field(
        default=2.0, metadata={"help": "By what the logits of both are divided before they are compared."}
    )
    teacher_weight: float = field(
        default=0.5,
        metadata={
            "help": "Share of the loss that compares with the teacher's scores; the rest is that of the labels."
        },
    )
    teacher_layers: list[str] = field(
        default_factory=list,
        metadata={
            "help": "Pairs STUDENT:TEACHER of layers, counted from 1, whose outputs are compared too: 2:6 4:12, of an AST as "
            "the teacher."
        },
    )
    teacher_layer_weight: float = field(
        default=1.0, metadata={"help": "Factor of the mean squared error of these layers in the loss."}
    )

    def __post_init__(self):
        if self.teacher_temperature <= 0:
            raise ValueError(f"teacher_temperature={self.teacher_temperature} is not above 0. Pass for example 2.")
        if not 0 <= self.teacher_weight <= 1:
            raise ValueError(f"teacher_weight={self.teacher_weight} is not a share from 0 to 1. Pass for example 0.5.")
        if self.teacher_layer_weight <= 0:
            raise ValueError(
                f"teacher_layer_weight={self.teacher_layer_weight} is not above 0. Pass for example 1, or leave out "
                "--teacher_layers."
            )
        wrong = [pair for pair in self.teacher_layers if not re.fullmatch(r"[1-9]\d{0,3}:[1-9]\d{0,3}", pair)]
        if wrong:
            raise ValueError(
                f"teacher_layers has {wrong[0]!r}, expected a layer of the student, a colon and a layer of the teacher, both "
                "counted from 1. Pass for example --teacher_layers 2:6 4:12."
            )
        if self.teacher and not self.teacher_weight and not self.teacher_layers:
            raise ValueError(
                "teacher_weight=0 leaves the teacher without a part in the loss. Pass --teacher_weight 0.5, --teacher_layers "
                "with pairs of layers, or leave out --teacher."
            )

    @property
    def layer_pairs(self) -> list[tuple[int, int]]:
        """The pairs of `teacher_layers` as numbers: layer of the student, layer of the teacher."""
        return [tuple(map(int, pair.split(":"))) for pair in self.teacher_layers]
