"""Cyclic redundancy checks as FLAC and Ogg use them: not reflected, beginning with 0, nothing inverted at the end.

`zlib.crc32` and `binascii.crc_hqx` do not do: the one has its bits the other way round, the other is of another polynomial
than FLAC's, and neither has eight bits.
"""

from collections.abc import Sequence
from functools import cache

import numpy as np

PARTS_AT_ONCE = 48  # fewer take less time one after the other than all together, place by place


@cache
def _table(width: int, polynomial: int) -> np.ndarray:
    table = np.arange(256, dtype=np.uint64) << np.uint64(width - 8)
    for _ in range(8):
        is_set = table >> np.uint64(width - 1) & np.uint64(1)
        table = np.where(is_set, table << np.uint64(1) ^ np.uint64(polynomial), table << np.uint64(1))
        table &= np.uint64((1 << width) - 1)
    return table.astype(np.uint32)


@cache
def _values(width: int, polynomial: int) -> list[int]:
    return _table(width, polynomial).tolist()


def checksum(data: bytes, kind: tuple[int, int]) -> int:
    """Compute the checksum of some bytes; meant for few.

    Args:
        data (`bytes`): the bytes.
        kind (`tuple[int, int]`): width in bits, 8 to 32, and polynomial.

    Returns:
        The checksum, as a number of so many bits.
    """
    value, table, shift, mask = 0, _values(*kind), kind[0] - 8, (1 << kind[0]) - 1
    for byte in data:
        value = table[value >> shift ^ byte] ^ value << 8 & mask
    return value


def checksums(
    data: bytes | np.ndarray, starts: Sequence[int], stops: Sequence[int], kind: tuple[int, int]
) -> np.ndarray:
    """The checksums of many parts of some bytes, of all at once.

    Args:
        data (`bytes` or `np.ndarray` of type uint8): the bytes.
        starts (sequence of `int`): the first byte of each part.
        stops (sequence of `int`): the byte after each part's last; no part is empty.
        kind (`tuple[int, int]`): width in bits, 8 to 32, and polynomial.

    Returns:
        `np.ndarray` of shape `(parts,)`.
    """
    content = np.frombuffer(data, dtype=np.uint8)
    starts, sizes = np.asarray(starts), np.asarray(stops) - np.asarray(starts)
    if sizes.sum() <= PARTS_AT_ONCE * sizes.max():
        parts = (content[start : start + size].tobytes() for start, size in zip(starts, sizes, strict=True))
        return np.array([checksum(part, kind) for part in parts], dtype=np.uint32)
    order = np.argsort(-sizes, kind="stable")
    starts, sizes = starts[order], sizes[order]
    width, mask = kind[0], np.uint32((1 << kind[0]) - 1)
    table, values = _table(*kind), np.zeros(len(sizes), dtype=np.uint32)
    # How many parts are longer than each place; the longest come first.
    going = np.searchsorted(-sizes, -np.arange(sizes[0]), side="left")
    for place, count in enumerate(going):
        of_going = values[:count]
        of_going[:] = table[of_going >> np.uint32(width - 8) ^ content[starts[:count] + place]] ^ (
            of_going << np.uint32(8) & mask
        )
    found = np.empty_like(values)
    found[order] = values
    return found
