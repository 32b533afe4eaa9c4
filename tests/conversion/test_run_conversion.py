"""`ast-convert FILE.pth OUTPUT_DIR`: what it finds out, what it writes, and what it answers to wrong input."""

import json
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import forked_python
import numpy as np
import pytest
import soundfile
import torch
from huggingface_hub import ModelCard
from safetensors.torch import load_file

from conversion.run_conversion import main
from modeling_ast import ASTFeatureExtractor, ASTForAudioClassification, ASTModel

FILES = ["NOTICE", "README.md", "config.json", "model.safetensors", "preprocessor_config.json", "run_summary.json"]
FLAGS_300 = ("--frequency_stride", 10, "--time_stride", 16, "--max_length", 300)


def read(folder: Path, name: str) -> dict:
    return json.loads((folder / name).read_text())


def test_a_checkpoint_of_the_audioset_recipe_needs_no_flag(make_original, convert, tmp_path):
    path = make_original()
    code, out, err = convert(path, tmp_path / "ast")
    assert (code, err) == (0, "")
    assert sorted(file.name for file in (tmp_path / "ast").iterdir()) == FILES
    assert [entry.name for entry in tmp_path.iterdir()] == ["ast"]
    config = read(tmp_path / "ast", "config.json")
    assert len(config["id2label"]) == 527
    assert (config["id2label"]["0"], config["id2label"]["526"]) == ("Speech", "Field recording")
    assert config["label2id"]["Field recording"] == 526
    assert config["problem_type"] == "multi_label_classification"
    assert (config["layer_norm_eps"], config["classifier_layer_norm_eps"]) == (1e-6, 1e-5)
    assert config["architectures"] == ["ASTForAudioClassification"]
    assert config["model_type"] == "audio-spectrogram-transformer"
    features = ASTFeatureExtractor.from_pretrained(tmp_path / "ast")
    assert (features.mean, features.std, features.max_length) == (-4.2677393, 4.5689974, 1024)
    assert "strides 10 x 10, 1024 frames, 128 mel bins, 12 x 101 patches (found from 1212 patches" in out
    assert "left out, unused by AST: v.head.weight, v.head.bias, v.head_dist.weight, v.head_dist.bias" in out
    assert "verified: largest difference of the logits" in out
    assert "tolerance 2.0e-05" in out
    assert out.splitlines()[-1] == str(tmp_path / "ast")


def test_the_run_summary_says_source_digest_and_agreement(make_original, convert, tmp_path):
    path = make_original()
    convert(path, tmp_path / "ast")
    summary = read(tmp_path / "ast", "run_summary.json")
    digest = subprocess.run(["sha256sum", path], capture_output=True, text=True, check=True).stdout.split()[0]
    assert (summary["source"], summary["sha256"]) == ("best_audio_model.pth", digest)
    assert 0 < summary["agreement"]["largest_difference"] < summary["agreement"]["tolerance"] == 2e-5
    assert summary["license"] == "bsd-3-clause"
    assert "published" not in summary
    modes = [(tmp_path / "ast" / name).stat().st_mode for name in ("model.safetensors", "config.json")]
    assert modes[0] == modes[1], "who may read the settings may read the weights"
    assert summary["command"] == "ast-convert best_audio_model.pth ast"
    assert str(tmp_path) not in json.dumps(summary)


def test_the_card_reads_well(make_original, convert, tmp_path):
    convert(make_original(), tmp_path / "ast")
    text = (tmp_path / "ast" / "README.md").read_text()
    card = ModelCard(text)
    assert card.data.license == "bsd-3-clause"
    assert "# ast\n" in text
    assert "It was converted from `best_audio_model.pth`, a checkpoint of the original code." in text
    assert "largest difference of the logits from an independent forward pass" in text
    assert "those of AudioSet, from the released code" in text
    assert str(tmp_path) not in text
    assert "under the BSD 3-Clause License. The text of that licence is in [NOTICE](NOTICE)" in text
    notice = (tmp_path / "ast" / "NOTICE").read_text()
    assert "Yuan Gong" in notice
    assert "https://github.com/YuanGongND/ast." in notice
    assert "Redistributions in binary form must reproduce" in notice


