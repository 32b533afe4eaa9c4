"""Writes the demo page as a Hugging Face Space: a folder that runs by itself and loads its model from the Hub.

The folder holds a copy of `modeling_ast`, `demo_page.py` and `page_guard.py`, so that the Space needs this kit from
nowhere; what it installs, and in which versions, is read from the kit's own metadata. The metadata block of its
`README.md` follows the Hub's "Spaces configuration reference".
"""

import json
import os
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from string import Template

from huggingface_hub import SpaceCard, SpaceCardData
from huggingface_hub.utils import validate_repo_id
from packaging.requirements import Requirement

from modeling_ast.system.installation import DISTRIBUTION, install_command, package_version

PACKAGE = "modeling_ast"
PAGE = ("demo_page.py", "page_guard.py")
HERE = Path(__file__).resolve().parent
HOUSE = HERE.parent  # where the packages lie: a checkout or site-packages
# Commands and what only they use, and the export, which wants packages of its own: a page calls none of them.
NOT_VENDORED = (
    "audio/excerpt_files.py",
    "audio/saved_data_sets.py",
    "checkpoint_export.py",
    "doctor.py",
    "export_onnx.py",
    "onnx_attention.py",
    "page/__init__.py",
    "page/runtime_package.py",
    "page/writing.py",
    "runtime.py",
    "quantization.py",
    "run_embedding.py",
    "run_export.py",
    "run_similar.py",
    "run_tagging.py",
    "ray_tagging.py",
    "similar/__init__.py",
    "similar/clips.py",
    "similar/index.py",
    "similar/library.py",
    "similar/maps.py",
    "similar/nearest.py",
    "similar/prototypes.py",
    "similar/results.py",
    "tagging/block_lists.py",
    "tagging/block_processes.py",
    "tagging/block_runs.py",
    "tagging/data_sets.py",
    "tagging/embedding_files.py",
    "tagging/flags.py",
    "tagging/formats.py",
    "tagging/label_files.py",
    "tagging/label_tracks.py",
    "tagging/live.py",
    "tagging/microphone.py",
    "tagging/parquet_tables.py",
    "tagging/progress.py",
    "tagging/review.py",
    "tagging/sources.py",
    "tagging/text_grids.py",
    "tagging/timeline_pictures.py",
    "system/processor.py",
    "system/terminal.py",
    "waveform_graph.py",
    "tagging/unfinished.py",
    "tagging/written_lines.py",
)
# What the vendored files import; numpy, tqdm and others come with these.
NEEDED = (
    "torch",
    "torchaudio",
    "torchcodec",
    "transformers",
    "safetensors",
    "soundfile",
    "soxr",
    "matplotlib",
    "numba",
    "gradio",
)
SYSTEM_PACKAGES = ("ffmpeg",)  # whose libraries torchcodec decodes with
SHORT_DESCRIPTION = "Label audio clips and see what the model attends to"  # the Hub takes 60 characters
STATIC_DESCRIPTION = "Label sounds in the browser; nothing is uploaded"


def write_space(
    folder: str | os.PathLike,
    model_id: str,
    license: str | None = None,
    revision: str | None = None,
) -> list[Path]:
    """Write the files of a Space with the demo page of one model.

    Args:
        folder (`str` or `os.PathLike`): an empty folder, or one to be made.
        model_id (`str`): Hub id of the model, which the Space loads when it starts.
        license (`str`, *optional*): the model's licence, a Hub licence id such as `"apache-2.0"`.
        revision (`str`, *optional*): branch, tag or commit of the model, by default its main branch.

    Returns:
        `list[Path]`: the written files, sorted.

    Raises:
        FileExistsError: if there is already something in the folder.
        huggingface_hub.errors.HFValidationError: if `model_id` is no Hub id.
        ValueError: if the kit is not installed, as its metadata then say nothing of what it needs.
    """
    validate_repo_id(model_id)
    folder = Path(folder)
    requirements = read_requirements()
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise FileExistsError(
            f"There is already something in {folder}. A Space is written into an empty folder: name a new one."
        )

    _copy_code(folder)
    _space_card(model_id, license, requirements).save(folder / "README.md")
    (folder / "app.py").write_text(_app(model_id, license, revision), encoding="utf-8")
    lines = "".join(f"{requirement.name}{requirement.specifier}\n" for requirement in requirements)
    (folder / "requirements.txt").write_text(lines, encoding="utf-8")
    (folder / "packages.txt").write_text("".join(f"{name}\n" for name in SYSTEM_PACKAGES), encoding="utf-8")
    return sorted(path for path in folder.rglob("*") if path.is_file())


