"""The pictures of a model card: training curve, confusion matrix, spectrogram with its prediction.

Drawn with Matplotlib's `Figure` objects, never with pyplot: no window, no global state, safe in threads. Labels are
drawn as they are, a `$` in them starts no formula.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from modeling_ast.features.log_mel_figure import DARKEST_PERCENTILE, DPI, draw_log_mel, save_figure
from modeling_ast.system.names_as_text import storable

from .card_data import METRICS

MOST_PIXELS = 4800  # a side of a confusion matrix; hundreds of labels would take gigabytes at full resolution
LONGEST_LABEL = 28  # characters; AudioSet has labels of more than 60
BLUE, GREEN = "#3b6fb6", "#2e8b57"


def plot_training_curve(history: Sequence[dict[str, float]], path: str | Path) -> Figure:
    """Draw loss, scores and learning rate over the epochs, a panel for each that was logged.

    Args:
        history (`Sequence[dict[str, float]]`): log rows with `epoch` and any of `loss`, `learning_rate`, `eval_loss`
            and `eval_` scores between 0 and 1; other entries, and numbers that aren't finite, are not drawn.
        path (`str` or `Path`): PNG file to write.

    Returns:
        `Figure`: what was written.

    Raises:
        ValueError: if no row has an epoch and a number to draw.
    """
    scores = {f"eval_{key}": name for key, (_, name) in METRICS.items() if key != "d_prime"}  # d-prime has no bound
    panels = {
        "loss": {"loss": "training", "eval_loss": "evaluation"},
        "score": scores,
        "learning rate": {"learning_rate": "learning rate"},
    }
    curves = {title: {name: _curve(history, key) for key, name in keys.items()} for title, keys in panels.items()}
    curves = {title: {name: curve for name, curve in drawn.items() if curve} for title, drawn in curves.items()}
    curves = {title: drawn for title, drawn in curves.items() if drawn}
    if not curves:
        raise ValueError(
            f"history has {len(history)} rows and none with 'epoch' and a number to draw; expected rows such as "
            "{'epoch': 1.0, 'loss': 2.1}. Set logging_strategy: epoch in the recipe."
        )
    figure = Figure(figsize=(0.8 + 4.2 * len(curves), 3.4), layout="constrained")
    for axes, (title, drawn) in zip(figure.subplots(1, len(curves), squeeze=False)[0], curves.items(), strict=True):
        for name, curve in drawn.items():
            axes.plot(*zip(*curve, strict=True), label=name, marker="o" if len(curve) <= 60 else None, markersize=3)
        axes.set(title=title, xlabel="epoch")
        axes.set_xlim(0, 1.03 * max(epoch for curve in drawn.values() for epoch, _ in curve))
        axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True))
        axes.grid(alpha=0.3)
        if title == "score":
            axes.set_ylim(0, 1)
        if len(drawn) > 1 or title == "score":
            axes.legend(fontsize=9)
    return save_figure(figure, path)


def plot_confusion_matrix(matrix: Sequence[Sequence[int]], labels: Sequence[str], path: str | Path) -> Figure:
    """Draw a confusion matrix: the count in each cell that has one, coloured by its share of the true label's clips.

    Args:
        matrix (`Sequence[Sequence[int]]` of shape `(labels, labels)`): clips by true label (row) and prediction.
        labels (`Sequence[str]`): the labels in that order.
        path (`str` or `Path`): PNG file to write.

    Returns:
        `Figure`: what was written.

    Raises:
        ValueError: if the matrix is not square or doesn't fit the labels.
    """
    counts = np.asarray(matrix)
    if counts.shape != (len(labels), len(labels)):
        raise ValueError(f"matrix has shape {counts.shape}, expected {(len(labels), len(labels))} for these labels.")
    totals = counts.sum(axis=1, keepdims=True)
    shares = counts / np.maximum(totals, 1)  # a label without clips is a row of zeros

    cell = float(np.interp(len(labels), [2, 5, 9, 50], [1.5, 0.9, 0.7, 0.34]))  # inches
    side = cell * len(labels)
    figure = Figure(figsize=(side, side))
    axes = figure.add_axes((0, 0, 1, 1))  # names and titles lie outside; what is saved is widened to hold them
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    fontsize = min(11.0, 72 * cell * 0.95 / max(len(str(counts.max())), 2))
    for row, column in np.argwhere(counts):
        colour = "white" if shares[row, column] > 0.55 else "black"
        axes.text(column, row, counts[row, column], ha="center", va="center", color=colour, fontsize=fontsize)

    names = [_shorten(label) for label in labels]
    ticks, fontsize = range(len(labels)), min(11.0, 72 * cell * 0.6)
    crowded = max(len(name) for name in names) * fontsize * 0.6 > 72 * cell
    axes.set_xticks(ticks, names, rotation=90 if crowded else 0, fontsize=fontsize, parse_math=False)
    axes.set_yticks(ticks, names, fontsize=fontsize, parse_math=False)
    axes.set_xticks(np.arange(len(labels) + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(len(labels) + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="0.88", linewidth=0.5)
    axes.tick_params(which="minor", length=0)
    heading = float(np.clip(1.6 * side, 11, 40))  # large matrices are looked at as a whole first
    axes.set_title(f"{np.trace(counts)} of {counts.sum()} clips right", fontsize=heading, pad=heading)
    axes.set_xlabel("predicted", fontsize=heading)
    axes.set_ylabel("true", fontsize=heading)
    height = min(1.0, 5 / side)
    scale = figure.add_axes((1 + 0.2 / side, 1 - height, 0.16 / side, height))
    figure.colorbar(image, cax=scale, label="share of the true label's clips")
    return save_figure(figure, path, dpi=min(DPI, MOST_PIXELS / side))


def plot_spectrogram_with_prediction(
    log_mel: np.ndarray,
    scores: Sequence[dict[str, str | float]],
    path: str | Path,
    truth: str | None = None,
    sampling_rate: int = 16000,
    top_k: int = 5,
) -> Figure:
    """Draw a clip's log-mel spectrogram and, beside it, the labels with the highest scores as bars.

    Args:
        log_mel (`np.ndarray` of shape `(frames, bins)`): log-mel values, a frame every 10 ms, normalised or not.
        scores (`Sequence[dict]`): a `label` and a `score` between 0 and 1 each, as the pipeline returns them.
        path (`str` or `Path`): PNG file to write.
        truth (`str`, *optional*): the true label; it stands in the title, and its bar has another colour.
        sampling_rate (`int`, *optional*, defaults to 16000): of the waveform in Hz; the mel bins end at half of it.
        top_k (`int`, *optional*, defaults to 5): how many labels are shown.

    Returns:
        `Figure`: what was written.

    Raises:
        ValueError: if `log_mel` hasn't two dimensions or there is no score.
    """
    log_mel = np.asarray(log_mel)
    if log_mel.ndim != 2 or not log_mel.size:
        raise ValueError(f"log_mel has shape {log_mel.shape}, expected (frames, bins). Give one clip, not a batch.")
    if not scores:
        raise ValueError("scores is empty, expected [{'label': ..., 'score': ...}, ...] as the pipeline returns it.")
    top = sorted(scores, key=lambda entry: entry["score"], reverse=True)[:top_k]

    figure = Figure(figsize=(9.6, 3.6), layout="constrained")
    picture, bars = figure.subplots(1, 2, width_ratios=(2.2, 1))
    draw_log_mel(picture, log_mel, sampling_rate)
    title = "log-mel spectrogram" if truth is None else f"truth: {_shorten(truth)}"
    picture.set_title(title, parse_math=False)
    picture.set(xlabel="time in s", ylabel=f"frequency in Hz ({log_mel.shape[1]} mel bins)")

    names = [_shorten(entry["label"]) for entry in top]
    colours = [GREEN if entry["label"] == truth else BLUE for entry in top]
    values = [entry["score"] for entry in top]
    drawn = bars.barh(range(len(top)), values, color=colours, height=0.7)
    bars.bar_label(drawn, labels=[f"{value:.2f}" for value in values], padding=3, fontsize=10)
    bars.set_yticks(range(len(top)), names, parse_math=False)
    bars.invert_yaxis()
    bars.set(xlim=(0, 1.18), xlabel="score", title="prediction")
    bars.set_xticks([0, 0.5, 1])
    bars.spines[["top", "right"]].set_visible(False)
    return save_figure(figure, path)


def plot_spectrogram_pairs(
    pairs: Sequence[tuple[tuple[str, np.ndarray], tuple[str, np.ndarray]]],
    path: str | Path,
    title: str,
    sampling_rate: int = 16000,
) -> Figure:
    """Draw clips in two forms side by side, in one range of colours; two clips in a row.

    Args:
        pairs (`Sequence` of pairs of `(label, log-mel)`): each clip in its two forms, with what to call it and values of
            shape `(frames, bins)`, a frame every 10 ms.
        path (`str` or `Path`): PNG file to write.
        title (`str`): what the two forms are.
        sampling_rate (`int`, *optional*, defaults to 16000): of the waveforms in Hz; the mel bins end at half of it.

    Returns:
        `Figure`: what was written.

    Raises:
        ValueError: if there is no clip.
    """
    if not pairs:
        raise ValueError("pairs is empty, expected a pair of (label, log-mel) for each clip to draw.")
    columns = 2 if len(pairs) > 1 else 1  # of pairs
    rows = -(-len(pairs) // columns)
    figure = Figure(figsize=(6.4 * columns, 0.6 + 2.1 * rows), layout="constrained")
    panels = figure.subplots(rows, 2 * columns, squeeze=False)
    for place, pair in enumerate(pairs):
        row, column = divmod(place, columns)
        darkest, brightest = np.percentile(pair[0][1], DARKEST_PERCENTILE), max(log_mel.max() for _, log_mel in pair)
        for axes, (label, log_mel) in zip(panels[row, 2 * column :], pair, strict=False):
            draw_log_mel(axes, log_mel, sampling_rate, darkest, brightest)
            axes.tick_params(labelsize=7)
            axes.set_title(_shorten(label), fontsize=9, parse_math=False)
    for axes in panels[-1]:
        axes.set_xlabel("time in s", fontsize=8)
    for axes in panels[:, 0]:
        axes.set_ylabel("frequency in Hz", fontsize=8)
    for axes in panels.flat[2 * len(pairs) :]:
        axes.set_visible(False)
    figure.suptitle(title, fontsize=11)
    return save_figure(figure, path)


def _curve(history: Sequence[dict[str, float]], key: str) -> list[tuple[float, float]]:
    """The points (epoch, value) of one entry of the log."""
    return [(row["epoch"], row[key]) for row in history if "epoch" in row and np.isfinite(row.get(key, np.nan))]


def _shorten(label: str) -> str:
    label = storable(label)
    return label if len(label) <= LONGEST_LABEL else label[: LONGEST_LABEL - 1] + "…"
