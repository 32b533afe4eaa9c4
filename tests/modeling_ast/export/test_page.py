"""`ast-export --page`: which files it writes, all or nothing, and what it refuses. What they do is seen in
`test_page_in_browser.py`."""

import hashlib
import json
import os
import shutil
import tarfile

import numpy as np
import pytest
from onnx_files import LABELS, MAX_LENGTH

from modeling_ast import run_export
from modeling_ast.checkpoint_export import ExportSettings
from modeling_ast.page import runtime_package, writing
from modeling_ast.page.runtime_package import FILES, PACKAGE, VERSION, RuntimePackageError, copy_runtime
from modeling_ast.page.writing import MODEL, PageError, describe_for_page, write_page

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

WINDOW = 400 + (MAX_LENGTH - 1) * 160


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package whose files are not ONNX Runtime's, and their digests in place of those."""
    folder = tmp_path / "package"
    (folder / "dist").mkdir(parents=True)
    for name in FILES:
        content = f"// {name}".encode()
        (folder / "dist" / name).write_bytes(content)
        monkeypatch.setitem(FILES, name, hashlib.sha256(content).hexdigest())
    return folder


@pytest.fixture
def npm(tmp_path, monkeypatch, package):
    """An npm that does what is given, in a shell."""

    def set_npm(script):
        path = tmp_path / "bin" / "npm"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        monkeypatch.setenv("PATH", f"{path.parent}{os.pathsep}{os.environ['PATH']}")

    return set_npm


def export(checkpoint, folder, package, *flags):
    return run_export.main([str(checkpoint), "--page", str(folder), "--runtime_package", str(package), *flags])


def test_the_page_is_a_folder_of_static_files(capsys, without_export, checkpoint, package, tmp_path):
    assert export(checkpoint, tmp_path / "site", package, "--title", "A <b> & c") == 0
    found = {
        path.relative_to(tmp_path / "site").as_posix() for path in (tmp_path / "site").rglob("*") if path.is_file()
    }
    runtime = {f"runtime/{name}" for name in (*FILES, "LICENSE", "ThirdPartyNotices.txt")}
    assert found == {"index.html", "page.js", "page.css", "model.onnx", "model.json", "LICENSE", *runtime}
    text = (tmp_path / "site" / "index.html").read_text(encoding="utf-8")
    assert "<title>A &lt;b&gt; &amp; c</title>" in text
    assert LABELS[1] in text
    assert "://" not in text.replace("http://localhost", ""), "nothing is asked of another host"
    assert "Copyright (c) Microsoft" in (tmp_path / "site" / "runtime" / "LICENSE").read_text()
    about = json.loads((tmp_path / "site" / "model.json").read_text(encoding="utf-8"))
    for name, file in about["files"].items():
        content = (tmp_path / "site" / name).read_bytes()
        assert file == {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    assert {"model.onnx", *(f"runtime/{name}" for name in FILES)} == about["files"].keys()
    shown = capsys.readouterr().out
    assert f"python -m http.server --directory {tmp_path / 'site'}" in shown
    assert f"{tmp_path / 'site' / 'model.onnx'}: " in shown


def test_what_the_page_knows_of_the_model(without_export, checkpoint, package, tmp_path, monkeypatch):
    assert export(checkpoint, tmp_path / "site", package) == 0
    about = describe_for_page(tmp_path / "site" / MODEL)
    assert about["labels"] == list(LABELS)
    assert (about["window_samples"], about["hop_samples"], about["step_samples"]) == (WINDOW, 7680, 1)
    assert (about["frame_samples"], about["shift_samples"], about["sampling_rate"]) == (400, 160, 16_000)
    assert (about["resampler"], about["channels"], about["columns"]) == ("torchaudio", "mean", None)
    assert not about["exclusive"]
    assert about["on"] == about["thresholds"] == [0.5] * 3
    assert about["off"] == about["gap_samples"] == [None] * 3
    assert about["min_samples"] == [0.0] * 3


def test_rules_of_events_are_in_samples(without_export, checkpoint, package, tmp_path):
    folder = tmp_path / "ruled"
    shutil.copytree(checkpoint, folder)
    config = json.loads((folder / "config.json").read_text())
    config["event_rules"] = {LABELS[1]: {"on": 0.3, "off": 0.1, "min_duration": 0.25, "close_gaps": 0.5}}
    backend = writing.OnnxBackend
    assert export(checkpoint, tmp_path / "site", package) == 0

    class Ruled(backend):
        def __init__(self, path):
            super().__init__(path)
            self.config.event_rules = config["event_rules"]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writing, "OnnxBackend", Ruled)
        about = describe_for_page(tmp_path / "site" / MODEL)
    assert about["on"] == [0.5, 0.3, 0.5]
    assert about["off"] == [None, 0.1, None]
    assert about["min_samples"] == [0, 4000, 0]
    assert about["gap_samples"] == [None, 8000, None]