def write_static_card(folder: str | os.PathLike, model_id: str, license: str | None = None) -> Path:
    """Write the `README.md` of a Space that is nothing but the files of a page without a server.

    Args:
        folder (`str` or `os.PathLike`): the page's, see [`modeling_ast.page.writing.write_page`].
        model_id (`str`): Hub id of the model.
        license (`str`, *optional*): the model's licence, a Hub licence id.

    Returns:
        `Path` of the written file.
    """
    card_data = SpaceCardData(
        title=model_id.rpartition("/")[2],
        emoji="🎧",
        colorFrom="blue",
        colorTo="green",
        sdk="static",
        app_file="index.html",
        license=license,
        models=[model_id],
        tags=["audio-classification", "audio-spectrogram-transformer"],
        short_description=STATIC_DESCRIPTION,
    )
    card = SpaceCard.from_template(
        card_data, HERE / "static_space_readme.md", model_id=model_id, origin=describe_origin()
    )
    path = Path(folder) / "README.md"
    card.save(path)
    return path


def read_requirements() -> list[Requirement]:
    """What a Space has to install, with the bounds of the kit's own metadata, whose source is `setup.cfg`.

    Returns:
        `list[packaging.requirements.Requirement]`: those of `NEEDED`, in that order.

    Raises:
        ValueError: if the kit is not installed or its metadata are of another version than these files.
    """
    try:
        lines = metadata.requires(DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        lines = []
    known = {requirement.name: requirement for requirement in map(Requirement, lines)}
    missing = [name for name in NEEDED if name not in known]
    if missing:
        raise ValueError(
            f"What a Space has to install is read from the metadata of {DISTRIBUTION}, which know no "
            f"{', '.join(missing)}: it is not installed, or an older version is. Type "
            f"{install_command('demo')}"
        )
    return [known[name] for name in NEEDED]


def describe_origin() -> str:
    """Say of which version and, in a git checkout, which commit the vendored files are.

    Returns:
        Words, such as `ast-kit 1.0, commit ...`.
    """
    version = f"{DISTRIBUTION} {package_version(DISTRIBUTION)}"
    # Looked for only here: a virtual environment may lie within somebody else's checkout.
    if not (HOUSE / ".git").exists() or shutil.which("git") is None:
        return version
    command = ["git", "-C", HOUSE, "describe", "--always", "--exclude=*", "--abbrev=40", "--dirty=, with changes"]
    commit = subprocess.run(command, capture_output=True, text=True)
    return f"{version}, commit {commit.stdout.strip()}" if commit.returncode == 0 else version


def _copy_code(folder: Path) -> None:
    """Put the page, the package it stands on and the licence of both into the folder."""
    vendored = folder / PACKAGE
    vendored.mkdir()
    for source in sorted((HOUSE / PACKAGE).rglob("*.py")):
        if source.relative_to(HOUSE / PACKAGE).as_posix() not in NOT_VENDORED:
            copy = vendored / source.relative_to(HOUSE / PACKAGE)
            copy.parent.mkdir(exist_ok=True)
            shutil.copyfile(source, copy)
    for name in PAGE:
        shutil.copyfile(HERE / name, folder / name)
    (vendored / "LICENSE").write_text(_license_text(), encoding="utf-8")


def _space_card(model_id: str, license: str | None, requirements: list[Requirement]) -> SpaceCard:
    """The Space's `README.md`, in whose metadata block the Hub reads what to run."""
    title = model_id.rpartition("/")[2]
    card_data = SpaceCardData(
        title=title,
        emoji="🎧",
        colorFrom="blue",
        colorTo="green",
        sdk="gradio",
        sdk_version=_gradio_version(requirements),
        python_version=f"{sys.version_info.major}.{sys.version_info.minor}",
        app_file="app.py",
        license=license,
        models=[model_id],
        tags=["audio-classification", "audio-spectrogram-transformer"],
        short_description=SHORT_DESCRIPTION,
    )
    return SpaceCard.from_template(
        card_data,
        HERE / "space_readme.md",
        model_id=model_id,
        origin=describe_origin(),
        left_out=", ".join(f"`{name}`" for name in NOT_VENDORED),
    )


def _app(model_id: str, license: str | None, revision: str | None) -> str:
    """The text of `app.py`."""
    constants = {"model_id": model_id, "license": license or "", "revision": revision or "main"}
    return Template((HERE / "space_app.template").read_text(encoding="utf-8")).substitute(
        # Every JSON string is a Python string too.
        {name: json.dumps(text, ensure_ascii=False) for name, text in constants.items()}
    )


def _gradio_version(requirements: list[Requirement]) -> str:
    """The installed version, with which the page was tried here, or the lowest that the kit allows."""
    (lowest,) = [
        bound.version
        for requirement in requirements
        if requirement.name == "gradio"
        for bound in requirement.specifier
        if bound.operator == ">="
    ]
    return package_version("gradio") or lowest


def _license_text() -> str:
    """The kit's licence, from its metadata or, where these don't hold it, from the checkout."""
    installed = metadata.distribution(DISTRIBUTION).read_text("licenses/LICENSE")
    return installed or (HOUSE / "LICENSE").read_text(encoding="utf-8")
