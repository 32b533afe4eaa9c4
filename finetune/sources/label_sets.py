"""Labels of several sets at once, each named `set/label`: which outputs belong to which set."""

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from .data_errors import DataError, names_in_short

SEPARATOR = "/"


def label_sets(labels: Sequence[str]) -> dict[str, np.ndarray]:
    """Tell which labels belong to which set: what stands before the first `/` of a label names its set.

    Args:
        labels (sequence of `str`): in the order of the model's outputs.

    Returns:
        By set, in the order of their first labels, the places of its labels.

    Raises:
        DataError: if a label names no set, or a set has fewer than two labels, so that there is nothing to tell apart.
    """
    places: dict[str, list[int]] = defaultdict(list)
    bare = [label for label in labels if not all(label.partition(SEPARATOR)[::2])]
    if bare:
        raise DataError(
            f"Labels of several sets are written set{SEPARATOR}label, and these are not: {names_in_short(bare)}. Name the set in "
            "each label, for example drums/kick, or leave out --loss label_sets."
        )
    for place, label in enumerate(labels):
        places[label.partition(SEPARATOR)[0]].append(place)
    single = [name for name, members in places.items() if len(members) < 2]
    if single:
        raise DataError(
            f"A set needs two labels or more to be told apart, and these have one: {names_in_short(single)}. Add clips with other "
            "labels of the set, or leave its own out with --ignore_labels."
        )
    return {name: np.array(members) for name, members in places.items()}


def set_of_each_label(labels: Sequence[str]) -> np.ndarray:
    """Number the set of each label.

    Args:
        labels (sequence of `str`): as of [`label_sets`], which says what is raised.

    Returns:
        `np.ndarray` of shape `(labels,)`: int64, from 0, in the order of [`label_sets`].
    """
    numbers = np.empty(len(labels), dtype=np.int64)
    for number, members in enumerate(label_sets(labels).values()):
        numbers[members] = number
    return numbers


def share_of_each_set(labels: Sequence[str], shares: Mapping[str, float]) -> np.ndarray:
    """Tell how often each set is drawn against the others.

    Args:
        labels (sequence of `str`): as of [`label_sets`], which says what is raised besides.
        shares (mapping of `str` to `float`): of sets; those that it does not name have 1.

    Returns:
        `np.ndarray` of shape `(sets,)`: float64, in the order of [`label_sets`].

    Raises:
        DataError: if a set has a share, and no label.
    """
    sets = list(label_sets(labels))
    if unknown := sorted(shares.keys() - set(sets)):
        raise DataError(
            f"set_shares names {names_in_short(unknown)}, and the data has the sets {names_in_short(sets)}. Correct --set_shares."
        )
    return np.array([shares.get(name, 1.0) for name in sets])
