"""`ast-push`: what is refused before anything is sent, and what stands on a Hub after good, broken and repeated uploads.

The Hub is a server on loopback, the client the unmodified `huggingface_hub` in child processes; see `hub_server.py`.
"""

import hashlib
import json
import os
import random
import shutil
import signal
import threading
import time
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from model_card.push_to_hub import push_to_hub
from model_card.render import render_model_card, write_model_card
from model_card.run_push import WAY_ON, main
from model_card.run_summary import write_run_summary
from modeling_ast import ASTConfig, ASTFeatureExtractor, ASTForAudioClassification
from modeling_ast.page.runtime_package import FILES

LABELS = ["kick", "snare", "tom"]
SENT = {
    "README.md", "config.json", "preprocessor_config.json", "model.safetensors", "run_summary.json", "recipe.yaml", "NOTICE",
    "training_curve.png", "confusion_matrix.png", "spectrogram.png", "adapter/README.md", "adapter/adapter_config.json",
    "adapter/adapter_model.safetensors",
}  # fmt: skip
NOT_SENT = (
    "checkpoint-8/model.safetensors", "checkpoint-8/optimizer.pt", "runs/now/events.out.tfevents.1", "training_args.bin",
    ".unfinished/x", ".model.safetensors.77.tmp", "notes about my boss.txt", "__pycache__/a.pyc", "adapter/mine.txt",
    "epochs/epoch-1/model.safetensors", "model-00001-of-00002.safetensors", "out.onnx", "cache/clip.wav", ".env",
)  # fmt: skip
PRELUDE = """
import os
from model_card import push_to_hub
from model_card.run_push import main
push_to_hub.PAUSES = (0.01, 0.02)
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A folder with all that a training may leave, and with what it must not publish."""
    folder = tmp_path_factory.mktemp("runs") / "drums"
    torch.manual_seed(0)
    config = ASTConfig(
        hidden_size=48, num_hidden_layers=2, num_attention_heads=3, intermediate_size=64, max_length=96,
        id2label=dict(enumerate(LABELS)), label2id={name: index for index, name in enumerate(LABELS)},
    )  # fmt: skip
    ASTForAudioClassification(config).save_pretrained(folder)
    ASTFeatureExtractor(max_length=96).save_pretrained(folder)
    for name in (SENT | set(NOT_SENT)) - {path.name for path in folder.iterdir()}:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(f"\0 {name}".encode())
    write_run_summary(folder, {"labels": LABELS, "license": "mit", "evaluation": {"metrics": {"accuracy": 0.5}}})
    write_model_card(folder)
    return folder


@pytest.fixture
def checkpoint(made, tmp_path) -> Path:
    return shutil.copytree(made, tmp_path / "drums")


def edit_json(path: Path, **entries):
    """Set entries of a JSON file, or remove those that are None."""
    content = json.loads(path.read_text()) | entries
    path.write_text(json.dumps({name: value for name, value in content.items() if value is not None}))


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def contents(folder: Path, names=SENT) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in names}


def sent(folder: Path, repo_id: str) -> dict[str, bytes]:
    """The files as they lie in the folder; only the card names the repository."""
    return contents(folder) | {"README.md": render_model_card(folder, repo_id).encode()}


def push(hub, *calls: list | str, **kwargs):
    """Call the command several times in one child process, with other lines of code between; its return codes come first."""
    lines = [call if isinstance(call, str) else f"codes.append(main({list(map(str, call))!r}))" for call in calls]
    done = hub.run("\n".join([PRELUDE, "codes = []", *lines, "print(*codes)"]), **kwargs)
    return [int(code) for code in done.stdout.splitlines()[-1].split()], done


def refused(capsys, *words) -> str:
    """The message of a call that is refused."""
    assert main([*map(str, words), "--dry_run"]) == 2
    message = capsys.readouterr().err
    assert message.startswith("ast-push: ")
    assert message.count("\n") == 1
    return message


def test_the_card_is_published_with_the_id_of_its_repository_and_the_recipe_without_the_folders_of_this_machine(
    hub, checkpoint
):
    recipe = (
        f"# ast-finetune recipe.yaml\ndataset_name: {checkpoint}/clips\ntrain_file: ~/köln/train.csv\n"
        "eval_file: data/eval.csv\nlabel_separator: /\nmax_length: 96\n"
    )
    (checkpoint / "recipe.yaml").write_text(recipe)
    card = (checkpoint / "README.md").read_text()
    command = [checkpoint, "--repo_id", "user/cymbals"]
    codes, _ = push(hub, command, f"open({str(checkpoint / 'README.md')!r}, 'a').write('In my cellar.')", command)
    assert codes == [0, 0]
    edited, first, _ = hub.commits("user/cymbals")
    on_the_hub = first.files["README.md"].content.decode()
    assert "# cymbals\n" in on_the_hub
    assert on_the_hub.count('"user/cymbals"') == card.count('"drums"') == 4
    assert on_the_hub.count("--model_name_or_path user/cymbals\n") == card.count("--model_name_or_path drums\n") == 2
    assert "the path of this folder" not in on_the_hub
    assert edited.files["README.md"].content.decode() == f"{card}In my cellar."
    assert first.files["recipe.yaml"].content.decode() == (
        "# ast-finetune recipe.yaml\ndataset_name: clips\ntrain_file: train.csv\n"
        "eval_file: data/eval.csv\nlabel_separator: /\nmax_length: 96\n"
    )
    assert (checkpoint / "recipe.yaml").read_text() == recipe


