"""The house rules: imports point one way, importing is light, entry points exist, no module shadows a library."""

import ast
import subprocess
import sys
from configparser import ConfigParser
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MAY_IMPORT = {
    "modeling_ast": set(),
    "model_card": {"modeling_ast"},
    "conversion": {"modeling_ast", "model_card"},
    "finetune": {"modeling_ast", "model_card"},
}
LIBRARIES_NOT_TO_SHADOW = {"evaluate", "datasets", "accelerate", "ast", "torch", "transformers"}


def imported_packages(source: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_imports_point_one_way(package):
    for source in (ROOT / package).rglob("*.py"):
        ours = imported_packages(source) & MAY_IMPORT.keys()
        assert ours <= MAY_IMPORT[package] | {package}, f"{source} imports {ours}"
        assert source.stem not in LIBRARIES_NOT_TO_SHADOW, f"{source} shadows a library"


@pytest.mark.parametrize(
    ("room", "rests_on"),
    [
        ("augmentations", set()),
        ("sources", {"arguments"}),
        ("clip_sets", {"augmentations", "arguments", "sources"}),
    ],
)
def test_the_data_of_a_training_have_no_way_back(room, rests_on):
    rooms = {path.parent.name for path in (ROOT / "finetune").glob("*/__init__.py")}
    for source in (ROOT / "finetune" / room).glob("*.py"):
        tree = ast.walk(ast.parse(source.read_text(encoding="utf-8")))
        above = {node.module for node in tree if isinstance(node, ast.ImportFrom) and node.level == 2}
        used = {module.split(".")[0] for module in above if module} & rooms
        assert used <= rests_on, f"{source} imports {used}"


def test_every_package_is_in_the_house_rules():
    config = ConfigParser()
    config.read(ROOT / "setup.cfg")
    included = config["options.packages.find"]["include"].split()
    assert {name.removesuffix(".*") for name in included} == MAY_IMPORT.keys()
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
