"""The original's optimiser and schedule, rates by layer and frozen parts, against torch and the original's own numbers."""

import io
import json
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from finished_features import SIZES, Clips, build_trainer
from safetensors.torch import load_file
from torch.optim.lr_scheduler import MultiStepLR
from transformers import Trainer

from finetune.training.optimization import EpochDecay, depth_of
from modeling_ast import ASTConfig, ASTForAudioClassification

RUNS = json.loads((Path(__file__).parents[2] / "reference" / "training.json").read_text())["runs"]
PREFIX = "audio_spectrogram_transformer"


@pytest.fixture
def build(tmp_path):
    return partial(build_trainer, tmp_path)


def schedule(rate=1e-4, num_groups=1, **settings) -> EpochDecay:
    groups = [
        {"params": [torch.nn.Parameter(torch.zeros(1))], "lr": rate / 10**position} for position in range(num_groups)
    ]
    return EpochDecay(torch.optim.Adam(groups), **{"steps_per_epoch": 7, "decay_after_epoch": 2} | settings)


def rates_of(scheduler: EpochDecay, num_steps: int) -> list[float]:
    rates = []
    for _ in range(num_steps):
        rates.append(scheduler.optimizer.param_groups[0]["lr"])
        scheduler.optimizer.step()
        scheduler.step()
    return rates


def weights_of(trainer) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in trainer.model.named_parameters()}


def changed(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> set[str]:
    return {name for name, value in before.items() if not torch.equal(value, after[name])}


@pytest.mark.parametrize("run", RUNS, ids=[run["name"] for run in RUNS])
def test_every_rate_is_the_originals(run):
    scheduler = schedule(
        run["lr"],
        steps_per_epoch=len(run["step_losses"]) // run["epochs"],
        decay_after_epoch=run["lrscheduler_start"],
        decay_every=run["lrscheduler_step"],
        decay_factor=run["lrscheduler_decay"],
        warmup_steps=1000 if run["warmup"] else 0,
    )
    assert rates_of(scheduler, len(run["step_losses"])) == run["step_learning_rates"]


@pytest.mark.parametrize(("warmup_steps", "start", "every"), [(0, 5, 1), (0, 10, 5), (70, 2, 1), (70, 1, 3)])
def test_the_rates_are_those_of_torchs_milestones_under_the_stairs(warmup_steps, start, every):
    steps_per_epoch, epochs, stair, rate = 7, 40, 10, 2.5e-4
    optimizer = torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))], lr=rate)
    milestones = MultiStepLR(optimizer, list(range(start, epochs, every)), gamma=0.85)
    expected = []
    for step in range(epochs * steps_per_epoch):
        if warmup_steps and step <= warmup_steps and step % stair == 0:
            optimizer.param_groups[0]["lr"] = (step / warmup_steps) * rate
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if (step + 1) % steps_per_epoch == 0:
            milestones.step()
    scheduler = schedule(
        rate,
        steps_per_epoch=steps_per_epoch,
        decay_after_epoch=start,
        decay_every=every,
        decay_factor=0.85,
        warmup_steps=warmup_steps,
        warmup_stair=stair,
    )
    assert rates_of(scheduler, len(expected)) == expected


def test_decay_after_epoch_0_never_decays_but_warms_up():
    rates = rates_of(schedule(decay_after_epoch=0, warmup_steps=20, warmup_stair=10), 500)
    assert rates == [0.0] * 10 + [0.5e-4] * 10 + [1e-4] * 480


def test_a_warm_up_that_is_no_multiple_of_its_stairs_ends_at_the_full_rate():
    rates = rates_of(schedule(decay_after_epoch=0, warmup_steps=25, warmup_stair=10), 40)
    assert rates == [0.0] * 10 + [10 / 25 * 1e-4] * 10 + [20 / 25 * 1e-4] * 5 + [1e-4] * 15


