"""The recordings of a `datasets` data set as what is tagged: each by a name, undecoded, and read when its turn comes."""

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from ..audio.errors import AudioError
from ..audio.files import search_folder
from ..audio.saved_data_sets import SavedDataSetError, is_saved_data_set, load_saved
from ..system.installation import install_command
from ..system.regular_files import SpecialFileError, refuse_special
from ..system.surroundings import hub_hint
from .unfinished import states_of

ROWS_AT_ONCE = 1000  # whose names are read together


class DataSetAudio:
    """The recordings of one split.

    Args:
        rows (`datasets.Dataset`): with one undecoded column of audio.
        column (`str`): its name.

    Attributes:
        files (`list[Path]`): what each row is called: the path of its file, or of what is stored in the data set itself the name that is
            stored with it; with the number of the row before it, where not all have one of their own.
    """

    def __init__(self, rows, column: str):
        self.rows, self.column = rows, column
        paths, self._sizes = _paths_and_sizes(rows, column)
        names = [
            path if size is None else os.path.basename(path or "")
            for path, size in zip(paths, self._sizes, strict=True)
        ]
        counts = Counter(names)
        stored = [name for name, size in zip(names, self._sizes, strict=True) if size is not None]
        if not all(stored) or any(counts[name] > 1 for name in stored) or None in names:
            digits = len(str(len(names)))
            names = [
                name if name and size is None else "_".join(filter(None, (f"{row:0{digits}}", name)))
                for row, (name, size) in enumerate(zip(names, self._sizes, strict=True))
            ]
        self.files = [Path(name) for name in names]
        self._row = {str(file): row for row, file in enumerate(self.files)}

    def sources(self, files: Iterable[Path]) -> Iterator[str | dict]:
        """Read recordings as they are wanted.

        Args:
            files (iterable of `Path`): of `files`.

        Yields:
            What [`AudioTagger.tag_files`] takes: a path, or `{"bytes", "path"}`.
        """
        for file in files:
            audio = self.rows[self._row[str(file)]][self.column] or {"bytes": None, "path": None}
            if audio["bytes"] is None and audio["path"]:
                yield audio["path"]
            else:
                yield {"bytes": audio["bytes"] or b"", "path": str(file)}  # a row without audio is as an empty file

    def states(self, files: Sequence[Path]) -> list:
        """Look at recordings as [`states_of`] does.

        Args:
            files (sequence of `Path`): of `files`.

        Returns:
            Of each its name, its size in bytes, and when its file was changed, or what tells the data set from others.
        """
        states = []
        for file in files:
            size = self._sizes[self._row[str(file)]]
            states += states_of([file]) if size is None else [[str(file), size, self.rows._fingerprint]]
        return states


def load_data_set(
    name: str, configuration: str | None = None, split: str | None = None, column: str | None = None
) -> DataSetAudio:
    """Load a split of a data set, without decoding it.

    Args:
        name (`str`): an id on the Hub, a folder laid out like a data set there, or one that `save_to_disk` has written.
        configuration (`str`, *optional*): which of several.
        split (`str`, *optional*): which of several.
        column (`str`, *optional*): which holds audio, if there are several.

    Returns:
        [`DataSetAudio`].

    Raises:
        AudioError: if it cannot be loaded, or split or column have to be named, or hold no audio.
    """
    loaded = _loaded(name, configuration)
    if Path(name).is_dir():
        _refuse_left_out(Path(name), loaded)
    rows = _one_split(loaded, name, split)
    column = _audio_column(rows, name, column)
    return DataSetAudio(_undecoded(rows.with_format(None).select_columns([column]), name, column), column)


