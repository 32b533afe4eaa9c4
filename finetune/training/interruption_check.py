"""A signal ends a training at the end of a step, or of the checkpoint that is being written; see
[`modeling_ast.system.interruption`]."""

from transformers import TrainerCallback

from modeling_ast.system.interruption import put_off, raise_if_interrupted


class InterruptionCheck(TrainerCallback):
    """Raises [`Interrupted`] after the step, checkpoint or batch of an evaluation in which a signal came."""

    def on_train_begin(self, args, state, control, **kwargs):
        put_off(True)

    def on_train_end(self, args, state, control, **kwargs):
        put_off(False)
        raise_if_interrupted()

    def on_step_end(self, args, state, control, **kwargs):
        raise_if_interrupted()

    def on_substep_end(self, args, state, control, **kwargs):
        raise_if_interrupted()

    def on_save(self, args, state, control, **kwargs):
        raise_if_interrupted()

    def on_prediction_step(self, args, state, control, **kwargs):
        raise_if_interrupted()