@pytest.mark.parametrize("prefix", ["module.", ""])
@pytest.mark.parametrize("zipped", [True, False])
def test_old_and_new_files_with_and_without_prefix_give_the_same_checkpoint(
    make_original, convert, tmp_path, tiny_weights, prefix, zipped
):
    path = make_original(prefix=prefix, _use_new_zipfile_serialization=zipped)
    assert convert(path, tmp_path / "ast")[0] == 0
    tensors = load_file(tmp_path / "ast" / "model.safetensors")
    query, key, value = tiny_weights["v.blocks.1.attn.qkv.weight"].split(192)
    layer = "audio_spectrogram_transformer.encoder.layer.1."
    assert torch.equal(tensors[layer + "attention.attention.query.weight"], query)
    assert torch.equal(tensors[layer + "attention.attention.key.weight"], key)
    assert torch.equal(tensors[layer + "attention.attention.value.weight"], value)
    assert torch.equal(tensors["classifier.dense.weight"], tiny_weights["mlp_head.1.weight"])


@pytest.mark.parametrize(
    ("patches", "labels", "title", "first", "problem_type", "statistics"),
    [
        (144, 35, "Speech Commands v2", "backward", "single_label_classification", (-6.845978, 5.5654526)),
        (600, 50, "ESC-50", "dog", "single_label_classification", (-6.6268077, 5.358466)),
        (600, 527, "AudioSet", "Speech", "multi_label_classification", (-4.2677393, 4.5689974)),
    ],
)
def test_the_paper_s_recipes_are_known_by_their_shapes(
    make_original, convert, tmp_path, patches, labels, title, first, problem_type, statistics
):
    _, out, _ = convert(make_original(patches=patches, labels=labels), tmp_path / "ast")
    config = read(tmp_path / "ast", "config.json")
    features = read(tmp_path / "ast", "preprocessor_config.json")
    assert (config["id2label"]["0"], config["problem_type"]) == (first, problem_type)
    assert (features["mean"], features["std"]) == statistics
    assert f"{labels} labels ({title}, by their number; otherwise pass --labels FILE)" in out


def test_what_is_assumed_is_said(make_original, convert, tmp_path):
    _, out, _ = convert(make_original(labels=50), tmp_path / "ast")  # 50 labels, but not ESC-50's length
    assert read(tmp_path / "ast", "config.json")["id2label"]["49"] == "LABEL_49"
    assert "50 labels (numbered: the file has no names; pass --labels FILE)" in out
    assert "single_label_classification (assumed; otherwise pass --problem_type)" in out
    assert (
        "those of AudioSet, assumed when it was converted, as the file says none; otherwise pass --normalization"
        in out
    )
    assert "licence bsd-3-clause, that of the original code and weights; otherwise pass --license" in out
    assert "assumed when it was converted" in (tmp_path / "ast" / "README.md").read_text()


def test_flags_override_what_is_found_out(make_original, convert, tmp_path):
    (tmp_path / "names.json").write_text(json.dumps([f"name {index}" for index in range(35)]))
    code, out, _ = convert(
        make_original(patches=144, labels=35), tmp_path / "ast", "--labels", tmp_path / "names.json",
        "--problem_type", "multi_label_classification", "--normalization", -5.5, 3.25, "--license", "cc0-1.0",
        "--frequency_stride", 10, "--time_stride", 10, "--max_length", 135, "--model_size", "tiny224",
    )  # fmt: skip
    config, features = (read(tmp_path / "ast", name) for name in ("config.json", "preprocessor_config.json"))
    assert code == 0
    assert (config["id2label"]["3"], config["problem_type"]) == ("name 3", "multi_label_classification")
    assert (config["max_length"], features["max_length"]) == (135, 135)
    assert (features["mean"], features["std"]) == (-5.5, 3.25)
    summary = read(tmp_path / "ast", "run_summary.json")
    assert summary["license"] == "cc0-1.0"
    assert not (tmp_path / "ast" / "NOTICE").exists(), "the weights of a training of one's own"
    assert summary["features"]["normalization"] == "as given when it was converted"
    assert summary["command"] == (
        "ast-convert best_audio_model.pth ast --model_size tiny224 --frequency_stride 10 --time_stride 10 --max_length 135 "
        "--labels names.json --problem_type multi_label_classification --normalization -5.5 3.25 --license cc0-1.0"
    )
    assert "(as typed)" in out


