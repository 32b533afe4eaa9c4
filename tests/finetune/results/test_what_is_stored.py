"""A run on data whose places and names are marks, with rows that name other files: what of these is in what is published."""

import csv
import getpass
import json
import os
import socket
from pathlib import Path

import numpy as np
import pytest
import soundfile
from tiny_trainings import SIZES, flags, summary_in, write_tones

from finetune.arguments.groups import DataArguments
from finetune.run_finetune import main
from finetune.sources.folders import data_folder
from model_card.checkpoint_checks import files_to_publish
from model_card.run_push import main as push
from model_card.run_summary import shown_file, shown_word, without_places
from modeling_ast import ASTConfig, ASTFeatureExtractor, ASTForAudioClassification
from modeling_ast.audio import AudioError, read_audio
from modeling_ast.audio.errors import first_line

PLACE, NAME, CONTENT = "Qqplace", "Qqname", "Qqcontent"


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """Adapters of a local checkpoint, TensorBoard, a cache, a table with rows that name files elsewhere."""
    place = tmp_path_factory.mktemp(PLACE)
    data = write_tones(place / f"{NAME}-clips", count=6)
    (data / "a" / f"{NAME}-in.wav").write_bytes(b"RIFF" + CONTENT.encode())
    (place / f"{NAME}.txt").write_text(f"{CONTENT}=hunter2\n" * 9)
    (place / f"{NAME}.dat").write_bytes(b"\0\1" + CONTENT.encode() * 50)
    tone = soundfile.read(data / "a" / "0.wav")[0]
    soundfile.write(place / f"{NAME}-out.wav", np.stack([tone, -tone * 0.999], 1), 16_000)  # its channels cancel
    elsewhere = [place / f"{NAME}{end}" for end in (".txt", ".dat", "-out.wav")]
    rows = [(path, path.parent.name) for path in sorted(data.rglob("*.wav"))]
    with open(data / f"{NAME}.csv", "w", newline="") as file:
        csv.writer(file).writerows([("path", "label"), *rows, *((path, "b") for path in elsewhere)])
    base = place / f"{NAME}-base"
    ASTForAudioClassification(ASTConfig(**SIZES, num_labels=2)).save_pretrained(base)
    ASTFeatureExtractor(max_length=48).save_pretrained(base)
    given = flags(
        data / f"{NAME}.csv", place / f"{NAME}-run", model_name_or_path=base, lora_rank=2, skip_bad_audio="true",
        report_to="tensorboard", waveform_cache=place / f"{NAME}-cache", logging_dir=None, eval_fraction=0.3,
    )  # fmt: skip
    given = [flag for flag in given if flag.split("=")[0][2:] not in SIZES]
    assert main(given) == 0
    return place / f"{NAME}-run"


def test_nothing_that_is_published_says_where_something_lies_or_what_other_files_hold(run, tmp_path, monkeypatch):
    published = {}
    monkeypatch.setattr("model_card.push_to_hub.temporary_folder", lambda name: _Kept(tmp_path))
    monkeypatch.setattr("model_card.push_to_hub._list_files", lambda files, report: published.update(files))
    assert push([str(run), "--repo_id", "user/x", "--dry_run"]) == 0
    assert {"recipe.yaml", "adapter/adapter_config.json", "spectrogram.png"} <= published.keys()
    assert published.keys() == files_to_publish(run).keys()  # of TensorBoard's events and checkpoints nothing
    words = [
        PLACE,
        CONTENT,
        str(Path.home()) + "/",
        *(name for name in (socket.gethostname(), getpass.getuser()) if len(name) > 4),
    ]
    for name, path in published.items():
        content = path.read_bytes()
        assert not [word for word in words if word.encode() in content], name
    assert push([str(run), "--repo_id", "user/x", "--dry_run", "--hide_names"]) == 0
    assert not [name for name, path in published.items() if NAME.encode() in path.read_bytes()]


