"""Running `ast-demo`s, the tiny models that they show, and what a visitor does in a browser.

`sitecustomize.py` writes down every host that the program asks for.
"""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import forked_python
import numpy as np
import pytest
import transformers
from varied_model import vary_scores

MAX_LENGTH = 96
RATE = 16_000
WINDOW = 400 + 95 * 160  # samples of 96 frames: one of 25 ms, and 95 shifts of 10 ms
LABELS = ["bell", "crash", "kick", "a" * 90, '<img src=x onerror="window.harmed=1">', "tom & 'co'"]
LICENSE = "cc-by-4.0"
LISTENING_SECONDS = 60  # for the program to be there; two cores may have much else to do
CHROMIUM_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--autoplay-policy=user-gesture-required",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
]
WAIT = 30_000  # ms

WATCH_HOSTS = """
import os, sys
def watch(event, arguments):
    if event in ("socket.getaddrinfo", "socket.connect"):
        host = arguments[0] if event == "socket.getaddrinfo" else arguments[1]
        with open(os.environ["HOSTS_LOG"], "a") as log:
            print(host[0] if isinstance(host, tuple) else host, file=log)
sys.addaudithook(watch)
"""
# In a forked child, which no `sitecustomize.py` reaches and whose parent may ignore the end of the terminal.
FORKED = f"""
import runpy, signal
{WATCH_HOSTS}
signal.signal(signal.SIGHUP, signal.SIG_DFL)
runpy.run_module("model_card.run_demo", run_name="__main__", alter_sys=True)
"""


def save_checkpoint(folder, problem_type):
    """A tiny stock model whose scores differ from clip to clip, as a random one's hardly do."""
    config = transformers.ASTConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_length=MAX_LENGTH,
        problem_type=problem_type,
        id2label=dict(enumerate(LABELS)),
        label2id={label: index for index, label in enumerate(LABELS)},
    )
    model = transformers.ASTForAudioClassification(config).eval()
    extractor = transformers.ASTFeatureExtractor(max_length=MAX_LENGTH)
    features = extractor(np.split(noise(8), 8), sampling_rate=RATE, return_tensors="pt")
    vary_scores(model, 5, lambda: model(**features).logits)
    model.save_pretrained(folder)
    extractor.save_pretrained(folder)
    (folder / "README.md").write_text(f"---\nlicense: {LICENSE}\n---\n# Card\n", encoding="utf-8")
    return folder


def noise(windows):
    """Noise whose colour changes from window to window."""
    generator = np.random.default_rng(1)
    parts = [np.convolve(generator.normal(size=WINDOW), generator.normal(size=8), mode="same") for _ in range(windows)]
    return (np.concatenate(parts) / 40).astype(np.float32)


def heed_signals():
    """The tests may be a shell's background job, which ignores Ctrl-C, or one of `nohup`; a program inherits that."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


class Demo:
    """A running `ast-demo`, with a folder for temporary files of its own and an empty working directory.

    One that is `forked` has the imports of `forked_python`, which a fresh one takes four seconds of processor time for.
    """

    def __init__(self, folder, checkpoint, *flags, forked=False):
        self.working, self.temporary, self.hosts = folder / "working", folder / "temporary", folder / "hosts"
        for made in (self.working, self.temporary):
            made.mkdir()
        (folder / "sitecustomize.py").write_text(WATCH_HOSTS)
        self.hosts.touch()
        self.errors, self.page = folder / "errors", None
        arguments = [checkpoint, "--port", "0", *flags]
        # Not told to stay offline: it has to by itself.
        environment = {name: value for name, value in os.environ.items() if name != "HF_HUB_OFFLINE"} | {
            "TMPDIR": str(self.temporary),
            "HOSTS_LOG": str(self.hosts),
            "PYTHONPATH": f"{folder}{os.pathsep}{Path(__file__).parents[1]}",
        }
        with open(self.errors, "w") as errors:
            reading, writing = os.pipe()
            self.printed = open(reading)  # noqa: SIM115
            with open(writing, "w") as printed:
                if forked:
                    self.process = forked_python.Child(
                        ["-c", FORKED, *arguments], printed, errors, environment, self.working
                    )
                else:
                    self.process = subprocess.Popen(
                        [sys.executable, "-m", "model_card.run_demo", *arguments],
                        cwd=self.working,
                        env=environment,
                        stdout=printed,
                        stderr=errors,
                        preexec_fn=heed_signals,
                    )

    def address(self):
        line = self.printed.readline()
        found = re.search(r"http://127\.0\.0\.1:\d+", line)
        assert found, f"{line!r}\n{self.errors.read_text()}"
        return found[0]

    def end(self, how=signal.SIGTERM):
        self.process.send_signal(how)
        return self.process.wait(LISTENING_SECONDS)

    def asked_hosts(self):
        return set(self.hosts.read_text().split())


@contextlib.contextmanager
def launched_browser():
    """A headless Chromium; the test is skipped where there is none."""
    playwright = pytest.importorskip("playwright.sync_api")
    if shutil.which("chromium") is None:
        pytest.skip("needs chromium")
    with playwright.sync_playwright() as started:
        launched = started.chromium.launch(executable_path=shutil.which("chromium"), args=CHROMIUM_FLAGS)
        yield launched
        launched.close()


class Page:
    """What a visitor does and reads."""

    def __init__(self, browser, url):
        self.view = browser.new_page()
        self.view.set_default_timeout(WAIT)
        self.urls, self.faults = [], []
        self.view.on("request", lambda request: self.urls.append(request.url))
        self.view.on("pageerror", lambda error: self.faults.append(str(error)))
        self.view.goto(url)

    def __getattr__(self, name):
        return getattr(self.view, name)

    def clear(self):
        clear = self.view.locator("#recording").get_by_role("button", name="Clear")
        if clear.count():
            clear.click()
            self.view.locator("#message p, #picture img").wait_for(state="detached")

    def send(self, file):
        self.clear()
        self.view.locator("#recording input[type=file]").set_input_files(file)
        self.view.locator("#message p, #picture img").wait_for()

    def picture(self, text):
        """Wait for a picture of which this is said."""
        self.view.locator(f"#picture img[alt*='{text}']").wait_for()

    def labels(self):
        names = self.view.locator("#labels dt").all_inner_texts()
        return dict(zip(names, self.view.locator("#labels dd").all_inner_texts()[-len(names) :], strict=True))

    def playing_from(self):
        """Wait until the player plays, for the second where it does."""
        place = "(({paused, currentTime}) => paused ? 0 : currentTime)(document.querySelector('#recording audio'))"
        return self.view.wait_for_function(place).json_value()
