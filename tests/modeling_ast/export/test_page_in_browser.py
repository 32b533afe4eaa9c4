"""The page of `ast-export --page` in a headless Chromium: what it shows is compared with `ast-tag` in PyTorch.

The npm package is taken from npm's cache; without it, or without Chromium, the tests are skipped.
"""

import contextlib
import functools
import http.server
import json
import shutil
import struct
import subprocess
import threading

import numpy as np
import pytest
import soundfile
import soxr
import torch
import torchaudio
from demo_runs import CHROMIUM_FLAGS, WAIT
from onnx_files import LABELS, MAX_LENGTH

from modeling_ast import ASTConfig, ASTFeatureExtractor, ASTForAudioFrameClassification, run_export
from modeling_ast.audio.resampling import resample
from modeling_ast.page.runtime_package import PACKAGE, VERSION, RuntimePackageError, copy_runtime
from modeling_ast.tagging.tagger import AudioTagger

pytestmark = pytest.mark.long
pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
playwright = pytest.importorskip("playwright.sync_api")

TOLERANCE = 1e-3  # of scores: soxr's filter is one that is fitted to it
RATE = 16_000
WINDOW = 400 + (MAX_LENGTH - 1) * 160
RULES = {
    LABELS[0]: {"on": 0.4, "off": 0.2, "close_gaps": 0.3},
    LABELS[1]: {"on": 0.2, "min_duration": 0.2, "median_filter": 0.3},
}


def noise(seconds, rate, seed=0, channels=1):
    """Noise whose colour and level change."""
    generator = np.random.default_rng(seed)
    parts = []
    for _ in range(int(np.ceil(seconds / 0.4))):
        colour = generator.normal(size=8) * 10 ** generator.uniform(-1.5, -0.5)
        parts.append(np.convolve(generator.normal(size=int(0.4 * rate)), colour, mode="same"))
    sound = np.concatenate(parts)[: int(seconds * rate)]
    others = [sound * generator.uniform(-0.3, 1) for _ in range(channels - 1)]
    return np.stack([sound, *others], axis=1) / 4