def test_the_dry_run_lists_what_would_be_sent_without_a_network(checkpoint, capsys):
    assert main([str(checkpoint), "--repo_id", "user/drums", "--dry_run", "--revision", "try/2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{checkpoint} -> https://huggingface.co/user/drums, branch try/2"
    listed = [line.split() for line in lines if line.startswith("  ")]
    assert {name for name, _ in listed} == SENT
    assert dict(listed)["adapter/README.md"] == f"{(checkpoint / 'adapter/README.md').stat().st_size}.0B"
    total = sum(len(content) for content in sent(checkpoint, "user/drums").values())
    assert f"{len(SENT)} files" in lines[-2]
    assert f"({total:,} bytes)" in lines[-2]
    assert lines[-1] == "Nothing was sent. Leave out --dry_run to publish it."
    assert lines[1].startswith("Repository: as public or private as the Hub makes your new ones (--private makes")
    assert lines[2] == "Branch: try/2, made from main if it is not there yet"
    assert lines[3].startswith("Commit: 'Upload drums'; files of an older push")


@pytest.mark.parametrize(("flags", "seen_by"), [(["--private"], "private"), ([], "as its model")])
def test_the_dry_run_says_who_could_see_it_and_what_the_commit_is_called(checkpoint, capsys, flags, seen_by):
    command = [str(checkpoint), "--repo_id", "user/drums", "--dry_run", "--space", "--commit_message", "First", *flags]
    assert main(command) == 0
    told = capsys.readouterr().out
    assert ("Repository: private, if it is not there yet; one that is there" in told) == bool(flags)
    assert "Commit: 'First'; " in told
    assert f"Space: {seen_by}, if it is not there yet, on the branch main" in told
    assert "Branch: " not in told  # main is made with the repository


def test_a_dry_run_from_python_says_that_it_would_be_public(checkpoint):
    said = []
    push_to_hub(checkpoint, "user/drums", private=False, dry_run=True, report=said.append)
    assert said[1].startswith(
        "Repository: public, if it is not there yet; one that is there is not changed and has to be"
    )


def with_names(checkpoint: Path) -> str:
    """A run on clips whose names are a mark; the mark."""
    mark = "Qqzv"
    clips = [
        {"split": "train", "file": f"{mark}/a{number}.wav", "reason": f"{mark}/a{number}.wav is empty (0 bytes)."}
        for number in range(6)
    ]
    note = {
        "split": "test",
        "file": f"outside the data folder: {mark}.mp3",
        "kind": "cut_off",
        "text": f"{mark}.mp3 is cut off",
    }
    summary = json.loads((checkpoint / "run_summary.json").read_text())
    summary |= {
        "command": f"ast-finetune recipe.yaml --dataset_name {mark}.csv",
        "base_model": f"./{mark}-base",
        "data": {
            "name": mark, "hub_id": None, "splits": {"train": {"clips": 3}}, "split_method": "held out",
            "skipped_clips": clips, "audio_notes": [note], "hard_negatives": f"./{mark}-older",
        },
    }  # fmt: skip
    summary["training"] = {"augmentation": {"noise_dir": f"{mark}-noises", "impulse_response_dir": f"{mark}-rooms"}}
    summary |= {"license": "bsd-3-clause", "license_notice": {"work": f"the checkpoint {mark}-base"}}
    write_run_summary(checkpoint, summary)
    write_model_card(checkpoint)
    recipe = {
        "dataset_name": f"clients/{mark}.csv", "model_name_or_path": f"/{mark}/{mark}-base", "train_file": None, "max_length": 96,
        "ignore_labels": ["/m/09x0r"], "marks": f"{mark}-marks", "hard_negatives": f"{mark}-older",
    }  # fmt: skip
    (checkpoint / "recipe.yaml").write_text(f"# ast-finetune recipe.yaml\n{yaml.safe_dump(recipe)}")
    return mark


def test_names_of_the_users_files_are_listed_and_left_out_on_request(hub, checkpoint, capsys):
    mark = with_names(checkpoint)
    command = [str(checkpoint), "--repo_id", "user/drums"]
    assert main([*command, "--dry_run"]) == 0
    told = capsys.readouterr().out.splitlines()
    start = told.index("Names of your files and folders in these, and in the card and the command that it shows:")
    assert told[start + 1 : start + 4] == [
        f"  run_summary.json  {mark}, {mark}-base, {mark}-older, {mark}-noises, {mark}-rooms and 7 more",
        f"  recipe.yaml       clients/{mark}.csv (dataset_name), {mark}-older (hard_negatives), {mark}-marks (marks), "
        f"{mark}-base (model_name_or_path)",
        "Pass --hide_names to publish it without them, or rename them there.",
    ]
    before = contents(checkpoint)
    codes, _ = push(hub, command, [*command, "--hide_names"])
    assert codes == [0, 0]
    assert contents(checkpoint) == before
    hidden, shown, _ = hub.commits("user/drums")
    assert (hidden.title, shown.title) == ("Upload drums", "Upload drums")
    assert {name for name, file in shown.files.items() if mark.encode() in file.content} == {
        "README.md", "run_summary.json", "recipe.yaml", "NOTICE"
    }  # fmt: skip
    assert hidden.files["NOTICE"].content.startswith(b"This checkpoint derives from the checkpoint checkpoint.")
    assert not [name for name, file in hidden.files.items() if mark.encode() in file.content]
    summary = json.loads(hidden.files["run_summary.json"].content)
    assert summary["training"]["augmentation"]["noise_dir"] == "noises"
    data = summary["data"]
    assert [clip["file"] for clip in data["skipped_clips"]] == [f"clip {number}" for number in range(1, 7)]
    assert data["skipped_clips"][0]["reason"] == "clip 1 is empty (0 bytes)."
    assert data["audio_notes"][0]["file"] == "outside the data folder: clip 7"
    recipe = yaml.safe_load(hidden.files["recipe.yaml"].content)
    assert recipe == {"max_length": 96, "ignore_labels": ["/m/09x0r"], "train_file": None}
    assert yaml.safe_load(shown.files["recipe.yaml"].content)["ignore_labels"] == ["/m/09x0r"]


@pytest.mark.parametrize("own", [True, False])
def test_a_notice_of_an_older_push_is_removed_unless_somebody_wrote_it(hub, checkpoint, own):
    command = [str(checkpoint), "--repo_id", "user/drums"]
    with_names(checkpoint)
    if not own:
        (checkpoint / "NOTICE").write_text("This checkpoint derives from my grandfather's drums.\n")
    push(hub, command)
    edit_json(checkpoint / "run_summary.json", license="mit", license_notice=None)
    (checkpoint / "NOTICE").unlink()
    write_model_card(checkpoint)
    push(hub, command)
    newest, older, _ = hub.commits("user/drums")
    assert "NOTICE" in older.files
    assert ("NOTICE" in newest.files) == (not own)


def test_a_checkpoint_of_the_hub_that_found_hard_negatives_is_nobodys_name(hub, checkpoint, capsys):
    summary = json.loads((checkpoint / "run_summary.json").read_text())
    summary["data"] = {"name": "x", "hub_id": "x/y", "hard_negatives": "other/calls"}
    write_run_summary(checkpoint, summary)
    write_model_card(checkpoint)
    (checkpoint / "recipe.yaml").write_text("# ast-finetune recipe.yaml\nhard_negatives: other/calls\n")
    command = [str(checkpoint), "--repo_id", "user/drums"]
    assert main([*command, "--dry_run"]) == 0
    assert "other/calls" not in capsys.readouterr().out
    push(hub, [*command, "--hide_names"])
    published = hub.commits("user/drums")[0].files
    assert yaml.safe_load(published["recipe.yaml"].content) == {"hard_negatives": "other/calls"}
    assert json.loads(published["run_summary.json"].content)["data"]["hard_negatives"] == "other/calls"


def test_that_marks_lie_beside_the_recordings_names_nothing(checkpoint, capsys):
    (checkpoint / "recipe.yaml").write_text("# ast-finetune recipe.yaml\nmarks: beside\n")
    assert main([str(checkpoint), "--repo_id", "user/drums", "--dry_run"]) == 0
    assert "recipe.yaml  " not in capsys.readouterr().out.partition("Names of your files")[2]


def test_a_card_that_somebody_edited_keeps_its_names_and_that_is_said(checkpoint, capsys):
    with_names(checkpoint)
    with open(checkpoint / "README.md", "a") as card:
        card.write("Recorded in my cellar.\n")
    assert main([str(checkpoint), "--repo_id", "user/drums", "--dry_run", "--hide_names"]) == 0
    assert "README.md is published as it is, with what names it has." in capsys.readouterr().out


def test_what_an_older_version_quoted_of_files_that_are_no_audio_is_not_published(checkpoint, tmp_path, monkeypatch):
    reason = "x.wav holds text, not audio; it begins with b'PASSWORD=\\'hunter2\\'. A'. A web page or a Git LFS pointer saved under"
    summary = json.loads((checkpoint / "run_summary.json").read_text())
    clips = [{"split": "train", "file": "x.wav", "reason": reason}]
    write_run_summary(checkpoint, summary | {"data": {"skipped_clips": clips}})
    published = {}
    monkeypatch.setattr(
        "model_card.push_to_hub._list_files",
        lambda files, report: published.update(
            {name: path.read_text(errors="replace") for name, path in files.items()}
        ),
    )
    push_to_hub(checkpoint, "user/drums", dry_run=True)
    (clip,) = json.loads(published["run_summary.json"])["data"]["skipped_clips"]
    assert clip["reason"] == "x.wav holds text, not audio. A web page or a Git LFS pointer saved under"


@pytest.mark.parametrize("name", ["README.md", "model.safetensors", "adapter"])
def test_a_link_that_leads_out_of_the_folder_is_refused(checkpoint, tmp_path, capsys, name):
    secret = (checkpoint / name).rename(tmp_path / "secret")
    (checkpoint / name).symlink_to(secret)
    words = refused(capsys, checkpoint, "--repo_id", "user/drums")
    assert f"is a link to {secret}" in words
    assert f"outside {checkpoint}, and only what lies in that folder is published" in words


def test_links_within_the_folder_or_the_cache_of_the_hubs_client_are_followed(checkpoint, tmp_path):
    (checkpoint / "README.md").rename(checkpoint / "card.md")
    (checkpoint / "README.md").symlink_to("card.md")
    assert main([str(checkpoint), "--repo_id", "user/drums", "--dry_run"]) == 0
    snapshot = tmp_path / "models--user--drums" / "snapshots" / "0a1b"
    snapshot.parent.mkdir(parents=True)
    checkpoint.rename(snapshot)
    blobs = tmp_path / "models--user--drums" / "blobs"
    blobs.mkdir()
    (snapshot / "model.safetensors").rename(blobs / "ab")
    (snapshot / "model.safetensors").symlink_to("../../blobs/ab")
    assert main([str(snapshot), "--repo_id", "user/drums", "--dry_run"]) == 0


def test_an_edited_card_is_named_and_kept(checkpoint, capsys):
    card = (checkpoint / "README.md").read_text() + "\nRecorded in my cellar.\n"
    (checkpoint / "README.md").write_text(card)
    assert main([str(checkpoint), "--repo_id", "user/drums", "--dry_run"]) == 0
    assert f"it was edited, or the folder has another name, or it is of an older version. It is published as it is; type ast-model-card {checkpoint}" in (
        capsys.readouterr().out
    )  # fmt: skip
    assert (checkpoint / "README.md").read_text() == card


def test_a_licence_that_the_hub_may_not_know_is_named(checkpoint, capsys):
    edit_json(checkpoint / "run_summary.json", license="cc0")
    write_model_card(checkpoint)
    assert main([str(checkpoint), "--repo_id", "user/drums", "--dry_run"]) == 0
    assert "Note: README.md: licence 'cc0' is not in the Hub's list" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("README.md", "has no README.md, the model card. Type ast-model-card"),
        ("config.json", "has no config.json: its training is not finished. Type its command again with --resume_from"),
        ("preprocessor_config.json", "has no preprocessor_config.json"),
        ("model.safetensors", "has neither model.safetensors nor model.safetensors.index.json"),
        (
            "run_summary.json",
            "ended before its result was whole. Type the training's command again with --resume_from",
        ),
    ],
)
def test_a_folder_that_lacks_a_file_is_refused(checkpoint, capsys, name, words):
    (checkpoint / name).unlink()
    assert words in refused(capsys, checkpoint, "--repo_id", "user/drums")


