"""Which clips, how they are split and read: the second group of fields."""

import copy
import itertools
import re
import shlex
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import ClassVar

from modeling_ast.audio import NEW_RESAMPLER, RESAMPLERS, checked_resampler, parse_channels
from modeling_ast.audio_flags import CHANNELS_HELP, STRICT_HELP

from .given import ArgumentGroup

SIDES = ("train", "eval", "validation")  # what clips of a split are for
AUDIO_FIELDS = (
    "waveform_cache", "skip_bad_audio", "check_audio", "channels", "strict_audio", "resampler", "clip_windows", "score_windows",
)  # fmt: skip
OVERLAP = re.compile(r"(\d+(?:\.\d*)?|\.\d+)\s*(s?)")  # of --mark_overlap
UNMARKED = ("background", "ignore")
# Fields that say nothing of marked stretches, or what they would have to be told in another way, and why.
NOT_WITH_MARKS = {
    **dict.fromkeys(
        ("train_file", "eval_file", "validation_file"),
        "recordings are found by --dataset_name, and their splits by folders",
    ),
    **dict.fromkeys(
        ("label_columns", "label_separator", "label_csv", "join_annotations"),
        "labels are those of the marked stretches",
    ),
    **dict.fromkeys(("group_column_name", "group_file_pattern"), "a split goes by recording"),
    "fold_column_name": "folds of recordings are not made",
    "ignore_columns": "no other columns are read than those of the recordings, times, labels and splits",
    "features_column_name": "windows are cut from audio",
    "streaming": "recordings have to be at hand",
    "waveform_cache": "no more than a window is decoded, and whole recordings would be kept",
    "skip_bad_audio": "what cannot be used is a whole recording: remove it",
    "drop_duplicate_audio": "recordings in two splits are refused",
    **dict.fromkeys(("clip_windows", "score_windows"), "each window is a clip of its own"),
}
TRAINED_WINDOWS, SCORED_WINDOWS = ("beginning", "random", "all"), ("beginning", "mean", "max")
ANNOTATIONS_JOINED_BY = ("any", "majority", "all", "share")


