"""What the user gave: a group of fields knows which of them were written out where it was made, whatever they say.

`HfArgumentParser.parse_args_into_dataclasses` hands every field to its group, those that nobody wrote with their defaults;
[`read_groups`] stands in its place because a value that equals the default does not tell whether it was written.
"""

import argparse

from transformers import HfArgumentParser

NOT_GIVEN = object()


class ArgumentGroup:
    """Base of the groups of fields.

    `given` are the names of the fields that were written out in a recipe, as flags or in Python, also those whose value is
    the default. Later changes of a field do not count.
    """

    given: frozenset[str] = frozenset()

    def __new__(cls, *values, **fields):
        """Make a group and note the names of the fields that it is made of.

        Args:
            values: of the first fields.
            fields: others, by name.
        """
        group = super().__new__(cls)
        group.given = frozenset([*cls.__dataclass_fields__][: len(values)]) | fields.keys()
        return group


def read_groups(parser: HfArgumentParser, words: list[str]) -> tuple[list, list[str]]:
    """Read a command line into the groups of fields that its parser was made for, each made of what was given alone.

    Args:
        parser (`HfArgumentParser`): made of subclasses of [`ArgumentGroup`].
        words (`list[str]`): the command line.

    Returns:
        The groups in the parser's order, and the words that belong to no flag.

    Raises:
        ValueError: for fields that do not fit, as their group says it.
    """
    unset = argparse.Namespace(**dict.fromkeys((action.dest for action in parser._actions), NOT_GIVEN))
    found, rest = parser.parse_known_args(words, unset)  # a default takes no other's place
    given = {name: value for name, value in vars(found).items() if value is not NOT_GIVEN}
    groups = []
    for group in parser.dataclass_types:
        fields = {name: value for name, value in given.items() if name in group.__dataclass_fields__}
        groups.append(group(**fields))
    return groups, rest