@pytest.fixture(scope="session")
def package(tmp_path_factory):
    """The package from npm's cache, for which nothing is asked of the network."""
    folder = tmp_path_factory.mktemp("runtime") / "package"
    (folder / "dist").mkdir(parents=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("npm_config_offline", "true")
        try:
            copy_runtime(folder / "dist")
        except RuntimePackageError as error:
            pytest.skip(f"needs npm pack {PACKAGE}@{VERSION} once: {error}")
    return folder


@pytest.fixture(scope="module")
def checkpoints(checkpoint, tmp_path_factory):
    """Checkpoints of each kind of head and resampler by name."""
    exclusive = tmp_path_factory.mktemp("exclusive") / "model"
    shutil.copytree(checkpoint, exclusive)
    for name, changes in (
        ("config", {"problem_type": "single_label_classification"}),
        ("preprocessor_config", {"resampler": "soxr"}),
    ):
        file = exclusive / f"{name}.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    model = ASTForAudioFrameClassification(ASTConfig(**sizes, max_length=MAX_LENGTH, id2label=dict(enumerate(LABELS))))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    model.config.event_rules = RULES
    frames = tmp_path_factory.mktemp("frames")
    model.save_pretrained(frames)
    ASTFeatureExtractor(max_length=MAX_LENGTH, mean=-5.5, std=3.25, resampler="soxr").save_pretrained(frames)
    return {"many": checkpoint, "one": exclusive, "frames": frames}


@pytest.fixture(scope="module")
def sites(checkpoints, package, tmp_path_factory):
    """Folders of pages, made when they are first asked for."""

    @functools.cache
    def made(kind):
        folder = tmp_path_factory.mktemp("sites") / kind
        arguments = [str(checkpoints[kind]), "--page", str(folder), "--runtime_package", str(package)]
        assert run_export.main([*arguments, "--title", f"The page of {kind}"]) == 0
        return folder

    return made


@contextlib.contextmanager
def served(folder):
    """A server of files, as `python -m http.server` is; its `asked` are the paths that were asked for."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

        def do_GET(self):  # noqa: N802
            self.server.asked.append(self.path)
            with contextlib.suppress(ConnectionError):
                super().do_GET()

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=folder))
    server.asked, server.address = [], f"http://127.0.0.1:{server.server_port}/"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(scope="module")
def microphone(tmp_path_factory):
    path = tmp_path_factory.mktemp("microphone") / "heard.wav"
    soundfile.write(path, noise(4, 48_000, seed=5), 48_000, subtype="PCM_16")
    return path


@pytest.fixture(scope="module")
def browser(microphone):
    if shutil.which("chromium") is None:
        pytest.skip("needs chromium")
    with playwright.sync_playwright() as started:
        flags = [*CHROMIUM_FLAGS, f"--use-file-for-fake-audio-capture={microphone}"]
        launched = started.chromium.launch(executable_path=shutil.which("chromium"), args=flags)
        yield launched
        launched.close()


class Visit:
    """A page that is open, and what a visitor does there. `eval` is not used: the page forbids it."""

    def __init__(self, browser, address, before="", **options):
        self.context = browser.new_context(**options)
        self.urls, self.faults = [], []
        self.context.on("request", lambda request: self.urls.append(request.url))
        if before:
            self.context.add_init_script(before)
        self.view = self.context.new_page()
        self.view.set_default_timeout(2 * WAIT)
        self.view.on("pageerror", lambda error: self.faults.append(str(error)))
        self.view.goto(address)

    def __getattr__(self, name):
        return getattr(self.view, name)

    def wait(self, selector):
        self.view.locator(selector).first.wait_for(state="attached")

    def ready(self):
        self.wait("html[data-ready]")
        return self

    def send(self, *files):
        self.view.set_input_files("#file", *files)
        self.wait("#result:not([hidden]) #time:not(.live), #error:not([hidden])")
        assert self.view.locator("#error").is_hidden(), self.view.inner_text("#error")
        return self.result()

    def refused(self, file):
        self.view.set_input_files("#file", file)
        self.wait("#error:not([hidden])")
        assert self.view.locator("#result").is_hidden()
        return self.view.inner_text("#error")

    def result(self):
        with self.view.expect_download() as saved:
            self.view.get_by_role("link", name="Save as JSON").click()
        return json.loads(saved.value.path().read_text())

    def playing_from(self):
        """Wait until the player plays, for the second where it does."""
        for _ in range(300):
            place = self.view.evaluate(
                "() => { const p = document.getElementById('player'); return p.paused ? null : p.currentTime; }"
            )
            if place:
                return place
            self.view.wait_for_timeout(20)
        raise AssertionError("nothing plays")


@pytest.fixture(scope="module")
def visits(browser, sites):
    """Pages that stay open for several tests."""
    with contextlib.ExitStack() as stack:

        @functools.cache
        def opened(kind):
            server = stack.enter_context(served(sites(kind)))
            visit = Visit(browser, server.address)
            stack.callback(visit.context.close)
            visit.server = server
            return visit.ready()

        yield opened


@pytest.fixture(scope="module")
def sounds(tmp_path_factory, drum_rows):
    """Files of several formats, rates and numbers of channels."""
    folder = tmp_path_factory.mktemp("sounds")

    def write(name, sound, rate, **options):
        soundfile.write(folder / name, sound, rate, **options)

    write("stereo 44100.wav", noise(2.7, 44_100, 1, 2), 44_100, subtype="PCM_16")
    write("stereo 44100.flac", noise(0.7, 44_100, 2, 2), 44_100, subtype="PCM_16")
    write("six 48000.wav", noise(1.4, 48_000, 3, 6), 48_000, subtype="PCM_24")
    write("float 22050.wav", noise(1.1, 22_050, 4), 22_050, subtype="FLOAT")
    write("double 16000.wav", noise(1.9, 16_000, 5), 16_000, subtype="DOUBLE")
    write("old 11025.wav", noise(1.2, 11_025, 6), 11_025, subtype="PCM_U8")
    write("odd 44117.wav", noise(1.2, 44_117, 7), 44_117, subtype="PCM_32")
    write("deep 96000.flac", noise(1.2, 96_000, 8, 2), 96_000, subtype="PCM_24")
    write("44100.mp3", noise(1.5, 44_100, 9, 2), 44_100)
    gap = noise(4, RATE, 10)
    gap[RATE // 2 : 3 * RATE] = 0
    write("with silence.wav", gap, RATE, subtype="PCM_16")
    write("no more than a window.wav", noise(1.2, RATE, 11)[: WINDOW + 100], RATE, subtype="PCM_16")
    shutil.copy(drum_rows[0]["path"], folder / "drum.flac")
    return sorted(folder.iterdir())


@pytest.mark.parametrize("kind", ["many", "one", "frames"])
def test_labels_scores_and_time_line_are_those_of_ast_tag(visits, checkpoints, sounds, kind):
    tagger = AudioTagger.from_pretrained(checkpoints[kind], "cpu", frame_heads=True)
    visit, spread = visits(kind), []
    for file, expected in zip(sounds, tagger.tag_files(sounds, top_k=9, timeline=True), strict=True):
        assert expected.error is None
        result = visit.send(file)
        found = {each["label"]: each["score"] for each in result["labels"]}
        assert found == pytest.approx({tag.label: tag.score for tag in expected.labels}, abs=TOLERANCE), file.name
        assert result["seconds"] == pytest.approx(expected.seconds, abs=1 / RATE)
        of_found = [(each["label"], each["start"], each["end"]) for each in result["segments"]]
        assert of_found == [(each.label, each.start, each.end) for each in expected.segments], file.name
        scores = [each["score"] for each in result["segments"]]
        assert scores == pytest.approx([each.score for each in expected.segments], abs=TOLERANCE)
        spread.append([tag.score for tag in sorted(expected.labels, key=lambda tag: tag.label)])
        assert visit.get_by_role("status").inner_text().startswith(f"{file.name}: ")
    assert np.ptp(spread, axis=0).max() > 0.05  # otherwise any file would do
    assert not visit.faults


@pytest.mark.parametrize("rate", [8000, 22_050, 44_100, 48_000, 44_117, 96_000])
def test_resampling_is_that_of_the_libraries(visits, rate):
    sound = noise(0.5, rate, 3)[:, 0].astype(np.float32)
    found = {
        kind: np.array(
            visits("many").evaluate(
                "([sound, rate, kind]) => Array.from(resample(Float32Array.from(sound), rate, 16000, kind))",
                [sound.tolist(), rate, kind],
            )
        )
        for kind in ("soxr", "torchaudio")
    }
    expected = soxr.resample(sound, rate, RATE, "HQ")
    assert len(found["soxr"]) == len(expected)
    middle = slice(200, -200)  # at the ends libsoxr's stages see the beginning of each other
    assert np.std((found["soxr"] - expected)[middle]) < 2e-3 * np.std(expected)
    if rate == 44_117:  # for which torchaudio makes a table of 706 million values
        torchaudios = resample(sound, rate, RATE, "torchaudio")
    else:
        torchaudios = torchaudio.functional.resample(torch.from_numpy(sound).double(), rate, RATE).numpy()
    np.testing.assert_allclose(found["torchaudio"], torchaudios, atol=2e-6)


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24"])
def test_flac_is_heard_bit_for_bit(visits, tmp_path, subtype):
    sound = np.linspace(-1, 1, 9_000, endpoint=False)
    soundfile.write(tmp_path / "a.flac", np.stack([sound, sound[::-1] / 3], axis=1), RATE, subtype=subtype)
    found = visits("many").evaluate(
        "async (bytes) => { const {channels} = await readSound(new File([Uint8Array.from(bytes)], 'a.flac'));"
        " return channels.map((channel) => Array.from(channel)); }",
        list((tmp_path / "a.flac").read_bytes()),
    )
    expected, _ = soundfile.read(tmp_path / "a.flac", dtype="float32")
    np.testing.assert_array_equal(np.array(found, np.float32).T, expected)


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="the ffmpeg program is not installed")
@pytest.mark.parametrize("rate", [RATE, 22_050])
@pytest.mark.parametrize(
    ("name", "codec"),
    [
        ("a.m4a", "aac"),
        ("a.mp4", "aac"),
        ("a.webm", "libvorbis"),
        ("a.mka", "libvorbis"),
        ("a.mkv", "aac"),
        ("a.webm", "libopus"),
    ],
)
def test_containers_are_read_at_the_rate_that_they_name(visits, checkpoints, tmp_path, name, codec, rate):
    soundfile.write(tmp_path / "clip.wav", noise(1.3, rate, 12), rate)
    path = tmp_path / name
    subprocess.run(["ffmpeg", "-v", "error", "-i", tmp_path / "clip.wav", "-c:a", codec, path], check=True)
    found = visits("many").evaluate("(bytes) => rateOf(Uint8Array.from(bytes).buffer)", list(path.read_bytes()))
    assert found == (48_000 if codec == "libopus" else rate)
    result = visits("many").send(path)
    assert "resampled" not in visits("many").inner_text("#notes")
    if codec != "libvorbis":  # of the others Chromium's samples are other ones
        return
    (expected,) = AudioTagger.from_pretrained(checkpoints["many"], "cpu").tag_files([path], top_k=9)
    scores = {each["label"]: each["score"] for each in result["labels"]}
    assert scores == pytest.approx({tag.label: tag.score for tag in expected.labels}, abs=TOLERANCE)


def test_other_bytes_of_a_container_are_taken_for_no_rate(visits):
    """Of a number that tells tracks apart, say, before the audio's own; and of two rates the one that is put out."""

    def rate_of(content):
        content = bytes.fromhex("1a45dfa3") + content + bytes(64)
        return visits("many").evaluate("(bytes) => rateOf(Uint8Array.from(bytes).buffer)", list(content))

    own = b"\xb5\x88" + struct.pack(">d", 22_050)
    assert rate_of(own) == 22_050
    for other in (
        b"\x84" + struct.pack(">f", 1.2e20),
        b"\x84" + struct.pack(">f", 7),
        b"\x88" + struct.pack(">d", -44_100),
    ):
        assert rate_of(b"\x73\xc5\xb5" + other + own) == 22_050
    put_out = b"\x78\xb5\x84" + struct.pack(">f", 44_100)
    assert rate_of(own + put_out) == 44_100
    assert rate_of(b"\xb5\x84" + struct.pack(">f", 1e9)) is None


def wav_with(size, samples, behind=b""):
    """A WAV whose header says that so many bytes of samples follow; with all that is there it is as long as it says."""
    content = struct.pack("<4sIHHIIHH4sI", b"fmt ", 16, 1, 1, RATE, 2 * RATE, 2, 16, b"data", size) + samples + behind
    return struct.pack("<4sI4s", b"RIFF", 4 + len(content), b"WAVE") + content


CHUNK = struct.pack("<4sI4s", b"LIST", 4, b"abcd")


@pytest.mark.parametrize(
    ("size", "behind"),
    [
        (0, b""),  # of a program that writes to a pipe, or was killed
        (0xFFFF_FFFF, b""),
        (RATE, b""),  # of a program that writes the size now and then, and was killed
        (2 * RATE, CHUNK),
        (2 * RATE, b"TAG".ljust(128)),
        (2 * RATE, bytes(200)),  # as made longer
        (3 * RATE, b""),
        (2 * RATE + 44, b""),
    ],
)
def test_wavs_are_as_long_as_ast_tag_hears_them(visits, checkpoints, tmp_path, size, behind):
    samples = (noise(1, RATE, 13)[:, 0] * 32767).astype("<i2").tobytes()
    path = tmp_path / "clip.wav"
    path.write_bytes(wav_with(size, samples, behind))
    result = visits("many").send(path)
    (expected,) = AudioTagger.from_pretrained(checkpoints["many"], "cpu").tag_files([path], top_k=9)
    assert result["seconds"] == pytest.approx(expected.seconds, abs=1 / RATE)
    assert visits("many").inner_text("#notes") == " ".join(
        note.text.replace(str(path), path.name) for note in expected.notes
    )


def test_a_wav_that_says_zero_holds_no_sound_or_silence(visits, tmp_path):
    (tmp_path / "clip.wav").write_bytes(wav_with(0, b"", CHUNK))
    assert "clip.wav holds no sound" in visits("many").refused(tmp_path / "clip.wav")
    (tmp_path / "clip.wav").write_bytes(wav_with(0, bytes(2 * RATE)))
    assert visits("many").send(tmp_path / "clip.wav")["seconds"] == 1
    assert visits("many").locator("h2").inner_text() == "silence"


def test_channels_that_cancel_are_not_called_silence(visits, checkpoints, tmp_path):
    sound = noise(1.3, 44_100, 14)[:, 0]
    half = np.where(np.arange(len(sound)) < len(sound) / 2, sound, -sound)
    files = {
        "inverted": np.stack([sound, -sound], axis=1),
        "nearly": np.stack([sound, -0.9 * sound], axis=1),
        "half": np.stack([sound, half], axis=1),
        "one of four": np.stack([0 * sound, sound, 0 * sound, 0 * sound], axis=1),
        "alike": np.stack([sound, sound], axis=1),
        "both silent": np.zeros((44_100, 2)),
    }
    tagger = AudioTagger.from_pretrained(checkpoints["many"], "cpu")
    for name, channels in files.items():
        path = tmp_path / f"{name}.wav"
        soundfile.write(path, channels, 44_100, subtype="FLOAT")
        (expected,) = tagger.tag_files([path], top_k=9)
        result = visits("many").send(path)
        said = visits("many").inner_text("#notes")
        for note in expected.notes:
            if note.kind == "cancelled":
                words, _, flag = note.text.replace(str(path), path.name).partition(". Pass ")
                assert said.startswith(f"{words}. Choose a file of channel ")
                assert f"alone, or pass {flag.removesuffix('.')} to ast-tag." in said
        assert ("Choose a file of channel" in said) == any(note.kind == "cancelled" for note in expected.notes), name
        assert bool(result["labels"]) == bool(expected.labels)
        heading = visits("many").locator("h2").inner_text()
        assert (heading == "silence") == (name == "both silent"), name
        assert (heading == "nothing is left to hear") == (name == "inverted"), name
        assert ("This is silent" in said) == (name == "both silent"), name


@pytest.mark.parametrize(("choice", "said"), [("right", True), (2, True), ("left", False)])
def test_a_silent_channel_that_the_model_hears_is_told(visits, choice, said):
    found = visits("many").evaluate(
        "([sound, choice]) => { const channels = [Float32Array.from(sound), new Float32Array(sound.length)];"
        " return channelNotes(channels, oneChannel(channels, choice), choice, 16000, 'a.wav'); }",
        [noise(0.5, RATE, 15)[:, 0].tolist(), choice],
    )
    words = f"a.wav is silent in the channel that this model hears ({choice}), and not in others. Choose a file of channel left"
    assert [note.startswith(words) for note in found] == [True] * said


def test_three_minutes_are_heard(visits, tmp_path):
    path = tmp_path / "long.wav"
    soundfile.write(path, noise(180, 22_050, 7, 2), 22_050)
    result = visits("one").send(path)
    assert result["seconds"] == pytest.approx(180)
    assert result["segments"][-1]["end"] == pytest.approx(180)
    assert visits("one").locator("#ticks").inner_text().split("\n")[-1] == "180.00 s"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("empty.wav", "empty.wav is empty"),
        ("text.wav", "cannot decode text.wav: it is no sound, damaged, or of a format"),
        ("cut.flac", "cannot decode cut.flac"),
        ("nothing.wav", "nothing.wav holds no sound"),
        ("short.wav", "lasts 20 ms; the model needs 25 ms"),
        ("long.wav", "lasts 31 minutes; the page hears up to 30. Cut it, or use ast-tag"),
        ("loud.wav", "far beyond full scale"),
    ],
)
def test_what_cannot_be_heard_is_explained(visits, tmp_path, name, words):
    file = tmp_path / name
    if name == "empty.wav":
        file.touch()
    elif name == "text.wav":
        file.write_text("<html>404</html> " * 50)
    elif name == "cut.flac":
        soundfile.write(file, noise(1, RATE), RATE)
        file.write_bytes(file.read_bytes()[:60])
    elif name == "long.wav":
        soundfile.write(file, np.zeros(31 * 60 * 1000), 1000, subtype="PCM_U8")
    else:
        sound = {
            "nothing.wav": noise(1, RATE)[:0],
            "short.wav": noise(1, RATE)[:320],
            "loud.wav": noise(1, RATE) * 1e30,
        }[name]
        soundfile.write(file, sound, RATE, subtype="FLOAT")
    assert words in visits("many").refused(file)
    assert visits("many").get_by_role("alert").is_visible()


