"""TextGrids of Praat, one for each recording: a tier of intervals for each label that was heard.

An interval tier covers the whole recording without a gap or an overlap, and so what lies between segments are intervals
without text. Scores have no place in it.

Source: Praat's manual, "TextGrid file formats": the long text format, in UTF-8, in which a quote is doubled.
"""

from collections.abc import Iterator
from dataclasses import replace

from ..system.names_as_text import in_one_line
from .label_tracks import label_with_channel

EMPTY_TIER = "segments"  # of a recording without one: Praat wants a tier


def textgrid_lines(result) -> Iterator[str]:
    """Write a TextGrid with the segments of a file.

    Args:
        result ([`FileTags`]): a tagged file with segments.

    Yields:
        Lines without line end.
    """
    segments = [replace(each, label=label_with_channel(each.label, each.channel)) for each in result.segments]
    tiers = _tiers(segments) or {EMPTY_TIER: []}
    yield 'File type = "ooTextFile"'
    yield 'Object class = "TextGrid"'
    yield ""
    yield "xmin = 0"
    yield f"xmax = {result.seconds!r}"
    yield "tiers? <exists>"
    yield f"size = {len(tiers)}"
    yield "item []:"
    for number, (name, segments) in enumerate(tiers.items(), start=1):
        intervals = list(_intervals(segments, result.seconds))
        yield f"    item [{number}]:"
        yield '        class = "IntervalTier"'
        yield f"        name = {_quoted(name)}"
        yield "        xmin = 0"
        yield f"        xmax = {result.seconds!r}"
        yield f"        intervals: size = {len(intervals)}"
        for place, (start, end, text) in enumerate(intervals, start=1):
            yield f"        intervals [{place}]:"
            yield f"            xmin = {start!r}"
            yield f"            xmax = {end!r}"
            yield f"            text = {_quoted(text)}"


def _tiers(segments) -> dict[str, list]:
    """The segments by the names of their tiers: those of a label that overlap, as whole windows may, get a tier more."""
    labels = {segment.label for segment in segments}
    tiers, ends = {}, {}
    for segment in segments:  # in the order of time
        name, number = segment.label, 1
        while ends.get(name, 0.0) > segment.start or (number > 1 and name in labels):
            number += 1
            name = f"{segment.label} ({number})"
        tiers.setdefault(name, []).append(segment)
        ends[name] = segment.end
    return tiers


def _intervals(segments, seconds: float) -> Iterator[tuple[float, float, str]]:
    """The segments of a tier, and what lies between them."""
    before = 0
    for segment in segments:
        if segment.start > before:
            yield before, segment.start, ""
        yield segment.start or 0, segment.end, segment.label
        before = segment.end
    if before < seconds:
        yield before, seconds, ""


def _quoted(text: str) -> str:
    return '"' + in_one_line(text).replace('"', '""') + '"'
