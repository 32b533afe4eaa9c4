"""A page to try a model: a recording goes in; labels, a time line and the attention over the spectrogram come out.

Built with Gradio. It stands on `modeling_ast` alone, so that a Space can carry a copy of it beside a copy of that package.
Scores, thresholds and the time line are those of [`modeling_ast.tagging.tagger`]. Nothing is loaded from other hosts.
"""

import base64
import io
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import gradio as gr
import numpy as np
from matplotlib.figure import Figure

from modeling_ast.attention_maps import attention_maps, plot_attention
from modeling_ast.audio import (
    CANCELLED,
    SILENT,
    AudioError,
    AudioLimits,
    AudioReader,
    Heard,
    MissingAudioError,
    SoundStream,
    is_silent,
)
from modeling_ast.audio.errors import first_line
from modeling_ast.features.kaldi import FRAME_SHIFT_MS, num_frames
from modeling_ast.features.log_mel_figure import DPI
from modeling_ast.scores import label_thresholds
from modeling_ast.system.names_as_text import html_text, storable
from modeling_ast.tagging.none_of_these import NONE_OF_THESE, KnownClips
from modeling_ast.tagging.results import with_novel_segments
from modeling_ast.tagging.segments import least_rest, window_starts
from modeling_ast.tagging.tagger import AudioTagger, FileTags, Segment

logger = logging.getLogger(__name__)

TOP_K = 5  # labels that are shown as bars
MOST_LANES = 12  # of the time line, one for each label
MOST_HEARD = 12  # independent labels that are named
MOST_TICKS = 8
TICK_STEPS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1200, 1800, 3600)  # seconds
LEAST_BEYOND = 0.1  # seconds after the first window, from which the picture can be moved to them
MOST_WAITING = 20  # requests
KEPT_SECONDS, CLEANED_EVERY = 3600, 600  # of what was sent; also of those who left
# Stereo at 48 kHz may be as long as `max_minutes`; of more channels or a higher rate accordingly less is taken.
NUMBERS_PER_SECOND = 2 * 48_000

PLAYER_ID = "recording"

PAGE_CSS = "#labels :is(h2, dt) { overflow-wrap: anywhere; }"  # or a long name would widen its bar

TIMELINE_CSS = """
.lanes { display: grid; grid-template-columns: fit-content(35%) 1fr; gap: 4px 10px; align-items: center; }
.name { text-align: right; overflow-wrap: anywhere; line-height: 1.2; }
.lane { position: relative; height: 28px; overflow: hidden; cursor: pointer; border-radius: var(--radius-sm);
  background: var(--background-fill-secondary); border: 1px solid var(--border-color-primary); }
.lane button { position: absolute; top: 3px; bottom: 3px; margin: 0; min-width: 4px; border-radius: var(--radius-xs);
  background: var(--primary-500); cursor: pointer; }
.lane button:focus-visible { outline: 2px solid var(--body-text-color); }
.lane::after { content: ""; position: absolute; top: 0; bottom: 0; left: calc(var(--played, 0) * 100%); width: 2px;
  background: var(--body-text-color); pointer-events: none; }
.axis { position: relative; height: 1.3em; font-size: var(--text-sm); container-type: inline-size; }
.axis span { position: absolute; transform: translateX(-50%); }
.axis span:first-child { transform: none; }
@container (max-width: 28rem) { .axis span:nth-child(even) { display: none; } }
@container (max-width: 14rem) { .axis span:not(:nth-child(4n + 1)) { display: none; } }
.hint { margin: 0 0 8px; }
"""

# A click plays from its place; Enter on a segment, which has no place, from the segment's start. Media events do not
# bubble, hence the capture.
TIMELINE_JS = """
const player = () => document.querySelector('#PLAYER_ID audio');
const lanes = () => element.querySelector('.lanes');
element.addEventListener('click', async (event) => {
  const lane = event.target.closest('.lane');
  if (!lane || !player()) return;
  const segment = event.target.closest('button');
  const box = lane.getBoundingClientRect();
  const place = (event.clientX - box.left) / box.width * Number(lanes().dataset.seconds);
  const seconds = segment && event.detail === 0 ? Number(segment.dataset.start) : Math.max(place, 0);
  player().currentTime = seconds;
  trigger('click', {seconds});
  try {
    await player().play();
  } catch (error) {
    if (error.name === 'NotSupportedError') element.querySelector('.hint').textContent =
      'This browser cannot play the recording. Convert it to WAV, FLAC or MP3 to hear it here.';
  }
});
document.addEventListener('timeupdate', (event) => {
  if (lanes() && event.target === player())
    lanes().style.setProperty('--played', event.target.currentTime / Number(lanes().dataset.seconds));
}, true);
""".replace("PLAYER_ID", PLAYER_ID)

