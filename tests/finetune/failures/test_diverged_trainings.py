"""Losses, gradients and weights that are not numbers: what is said, what is left, and that it goes on from there."""

import math
import re
import shutil
import types
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from failing_trainings import (
    BATCH,
    SETTINGS,
    STEPS_PER_EPOCH,
    assert_equal_weights,
    assert_only_whole_checkpoints,
    order_of_clips,
    stopped,
    write_clip,
)
from safetensors.torch import load_file, save_file

from finetune.arguments.command_line import parse_arguments
from finetune.arguments.model_arguments import SIZE_FIELDS, WIDTH_FIELDS
from finetune.clip_sets.clip_oddities import feature_oddities, waveform_oddities
from finetune.run_finetune import main
from finetune.runs.training_run import prepare_run
from finetune.training.divergence import ABSURD_LOSS, DivergenceWatch, ReplayedClip, files_at_fault
from finetune.training.run_folder import last_checkpoint
from finetune.training.trainer import ASTTrainer
from modeling_ast import ASTConfig, ASTFeatureExtractor, ASTForAudioClassification

pytestmark = pytest.mark.usefixtures("interruptible", "no_pictures")


@pytest.fixture(autouse=True)
def loud_clips_are_let_through(monkeypatch):
    """They give losses that are no numbers here, as other clips may for reasons that nobody foresaw."""
    monkeypatch.setattr("modeling_ast.audio.limits.LOUDEST", 1e37)


@pytest.mark.parametrize(
    "strategy",
    [["--logging_strategy", "epoch"], ["--logging_strategy", "no"], ["--logging_strategy", "steps", "--logging_steps", "3"]],
    ids=lambda flags: flags[1],
)  # fmt: skip
def test_a_batch_whose_loss_is_nan_stops_the_training_and_its_file_is_named(
    recipe, tmp_path, capsys, undisturbed, strategy
):
    no_mixup = [*strategy, "--mixup_probability", "0"]
    order = order_of_clips(recipe)
    bad = Path(order[6 * BATCH + 1])  # in the 7th update
    write_clip(bad, 1e30)
    message = stopped(recipe, capsys, *no_mixup)
    assert f"The loss of a batch is nan at step 7 of {2 * STEPS_PER_EPOCH}" in message
    assert f"1 of its {BATCH} clip(s) give it: {bad} (loss nan" in message
    assert "samples up to 1e+30, expected from -1 to 1" in message
    assert f"the last good checkpoint is {tmp_path / 'run' / 'checkpoint-5'}" in message
    assert "Repair or remove what is named here" in message
    assert "--learning_rate (it is 0.001)" in message
    sizes = "hidden_size, num_hidden_layers, num_attention_heads, intermediate_size"
    good = tmp_path / "run" / "checkpoint-5"
    assert f"--model_name_or_path {good} and another --output_dir, without {sizes}." in message
    assert "--max_grad_norm" not in message, "it is 1 already"
    assert_only_whole_checkpoints(tmp_path / "run", [5])


def test_a_training_goes_on_from_the_last_good_checkpoint_when_its_file_is_repaired(
    recipe, tmp_path, capsys, undisturbed
):
    order = order_of_clips(recipe)
    write_clip(Path(order[-1]), 1e30)  # with mixup perhaps met before as a partner
    message = stopped(recipe, capsys)
    assert order[-1] in message
    write_clip(Path(order[-1]))
    assert main([recipe, "--resume_from_checkpoint", "true"]) == 0
    assert_equal_weights(tmp_path / "run", undisturbed)


def test_a_mixup_partner_is_named_beside_the_clip(recipe, capsys):
    for path in (Path(recipe).parent / "clips" / "train" / "a").iterdir():
        write_clip(path, 1e30)
    message = stopped(recipe, capsys, "--mixup_probability", "1")
    assert re.search(r"\.wav mixed with \S+\.wav \(loss nan", message)


