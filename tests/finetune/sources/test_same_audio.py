"""Which recordings are one: by what is in them, not by their names, sizes and marks."""

import filecmp
import itertools
import os

import numpy as np
import pytest
import soundfile
from marked_sounds import write_marked

from finetune.arguments.groups import DataArguments
from finetune.clip_sets.clip_datasets import load_clip_sets
from finetune.clip_sets.clip_set import Checks
from finetune.clip_sets.marked_windows import MarkedClips
from finetune.sources import same_audio
from finetune.sources.data_errors import DataError
from finetune.sources.same_audio import same_in_several
from modeling_ast import ASTFeatureExtractor

EXTRACTOR = ASTFeatureExtractor(max_length=100)


def checked(folder, **fields):
    data = DataArguments(dataset_name=str(folder), marks="beside", **fields)
    splits, _ = load_clip_sets(data, 0)
    return MarkedClips.check(splits, Checks(data, EXTRACTOR, EXTRACTOR.audio_reader()))


@pytest.fixture
def split(tmp_path):
    """Recordings of one size each, in train/ and test/."""
    folder = write_marked(tmp_path / "all")
    for side, numbers in {"train": (0, 1, 2), "test": (3, 4)}.items():
        (folder / side).mkdir()
        for path in [path for number in numbers for path in folder.glob(f"rec{number}.*")]:
            path.rename(folder / side / path.name)
    for path in folder.glob("rec5.*"):
        path.unlink()
    assert len({path.stat().st_size for path in folder.rglob("*.wav")}) == 1
    return folder


@pytest.mark.parametrize("how", ["copied", "linked"])
@pytest.mark.parametrize("name", ["rec0", "other"])
@pytest.mark.parametrize("marks", ["0.5\t1.1\tlow\n3\t3.4\thigh\n6\t6.6\tlow\n", "5\t6\thigh\n"])
def test_a_recording_in_two_splits_is_refused_whatever_its_name_and_marks(split, how, name, marks):
    source, copy = split / "train" / "rec0.wav", split / "test" / f"{name}.wav"
    os.link(source, copy) if how == "linked" else copy.write_bytes(source.read_bytes())
    copy.with_suffix(".txt").write_text(marks)
    with pytest.raises(
        DataError, match=rf"1 recording\(s\) are in two splits.*rec0\.wav \(training\) = .*{name}\.wav \(scored\)"
    ):
        checked(split)


def test_recordings_of_one_name_and_size_with_nothing_marked_in_them_are_not_one(split):
    for side in ("train", "test"):
        noise = 0.1 * np.random.default_rng(len(side)).standard_normal(16_000 * 8)
        soundfile.write(split / side / "20240501_050000.wav", noise.astype("float32"), 16_000)
    found = checked(split, unmarked="background").splits
    assert {side: len(clips.recordings) for side, clips in found.items()} == {"train": 4, "eval": 3}


def test_only_what_may_be_one_is_read(tmp_path, monkeypatch):
    generator = np.random.default_rng(0)
    common = generator.bytes(9 * same_audio.PIECE)
    at = 2 * same_audio.PIECE  # in no piece that is looked at first
    odd = [common[:at] + letter + common[at + 1 :] for letter in (b"a", b"b", b"a")]
    changed = [common[:place] + b"z" + common[place + 1 :] for place in (0, len(common) // 2, len(common) - 1)]
    contents = [b"short", *odd, *changed, b"short", b"four"]
    for number, content in enumerate(contents):
        (tmp_path / str(number)).write_bytes(content)
    os.link(tmp_path / "1", tmp_path / "9")
    for name in ("10", "11"):  # one recording twice in a split
        (tmp_path / name).write_bytes(b"twin of one side")
    audio = [{"bytes": None, "path": str(tmp_path / str(number))} for number in range(12)]
    audio[7] = {"bytes": contents[7], "path": None}
    groups = ["train", "train", "train", *["eval"] * 9]
    read = []
    digest = same_audio._digest
    monkeypatch.setattr(
        same_audio, "_digest", lambda item, whole: read.append((item["path"], whole)) or digest(item, whole)
    )
    found = same_in_several(audio, groups)
    same = [
        pair
        for pair in itertools.combinations(range(12), 2)
        if filecmp.cmp(tmp_path / str(pair[0]), tmp_path / str(pair[1]), shallow=False)
    ]
    expected = {pair for pair in same if groups[pair[0]] != groups[pair[1]]}
    pairs = {pair for places in found for pair in itertools.combinations(places, 2)}
    assert {pair for pair in pairs if groups[pair[0]] != groups[pair[1]]} == expected
    assert found == [[0, 7], [1, 3, 9]]
    assert len(read) == len(set(read))
    of_file = {
        number: {whole for path, whole in read if path == str(tmp_path / str(number))}
        for number in (2, 4, 5, 6, 8, 9, 10, 11)
    }
    assert of_file == {2: {False, True}, 4: {False}, 5: {False}, 6: {False}, 8: set(), 9: set(), 10: set(), 11: set()}
