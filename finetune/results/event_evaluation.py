"""How well the events of marked recordings are found by a model after its training, as `ast-tag --timeline` finds them.

What makes an event is chosen for each label on the recordings of the validation split; the recordings that are scored have no
part in it.
"""

import copy
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from torch.distributed.fsdp import FSDPModule
from tqdm import tqdm

from model_card.run_summary import shown_file
from modeling_ast.audio import AudioError, AudioReader, ExcerptReader
from modeling_ast.scores import label_thresholds
from modeling_ast.tagging.events import event_rules
from modeling_ast.tagging.frames import chosen_medians
from modeling_ast.tagging.results import Segment
from modeling_ast.tagging.score_tracks import ScoreTrack
from modeling_ast.tagging.tagger import AudioTagger
from modeling_ast.tagging.timeline_pictures import LoudestColumns, draw_timeline

from ..clip_sets.marked_windows import MarkedClips
from ..scores.event_rules import SHOWN, choose_event_rules, touches
from ..scores.event_scores import EventRule, psds, score_events
from ..scores.event_tables import Event, EventTable, ScoreTable
from ..scores.scoring import PROBLEM_TYPES
from ..sources.marked_recordings import Recording
from ..training.trainer import ASTTrainer

PICTURED = 30.0  # seconds
BEFORE_FIRST = 1.0  # seconds that are pictured before the first stretch


class EventFindings(NamedTuple):
    """What was found in the recordings that are scored.

    Attributes:
        section (`dict`): `events` of the section `evaluation` of the run summary.
        recording ([`Recording`]): the first one with a stretch.
        segments (`list[Segment]`): what is marked in it and what was found, in lanes beside each other.
    """

    section: dict
    recording: Recording | None
    segments: list[Segment]


def evaluate_events(
    trainer: ASTTrainer, splits: dict[str, MarkedClips], folder: Path | None = None
) -> EventFindings | None:
    """Choose what makes events, and score those that are found in the held-out recordings. Called by all processes.

    Args:
        trainer ([`ASTTrainer`]): after its training; the configuration of its model is left with the rules that were chosen, if
            there is a validation split.
        splits (`dict[str, MarkedClips]`): with `"eval"`, and `"validation"` if there is such a split.
        folder (`Path`, *optional*): of the data, in which recordings are named.

    Returns:
        [`EventFindings`], in the main process: nothing if the weights are spread over processes. If a recording cannot be heard to its
        end, it says so and nothing is scored.
    """
    config = trainer.model.config
    is_spread = any(isinstance(module, FSDPModule) for module in trainer.model.modules())
    if is_spread or trainer.is_deepspeed_enabled:
        return None
    tagger, rules, fault = None, [None], None
    if PartialState().is_main_process:
        model = copy.deepcopy(trainer.accelerator.unwrap_model(trainer.model)).eval()
        reader = trainer.eval_dataset.reader
        tagger = AudioTagger(model, trainer.feature_extractor, trainer.args.device.type, reader)
        try:
            rules = [_chosen(tagger, splits["validation"]) if "validation" in splits else None]
        except (
            AudioError
        ) as error:  # of what no window that was scored holds: a training that ended is not lost for it
            fault = f"the rules of events were not chosen: {error}"
    if "validation" in splits:
        broadcast_object_list(rules)
        config.event_rules = rules[0] or None
    if tagger is None:
        return None
    tagger.config.event_rules = config.event_rules
    try:
        if fault is None:
            return _findings(tagger, splits["eval"], folder)
    except AudioError as error:
        fault = str(error)
    return EventFindings({"recordings": len(splits["eval"].recordings), "not_scored": fault}, None, [])


def _tracks(tagger: AudioTagger, clips: MarkedClips) -> list[ScoreTrack]:
    recordings = clips.recordings
    sources = (item.audio if item.audio["bytes"] is not None else item.audio["path"] for item in recordings)
    tracks = tagger.score_tracks(sources, [item.name for item in recordings])
    return list(tqdm(tracks, "scoring along time", len(recordings), unit="recording", **SHOWN))


def _events(recording: Recording) -> list[Event]:
    return [Event(mark.start, mark.end, mark.label) for mark in recording.marks]


def _names_of_events(clips: MarkedClips) -> list[str]:
    return [label for place, label in enumerate(clips.labels) if place != clips.rules.background]


def _chosen(tagger: AudioTagger, clips: MarkedClips) -> dict[str, dict[str, float]]:
    exclusive = tagger.problem_type == PROBLEM_TYPES["softmax"]
    thresholds = dict(zip(clips.labels, label_thresholds(tagger.config).tolist(), strict=True))
    marked = [_events(item) for item in clips.recordings]
    unknown = [[(mark.start, mark.end) for mark in item.unknown] for item in clips.recordings]
    return choose_event_rules(
        _tracks(tagger, clips), marked, clips.labels, thresholds, EventRule(), exclusive, unknown
    )


