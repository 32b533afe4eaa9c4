"""The mean of checkpoints' weights against plain torch, and the epochs' folders of whole, resumed and shared runs."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import ASTFeatureExtractor as StockFeatureExtractor
from transformers import ASTForAudioClassification as StockModel
from transformers import TrainerCallback

from finetune.arguments.groups import ASTTrainingArguments
from finetune.clip_sets.collator import ASTDataCollator
from finetune.training.trainer import ASTTrainer
from finetune.training.weight_averaging import (
    EPOCHS_DIR,
    AveragingError,
    EpochFolders,
    average_weights,
    epochs_between,
    epochs_in,
    remove_epochs,
    weights_file,
)
from modeling_ast import ASTConfig, ASTFeatureExtractor, ASTForAudioClassification


def random_weights(seed: int, dtype=torch.float32) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = {"cls": (1, 1, 8), "layer.weight": (8, 5), "layer.bias": (8,)}
    return {
        name: torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype) for name, shape in shapes.items()
    }


def saved(folder: Path, *weights: dict[str, torch.Tensor]) -> list[Path]:
    files = [folder / f"{number}.safetensors" for number in range(len(weights))]
    for file, tensors in zip(files, weights, strict=True):
        save_file(tensors, file)
    return files


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_the_average_is_the_float64_mean_in_the_type_of_the_files(tmp_path, dtype):
    weights = [random_weights(seed, dtype) for seed in range(7)]
    files = saved(tmp_path, *weights)
    before = [file.read_bytes() for file in files]
    average_weights(files, tmp_path / "mean.safetensors")
    mean = load_file(tmp_path / "mean.safetensors")
    assert mean.keys() == weights[0].keys()
    for name, value in mean.items():
        expected = torch.stack([tensors[name].double() for tensors in weights]).mean(dim=0)
        assert value.dtype == dtype
        # The order of the sum may move the last bits of float64 (of values around 1), or the last one of the type.
        torch.testing.assert_close(value, expected.to(dtype), atol=1e-15, rtol=torch.finfo(dtype).eps)
    assert [file.read_bytes() for file in files] == before
    with safe_open(tmp_path / "mean.safetensors", framework="pt") as tensors:
        assert tensors.metadata() == {"format": "pt"}  # or Transformers does not load it


def test_small_differences_are_not_lost_in_a_sum_of_float32(tmp_path):
    exact = [1.0, 2.0**-24, 2.0**-24, 2.0**-24, 2.0**-24, 0.0, 0.0, 0.0]  # in float32 1 + 2**-24 is 1
    files = saved(tmp_path, *[{"a": torch.tensor([value])} for value in exact])
    average_weights(files, tmp_path / "mean.safetensors")
    assert load_file(tmp_path / "mean.safetensors")["a"].item() == np.float32(np.mean(exact))


def test_whole_numbers_are_kept_where_all_files_agree(tmp_path):
    weights = [{"steps": torch.tensor([7]), "a": torch.tensor([float(value)])} for value in (1, 3)]
    average_weights(saved(tmp_path, *weights), tmp_path / "mean.safetensors")
    assert {name: value.item() for name, value in load_file(tmp_path / "mean.safetensors").items()} == {
        "steps": 7,
        "a": 2,
    }
    weights[1]["steps"] += 1
    with pytest.raises(
        AveragingError, match=r"steps holds whole numbers that differ between .*0\.safe.* and .*1\.safe"
    ):
        average_weights(saved(tmp_path, *weights), tmp_path / "mean.safetensors")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda weights: weights.pop("cls"), r"1\.safetensors has no cls, compared with .*0\.safetensors"),
        (lambda weights: weights.update(extra=torch.ones(1)), r"1\.safetensors has extra besides, compared"),
        (
            lambda weights: weights.update(cls=torch.ones(1, 1, 9)),
            r"cls is F32 of shape \(1, 1, 9\) in .*1\.safetensors and F32 of shape \(1, 1, 8\) in .*0\.safetensors",
        ),
        (lambda weights: weights.update(cls=weights["cls"].half()), r"cls is F16 .* and F32 .* saved in one type"),
        (
            lambda weights: weights["layer.bias"].fill_(float("nan")),
            r"layer\.bias of .*1\.safetensors holds values that are not numbers",
        ),
    ],
    ids=["missing", "unknown", "shape", "type", "nan"],
)
def test_files_that_have_no_mean_are_refused_and_nothing_is_written(tmp_path, change, message):
    weights = [random_weights(0), random_weights(1)]
    change(weights[1])
    files = saved(tmp_path, *weights)
    with pytest.raises(AveragingError, match=message):
        average_weights(files, tmp_path / "mean.safetensors")
    assert sorted(tmp_path.iterdir()) == files


def test_nothing_to_average_and_what_is_no_safetensors_file_are_said(tmp_path):
    with pytest.raises(AveragingError, match="No checkpoint was given"):
        average_weights([], tmp_path / "mean.safetensors")
    (tmp_path / "text.safetensors").write_text("text")
    with pytest.raises(AveragingError, match=r"text\.safetensors cannot be read as safetensors"):
        average_weights([tmp_path / "text.safetensors"], tmp_path / "mean.safetensors")


def test_an_interrupted_average_leaves_the_old_file(tmp_path, monkeypatch):
    files = saved(tmp_path, random_weights(0))
    (tmp_path / "mean.safetensors").write_text("old")
    monkeypatch.setattr(
        "modeling_ast.system.atomic_files.os.fsync", lambda descriptor: (_ for _ in ()).throw(OSError("disk full"))
    )
    with pytest.raises(OSError, match="disk full"):
        average_weights(files, tmp_path / "mean.safetensors")
    assert (tmp_path / "mean.safetensors").read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 2


PEAK_OF_AVERAGING = """
import resource, sys
import torch
from safetensors.torch import save_file
from finetune.training.weight_averaging import average_weights