def test_the_original_s_own_label_file_says_the_data_set(make_original, convert, tmp_path):
    table = Path(__file__).parents[2] / "conversion" / "label_tables" / "audioset.csv"
    shutil.copy(table, tmp_path / "class_labels_indices.csv")
    _, out, _ = convert(make_original(), tmp_path / "ast", "--labels", tmp_path / "class_labels_indices.csv")
    assert read(tmp_path / "ast", "config.json")["problem_type"] == "multi_label_classification"
    assert "527 labels (class_labels_indices.csv)" in out
    assert "those of AudioSet, from the released code" in out


def test_flags_may_stand_between_the_paths(make_original, convert, tmp_path):
    path = make_original(patches=144, labels=35)
    assert convert(path, "--max_length", 135, tmp_path / "ast")[0] == 0


def test_no_folder_of_this_machine_is_recorded(make_original, convert, tmp_path, monkeypatch):
    (tmp_path / "private").mkdir()
    (tmp_path / "private" / "names.csv").write_text("label\n" + "\n".join(f"name {index}" for index in range(35)))
    monkeypatch.chdir(tmp_path / "private")
    labels = f"--labels={tmp_path / 'private' / 'names.csv'}"
    assert convert(make_original(patches=144, labels=35), "../public/ast", labels)[0] == 0
    summary = read(tmp_path / "public" / "ast", "run_summary.json")
    assert summary["command"] == "ast-convert best_audio_model.pth ast --labels names.csv"


def test_one_output_is_a_yes_or_no(make_original, convert, tmp_path):
    _, out, _ = convert(make_original(labels=1), tmp_path / "ast")
    assert read(tmp_path / "ast", "config.json")["problem_type"] == "multi_label_classification"
    code, _, err = convert(make_original(labels=1), tmp_path / "b", "--problem_type", "single_label_classification")
    assert code == 2
    assert "requires `num_labels > 1`" in err


def test_missing_parents_are_made_and_removed_again(make_original, convert, tmp_path):
    code, _, _ = convert(make_original(change=narrow), tmp_path / "a" / "b" / "ast")
    assert code == 2
    assert not list(tmp_path.iterdir())
    assert convert(make_original(), tmp_path / "a" / "b" / "ast")[0] == 0


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_an_interrupted_conversion_leaves_nothing(make_original, tmp_path, stop):
    # The child stops itself where the weights are written and the settings are not.
    script = (
        "import os, signal, sys, time\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a background job may have been told to ignore it
        "from conversion import output_checkpoint, run_conversion, weight_map\n"
        "weight_map.NUM_LAYERS = 2\n"
        "save = output_checkpoint.save_file\n"
        "def save_and_stop(*arguments, **options):\n"
        "    save(*arguments, **options)\n"
        f"    os.kill(os.getpid(), {int(stop)})\n"
        "    time.sleep(30)\n"
        "output_checkpoint.save_file = save_and_stop\n"
        "sys.exit(run_conversion.main(sys.argv[1:]))\n"
    )
    run = forked_python.run(["-c", script, make_original(), tmp_path / "ast"])
    assert run.returncode == 128 + stop
    assert run.stderr == (
        f"ast-convert: interrupted ({stop.name}). {tmp_path / 'ast'} was not written; type the same command again.\n"
    )
    assert not list(tmp_path.iterdir())


def test_other_mel_bins_are_typed(make_original, convert, tmp_path):
    # 64 mel bins at stride 10 are 5 patches; 101 time patches at 1024 frames
    code, _, _ = convert(make_original(patches=505), tmp_path / "ast", "--num_mel_bins", 64)
    assert code == 0
    assert read(tmp_path / "ast", "preprocessor_config.json")["num_mel_bins"] == 64


