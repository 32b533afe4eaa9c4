"""A whole small training beside its rivals, each in a process of its own: ten epochs on the drums, scored and saved each.

    pip install --no-deps --target runs/bioamla bioamla==0.2.14 python-dotenv==1.2.1 librosa==0.11.0 lazy_loader==0.6
    python -m benchmarks.ten_epochs [--bioamla runs/bioamla] [--rounds 3]

Three sides train the same clips from the same weights, with the same batch size, learning rate and schedule, without
augmentation, and score the same clips, of long ones the beginning, as that is what the rivals hear: `ast-finetune`; `train_ast` of bioamla 0.2.14, which trains AST from a folder of classes
with stock `Trainer`; and plain stock `Trainer` with features computed on the fly. What counts is the whole call, from the
folder of clips to the saved model; imports do not. Of bioamla's dependencies only those are
installed that it imports here and this project does not have; its `evaluate.load` fetches from the Hub, in whose place stand
the functions of scikit-learn that it would call.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

ROOT = Path(__file__).parents[1]
DRUMS = ROOT / "finetune" / "sample_data" / "drums"
RECIPE = ROOT / "finetune" / "recipes" / "drums_from_scratch.yaml"
EPOCHS, BATCH, LEARNING_RATE = 10, 32, 5e-4
SIDES = ("ast-finetune", "bioamla", "stock Trainer")
LONGEST = 600  # seconds of one training


@dataclass(frozen=True)
class Cost:
    """What a training took.

    Args:
        seconds (`float`): of the clock.
        processor_seconds (`float`): of the process and those that it started.
        accuracy (`float`): on the held-out kit.
    """

    seconds: float
    processor_seconds: float
    accuracy: float


def write_start(folder: Path):
    """Write the checkpoint that all sides start from.

    Args:
        folder (`Path`): made if it is not there.
    """
    import torch
    import yaml

    from finetune.arguments.model_arguments import SIZE_FIELDS
    from modeling_ast import ASTConfig, ASTFeatureExtractor, ASTForAudioClassification

    fields = yaml.safe_load(RECIPE.read_text(encoding="utf-8"))
    labels = sorted(path.name for path in DRUMS.iterdir() if path.is_dir())
    names = dict(enumerate(labels))
    config = ASTConfig(
        id2label=names,
        label2id={label: index for index, label in names.items()},
        **{name: fields[name] for name in SIZE_FIELDS if name in fields},
    )
    torch.manual_seed(0)
    ASTForAudioClassification(config).save_pretrained(folder)
    ASTFeatureExtractor(max_length=config.max_length, num_mel_bins=config.num_mel_bins).save_pretrained(folder)


def train_here(start: Path, output: Path, *flags: str) -> Callable[[], float]:
    """`ast-finetune`, ready to be called.

    Args:
        start (`Path`): checkpoint to start from.
        output (`Path`): folder of the run.
        flags (`str`): further ones.

    Returns:
        What trains and gives the accuracy.
    """
    from finetune.run_finetune import main

    def train() -> float:
        settings = {
            "dataset_name": DRUMS, "output_dir": output, "model_name_or_path": start, "num_train_epochs": EPOCHS,
            "per_device_train_batch_size": BATCH, "learning_rate": LEARNING_RATE, "lr_scheduler_type": "linear",
            "eval_strategy": "epoch", "save_strategy": "epoch", "disable_tqdm": True, "use_cpu": True,
            "clip_windows": "beginning",
        }  # fmt: skip
        if main([*(f"--{name}={value}" for name, value in settings.items()), *flags]) != 0:
            raise RuntimeError("ast-finetune did not end well")
        return json.loads((output / "run_summary.json").read_text())["evaluation"]["metrics"]["accuracy"]

    return train


def train_by_bioamla(start: Path, output: Path) -> Callable[[], float]:
    """`train_ast` of bioamla, ready to be called; see [`train_here`].

    Args:
        start (`Path`): checkpoint to start from.
        output (`Path`): folder of the run.

    Returns:
        What trains and gives the accuracy.
    """
    import evaluate
    import pandas
    from bioamla.ml.training import train_ast

    evaluate.load = _LocalMetric
    pandas.set_option("future.infer_string", False)  # its tables of paths need the strings of pandas 2

    def train() -> float:
        return train_ast(
            train_dataset=str(DRUMS),
            training_dir=str(output),
            base_model=str(start),
            learning_rate=LEARNING_RATE,
            num_train_epochs=EPOCHS,
            per_device_train_batch_size=BATCH,
            load_best_model_at_end=False,
            report_to="none",
            dataloader_num_workers=0,
        ).final_accuracy

    return train


class _LocalMetric:
    """What `evaluate.load` gives, computed by scikit-learn, which the metrics of the Hub call."""

    def __init__(self, name: str):
        from sklearn import metrics

        self.name, self.function = name, getattr(metrics, f"{name}_score")

    def compute(self, predictions, references, **kwargs) -> dict[str, float]:
        return {self.name: float(self.function(references, predictions, **kwargs))}


def train_by_stock(start: Path, output: Path) -> Callable[[], float]:
    """Plain `Trainer` of stock Transformers, ready to be called; see [`train_here`].

    Args:
        start (`Path`): checkpoint to start from.
        output (`Path`): folder of the run.

    Returns:
        What trains and gives the accuracy.
    """
    import datasets
    import numpy as np
    from transformers import ASTFeatureExtractor, ASTForAudioClassification, Trainer, TrainingArguments

    def train() -> float:
        table = datasets.load_dataset("csv", data_files=str(DRUMS / "metadata.csv"), split="train")
        model = ASTForAudioClassification.from_pretrained(start)
        extractor = ASTFeatureExtractor.from_pretrained(start)
        table = table.map(lambda row: {"audio": str(DRUMS / row["file_name"])}, remove_columns=["file_name"])
        table = table.cast_column("audio", datasets.Audio(sampling_rate=extractor.sampling_rate))

        def features(rows: dict) -> dict:
            waveforms = [audio["array"] for audio in rows["audio"]]
            inputs = extractor(waveforms, sampling_rate=extractor.sampling_rate, return_tensors="pt")
            return {
                "input_values": inputs.input_values,
                "labels": [model.config.label2id[name] for name in rows["label"]],
            }

        sides = {side: table.filter(lambda row, side=side: row["split"] == side) for side in ("train", "test")}
        for rows in sides.values():
            rows.set_transform(features)
        arguments = TrainingArguments(
            output_dir=str(output),
            num_train_epochs=EPOCHS,
            per_device_train_batch_size=BATCH,
            learning_rate=LEARNING_RATE,
            eval_strategy="epoch",
            save_strategy="epoch",
            report_to="none",
            remove_unused_columns=False,
            disable_tqdm=True,
            use_cpu=True,
        )
        trainer = Trainer(
            model=model,
            args=arguments,
            train_dataset=sides["train"],
            eval_dataset=sides["test"],
            compute_metrics=lambda found: {
                "accuracy": float(np.mean(found.predictions.argmax(axis=1) == found.label_ids))
            },
        )
        trainer.train()
        trainer.save_model(str(output / "model"))
        return trainer.state.log_history[-2]["eval_accuracy"]

    return train


def train_in_this_process(side: str, start: Path, output: Path, flags: list[str]) -> Cost:
    """Train, and measure it.

    Args:
        side (`str`): one of `SIDES`.
        start (`Path`): checkpoint to start from.
        output (`Path`): folder of the run.
        flags (`list[str]`): further ones of `ast-finetune`.

    Returns:
        [`Cost`].
    """
    if side == "ast-finetune":
        train = train_here(start, output, *flags)
    else:
        train = (train_by_bioamla if side == "bioamla" else train_by_stock)(start, output)
    begun, used = time.perf_counter(), _processor_seconds()
    accuracy = train()
    return Cost(time.perf_counter() - begun, _processor_seconds() - used, accuracy)


def _processor_seconds() -> float:
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def measure(side: str, start: Path, output: Path, bioamla: Path | None = None, flags: tuple[str, ...] = ()) -> Cost:
    """Train in a new process, and measure it.

    Args:
        side (`str`): one of `SIDES`.
        start (`Path`): checkpoint to start from.
        output (`Path`): folder of the run, not there yet.
        bioamla (`Path`, *optional*): folder in which it is installed.
        flags (`tuple[str, ...]`): further ones of `ast-finetune`.

    Returns:
        [`Cost`].

    Raises:
        RuntimeError: if the training ends with an error.
    """
    paths = [
        str(ROOT),
        *([str(bioamla.resolve())] if bioamla else []),
    ]  # at the end, what is installed here comes first
    command = [sys.executable, "-m", "benchmarks.ten_epochs", "--side", side, "--start", start, "--output", output]
    with tempfile.TemporaryDirectory() as cache:  # what `datasets` keeps of one training must not help the next
        done = subprocess.run(
            [str(word) for word in (*command, *(f"--flag={flag}" for flag in flags))],
            capture_output=True,
            text=True,
            timeout=LONGEST,
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(paths), "HF_DATASETS_CACHE": cache},
        )
    if done.returncode:
        raise RuntimeError(f"{side} ended with {done.returncode}: {done.stderr.strip()[-500:]}")
    return Cost(**json.loads(done.stdout.splitlines()[-1]))


def compare(
    folder: Path, rounds: int, bioamla: Path | None = None, flags: tuple[str, ...] = ()
) -> dict[str, list[Cost]]:
    """Train with each side in turn, after a round that warms up the disk and compiled code.

    Args:
        folder (`Path`): for the runs.
        rounds (`int`): how often; each begins with another side.
        bioamla (`Path`, *optional*): folder in which it is installed; left out if not given.
        flags (`tuple[str, ...]`): further ones of `ast-finetune`.

    Returns:
        `dict`: what each round took, by side.
    """
    start = folder / "start"
    write_start(start)
    sides = [side for side in SIDES if bioamla or side != "bioamla"]
    costs: dict[str, list[Cost]] = {side: [] for side in sides}
    for number in range(rounds + 1):
        turn = number % len(sides)
        for side in sides[turn:] + sides[:turn]:
            output = folder / f"{side.replace(' ', '_')}_{number}"
            cost = measure(side, start, output, bioamla, flags)
            if number:
                costs[side].append(cost)
    return costs


def ratio(costs: dict[str, list[Cost]], peer: str, field: str = "seconds") -> float:
    """Tell how much longer a peer takes.

    Args:
        costs (`dict`): from [`compare`].
        peer (`str`): one of `SIDES`.
        field (`str`): `"seconds"` or `"processor_seconds"`.

    Returns:
        `float`: median over the rounds.
    """
    pairs = zip(costs[peer], costs["ast-finetune"], strict=True)
    return statistics.median(getattr(theirs, field) / getattr(ours, field) for theirs, ours in pairs)


def in_words(costs: dict[str, list[Cost]]) -> str:
    """Write what each side took.

    Args:
        costs (`dict`): from [`compare`].

    Returns:
        `str`: medians, side by side.
    """

    def middle(side: str, field: str) -> float:
        return statistics.median(getattr(cost, field) for cost in costs[side])

    return "; ".join(
        f"{side} {middle(side, 'seconds'):.1f} s ({middle(side, 'processor_seconds'):.1f} of processors, accuracy "
        f"{middle(side, 'accuracy'):.2f})"
        for side in costs
    )


def main(argv: list[str] | None = None) -> int:
    """Compare the sides and print what they took, or train one of them.

    Args:
        argv (`list[str]`, *optional*): the command line.

    Returns:
        `int`: 0.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bioamla", type=Path, help="folder in which bioamla 0.2.14 is installed; left out without")
    parser.add_argument("--rounds", type=int, default=3, help="trainings of each side, after one that does not count")
    parser.add_argument("--flag", action="append", default=[], help="a further flag of ast-finetune, as --flag=--x=1")
    for name, kind in (("--side", str), ("--start", Path), ("--output", Path)):
        parser.add_argument(name, type=kind, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.side:
        print(json.dumps(asdict(train_in_this_process(args.side, args.start, args.output, args.flag))))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        costs = compare(Path(folder), args.rounds, args.bioamla, tuple(args.flag))
    print(in_words(costs))
    for peer in list(costs)[1:]:
        processors = ratio(costs, peer, "processor_seconds")
        print(f"{peer}: {ratio(costs, peer):.2f} times the seconds, {processors:.2f} times the processor seconds")
    return 0


if __name__ == "__main__":
    sys.exit(main())
