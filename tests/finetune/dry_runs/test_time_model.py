"""Times of passes that were not timed, and the flags that are proposed for less time."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from finetune.dry_runs import time_limit, time_model
from finetune.dry_runs.cost_estimate import RunCost, Steps
from finetune.dry_runs.proposals import Choice, Estimates, _targets
from finetune.dry_runs.time_limit import Deadline, TimeLimit
from finetune.dry_runs.time_model import TimedPass, TimeModel, Trainable, operations, shapes_to_time, time_passes
from finetune.training.optimization import freeze_lowest_layers
from modeling_ast import ASTConfig, ASTForAudioClassification

LAYERS = 4
CONFIG = ASTConfig(
    hidden_size=64, num_hidden_layers=LAYERS, num_attention_heads=2, intermediate_size=256, max_length=512, num_labels=3,
    attn_implementation="eager",
)  # fmt: skip
CPU = torch.device("cpu")


def counted(model, frames, backward):
    """Floating-point operations of a pass of one clip by PyTorch's own count."""
    with FlopCounterMode(display=False) as counter:
        logits = model(input_values=torch.zeros(1, frames, 128)).logits
        if backward:
            logits.sum().backward()
    return counter.get_total_flops()


@pytest.mark.parametrize("frames", [128, 512])
@pytest.mark.parametrize("frozen", [None, 0, 1, 3])
def test_operations_are_those_that_pytorch_counts(frames, frozen):
    model = ASTForAudioClassification(CONFIG)
    if frozen is None:
        assert operations(CONFIG, frames).sum() == pytest.approx(counted(model, frames, False), rel=0.01)
        return
    everything = Trainable.of(model, LAYERS)
    freeze_lowest_layers(model, LAYERS, frozen)
    trained = Trainable.of(model, LAYERS)
    assert trained == everything.without_lowest(frozen)
    # Of the lowest layer that learns, gradients of inputs that nobody needs are counted too.
    assert operations(CONFIG, frames, trained).sum() == pytest.approx(counted(model, frames, True), rel=0.08)


@pytest.mark.parametrize("slower", [1.0, 2.0])
def test_the_time_of_a_long_batch_follows_from_those_of_short_ones(slower):
    def seconds(clips, work):
        return 0.05 + clips * (work[0] + slower * work[1]) * 2e-10

    base = ASTConfig()
    trained = Trainable.whole(12)
    passes = [
        TimedPass(clips, frames, (work := operations(base, frames, trained)), seconds(clips, work))
        for clips, frames in ((1, 128), (1, 256), (1, 512))
    ]
    whole = operations(base, 1024, trained)
    assert TimeModel(passes).seconds(16, whole) == pytest.approx(seconds(16, whole), rel=0.05 if slower == 1 else 0.15)
    low, high = TimeModel(passes).range(16, whole)
    assert low <= TimeModel(passes).seconds(16, whole) <= high
    assert TimeModel(passes[:1]).seconds(1, passes[0].operations) == pytest.approx(passes[0].seconds)


def test_passes_are_timed_while_there_is_time_and_then_no_longer(monkeypatch):
    now, made = [0.0], []
    monkeypatch.setattr(time_model.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr("finetune.dry_runs.time_limit.time.monotonic", lambda: now[0])
    work = {frames: operations(CONFIG, frames) for frames in (128, 256, 512)}

    def run(clips, frames):
        made.append((clips, frames))
        now[0] += clips * work[frames].sum() / work[128].sum()

    shapes = list(shapes_to_time(5, 512))
    assert shapes == [(1, 128), (1, 256), (1, 512), (2, 512), (4, 512), (5, 512)]
    model = time_passes(run, shapes, work.get, CPU, Deadline(8.0))
    assert made == [(1, 128), (1, 128), (1, 256)]  # two of the first; the next would take some 5 s, 4 are left
    assert now[0] < 8
    time_passes(run, shapes, work.get, CPU, Deadline(100.0), known=model)
    assert [(timed.clips, timed.frames) for timed in model.passes] == shapes
    assert made[3] == (1, 512)


def test_the_stages_fit_into_the_time_together():
    shares = time_limit.LOOKING + time_limit.PREPARING + time_limit.PICTURE + time_limit.COST
    assert shares <= time_limit.WHOLE < 60


def test_stages_share_the_time_and_the_last_ones_get_theirs(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("finetune.dry_runs.time_limit.time.monotonic", lambda: now[0])
    limit = TimeLimit(50.0)
    assert limit.share(12.0, later=30.0).left == 12
    now[0] += 15.0
    assert limit.share(12.0, later=30.0).left == 5
    now[0] += 30.0
    assert limit.share(12.0, later=30.0).left == 2  # the least
    assert limit.share(12.0).left == 5


def cost_of(seconds_per_operation=1e-10):
    trained = Trainable.whole(LAYERS)
    timed = [TimedPass(1, 512, (work := operations(CONFIG, 512, trained)), float(work.sum()) * seconds_per_operation)]
    return RunCost(
        config=CONFIG, trained=trained, training=TimeModel(timed), scoring=TimeModel(timed), update=0.0, reading=0.0,
        batch_size=4, accumulation=1, eval_batch_size=4, steps=Steps(2, 25, 50, 50), scored=([10], [10]),
        frames=np.array([128] * 9 + [512]),
    )  # fmt: skip


def test_what_flags_save_follows_from_the_operations_that_are_left():
    cost = cost_of()
    trainer = SimpleNamespace(model=ASTForAudioClassification(CONFIG))
    estimates = Estimates(trainer, None, cost, Deadline(0.0))  # no time to measure anything

    def of(*choices, padding="max_length"):
        return estimates.run_seconds(choices, "random", padding)

    whole, passes = of(Choice()), 50 * 4 * operations(CONFIG, 512, cost.trained).sum() * 1e-10
    scoring = 20 * operations(CONFIG, 512).sum() * 1e-10
    assert whole == pytest.approx(passes + scoring)
    assert of(Choice(epochs=0.5)) == pytest.approx(0.5 * (passes + scoring / 2) + scoring / 2)
    frozen = (
        operations(CONFIG, 512, cost.trained.without_lowest(2)).sum() / operations(CONFIG, 512, cost.trained).sum()
    )
    assert of(Choice(frozen=2)) == pytest.approx(frozen * passes + scoring)
    half = of(Choice(config=(("max_length", 256),)))
    assert half < 0.5 * whole
    grouped, drawn = of(Choice(longest=True, grouped=True)), of(Choice(longest=True))
    assert grouped < drawn < whole  # of four clips one in three batches has a long one, if they are not grouped


def test_proposals_are_for_round_numbers_of_minutes_well_apart():
    assert _targets(124) == [60, 15, 5]
    assert _targets(10) == [5, 2]
    assert _targets(2000) == [1440, 480, 120]