def test_a_folder_that_is_not_there_is_refused(tmp_path, capsys):
    assert "There is no folder" in refused(capsys, tmp_path / "nothing", "--repo_id", "user/drums")


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ({"id2label": {"0": "kick", "1": "snare"}, "label2id": None}, "names 2 labels, but the classifier in the weights has 3"),
        ({"id2label": None, "label2id": None}, "names 2 labels, but the classifier in the weights has 3"),
        ({"id2label": {"0": "kick", "1": "snare", "3": "tom"}}, "is not an object of the indices 0, 1, 2 ..., each once"),
        ({"id2label": {"0": "kick", "1": "tom", "2": "tom"}}, "has the label 'tom' more than once"),
        ({"label2id": {"kick": 1, "snare": 0, "tom": 2}}, "disagree on 'kick' (0 and 1). Make label2id the inverse"),
        ({"label2id": {"kick": 0, "snare": 1}}, "disagree on 'tom' (2 and None)"),
        ({"num_labels": 4}, "says num_labels=4, but has 3 labels"),
        ({"model_type": "vit"}, "'vit'"),
    ],
)  # fmt: skip
def test_labels_that_disagree_with_each_other_or_the_classifier_are_refused(checkpoint, capsys, entries, words):
    edit_json(checkpoint / "config.json", **entries)
    assert words in refused(capsys, checkpoint, "--repo_id", "user/drums")


