"""The demo page: what a browser shows is compared with stock Transformers' pipeline; no browser is faked.

One `ast-demo` and one headless Chromium, whose microphone beeps, serve the tests of the page.
"""

import contextlib
import html
import importlib.util
import os
import re
import shutil
import signal
import socket
import sys
import tempfile
import time
from pathlib import Path

import httpx
import numpy as np
import pytest
import soundfile
import transformers
from demo_runs import (
    LABELS,
    LICENSE,
    LISTENING_SECONDS,
    RATE,
    WINDOW,
    Demo,
    Page,
    launched_browser,
    noise,
    save_checkpoint,
)

from model_card import run_demo
from modeling_ast.attention_maps import attention_maps
from modeling_ast.system.installation import install_command
from modeling_ast.tagging.none_of_these import KnownClips
from modeling_ast.tagging.tagger import AudioTagger, FileTags, Segment, Tag

pytestmark = [
    pytest.mark.pictures,
    pytest.mark.skipif(importlib.util.find_spec("gradio") is None, reason="needs Gradio"),
]

LIMITS = ["--max_megabytes", "1", "--max_minutes", "0.5"]
STEREO = 'two <b> 96 kHz & "stereo"'


@pytest.fixture(scope="module")
def demo_page():
    """The page's module, whose Gradio takes long to import."""
    return importlib.import_module("model_card.demo_page")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return save_checkpoint(tmp_path_factory.mktemp("models") / "tiny", "single_label_classification")


@pytest.fixture(scope="module")
def multi_label(tmp_path_factory):
    tagger = AudioTagger.from_pretrained(
        save_checkpoint(tmp_path_factory.mktemp("multi_label"), "multi_label_classification"), "cpu"
    )
    tagger.model.config.label_thresholds = {"bell": 0.0, "kick": 1.0}
    return tagger


@pytest.fixture(scope="module")
def recordings(tmp_path_factory, drum_rows):
    folder = tmp_path_factory.mktemp("recordings")
    clip = next(row for row in drum_rows if row["label"] == "snare")["path"]
    (folder / "text.wav").write_text("<html>404</html> " * 50)
    (folder / "empty.wav").touch()
    soundfile.write(folder / "long.wav", noise(8)[: 7 * RATE], RATE)
    soundfile.write(folder / "two windows.wav", noise(2)[: int(1.4 * WINDOW)], RATE)
    soundfile.write(folder / f"{STEREO}.wav", noise(2).reshape(-1, 2), 96_000)
    soundfile.write(folder / "silent.wav", np.zeros(RATE), RATE)
    soundfile.write(folder / "short.wav", np.full(100, 0.1), RATE)
    soundfile.write(folder / "too_long.flac", np.sin(np.arange(35 * RATE)) / 9, RATE)
    soundfile.write(folder / "too_large.wav", noise(50), RATE)
    return {path.stem: path for path in folder.iterdir()} | {"clip": Path(clip)}


@pytest.fixture(scope="module")
def demos(tmp_path_factory, checkpoint):
    """Start a program if there is none: starting takes seconds, and one test ends it."""
    started = []

    def running():
        if not started or started[-1].process.poll() is not None:
            started.append(Demo(tmp_path_factory.mktemp("demo"), checkpoint, *LIMITS, forked=True))
            started[-1].url = started[-1].address()
        return started[-1]

    yield running
    for demo in started:
        demo.end()


@pytest.fixture
def demo(demos):
    return demos()


@pytest.fixture(scope="module")
def browser():
    with launched_browser() as launched:
        yield launched


@pytest.fixture
def page(browser, demo):
    """Open the page if it is not; tests go on where others stopped, as visitors do."""
    if demo.page is None:
        demo.page = Page(browser, demo.url)
    yield demo.page
    assert not demo.page.faults


