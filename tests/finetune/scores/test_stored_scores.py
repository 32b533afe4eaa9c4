"""Files of scores as a teacher: what the kit's commands write, what one writes oneself, and what is no such file."""

import json

import numpy as np
import pytest
from scipy.special import expit, softmax

from finetune.run_evaluate import write_predictions
from finetune.scores import stored_scores
from finetune.scores.stored_scores import read_stored_scores
from finetune.sources.data_errors import DataError
from modeling_ast.tagging.formats import FORMATS
from modeling_ast.tagging.tagger import FileTags, Tag

FILES, LABELS = ["kicks/1.wav", "snares/1.wav"], ["kick", "snare, wet"]
SCORES = np.array([[0.75, 0.25], [0.125, 0.875]])


def written(path, kind: str):
    if kind == "predictions":
        split = type("Split", (), {"names": lambda self: FILES, "label_lists": lambda self: [[0], [1]]})()
        write_predictions(str(path), split, LABELS, SCORES)
    elif kind == "npz":
        np.savez(path, files=FILES, labels=LABELS, scores=SCORES)
    else:
        row = FORMATS[kind]
        tags = [
            FileTags(
                name,
                [
                    Tag(label, score)
                    for label, score in sorted(zip(LABELS, scores, strict=True), key=lambda tag: -tag[1])
                ],
            )
            for name, scores in zip(FILES, SCORES.tolist(), strict=True)
        ]
        lines = ([row.header(False)] if row.header else []) + [line for of_file in tags for line in row.lines(of_file)]
        path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize(
    ("name", "kind"), [("a.csv", "predictions"), ("a.csv", "csv"), ("a.jsonl", "jsonl"), ("a.npz", "npz")]
)
def test_what_the_commands_write_is_read_as_it_was(tmp_path, name, kind):
    stored = read_stored_scores(written(tmp_path / name, kind))
    assert stored.files == FILES
    values = stored.values[:, [stored.labels.index(label) for label in LABELS]]
    np.testing.assert_allclose(values, SCORES, atol=1e-6)  # digits in the file
    assert stored.add_up
    np.testing.assert_allclose(softmax(stored.logits(), axis=1), stored.values, atol=1e-6)


def test_independent_scores_and_logits(tmp_path):
    path, scores = tmp_path / "a.npz", np.array([[0.9, 0.8], [0.1, 0.5]])
    np.savez(path, files=FILES, labels=LABELS, scores=scores)
    stored = read_stored_scores(path)
    assert stored.add_up is False
    np.testing.assert_allclose(expit(stored.logits()), scores)
    np.savez(path, files=FILES, labels=LABELS, logits=scores * 40)
    assert read_stored_scores(path).logits().tolist() == (scores * 40).tolist()


def test_clips_are_found_where_they_lie_now_and_by_no_name_alone(tmp_path):
    path = written(tmp_path / "a.npz", "npz")
    stored = read_stored_scores(path)
    assert stored.places_of(["snares/1.wav", "kicks/1.wav"]) == [1, 0]
    assert stored.places_of(["/new/snares/1.wav", "/new/kicks/1.wav"]) == [1, 0]
    with pytest.raises(
        DataError, match=r"no scores for 1 of 3 training clips: .*toms/1.wav.* ast-evaluate .* --predictions"
    ):
        stored.places_of(["/new/snares/1.wav", "/new/kicks/1.wav", "/new/toms/1.wav"])
    with pytest.raises(DataError, match="1 of 2 training clips have no name"):
        stored.places_of([None, "kicks/1.wav"])
    np.savez(path, files=["a.wav", "a.wav"], labels=LABELS, scores=SCORES)
    with pytest.raises(DataError, match="more than once for 'a.wav'|more than once for a.wav"):
        read_stored_scores(path).places_of(["a.wav"])


@pytest.mark.parametrize("place", ["clips", "/new/clips"])
def test_clips_of_one_name_are_not_compared_each_with_each(tmp_path, monkeypatch, place):
    """`0001.wav` in a folder for each recording: a thousand of them were a million comparisons."""
    files = [f"clips/{number}/0001.wav" for number in range(1000)]
    np.savez(tmp_path / "a.npz", files=files, labels=LABELS, scores=np.full((1000, 2), 0.5))
    compared, heads = [], stored_scores._heads
    monkeypatch.setattr(stored_scores, "_heads", lambda *paths: compared.append(paths) or heads(*paths))
    names = [file.replace("clips", place, 1) for file in files]
    assert read_stored_scores(tmp_path / "a.npz").places_of(names[::-1]) == [*range(1000)][::-1]
    assert len(compared) <= 100_000 * (place != "clips")


@pytest.mark.parametrize(("name", "kind"), [("a.csv", "predictions"), ("a.csv", "csv"), ("a.jsonl", "jsonl")])
def test_a_byte_order_mark_is_no_part_of_a_name(tmp_path, name, kind):
    """Spreadsheets put one at the beginning of a file."""
    path = written(tmp_path / name, kind)
    path.write_text(path.read_text(encoding="utf-8"), encoding="utf-8-sig")
    assert read_stored_scores(path).files == FILES


WRONG = {
    "a.txt": ("x", "expected .csv, .jsonl, .json, .npz"),
    "a.csv": ("name,kick\na.wav,1\n", "first column .* is 'name', expected 'file'"),
    "b.csv": ("file,kick,snare\na.wav,1\n", "Line 2 of .* has other columns"),
    "c.csv": ("file,kick\na.wav,loud\n", "'loud' as a score of a.wav"),
    "d.csv": ("file,kick\na.wav,3.5\n", "scores from 3.5 to 3.5, expected probabilities"),
    "e.csv": ("file,label,score\na.wav,kick,1\nb.wav,snare,1\n", "no number as the score of a.wav for 'snare'.*--top_k"),
    "f.csv": ("", "expected 'file'"),
    "a.json": (json.dumps({"evaluations": []}), "none of single clips.*--predictions"),
    "b.json": ("{", "holds no scores of clips that can be read"),
    "c.json": ('[{"file": "a.wav"}]', "there is no 'labels'"),
    "a.npz": ("no archive", "cannot be read"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_what_is_no_file_of_scores_is_refused(tmp_path, name):
    text, message = WRONG[name]
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=message):
        read_stored_scores(tmp_path / name)
