"""Label tracks beside recordings where `--marks` was forgotten: they are told, with the flag to type."""

import numpy as np
import pytest
import soundfile
from loading import load
from tiny_trainings import flags

from finetune.run_finetune import main
from finetune.sources.data_errors import DataError
from finetune.sources.marks_beside import tracks_beside


@pytest.fixture
def recordings(tmp_path):
    """Two sites of four recordings, each with a label track beside it."""
    paths = []
    for number in range(8):
        path = tmp_path / "rec" / "ab"[number % 2] / f"{number}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, np.random.default_rng(number).uniform(-0.1, 0.1, 8_000), 16_000)
        path.with_suffix(".txt").write_text("0.1\t0.3\twren\n")
        paths.append(path)
    return paths


def test_all_names_of_tracks_are_known(tmp_path):
    names = {"a.wav": "a.txt", "b.wav": "b.wav.txt", "c.wav": "c.Table.1.selections.txt", "d.wav": "other.txt"}
    for audio, text in names.items():
        (tmp_path / audio).touch()
        (tmp_path / text).touch()
    found = tracks_beside([tmp_path / audio for audio in names])
    assert [path.name for path in found] == ["a.txt", "b.wav.txt", "c.Table.1.selections.txt"]
    assert tracks_beside([tmp_path / "gone" / "a.wav"]) == []


def test_recordings_in_no_class_folder(recordings):
    with pytest.raises(DataError, match=r"lies in no class folder.*0\.txt lies beside it: .*--marks beside trains on"):
        load(recordings[0].parent)


def test_folders_that_are_no_classes(recordings, tmp_path, capsys):
    words = flags(tmp_path / "rec", tmp_path / "run", max_steps=1)
    assert main(words) == 0
    said = capsys.readouterr().out
    assert "text files lie beside 8 clips" in said
    assert "--marks beside trains on the stretches that label tracks mark" in said
    for path in recordings[:4]:
        path.with_suffix(".txt").unlink()
    assert main([*words, "--overwrite_output_dir=true"]) == 0
    assert "text files lie beside" not in capsys.readouterr().out
