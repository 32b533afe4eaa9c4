"""Sections of `run_summary.json` that a trainer knows without its clips, and the card of one that was built by hand."""

import platform

import torch
from transformers import PreTrainedModel, Trainer, TrainingArguments

from model_card import run_summary
from model_card.licenses import InheritedLicense, inherited_license
from model_card.render import write_model_card

from ..arguments.model_arguments import SIZE_FIELDS
from ..arguments.shipped_files import local_or_shipped

PACKAGES = ("torch", "torchaudio", "transformers", "datasets", "accelerate", "evaluate", "soxr")


def write_trainer_card(trainer: Trainer):
    """Write run summary and card of a trainer that was built by hand, with what it knows: nothing of data and scores.

    Args:
        trainer ([`ASTTrainer`]): whose model lies in its output folder.
    """
    config = trainer.model.config
    start = config.name_or_path
    summary = {
        **run_summary.origin_section([], shown_checkpoint(start) if start else None),
        "command": None,
        **license_section(None, start),
        "labels": [config.id2label[index] for index in range(config.num_labels)],
        "problem_type": config.problem_type,
        "features": run_summary.features_section(trainer.feature_extractor, None),
        "model": model_section(trainer.model),
        "history": history_section(trainer.state.log_history),
        "environment": environment_section(trainer.args),
    }
    run_summary.write_run_summary(trainer.args.output_dir, summary)
    write_model_card(trainer.args.output_dir)


def shown_checkpoint(name: str) -> str:
    """Name a checkpoint as the card does: where a folder lies is private.

    Args:
        name (`str`): Hub id, or path of a folder.

    Returns:
        `str`: a Hub id as it is; of a folder `./` and its name, by which the card knows a local checkpoint.
    """
    return hub_id_or_none(name) or f"./{run_summary.shown_name(name)}"


def hub_id_or_none(name: str | None) -> str | None:
    """Tell ids on the Hub from folders and files of this machine, which are nobody else's business.

    Args:
        name (`str`, *optional*): Hub id, or path.

    Returns:
        `str`, *optional*: `name` if nothing of that name is on this machine.
    """
    return None if name is None or local_or_shipped(name).exists() else name


def license_section(given: str | None, start: str | None) -> dict:
    """The licence of the trained model, and the notice that has to go along with weights it was trained from.

    Args:
        given (`str`, *optional*): `--license`; without it the model has that of the checkpoint it starts from.
        start (`str`, *optional*): the checkpoint that is trained further; see [`inherited_license`].

    Returns:
        `dict`: `license`, and `license_notice` where there is one.
    """
    inherited = inherited_license(start) if start else InheritedLicense()
    section = {"license": given or inherited.license}
    return section | ({"license_notice": inherited.notice} if inherited.notice else {})


def license_in_words(license: str | None, start: str) -> str:
    """Say what the licence of a model is that was not given one.

    Args:
        license (`str`, *optional*): that of the checkpoint it starts from.
        start (`str`): this checkpoint.

    Returns:
        `str`: a part of a line.
    """
    if license is None:
        return f"{start} names no licence: pass --license to have one on the card"
    return f"licence {license}, that of {start}; otherwise pass --license"


def model_section(model: PreTrainedModel) -> dict:
    """Count the parameters of a model and list its sizes.

    Args:
        model ([`ASTPreTrainedModel`]): the model.

    Returns:
        `dict`: `parameters`, and the fields of the configuration that are in `SIZE_FIELDS`.
    """
    return {"parameters": model.num_parameters()} | {name: getattr(model.config, name) for name in SIZE_FIELDS}


def history_section(log_history: list[dict]) -> list[dict]:
    """Join what was logged at the same point of the epoch axis.

    Args:
        log_history (`list[dict]`): of the state of a `Trainer`.

    Returns:
        `list[dict]`: one row per point, in their order, with training and evaluation values together.
    """
    rows: dict[float, dict] = {}
    for entry in log_history:
        if "loss" in entry or any(name.startswith("eval_") for name in entry):
            values = {name: value for name, value in entry.items() if name not in ("step", "grad_norm")}
            rows.setdefault(entry["epoch"], {}).update(values)
    return [rows[epoch] for epoch in sorted(rows)]


def environment_section(args: TrainingArguments) -> dict:
    """Name what a training runs on.

    Args:
        args (`TrainingArguments`): of the training.

    Returns:
        `dict`: versions of Python and the packages, `device`, `threads` and `processes`.
    """
    return {
        "python": platform.python_version(),
        **run_summary.versions(PACKAGES),
        "device": args.device.type,
        "threads": torch.get_num_threads(),
        "processes": args.world_size,
    }