def _loaded(name: str, configuration: str | None):
    try:
        import datasets
    except ImportError:
        raise AudioError(
            f"--dataset_name {name}: the package datasets is not installed here. Type: {install_command()}"
        ) from None
    folder = Path(name)
    try:
        refuse_special(folder)
        if is_saved_data_set(folder):
            return load_saved(folder)
        return datasets.load_dataset(name, configuration)
    except SavedDataSetError as error:
        raise AudioError(str(error)) from error
    except SpecialFileError as error:
        raise AudioError(f"--dataset_name: {error}") from error
    # Of several configurations a ValueError lists them; a data set with a script of its own is a RuntimeError.
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        hint = hub_hint(is_here=folder.exists())
        raise AudioError(
            f"--dataset_name {name} is neither a data set here nor one that the Hub gives ({str(error).splitlines()[0]}). Check the name, and "
            f"--dataset_config_name.{hint}"
        ) from error


def _refuse_left_out(folder: Path, loaded):
    """Refuse a folder of files of which `datasets` takes a part, as it does where one is called like a split."""
    import datasets

    splits = loaded.values() if isinstance(loaded, dict) else [loaded]
    if not all(isinstance(rows.features.get("audio"), datasets.Audio) for rows in splits):
        return
    files = {os.path.realpath(file) for file in search_folder(folder)[0]}
    taken = {
        os.path.realpath(path)
        for rows in splits
        for path in _paths_and_sizes(
            _undecoded(rows.with_format(None).select_columns(["audio"]), str(folder), "audio"), "audio"
        )[0]
        if path
    }
    left_out = sorted(files - taken) if files & taken else []
    if left_out:
        raise AudioError(
            f"As a data set {folder} has {len(files & taken)} of its {len(files)} recordings, without {left_out[0]} and others. Tag the folder itself: "
            f"leave --dataset_name out and write {folder}."
        )


def _one_split(loaded, name: str, split: str | None):
    if not isinstance(loaded, dict):
        if split is not None:
            raise AudioError(f"--split_name {split}: {name} has no splits. Leave it out.")
        return loaded
    if split is None and len(loaded) > 1:
        raise AudioError(f"{name} has the splits {', '.join(map(str, loaded))}. Pass --split_name with one of them.")
    if split is not None and split not in loaded:
        raise AudioError(
            f"{name} has no split {split!r}; it has {', '.join(map(str, loaded))}. Pass --split_name with one of them."
        )
    return next(iter(loaded.values())) if split is None else loaded[split]


def _audio_column(rows, name: str, column: str | None) -> str:
    import datasets

    if column is not None and column not in rows.column_names:
        raise AudioError(
            f"{name} has no column {column!r}; it has {', '.join(rows.column_names)}. Pass --audio_column_name with one of them."
        )
    of_audio = [key for key, kind in rows.features.items() if isinstance(kind, datasets.Audio)]
    if column is None and len(of_audio) != 1:
        found = (
            f"the columns of audio {', '.join(of_audio)}"
            if of_audio
            else f"no column of audio, but {', '.join(rows.column_names)}"
        )
        raise AudioError(f"{name} has {found}. Pass --audio_column_name with the one to tag.")
    return column or of_audio[0]


def _undecoded(rows, name: str, column: str):
    import datasets
    import pyarrow

    narrow = {"large_string": "string", "large_binary": "binary"}.get(getattr(rows.features[column], "dtype", None))
    try:
        if narrow is not None:  # which `Audio` does not take
            rows = rows.cast_column(column, datasets.Value(narrow))
        return rows.cast_column(column, datasets.Audio(decode=False))
    except (TypeError, ValueError, pyarrow.ArrowException) as error:
        raise AudioError(
            f"The column {column!r} of {name} holds {rows.features[column]}, expected datasets.Audio, or paths or bytes of files. "
            "Pass another --audio_column_name."
        ) from error


def _paths_and_sizes(rows, column: str) -> tuple[list[str | None], list[int | None]]:
    """The path of each row, and how many bytes of audio it holds itself; they are not read for it."""
    import pyarrow.compute as compute

    paths, sizes = [], []
    for batch in rows.with_format("arrow").iter(ROWS_AT_ONCE):
        audio = batch[column]
        paths += compute.struct_field(audio, "path").to_pylist()
        sizes += compute.binary_length(compute.struct_field(audio, "bytes")).to_pylist()
    return paths, sizes
