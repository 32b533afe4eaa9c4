"""The text of a dry run: what [`dry_run`] found, in lines of at most 80 columns."""

import textwrap
from collections.abc import Iterator

from modeling_ast.audio import KINDS_IN_WORDS, notes_in_words
from modeling_ast.system.names_as_text import in_one_line

from ..clip_sets.split_checks import SPLIT_WORDS
from ..clip_sets.waveform_cache import in_bytes

REPORT_NAME = "dry_run.json"
WIDTH = 80  # columns
LONGEST_NAME = 30  # of a label in its table
MOST_LABELS, EXTREME_LABELS = 30, 12  # of more than 30 labels the 12 most common and the 12 rarest are shown
MOST_BAD_CLIPS = 10
LARGE_SHARE_ABOVE_BAND = 0.1
LAST_IN_MINUTES = 120


def data_lines(report: dict) -> Iterator[str]:
    """What is known of the data before anything is measured.

    Args:
        report (`dict`): of [`dry_run`]; the keys it has decide what is told.
    """
    total, seen = report["looked_at"]["of"], report["looked_at"]["clips"]
    yield from _wrapped(f"{total} clips, split {report['split_method']}")
    yield from label_lines(report)
    if seen:
        yield ""
        yield from _wrapped(looked_at_line(report["looked_at"], len(report["bad_clips"])))
    if "lengths" in report:
        yield from length_lines(report["lengths"])
        yield from recording_lines(report["recordings"], seen - len(report["bad_clips"]))
        yield from band_lines(report["band"])
        yield from frame_lines(report["frames"])
    yield from bad_clip_lines(report["bad_clips"], seen)
    yield from audio_note_lines(report["audio_notes"], seen)


def not_estimated_lines(report: dict) -> Iterator[str]:
    """What comes on top of what is estimated.

    Args:
        report (`dict`): of [`dry_run`].
    """
    if report["not_estimated"]:
        yield ""
        yield from _wrapped(f"Not estimated: {'; '.join(report['not_estimated'])}")


def looked_at_line(looked_at: dict, bad: int) -> str:
    """How many clips were decoded, which, and how many of them can be used.

    Args:
        looked_at (`dict`): section of the report.
        bad (`int`): clips that cannot be used.

    Returns:
        `str`: a line.
    """
    seen, total = looked_at["clips"], looked_at["of"]
    if seen == total:
        clips = f"all {total} clips"
    else:
        which = "the first of each split" if looked_at["seed"] is None else f"drawn with seed {looked_at['seed']}"
        time = ", as many as there was time for" if looked_at.get("out_of_time") else ""
        clips = f"{seen} of {total} clips, {which}{time}"
    return f"Looked at {clips}: " + (f"{seen - bad} can be used, {bad} cannot" if bad else "all of them can be used")


def label_lines(report: dict) -> Iterator[str]:
    """The number of clips of each label in each split.

    Args:
        report (`dict`): of [`dry_run`]; the keys it has decide what is told.
    """
    sides, counts = list(report["clips"]), report["labels"]
    width = min(LONGEST_NAME, max(len(in_one_line(name)) for name in (*counts, "all clips")))
    yield from ["", f"  {'label':{width}}" + "".join(f"{SPLIT_WORDS[side]:>12}" for side in sides)]
    order = list(counts)
    if len(order) > MOST_LABELS:
        order.sort(key=lambda name: -counts[name]["train"])
        order = [*order[:EXTREME_LABELS], None, *order[-EXTREME_LABELS:]]
    for name in order:
        if name is None:
            yield f"  ... {len(counts) - 2 * EXTREME_LABELS} labels between these ..."
            continue
        name, by_side = in_one_line(name), counts[name]
        shown = textwrap.shorten(name, LONGEST_NAME, placeholder="...") if len(name) > LONGEST_NAME else name
        yield f"  {shown:{width}}" + "".join(f"{by_side[side]:>12}" for side in sides)
    yield f"  {'all clips':{width}}" + "".join(f"{report['clips'][side]:>12}" for side in sides)


