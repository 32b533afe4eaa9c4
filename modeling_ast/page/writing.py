"""Writes the files of a page around a model that takes samples.

What the page needs to know of the model is computed here and lies beside it as `model.json`, as a browser cannot read the
metadata of an ONNX file: labels, the windows of `ast-tag`'s time line, and the rules of events in samples.
"""

import hashlib
import html
import json
import os
import shutil
from dataclasses import replace
from importlib import metadata, resources, util
from pathlib import Path
from string import Template

import numpy as np

from ..checkpoint_export import ExportSettings, export_checkpoint
from ..checkpoints.folder import weights_of
from ..features.kaldi import frame_length, frame_shift
from ..frame_columns import FrameColumns
from ..onnx_sessions import open_file
from ..scores import label_thresholds
from ..system.installation import DISTRIBUTION
from ..tagging.backends import OnnxBackend
from ..tagging.events import event_rules
from ..tagging.frames import chosen_medians
from .runtime_package import FILES, copy_runtime

MODEL, ABOUT, RUNTIME = "model.onnx", "model.json", "runtime"
SCRIPT, STYLE, PAGE = "page.js", "page.css", "index.html"
NAMED_LABELS = 12  # in the page's first line
LARGE = 100_000_000  # bytes, beyond which some hosts of static files take no file
NOTICES = "ThirdPartyNotices.txt"
LICENSE = "LICENSE"


class PageError(ValueError):
    """A model of which no page can be made; the message says why."""


def write_page(
    folder: str | Path,
    title: str,
    runtime_package: str | Path | None = None,
    settings: ExportSettings | None = None,
) -> list[str]:
    """Write the files of a page beside a model.

    Args:
        folder (`str` or `Path`): holds `model.onnx`, a file of `ast-export --waveform`.
        title (`str`): of the page.
        runtime_package (`str` or `Path`, *optional*): see [`copy_runtime`].
        settings ([`ExportSettings`], *optional*): of the model, by which it is known how it may become smaller.

    Returns:
        `list[str]`: what whoever publishes it should know, in words.

    Raises:
        PageError: if the model is too large for a browser, or a regression, which has no labels to hear.
        RuntimePackageError: see [`copy_runtime`].
    """
    folder = Path(folder)
    about = describe_for_page(folder / MODEL, settings)
    runtime = folder / RUNTIME
    runtime.mkdir()
    copy_runtime(runtime, runtime_package)
    own = resources.files(__package__) / "files"
    for name in (SCRIPT, STYLE):
        (folder / name).write_bytes((own / name).read_bytes())
    (runtime / LICENSE).write_bytes((own / "onnxruntime_license.txt").read_bytes())
    _copy_notices(runtime)
    (folder / LICENSE).write_text(_license(), encoding="utf-8")
    about["files"] = {
        name: {"bytes": (folder / name).stat().st_size, "sha256": _digest(folder / name)}
        for name in (MODEL, *(f"{RUNTIME}/{file}" for file in FILES))
    }
    (folder / ABOUT).write_text(json.dumps(about, ensure_ascii=False, indent=1), encoding="utf-8")
    words = {"title": title, "labels": _labels_in_words(about["labels"])}
    text = Template((own / PAGE).read_text(encoding="utf-8"))
    page = text.substitute({name: html.escape(each) for name, each in words.items()})
    (folder / PAGE).write_text(page, encoding="utf-8")
    size = about["files"][MODEL]["bytes"]
    if size <= LARGE:
        return []
    return [
        f"The model has {size / 1e6:.0f} MB, which each visitor downloads once; some hosts take no file above "
        f"{LARGE / 1e6:.0f} MB. {_how_to_shrink(settings, tells_frames=about['columns'] is not None)}"
    ]