def test_a_patch_count_without_a_usual_answer_lists_the_nearest(make_original, convert, tmp_path):
    path = make_original(patches=216, labels=7)
    code, _, err = convert(path, tmp_path / "ast")
    assert code == 2
    assert err.count("--max_length") == 3
    assert "216 patches, which at 128 mel bins no square stride with 128 or 512 or 1024 frames makes" in err
    assert convert(path, tmp_path / "ast", *FLAGS_300)[0] == 0
    assert ASTForAudioClassification.from_pretrained(tmp_path / "ast").config.patch_grid == (12, 18)


def test_a_released_name_says_the_rest(make_original, convert, tmp_path):
    # the real ones are base384; a file of that name that is something else is refused
    code, _, err = convert(make_original("audioset_10_10_0.4593.pth"), tmp_path / "ast")
    assert code == 2
    assert "is taken for the released audioset_10_10_0.4593, but has 527 labels, 1212 patches and width 192" in err
    assert not (tmp_path / "ast").exists()


def test_a_released_checkpoint_is_published_by_its_authors(make_original, convert, tmp_path, monkeypatch):
    from dataclasses import replace

    from conversion import convert_ast_checkpoint, released_checkpoints

    row = replace(released_checkpoints.RELEASED["audioset_12_12_0.4467"], model_size="tiny224")
    monkeypatch.setattr(convert_ast_checkpoint, "RELEASED", {row.name: row})
    code, out, _ = convert(make_original(f"{row.name}.pth", patches=850), tmp_path / "ast", "--license", "mit")
    assert code == 0
    assert "Copyright (c) 2021, Yuan Gong" in (tmp_path / "ast" / "NOTICE").read_text(), "whatever licence is typed"
    assert "strides 12 x 12, 1024 frames, 128 mel bins, 10 x 85 patches (as released as audioset_12_12_0.4467)" in out
    summary = read(tmp_path / "ast", "run_summary.json")
    assert summary["published"]["mean_average_precision"] == 0.4467
    assert "authors" in summary["published"]["by"]
    assert "evaluation" not in summary, "nothing was measured here"
    text = (tmp_path / "ast" / "README.md").read_text()
    assert "Published by the authors (Gong et al. 2021) for `audioset_12_12_0.4467.pth` and not measured here" in text
    assert not ModelCard(text).data.eval_results


def test_an_existing_folder_is_left_alone(make_original, convert, tmp_path):
    (tmp_path / "ast").mkdir()
    (tmp_path / "ast" / "precious.txt").write_text("mine")
    code, _, err = convert(make_original(), tmp_path / "ast")
    assert code == 2
    assert "already exists. Name another one, or remove it first." in err
    assert [file.name for file in (tmp_path / "ast").iterdir()] == ["precious.txt"]
    (tmp_path / "empty").mkdir()
    assert convert(make_original(), tmp_path / "empty")[0] == 0


class Payload:
    """Runs a command when it is unpickled."""

    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


def html_page(path: Path):
    path.write_text("<!DOCTYPE html>\n<html><body>Sign in</body></html>")


def optimiser_state(path: Path):
    torch.save(torch.optim.Adam([torch.nn.Parameter(torch.zeros(2))]).state_dict(), path)


def code(path: Path):
    torch.save({"module.v.cls_token": Payload(f"touch {path.parent / 'ran'}")}, path)


def old_code(path: Path):
    path.write_bytes(pickle.dumps({"a": Payload(f"touch {path.parent / 'ran'}")}, protocol=2))


def cut_off(path: Path):
    torch.save({"module.v.cls_token": torch.zeros(1000)}, path)
    path.write_bytes(path.read_bytes()[:-700])


def image_model(path: Path):
    torch.save({"cls_token": torch.zeros(1, 1, 192), "patch_embed.proj.weight": torch.zeros(192, 3, 16, 16)}, path)


