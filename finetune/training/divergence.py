"""Finds a training whose losses, gradients or weights are no longer numbers, and the clips that it comes from.

Losses and gradient norms stay on the device as they come and are looked at together: on a CPU in every step, before its
update is made; on an accelerator, which would have to wait for each look, every `--logging_steps` steps and at least
every 50, whatever the logging strategy. Nothing is evaluated or saved before the weights it needs were looked at.
"""

import math
import statistics
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate.utils import gather_object
from transformers import TrainerCallback

from modeling_ast.audio import AudioError

from ..clip_sets.clip_oddities import feature_oddities, waveform_oddities
from ..scores.scoring import DivergedError
from ..sources.data_errors import NAMES_SHOWN
from .checkpoint_files import fault_of
from .run_folder import checkpoints_in, step_of

CHECK_STEPS = 50  # most steps between two looks on an accelerator, where one costs less than a thousandth of these
LARGE_GRADIENT = 10.0  # times that of the other clips
DIVERGED = "diverged_step"  # key in the log of a training
ABSURD_LOSS = 1000.0  # cross-entropy of a model that gives the right label a probability of exp(-1000)


@dataclass(frozen=True)
class MicroBatch:
    """What is kept of a micro-batch until its loss has been looked at.

    Args:
        step (`int`): update that it belongs to, from 1.
        keys (`list[tuple[int, int, int]]`): epoch, index and visit of its clips; empty if the batch does not tell.
        loss (`torch.Tensor`): scalar, on the training device.
    """

    step: int
    keys: list
    loss: torch.Tensor


@dataclass(frozen=True)
class ReplayedClip:
    """A clip that was given to the model again, alone, with the same draws.

    Args:
        names (`str`): its file, and those of its mixup partners.
        loss (`float`, *optional*): `None` where no weights are left to compute it with.
        gradient_norm (`float`, *optional*): likewise.
        oddities (`list[str]`): in words what is unusual about its audio.
    """

    names: str
    loss: float | None
    gradient_norm: float | None
    oddities: list[str]

    @property
    def is_faulty(self) -> bool:
        """Whether this clip alone gives a loss or gradients that are not numbers."""
        return self.loss is not None and not (math.isfinite(self.loss) and math.isfinite(self.gradient_norm))

    def __str__(self) -> str:
        values = [] if self.loss is None else [f"loss {self.loss:.4g}, gradient norm {self.gradient_norm:.4g}"]
        return f"{self.names} ({'; '.join(values + self.oddities)})" if values + self.oddities else self.names


class NotANumberError(DivergedError):
    """A training whose losses, gradients or weights are no longer numbers. All processes of a training raise it alike.

    Args:
        message (`str`): what happened, and which clips it comes from.
        step (`int`): update at which it was found, from 1.
        clips (`list[ReplayedClip]`): those of its batch.
        by_files (`bool`): whether it comes from some of these clips; see [`files_at_fault`].
    """

    def __init__(self, message: str, step: int, clips: list[ReplayedClip], by_files: bool = False):
        super().__init__(message)
        self.step = step
        self.clips = clips
        self.by_files = by_files


