"""Clips of a folder: with a metadata table, or below a folder per class, perhaps below a folder per split.

Folders are read here and not by `datasets`' audiofolder builder, which takes a word like "test" in a file name for the
name of a split. As there, a folder of a split may be called otherwise ("Training", "dev") and may have a metadata table
of its own. Which of these layouts a folder has is told by where its audio files lie.
"""

import logging
import os
import shlex
from collections import Counter, defaultdict
from dataclasses import dataclass, replace
from pathlib import Path

from modeling_ast.audio import AUDIO_SUFFIXES
from modeling_ast.audio.files import search_folder, suffixes_in_words, walk_folder
from modeling_ast.system.regular_files import refuse_special

from ..arguments.groups import DataArguments
from ..arguments.shipped_files import local_or_shipped
from .data_errors import DataError, names_in_short
from .marks_beside import ADVICE, tracks_beside
from .split_names import named_splits, side_of
from .tables import DEFAULT_SPLIT_COLUMN, TABLE_SUFFIXES, ClipTable, read_table, with_splits_of_paths

logger = logging.getLogger(__name__)

METADATA_FILES = ("metadata.csv", "metadata.jsonl", "metadata.parquet")


def data_folder(data: DataArguments) -> Path | None:
    """The folder in which the data of a training is: that which is named, or that of the tables which are.

    Args:
        data ([`DataArguments`]): what was given.

    Returns:
        `Path`, or `None` for data of the Hub or in Python, whose files lie wherever they were put.
    """
    if data.dataset_name:
        place = local_or_shipped(data.dataset_name)
        return place if place.is_dir() else place.parent if place.is_file() else None
    files = [os.path.abspath(file) for file in (data.train_file, data.eval_file, data.validation_file) if file]
    return Path(os.path.commonpath(map(os.path.dirname, files))) if files else None


def metadata_table(root: Path) -> Path | None:
    """Look for the table that says what the clips of a folder are.

    Args:
        root (`Path`): the folder.

    Returns:
        Path of the table, `None` if there is none.

    Raises:
        SpecialFileError: if something else than a file is in its place.
    """
    for table in (root / name for name in METADATA_FILES):
        refuse_special(table)
        if table.is_file():
            return table
    return None


def is_parquet_data_set(root: Path) -> bool:
    """Tell whether a folder is laid out like a data set on the Hub: Parquet files, without a table of clips or audio
    files.

    Args:
        root (`Path`): the folder.

    Returns:
        `True` if it is.

    Raises:
        SpecialFileError: if one of the Parquet files is something else than a file.
    """
    if metadata_table(root) is not None or any(reason is None for _, reason in walk_folder(root)):
        return False
    tables = list(root.rglob("*.parquet"))
    for table in tables:
        refuse_special(table)  # which `datasets` would pass over without a word
    return bool(tables)


@dataclass(frozen=True)
class Subfolder:
    """What lies in a folder of a folder.

    Args:
        path (`Path`): the folder.
        depths (`Counter`): of its audio files, how many lie how many folders below it.
        table (`Path`, *optional*): its metadata table.
    """

    path: Path
    depths: Counter
    table: Path | None

    @property
    def name(self) -> str:
        """Its own name."""
        return self.path.name

    @property
    def clips(self) -> int:
        """Audio files in it, at any depth."""
        return self.depths.total()

    def can_be_split(self) -> bool:
        """Tell whether something says the labels of its clips, if there are any: folders in it, or a table.

        Returns:
            `True` if so.
        """
        return self.table is not None or not self.depths or any(self.depths[depth] for depth in self.depths if depth)

    def has_class_folders(self) -> bool:
        """Tell whether all of its clips lie below a folder per class, or a table says their labels.

        Returns:
            `True` if so.
        """
        return self.table is not None or set(self.depths) == {1}


def read_folder(root: Path, data: DataArguments) -> dict[str, ClipTable]:
    """Clips of a folder: by its metadata file if there is one, else below a folder per class or split.

    Args:
        root (`Path`): the folder.
        data ([`DataArguments`]): what columns and splits are called.

    Returns:
        One table, or one for each folder of a split, by the name of where it is from.

    Raises:
        DataError: if there is no audio, a clip or split folder is not where it is expected, or it is not clear which
            folders are splits.
    """
    base, found = _descend(root)
    below = "" if base == root else f" below {base.relative_to(root)}/"
    table = metadata_table(base)
    if table is not None:
        return {str(table): replace(with_splits_of_paths(read_table(table, data), base, data), part_words=below)}
    for words in search_folder(base)[1]:
        logger.warning(words)
    splits = _split_folders(base, found, data) if data.labelled else _splits_without_labels(base, found, data)
    if data.features_column_name and not (splits and all(folder.table for folder in splits)):
        raise DataError(
            f"{root} has no {' or '.join(METADATA_FILES)} with the column {data.features_column_name!r} of features. Pass "
            "such a table as --dataset_name, or leave out --features_column_name to train on audio."
        )
    if splits:
        words = f"as the folders of the data set{below} say{_left_out(base, found, splits, data)}"
        tables = {str(folder.path): _read_split(folder, data) for folder in splits if folder.clips or folder.table}
        return {name: replace(table, split_words=words) for name, table in tables.items()}
    return {str(base): replace(_read_clips(base, data), part_words=below)}


