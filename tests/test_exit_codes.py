"""Every command alike: wrong input ends with 2, a failure while it works with 1."""

import errno
import os
import sys
import types
from importlib import import_module

import numpy as np
import pytest
import soundfile
from tiny_trainings import SIZES

from modeling_ast import ASTConfig, ASTFeatureExtractor, ASTForAudioClassification
from modeling_ast.checkpoints.fields import CheckpointError
from modeling_ast.system.hub_answers import HubSilentError
from modeling_ast.system.terminal import exit_code_of

TAGGED = ["{clip}", "--model_name_or_path"]
TRAINED = ["--output_dir", "{folder}/run", "--dataset_name", "{data}", "--model_name_or_path"]
# Module, what is given before the checkpoint, what after it, and what is to fail while the command works.
COMMANDS = {
    "ast-finetune": ("finetune.run_finetune", TRAINED, [], "finetune.runs.training_run.make_output_dir"),
    "ast-pretrain": ("finetune.run_pretrain", TRAINED, [], "finetune.runs.training_run.make_output_dir"),
    "ast-evaluate": (
        "finetune.run_evaluate",
        ["--dataset_name", "{data}", "--model_name_or_path"],
        ["--output", "{folder}/scores.json"],
        "finetune.run_evaluate.open_atomically",
    ),
    "ast-convert": (
        "conversion.run_conversion",
        ["--to_original"],
        ["{folder}/original.pth"],
        "conversion.to_original.convert_to_original",
    ),
    "ast-export": ("modeling_ast.run_export", [], ["{folder}/model.onnx"], "modeling_ast.run_export._export"),
    "ast-tag": (
        "modeling_ast.run_tagging",
        TAGGED,
        ["--output", "{folder}/tags"],
        "modeling_ast.run_tagging.write_lines",
    ),
    "ast-embed": (
        "modeling_ast.run_embedding",
        TAGGED,
        ["--output", "{folder}/library"],
        "modeling_ast.run_embedding.embed_group",
    ),
    "ast-similar": (
        "modeling_ast.run_similar",
        ["{clip}", "--examples", "{data}", "--model_name_or_path"],
        ["--output", "{folder}/labels"],
        "modeling_ast.run_similar.write_lines",
    ),
    "ast-model-card": ("model_card.run_model_card", [], [], "model_card.render.write_model_card"),
    "ast-push": (
        "model_card.run_push",
        [],
        ["--repo_id", "user/name", "--dry_run"],
        "model_card.push_to_hub.Repository",
    ),
    "ast-demo": ("model_card.run_demo", [], ["--port", "0"], "model_card.run_demo.make_server"),
}


@pytest.fixture(autouse=True)
def no_page(monkeypatch):
    """`ast-demo` builds no page: Gradio, which takes two seconds to import, is no part of how it ends."""
    page = types.SimpleNamespace(build_page=lambda *_, **__: None, launch_options=lambda _: {})
    monkeypatch.setitem(sys.modules, "model_card.demo_page", page)
    monkeypatch.setattr("model_card.run_demo.make_guard", lambda _: None)


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """A checkpoint, one whose weights are damaged, a clip, and a folder of two labels."""
    folder = tmp_path_factory.mktemp("exit_codes")
    config = ASTConfig(**SIZES, id2label={0: "a", 1: "b"}, problem_type="single_label_classification")
    for name in ("checkpoint", "damaged"):
        ASTForAudioClassification(config).save_pretrained(folder / name)
        ASTFeatureExtractor(max_length=SIZES["max_length"], mean=-6.5, std=5.5).save_pretrained(folder / name)
    (folder / "damaged" / "model.safetensors").write_bytes(b"\x08no weights")
    for label in "ab":
        (folder / "data" / label).mkdir(parents=True)
        for number in range(5):
            noise = np.random.default_rng(number + 9 * ord(label)).standard_normal(8_000) / 9
            soundfile.write(folder / "data" / label / f"{number}.wav", noise, 16_000)
    return folder


def code_of(name, places, folder, checkpoint):
    """The exit code of a command with this checkpoint, however it ends."""
    module, before, after, _ = COMMANDS[name]
    given = {"data": places / "data", "clip": places / "data" / "a" / "0.wav", "folder": folder}
    argv = [word.format(**given) for word in [*before, str(checkpoint), *after]]
    return end_of(module, argv)


def end_of(module, argv):
    try:
        return import_module(module).main(argv)
    except SystemExit as end:
        return end.code


@pytest.mark.parametrize("name", [*COMMANDS, "ast-doctor"])
def test_a_wrong_flag_ends_with_2(name):
    module = COMMANDS[name][0] if name in COMMANDS else "modeling_ast.doctor"
    assert end_of(module, ["--no_such_flag"]) == 2


@pytest.mark.parametrize("checkpoint", ["gone", "damaged"])
@pytest.mark.parametrize("name", COMMANDS)
def test_a_checkpoint_that_cannot_be_read_ends_with_2(places, tmp_path, capsys, name, checkpoint):
    assert code_of(name, places, tmp_path, places / checkpoint) == 2
    assert f"{name}: " in capsys.readouterr().err
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", COMMANDS)
def test_a_failure_while_a_command_works_ends_with_1(places, tmp_path, capsys, monkeypatch, name):
    def fail(*_args, **_kwargs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "place")

    monkeypatch.setattr(COMMANDS[name][3], fail)
    assert code_of(name, places, tmp_path, places / "checkpoint") == 1
    assert os.strerror(errno.ENOSPC) in capsys.readouterr().err


def raised_from(error, cause):
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "reading", "code"),
    [
        (FileNotFoundError("There is no folder runs/x. Check the spelling."), False, 2),
        (PermissionError(errno.EACCES, "denied", "clips.csv"), True, 2),
        (PermissionError(errno.EACCES, "denied", "model.onnx"), False, 1),
        (OSError(errno.EIO, "broken", "clips.csv"), True, 1),
        (MemoryError(), True, 1),
        (RuntimeError("writer: No space left on device (os error 28)"), True, 1),
        (raised_from(CheckpointError("cannot be loaded"), PermissionError(errno.EACCES, "denied")), False, 2),
        (raised_from(CheckpointError("cannot be loaded"), HubSilentError("huggingface.co is silent")), False, 1),
    ],
)
def test_wrong_input_is_told_from_a_failure(error, reading, code):
    assert exit_code_of(error, reading) == code