def test_silence_is_no_label(visits, tmp_path):
    soundfile.write(tmp_path / "silent.wav", np.zeros(RATE), RATE)
    result = visits("many").send(tmp_path / "silent.wav")
    assert (result["labels"], result["segments"]) == ([], [])
    assert visits("many").locator("h2").inner_text() == "silence"
    assert "what a model says of silence means nothing" in visits("many").inner_text("#notes")


def test_a_click_plays_from_there(visits, sounds):
    visit = visits("many")
    result = visit.send(next(file for file in sounds if file.name == "stereo 44100.wav"))
    box = visit.locator("#seek").bounding_box()
    visit.mouse.click(box["x"] + 0.5 * box["width"], box["y"] + 20)
    assert 0.5 * result["seconds"] - 0.1 < visit.playing_from() < 0.75 * result["seconds"]
    last = result["segments"][-1]
    visit.get_by_role("button", name=f"{last['label']}, {last['start']:.2f} to").or_(
        visit.get_by_role("button", name=f"{last['label']}, {last['start']:.2f} s to")
    ).first.click()
    assert last["start"] - 0.1 < visit.playing_from()


def test_the_keyboard_is_enough(browser, visits, sounds):
    visit = Visit(browser, visits("many").server.address).ready()
    visit.keyboard.press("Tab")
    assert visit.evaluate("() => document.activeElement.id") == "file"
    with visit.expect_file_chooser() as chooser:
        visit.keyboard.press("Enter")
    chooser.value.set_files(next(file for file in sounds if file.name == "stereo 44100.wav"))
    visit.wait("#result:not([hidden])")
    slider = visit.get_by_role("slider", name="Place in the sound")
    slider.focus()
    for key, place in (
        ("End", "2.70"),
        ("Home", "0.00"),
        ("PageUp", "0.27"),
        ("ArrowRight", "0.30"),
        ("ArrowLeft", "0.27"),
    ):
        visit.keyboard.press(key)
        assert slider.get_attribute("aria-valuenow") == place
    assert slider.get_attribute("aria-valuetext") == "0.27 s of 2.70 s"
    visit.keyboard.press("Enter")
    assert visit.playing_from() > 0.25
    names = visit.locator("#lanes button").evaluate_all(
        "buttons => buttons.map((each) => each.getAttribute('aria-label'))"
    )
    assert names
    assert all(name.endswith("; play from there") for name in names)
    assert visit.get_by_role("rowheader").all_inner_texts()
    visit.context.close()