HEADER_CSS = """
h1 { margin: 0 0 4px; font-size: 1.9rem; line-height: 1.2; font-weight: 600; overflow-wrap: anywhere; }
p { margin: 0; }
"""

PICTURE_CSS = "img { width: 100%; border-radius: var(--radius-lg); }"

MESSAGE_CSS = """
p { margin: 0; padding: 10px 14px; border-radius: var(--radius-lg); border: 1px solid var(--error-border-color);
  background: var(--error-background-fill); color: var(--error-text-color); overflow-wrap: anywhere; }
p + p { margin-top: 8px; }
"""


def build_page(
    model,
    feature_extractor,
    *,
    name: str,
    max_megabytes: float,
    max_minutes: float,
    description: str | None = None,
    license: str | None = None,
    known_clips: KnownClips | None = None,
) -> gr.Blocks:
    """Build the page; `launch` or `gradio.mount_gradio_app` serves it, with what [`launch_options`] says.

    Requests are computed one at a time.

    Args:
        model ([`ASTForAudioClassification`]): a model with a trained classifier.
        feature_extractor ([`ASTFeatureExtractor`]): the one that was saved with it.
        name (`str`): of the model, the page's title.
        max_megabytes (`float`): of a file, as in [`launch_options`]; the page only says it.
        max_minutes (`float`): of a recording; longer ones are refused.
        description (`str`, *optional*): what the model is, in a line.
        license (`str`, *optional*): the model's licence, such as `"apache-2.0"`.
        known_clips ([`KnownClips`], *optional*): the model's training clips; recordings that are unlike them are said to be so.

    Returns:
        `gradio.Blocks`.

    Raises:
        TaggingError: if model and feature extractor are of different sizes.
    """
    reader = page_reader(feature_extractor, max_minutes)
    tagger = AudioTagger(model, feature_extractor, reader=reader, known_clips=known_clips)
    window_seconds = tagger.window_samples / tagger.sampling_rate
    multi_label = tagger.problem_type == "multi_label_classification"

    with gr.Blocks(title=name, analytics_enabled=False, delete_cache=(CLEANED_EVERY, KEPT_SECONDS)) as page:
        gr.HTML(header_html(name, description, license), css_template=HEADER_CSS, js_on_load=None)
        with gr.Row():
            with gr.Column():
                recording = gr.Audio(
                    label=f"Recording, up to {max_minutes:g} minutes and {max_megabytes:g} MB",
                    type="filepath",
                    sources=["upload", "microphone"],
                    editable=False,
                    buttons=[],
                    elem_id=PLAYER_ID,
                    # The browser's own player: what the time line moves, and what works with a keyboard.
                    waveform_options=gr.WaveformOptions(show_recording_waveform=False),
                )
                message = gr.HTML(visible=False, css_template=MESSAGE_CSS, js_on_load=None, elem_id="message")
            with gr.Column():
                # The best of independent labels may be one that is not heard.
                labels = gr.Label(
                    label="Labels", num_top_classes=TOP_K, show_heading=not multi_label, elem_id="labels"
                )
                note = gr.HTML(visible=False, js_on_load=None, elem_id="note")
        timeline = gr.HTML(
            visible=False, label="Time line", css_template=TIMELINE_CSS, js_on_load=TIMELINE_JS, elem_id="timeline"
        )
        with gr.Group(visible=False) as picture_group:
            # Not `gr.Plot`, whose pictures have no text for those who do not see them.
            picture = gr.HTML(css_template=PICTURE_CSS, js_on_load=None, elem_id="picture")
            with gr.Row():
                layer = gr.Dropdown(
                    ["All (rollout)", *(f"Layer {n}" for n in range(1, model.config.num_hidden_layers + 1))],
                    label="Layer",
                    type="index",
                    elem_id="layer",
                )
                head = gr.Dropdown(
                    ["All (mean)", *(f"Head {n}" for n in range(1, model.config.num_attention_heads + 1))],
                    label="Head of a single layer",
                    type="index",
                    interactive=False,
                    elem_id="head",
                )
                start = gr.Slider(label="From second", minimum=0, maximum=1, step=0.01, visible=False, elem_id="start")

        def answer(path, layer, head):
            if path is None:
                return _cleared()
            try:
                tags, seconds = tag_recording(tagger, path)
                picture_text = picture_html(draw_attention(tagger, path, 0.0, *_chosen(layer, head)))
            except AudioError as error:
                return _cleared(str(error).replace(path, Path(path).name))
            except Exception as error:
                return _cleared(unforeseen(error))
            is_long = tags.segments is not None
            beyond = max(seconds - window_seconds, LEAST_BEYOND)
            text = note_html(tags, tagger, seconds)
            return {
                message: gr.HTML(message_html(tags), visible=bool(tags.notes)),
                labels: label_value(tags, tagger.problem_type),
                note: gr.HTML(text, visible=bool(text)),
                timeline: gr.HTML(timeline_html(tags.segments, seconds) if is_long else "", visible=is_long),
                start: gr.Slider(value=0, maximum=round(beyond, 2), visible=beyond > LEAST_BEYOND),
                picture_group: gr.Group(visible=True),
                picture: picture_text,
            }

        def _cleared(text: str | None = None):
            shown = f'<p role="alert">{html_text(text)}</p>' if text else ""
            return {
                message: gr.HTML(shown, visible=text is not None),
                labels: None,
                note: gr.HTML(visible=False),
                timeline: gr.HTML(visible=False),
                start: gr.Slider(visible=False),
                picture_group: gr.Group(visible=False),
                picture: "",
            }

        def draw(path, start, layer, head):
            if path is None:
                return ""
            try:
                return picture_html(draw_attention(tagger, path, start, *_chosen(layer, head)))
            except MissingAudioError as error:  # Gradio removes old files
                raise gr.Error("This recording is no longer here. Send it again.", print_exception=False) from error
            except Exception as error:
                raise gr.Error(unforeseen(error), print_exception=False) from error

        def _chosen(layer, head):
            return (layer - 1, head - 1 if head else None) if layer else (None, None)  # the first choice is all

        def draw_from_click(path, layer, head, click: gr.EventData):
            seconds = round(click.seconds, 2)
            return seconds, draw(path, seconds, layer, head)

        one_at_a_time = {"concurrency_id": "model", "concurrency_limit": 1, "trigger_mode": "always_last"}
        recording.change(
            answer,
            [recording, layer, head],
            [message, labels, note, timeline, start, picture_group, picture],
            show_progress_on=[labels],
            api_name="tag",
            **one_at_a_time,
        )
        layer.input(lambda layer: gr.Dropdown(interactive=layer > 0), layer, head, queue=False, api_name=False)
        for control in (layer, head, start):
            control.input(draw, [recording, start, layer, head], picture, api_name=False, **one_at_a_time)
        timeline.click(
            draw_from_click,
            [recording, layer, head],
            [start, picture],
            show_progress_on=[picture],
            api_name=False,
            **one_at_a_time,
        )
    return page.queue(max_size=MOST_WAITING)