def test_a_checkpoint_that_is_due_is_not_written_with_weights_that_are_no_use(recipe, tmp_path, capsys):
    message = stopped(recipe, capsys, "--learning_rate", "1e30", "--max_grad_norm", "0", "--save_steps", "1")
    assert "The update of step 1 of" in message
    assert "the learning rate is too high" in message
    assert "--max_grad_norm 1 (it is 0)" in message
    assert "No checkpoint had been saved" in message
    assert_only_whole_checkpoints(tmp_path / "run", [])


def test_weights_that_diverge_between_checkpoints_are_blamed_and_not_the_clips(recipe, tmp_path, capsys):
    message = stopped(recipe, capsys, "--learning_rate", "1e30", "--max_grad_norm", "0")
    assert "at step 2 of" in message
    assert f"all of its {BATCH} clips give it: the weights are at fault" in message
    assert "Train with a lower --learning_rate (it is 1e+30) or --max_grad_norm 1" in message
    assert_only_whole_checkpoints(tmp_path / "run", [])


def test_a_weight_that_no_clip_needs_is_looked_at_before_a_save(recipe, tmp_path, capsys, monkeypatch):
    training_step = ASTTrainer.training_step

    def disturbed(self, *args):
        loss = training_step(self, *args)
        if self.state.global_step == 8:  # the clips have 48 frames, the last position is that of frames 48 to 63
            self.model.audio_spectrogram_transformer.embeddings.position_embeddings.data[:, -1] = math.inf
        return loss

    monkeypatch.setattr(ASTTrainer, "training_step", disturbed)
    message = stopped(recipe, capsys, "--padding", "longest")
    assert "The update of step 10 of" in message
    assert "made weights that are not numbers" in message
    assert_only_whole_checkpoints(tmp_path / "run", [5])


SOUND, ODD = ReplayedClip("sound", 0.7, 1.0, []), ReplayedClip("odd", 0.7, 1.0, ["silent"])
FAULTY, BOTH = ReplayedClip("faulty", math.nan, 1.0, []), ReplayedClip("both", math.nan, math.nan, ["silent"])
ABSURD = ReplayedClip("absurd", 2 * ABSURD_LOSS, 1.0, [])


@pytest.mark.parametrize(
    ("clips", "expected"),
    [
        ([SOUND, SOUND, FAULTY], True),
        ([SOUND, FAULTY, FAULTY], False),
        ([SOUND, BOTH, BOTH], True),
        ([ODD, BOTH, BOTH], False),
        ([SOUND, BOTH, FAULTY], False),
        ([SOUND, ABSURD, BOTH], False),
        ([BOTH, BOTH], False),
        ([BOTH], True),
        ([FAULTY], False),
        ([SOUND], False),
        ([ReplayedClip("not replayed", None, None, ["silent"])], False),
    ],
    ids=lambda value: ",".join(clip.names for clip in value) if isinstance(value, list) else None,
)
def test_files_are_at_fault_only_if_weights_are_not(clips, expected):
    assert files_at_fault(clips) is expected


# Only the classifier learns: how soon gradients through absurd attention scores overflow depends on the processor.
DIVERGING = ["--learning_rate", "1e4", "--max_grad_norm", "0", "--head_only_epochs", "2", "--mixup_probability", "0"]


@pytest.mark.parametrize(("limit", "is_left"), [("1", False), ("9", True)], ids=["last", "all"])
def test_checkpoints_of_a_training_that_had_diverged_are_not_called_good(recipe, tmp_path, capsys, limit, is_left):
    write_clip(Path(order_of_clips(recipe)[7 * BATCH + 1]), 1e30)
    message = stopped(
        recipe, capsys, *DIVERGING, "--warmup_steps", "4", "--save_steps", "1", "--save_total_limit", limit
    )
    assert "1 of its 4 clips give it, and others a loss over 1000: the weights are at fault" in message
    assert "Repair" not in message
    why = "the weights of step 2 gave a loss over 1000 already"
    first = tmp_path / "run" / "checkpoint-1"  # a warm-up begins at 0
    good = f"the last good checkpoint is {first} ({why})." if is_left else f"no checkpoint is good: {why}."
    assert good in message
    assert (f"--model_name_or_path {first}" in message) == is_left
    assert ("--model_name_or_path" in message) == is_left