folder, tensors = sys.argv[1], 10
for number in range(5):
    part = {f"tensor_{index}": torch.full((1024, 1024), float(number)) for index in range(tensors)}
    save_file(part, f"{folder}/{number}.safetensors")
    del part
files = [f"{folder}/{number}.safetensors" for number in range(5)]
average_weights(files[:1], f"{folder}/warm.safetensors")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
average_weights(files, f"{folder}/mean.safetensors")
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.long
def test_memory_does_not_grow_with_the_number_of_files(tmp_path):
    answer = subprocess.run(
        [sys.executable, "-c", PEAK_OF_AVERAGING, str(tmp_path)], capture_output=True, text=True, check=True
    )
    # Five files of 40 MB against one. Each that stays open adds its 40 MB; what is mapped at a time varies by some 30.
    assert int(answer.stdout) < 60 * 1024, f"{int(answer.stdout)} kB more"
    assert (load_file(tmp_path / "mean.safetensors")["tensor_3"] == 2).all()


@pytest.fixture
def build(tiny_sizes, tmp_path):
    """A trainer on 12 noise clips, 3 steps an epoch; every call starts from the same weights."""

    def build_trainer(folder: str, first: int, last: int, **arguments) -> ASTTrainer:
        torch.manual_seed(0)
        names = dict(enumerate(["hum", "hiss", "click"]))
        sizes = tiny_sizes | {"max_length": 32, "num_hidden_layers": 1}
        config = ASTConfig(**sizes, id2label=names, label2id={name: index for index, name in names.items()})
        config.problem_type = "single_label_classification"
        extractor = ASTFeatureExtractor(max_length=32, mean=-6.5, std=5.5)
        defaults = {"per_device_train_batch_size": 4, "learning_rate": 1e-3, "use_cpu": True, "disable_tqdm": True}
        trainer = ASTTrainer(
            model=ASTForAudioClassification(config),
            args=ASTTrainingArguments(output_dir=str(tmp_path / folder), **defaults | arguments),
            train_dataset=NoiseClips(),
            data_collator=ASTDataCollator(extractor, compute_features=False),
            feature_extractor=extractor,
        )
        trainer.add_callback(EpochFolders(trainer, first, last))
        return trainer

    return build_trainer


class NoiseClips(torch.utils.data.Dataset):
    """Twelve quarter seconds of noise of three strengths."""

    def __len__(self) -> int:
        return 12

    def __getitem__(self, key: tuple[int, int]) -> dict:
        index = key[1]
        noise = np.random.default_rng(index).standard_normal(4000) * 10.0 ** -(index % 3 + 1)
        return {"waveform": noise.astype(np.float32), "label": index % 3}


def weights_of_epochs(run: Path) -> dict[str, dict[str, torch.Tensor]]:
    return {path.name: load_file(path / "model.safetensors") for path in epochs_in(run)}


def assert_same_epochs(first: dict, second: dict):
    assert first.keys() == second.keys()
    for epoch, weights in first.items():
        for name, value in weights.items():
            assert torch.equal(second[epoch][name], value), f"{epoch}: {name}"


