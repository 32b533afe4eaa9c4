"""What is no file is refused where it is named and left out of folders; nothing is waited for."""

import os
from pathlib import Path

import pytest
from special_paths import WORDS, make_special, never_waits

from modeling_ast.audio import AudioError, AudioReader, find_audio_files, read_audio
from modeling_ast.audio.content import FileContent
from modeling_ast.checkpoints.fields import read_json
from modeling_ast.loading import CheckpointError, check_model_name
from modeling_ast.system.atomic_files import open_atomically
from modeling_ast.system.regular_files import SpecialFileError, only_files, refuse_special, refuse_special_in

BELL = Path(__file__).parents[3] / "finetune" / "sample_data" / "drums" / "bell" / "FluidR3_008.flac"


@pytest.fixture(autouse=True)
def _never_waits():
    with never_waits():
        yield


@pytest.fixture(params=WORDS)
def special(request, tmp_path):
    """Something that is no file, and what is said of it."""
    path = make_special(tmp_path / "x.wav", request.param)
    return path, f"{path} {WORDS[request.param]}"


def test_only_files_are_opened(special, tmp_path):
    path, words = special
    with pytest.raises(SpecialFileError) as error, open(path, "rb", opener=only_files):
        pass
    assert str(error.value).startswith(words)
    for read in (refuse_special, read_json):
        with pytest.raises(SpecialFileError):
            read(path)
    with pytest.raises(SpecialFileError):
        refuse_special_in(tmp_path)
    with open(BELL, "rb", opener=only_files) as file:
        assert file.read() == BELL.read_bytes()
    with pytest.raises(IsADirectoryError), open(tmp_path, "rb", opener=only_files):
        pass
    with pytest.raises(FileNotFoundError), open(tmp_path / "gone", "rb", opener=only_files):
        pass


def test_a_file_that_becomes_a_pipe_after_the_look_is_refused_all_the_same(tmp_path, monkeypatch):
    pipe = make_special(tmp_path / "x.wav", "pipe")
    monkeypatch.setattr("modeling_ast.system.regular_files.refuse_special", lambda path: None)
    with pytest.raises(SpecialFileError, match="is a pipe"), open(pipe, "rb", opener=only_files):
        pass


def test_audio_is_read_from_files_alone(special):
    path, words = special
    for read in (read_audio, AudioReader(16_000).hear, lambda path: read_audio({"bytes": None, "path": str(path)})):
        with pytest.raises(AudioError) as error:
            read(path)
        assert str(error.value).startswith(words)
    with pytest.raises(SpecialFileError):
        FileContent(str(path))


def test_a_pipe_of_the_shell_is_refused(tmp_path):
    reading, writing = os.pipe()
    try:
        with pytest.raises(AudioError, match=f"/dev/fd/{reading} is a pipe, not a file. Save what comes out of it"):
            read_audio(f"/dev/fd/{reading}")
    finally:
        os.close(reading)
        os.close(writing)


def test_folders_are_searched_once_and_what_is_no_file_is_left_out_with_a_word(tmp_path):
    clips, elsewhere = tmp_path / "clips", tmp_path / "elsewhere"
    (clips / "deep").mkdir(parents=True)
    elsewhere.mkdir()
    for place in (clips / "a.flac", clips / "deep" / "b.flac", elsewhere / "c.flac"):
        place.write_bytes(BELL.read_bytes())
    for kind in WORDS:
        make_special(clips / f"{kind}.wav", kind)
    make_special(clips / "pipe.txt", "pipe")  # which nobody takes for audio
    (clips / "a_link").symlink_to(elsewhere)  # before the folders by name
    (clips / "deep" / "up").symlink_to(clips)
    (elsewhere / "round").symlink_to(clips / "deep")
    (clips / "gone.wav").symlink_to(tmp_path / "gone")
    left_out = []
    found = find_audio_files(clips, left_out)
    assert found == [clips / "a.flac", clips / "a_link" / "c.flac", clips / "deep" / "b.flac", clips / "gone.wav"]
    taken = "is left out: it leads to a folder whose files are taken already."
    expected = [f"{clips / f'{kind}.wav'} is left out: it {words}" for kind, words in WORDS.items()]
    expected += [f"{clips / 'deep' / 'up'} {taken}", f"{clips / 'a_link' / 'round'} {taken}"]
    assert len(left_out) == len(expected)
    for words in expected:
        assert any(said.startswith(words) for said in left_out)


def test_a_folder_of_pipes_alone_says_so(tmp_path):
    make_special(tmp_path / "x.wav", "pipe")
    with pytest.raises(AudioError, match="hold no audio file.*x.wav is left out: it is a pipe"):
        find_audio_files(tmp_path)


def test_a_device_is_not_replaced_by_what_is_written(tmp_path):
    path = make_special(tmp_path / "out", "device")
    with pytest.raises(SpecialFileError, match="would be replaced by one"), open_atomically(path) as file:
        file.write(b"tags")
    assert path.is_symlink()
    assert os.listdir(tmp_path) == ["out"]


@pytest.mark.parametrize(
    "name", ["config.json", "preprocessor_config.json", "model.safetensors", "model-1-of-2.safetensors"]
)
def test_a_checkpoint_of_pipes(tmp_path, name):
    make_special(tmp_path / name, "pipe")
    with pytest.raises(CheckpointError, match=f"{name} is a pipe, not a file"):
        check_model_name(tmp_path)


def test_a_shard_that_is_no_file_is_not_opened(tmp_path, tiny_sizes):
    from modeling_ast import ASTConfig, ASTForAudioClassification

    ASTForAudioClassification(ASTConfig(**tiny_sizes)).save_pretrained(tmp_path, max_shard_size="20KB")
    shard = sorted(tmp_path.glob("*.safetensors"))[0]
    shard.unlink()
    make_special(shard, "device")  # opening a pipe there could not be interrupted
    with pytest.raises(SpecialFileError, match=f"{shard.name} is a device"):
        ASTForAudioClassification.from_pretrained(tmp_path)
