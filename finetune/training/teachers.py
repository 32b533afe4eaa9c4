"""The kinds of teachers but for the AST: other audio classifiers, stored scores; and which kind it is that was asked for."""

import copy
import hashlib
from pathlib import Path

import numpy as np
import torch
from transformers import AutoFeatureExtractor, AutoModelForAudioClassification
from transformers.utils.hub import cached_file, extract_commit_hash

from modeling_ast import ASTConfig
from modeling_ast.checkpoints.fields import CONFIG, read_json
from modeling_ast.checkpoints.shipped import folder_of

from ..arguments.teacher_arguments import TeacherArguments
from ..clip_sets.waveforms import ClipDataset
from ..scores.stored_scores import SUFFIXES, read_stored_scores
from ..sources.data_errors import DataError, names_in_short
from .ast_teacher import ASTTeacher
from .distillation import TEACHER_SCORES, soft_scores
from .teacher import ModelTeacher, Student, Teacher

RECORDED = ("teacher_sha256", "teacher_revision")  # fields that a run writes into the recipe that it saves


class PipelineTeacher(ModelTeacher):
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
        if isinstance(student.clips, ClipDataset) and student.clips.has_windows():
            raise DataError(
                "Clips are longer than the model hears, and the teacher's stored scores are none of the windows of them that are "
                "trained on. Pass --clip_windows beginning, with scores of their beginnings, or the model itself as --teacher."
            )
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
    try:
        if is_file:
            teacher = StoredTeacher(asked, student)
        else:
            kind, commit = _kind_and_commit(asked)
            found = copy.copy(asked)
            found.teacher_revision = commit  # one for all files, whatever is pushed meanwhile
            teacher = kind(found, student)
            teacher.revision = commit
    except (ValueError, OSError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(str(error).replace("--model_name_or_path", "--teacher")) from error
    if asked.teacher_sha256 and asked.teacher_sha256 != teacher.sha256:
        raise DataError(
            f"teacher_sha256 says {asked.teacher_sha256:.80}, and {name} has {teacher.sha256}: it is another teacher than that of "
            "the recipe. Put that one there, or leave out --teacher_sha256."
        )
    return teacher


def _kind_and_commit(asked: TeacherArguments) -> tuple[type[Teacher], str | None]:
    """What kind of model it is, and of the Hub which commit."""
    name, place = asked.teacher, {} if asked.teacher_revision is None else {"revision": asked.teacher_revision}
    try:
        config = cached_file(folder_of(name), CONFIG, **place)
        settings = read_json(config)
    except (OSError, ValueError) as error:
        raise DataError(
            f"There is no teacher {name} that can be read: {str(error).splitlines()[0]} Pass a folder with config.json, a Hub id, or a file of "
            f"scores ({', '.join(SUFFIXES)}) as --teacher."
        ) from error
    is_ast = isinstance(settings, dict) and settings.get("model_type") == ASTConfig.model_type
    kind = ASTTeacher if is_ast else PipelineTeacher
    return kind, None if Path(folder_of(name)).exists() else extract_commit_hash(config, None)