class DivergenceWatch(TrainerCallback):
    """Stops a training as soon as it is known that a loss, a gradient or a weight is not a number.

    Gradients that overflow in float16 do not count: its loss scaling skips their update and goes on.

    Args:
        trainer ([`ASTTrainer`]): which gives each loss to `add_loss` and each gradient norm to `add_gradient_norm`.

    Attributes:
        diverged_step (`int`, *optional*): the first update, after which the weights gave a loss that is a number but absurd.
            Every checkpoint from there on says so in its log, and so a resumed training knows it too.
    """

    def __init__(self, trainer):
        self.trainer = trainer
        self.check_steps = 1
        self.diverged_step: int | None = None
        self._reset()

    def _reset(self):
        self._micro_batches: list[MicroBatch] = []
        self._gradient_norms: list[tuple[int, torch.Tensor]] = []
        self._last_inputs: dict | None = None
        self._confirmed_step = -1

    def on_train_begin(self, args, state, control, **kwargs):
        """See `TrainerCallback.on_train_begin`: forgets the training before, and reads in the log whether this one diverged."""
        self._reset()
        self.diverged_step = next((entry[DIVERGED] for entry in state.log_history if DIVERGED in entry), None)
        on_cpu = args.device.type == "cpu"
        self.check_steps = 1 if on_cpu else max(1, min(int(state.logging_steps or CHECK_STEPS), CHECK_STEPS))

    def on_step_end(self, args, state, control, **kwargs):
        """See `TrainerCallback.on_step_end`: checks losses and gradients before a log, weights before they are saved."""
        if control.should_save or control.should_evaluate:
            self.confirm_weights()
        elif control.should_log:  # which waits for the device anyway
            self.check()

    def on_epoch_end(self, args, state, control, **kwargs):
        """See `TrainerCallback.on_epoch_end`: checks losses, gradients and weights, whatever the epoch saves."""
        self.confirm_weights()

    def on_train_end(self, args, state, control, **kwargs):
        """See `TrainerCallback.on_train_end`: lets go of the batches that it has kept."""
        self._reset()

    def add_loss(self, inputs: dict, loss: torch.Tensor):
        """Keep the loss of a micro-batch, and the last micro-batch itself.

        Args:
            inputs (`dict`): the micro-batch as the collator made it.
            loss (`torch.Tensor`): its loss, a scalar.
        """
        step = self.trainer.state.global_step + 1
        self._micro_batches.append(MicroBatch(step, inputs.get("keys", []), loss.detach()))
        self._last_inputs = inputs

    def add_gradient_norm(self, norm: torch.Tensor | float | None):
        """Keep the gradient norm of an update that is about to be made, and look if it is time to.

        Args:
            norm (`torch.Tensor`): before clipping, over all processes; `None` or a number where DeepSpeed keeps it.

        Raises:
            NotANumberError: see [`DivergenceWatch.check`].
        """
        step = self.trainer.state.global_step + 1
        if norm is not None and self.trainer.accelerator.scaler is None:
            norm = torch.as_tensor(norm, dtype=torch.float32, device=self.trainer.args.device)
            self._gradient_norms.append((step, norm.detach()))
        if step % self.check_steps == 0:
            self.check()

    def check(self):
        """Look at the losses and gradient norms since the last look.

        Raises:
            NotANumberError: if one of them, in any of the processes, is NaN or infinite.
        """
        micro_batches, norms = self._micro_batches, self._gradient_norms
        self._micro_batches, self._gradient_norms = [], []
        if not micro_batches:
            return
        values = torch.stack([batch.loss.float() for batch in micro_batches] + [norm for _, norm in norms])
        finite = values.isfinite()
        # A loss of `Trainer` is its share of the update's mean.
        absurd = (values * self.trainer.args.gradient_accumulation_steps > ABSURD_LOSS) & finite
        absurd = absurd[: len(micro_batches)]
        all_finite, all_sane = self._all_processes(finite.all(), ~absurd.any())
        if not all_sane and self.diverged_step is None:
            steps = [batch.step - 1 for batch, bad in zip(micro_batches, absurd.tolist(), strict=True) if bad]
            self._set_diverged_step(min(gather_object([min(steps, default=math.inf)])))
        if all_finite:
            return
        finite, values = finite.tolist(), values.tolist()
        bad_losses = [batch.step for batch, good in zip(micro_batches, finite, strict=False) if not good]
        bad_norms = [step for (step, _), good in zip(norms, finite[len(micro_batches) :], strict=True) if not good]
        step = min(gather_object([min([*bad_losses, *bad_norms], default=math.inf)]))
        by_loss = any(gather_object([step in bad_losses]))
        suspects = [
            batch
            for batch, good in zip(micro_batches, finite, strict=False)
            if batch.step == step and not (by_loss and good)
        ]
        value = next((value for batch, value in zip(micro_batches, values, strict=False) if batch in suspects), None)
        norm = next((values[len(micro_batches) + row] for row, (at, _) in enumerate(norms) if at == step), None)
        raise self._error(step, by_loss, value if by_loss else norm, suspects)

    def confirm_weights(self):
        """Look at what was computed since the last look, and whether the weights of now are worth saving.

        The last micro-batch is given to the model once more, which costs less than a training step and draws nothing.

        Raises:
            NotANumberError: if they are not numbers, or give a loss that is none.
        """
        self.check()
        state = self.trainer.state
        if self._last_inputs is None or self._confirmed_step == state.global_step:
            return
        model = self.trainer.model_wrapped
        model.eval()
        with torch.no_grad(), self.trainer.compute_loss_context_manager():
            loss = self.trainer.compute_loss(model, self.trainer._prepare_inputs(self._last_inputs))
        model.train()
        good = loss.isfinite().all()
        if not self.trainer.is_fsdp_enabled:  # whose parameters are spread over the processes
            good = good & torch.stack([weight.isfinite().all() for weight in self.trainer.model.parameters()]).all()
        all_good, all_sane = self._all_processes(good, loss <= ABSURD_LOSS)
        if not all_good:
            raise NotANumberError(
                f"The update of step {state.global_step} of {state.max_steps} made weights that are not numbers, or give a "
                "loss that is none, though losses and gradients up to there are numbers: the learning rate is too high.",
                state.global_step,
                clips=[],
            )
        if not all_sane and self.diverged_step is None:
            self._set_diverged_step(state.global_step)
        self._confirmed_step = state.global_step

    def good_checkpoint(self) -> Path | None:
        """The last checkpoint of this run with nothing wrong about it.

        Returns:
            `Path`, *optional*: a folder `checkpoint-N`.
        """
        self.trainer.wait_for_checkpoint()
        checkpoints = checkpoints_in(self.trainer.args.output_dir)
        return next((path for path in reversed(checkpoints) if self.fault_of(path) is None), None)

    def fault_of(self, checkpoint: Path) -> str | None:
        """Why a checkpoint of this run is not good, in words; `None` if it is.

        Args:
            checkpoint (`Path`): also one that the run was resumed from, of whose losses less is known.

        Returns:
            `str`, *optional*: the fault.
        """
        if self.diverged_step is not None and step_of(checkpoint) >= self.diverged_step:
            return f"the weights of step {self.diverged_step} gave a loss over {ABSURD_LOSS:g} already"
        fault = fault_of(checkpoint, not self.trainer.is_deepspeed_enabled)
        return None if fault is None else f"{checkpoint.name} is there, but {fault}"

    def _set_diverged_step(self, step: int):
        self.diverged_step = step
        self.trainer.state.log_history.append({DIVERGED: step, "step": self.trainer.state.global_step})

    def _all_processes(self, *good: torch.Tensor) -> list[bool]:
        """Whether each of these is true in all processes."""
        bad = torch.stack([~value for value in good]).to(torch.float32)
        return [not count for count in self.trainer.accelerator.reduce(bad, reduction="sum").tolist()]

    def _error(self, step: int, by_loss: bool, value: float | None, suspects: list[MicroBatch]) -> NotANumberError:
        """What happened, where, and what is at fault; the same in all processes."""
        state = self.trainer.state
        values = [value for value in gather_object([value if suspects else None]) if value is not None]
        clips, weights, refused = self._replay([key for batch in suspects for key in batch.keys])
        clips, refused = gather_object(clips), gather_object(refused)
        by_files = self.diverged_step is None and files_at_fault(clips)
        what = (
            f"The loss of a batch is {values[0]:g}"
            if by_loss
            else f"The norm of the gradients is {values[0]:g}, though each loss is a number,"
        )
        epochs = f", epoch {state.epoch:.3g} of {state.num_train_epochs}" if state.epoch else ""
        words = [f"{what} at step {step} of {state.max_steps}{epochs}."]
        if clips:
            words.append(_clips_in_words(clips, weights, by_files))
        if refused:
            words.append(f"Not read again: {'; '.join(refused[:NAMES_SHOWN])}.")
        return NotANumberError(" ".join(words), step, clips, by_files)

    def _replay(self, keys: list) -> tuple[list[ReplayedClip], str | None, list[str]]:
        """Give these clips to the model again, one by one, with the draws they had.

        Returns:
            The clips; in words which weights they were replayed with; and what is wrong with clips that could not be read.
        """
        trainer = self.trainer
        dataset = trainer.train_dataset
        weights = self._find_weights()
        clips, refused = [], []
        for key, sources, names in dataset.replay(keys):
            try:
                item = dataset[key]
                waveforms = list(dataset.waveforms(sources)) if dataset.hears_audio else []
                inputs = trainer._prepare_inputs(trainer.data_collator([item]))
            except (AudioError, OSError) as error:
                refused.append(str(error))
                continue
            features = inputs["input_values"]
            loss, norm = (None, None) if weights is None else self._loss_and_gradient_norm(inputs)
            odd = {word: None for waveform in waveforms for word in waveform_oddities(waveform)}
            odd |= dict.fromkeys(feature_oddities(features))
            clips.append(ReplayedClip(" mixed with ".join(names), loss, norm, list(odd)))
        trainer.model.zero_grad()
        return clips, weights, refused

    def _find_weights(self) -> str | None:
        """Put weights that are numbers into the model; say in words which, or `None` if there are none."""
        trainer = self.trainer
        if trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:
            return None  # a process holds only a part of them

        def finite() -> bool:
            return all(bool(weight.isfinite().all()) for weight in trainer.model.parameters())

        if finite():
            return "the weights of that moment" if self.check_steps == 1 else "the weights of now"
        checkpoint = self.good_checkpoint()
        if checkpoint is not None:
            trainer._load_from_checkpoint(str(checkpoint))
        return f"the weights of {checkpoint}" if checkpoint is not None and finite() else None

    def _loss_and_gradient_norm(self, inputs: dict) -> tuple[float, float]:
        trainer = self.trainer
        trainer.model.zero_grad()
        trainer.model.train()
        with trainer.compute_loss_context_manager():
            loss = trainer.compute_loss(trainer.model, inputs)
        loss.backward()
        gradients = [weight.grad for weight in trainer.model.parameters() if weight.grad is not None]
        return loss.item(), torch.nn.utils.get_total_norm(gradients).item()


