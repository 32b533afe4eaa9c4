"""The command line of `ast-finetune` and `ast-pretrain`: a YAML recipe under flags, read into groups of fields, and the merged result.

`HfArgumentParser` makes the flags; a recipe is a YAML file with the same names. Flags override the recipe.
"""

import argparse
import dataclasses
import difflib
import functools
import itertools
import json
import math
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import NoReturn

import yaml
from transformers import HfArgumentParser
from transformers.hf_argparser import string_to_bool

from model_card.file_names import RECIPE_NAME
from model_card.run_summary import FIELDS_OF_LABELS, shown_word
from model_card.yaml_files import compose_yaml, value_of
from modeling_ast.system.regular_files import refuse_special

from .conflicts import check_together
from .given import read_groups
from .groups import COMMANDS, FINE_TUNING, ASTTrainingArguments, Command, RunArguments
from .pretraining_arguments import NOT_IN_PRETRAINING
from .shipped_files import local_or_shipped
from .training_fields import HUB_FIELDS

COMMON_TRAINING_FIELDS = {
    "num_train_epochs",
    "max_steps",
    "per_device_train_batch_size",
    "per_device_eval_batch_size",
    "gradient_accumulation_steps",
    "activation_checkpointing",
    "lr_scheduler_type",
    "warmup_steps",
    "weight_decay",
    "max_grad_norm",
    "seed",
    "bf16",
    "dataloader_num_workers",
    "load_best_model_at_end",
    "metric_for_best_model",
    "push_to_hub",
    "hub_model_id",
    "hub_private_repo",
    "hub_revision",
    "resume_from_checkpoint",
    "torch_compile",
    "train_sampling_strategy",
    "use_cpu",
}
# Groups of all commands, each field once: those of `ast-finetune` come first.
ALL_GROUPS = tuple(dict.fromkeys(group for command in COMMANDS for group in command.groups))
# First lines of a recipe that a run saves: how it is run again.
COMMAND_LINES = {command.name: f"# {command.name} {RECIPE_NAME}" for command in COMMANDS}
PYTHON_LINE = (
    f"""# Of clips that were a data set in Python: fine_tune(dataset, **yaml.safe_load(open("{RECIPE_NAME}")))"""
)
# What other trainers call a field, where another is nearer by its letters.
NAMES_ELSEWHERE = {
    "batch_size": "per_device_train_batch_size",
    "data": "dataset_name",
    "data_dir": "dataset_name",
    "dataset": "dataset_name",
    "dropout": "hidden_dropout_prob",
    "epochs": "num_train_epochs",
    "lr": "learning_rate",
    "mixup": "mixup_probability",
    "model": "model_name_or_path",
    "num_epochs": "num_train_epochs",
    "num_workers": "dataloader_num_workers",
    "output": "output_dir",
    "resume": "resume_from_checkpoint",
    "scheduler": "lr_scheduler_type",
    "steps": "max_steps",
    "workers": "dataloader_num_workers",
}
LARGEST_RECIPE = 1 << 20  # of a recipe
LONGEST_NUMBER = 40  # characters
NEGATIVE_NUMBER = re.compile(r"-\d+|-\d*\.\d+")  # what argparse takes for a value although it begins with -
# Nor how it is published: whoever runs a published recipe again has another account.
NOT_RECORDED = (
    "overwrite_output_dir", "resume_from_checkpoint", "dry_run",
    "push_to_hub", *HUB_FIELDS, "hub_token", "hub_strategy", "hub_always_push",
)  # fmt: skip


class _Parser(HfArgumentParser):
    """A parser whose errors are exceptions: `fine_tune` must not end the session that it is called in."""

    def error(self, message: str) -> NoReturn:
        raise ValueError(f"{message.removeprefix('argument ').rstrip('.')}. See {self.prog} --help.")


def parse_arguments(argv: list[str], command: Command = FINE_TUNING) -> RunArguments:
    """Read `[RECIPE.yaml] [--field value ...]`; a flag overrides the recipe's field.

    Args:
        argv (`list[str]`): the words of the command line after the command.
        command ([`Command`], defaults to `FINE_TUNING`): which one it is.

    Returns:
        All that the run was told.

    Raises:
        ValueError: for an unknown field, with the nearest known one; for a value of another type than the field's; for
            values that do not fit together.
        FileNotFoundError: if the recipe is not there.
    """
    flags = all_flags(argv, command)
    parser = _parser("--help_all" in argv, command)
    try:
        _refuse_fields_of_others(flags, command)
        groups, rest = read_groups(parser, flags)
        if rest:
            raise ValueError(f"{rest[0]!r} belongs to no flag. The recipe comes first, then --field value.")
        arguments = RunArguments(*groups[:5], *_recipe_alone(argv), *groups[5:])
        check_together(arguments)
    except ValueError as error:
        raise ValueError(f"{error}{_line_of_field(argv, str(error))}") from error
    return arguments