def stock_scores(checkpoint, waveforms, sampling_rate=RATE, **options):
    model = transformers.AutoModelForAudioClassification.from_pretrained(checkpoint)
    extractor = transformers.ASTFeatureExtractor.from_pretrained(checkpoint)
    pipeline = transformers.pipeline("audio-classification", model=model, feature_extractor=extractor)
    return pipeline([{"raw": waveform, "sampling_rate": sampling_rate} for waveform in waveforms], **options)


# The page


def test_the_page_shows_the_labels_of_the_stock_pipeline(demo_page, page, checkpoint, recordings):
    page.send(recordings["clip"])
    waveform, _ = soundfile.read(recordings["clip"], dtype="float32")
    (expected,) = stock_scores(checkpoint, [waveform], top_k=demo_page.TOP_K)
    assert page.labels() == {row["label"]: f"{round(100 * row['score'])}%" for row in expected}
    assert len({row["score"] for row in expected}) == demo_page.TOP_K
    assert page.locator("#labels h2").inner_text() == expected[0]["label"]
    assert page.title() == page.locator("h1").inner_text() == checkpoint.name
    assert f"{len(LABELS)} labels. License: {LICENSE}." in page.locator("h1 + p").inner_text()
    assert not page.locator("#timeline, #start").count(), "for long recordings"


def test_a_layer_and_a_head_are_drawn_on_demand(page, recordings):
    page.send(recordings["clip"])
    page.picture("attention rollout through all layers")
    layer, head = (page.get_by_label(name, exact=True) for name in ("Layer", "Head of a single layer"))
    assert head.is_disabled()
    layer.click()
    page.get_by_role("option", name="Layer 2").click()
    page.picture("attention in layer 2")
    rollout = page.locator("#picture img").get_attribute("src")
    head.click()
    page.get_by_role("option", name="Head 1").click()
    page.picture("attention in layer 2, head 1")
    assert page.locator("#picture img").get_attribute("src") != rollout
    layer.click()
    page.get_by_role("option", name="All (rollout)").click()
    page.picture("attention rollout")