def launch_options(max_megabytes: float) -> dict:
    """What the page is served with, by `launch` as by `gradio.mount_gradio_app`.

    Args:
        max_megabytes (`float`): of a file, in millions of bytes; larger ones are refused while they are sent.

    Returns:
        `dict` of keyword arguments.
    """
    return {
        "theme": gr.themes.Default(primary_hue="blue"),  # its fonts come with Gradio
        "css": PAGE_CSS,
        "max_file_size": round(max_megabytes * 1e6),
        "show_error": False,  # what is not foreseen is for the terminal
        "footer_links": [],
        "run_history": False,
        "enable_monitoring": False,
        "ssr_mode": False,
    }


@dataclass(frozen=True)
class RecentReader(AudioReader):
    """An [`AudioReader`] that keeps what it heard last: a page tags a recording and draws several pictures of it."""

    recent: dict = field(default_factory=dict, repr=False, compare=False)

    def hear(self, source: str | os.PathLike, name: str | None = None, max_samples: int | None = None) -> Heard:
        """Hear a whole file as [`AudioReader.hear`] does, or give what was heard of it just now.

        Args:
            source (`str` or `os.PathLike`): the file.
            name (`str`, *optional*): see [`read_audio`].
            max_samples (`int`, *optional*): see [`read_audio`].

        Returns:
            [`Heard`].

        Raises:
            AudioError: as [`AudioReader.hear`]; also for a file that is no longer there.
        """
        try:
            found = os.stat(source)
        except OSError:
            return super().hear(source, name, max_samples)  # says in words what is wrong
        key = (str(source), found.st_size, found.st_mtime_ns)
        if key not in self.recent:
            self.recent.clear()  # before the next takes memory
            self.recent[key] = super().hear(source, name)
        return self.recent[key]

    def stream(
        self,
        source: str | os.PathLike,
        name: str | None = None,
        each_channel: bool = False,
        others: Sequence[AudioReader] = (),
    ) -> SoundStream:
        """Hear a file in one block, that was heard just now.

        Args:
            source (`str` or `os.PathLike`): the file.
            name (`str`, *optional*): see [`read_audio`].
            each_channel (`bool`, *optional*, defaults to `False`): see [`AudioReader.stream`].
            others (sequence of [`AudioReader`], *optional*): see [`AudioReader.stream`].

        Returns:
            [`SoundStream`].
        """
        return SoundStream(self, source, name or str(source), each_channel, whole=True, others=others)


