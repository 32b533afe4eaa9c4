"""The pictures of the model card: what they show, that they fit, and that no global state is touched."""

import subprocess
import sys

import numpy as np
import pytest
from matplotlib import image
from matplotlib.backends.backend_agg import RendererAgg
from PIL import Image

from model_card import figures
from model_card.figures import DPI, plot_confusion_matrix, plot_spectrogram_with_prediction, plot_training_curve

pytestmark = pytest.mark.pictures

HISTORY = [
    {"epoch": 1.0, "loss": 2.0, "learning_rate": 1e-4},
    {"epoch": 1.0, "eval_loss": 2.5, "eval_accuracy": 0.3, "eval_d_prime": 1.5, "eval_runtime": 3.0},
    {"epoch": 2.0, "loss": float("nan"), "learning_rate": 5e-5},
    {"epoch": 2.0, "eval_loss": 2.1, "eval_accuracy": 0.4},
    {"train_runtime": 12.0},
]
COARSER = 3  # than what is published, a side: a hundred labels are 20 million pixels, which take seconds
SCORES = [{"label": label, "score": score} for label, score in (("kick", 0.1), ("bell", 0.6), ("$5 $6", 0.3))]


def get_curves(axes) -> dict[str, list[tuple[float, float]]]:
    return {line.get_label(): list(zip(*line.get_data(), strict=True)) for line in axes.lines}


def test_training_curve_has_a_panel_for_what_was_logged(tmp_path):
    figure = plot_training_curve(HISTORY, tmp_path / "curve.png")
    panels = {axes.get_title(): get_curves(axes) for axes in figure.axes}
    assert panels == {
        "loss": {"training": [(1.0, 2.0)], "evaluation": [(1.0, 2.5), (2.0, 2.1)]},
        "score": {"Accuracy": [(1.0, 0.3), (2.0, 0.4)]},
        "learning rate": {"learning rate": [(1.0, 1e-4), (2.0, 5e-5)]},
    }
    only_loss = plot_training_curve(HISTORY[:1], tmp_path / "curve.png")
    assert [axes.get_title() for axes in only_loss.axes] == ["loss", "learning rate"]


def test_a_single_point_is_visible(tmp_path):
    figure = plot_training_curve([{"epoch": 1.0, "loss": 2.0}], tmp_path / "curve.png")
    assert figure.axes[0].lines[0].get_marker() == "o"


@pytest.mark.parametrize("history", [[], [{"epoch": 1.0}], [{"loss": 1.0}], [{"epoch": 1.0, "loss": float("nan")}]])
def test_a_history_with_nothing_to_draw(tmp_path, history):
    with pytest.raises(ValueError, match=rf"history has {len(history)} rows and none with 'epoch' and a number"):
        plot_training_curve(history, tmp_path / "curve.png")


def test_confusion_matrix_writes_counts_and_colours_shares(tmp_path):
    figure = plot_confusion_matrix([[3, 1, 0], [0, 20, 0], [0, 0, 0]], ["bell", "$x$ $y$", "tom"], tmp_path / "m.png")
    axes = figure.axes[0]
    # a row for each true label: (column, row) -> count
    assert {text.get_position(): text.get_text() for text in axes.texts} == {(0, 0): "3", (1, 0): "1", (1, 1): "20"}
    np.testing.assert_allclose(
        np.ma.filled(axes.images[0].get_array(), np.nan), [[0.75, 0.25, 0], [0, 1, 0], [0, 0, 0]]
    )
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["bell", "$x$ $y$", "tom"]
    assert not any(tick.get_parse_math() for tick in [*axes.get_xticklabels(), *axes.get_yticklabels()])
    assert axes.get_xlabel() == "predicted"
    assert axes.get_ylabel() == "true"
    assert axes.get_title() == "23 of 24 clips right"


@pytest.mark.parametrize("size", [2, 9, 35, 100])
def test_counts_fit_their_cells_and_names_fit_the_picture(tmp_path, monkeypatch, size):
    monkeypatch.setattr(figures, "DPI", DPI / COARSER)
    matrix = np.diag(np.full(size, 1234))
    labels = [f"label {i} with a long, long name that goes on and on" for i in range(size)]
    figure = plot_confusion_matrix(matrix.tolist(), labels, tmp_path / "matrix.png")
    axes = figure.axes[0]
    published = RendererAgg(1, 1, DPI)  # for the sizes that text has there
    cell = axes.get_window_extent().width / size
    assert len(axes.texts) == size
    assert max(text.get_window_extent(published).width for text in axes.texts[:3]) < cell
    assert axes.get_yticklabels()[0].get_text() == "label 0 with a long, long n…"
    names = [tick.get_window_extent(published) for tick in axes.get_xticklabels()]
    assert all(left.x1 <= right.x0 + 1 for left, right in zip(names, names[1:], strict=False))
    pixels = np.asarray(Image.open(tmp_path / "matrix.png").convert("RGB"))
    assert min(pixels.shape[:2]) * COARSER > 300
    assert max(pixels.shape[:2]) * COARSER < 6000
    # the long names lie inside: no ink on the rim
    assert pixels[[0, -1]].min() == pixels[:, [0, -1]].min() == 255


