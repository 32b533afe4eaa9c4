"""`ast-finetune`: audio files in, a publishable AST checkpoint out.

The stages of [`main`] stand below it in the order in which they are called; each can be imported and used alone.
"""

import json
import os
import shutil
import sys
from dataclasses import asdict
from pathlib import Path

import datasets
import numpy as np
import torch
import yaml
from accelerate import PartialState
from transformers import EvalPrediction, set_seed
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR
from transformers.utils import logging

from model_card.figures import plot_confusion_matrix, plot_spectrogram_with_prediction, plot_training_curve
from model_card.render import write_model_card
from model_card.run_summary import RUN_SUMMARY_NAME, features_section, write_run_summary
from modeling_ast import ASTConfig, ASTFeatureExtractor, ASTForAudioClassification
from modeling_ast.atomic_files import open_atomically, sync
from modeling_ast.audio import AudioError
from modeling_ast.log_mel import num_samples
from modeling_ast.tagging import check_model_name, scores_from_logits

from . import run_summary
from .arguments import (
    ASTTrainingArguments,
    AugmentationArguments,
    DataArguments,
    ModelArguments,
    merged_recipe,
    parse_arguments,
)
from .augmentation import Augmentation
from .collator import ASTDataCollator, model_inputs
from .data import ASTDataset, check_splits, load_splits
from .metrics import ASTMetrics, confusion, per_class_table
from .normalization import MAX_CLIPS, measure_normalization
from .trainer import IDENTITY_NAME, UNFINISHED, ASTTrainer

RECIPE_NAME = "recipe.yaml"
TRAINING_CURVE_NAME = "training_curve.png"
CONFUSION_MATRIX_NAME = "confusion_matrix.png"
SPECTROGRAM_NAME = "spectrogram.png"
# What a run leaves in its folder beside checkpoint-N and the run summary, which tell that there is one.
PRODUCTS = (
    RECIPE_NAME,
    "config.json",
    "model.safetensors",
    "preprocessor_config.json",
    "README.md",
    TRAINING_CURVE_NAME,
    CONFUSION_MATRIX_NAME,
    SPECTROGRAM_NAME,
)
PROBLEM_TYPE = "single_label_classification"


def main(argv: list[str] | None = None) -> int:
    """Run from the command line; see `ast-finetune --help`."""
    argv = sys.argv[1:] if argv is None else argv
    logging.set_verbosity_error()
    logging.disable_progress_bar()  # of loading and saving; training has its own
    datasets.disable_progress_bars()
    try:  # what is wrong with the input is found here, before training
        arguments = parse_arguments(argv)
        model_args, data_args, augmentation_args, _, training_args = arguments
        recipe = merged_recipe(argv)
        set_seed(training_args.seed)
        resume_from = check_output_dir(training_args, model_args, data_args)
        feature_extractor = build_feature_extractor(model_args)
        splits, split_method, notes = prepare_data(data_args, feature_extractor, training_args.seed)
        sizes = f"{len(splits['train'])} training clips, {len(splits['eval'])} to score"
        print_stage(1, "; ".join([f"data: {sizes}, split {split_method}", *notes]))

        train_dataset, eval_dataset = build_datasets(splits, feature_extractor, augmentation_args, training_args.seed)
        normalization = set_normalization(feature_extractor, train_dataset, model_args, data_args, training_args.seed)
        print_stage(
            2, f"features: mean {feature_extractor.mean:.4f}, std {feature_extractor.std:.4f}, {normalization}"
        )

        labels = splits["train"].features["label"].names
        model, origin = build_model(model_args, labels)
        print_stage(3, f"model: {model.num_parameters():,} parameters, {len(labels)} labels, {origin}")
        feature_extractor.padding = data_args.padding
        summary = describe_run(argv, arguments, splits, split_method, feature_extractor, normalization, model)
        identity = run_summary.identity(summary, splits)
        trainer = build_trainer(
            model, feature_extractor, train_dataset, eval_dataset, augmentation_args, training_args, identity
        )
        if resume_from:
            refuse_another_run(Path(resume_from), identity)
        else:
            clear_output_dir(training_args)
    except (ValueError, OSError, ImportError, RuntimeError) as error:
        print(f"ast-finetune: {error}", file=sys.stderr)
        return 2
    try:
        print_stage(4, f"training: {training_args.num_train_epochs:g} epochs on {training_args.device}")
        outcome = trainer.train(resume_from_checkpoint=resume_from)
        evaluation = evaluate(trainer, labels, data_args)
        print_stage(5, "score: " + "  ".join(f"{name} {value:.3f}" for name, value in evaluation["metrics"].items()))
    except (AudioError, DivergedError) as error:  # a bad file that the look up front did not meet; NaN
        message = str(error).rpartition(f"{AudioError.__name__}: ")[2].strip()  # a loader's worker adds its traceback
        print(f"ast-finetune: training stopped. {message}", file=sys.stderr)
        return 1
    summary |= {"history": run_summary.history_section(trainer.state.log_history), "evaluation": evaluation}
    if not resume_from:  # a resumed run knows only its own share of the time
        summary["time"] = run_summary.time_section(outcome.metrics)
    publish(trainer, recipe, summary)
    score = f"accuracy {evaluation['metrics']['accuracy']:.3f} on {evaluation['clips']} clips"
    print_stage(6, f"{training_args.output_dir}: {score}")
    return 0