def test_labels_of_another_run_are_refused(checkpoint, capsys):
    edit_json(checkpoint / "run_summary.json", labels=["snare", "kick", "tom"])
    assert "'labels' is ['snare', 'kick', 'tom'] in run_summary.json" in refused(
        capsys, checkpoint, "--repo_id", "a/b"
    )


def test_labels_without_a_classifier_are_refused_and_a_model_without_both_is_not(checkpoint, capsys):
    weights = load_file(checkpoint / "model.safetensors")
    headless = {name: tensor for name, tensor in weights.items() if not name.startswith("classifier.")}
    save_file(headless, checkpoint / "model.safetensors")
    assert "names 3 labels, but the weights have no classifier" in refused(capsys, checkpoint, "--repo_id", "a/b")
    edit_json(checkpoint / "config.json", id2label=None, label2id=None)
    edit_json(checkpoint / "run_summary.json", labels=None)
    assert main([str(checkpoint), "--repo_id", "user/drums", "--dry_run"]) == 0


def test_weights_that_stock_transformers_would_not_read_are_refused(checkpoint, capsys):
    weights = load_file(checkpoint / "model.safetensors")
    save_file({f"_orig_mod.{name}": tensor for name, tensor in weights.items()}, checkpoint / "model.safetensors")
    words = refused(capsys, checkpoint, "--repo_id", "user/drums")
    assert "has the tensor _orig_mod." in words
    assert "save it again with ASTForAudioClassification.from_pretrained(" in words


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_numbers_are_refused(checkpoint, capsys, value):
    weights = load_file(checkpoint / "model.safetensors")
    weights["classifier.dense.bias"][1] = value
    save_file(weights, checkpoint / "model.safetensors")
    words = refused(capsys, checkpoint, "--repo_id", "user/drums")
    assert (
        "NaN or infinite: classifier.dense.bias. Nobody could use them; take another checkpoint, or train again"
        in words
    )