@functools.cache
def _parser(shows_all: bool, command: Command) -> HfArgumentParser:
    """The parser of all groups of a command, made once: every fold, and every training in Python, reads its fields with it.

    Args:
        shows_all (`bool`): whether its help lists the rare flags too.
        command ([`Command`]): whose it is.
    """
    parser = _Parser(
        command.groups,
        prog=command.name,
        usage=f"{command.name} [RECIPE.yaml] [--field value ...]",
        description=f"{command.purpose} Flags override the recipe.",
        epilog=f"Example: {command.name} {command.example}. "
        "Every field of transformers.TrainingArguments is a flag too; --help_all lists them.",
        allow_abbrev=False,
    )
    readers = {float: _finite, string_to_bool: _truth}
    for action in parser._actions:
        action.type = readers.get(action.type, action.type)
    parser.add_argument("--help_all", action="help", help="list the flags of TrainingArguments too")
    if not shows_all:
        hide_rare_flags(parser)
    if command is not FINE_TUNING:
        for action in parser._actions:
            if action.dest in NOT_IN_PRETRAINING:
                action.help = argparse.SUPPRESS
    return parser


def _refuse_fields_of_others(flags: list[str], command: Command):
    """Refuse what only another command takes."""
    own = {item.name for group in command.groups for item in dataclasses.fields(group)}
    for name in filter(None, map(_field_of, flags)):
        if name in known_fields() - own:
            others = [
                other.name
                for other in COMMANDS
                if name in {item.name for group in other.groups for item in dataclasses.fields(group)}
            ]
            raise ValueError(
                f"{name} belongs to {' and '.join(others)}, and {command.name} has no use for it. Leave it out."
            )


def _recipe_alone(argv: list[str]) -> tuple[frozenset[str], bool]:
    """The fields that the recipe of a command line gives and no flag, and whether a run has saved that recipe."""
    if not argv or argv[0].startswith("-"):
        return frozenset(), False
    recipe = local_or_shipped(argv[0])
    with open(recipe, encoding="utf-8-sig") as file:
        saved = file.readline().rstrip("\n") in (*COMMAND_LINES.values(), PYTHON_LINE)
    fields = {key.value for key, _ in _recipe_node(recipe).value}
    return frozenset(fields - set(map(_field_of, argv[1:]))), saved


def _finite(word: str) -> float:
    """A number; with NaN or infinity a training would only show in its scores that something is wrong."""
    try:
        number = float(word)
    except ValueError:
        raise argparse.ArgumentTypeError(f"invalid float value: {word!r}") from None
    if not math.isfinite(number):
        raise argparse.ArgumentTypeError(f"{word!r} is no finite number. Pass one, or leave it out")
    return number


def _truth(word: str) -> bool:
    """True or false, in one of the words that YAML or Transformers have for them."""
    return string_to_bool({"on": "true", "off": "false"}.get(word.lower(), word))


def _line_of_field(argv: list[str], message: str) -> str:
    """Where in the recipe the field stands that a message names first, if it is from there."""
    named = re.match(r"(?:--)?(\w+)", message)
    is_recipe = argv and not argv[0].startswith("-")
    if not named or not is_recipe or named[1] in map(_field_of, argv[1:]):
        return ""
    recipe = local_or_shipped(argv[0])
    lines = [key.start_mark.line + 1 for key, _ in _recipe_node(recipe).value if key.value == named[1]]
    return f" It stands in {recipe}, line {lines[0]}." if lines else ""


def hide_rare_flags(parser: HfArgumentParser):
    """Leave this kit's fields and the common ones of `TrainingArguments` in the help.

    Args:
        parser (`HfArgumentParser`): of all groups; its actions are changed.
    """
    own_groups = [group for group in ALL_GROUPS if not issubclass(group, ASTTrainingArguments)]
    ours = {item.name for group in own_groups for item in dataclasses.fields(group)}
    ours |= {name for name in ASTTrainingArguments.__annotations__ if name not in ("label_names", "hub_strategy")}
    for action in parser._actions:
        if "--help" not in action.option_strings:
            action.option_strings = action.option_strings[:1]  # --with-dashes still works and need not be shown
        if action.dest not in ours | COMMON_TRAINING_FIELDS | {"help", "help_all"}:
            action.help = argparse.SUPPRESS


