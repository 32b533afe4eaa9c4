"""`label_doubts.csv`: the clips whose labels the models of a cross-validation doubt most.

Each fold keeps the scores of its held-out clips, which its model has not been trained on, in a file beside its checkpoint.
When all folds are there, these scores together say which labels are doubted; see [`finetune.scores.label_doubts`].
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from modeling_ast.system.atomic_files import open_atomically
from modeling_ast.system.names_as_text import csv_row

from ..clip_sets.waveforms import ClipDataset
from ..scores.clip_scores import references_of_clips, scores_of_clips
from ..scores.label_doubts import LabelDoubts, exclusive_doubts, independent_doubts
from ..scores.scoring import probabilities
from ..scores.stored_scores import FILES, LABELS, SCORES
from ..sources.labels import is_multi_label, label_names
from ..training.trainer import ASTTrainer
from .evaluation import as_references

HELD_OUT_NAME, LABEL_DOUBTS_NAME = "held_out_scores.npz", "label_doubts.csv"
GIVEN = "given"  # of the file: label indices, or multi-hot rows
EXCLUSIVE_COLUMNS = ("file", "label", "suggested", "doubt", "likely", "score_of_label", "score_of_suggested", "fold")
INDEPENDENT_COLUMNS = ("file", "label", "error", "doubt", "likely", "score", "fold")


@dataclass(frozen=True)
class HeldOutScores:
    """Scores of the clips of a fold by its model, which was not trained on them.

    Args:
        files (`list[str]`): what the clips are called.
        labels (`list[str]`): names of the labels.
        scores (`np.ndarray` of shape `(clips, labels)`): probabilities, float32.
        given (`np.ndarray`): label indices of shape `(clips,)`, or multi-hot of shape `(clips, labels)`.
    """

    files: list[str]
    labels: list[str]
    scores: np.ndarray
    given: np.ndarray


def write_held_out_scores(path: Path, trainer: ASTTrainer, clips: ClipDataset):
    """Write down what the model in training gives the clips that it is scored on. Called by all processes.

    Args:
        path (`Path`): file to write, an npz of `files`, `labels`, `scores` and `given`.
        trainer ([`ASTTrainer`]): with the weights that are scored.
        clips ([`ClipDataset`]): which it was not trained on.
    """
    prediction = trainer.scores_of(clips)
    if not trainer.is_world_process_zero():
        return
    given = as_references(prediction.label_ids, exclusive=not is_multi_label(clips.split)).astype(np.int64)
    arrays = {
        FILES: np.array([clips.name_of_clip(clip) for clip in range(clips.num_clips)], dtype=np.str_),
        LABELS: np.array(label_names(clips.split), dtype=np.str_),
        SCORES: scores_of_clips(probabilities(prediction.predictions, trainer.model.config.problem_type), clips),
        GIVEN: references_of_clips(given, clips),
    }
    with open_atomically(path) as file:
        np.savez(file, **arrays)


def read_held_out_scores(path: Path) -> HeldOutScores:
    """Read what [`write_held_out_scores`] has written.

    Args:
        path (`Path`): the file.

    Returns:
        [`HeldOutScores`].
    """
    with np.load(path, allow_pickle=False) as arrays:
        return HeldOutScores(arrays[FILES].tolist(), arrays[LABELS].tolist(), arrays[SCORES], arrays[GIVEN])


def write_label_doubts(folder: Path, folds: Mapping[str, Path]) -> dict[str, dict[str, int]] | None:
    """Write `label_doubts.csv` of a cross-validation whose folds are all there.

    Args:
        folder (`Path`): in which it is written.
        folds (`Mapping[str, Path]`): the folder of each fold, by name.

    Returns:
        By fold its number of `clips`, and of them those with a label that is likely wrong, `likely_errors`; `None`, and
        nothing is written, if a fold was finished by a version of this kit that kept no scores.
    """
    paths = {name: place / HELD_OUT_NAME for name, place in folds.items()}
    if not all(path.is_file() for path in paths.values()):
        return None
    held_out = {name: read_held_out_scores(path) for name, path in paths.items()}
    scores = np.concatenate([fold.scores for fold in held_out.values()])
    given = np.concatenate([fold.given for fold in held_out.values()])
    doubts = (exclusive_doubts if given.ndim == 1 else independent_doubts)(scores, given).sorted()
    with open_atomically(
        folder / LABEL_DOUBTS_NAME, "w", encoding="utf-8", errors="surrogateescape", newline="\n"
    ) as file:
        print(csv_row(INDEPENDENT_COLUMNS if doubts.suggested is None else EXCLUSIVE_COLUMNS), file=file)
        for cells in _rows(doubts, held_out, scores):
            print(csv_row(cells), file=file)
    likely = set(doubts.clips[doubts.likely].tolist())
    ends = np.cumsum([len(fold.files) for fold in held_out.values()]).tolist()
    return {
        name: {"clips": len(fold.files), "likely_errors": len(likely & set(range(end - len(fold.files), end)))}
        for (name, fold), end in zip(held_out.items(), ends, strict=True)
    }


def _rows(doubts: LabelDoubts, held_out: Mapping[str, HeldOutScores], scores: np.ndarray) -> Iterator[list]:
    names = [(file, fold) for fold, of_fold in held_out.items() for file in of_fold.files]
    labels = next(iter(held_out.values())).labels
    columns = (doubts.clips, doubts.labels, doubts.doubts, doubts.likely)
    for place, (clip, label, doubt, likely) in enumerate(zip(*(column.tolist() for column in columns), strict=True)):
        file, fold = names[clip]
        told = [f"{doubt:.6f}", "yes" if likely else "no", f"{scores[clip, label]:.6f}"]
        if doubts.suggested is None:
            yield [file, labels[label], "missing" if doubts.missing[place] else "superfluous", *told, fold]
        else:
            suggested = int(doubts.suggested[place])
            yield [file, labels[label], labels[suggested], *told, f"{scores[clip, suggested]:.6f}", fold]