def test_weights_that_are_cut_off_are_refused(checkpoint, capsys):
    whole = (checkpoint / "model.safetensors").read_bytes()
    (checkpoint / "model.safetensors").write_bytes(whole[:-1])
    assert "its weights (.safetensors) are damaged or cut off" in refused(
        capsys, checkpoint, "--repo_id", "user/drums"
    )


def test_weights_in_several_files_are_all_sent_or_the_missing_one_is_named(checkpoint, capsys):
    (checkpoint / "model.safetensors").unlink()
    (checkpoint / "model-00001-of-00002.safetensors").unlink()
    ASTForAudioClassification(ASTConfig.from_pretrained(checkpoint)).save_pretrained(
        checkpoint, max_shard_size="100KB"
    )
    parts = sorted(path.name for path in checkpoint.glob("model-*"))
    assert len(parts) > 1
    write_model_card(checkpoint)
    assert main([str(checkpoint), "--repo_id", "user/drums", "--dry_run"]) == 0
    listed = {line.split()[0] for line in capsys.readouterr().out.splitlines() if line.startswith("  ")}
    assert listed == SENT - {"model.safetensors"} | {"model.safetensors.index.json", *parts}
    (checkpoint / parts[-1]).unlink()
    assert f"has no {parts[-1]}, which model.safetensors.index.json names" in refused(
        capsys, checkpoint, "--repo_id", "a/b"
    )


@pytest.mark.parametrize(
    ("card", "words"),
    [
        ("# Drums\n", "has no metadata block at its top. Type ast-model-card"),
        ("---\n---\n# Drums\n", "has no metadata block at its top. Type ast-model-card"),
        ("---\nlicense: [mit\n---\n# Drums\n", "cannot be read: README.md, line"),
        ("---\n- license\n---\n# Drums\n", "cannot be read"),
        ("---\nlicense: mit\nmodel-index:\n- name: drums\n  results: 3\n---\n", "cannot be read"),
        (b"---\nlicense: \xff\n---\n", "cannot be read"),
    ],
)
def test_a_card_whose_metadata_nobody_can_read_is_refused(checkpoint, capsys, card, words):
    (checkpoint / "README.md").write_bytes(card if isinstance(card, bytes) else card.encode())
    assert words in refused(capsys, checkpoint, "--repo_id", "user/drums")


@pytest.mark.parametrize(
    ("repo_id", "words"),
    [
        ("drums", "names no owner. Pass --repo_id user/drums"),
        ("datasets/user/drums", "Pass --repo_id user/name"),
        ("user/my drums", "Pass --repo_id user/name"),
        ("user/drums.git", "Pass --repo_id user/name"),
        ("", "Pass --repo_id user/name"),
    ],
)
def test_what_cannot_be_a_repository_is_refused(checkpoint, capsys, repo_id, words):
    assert words in refused(capsys, checkpoint, "--repo_id", repo_id)


@pytest.mark.parametrize(
    "revision", ["a b", "a..b", "/a", "a/", "-a", "a~1", "a^", "a:b", "a\\b", "@", "a@{1}", "x.lock", "refs/pr/1", "", "a//b", ".a", "a/.b"]
)  # fmt: skip
def test_what_cannot_be_a_branch_is_refused(checkpoint, capsys, revision):
    words = refused(capsys, checkpoint, "--repo_id", "user/drums", f"--revision={revision}")
    assert "cannot be the name of a branch. Pass for example --revision experiment-2" in words


def test_a_commit_is_no_branch(checkpoint, capsys):
    words = refused(capsys, checkpoint, "--repo_id", "user/drums", "--revision", "0a" * 20)
    assert "is a commit, to which nothing can be added. Pass a branch: --revision main" in words


