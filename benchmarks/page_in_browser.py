"""The page of `ast-export --page` in a headless Chromium beside `ast-tag`: scores and stretches file by file, and time.

Called as `python -m benchmarks.page_in_browser SITE AUDIO_OR_FOLDER ...`. Files are tagged with the page's own model in ONNX Runtime, with a
time line. With `--rate` each clip is heard as if its samples had been taken at that rate, three times over and in two unlike channels.
"""

import argparse
import contextlib
import functools
import http.server
import json
import shutil
import statistics
import sys
import tempfile
import threading
from pathlib import Path

import numpy as np
import soundfile

from modeling_ast.audio import find_audio_files
from modeling_ast.page.writing import MODEL
from modeling_ast.runtime import OnnxTagger

RUNS = 21  # of one second
ALL = 10_000  # labels
WAIT = 120_000  # ms


def main(argv: list[str] | None = None) -> int:
    """Compare and print; see the module.

    Args:
        argv (`list[str]`, *optional*): arguments after the program's name, by default those of the process.

    Returns:
        0.
    """
    parser = argparse.ArgumentParser(prog="page_in_browser", description=__doc__.splitlines()[0])
    parser.add_argument("site", type=Path, metavar="SITE", help="folder of ast-export --page")
    parser.add_argument("files", nargs="+", metavar="AUDIO_OR_FOLDER")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="take each Nth file")
    parser.add_argument("--rate", type=int, metavar="HZ", help="hear the clips' samples at this rate, in two channels")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder, opened_page(args.site) as page:
        files = find_audio_files(args.files)[:: args.every]
        if args.rate:
            files = [at_rate(file, args.rate, Path(folder), number) for number, file in enumerate(files)]
        for line in compared(page, OnnxTagger(args.site / MODEL), files):
            print(line)
        for rate, channels in ((16_000, 1), (44_100, 2)):
            second = Path(folder) / f"{rate}.wav"
            soundfile.write(second, np.random.default_rng(0).normal(size=(rate, channels)) / 10, rate)
            times = [heard(page, second)["milliseconds"] for _ in range(RUNS)]
            print(
                f"1 s at {rate} Hz, {channels} channel(s), of {RUNS} runs: best {min(times):.0f} ms, median {statistics.median(times):.0f} ms"
            )
    return 0


@contextlib.contextmanager
def opened_page(site: Path):
    """Serve the page and open it until its model is loaded."""
    from playwright.sync_api import sync_playwright

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=site))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with sync_playwright() as started:
        browser = started.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_page()
        page.set_default_timeout(WAIT)
        page.goto(f"http://127.0.0.1:{server.server_port}/")
        page.locator("html[data-ready]").wait_for(state="attached")
        yield page
        browser.close()
    server.shutdown()


def heard(page, file) -> dict:
    """What the page saves of a file."""
    page.set_input_files("#file", file)
    page.locator("#result:not([hidden])").wait_for(state="attached")
    with page.expect_download() as saved:
        page.click("#save")
    return json.loads(saved.value.path().read_text(encoding="utf-8"))


def at_rate(file, rate: int, folder: Path, number: int) -> Path:
    """Write a clip's samples as if taken at another rate."""
    samples, _ = soundfile.read(file, always_2d=True)
    samples = np.tile(samples[:, 0], 3)
    other = 0.7 * np.roll(samples, 3) + np.random.default_rng(number).normal(size=len(samples)) / 1000
    path = folder / f"{number}.{'wav' if number % 2 else 'flac'}"
    soundfile.write(path, np.stack([samples, other], axis=1), rate)
    return path


def compared(page, tagger: OnnxTagger, files: list):
    """Lines about how alike the results are."""
    differences, labels, stretches = [], 0, 0
    for tags in tagger.tag_files(files, top_k=ALL, timeline=True):
        found = heard(page, tags.file)
        scores = {each["label"]: each["score"] for each in found["labels"]}
        differences.append(max(abs(scores[tag.label] - tag.score) for tag in tags.labels))
        labels += found["labels"][0]["label"] == tags.labels[0].label
        of_found = [(each["label"], each["start"], each["end"]) for each in found["segments"]]
        stretches += of_found == [(each.label, each.start, each.end) for each in tags.segments]
    yield f"{len(differences)} clips: largest difference of a score {max(differences):.1e}, mean {np.mean(differences):.1e}"
    yield f"best label kept: {labels}, all stretches kept: {stretches}"


if __name__ == "__main__":
    sys.exit(main())
