"""An AST as a teacher: it computes its own features of the student's waveforms, augmented as those of the student are.

Masks hide the same times and frequencies, roll and noise are the same, patchout leaves nothing out. Outputs of its layers are
those of the patches that the student computes, or of the nearest where their grids differ.
"""

from functools import cache, cached_property

import torch

from modeling_ast.features.kaldi import mel_edges, mel_scale, num_frames
from modeling_ast.features.padding import frame_mask, pad_frames
from modeling_ast.layers.patch_grid import NUM_CLASS_TOKENS, patch_grid_of, patches_along
from modeling_ast.layers.patch_layout import PatchLayout
from modeling_ast.loading import load_checkpoint

from ..arguments.teacher_arguments import TeacherArguments
from ..clip_sets.collator import raw_features
from ..sources.data_errors import DataError
from .distillation import TEACHER_STATES, TEACHER_TOKENS, new_layer_maps
from .teacher import AST_KIND, ModelTeacher, Student

FRAMES_A_SECOND = 100


class ASTTeacher(ModelTeacher):
    """An AST, whose features are augmented as those of the student.

    Args:
        asked ([`TeacherArguments`]): which checkpoint.
        student ([`Student`]): the model that is taught.

    Raises:
        CheckpointError: if it cannot be loaded.
        DataError: if labels, layers or features do not fit those of the student.
    """

    kind = AST_KIND

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
        padding_is_heard = draws is not None and own.padding == "longest" and augmentation.hears_padding
        if padding_is_heard:
            augmented = augmentation.frames_heard(frames, own.max_length, draws)
        if draws is not None:
            features = augmentation.change_log_mel_of_teacher(features, augmented, draws, self._other_bins)
        features = extractor.normalize(features)
        if draws is not None:
            features = augmentation.change_normalized(features, augmented, draws)
        features = features[:, : extractor.max_length]
        if extractor.padding == "longest":
            taken = {"input_values": features}
            heard = augmented.clamp(max=features.shape[1])
            padded = own.padding == "longest" and (batch["is_padded"] or padding_is_heard)
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
