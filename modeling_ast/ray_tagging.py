"""Tag clips on a cluster: [`TagClips`] is what Ray Data calls with batches of paths or bytes, in as many workers as are wanted.

    import ray
    from modeling_ast.ray_tagging import tag_on_ray

    paths = ray.data.read_text("s3://bucket/list.txt").rename_columns({"text": "path"})
    tag_on_ray(paths, "runs/drums", workers=8).write_parquet("s3://bucket/tags")

It is the engine of `ast-tag`. Paths are of any storage that fsspec knows. Ray starts a worker that died again and repeats its batch;
what a batch gives depends on its rows and settings alone. Needs `pip install -e '.[ray]'` in the kit's checkout, on each machine of the cluster.

Source: the contract of `ray.data.Dataset.map_batches` with a class, Ray 2.
"""

import os
from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from .tagging.errors import TaggingError
from .tagging.results import FileTags

PATH, BYTES = "path", "bytes"  # columns that are read; one of them is enough
# Columns that are written. A column without a value in a batch, of errors where there are none, would else be of no type, and the
# files that Ray writes of several batches no table.
TYPES = {
    "labels": pa.list_(pa.string()),
    "scores": pa.list_(pa.float64()),
    "error": pa.string(),
    "notes": pa.list_(pa.string()),
    "segments": pa.list_(
        pa.struct({"start": pa.float64(), "end": pa.float64(), "label": pa.string(), "score": pa.float64()})
    ),
    "embedding_times": pa.list_(pa.list_(pa.float64())),
}
GIVEN = {*TYPES, "embeddings"}


class TagClips:
    """A callable class for `map_batches`: a batch of clips in, a row of results for each out, in the same order.

    Args:
        model_name_or_path (`str` or `os.PathLike`): see [`AudioTagger.from_pretrained`]; a folder has to be on every machine.
        device (`str`, *optional*, defaults to `"auto"`): see [`AudioTagger`].
        float16 (`bool`, *optional*, defaults to `False`): whether vectors are given in half precision.
        settings: of [`AudioTagger.tag_files`], but for `each_channel`, `faint` and `progress`.

    Raises:
        CheckpointError, TaggingError: see [`AudioTagger.from_pretrained`].
    """

    def __init__(self, model_name_or_path: str | os.PathLike, device: str = "auto", float16: bool = False, **settings):
        from .tagging.tagger import AudioTagger

        self.tagger = AudioTagger.from_pretrained(model_name_or_path, device, frame_heads=True)
        self.dtype, self.settings = np.float16 if float16 else np.float32, settings

    def __call__(self, batch: Mapping[str, np.ndarray]) -> pa.Table:
        """Tag a batch.

        Args:
            batch (mapping of `str` to `np.ndarray` of shape `(clips,)`): columns `path`, names of files on any storage of fsspec,
                or `bytes`, the contents of files, or both; others are passed on.

        Returns:
            `pyarrow.Table` with a row for each clip: the batch's columns but for `bytes`; and, of types that do not depend on what
            became of the clips, `labels` and `scores`, best first; `error`, why it could not be tagged, or `None`; `notes`, what was
            not heard of it; `segments` with a time line, and
            `embeddings` and their `embedding_times` in seconds, if they are asked for.

        Raises:
            TaggingError: if there is neither column, one has the name of a result, or a setting cannot be used with the model.
        """
        if PATH not in batch and BYTES not in batch:
            raise TaggingError(
                f"The batch has columns {', '.join(batch)}, expected {PATH!r} or {BYTES!r}. Rename one: rename_columns."
            )
        if lost := sorted(batch.keys() & GIVEN):
            raise TaggingError(
                f"The batch has a column {', '.join(lost)}, where results go. Rename it first: rename_columns."
            )
        number = len(next(iter(batch.values())))
        names = [str(name) for name in batch[PATH]] if PATH in batch else [f"clip {row}" for row in range(number)]
        if BYTES in batch:
            sources = [
                OSError("there are no bytes") if content is None else {"bytes": bytes(content), "path": name}
                for content, name in zip(batch[BYTES], names, strict=True)
            ]
        else:
            sources = [fetched(name) for name in names]
        heard = self.tagger.tag_files([each for each in sources if not isinstance(each, OSError)], **self.settings)
        results = [
            FileTags(name, [], error=f"{name} cannot be read: {each}") if isinstance(each, OSError) else next(heard)
            for name, each in zip(names, sources, strict=True)
        ]
        passed = {name: _as_given(np.asarray(column)) for name, column in batch.items() if name != BYTES}
        types = TYPES | {"embeddings": pa.list_(pa.list_(pa.from_numpy_dtype(self.dtype)))}
        found = {name: pa.array(column, types[name]) for name, column in self._columns(results).items()}
        return pa.table(passed | found)

    def _columns(self, results: list[FileTags]) -> dict[str, list]:
        columns = {
            "labels": [[tag.label for tag in result.labels] for result in results],
            "scores": [[tag.score for tag in result.labels] for result in results],
            "error": [result.error for result in results],
            "notes": [[note.text for note in result.notes] for result in results],
        }
        if self.settings.get("timeline"):
            keys = ("start", "end", "label", "score")
            columns["segments"] = [
                [{key: getattr(segment, key) for key in keys} for segment in result.segments or []]
                for result in results
            ]
        if self.settings.get("embeddings") is not None:
            given = [result.embeddings for result in results]
            columns["embeddings"] = [[] if each is None else list(each.vectors.astype(self.dtype)) for each in given]
            columns["embedding_times"] = [[] if each is None else each.times.tolist() for each in given]
        return columns