def all_flags(argv: list[str], command: Command = FINE_TUNING) -> list[str]:
    """Write out the recipe of a command line, if there is one, as flags before the given ones.

    Args:
        argv (`list[str]`): the command line; see [`parse_arguments`].
        command ([`Command`], defaults to `FINE_TUNING`): for messages.

    Returns:
        Flags and values alone.

    Raises:
        ValueError: for a flag of an unknown field; see also [`recipe_as_flags`].
    """
    for previous, word in itertools.pairwise(["", *argv]):
        name = _field_of(word)
        if name not in {None, "help", "help_all"} | known_fields():
            refuse_unknown_field(name, "command line", command)
        if name is None and word.endswith((".yaml", ".yml")) and previous and _field_of(previous) is None:
            raise ValueError(
                f"The recipe {word} stands after a flag. Pass it first: {command.name} {word} --field value."
            )
    if argv and not argv[0].startswith("-"):
        return recipe_as_flags(local_or_shipped(argv[0]), command) + argv[1:]
    return argv


def _field_of(flag: str) -> str | None:
    """The field that a word of the command line names, None for a value; `--no_field` and dashes are allowed."""
    if not flag.startswith("--"):
        return None
    name = flag.removeprefix("--").split("=")[0].replace("-", "_")
    return name.removeprefix("no_") if name.removeprefix("no_") in known_fields() else name


def recipe_as_flags(recipe: Path, command: Command = FINE_TUNING) -> list[str]:
    """A recipe's fields as the flags they stand for, so that both are read by the same rules.

    Args:
        recipe (`Path`): YAML file of `field: value`, values being scalars, lists of scalars or (as JSON) mappings.
        command ([`Command`], defaults to `FINE_TUNING`): for messages.

    Raises:
        FileNotFoundError: if the file is not there.
        ValueError: if it is not a mapping, names an unknown field or one twice, or is no YAML as [`compose_yaml`] reads
            it; the message has the line.
    """
    node, flags = _recipe_node(recipe), []
    for key, value in node.value:
        place = f"{recipe}, line {key.start_mark.line + 1}"
        words = _words_of(value, place)
        if isinstance(words, list) and len(words) > 1 and key.value in known_fields() - list_fields():
            raise ValueError(f"{place}: {key.value} is a list, expected one value.")
        flags += fields_as_flags({key.value: words}, place, command)
    return flags


def _recipe_node(recipe: Path) -> yaml.MappingNode:
    refuse_special(recipe)
    if not recipe.is_file():
        raise FileNotFoundError(f"The recipe {recipe} is not there. Pass a YAML file, or only flags.")
    if recipe.stat().st_size > LARGEST_RECIPE:
        raise ValueError(
            f"{recipe} has more than {LARGEST_RECIPE:,} bytes, and is no recipe. Pass a smaller YAML file."
        )
    try:
        text = recipe.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{recipe} is not text in UTF-8 ({error}). Save it as UTF-8.") from error
    node = compose_yaml(text, str(recipe))
    if not isinstance(node, yaml.MappingNode):
        raise ValueError(f"{recipe} holds no 'field: value' lines.")
    return node


