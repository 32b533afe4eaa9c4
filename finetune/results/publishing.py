"""What a finished training leaves in its output folder: weights, settings, recipe, run summary, pictures, card."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import yaml
from transformers.trainer import TRAINING_ARGS_NAME

from model_card.figures import plot_confusion_matrix, plot_spectrogram_with_prediction, plot_training_curve
from model_card.file_names import (
    ADAPTER_DIR,
    CONFUSION_MATRIX_NAME,
    RECIPE_NAME,
    SPECTROGRAM_NAME,
    TIMELINE_NAME,
    TRAINING_CURVE_NAME,
)
from model_card.render import write_model_card
from model_card.run_summary import RUN_SUMMARY_NAME, write_run_summary
from modeling_ast import ASTForAudioClassification, ASTForAudioFrameClassification
from modeling_ast.system.atomic_files import open_atomically, sync

from ..arguments.command_line import COMMAND_LINES, PYTHON_LINE
from ..arguments.groups import FINE_TUNING
from ..clip_sets.collator import model_inputs, raw_features
from ..clip_sets.waveforms import ClipDataset
from ..scores.scoring import probabilities
from ..sources.labels import that_count
from ..training.lora import save_adapter
from ..training.run_folder import UNFINISHED
from ..training.trainer import ASTTrainer
from .event_evaluation import EventFindings, plot_scored_recording

NOVELTY_SECTION = "none_of_these"  # of the section `evaluation` of the summary

if TYPE_CHECKING:  # an optional package
    from peft import PeftModel


def publish(
    trainer: ASTTrainer,
    scored: ClipDataset,
    recipe: dict,
    summary: dict,
    adapted: "PeftModel | None" = None,
    command: str = FINE_TUNING.name,
    findings: EventFindings | None = None,
    known_clips: Callable[[Path], dict | None] | None = None,
):
    """Write everything into a folder beside the result's place, then move it there: the run summary, which tells that a
    run is there, last.

    Args:
        trainer ([`ASTTrainer`]): with the weights to save.
        scored ([`ClipDataset`]): whose first clip is pictured.
        recipe (`dict`): what was asked for, as it is saved for the next time.
        summary (`dict`): see `model_card.run_summary`.
        adapted (`peft.PeftModel`, *optional*): whose adapter is kept beside the weights that it was merged into.
        command (`str`, defaults to `"ast-finetune"`): which runs the saved recipe again.
        findings ([`EventFindings`], *optional*): in the main process, events of marked recordings, of which one is pictured.
        known_clips (callable, *optional*): writes into the folder of the saved checkpoint what it keeps of its training clips, and
            returns what is said of that in the summary, if it could.
    """
    folder = Path(trainer.args.output_dir)
    unfinished = folder / UNFINISHED / folder.resolve().name  # the card is titled with the folder's name
    if trainer.is_world_process_zero():
        shutil.rmtree(folder / UNFINISHED, ignore_errors=True)
    trainer.accelerator.wait_for_everyone()
    trainer.save_model(str(unfinished))
    if trainer.is_world_process_zero():
        (unfinished / TRAINING_ARGS_NAME).unlink()  # a pickle; recipe.yaml says the same and is safe to read
        if adapted is not None:
            save_adapter(adapted, unfinished / ADAPTER_DIR, summary["base_model"])
        if findings is not None and findings.recording is not None:
            num_mel_bins = trainer.feature_extractor.num_mel_bins
            plot_scored_recording(findings, scored.reader, num_mel_bins, unfinished / TIMELINE_NAME)
        if known_clips is not None:
            section = known_clips(unfinished)
            summary["evaluation"] |= {} if section is None else {NOVELTY_SECTION: section}
        _write_files(trainer, unfinished, scored, recipe, summary, command)
        _move_into_place(unfinished, folder)
        shutil.rmtree(folder / UNFINISHED)
    trainer.published = True
    trainer.accelerator.wait_for_everyone()


def _move_into_place(unfinished: Path, folder: Path):
    """Move a whole result to where it belongs, each file in place of an older one.

    The summary of an older one goes first and the new one comes last, so that it never stands beside other weights.
    """
    for path in unfinished.rglob("*"):
        sync(path)
    (folder / RUN_SUMMARY_NAME).unlink(missing_ok=True)
    for path in sorted(unfinished.iterdir(), key=lambda path: path.name == RUN_SUMMARY_NAME):
        if path.is_dir():
            shutil.rmtree(folder / path.name, ignore_errors=True)  # a folder is not replaced by renaming
        os.replace(path, folder / path.name)
    sync(folder)


def _write_files(trainer: ASTTrainer, folder: Path, scored: ClipDataset, recipe: dict, summary: dict, command: str):
    text = yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True)
    with open_atomically(folder / RECIPE_NAME) as file:
        in_python = not {"dataset_name", "train_file"} & recipe.keys()
        file.write(f"{PYTHON_LINE if in_python else COMMAND_LINES[command]}\n{text}".encode())
    if summary["history"]:  # empty with --logging_strategy no
        plot_training_curve(summary["history"], folder / TRAINING_CURVE_NAME)
    if "confusion_matrix" in summary["evaluation"]:
        matrix = summary["evaluation"]["confusion_matrix"]
        plot_confusion_matrix(matrix, summary["labels"], folder / CONFUSION_MATRIX_NAME)
    if summary["labels"] and "label_sets" not in summary["evaluation"]:  # whose scores are not of one clip together
        _plot_example(trainer, scored, summary["labels"], folder)
    write_run_summary(folder, summary)
    write_model_card(folder)


def _plot_example(trainer: ASTTrainer, scored: ClipDataset, labels: list[str], folder: Path):
    """Spectrogram, without padding, and prediction of the first held-out clip."""
    # As it was saved: the model in training may be spread over processes, of which only one is here.
    of_frames = isinstance(trainer.model, ASTForAudioFrameClassification)
    model_class = ASTForAudioFrameClassification if of_frames else ASTForAudioClassification
    model = model_class.from_pretrained(folder).eval().to(trainer.args.device)
    example = scored[0]
    batch = trainer._prepare_input(trainer.data_collator([example]))
    with torch.inference_mode():
        inputs = model_inputs(batch, trainer.feature_extractor)
        logits = model(inputs["input_values"]).logits.float().cpu().numpy()
        log_mel, frames = raw_features(batch, trainer.feature_extractor)
    truths = example["label"]
    if of_frames:  # of the clip what is heard in any of its frames
        logits, truths = logits[:, : len(truths)].max(axis=1), truths.max(axis=0)
    scores = probabilities(logits, model.config.problem_type)[0]
    answers = [{"label": label, "score": float(score)} for label, score in zip(labels, scores, strict=True)]
    true_labels = np.flatnonzero(that_count(truths)) if scored.vector_targets else [truths]
    truth = ", ".join(labels[label] for label in true_labels)
    plot_spectrogram_with_prediction(
        log_mel[0, : frames[0]].cpu().numpy(), answers, folder / SPECTROGRAM_NAME, truth, scored.sampling_rate
    )
