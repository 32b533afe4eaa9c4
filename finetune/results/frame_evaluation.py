"""How well a model with a frame head tells which labels sound in each frame of the held-out clips."""

import numpy as np

from modeling_ast.frame_columns import FrameColumns
from modeling_ast.scores import label_thresholds

from ..arguments.groups import DataArguments, OptimizationArguments
from ..arguments.training_fields import SCORES
from ..clip_sets.waveforms import ClipDataset
from ..scores.frame_scores import scored_frames
from ..scores.metrics import macro_f1
from ..scores.scoring import PROBLEM_TYPES, evaluation_section, probabilities
from ..scores.thresholds import choose_thresholds, not_chosen
from ..sources.labels import label_names
from ..training.losses import loss_name
from ..training.trainer import ASTTrainer
from .evaluation import best_section, protocol_in_words


def evaluate_frames(
    trainer: ASTTrainer, clips: dict[str, ClipDataset], data_args: DataArguments, optimization: OptimizationArguments
) -> dict:
    """Score the frames of the held-out clips; the feature extractor is left padding as it will be saved.

    With a validation split, the threshold of each label is chosen on its frames for the best F1.

    Args:
        trainer ([`ASTTrainer`]): after its training.
        clips (`dict[str, ClipDataset]`): with `"eval"`, and `"validation"` if there is such a split.
        data_args ([`DataArguments`]): names of the splits, padding of the training.
        optimization ([`OptimizationArguments`]): what is optimised how.

    Returns:
        The section `evaluation` of the run summary, whose scores are over frames: in `frames` how many, and how long each is
        in `frame_seconds`. After a training with `padding="longest"` also the metrics of that way of padding.

    Raises:
        DivergedError: if scores are not numbers.
        ClipScoresError: if those of some frames are not.
    """
    config, labels = trainer.model.config, label_names(clips["eval"].split)
    section = {"loss": loss_name(None, config.problem_type)} | best_section(trainer)
    if data_args.padding == "longest":
        trainer.feature_extractor.padding = "longest"
        section["metrics_padding_longest"] = _predict(trainer, clips["eval"])[2]
    trainer.feature_extractor.padding = "max_length"
    if "validation" in clips:
        scores, truth, metrics = _predict(trainer, clips["validation"])
        config.label_thresholds = choose_thresholds(scores, truth, labels)
        name = data_args.validation_split_name or "validation"
        section["validation"] = {"clips": len(clips["validation"]), "metrics": metrics, "split": name}
        section["thresholds"] = config.label_thresholds
        if names := not_chosen(truth, labels):
            section["thresholds_not_chosen"] = names
    scores, truth, metrics = _predict(trainer, clips["eval"])
    if config.label_thresholds:
        metrics["f1_macro"] = macro_f1(scores, truth, label_thresholds(config))
    protocol = protocol_in_words(trainer, optimization, "validation" in clips)
    found = evaluation_section(
        scores, truth, labels, data_args.eval_split_name, protocol, metrics, config.label_thresholds
    )
    found.pop("clips_without_labels", None)  # which would be frames
    of_frames = {
        "clips": len(clips["eval"]),
        "frames": len(scores),
        "frame_seconds": FrameColumns.of(config).seconds,
    }
    return found | of_frames | section


def _predict(trainer: ASTTrainer, clips: ClipDataset) -> tuple[np.ndarray, np.ndarray, dict[str, float]]:
    """Scores and truth of frames, `(frames, labels)` each, loss and scores, without times and memory."""
    prediction = trainer.scores_of(clips)
    labels = prediction.label_ids
    scores = probabilities(scored_frames(prediction.predictions, labels), PROBLEM_TYPES["sigmoid"])
    metrics = {name: prediction.metrics[f"eval_{name}"] for name in ("loss", *SCORES)}
    return scores, (scored_frames(labels, labels) >= 0.5).astype(np.int64), metrics
