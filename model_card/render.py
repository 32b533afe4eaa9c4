"""Renders a checkpoint's model card and writes it as the folder's `README.md`.

The words are in `card_template.md`, the facts in [`ASTModelCardData`]; here facts become Markdown tables and cells.
"""

import itertools
import json
import os
import re
import shlex
import shutil
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from modeling_ast.system.atomic_files import open_atomically
from modeling_ast.system.names_as_text import markdown_block, markdown_code, markdown_text, storable

from .card_data import METRICS, ASTModelCardData
from .file_names import CARD_NAME
from .licenses import NOTICE_NAME, notice_text
from .run_summary import RUN_SUMMARY_NAME

MAX_OPEN_ROWS = 30  # a list of more labels is folded away behind its title
_COLUMN_NAMES = {"f1": "F1", "roc_auc": "ROC AUC"}
_LORA_FACTS = {"rank", "alpha", "target_modules", "trained_in_full", "trainable_parameters"}  # of the sentence on it
_TEACHER_FACTS = {"name", "kind", "sha256", "weight"}  # likewise
_TEACHER_DETAILS = ("revision", "parameters", "temperature", "layers")  # which not every teacher has


def render_model_card(checkpoint_dir: str | Path, repo_id: str | None = None) -> str:
    """Render the model card of a checkpoint folder, offline.

    Args:
        checkpoint_dir (`str` or `Path`): folder with `config.json` and `run_summary.json`.
        repo_id (`str`, *optional*): `user/name`, for a card whose snippets load the model from the Hub.

    Returns:
        `str`: the text of `README.md`, metadata block and Markdown.

    Raises:
        FileNotFoundError: if the folder or one of the two files isn't there.
        ValueError: if a file can't be parsed, or `run_summary.json` describes another checkpoint.
    """
    return _render(ASTModelCardData.from_checkpoint(checkpoint_dir, repo_id))


@cache
def _template() -> Template:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=StrictUndefined,  # an unknown fact is None or empty; a name that doesn't exist is a slip
    )
    environment.filters |= {
        "address": _address,
        "block": markdown_block,
        "code": markdown_code,
        "duration": _duration,
        "epochs": _epochs,
        "fold": _fold,
        "number": _number,
        "python": lambda text: json.dumps(
            storable(text), ensure_ascii=False
        ),  # every JSON string is a Python string too
        "shell": lambda text: shlex.quote(storable(text)),
        "text": markdown_text,
    }
    return environment.get_template("card_template.md")


def _render(card: ASTModelCardData) -> str:
    lora = card.training.get("lora", {})
    lora = lora if lora.keys() >= _LORA_FACTS else None
    teacher = card.training.get("teacher", {})
    teacher = dict.fromkeys(_TEACHER_DETAILS) | teacher if teacher.keys() >= _TEACHER_FACTS else None
    fitted = card.training.get("fitted_head", {})
    fitted = fitted if "clips" in fitted else None
    told = {"lora": lora, "teacher": teacher, "fitted_head": fitted}
    recipe = _recipe(card, [name for name, facts in told.items() if facts])
    text = _template().render(
        card=card,
        front_matter=card.front_matter().to_yaml(),
        metrics=_metrics_table(card),
        per_class=_per_class_table(card),
        events_table=_events_table(card),
        recordings_table=_recordings_table(card),
        events_together=_events_together(card),
        splits=_splits_table(card),
        label_counts=_label_counts_table(card),
        architecture=_table(("", "value"), _architecture(card)),
        published={METRICS[key][1]: f"{card.published[key]:.4f}" for key in METRICS if key in card.published},
        conversion=_table(("", "value"), _conversion(card)),
        lora=lora,
        teacher=teacher,
        fitted=fitted,
        recipe=_fold(_table(("setting", "value"), recipe), "All settings", len(recipe)),
        losses=[row["loss"] for row in card.history if "loss" in row],
        versions=_table(("", "value"), _versions(card)),
    )
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def is_rendered(folder: Path) -> bool:
    """Tell whether the card of a folder is what its run summary gives today, and nobody's own words.

    Args:
        folder (`Path`): with a `README.md` that can be read.

    Returns:
        `bool`.
    """
    if not (folder / RUN_SUMMARY_NAME).is_file():
        return False
    return render_model_card(folder) == (folder / CARD_NAME).read_text(encoding="utf-8")


def keep_own_card(checkpoint_dir: str | os.PathLike) -> Path | None:
    """Copy a card that holds somebody's own words, or what an older version wrote, before another takes its place.

    Args:
        checkpoint_dir (`str` or `os.PathLike`): folder of a checkpoint, perhaps with a `README.md`.

    Returns:
        `Path`: the copy; `None` if there is no card, nothing to write another from, or it is what the run summary gives today.

    Raises:
        OSError: if it cannot be copied.
        ValueError: see [`write_model_card`].
    """
    folder = Path(checkpoint_dir)
    card = folder / CARD_NAME
    if not card.is_file() or not (folder / RUN_SUMMARY_NAME).is_file() or is_rendered(folder):
        return None
    names = itertools.chain([f"{CARD_NAME}.before"], (f"{CARD_NAME}.before_{number}" for number in itertools.count(2)))
    kept = next(folder / name for name in names if not os.path.lexists(folder / name))
    shutil.copyfile(card, kept)
    return kept