def page_reader(feature_extractor, max_minutes: float) -> RecentReader:
    """Make the reader by which a page hears recordings.

    Args:
        feature_extractor ([`ASTFeatureExtractor`]): of the model.
        max_minutes (`float`): of a recording; longer ones are refused, whatever their header says.

    Returns:
        [`RecentReader`].
    """
    seconds = 60 * max_minutes
    own = feature_extractor.audio_reader()
    return RecentReader(
        own.sampling_rate,
        own.channels,
        own.resampler,
        limits=AudioLimits(seconds, round(NUMBERS_PER_SECOND * seconds)),
    )


def tag_recording(tagger: AudioTagger, path: str | Path) -> tuple[FileTags, float]:
    """Tag a recording that somebody sent.

    Args:
        tagger ([`AudioTagger`]): the model, with a reader from [`page_reader`].
        path (`str` or `Path`): the file.

    Returns:
        All labels and notes, with segments, of [`with_novel_segments`], if the recording lasts one and a half windows or longer and the model has labels for
        them; and the recording's length in seconds.

    Raises:
        AudioError: if it cannot be used, in words that name the file and not where it lies.
    """
    path = Path(path)
    try:
        heard = tagger.reader.hear(path)
        waveform = heard.waveform
        if num_frames(waveform.size, tagger.sampling_rate) > 0 and is_silent(waveform):
            raise AudioError(next(note.text for note in heard.notes if note.kind in (CANCELLED, SILENT)))
        # Windows lie half a window apart; of less than that there is no time line to speak of.
        is_long = waveform.size >= 1.5 * tagger.window_samples
        timeline = is_long and tagger.problem_type != "regression"
        (tags,) = tagger.tag_files([path], top_k=tagger.model.config.num_labels, timeline=timeline)
        if tags.error is not None:
            raise AudioError(tags.error)
    except AudioError as error:
        raise AudioError(str(error).replace(str(path), path.name)) from error
    notes = tuple(replace(note, text=note.text.replace(str(path), path.name)) for note in tags.notes)
    return replace(with_novel_segments(tags), notes=notes), waveform.size / tagger.sampling_rate


def unforeseen(error: Exception) -> str:
    """Say a fault of the page in a line of the terminal, and give the sentence for the visitor.

    Gradio would show no word of it, or all of it, with names of this machine's files.

    Args:
        error (`Exception`): what was raised.

    Returns:
        The sentence.
    """
    logger.error(f"A recording was not answered, {type(error).__name__}: {first_line(error)}")
    return "This recording met a fault of the page, which is told in its terminal. Try another recording."


