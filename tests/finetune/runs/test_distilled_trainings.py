"""Trainings with a teacher: what they record, that they go on bit for bit, and what a dry run says of the teacher."""

import hashlib
import json
import shutil

import pytest
import torch
import yaml
from safetensors.torch import load_file
from tiny_trainings import flags, summary_in, write_tones

from finetune.dry_runs.cost_estimate import RunCost
from finetune.run_evaluate import main as evaluate
from finetune.run_finetune import main
from modeling_ast import ASTConfig, ASTFeatureExtractor, ASTForAudioClassification

LAYERS = {
    "per_device_train_batch_size": 4,
    "save_total_limit": 2,
    "teacher_layers": "1:2",
    "mixup_probability": 0.5,
    "max_frequency_mask": 20,
    "patchout_share": 0.3,
}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Tones, and a teacher of them whose weights are random."""
    place = tmp_path_factory.mktemp("distilled")
    write_tones(place / "tones", count=4)
    save_teacher(place / "teacher")
    return place


def save_teacher(folder, seed=0):
    torch.manual_seed(seed)
    config = ASTConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16, max_length=64,
        id2label={0: "c", 1: "a", 2: "b"}, problem_type="single_label_classification",
    )  # fmt: skip
    ASTForAudioClassification(config).save_pretrained(folder)
    ASTFeatureExtractor(max_length=64).save_pretrained(folder)
    return folder


def command(place, name, **fields):
    return flags(place / "tones", place / name, **{"teacher": place / "teacher"} | fields)


@pytest.fixture(scope="module")
def run(place):
    assert main(command(place, "run", **LAYERS)) == 0
    return place / "run"


def test_what_taught_a_model_is_recorded_and_nothing_of_it_is_saved(run, place):
    digest = hashlib.sha256()
    for name, tensor in ASTForAudioClassification.from_pretrained(place / "teacher").state_dict().items():
        digest.update(name.encode() + tensor.numpy().tobytes())
    teacher = summary_in(run)["training"]["teacher"]
    assert teacher["sha256"] == digest.hexdigest()
    assert {name: teacher[name] for name in ("name", "kind", "weight", "temperature", "layers", "layer_weight")} == {
        "name": "./teacher", "kind": "AST", "weight": 0.5, "temperature": 2.0, "layers": ["1:2"], "layer_weight": 1.0,
    }  # fmt: skip
    assert summary_in(run)["training"]["loss"] == "distillation_loss"
    card = (run / "README.md").read_text()
    assert "learned from a teacher, `./teacher` (AST of " in card
    assert digest.hexdigest() in card
    recipe = yaml.safe_load((run / "recipe.yaml").read_text())
    assert (recipe["teacher"], recipe["teacher_sha256"]) == (str(place / "teacher"), digest.hexdigest())
    names = load_file(run / "model.safetensors").keys()
    assert names == ASTForAudioClassification(ASTConfig.from_pretrained(run)).state_dict().keys()
    assert not list(run.glob("teacher*"))
    maps = torch.load(run / "checkpoint-6" / "teacher_maps.pt", weights_only=True)
    assert {name: tensor.shape for name, tensor in maps.items()} == {"0.weight": (16, 32), "0.bias": (16,)}
    own = (len(list(ASTForAudioClassification(ASTConfig.from_pretrained(run)).parameters())), 2)
    state = torch.load(run / "checkpoint-6" / "optimizer.pt", weights_only=True)["state"]
    assert len(state) == sum(own), "the student, and the weight and bias of its map"


def test_a_resumed_run_ends_in_the_same_bits(run, place):
    (place / "resumed").mkdir()
    shutil.copytree(run / "checkpoint-3", place / "resumed" / "checkpoint-3")
    shutil.copytree(place / "teacher", place / "moved" / "elsewhere")
    fields = {"resume_from_checkpoint": True, **LAYERS}
    again = command(place, "resumed", **fields | {"teacher": place / "moved" / "elsewhere"})
    assert main(again) == 0
    for name in ("model.safetensors", "checkpoint-6/teacher_maps.pt"):
        loaded = [
            load_file(f) if f.suffix == ".safetensors" else torch.load(f, weights_only=True)
            for f in (run / name, place / "resumed" / name)
        ]
        assert all(torch.equal(tensor, loaded[1][key]) for key, tensor in loaded[0].items()), name
    (place / "resumed" / "checkpoint-6" / "teacher_maps.pt").unlink()
    assert main([*again, "--num_train_epochs=3"]) == 2


def test_another_teacher_cannot_go_on_but_a_flag_names_one_for_a_new_run(run, place, capsys):
    save_teacher(place / "other", seed=5)
    recipe = place / "saved.yaml"
    recipe.write_text((run / "recipe.yaml").read_text())
    shutil.copytree(run, place / "copy")
    words = [str(recipe), f"--teacher={place / 'other'}"]
    assert main([*words, f"--output_dir={place / 'copy'}", "--resume_from_checkpoint=true"]) == 2
    assert "training settings" in capsys.readouterr().err
    assert main([*words, f"--teacher_sha256={'0' * 64}", f"--output_dir={place / 'new'}"]) == 2
    assert "it is another teacher" in capsys.readouterr().err
    assert main([*words, f"--output_dir={place / 'new'}", "--num_train_epochs=1"]) == 0
    assert (
        yaml.safe_load((place / "new" / "recipe.yaml").read_text())["teacher_sha256"]
        != yaml.safe_load(recipe.read_text())["teacher_sha256"]
    )


def test_scores_that_ast_evaluate_has_stored_teach_as_the_model_does(place):
    """Without anything random the two trainings differ in the digits of the file and in nothing else."""
    scores = place / "scores.csv"
    assert (
        evaluate(
            [
                f"--model_name_or_path={place / 'teacher'}",
                f"--dataset_name={place / 'tones'}",
                f"--predictions={scores}",
            ]
        )
        == 0
    )
    fields = {"teacher_weight": 1.0, "save_strategy": "no", "max_steps": 2}
    assert main(command(place, "live", **fields)) == 0
    assert main(command(place, "stored", **fields | {"teacher": scores})) == 0
    live, stored = (load_file(place / name / "model.safetensors") for name in ("live", "stored"))
    for name, tensor in live.items():
        torch.testing.assert_close(
            stored[name], tensor, atol=1e-4, rtol=1e-3, msg=name
        )  # Adam divides by small gradients
    assert (
        summary_in(place / "stored")["training"]["teacher"]["sha256"]
        == hashlib.sha256(scores.read_bytes()).hexdigest()
    )


def test_a_dry_run_tells_time_and_weights_of_the_teacher(place, capsys, hasty_estimates):
    assert main([*command(place, "dry", **LAYERS), "--dry_run"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "Teacher ./teacher: " in printed
    report = json.loads((place / "dry" / "dry_run" / "dry_run.json").read_text())["cost"]
    parameters = ASTForAudioClassification.from_pretrained(place / "teacher").num_parameters()
    assert report["teacher"]["weights_gb"] == pytest.approx(4 * parameters / 1e9)
    assert report["teacher"]["seconds_per_step"] > 0


def test_a_step_takes_as_much_longer_as_the_teacher_does():
    parts = dict.fromkeys(("config", "trained", "training", "scoring", "eval_batch_size", "steps", "scored", "frames"))
    cost = RunCost(**parts, update=1.0, reading=0.5, batch_size=3, accumulation=2, teaching=4.0)
    assert cost.beside == 1 + 2 * (3 * 0.5 + 4)
