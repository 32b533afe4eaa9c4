"""Two processes on the CPU: the steps of one, every clip scored once, one checkpoint, a resume after a kill, shards.

Run by the launcher, as one of its processes, this file trains with the class-balanced draw, writes down what each process
read and predicts, or trains as if this machine's processor were several accelerators.
"""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import forked_python
import numpy as np
import psutil
import pytest
import torch
import yaml
from accelerate import PartialState
from accelerate.utils import DistributedType
from safetensors.torch import load_file

from finetune import run_finetune
from finetune.arguments.groups import ASTTrainingArguments, DataArguments
from finetune.augmentations.augmentation import Augmentation
from finetune.clip_sets.collator import ASTDataCollator
from finetune.clip_sets.sampling import EpochSampler, class_balanced_weights
from finetune.clip_sets.waveforms import ASTDataset
from finetune.sources.splits import load_splits
from finetune.training.run_folder import checkpoints_in
from finetune.training.trainer import ASTTrainer
from modeling_ast import ASTConfig, ASTFeatureExtractor, ASTForAudioClassification
from modeling_ast.audio import AudioReader

SETTINGS = {
    "dataset_name": "finetune/sample_data/drums",
    "ignore_labels": ["snare", "tom", "crash", "ride", "kick"],  # leaves 112 clips to train on and 19 to score
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64, "max_length": 32,
    "mixup_probability": 0.5, "max_frequency_mask": 24, "max_time_mask": 8, "noise_strength": 0.1, "max_roll": 4,
    "num_train_epochs": 1, "per_device_train_batch_size": 8, "per_device_eval_batch_size": 8, "learning_rate": 1.0e-3,
    "disable_tqdm": True, "use_cpu": True, "logging_strategy": "steps", "logging_steps": 1,
}  # fmt: skip
LAUNCHER = [
    sys.executable, "-m", "accelerate.commands.launch", "--num_processes", "2", "--num_machines", "1",
    "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0",
]  # fmt: skip
# With --cpu in its place accelerate would start one process, and leave the others to mpirun.
REPLICATED = ["--multi_gpu"]
SHARDED = [
    "--use_fsdp", "--fsdp_version", "2", "--fsdp_auto_wrap_policy", "TRANSFORMER_BASED_WRAP",
    "--fsdp_transformer_layer_cls_to_wrap", "ASTLayer",
]  # fmt: skip
PATIENCE = 300  # seconds


