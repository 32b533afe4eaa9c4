"""What a fine-tuning run can be told: five groups of fields.

A group refuses by itself what is wrong in it; see `argument_checks.py` for what is wrong between groups, and
`command_line.py` for how fields are given.
"""

import dataclasses
import itertools
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from transformers import TrainingArguments

from modeling_ast.audio import NEW_RESAMPLER, RESAMPLERS, checked_resampler, parse_channels
from modeling_ast.audio_flags import CHANNELS_HELP, STRICT_HELP
from modeling_ast.layers.patch_grid import GEOMETRY_FIELDS

from ..augmentations.augmentation import Augmentation, AugmentationFields
from ..clip_sets.sampling import SAMPLING_STRATEGIES
from .training_fields import refuse_mappings, refuse_numbers, refuse_unreadable

WIDTH_FIELDS = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
SIZE_FIELDS = (*WIDTH_FIELDS, *GEOMETRY_FIELDS)
# Of DataArguments.
AUDIO_FIELDS = ("waveform_cache", "skip_bad_audio", "check_audio", "channels", "strict_audio", "resampler")
ANNOTATIONS_JOINED_BY = ("any", "majority", "all", "share")


@dataclass
class ModelArguments:
    """Which model: a checkpoint, or the sizes of a new one."""

    model_name_or_path: str | None = field(
        default=None,
        metadata={"help": "Checkpoint to start from: folder or Hub id. A new model with random weights if not given."},
    )
    hidden_size: int | None = field(default=None, metadata={"help": "Width of a new model (768 if not given)."})
    num_hidden_layers: int | None = field(default=None, metadata={"help": "Layers of a new model (12)."})
    num_attention_heads: int | None = field(default=None, metadata={"help": "Attention heads of a new model (12)."})
    intermediate_size: int | None = field(default=None, metadata={"help": "Feed-forward width of a new model (3072)."})
    frequency_stride: int | None = field(
        default=None, metadata={"help": "Patch stride in mel bins (10, or the checkpoint's)."}
    )
    time_stride: int | None = field(
        default=None, metadata={"help": "Patch stride in frames (10, or the checkpoint's)."}
    )
    max_length: int | None = field(
        default=None,
        metadata={
            "help": "Input length in frames of 10 ms (1024, which is 10.24 s, or the checkpoint's). A checkpoint of another "
            "length has its positions cut or stretched by the paper's rule."
        },
    )
    num_mel_bins: int | None = field(default=None, metadata={"help": "Mel bins (128, or the checkpoint's)."})
    hidden_dropout_prob: float = field(default=0.0, metadata={"help": "Dropout on embeddings and layer outputs."})
    attention_probs_dropout_prob: float = field(default=0.0, metadata={"help": "Dropout on attention weights."})
    attn_implementation: str = field(
        default="sdpa", metadata={"help": "Attention: sdpa, eager, flex_attention, flash_attention_2, ..."}
    )

    def __post_init__(self):
        given = self.sizes()
        widths = [name for name in WIDTH_FIELDS if name in given]
        if self.model_name_or_path and widths:
            raise ValueError(
                f"{', '.join(widths)} describe a new model, but model_name_or_path={self.model_name_or_path!r} has "
                "sizes of its own. Leave out either these or --model_name_or_path."
            )

        too_small = [name for name, size in given.items() if size < 1]
        if too_small:
            raise ValueError(
                f"{too_small[0]}={getattr(self, too_small[0])} is less than 1. Pass a whole number from 1."
            )

    def sizes(self) -> dict[str, int]:
        """The sizes that were given, for a new model or to change those of the checkpoint."""
        return {name: getattr(self, name) for name in SIZE_FIELDS if getattr(self, name) is not None}