def test_a_page_is_replaced_if_asked_for_and_nothing_else(capsys, without_export, checkpoint, package, tmp_path):
    site, other = tmp_path / "site", tmp_path / "other"
    other.mkdir()
    (other / "index.html").write_text("somebody's")
    assert export(checkpoint, site, package, "--title", "before") == 0
    assert export(checkpoint, site, package, "--title", "after") == 2
    assert f"{site} is a page already. Pass --overwrite" in capsys.readouterr().err
    assert export(checkpoint, site, package, "--title", "after", "--overwrite") == 0
    assert "<title>after</title>" in (site / "index.html").read_text()
    assert "stays as it was" not in capsys.readouterr().out
    assert export(checkpoint, other, package, "--overwrite") == 2
    assert str(other) in capsys.readouterr().err
    assert [path.name for path in other.iterdir()] == ["index.html"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other", "package", "site"]


def contents(folder):
    """Bytes by name, of links where they lead to."""
    return {
        path.relative_to(folder).as_posix(): os.readlink(path) if path.is_symlink() else path.read_bytes()
        for path in folder.rglob("*")
        if path.is_symlink() or not path.is_dir()
    }


def fill_clone(site):
    """Lay beside a page what a repository that is served by a host of pages has."""
    others = {
        ".git/HEAD": "ref: refs/heads/main",
        "CNAME": "sounds.example.org",
        "README.md": "# Drums",
        "runtime/own": "",
    }
    for name, text in others.items():
        (site / name).parent.mkdir(exist_ok=True)
        (site / name).write_text(text)
    (site / "link").symlink_to("gone")
    return {*others, "link"}


def test_what_lies_beside_a_page_stays_when_it_is_replaced(capsys, without_export, checkpoint, package, tmp_path):
    site = tmp_path / "site"
    assert export(checkpoint, site, package, "--title", "before") == 0
    of_page = contents(site).keys()
    others = fill_clone(site)
    (site / "page.css").unlink()
    before, repository = contents(site), (site / ".git").stat().st_ino
    assert export(checkpoint, site, package, "--title", "after", "--overwrite") == 0
    after = contents(site)
    assert after.keys() == of_page | others
    assert {name: after[name] for name in others} == {name: before[name] for name in others}
    assert (site / ".git").stat().st_ino == repository, "it is never moved"
    assert b"<title>after</title>" in after["index.html"]
    shown = capsys.readouterr().out
    assert f"beside the page in {site} stays as it was: '.git', 'CNAME', 'README.md' and 2 more." in shown
    size = sum(len(after[name]) for name in of_page) / 1e6
    assert f"a page of {len(of_page)} files, {size:.1f} MB" in shown


def test_what_is_in_the_way_of_a_page_is_told_before_it_is_made(capsys, without_export, checkpoint, package, tmp_path):
    site = tmp_path / "site"
    assert export(checkpoint, site, package) == 0
    shutil.rmtree(site / "runtime")
    (site / "runtime").write_text("mine")
    assert export(checkpoint, site, package, "--overwrite") == 2
    assert "already exists" in capsys.readouterr().err
    assert (site / "runtime").read_text() == "mine"


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_page_that_cannot_be_replaced_stays_as_it_was(
    monkeypatch, without_export, checkpoint, package, tmp_path, error
):
    site = tmp_path / "site"
    assert export(checkpoint, site, package, "--title", "before") == 0
    fill_clone(site)
    (site / "LICENSE").unlink()  # the first that is put in its place
    before, replace = contents(site), os.replace

    def fail(source, target):
        if target == site / "page.js" and "before" not in source.parts:
            raise error
        replace(source, target)

    monkeypatch.setattr(writing.os, "replace", fail)
    assert export(checkpoint, site, package, "--title", "after", "--overwrite") != 0
    assert contents(site) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["package", "site"]


def test_nothing_is_left_of_a_page_that_could_not_be_made(capsys, without_export, checkpoint, package, npm, tmp_path):
    npm("echo no such host >&2; exit 1")
    assert run_export.main([str(checkpoint), "--page", str(tmp_path / "site")]) == 2
    assert f"npm could not fetch {PACKAGE} {VERSION} (no such host)" in capsys.readouterr().err
    assert not [path for path in tmp_path.iterdir() if path.name.startswith((".", "site"))]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["{folder}/m.onnx", "--page", "{folder}/site"], "Pass either OUT.onnx, a file to write, or --page OUT_DIR"),
        ([], "Pass either OUT.onnx, a file to write, or --page OUT_DIR"),
        (["{folder}/m.onnx", "--title", "a"], "--title is about a page. Add --page OUT_DIR"),
        (["{folder}/m.onnx", "--runtime_package", "a"], "--runtime_package is about a page. Add --page OUT_DIR"),
    ],
)
def test_flags_that_do_not_go_together(capsys, checkpoint, tmp_path, arguments, words):
    with pytest.raises(SystemExit) as ended:
        run_export.main([str(checkpoint), *(argument.format(folder=tmp_path) for argument in arguments)])
    assert ended.value.code == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--page", "{folder}/site.onnx"], "is to be a folder, not a file. Pass for example --page {folder}/site"),
        (["--page", "{folder}/no/site"], "Type: mkdir -p {folder}/no"),
        (["--page", "{folder}/file"], "{folder}/file"),
        (["--page", "{folder}/site", "--runtime_package", "{folder}/gone"], "{folder}/gone is no package onnxruntime"),
        (["--page", "{folder}/site", "--runtime_package", "{folder}"], "it has no dist/ort.wasm.min.js"),
        (["--page", "{folder}/site", "--runtime_package", "{folder}/file"], "{folder}/file is no package onnxruntime"),
    ],
)
def test_what_cannot_be_used_is_explained(capsys, checkpoint, tmp_path, arguments, words):
    (tmp_path / "file").write_text("before")
    assert run_export.main([str(checkpoint), *(argument.format(folder=tmp_path) for argument in arguments)]) == 2
    assert words.format(folder=tmp_path) in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_file_that_is_not_the_pinned_one_is_refused(package, tmp_path):
    name = next(iter(FILES))
    (package / "dist" / name).write_text("// another version")
    with pytest.raises(RuntimePackageError, match=f"{name} is not that of {PACKAGE} {VERSION}"):
        copy_runtime(tmp_path, package)