def launch_two(module: str, *arguments: str, spread: Sequence[str] = REPLICATED, expected_code: int = 0) -> str:
    """Run a module in two processes to their end; returns what they printed."""
    command = [*LAUNCHER, *spread, "-m", module, *arguments]
    run = subprocess.run(command, timeout=PATIENCE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert run.returncode == expected_code, run.stdout
    return run.stdout


def run_two(*arguments: str) -> str:
    """Run `ast-finetune` as two processes of one training, as the launcher does but for its imports; returns what they printed."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    together = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}

    def run(rank: str):
        environment = os.environ | together | {"RANK": rank, "LOCAL_RANK": rank}
        return forked_python.run(["-m", "finetune.run_finetune", *arguments], environment, timeout=PATIENCE)

    with ThreadPoolExecutor(2) as threads:
        runs = list(threads.map(run, "01"))
    printed = "".join(run.stdout + run.stderr for run in runs)
    assert [run.returncode for run in runs] == [0, 0], printed
    return printed


def write_recipe(folder: Path, **settings) -> str:
    path = folder.with_suffix(".yaml")
    path.write_text(yaml.safe_dump(SETTINGS | settings | {"output_dir": str(folder)}))
    return str(path)


def losses_in(folder: Path) -> list[float]:
    """The loss of every step of a run."""
    state = json.loads((checkpoints_in(folder)[-1] / "trainer_state.json").read_text())
    return [entry["loss"] for entry in state["log_history"] if "loss" in entry]


def assert_same_tensors(folder: Path, expected: Path):
    tensors, expected_tensors = (load_file(path / "model.safetensors") for path in (folder, expected))
    assert tensors.keys() == expected_tensors.keys()
    for name, tensor in expected_tensors.items():
        assert torch.equal(tensors[name], tensor), name


@pytest.mark.parametrize("steps", [7, pytest.param(100, marks=pytest.mark.long)])
def test_two_processes_take_the_steps_of_one_and_score_every_clip_once(tmp_path, steps):
    settings = {"max_steps": steps, "num_train_epochs": None}
    common = settings | {"max_grad_norm": 1.0, "class_weights": "balanced"}  # of batches of 16 and twice 8
    one = write_recipe(tmp_path / "one", per_device_train_batch_size=16, per_device_eval_batch_size=16, **common)
    assert run_finetune.main([one]) == 0
    printed = run_two(write_recipe(tmp_path / "two", **common))
    assert "find_unused_parameters" not in printed, "DDP looked for unused parameters in every step"
    losses = [np.array(losses_in(tmp_path / name)) for name in ("one", "two")]
    assert losses[0].shape == losses[1].shape == (steps,)
    assert np.abs(losses[0] - losses[1]).max() < 1e-5
    summaries = [json.loads((tmp_path / name / "run_summary.json").read_text()) for name in ("one", "two")]
    assert [summary["environment"]["processes"] for summary in summaries] == [1, 2]
    one, two = (summary["evaluation"] for summary in summaries)
    assert two["metrics"] == pytest.approx(one["metrics"], abs=1e-6)
    assert two["confusion_matrix"] == one["confusion_matrix"]  # of 19 clips: the last batches of two are filled up
    assert np.sum(two["confusion_matrix"]) == summaries[1]["data"]["splits"]["test"]["clips"] == 19


@pytest.mark.long
def test_a_loss_that_is_no_number_ends_two_processes_with_one_message(tmp_path):
    draws = np.random.default_rng(0)
    for name in [f"{label}{number}" for label in ("kick", "snare") for number in range(14)]:
        np.save(tmp_path / f"{name}.npy", draws.normal(-6.5, 4.5, (50, 128)).astype(np.float32))
    loud = tmp_path / "loud.npy"
    np.save(loud, np.full((50, 128), 1e30, np.float32))  # of audio such a level is refused before the training
    of_label = [[tmp_path / f"{label}{number}.npy" for number in range(14)] for label in ("kick", "snare")]
    splits = ["test"] + 12 * ["train"]
    lines = [
        f"{kick},kick,{split}\n{snare},snare,{split}" for kick, snare, split in zip(*of_label, splits, strict=False)
    ]
    lines[-1] = f"{of_label[0][13]},kick,train\n{loud},snare,train"
    (tmp_path / "clips.csv").write_text("\n".join(["mel,label,split", *lines]))
    settings = {"ignore_labels": [], "mixup_probability": 0.0, "save_strategy": "steps", "save_steps": 1}
    settings |= {
        "features_column_name": "mel",
        "per_device_train_batch_size": 4,
        "save_total_limit": 9,
        "normalization": [-6.5, 4.5],
        "seed": 9,
    }
    recipe = write_recipe(tmp_path / "run", dataset_name=str(tmp_path / "clips.csv"), **settings)
    printed = launch_two("finetune.run_finetune", recipe, expected_code=1)
    (message,) = [line for line in printed.splitlines() if line.startswith("ast-finetune: training stopped.")]
    assert "The loss of a batch is nan at step 3 of 3" in message, "which seed 9 puts it into"
    assert f"1 of its 4 clip(s) give it: {loud} (loss nan" in message, "of those that its process reads"
    assert f"the last good checkpoint is {tmp_path / 'run' / 'checkpoint-2'}." in message
    assert "finetune/training/trainer.py" not in printed, "a traceback"
    kept = checkpoints_in(tmp_path / "run")
    assert [path.name for path in kept] == ["checkpoint-1", "checkpoint-2"]
    for path in kept:
        assert all(tensor.isfinite().all() for tensor in load_file(path / "model.safetensors").values())


@pytest.mark.long
def test_two_killed_processes_resume_and_end_with_the_same_weights_and_optimizer(tmp_path):
    settings = {
        "num_train_epochs": 3, "gradient_accumulation_steps": 2, "hidden_dropout_prob": 0.1, "dataloader_num_workers": 1,
        "train_sampling_strategy": "class_balanced", "save_strategy": "steps", "save_steps": 2,
    }  # fmt: skip
    launch_two("finetune.run_finetune", write_recipe(tmp_path / "whole", **settings))
    recipe = write_recipe(tmp_path / "killed", **settings)
    with subprocess.Popen([*LAUNCHER, *REPLICATED, "-m", "finetune.run_finetune", recipe]) as launcher:
        end = time.monotonic() + PATIENCE
        while (
            not (tmp_path / "killed" / "checkpoint-6").is_dir() and launcher.poll() is None
        ):  # in the second epoch of 4
            assert time.monotonic() < end
            time.sleep(0.002)
        assert launcher.poll() is None, "ended too early"
        for process in [*psutil.Process(launcher.pid).children(recursive=True), launcher]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)
    assert not (tmp_path / "killed" / "run_summary.json").exists()
    launch_two("finetune.run_finetune", recipe, "--resume_from_checkpoint", "true")
    assert_same_tensors(tmp_path / "killed", tmp_path / "whole")
    assert losses_in(tmp_path / "killed") == losses_in(tmp_path / "whole")
    killed, whole = (
        torch.load(checkpoints_in(tmp_path / name)[-1] / "optimizer.pt", weights_only=True)
        for name in ("killed", "whole")
    )
    assert killed["param_groups"] == whole["param_groups"]
    for number, state in whole["state"].items():
        for name, value in state.items():
            assert torch.equal(killed["state"][number][name], value), (number, name)


@pytest.mark.long
def test_a_cross_validation_of_two_processes_with_averaged_epochs(tmp_path, drum_rows):
    rows = [row for row in drum_rows if row["label"] in ("kick", "snare")][::4]
    lines = ["path,label,half", *(f"{row['path']},{row['label']},{number % 2}" for number, row in enumerate(rows))]
    (tmp_path / "clips.csv").write_text("\n".join(lines))
    settings = {"ignore_labels": [], "fold_column_name": "half", "num_train_epochs": 2, "average_epochs": [1, 2]}
    recipe = write_recipe(tmp_path / "folds", dataset_name=str(tmp_path / "clips.csv"), **settings)
    for flags in ((), ("--overwrite_output_dir",)):
        launch_two("finetune.run_finetune", recipe, *flags)
        results = json.loads((tmp_path / "folds" / "cross_validation.json").read_text())
        assert sum(row["clips"] for row in results["folds"]) == len(rows)
        assert not list((tmp_path / "folds").glob("*/epochs"))


SEED, BATCH, EPOCHS, RESUME_AT = 7, 4, 2, 4  # 22 clips in groups of 8 are 3 updates an epoch, the last one filled up
RECORD, SHARD = "record", "shard"


class RecordedClips(ASTDataset):
    """Training clips that write down what was asked for."""

    def __getitem__(self, key):
        self.asked_for.append(key)
        return super().__getitem__(key)


def recorded_clips() -> RecordedClips:
    splits, _ = load_splits(DataArguments(dataset_name="finetune/sample_data/drums"), seed=0)
    augmentation = Augmentation(mixup_probability=0.5, max_time_mask=8, noise_strength=0.1)
    clips = RecordedClips(splits["train"].select(range(0, 352, 16)), AudioReader(), 5_200, augmentation)
    clips.asked_for = []
    return clips


def recording_trainer(folder: Path, **arguments) -> ASTTrainer:
    torch.manual_seed(0)
    extractor = ASTFeatureExtractor(max_length=32, mean=-6.5, std=5.5)
    sizes = {name: SETTINGS[name] for name in ("hidden_size", "num_hidden_layers", "num_attention_heads")}
    clips = recorded_clips()
    return ASTTrainer(
        model=ASTForAudioClassification(ASTConfig(**sizes, intermediate_size=64, max_length=32, num_labels=9)),
        args=ASTTrainingArguments(
            output_dir=str(folder), per_device_train_batch_size=BATCH, per_device_eval_batch_size=BATCH,
            num_train_epochs=EPOCHS, seed=SEED, use_cpu=True, disable_tqdm=True, save_strategy="steps", save_steps=1,
            save_total_limit=20, **arguments,
        ),
        train_dataset=clips,
        data_collator=ASTDataCollator(extractor, compute_features=False),
        feature_extractor=extractor,
        augmentation=clips.augmentation,
    )  # fmt: skip


def train_and_record(folder: Path, resume_from: str | None = None):
    trainer = recording_trainer(folder, train_sampling_strategy="class_balanced")
    if resume_from is None:
        prediction = trainer.predict(unaugmented(trainer.train_dataset))
        if trainer.is_world_process_zero():
            np.savez(folder.with_suffix(".npz"), logits=prediction.predictions, labels=prediction.label_ids)
    trainer.train(resume_from_checkpoint=resume_from)
    (folder / f"process_{trainer.args.process_index}.json").write_text(json.dumps(trainer.train_dataset.asked_for))
    trainer.save_model(str(folder))


def unaugmented(clips: ASTDataset) -> ASTDataset:
    return ASTDataset(clips.split, clips.reader, clips.max_samples)


@pytest.mark.long
def test_two_processes_share_one_class_balanced_order_without_a_clip_twice_in_a_step(tmp_path):
    launch_two("tests.finetune.runs.test_processes", RECORD, str(tmp_path))
    whole, resumed = (
        [json.loads((tmp_path / run / f"process_{rank}.json").read_text()) for rank in (0, 1)]
        for run in ("whole", "resumed")
    )
    clips = recorded_clips()
    weights = class_balanced_weights(clips.label_lists(), clips.num_labels)
    sampler = EpochSampler(len(clips), SEED, weights=weights, group_size=2 * BATCH, distinct=True)
    steps = len(whole[0]) // BATCH
    assert steps == EPOCHS * 3
    for epoch in range(EPOCHS):
        visited = []
        for step in range(epoch * 3, epoch * 3 + 3):
            together = [item for rank in whole for item in rank[step * BATCH : (step + 1) * BATCH]]
            assert len({index for _, index, _ in together}) == 2 * BATCH, f"step {step}"
            visited += together
        sampler.set_epoch(epoch)
        assert visited[: len(clips)] == [list(item) for item in sampler]

    assert resumed == [rank[RESUME_AT * BATCH :] for rank in whole]
    assert_same_tensors(tmp_path / "resumed", tmp_path / "whole")

    alone = recording_trainer(tmp_path / "alone")
    expected = alone.predict(unaugmented(alone.train_dataset))
    with np.load(tmp_path / "whole.npz") as together:  # 22 clips, in their order and each of them once
        np.testing.assert_array_equal(together["labels"], expected.label_ids)
        np.testing.assert_allclose(together["logits"], expected.predictions, atol=1e-6)


def test_two_processes_begin_with_the_classifier_that_one_fits(tmp_path):
    sizes = dict.fromkeys(("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size"))
    # A rate at which nothing changes: what is published is what the training begins with.
    fitted = {"model_name_or_path": "ast-small", "head_start": "fitted", "learning_rate": 1e-30, "max_steps": 1}
    settings = sizes | fitted | {"num_train_epochs": None, "class_weights": "balanced"}
    assert run_finetune.main([write_recipe(tmp_path / "one", **settings)]) == 0
    printed = run_two(write_recipe(tmp_path / "two", **settings))
    assert printed.count("classifier fitted to 112 training clips, accuracy") == 1
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, rtol=0, atol=1e-6, msg=name)
    sections = [json.loads((tmp_path / name / "run_summary.json").read_text())["training"] for name in ("one", "two")]
    assert sections[0]["fitted_head"] == sections[1]["fitted_head"]


def pass_the_processor_off_as_accelerators():
    """Accelerate shards models on accelerators only; all else that it does then, a CPU can do too."""
    prepare = PartialState.__init__

    def on_accelerators(self, cpu: bool = False, **kwargs):
        prepare(self, cpu=False, **kwargs | {"backend": "gloo"})

    PartialState.__init__ = on_accelerators
    PartialState._prepare_backend = lambda *_: ("gloo", DistributedType.MULTI_GPU)
    PartialState.set_device = lambda self: setattr(self, "device", torch.device("cpu"))


@pytest.mark.long
def test_a_model_sharded_over_two_processes_is_trained_resumed_and_saved_whole(tmp_path):
    settings = {"num_train_epochs": 2, "average_epochs": [1, 2], "save_strategy": "steps", "save_steps": 4}
    settings |= {"save_total_limit": 20, "layer_decay": 0.75}
    recipe = write_recipe(tmp_path / "one", per_device_train_batch_size=16, **settings)
    assert run_finetune.main([recipe]) == 0
    recipe = write_recipe(tmp_path / "sharded", **settings)
    module, whole = "tests.finetune.runs.test_processes", [*SHARDED, "--fsdp_state_dict_type", "FULL_STATE_DICT"]
    printed = launch_two(module, SHARD, recipe, spread=whole)
    assert "sharded by DistributedType.FSDP" in printed
    expected, sharded = (load_file(tmp_path / run / "model.safetensors") for run in ("one", "sharded"))
    assert sharded.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(sharded[name], tensor, atol=1e-5, rtol=0, msg=name)
    np.testing.assert_allclose(losses_in(tmp_path / "sharded"), losses_in(tmp_path / "one"), atol=1e-5)

    resumed = tmp_path / "resumed"
    shutil.copytree(tmp_path / "sharded" / "checkpoint-4", resumed / "checkpoint-4")
    recipe = write_recipe(resumed, **settings)
    launch_two(module, SHARD, recipe, "--resume_from_checkpoint", "true", spread=whole)
    assert_same_tensors(resumed, tmp_path / "sharded")

    # What accelerate does with version 2 if it is not told otherwise
    printed = launch_two(module, SHARD, write_recipe(tmp_path / "refused"), spread=SHARDED, expected_code=1)
    assert "--fsdp_state_dict_type FULL_STATE_DICT" in printed
    assert "training:" not in printed


if __name__ == "__main__":
    mode, *rest = sys.argv[1:]
    if mode == SHARD:
        pass_the_processor_off_as_accelerators()
        code = run_finetune.main(rest)
        print(f"sharded by {PartialState().distributed_type}")
        sys.exit(code)
    root = Path(rest[0])
    train_and_record(root / "whole")
    train_and_record(root / "resumed", str(root / "whole" / f"checkpoint-{RESUME_AT}"))