def test_a_warm_up_without_a_stair_is_refused():
    with pytest.raises(ValueError, match=r"warm-up of 40 steps with a new rate every 50.*--warmup_stair 4"):
        schedule(warmup_steps=40, warmup_stair=50)


@pytest.mark.parametrize("stop", [1, 13, 14, 29, 70])
def test_a_schedule_saved_and_loaded_goes_on_as_if_it_had_not_been(stop):
    settings = {"warmup_steps": 30, "warmup_stair": 5, "num_groups": 2}
    whole = rates_of(schedule(**settings), 100)
    stopped, resumed = schedule(**settings), schedule(**settings)
    rates_of(stopped, stop)
    states = io.BytesIO()
    torch.save([stopped.optimizer.state_dict(), stopped.state_dict()], states)
    states.seek(0)
    optimizer_state, scheduler_state = torch.load(states, weights_only=True)  # as Trainer loads it
    resumed.optimizer.load_state_dict(optimizer_state)
    resumed.load_state_dict(scheduler_state)
    assert rates_of(resumed, 100 - stop) == whole[stop:]


def test_the_trainer_steps_the_schedule_with_its_own_epochs(build):
    trainer = build(
        {"decay_after_epoch": 1, "decay_factor": 0.85, "warmup_stair": 2},
        logging_strategy="steps",
        logging_steps=1,
        warmup_steps=0.5,  # a share of the 8 steps
        max_steps=8,
    )
    trainer.train()
    rates = [entry["learning_rate"] for entry in trainer.state.log_history if "learning_rate" in entry]
    # Three steps an epoch: the decay before step 3 lasts until the stair of step 4, which sets the full rate.
    assert rates == [0.0, 0.0, 5e-4, 5e-4 * 0.85, 1e-3, 1e-3, 1e-3 * 0.85, 1e-3 * 0.85]


def test_the_schedule_can_be_made_before_training(build):
    trainer = build({"decay_after_epoch": 1})
    trainer.create_optimizer_and_scheduler(num_training_steps=6)
    assert trainer.lr_scheduler.steps_per_epoch == 3


def test_a_second_training_begins_its_schedule_anew(build):
    trainer = build({"decay_after_epoch": 1}, logging_strategy="steps", logging_steps=1)
    for _ in range(2):
        trainer.train()
        rates = [entry["learning_rate"] for entry in trainer.state.log_history if "learning_rate" in entry]
        assert rates == [1e-3] * 3 + [5e-4] * 3


def test_by_default_optimizer_and_schedule_are_trainers(build):
    ours = build(weight_decay=0.1, warmup_steps=2)
    stock = Trainer(model=ours.model, args=ours.args)
    assert all(parameter.requires_grad for parameter in ours.model.parameters())
    for trainer in (ours, stock):
        trainer.create_optimizer_and_scheduler(num_training_steps=6)
    assert type(ours.optimizer) is type(stock.optimizer)
    assert type(ours.lr_scheduler) is type(stock.lr_scheduler)
    assert len(ours.optimizer.param_groups) == len(stock.optimizer.param_groups) == 2
    for group, expected in zip(ours.optimizer.param_groups, stock.optimizer.param_groups, strict=True):
        assert list(map(id, group.pop("params"))) == list(map(id, expected.pop("params")))
        assert group == expected