def files_at_fault(clips: list[ReplayedClip]) -> bool:
    """Whether what is not a number comes from some of the clips, and not from the weights, which would spare few of them.

    Args:
        clips (`list[ReplayedClip]`): all clips of a batch.

    Returns:
        `bool`: whether they are.
    """
    faulty, sound = _parted(clips)
    if not faulty or _are_absurd(sound):
        return False
    tell_apart = all(clip.oddities for clip in faulty) and not any(clip.oddities for clip in sound)
    return 2 * len(faulty) <= len(clips) or (tell_apart and (bool(sound) or len(clips) == 1))


def _parted(clips: list[ReplayedClip]) -> tuple[list[ReplayedClip], list[ReplayedClip]]:
    return [clip for clip in clips if clip.is_faulty], [clip for clip in clips if not clip.is_faulty]


def _are_absurd(sound: list[ReplayedClip]) -> bool:
    # Of weights that are no use the larger losses tell: clips of the label that they always give have none.
    return any(clip.loss is not None and clip.loss > ABSURD_LOSS for clip in sound)


def _clips_in_words(clips: list[ReplayedClip], weights: str | None, by_files: bool) -> str:
    faulty, sound = _parted(clips)
    replayed = f"Replayed one by one with {weights},"
    if faulty and len(clips) > 1 and not by_files:
        share = len(faulty) if sound else "all"
        others = f", and others a loss over {ABSURD_LOSS:g}" if _are_absurd(sound) else ""
        return (
            f"{replayed} {share} of its {len(clips)} clips give it{others}: the weights are at fault. They are "
            f"{_listed(clips)}."
        )
    if faulty:
        return f"{replayed} {len(faulty)} of its {len(clips)} clip(s) give it: {_listed(faulty)}."
    odd = [clip for clip in clips if clip.oddities]
    if weights is None:
        alone = f"No weights that are numbers are left to replay its {len(clips)} clip(s) with."
    else:
        alone = f"{replayed} none of its {len(clips)} clip(s) gives it alone."
        typical = statistics.median(clip.gradient_norm for clip in clips)
        odd += [c for c in clips if c.gradient_norm > LARGE_GRADIENT * typical and c not in odd]
    return f"{alone} Unusual are {_listed(odd)}." if odd else f"{alone} They are {_listed(clips)}."


def _listed(clips: list[ReplayedClip]) -> str:
    more = f" and {len(clips) - NAMES_SHOWN} more" if len(clips) > NAMES_SHOWN else ""
    return ", ".join(str(clip) for clip in clips[:NAMES_SHOWN]) + more
