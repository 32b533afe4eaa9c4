"""A signal ends a training at the end of a step, or of the checkpoint that is being written; see
[`modeling_ast.system.interruption`]."""

from transformers import TrainerCallback

from modeling_ast.system.interruption import put_off, raise_if_interrupted


class InterruptionCheck(TrainerCallback):
    """Raises [`Interrupted`] after the step, checkpoint or batch of an evaluation in which a signal came."""

    def on_train_begin(self, args, state, control, **kwargs):
        """See `TrainerCallback.on_train_begin`: from here on a signal waits for the next of these calls."""
        put_off(True)

    def on_train_end(self, args, state, control, **kwargs):
        """See `TrainerCallback.on_train_end`: signals act at once again, and one that came in the last step ends the run."""
        put_off(False)
        raise_if_interrupted()

    def on_step_end(self, args, state, control, **kwargs):
        """See `TrainerCallback.on_step_end`: a signal that came in this step ends the training."""
        raise_if_interrupted()

    def on_substep_end(self, args, state, control, **kwargs):
        """See `TrainerCallback.on_substep_end`: a signal that came in this micro-batch ends the training."""
        raise_if_interrupted()

    def on_save(self, args, state, control, **kwargs):
        """See `TrainerCallback.on_save`: a signal that came while the checkpoint was written ends the training."""
        raise_if_interrupted()

    def on_prediction_step(self, args, state, control, **kwargs):
        """See `TrainerCallback.on_prediction_step`: a signal that came in this batch ends the training."""
        raise_if_interrupted()
