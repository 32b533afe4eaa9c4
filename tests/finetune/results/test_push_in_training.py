"""A training that pushes its result: the folder that is there, once, and nothing of the run is lost where that fails.

One child process is a user's whole afternoon, see `AFTERNOON`; the tests look at what it left here and on the Hub.
"""

import re
import shlex
import shutil
import signal
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest
from hub_server import HubServer
from huggingface_hub import ModelCard
from tiny_trainings import write_recipe
from transformers import TrainerState, TrainingArguments

from finetune.arguments.command_line import parse_arguments
from finetune.results.pushing import NOT_PUSHED, NotPushedError, push_finished_run
from finetune.run_finetune import main
from finetune.training.push_checks import check_push
from finetune.training.trainer_card import write_trainer_card
from model_card.push_to_hub import PushError
from model_card.render import render_model_card
from model_card.run_summary import write_run_summary
from modeling_ast import ASTConfig, ASTFeatureExtractor, ASTForAudioClassification
from modeling_ast.system.interruption import Interrupted

SETTINGS = {"max_length": 32, "num_train_epochs": 1, "push_to_hub": True}
PUSHED = {
    "README.md", "config.json", "model.safetensors", "preprocessor_config.json", "run_summary.json", "recipe.yaml",
    "training_curve.png", "confusion_matrix.png", "spectrogram.png",
}  # fmt: skip
TOKEN = "hf_user"
AFTERNOON = f"""
import os
import re
import sys
import huggingface_hub
from finetune.arguments.command_line import parse_arguments
from finetune.run_finetune import main
from finetune.runs.training_run import prepare_run
from model_card import push_to_hub, run_push

push_to_hub.PAUSES = (0.01, 0.02)
recipe = sys.argv[1]

def say(*words):
    print("=", *words, flush=True)

say("nobody", main([recipe, "--output_dir", "refused"]), os.path.exists("refused"))
os.environ["HF_TOKEN"] = "hf_read"
say("reader", main([recipe, "--output_dir", "refused"]), os.path.exists("refused"))
del os.environ["HF_TOKEN"]

say("pushed", main([recipe, "--hub_token", "{TOKEN}", "--hub_model_id", "user/drums", "--hub_private_repo", "true"]))
flags = ["--output_dir", "refused", "--hub_token={TOKEN}", "--hub_model_id", "user/drums"]
say("public", main([recipe, *flags, "--hub_private_repo", "false"]), os.path.exists("refused"))
flags = ["--output_dir", "kept run", "--hub_revision", "try", "--hub_model_id", "user/kept"]
say("kept", main([recipe, *flags, "--hub_token={TOKEN}"]))
os.environ["HF_TOKEN"] = "{TOKEN}"
say("completed", run_push.main(["kept run", "--repo_id", "user/kept", "--revision", "try"]))

argv = [recipe, "--output_dir", "by_hand"]
trainer = prepare_run(argv, parse_arguments(argv)).trainer
trainer.train()
say("saved", trainer.save_model())
say("commit", trainer.push_to_hub(commit_message="By hand").oid)
say("again", trainer.push_to_hub(revision="later", blocking=False).result().oid)
"""


@dataclass(frozen=True)
class Afternoon:
    hub: HubServer
    folder: Path
    stderr: str
    said: dict[str, list[str]]  # what stands behind each `=` of `AFTERNOON`
    printed: dict[str, str]  # what was printed before it


@pytest.fixture(scope="module")
def recipe(tmp_path_factory, few_drums) -> str:
    return write_recipe(tmp_path_factory.mktemp("recipe"), few_drums, output_dir="drums", **SETTINGS)


@pytest.fixture(scope="module")
def afternoon(tmp_path_factory, recipe):
    with HubServer(tmp_path_factory.mktemp("afternoon") / "home") as hub:
        hub.fail("POST", "/kept/commit/", status=503, times=3)
        done = hub.run(["-c", AFTERNOON, recipe], token=None)
        said, printed, lines = {}, {}, []
        for line in done.stdout.splitlines():
            if line.startswith("= "):
                _, name, *words = line.split()
                said[name], printed[name], lines = words, "\n".join(lines), []
            else:
                lines.append(line)
        yield Afternoon(hub, hub.home, done.stderr, said, printed)
    assert not hub.unexpected