def test_the_epochs_of_the_range_are_kept_as_checkpoints_that_stock_transformers_loads(build, tmp_path):
    seen = {}
    trainer = build("run", 2, 3, num_train_epochs=4)
    trainer.add_callback(CopyOfEveryEpoch(seen))
    trainer.train()
    run = tmp_path / "run"
    assert [path.name for path in epochs_in(run)] == ["epoch-2", "epoch-3"]
    for number, path in enumerate(epochs_in(run), 2):
        assert sorted(file.name for file in path.iterdir()) == [
            "config.json", "model.safetensors", "preprocessor_config.json",
        ]  # fmt: skip
        stored = load_file(path / "model.safetensors")
        assert stored.keys() == seen[number].keys()
        assert all(torch.equal(seen[number][name], value) for name, value in stored.items())
        _, loading = StockModel.from_pretrained(path, output_loading_info=True)
        assert not loading["missing_keys"]
        assert not loading["unexpected_keys"]
        assert StockFeatureExtractor.from_pretrained(path).mean == -6.5
    assert not list((run / EPOCHS_DIR).glob(".*"))


class CopyOfEveryEpoch(TrainerCallback):
    """Copies of the weights in memory, by the number of times that an epoch has ended."""

    def __init__(self, seen: dict):
        self.seen = seen

    def on_epoch_end(self, args, state, control, model, **kwargs):
        self.seen[len(self.seen) + 1] = {name: value.clone() for name, value in model.state_dict().items()}