@dataclass
class DataArguments:
    """Which clips, how they are split, and how their features are normalised."""

    dataset_name: str | None = field(
        default=None,
        metadata={
            "help": "A folder with a folder of clips per class (perhaps below train/ and test/), a folder with "
            "metadata.csv, a CSV, TSV, JSON, JSON-lines or Parquet file, a data set of the Hub: its id, or the folder of "
            "Parquet files into which it was downloaded, or a folder that save_to_disk of datasets has written."
        },
    )
    train_file: str | None = field(
        default=None,
        metadata={"help": "Table of the training clips, where each split has a file of its own, as in the original."},
    )
    eval_file: str | None = field(default=None, metadata={"help": "Table of the clips that are scored."})
    validation_file: str | None = field(
        default=None, metadata={"help": "Table of the clips that choices are made on."}
    )
    dataset_config_name: str | None = field(default=None, metadata={"help": "Configuration of a Hub data set."})
    train_split_name: str = field(
        default="train",
        metadata={"help": "Name of the training split; Training, TRAIN and the like are found by themselves."},
    )
    eval_split_name: str = field(
        default="test",
        metadata={"help": "Name of the split that is scored; Testing, eval and the like are found by themselves."},
    )
    validation_split_name: str | None = field(
        default=None,
        metadata={
            "help": "Name of a split on which the epoch and thresholds are chosen; the scored split has no part in it."
        },
    )
    validation_fraction: float = field(
        default=0.0, metadata={"help": "Share of the training clips to set apart as such a split, if there is none."}
    )
    audio_column_name: str = field(
        default="audio",
        metadata={"help": "Column with the audio; in tables also found as file_name, path or file."},
    )
    features_column_name: str | None = field(
        default=None,
        metadata={
            "help": "Column with finished log-mel features in place of audio: (frames, mel bins), not normalised, or paths "
            "of .npy files that hold them."
        },
    )
    label_column_name: str = field(default="label", metadata={"help": "Column with the label."})
    label_columns: list[str] = field(
        default_factory=list,
        metadata={
            "help": "In place of such a column: columns of which each is a label and holds 0, 1, or the share of annotators "
            "who gave it."
        },
    )
    join_annotations: str | None = field(
        default=None,
        metadata={
            "help": "One clip of all rows of a file, as of several annotators, with the labels that 'any', the 'majority' or "
            "'all' of them have, or with the 'share' that has each.",
            "choices": list(ANNOTATIONS_JOINED_BY),
        },
    )
    ignore_columns: list[str] = field(
        default_factory=list,
        metadata={"help": "Columns that say nothing here, such as start and end of clips that are cut already."},
    )
    split_column_name: str = field(default="split", metadata={"help": "Column of a table that says the split."})
    group_column_name: str | None = field(
        default=None,
        metadata={
            "help": "Column (recording, speaker, kit ...) whose clips stay on one side when a split is made; that of the "
            "audio for several rows of a file."
        },
    )
    group_file_pattern: str | None = field(
        default=None,
        metadata={
            "help": "In place of such a column: regular expression of the part of a file's name that names its recording, "
            "for example '^[^_]+' for what stands before the first _."
        },
    )
    eval_fraction: float = field(
        default=0.2, metadata={"help": "Share of the clips that is held out if the data has no split of its own."}
    )
    label_separator: str | None = field(
        default=None,
        metadata={"help": "What stands between several labels of a clip in a text column, for example ';'."},
    )
    label_csv: str | None = field(
        default=None,
        metadata={"help": "The original's CSV of index, mid, display_name: which labels there are, in which order."},
    )
    labels: list[str] = field(
        default_factory=list,
        metadata={"help": "All labels in the order of the model's outputs; as found in the data if not given."},
    )
    fold_column_name: str | None = field(
        default=None,
        metadata={"help": "Column with the fold of each clip: trains once per fold and scores each on its own."},
    )
    ignore_labels: list[str] = field(default_factory=list, metadata={"help": "Labels whose clips are left out."})
    drop_duplicate_audio: bool = field(
        default=False, metadata={"help": "Leave clips out of training that are also in the scored split."}
    )
    check_audio: bool = field(
        default=False, metadata={"help": "Decode every clip before training, not a sample of 200."}
    )
    skip_bad_audio: bool = field(
        default=False,
        metadata={
            "help": "Leave out clips that cannot be decoded, and list them in the summary, instead of stopping."
        },
    )
    channels: str | None = field(default=None, metadata={"help": f"{CHANNELS_HELP[0].upper()}{CHANNELS_HELP[1:]}."})
    strict_audio: bool = field(default=False, metadata={"help": f"{STRICT_HELP[0].upper()}{STRICT_HELP[1:]}."})
    resampler: str | None = field(
        default=None,
        metadata={
            "help": f"What converts sampling rates, in training and later: {' or '.join(RESAMPLERS)}. If not given, what the "
            f"checkpoint names, or {NEW_RESAMPLER}. Without effect on clips at the model's rate."
        },
    )
    waveform_cache: str | None = field(
        default=None,
        metadata={
            "help": "Folder in which all clips are kept decoded and resampled, so that only the first epoch of the first run "
            "pays for it."
        },
    )
    streaming: bool = field(
        default=False,
        metadata={"help": "Read the training clips one after the other from where they are, for data of any size."},
    )
    shuffle_buffer: int = field(
        default=1000, metadata={"help": "Clips of a stream that are held at once, in whose order it is shuffled."}
    )
    normalization: list[str] = field(
        default_factory=lambda: ["measured"],
        metadata={
            "help": "Mean and standard deviation of the features: 'measured' on the training split, 'checkpoint' for "
            "those of --model_name_or_path, or two numbers."
        },
    )
    normalization_clips: int = field(
        default=2000, metadata={"help": "Training clips that 'measured' looks at; 0 for all."}
    )
    padding: str = field(
        default="max_length",
        metadata={
            "help": "Pad clips in training to 'max_length' as the original does, or to the 'longest' of the batch.",
            "choices": ["max_length", "longest"],
        },
    )
    license: str | None = field(default=None, metadata={"help": "Licence of the trained model, for its card."})
    # Fields that the command line or recipe names, whatever they say there.
    given: frozenset[str] = field(default=frozenset(), init=False, repr=False)  # no flag: names of those that were

    def __post_init__(self):
        files = [self.train_file, self.eval_file, self.validation_file]
        if not self.dataset_name and not any(files):
            raise ValueError("No data was given. Pass --dataset_name FOLDER, a table, or a Hub id.")
        if self.dataset_name and any(files):
            raise ValueError(
                "Both dataset_name and the file of a split were given. Pass --dataset_name, or --train_file and --eval_file."
            )
        if any(files) and not (self.train_file and self.eval_file):
            raise ValueError(
                "One split has a file of its own, another has none. Pass both --train_file and --eval_file."
            )
        if self.fold_column_name and any(files):
            raise ValueError(
                "fold_column_name needs all clips in one table. Pass --dataset_name instead of the files of splits."
            )
        if self.fold_column_name and self.has_validation_split():
            raise ValueError(
                "fold_column_name scores every fold on its own clips and sets none apart. Leave out the validation split."
            )
        if not 0 <= self.validation_fraction <= 0.5:
            raise ValueError(
                f"validation_fraction={self.validation_fraction} is not from 0 to 0.5. Pass for example 0.1."
            )
        if self.validation_fraction and (self.validation_split_name or self.validation_file):
            raise ValueError(
                "The data has a validation split, and validation_fraction asks for another. Leave out one of them."
            )
        if self.shuffle_buffer < 1:
            raise ValueError(
                f"shuffle_buffer={self.shuffle_buffer} is less than 1. Pass for example 1000; 1 keeps the order of the data."
            )
        if self.normalization_clips < 0:
            raise ValueError(
                f"normalization_clips={self.normalization_clips} is negative. Pass 0 to measure all training clips."
            )
        if not 0 < self.eval_fraction <= 0.5:
            raise ValueError(f"eval_fraction={self.eval_fraction} is not above 0 and up to 0.5. Pass for example 0.2.")
        names = {
            "train_split_name": self.train_split_name,
            "eval_split_name": self.eval_split_name,
            "validation_split_name": self.validation_split_name,
        }
        for (flag, name), (other_flag, other) in itertools.combinations(names.items(), 2):
            if name == other:
                raise ValueError(f"{flag} and {other_flag} are both {name!r}. Pass two different splits.")
        if self.channels is not None:
            self.channels = str(parse_channels(self.channels))
        if self.resampler is not None:
            checked_resampler(self.resampler)
        self.normalization_statistics()
        self._refuse_audio_beside_features()
        self._check_grouping()
        self._check_labels()

    def _check_grouping(self):
        if self.group_file_pattern is None:
            return
        if self.group_column_name:
            raise ValueError(
                "Both group_column_name and group_file_pattern say which clips stay together. Pass one of them."
            )
        try:
            re.compile(self.group_file_pattern)
        except re.error as error:
            raise ValueError(
                f"group_file_pattern={self.group_file_pattern!r} is no regular expression: {error}. Pass for example "
                "--group_file_pattern '^[^_]+' for what stands before the first _."
            ) from error

    def _check_labels(self):
        if self.labels and self.label_csv:
            raise ValueError("Both labels and label_csv say which labels there are. Pass one of them.")
        doubled = sorted(label for label, count in Counter(self.labels).items() if count > 1)
        if doubled:
            raise ValueError(f"labels names {', '.join(doubled)} more than once. Pass every label once.")
        self._check_label_columns()

    def _check_label_columns(self):
        if self.join_annotations not in (None, *ANNOTATIONS_JOINED_BY):
            raise ValueError(
                f"join_annotations={self.join_annotations!r} is not among {', '.join(ANNOTATIONS_JOINED_BY)}. Pass one of these."
            )
        if not self.label_columns:
            return
        doubled = sorted(name for name, count in Counter(self.label_columns).items() if count > 1)
        if doubled:
            raise ValueError(f"label_columns names {', '.join(doubled)} more than once. Pass every column once.")
        for name in ("labels", "label_csv", "label_separator"):
            if getattr(self, name):
                raise ValueError(
                    f"Both label_columns and {name} say what the labels are: with label_columns, these are the names of the "
                    "columns, in their order. Pass one of them."
                )
        if self.label_column_name != DataArguments.label_column_name:
            raise ValueError(
                f"Both label_column_name={self.label_column_name!r} and label_columns say where the labels are. Pass one of them."
            )
        other = {
            "audio_column_name": self.audio_column_name,
            "features_column_name": self.features_column_name,
            "split_column_name": self.split_column_name,
            "group_column_name": self.group_column_name,
            "fold_column_name": self.fold_column_name,
        }
        for flag, name in other.items():
            if name in self.label_columns:
                raise ValueError(
                    f"The column {name!r} stands in label_columns and is the {flag} too. Leave it out of one of them."
                )

    def with_changes(self, **fields) -> "DataArguments":
        """The same arguments but for these fields; what was given by the user stays known."""
        changed = dataclasses.replace(self, **fields)
        changed.given = self.given
        return changed

    def grouping_field(self) -> str | None:
        """Name of the field that says which clips stay together, if there is one."""
        return next((name for name in ("group_column_name", "group_file_pattern") if getattr(self, name)), None)

    def asked_splits(self, present: Iterable[str]) -> bool:
        """Whether splits are asked for that a data set of a single split cannot have all.

        Args:
            present (iterable of `str`): names of the splits that there are.
        """
        if self.validation_split_name or "eval_split_name" in self.given:
            return True
        if self.eval_split_name != DataArguments.eval_split_name:
            return True
        return self.train_split_name != DataArguments.train_split_name and self.train_split_name not in present

    def _refuse_audio_beside_features(self):
        if not self.features_column_name:
            return
        if self.audio_column_name != DataArguments.audio_column_name:
            raise ValueError(
                "Both audio_column_name and features_column_name were given, but clips are read from one column. Pass one of "
                "them."
            )
        if self.features_column_name == self.label_column_name:
            raise ValueError(
                f"features_column_name and label_column_name are both {self.label_column_name!r}. Pass two different columns."
            )
        given = [name for name in AUDIO_FIELDS if getattr(self, name)]
        if given:
            raise ValueError(
                f"{' and '.join(given)} concern(s) audio, but with features_column_name="
                f"{self.features_column_name!r} none is decoded. Leave out {' '.join(f'--{name}' for name in given)}."
            )

    def sources(self) -> list[str]:
        """Where the clips and labels come from, as given."""
        given = (self.dataset_name, self.train_file, self.eval_file, self.validation_file, self.label_csv)
        return [source for source in given if source]

    def has_validation_split(self) -> bool:
        """Whether choices are made on clips that are neither trained on nor scored."""
        return bool(self.validation_split_name or self.validation_file or self.validation_fraction)

    def normalization_statistics(self) -> tuple[float, float] | None:
        """Mean and standard deviation if they were given as numbers.

        Raises:
            ValueError: if the field is neither a keyword nor two numbers.
        """
        if self.normalization in (["measured"], ["checkpoint"]):
            return None
        try:
            mean, std = (float(value) for value in self.normalization)
        except ValueError:
            raise ValueError(
                f"normalization={' '.join(self.normalization)!r} was given, expected measured, checkpoint, or mean and "
                "standard deviation. Pass for example --normalization -4.27 4.57."
            ) from None
        if std <= 0:
            raise ValueError(f"normalization has the standard deviation {std}, expected one above 0.")
        return mean, std