def _as_given(column: np.ndarray) -> pa.Array:
    """A column that is passed on, with its type; tensors become lists."""
    if column.ndim == 1 and column.dtype != object:
        return pa.array(column)
    return pa.array([value.tolist() if isinstance(value, np.ndarray) else value for value in column])


def fetched(path: str) -> dict | str | OSError:
    """Read a file of any storage; a local one is left to whoever hears it block by block.

    Args:
        path (`str`): an address that fsspec knows, such as `s3://bucket/clip.flac`, or a local file.

    Returns:
        `{"bytes", "path"}`, or the path of a local file; why it cannot be read, if that is so.
    """
    if "://" not in path:
        return path
    import fsspec

    try:
        with fsspec.open(path, "rb") as file:
            return {"bytes": file.read(), "path": path}
    except Exception as error:  # each storage has errors of its own, and an unknown one is a ValueError
        return error if isinstance(error, OSError) else OSError(f"{type(error).__name__}: {error}")


def tag_on_ray(
    clips,
    model_name_or_path: str | os.PathLike,
    workers: int = 1,
    batch_size: int = 256,
    num_cpus: float = 1,
    num_gpus: float = 0,
    **settings,
):
    """Have Ray's workers tag a data set.

    Args:
        clips (`ray.data.Dataset`): with a column `path` or `bytes`.
        model_name_or_path (`str` or `os.PathLike`): see [`TagClips`].
        workers (`int`, defaults to 1): how many load the model, each once.
        batch_size (`int`, defaults to 256): clips that a worker tags at a time.
        num_cpus (`float`, defaults to 1): processors of a worker, which Ray gives it as threads.
        num_gpus (`float`, defaults to 0): GPUs of a worker, or parts of one.
        settings: of [`TagClips`].

    Returns:
        `ray.data.Dataset`: nothing is tagged before it is written or taken.
    """
    from ray.data import ActorPoolStrategy

    device = {} if "device" in settings else {"device": "cuda" if num_gpus else "cpu"}
    return clips.map_batches(
        TagClips,
        fn_constructor_args=(os.fspath(model_name_or_path),),
        fn_constructor_kwargs=settings | device,
        batch_size=batch_size,
        compute=ActorPoolStrategy(size=workers),
        num_cpus=num_cpus,
        num_gpus=num_gpus,
    )