class DivergedError(RuntimeError):
    """Training ended in a model whose scores are not numbers."""


def print_stage(number: int, message: str):
    """One numbered line per stage, printed by the main process only."""
    if PartialState().is_main_process:
        print(f"[{number}/6] {message}", flush=True)


def check_output_dir(args: ASTTrainingArguments, model_args: ModelArguments, data_args: DataArguments) -> str | None:
    """Refuse an output folder in which something would be lost. Nothing is removed yet.

    Args:
        args ([`ASTTrainingArguments`]): its `output_dir`, `overwrite_output_dir` and `resume_from_checkpoint`.
        model_args ([`ModelArguments`]): where the start checkpoint lies.
        data_args ([`DataArguments`]): where the clips lie.

    Returns:
        The checkpoint folder to resume from, if that was asked for.

    Raises:
        ValueError: if the folder holds a run, something else that the run would replace, or what the run is made
            from; if there is nothing to resume from.
    """
    folder = Path(args.output_dir)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file. Pass another --output_dir.")
    resume_from = _checkpoint_to_resume(args, folder) if args.resume_from_checkpoint else None
    if resume_from and Path(resume_from).resolve().parent == folder.resolve():
        return resume_from
    run = [path for path in (folder / RUN_SUMMARY_NAME, *checkpoints_in(folder)) if path.exists()]
    strangers = [folder / name for name in PRODUCTS if (folder / name).exists()]
    if run and not args.overwrite_output_dir:
        raise ValueError(
            f"{folder} already holds a run ({run[0].name} is there). Pass --overwrite_output_dir to replace it, "
            "--resume_from_checkpoint true to go on with it, or another --output_dir."
        )
    if strangers and not run:
        raise ValueError(
            f"{folder} holds a {strangers[0].name} that is not from a run of this kit and would be replaced. Pass another "
            "--output_dir."
        )
    for source in (model_args.model_name_or_path, data_args.dataset_name):
        if run and source and Path(source).exists() and Path(source).resolve().is_relative_to(folder.resolve()):
            raise ValueError(
                f"{source} lies in the output folder {folder}, whose run would be removed first. Pass another --output_dir."
            )
    return resume_from


def _checkpoint_to_resume(args: ASTTrainingArguments, folder: Path) -> str:
    if args.overwrite_output_dir:
        raise ValueError("Both resume_from_checkpoint and overwrite_output_dir were given. Pass only one of them.")
    wanted = Path(args.resume_from_checkpoint)
    if args.resume_from_checkpoint.lower() == "true":
        wanted = checkpoints_in(folder)[-1] if checkpoints_in(folder) else folder / f"{PREFIX_CHECKPOINT_DIR}-N"
    if not (wanted / TRAINER_STATE_NAME).is_file():
        raise ValueError(
            f"There is nothing to resume from: {wanted} holds no {TRAINER_STATE_NAME}. Pass --resume_from_checkpoint true "
            f"for the last {PREFIX_CHECKPOINT_DIR}-N in {folder}, or such a folder, or leave it out."
        )
    return str(wanted)