def _descend(root: Path) -> tuple[Path, list[Subfolder]]:
    """The folder in which a table, classes or splits lie, which may be the only folder of the root, and what lies there."""
    base = root
    while metadata_table(base) is None:
        found = _subfolders(base)
        only = found[0] if len(found) == 1 and not _clips_in(base) else None
        if only is None or (only.table is None and (0 in only.depths or not only.depths)):
            return base, found
        base = only.path
    return base, []


def _clips_in(folder: Path) -> list[Path]:
    """Audio files that lie in a folder itself."""
    return sorted(path for path in folder.iterdir() if path.is_file() and _is_audio(path.name))


def _subfolders(base: Path) -> list[Subfolder]:
    """Folders with audio files, with a metadata table, or, beside splits, empty ones with the name of a split."""
    found = []
    depths_of = defaultdict(Counter)
    for file in search_folder(base)[0]:
        name, *below = file.relative_to(base).parts
        if below:
            depths_of[name][len(below) - 1] += 1
    for path in sorted(base.iterdir()):
        if not path.is_dir() or path.name.startswith("."):
            continue
        depths = depths_of[path.name]
        table = metadata_table(path)
        if depths or table is not None or side_of(path.name):
            found.append(Subfolder(path, depths, table))
    filled = [folder for folder in found if folder.clips or folder.table]
    beside_splits = any(side_of(folder.name) and folder.can_be_split() for folder in filled)
    return found if beside_splits else filled


def _split_folders(base: Path, found: list[Subfolder], data: DataArguments) -> list[Subfolder]:
    """The folders that are splits, none if all are classes.

    Raises:
        DataError: if it is not clear; the message says what to type.
    """
    named = [folder for folder in found if side_of(folder.name)]
    asked_for = data.given_split_names()
    if not named and not {"train", "eval"} & asked_for.keys():
        return []
    if {folder.name for folder in named} & set(data.labels):
        return []  # which says that they are classes
    by_name = {folder.name: folder for folder in found}
    for side, name in asked_for.items():
        if name not in by_name:
            raise DataError(
                f"{base} has no folder {name!r}; it holds {names_in_short(list(by_name)) or 'none'}. Pass --{side}_split_name with one "
                "of these, or leave it out."
            )
    names = named_splits(by_name, data)
    if not {"train", "eval"} <= names.keys():
        raise _unclear(base, found, named)
    silent = [by_name[names[side]] for side in ("train", "eval") if not by_name[names[side]].can_be_split()]
    if silent:
        raise _without_labels(base, silent, list(by_name))
    # Any other folder that is laid out like a split may be one as well; what is not, gives its clips no label.
    return [
        folder
        for folder in found
        if folder.can_be_split() and (folder.name in names.values() or folder.has_class_folders())
    ]


def _splits_without_labels(base: Path, found: list[Subfolder], data: DataArguments) -> list[Subfolder]:
    """The folders that are splits of clips whose labels are not read: only where both are there, named so or given.

    Raises:
        DataError: if one that was given is not there.
    """
    by_name = {folder.name: folder for folder in found if folder.clips or folder.table}
    for side, name in data.given_split_names().items():
        if name not in by_name:
            raise DataError(
                f"{base} has no folder {name!r} with audio files; it holds {names_in_short(list(by_name)) or 'none'}. Pass "
                f"--{side}_split_name with one of these, or leave it out."
            )
    names = named_splits(by_name, data)
    return [by_name[name] for name in names.values()] if {"train", "eval"} <= names.keys() else []


def _unclear(base: Path, found: list[Subfolder], named: list[Subfolder]) -> DataError:
    """The error for a folder that looks like a split without the others that make a training."""
    names = [folder.name for folder in found]
    first = named[0]
    partner = next((folder.name for folder in found if folder != first and folder.has_class_folders()), None)
    if first.clips and not first.can_be_split():
        remedy = f"its clips lie in no class folder: if they are of another kind, move {first.path} away"
    else:
        remedy = "if these are splits: Name both with --train_split_name and --eval_split_name"
        if partner is not None:
            scored_first = side_of(first.name) == "eval"
            pair = (partner, first.name) if scored_first else (first.name, partner)
            example = shlex.join(["--train_split_name", pair[0], "--eval_split_name", pair[1]])
            remedy += f", for example {example}"
    like_flags = [name for name in names if name.startswith("-")]
    named = f"name all: {shlex.join(['--labels', *names])}"
    if like_flags:
        named = f"rename {names_in_short(like_flags)}, as no flag takes a name that begins with a hyphen, and name all with --labels"
    return DataError(
        f"{base} holds the folders {names_in_short(names)}: {first.name!r} looks like a split, but its other half is missing; {remedy}. "
        f"If they are classes, {named}."
    )