def something_else(path: Path):
    torch.save({"conv1.weight": torch.zeros(3)}, path)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (html_page, "is a web page, not a checkpoint"),
        (optimiser_state, "is the state of an optimiser.*best_audio_model.pth"),
        (code, "holds Python objects besides tensors .*system.*nothing was loaded"),
        (old_code, "holds Python objects besides tensors .*system.*nothing was loaded"),
        (cut_off, "is cut off or damaged"),
        (image_model, "is an image model in timm's layout.*--imagenet_start"),
        (something_else, "holds no AST: its tensors begin with conv1.weight"),
    ],
)
def test_a_wrong_file_gets_one_line_and_leaves_nothing(convert, tmp_path, make, message):
    make(tmp_path / "model.pth")
    code, out, err = convert(tmp_path / "model.pth", tmp_path / "ast")
    assert code == 2
    assert err.startswith("ast-convert: ")
    assert err.count("\n") == 1, err
    assert re.search(message, err), err
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.pth"], "no output, and the code did not run"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda weights: weights.update({"v.extra": torch.zeros(1), "more": torch.zeros(1)}) or weights.pop("v.norm.bias"),
            r"unknown \(2\): more, v.extra; missing \(1\): v.norm.bias",
        ),
        (lambda weights: weights.update({"v.norm.bias": torch.zeros(7)}), r"layernorm.bias has shape \(7,\), expected \(192,\)"),
        (lambda weights: weights.pop("v.dist_token"), "one class token"),
        (
            lambda weights: weights.update({"v.patch_embed.proj.weight": torch.zeros(192, 1, 128, 2)}),
            r"patches of 128 x 2 \(mel bins x frames\), a frame model of SSAST",
        ),
        (lambda weights: weights.update({"v.norm.bias": torch.zeros(192, dtype=torch.int64)}), "v.norm.bias is torch.int64"),
        (lambda weights: weights.update({"v.norm.bias": torch.zeros(192).to_sparse()}), "sparse tensors.*module.v.norm.bias"),
        (lambda weights: weights.update({"mlp_head.1.weight": torch.tensor(1.0)[None][:1]}), r"mlp_head.1.weight has shape \(1,\)"),
        (lambda weights: weights.update({"mlp_head.1.weight": torch.zeros(0, 192)}), r"mlp_head.1.weight has shape \(0, 192\)"),
        (lambda weights: weights.update({"v.pos_embed": torch.zeros(1, 2, 192)}), r"v.pos_embed has shape \(1, 2, 192\), expected"),
        (lambda weights: weights.update({"v.blocks.0.mlp.fc1.weight": torch.zeros(1)}), r"intermediate.dense.weight has shape \(1,\)"),
        (lambda weights: weights.update({"v.norm.bias": torch.full((192,), torch.nan)}), "NaN or infinite: (module.)?v.norm.bias"),
    ],
)  # fmt: skip
def test_wrong_tensors_are_named_and_leave_nothing(make_original, convert, tmp_path, change, message):
    code, _, err = convert(make_original(change=change), tmp_path / "ast")
    assert code == 2
    assert err.count("\n") == 1
    assert re.search(message, err), err
    assert not list(tmp_path.iterdir())


def test_a_file_without_its_last_layers_is_incomplete(make_original, convert, tmp_path, monkeypatch):
    path = make_original()  # two layers
    monkeypatch.setattr("conversion.weight_map.NUM_LAYERS", 12)
    code, _, err = convert(path, tmp_path / "ast")
    assert code == 2
    assert "missing (120): v.blocks.10.attn.proj.bias" in err


def test_names_with_and_without_prefix_are_refused(make_original, convert, tmp_path):
    path = make_original()
    weights = torch.load(path)
    torch.save(weights | {"v.pos_embed": weights["module.v.pos_embed"]}, path)
    code, _, err = convert(path, tmp_path / "ast")
    assert code == 2
    assert "v.pos_embed is there with and without module. before it" in err