@dataclass
class AugmentationArguments(AugmentationFields):
    """Augmentation of training clips, with the fields of every augmentation; nothing is augmented by default."""

    def __post_init__(self):
        self.augmentation()

    def augmentation(self) -> Augmentation:
        """Make the augmentation that these fields ask for.

        Returns:
            [`Augmentation`]: of the augmentations that the kit has.

        Raises:
            ValueError: for a strength that cannot be.
        """
        return Augmentation(**dataclasses.asdict(self))


@dataclass
class OptimizationArguments:
    """The original's optimiser and schedule beside those of `TrainingArguments`, and what is fine-tuned how fast."""

    optimizer: str = field(
        default="trainer",
        metadata={
            "help": "'trainer' for the one that --optim names (AdamW), 'adam' for the original's: Adam with the weight "
            "decay in the gradients of all parameters.",
            "choices": ["trainer", "adam"],
        },
    )
    decay_after_epoch: int | None = field(
        default=None,
        metadata={
            "help": "The original's schedule in place of --lr_scheduler_type: a constant rate, multiplied by decay_factor "
            "after this epoch and every decay_every epochs from there; 0 for never."
        },
    )
    decay_every: int = field(default=1, metadata={"help": "Epochs between two decays of the original's schedule."})
    decay_factor: float = field(default=0.5, metadata={"help": "Factor of each of these decays."})
    warmup_stair: int = field(
        default=50,
        metadata={"help": "In the original's schedule the rate rises every so many steps, for --warmup_steps steps."},
    )
    layer_decay: float = field(
        default=1.0, metadata={"help": "Factor of the learning rate from each layer to the one below it."}
    )
    head_learning_rate_factor: float = field(
        default=1.0, metadata={"help": "How many times the learning rate the classifier has."}
    )
    head_only_epochs: int = field(default=0, metadata={"help": "First epochs in which only the classifier learns."})
    frozen_layers: int = field(
        default=0, metadata={"help": "Lowest layers that, with the embeddings below them, do not learn at all."}
    )
    class_weights: str = field(
        default="none",
        metadata={
            "help": "Weight rare labels more in the loss: 'balanced' or 'none'.",
            "choices": ["none", "balanced"],
        },
    )
    lora_rank: int = field(
        default=0,
        metadata={
            "help": "Train LoRA adapters of this rank (PEFT) and the classifier in place of all weights; 0 for none."
        },
    )
    lora_alpha: float | None = field(default=None, metadata={"help": "Scale of the adapters (twice the rank)."})
    lora_dropout: float = field(default=0.0, metadata={"help": "Dropout on the adapters' inputs."})
    lora_target_modules: list[str] = field(
        default_factory=list, metadata={"help": "Linear layers that get an adapter (query value)."}
    )
    loss: str | None = field(
        default=None,
        metadata={
            "help": "'cross_entropy' for one label a clip, 'binary_cross_entropy' for independent ones; as the labels are "
            "if not given.",
            "choices": ["cross_entropy", "binary_cross_entropy"],
        },
    )
    early_stopping_patience: int | None = field(
        default=None,
        metadata={"help": "Evaluations without a better score on the validation split after which to stop."},
    )
    average_epochs: list[int] = field(
        default_factory=list,
        metadata={"help": "First and last epoch, from 1, whose weights are averaged; the average is what is scored."},
    )
    ensemble_epochs: list[int] = field(
        default_factory=list,
        metadata={"help": "First and last epoch whose mean scores are reported beside; their folders are kept."},
    )

    def __post_init__(self):
        for name in ("decay_every", "warmup_stair"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} is less than 1. Pass a whole number from 1.")
        if self.decay_after_epoch is not None and self.decay_after_epoch < 0:
            raise ValueError(
                f"decay_after_epoch={self.decay_after_epoch} is negative. Pass 0 for a rate that never decays."
            )
        if self.lora_rank < 0:
            raise ValueError(f"lora_rank={self.lora_rank} is negative. Pass for example 8, or 0 to train all weights.")
        if self.lora_alpha is not None and self.lora_alpha <= 0:
            raise ValueError(f"lora_alpha={self.lora_alpha} is not above 0. Pass for example twice the rank.")
        if not 0 <= self.lora_dropout < 1:
            raise ValueError(f"lora_dropout={self.lora_dropout} is not from 0 to below 1. Pass for example 0.1.")
        for name in ("head_only_epochs", "frozen_layers"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}={getattr(self, name)} is negative. Pass 0 to let everything learn.")
        for name in ("decay_factor", "layer_decay"):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(f"{name}={getattr(self, name)} is not above 0 and up to 1. Pass for example 0.75.")
        if self.head_learning_rate_factor <= 0:
            raise ValueError(
                f"head_learning_rate_factor={self.head_learning_rate_factor} is not above 0. Pass for example 10."
            )
        if self.early_stopping_patience is not None and self.early_stopping_patience < 1:
            raise ValueError(
                f"early_stopping_patience={self.early_stopping_patience} is less than 1. Pass a whole number from 1."
            )
        for name in ("average_epochs", "ensemble_epochs"):
            epochs = getattr(self, name)
            if epochs and not (len(epochs) == 2 and 1 <= epochs[0] <= epochs[1]):
                raise ValueError(
                    f"{name}={epochs} is not a first and a last epoch, counted from 1. Pass for example --{name} 6 25."
                )