def _findings(tagger: AudioTagger, clips: MarkedClips, folder: Path | None) -> EventFindings:
    config, tracks, names = tagger.config, _tracks(tagger, clips), _names_of_events(clips)
    rules, medians = event_rules(config, tagger.sampling_rate), chosen_medians(config, tagger.columns)
    files = [f"recording {number}" for number in range(1, len(tracks) + 1)]  # several may have one name
    marked = {file: _events(item) for file, item in zip(files, clips.recordings, strict=True)}
    found = {
        file: [
            Segment(file, one.start / track.sampling_rate, one.end / track.sampling_rate, label, one.score)
            for one in track.events(rules, medians)
            if (label := config.id2label[one.label]) in names
        ]
        for file, track in zip(files, tracks, strict=True)
    }
    for file, item in zip(files, clips.recordings, strict=True):  # where nobody knows what is right, nothing counts
        unknown = [(mark.start, mark.end) for mark in item.unknown]
        found[file] = [one for one in found[file] if not touches(one.start, one.end, unknown)]
    section = {"rules": config.event_rules} if config.event_rules else {}
    section |= {
        "recordings": len(tracks),
        **_scores(marked, found, dict(zip(files, tracks, strict=True)), names, clips.labels),
    }
    if "per_recording" in section:
        rows = zip(clips.recordings, files, strict=True)
        section["per_recording"] = [
            {"file": shown_file(item.name, folder)} | section["per_recording"][file] for item, file in rows
        ]
    pictured = next((number for number, item in enumerate(clips.recordings) if item.marks), None)
    if pictured is None:
        return EventFindings(section, None, [])
    told = [
        Segment(files[pictured], mark.start, mark.end, mark.label, 1.0) for mark in clips.recordings[pictured].marks
    ]
    lanes = [
        replace(one, label=f"{one.label}, {kind}")
        for kind, of_kind in (("marked", told), ("found", found[files[pictured]]))
        for one in of_kind
    ]
    return EventFindings(section, clips.recordings[pictured], lanes)


def _scores(
    marked: dict[str, list[Event]],
    found: dict[str, list[Segment]],
    tracks: dict[str, ScoreTrack],
    names: list[str],
    labels: list[str],
) -> dict:
    reference = EventTable("What is marked in the held-out recordings", marked)
    events = {file: [Event(one.start, one.end, one.label) for one in segments] for file, segments in found.items()}
    durations = {file: track.seconds for file, track in tracks.items()}
    if not any(marked.values()):
        return {"not_scored": "nothing is marked in the held-out recordings"}
    try:
        scores = score_events(reference, EventTable("what was found", events), durations, labels=names)
    except ImportError as error:
        return {"not_scored": str(error)}
    with suppress(ImportError):  # which needs a C compiler to be installed
        tables = {file: score_table(track, labels) for file, track in tracks.items()}
        scores["psds"] = psds(reference, tables, durations)
    return scores


def events_in_words(section: dict) -> str:
    """Say how well events were found.

    Args:
        section (`dict`): from [`evaluate_events`].

    Returns:
        `str`: a part of a line.
    """
    if "not_scored" in section:
        return f"events not scored: {section['not_scored']}"
    f1, alarms = section["event_based"]["micro"]["f1"], section["false_alarms_per_hour"]
    number = section["recordings"]
    return (
        f"events of {number} recording{'s' if number > 1 else ''}: F1 {f1 or 0:.3f}, {alarms:.0f} false alarms an hour"
    )


def score_table(track: ScoreTrack, labels: list[str]) -> ScoreTable:
    """Put the scores of a recording into one table.

    Args:
        track ([`ScoreTrack`]): of the recording.
        labels (`list[str]`): names in the order of the scores.

    Returns:
        [`ScoreTable`]: with nothing where the recording is silent.
    """
    times, rows = [0.0], []
    for edges, means in track.places:
        seconds = edges / track.sampling_rate
        if seconds[0] > times[-1]:
            times.append(float(seconds[0]))
            rows.append(np.full((1, means.shape[1]), -np.inf))
        times += seconds[1:].tolist()
        rows.append(means)
    if not rows:  # it is silent from beginning to end
        times, rows = [0.0, track.seconds], [np.full((1, len(labels)), -np.inf)]
    return ScoreTable(np.array(times), np.concatenate(rows), labels)


def plot_scored_recording(findings: EventFindings, reader: AudioReader, num_mel_bins: int, path: Path):
    """Draw the half minute around the first stretch of a scored recording, with what is marked and what was found.

    Args:
        findings ([`EventFindings`]): with a recording.
        reader ([`AudioReader`]): how it is heard.
        num_mel_bins (`int`): of the spectrogram.
        path (`Path`): PNG file to write.

    Raises:
        AudioError: if it cannot be heard any more.
    """
    recording, rate = findings.recording, reader.sampling_rate
    begin = max(min(mark.start for mark in recording.marks) - BEFORE_FIRST, 0.0)
    waveform = ExcerptReader(reader).hear(recording.audio, round(begin * rate), round(PICTURED * rate)).waveform
    columns = LoudestColumns(rate, num_mel_bins)
    columns.add(waveform)
    length = len(waveform) / rate
    shown = [
        replace(one, start=max(one.start - begin, 0.0), end=min(one.end - begin, length))
        for one in sorted(findings.segments, key=lambda one: one.label)
        if one.end > begin and one.start < begin + length
    ]
    title = f"A scored recording from {begin:.1f} s on: what is marked and what was found"
    draw_timeline(columns.log_mel(), length, shown, path, title, rate, columns.end)
