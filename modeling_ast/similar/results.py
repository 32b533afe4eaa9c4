"""What a search found, as text, JSON lines and CSV; what was labelled has the formats of `ast-tag`."""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass

from ..system.names_as_text import csv_row, in_one_line

FORMATS = ("text", "jsonl", "csv")
CSV_HEADER = "query,file,start,end,score"


@dataclass(frozen=True)
class Hit:
    """A stretch of a file, from `start` to `end` in seconds, and its cosine similarity to what was searched for."""

    file: str
    start: float
    end: float
    score: float


def hit_lines(query: str, hits: list[Hit], output_format: str) -> Iterator[str]:
    """Lay out what was found for a clip.

    Args:
        query (`str`): the clip's name.
        hits (`list[Hit]`): the nearest stretches, best first.
        output_format (`str`): one of `FORMATS`.

    Yields:
        Lines without line end.
    """
    if output_format == "jsonl":
        yield json.dumps({"query": query, "similar": [vars(hit) for hit in hits]})
    elif output_format == "csv":
        for hit in hits:
            yield csv_row((query, hit.file, f"{hit.start:.3f}", f"{hit.end:.3f}", f"{hit.score:.6f}"))
    else:
        yield in_one_line(query)
        for hit in hits:
            yield f"  {hit.score:7.4f}  {hit.start:9.2f} - {hit.end:9.2f} s  {in_one_line(_from_here(hit.file))}"


def _from_here(file: str) -> str:
    """A file's name from the working directory, if it is below that."""
    below = os.path.join(os.getcwd(), "")
    return file.removeprefix(below)
