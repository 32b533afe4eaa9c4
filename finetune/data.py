"""From what a user has to two checked splits: folders, tables and Hub data sets as undecoded `datasets` audio columns.

Folders are read here and not by `datasets`' audiofolder builder, which takes a word like "test" in a file name for the
name of a split. What is wrong with the data is said before training, in words that name the flag to type.
"""

import hashlib
import itertools
import math
import os
import random
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

import datasets
import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedGroupKFold, train_test_split
from torch.utils.data import Dataset

from modeling_ast.audio import AUDIO_SUFFIXES, AudioError, audio_duration, read_audio
from modeling_ast.log_mel import FRAME_LENGTH_MS, frame_length

from .arguments import DataArguments, local_or_shipped
from .augmentation import Augmentation, mix_waveforms

METADATA_FILES = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
PATH_COLUMNS = ("file_name", "path", "file", "filename")  # tried when the audio column is not in a table
TABLE_SUFFIXES = (".csv", ".tsv", ".jsonl", ".json", ".parquet")
DEFAULT_AUDIO_COLUMN, DEFAULT_SPLIT_COLUMN = "audio", "split"  # of DataArguments
CLIPS_CHECKED = 200  # decoded up front without --check_audio
NAMES_SHOWN = 5  # of the files or labels listed in a message


class DataError(ValueError):
    """The data set cannot be trained on as it is; the message says what to type."""


def load_splits(data: DataArguments, seed: int) -> tuple[datasets.DatasetDict, str]:
    """Load the clips and split them.

    Args:
        data ([`DataArguments`]): where the clips are and what the columns are called.
        seed (`int`): seed of a split that has to be made.

    Returns:
        A `DatasetDict` with the splits `"train"` and `"eval"`, whose columns `"audio"` (undecoded `datasets.Audio`)
        and `"label"` (`datasets.ClassLabel`) are followed by those that came along; and in words how it was split.

    Raises:
        DataError: if there is no audio, a file or column is missing, a split is empty or cannot be made.
    """
    source = local_or_shipped(data.dataset_name)
    if source.is_dir():
        table = next((source / name for name in METADATA_FILES if (source / name).is_file()), None)
        columns = _read_class_folders(source, data) if table is None else _read_table(table, data)
    elif source.is_file():
        columns = _read_table(source, data)
    elif source.suffix in TABLE_SUFFIXES or len(source.parts) != 2 or data.dataset_name.startswith((".", "/", "~")):
        raise DataError(
            f"{data.dataset_name} is not there. Pass --dataset_name with a folder, a table, or a Hub id like user/name."
        )
    else:
        return _load_hub_splits(data)
    return _split_columns(columns, data, seed)


def _read_class_folders(root: Path, data: DataArguments) -> dict[str, list]:
    """Clips below a folder per class, perhaps below a folder per split."""
    split_folders = [root / data.train_split_name, root / data.eval_split_name]
    present = [folder.name for folder in split_folders if folder.is_dir()]
    if len(present) == 1:
        found = sorted(path.name for path in root.iterdir() if path.is_dir())
        raise DataError(
            f"{root} holds the folders {_some(found)}: {present[0]!r} looks like a split, but its other half is missing. "
            "Name both with --train_split_name and --eval_split_name."
        )
    columns: dict[str, list] = defaultdict(list)
    for base in split_folders if present else [root]:
        for path in _audio_files(base):
            label, *rest = path.relative_to(base).parts
            if len(rest) != 1:
                where = f"{len(rest)} folders deep" if rest else "in no class folder"
                raise DataError(
                    f"{path} lies {where}. Expected {base}/CLASS/{path.name}: move it, or pass a table of files and labels "
                    "as --dataset_name."
                )
            columns["audio"].append(str(path))
            columns["label"].append(label)
            if present:
                columns["split"].append(base.name)
    if not columns:
        raise DataError(
            f"{root} holds no audio file ({' '.join(sorted(AUDIO_SUFFIXES))}). Expected a folder per class with clips in "
            "it, or a metadata.csv with the columns file_name and label. Pass another --dataset_name."
        )
    return columns


