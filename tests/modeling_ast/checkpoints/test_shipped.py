"""A checkpoint that ships is found by its name, wherever a checkpoint is named; a folder of that name comes first."""

import json
import shutil

import numpy as np
import pytest
import torch
from tiny_trainings import SIZES, flags, summary_in, write_tones
from transformers import ASTForAudioClassification as StockModel

from finetune.run_evaluate import main as evaluate
from finetune.run_finetune import main as finetune
from modeling_ast import ASTConfig, ASTFeatureExtractor, ASTForAudioClassification
from modeling_ast.checkpoints import shipped
from modeling_ast.checkpoints.fields import CheckpointError
from modeling_ast.loading import check_model_name
from modeling_ast.run_tagging import main as tag
from modeling_ast.tagging.tagger import AudioTagger

CARD = "---\nlicense: cc-by-sa-4.0\n---\n# ast-small\n"


def save_checkpoint(folder, labels="abc", seed=0):
    torch.manual_seed(seed)
    model = ASTForAudioClassification(ASTConfig(**SIZES, id2label=dict(enumerate(labels))))
    model.save_pretrained(folder)
    ASTFeatureExtractor(max_length=SIZES["max_length"]).save_pretrained(folder)
    return model


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A tiny checkpoint in place of the one of the package, and an empty folder to work in."""
    folder = tmp_path / "package" / "ast_small"
    save_checkpoint(folder)
    (folder / "README.md").write_text(CARD)
    monkeypatch.setitem(shipped._FOLDERS, shipped.AST_SMALL, folder)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return folder


def test_every_class_finds_it_by_its_name(package):
    by_name, by_folder = (ASTForAudioClassification.from_pretrained(place) for place in ("ast-small", package))
    assert all(torch.equal(*pair) for pair in zip(by_name.parameters(), by_folder.parameters(), strict=True))
    assert by_name.config.name_or_path == "ast-small"  # and not where the kit is installed
    assert ASTConfig.from_pretrained("ast-small").id2label == {0: "a", 1: "b", 2: "c"}
    assert ASTFeatureExtractor.from_pretrained("ast-small").max_length == SIZES["max_length"]
    assert AudioTagger.from_pretrained("ast-small", "cpu").config.max_length == SIZES["max_length"]


def test_a_path_object_of_its_name_means_it_too(package):
    """`Path("./ast-small")` is the same object: that a path was written cannot be seen any more."""
    name = shipped.Path("ast-small")
    assert shipped.is_shipped(name)
    assert shipped.folder_of(name) == str(package)
    assert ASTConfig.from_pretrained(name).num_labels == 3
    assert ASTForAudioClassification.from_pretrained(name).config.num_labels == 3
    assert AudioTagger.from_pretrained(name, "cpu").config.num_labels == 3
    check_model_name(name)
    assert not any(map(shipped.is_shipped, (None, 3, b"ast-small", shipped.Path("ast-smaller"))))
    save_checkpoint(name, "xy")
    assert not shipped.is_shipped(name)


def test_a_folder_of_that_name_comes_first_and_a_path_never_means_it(package):
    assert shipped.folder_of("./ast-small") == "./ast-small"
    with pytest.raises(
        CheckpointError, match=r"There is no model folder ast-small\. .* ast-small is the checkpoint that"
    ):
        check_model_name("./ast-small")
    save_checkpoint("ast-small", "xy")
    assert not shipped.is_shipped("ast-small")
    assert ASTConfig.from_pretrained("ast-small").num_labels == 2


def test_where_it_was_not_installed_the_name_is_explained(package):
    shutil.rmtree(package)
    with pytest.raises(CheckpointError, match="a checkpoint that the kit ships, and .*ast_small does not hold it"):
        ASTForAudioClassification.from_pretrained("ast-small")
    with pytest.raises(CheckpointError) as refused:
        check_model_name("nowhere")
    assert "ast-small" not in str(refused.value)


def test_commands_take_it(package, tmp_path, capsys):
    data = write_tones(tmp_path / "tones")
    assert tag([str(data / "a" / "0.wav"), "--model_name_or_path", "ast-small", "--format", "jsonl"]) == 0
    assert {row["label"] for row in json.loads(capsys.readouterr().out)["labels"]} == {"a", "b", "c"}
    assert evaluate(["--model_name_or_path", "ast-small", "--dataset_name", str(data), "--split", "all"]) in (0, None)


def test_a_fine_tuning_names_it_and_inherits_its_licence(package, tmp_path, capsys):
    data, sizes = write_tones(tmp_path / "tones"), dict.fromkeys(SIZES)
    finetune(flags(data, tmp_path / "run", model_name_or_path="ast-small", **sizes))
    summary, card = summary_in(tmp_path / "run"), (tmp_path / "run" / "README.md").read_text()
    assert "from ast-small with its classifier; licence cc-by-sa-4.0, that of ast-small" in capsys.readouterr().out
    assert summary["base_model"] == "ast-small"
    assert summary["license"] == "cc-by-sa-4.0"
    assert "It was fine-tuned from `ast-small`, the small pretrained checkpoint that AST kit ships" in card
    assert "base_model" not in card
    assert "huggingface.co/ast-small" not in card
    assert str(package.parent) not in card + json.dumps(summary) + (tmp_path / "run" / "recipe.yaml").read_text()


def test_a_training_from_random_weights_is_told_of_it(package, tmp_path, capsys):
    data = write_tones(tmp_path / "tones")
    finetune(flags(data, tmp_path / "run"))
    assert "random weights; --model_name_or_path ast-small starts from the pretrained one" in capsys.readouterr().out
    shutil.rmtree(package)
    finetune(flags(data, tmp_path / "other"))
    assert "ast-small" not in capsys.readouterr().out


def test_a_teacher_may_be_it(package, tmp_path):
    data = write_tones(tmp_path / "tones")
    finetune(flags(data, tmp_path / "run", teacher="ast-small"))
    assert summary_in(tmp_path / "run")["training"]["teacher"]["name"] == "ast-small"


def test_stock_transformers_gives_the_same_logits_from_its_folder(package):
    """The real one where it is there, otherwise the tiny one."""
    folder = shipped.Path(shipped.__file__).parents[1] / "ast_small"
    folder = folder if (folder / "config.json").is_file() else package
    extractor = ASTFeatureExtractor.from_pretrained(folder)
    waveform = np.random.default_rng(0).standard_normal(12_000).astype(np.float32) / 10
    inputs = extractor(waveform, sampling_rate=16_000, return_tensors="pt")["input_values"]
    stock = StockModel.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        ours = ASTForAudioClassification.from_pretrained(folder, dtype=torch.float32).eval()(inputs).logits
        torch.testing.assert_close(ours, stock(inputs).logits, atol=1e-5, rtol=0)
