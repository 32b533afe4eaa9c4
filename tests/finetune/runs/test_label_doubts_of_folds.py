"""`label_doubts.csv` of a cross-validation: whose scores they are, where they are named, what an interruption leaves."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pandas
import pytest
import soundfile
from tiny_trainings import write_recipe, write_tones
from transformers import pipeline

from finetune.results.label_doubts_file import HELD_OUT_NAME, write_label_doubts
from finetune.run_finetune import main
from finetune.scores.stored_scores import read_stored_scores

FOLDS = {"fold_column_name": "fold", "num_train_epochs": 25, "learning_rate": 5e-3}
WRONG = "a/3.wav"  # which is labelled b


def write_table(folder: Path, **wrong: str) -> Path:
    """A table of twelve tones in three folds; the label of some is another than their folder."""
    write_tones(folder, "ab", count=6)
    with open(folder / "metadata.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file_name", "label", "fold"])
        for label in "ab":
            for number in range(6):
                name = f"{label}/{number}.wav"
                writer.writerow([name, wrong.get(name, label), f"f{number % 3}"])
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> tuple[Path, str]:
    """The folder of a cross-validation that ended, and its recipe; to be copied, not to be changed."""
    place = tmp_path_factory.mktemp("doubts")
    clips = write_table(place / "clips", **{WRONG: "b"})
    recipe = write_recipe(place, clips, output_dir=str(place / "folds"), **FOLDS)
    assert main([recipe]) == 0
    return place / "folds", recipe


@pytest.fixture
def ended(trained, tmp_path) -> Path:
    return Path(shutil.copytree(trained[0], tmp_path / "folds"))


def test_a_clip_is_doubted_by_the_model_of_its_fold_alone_the_wrong_one_most(trained):
    folder, _ = trained
    table = pandas.read_csv(folder / "label_doubts.csv")
    assert len(table) == 12
    assert table.doubt.is_monotonic_decreasing
    first = table.iloc[0]
    assert first.file.endswith(WRONG)
    assert (first.label, first.suggested, first.fold) == ("b", "a", "f0")
    usual = table.groupby("label").score_of_label.mean()
    # By stock Transformers: each fold's checkpoint on the clips that its training did not have.
    for fold, rows in table.groupby("fold"):
        classifier = pipeline("audio-classification", model=str(folder / f"fold-{fold}"))
        for row in rows.itertuples():
            assert int(Path(row.file).stem) % 3 == int(fold[1])
            waveform, rate = soundfile.read(row.file, dtype="float32")
            found = {tag["label"]: tag["score"] for tag in classifier({"raw": waveform, "sampling_rate": rate})}
            assert row.score_of_label == pytest.approx(found[row.label], abs=2e-5)
            assert row.score_of_suggested == pytest.approx(found[row.suggested], abs=2e-5)
            other = "b" if row.label == "a" else "a"
            beyond = {label: found[label] - usual[label] for label in "ab"}
            margin = (beyond[other] - beyond[row.label]) / (1 - usual.sum() + 2 * usual.max())
            assert row.doubt == pytest.approx((1 + margin) / 2, abs=1e-4)
            assert row.suggested == (other if margin > 0 else row.label)
            is_likely = found[other] >= usual[other] and (found[row.label] < usual[row.label] or found[other] > 0.5)
            assert row.likely == ("yes" if is_likely else "no")
        summary = json.loads((folder / f"fold-{fold}" / "run_summary.json").read_text())
        assert summary["data"]["splits"]["train"]["clips"] == 8


def test_results_and_cards_name_the_file(trained):
    folder, _ = trained
    table = pandas.read_csv(folder / "label_doubts.csv")
    likely = table[table.likely == "yes"]
    results = json.loads((folder / "cross_validation.json").read_text())
    assert results["label_doubts"] == {"file": "label_doubts.csv", "clips": 12, "likely_errors": len(likely)}
    lines = (folder / "cross_validation.md").read_text()
    assert (
        f"Labels of {len(likely)} of 12 clips are likely wrong by models that were not trained on them: label_doubts.csv"
        in lines
    )
    for fold in ("f0", "f1", "f2"):
        card = (folder / f"fold-{fold}" / "README.md").read_text()
        number = (likely.fold == fold).sum()
        assert f"take the labels of {number} of the 4 for likely wrong: `label_doubts.csv` beside the folds." in card


def test_the_scores_of_a_fold_are_a_file_of_scores_like_others(trained):
    stored = read_stored_scores(trained[0] / "fold-f1" / HELD_OUT_NAME)
    assert stored.labels == ["a", "b"]
    assert sorted(Path(file).name for file in stored.files) == ["1.wav", "1.wav", "4.wav", "4.wav"]
    assert stored.add_up


def test_finished_folds_keep_their_scores_for_the_rest(trained, ended, capsys):
    before = (ended / "label_doubts.csv").read_bytes()
    for path in (ended / "label_doubts.csv", ended / "cross_validation.json", ended / "fold-f2" / "run_summary.json"):
        path.unlink()  # as when it was killed before the last fold was finished
    (ended / "fold-f2" / HELD_OUT_NAME).unlink()
    command = [trained[1], "--output_dir", str(ended), "--resume_from_checkpoint", "true"]
    assert main(command) == 0
    assert "fold f1, 2 of 3: finished before" in capsys.readouterr().out
    assert (ended / "label_doubts.csv").read_bytes() == before


def test_folds_of_a_version_that_kept_no_scores_have_no_doubts_and_it_is_said(trained, ended, capsys):
    (ended / "fold-f1" / HELD_OUT_NAME).unlink()
    (ended / "label_doubts.csv").unlink()
    assert main([trained[1], "--output_dir", str(ended), "--resume_from_checkpoint", "true"]) == 0
    assert "No label_doubts.csv is written: folds that were finished before kept no held_out_scores.npz" in (
        capsys.readouterr().out
    )
    assert not (ended / "label_doubts.csv").exists()
    assert json.loads((ended / "cross_validation.json").read_text())["label_doubts"] is None


def test_an_older_file_goes_when_folds_are_trained_anew(trained, ended, monkeypatch):
    from finetune.training.trainer import ASTTrainer

    def stop(self, *args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(ASTTrainer, "train", stop)
    assert main([trained[1], "--output_dir", str(ended), "--overwrite_output_dir"]) == 130
    assert not (ended / "label_doubts.csv").exists()


def test_rows_of_several_labels_say_what_is_wrong_and_by_which_fold(tmp_path):
    given, scores = (
        np.array([[1, 0], [0, 1], [1, 1], [0, 0]]),
        np.array([[0.9, 0.1], [0.8, 0.7], [0.7, 0.1], [0.1, 0.2]]),
    )
    for place, fold in enumerate(("x", "y")):
        (tmp_path / fold).mkdir()
        rows = slice(2 * place, 2 * place + 2)
        files = np.array([f"{fold}/{number}, 1.wav" for number in (1, 2)])
        arrays = {"files": files, "labels": np.array(["cat", "dög"]), "scores": scores[rows], "given": given[rows]}
        np.savez(tmp_path / fold / HELD_OUT_NAME, **arrays)
    found = write_label_doubts(tmp_path, {"x": tmp_path / "x", "y": tmp_path / "y"})
    table = pandas.read_csv(tmp_path / "label_doubts.csv")
    rows = table[["file", "label", "error", "score", "fold"]].values.tolist()
    # The means with and without it are 0.8 and 0.45 for the cat, 0.4 and 0.15 for the dog.
    assert rows == [
        ["y/1, 1.wav", "dög", "superfluous", 0.1, "y"],
        ["x/2, 1.wav", "cat", "missing", 0.8, "x"],
        ["y/1, 1.wav", "cat", "superfluous", 0.7, "y"],
        ["x/2, 1.wav", "dög", "superfluous", 0.7, "x"],
        ["x/1, 1.wav", "cat", "superfluous", 0.9, "x"],
    ]
    assert table.likely.tolist() == ["yes", "yes", "no", "no", "no"]
    assert found == {"x": {"clips": 2, "likely_errors": 1}, "y": {"clips": 2, "likely_errors": 1}}


@pytest.mark.long  # three trainings
def test_of_several_labels_missing_and_superfluous_ones_are_told_apart(tmp_path):
    clips = write_table(tmp_path / "clips", **{WRONG: "a;b", "b/2.wav": "a"})
    flags = ["--label_separator", ";"]
    assert main([write_recipe(tmp_path, clips, **FOLDS), *flags]) == 0
    table = pandas.read_csv(tmp_path / "run" / "label_doubts.csv")
    assert list(table.columns) == ["file", "label", "error", "doubt", "likely", "score", "fold"]
    assert table.doubt.is_monotonic_decreasing
    told = {(row.file[-7:], row.label, row.error): row for row in table.itertuples()}
    given = sum(error == "superfluous" for _, _, error in told)
    assert given == 13  # every label that was given
    planted = {(WRONG, "b", "superfluous"), ("b/2.wav", "a", "superfluous"), ("b/2.wav", "b", "missing")}
    assert set(list(told)[:3]) == planted
    assert all(told[pair].likely == "yes" for pair in planted)
    for fold, rows in table.groupby("fold"):
        stored = read_stored_scores(tmp_path / "run" / f"fold-{fold}" / HELD_OUT_NAME)
        for row in rows.itertuples():
            value = stored.values[stored.files.index(row.file), stored.labels.index(row.label)]
            assert row.score == pytest.approx(value, abs=1e-6)
            assert np.isin(row.score, [0, 1]).sum() == 0


def test_a_clip_of_several_windows_is_doubted_as_a_whole(tmp_path):
    clips, heard = write_table(tmp_path / "clips"), 48 * 160 + 240
    for path in clips.glob("*/*.wav"):
        seconds = np.arange(2 * heard) / 16_000
        sound = 0.3 * np.sin(2 * np.pi * (900 if path.parent.name == "a" else 2500) * seconds)
        sound += 0.02 * np.random.default_rng(int(path.stem)).standard_normal(len(sound))
        soundfile.write(path, sound.astype(np.float32), 16_000, "FLOAT")
    assert main([write_recipe(tmp_path, clips, fold_column_name="fold", num_train_epochs=1)]) == 0
    table = pandas.read_csv(tmp_path / "run" / "label_doubts.csv")
    assert sorted(table.file) == sorted(str(path) for path in clips.glob("*/*.wav"))
    for fold, rows in table.groupby("fold"):
        classifier = pipeline("audio-classification", model=str(tmp_path / "run" / f"fold-{fold}"))
        for row in rows.itertuples():
            waveform, rate = soundfile.read(row.file, dtype="float32")
            halves = [classifier({"raw": half, "sampling_rate": rate}) for half in np.split(waveform, 2)]
            found = [tag["score"] for half in halves for tag in half if tag["label"] == row.label]
            assert row.score_of_label == pytest.approx(np.mean(found), abs=2e-5)