def test_the_package_is_fetched_by_npm(npm, package, tmp_path):
    with tarfile.open(tmp_path / "made.tgz", "w:gz") as archive:
        archive.add(package, "package")
    npm(f'echo "$@" > {tmp_path}/asked; for place; do :; done; cp {tmp_path}/made.tgz "$place"/it.tgz')
    (tmp_path / "runtime").mkdir()
    copy_runtime(tmp_path / "runtime")
    assert {path.name for path in (tmp_path / "runtime").iterdir()} == FILES.keys()
    asked = (tmp_path / "asked").read_text().split()
    assert asked[:3] == ["pack", f"{PACKAGE}@{VERSION}", "--ignore-scripts"]
    copy_runtime(tmp_path / "runtime", tmp_path / "made.tgz")


def test_without_npm_it_says_what_to_type(monkeypatch, tmp_path):
    monkeypatch.setattr(runtime_package.shutil, "which", lambda _: None)
    with pytest.raises(
        RuntimePackageError, match=f"no npm here .* Type npm pack {PACKAGE}@{VERSION} .* --runtime_package"
    ):
        copy_runtime(tmp_path)


def test_models_that_no_page_can_show_are_refused(monkeypatch, without_export, checkpoint, package, tmp_path):
    assert export(checkpoint, tmp_path / "site", package) == 0
    folder = tmp_path / "large"
    folder.mkdir()
    graph = onnx.load(tmp_path / "site" / MODEL)
    onnx.save_model(graph, folder / MODEL, save_as_external_data=True, location=f"{MODEL}.data")
    with pytest.raises(PageError, match="too large for a page: beyond 2 GB"):
        write_page(folder, "large", package)
    shutil.copy(tmp_path / "site" / MODEL, folder)
    monkeypatch.setattr(writing, "LARGE", 1)
    (note,) = write_page(folder, "large", package)
    assert note.endswith("ast-export --page makes about half of it with --float16 or about a quarter with --int8.")

    class Frames(writing.OnnxBackend):
        def __init__(self, path):
            super().__init__(path)
            self.tells_frames = True

    weights = folder / f"{MODEL}.data"
    weights.touch()
    monkeypatch.setattr(writing, "weights_of", lambda path: [weights])
    with pytest.raises(
        PageError, match=r"with --int8\. Or use the demo page \(ast-demo\), which computes on a server\."
    ):
        describe_for_page(folder / MODEL)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writing, "OnnxBackend", Frames)
        with pytest.raises(PageError, match=r"with --float16\. Or use the ONNX file itself \(--waveform\)\."):
            describe_for_page(folder / MODEL)

    class Regression(writing.OnnxBackend):
        def __init__(self, path):
            super().__init__(path)
            self.problem_type = "regression"

    monkeypatch.setattr(writing, "OnnxBackend", Regression)
    with pytest.raises(PageError, match="is a regression"):
        describe_for_page(folder / MODEL)