def test_a_matrix_of_many_labels_stays_a_bounded_picture(tmp_path, monkeypatch):
    monkeypatch.setattr(figures, "MOST_PIXELS", 600)
    plot_confusion_matrix(np.eye(20, dtype=int).tolist(), [str(i) for i in range(20)], tmp_path / "matrix.png")
    assert 600 < max(image.imread(tmp_path / "matrix.png").shape) < 800  # names and scale stand beside the cells


def test_a_matrix_of_another_size_than_the_labels(tmp_path):
    with pytest.raises(ValueError, match=r"matrix has shape \(2, 2\), expected \(3, 3\)"):
        plot_confusion_matrix([[1, 0], [0, 1]], ["a", "b", "c"], tmp_path / "matrix.png")


def test_spectrogram_with_prediction(tmp_path):
    log_mel = np.random.default_rng(0).normal(-6, 4, (96, 128))
    figure = plot_spectrogram_with_prediction(log_mel, SCORES, tmp_path / "s.png", truth="bell", top_k=2)
    picture, bars = figure.axes
    assert picture.get_title() == "truth: bell"
    np.testing.assert_array_equal(picture.images[0].get_array(), log_mel.T)
    assert picture.images[0].origin == "lower"
    assert picture.get_xlim() == (0, pytest.approx(0.96))  # 10 ms a frame
    assert [tick.get_text() for tick in bars.get_yticklabels()] == ["bell", "$5 $6"]
    assert not any(text.get_parse_math() for text in [picture.title, *bars.get_yticklabels()])
    assert [bar.get_width() for bar in bars.patches] == [0.6, 0.3]
    first, second = (bar.get_facecolor() for bar in bars.patches)
    assert first != second, "the bar of the true label has a colour of its own"
    assert (tmp_path / "s.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(("bins", "sampling_rate"), [(128, 16000), (64, 8000)])
def test_frequencies_stand_at_the_bins_of_the_filter_bank(tmp_path, bins, sampling_rate):
    """Against torchaudio's own mel banks: a marked frequency lies where the bank's triangles peak."""
    from torchaudio.compliance.kaldi import get_mel_banks

    _, centres = get_mel_banks(bins, 512, sampling_rate, 20.0, 0.0, 100.0, -500.0, 1.0)
    figure = plot_spectrogram_with_prediction(
        np.zeros((10, bins)), SCORES, tmp_path / "s.png", sampling_rate=sampling_rate
    )
    axes = figure.axes[0]
    ticks = dict(zip((int(t.get_text()) for t in axes.get_yticklabels()), axes.get_yticks(), strict=True))
    assert max(ticks) == sampling_rate / 2
    assert ticks.pop(sampling_rate // 2) == bins - 0.5
    for frequency, position in ticks.items():
        # linear between neighbouring centres instead of logarithmic: within a twentieth of a bin
        assert position == pytest.approx(np.interp(frequency, centres.flatten().numpy(), np.arange(bins)), abs=0.05)


@pytest.mark.parametrize("shape", [(96,), (1, 96, 128), (0, 128)])
def test_log_mel_of_another_shape(tmp_path, shape):
    with pytest.raises(ValueError, match=r"log_mel has shape \(.*\), expected \(frames, bins\)"):
        plot_spectrogram_with_prediction(np.zeros(shape), SCORES, tmp_path / "s.png")


def test_no_scores(tmp_path):
    with pytest.raises(ValueError, match="scores is empty"):
        plot_spectrogram_with_prediction(np.zeros((96, 128)), [], tmp_path / "s.png")


def test_an_older_picture_is_replaced_and_nothing_else_is_left(tmp_path):
    (tmp_path / "curve.png").write_text("an older picture")
    plot_training_curve(HISTORY, str(tmp_path / "curve.png"))
    assert image.imread(tmp_path / "curve.png").ndim == 3
    assert [path.name for path in tmp_path.iterdir()] == ["curve.png"]


def test_pyplot_is_not_imported(tmp_path):
    script = (
        "import sys\n"
        "from model_card.figures import plot_training_curve\n"
        "plot_training_curve([{'epoch': 1.0, 'loss': 2.0}], 'curve.png')\n"
        "assert not {'matplotlib.pyplot', 'torch', 'transformers'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=True)