def length_lines(lengths: dict) -> Iterator[str]:
    """Lengths of the clips.

    Args:
        lengths (`dict`): section of the report.
    """
    yield from [
        "",
        *_wrapped(
            f"Length in seconds: {lengths['shortest']:.4g} to {lengths['longest']:.4g}, median {lengths['median']:.4g}, "
            f"three of four up to {lengths['75%']:.4g}, 95 % up to {lengths['95%']:.4g}; "
            f"{duration(lengths['total_seconds'])} in total"
        ),
    ]
    rows = lengths["histogram"]
    names = [f"{low:g} - {high:g}" if low != high else f"{low:.4g}" for low, high, _ in rows]
    yield from bars(names, [count for *_, count in rows])


def recording_lines(recordings: dict, number: int) -> Iterator[str]:
    """Sampling rates, channels and levels.

    Args:
        recordings (`dict`): section of the report.
        number (`int`): clips that were decoded.
    """
    rates = recordings["sampling_rates"]
    yield from ["", "Sampling rate in Hz", *bars(list(rates), list(rates.values()))]
    several = number - recordings["channels"].get("1", 0)
    yield from ["", f"Channels: {_part(several, number)} have several; {_heard_channel(recordings)}"]
    levels = recordings["level_db"]
    if levels["50%"] is not None:
        yield from _wrapped(
            f"Level in dB of full scale: median {levels['50%']:.0f}, nine of ten clips from {levels['5%']:.0f} to "
            f"{levels['95%']:.0f}; {_part(recordings['clipped'], number)} are clipped, {recordings['silent']} silent"
        )


def _heard_channel(recordings: dict) -> str:
    channels = recordings["heard_channels"]
    return "the model hears their mean" if channels == "mean" else f"--channels {channels} is heard of them"


def band_lines(band: dict) -> Iterator[str]:
    """Energy that the model does not hear.

    Args:
        band (`dict`): section of the report.
    """
    edge = f"{band['edge_hz']:g} Hz"
    if not band["clips_sampled_higher"]:
        yield f"Above {edge}, where the model hears nothing: these files hold nothing either"
        return
    words = f"Above {edge}, where the model hears nothing: {band['share']:.1%} of the energy (mean over the clips)"
    if band["worst_labels"]:
        words += "; most for " + ", ".join(
            f"{in_one_line(name)} {share:.0%}" for name, share in band["worst_labels"].items()
        )
    yield from _wrapped(words)
    if band["share"] >= LARGE_SHARE_ABOVE_BAND:
        yield from _wrapped("  Sounds that differ only up there cannot be told apart.")


def frame_lines(frames: dict) -> Iterator[str]:
    """What the input length does to the clips.

    Args:
        frames (`dict`): section of the report.
    """
    yield from _wrapped(f"{_length_in_words(frames)}{_padding_in_words(frames)}")
    if frames["fitting"]:
        same = {name: frames[name] for name in ("clips", "beginnings")}
        yield from _wrapped(f"  A better fit: {_length_in_words(frames['fitting'] | same)}")
    if frames["too_long"] and not frames["beginnings"]:
        yield from _wrapped(
            "  Most clips are longer than any input a model can have: it learns from windows of them, each of which has to hold what the label "
            "says. Where it does not, cut them into pieces of some seconds that have labels of their own."
        )
    elif frames["too_long"]:
        yield from _wrapped(
            "  Most clips are longer than any input a model can have, and it hears their beginning only. Cut them into pieces "
            "of some seconds that have labels of their own."
        )
    whole = frames["whole"]
    if whole:
        uncut = frames["clips"] - whole["clips_cut"]
        yield from _wrapped(
            f"  To leave {uncut} of {frames['clips']} clips whole: --max_length {whole['max_length']} --padding longest"
            f"{' --train_sampling_strategy group_by_length' if whole['grouped'] else ''} ({whole['seconds']:.2f} s; of the "
            "input in training "
            f"{whole['share_padding_longest']:.0%} is padding, when scored {whole['share_padding']:.0%})"
        )