@pytest.mark.parametrize(
    ("settings", "tells_frames", "words"),
    [
        ({}, False, "ast-export --page makes about half of it with --float16 or about a quarter with --int8."),
        ({}, True, "ast-export --page makes about half of it with --float16."),
        ({"float16": True}, False, "ast-export --page makes about half of it with --int8 in place of --float16."),
        ({"float16": True}, True, "ast-export makes it no smaller: train a smaller model for a smaller page."),
        ({"int8": True}, False, "ast-export makes it no smaller: train a smaller model for a smaller page."),
    ],
)
def test_only_what_makes_a_model_smaller_is_advised(settings, tells_frames, words):
    assert writing._how_to_shrink(ExportSettings(**settings), tells_frames) == words


def test_the_note_on_size_knows_the_settings(capsys, monkeypatch, without_export, checkpoint, package, tmp_path):
    monkeypatch.setattr(writing, "LARGE", 1)
    assert export(checkpoint, tmp_path / "site", package, "--float16") == 0
    assert "about half of it with --int8 in place of --float16." in capsys.readouterr().out


def test_many_labels_are_not_all_in_the_first_line():
    assert writing._labels_in_words(["a", "b"]) == "a, b"
    assert writing._labels_in_words([str(number) for number in np.arange(527)]).endswith("10, 11 and 515 more")