def test_pretraining_tensors_are_unknown_in_a_classifier(make_original, convert, tmp_path):
    code, _, err = convert(
        make_original(change=lambda weights: weights.update(mask_embed=torch.zeros(1))), tmp_path / "ast"
    )
    assert code == 2
    assert "unknown (1): mask_embed" in err

    def sized(weights):
        weights["p_input_fdim"], weights["p_input_tdim"] = torch.tensor(128), torch.tensor(1024)

    code, _, err = convert(make_original(change=sized), tmp_path / "ast")
    assert code == 2
    assert "unknown (2): p_input_fdim, p_input_tdim" in err


def test_other_names_of_audioset_s_527_labels_are_still_multi_label(make_original, convert, tmp_path):
    (tmp_path / "german.json").write_text(json.dumps([f"Klang {index}" for index in range(527)]))
    _, out, _ = convert(make_original(), tmp_path / "ast", "--labels", tmp_path / "german.json")
    assert "527 labels (german.json)" in out
    assert "multi_label_classification (as AudioSet is" in out
    assert read(tmp_path / "ast", "config.json")["id2label"]["3"] == "Klang 3"


def test_a_size_that_is_not_the_file_s_is_refused(make_original, convert, tmp_path):
    path = make_original()
    code, _, err = convert(path, tmp_path / "ast", "--model_size", "small224")
    assert code == 2
    assert f"--model_size small224 is 384 wide, {path} is 192: tiny224. Leave the flag out." in err
    code, _, err = convert(make_original(change=narrow), tmp_path / "ast")
    assert code == 2
    assert "is 128 wide; the original's models are tiny224 192, small224 384, base224 768, base384 768" in err


def narrow(weights: dict):
    weights["v.pos_embed"] = weights["v.pos_embed"][..., :128]


def test_tensors_that_share_memory_are_converted(make_original, convert, tmp_path):
    path = make_original()
    weights = torch.load(path)
    weights["module.v.blocks.1.norm1.bias"] = weights["module.v.blocks.0.norm1.bias"]
    torch.save(weights, path)
    assert convert(path, tmp_path / "ast")[0] == 0


def test_the_widest_dtype_is_the_checkpoint_s(make_original, convert, tmp_path):
    def mixed(weights):
        weights["v.pos_embed"] = weights["v.pos_embed"].half()

    assert convert(make_original(change=mixed), tmp_path / "ast")[0] == 0
    assert read(tmp_path / "ast", "config.json")["dtype"] == "float32"


def test_tensors_in_another_memory_order_are_converted(make_original, convert, tmp_path, tiny_weights):
    def transposed_in_memory(weights):
        for name in ("mlp_head.1.weight", "v.blocks.0.attn.qkv.weight"):
            weights[name] = weights[name].T.contiguous().T

    assert convert(make_original(change=transposed_in_memory), tmp_path / "ast")[0] == 0
    tensors = load_file(tmp_path / "ast" / "model.safetensors")
    assert torch.equal(tensors["classifier.dense.weight"], tiny_weights["mlp_head.1.weight"])


def test_a_checkpoint_that_does_not_agree_is_not_kept(make_original, convert, tmp_path, monkeypatch):
    from conversion import output_checkpoint

    def swapped(tensors, classifier):
        hub = original_to_hub(tensors, classifier)
        layer = "audio_spectrogram_transformer.encoder.layer.0.attention.attention."
        hub[layer + "query.weight"], hub[layer + "key.weight"] = hub[layer + "key.weight"], hub[layer + "query.weight"]
        return hub

    original_to_hub = output_checkpoint.original_to_hub
    monkeypatch.setattr(output_checkpoint, "original_to_hub", swapped)
    code, _, err = convert(make_original(), tmp_path / "ast")
    assert code == 2
    assert "does not agree with the original: largest difference of the logits" in err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("share", ["half of the weights", "the weights, not the settings"])