def as_pushed(folder: Path, repo_id: str) -> dict[str, bytes]:
    """The files of a run; the card with the name of the repository, the recipe without the folder of the clips."""
    files = {name: (folder / name).read_bytes() for name in PUSHED}
    recipe = re.sub(rb"(?<=dataset_name: )/.*/", b"", files["recipe.yaml"])
    return files | {"README.md": render_model_card(folder, repo_id).encode(), "recipe.yaml": recipe}


def test_who_cannot_push_is_told_before_the_training(afternoon):
    assert afternoon.said["nobody"] == afternoon.said["reader"] == ["2", "False"]
    nobody, reader, *_ = afternoon.stderr.splitlines()
    assert nobody.startswith(
        f"ast-finetune: There is no token for {afternoon.hub.endpoint}. Make one with write permission"
    )
    assert nobody.endswith("Without --push_to_hub nothing is pushed.")
    assert "has read permission only" in reader
    assert not any(afternoon.printed[name] for name in ("nobody", "reader"))  # not even the data had been read


def test_the_finished_run_is_pushed_as_it_lies_in_its_folder_in_one_commit(afternoon):
    assert afternoon.said["pushed"] == ["0"]
    folder, hub = afternoon.folder / "drums", afternoon.hub
    assert hub.files("user/drums") == as_pushed(folder, "user/drums")
    assert {path.name for path in folder.iterdir() if path.is_file()} == PUSHED
    commit, _ = hub.commits("user/drums")
    assert commit.title == "End of training"
    assert hub.repos["models", "user/drums"].private
    *_, score, last = afternoon.printed["pushed"].splitlines()
    assert score.startswith("[6/6] drums: accuracy")
    assert last == f"published: {hub.endpoint}/user/drums/commit/{commit.sha}"


def test_a_private_repository_is_not_made_a_public_one(afternoon):
    assert afternoon.said["public"] == ["2", "False"]
    (words,) = (line for line in afternoon.stderr.splitlines() if "is private, and a public one was asked for" in line)
    assert "or leave out --hub_private_repo false." in words


def test_the_token_and_the_account_are_written_nowhere(afternoon):
    written = [path for path in afternoon.folder.rglob("*") if path.is_file()]
    assert any(path.name == "training_args.bin" for path in written)  # of the checkpoints
    assert not [path for path in written if TOKEN.encode() in path.read_bytes()]
    assert not any(TOKEN in text for text in (afternoon.stderr, *afternoon.printed.values()))
    for name in ("drums", "kept run"):
        for file in ("recipe.yaml", "run_summary.json", "README.md"):
            text = (afternoon.folder / name / file).read_text()
            assert not any(word in text for word in ("hub_model", "hub_token", "hub_private", "push_to_hub"))
            assert "user/" not in text


def test_a_push_that_fails_leaves_the_run_whole_and_says_what_completes_it(afternoon):
    assert afternoon.said["kept"] == [str(NOT_PUSHED)]
    assert "[6/6] kept run: accuracy" in afternoon.printed["kept"].splitlines()[-1]
    (words,) = (line for line in afternoon.stderr.splitlines() if "was not pushed" in line)
    assert words.startswith(
        f"ast-finetune: the run was not pushed. {afternoon.hub.endpoint} does not take user/kept (HTTP 503"
    )
    command = ["ast-push", "kept run", "--repo_id", "user/kept", "--revision", "try"]
    assert words.endswith(f"The run is whole in kept run; to push it, type {shlex.join(command)}")
    assert afternoon.said["completed"] == ["0"]
    folder = afternoon.folder / "kept run"
    assert afternoon.hub.files("user/kept", revision="try") == as_pushed(folder, "user/kept")
    assert not afternoon.hub.files("user/kept")


