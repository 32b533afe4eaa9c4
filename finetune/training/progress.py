"""What a training says while it runs: one readable line per epoch, and on a terminal a progress bar with the time left.

Away from a terminal, and with `--disable_tqdm`, there is no bar; the lines are always printed, by the main process.
"""

import math
import sys
import time

from tqdm.auto import tqdm
from transformers import Trainer, TrainingArguments
from transformers.integrations import is_tensorboard_available
from transformers.trainer_callback import ProgressCallback

from modeling_ast.system.installation import install_command

# Of the scores of an evaluation, those that a line has room for.
HEADLINES = ("loss", "accuracy", "mean_average_precision", "matching_accuracy", "reconstruction_error")


class EpochLines(ProgressCallback):
    """Prints `epoch 3/40  loss 0.412  learning rate 9.5e-06  eval accuracy 0.913  12 s, 7 min left` after each epoch.

    The loss is the mean over what was logged in this epoch; an evaluation between epochs has a line of its own.

    Args:
        trainer ([`~transformers.Trainer`]): tells the learning rate.
    """

    def __init__(self, trainer: Trainer):
        super().__init__()
        self.trainer = trainer
        self._train_begin = self._epoch_begin = 0.0
        self._first_step = 0
        self._learning_rate = 0.0
        self._pending: dict[str, float] | None = None  # values of an epoch that has ended
        self._waits_for: str | None = None
        self._losses: list[tuple[int, float]] = []  # steps and their mean loss, in this epoch
        self._logged_step = 0

    def on_train_begin(self, args, state, control, **kwargs):
        """See `TrainerCallback.on_train_begin`: opens the bar, on a terminal, and starts the clock."""
        if self._has_bars(args, state):
            super().on_train_begin(args, state, control, **kwargs)
            self.training_bar.update(state.global_step)  # a resumed run does not start at 0, nor its bar
        self.current_step = self._first_step = self._logged_step = state.global_step
        self._train_begin = time.perf_counter()
        self._pending, self._losses = None, []

    def on_step_end(self, args, state, control, **kwargs):
        """See `TrainerCallback.on_step_end`: moves the bar on, if there is one."""
        if self.training_bar is not None:
            super().on_step_end(args, state, control, **kwargs)

    def on_prediction_step(self, args, state, control, eval_dataloader=None, **kwargs):
        """See `TrainerCallback.on_prediction_step`: moves the bar of an evaluation on, on a terminal."""
        if self._has_bars(args, state):
            super().on_prediction_step(args, state, control, eval_dataloader, **kwargs)

    def on_epoch_begin(self, args, state, control, **kwargs):
        """See `TrainerCallback.on_epoch_begin`: prints the line of the epoch before, if it waits, and starts the clock anew."""
        self._print_epoch(args, state)
        self._epoch_begin = time.perf_counter()
        self._losses = []

    def on_pre_optimizer_step(self, args, state, control, **kwargs):
        """See `TrainerCallback.on_pre_optimizer_step`: notes the learning rate of this step."""
        self._learning_rate = self.trainer._get_learning_rate()  # that of this step, not yet of the next one

    def on_epoch_end(self, args, state, control, **kwargs):
        """See `TrainerCallback.on_epoch_end`: prints the line of the epoch, unless a log or scores are still to come."""
        self._pending = {}
        self._waits_for = "evaluation" if control.should_evaluate else "log" if control.should_log else None
        if self._waits_for is None:
            self._print_epoch(args, state)

    def on_log(self, args, state, control, logs=None, **kwargs):
        """See `TrainerCallback.on_log`: notes the loss, and prints the line of the epoch if it waited for that."""
        if "loss" in logs:
            self._losses.append((state.global_step - self._logged_step, logs["loss"]))
            self._logged_step = state.global_step
            if self._pending is not None and self._waits_for == "log":
                self._print_epoch(args, state)

    def on_evaluate(self, args, state, control, metrics=None, **kwargs):
        """See `TrainerCallback.on_evaluate`: adds the scores to the epoch's line, or prints them in a line of their own."""
        super().on_evaluate(args, state, control, **kwargs)
        scores = headline_scores(metrics or {}, args.metric_for_best_model)
        if self._pending is not None:
            self._pending |= scores
            self._print_epoch(args, state)
        else:
            self._say(state, f"step {state.global_step}/{state.max_steps}", scores)

    def on_train_end(self, args, state, control, **kwargs):
        """See `TrainerCallback.on_train_end`: prints the line of the last epoch, and closes the bars."""
        self._print_epoch(args, state)
        self.close()

    def say(self, line: str):
        """Print a line among those of the epochs.

        Args:
            line (`str`): what is said of the training.
        """
        self._say(self.trainer.state, line, {})

    def close(self):
        """Leave the bars as they are, for what is printed after them."""
        for bar in (self.prediction_bar, self.training_bar):
            if bar is not None:
                bar.close()
        self.prediction_bar = self.training_bar = None

    def _has_bars(self, args, state) -> bool:
        return state.is_world_process_zero and not args.disable_tqdm and sys.stderr.isatty()

    def _print_epoch(self, args, state):
        if self._pending is None:
            return
        scores, self._pending = self._pending, None
        values = {}
        steps = sum(steps for steps, _ in self._losses)
        if steps:
            values["loss"] = sum(steps * loss for steps, loss in self._losses) / steps
        now = time.perf_counter()
        trained = state.global_step - self._first_step
        left = (now - self._train_begin) / max(trained, 1) * (state.max_steps - state.global_step)
        times = duration_in_words(now - self._epoch_begin) + (f", {duration_in_words(left)} left" if left else "")
        epochs = f"epoch {state.epoch:.4g}/{math.ceil(state.num_train_epochs)}"
        self._say(state, epochs, values | {"learning rate": self._learning_rate} | scores, times)

    def _say(self, state, first: str, values: dict[str, float], last: str | None = None):
        if state.is_world_process_zero:
            words = [first, *(f"{name} {value:.4g}" for name, value in values.items()), *([last] if last else [])]
            tqdm.write("  ".join(words))
            sys.stdout.flush()


def headline_scores(metrics: dict[str, float], metric_for_best_model: str | None = None) -> dict[str, float]:
    """Loss, accuracy (mean average precision of several labels a clip; of a pretraining, its two scores) and the score
    that an epoch is chosen by.

    Args:
        metrics (`dict[str, float]`): of an evaluation, their names with the prefix `eval_`.
        metric_for_best_model (`str`, *optional*): with or without this prefix.

    Returns:
        `dict[str, float]`: without the prefix.
    """
    wanted = [f"eval_{name}" for name in HEADLINES]
    if "eval_accuracy" in metrics:
        wanted.remove("eval_mean_average_precision")
    if metric_for_best_model:
        wanted.append(f"eval_{metric_for_best_model.removeprefix('eval_')}")
    return {name.replace("_", " "): metrics[name] for name in dict.fromkeys(wanted) if name in metrics}


def duration_in_words(seconds: float) -> str:
    """A duration in the unit that suits it, for example `12 s`, `7 min`, `3.5 h`.

    Args:
        seconds (`float`): a duration.

    Returns:
        `str`: a part of a line.
    """
    if seconds < 120:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def require_reporters(args: TrainingArguments):
    """Raise an `ImportError` if the package that `--report_to` needs is not installed.

    Args:
        args (`TrainingArguments`): its `report_to` is looked at; other services than TensorBoard tell by themselves.
    """
    if "tensorboard" in args.report_to and not is_tensorboard_available():
        raise ImportError(
            "report_to='tensorboard' needs a package that is not installed. Type: " + install_command("tensorboard")
        )
