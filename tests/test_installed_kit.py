"""The kit as pip installs it: what a wheel of this checkout carries, and commands that answer `--help` at once."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from configparser import ConfigParser
from pathlib import Path

import pytest

from model_card.space import write_space

ROOT = Path(__file__).parents[1]
PACKAGES = ("modeling_ast", "model_card", "conversion", "finetune")
SLOW_TO_IMPORT = {"torch", "transformers", "datasets", "gradio", "huggingface_hub", "matplotlib", "numpy"}


@pytest.fixture(scope="module")
def installed_kit(tmp_path_factory) -> Path:
    """A folder with what a wheel built from the checkout installs."""
    source = tmp_path_factory.mktemp("source")  # a build leaves its files beside setup.cfg
    for package in PACKAGES:
        shutil.copytree(ROOT / package, source / package, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        "wheels",
        ".",
    ]
    build = subprocess.run(command, cwd=source, capture_output=True, text=True)
    if "No module named 'setuptools'" in build.stderr or "Cannot import 'setuptools" in build.stderr:
        pytest.skip("building a wheel without a network needs setuptools in this environment")
    assert build.returncode == 0, build.stderr
    (wheel,) = (source / "wheels").iterdir()
    folder = tmp_path_factory.mktemp("project") / "site-packages"
    zipfile.ZipFile(wheel).extractall(folder)
    return folder


def test_a_wheel_carries_every_module_and_every_template(installed_kit):
    for package in PACKAGES:
        files = {path for path in (ROOT / package).rglob("*") if path.is_file() and "__pycache__" not in path.parts}
        missing = {path.relative_to(ROOT) for path in files if not (installed_kit / path.relative_to(ROOT)).is_file()}
        assert files
        assert not missing


def test_an_installed_kit_writes_the_same_space_as_the_checkout(installed_kit, tmp_path):
    code = "from model_card import space; space.write_space('space', 'user/drums'); print(space.__file__)"
    if shutil.which("git"):  # as where a virtual environment lies in somebody's project
        project = [
            "git",
            "-C",
            installed_kit.parent,
            "-c",
            "user.name=Somebody",
            "-c",
            "user.email=somebody@example.org",
        ]
        subprocess.run([*project, "init", "--quiet"], check=True)
        subprocess.run([*project, "commit", "--quiet", "--allow-empty", "--message", "Mine"], check=True)
    # Without `site` the editable installation of the checkout is not found.
    places = [installed_kit, sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join(map(str, places)))
    run = subprocess.run(
        [sys.executable, "-S", "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert Path(run.stdout.strip()).parents[1] == installed_kit
    of_checkout = write_space(tmp_path / "space_of_checkout", "user/drums")
    for path in of_checkout:
        relative = path.relative_to(tmp_path / "space_of_checkout")
        # An installed kit knows its version, a checkout its commit too.
        text = re.sub(r", commit [0-9a-f]{40}(, with changes)?", "", path.read_text(encoding="utf-8"))
        assert (tmp_path / "space" / relative).read_text(encoding="utf-8") == text
    assert len([path for path in (tmp_path / "space").rglob("*") if path.is_file()]) == len(of_checkout)


@pytest.mark.parametrize("command", ["ast-push", "ast-demo", "ast-model-card"])
def test_help_imports_nothing_slow(command):
    config = ConfigParser()
    config.read(ROOT / "setup.cfg")
    commands = dict(re.findall(r"^(\S+) = (\S+)$", config["options.entry_points"]["console_scripts"], re.MULTILINE))
    module, function = commands[command].split(":")
    code = f"""
import sys
from {module} import {function}
try:
    {function}(["--help"])
except SystemExit as end:
    print(end.code, *{{name.partition(".")[0] for name in sys.modules}})
"""
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    code, *imported = run.stdout.splitlines()[-1].split()
    assert code == "0"
    assert run.stdout.startswith(f"usage: {command}")
    assert not SLOW_TO_IMPORT & set(imported)