def test_the_timeline_of_a_long_recording_plays_from_where_it_is_clicked(page, checkpoint, recordings):
    page.send(recordings["long"])
    waveform, _ = soundfile.read(recordings["long"], dtype="float32")
    last = len(waveform) - WINDOW
    starts = [*range(0, last, WINDOW // 2 // 160 * 160), last]  # half a window, in whole frames
    windows = stock_scores(checkpoint, [waveform[start : start + WINDOW] for start in starts], top_k=len(LABELS))
    best = set()
    for place in {*starts, *(start + WINDOW for start in starts[:-1])}:
        over = [rows for start, rows in zip(starts, windows, strict=True) if start <= place < start + WINDOW]
        means = {
            label: sum(row["score"] for rows in over for row in rows if row["label"] == label) for label in LABELS
        }
        best.add(max(means, key=lambda label: means[label] / len(over)))
    assert len(best) > 1
    assert set(page.locator("#timeline .name").all_inner_texts()) == best

    lane = page.locator("#timeline .lane").first.bounding_box()
    page.mouse.click(lane["x"] + 0.6 * lane["width"], lane["y"] + 4)
    assert 0.6 * 7 - 0.05 < page.playing_from() < 0.6 * 7 + 2, "0.05 s are some pixels"
    page.wait_for_function("document.querySelector('#recording audio').currentTime > 0.6 * 7 + 0.5")
    page.picture("0:04.2 to 0:05.2")
    played = page.locator("#timeline .lanes").evaluate("lanes => Number(lanes.style.getPropertyValue('--played'))")
    assert played > 0.6


def test_what_is_recorded_is_tagged(demo_page, page):
    page.clear()
    page.get_by_role("button", name="Record audio").click()
    page.get_by_role("button", name="Record", exact=True).click()
    page.locator("#recording time").get_by_text("0:01").wait_for()
    page.get_by_role("button", name="Stop", exact=True).first.click()
    page.picture("attention rollout")
    assert len(page.labels()) == demo_page.TOP_K
    page.clear()
    page.get_by_role("button", name="Upload file").click()


def test_long_names_fit_a_phone_and_names_of_tags_are_text(page, recordings):
    page.set_viewport_size({"width": 400, "height": 800})
    page.send(recordings["long"])
    names = [*page.locator("#labels dt").all(), *page.locator("#timeline .name").all()]
    assert {name.inner_text() for name in names} & {LABELS[3], LABELS[4]}
    for box in (name.bounding_box() for name in [*names, *page.locator("#labels dd").all()]):
        assert box["x"] + box["width"] <= 400
    bars = [bar.bounding_box()["width"] for bar in page.locator("#labels meter").all()]
    assert bars == sorted(bars, reverse=True)
    ends = [
        (box["x"], box["x"] + box["width"])
        for box in (mark.bounding_box() for mark in page.locator(".axis span:visible").all())
    ]
    assert all(end <= start for (_, end), (start, _) in zip(ends, ends[1:], strict=False)), "marks do not overlap"
    assert page.locator("#timeline .lane").first.bounding_box()["width"] > 150
    assert page.evaluate("window.harmed") is None
    page.set_viewport_size({"width": 1280, "height": 720})


def test_the_timeline_is_played_with_the_keyboard(page, recordings):
    page.send(recordings["long"])
    segments = page.get_by_role("button", name=re.compile("^Play .* score")).all()
    starts = [float(segment.get_attribute("data-start")) for segment in segments]
    start = max(starts)
    assert start > 1
    segment = segments[starts.index(start)]
    segment.press("Enter")
    assert start <= page.playing_from() < start + 2


@pytest.mark.parametrize(
    ("recording", "words"),
    [
        ("text", "text.wav holds text (a web page), not audio. If it had"),
        ("empty", "empty.wav is empty (0 bytes)"),
        ("silent", "silent.wav is silent. Check the microphone"),
        ("short", "short.wav lasts 6.2 ms; the model needs 25 ms"),
        ("too_long", "too_long.flac lasts longer than the 0.5 minutes that are taken here. Cut out a part of it"),
    ],
)
def test_a_recording_that_cannot_be_used_is_refused_in_words(page, recordings, recording, words):
    page.send(recordings[recording])
    message = page.get_by_role("alert").inner_text()
    assert message.startswith(words)
    assert "ast-demo-" not in message, "where it lies is nobody's business"
    assert not page.labels()
    assert not page.locator("#picture img, #timeline .lane").count()


def test_after_a_refused_recording_the_next_is_taken_whatever_its_name_and_rate(
    demo_page, page, checkpoint, recordings
):
    page.send(recordings["clip"])
    page.send(recordings["text"])
    assert not page.labels()
    page.send(recordings[STEREO])
    waveform, rate = soundfile.read(recordings[STEREO], dtype="float32")
    (expected,) = stock_scores(checkpoint, [waveform.mean(axis=1)], rate, top_k=demo_page.TOP_K)
    assert page.labels() == {row["label"]: f"{round(100 * row['score'])}%" for row in expected}
    assert not page.locator("#message p").count()


def test_a_file_that_is_too_large_is_refused(page, recordings):
    page.reload()
    page.locator("#recording input[type=file]").set_input_files(recordings["too_large"])
    page.get_by_text("exceed the maximum allowed size").first.wait_for()
    refused = httpx.post(f"{page.url}gradio_api/upload", files={"files": recordings["too_large"].read_bytes()})
    assert refused.status_code == 413, "also of a program that does not ask the page"


def test_a_recording_that_gradio_has_removed_is_answered_in_words(page, demo, recordings):
    page.send(recordings["clip"])
    for path in demo.temporary.rglob(recordings["clip"].name):
        path.unlink()
    page.get_by_label("Layer", exact=True).click()
    page.get_by_role("option", name="Layer 2").click()
    page.get_by_text("This recording is no longer here. Send it again.").first.wait_for()  # Gradio may ask twice


def test_a_request_cannot_name_a_file_that_nobody_sent(demo, recordings):
    file = {"path": str(recordings["clip"]), "meta": {"_type": "gradio.FileData"}}
    call = f"{demo.url}/gradio_api/call/tag"
    event = httpx.post(call, json={"data": [file, "All (rollout)", "All (mean)"]}).json()["event_id"]
    answer = httpx.get(f"{call}/{event}").text
    assert answer.startswith("event: error")
    assert str(recordings["clip"].parent) not in answer


def test_neither_the_page_nor_the_program_asks_another_host(page, demo, recordings):
    page.send(recordings["long"])
    assert any("font" in url for url in page.urls)
    assert all(url.startswith((demo.url, "data:", "blob:")) for url in page.urls), page.urls
    assert demo.asked_hosts() <= {"127.0.0.1"}


# The program


def test_the_temporary_folder_is_gone_when_the_terminal_is_closed(demo, page, recordings):
    page.send(recordings["clip"])  # and the page stays open
    kept = [path for path in demo.temporary.rglob("*") if path.is_file()]
    assert kept
    assert all(path.relative_to(demo.temporary).parts[0].startswith("ast-demo.") for path in kept)
    said = demo.errors.read_text()
    assert "Loading" not in said
    assert demo.end(signal.SIGHUP) == 0  # which goes the way of SIGTERM
    assert not list(demo.temporary.iterdir())
    assert not list(demo.working.iterdir())
    # On a busy machine uvicorn waits in vain for the connection of the page, and says so.
    given_up = "ERROR:    Cancel 0 running task(s), timeout graceful shutdown exceeded\n"
    assert demo.errors.read_text().removesuffix(given_up) == said


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_ended_while_it_starts_it_leaves_nothing_behind(tmp_path, checkpoint, how):
    demo = Demo(tmp_path, checkpoint)
    deadline = time.monotonic() + LISTENING_SECONDS
    # A folder of its own: `tempfile` tries first whether a file can be written there, and does not expect to be interrupted.
    while not any(path.is_dir() for path in demo.temporary.iterdir()) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert demo.end(how) == 0
    assert not list(demo.temporary.iterdir())
    assert "Traceback" not in demo.errors.read_text()


class Dropped:
    """Is interrupted where Python cannot raise."""

    def __init__(self, how):
        self.how = how

    def __del__(self):
        signal.raise_signal(self.how)


def swallow(how):
    with contextlib.suppress(BaseException):
        signal.raise_signal(how)


def fail_from(how):
    try:
        signal.raise_signal(how)
    except BaseException as error:
        raise ImportError("half imported") from error


def exit_from(how):
    try:
        signal.raise_signal(how)
    except BaseException:
        sys.exit("a library's own end")


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("interrupted", [swallow, fail_from, exit_from, Dropped])
@pytest.mark.parametrize("step", ["make_page", "make_server"])
def test_an_interruption_that_a_library_swallows_is_not_lost(
    step, interrupted, how, checkpoint, capsys, monkeypatch, interruptible
):
    class Server:
        def run(self, sockets):
            raise AssertionError("served although interrupted")

    results = {"make_page": (None, {}), "make_server": Server()}
    for name, result in results.items():
        monkeypatch.setattr(
            run_demo, name, lambda *_, name=name, result=result: (name == step and interrupted(how), result)[1]
        )
    unraised = []
    monkeypatch.setattr(sys, "unraisablehook", unraised.append)
    before = sys.unraisablehook, signal.getsignal(how)
    assert run_demo.main([str(checkpoint), "--port", "0"]) == 0
    assert capsys.readouterr() == ("", "")
    assert not unraised
    assert (sys.unraisablehook, signal.getsignal(how)) == before


def answer_of(capsys, *arguments):
    """What is said on the error stream, which is one line."""
    assert run_demo.main([str(argument) for argument in arguments]) == 2
    said = capsys.readouterr().err.removesuffix("\n")
    assert "\n" not in said
    return said


def hide_gradio(monkeypatch):
    monkeypatch.delitem(sys.modules, "model_card.demo_page", raising=False)
    monkeypatch.setitem(sys.modules, "gradio", None)


def test_a_wrong_folder_is_answered_with_what_to_type(tmp_path, checkpoint, capsys, monkeypatch):
    broken_card = shutil.copytree(checkpoint, tmp_path / "broken_card")
    (broken_card / "README.md").write_text("---\nlicense: [\n---\n")
    assert f"type: ast-model-card {broken_card}" in answer_of(capsys, broken_card, "--port", "0")
    hide_gradio(monkeypatch)  # which is slow to import: a folder is looked at before
    said = answer_of(capsys, tmp_path / "gone", "--port", "0")
    assert said.startswith(f"ast-demo: There is no folder {tmp_path / 'gone'}. Pass one that ast-finetune")
    without_weights = shutil.copytree(checkpoint, tmp_path / "no_weights")
    (without_weights / "model.safetensors").unlink()
    assert "has no model.safetensors" in answer_of(capsys, without_weights, "--port", "0")


def test_a_port_that_is_in_use_is_answered_before_anything_is_loaded(tmp_path, capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = answer_of(capsys, tmp_path, "--port", port)
    assert said.startswith(
        f"ast-demo: Cannot listen on port {port} of 127.0.0.1: Address already in use. Pass another"
    )
    for host in ("not an address", "a" * 64, "192.0.2.1"):  # a name, no name, of another machine
        assert "Pass --host 127.0.0.1" in answer_of(capsys, tmp_path, "--port", "0", "--host", host)


@pytest.mark.parametrize(
    "flags", [["--port", "65536"], ["--port", "x"], ["--max_minutes", "0"], ["--max_megabytes", "nan"]]
)
def test_a_limit_or_port_that_is_none_is_refused(flags, capsys):
    with pytest.raises(SystemExit):
        run_demo.parse_arguments(["model", *flags])
    assert f"argument {flags[0]}: '{flags[1]}' is not a" in capsys.readouterr().err


def test_without_gradio_it_says_what_to_install(checkpoint, capsys, monkeypatch):
    hide_gradio(monkeypatch)
    assert answer_of(capsys, checkpoint, "--port", "0").endswith(f"Type: {install_command('demo')}")


def test_it_listens_on_this_machine_alone_and_shares_nothing(checkpoint):
    arguments = run_demo.parse_arguments([str(checkpoint)])
    assert arguments.host == "127.0.0.1"
    assert not hasattr(arguments, "share")


@pytest.mark.parametrize(
    ("host", "shown"), [("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "127.0.0.1"), ("::1", "[::1]"), ("::", "[::1]")]
)
def test_the_address_that_is_said_can_be_opened(host, shown):
    if ":" in host and not socket.has_dualstack_ipv6():
        pytest.skip("needs IPv6")
    with run_demo.listen(host, 0) as listener:
        assert run_demo.address_of(listener) == f"http://{shown}:{listener.getsockname()[1]}"


def test_temporary_files_of_others_lie_where_they_did_before(monkeypatch):
    for before in ({}, {"GRADIO_TEMP_DIR": "elsewhere"}):
        monkeypatch.delenv("GRADIO_TEMP_DIR", raising=False)
        for name, value in before.items():
            monkeypatch.setenv(name, value)
        environment, folder_before = dict(os.environ), tempfile.gettempdir()
        with run_demo.page_folder() as folder:
            assert os.environ["GRADIO_TEMP_DIR"] == tempfile.gettempdir() == str(folder)
        assert (dict(os.environ), tempfile.gettempdir()) == (environment, folder_before)


def test_under_nohup_the_end_of_the_terminal_is_no_end():
    class Server:
        def run(self, sockets):
            signal.raise_signal(signal.SIGHUP)

        def handle_exit(self, number, frame):
            ended.append(number)

    ended = []
    before = signal.getsignal(signal.SIGHUP)
    for handler, expected in ((signal.SIG_IGN, []), (signal.SIG_DFL, [signal.SIGHUP])):
        signal.signal(signal.SIGHUP, handler)
        run_demo.serve(Server(), None)
        assert ended == expected
    signal.signal(signal.SIGHUP, before)


# What the page is made of


def test_independent_labels_are_sigmoid_scores_with_their_thresholds(demo_page, multi_label, recordings, tmp_path):
    tags, seconds = demo_page.tag_recording(multi_label, recordings["clip"])
    waveform, _ = soundfile.read(recordings["clip"], dtype="float32")
    multi_label.model.save_pretrained(tmp_path)
    multi_label.feature_extractor.save_pretrained(tmp_path)
    (expected,) = stock_scores(tmp_path, [waveform], top_k=None, function_to_apply="sigmoid")
    shown = demo_page.label_value(tags, multi_label.problem_type)
    assert shown == pytest.approx({row["label"]: row["score"] for row in expected}, abs=1e-5)
    assert seconds == pytest.approx(len(waveform) / RATE)

    note = demo_page.note_html(tags, multi_label, seconds)
    limits = {"bell": 0.0, "kick": 1.0}
    heard = {row["label"] for row in expected if row["score"] >= limits.get(row["label"], 0.5)}
    assert "bell" in heard
    assert "kick" not in heard
    assert set(re.findall("<b>(.*?)</b>", note)) == {html.escape(label) for label in heard}
    assert "<b>bell</b> (threshold 0%)" in note
    none = FileTags("clip.wav", [Tag("kick", 0.9)])
    assert demo_page.note_html(none, multi_label, seconds) == "No label reaches its threshold."
    window = multi_label.window_samples  # beyond which less than a tenth of a second has no window of its own
    for beyond, words in ((1_599, "No label"), (1_600, "Means over windows of")):
        assert demo_page.note_html(none, multi_label, (window + beyond) / RATE).startswith(words)
    many = FileTags("clip.wav", [Tag("bell", 0.9)] * 527)
    assert demo_page.note_html(many, multi_label, seconds).count("<b>") == demo_page.MOST_HEARD
    assert demo_page.note_html(many, multi_label, seconds).endswith(" and 515 more.")


def test_less_than_a_half_window_more_has_no_timeline(demo_page, multi_label, recordings):
    tags, seconds = demo_page.tag_recording(multi_label, recordings["two windows"])
    assert tags.segments is None
    assert demo_page.note_html(tags, multi_label, seconds).startswith("Means over windows of 0.975 s. Heard: <b>")
    tags, seconds = demo_page.tag_recording(multi_label, recordings["long"])
    assert tags.segments
    assert "below is what was heard when" in demo_page.note_html(tags, multi_label, seconds)


def test_a_recording_unlike_the_training_clips_is_said_to_be(demo_page, multi_label, recordings):
    kept = KnownClips(np.eye(multi_label.config.hidden_size), 1, 0.5)
    reader = demo_page.page_reader(multi_label.feature_extractor, 1)
    tagger = AudioTagger(multi_label.model, multi_label.feature_extractor, "cpu", reader, known_clips=kept)
    tags, seconds = demo_page.tag_recording(tagger, recordings["clip"])
    assert tags.novelty.distance > 0.5
    words = f"<b>None of these</b>: {tags.novelty.distance:.2f} from the training clips, beyond 0.50."
    assert demo_page.note_html(tags, tagger, seconds).startswith(words)
    tags, seconds = demo_page.tag_recording(tagger, recordings["long"])
    assert demo_page.note_html(tags, tagger, seconds).startswith("<b>None of these</b>: ")
    lanes = demo_page.timeline_html(tags.segments, seconds)
    assert '<span class="name">none of these</span>' in lanes
    assert re.search(r'title="none of these, 0:00 to 0:07, distance 1\.\d\d"', lanes)
    known, seconds = demo_page.tag_recording(multi_label, recordings["clip"])
    assert "None of these" not in demo_page.note_html(known, multi_label, seconds)


def test_the_picture_is_of_the_window_the_layer_and_the_head(demo_page, multi_label, recordings):
    waveform, _ = soundfile.read(recordings["long"], dtype="float32")
    features = multi_label.feature_extractor(
        waveform[2 * RATE : 2 * RATE + WINDOW], sampling_rate=RATE, return_tensors="pt"
    )
    expected = attention_maps(multi_label.model, multi_label.feature_extractor, **features, layer=1, head=0)
    figure = demo_page.draw_attention(multi_label, recordings["long"], 2.0, layer=1, head=0)
    heat = figure.axes[0].images[1].get_array()
    assert heat.max() == pytest.approx(expected.weights.max().item())
    at_end = demo_page.draw_attention(multi_label, recordings["long"], 100.0)
    assert at_end.axes[0].get_title() == "0:06 to 0:07: attention rollout through all layers"


def test_the_picture_leaves_padding_out(demo_page, multi_label, tmp_path):
    soundfile.write(tmp_path / "quiet.wav", noise(1)[: RATE // 2] / 1000, RATE, subtype="FLOAT")
    axes = demo_page.draw_attention(multi_label, tmp_path / "quiet.wav").axes[0]
    assert axes.get_xlim() == pytest.approx((0, 0.5), abs=0.03)
    spectrogram = axes.images[0]
    shown = np.asarray(spectrogram.get_array())[:, : int(axes.get_xlim()[1] * 100)]
    assert spectrogram.get_clim() == pytest.approx((np.percentile(shown, 5), shown.max()), rel=0.01)


def test_one_request_is_computed_at_a_time(demo_page, multi_label):
    page = demo_page.build_page(
        multi_label.model, multi_label.feature_extractor, name="x", max_megabytes=1, max_minutes=1
    )
    computing = [event for event in page.fns.values() if event.queue]
    assert {(event.concurrency_id, event.concurrency_limit) for event in computing} == {("model", 1)}
    assert len(computing) == 5


def test_a_timeline_holds_what_was_heard_longest_and_escapes_it(demo_page):
    count = demo_page.MOST_LANES + 2
    segments = [Segment("f", 0.0, 1.0 + index, f"label {index:02d}", 0.5) for index in range(count)]
    segments.append(Segment("f", 5.0, 60.0, "<script>", 0.9))
    segments.append(Segment("f", 20.0, 75.0, "louder", 0.95))
    shown = demo_page.timeline_html(segments, 100.0)
    names = re.findall('class="name">(.*?)<', shown)
    assert names == ["louder", "&lt;script&gt;", *(f"label {index:02d}" for index in range(count - 1, 3, -1))]
    assert f"of {count + 2}" in shown
    assert "<script>" not in shown
    assert 'data-start="5.000" style="left: 5.000%; width: 55.000%; opacity: 0.93"' in shown
    assert re.findall(r"<span style=.left: ([\d.]+)%.>([\d:.]+)<", shown)[-1] == ("90.000", "1:30")
    assert "No label reaches its threshold" in demo_page.timeline_html([], 100.0)


def test_a_name_is_shown_as_it_is(demo_page):
    assert "<b>" not in demo_page.header_html("a <b>", "c <b>", "d <b>")
    assert demo_page.header_html("a", None, None) == "<h1>a</h1>"


def test_a_regression_is_shown_as_numbers(demo_page, tmp_path, recordings):
    folder = save_checkpoint(tmp_path, "regression")
    tagger = AudioTagger.from_pretrained(folder, "cpu")
    tags, _ = demo_page.tag_recording(tagger, recordings["long"])
    assert tags.segments is None
    assert demo_page.label_value(tags, "regression").startswith(
        f"{tags.labels[0].label}: {tags.labels[0].score:.4g}, "
    )