def draw_attention(
    tagger: AudioTagger, path: str | Path, start: float = 0.0, layer: int | None = None, head: int | None = None
) -> Figure:
    """Draw the spectrogram of a window of a recording with the attention map over it.

    Args:
        tagger ([`AudioTagger`]): the model.
        path (`str` or `Path`): the file, one that [`tag_recording`] takes.
        start (`float`, *optional*, defaults to 0.0): where the window begins, in seconds; the last one ends with the
            recording.
        layer (`int`, *optional*): a single layer, from 0 on; attention rollout through all if not given.
        head (`int`, *optional*): a single head of that layer; the mean of its heads if not given.

    Returns:
        `Figure`, with padding left out.
    """
    rate = tagger.sampling_rate
    waveform = tagger.reader.hear(path, max_samples=round(start * rate) + tagger.window_samples).waveform
    first = max(min(round(start * rate), waveform.size - tagger.window_samples), 0)
    window = waveform[first : first + tagger.window_samples]
    features = tagger.feature_extractor([window], sampling_rate=rate, return_tensors="pt", device=tagger.device)
    maps = attention_maps(tagger.model, tagger.feature_extractor, **features, layer=layer, head=head)

    log_mel = features["input_values"][0].cpu()
    frames = min(num_frames(window.size, rate), len(log_mel))
    # Padding is not shown and would set the scale of the greys.
    log_mel = log_mel[np.arange(len(log_mel)) % frames]
    what = "attention rollout through all layers" if layer is None else f"attention in layer {layer + 1}"
    if layer is not None and head is not None:
        what += f", head {head + 1}"
    title = f"{clock(first / rate)} to {clock((first + window.size) / rate)}: {what}"
    figure = plot_attention(log_mel, maps, title=title)
    figure.axes[0].set_xlim(0, frames * FRAME_SHIFT_MS / 1000)
    return figure


def picture_html(figure: Figure) -> str:
    """Put a figure as a PNG within an `img`, whose text is the figure's title.

    Args:
        figure (`Figure`): with a title.

    Returns:
        HTML.
    """
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=DPI)
    encoded = base64.b64encode(content.getvalue()).decode()
    title = html_text(f"Log-mel spectrogram, {figure.axes[0].get_title()}")
    return f'<img src="data:image/png;base64,{encoded}" alt="{title}">'


def label_value(tags: FileTags, problem_type: str) -> dict[str, float] | str:
    """Lay out what Gradio's label component shows.

    Args:
        tags ([`FileTags`]): of a recording.
        problem_type (`str`): of the model.

    Returns:
        Scores by label, or a regression's outputs as text.
    """
    if problem_type == "regression":
        return ", ".join(f"{storable(tag.label)}: {tag.score:.4g}" for tag in tags.labels)
    return {storable(tag.label): tag.score for tag in tags.labels}


def message_html(tags: FileTags) -> str:
    """Lay out what stands above the labels: what was not heard of the recording.

    Args:
        tags ([`FileTags`]): of a recording.

    Returns:
        HTML, a paragraph for each note.
    """
    return "".join(f'<p role="status">{html_text(note.text)}</p>' for note in tags.notes)


def note_html(tags: FileTags, tagger: AudioTagger, seconds: float) -> str:
    """What stands below the labels: whether the recording is none of what they are about, what the scores of a long one are, and
    which of independent labels count.

    Args:
        tags ([`FileTags`]): of the recording, with all labels.
        tagger ([`AudioTagger`]): the model.
        seconds (`float`): the recording's length.

    Returns:
        HTML in which labels are escaped; nothing where there is nothing to say.
    """
    rate, window = tagger.sampling_rate, tagger.window_samples
    several = len(window_starts(round(seconds * rate), window, window, least_rest(rate))) > 1
    means = f"Means over windows of {window / rate:.3g} s" if several else ""
    lines = []
    if tags.novelty is not None and tags.novelty.is_beyond:
        lines.append(
            f"<b>None of these</b>: {tags.novelty.distance:.2f} from the training clips, beyond {tags.novelty.threshold:.2f}."
        )
    if tags.segments is not None:
        return " ".join([*lines, f"{means}; below is what was heard when."])
    lines += [f"{means}."] if means else []
    if tagger.problem_type == "multi_label_classification":
        lines.append(_heard_html(tags, tagger.model.config))
    return " ".join(lines)