class _Kept:
    def __init__(self, folder: Path):
        self.folder = folder / str(len(list(folder.iterdir())))

    def __enter__(self) -> Path:
        self.folder.mkdir()
        return self.folder

    def __exit__(self, *error):
        """What was written is looked at."""


def test_a_file_is_named_by_its_place_in_the_data_folder_or_as_one_outside(run):
    data = summary_in(run)["data"]
    reasons = {clip["file"]: clip["reason"] for clip in data["skipped_clips"]}
    outside = "outside the data folder: "
    assert reasons.keys() == {f"a/{NAME}-in.wav", f"{outside}{NAME}.txt", f"{outside}{NAME}.dat"}
    assert reasons[f"{outside}{NAME}.txt"].startswith(f"{NAME}.txt holds text, not audio.")
    (note,) = data["audio_notes"]
    assert (note["file"], note["kind"]) == (f"{outside}{NAME}-out.wav", "cancelled")
    assert note["text"].startswith(f"{NAME}-out.wav")


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"secret", "text"),
        (b"<!DOCTYPE html><p>secret", "text (a web page)"),
        (b"version https://git-lfs.github.com/spec/v1\noid secret", "text (a Git LFS pointer; git lfs pull gets the file)"),
        (b"\xff\xd8\xff\xe0\0\x10JFIF secret", "a JPEG picture"),
        (b"%PDF-1.7 secret", "a PDF document"),
        (b"SQLite format 3\0secret", "an SQLite database"),
    ],
)  # fmt: skip
def test_what_is_no_audio_is_called_by_its_kind(tmp_path, content, kind):
    path = tmp_path / "clip.wav"
    path.write_bytes(content)
    with pytest.raises(AudioError) as caught:
        read_audio(path, 16_000)
    assert str(caught.value).startswith(f"{path} holds {kind}, not audio. ")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ValueError("invalid literal for int() with base 10: b'secret it\\'s'"), "invalid literal for int() with base 10: ..."),
        (KeyError("secret"), "..."),
        (RuntimeError('Line 1: unknown keyword "secret'), "Line 1: unknown keyword ..."),
        (RuntimeError("Can't allocate memory"), "Can't allocate memory"),
        (RuntimeError("tag 0x736563726574 is odd"), "tag ... is odd"),
        (RuntimeError("Invalid data found when processing input"), "Invalid data found when processing input"),
    ],
)  # fmt: skip
def test_what_errors_quote_is_left_out(error, words):
    assert first_line(error) == words


def test_the_folder_of_the_data_is_that_which_is_named_or_that_of_its_tables(tmp_path):
    table = tmp_path / "a" / "clips.csv"
    table.parent.mkdir()
    table.touch()
    assert data_folder(DataArguments(dataset_name=str(table))) == table.parent
    assert data_folder(DataArguments(dataset_name=str(tmp_path))) == tmp_path
    assert data_folder(DataArguments(dataset_name="user/clips")) is None
    files = {"train_file": str(table), "eval_file": str(tmp_path / "b" / "eval.csv")}
    assert data_folder(DataArguments(**files)) == tmp_path


def test_names_that_are_shown(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert shown_file("data/a/x.wav", "data") == "a/x.wav"
    assert shown_file(f"{tmp_path}/data/../etc/x.wav", tmp_path / "data") == "outside the data folder: x.wav"
    assert shown_file("/cache/blobs/ab", None) == "ab"
    words = f"{tmp_path}/data/a/x.wav and {tmp_path}/other/y.wav in {Path.home()}/z cannot be read"
    assert without_places(words, "data/a/x.wav", "data") == "a/x.wav and other/y.wav in z cannot be read"
    assert shown_word("/not/there/yet") == "yet"
    assert shown_word("~/logs") == "logs"
    assert shown_word("user/name") == "user/name"
    assert json.dumps(shown_word(os.sep)) == '"/"'