def _audio_files(folder: Path) -> Iterator[Path]:
    for directory, folders, files in os.walk(folder, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if not name.startswith(".") and Path(name).suffix.lower() in AUDIO_SUFFIXES:
                yield Path(directory, name)


def _read_table(table: Path, data: DataArguments) -> dict[str, list]:
    """Columns of a table, with audio as full paths (relative ones are below the table's folder) or bytes."""
    suffix = table.suffix.lower()
    if suffix in (".csv", ".tsv"):
        # Everything as text: a label "001" or "NA" stays what it is.
        frame = pd.read_csv(table, sep="\t" if suffix == ".tsv" else ",", dtype=str, keep_default_na=False)
    elif suffix in (".jsonl", ".json"):
        frame = pd.read_json(table, lines=suffix == ".jsonl", dtype=False)
    elif suffix == ".parquet":
        frame = pd.read_parquet(table)
    else:
        raise DataError(f"{table} is no table this kit reads. Pass one of {' '.join(TABLE_SUFFIXES)}, or a folder.")
    if frame.empty:
        raise DataError(f"{table} has no rows. Expected one per clip, with the columns file_name and label.")

    columns = {name: frame[name].tolist() for name in frame.columns}
    audio_name = data.audio_column_name
    if audio_name == DEFAULT_AUDIO_COLUMN and audio_name not in columns:
        audio_name = next((name for name in PATH_COLUMNS if name in columns), None)
    if audio_name not in columns:
        raise _missing_column("audio_column_name", data.audio_column_name, columns)
    _require_column("label_column_name", data.label_column_name, columns)
    if data.split_column_name != DEFAULT_SPLIT_COLUMN:
        _require_column("split_column_name", data.split_column_name, columns)
    chosen = {"audio": audio_name, "label": data.label_column_name, "split": data.split_column_name}
    others = {name: values for name, values in columns.items() if name not in {*chosen, *chosen.values()}}
    columns = {name: columns[given] for name, given in chosen.items() if given in columns} | others
    for name in ("audio", "label"):
        empty = [row for row, value in enumerate(columns[name], 1) if _is_empty(value)]
        if empty:
            raise DataError(
                f"{table}: row(s) {_some(empty)} have nothing in the column {chosen[name]!r}. Fill them in or remove them."
            )
    columns["audio"] = [_resolve_audio(value, table.parent) for value in columns["audio"]]

    missing = [path for path in columns["audio"] if isinstance(path, str) and not os.path.isfile(path)]
    if missing:
        raise DataError(
            f"{table} names {len(missing)} file(s) that are not there: {_some(missing)}. Paths are taken as relative to "
            f"{table.parent}. Correct or remove these rows."
        )
    return columns


def _resolve_audio(value, folder: Path):
    """A path below the table's folder, or the bytes of a `{"bytes", "path"}` value."""
    if isinstance(value, dict):
        content = value.get("bytes")
        return _resolve_audio(value.get("path"), folder) if content is None else {"bytes": content, "path": None}
    if isinstance(value, bytes):
        return {"bytes": value, "path": None}
    if isinstance(value, str):
        return str(folder / value)
    raise DataError(
        f"The audio column holds {value!r}, expected the path of a file, or its bytes. Name another with "
        "--audio_column_name."
    )


def _split_columns(columns: dict[str, list], data: DataArguments, seed: int) -> tuple[datasets.DatasetDict, str]:
    labels = [_single_label(label) for label in columns["label"]]
    _require_labels(data.ignore_labels, labels)
    columns = _select(columns | {"label": labels}, [label not in data.ignore_labels for label in labels])
    if len(set(columns["label"])) < 2:
        raise DataError(
            f"All clips have the label {_some(sorted(set(columns['label'])))}. A classifier needs two classes or more: "
            "give each its own folder, or name the right column with --label_column_name "
            f"(now {data.label_column_name!r})."
        )
    if "split" in columns:
        if data.group_column_name:
            raise DataError(
                "group_column_name was given, but the data set says itself how it is split. Leave out "
                f"--group_column_name, or remove the column {data.split_column_name!r}."
            )
        sides = _named_sides(columns["split"], data)
        method = f"as the column {data.split_column_name!r} or the folders of the data set say"
        others = Counter(name for name, side in zip(columns["split"], sides, strict=True) if side is None)
        if others:
            method += f", without {_counted(others)}"
    else:
        sides, method = _made_sides(columns, data, seed)
    # What is in neither split, and a label that is only there, is not this run's concern.
    columns = _select(columns, [side is not None for side in sides])
    sides, labels = [side for side in sides if side is not None], columns["label"]
    names = sorted(set(labels))

    # The mixed types of a table's other columns are nobody's concern here: they come along as text.
    table = {"audio": columns["audio"], "label": labels}
    table |= {name: [str(value) for value in values] for name, values in columns.items() if name not in table}
    features = datasets.Features({name: datasets.Value("string") for name in table})
    features |= {"audio": datasets.Audio(decode=False), "label": datasets.ClassLabel(names=names)}
    everything = datasets.Dataset.from_dict(table | {"label": [names.index(label) for label in labels]}, features)
    splits = {
        name: everything.select([row for row, side in enumerate(sides) if side == name]) for name in ("train", "eval")
    }
    return datasets.DatasetDict(splits), method


def _named_sides(split_column: list, data: DataArguments) -> list[str | None]:
    sides = {data.train_split_name: "train", data.eval_split_name: "eval"}
    found = Counter(split_column)
    for flag, name in (("train_split_name", data.train_split_name), ("eval_split_name", data.eval_split_name)):
        if not found[name]:
            raise DataError(
                f"No clip is in the split {name!r}; the data has {_counted(found)}. Pass --{flag} with one of these."
            )
    empty = [row for row, name in enumerate(split_column, 1) if _is_empty(name)]
    if empty:
        raise DataError(
            f"Row(s) {_some(empty)} have nothing in the column {data.split_column_name!r}. Fill them in or remove them."
        )
    return [sides.get(name) for name in split_column]


def _made_sides(columns: dict[str, list], data: DataArguments, seed: int) -> tuple[list[str], str]:
    """A stratified split that keeps groups on one side."""
    labels = columns["label"]
    if data.group_column_name:
        _require_column("group_column_name", data.group_column_name, columns)
    try:
        if data.group_column_name:
            folds = StratifiedGroupKFold(n_splits=round(1 / data.eval_fraction), shuffle=True, random_state=seed)
            held_out = next(folds.split(labels, labels, columns[data.group_column_name]))[1].tolist()
        else:
            rows = range(len(labels))
            held_out = train_test_split(rows, test_size=data.eval_fraction, stratify=labels, random_state=seed)[1]
    except ValueError as error:  # scikit-learn counts the groups and the members of each class
        raise DataError(
            f"{len(labels)} clips ({_counted(Counter(labels))}) are too few to hold out a share of {data.eval_fraction}: "
            f"{error} Add clips, leave a class out with --ignore_labels, or give the data folders "
            f"{data.train_split_name}/ and {data.eval_split_name}/."
        ) from error
    held_out = set(held_out)
    together = f", the column {data.group_column_name!r} kept together" if data.group_column_name else ""
    method = f"{len(held_out)} of {len(labels)} clips held out at random, stratified by label{together} (seed {seed})"
    return ["eval" if row in held_out else "train" for row in range(len(labels))], method


def _load_hub_splits(data: DataArguments) -> tuple[datasets.DatasetDict, str]:
    if data.group_column_name:
        raise DataError("group_column_name does not apply to a data set on the Hub, which has splits. Leave it out.")
    try:
        loaded = datasets.load_dataset(data.dataset_name, data.dataset_config_name)
    except (FileNotFoundError, ConnectionError, OSError) as error:
        raise DataError(
            f"{data.dataset_name} is neither a folder or table here nor a data set that the Hub gives ({error}). Check "
            "--dataset_name."
        ) from error
    chosen, labels, found = {}, {}, set()
    for side, flag, name in (
        ("train", "train_split_name", data.train_split_name),
        ("eval", "eval_split_name", data.eval_split_name),
    ):
        if name not in loaded:
            raise DataError(f"{data.dataset_name} has no split {name!r}; it has {_some(list(loaded))}. Pass --{flag}.")
        wanted = {"audio": data.audio_column_name, "label": data.label_column_name}
        for column, given in wanted.items():
            _require_column(f"{column}_column_name", given, loaded[name].column_names)
        in_the_way = [name for name in set(wanted) & set(loaded[name].column_names) if wanted[name] != name]
        split = loaded[name].remove_columns(in_the_way)
        split = split.rename_columns({given: column for column, given in wanted.items() if given != column})
        split = split.cast_column("audio", datasets.Audio(decode=False))
        feature = split.features["label"]
        to_text = feature.int2str if isinstance(feature, datasets.ClassLabel) else _single_label
        if None in split["label"]:
            raise DataError(f"The split {name!r} of {data.dataset_name} has clips without a label. Remove them.")
        texts = [to_text(label) for label in split["label"]]
        found |= set(texts)
        kept = [row for row, text in enumerate(texts) if text not in data.ignore_labels]
        chosen[side], labels[side] = split.select(kept), [texts[row] for row in kept]
    _require_labels(data.ignore_labels, found)
    names = sorted({*labels["train"], *labels["eval"]})
    for side, split in chosen.items():
        indices = [names.index(text) for text in labels[side]]
        feature = datasets.ClassLabel(names=names)
        chosen[side] = split.remove_columns("label").add_column("label", indices, feature=feature)
    return datasets.DatasetDict(chosen), "as the data set on the Hub says"


def check_splits(
    splits: datasets.DatasetDict, data: DataArguments, sampling_rate: int, max_samples: int
) -> tuple[datasets.DatasetDict, list[str]]:
    """Refuse splits that would give a wrong score, and files that cannot be trained on.

    Args:
        splits (`datasets.DatasetDict`): from [`load_splits`].
        data ([`DataArguments`]): its `drop_duplicate_audio` and `check_audio` are obeyed.
        sampling_rate (`int`): rate the model hears, in Hz.
        max_samples (`int`): samples that the model hears of a clip.

    Returns:
        The splits, without duplicates in training if that was asked for, and in words what the user should know.

    Raises:
        DataError: for a scored label without training clips, one class only, files that are byte for byte on both
            sides, or files that cannot be decoded, are empty or hold NaN (of up to 200 clips; of all with
            `check_audio`).
    """
    splits, num_dropped = _without_shared_audio(splits, data)
    names = splits["train"].features["label"].names
    trained = set(splits["train"].unique("label"))
    if len(trained) < 2:
        raise DataError(
            f"All training clips have the label {_some([names[label] for label in trained])}. A classifier needs two "
            "classes or more in the training split."
        )
    untrained = [names[label] for label in splits["eval"].unique("label") if label not in trained]
    if untrained:
        raise DataError(
            f"{_some(untrained)}: no training clip has this label, but the scored split does. Move clips into the "
            f"training split, or pass --ignore_labels {' '.join(untrained)}."
        )
    num_checked, num_longer = _check_files(splits, data, sampling_rate, max_samples)
    notes = [f"{num_dropped} clip(s) also in the scored split were left out of training"] if num_dropped else []
    if num_longer:
        notes.append(
            f"{num_longer} of {num_checked} clips looked at are longer than the {max_samples / sampling_rate:.2f} s that "
            "the model hears; the rest of them is cut"
        )
    return splits, notes


def _without_shared_audio(splits: datasets.DatasetDict, data: DataArguments) -> tuple[datasets.DatasetDict, int]:
    """Find files that are in both splits byte for byte; return the splits without them, and how many there were."""
    training, scored = splits["train"], splits["eval"]
    training_sizes = [audio_size(row["audio"]) for row in training]
    scored_sizes = [audio_size(row["audio"]) for row in scored]
    # Only files of one size can be identical: large data sets are not read through for this.
    common = set(training_sizes) & set(scored_sizes)
    digests = {}
    for row, size in enumerate(scored_sizes):
        if size in common:
            audio = scored[row]["audio"]
            digests[_digest(audio)] = _name(audio)
    shared = {}
    for row, size in enumerate(training_sizes):
        if size in common and (digest := _digest(training[row]["audio"])) in digests:
            shared[row] = digests[digest]
    if not shared:
        return splits, 0
    if data.drop_duplicate_audio:
        kept = training.select([row for row in range(len(training)) if row not in shared])
        return datasets.DatasetDict(splits | {"train": kept}), len(shared)
    pairs = [f"{_name(training[row]['audio'])} = {twin}" for row, twin in shared.items()]
    raise DataError(
        f"{len(shared)} clip(s) are in the training and in the scored split: {_some(pairs)}. The score would be too good. "
        "Remove them, or pass --drop_duplicate_audio to leave them out of training."
    )


def _check_files(
    splits: datasets.DatasetDict, data: DataArguments, sampling_rate: int, max_samples: int
) -> tuple[int, int]:
    """Decode a sample of the clips, or all; return how many, and how many of them the model cannot hear to the end."""
    rows = [(side, row) for side, split in splits.items() for row in range(len(split))]
    if not data.check_audio and len(rows) > CLIPS_CHECKED:
        rows = random.Random(0).sample(rows, CLIPS_CHECKED)
    faults, num_longer = [], 0
    for side, row in rows:
        try:
            num_longer += len(read_clip(splits[side][row]["audio"], sampling_rate)) > max_samples
        except AudioError as error:
            faults.append(str(error))
    if faults:
        listed = "\n  ".join(faults)
        raise DataError(
            f"{len(faults)} of {len(rows)} clips looked at cannot be used:\n  {listed}\nRepair or remove them; "
            "--check_audio looks at every clip."
        )
    return len(rows), num_longer


def read_clip(audio: dict, sampling_rate: int) -> np.ndarray:
    """Decode one value of an undecoded audio column, and refuse what is too short for a single frame.

    Args:
        audio (`dict`): `{"bytes": ..., "path": ...}`.
        sampling_rate (`int`): in Hz.

    Returns:
        `np.ndarray` of shape `(samples,)`, mono float32 in [-1, 1].

    Raises:
        AudioError: if it cannot be decoded, is empty or too short, or holds NaN.
    """
    waveform = read_audio(audio, sampling_rate)
    if len(waveform) < frame_length(sampling_rate):
        raise AudioError(
            f"{_name(audio)} lasts {1000 * len(waveform) / sampling_rate:.0f} ms, a frame needs {FRAME_LENGTH_MS} ms. "
            "Remove it or pad it with silence."
        )
    return waveform


class ASTDataset(Dataset):
    """Decoded clips of a split. A training item is asked for by (epoch, index), which also seeds its augmentation.

    Args:
        split (`datasets.Dataset`): with the columns `"audio"` (undecoded) and `"label"` (`ClassLabel`).
        sampling_rate (`int`): rate to decode to, in Hz.
        max_samples (`int`): samples after which a clip is cut; the model does not hear the rest.
        augmentation ([`Augmentation`], *optional*): what to draw for items asked for with an epoch.
        seed (`int`, defaults to 0): seed of these draws.
    """

    def __init__(
        self,
        split: datasets.Dataset,
        sampling_rate: int,
        max_samples: int,
        augmentation: Augmentation | None = None,
        seed: int = 0,
    ):
        self.split = split
        self.sampling_rate = sampling_rate
        self.max_samples = max_samples
        self.augmentation = augmentation
        self.seed = seed
        self.num_labels = split.features["label"].num_classes

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, key: int | tuple[int, int]) -> dict:
        epoch, index = key if isinstance(key, tuple) else (None, key)
        waveform, label = self._read(index)
        if self.augmentation is None or epoch is None:
            return {"waveform": waveform, "label": label}
        draws = self.augmentation.draw(self.seed, epoch, index, len(self))
        if self.augmentation.mixup_probability:
            label = np.eye(self.num_labels, dtype=np.float32)[label]
            if draws.partner is not None:
                partner, partner_label = self._read(draws.partner)
                waveform = mix_waveforms(waveform, partner, draws.mixing_weight)
                label = draws.mixing_weight * label
                label[partner_label] += 1 - draws.mixing_weight
        return {"waveform": waveform, "label": label, "draws": draws}

    def _read(self, index: int) -> tuple[np.ndarray, int]:
        row = self.split[index]
        return read_clip(row["audio"], self.sampling_rate)[: self.max_samples], row["label"]

    def lengths(self) -> np.ndarray:
        """Samples of every clip as the model hears them, told from the files' headers: `(clips,)`."""
        durations = [audio_duration(row["audio"]) for row in self.split.select_columns("audio")]
        return np.minimum(np.round(np.array(durations) * self.sampling_rate).astype(np.int64), self.max_samples)

    def waveforms(self, indices: Iterator[int]) -> Iterator[np.ndarray]:
        """Decode these clips one after the other, without labels or augmentation."""
        return (self._read(index)[0] for index in indices)