def _heard_html(tags: FileTags, config) -> str:
    thresholds = dict(zip(map(config.id2label.get, range(config.num_labels)), label_thresholds(config), strict=True))
    heard = [
        f"<b>{html_text(tag.label)}</b> (threshold {thresholds[tag.label]:.0%})"
        for tag in tags.labels
        if tag.score >= thresholds[tag.label]
    ]
    more = f" and {len(heard) - MOST_HEARD} more" if len(heard) > MOST_HEARD else ""
    return f"Heard: {', '.join(heard[:MOST_HEARD])}{more}." if heard else "No label reaches its threshold."


def timeline_html(segments: Sequence[Segment], seconds: float) -> str:
    """A lane for each label with its segments as buttons, and an axis of time.

    Args:
        segments (sequence of [`Segment`]): of one recording.
        seconds (`float`): its length.

    Returns:
        HTML in which labels are escaped. A segment is the stronger in colour, the higher its score; of many labels those
        that were heard longest have a lane, of equally long ones those with the higher score.
    """
    by_label: dict[str, list[Segment]] = {}
    for segment in segments:
        by_label.setdefault(segment.label, []).append(segment)

    def length_and_score(label: str) -> tuple[float, float]:
        return (
            sum(segment.end - segment.start for segment in by_label[label]),
            max(segment.score for segment in by_label[label]),
        )

    longest = sorted(by_label, key=length_and_score, reverse=True)
    rows = "".join(_lane_html(label, by_label[label], seconds) for label in longest[:MOST_LANES])
    step = next((step for step in TICK_STEPS if seconds / step <= MOST_TICKS), TICK_STEPS[-1])
    ticks = "".join(
        f'<span style="left: {100 * time / seconds:.3f}%">{clock(time)}</span>'
        for time in (number * step for number in range(int(seconds / step) + 1))
    )
    hint = "Click to play from there."
    if not longest:
        hint = "No label reaches its threshold anywhere."
    elif len(longest) > MOST_LANES:
        hint += f" The {MOST_LANES} labels that were heard longest, of {len(longest)}."
    return (
        f'<p class="hint" role="status">{hint}</p><div class="lanes" role="group" aria-label="Time line of labels" '
        f'data-seconds="{seconds:.3f}">{rows}<span></span><div class="axis" aria-hidden="true">{ticks}</div></div>'
    )


def _lane_html(label: str, segments: Sequence[Segment], seconds: float) -> str:
    def score(segment: Segment) -> str:
        return f"distance {segment.score:.2f}" if segment.label == NONE_OF_THESE else f"{segment.score:.0%}"

    label = html_text(label)
    buttons = "".join(
        f'<button type="button" data-start="{segment.start:.3f}" style="left: {100 * segment.start / seconds:.3f}%; '
        f"width: {100 * (segment.end - segment.start) / seconds:.3f}%; "
        f'opacity: {0.3 + 0.7 * min(max(segment.score, 0), 1):.2f}" '
        f'title="{label}, {clock(segment.start)} to {clock(segment.end)}, {score(segment)}" '
        f'aria-label="Play {label} from {clock(segment.start)} to {clock(segment.end)}, score {score(segment)}">'
        "</button>"
        for segment in segments
    )
    return f'<span class="name">{label}</span><div class="lane">{buttons}</div>'


def header_html(name: str, description: str | None, license: str | None) -> str:
    """Lay out the page's head.

    Args:
        name (`str`): of the model.
        description (`str`, *optional*): what it is, in a line.
        license (`str`, *optional*): its licence.

    Returns:
        HTML, in which all that was given is escaped.
    """
    lines = " ".join(filter(None, (description, license and f"License: {license}.")))
    return f"<h1>{html_text(name)}</h1>" + (f"<p>{html_text(lines)}</p>" if lines else "")


def clock(seconds: float) -> str:
    """Write seconds as minutes and seconds.

    Args:
        seconds (`float`): from the beginning on.

    Returns:
        Text such as `1:05`, with tenths where there are some: `1:05.5`.
    """
    tenths = round(seconds * 10)
    text = f"{tenths // 600}:{tenths % 600 // 10:02d}"
    return f"{text}.{tenths % 10}" if tenths % 10 else text