def test_a_trainer_in_python_pushes_its_model_with_a_card_of_what_it_knows(afternoon):
    files = afternoon.hub.files("user/by_hand")  # the owner of the token, the name of the folder
    assert files.keys() == PUSHED - {"recipe.yaml", "training_curve.png", "confusion_matrix.png", "spectrogram.png"}
    commit, first = afternoon.hub.commits("user/by_hand")
    assert (commit.title, first.title) == ("By hand", "initial commit")
    assert afternoon.said["commit"] == [commit.sha]
    card = files["README.md"].decode()
    assert "generated_from_trainer" not in card
    assert "# by_hand" in card
    assert "`kick`" in card
    assert "trained from scratch" not in card
    assert afternoon.said["again"] == [afternoon.hub.repos["models", "user/by_hand"].branches["later"].sha]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (
            ["--hub_model_id", "user/x", "--push_to_hub", "false"],
            "hub_model_id says how a run is pushed. Pass --push_to_hub too",
        ),
        (
            ["--fold_column_name", "split"],
            "push_to_hub publishes one model, fold_column_name trains one for every fold",
        ),
        (["--hub_strategy", "every_save"], "Pass --hub_strategy end"),
        (["--hub_always_push", "true"], "Pass --hub_strategy end without --hub_always_push"),
        ([], "HF_HUB_OFFLINE is set and forbids every connection"),
    ],
)
def test_what_cannot_be_pushed_is_refused_before_the_training(recipe, tmp_path, capsys, flags, words):
    assert main([recipe, "--output_dir", str(tmp_path / "run"), *flags]) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_only_the_end_is_pushed_unless_somebody_asks_for_more(recipe, tmp_path):
    args = parse_arguments([recipe]).training
    assert args.hub_strategy == "end"
    with pytest.raises(PushError, match="hub_strategy='every_save'.*Pass --hub_strategy end"):
        check_push(TrainingArguments(output_dir=str(tmp_path), push_to_hub=True))  # the default of plain Trainer


def test_a_card_without_a_run_inherits_licence_and_notice_of_the_checkpoint_it_starts_from(tmp_path, tiny_sizes):
    base, output = tmp_path / "base", tmp_path / "mine"
    ASTForAudioClassification(ASTConfig(**tiny_sizes)).save_pretrained(base)
    write_run_summary(base, {"license": "bsd-3-clause", "license_notice": {"work": "the weights of somebody"}})
    model = ASTForAudioClassification.from_pretrained(base)
    trainer = SimpleNamespace(
        model=model, feature_extractor=ASTFeatureExtractor(max_length=96), state=TrainerState(),
        args=TrainingArguments(output_dir=str(output), use_cpu=True),
    )  # fmt: skip
    model.save_pretrained(output)
    write_trainer_card(trainer)
    assert ModelCard.load(output / "README.md").data.license == "bsd-3-clause"
    assert "the weights of somebody" in (output / "NOTICE").read_text()
    shutil.rmtree(base)
    write_trainer_card(trainer)  # of a checkpoint that is gone nothing is known
    assert ModelCard.load(output / "README.md").data.license is None


def test_a_push_that_is_interrupted_ends_as_shells_expect_and_says_what_completes_it():
    def interrupt():
        raise Interrupted(signal.SIGTERM)

    args = TrainingArguments(output_dir="run", hub_private_repo=True)
    trainer = SimpleNamespace(push_to_hub=interrupt, args=args, hub_model_id="user/x")
    with pytest.raises(
        NotPushedError, match=r"interrupted \(SIGTERM\).*ast-push run --repo_id user/x --private"
    ) as stopped:
        push_finished_run(trainer)
    assert stopped.value.exit_code == 128 + signal.SIGTERM


@pytest.mark.long
def test_one_of_two_processes_pushes_and_both_end_alike_where_it_cannot(tmp_path, recipe):
    with HubServer(tmp_path / "hub") as hub:
        launcher = ["-m", "accelerate.commands.launch", "--num_processes", "2", "--num_machines", "1"]
        launcher += ["--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0", "--multi_gpu"]
        command = [*launcher, "-m", "finetune.run_finetune", recipe, "--hub_model_id", "user/two"]
        refused = hub.run(command, token="hf_read", returncode=1)  # of the launcher
        said = [line for line in refused.stderr.splitlines() if line.startswith("ast-finetune: ")]
        assert said
        assert all("has read permission only" in line for line in said)
        assert not (hub.home / "drums").exists()
        done = hub.run(command)
        assert done.stdout.count("published: ") == 1
        assert len(hub.commits("user/two")) == 2
        assert sum(request.path.endswith("/commit/main") for request in hub.requests) == 1
        assert hub.files("user/two").keys() == PUSHED