@pytest.mark.parametrize("static", [[], ["static"]])
def test_no_demo_page_is_made_of_a_model_without_a_classifier(checkpoint, capsys, static):
    weights = load_file(checkpoint / "model.safetensors")
    save_file({name: weights[name] for name in weights if "classifier" not in name}, checkpoint / "model.safetensors")
    edit_json(checkpoint / "config.json", id2label=None, label2id=None)
    edit_json(checkpoint / "run_summary.json", labels=None)
    command = [str(checkpoint), "--repo_id", "user/drums", "--dry_run"]
    assert main([*command, "--space", *static]) == 2
    assert "has no trained classifier, so that the labels of a demo page would be random" in capsys.readouterr().err
    assert main(command) == 0


def test_the_variable_that_is_set_is_named(checkpoint, capsys, monkeypatch):
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setenv("TRANSFORMERS_OFFLINE", "1")
    assert main([str(checkpoint), "--repo_id", "user/drums"]) == 2
    assert "TRANSFORMERS_OFFLINE is set and forbids every connection" in capsys.readouterr().err


def test_offline_mode_is_named(checkpoint, capsys):
    assert main([str(checkpoint), "--repo_id", "user/drums"]) == 2
    assert "HF_HUB_OFFLINE is set and forbids every connection. Type unset HF_HUB_OFFLINE" in capsys.readouterr().err


def test_ctrl_c_ends_in_a_line(checkpoint, capsys, monkeypatch):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("model_card.push_to_hub.check_checkpoint", interrupt)
    assert main([str(checkpoint), "--repo_id", "user/drums", "--dry_run"]) == 130
    assert capsys.readouterr().err == (
        "ast-push: interrupted (SIGINT). Type the same command again to go on: what has arrived is not sent again, and on the "
        "Hub is the whole commit or nothing of it.\n"
    )


def test_a_push_is_one_commit_of_what_belongs_to_it_and_a_second_one_of_what_changed(hub, checkpoint):
    again = [checkpoint, "--repo_id", "user/drums"]
    curve, spectrogram = checkpoint / "training_curve.png", checkpoint / "spectrogram.png"
    uploaded = "from huggingface_hub import HfApi; HfApi().upload_file(path_or_fileobj=b'a', path_in_repo='{}', repo_id='user/drums')"
    before = sent(checkpoint, "user/drums")
    codes, done = push(
        hub,
        [*again, "--private", "--commit_message", "First"],
        again,
        uploaded.format("from_the_web_page.txt"),
        f"open({str(curve)!r}, 'ab').write(b'more'); os.unlink({str(spectrogram)!r})",
        again,
        [*again, "--revision", "try/2", "--commit_message", "Try"],
    )
    assert codes == [0, 0, 0, 0]
    assert hub.repos["models", "user/drums"].private
    second, _, first, initial = hub.commits("user/drums")
    assert (second.title, first.title, initial.title) == ("Upload drums", "First", "initial commit")
    assert {name: file.content for name, file in first.files.items() if name not in initial.files} == before
    # The card, which has that picture, is no longer what would be written today.
    changed = contents(checkpoint, SENT - {"spectrogram.png"}) | {"from_the_web_page.txt": b"a"}
    assert hub.files("user/drums") == changed
    address = f"{hub.endpoint}/user/drums/commit"
    said = [line for line in done.stdout.splitlines() if address in line or line.startswith("Removed")]
    assert said[:4] == [
        f"Published: {address}/{first.sha}",
        f"Nothing has changed since {address}/{first.sha}",
        "Removed there: spectrogram.png",
        f"Published: {address}/{second.sha}",
    ]
    # The branch is made from the main one, where the files are by then.
    assert hub.repos["models", "user/drums"].branches["try/2"] is second
    assert said[4:] == [f"Nothing has changed since {address}/{second.sha}"]
    weights = checkpoint / "model.safetensors"
    assert hub.bytes_received[sha256(weights)] == weights.stat().st_size


def test_who_may_not_write_there_is_told_before_the_weights_are_looked_at(hub, checkpoint):
    (checkpoint / "model.safetensors").write_bytes(b"broken")
    command = [str(checkpoint), "--repo_id", "user/drums"]
    done = hub.run(f"""{PRELUDE}
for token in (None, "hf_bad", "hf_read", "hf_other"):
    os.environ.pop("HF_TOKEN", None)
    if token:
        os.environ["HF_TOKEN"] = token
    assert main({command!r}) == 2
try:
    push_to_hub.push_to_hub({command[0]!r}, "user/drums", token="hf_not\\na_header")
except push_to_hub.PushError as error:
    print(error)
""")
    nobody, bad, read, other = done.stderr.splitlines()
    make_one = (
        f"Make one with write permission at {hub.endpoint}/settings/tokens, then type hf auth login, or set HF_TOKEN"
    )
    assert f"There is no token for {hub.endpoint}. {make_one}" in nobody
    assert "does not accept the token (HTTP 401" in bad
    assert make_one in bad
    assert f"The token of user has read permission only. {make_one}" in read
    assert "The token is other's, who has no part in user. Pass --repo_id other/drums" in other
    assert "a_header" not in done.stdout + done.stderr
    assert "The token holds a space, line break or sign that no token has" in done.stdout
    assert {request.path for request in hub.requests} == {"/api/whoami-v2"}


