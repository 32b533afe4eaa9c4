"""Which names of a user's files and folders are in what is published, and the same files without them.

Whole paths of a machine are never in them; what something is called there, and paths from the working folder, may be somebody's own
business too.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path

import yaml

from modeling_ast.adapters import ADAPTER_CONFIG
from modeling_ast.system.names_as_text import in_one_line

from .card_data import read_json_object
from .file_names import ADAPTER_DIR, CARD_NAME, RECIPE_NAME
from .licenses import NOTICE_NAME, notice_text, work_of_folder
from .render import render_model_card
from .run_summary import FIELDS_OF_LABELS, OUTSIDE, RUN_SUMMARY_NAME, is_place, shown_name, write_run_summary
from .yaml_files import read_yaml

NAMES_SHOWN = 5
FIELDS_OF_PLACES = frozenset(
    ("train_file", "eval_file", "validation_file", "label_csv", "output_dir", "waveform_cache", "logging_dir")
    + ("noise_dir", "impulse_response_dir", "marks", "hard_negatives")
)
NO_BASE = "./checkpoint"  # in place of the local one that was trained further
SOUND_FOLDERS = {
    "noise_dir": "noises",
    "impulse_response_dir": "rooms",
}  # of an augmentation, and what stands in their place
NOT_PLACES = frozenset({"beside", "columns"})  # what `marks` may be in place of one
NO_TEACHER = "./teacher"  # in place of the local one that taught
NO_NEGATIVES = "./negatives"  # in place of the local one that found hard negatives
CLIP_LISTS = ("skipped_clips", "audio_notes")
_ORIGIN = "trainings and conversions write it"


def names_in_words(files: Mapping[str, Path]) -> list[str]:
    """Tell the user which names of theirs are in the files that are published, a line for each file.

    Args:
        files (`Mapping[str, Path]`): path in the repository to the file; see [`files_to_publish`].

    Returns:
        `list[str]`, empty if there are none.
    """
    names = {RUN_SUMMARY_NAME: _names_in_summary(files), RECIPE_NAME: _names_in_recipe(files)}
    found = {file: list(dict.fromkeys(of_file)) for file, of_file in names.items() if of_file}
    if not found:
        return []
    width = max(map(len, found))
    lines = [f"  {file:{width}}  {_some(of_file)}" for file, of_file in found.items()]
    return [
        "Names of your files and folders in these, and in the card and the command that it shows:",
        *lines,
        "Pass --hide_names to publish it without them, or rename them there.",
    ]


def _some(names: list[str]) -> str:
    more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
    return f"{', '.join(map(in_one_line, names[:NAMES_SHOWN]))}{more}"


def _summary(files: Mapping[str, Path]) -> dict:
    return read_json_object(files[RUN_SUMMARY_NAME], _ORIGIN) if RUN_SUMMARY_NAME in files else {}


def _data(summary: dict) -> dict:
    data = summary.get("data")
    return data if isinstance(data, dict) else {}


def _teacher(summary: dict) -> dict:
    training = summary.get("training")
    teacher = training.get("teacher") if isinstance(training, dict) else None
    return teacher if isinstance(teacher, dict) else {}


def _negatives(summary: dict) -> str | None:
    """The checkpoint that found hard negatives, if the summary tells: a Hub id, or `./` and the name of a folder."""
    name = _data(summary).get("hard_negatives")
    return name if isinstance(name, str) and name else None


def _sound_folders(summary: dict) -> tuple[dict, list[str]]:
    """The section of a summary that names folders of sounds, and which of its fields do."""
    training = summary.get("training")
    fields = training.get("augmentation") if isinstance(training, dict) else None
    fields = fields if isinstance(fields, dict) else {}
    return fields, [name for name in SOUND_FOLDERS if fields.get(name)]


def _clips(summary: dict) -> list[dict]:
    """The rows of a summary that name clips."""
    evaluation = summary.get("evaluation")
    events = evaluation.get("events") if isinstance(evaluation, dict) else None
    lists = [_data(summary).get(name) for name in CLIP_LISTS]
    lists.append(events.get("per_recording") if isinstance(events, dict) else None)
    return [row for rows in lists if isinstance(rows, list) for row in rows if isinstance(row, dict)]


def _names_in_summary(files: Mapping[str, Path]) -> list[str]:
    summary = _summary(files)
    data = _data(summary)
    own = [data["name"]] if data.get("name") and not data.get("hub_id") else []
    base = summary.get("base_model")
    own += [base.removeprefix("./")] if isinstance(base, str) and base.startswith("./") else []
    own += _folder_in_notice(summary)
    teacher = _teacher(summary).get("name") or ""
    own += [teacher.removeprefix("./")] if teacher.startswith("./") else []
    negatives = _negatives(summary) or ""
    own += [negatives.removeprefix("./")] if negatives.startswith("./") else []
    sounds, folders = _sound_folders(summary)
    own += [sounds[name] for name in folders]
    return [str(name) for name in [*own, *(clip.get("file") for clip in _clips(summary))] if name]


def _folder_in_notice(summary: dict) -> list[str]:
    """The folder of the user's that a notice of a licence names, whether trained from it or from one that was."""
    notice = summary.get("license_notice")
    work = notice.get("work") if isinstance(notice, dict) and "address" not in notice else None
    begin = work_of_folder("")
    return [work.removeprefix(begin)] if isinstance(work, str) and work.startswith(begin) else []


def _names_in_recipe(files: Mapping[str, Path]) -> list[str]:
    return [
        f"{shown_name(place) if is_place(place) else place} ({field})"  # what a whole path becomes, and others do not
        for field, places in _places_in_recipe(files).items()
        for place in places
    ]