def bad_clip_lines(bad_clips: list[dict], seen: int) -> Iterator[str]:
    """Clips that cannot be decoded, with the reasons.

    Args:
        bad_clips (`list[dict]`): `file` and `reason` of each.
        seen (`int`): clips that were looked at.
    """
    if not bad_clips:
        return
    yield from ["", f"{len(bad_clips)} of {seen} clips looked at cannot be used:"]
    for clip in bad_clips[:MOST_BAD_CLIPS]:
        yield from _wrapped(f"  {in_one_line(clip['reason'])}")
    if len(bad_clips) > MOST_BAD_CLIPS:
        yield f"  ... and {len(bad_clips) - MOST_BAD_CLIPS} more"


def audio_note_lines(notes: list[dict], seen: int) -> Iterator[str]:
    """What is to be said of clips that can be used, by kind.

    Args:
        notes (`list[dict]`): rows of the report.
        seen (`int`): clips that were looked at.
    """
    for kind in KINDS_IN_WORDS:
        of_kind = [note for note in notes if note["kind"] == kind]
        texts = [note["text"] for note in of_kind]
        for words in notes_in_words({kind: len({(note["split"], note["row"]) for note in of_kind})}, seen):
            yield from ["", *_wrapped(f"{words}:")]
        for text in texts[:MOST_BAD_CLIPS]:
            yield from _wrapped(f"  {text}")
        if len(texts) > MOST_BAD_CLIPS:
            yield f"  ... and {len(texts) - MOST_BAD_CLIPS} more, all in {REPORT_NAME}"


def cost_lines(report: dict) -> Iterator[str]:
    """Time and memory of the training.

    Args:
        report (`dict`): of [`dry_run`]; the keys it has decide what is told.
    """
    cost = report["cost"]
    if cost is None:
        return
    step, run = cost["seconds_per_step"], cost["run_seconds"]
    threads = f", {cost['threads']} thread(s)" if cost["device"] == "cpu" else ""
    yield ""
    if cost["measured_steps"]:
        how = f"measured on {cost['measured_steps']} steps after {cost['warm_up_steps']} to warm up"
    else:
        shapes = ", ".join(f"{clips} x {frames} in {duration(took)}" for clips, frames, took in cost["timed_passes"])
        clips, frames = cost["step_shape"]
        how = (
            f"estimated: steps of {clips} clips of {frames} frames take longer than a dry run may, so that single passes "
            f"forward and backward were timed (clips x frames: {shapes}) and extrapolated by floating-point operations"
        )
    yield from _wrapped(f"Time on {cost['device']}{threads}, {how}")
    if "patchout" in cost:
        kept, patches = cost["patchout"]["kept"], cost["patchout"]["of"]
        yield from _wrapped(
            f"  Patchout: in training {kept} of the {patches} patches of an input of max_length frames are computed "
            f"({kept / patches:.0%}); scored clips are heard whole"
        )
    if "teacher" in cost:
        teacher = cost["teacher"]
        yield from _wrapped(
            f"  Teacher {in_one_line(teacher['name'])}: {duration(teacher['seconds_per_step'])} of each step, "
            f"{teacher['weights_gb']:.2g} GB; both are part of what follows"
        )
    of_scored = f"{report['clips']['eval']} scored clips"
    passes = f"{cost['epochs']:.4g} epochs, {cost['evaluation_passes']} evaluation(s)"
    rows = {
        "step": f"{duration(step['mean'])} ({duration(step['fast'])} to {duration(step['slow'])})",
        "epoch": f"{duration(cost['epoch_seconds'])}, {cost['steps_per_epoch']:.4g} steps",
        "evaluation": f"{duration(cost['evaluation_seconds'])} for {of_scored}",
        "whole run": f"{duration(run['expected'])} ({duration(run['fast'])} to {duration(run['slow'])}), {passes}",
    }
    if report["folds"]:
        number = len(report["folds"])
        rows["all folds"] = f"{duration(number * run['expected'])}, {number} such runs"
    for name, words in rows.items():
        yield f"  {name:<12}{words}"
    tenths = "steps were as fast or slow as the fastest and the slowest tenth"
    passes = "operations were as fast or slow as in the fastest and the slowest of the longer passes"
    yield from _wrapped(
        f"  In brackets as if all {tenths if cost['measured_steps'] else passes}, on a machine as busy as now. Loading the "
        "data, writing checkpoints and the card come on top."
    )
    above = max(0.0, cost["peak_memory_gb"] - cost["memory_before_gb"])
    extrapolated = "" if cost["measured_steps"] else ", extrapolated by tokens"
    yield from _wrapped(
        f"Memory of this {cost['memory_of']}: {cost['peak_memory_gb']:.2f} GB at most{extrapolated}, {above:.2f} GB more than before the "
        "first step; loader workers not counted"
    )
    if "waveform_cache_bytes" in report:
        yield from _wrapped(
            f"Measured without the waveform cache, which needs {in_bytes(report['waveform_cache_bytes'])} at most for what is "
            "not in it yet; steps that read from it are no slower"
        )


