"""Commands where nothing can be written at home, or nowhere at all: a sentence names the variable to set."""

import os
import subprocess
import sys
import tempfile

import pytest
from huggingface_hub import constants

from modeling_ast import run_tagging
from modeling_ast.loading import CheckpointError
from modeling_ast.system.surroundings import OFFLINE, hub_hint, prepare_process
from modeling_ast.tagging.tagger import AudioTagger

NOWHERE = f"{os.devnull}/x"  # which nobody can make, whatever their rights


@pytest.fixture
def homeless(monkeypatch):
    for variable in ("HF_HOME", "XDG_CACHE_HOME", "HF_HUB_CACHE", "HF_DATASETS_CACHE", *OFFLINE):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HOME", NOWHERE)


def test_without_a_folder_for_temporary_files_a_command_names_the_variable(monkeypatch, capsys):
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: [NOWHERE])
    with pytest.raises(SystemExit) as end:
        run_tagging.main(["x.wav", "--model_name_or_path", "somewhere"])
    assert end.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith(
        f"ast-tag: No usable temporary directory found in ['{NOWHERE}']. Set TMPDIR to a folder that"
    )
    assert said.endswith("TMPDIR=FOLDER ast-tag ...\n")


def test_libraries_say_nothing_about_a_home_that_cannot_be_written():
    """A process of its own: what they say, they say at their import."""
    code = (
        "from modeling_ast.system.surroundings import prepare_process; prepare_process('x'); prepare_process('x')\n"
        "import importlib.util, matplotlib\n"
        "if importlib.util.find_spec('onnxruntime'): import onnxruntime\n"
        "import logging; logging.getLogger('matplotlib').warning('of use')"
    )
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("XDG_", "MPL", "ORT_"))}
    finished = subprocess.run(
        [sys.executable, "-c", code], env=kept | {"HOME": NOWHERE}, capture_output=True, text=True, check=True
    )
    assert finished.stderr == "of use\n"
    assert finished.stdout == ""


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, f" {NOWHERE}/.cache/huggingface/hub cannot be written to: set HF_HOME to a folder that can."),
        ({"XDG_CACHE_HOME": "{tmp}"}, ""),
        ({"HF_HOME": "{tmp}"}, ""),
        ({"HF_HOME": "{tmp}/new/deeper"}, ""),
        ({"HF_HOME": "{tmp}", "HOME": "{tmp}", "HF_DATASETS_CACHE": NOWHERE}, f" {NOWHERE} cannot be written to: set HF_DATASETS_CACHE to"),
        ({"HF_HOME": f"{NOWHERE}/y"}, f" {NOWHERE}/y/hub cannot be written to: set HF_HOME to"),
        ({"HF_HUB_OFFLINE": "true", "HF_HOME": "{tmp}"}, " The Hub was not asked, as HF_HUB_OFFLINE is set: unset it to fetch what is not on this machine."),
        ({"HF_HUB_OFFLINE": "0", "HF_HOME": "{tmp}"}, ""),
    ],
)  # fmt: skip
def test_the_variable_of_a_cache_that_cannot_be_written(homeless, monkeypatch, tmp_path, given, words):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", "HF_HUB_OFFLINE" in given)  # read when the library is imported
    for variable, value in given.items():
        monkeypatch.setenv(variable, value.format(tmp=tmp_path))
    said = hub_hint()
    assert said.startswith(words) if words else said == ""
    assert os.listdir(tmp_path) == []  # it was only tried
    assert "not asked" not in hub_hint(is_here=True)


def test_a_model_of_the_hub_without_a_cache(homeless):
    with pytest.raises(CheckpointError, match="as a Hub id it cannot be loaded: .*set HF_HOME to a folder that can"):
        AudioTagger.from_pretrained("user/name", "cpu")


def test_prepared_twice_is_prepared_once(monkeypatch):
    import logging

    logger = logging.getLogger("matplotlib")
    monkeypatch.setattr(logger, "filters", [])
    prepare_process("x")
    prepare_process("x")
    assert len(logger.filters) == 1
