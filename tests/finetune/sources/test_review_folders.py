"""What `ast-tag --review` writes, taken for training as it is."""

import csv

import pytest
import soundfile
from tiny_trainings import flags

from finetune.arguments.command_line import parse_arguments
from finetune.run_finetune import main
from finetune.sources.labels import label_lists, label_names
from finetune.sources.splits import load_splits
from modeling_ast.tagging.events import EventRules
from modeling_ast.tagging.results import FileTags, Segment
from modeling_ast.tagging.review import Review, write_review


def review_folder(folder, drum_rows, exclusive: bool):
    """Clips of two labels, of six recordings each of which is a drum clip."""
    rows = [row for row in drum_rows if row["label"] in ("kick", "snare")]
    chosen = [row for label in ("kick", "snare") for row in [row for row in rows if row["label"] == label][:6]]
    rules = EventRules(0.0, exclusive=True) if exclusive else EventRules(0.5)
    review = Review(["kick", "snare"], rules, seconds=0.1, per_label=12)
    for row in chosen:
        seconds = soundfile.info(row["path"]).duration
        events = [Segment(row["path"], 0.0, seconds / 4, row["label"], 0.9)]
        faint = [] if exclusive else [*events, Segment(row["path"], 0.75 * seconds, seconds, row["label"], 0.4)]
        review.add(FileTags(row["path"], [], events, seconds=seconds, faint=faint))
    write_review(review, folder)
    return folder


def test_corrected_labels_are_what_is_trained_on_and_recordings_stay_together(drum_rows, tmp_path):
    folder = review_folder(tmp_path / "review", drum_rows, exclusive=True)
    with open(folder / "metadata.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    rows[0]["label"] = "snare"  # by a person
    with open(folder / "metadata.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    arguments = parse_arguments(flags(folder, tmp_path / "run", group_column_name="recording", eval_fraction=0.34))
    splits, method = load_splits(arguments.data, 0)
    assert "the column 'recording' kept together" in method
    found = {
        clip["audio"]["path"]: label_names(split)[labels[0]]
        for split in splits.values()
        for clip, labels in zip(split, label_lists(split), strict=True)
    }
    assert found == {str(folder / row["file_name"]): row["label"] for row in rows}
    sides = {side: {clip["recording"] for clip in split} for side, split in splits.items()}
    assert not sides["train"] & sides["eval"]


def test_clips_of_several_labels_or_none_are_read_by_the_separator(drum_rows, tmp_path):
    folder = review_folder(tmp_path / "review", drum_rows, exclusive=False)
    with open(folder / "metadata.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert "" in {row["label"] for row in rows}
    arguments = parse_arguments(flags(folder, tmp_path / "run", label_separator=";", group_column_name="recording"))
    splits, _ = load_splits(arguments.data, 0)
    counts = sorted(len(labels) for split in splits.values() for labels in label_lists(split))
    assert counts == sorted(len(row["label"].split(";")) if row["label"] else 0 for row in rows)


@pytest.mark.long  # two trainings
@pytest.mark.parametrize("exclusive", [True, False])
def test_a_training_takes_the_folder(exclusive, drum_rows, tmp_path):
    folder = review_folder(tmp_path / "review", drum_rows, exclusive)
    more = {} if exclusive else {"label_separator": ";"}
    given = flags(
        folder, tmp_path / "run", group_column_name="recording", num_train_epochs=1, eval_fraction=0.34, **more
    )
    assert main(given) == 0