def _single_label(value) -> str:
    if isinstance(value, (list, tuple, dict, np.ndarray)):
        raise DataError(
            f"The label column holds {value!r}, expected one label per clip. Name another with --label_column_name."
        )
    return str(value)


def _require_labels(wanted: list[str], found):
    unknown = sorted(set(wanted) - set(found))
    if unknown:
        raise DataError(
            f"ignore_labels names {_some(unknown)}, which no clip has; there are {_some(sorted(set(found)))}. Correct "
            "--ignore_labels."
        )


def _select(columns: dict[str, list], kept: list[bool]) -> dict[str, list]:
    return {name: list(itertools.compress(values, kept)) for name, values in columns.items()}


def _is_empty(value) -> bool:
    return value is None or (isinstance(value, str) and not value) or (isinstance(value, float) and math.isnan(value))


def _require_column(flag: str, name: str, columns):
    if name not in columns:
        raise _missing_column(flag, name, columns)


def _missing_column(flag: str, name: str, columns) -> DataError:
    found = ", ".join(repr(column) for column in columns)
    return DataError(f"{flag}={name!r} is not in the data set; it has {found}. Pass --{flag} with one of these.")


def audio_size(audio: dict) -> int:
    """Bytes of an undecoded audio value."""
    return len(audio["bytes"]) if audio["bytes"] is not None else os.path.getsize(audio["path"])


def _digest(audio: dict) -> bytes:
    content = audio["bytes"] if audio["bytes"] is not None else Path(audio["path"]).read_bytes()
    return hashlib.sha256(content).digest()


def _name(audio: dict) -> str:
    return audio["path"] or "a clip without a path"


def _some(names: list) -> str:
    shown = ", ".join(str(name) for name in names[:NAMES_SHOWN])
    return shown if len(names) <= NAMES_SHOWN else f"{shown} and {len(names) - NAMES_SHOWN} more"


def _counted(counts: Counter) -> str:
    return ", ".join(f"{name!r} ({count} clips)" for name, count in counts.items())