def test_a_resumed_training_knows_which_of_its_checkpoints_had_diverged(recipe, tmp_path, capsys):
    write_clip(Path(order_of_clips(recipe)[6 * BATCH + 1]), 1e30)
    flags = [*DIVERGING, "--warmup_steps", "4", "--save_steps", "1", "--save_total_limit", "9"]
    message = stopped(recipe, capsys, *flags)
    assert "the weights of step 2 gave a loss over 1000 already" in message
    assert last_checkpoint(tmp_path / "run").name == "checkpoint-6"
    assert stopped(recipe, capsys, *flags, "--resume_from_checkpoint", "true") == message


def nan_weights(checkpoint: Path):
    weights = load_file(checkpoint / "model.safetensors")
    weights["classifier.dense.weight"][0, 0] = math.nan
    save_file(weights, checkpoint / "model.safetensors", metadata={"format": "pt"})


def infinite_optimiser_state(checkpoint: Path):
    state = torch.load(checkpoint / "optimizer.pt")
    state["state"][0]["exp_avg"].fill_(math.inf)
    torch.save(state, checkpoint / "optimizer.pt")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [(nan_weights, "its weights are not numbers"), (infinite_optimiser_state, "its optimiser state is not numbers")],
    ids=["weights", "optimiser"],
)
def test_a_checkpoint_that_holds_what_is_no_number_is_not_called_good(recipe, tmp_path, capsys, spoil, words):
    flags = ["--mixup_probability", "0", "--save_total_limit", "9"]
    command = [recipe, *flags, "--max_steps", "10"]
    prepare_run(command, parse_arguments(command)).trainer.train()
    run = tmp_path / "run"
    spoil(run / "checkpoint-10")
    message = stopped(recipe, capsys, *flags, "--resume_from_checkpoint", "true")
    good = run / "checkpoint-5"
    assert f"the last good checkpoint is {good} (checkpoint-10 is there, but {words})." in message
    assert f"--model_name_or_path {good} and another --output_dir" in message
    shutil.rmtree(good)
    message = stopped(recipe, capsys, *flags, "--resume_from_checkpoint", "true")
    assert f"no checkpoint is good: checkpoint-10 is there, but {words}." in message
    assert "--model_name_or_path" not in message


def test_a_file_is_not_at_fault_for_what_comes_after_absurd_losses(recipe, capsys):
    write_clip(Path(order_of_clips(recipe)[8]), 1e30)
    message = stopped(recipe, capsys, *DIVERGING, "--per_device_train_batch_size", "1")
    assert "at step 9 of" in message
    assert "samples up to 1e+30" in message
    assert "Repair" not in message


def a_start(recipe: str) -> list[str]:
    """Flags for a recipe without the sizes of a new model, and a checkpoint to start from."""
    fields = yaml.safe_load(Path(recipe).read_text())
    Path(recipe).write_text(yaml.safe_dump({name: fields[name] for name in fields.keys() - set(WIDTH_FIELDS)}))
    start = Path(recipe).parent / "start"
    sizes = {name: SETTINGS[name] for name in SIZE_FIELDS if name in SETTINGS}
    ASTForAudioClassification(ASTConfig(num_labels=2, **sizes)).save_pretrained(start)
    ASTFeatureExtractor(max_length=64, mean=-6.5, std=4.5).save_pretrained(start)
    return [recipe, "--model_name_or_path", str(start)]


