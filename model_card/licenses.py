"""The licence of a checkpoint: which one it inherits from what it was trained from, and the notice of BSD-3-Clause.

BSD-3-Clause lets everybody pass weights on if the licence's text goes along with them. A checkpoint that holds such
weights has it in the file `NOTICE`, whatever licence its own makers give it, and so has what is fine-tuned from it.
"""

import difflib
import os
from dataclasses import dataclass
from pathlib import Path

import yaml
from huggingface_hub import hf_hub_download, metadata_load
from huggingface_hub.errors import HFValidationError, HTTPError

from modeling_ast.checkpoints.fields import read_json
from modeling_ast.checkpoints.shipped import folder_of

from .run_summary import RUN_SUMMARY_NAME
from .yaml_files import check_front_matter

NOTICE_NAME = "NOTICE"
NOTICE_BEGINS = "This checkpoint derives from"
BSD_3_CLAUSE = "bsd-3-clause"  # as the Hub spells it
_NAMES_NO_LICENSE = ("other", "unknown")  # on the Hub; which one it is stands elsewhere
# The list in the Hub's documentation, docs/hub/repositories-licenses; the Hub refuses a card with another id.
_HUB_LICENSES = """
    afl-3.0 agpl-3.0 apache-2.0 artistic-2.0 bigcode-openrail-m bigscience-bloom-rail-1.0 bigscience-openrail-m bsd
    bsd-2-clause bsd-3-clause bsd-3-clause-clear bsl-1.0 c-uda cc cc-by-2.0 cc-by-2.5 cc-by-3.0 cc-by-4.0 cc-by-nc-2.0
    cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0
    cc-by-nd-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc0-1.0 cdla-permissive-1.0 cdla-permissive-2.0 cdla-sharing-1.0
    creativeml-openrail-m deepfloyd-if-license ecl-2.0 epl-1.0 epl-2.0 etalab-2.0 eupl-1.1 gemma gfdl gpl gpl-2.0 gpl-3.0
    isc lgpl lgpl-2.1 lgpl-3.0 lgpl-lr llama2 lppl-1.3c mit mpl-2.0 ms-pl ncsa odbl odc-by ofl-1.1 openrail openrail++
    osl-3.0 other pddl postgresql unknown unlicense wtfpl zlib
"""
_TEXT = Path(__file__).with_name("bsd_3_clause.txt")


@dataclass(frozen=True)
class InheritedLicense:
    """What a checkpoint says of its licence.

    Args:
        license (`str`, *optional*): Hub licence id; `None` if it names none.
        notice (`dict[str, str]`, *optional*): `work`, `address` and `copyright` of BSD-3-Clause weights that went into it.
    """

    license: str | None = None
    notice: dict[str, str] | None = None


def inherited_license(base_model: str) -> InheritedLicense:
    """Read what the checkpoint that a training starts from says of its licence: its run summary, else its card.

    Args:
        base_model (`str`): folder, Hub id or `ast-small`. Of a Hub id the two small files are fetched or taken from the cache; what can
            be had from neither is unknown.

    Returns:
        [`InheritedLicense`].
    """
    base_model = str(folder_of(base_model))
    summary = _read_summary(_file_of(base_model, RUN_SUMMARY_NAME))
    license, notice = summary.get("license"), summary.get("license_notice")
    if license is None:
        license = _license_of_card(_file_of(base_model, "README.md"))
    if notice is None and license == BSD_3_CLAUSE:
        notice = _notice_of(base_model)
    return InheritedLicense(license, notice)


def license_note(license: str | None) -> str | None:
    """Tell what to know of a licence that may keep the Hub from taking the card.

    The Hub's list grows, so that an id which is not known here is not refused here.

    Args:
        license (`str`, *optional*): as the user gave it, or as a card says it.

    Returns:
        A sentence; `None` if there is nothing to say.
    """
    if license is None or license.lower() in _HUB_LICENSES.split():
        return None
    near = difflib.get_close_matches(license.lower(), _HUB_LICENSES.split(), n=3)
    hint = f"did you mean {' or '.join(near)}?" if near else "other is one of them."
    return (
        f"licence {license!r} is not in the Hub's list (https://huggingface.co/docs/hub/repositories-licenses), and the Hub "
        f"refuses a card with an id that it does not know: {hint}"
    )


def notice_text(notice: dict[str, str]) -> str:
    """Write the file `NOTICE`: whose work is in the checkpoint, and the licence that it is under.

    Args:
        notice (`dict[str, str]`): `work`, `address` and `copyright`, each of which may be unknown.

    Returns:
        The file's text.
    """
    lines = [f"{NOTICE_BEGINS} {notice.get('work', 'the work of others')}."]
    if "address" in notice:
        lines.append(f"It is at {notice['address']}.")
    lines.append("That work is under the BSD 3-Clause License:\n")
    if "copyright" in notice:
        lines.append(f"{notice['copyright']}\n")
    return "\n".join(lines) + f"\n{_TEXT.read_text(encoding='utf-8')}"


def is_notice(text: str) -> bool:
    """Tell whether a file is a notice as [`notice_text`] writes it, and nobody's own words.

    Args:
        text (`str`): what it says.

    Returns:
        `bool`.
    """
    return text.startswith(f"{NOTICE_BEGINS} ") and text.endswith(_TEXT.read_text(encoding="utf-8"))


def work_of_folder(folder: str | os.PathLike) -> str:
    """Say in a notice whose work a checkpoint derives from, where that is a folder of the user's.

    Args:
        folder (`str` or `os.PathLike`): the checkpoint that it was trained from.

    Returns:
        It in words, by its name alone.
    """
    return f"the checkpoint {Path(folder).name}"


def _notice_of(base_model: str) -> dict[str, str]:
    """Of a checkpoint that names BSD-3-Clause and nothing more: it is its makers' own."""
    if os.path.isdir(base_model):
        return {"work": work_of_folder(Path(base_model).resolve())}
    return {"work": f"the model {base_model}", "address": f"https://huggingface.co/{base_model}"}


def _file_of(base_model: str, name: str) -> Path | None:
    """A file of a folder or Hub repository; `None` if it has none or cannot be reached."""
    if os.path.isdir(base_model):
        path = Path(base_model, name)
        return path if path.is_file() else None
    try:
        return Path(hf_hub_download(base_model, name))
    except (OSError, HTTPError, HFValidationError):  # no such file, no network, no access; a folder that is gone
        return None


def _read_summary(path: Path | None) -> dict:
    """The summary as far as it can be read; what is broken in it says nothing of a licence."""
    try:
        summary = read_json(path) if path else {}
    except ValueError:
        return {}
    return summary if isinstance(summary, dict) else {}


def _license_of_card(path: Path | None) -> str | None:
    try:
        if path:
            check_front_matter(path.read_text(encoding="utf-8"), str(path))
        metadata = (metadata_load(path) if path else None) or {}
    except (ValueError, yaml.YAMLError):
        return None
    license = metadata.get("license")
    return license if isinstance(license, str) and license not in _NAMES_NO_LICENSE else None