def test_a_recording_is_heard(visits):
    visit = visits("one")
    visit.get_by_role("button", name="Record").click()
    visit.wait("#elapsed:text-matches('^[2-9] s')")
    visit.get_by_role("button", name="Stop recording").click()
    visit.wait("#result:not([hidden]) #time:not(.live)")
    result = visit.result()
    assert result["file"] == "Recording"
    assert 1.5 < result["seconds"] < 15
    assert len(result["labels"]) == len(LABELS)
    visit.locator("#seek").click()
    assert visit.playing_from()


def test_the_microphone_runs(visits):
    visit = visits("one")
    listen = visit.get_by_role("button", name="Let the microphone run")
    listen.click()
    visit.wait("#result:not([hidden]) #time.live")
    assert visit.inner_text("#status").startswith("The microphone runs: ")
    assert visit.locator("h2").inner_text() in LABELS
    assert visit.locator("#player").is_hidden()
    running = visit.get_by_role("button", name="Stop the microphone")
    assert running.get_attribute("aria-pressed") == "true"
    running.click()
    assert visit.inner_text("#status") == "The microphone is off."
    assert listen.get_attribute("aria-pressed") == "false"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("NotAllowedError", "Allow it for this page"),
        ("NotFoundError", "There is no microphone. Connect one, or choose a file."),
    ],
)
def test_without_a_microphone_it_says_so(browser, visits, name, words):
    before = f"navigator.mediaDevices.getUserMedia = () => Promise.reject(new DOMException('', '{name}'));"
    visit = Visit(browser, visits("one").server.address, before).ready()
    visit.get_by_role("button", name="Let the microphone run").click()
    visit.wait("#error:not([hidden])")
    assert words in visit.inner_text("#error")
    visit.context.close()


