"""How well a pretrained model does what it was trained on, without labels: held-out clips, the same patches hidden each time."""

import math

from ..arguments.groups import DataArguments, OptimizationArguments
from ..clip_sets.unlabelled import MaskedDataset
from ..scores.scoring import DivergedError
from ..training.masked_trainer import PRETEXT_SCORES, MaskedTrainer
from .evaluation import best_section, protocol_in_words


def evaluate_pretext(
    trainer: MaskedTrainer,
    clips: dict[str, MaskedDataset],
    data_args: DataArguments,
    optimization: OptimizationArguments,
) -> dict:
    """Score the held-out clips, padded as in training; the feature extractor is left padding as it will be saved.

    Args:
        trainer ([`MaskedTrainer`]): after its training.
        clips (`dict[str, MaskedDataset]`): with `"eval"`.
        data_args ([`DataArguments`]): name of the split.
        optimization ([`OptimizationArguments`]): what is optimised how.

    Returns:
        The section `evaluation` of the run summary: `split`, `clips`, `protocol`, `metrics`, and in `chance` the matching
        accuracy of a blind guess.

    Raises:
        DivergedError: if a score is not a number.
    """
    scored = trainer.scores_of(clips["eval"]).metrics
    metrics = {name: scored[f"eval_{name}"] for name in ("loss", *PRETEXT_SCORES)}
    if not all(map(math.isfinite, metrics.values())):
        raise DivergedError(
            f"The scores of the held-out clips are not numbers: {metrics}. Pass a lower --learning_rate."
        )
    trainer.feature_extractor.padding = "max_length"
    return {
        "split": data_args.eval_split_name,
        "clips": len(clips["eval"]),
        "protocol": protocol_in_words(trainer, optimization, has_validation=False),
        "metrics": metrics,
        "chance": clips["eval"].chance(),
    } | best_section(trainer)