def test_what_the_hub_refuses_is_said_in_a_line_and_nothing_is_half_there(hub, checkpoint):
    (checkpoint / "README.md").write_text("---\nlicense: mit\nbase_model: 'no id at all'\n---\n# Drums\n")
    command = [checkpoint, "--repo_id", "user/drums"]
    hub.fail("PUT", status=400)
    hub.fail("POST", "/commit/", status=403)
    hub.fail("POST", "/commit/", status=402)
    rewrite = f"from model_card.render import write_model_card; write_model_card({str(checkpoint)!r})"
    codes, done = push(hub, command, rewrite, *[command] * 4, [*command, "--private"])
    assert codes == [2, 2, 2, 2, 0, 2]
    bad_card, upload, forbidden, unpaid, public = (
        line for line in done.stderr.splitlines() if line.startswith("ast-push")
    )
    assert "Invalid metadata in README.md" in bad_card
    assert "no id at all" in bad_card
    assert f"{hub.endpoint} does not take user/drums (HTTP 400" in upload
    assert f"The token may not write to {hub.endpoint}/user/drums (HTTP 403" in forbidden
    assert "needs a paid plan (HTTP 402" in unpaid
    assert f"{hub.endpoint}/user/drums is there already and is public, and a private one was asked for" in public
    assert f"Change it at {hub.endpoint}/user/drums/settings, or leave out --private" in public
    assert not hub.repos["models", "user/drums"].private
    assert len(hub.commits("user/drums")) == 2


def test_without_a_network_it_takes_one_line(hub, checkpoint):
    _, done = push(hub, [checkpoint, "--repo_id", "user/drums"], HF_ENDPOINT="http://127.0.0.1:9")
    assert done.stderr.startswith("ast-push: The connection to 127.0.0.1:9 failed (")
    assert done.stderr.endswith("Try again later: what has arrived is not sent again.\n")
    assert done.stderr.count("\n") == 1


def test_a_hub_that_falls_silent_is_named_and_a_later_call_goes_on(hub, checkpoint):
    command = [checkpoint, "--repo_id", "user/drums"]
    shrunk = "from modeling_ast.system import hub_answers; hub_answers.ANSWER_SECONDS = 1"
    hub.fall_silent("GET", "/whoami", drip=0.1)
    weights = checkpoint / "model.safetensors"
    hub.fall_silent("PUT", sha256(weights), after=1000)
    hub.fall_silent("POST", "/commit/", after=10)
    codes, done = push(hub, shrunk, *[command] * 4)
    assert codes == [1, 1, 1, 0]
    api, blobs = (address.removeprefix("http://") for address in (hub.endpoint, hub.blob_store))
    said = "ast-push: {} does not answer: nothing came for up to 1 s. Check the connection. Try again later: what has arrived is"
    lines = [line for line in done.stderr.splitlines() if line.startswith("ast-push")]
    assert [line.partition(" not sent again.")[0] for line in lines] == [
        said.format(host) for host in (api, blobs, api)
    ]
    assert "Trying again" not in done.stdout  # which would take longer
    assert hub.files("user/drums") == sent(checkpoint, "user/drums")
    assert hub.bytes_received[sha256(weights)] == 1000 + weights.stat().st_size


def test_sigterm_in_an_upload_says_how_to_go_on_and_leaves_nothing(hub, checkpoint, tmp_path):
    hub.fall_silent("PUT", sha256(checkpoint / "model.safetensors"), after=1000)

    def end():
        while not any(request.method == "PUT" for request in hub.requests):
            time.sleep(0.02)
        os.kill(int((hub.home / "pid").read_text()), signal.SIGTERM)
        ended.append(time.monotonic())

    ended = []
    threading.Thread(target=end, daemon=True).start()
    (tmp_path / "written").mkdir()
    code = f"{PRELUDE}\nopen('pid', 'w').write(str(os.getpid()))\nraise SystemExit(main({[str(checkpoint), '--repo_id', 'user/x']!r}))"
    done = hub.run(code, returncode=128 + signal.SIGTERM, TMPDIR=str(tmp_path / "written"))
    assert time.monotonic() - ended[0] < 5
    assert done.stderr == f"ast-push: interrupted (SIGTERM). {WAY_ON}\n"
    assert not list((tmp_path / "written").iterdir())
    assert len(hub.commits("user/x")) == 1


def test_an_upload_that_is_cut_at_any_byte_is_completed(hub, checkpoint, tmp_path):
    whole = (checkpoint / "model.safetensors").stat().st_size
    positions = [random.Random(7).randrange(whole - 1), whole - 1, whole]
    commands = []
    for number, position in enumerate(positions):
        folder = shutil.copytree(checkpoint, tmp_path / f"copy-{number}")
        weights = load_file(folder / "model.safetensors")
        weights["classifier.dense.bias"] += number + 1
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        hub.cut("PUT", sha256(folder / "model.safetensors"), after=position)
        commands.append([folder, "--repo_id", f"user/copy-{number}"])
    codes, _ = push(hub, *commands)
    assert codes == [0] * len(positions)
    for number, position in enumerate(positions):
        folder = tmp_path / f"copy-{number}"
        assert hub.files(f"user/copy-{number}") == contents(folder)  # whose card was written for another name
        assert len(hub.commits(f"user/copy-{number}")) == 2
        assert hub.bytes_received[sha256(folder / "model.safetensors")] == position + whole


