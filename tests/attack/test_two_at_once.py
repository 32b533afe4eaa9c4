"""Ten pairs of each command started at once on one output: one is refused in words, or both are right."""
# ruff: noqa: F401, F811 - fixtures that are imported

import time
from pathlib import Path

import pytest
from forked_commands import clear, contents, leftovers
from test_killed_commands import house, original, training_flags, weights, without_times

pytestmark = pytest.mark.attack

PAIRS = 10


def pairs(
    house, show_figures, command, arguments, results: Path, changed=lambda files: files, refused=(1, 2), **options
):
    """Start ten pairs a little apart, and compare what is there in the end with what one run alone wrote."""
    logs = [house.folder / f"log{number}" for number in range(2)]
    clear(results)
    results.parent.mkdir(exist_ok=True)
    house.run(command, arguments, logs[0], **options)
    expected = changed(contents(results))
    assert expected
    codes = []
    for pair in range(PAIRS):
        clear(results)
        one = house.start(command, arguments, logs[0], **options)
        time.sleep(0.02 * (pair % 5))
        two = house.start(command, arguments, logs[1], **options)
        codes.append((one.wait(), two.wait()))
        said = one.said() + two.said()
        assert "Traceback" not in said, said
        assert 0 in codes[-1], said
        for code, child in zip(codes[-1], (one, two), strict=True):
            assert code == 0 or code in refused, said
            words = ("is being written by", "already exists", "was made by somebody else", "already holds a run")
            assert code == 0 or any(word in child.said() for word in words), said
        assert changed(contents(results)) == expected, said
        assert not leftovers(results.parent, house.temporary)
    right = sum(pair == (0, 0) for pair in codes)
    show_figures("two at once", f"{command}: {PAIRS} pairs, {right} both right, {PAIRS - right} one refused")


@pytest.fixture
def results(house):
    folder = house.folder / "results"
    clear(folder)
    folder.mkdir()
    return folder


def test_tags(house, results, show_figures):
    output = results / "tags.csv"
    flags = ["--model_name_or_path", house.folder / "checkpoint", "--format", "csv", "--output", output]
    pairs(house, show_figures, "ast-tag", [house.folder / "clips", *flags], output)


def test_scores(house, results, show_figures):
    output = results / "scores.json"
    flags = ["--dataset_name", house.folder / "clips", "--output", output]
    pairs(house, show_figures, "ast-evaluate", ["--model_name_or_path", house.folder / "checkpoint", *flags], output)


def test_export(house, results, show_figures):
    pairs(
        house,
        show_figures,
        "ast-export",
        [house.folder / "checkpoint", results / "model.onnx"],
        results / "model.onnx",
    )


def test_conversion(house, results, original, show_figures):
    pairs(
        house, show_figures, "ast-convert", [original, results / "ast"], results / "ast", without_times, num_layers=2
    )


def test_conversion_back(house, results, original, show_figures):
    source = house.folder / "converted"
    if not source.exists():
        house.run("ast-convert", [original, source], house.folder / "log", num_layers=2)
    output = results / "again.pth"
    pairs(house, show_figures, "ast-convert", ["--to_original", source, output], output, num_layers=2)


def test_trainings(house, results, show_figures):
    flags = training_flags(house, results / "run", num_train_epochs=1, save_strategy="no", save_steps=None)
    pairs(house, show_figures, "ast-finetune", flags, results / "run", weights)


def test_trainings_with_one_waveform_cache(house, results, show_figures):
    logs = [house.folder / f"log{number}" for number in range(2)]

    def flags(name):
        fields = {"num_train_epochs": 1, "save_strategy": "no", "save_steps": None}
        return training_flags(house, results / name, waveform_cache=results / "cache", **fields)

    house.run("ast-finetune", flags("alone"), logs[0])
    expected = weights(contents(results / "alone"))
    for _ in range(PAIRS):
        for name in ("one", "two", "cache"):
            clear(results / name)
        children = [
            house.start("ast-finetune", flags(name), log) for name, log in zip(("one", "two"), logs, strict=True)
        ]
        for child, name in zip(children, ("one", "two"), strict=True):
            assert child.wait() == 0, child.said()
            assert weights(contents(results / name)) == expected
    show_figures("two at once", f"ast-finetune with one waveform cache: {PAIRS} pairs, all right")
