"""YAML of recipes and cards, read within bounds: what is small in a file stays small in memory, and each fault has its line.

`yaml.safe_load` does not do: it follows aliases however much they stand for, and of a key that is there twice takes the last
without a word.
"""

from collections.abc import Hashable
from typing import Any, NoReturn

import yaml
from huggingface_hub.repocard import REGEX_YAML_BLOCK

LARGEST_YAML = 1 << 20  # characters; recipes have two thousand, and cards with hundreds of labels a tenth
DEEPEST_NESTING = 30  # levels of nesting
MOST_VALUES = 50_000  # with what aliases stand for
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class YamlError(ValueError):
    """Text that is no YAML of this kind; the message says where, and what to write."""


def read_yaml(text: str, place: str) -> Any:
    """Read a YAML document.

    Args:
        text (`str`): the document.
        place (`str`): where it is from, for messages.

    Returns:
        What it holds: texts, numbers, truth values, dates, lists and dictionaries.

    Raises:
        YamlError: as [`compose_yaml`].
    """
    node = compose_yaml(text, place)
    return None if node is None else value_of(node, place)


def check_front_matter(card: str, place: str) -> None:
    """Check the metadata block at the top of a card, before a library reads it.

    Args:
        card (`str`): the text of a `README.md`.
        place (`str`): where it is from, for messages.

    Raises:
        YamlError: as [`compose_yaml`].
    """
    block = REGEX_YAML_BLOCK.search(card)
    if block:
        compose_yaml(block.group(2), place)


def compose_yaml(text: str, place: str) -> yaml.Node | None:
    """Read a YAML document as nodes, which have the text and the line of each value.

    Args:
        text (`str`): the document.
        place (`str`): where it is from, for messages.

    Returns:
        The node of the whole document; `None` of an empty one.

    Raises:
        YamlError: if it is no YAML, of several documents, too large, nested too deep or too large with its aliases; if
            something has a tag such as `!!python/name`, is merged with `<<`, or is a key twice.
    """
    if len(text) > LARGEST_YAML:
        raise YamlError(f"{place} has {len(text):,} characters, expected up to {LARGEST_YAML:,}. Pass a smaller file.")
    try:
        _check_events(text, place)
        node = yaml.compose(text, Loader=_LOADER)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        _refuse(place, mark, f"not valid YAML ({error.problem or error.context})")
    except yaml.YAMLError as error:
        raise YamlError(f"{place} is not valid YAML ({' '.join(str(error).split())}).") from error
    if node is not None:
        _check_size(node, place, {})
    return node


def value_of(node: yaml.Node, place: str) -> Any:
    """Make the Python value of a node.

    Args:
        node (`yaml.Node`): from [`compose_yaml`].
        place (`str`): where it is from, for messages.

    Returns:
        Texts, numbers, truth values, lists and dictionaries of these, and dates.

    Raises:
        YamlError: if a text looks like a number or date that there is not.
    """
    try:
        loader = yaml.SafeLoader("")
        return loader.construct_document(node)
    except (yaml.YAMLError, ValueError, OverflowError, TypeError) as error:
        _refuse(
            place, node.start_mark, f"not a value ({' '.join(str(error).split())}). Put it in quotes if it is a text"
        )


def _refuse(place: str, mark: yaml.Mark | None, what: str) -> NoReturn:
    line = "" if mark is None else f", line {mark.line + 1}"
    raise YamlError(f"{place}{line}: {what}.") from None


def _check_events(text: str, place: str):
    """What has to be known before nodes are made of it, which takes a call a level."""
    depth, documents = 0, 0
    for event in yaml.parse(text, Loader=_LOADER):
        if isinstance(event, yaml.DocumentStartEvent):
            documents += 1
            if documents > 1:
                _refuse(place, event.start_mark, "a second document begins here (---), expected one. Keep one of them")
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > DEEPEST_NESTING:
                _refuse(place, event.start_mark, f"nested deeper than {DEEPEST_NESTING} levels. Write it flat")
        if isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if getattr(event, "tag", None) is not None:
            _refuse(place, event.start_mark, f"the tag {event.tag!r:.60} is not read here. Write the value without it")


def _check_size(node: yaml.Node, place: str, sizes: dict[int, int | None]) -> int:
    """Number of values of a node with all that its aliases stand for; each node is looked at once."""
    if id(node) in sizes:
        size = sizes[id(node)]
        if size is None:  # not yet known: it is being counted
            _refuse(place, node.start_mark, "this holds itself, by an alias (*). Write its values out")
        return size
    sizes[id(node)] = None
    size = 1
    if isinstance(node, yaml.MappingNode):
        keys: set[Hashable] = set()
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                _refuse(place, key.start_mark, "a key is a list or a mapping, expected a name")
            if key.tag == "tag:yaml.org,2002:merge":
                _refuse(place, key.start_mark, "a merge (<<) is not read here. Write the fields out")
            if key.value in keys:
                _refuse(place, key.start_mark, f"{key.value!r:.60} is there a second time. Keep one of them")
            keys.add(key.value)
            size += 1 + _check_size(value, place, sizes)
    elif isinstance(node, yaml.SequenceNode):
        size += sum(_check_size(item, place, sizes) for item in node.value)
    if size > MOST_VALUES:
        _refuse(place, node.start_mark, f"with its aliases (*) this has more than {MOST_VALUES:,} values. Write fewer")
    sizes[id(node)] = size
    return size