def test_a_resumed_run_keeps_the_epochs_of_the_uninterrupted_one(build, tmp_path):
    settings = {"num_train_epochs": 3, "save_strategy": "steps", "save_steps": 1, "save_total_limit": None}
    build("whole", 1, 3, **settings).train()
    whole = weights_of_epochs(tmp_path / "whole")
    assert list(whole) == ["epoch-1", "epoch-2", "epoch-3"]
    assert not torch.equal(whole["epoch-1"]["classifier.dense.weight"], whole["epoch-2"]["classifier.dense.weight"])

    settings["save_strategy"] = "no"
    for stop_at in (2, 3, 4, 9):  # in the first epoch, at its last step, in the second epoch, at the end
        # What a run leaves that is stopped right after its checkpoint of this step: epochs that ended before it.
        stopped = tmp_path / f"stopped_{stop_at}"
        for path in epochs_in(tmp_path / "whole")[: (stop_at - 1) // 3]:
            shutil.copytree(path, stopped / EPOCHS_DIR / path.name)
        (stopped / EPOCHS_DIR / ".unfinished").mkdir(parents=True)
        (stopped / EPOCHS_DIR / ".unfinished" / "model.safetensors").write_text("half")
        checkpoint_dir = str(tmp_path / "whole" / f"checkpoint-{stop_at}")
        build(stopped.name, 1, 3, **settings).train(resume_from_checkpoint=checkpoint_dir)
        assert_same_epochs(whole, weights_of_epochs(stopped))
        assert not (stopped / EPOCHS_DIR / ".unfinished").exists()


def test_an_epoch_that_is_there_already_is_left_as_it_is(build, tmp_path):
    settings = {"num_train_epochs": 2, "save_strategy": "steps", "save_steps": 3, "save_total_limit": None}
    build("run", 1, 2, **settings).train()
    note = tmp_path / "run" / EPOCHS_DIR / "epoch-2" / "note.txt"
    note.write_text("mine")
    build("run", 1, 2, **settings).train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-3"))
    assert note.read_text() == "mine"
    assert [path.name for path in (tmp_path / "run" / EPOCHS_DIR).iterdir() if "epoch" not in path.name] == []


def test_a_resumed_run_whose_earlier_epochs_are_gone_stops_before_training(build, tmp_path):
    settings = {"num_train_epochs": 3, "save_strategy": "steps", "save_steps": 4, "save_total_limit": None}
    build("run", 1, 3, **settings).train()
    remove_epochs(tmp_path / "run")
    resumed = build("run", 1, 3, **settings)
    with pytest.raises(
        AveragingError, match=r"epochs has no epoch-1, epoch-2, which the run was to keep.*without --resume"
    ):
        resumed.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-8"))
    assert resumed.state.global_step == 8
    build("run", 3, 3, **settings).train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-8"))
    assert [path.name for path in epochs_in(tmp_path / "run")] == ["epoch-3"]


TWO_PROCESSES = """
import sys
from pathlib import Path
import torch
from finetune.clip_sets.collator import ASTDataCollator
from finetune.arguments.groups import ASTTrainingArguments
from finetune.training.trainer import ASTTrainer
from finetune.training.weight_averaging import EpochFolders
from modeling_ast import ASTConfig, ASTFeatureExtractor, ASTForAudioClassification
from tests.finetune.training.test_weight_averaging import NoiseClips

torch.manual_seed(0)
sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
extractor = ASTFeatureExtractor(max_length=32, mean=-6.5, std=5.5)
trainer = ASTTrainer(
    model=ASTForAudioClassification(ASTConfig(**sizes, max_length=32, num_labels=3)),
    args=ASTTrainingArguments(
        output_dir=sys.argv[1], per_device_train_batch_size=2, num_train_epochs=2, use_cpu=True, disable_tqdm=True
    ),
    train_dataset=NoiseClips(),
    data_collator=ASTDataCollator(extractor, compute_features=False),
    feature_extractor=extractor,
)
assert trainer.args.world_size == 2
trainer.add_callback(EpochFolders(trainer, 1, 2))
trainer.train()
"""


@pytest.mark.long
def test_two_processes_keep_each_epoch_once(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(TWO_PROCESSES)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    root = Path(__file__).parents[3]
    environment = os.environ | {"PYTHONPATH": str(root)}
    subprocess.run([*command, str(script), str(tmp_path / "run")], check=True, timeout=300, env=environment, cwd=root)
    assert sorted(path.name for path in (tmp_path / "run" / EPOCHS_DIR).iterdir()) == ["epoch-1", "epoch-2"]
    last = load_file(tmp_path / "run" / "checkpoint-6" / "model.safetensors")
    assert_same_epochs({"epoch-2": last}, {"epoch-2": weights_of_epochs(tmp_path / "run")["epoch-2"]})


def test_an_epoch_that_max_steps_cuts_short_is_not_kept(build, tmp_path):
    build("run", 1, 5, max_steps=5).train()
    assert [path.name for path in epochs_in(tmp_path / "run")] == ["epoch-1"]


def test_an_epoch_appears_only_when_it_is_whole(build, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "modeling_ast.system.atomic_files.os.fsync", lambda descriptor: (_ for _ in ()).throw(OSError("disk full"))
    )
    with pytest.raises(OSError, match="disk full"):
        build("run", 1, 1, num_train_epochs=1).train()
    assert (tmp_path / "run" / EPOCHS_DIR / ".unfinished" / "model.safetensors").exists()
    assert epochs_in(tmp_path / "run") == []


def test_epochs_are_listed_by_number_and_removed_alone(tmp_path):
    assert epochs_in(tmp_path) == []
    remove_epochs(tmp_path)
    parent = tmp_path / EPOCHS_DIR
    for name in ("epoch-10", "epoch-9", "epoch-best", ".unfinished", "epoch-2"):
        (parent / name).mkdir(parents=True)
    (parent / "epoch-3").write_text("a file")
    assert [path.name for path in epochs_in(tmp_path)] == ["epoch-2", "epoch-9", "epoch-10"]
    assert epochs_between(tmp_path, 9, 10) == [parent / "epoch-9", parent / "epoch-10"]
    with pytest.raises(AveragingError, match=r"has no epoch-3, epoch-4, epoch-5, epoch-6, epoch-7 and 1 more, which"):
        epochs_between(tmp_path, 2, 10)
    remove_epochs(tmp_path)
    assert sorted(path.name for path in parent.iterdir()) == ["epoch-3", "epoch-best"]
    (parent / "epoch-3").unlink()
    (parent / "epoch-best").rmdir()
    (parent / "epoch-1").mkdir()
    remove_epochs(tmp_path)
    assert not parent.exists()


def checkpoint(folder: Path, seed: int, tiny_sizes: dict, labels=("hum", "hiss"), mean=-6.5, **config) -> Path:
    torch.manual_seed(seed)
    names = dict(enumerate(labels))
    model = ASTForAudioClassification(
        ASTConfig(**tiny_sizes | config, id2label=names, label2id={name: index for index, name in names.items()})
    )
    model.save_pretrained(folder)
    ASTFeatureExtractor(max_length=tiny_sizes["max_length"], mean=mean, std=5.5).save_pretrained(folder)
    return folder


def test_sharded_and_incomplete_checkpoints_are_refused_in_words(tmp_path, tiny_sizes):
    folder = checkpoint(tmp_path / "a", 0, tiny_sizes)
    StockModel.from_pretrained(folder).save_pretrained(tmp_path / "shards", max_shard_size="50KB")
    with pytest.raises(AveragingError, match=r"shards is sharded.*max_shard_size='50GB'"):
        weights_file(tmp_path / "shards")
    (folder / "model.safetensors").unlink()
    with pytest.raises(AveragingError, match=r"a has no model\.safetensors"):
        weights_file(folder)