def write_model_card(checkpoint_dir: str | Path) -> Path:
    """Render the model card and write it as `README.md` into the checkpoint folder, in place of an older one.

    Where the checkpoint derives from BSD-3-Clause work, the notice that this licence asks for is written beside it.

    Args:
        checkpoint_dir (`str` or `Path`): folder with `config.json` and `run_summary.json`.

    Returns:
        `Path`: the written file.

    Raises:
        FileNotFoundError: if the folder or one of the two files isn't there.
        ValueError: if a file can't be parsed, or `run_summary.json` describes another checkpoint.
    """
    card = ASTModelCardData.from_checkpoint(checkpoint_dir)
    path = Path(checkpoint_dir) / CARD_NAME
    texts = {path: _render(card)}
    if card.license_notice:
        texts[path.with_name(NOTICE_NAME)] = notice_text(card.license_notice)
    for place, text in texts.items():
        with open_atomically(place) as file:
            file.write(text.encode())
    return path


def _table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Lay out a Markdown table, first column left and the others right; without rows there is none."""
    lines = [[str(cell).replace("|", "\\|") for cell in row] for row in rows]
    if not lines:
        return ""
    ruler = ["---", *["---:"] * (len(header) - 1)]
    return "\n".join(f"| {' | '.join(line)} |" for line in [header, ruler, *lines])


def _metrics_table(card: ASTModelCardData) -> str:
    """A row for each metric, a column for each way in which the model was scored."""
    ways = {
        "value": card.metrics,
        'value with padding="longest"': card.metrics_padding_longest,
        "last epoch's weights": card.last_epoch_metrics,
        f"mean scores of {_epochs(card.ensemble.get('epochs'))}": card.ensemble.get("metrics"),
        "on the validation split": card.validation.get("metrics"),
    }
    ways = {way: metrics for way, metrics in ways.items() if metrics}
    keys = dict.fromkeys(key for metrics in ways.values() for key in metrics)
    rows = [
        [_metric_name(key, card)] + [f"{metrics[key]:.4f}" if key in metrics else "" for metrics in ways.values()]
        for key in keys
    ]
    return _table(["metric", *ways], rows)


def _metric_name(key: str, card: ASTModelCardData) -> str:
    if key == "accuracy" and card.top_label_accuracy:
        return "Accuracy of the top label"
    return METRICS[key][1] if key in METRICS else _words(key).capitalize()


def _epochs(first_and_last: Sequence[int] | None) -> str:
    """A range of epochs in words, as `[6, 25]` gives it."""
    if not first_and_last:
        return "several epochs"
    first, last = first_and_last[0], first_and_last[-1]
    return f"epoch {first}" if first == last else f"epochs {first} to {last}"


def _per_class_table(card: ASTModelCardData) -> str:
    """A row for each label, a column for each score that any row has and for the threshold, if there are thresholds."""
    per_class = [row for row in card.per_class if "label" in row] or [{"label": label} for label in card.thresholds]
    if card.thresholds:
        per_class = [_with_known(row, "threshold", card.thresholds.get(row["label"])) for row in per_class]
    columns = list(dict.fromkeys(key for row in per_class for key in row if key != "label"))
    rows = [
        [markdown_code(row["label"]), *(_score(row[key]) if key in row else "" for key in columns)]
        for row in per_class
    ]
    return _table(["label", *(_COLUMN_NAMES.get(key, _words(key)) for key in columns)], rows)


def _events_table(card: ASTModelCardData) -> str:
    """A row for each label of how well its events are found."""
    per_label = card.events.get("per_label", {})
    return _table_of_events("label", [(label, row) for label, row in per_label.items() if isinstance(row, dict)])


def _recordings_table(card: ASTModelCardData) -> str:
    """The same for each scored recording, folded; none if there is one alone."""
    rows = [(row["file"], row) for row in card.events.get("per_recording", []) if "file" in row]
    table = _table_of_events("recording", rows) if len(rows) > 1 else ""
    return _fold(table, f"Each of the {len(rows)} recordings", len(rows))


def _table_of_events(what: str, counted: Sequence[tuple[str, dict[str, Any]]]) -> str:
    rows = [
        (
            markdown_code(name),
            *(_score(row.get(key)) for key in ("marked", "found", "hits")),
            *map(_score, _event_scores(row).values()),
            _score(row.get("false_alarms_per_hour")),
        )
        for name, row in counted
    ]
    return _table((what, "marked", "found", "right", "F1", "precision", "recall", "false alarms an hour"), rows)


def _event_scores(row: dict[str, Any]) -> dict[str, Any]:
    scores = row.get("event_based")
    return {name: scores.get(name) if isinstance(scores, dict) else None for name in ("f1", "precision", "recall")}


def _events_together(card: ASTModelCardData) -> str:
    """The scores of the events of all labels, in words."""
    together = _event_scores({"event_based": card.events.get("event_based", {}).get("micro")})
    words = [f"{_words(name) if name != 'f1' else 'F1'} {_score(value)}" for name, value in together.items()]
    words.append(f"{_score(card.events.get('false_alarms_per_hour'))} false alarms an hour")
    segments = _event_scores({"event_based": card.events.get("segment_based", {}).get("micro")})["f1"]
    words.append(f"F1 of segments of {_number(card.events.get('rule', {}).get('segment', 1.0))} s {_score(segments)}")
    sound_scores = card.events.get("psds", {})
    words += [
        f"PSDS {kind} {_score(sound_scores[name])}"
        for kind, name in enumerate(("psds1", "psds2"), 1)
        if name in sound_scores
    ]
    return ", ".join(words)


def _with_known(row: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
    return row if value is None else row | {key: value}


def _splits_table(card: ASTModelCardData) -> str:
    """A row for each split, a column for what is known of any."""
    formats = {"clips": ("clips", str), "seconds": ("duration", _duration)}
    formats = {key: form for key, form in formats.items() if any(key in split for split in card.splits.values())}
    rows = [
        [markdown_code(name), *(form(split[key]) if key in split else "" for key, (_, form) in formats.items())]
        for name, split in card.splits.items()
    ]
    return _table(["split", *(title for title, _ in formats.values())], rows if formats else [])


def _label_counts_table(card: ASTModelCardData) -> str:
    """A row for each label, a column for each split whose clips were counted by label."""
    counts = {name: split["label_counts"] for name, split in card.splits.items() if split.get("label_counts")}
    labels = dict.fromkeys([*card.labels, *(label for of_split in counts.values() for label in of_split)])
    rows = [[markdown_code(label), *(of_split.get(label, "") for of_split in counts.values())] for label in labels]
    return _table(["label", *(markdown_code(name) for name in counts)], rows if counts else [])


def _architecture(card: ASTModelCardData) -> list[tuple[str, str]]:
    parameters = {} if card.parameters is None else {"parameters": f"{card.parameters:,}"}
    return _flatten(parameters | card.geometry)


def _recipe(card: ASTModelCardData, told: Sequence[str]) -> list[tuple[str, str]]:
    """The settings of the training, if there was one, without the sections that a sentence tells."""
    if not card.training:
        return []
    settings = {name: value for name, value in card.training.items() if name not in told}
    return _flatten(settings | ({} if card.seed is None else {"seed": card.seed}))


def _conversion(card: ASTModelCardData) -> list[tuple[str, str]]:
    """What a converted checkpoint was made of, and how well the two agree."""
    if card.source is None:
        return []
    facts = {"source": markdown_code(card.source)}
    if card.source_address:
        facts["address"] = _address(card.source_address)
    if card.model_size:
        facts["size"] = markdown_text(card.model_size)
    if "on_the_hub" in card.published:
        facts["the same weights on the Hub"] = _address("https://huggingface.co/" + card.published["on_the_hub"])
    facts |= {
        f"SHA-256 of {markdown_code(name)}": markdown_code(digest) for name, digest in card.sha256.items() if digest
    }
    if "largest_difference" in card.agreement:
        kind = card.agreement.get("outputs", "outputs")
        facts[f"largest difference of the {kind} from an independent forward pass of the source's tensors"] = (
            f"{card.agreement['largest_difference']:.1e}"
        )
    if "tolerance" in card.agreement:
        facts["tolerance"] = f"{card.agreement['tolerance']:.1e}"
    if card.unused_tensors:
        facts["left out, unused by AST"] = ", ".join(markdown_code(name) for name in card.unused_tensors)
    return list(facts.items())


def _address(text: str) -> str:
    """A link that shows where it leads, or the text where it can be no link."""
    return f"<{text}>" if re.fullmatch(r"https?://[^\s<>|`\\]+", text) else markdown_text(text)


def _versions(card: ASTModelCardData) -> list[tuple[str, str]]:
    facts = {"created": card.created, "ast-kit": card.kit_version}
    return _flatten({key: fact for key, fact in facts.items() if fact is not None} | card.environment)


def _flatten(settings: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Turn nested settings into rows, but for empty lists; a setting of a setting is named `outer: inner`."""
    rows = []
    for key, value in settings.items():
        if value == []:
            continue
        name = prefix + _words(key)
        rows += _flatten(value, f"{name}: ") if isinstance(value, dict) else [(name, _number(value))]
    return rows


def _words(key: str) -> str:
    return markdown_text(key.replace("_", " "))


def _score(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" if isinstance(value, float) else markdown_text(str(value))


def _number(value: Any) -> str:
    """Print a setting: floats short, switches as yes and no, lists with commas."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(_number(item) for item in value)
    return f"{value:.6g}" if isinstance(value, float) else markdown_text(str(value))


def _duration(seconds: float) -> str:
    """Print seconds in the units a person would use: 12.3 s, 4 min 10 s, 2 h 5 min."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def _fold(text: str, title: str, rows: int) -> str:
    """Hide what has many rows behind its title, as HTML that Markdown viewers know."""
    return (
        text if rows <= MAX_OPEN_ROWS or not text else f"<details><summary>{title}</summary>\n\n{text}\n\n</details>"
    )