def checkpoints_in(folder: Path) -> list[Path]:
    """The folders `checkpoint-N` of a run, in the order of their steps."""
    found = [path for path in folder.glob(f"{PREFIX_CHECKPOINT_DIR}-*") if path.name.split("-")[1].isdigit()]
    return sorted(found, key=lambda path: int(path.name.split("-")[1]))


def refuse_another_run(checkpoint: Path, identity: dict):
    """Compare what a checkpoint was trained on with what this run would go on with.

    Raises:
        ValueError: if data, split, seed, sizes or augmentation differ; the message says which.
    """
    path = checkpoint / IDENTITY_NAME
    recorded = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    changed = [name for name in identity if recorded.get(name) != json.loads(json.dumps(identity[name]))]
    if changed:
        raise ValueError(
            f"{checkpoint} is from a run with other {', '.join(changed)}; going on would mix the two. Pass the flags and "
            "data of that run, or start anew without --resume_from_checkpoint."
        )


def clear_output_dir(args: ASTTrainingArguments):
    """Make the output folder and remove the run that it holds, and nothing else."""
    folder = Path(args.output_dir)
    if PartialState().is_main_process:
        for path in [
            *(folder / name for name in (RUN_SUMMARY_NAME, *PRODUCTS, UNFINISHED)),
            *checkpoints_in(folder),
        ]:
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        folder.mkdir(parents=True, exist_ok=True)
    PartialState().wait_for_everyone()


def prepare_data(
    data_args: DataArguments, feature_extractor: ASTFeatureExtractor, seed: int
) -> tuple[datasets.DatasetDict, str, list[str]]:
    """Load, split and check the clips.

    Returns:
        The splits, in words how they were made, and what else the user should know.

    Raises:
        DataError: see [`load_splits`] and [`check_splits`].
    """
    splits, split_method = load_splits(data_args, seed)
    sampling_rate = feature_extractor.sampling_rate
    longest = num_samples(feature_extractor.max_length, sampling_rate)
    splits, notes = check_splits(splits, data_args, sampling_rate, longest)
    return splits, split_method, notes


def build_feature_extractor(args: ModelArguments) -> ASTFeatureExtractor:
    """The checkpoint's feature extractor, or one of a new model, for inputs of the sizes that were given."""
    sizes = {name: size for name, size in args.sizes().items() if name in ("max_length", "num_mel_bins")}
    if args.model_name_or_path:
        check_model_name(args.model_name_or_path)
        return ASTFeatureExtractor.from_pretrained(args.model_name_or_path, **sizes)
    return ASTFeatureExtractor(**sizes)


def build_datasets(
    splits: datasets.DatasetDict,
    feature_extractor: ASTFeatureExtractor,
    augmentation: AugmentationArguments,
    seed: int,
) -> tuple[ASTDataset, ASTDataset]:
    """The training set, augmented, and the set that is scored."""
    sampling_rate = feature_extractor.sampling_rate
    longest = num_samples(feature_extractor.max_length, sampling_rate)
    train_dataset = ASTDataset(splits["train"], sampling_rate, longest, Augmentation(**asdict(augmentation)), seed)
    return train_dataset, ASTDataset(splits["eval"], sampling_rate, longest)