def test_the_microphone_is_off_when_its_sound_cannot_be_taken(browser, visits):
    before = """
        AudioWorklet.prototype.addModule = () => Promise.reject(new DOMException("Unable to load a worklet's module.", "AbortError"));
        const asked = MediaDevices.prototype.getUserMedia, opened = window.opened = [], contexts = window.contexts = [];
        MediaDevices.prototype.getUserMedia = async function (...wanted) {
          opened.push(await asked.apply(this, wanted));
          return opened.at(-1);
        };
        const close = AudioContext.prototype.close;
        AudioContext.prototype.close = function () {
          contexts.push(this);
          return close.call(this);
        };"""
    visit = Visit(browser, visits("one").server.address, before).ready()
    for name in ("Record", "Let the microphone run"):
        visit.get_by_role("button", name=name).click()
        visit.wait("#error:not([hidden])")
        words = (
            "The microphone is off, as what takes its sound could not be started: Unable to load a worklet's module."
        )
        assert words in visit.inner_text("#error")
    states = visit.evaluate("() => opened.flatMap((stream) => stream.getTracks().map((track) => track.readyState))")
    assert set(states) == {"ended"}
    assert visit.evaluate("() => contexts.length") == 2
    visit.context.close()


def test_a_phone_shows_all(browser, visits, sounds):
    visit = Visit(
        browser, visits("many").server.address, viewport={"width": 320, "height": 640}, has_touch=True, is_mobile=True
    )
    visit.ready().send(sounds[0])
    assert visit.evaluate("() => document.documentElement.scrollWidth") <= 320
    for name in ("Record", "Let the microphone run"):
        box = visit.get_by_role("button", name=name).bounding_box()
        assert box["x"] + box["width"] <= 320
        assert box["height"] >= 24
    visit.locator("#seek").tap()
    assert visit.playing_from()
    visit.context.close()


