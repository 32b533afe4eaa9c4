"""Splits as a run has them after its checks."""

from pathlib import Path

from finetune.arguments.groups import DataArguments
from finetune.clip_sets.audio_clips import check_splits
from finetune.clip_sets.clip_datasets import clip_sets
from finetune.sources.splits import load_splits
from modeling_ast.audio import AudioReader


def load(source, **fields):
    """Load the splits of a folder or table, and check them; with the words on both."""
    data = DataArguments(dataset_name=str(source), **fields)
    splits, method = load_splits(data, seed=0)
    splits, notes = check_splits(clip_sets(splits), data, AudioReader(), 16_000)
    return {side: split.rows for side, split in splits.items()}, "; ".join([method, *notes])


def names_of(split):
    """Tell the names of a split's files, with the folder that they are in."""
    return {str(Path(audio["path"]).relative_to(Path(audio["path"]).parents[1])) for audio in split["audio"]}
