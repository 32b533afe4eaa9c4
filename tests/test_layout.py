"""The house rules: imports point one way, importing is light, entry points exist, no module shadows a library."""

import ast
import subprocess
import sys
from collections.abc import Collection
from configparser import ConfigParser
from graphlib import CycleError, TopologicalSorter
from importlib import import_module
from importlib.util import resolve_name
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MAY_IMPORT = {
    "modeling_ast": set(),
    "model_card": {"modeling_ast"},
    "conversion": {"modeling_ast", "model_card"},
    "finetune": {"modeling_ast", "model_card"},
    "pretraining": {"modeling_ast"},
}
IN_THE_CHECKOUT_ALONE = {"pretraining"}
LIBRARIES_NOT_TO_SHADOW = {"evaluate", "datasets", "accelerate", "ast", "torch", "transformers"}


# Lowest first: a room, or a file beside the rooms, imports what stands below it in its package. `__init__` names what
# the package offers, wherever it stands.
FLOORS = {
    "modeling_ast": (
        "system",
        "audio features layers",
        "audio_flags checkpoints",
        "configuration_ast frame_columns",
        "feature_extraction_ast modeling_ast",
        "frame_classification",
        "adapters attention_maps loading masked_modeling registration scores",
        "onnx_attention onnx_sessions waveform_graph",
        "export_onnx",
        "quantization",
        "tagging",
        "checkpoint_export",
        "page similar",
        "doctor ray_tagging run_export run_tagging runtime",
        "run_embedding",
        "run_similar",
    ),
    "finetune": (
        "augmentations",
        "arguments",
        "sources",
        "clip_sets",
        "scores",
        "training",
        "results",
        "failures",
        "runs",
        "dry_runs",
        "fine_tuning stock_scores drums_demo run_evaluate run_events run_finetune run_pretrain",
    ),
}


def modules_of(package: str) -> dict[str, Path]:
    """Files of a package by their dotted names."""
    files = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in (ROOT / package).rglob("*.py")}
    return {name.removesuffix(".__init__"): path for name, path in files.items()}


def imported_modules(name: str, path: Path, known: Collection[str]) -> set[str]:
    """What of `known` a file imports, anywhere in it."""
    found = set()
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = resolve_name("." * node.level + (node.module or ""), package)
            inner = {f"{base}.{alias.name}" for alias in node.names} & known
            found |= inner or {base}
    return found & known


@pytest.fixture(scope="module")
def imports() -> dict[str, set[str]]:
    """For every file of the house, by its dotted name, those that it imports."""
    files = {name: path for package in MAY_IMPORT for name, path in modules_of(package).items()}
    return {name: imported_modules(name, path, files.keys()) for name, path in files.items()}


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_packages_import_one_way(package, imports):
    for name, used in imports.items():
        if name.partition(".")[0] == package:
            others = {other.partition(".")[0] for other in used}
            assert others <= MAY_IMPORT[package] | {package}, f"{name} imports {others}"
            assert name.rpartition(".")[2] not in LIBRARIES_NOT_TO_SHADOW, f"{name} shadows a library"


@pytest.mark.parametrize("package", FLOORS)
def test_rooms_import_one_way(package, imports):
    height = {room: number for number, floor in enumerate(FLOORS[package]) for room in floor.split()}
    room_of = {name: name.split(".")[1] for name in imports if name.startswith(f"{package}.")}
    assert set(room_of.values()) == height.keys(), "every room and file has its floor"
    for name, room in room_of.items():
        for other in imports[name] & room_of.keys():
            below = height[room_of[other]] < height[room]
            assert below or room_of[other] == room, f"{name} imports {other}, which stands on no lower floor"


def test_no_files_import_each_other(imports):
    try:
        list(TopologicalSorter(imports).static_order())
    except CycleError as error:
        pytest.fail(f"imports go round: {' -> '.join(error.args[1])}")


def test_every_package_is_in_the_house_rules():
    config = ConfigParser()
    config.read(ROOT / "setup.cfg")
    included = config["options.packages.find"]["include"].split()
    assert {name.removesuffix(".*") for name in included} == MAY_IMPORT.keys() - IN_THE_CHECKOUT_ALONE
    rooms = {path.parent for path in ROOT.glob("*/*/__init__.py") if path.parts[-3] in MAY_IMPORT}
    assert {f"{room.parent.name}.*" for room in rooms} == {name for name in included if name.endswith(".*")}


def test_importing_the_packages_imports_no_library():
    code = f"import sys; import {', '.join(MAY_IMPORT)}; print(*{{name.split('.')[0] for name in sys.modules}})"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "transformers", "datasets", "numpy"} & set(loaded)


def test_every_public_name_resolves():
    package = import_module("modeling_ast")
    assert all(getattr(package, name) is not None for name in package.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'ASTTokenizer'; it has ASTConfig"):
        package.ASTTokenizer  # noqa: B018


def test_every_entry_point_is_also_a_module():
    config = ConfigParser()
    config.read(ROOT / "setup.cfg")
    commands = config["options.entry_points"]["console_scripts"].strip().splitlines()
    for command in commands:
        module, function = command.split("=")[1].strip().split(":")
        assert callable(getattr(import_module(module), function))
        assert 'if __name__ == "__main__"' in (ROOT / f"{module.replace('.', '/')}.py").read_text()
