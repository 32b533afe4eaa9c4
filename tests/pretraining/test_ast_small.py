"""The shipped checkpoint's way: its table, the commands of its stages, and the folder that is made of the last one."""

import csv
import shutil

import pytest
import torch
from huggingface_hub import ModelCard
from safetensors.torch import load_file
from tiny_trainings import SIZES, flags, write_tones
from transformers import ASTForAudioClassification as StockModel

from finetune.arguments.command_line import parse_arguments
from finetune.run_finetune import main as finetune
from modeling_ast import ASTConfig, ASTFeatureExtractor, ASTForAudioClassification
from pretraining import ast_small
from pretraining.fetch import SourceError

SOURCES = "# Sources of the clips\n\n| source | licence |\n|---|---|\n| toys | CC0-1.0 |\n"


@pytest.fixture
def clips(tmp_path):
    """A prepared folder of tones in two sets of labels, one clip of which has none."""
    folder = write_tones(tmp_path / "clips", "abcd", 6)
    with open(folder / "metadata.csv", "w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["file_name", "label_set", "label", "source", "recording", "license"])
        for label, name in (("a", "one/a"), ("b", "one/b"), ("c", "two/c"), ("d", "two/d")):
            table.writerows(
                [f"{label}/{number}.wav", name[:3], name, "toys", number, "CC0-1.0"] for number in range(6)
            )
        table.writerow(["a/0.wav", "", "", "toys", 0, "CC0-1.0"])
    (folder / "SOURCES.md").write_text(SOURCES)
    return folder


@pytest.fixture
def run(tmp_path, clips):
    """A finished training on several sets of labels, from one before."""
    table = ast_small.write_labelled(clips)
    fields = {"loss": "label_sets", "license": ast_small.LICENSE}
    start, second = (tmp_path / "stages" / stage for stage in ast_small.STAGES)
    finetune(flags(table, start, **fields))
    fields |= dict.fromkeys(SIZES) | {"model_name_or_path": start, "normalization": "checkpoint"}
    finetune(flags(table, second, **fields))
    shutil.copytree(second, tmp_path / "ast_small_2")
    return tmp_path / "ast_small_2"


def test_clips_without_a_label_are_no_part_of_the_table(clips):
    with open(ast_small.write_labelled(clips), newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 24
    assert set(rows[0]) == {"file_name", "label", "recording"}


@pytest.mark.parametrize("stage", ast_small.STAGES)
def test_each_stage_is_a_command_that_can_be_read(tmp_path, clips, stage):
    start = tmp_path / "start" if stage == ast_small.STAGES[1] else None
    command = ast_small.training_command(stage, clips / "labelled.csv", tmp_path / stage, start)
    arguments = parse_arguments(command[3:])
    assert arguments.optimization.loss == "label_sets"
    assert arguments.data.license == "cc-by-sa-4.0"
    assert arguments.training.resume_from_checkpoint is None
    (tmp_path / stage / "checkpoint-3").mkdir(parents=True)
    command = ast_small.training_command(stage, clips / "labelled.csv", tmp_path / stage, start)
    assert parse_arguments(command[3:]).training.resume_from_checkpoint == "true"


def test_the_folder_of_the_package_loads_in_single_precision_everywhere(tmp_path, run, clips):
    package = ast_small.ship(run, clips / "SOURCES.md", tmp_path / "package" / "ast_small")
    assert {path.name for path in package.iterdir()} == {
        *("config.json", "preprocessor_config.json", "model.safetensors", "README.md"),
    }
    assert {tensor.dtype for tensor in load_file(package / "model.safetensors").values()} == {torch.float16}
    models = [kind.from_pretrained(package).eval() for kind in (ASTForAudioClassification, StockModel)]
    assert {parameter.dtype for model in models for parameter in model.parameters()} == {torch.float32}
    inputs = torch.randn(2, ASTFeatureExtractor.from_pretrained(package).max_length, 128)
    with torch.no_grad():
        ours, stock = (model(inputs).logits for model in models)
    torch.testing.assert_close(ours, stock, atol=1e-5, rtol=0)
    assert ASTConfig.from_pretrained(package).position_cut == "beginning"
    card = (package / "README.md").read_text()
    assert "license: cc-by-sa-4.0" in card
    assert "# ast-small\n" in card
    assert card.count("| toys | CC0-1.0 |") == 1
    assert "## What it was not judged on" in card
    assert "python -m pretraining.ast_small OUT_DIR" in card
    assert ast_small.ABOUT_SCORES in card
    assert ast_small.HOW in card
    assert "model-index" not in card
    assert ModelCard(card).data.license == "cc-by-sa-4.0"
    for lost in (run.name, ast_small.STAGES[0], "recipe.yaml)", ".png)"):  # what lies beside the run alone
        assert lost not in card


def test_weights_that_the_package_has_no_room_for_are_refused(tmp_path, run, clips, monkeypatch):
    monkeypatch.setattr(ast_small, "LARGEST_FILE", 1000)
    with pytest.raises(SourceError, match="and the package has room for 1,000"):
        ast_small.ship(run, clips / "SOURCES.md", tmp_path / "ast_small")
    assert not (tmp_path / "ast_small").exists()


def test_a_folder_with_something_else_is_not_replaced(tmp_path, run, clips, monkeypatch, capsys):
    package = tmp_path / "package"
    package.mkdir()
    (package / "thesis.txt").write_text("mine")
    monkeypatch.setattr(ast_small.subprocess, "run", lambda command, **_: pytest.fail("it trained before it looked"))
    assert ast_small.main([str(tmp_path), "--package", str(package)]) == 1
    assert f"{package} holds thesis.txt, which is no file of the checkpoint" in capsys.readouterr().err
    with pytest.raises(SourceError, match="Pass --package with a new folder"):
        ast_small.ship(run, clips / "SOURCES.md", package)
    assert (package / "thesis.txt").read_text() == "mine"
    (package / "thesis.txt").unlink()
    ast_small.ship(run, clips / "SOURCES.md", package)
    ast_small.ship(run, clips / "SOURCES.md", package)  # an older one of its own is replaced


def test_what_is_finished_is_not_done_again(tmp_path, run, clips, monkeypatch, capsys):
    ran = []
    monkeypatch.setattr(ast_small.subprocess, "run", lambda command, **_: ran.append(command))
    package = tmp_path / "package"
    assert ast_small.main([str(tmp_path), "--package", str(package)]) == 0
    assert [command[command.index("--output_dir") + 1] for command in ran] == [str(tmp_path / "ast_small_1")]
    assert f"{package}: the checkpoint ast-small" in capsys.readouterr().out
