"""The snippets of docs/deploy.md in three languages: they stand in the page alone, and are run as they stand there.

What they need is fetched by `make test-snippets`; a tool that is not there skips its test by name.
"""

import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from onnx_files import MAX_LENGTH

from modeling_ast.tagging.tagger import AudioTagger

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
pytestmark = pytest.mark.long

ROOT = Path(__file__).parents[3]
TOOLS = Path(os.environ.get("SNIPPETS", ROOT / ".venv" / "snippets")).absolute()
NODE_PACKAGE = TOOLS / "node_modules" / "onnxruntime-node"
HEADERS = [Path("/usr/include/onnxruntime"), TOOLS / "usr" / "include" / "onnxruntime"]
FETCH = "make test-snippets fetches it"
TOLERANCE = 1e-4
MOST_LINES = 40  # less than


def snippet(language: str) -> str:
    """The page's snippet, which names in its first line the file that it is."""
    page = (ROOT / "docs" / "deploy.md").read_text(encoding="utf-8")
    (text,) = [
        each for each in re.findall(rf"^```{language}\n(.*?)^```$", page, re.M | re.S) if "tag" in each.split("\n")[0]
    ]
    return text


def python(_folder: Path) -> list[str]:
    return [sys.executable]


def javascript(_folder: Path) -> list[str]:
    node = shutil.which("node")
    if node is None:
        pytest.skip("there is no node here")
    if not NODE_PACKAGE.is_dir():
        pytest.skip(f"there is no {NODE_PACKAGE}; {FETCH}")
    return [node]


def cpp(folder: Path) -> list[str]:
    """Compile it, and give the program."""
    compiler = shutil.which("c++")
    headers = next((each for each in HEADERS if (each / "onnxruntime_cxx_api.h").is_file()), None)
    if compiler is None or headers is None:
        pytest.skip(f"there is no {'C++ compiler' if compiler is None else 'onnxruntime_cxx_api.h'} here; {FETCH}")
    for header in ("sndfile.hh", "nlohmann/json.hpp"):
        if not (Path("/usr/include") / header).is_file():
            pytest.skip(f"there is no {header} here; {FETCH}")
    library = ["-lonnxruntime"]
    if headers != HEADERS[0]:
        machine = {"x86_64": "x64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
        found = sorted(NODE_PACKAGE.glob(f"bin/napi-v*/linux/{machine}/libonnxruntime.so.1"))
        if not found:
            pytest.skip(f"there is no libonnxruntime here; {FETCH}")
        library = [str(found[-1]), f"-Wl,-rpath,{found[-1].parent}"]
    command = [
        compiler,
        "-std=c++17",
        "-Wall",
        "-Werror",
        str(folder / "tag.cpp"),
        f"-I{headers}",
        *library,
        "-lsndfile",
    ]
    subprocess.run([*command, "-o", str(folder / "tag")], check=True)
    return [str(folder / "tag")]


WAYS = {"python": python, "js": javascript, "cpp": cpp}


@pytest.fixture(params=WAYS, scope="module")
def program(request, tmp_path_factory):
    """The words of a command that lack model and clip."""
    language, folder = request.param, tmp_path_factory.mktemp("snippet")
    text = snippet(language)
    assert len(text.splitlines()) < MOST_LINES
    suffix = {"python": "py"}.get(language, language)
    (folder / f"tag.{suffix}").write_text(text, encoding="utf-8")
    words = WAYS[language](folder)
    return words if language == "cpp" else [*words, str(folder / f"tag.{suffix}")]


@pytest.fixture(scope="module")
def clips(tmp_path_factory, recordings):
    """Drum clips as WAV files, one of them with another chunk of odd length before the samples."""
    folder, samples = tmp_path_factory.mktemp("wav"), 400 + (MAX_LENGTH - 1) * 160
    files = []
    for number, source in enumerate(sorted(recordings.iterdir())[:4]):
        sound, rate = soundfile.read(source)
        assert rate == 16_000
        files.append(folder / f"{number}.wav")
        soundfile.write(files[-1], sound[: samples - 37 * number], rate, "PCM_16")
    content = files[1].read_bytes()
    other, place = b"junk" + (3).to_bytes(4, "little") + b"odd\0", content.index(b"data")
    size = (len(content) + len(other) - 8).to_bytes(4, "little")
    files[1].write_bytes(content[:4] + size + content[8:place] + other + content[place:])
    return files


def run(program, *words):
    environment = os.environ | {"NODE_PATH": str(TOOLS / "node_modules"), "PYTHONPATH": ""}
    return subprocess.run([*program, *map(str, words)], capture_output=True, text=True, env=environment, timeout=120)


def test_its_best_labels_are_those_of_pytorch(program, checkpoint, heard, clips):
    expected = list(AudioTagger.from_pretrained(checkpoint, "cpu").tag_files(clips, top_k=3))
    assert len({tags.labels[0].score for tags in expected}) == len(clips)
    for tags in expected:
        done = run(program, heard, tags.file)
        assert done.returncode == 0, done.stderr
        found = [line.split(" ", 1) for line in done.stdout.splitlines()]
        assert [label for _, label in found] == [tag.label for tag in tags.labels]
        assert [float(score) for score, _ in found] == pytest.approx([tag.score for tag in tags.labels], abs=TOLERANCE)


@pytest.mark.parametrize(("rate", "channels"), [(8_000, 1), (16_000, 2)])
def test_what_it_does_not_hear_it_says(program, heard, tmp_path, rate, channels):
    soundfile.write(tmp_path / "other.wav", np.zeros((8_000, channels)), rate)
    done = run(program, heard, tmp_path / "other.wav")
    assert done.returncode != 0
    assert re.search(r"expected .*one channel at 16000 Hz", done.stderr)