def test_it_asks_no_other_host_and_works_offline_after_the_first_load(browser, sites, sounds):
    with served(sites("one")) as server:
        visit = Visit(browser, server.address)
        visit.wait("html[data-offline]")
        before = visit.send(sounds[0])
        large = [path for path in server.asked if "?v=" in path]
        assert len(large) == 2, "each large file is loaded once"
    visit.context.set_offline(True)  # and the server is gone
    visit.reload()
    visit.ready()
    after = visit.send(sounds[0])
    assert after["labels"] == before["labels"]
    assert visit.urls
    assert all(url.removeprefix("blob:").startswith(server.address) for url in visit.urls)
    assert not visit.faults
    visit.context.close()


def test_another_export_at_the_same_address_takes_the_place_of_the_first(browser, sites, sounds, tmp_path):
    folder = tmp_path / "site"
    shutil.copytree(sites("one"), folder)
    with served(folder) as server:
        visit = Visit(browser, server.address)
        visit.wait("html[data-offline]")
        shutil.copytree(sites("many"), folder, dirs_exist_ok=True)
        visit.reload()
        visit.wait("html[data-offline]")
        assert visit.locator("h1").inner_text() == "The page of many"
        assert sum(each["score"] for each in visit.send(sounds[0])["labels"]) != pytest.approx(1)
        kept = visit.evaluate(
            "async () => (await (await caches.open(cacheName())).keys()).map((request) => request.url)"
        )
        assert len([url for url in kept if "model.onnx" in url]) == 1
        visit.context.close()