def _words_of(node: yaml.Node, place: str) -> str | list[str] | dict | None:
    """A value of a recipe as it stands there: what a word means, its field says, as of a flag.

    YAML itself would take `no` for false, `1:30` for 90, `010` for 8, and `1e-4` for a text.
    """
    if isinstance(node, yaml.ScalarNode):
        return None if node.tag == "tag:yaml.org,2002:null" else node.value
    if isinstance(node, yaml.MappingNode):
        try:
            fields = value_of(node, place)
            json.dumps(fields, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{place}: {error}. Write texts, numbers, true or false.") from None
        return fields
    if not all(isinstance(item, yaml.ScalarNode) for item in node.value):
        raise ValueError(f"{place}: a list holds a list or a mapping, expected single values. Write them out.")
    return [item.value for item in node.value]


def fields_as_flags(fields: dict, place: str, command: Command = FINE_TUNING) -> list[str]:
    """Fields as the flags they stand for.

    Args:
        fields (`dict`): values are scalars, lists or tuples of scalars, or (as JSON) mappings; what is `None` or empty is
            left out.
        place (`str`): where they stand, for messages.
        command ([`Command`], defaults to `FINE_TUNING`): likewise.

    Raises:
        ValueError: for an unknown field, or an item of a list that would be taken for a flag.
    """
    flags = []
    for name, value in fields.items():
        if name not in known_fields():
            refuse_unknown_field(name, place, command)
        if value is None:
            continue
        if not isinstance(value, (list, tuple)):
            # In one word, as a value may begin like a flag.
            flags.append(f"--{name}={json.dumps(value) if isinstance(value, (bool, dict)) else value}")
            continue
        values = [str(item) for item in value]
        like_flags = [item for item in values if item.startswith("-") and not NEGATIVE_NUMBER.fullmatch(item)]
        if like_flags:
            raise ValueError(
                f"{place}: {name} holds {', '.join(map(repr, like_flags))}, and an item of a list that begins with - is "
                f"taken for a flag. Call it otherwise in the data and in {name}."
            )
        flags += [f"--{name}", *values] if values else []
    return flags


def recorded_arguments(argv: list[str]) -> list[str]:
    """Shorten a command line for the run summary: without what [`merged_recipe`] leaves out, and of files no folders.

    Args:
        argv (`list[str]`): the command line; see [`parse_arguments`].

    Returns:
        The words that are shown.
    """
    kept, field = [], ""
    for word in argv:
        name = _field_of(word)
        field = field if name is None else name
        if field not in NOT_RECORDED:
            flag, equals, value = word.partition("=") if name is not None else ("", "", word)
            kept.append(flag + equals + shown_value(value, field))
    return kept


def shown_value(value: str, field: str = "") -> str:
    """A value of a field for the run summary: a file or folder by its name, one that this package ships by its path.

    Args:
        value (`str`): as it was given.
        field (`str`, defaults to `""`): whose it is; see `FIELDS_OF_LABELS`.
    """
    if field in FIELDS_OF_LABELS:
        return value
    path, house = Path(os.path.abspath(local_or_shipped(value))), Path(__file__).parents[2]
    if path.is_relative_to(house / "finetune") and os.path.exists(path):
        return path.relative_to(house).as_posix()
    return shown_word(value)


def known_fields() -> set[str]:
    """List the fields of all groups.

    Returns:
        Their names.
    """
    return {item.name for group in ALL_GROUPS for item in dataclasses.fields(group) if item.init}


def list_fields() -> set[str]:
    """List the fields that may have several values.

    Returns:
        Their names.
    """
    fields = (item for group in ALL_GROUPS for item in dataclasses.fields(group))
    return {item.name for item in fields if "list" in str(item.type).lower()}


def truth_fields() -> set[str]:
    """List the fields that are true or false.

    Returns:
        Their names.
    """
    fields = (item for group in ALL_GROUPS for item in dataclasses.fields(group))
    return {item.name for item in fields if item.type in (bool, bool | None)}


def refuse_unknown_field(name: str, place: str, command: Command = FINE_TUNING):
    """Refuse a name that is no field's.

    Args:
        name (`str`): the name.
        place (`str`): where it stands, for the message.
        command ([`Command`], defaults to `FINE_TUNING`): whose help is named.

    Raises:
        ValueError: always; it names the nearest known fields.
    """
    meant = NAMES_ELSEWHERE.get(name.replace("-", "_"))
    near = [meant] if meant else difflib.get_close_matches(name, sorted(known_fields()), n=3)
    hint = f"Did you mean {' or '.join(near)}?" if near else f"See {command.name} --help."
    raise ValueError(f"Unknown field {name!r} ({place}). {hint}")


def merged_recipe(argv: list[str], void: Iterable[str] = ()) -> dict:
    """What recipe and flags together said, as a recipe that can be saved and run again.

    What concerns this call only is left out: replacing or resuming a run, publishing it, and secrets.

    Args:
        argv (`list[str]`): the command line; see [`parse_arguments`].
        void (iterable of `str`, defaults to none): names of fields that have no effect, which are left out too.

    Returns:
        Values by the name of their field, as YAML has them.
    """
    merged: dict[str, list[str]] = {}
    values: list[str] = []
    for word in all_flags(argv):
        name = _field_of(word)
        if name is None:
            values.append(word)
        else:  # a later flag replaces an earlier one with all its values
            values = merged[name] = ["false"] if word.startswith(("--no_", "--no-")) else []
            if "=" in word:
                values.append(word.split("=", 1)[1])
    truths = truth_fields()
    plain = {
        name: [_truth(value) if name in truths else _plain(value) for value in values] or [True]
        for name, values in merged.items()
    }
    return {
        name: values[0] if len(values) == 1 else values
        for name, values in plain.items()
        if name not in {*NOT_RECORDED, *void}
    }


def _plain(value: str):
    """The number that a word stands for, where it reads back as the same word."""
    if len(value) > LONGEST_NUMBER:
        return value
    try:
        read = yaml.safe_load(value)
    except (yaml.YAMLError, ValueError):  # of what looks like a date
        return value
    return read if type(read) in (int, float) and str(read) == value else value
