"""The fields of `transformers.TrainingArguments`: the fifth group."""

from dataclasses import dataclass, field

import torch
from transformers import TrainingArguments

from .given import ArgumentGroup
from .training_fields import refuse_mappings, refuse_numbers, refuse_unreadable

# The original's, and one for several sets of labels; the others are those of `TrainingArguments` that there are here.
BALANCED_STRATEGIES = ("class_balanced", "set_balanced")
SAMPLING_STRATEGIES = ("random", "group_by_length", *BALANCED_STRATEGIES)


@dataclass
class ASTTrainingArguments(ArgumentGroup, TrainingArguments):
    """`TrainingArguments` with this kit's defaults and what it adds."""

    output_dir: str | None = field(default=None, metadata={"help": "Folder for the checkpoint, summary and card."})
    overwrite_output_dir: bool = field(
        default=False,
        metadata={
            "help": "Replace the run that output_dir already holds, its checkpoints and TensorBoard curves too."
        },
    )
    dry_run: bool = field(
        default=False,
        metadata={"help": "Look at the data, estimate time and memory, draw augmented spectrograms; train nothing."},
    )
    learning_rate: float = field(default=1e-5, metadata={"help": "Peak learning rate; AST needs small ones."})
    eval_strategy: str = field(
        default="no", metadata={"help": "When to score in training: no (once, at the end), epoch or steps."}
    )
    logging_strategy: str = field(default="epoch", metadata={"help": "When to log the loss: epoch or steps."})
    save_strategy: str = field(default="epoch", metadata={"help": "When to save for resuming: epoch, steps or no."})
    save_total_limit: int | None = field(default=1, metadata={"help": "Checkpoints kept for resuming."})
    save_in_background: bool = field(
        default=True,
        metadata={
            "help": "Train on while a checkpoint gets onto the disk and older ones are removed; in one process."
        },
    )
    report_to: str = field(
        default="none", metadata={"help": "Where to log as well, for example tensorboard (into output_dir/runs)."}
    )
    disable_tqdm: bool = field(default=False, metadata={"help": "No progress bar; the line of each epoch stays."})
    train_sampling_strategy: str = field(
        default="random",
        metadata={
            "help": "Order of the training clips: 'random', 'group_by_length' (with --padding longest), or 'class_balanced', "
            "which draws clips of rare labels more often, as the original does on AudioSet; 'set_balanced' draws from all sets "
            "of --loss label_sets alike.",
            "choices": list(SAMPLING_STRATEGIES),
        },
    )
    set_shares: list[str] = field(
        default_factory=list,
        metadata={
            "help": "With set_balanced: how often sets are drawn against the others, which have 1, as in drums=4 words=2."
        },
    )
    logging_nan_inf_filter: bool = field(
        default=False, metadata={"help": "Hide NaN losses in the log; looking for them makes an accelerator wait."}
    )
    hub_strategy: str = field(
        default="end", metadata={"help": "When to push: only at the end, the finished run with its card."}
    )
    remove_unused_columns: bool = field(default=False, metadata={"help": "The collator chooses columns itself."})
    label_names: list[str] = field(default_factory=lambda: ["labels"], metadata={"help": "Batch keys of the labels."})

    @property
    def reading_workers(self) -> int | None:
        """Processes that read clips before a training, where they are checked and measured; `None` if nobody said how many."""
        return self.dataloader_num_workers if "dataloader_num_workers" in self.given else None

    def __post_init__(self):
        if not self.output_dir:
            raise ValueError("No output folder was given. Pass --output_dir FOLDER.")
        refuse_numbers(self)
        refuse_unreadable(self)
        if self.load_best_model_at_end and "no" in (self.eval_strategy, self.save_strategy):
            raise ValueError(
                "load_best_model_at_end chooses among checkpoints that were scored in training, and there would be none. Pass "
                "--eval_strategy epoch with --save_strategy epoch, or leave it out."
            )
        own_accelerator_config = self.accelerator_config is not None
        try:
            super().__post_init__()
        except TypeError as error:  # of a mapping with a name that its class does not have
            raise ValueError(
                f"The fields of TrainingArguments do not fit: {error}. Correct --accelerator_config or --fsdp_config."
            ) from error
        refuse_mappings(self)
        if self.accelerator_config.dispatch_batches:
            raise ValueError(
                "accelerator_config asks for dispatch_batches, which cannot cut batches of waveforms. Leave it out: every "
                "process reads its own clips."
            )
        # Pinned memory speeds up copies to an accelerator; without one torch warns of it.
        self.dataloader_pin_memory = self.dataloader_pin_memory and torch.accelerator.is_available()
        if self.dataloader_pin_memory and not own_accelerator_config:  # and lets them go on beside the computation
            self.accelerator_config.non_blocking = True