@pytest.mark.parametrize(
    ("before", "words"),
    [
        ("delete globalThis.WebAssembly;", "This browser has no WebAssembly"),
        ("WebAssembly.validate = () => false;", "has no vector instructions"),
    ],
)
def test_browsers_that_cannot_are_told(browser, visits, before, words):
    visit = Visit(browser, visits("one").server.address, before)
    visit.wait("#error:not([hidden])")
    assert words in visit.inner_text("#error")
    assert visit.get_by_role("button", name="Record").is_disabled()
    visit.context.close()


def test_opened_as_a_file_it_says_how_to_serve_it(browser, sites):
    visit = Visit(browser, (sites("one") / "index.html").as_uri())
    visit.wait("#error:not([hidden])")
    assert "python -m http.server" in visit.inner_text("#error")
    visit.context.close()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("model.onnx", "model.onnx is not the file that belongs to this page"),
        ("runtime/ort-wasm-simd-threaded.wasm", "ort-wasm-simd-threaded.wasm could not be loaded (404)"),
        ("model.json", "model.json could not be loaded"),
    ],
)
def test_files_that_are_not_whole_are_named(browser, sites, tmp_path, name, words):
    folder = tmp_path / "site"
    shutil.copytree(sites("one"), folder)
    if name == "model.onnx":
        content = bytearray((folder / name).read_bytes())
        content[-100] ^= 1
        (folder / name).write_bytes(content)
    else:
        (folder / name).unlink()
    with served(folder) as server:
        visit = Visit(browser, server.address)
        visit.wait("#error:not([hidden])")
        assert words in visit.inner_text("#error")
        visit.context.close()


def test_a_model_that_the_device_has_no_room_for(browser, sites, tmp_path):
    folder = tmp_path / "site"
    shutil.copytree(sites("one"), folder)
    script = (folder / "page.js").read_text()
    shown = "session = await ort.InferenceSession.create("
    assert script.count(shown) == 1
    (folder / "page.js").write_text(script.replace(shown, "throw new Error('std::bad_alloc'); ("))
    with served(folder) as server:
        visit = Visit(browser, server.address)
        visit.wait("#error:not([hidden])")
        assert "this device may have too little memory for it. std::bad_alloc" in visit.inner_text("#error")
        visit.context.close()