def test_an_adapter_is_not_named_as_weights_to_start_from(recipe, tmp_path, capsys):
    pytest.importorskip("peft")
    start = a_start(recipe)
    write_clip(Path(order_of_clips(recipe)[6 * BATCH + 1]), 1e30)
    message = stopped(*start[:1], capsys, *start[1:], "--lora_rank", "2", "--mixup_probability", "0")
    assert f"the last good checkpoint is {tmp_path / 'run' / 'checkpoint-5'}" in message
    assert "anew with --overwrite_output_dir." in message
    assert "from the good weights" not in message


def test_the_good_weights_are_there_to_start_from(recipe, tmp_path, capsys):
    start = a_start(recipe)
    bad = Path(order_of_clips(recipe)[6 * BATCH + 1])
    write_clip(bad, 1e30)
    message = stopped(*start[:1], capsys, *start[1:], "--mixup_probability", "0")
    advice = re.search(r"from the good weights with (--model_name_or_path \S+) and another --output_dir\.", message)
    write_clip(bad)
    other = ["--output_dir", str(tmp_path / "other"), "--num_train_epochs", "1", "--learning_rate", "1e-4"]
    assert main([recipe, *advice[1].split(), *other]) == 0


def test_a_clip_of_the_scored_split_is_named_and_not_the_training(recipe, tmp_path, capsys):
    bad = tmp_path / "clips" / "test" / "a" / "1.wav"
    write_clip(bad, 1e25)
    for label in ("a", "b"):
        for index in range(2):
            write_clip(tmp_path / "clips" / "validation" / label / f"{index}.wav")
    validation = ["--overwrite_output_dir", "--validation_split_name", "validation"]
    for flags in (["--eval_strategy", "epoch"], validation):
        message = stopped(recipe, capsys, *flags, "--num_train_epochs", "1")
        assert f"numbers for 1 of 8 clips, and numbers for the others: {bad} (samples up to 1e+25" in message
        assert "Repair or leave out what is named here. The last checkpoint is " in message
        assert "diverged" not in message
        assert "--learning_rate" not in message


def test_a_model_without_any_score_that_is_a_number_has_diverged(recipe, tmp_path, capsys, monkeypatch):
    def lost(trainer):
        trainer.model.classifier.dense.bias.data.fill_(math.nan)

    monkeypatch.setattr("finetune.runs.training_run.merge_into_trainer", lost)
    message = stopped(recipe, capsys, "--num_train_epochs", "1")
    assert "its training diverged. Train it with a lower --learning_rate" in message
    last = tmp_path / "run" / f"checkpoint-{STEPS_PER_EPOCH}"
    assert f"The last checkpoint is {last}. Start anew with --overwrite_output_dir." in message


def gradients_that_are_not_numbers(monkeypatch, threshold: float):
    """Let clips with larger features have gradients, but not losses, that are not numbers."""
    compute_loss = ASTTrainer.compute_loss

    def disturbed(self, model, inputs, *args, **kwargs):
        loss = compute_loss(self, model, inputs, *args, **kwargs)
        if model.training and inputs["input_values"].max() > threshold:
            loss = loss + (0 * self.model.classifier.dense.weight.sum()).sqrt()  # 0, with the slope 0 * infinity
        return loss

    monkeypatch.setattr(ASTTrainer, "compute_loss", disturbed)


def test_gradients_that_are_not_numbers_stop_the_training_before_their_update(recipe, tmp_path, capsys, monkeypatch):
    flags = ["--mixup_probability", "0", "--max_time_mask", "0", "--gradient_accumulation_steps", "2"]
    bad = Path(order_of_clips(recipe)[2 * BATCH + 1])  # in the second update, if it has two batches
    write_clip(bad, 1e6)
    gradients_that_are_not_numbers(monkeypatch, 2.5)
    message = stopped(recipe, capsys, *flags, "--save_steps", "1")
    assert "The norm of the gradients is nan, though each loss is a number, at step 2 of" in message
    assert "Replayed one by one with the weights of that moment" in message
    assert re.search(
        rf"1 of its {2 * BATCH} clip\(s\) give it: {re.escape(str(bad))} \(loss [\d.]+, gradient norm nan;", message
    )
    assert_only_whole_checkpoints(tmp_path / "run", [1])