def _how_to_shrink(settings: ExportSettings | None, tells_frames: bool) -> str:
    """Say which flags make a model smaller: none that it was made with, and none that are refused for its head."""
    settings = settings or ExportSettings()
    ways = []
    if not settings.float16 and not settings.int8:
        ways.append("about half of it with --float16")
    if not settings.int8 and not tells_frames:
        ways.append(
            "about half of it with --int8 in place of --float16" if settings.float16 else "about a quarter with --int8"
        )
    if not ways:
        return "ast-export makes it no smaller: train a smaller model for a smaller page."
    return f"ast-export --page makes {' or '.join(ways)}."


def export_page(
    checkpoint_dir: str | Path,
    folder: str | Path,
    title: str,
    runtime_package: str | Path | None = None,
    settings: ExportSettings | None = None,
) -> tuple:
    """Export a model and write its page.

    Args:
        checkpoint_dir (`str` or `Path`): folder of a fine-tuned model, with a head of clips or of frames.
        folder (`str` or `Path`): an empty one.
        title (`str`): see [`write_page`].
        runtime_package (`str` or `Path`, *optional*): see [`write_page`].
        settings ([`ExportSettings`], *optional*): of the model; it takes samples in any case.

    Returns:
        What [`export_checkpoint`] gives, and `list[str]`: see [`write_page`].

    Raises:
        ValueError: if the model cannot be loaded or exported; also see [`write_page`].
    """
    from ..quantization import report_path

    model = Path(folder) / MODEL
    measured = export_checkpoint(checkpoint_dir, model, replace(settings or ExportSettings(), waveform=True))
    report_path(model).unlink(missing_ok=True)
    return measured, write_page(folder, title, runtime_package, settings)


def is_page(folder: str | Path) -> bool:
    """Tell whether a folder holds a page that was written here.

    Args:
        folder (`str` or `Path`): the folder, or what is not there.

    Returns:
        `bool`.
    """
    folder = Path(folder)
    has_files = all((folder / name).is_file() for name in (PAGE, SCRIPT, ABOUT))
    return has_files and (folder / RUNTIME).is_dir() and not (folder / LICENSE).is_dir()


def replace_page(new: str | Path, old: str | Path, kept: str | Path) -> list[str]:
    """Put the files of a new page in the place of an older one's. What else lies there, such as a repository, is not touched.

    A process that is killed in the midst leaves files of both; its page then says that they do not belong together, and the
    same call mends it.

    Args:
        new (`str` or `Path`): folder of the new page, on the same disk as the old one; its files are moved out of it.
        old (`str` or `Path`): folder of the older page.
        kept (`str` or `Path`): a folder to be made, where the older files are until all new ones are in their place.

    Returns:
        `list[str]`: what else is in the folder and in those of the page, such as files of an older one, sorted.

    Raises:
        OSError: if a file cannot be replaced. Those that were replaced are put back.
    """
    new, old, kept = Path(new), Path(old), Path(kept)
    files = [path.relative_to(new) for path in sorted(new.rglob("*")) if path.is_file()]
    files.sort(key=lambda file: file.name in (PAGE, ABOUT))  # which name the others come last
    for folder in {file.parent for file in files}:
        (kept / folder).mkdir(parents=True, exist_ok=True)
        (old / folder).mkdir(exist_ok=True)
    older = [file for file in files if os.path.lexists(old / file)]
    for file in older:
        shutil.copy2(old / file, kept / file, follow_symlinks=False)
    try:
        for file in files:
            os.replace(new / file, old / file)
    except BaseException:
        for file in files:
            if file in older:
                os.replace(kept / file, old / file)
            else:
                (old / file).unlink(missing_ok=True)
        raise
    folders = {folder for file in files for folder in file.parents}
    beside = {path.relative_to(old) for folder in folders for path in (old / folder).iterdir()}
    return sorted(path.as_posix() for path in beside - {*files} - folders)


