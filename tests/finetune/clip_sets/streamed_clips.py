"""What the tests of streams share: a tiny recipe, and tables of clips in every form."""

from pathlib import Path

import pandas as pd

from finetune.arguments.groups import DataArguments
from finetune.clip_sets.clip_datasets import clip_dataset
from finetune.clip_sets.streaming import load_streams
from modeling_ast import ASTFeatureExtractor

TINY = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64,
    "frequency_stride": 16, "time_stride": 16, "max_length": 96,
    "num_train_epochs": 2, "per_device_train_batch_size": 8, "learning_rate": 1.0e-3, "disable_tqdm": True,
    "mixup_probability": 0.5, "max_time_mask": 24, "noise_strength": 0.1, "max_roll": 4, "use_cpu": True,
    "hidden_dropout_prob": 0.1, "streaming": True, "shuffle_buffer": 12,
}  # fmt: skip


def content(row: dict) -> bytes:
    return Path(row["path"]).read_bytes()


def write(folder: Path, form: str, rows: list[dict], name: str = "clips") -> Path:
    """A table of these clips: with paths, or (as Parquet) with the audio itself in one row group."""
    path = folder / f"{name}.{form}"
    frame = pd.DataFrame([{key: row[key] for key in ("path", "label", "split", "license")} for row in rows])
    if form == "parquet":
        frame["audio"] = [{"bytes": content(row), "path": row["file_name"]} for row in rows]
        frame.drop(columns="path").to_parquet(path)
    elif form == "jsonl":
        frame.to_json(path, orient="records", lines=True)
    else:
        frame.to_csv(path, sep="\t" if form == "tsv" else ",", index=False)
    return path


def arguments(**given) -> DataArguments:
    return DataArguments(streaming=True, **given)


def streamed(path, augmentation=None, buffer=1000):
    streams, _ = load_streams(arguments(dataset_name=str(path), shuffle_buffer=buffer))
    return clip_dataset(streams["train"], ASTFeatureExtractor(max_length=96), augmentation, seed=5)
