"""Hard negatives: windows that a checkpoint takes for a label though nothing is marked in them."""

import numpy as np

from modeling_ast.scores import label_thresholds
from modeling_ast.tagging.tagger import AudioTagger

from ..clip_sets.marked_windows import MarkedClips, MarkedWindows
from .scoring import PROBLEM_TYPES, ScoringError, label_order, predict_scores

THRESHOLD = 0.5  # from which the top one of exclusive labels is taken for heard


def find_hard_negatives(
    checkpoint: str, split: MarkedClips, batch_size: int, device: str = "auto", num_workers: int = 0
) -> tuple[np.ndarray, int]:
    """Score all background windows of a split, side by side, and find those that are taken for a label of it.

    Args:
        checkpoint (`str`): checkpoint folder or Hub id, with labels of the split.
        split ([`MarkedClips`]): training recordings.
        batch_size (`int`): windows that are scored at once.
        device (`str`, defaults to `"auto"`): where to compute.
        num_workers (`int`, defaults to 0): processes that decode.

    Returns:
        Recording and start in seconds of each such window, of shape `(windows, 2)`; and how many were scored.

    Raises:
        ScoringError: if the checkpoint has none of the labels.
        CheckpointError: if it cannot be loaded.
    """
    tagger = AudioTagger.from_pretrained(checkpoint, device)
    own = label_order(tagger.model.config)
    background = split.rules.background
    wanted = [label for place, label in enumerate(split.labels) if place != background and label in own]
    if not wanted:
        raise ScoringError(
            f"{checkpoint} has none of the labels {', '.join(split.labels)}, so it takes no window for one of them. Pass --hard_negatives "
            "with a checkpoint that was trained on these labels."
        )
    alone = split.background_alone()
    if not len(alone):
        return np.empty((0, 2)), 0
    # One that hears longer is given no more than the window, as behind it something may be marked.
    heard = min(tagger.feature_extractor.max_samples, round(split.seconds * tagger.reader.sampling_rate))
    windows = MarkedWindows(alone, tagger.reader, heard)
    scores, _ = predict_scores(
        tagger.model, tagger.feature_extractor, windows, batch_size, tagger.device, num_workers, None, "hard negatives"
    )
    columns = [own.index(label) for label in wanted]
    if tagger.problem_type == PROBLEM_TYPES["softmax"]:
        taken = np.isin(scores.argmax(axis=1), columns) & (scores.max(axis=1) >= THRESHOLD)
    else:
        levels = label_thresholds(tagger.model.config)
        taken = (scores[:, columns] >= levels[columns]).any(axis=1)
    places = np.array([(placed.recording, placed.start) for placed in alone.scored_windows()])
    return places[taken], len(alone)