def set_normalization(
    feature_extractor: ASTFeatureExtractor,
    train_dataset: ASTDataset,
    model_args: ModelArguments,
    data_args: DataArguments,
    seed: int,
) -> str:
    """Set mean and standard deviation of the feature extractor as asked for; say in words how they were got.

    Raises:
        ValueError: if those of a checkpoint are wanted and there is none, or the clips are all silent.
    """
    given = data_args.normalization_statistics()
    if given:
        feature_extractor.mean, feature_extractor.std = given
        return "as given"
    if data_args.normalization == ["checkpoint"]:
        if not model_args.model_name_or_path:
            raise ValueError(
                "normalization='checkpoint' was given without a checkpoint. Pass --model_name_or_path, or "
                "--normalization measured."
            )
        return f"taken from {model_args.model_name_or_path}"
    chosen = np.random.default_rng(seed).permutation(len(train_dataset))[:MAX_CLIPS]
    measured = measure_normalization(train_dataset.waveforms(sorted(chosen.tolist())), feature_extractor)
    feature_extractor.mean, feature_extractor.std = measured.mean, measured.std
    return f"measured on {measured.clips} of {len(train_dataset)} training clips ({measured.frames} unpadded frames)"


def build_model(args: ModelArguments, labels: list[str]) -> tuple[ASTForAudioClassification, str]:
    """A new model, or a checkpoint, with a new classifier unless its labels are these in this order.

    Returns:
        The model, and in words where it comes from.
    """
    names = dict(enumerate(labels))
    settings = {
        "id2label": names,
        "label2id": {name: index for index, name in names.items()},
        "problem_type": PROBLEM_TYPE,
        "hidden_dropout_prob": args.hidden_dropout_prob,
        "attention_probs_dropout_prob": args.attention_probs_dropout_prob,
        "attn_implementation": args.attn_implementation,
    }
    start = args.model_name_or_path
    if not start:
        return ASTForAudioClassification(ASTConfig(**args.sizes(), **settings)), "random weights"
    trained_labels = ASTConfig.from_pretrained(start).id2label
    model, loading_info = ASTForAudioClassification.from_pretrained(
        start, dtype=torch.float32, output_loading_info=True, **settings, **args.sizes()
    )
    kept = trained_labels == names and "classifier.dense.weight" not in loading_info["missing_keys"]
    return model, f"from {start} with {'its' if kept else 'a new'} classifier"


def describe_run(
    argv: list[str],
    arguments: tuple,
    splits: datasets.DatasetDict,
    split_method: str,
    feature_extractor: ASTFeatureExtractor,
    normalization: str,
    model: ASTForAudioClassification,
) -> dict:
    """What is known of a run before it is trained, as sections of the run summary."""
    model_args, data_args, augmentation_args, _, training_args = arguments
    return run_summary.origin_section(argv, model_args.model_name_or_path) | {
        "seed": training_args.seed,
        "license": data_args.license,
        "data": run_summary.data_section(data_args, splits, split_method),
        "labels": splits["train"].features["label"].names,
        "problem_type": PROBLEM_TYPE,
        "features": features_section(feature_extractor, normalization),
        "model": run_summary.model_section(model),
        "training": run_summary.training_section(training_args, augmentation_args, data_args, model),
        "environment": run_summary.environment_section(training_args),
    }


def build_trainer(
    model: ASTForAudioClassification,
    feature_extractor: ASTFeatureExtractor,
    train_dataset: ASTDataset,
    eval_dataset: ASTDataset,
    augmentation: AugmentationArguments,
    args: ASTTrainingArguments,
    identity: dict,
) -> ASTTrainer:
    """The trainer, with the kit's metrics for evaluations in training; see [`ASTTrainer`] for `identity`."""
    metrics = ASTMetrics()

    def compute_metrics(prediction: EvalPrediction) -> dict[str, float]:
        return metrics.compute(predictions=_scores(prediction.predictions), references=prediction.label_ids)

    return ASTTrainer(
        model=model,
        args=args,
        train_dataset=train_dataset,
        eval_dataset=eval_dataset,
        data_collator=ASTDataCollator(feature_extractor, compute_features=False),
        compute_metrics=compute_metrics,
        feature_extractor=feature_extractor,
        augmentation=Augmentation(**asdict(augmentation)),
        identity=identity,
    )