@pytest.fixture
def like_an_accelerator(monkeypatch):
    """Look at losses as rarely as where each look has to wait for the device."""
    on_train_begin = DivergenceWatch.on_train_begin

    def begin(self, args, state, control, **kwargs):
        device = types.SimpleNamespace(device=torch.device("cuda"))
        on_train_begin(self, device, state, control, **kwargs)

    monkeypatch.setattr(DivergenceWatch, "on_train_begin", begin)


def test_on_an_accelerator_the_batch_is_found_when_its_loss_is_looked_at(
    recipe, tmp_path, capsys, like_an_accelerator
):
    bad = Path(order_of_clips(recipe)[6 * BATCH + 1])
    write_clip(bad, 1e30)
    flags = ["--mixup_probability", "0", "--logging_strategy", "steps", "--logging_steps", "8"]
    message = stopped(recipe, capsys, *flags)
    assert "The loss of a batch is nan at step 7 of" in message
    checkpoint = tmp_path / "run" / "checkpoint-5"
    assert f"with the weights of {checkpoint}, 1 of its {BATCH} clip(s) give it: {bad} (loss nan" in message
    assert_only_whole_checkpoints(tmp_path / "run", [5])


def test_on_an_accelerator_nothing_is_looked_at_in_between(recipe, tmp_path, capsys, like_an_accelerator, monkeypatch):
    looks = []
    check = DivergenceWatch.check
    monkeypatch.setattr(
        DivergenceWatch, "check", lambda self: looks.append(self.trainer.state.global_step) or check(self)
    )
    flags = ["--logging_strategy", "steps", "--logging_steps", "7", "--save_steps", "100", "--num_train_epochs", "1"]
    assert main([recipe, *flags]) == 0
    last = STEPS_PER_EPOCH
    assert looks == [
        6,
        7,
        last,
        last,
    ]  # before the 7th update, when it is logged, before the last save, after the epoch


def test_gradients_that_overflow_in_float16_only_skip_their_update(recipe, tmp_path, monkeypatch):
    arguments = parse_arguments([recipe, "--mixup_probability", "0", "--num_train_epochs", "1"])
    trainer = prepare_run([recipe], arguments).trainer
    trainer.accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127)
    norms = []
    monkeypatch.setattr(
        trainer.accelerator,
        "clip_grad_norm_",
        lambda parameters, *_: norms.append(torch.stack([p.grad.abs().max() for p in parameters]).max()) or norms[-1],
    )
    trainer.train()
    assert not norms[0].isfinite()
    assert norms[-1].isfinite(), "the scale came down"
    assert all(weight.isfinite().all() for weight in trainer.model.parameters())


@pytest.mark.parametrize(
    ("waveform", "words"),
    [
        (np.zeros(100), ["silent"]),
        (np.tile([1e-5, -1e-5], 50), ["silent"]),
        (np.tile([1.0, -1.0, 0.1, -0.1], 25), ["clipped, 50% of its samples at full scale"]),
        (np.full(100, 0.5), ["silent", "its mean is 0.5, not 0"]),
        (np.tile([3e5, -3e5], 50), ["samples up to 3e+05, expected from -1 to 1"]),
        (np.tile([0.5, -0.5], 50), []),
    ],
)
def test_what_is_odd_about_a_clip(waveform, words):
    assert waveform_oddities(waveform.astype(np.float32)) == words


def test_what_is_odd_about_features():
    features = torch.zeros(1, 4, 8)
    assert feature_oddities(features) == []
    features[0, 1, 2] = -30
    assert feature_oddities(features) == ["normalised features up to 30"]
    features[0, 1, 2] = math.inf
    assert feature_oddities(features) == ["its features are not numbers"]
