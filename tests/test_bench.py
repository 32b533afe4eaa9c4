"""What `make bench` says of its measurements; the measurements themselves are not repeated here."""

import json

import pytest

from benchmarks import side_by_side


@pytest.fixture
def bench(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")  # the module sets it, too; here it is put back
    return pytest.importorskip("benchmarks.bench")


@pytest.mark.parametrize(
    ("ratio", "smaller_is_better", "verdict"),
    [
        (1.19, False, "MISSED"),
        (1.2, False, "must"),
        (1.6, False, "aim"),
        (0.91, True, "MISSED"),
        (0.9, True, "must"),
        (0.7, True, "aim"),
        (float("nan"), False, "MISSED"),
    ],
)
def test_a_ratio_is_held_against_its_marks(bench, ratio, smaller_is_better, verdict):
    must, aim = (0.9, 0.7) if smaller_is_better else (1.2, 1.6)
    row = bench.Row("row", must, aim, ratio, smaller_is_better=smaller_is_better)
    assert row.verdict() == verdict
    row.note_difference("logits", 2e-3, 1e-3)
    assert row.verdict() == "MISSED: logits differ by more than 0.001"


def test_the_median_is_that_of_ratios_of_neighbours_without_the_first(monkeypatch):
    now, order = [0.0], []
    seconds = {"peer": iter([100, 2, 6, 8]), "ours": iter([1, 2, 2, 4])}

    def call(who):
        order.append(who)
        now[0] += next(seconds[who])

    monkeypatch.setattr(side_by_side.time, "perf_counter", lambda: now[0])
    timing = side_by_side.alternate(lambda: call("peer"), lambda: call("ours"), 3)
    assert order == ["peer", "ours", "ours", "peer"] * 2
    assert timing == side_by_side.Timing(6, 2, ratio=2, lowest_ratio=1, highest_ratio=3)


def test_every_row_is_printed_and_kept_also_those_that_miss_or_fail(bench, monkeypatch, tmp_path, capsys):
    def fails(_):
        raise OSError("no such clip")

    rows = {
        "quick": lambda _: bench.Row("quick one", 1.2, 1.6, 2.0, notes=["noted"]),
        "failing": fails,
        "slow": lambda _: bench.Row("slow one", 1.2, 1.6, 0.5),
        "time_to_accuracy": fails,
        "int8": lambda _: bench.Row("int8", 1.2, 1.6, 1.3),
    }
    monkeypatch.setattr(bench, "ROWS", rows)
    output = tmp_path / "runs" / "bench.json"
    assert bench.main(["--no_growth", "--output", str(output)]) == 1
    printed = capsys.readouterr().out
    assert "| quick one | 1.2 | 1.6 | **2.00** | aim |" in printed
    assert "| MISSED: failed: no such clip |" in printed
    assert "| slow one | 1.2 | 1.6 | **0.50** | MISSED |" in printed
    assert "Left out: time_to_accuracy, the digit clips of int8, without --digits FOLDER." in printed
    kept = json.loads(output.read_text())
    assert [row["reached"] for row in kept["rows"]] == ["aim", "MISSED: failed: no such clip", "MISSED", "must"]
    assert kept["rows"][0]["notes"] == ["noted"]
    assert kept["machine"]["torch"]
    assert kept["growth"] is None
    assert bench.main(["--no_growth", "--output", str(output), "--rows", "quick", "int8"]) == 0


@pytest.mark.parametrize("clips", [None, 1, 299])
def test_a_folder_without_the_digits_is_refused_before_anything_is_measured(bench, tmp_path, capsys, clips):
    digits = tmp_path / "digits"
    if clips is not None:
        digits.mkdir()
        (digits / "metadata.csv").touch()
        for number in range(clips):
            (digits / f"{number}.wav").touch()
    with pytest.raises(SystemExit):
        bench.main(["--digits", str(digits), "--output", str(tmp_path / "bench.json")])
    said = " ".join(capsys.readouterr().err.split())
    assert f"--digits {digits} holds {clips or 0} clips and {'no' if clips is None else 'a'} metadata.csv" in said
    assert not (tmp_path / "bench.json").exists()


def test_what_onednn_gains_is_measured_where_it_is_used_alone(bench, monkeypatch):
    linear = bench.linear
    products = []
    row = bench.Row("row", 1, 1, 1)
    for product in linear.Product:
        monkeypatch.setattr(linear, "fastest_product", lambda product=product: product)
        bench.note_without_onednn(row, lambda: None, lambda: products.append(linear.fastest_product()), 1)
        assert linear.fastest_product() is product
    assert set(products) == {linear.Product.BLAS}
    assert len(row.notes) == 2
    assert all(note.startswith("without oneDNN's matrix products ") for note in row.notes)
