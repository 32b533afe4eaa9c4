"""Fine-tuning from a notebook or script, on a data set that is there as a Python object.

It is the run of `ast-finetune` with the same fields, checks and output folder; only the clips come as they are.
"""

import os
from dataclasses import replace

import datasets

from .arguments.command_line import NOT_RECORDED, fields_as_flags, parse_arguments, shown_value
from .failures.held_folder import held_output_dir
from .failures.input_errors import input_errors_in_words
from .runs.training_run import prepare_run, train_run
from .sources.clips import clips_of_dataset
from .sources.data_errors import DataError
from .sources.splits import split_clips

IN_PYTHON = "the data set"  # stands where the command line has a name of the data
# What says where clips are, is read from there, or is done with another command.
NOT_IN_PYTHON = (
    "dataset_config_name", "train_file", "eval_file", "validation_file", "fold_column_name", "streaming", "dry_run"
)  # fmt: skip


def fine_tune(
    dataset: datasets.Dataset | datasets.DatasetDict,
    *,
    output_dir: str | os.PathLike,
    dataset_name: str | None = None,
    **fields,
) -> dict:
    """Fine-tune AST on a data set in memory and write the checkpoint folder that `ast-finetune` writes.

    Args:
        dataset (`datasets.Dataset` or `datasets.DatasetDict`): clips in a `datasets.Audio` column, decoded or not, of any
            sampling rate, or paths or bytes of audio files, or arrays, `{"array": ..., "sampling_rate": ...}`: floats in
            [-1, 1], or integers at their full scale, of one or several channels; and a column of labels. Of a `DatasetDict`
            the splits `train_split_name` and `eval_split_name` are taken; a `Dataset` is split by its column
            `split_column_name`, or, if it has none, a share `eval_fraction` is held out.
        output_dir (`str` or `os.PathLike`): folder for the checkpoint, summary and card.
        dataset_name (`str`, *optional*): what summary and card call the data; an id like `user/name` becomes a link to
            the Hub. Nothing is loaded by it.
        fields: what recipes and flags of `ast-finetune` can say, by the same names: `num_train_epochs=3`. A message that
            says to pass `--field value` means `field=value` here.

    Returns:
        The run summary, as in `run_summary.json`.

    Raises:
        InputError: for whatever is wrong with data or fields; nothing was trained.
        ResumeError: if the checkpoint to go on from is whole, but of another training.
        TrainingStoppedError: if the training ended early.
        NotPushedError: if the run is whole in its folder, but could not be pushed.
    """
    given = fields | {"output_dir": os.fspath(output_dir)}
    with input_errors_in_words():
        _refuse_fields(given)
        _refuse_other_types(dataset)
        argv = fields_as_flags(given, "fine_tune")
        arguments = parse_arguments([*argv, "--dataset_name", IN_PYTHON])
        data_args, training_args = arguments.data, arguments.training
        data_args.dataset_name = dataset_name
    with held_output_dir(training_args.output_dir):
        with input_errors_in_words():
            clips = clips_of_dataset(dataset, data_args, IN_PYTHON)
            loaded = split_clips(clips, data_args, training_args.seed)
        run = prepare_run(argv, arguments, loaded)
        return train_run(replace(run, summary=run.summary | {"command": _call(given, dataset_name)}))


def _refuse_fields(fields: dict):
    refused = [name for name in NOT_IN_PYTHON if fields.get(name)]
    if refused:
        raise ValueError(
            f"{', '.join(refused)} belong(s) to data that ast-finetune loads itself, and fine_tune was given a data set. Leave "
            "it out, or call ast-finetune with --dataset_name."
        )


def _refuse_other_types(dataset):
    parts = list(dataset.values()) if isinstance(dataset, dict) else [dataset]
    strange = [part for part in parts if not isinstance(part, datasets.Dataset)]
    if strange or not parts:
        found = type(strange[0] if strange else dataset).__name__
        raise DataError(
            f"fine_tune was given {'an empty' if not parts else 'a'} {found}, expected a datasets.Dataset, or a datasets.DatasetDict of "
            "them. Load it without streaming=True, or make one with datasets.Dataset.from_dict or from_list."
        )


def _call(fields: dict, dataset_name: str | None) -> str:
    """The call as it was, for the card."""
    named = {"dataset_name": dataset_name} if dataset_name else {}
    told = {name: _shown(value, name) for name, value in fields.items() if name not in NOT_RECORDED}
    return f"fine_tune(dataset, {', '.join(f'{name}={value!r}' for name, value in (named | told).items())})"


def _shown(value, field: str):
    """A field's value as the call shows it, of files and folders the names only."""
    if isinstance(value, (list, tuple)):
        return [_shown(item, field) for item in value]
    return shown_value(os.fspath(value), field) if isinstance(value, (str, os.PathLike)) else value