def _places_in_recipe(files: Mapping[str, Path]) -> dict[str, list[str]]:
    """What each field of the recipe says of files and folders."""
    fields = read_recipe(files[RECIPE_NAME]) if RECIPE_NAME in files else None
    summary = _summary(files)
    local = set(FIELDS_OF_PLACES)
    local |= set() if _data(summary).get("hub_id") else {"dataset_name"}
    local |= {"model_name_or_path"} if str(summary.get("base_model")).startswith("./") else set()
    local |= {"teacher"} if (_teacher(summary).get("name") or "").startswith("./") else set()
    negatives = _negatives(summary)
    local -= {"hard_negatives"} if negatives is not None and not negatives.startswith("./") else set()
    found = {name: _places(value, name in local) for name, value in (fields or {}).items()}
    return {name: places for name, places in found.items() if places and name not in FIELDS_OF_LABELS}


def _places(value, is_local: bool) -> list[str]:
    if isinstance(value, (dict, list)):
        items = value.values() if isinstance(value, dict) else value
        return [place for item in items for place in _places(item, is_local)]
    return [value] if isinstance(value, str) and _is_name(value, is_local) else []


def _is_name(value: str, is_local: bool) -> bool:
    return bool(value) and value not in NOT_PLACES and (is_local or is_place(value))


def read_recipe(path: Path) -> dict | None:
    """Read the fields of a saved recipe.

    Args:
        path (`Path`): of `recipe.yaml`.

    Returns:
        The fields; `None` if they cannot be read.
    """
    try:
        fields = read_yaml(path.read_text(encoding="utf-8-sig"), str(path))
    except ValueError:  # no recipe of this kit
        return None
    return fields if isinstance(fields, dict) else None


def without_names(
    files: Mapping[str, Path], folder: Path, written: Path, repo_id: str, renders: bool
) -> dict[str, Path]:
    """Take the names of a user's files and folders out of files: clips are numbered, what the recipe says of places is
    out.

    Args:
        files (`Mapping[str, Path]`): those that are published.
        folder (`Path`): of the checkpoint.
        written (`Path`): where changed copies go.
        repo_id (`str`): of the repository, for the card.
        renders (`bool`): whether the card is written anew; one that somebody edited stays as it is.

    Returns:
        By its name on the Hub, each file or its changed copy.
    """
    changed, place = dict(files), written / "hidden" / folder.resolve().name
    place.mkdir(parents=True)
    if RUN_SUMMARY_NAME in files:
        for path in folder.iterdir():
            if path.name != RUN_SUMMARY_NAME:
                os.symlink(path.resolve(), place / path.name)
        changed[RUN_SUMMARY_NAME] = write_run_summary(place, _hidden(_summary(files)))
        if renders:
            (place / CARD_NAME).unlink()
            (place / CARD_NAME).write_text(render_model_card(place, repo_id), encoding="utf-8")
            changed[CARD_NAME] = place / CARD_NAME
    if NOTICE_NAME in files and _folder_in_notice(_summary(files)):
        changed[NOTICE_NAME] = written / "hidden" / NOTICE_NAME
        notice = _hidden(_summary(files))["license_notice"]
        changed[NOTICE_NAME].write_text(notice_text(notice), encoding="utf-8")
    base = str(_summary(files).get("base_model"))
    for name in {f"{ADAPTER_DIR}/{CARD_NAME}", f"{ADAPTER_DIR}/{ADAPTER_CONFIG}"} & files.keys():
        if base.startswith("./"):
            changed[name] = written / "hidden" / Path(name).name
            text = files[name].read_text(encoding="utf-8").replace(f'"{base}"', f'"{NO_BASE}"')
            changed[name].write_text(text.replace(f"`{base}`", f"`{NO_BASE}`"), encoding="utf-8")
    if places := _places_in_recipe(files):
        kept = {name: value for name, value in read_recipe(files[RECIPE_NAME]).items() if name not in places}
        changed[RECIPE_NAME] = written / "hidden" / RECIPE_NAME
        changed[RECIPE_NAME].write_text(yaml.safe_dump(kept, sort_keys=False, allow_unicode=True), encoding="utf-8")
    return changed


def _hidden(summary: dict) -> dict:
    """A run summary in which clips have numbers for names."""
    summary = json.loads(json.dumps(summary)) | {"command": None}
    data, numbers = _data(summary), {}
    for clip in _clips(summary):
        file = str(clip.get("file", ""))
        number = numbers.setdefault(file, f"clip {len(numbers) + 1}")
        name = file.removeprefix(f"{OUTSIDE}: ")
        clip["file"] = f"{OUTSIDE}: {number}" if name != file else number
        clip |= {key: str(clip[key]).replace(name, number) for key in ("reason", "text") if name and key in clip}
    if data.get("name") and not data.get("hub_id"):
        data["name"] = None
    if str(summary.get("base_model", "")).startswith("./"):
        summary["base_model"] = NO_BASE
    if _folder_in_notice(summary):
        summary["license_notice"] |= {"work": work_of_folder(NO_BASE)}
    if str(data.get("hard_negatives", "")).startswith("./"):
        data["hard_negatives"] = NO_NEGATIVES
    sounds, folders = _sound_folders(summary)
    sounds |= {name: SOUND_FOLDERS[name] for name in folders}
    teacher = _teacher(summary)
    if str(teacher.get("name", "")).startswith("./"):
        teacher["name"] = NO_TEACHER
    return summary