def _without_labels(base: Path, silent: list[Subfolder], names: list[str]) -> DataError:
    """The error for folders of splits with clips that lie in no class folder."""
    tables = {
        side_of(path.stem): path
        for path in sorted(base.iterdir())
        if path.suffix.lower() in TABLE_SUFFIXES and side_of(path.stem)
    }
    remedies = [
        f"write {silent[0].path / METADATA_FILES[0]} with the columns file_name and label (what file names say of the label "
        "belongs there)" + (", one in each of them" if len(silent) > 1 else ""),
        f"move the clips into a folder per class ({silent[0].path / 'CLASS'}/...)",
    ]
    if {"train", "eval"} <= tables.keys():
        files = shlex.join(["--train_file", str(tables["train"]), "--eval_file", str(tables["eval"])])
        remedies.insert(0, f"pass the tables that lie there: {files}")
    others = [folder for folder in names if folder not in {of.name for of in silent}]
    if len(silent) == 1 and side_of(silent[0].name) != "train" and others:
        remedies.append(f"train on {others[0]} alone, of which a share is held out: --dataset_name {base / others[0]}")
    if len(silent) == len(names):
        remedies.append(f"if these are the classes themselves, name them: {shlex.join(['--labels', *names])}")
    shown = ", ".join(f"{folder.name}/ ({folder.clips} clips)" for folder in silent)
    return DataError(
        f"{base}: by the name a split, but its clips lie in no class folder, so that nothing says their labels: {shown}. One of "
        f"these helps: {'; '.join(remedies)}."
    )


def _left_out(base: Path, found: list[Subfolder], splits: list[Subfolder], data: DataArguments) -> str:
    """In words, which clips of a folder of splits are in none of them; nothing if all are."""
    lost = [f"{folder.name}/ ({folder.clips} clips)" for folder in found if folder.clips and folder not in splits]
    loose = len(_clips_in(base))
    lost += [f"{loose} clips beside the folders"] if loose else []
    why = "which no class folder gives a label" if data.labelled else "which is in neither"
    return f", without {names_in_short(lost)}, {why}" if lost else ""


def _read_split(folder: Subfolder, data: DataArguments) -> ClipTable:
    """Clips of the folder of a split, which says the split of each unless a column was named that does."""
    by_column = data.split_column_name != DEFAULT_SPLIT_COLUMN
    if by_column and folder.table is None:
        raise DataError(
            f"split_column_name={data.split_column_name!r} was given, but the clips of {folder.path} stand in no table. Leave out "
            f"--split_column_name, or write {folder.path / METADATA_FILES[0]} with that column."
        )
    table = _read_clips(folder.path, data) if folder.table is None else read_table(folder.table, data)
    if "split" in table.columns and by_column:
        return table
    return replace(table, columns=table.columns | {"split": [folder.name] * len(table.columns["label"])})


def _read_clips(base: Path, data: DataArguments) -> ClipTable:
    """Clips below a folder per class or, where no labels are read, wherever they lie."""
    if data.labelled:
        return _read_class_folders(base)
    paths = search_folder(base)[0]
    for path in paths:
        _refuse_other_encodings(path)
    if not paths:
        raise DataError(
            f"{base} and the folders below it hold no audio file ({suffixes_in_words()}). Pass another --dataset_name."
        )
    return ClipTable({"audio": list(map(str, paths)), "label": [None] * len(paths)})


def _read_class_folders(base: Path) -> ClipTable:
    """Clips below a folder per class."""
    columns: dict[str, list] = defaultdict(list)
    for path in search_folder(base)[0]:
        _refuse_other_encodings(path)
        label, *rest = path.relative_to(base).parts
        if len(rest) != 1:
            where = f"{len(rest)} folders deep" if rest else "in no class folder"
            tracks = tracks_beside([path])
            marks = f" {tracks[0]} lies beside it: {ADVICE}." if tracks else ""
            raise DataError(
                f"{path} lies {where}. Expected {base}/CLASS/{path.name}: move it, or pass a table of files and labels "
                f"as --dataset_name; folders of splits are named with --train_split_name and --eval_split_name.{marks}"
            )
        columns["audio"].append(str(path))
        columns["label"].append(label)
    if not columns:
        raise DataError(
            f"{base} holds no audio file ({suffixes_in_words()}). Expected a folder per class with clips in "
            "it, or a metadata.csv with the columns file_name and label. Pass another --dataset_name."
        )
    return ClipTable(columns)


def _refuse_other_encodings(path: Path):
    """Refuse a name that no text can hold: file systems take any bytes, columns and summaries UTF-8."""
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        raise DataError(
            f"The name {ascii(str(path))} is not in UTF-8, as those of audio files and their folders have to be. Rename it."
        ) from error


def _is_audio(name: str) -> bool:
    return not name.startswith(".") and Path(name).suffix.lower() in AUDIO_SUFFIXES