def evaluate(trainer: ASTTrainer, labels: list[str], data_args: DataArguments) -> dict:
    """Score the held-out split, padded as the saved checkpoint pads.

    Returns:
        The section `evaluation` of the run summary. After a training with `padding="longest"` it also has the metrics
        of that way of padding, as the two differ.
    """
    longest = {}
    if data_args.padding == "longest":
        longest = {"metrics_padding_longest": _named_metrics(trainer.predict(trainer.eval_dataset).metrics)}
        trainer.feature_extractor.padding = "max_length"
    prediction = trainer.predict(trainer.eval_dataset)
    scores = _scores(prediction.predictions)
    table = per_class_table(scores, prediction.label_ids, labels)
    return {
        "split": data_args.eval_split_name,
        "clips": len(trainer.eval_dataset),
        "protocol": _protocol(trainer.args),
        "metrics": _named_metrics(prediction.metrics),
        **longest,
        "left_out": [row["label"] for row in table if not row["support"]],
        "per_class": table,
        "confusion_matrix": confusion(scores, prediction.label_ids, len(labels)),
    }


def publish(trainer: ASTTrainer, recipe: dict, summary: dict):
    """Write weights, settings, recipe, run summary, pictures and card into the output folder."""
    folder = Path(trainer.args.output_dir)
    trainer.save_model(str(folder / UNFINISHED))
    if not trainer.is_world_process_zero():
        return
    for path in (folder / UNFINISHED).iterdir():  # each file appears whole, in place of an older one
        if path.name != "training_args.bin":  # a pickle; recipe.yaml says the same and is safe to read
            sync(path)
            os.replace(path, folder / path.name)
    shutil.rmtree(folder / UNFINISHED)
    text = yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True)
    with open_atomically(folder / RECIPE_NAME) as file:
        file.write(f"# ast-finetune {RECIPE_NAME}\n{text}".encode())
    write_run_summary(folder, summary)
    if summary["history"]:  # empty with --logging_strategy no
        plot_training_curve(summary["history"], folder / TRAINING_CURVE_NAME)
    plot_confusion_matrix(summary["evaluation"]["confusion_matrix"], summary["labels"], folder / CONFUSION_MATRIX_NAME)
    _plot_example(trainer, summary["labels"], folder / SPECTROGRAM_NAME)
    write_model_card(folder)


def _plot_example(trainer: ASTTrainer, labels: list[str], path: Path):
    """Spectrogram, without padding, and prediction of the first held-out clip."""
    example = trainer.eval_dataset[0]
    batch = trainer._prepare_input(trainer.data_collator([example]))
    with torch.inference_mode():
        inputs = model_inputs(batch, trainer.feature_extractor)
        logits = trainer.model.eval()(inputs["input_values"]).logits.cpu().numpy()
        log_mel, _ = trainer.feature_extractor.log_mel(batch["waveforms"], batch["lengths"])
    scores = [{"label": label, "score": float(score)} for label, score in zip(labels, _scores(logits)[0], strict=True)]
    truth, sampling_rate = labels[example["label"]], trainer.eval_dataset.sampling_rate
    plot_spectrogram_with_prediction(log_mel[0].cpu().numpy(), scores, path, truth, sampling_rate)


def _scores(logits: np.ndarray) -> np.ndarray:
    if not np.isfinite(logits).all():
        raise DivergedError("The model's scores are not numbers. Lower --learning_rate or pass --max_grad_norm 1.")
    return scores_from_logits(torch.from_numpy(logits), PROBLEM_TYPE).numpy()


def _named_metrics(metrics: dict[str, float]) -> dict[str, float]:
    """What `Trainer.predict` measured, without its prefix and its timings."""
    names = {name.removeprefix("test_"): value for name, value in metrics.items()}
    timings = ("runtime", "samples_per_second", "steps_per_second", "model_preparation_time", "jit_compilation_time")
    return {name: value for name, value in names.items() if name not in timings}


def _protocol(args: ASTTrainingArguments) -> str:
    """Which weights were scored, and whether the scored split had a part in choosing them."""
    if args.load_best_model_at_end:
        return (
            f"the best checkpoint by {args.metric_for_best_model} on this same split, which makes the score optimistic"
        )
    if getattr(args.eval_strategy, "value", args.eval_strategy) != "no":
        return "the last epoch's weights; the split was also scored in training, but chose nothing"
    return "scored once, after the last epoch"


if __name__ == "__main__":
    sys.exit(main())