def describe_for_page(path: str | Path, settings: ExportSettings | None = None) -> dict:
    """Say what the page's script needs to know of a model.

    Args:
        path (`str` or `Path`): a file of `ast-export --waveform`.
        settings ([`ExportSettings`], *optional*): see [`write_page`].

    Returns:
        `dict` that can be written as JSON. Numbers of samples are at `sampling_rate`. Lists have a row for each label; a score
        or a gap that is none is `None`.

    Raises:
        PageError: see [`write_page`].
    """
    path = Path(path)
    backend = OnnxBackend(path)
    config, hearing = backend.config, backend.feature_extractor()
    if backend.problem_type == "regression":
        raise PageError(
            "The model is a regression: it has no labels to show on a page. Use the ONNX file itself (--waveform)."
        )
    if weights_of(path):
        elsewhere = (
            "the ONNX file itself (--waveform)"
            if backend.tells_frames
            else "the demo page (ast-demo), which computes on a server"
        )
        raise PageError(
            "The model is too large for a page: beyond 2 GB browsers cannot open it. "
            f"{_how_to_shrink(settings, backend.tells_frames)} Or use {elsewhere}."
        )
    rate, window = hearing.sampling_rate, hearing.max_samples
    columns = FrameColumns.of(config) if backend.tells_frames else None
    step = frame_shift(rate) * (1 if columns is None else columns.time_stride)
    rules = event_rules(config, rate)

    def of_labels(values) -> list[float | None]:
        row = np.full(config.num_labels, np.nan) if values is None else np.broadcast_to(values, config.num_labels)
        return [float(each) if np.isfinite(each) else None for each in row]

    return {
        "labels": [config.id2label[index] for index in range(config.num_labels)],
        "sampling_rate": rate,
        "channels": hearing.channels,
        "resampler": hearing.resampler,
        "window_samples": window,
        "hop_samples": max(window // 2 // step, 1) * step,  # as ast-tag's
        "frame_samples": frame_length(rate),
        "shift_samples": frame_shift(rate),
        "step_samples": 1 if columns is None else step,
        "columns": None
        if columns is None
        else {
            "seconds": columns.seconds,
            "first_edge": columns.first_edge,
            "patch_size": columns.patch_size,
            "time_stride": columns.time_stride,
        },
        "median_columns": chosen_medians(config, columns).tolist(),
        "exclusive": rules.exclusive,
        "thresholds": of_labels(None if rules.exclusive else label_thresholds(config)),
        "on": of_labels(rules.on),
        "off": of_labels(rules.off),
        "min_samples": of_labels(rules.min_samples),
        "gap_samples": of_labels(rules.gap_samples),
        "facts": _facts(path),
    }


def _facts(path: Path) -> list[str]:
    """Licence and figures of the model, in words."""
    entries = open_file(path).get_modelmeta().custom_metadata_map
    facts = [f"Licence: {entries['license']}"] if "license" in entries else []
    for figure in json.loads(entries.get("figures", "[]")):
        where = ", ".join(str(figure[name]) for name in ("dataset", "split") if figure[name])
        value = figure["value"]
        facts.append(f"{figure['metric']} {value:.3g} ({where})" if isinstance(value, int | float) else str(value))
    return facts


def _labels_in_words(labels: list[str]) -> str:
    if len(labels) <= NAMED_LABELS:
        return ", ".join(labels)
    return f"{', '.join(labels[:NAMED_LABELS])} and {len(labels) - NAMED_LABELS} more"


def _digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _copy_notices(folder: Path):
    """What ONNX Runtime is made of, in its own words, which come with its Python package."""
    notices = Path(util.find_spec("onnxruntime").origin).with_name(NOTICES)
    if notices.is_file():
        shutil.copyfile(notices, folder / NOTICES)


def _license() -> str:
    """The kit's licence, from its metadata or, in a checkout, from the file."""
    try:
        installed = metadata.distribution(DISTRIBUTION).read_text("licenses/LICENSE")
    except metadata.PackageNotFoundError:
        installed = None
    return installed or (Path(__file__).resolve().parents[2] / "LICENSE").read_text(encoding="utf-8")