def test_a_full_disk_is_answered_in_one_line_and_leaves_nothing(make_original, convert, tmp_path, small_disk, share):
    convert(make_original(), tmp_path / "fits")
    megabytes = (tmp_path / "fits" / "model.safetensors").stat().st_size / 2**20
    disk = small_disk(megabytes / 2 if share == "half of the weights" else megabytes + 0.01)
    code, _, err = convert(make_original(), disk / "ast")
    assert code == 1
    assert re.fullmatch(r"ast-convert: \S+ast was not written: .*No space left on device.* Make room.*\n", err), err
    assert not list(disk.iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a.pth"], r"1 paths were given \(a.pth\), expected 2: CHECKPOINT.pth OUTPUT_DIR"),
        (["a.pth", "b", "c"], "3 paths were given"),
        (["--to_original", "a", "b.pth", "--labels", "audioset"], "--labels has no meaning for --to_original"),
        (["a.pth", "b", "--num_labels", "5"], "--num_labels has no meaning for the conversion of a .pth"),
        (["--imagenet_start", "a", "b", "--num_labels", "5"], "needs --max_length N"),
        (["--imagenet_start", "a", "b", "--max_length", "5"], "needs either --num_labels N or --labels FILE"),
        (
            ["--imagenet_start", "a", "b", "--max_length", "5", "--num_labels", "0"],
            "--num_labels 0: expected 1 to 100000",
        ),
        (["a.pth", "b", "--normalization", "1", "0"], "--normalization 1.0 0.0: expected two numbers, the standard"),
        (["a.pth", "b", "--normalization", "nan", "1"], "--normalization nan 1.0: expected two numbers"),
        (["a.pth", "b", "--labels", ""], "--labels is empty; give it a value or leave it out"),
        (["--imagenet_start", "a", "b", "--max_length", "9", "--num_labels", "2", "--seed", "9" * 30], "from 0 to 2"),
        (["a.pth", "b", "--model_size", "huge"], "invalid choice: 'huge'"),
        (["--released", "a", "--to_original", "b", "c"], "not allowed with argument"),
    ],
)
def test_a_wrong_command_line_is_explained(capsys, arguments, message):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    assert re.search(message, capsys.readouterr().err)