def test_what_broke_off_is_done_again_or_by_a_second_call_and_the_weights_are_sent_once(hub, checkpoint):
    def target(name: str) -> list:
        return [checkpoint, "--repo_id", f"user/{name}"]

    hub.fail("POST", "/broken/commit/", status=503, times=3)
    codes, done = push(hub, target("broken"), target("whole"))
    assert codes == [1, 0]
    assert "Trying again in 0.01 s." in done.stdout
    assert "Trying again in 0.02 s." in done.stdout
    assert f"{hub.endpoint} does not take user/broken (HTTP 503" in done.stderr
    assert done.stderr.rstrip().endswith("Try again later: what has arrived is not sent again.")
    assert len(hub.commits("user/broken")) == 1
    length = min(len(request.body) for request in hub.requests if "/commit/" in request.path)

    hub.fail("GET", "/whoami", status=503)
    hub.cut("POST", "/repos/create")
    hub.cut("POST", "/validate-yaml", after=10)
    hub.cut("POST", "/cut/commit/", after=length // 3)
    hub.lose_answer("POST", "/cut/commit/")
    codes, done = push(hub, target("broken"), target("new"), target("cut"))
    assert codes == [0, 0, 0]
    for name in ("broken", "new", "cut"):
        assert hub.files(f"user/{name}") == sent(checkpoint, f"user/{name}")
        made, _ = hub.commits(f"user/{name}")
        assert f"Published: {hub.endpoint}/user/{name}/commit/{made.sha}\n" in done.stdout
    weights = checkpoint / "model.safetensors"
    assert hub.bytes_received[sha256(weights)] == weights.stat().st_size


def test_the_demo_page_goes_along_as_a_space_as_private_as_its_model(hub, checkpoint, capsys):
    command = [checkpoint, "--repo_id", "user/drums", "--space"]
    assert main([*map(str, command), "--dry_run"]) == 0
    listed = capsys.readouterr().out
    of_another_version = """
from huggingface_hub import CommitOperationAdd, HfApi
added = [CommitOperationAdd(name, b"") for name in ("modeling_ast/old.py", "mine.md")]
HfApi().create_commit("user/drums", added, commit_message="Before", repo_type="space")
"""
    model = [checkpoint, "--repo_id", "user/drums", "--private"]
    codes, done = push(hub, model, command, of_another_version, command, command)
    assert codes == [0, 0, 0, 0]
    files = hub.files("user/drums", kind="spaces")
    assert files.pop("mine.md") == b""
    assert all(f"  {name} " in listed for name in files)  # and nothing of another version
    assert "Removed there: modeling_ast/old.py" in done.stdout
    assert b"user/drums" in files["app.py"]
    assert b"license: mit" in files["README.md"]
    assert files["modeling_ast/__init__.py"]
    assert hub.repos["spaces", "user/drums"].private
    assert len(hub.commits("user/drums", kind="spaces")) == 4
    assert done.stdout.count("Nothing has changed since") == 4  # three times the model, once the page


@pytest.mark.long  # the model is exported twice
def test_a_page_without_a_server_goes_along_as_a_static_space(hub, checkpoint, tmp_path, capsys):
    """The page's own files are those of `ast-export --page`; here an npm package stands in for ONNX Runtime's."""
    pytest.importorskip("onnxscript")
    package = tmp_path / "package"
    (package / "dist").mkdir(parents=True)
    command = [checkpoint, "--repo_id", "user/drums", "--space", "static", "--runtime_package", package]
    assert main([*map(str, command), "--dry_run"]) == 2
    assert "it has no dist/ort.wasm.min.js" in capsys.readouterr().err
    for name in FILES:
        (package / "dist" / name).write_bytes(name.encode())
    digests = {name: hashlib.sha256(name.encode()).hexdigest() for name in FILES}
    stand_in = f"""
from modeling_ast.page import runtime_package
runtime_package.FILES.update({digests!r})
"""
    codes, _ = push(hub, stand_in, command, command)
    assert codes == [0, 0]
    files = hub.files("user/drums", kind="spaces")
    runtime = {f"runtime/{name}" for name in (*FILES, "LICENSE", "ThirdPartyNotices.txt")}
    page = {"README.md", "LICENSE", "index.html", "page.js", "page.css", "model.json", "model.onnx"}
    assert files.keys() - {".gitattributes"} == page | runtime
    assert b"sdk: static" in files["README.md"]
    assert b"app_file: index.html" in files["README.md"]
    assert b"<title>drums</title>" in files["index.html"]


def test_a_runtime_is_for_static_pages_alone(checkpoint, capsys):
    with pytest.raises(SystemExit):
        main([str(checkpoint), "--repo_id", "user/drums", "--space", "--runtime_package", "there"])
    assert "Add --space static, or leave it out." in capsys.readouterr().err
