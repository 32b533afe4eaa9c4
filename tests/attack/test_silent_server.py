"""A Hub that does not answer, in as many ways as there are, and the real limit: each command says so within 30 seconds."""

import os
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch
from hub_server import HubServer

from model_card.render import write_model_card
from model_card.run_summary import write_run_summary
from modeling_ast import ASTConfig, ASTFeatureExtractor, ASTForAudioClassification

pytestmark = pytest.mark.attack

ATTACK = "a Hub that does not answer"
SECONDS = 30.0
SIZES = {
    "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32, "max_length": 96,
}  # fmt: skip
WAYS = (  # in which the Hub is silent: at which request, and how
    ("GET", "/whoami", {}),
    ("GET", "/whoami", {"drip": 1.0}),
    ("GET", "/api/models/", {}),
    ("POST", "/preupload/", {}),
    ("POST", "/objects/batch", {}),
    ("PUT", "", {"after": 1000}),
    ("POST", "/commit/", {"after": 10}),
)
NO_HUB = ("full queue", "no handshake")  # a host that takes no more connections; one that takes them and never reads


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("silence") / "drums"
    labels = {"id2label": {0: "kick", 1: "snare"}, "label2id": {"kick": 0, "snare": 1}}
    ASTForAudioClassification(ASTConfig(**SIZES, **labels)).save_pretrained(folder)
    ASTFeatureExtractor(max_length=96).save_pretrained(folder)
    write_run_summary(folder, {"labels": ["kick", "snare"], "license": "mit"})
    write_model_card(folder)
    return folder


@pytest.fixture
def no_hub():
    """Addresses of hosts that accept and never answer, by `NO_HUB`."""
    with ExitStack() as stack:
        full = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(3):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        silent = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        yield {
            "full queue": f"http://127.0.0.1:{full.getsockname()[1]}",
            "no handshake": f"https://127.0.0.1:{silent.getsockname()[1]}",
        }


def write_table(folder: Path, drum_rows: list[dict]) -> Path:
    rows = [row for row in drum_rows if row["label"] in ("kick", "snare")][::8]
    table = folder / "clips.csv"
    table.write_text("path,label\n" + "".join(f"{row['path']},{row['label']}\n" for row in rows))
    return table


def run(home: Path, arguments: list, endpoint: str, **environment: str) -> tuple[int, str, float]:
    """Exit code, error stream and seconds of a command that asks a Hub."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("HF_", "TRANSFORMERS_")) and not name.lower().endswith("_proxy")
    }
    settings = {
        "HF_ENDPOINT": endpoint, "HF_HOME": str(home / "home"), "HF_TOKEN": "hf_user", "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1", "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    start = time.monotonic()
    done = subprocess.run(
        [sys.executable, *map(str, arguments)], env=inherited | settings | environment, cwd=home, capture_output=True, text=True,
        timeout=240, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    return done.returncode, done.stderr, time.monotonic() - start


def in_silence(hub: HubServer, outcome: tuple[int, str, float]) -> tuple[int, str, float]:
    """An outcome with the seconds since the request that was not answered: a busy machine takes its time before."""
    code, said, _ = outcome
    return code, said, time.monotonic() - hub.requests[-1].came


def test_a_push_to_a_hub_that_is_silent_anywhere_says_so(checkpoint, tmp_path, no_hub, show_figures):
    def push(number: int) -> tuple[int, str, float]:
        command = ["-m", "model_card.run_push", checkpoint, "--repo_id", "user/drums"]
        home = tmp_path / str(number)
        with HubServer(home) as hub:
            if number >= len(WAYS):
                return run(home, command, no_hub[NO_HUB[number - len(WAYS)]])
            method, path, how = WAYS[number]
            hub.fall_silent(method, path, times=99, **how)
            return in_silence(hub, run(home, command, hub.endpoint))

    with ThreadPoolExecutor(len(WAYS)) as threads:
        outcomes = list(threads.map(push, range(len(WAYS))))
    with ThreadPoolExecutor(len(NO_HUB)) as threads:  # apart, as these are counted from the start of their processes
        outcomes += threads.map(push, range(len(WAYS), len(WAYS) + len(NO_HUB)))
    slowest = max(seconds for _, _, seconds in outcomes)
    show_figures(ATTACK, f"ast-push, {len(outcomes)} ways of silence: said within {slowest:.1f} s")
    for way, (code, said, seconds) in zip((*WAYS, *NO_HUB), outcomes, strict=True):
        assert code == 1, (way, said)
        assert "does not answer: nothing came for up to 20 s." in said, way
        assert said.endswith("Try again later: what has arrived is not sent again.\n"), way
        assert seconds < SECONDS, (way, seconds)


def test_other_commands_that_ask_a_silent_hub_say_so(checkpoint, tmp_path, drum_rows, show_figures):
    clip, tables = drum_rows[0]["path"], write_table(tmp_path, drum_rows)
    sizes = [f"--{name}={value}" for name, value in SIZES.items()]
    trained = ["--dataset_name", tables, "--output_dir", "run", "--use_cpu", "true", "--num_train_epochs", "1"]
    commands = {
        "ast-tag": ["modeling_ast.run_tagging", clip, "--model_name_or_path", "user/drums"],
        "ast-evaluate": ["finetune.run_evaluate", "--model_name_or_path", "user/drums", "--dataset_name", tables],
        "ast-convert": ["conversion.run_conversion", "--imagenet_start", "user/deit", "out", "--max_length", "96", "--num_labels", "2"],
        "start": ["finetune.run_finetune", *trained, "--model_name_or_path", "user/drums"],
        "data": ["finetune.run_finetune", "--dataset_name", "user/clips", "--output_dir", "run", *sizes],
        "before": ["finetune.run_finetune", *trained, *sizes, "--push_to_hub", "true"],
        "after": [*("finetune.run_finetune", *trained, *sizes), *("--push_to_hub", "true", "--hub_model_id", "user/drums")],
    }  # fmt: skip

    def ask(name: str) -> tuple[int, str, float]:
        home = tmp_path / name
        with HubServer(home) as hub:
            for method in ("PUT",) if name == "after" else ("GET", "HEAD", "POST"):
                hub.fall_silent(method, times=99)
            outcome = run(home, ["-m", *commands[name]], hub.endpoint)
            assert (home / "run" / "run_summary.json").is_file() == (name == "after")
            return in_silence(hub, outcome)

    with ThreadPoolExecutor(4) as threads:
        outcomes = dict(zip(commands, threads.map(ask, commands), strict=True))
    slowest = max(seconds for _, _, seconds in outcomes.values())
    show_figures(ATTACK, f"{len(outcomes)} other calls: said within {slowest:.1f} s")
    for name, (code, said, seconds) in outcomes.items():
        assert code in ((3,) if name == "after" else (1, 2)), (name, said)
        assert "does not answer: nothing came for up to 20 s." in said, (name, said)
        assert "Traceback" not in said, name
        assert seconds < SECONDS, (name, seconds)
    assert (
        outcomes["after"][1]
        .rstrip()
        .endswith("The run is whole in run; to push it, type ast-push run --repo_id user/drums")
    )