def test_adam_decays_all_weights_by_their_gradients_as_torchs_does(build):
    settings = {"weight_decay": 0.3, "adam_beta1": 0.95, "adam_beta2": 0.99, "adam_epsilon": 1e-6}
    trainer = build({"optimizer": "adam", "decay_after_epoch": 0}, max_steps=3, max_grad_norm=0.0, **settings)
    torch.manual_seed(0)
    twin = ASTForAudioClassification(trainer.model.config)
    twin.load_state_dict(trainer.model.state_dict())
    optimizer = torch.optim.Adam(twin.parameters(), lr=1e-3, betas=(0.95, 0.99), eps=1e-6, weight_decay=0.3)
    clips = Clips()
    sampler = trainer._get_train_sampler()
    order = [index for _, index in sampler]
    for start in (0, 4, 8):
        batch = [clips[index] for index in order[start : start + 4]]
        labels = torch.tensor([clip["labels"] for clip in batch])
        twin(torch.stack([clip["input_values"] for clip in batch]), labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    trainer.train()
    assert type(trainer.optimizer.optimizer) is torch.optim.Adam
    for name, parameter in trainer.model.named_parameters():
        assert torch.equal(parameter, dict(twin.named_parameters())[name]), name


@pytest.mark.parametrize("optimizer", ["trainer", "adam"])
def test_the_rate_falls_from_layer_to_layer_and_the_classifier_has_its_own(build, optimizer):
    trainer = build({"optimizer": optimizer, "layer_decay": 0.5, "head_learning_rate_factor": 10}, weight_decay=0.1)
    plain = build({"optimizer": optimizer}, weight_decay=0.1)
    decays = {}
    for built in (trainer, plain):
        built.create_optimizer()
        names = {id(parameter): name for name, parameter in built.model.named_parameters()}
        groups = built.optimizer.param_groups
        of_each = {names[id(parameter)]: group for group in groups for parameter in group["params"]}
        assert sum(len(group["params"]) for group in groups) == len(of_each) == len(names)
        decays[built] = {name: group["weight_decay"] for name, group in of_each.items()}
        if built is trainer:
            rates = {name: group["lr"] for name, group in of_each.items()}
    assert decays[trainer] == decays[plain]
    assert len(set(decays[plain].values())) == (2 if optimizer == "trainer" else 1)
    expected = {
        f"{PREFIX}.embeddings.cls_token": 1 / 16,
        f"{PREFIX}.embeddings.patch_embeddings.projection.bias": 1 / 16,
        f"{PREFIX}.encoder.layer.0.attention.attention.key.weight": 1 / 8,
        f"{PREFIX}.encoder.layer.1.layernorm_after.bias": 1 / 4,
        f"{PREFIX}.encoder.layer.2.output.dense.weight": 1 / 2,
        f"{PREFIX}.layernorm.weight": 1 / 2,
        "classifier.layernorm.weight": 10,
        "classifier.dense.weight": 10,
    }
    assert {name: rates[name] for name in expected} == {name: 1e-3 * factor for name, factor in expected.items()}


def test_a_head_rate_alone_changes_only_the_head(build):
    trainer = build({"head_learning_rate_factor": 10})
    trainer.create_optimizer()
    rates = {
        name: group["lr"]
        for group in trainer.optimizer.param_groups
        for name, parameter in trainer.model.named_parameters()
        if any(parameter is member for member in group["params"])
    }
    assert {name for name, rate in rates.items() if rate == 1e-2} == {name for name in rates if "classifier" in name}
    assert set(rates.values()) == {1e-2, 1e-3}


@pytest.mark.parametrize("decay_after_epoch", [None, 1])
def test_rates_of_layers_keep_their_ratios_and_the_log_shows_the_undivided_rate(build, decay_after_epoch):
    factors = {"layer_decay": 0.5, "head_learning_rate_factor": 4}
    settings = {"logging_strategy": "steps", "logging_steps": 1}
    scaled = build({"decay_after_epoch": decay_after_epoch} | factors, **settings)
    plain = build({"decay_after_epoch": decay_after_epoch}, **settings)
    logs = []
    for trainer in (scaled, plain):
        trainer.train()
        logs.append([entry["learning_rate"] for entry in trainer.state.log_history if "learning_rate" in entry])
    assert logs[0] == pytest.approx(logs[1], rel=1e-12)  # divided and multiplied by one factor
    assert len(set(logs[1])) > 1
    groups = scaled.optimizer.param_groups
    whole = max(group["lr"] for group in plain.optimizer.param_groups)
    assert sorted({round(group["lr"] / whole, 9) for group in groups if whole}) == (
        [0.0625, 0.125, 0.25, 0.5, 4] if whole else []
    )


def test_parameters_of_adapters_belong_to_the_layer_they_adapt():
    peft = pytest.importorskip("peft")
    model = ASTForAudioClassification(ASTConfig(**SIZES, num_labels=3))
    adapted = peft.get_peft_model(model, peft.LoraConfig(target_modules=["query"], modules_to_save=["classifier"]))
    learning = {name for name, parameter in adapted.named_parameters() if parameter.requires_grad}
    depths = {name: depth_of(name, 3) for name in learning}
    assert {depth for name, depth in depths.items() if "classifier" in name} == {4}
    assert {depth for name, depth in depths.items() if "layer.1." in name and "lora" in name} == {2}
    assert set(depths.values()) == {1, 2, 3, 4}


def test_frozen_layers_and_the_embeddings_below_do_not_move(build):
    trainer = build({"frozen_layers": 2}, weight_decay=0.5)
    before = weights_of(trainer)
    trainer.train()
    frozen = {
        name
        for name in before
        if name.startswith((f"{PREFIX}.embeddings", f"{PREFIX}.encoder.layer.0", f"{PREFIX}.encoder.layer.1"))
    }
    assert changed(before, weights_of(trainer)) == set(before) - frozen
    held = {id(parameter) for group in trainer.optimizer.param_groups for parameter in group["params"]}
    assert held == {id(parameter) for name, parameter in trainer.model.named_parameters() if name not in frozen}


def test_a_model_made_anew_for_a_training_is_frozen_too(build):
    trainer = build({"frozen_layers": 1}, num_train_epochs=1)
    trainer.model_init = lambda: ASTForAudioClassification(trainer.model.config)
    first = trainer.model
    trainer.train()
    assert trainer.model is not first
    frozen = {name for name, parameter in trainer.model.named_parameters() if not parameter.requires_grad}
    assert frozen == {name for name, parameter in first.named_parameters() if not parameter.requires_grad} != set()


def test_more_frozen_layers_than_there_are_are_refused(build):
    with pytest.raises(
        ValueError, match="frozen_layers=4 was given, but the model has 3 layers. Pass --frozen_layers 3"
    ):
        build({"frozen_layers": 4})


@pytest.mark.parametrize("optimizer", ["trainer", "adam"])
def test_only_the_classifier_learns_in_the_first_epochs(build, optimizer):
    optimization = {"optimizer": optimizer, "head_only_epochs": 1, "frozen_layers": 1}
    head_only = build(optimization, num_train_epochs=1, weight_decay=0.5)
    both = build(optimization, num_train_epochs=2, weight_decay=0.5)
    before = weights_of(head_only)
    head_only.train()
    both.train()
    classifier = {name for name in before if name.startswith("classifier.")}
    frozen = {name for name in before if name.startswith((f"{PREFIX}.embeddings", f"{PREFIX}.encoder.layer.0"))}
    assert changed(before, weights_of(head_only)) == classifier
    assert changed(before, weights_of(both)) == set(before) - frozen
    learning = {name for name, parameter in head_only.model.named_parameters() if parameter.requires_grad}
    assert learning == set(before) - frozen, "after training, all that may learn may learn again"


@pytest.mark.parametrize(("stop", "checkpointing"), [(2, False), (3, True), (5, False)])
def test_a_run_resumed_in_or_after_the_head_only_epochs_ends_with_the_same_weights(
    build, tmp_path, stop, checkpointing
):
    optimization = {
        "optimizer": "adam",
        "head_only_epochs": 1,
        "frozen_layers": 1,
        "layer_decay": 0.75,
        "decay_after_epoch": 1,
    }
    settings = {"num_train_epochs": 3, "save_strategy": "steps", "save_steps": 1, "save_total_limit": None}
    settings |= {"activation_checkpointing": checkpointing, "dropout": 0.1}
    whole, resumed = build(optimization, "whole", **settings), build(optimization, "resumed", **settings)
    whole.train()
    resumed.train(resume_from_checkpoint=str(tmp_path / "whole" / f"checkpoint-{stop}"))
    assert not changed(weights_of(whole), weights_of(resumed))
    before = load_file(tmp_path / "whole" / "checkpoint-3" / "model.safetensors")
    query = f"{PREFIX}.encoder.layer.1.attention.attention.query.weight"
    assert not torch.equal(before[query], whole.model.state_dict()[query])


def test_a_run_stopped_while_the_head_learned_alone_can_be_trained_again(build):
    trainer = build({"head_only_epochs": 1})

    class Stop(KeyboardInterrupt):
        pass

    def stop(*args, **kwargs):
        raise Stop

    step, trainer.training_step = trainer.training_step, stop
    with pytest.raises(Stop):
        trainer.train()
    trainer.training_step = step
    before = weights_of(trainer)
    trainer.train()
    assert changed(before, weights_of(trainer)) == set(before)


def test_reentrant_checkpointing_above_frozen_layers_is_refused(build):
    settings = {"activation_checkpointing": True, "activation_checkpointing_kwargs": {"use_reentrant": True}}
    for optimization in ({"frozen_layers": 1}, {"head_only_epochs": 1}):
        with pytest.raises(ValueError, match="Reentrant activation checkpointing computes no gradients above frozen"):
            build(optimization, **settings)


def test_head_only_epochs_without_a_look_for_unused_parameters_are_refused(build):
    with pytest.raises(ValueError, match="head_only_epochs needs ddp_find_unused_parameters"):
        build({"head_only_epochs": 1}, ddp_find_unused_parameters=False)


TWO_PROCESSES = """
import sys
import torch
from tests.finetune.training.finished_features import Clips, SIZES
from finetune.arguments.groups import ASTTrainingArguments, OptimizationArguments
from finetune.training.trainer import ASTTrainer
from modeling_ast import ASTConfig, ASTFeatureExtractor, ASTForAudioClassification

torch.manual_seed(0)
config = ASTConfig(**SIZES, num_labels=3, problem_type="single_label_classification")
trainer = ASTTrainer(
    model=ASTForAudioClassification(config),
    args=ASTTrainingArguments(
        output_dir=sys.argv[1], use_cpu=True, disable_tqdm=True, num_train_epochs=2, learning_rate=1e-3,
        per_device_train_batch_size=4 // int(sys.argv[2]), save_total_limit=None, max_grad_norm=0.0,
        activation_checkpointing=sys.argv[3] == "checkpointing",
    ),
    train_dataset=Clips(),
    feature_extractor=ASTFeatureExtractor(max_length=32),
    optimization=OptimizationArguments(head_only_epochs=1, frozen_layers=1),
)
trainer.train()
"""


@pytest.mark.long
@pytest.mark.parametrize("checkpointing", ["checkpointing", "plain"])
def test_two_processes_learn_the_head_first_as_one_does(tmp_path, checkpointing):
    script = tmp_path / "train.py"
    script.write_text(TWO_PROCESSES)
    for processes in ("1", "2"):
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", processes]
        command += [str(script), str(tmp_path / processes), processes, checkpointing]
        environment = {"PYTHONPATH": str(Path.cwd()), "PATH": "", "OMP_NUM_THREADS": "1"}
        subprocess.run(command, check=True, timeout=300, stdout=subprocess.DEVNULL, env=environment)
    first, last = (
        [load_file(tmp_path / processes / name / "model.safetensors") for processes in ("1", "2")]
        for name in ("checkpoint-3", "checkpoint-6")
    )
    body = {name for name in first[0] if not name.startswith("classifier.")}
    assert changed(first[1], last[1]) > {name for name in body if "encoder.layer.2" in name}
    for alone, together in (first, last):
        for name, value in alone.items():
            torch.testing.assert_close(together[name], value, atol=2e-5, rtol=0, msg=name)  # sums in another order