@dataclass
class ASTTrainingArguments(TrainingArguments):
    """`TrainingArguments` with this kit's defaults and what it adds."""

    output_dir: str | None = field(default=None, metadata={"help": "Folder for the checkpoint, summary and card."})
    overwrite_output_dir: bool = field(
        default=False,
        metadata={
            "help": "Replace the run that output_dir already holds, its checkpoints and TensorBoard curves too."
        },
    )
    dry_run: bool = field(
        default=False,
        metadata={"help": "Look at the data, estimate time and memory, draw augmented spectrograms; train nothing."},
    )
    learning_rate: float = field(default=1e-5, metadata={"help": "Peak learning rate; AST needs small ones."})
    eval_strategy: str = field(
        default="no", metadata={"help": "When to score in training: no (once, at the end), epoch or steps."}
    )
    logging_strategy: str = field(default="epoch", metadata={"help": "When to log the loss: epoch or steps."})
    save_strategy: str = field(default="epoch", metadata={"help": "When to save for resuming: epoch, steps or no."})
    save_total_limit: int | None = field(default=1, metadata={"help": "Checkpoints kept for resuming."})
    report_to: str = field(
        default="none", metadata={"help": "Where to log as well, for example tensorboard (into output_dir/runs)."}
    )
    disable_tqdm: bool = field(default=False, metadata={"help": "No progress bar; the line of each epoch stays."})
    train_sampling_strategy: str = field(
        default="random",
        metadata={
            "help": "Order of the training clips: 'random', 'group_by_length' (with --padding longest), or 'class_balanced', "
            "which draws clips of rare labels more often, as the original does on AudioSet.",
            "choices": list(SAMPLING_STRATEGIES),
        },
    )
    logging_nan_inf_filter: bool = field(
        default=False, metadata={"help": "Hide NaN losses in the log; looking for them makes an accelerator wait."}
    )
    hub_strategy: str = field(
        default="end", metadata={"help": "When to push: only at the end, the finished run with its card."}
    )
    remove_unused_columns: bool = field(default=False, metadata={"help": "The collator chooses columns itself."})
    label_names: list[str] = field(default_factory=lambda: ["labels"], metadata={"help": "Batch keys of the labels."})

    def __post_init__(self):
        if not self.output_dir:
            raise ValueError("No output folder was given. Pass --output_dir FOLDER.")
        refuse_numbers(self)
        refuse_unreadable(self)
        own_accelerator_config = self.accelerator_config is not None
        try:
            super().__post_init__()
        except TypeError as error:  # of a mapping with a name that its class does not have
            raise ValueError(
                f"The fields of TrainingArguments do not fit: {error}. Correct --accelerator_config or --fsdp_config."
            ) from error
        refuse_mappings(self)
        if self.accelerator_config.dispatch_batches:
            raise ValueError(
                "accelerator_config asks for dispatch_batches, which cannot cut batches of waveforms. Leave it out: every "
                "process reads its own clips."
            )
        # Pinned memory speeds up copies to an accelerator; without one torch warns of it.
        self.dataloader_pin_memory = self.dataloader_pin_memory and torch.accelerator.is_available()
        if self.dataloader_pin_memory and not own_accelerator_config:  # and lets them go on beside the computation
            self.accelerator_config.non_blocking = True


ARGUMENT_GROUPS = (ModelArguments, DataArguments, AugmentationArguments, OptimizationArguments, ASTTrainingArguments)


def local_or_shipped(name: str) -> Path:
    """A path as given or, if it is not there, the recipe or sample data of that name that this package ships."""
    path = Path(name)
    shipped = Path(__file__).parents[2] / path
    return shipped if path.parts[:1] == ("finetune",) and shipped.exists() and not path.exists() else path