@dataclass
class DataArguments(ArgumentGroup):
    """Which clips, how they are split, and how their features are normalised.

    Attributes:
        labelled (`bool`): whether labels are read; not of a pretraining.
    """

    labelled: ClassVar[bool] = True

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
        default=False,
        metadata={"help": "Decode every clip, or with --marks all of every recording, before training, not a sample."},
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
    clip_windows: str | None = field(
        default=None,
        metadata={
            "help": "What is trained on of a clip that lasts longer than the model hears: its 'beginning', a 'random' window in "
            "every epoch, or 'all' its windows, each a clip of its own; random if not given.",
            "choices": list(TRAINED_WINDOWS),
        },
    )
    score_windows: str | None = field(
        default=None,
        metadata={
            "help": "How a clip is scored that lasts longer than the model hears: by its 'beginning', or by the 'mean' or 'max' of "
            "the scores of all its windows; mean if not given, or beginning with --clip_windows beginning.",
            "choices": list(SCORED_WINDOWS),
        },
    )
    marks: str | None = field(
        default=None,
        metadata={
            "help": "Where stretches of long recordings are marked, in place of labels of clips: 'beside' them in files of the same "
            "names (Audacity's label tracks, Raven's selection tables, CSV), a folder of such files, a table with file, start, end "
            "and label, or the 'columns' of the data set itself."
        },
    )
    mark_label_column: str | None = field(
        default=None,
        metadata={"help": "Column of the labels in tables of marks; Annotation, Label or label if not given."},
    )
    mark_overlap: str = field(
        default="0.5",
        metadata={
            "help": "How much of a stretch has to be in a window for its label to count there: a share of it, or seconds as in 0.2s; of "
            "what is longer than the window, of the window."
        },
    )
    background_share: float | None = field(
        default=None,
        metadata={
            "help": "Share of the training windows that hold nothing of any stretch; half of them if not given, where there are any."
        },
    )
    background_label: str | None = field(
        default=None,
        metadata={
            "help": "Label of windows without any stretch, and one label a window; without it labels are independent, and such windows "
            "have none."
        },
    )
    unmarked: str | None = field(
        default=None,
        metadata={
            "help": "What recordings without marks are: 'background' as a whole, or left out ('ignore').",
            "choices": list(UNMARKED),
        },
    )
    hard_negatives: str | None = field(
        default=None,
        metadata={
            "help": "A checkpoint: half of the background is drawn from training windows that it takes for a label though nothing is "
            "marked there."
        },
    )
    waveform_cache: str | None = field(
        default=None,
        metadata={
            "help": "Folder in which all clips are kept decoded and resampled, so that only the first epoch of the first run "
            "pays for it."
        },
    )
    memory_for_clips: float = field(
        default=0.25,
        metadata={
            "help": "Share of the free memory in which decoded clips, or their features, stay for later epochs; 0 keeps none."
        },
    )
    keep_features: bool = field(
        default=True,
        metadata={
            "help": "Keep features in place of decoded clips where no augmentation changes waveforms, on a CPU; the weights come "
            "out the same."
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
        if not 0 <= self.memory_for_clips <= 0.9:
            raise ValueError(
                f"memory_for_clips={self.memory_for_clips} is not from 0 to 0.9, the share of the free memory for decoded clips. "
                "Pass for example 0.25, or 0 to decode them in every epoch."
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
        for name, choices in (("clip_windows", TRAINED_WINDOWS), ("score_windows", SCORED_WINDOWS)):
            if getattr(self, name) not in (None, *choices):
                raise ValueError(
                    f"{name}={getattr(self, name)!r} is not among {', '.join(choices)}. Pass one of these."
                )
        if self.marks is not None:
            self._check_marks()
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
        if self.label_separator == "":
            raise ValueError(
                "label_separator is empty. Pass what stands between two labels, such as ';'; in a recipe write it in quotes: '|' "
                "alone begins a block of text there."
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
        """Change fields of a copy, of which what the user gave stays known.

        Args:
            fields: new values, by name. They are not checked.

        Returns:
            The copy.
        """
        changed = copy.copy(self)
        vars(changed).update(fields)
        return changed

    def grouping_field(self) -> str | None:
        """Find the field that says which clips stay together.

        Returns:
            Its name; `None` if there is none.
        """
        return next((name for name in ("group_column_name", "group_file_pattern") if getattr(self, name)), None)

    def asked_splits(self, present: Iterable[str]) -> bool:
        """Tell whether splits are asked for that a data set of a single split cannot have all.

        Args:
            present (iterable of `str`): names of the splits that there are.

        Returns:
            `True` if so.
        """
        given = self.given_split_names()
        return bool(given.keys() - {"train"}) or ("train" in given and given["train"] not in present)

    def given_split_names(self) -> dict[str, str]:
        """Find what the user has said the splits are called.

        Returns:
            Names of splits by side (`SIDES`), of those sides whose name was given.
        """
        names = {side: getattr(self, f"{side}_split_name") for side in SIDES if f"{side}_split_name" in self.given}
        return {side: name for side, name in names.items() if name}

    def _refuse_audio_beside_features(self):
        if not self.features_column_name:
            return
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

    def _check_marks(self):
        for name, why in NOT_WITH_MARKS.items():
            value = getattr(self, name)
            if value:
                raise ValueError(f"{name}={value!r} was given with marks, but {why}. Leave out --{name}.")
        if self.label_column_name != type(self).label_column_name:
            raise ValueError(
                f"label_column_name={self.label_column_name!r} was given with marks, but it names the labels of clips; those of marks have a "
                f"flag of their own. Pass --mark_label_column {shlex.quote(self.label_column_name)} in its place."
            )
        if self.marks != "columns" and self.audio_column_name != type(self).audio_column_name:
            raise ValueError(
                f"audio_column_name={self.audio_column_name!r} was given with marks={self.marks!r}, but recordings are found in the folder "
                "dataset_name, and in tables of marks by the column file. Leave it out, or pass --marks columns."
            )
        if self.marks == "columns" and self.unmarked:
            raise ValueError(
                f"unmarked={self.unmarked!r} was given with marks='columns', where each recording has a row, and one with a file alone "
                "says that nothing is heard in it. Leave out --unmarked."
            )
        if self.unmarked not in (None, *UNMARKED):
            raise ValueError(f"unmarked={self.unmarked!r} is not among {', '.join(UNMARKED)}. Pass one of these.")
        if self.background_share is not None and not 0 <= self.background_share < 1:
            raise ValueError(
                f"background_share={self.background_share:g} is not from 0 up to, but not, 1. Pass for example 0.5."
            )
        if self.hard_negatives and self.background_share == 0:
            raise ValueError(
                "hard_negatives are windows of background, and background_share=0 asks for none. Pass one of them."
            )
        if self.background_label and self.background_share == 0:
            raise ValueError(
                f"background_label={self.background_label!r} is that of windows of background, and background_share=0 asks for none. "
                "Pass one of them."
            )
        match = OVERLAP.fullmatch(self.mark_overlap.strip())
        number = float(match[1]) if match else 0.0
        if not number or not (match[2] or number <= 1):
            raise ValueError(
                f"mark_overlap={self.mark_overlap!r} is neither a share above 0 and up to 1 nor seconds. Pass for example "
                "--mark_overlap 0.5 for half of a stretch, or 0.2s for a fifth of a second."
            )

    def windows_trained(self) -> str:
        """Tell what is trained on of clips that last longer than the model hears.

        Returns:
            One of `TRAINED_WINDOWS`.
        """
        return self.clip_windows or ("random" if self.labelled else "beginning")

    def windows_scored(self) -> str:
        """Tell how clips are scored that last longer than the model hears.

        Returns:
            One of `SCORED_WINDOWS`.
        """
        return self.score_windows or ("mean" if self.labelled and self.clip_windows != "beginning" else "beginning")

    def sources(self) -> list[str]:
        """List where the clips and labels come from.

        Returns:
            Files, folders and names on the Hub, as given.
        """
        given = (self.dataset_name, self.train_file, self.eval_file, self.validation_file, self.label_csv)
        return [source for source in given if source]

    def has_validation_split(self) -> bool:
        """Tell whether choices are made on clips that are neither trained on nor scored.

        Returns:
            `True` if so.
        """
        return bool(self.validation_split_name or self.validation_file or self.validation_fraction)

    def normalization_statistics(self) -> tuple[float, float] | None:
        """Read mean and standard deviation of the features, if they were given as numbers.

        Returns:
            The two; `None` if a keyword was given.

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
