"""Tampered checkpoint folders, made by formula from a good one: each command says what is wrong, or is right.

Each folder differs from the good one in one place. The commands that read it run in one process, a call of `main` each, up
to where they would start what takes long (a training, an export, the page). None may end in a traceback, take long or fill
the memory; what a command accepts, it has to be right with.
"""

import contextlib
import io
import json
import math
import resource
import shutil
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from tampered_folders import (
    LABELS,
    MISSING,
    SEED,
    WHOLE,
    change_json,
    config,
    damaged_json,
    labels,
    tampered_cards,
    tampered_configs,
    tampered_extractors,
    tampered_summaries,
    tampered_weights,
    write,
)

from conversion import original_checkpoint, run_conversion, verification, weight_map
from finetune import run_evaluate, run_finetune
from model_card import demo_page, run_demo, run_model_card, run_push
from modeling_ast import (
    ASTConfig,
    ASTFeatureExtractor,
    ASTForAudioClassification,
    export_onnx,
    register,
    run_export,
    run_tagging,
    unregister,
)
from modeling_ast.checkpoints.fields import PipelineCheckpointError

pytestmark = pytest.mark.attack
ATTACK = "tampered checkpoints"
SLOWEST = 10  # seconds for any call
MOST_MEMORY = 1 << 30  # bytes by which all calls together may raise the peak of the process


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """A folder as a training leaves it: weights that are no longer what they began as, summary, recipe and card."""
    folder = tmp_path_factory.mktemp("checkpoints") / "good"
    torch.manual_seed(SEED)
    model = ASTForAudioClassification(ASTConfig(**WHOLE, **labels(LABELS), classifier_layer_norm_eps=1e-5))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    model.save_pretrained(folder)
    ASTFeatureExtractor(max_length=WHOLE["max_length"]).save_pretrained(folder)
    extractor = json.loads((folder / "preprocessor_config.json").read_text())
    summary = {
        "seed": 1, "license": "mit", "command": "ast-finetune", "base_model": None, "labels": list(LABELS),
        "data": {"name": "tones", "splits": {"train": {"clips": 30, "seconds": 15.0}}},
        "features": {"sampling_rate": 16_000, "mean": extractor["mean"], "std": extractor["std"]},
        "training": {"learning_rate": 1e-4}, "history": [{"epoch": 1, "loss": 0.5}],
        "evaluation": {"split": "eval", "clips": 9, "metrics": {"accuracy": 0.5}},
    }  # fmt: skip
    (folder / "run_summary.json").write_text(json.dumps(summary))
    (folder / "recipe.yaml").write_text("learning_rate: 0.0001\n")
    assert run_model_card.main([str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder, seconds = tmp_path_factory.mktemp("clips"), np.arange(8_000) / 16_000
    for place, label in enumerate(LABELS):
        (folder / label).mkdir()
        for number in range(4):
            tone = 0.3 * np.sin(2 * np.pi * (300 + 900 * place + number) * seconds)
            soundfile.write(folder / label / f"{number}.wav", tone.astype(np.float32), 16_000)
    return folder


@pytest.fixture
def stopped_short(monkeypatch):
    """Commands end where what they are for would begin."""
    monkeypatch.setattr(run_finetune, "train_run", lambda run: None)
    monkeypatch.setattr(export_onnx, "export_onnx", lambda model, extractor, path: path.write_bytes(b"") or 0.0)

    class Server:
        def run(self, sockets):
            pass

        def handle_exit(self, number, frame):
            pass

    monkeypatch.setattr(run_demo, "make_server", lambda *args: Server())
    monkeypatch.setattr(demo_page, "build_page", lambda *args, **settings: None)
    for module in (original_checkpoint, verification, weight_map):  # the original's model as small as the folder's
        for name, value in {"NUM_LAYERS": 2, "HEAD_DIM": 16, "HIDDEN_SIZES": {"tiny": 32}}.items():
            monkeypatch.setattr(module, name, value, raising=False)
    register()
    yield
    unregister()


def calls(folder: Path, clips: Path) -> dict[str, Callable[[], int]]:
    """What reads a checkpoint folder, by name."""
    clip, out = str(clips / LABELS[0] / "0.wav"), folder.parent / "out"
    model, data = ["--model_name_or_path", str(folder)], ["--dataset_name", str(clips)]
    start = [*model, *data, "--output_dir", str(out), "--disable_tqdm", "true", "--use_cpu", "true"]

    def pipeline() -> int:
        import transformers

        scores = transformers.pipeline("audio-classification", model=str(folder), device="cpu")(clip)
        assert all(math.isfinite(row["score"]) for row in scores), "modeling_ast"
        return 0

    return {
        "ast-tag": lambda: run_tagging.main([clip, *model, "--device", "cpu", "--format", "jsonl"]),
        "ast-evaluate": lambda: run_evaluate.main([*model, *data, "--device", "cpu", "--split", "all"]),
        "ast-finetune": lambda: run_finetune.main(start),
        "ast-export": lambda: run_export.main([str(folder), str(folder.parent / "out.onnx"), "--overwrite"]),
        "ast-demo": lambda: run_demo.main([str(folder), "--port", "0"]),
        "ast-model-card": lambda: run_model_card.main([str(folder), "--print"]),
        "ast-push": lambda: run_push.main([str(folder), "--repo_id", "user/name", "--dry_run"]),
        "ast-convert": lambda: run_conversion.main(["--to_original", str(folder), str(folder.parent / "out.pth")]),
        "pipeline": pipeline,
    }


def outcome(name: str, call: Callable[[], int]) -> dict:
    """Call it, and tell the exit code, what was printed, how long it took, and the traceback if it ends in one."""
    printed, said = io.StringIO(), io.StringIO()
    fault, code, begun = None, None, time.perf_counter()
    in_words = (ValueError, OSError, PipelineCheckpointError)
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(said):
        try:
            code = call()
        except SystemExit as error:
            code = error.code
        except Exception as error:
            fault = traceback.format_exc()
            # In Python errors are errors; they have to be this kit's, or of Transformers before it calls this kit.
            if name == "pipeline" and (isinstance(error, in_words) or "/modeling_ast/" not in fault):
                code, fault = 1, None
                print(f"{name}: {error}", file=said)
    seconds = time.perf_counter() - begun
    return {"code": code, "out": printed.getvalue(), "err": said.getvalue(), "fault": fault, "seconds": seconds}


def has_traceback(name: str, found: dict) -> bool:
    """Whether it ended in one; Transformers' own errors quote the tracebacks of what they tried, `pipeline`'s too."""
    return bool(found["fault"]) or (name != "pipeline" and "Traceback" in found["err"])


def faults(name: str, found: dict, limit: float) -> list[str]:
    """What is wrong with how a call ended."""
    wrong = []
    if has_traceback(name, found):
        wrong.append(f"traceback: {(found['fault'] or found['err']).strip().splitlines()[-1]}")
    elif found["code"] != 0 and f"{name}: " not in found["err"]:
        wrong.append(f"code {found['code']} and no words")
    if found["seconds"] > limit:
        wrong.append(f"{found['seconds']:.1f} s")
    if name == "ast-tag" and found["code"] == 0:
        for line in found["out"].splitlines():
            json.loads(line, parse_constant=lambda constant: wrong.append(f"{constant} in JSON"))
    return wrong


TAMPERED = tampered_configs() | tampered_extractors() | tampered_weights() | tampered_summaries() | tampered_cards()


def test_there_are_more_than_150_kinds():
    assert len(TAMPERED) >= 150


def test_each_command_says_what_is_wrong_or_is_right(good, clips, stopped_short, tmp_path, show_figures):
    # What is imported, and compiled, only once.
    for name, call in calls(good, clips).items():
        assert outcome(name, call)["code"] == 0, (name, outcome(name, call))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    wrong, ends = [], []
    for kind, tamper in TAMPERED.items():
        folder = tmp_path / "checkpoint"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
        shutil.copytree(good, folder)
        tamper(folder)
        shutil.copytree(good, tmp_path / "good", dirs_exist_ok=True)
        for name, call in calls(folder, clips).items():
            (tmp_path / "out.pth").unlink(missing_ok=True)
            found = outcome(name, call)
            wrong += [f"{kind} | {name} | {fault}" for fault in faults(name, found, SLOWEST)]
            ends.append((kind, name, found))
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    show_figures(ATTACK, f"{len(TAMPERED)} folders, {told(ends)}; {grown / 1e6:.0f} MB more than for good folders")
    assert not wrong, f"{len(wrong)} of {len(TAMPERED)} kinds:\n" + "\n".join(wrong)
    assert grown < MOST_MEMORY, f"{grown / 1e6:.0f} MB"


def told(ends: list[tuple[str, str, dict]]) -> str:
    """How many calls, tracebacks and refusals there were, and which call was the slowest."""
    tracebacks = sum(has_traceback(name, found) for _, name, found in ends)
    refused = sum(found["code"] != 0 for _, _, found in ends)
    kind, name, slowest = max(ends, key=lambda end: end[2]["seconds"])
    return f"{len(ends)} calls, {tracebacks} tracebacks, {refused} refused, slowest {slowest['seconds']:.1f} s ({name}, {kind})"


STATE, IDENTITY = "trainer_state.json", "run_identity.json"


def tampered_states() -> dict[str, Callable[[Path], None]]:
    fields = {
        "epoch NaN": {"epoch": math.nan}, "epoch a word": {"epoch": "two"}, "epoch negative": {"epoch": -1.0},
        "a negative step": {"global_step": -5}, "another step": {"global_step": 4}, "a huge step": {"global_step": 10**30},
        "a step that is half": {"global_step": 2.5}, "a step null": {"global_step": None}, "no step": {"global_step": MISSING},
        "max_steps a word": {"max_steps": "all"}, "max_steps 0": {"max_steps": 0},
        "history of others": {"log_history": [{"epoch": "x", "loss": [1]}, 5]}, "history a word": {"log_history": "long"},
        "history null": {"log_history": None}, "history NaN": {"log_history": [{"epoch": 1.0, "loss": math.nan, "step": 2}]},
        "a best one elsewhere": {"best_model_checkpoint": "/etc/checkpoint-2", "best_global_step": 2, "best_metric": 0.5},
        "a best one that is a list": {"best_model_checkpoint": ["a"]}, "best_metric a word": {"best_metric": "good"},
        "callbacks a list": {"stateful_callbacks": [1]}, "callbacks of others": {"stateful_callbacks": {"Evil": {"args": {}}}},
        "callbacks null": {"stateful_callbacks": None}, "an unknown field": {"evil": 5}, "a batch of words": {"train_batch_size": "big"},
        "logging_steps a word": {"logging_steps": "often"}, "logging_steps 0": {"logging_steps": 0}, "flos a word": {"total_flos": "many"},
        "epochs a word": {"num_train_epochs": "two"}, "trial of others": {"trial_params": {"a": 1}, "trial_name": 5},
        "world a word": {"is_world_process_zero": "yes"},
    }  # fmt: skip
    found = damaged_json(STATE) | {
        f"{STATE} {kind}": change_json(STATE, **changes) for kind, changes in fields.items()
    }
    found |= {f"config.json {kind}": config(**changes) for kind, changes in {
        "another width": {"hidden_size": 48}, "a million layers": {"num_hidden_layers": 10**6}, "NaN": {"layer_norm_eps": math.nan},
    }.items()}  # fmt: skip
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth", "training_args.bin", "model.safetensors"):
        found[f"{name} empty"] = write(name, b"")
        found[f"{name} cut off"] = lambda folder, name=name: (folder / name).write_bytes(
            (folder / name).read_bytes()[:-200]
        )
        found[f"{name} missing"] = lambda folder, name=name: (folder / name).unlink()
        found[f"{name} a pickle"] = write(name, b"\x80\x02cos\ngetcwd\nq\x00)R.")
        found[f"{name} a folder"] = lambda folder, name=name: ((folder / name).unlink(), (folder / name).mkdir())
    contents = {
        "a list": [1, 2],
        "other keys": {"a": 1},
        "a tensor": torch.zeros(3),
        "no parameters": {"state": {}, "param_groups": []},
    }
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth"):
        for kind, content in contents.items():
            found[f"{name} of {kind}"] = lambda folder, name=name, content=content: torch.save(content, folder / name)
    return found | {f"{IDENTITY} {kind}": tamper for kind, tamper in {
        "no object": write(IDENTITY, "[]"), "empty": write(IDENTITY, ""), "of others": write(IDENTITY, '{"training settings": 5}'),
    }.items()}  # fmt: skip


def test_a_training_goes_on_or_says_why_not(clips, tmp_path, show_figures):
    run = tmp_path / "run"
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    fields = sizes | {
        "frequency_stride": 16, "time_stride": 16, "max_length": 48, "num_train_epochs": 3, "per_device_train_batch_size": 4,
        "save_total_limit": 3, "disable_tqdm": "true", "use_cpu": "true", "dataset_name": clips, "output_dir": run,
    }  # fmt: skip
    argv = [f"--{name}={value}" for name, value in fields.items()]
    assert outcome("ast-finetune", lambda: run_finetune.main(argv))["code"] == 0
    begun = tmp_path / "begun"
    last, newest = sorted(run.glob("checkpoint-*"), key=lambda path: int(path.name[11:]))[:2]
    for folder in (last, newest):
        shutil.copytree(folder, begun / folder.name)
    wrong, ends = [], []
    for kind, tamper in tampered_states().items():
        shutil.rmtree(run)
        shutil.copytree(begun, run)
        tamper(run / newest.name)
        found = outcome("ast-finetune", lambda: run_finetune.main([*argv, "--resume_from_checkpoint", "true"]))
        wrong += [
            f"{kind} | {fault} | {found['err'].strip()[-200:]}" for fault in faults("ast-finetune", found, SLOWEST)
        ]
        ends.append((kind, "ast-finetune", found))
    show_figures(ATTACK, f"resumed trainings, {told(ends)}")
    assert not wrong, f"{len(wrong)} of {len(tampered_states())}:\n" + "\n".join(wrong)