@pytest.mark.parametrize("arguments", [["--help"], ["only_one_path"]])
def test_help_and_wrong_arguments_import_nothing_heavy(arguments):
    code = (
        "import sys\nfrom conversion.run_conversion import main\n"
        f"try:\n    main({arguments!r})\nexcept SystemExit:\n    pass\n"
        "print(*sorted({name.split('.')[0] for name in sys.modules}))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "transformers", "safetensors", "huggingface_hub"} & set(run.stdout.splitlines()[-1].split())
    if arguments == ["--help"]:
        assert "audioset_16_16_0.4422" in run.stdout.replace("\n", " ")


def test_an_unknown_released_name_lists_all_eight(convert, tmp_path):
    code, _, err = convert("--released", "audioset_10_10", tmp_path / "ast")
    assert code == 2
    assert "speechcommands_10_10_0.9812" in err
    assert err.count("audioset_1") >= 7


def ssast(weights: dict):
    """What SSAST's pretraining saves (Gong et al., AAAI 2022): patches without overlap, two heads, a mask token."""
    for kind in ("0.weight", "0.bias", "1.weight", "1.bias"):
        weights.pop(f"mlp_head.{kind}")
    weights["v.pos_embed"] = weights["v.pos_embed"][:, :514]  # 8 x 64 patches
    for head in ("cpredlayer", "gpredlayer"):
        weights |= {f"{head}.0.weight": torch.zeros(192, 192), f"{head}.0.bias": torch.zeros(192)}
        weights |= {f"{head}.2.weight": torch.zeros(256, 192), f"{head}.2.bias": torch.zeros(256)}
    weights["mask_embed"] = torch.zeros(1, 1, 192)
    weights["p_input_fdim"], weights["p_input_tdim"] = torch.tensor(128), torch.tensor(1024)


def test_an_ssast_patch_model_becomes_a_model_without_classifier(
    make_original, convert, tmp_path, tiny_weights, monkeypatch, capsys
):
    code, out, err = convert(make_original("SSAST-Tiny-Patch-400.pth", change=ssast), tmp_path / "ssast")
    assert (code, err) == (0, "")
    assert "strides 16 x 16, 1024 frames, 128 mel bins, 8 x 64 patches (as the file says)" in out
    assert "left out, unused by AST: v.head.weight, v.head.bias, v.head_dist.weight, v.head_dist.bias\n" in out
    assert "with the heads of its pretraining" in out
    assert "pooled output" in out
    assert "not against its outputs" in out
    assert read(tmp_path / "ssast", "config.json")["architectures"] == ["ASTForMaskedSpectrogramModeling"]
    model = ASTModel.from_pretrained(tmp_path / "ssast")
    assert torch.equal(model.embeddings.patch_embeddings.projection.weight, tiny_weights["v.patch_embed.proj.weight"])
    tuned = ASTForAudioClassification.from_pretrained(tmp_path / "ssast", num_labels=6, max_length=128)
    assert tuned(torch.zeros(1, 128, 128)).logits.shape == (1, 6)
    text = (tmp_path / "ssast" / "README.md").read_text()
    assert "Unverified against SSAST's own outputs" in text
    assert "It has no classifier yet" in text
    assert "pipeline_tag: feature-extraction" in text
    assert 'pipeline("audio-classification"' not in text
    notice = (tmp_path / "ssast" / "NOTICE").read_text()
    assert "https://github.com/YuanGongND/ssast" in notice
    assert "Copyright (c) 2022, Yuan Gong" in notice

    (snippet,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    soundfile.write(tmp_path / "clip.wav", np.zeros((4410, 2)), 44100)
    monkeypatch.chdir(tmp_path)
    exec(snippet, {})
    assert capsys.readouterr().out == "torch.Size([1, 192])\n"


def test_an_ssast_file_that_contradicts_itself_is_refused(make_original, convert, tmp_path):
    def other_length(weights):
        ssast(weights)
        weights["p_input_tdim"] = torch.tensor(512)

    code, _, err = convert(make_original(change=other_length), tmp_path / "ssast")
    assert code == 2
    assert "which makes 256 patches, but its position table has 512" in err


def test_flags_change_single_fields_of_what_a_file_says(make_original, convert, tmp_path):
    def odd_length(weights):
        ssast(weights)
        weights["v.pos_embed"] = weights["v.pos_embed"][:, : 2 + 8 * 60]
        weights["p_input_tdim"] = torch.tensor(960)

    path = make_original(change=odd_length)
    _, out, _ = convert(path, tmp_path / "a", "--num_mel_bins", 128)
    assert "960 frames, 128 mel bins, 8 x 60 patches (as the file says, and as typed)" in out


@pytest.mark.parametrize("value", [torch.tensor([1024, 1024]), torch.tensor(float("nan"))])
def test_an_ssast_file_with_a_faulty_length_is_refused(make_original, convert, tmp_path, value):
    def faulty(weights):
        ssast(weights)
        weights["p_input_tdim"] = value

    code, _, err = convert(make_original(change=faulty), tmp_path / "ssast")
    assert code == 2
    assert "p_input_tdim is" in err
    assert "expected one number" in err


def test_an_ssast_frame_model_is_refused_in_words(make_original, convert, tmp_path):
    def frames(weights):
        ssast(weights)
        weights["v.patch_embed.proj.weight"] = torch.zeros(192, 1, 128, 2)

    code, _, err = convert(make_original("SSAST-Tiny-Frame-400.pth", change=frames), tmp_path / "ssast")
    assert code == 2
    assert "patches of 128 x 2 (mel bins x frames), a frame model of SSAST; AST has 16 x 16 only" in err
    assert not list(tmp_path.iterdir())


def test_labels_of_another_number_or_for_no_classifier_are_refused(make_original, convert, tmp_path):
    code, _, err = convert(make_original(labels=49), tmp_path / "ast", "--labels", "esc50")
    assert code == 2
    assert "--labels esc50 has 50 names, the classifier 49 outputs" in err
    code, _, err = convert(make_original(change=ssast), tmp_path / "ast", "--labels", "esc50")
    assert code == 2
    assert "has no classifier" in err