def proposal_lines(report: dict) -> Iterator[str]:
    """Flags with which the training takes less time.

    Args:
        report (`dict`): of [`dry_run`]; the keys it has decide what is told.
    """
    proposals = report["proposals"]
    if not proposals:
        return
    measured = proposals[-1]["measured"]
    how = "Estimated from the times above by the operations that are left"
    yield ""
    yield from _wrapped(f"For less time. {how}{'; timed: ' + ', '.join(measured) if measured else ''}")
    for row in proposals:
        minutes = row["minutes"]
        target = f"for {minutes} minutes" if minutes <= LAST_IN_MINUTES else f"for {minutes // 60} hours"
        target += "" if row["fits"] else " nothing; the least"
        yield from _wrapped(f"  {target}: {row['flags']} ({duration(row['seconds'])})")
        if row["first"]:
            yield from _wrapped(f"      after {row['first']}")


def refused_lines(report: dict) -> Iterator[str]:
    """What the training would not accept.

    Args:
        report (`dict`): of [`dry_run`]; the keys it has decide what is told.
    """
    if report["refused"]:
        yield from ["", "A training with these flags would not go through:"]
    for message in report["refused"]:
        yield from _wrapped(f"  - {message}")


def bars(names: list[str], counts: list[int]) -> Iterator[str]:
    """A histogram: a row with its name, its count and a bar for each; a count above 0 has a bar of one sign or more.

    Args:
        names (`list[str]`): of the rows.
        counts (`list[int]`): of the rows.
    """
    name_width, count_width = max(map(len, names)), len(str(max(counts)))
    longest = WIDTH - name_width - count_width - 6
    for name, count in zip(names, counts, strict=True):
        bar = "#" * max(round(longest * count / max(counts)), 1 if count else 0)
        yield f"  {name:>{name_width}}  {count:>{count_width}}  {bar}".rstrip()


def duration(seconds: float) -> str:
    """Seconds in the two largest units that tell something.

    Args:
        seconds (`float`): a duration.

    Returns:
        `str`: a part of a line.
    """
    if seconds < 1:
        return f"{1000 * seconds:.3g} ms"
    if seconds < 100:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 100:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours < 100 else f"{hours / 24:.1f} days"


def _length_in_words(frames: dict) -> str:
    number = f"{frames['clips_cut']} of {frames['clips']} clips"
    cut = f"cuts {number}, {frames['share_cut']:.1%} of all seconds"
    if not frames["beginnings"]:
        cut = f"is a window of {number}, and {frames['share_cut']:.1%} of all seconds lie beyond one"
    cut = cut if frames["clips_cut"] else ""
    return (
        f"--max_length {frames['max_length']} ({frames['seconds']:.2f} s): {cut or 'cuts no clip'}; "
        f"{frames['share_padding']:.0%} of the input is padding"
    )


def _padding_in_words(frames: dict) -> str:
    longest = ", when scored; in training clips are padded to the longest of their batch"
    return longest if frames["padding"] == "longest" else ""


def _part(count: int, number: int) -> str:
    return f"{count} of {number} clips ({count / number:.0%})" if count else f"none of {number} clips"


def _wrapped(text: str) -> list[str]:
    """Lines of a paragraph, those after the first set in."""
    indent = " " * (len(text) - len(text.lstrip()) + 2)
    return textwrap.wrap(text, WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
