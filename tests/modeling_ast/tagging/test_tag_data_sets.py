"""`ast-tag --dataset_name`: what is found in a data set's recordings is what is found in the same files."""

import json

import pytest
from tagged_models import SCORE_TOLERANCE, WINDOW, noise, write

from modeling_ast import run_tagging
from modeling_ast.tagging.data_sets import load_data_set
from modeling_ast.tagging.tagger import AudioTagger

datasets = pytest.importorskip("datasets")


@pytest.fixture
def tag(capsys, multi_label):
    def tag(*arguments, code=0):
        arguments = [*map(str, arguments), "--model_name_or_path", str(multi_label), "--device", "cpu"]
        assert run_tagging.main(arguments) == code
        return capsys.readouterr()

    return tag


@pytest.fixture
def refused(capsys, multi_label):
    def refused(*arguments):
        with pytest.raises(SystemExit, match="2"):
            run_tagging.main([*map(str, arguments), "--model_name_or_path", str(multi_label)])
        return capsys.readouterr().err.splitlines()[-1]

    return refused


@pytest.fixture
def audio(clips):
    """An undecoded column that holds the files' bytes."""
    return [{"bytes": clip.read_bytes(), "path": clip.name} for clip in clips]


def with_audio(audio, **columns):
    features = datasets.Features(
        {"audio": datasets.Audio(decode=False)} | dict.fromkeys(columns, datasets.Value("string"))
    )
    return datasets.Dataset.from_dict({"audio": audio} | columns, features=features)


def rows_of(shown):
    return [json.loads(line) for line in shown.out.splitlines()]


def without_folders(rows):
    return [row | {"file": row["file"].rpartition("/")[2]} for row in rows]


def nearly(row):
    """The same with scores of any last digits, which depend on the windows that are scored beside them."""

    def of_each(found):
        return [each | {"score": pytest.approx(each["score"], abs=SCORE_TOLERANCE)} for each in found]

    return row | {kind: of_each(row[kind]) for kind in ("labels", "segments")}


@pytest.fixture
def expected(tag, clips):
    return without_folders(rows_of(tag(*clips, "--format", "jsonl", "--timeline")))


def test_stored_recordings_are_tagged_like_files(tag, audio, expected, tmp_path):
    with_audio(audio, note=list("abcd")).save_to_disk(tmp_path / "saved")
    found = rows_of(tag("--dataset_name", tmp_path / "saved", "--format", "jsonl", "--timeline"))
    assert found == expected


def test_the_layout_of_the_hub_with_splits(tag, refused, audio, expected, tmp_path):
    (tmp_path / "hub" / "data").mkdir(parents=True)
    for split, rows in (("train", audio[:1]), ("test", audio[1:])):
        with_audio(rows).cast_column("audio", datasets.Audio()).to_parquet(
            tmp_path / "hub" / "data" / f"{split}-00000-of-00001.parquet"
        )
    name = ("--dataset_name", tmp_path / "hub")
    found = rows_of(tag(*name, "--split_name", "test", "--format", "jsonl", "--timeline"))
    assert list(map(nearly, found)) == expected[1:]
    assert "has the splits train, test. Pass --split_name with one of them." in refused(*name)
    assert "has no split 'dev'; it has train, test." in refused(*name, "--split_name", "dev")


def test_a_folder_of_files_keeps_their_paths(tag, clips):
    found = rows_of(tag("--dataset_name", clips[0].parent, "--format", "jsonl", "--timeline"))
    assert found == rows_of(tag(*clips, "--format", "jsonl", "--timeline"))


def test_of_several_columns_one_is_named(tag, refused, clips, expected, tmp_path):
    paths = [str(clip) for clip in clips]
    rows = datasets.Dataset.from_dict({"near": paths, "far": paths, "note": paths})
    rows.cast_column("near", datasets.Audio()).cast_column("far", datasets.Audio()).save_to_disk(tmp_path / "two")
    name = ("--dataset_name", tmp_path / "two")
    assert "has the columns of audio near, far. Pass --audio_column_name with the one to tag." in refused(*name)
    assert "has no column 'mid'; it has near, far, note." in refused(*name, "--audio_column_name", "mid")
    for column in ("far", "note"):  # a column of paths will do
        found = rows_of(tag(*name, "--audio_column_name", column, "--format", "jsonl", "--timeline"))
        assert without_folders(found) == expected
    rows.add_column("count", [1, 2, 3, 4]).save_to_disk(tmp_path / "none")
    name = ("--dataset_name", tmp_path / "none")
    assert "has no column of audio, but near, far, note, count." in refused(*name)
    assert "holds Value('int64'), expected datasets.Audio" in refused(*name, "--audio_column_name", "count")


def test_paths_as_pandas_stores_them(tag, clips, expected, tmp_path):
    features = datasets.Features({"file": datasets.Value("large_string")})
    datasets.Dataset.from_dict({"file": list(map(str, clips))}, features=features).save_to_disk(tmp_path / "saved")
    found = rows_of(
        tag(
            *("--dataset_name", tmp_path / "saved", "--audio_column_name", "file"),
            *("--format", "jsonl", "--timeline"),
        )
    )
    assert without_folders(found) == expected


def test_a_folder_of_which_a_part_would_be_tagged_is_refused(tag, refused, clips, tmp_path):
    for name, clip in zip(("kick", "snare", "test"), clips, strict=False):
        (tmp_path / "classes" / name).mkdir(parents=True)
        (tmp_path / "classes" / name / clip.name).write_bytes(clip.read_bytes())
    words = refused("--dataset_name", tmp_path / "classes")
    assert "has 1 of its 3 recordings, without" in words
    assert words.endswith(f"leave --dataset_name out and write {tmp_path / 'classes'}.")


def test_what_datasets_cannot_load_is_told_in_words(refused, audio, tmp_path):
    (tmp_path / "script").mkdir()
    (tmp_path / "script" / "script.py").write_text("")
    (tmp_path / "other" / "data").mkdir(parents=True)
    for number, columns in enumerate(({"a": ["x"]}, {"b": ["y"]})):
        with_audio(audio[:1], **columns).to_parquet(tmp_path / "other" / "data" / f"train-{number}.parquet")
    for name in ("script", "other"):
        words = refused("--dataset_name", tmp_path / name)
        assert f"{name} is neither a data set here nor one that the Hub gives (" in words
        assert "Check the name" in words
        assert "The Hub was not asked" not in words


def test_names_that_do_not_tell_rows_apart_get_their_numbers(audio, tmp_path):
    audio = [*audio * 3, {"bytes": audio[0]["bytes"], "path": None}]
    with_audio(audio).save_to_disk(tmp_path / "saved")
    data_set = load_data_set(str(tmp_path / "saved"))
    names = [file.name for file in data_set.files]
    assert names[:5] == ["00_a_short.wav", "01_b_exact.wav", "02_c_long.wav", "03_d_other.wav", "04_a_short.wav"]
    assert names[-1] == "12"
    found = list(data_set.sources(reversed(data_set.files)))
    assert [row["bytes"] for row in found] == [row["bytes"] for row in reversed(audio)]
    assert [row["path"] for row in found] == names[::-1]


def test_what_cannot_be_heard_is_told_by_its_name(tag, audio, clips, expected, tmp_path):
    audio[1] = {"bytes": b"RIFF", "path": "b_exact.wav"}
    audio[3] = None
    with_audio(audio).save_to_disk(tmp_path / "saved")
    shown = tag("--dataset_name", tmp_path / "saved", "--format", "jsonl", "--timeline", code=1)
    found = rows_of(shown)
    assert [row["file"] for row in found] == ["0_a_short.wav", "2_c_long.wav"]
    assert [nearly(row)["labels"] for row in found] == [expected[place]["labels"] for place in (0, 2)]
    errors = [line for line in shown.err.splitlines() if line.startswith("ast-tag: ")]
    assert [line.split()[1] for line in errors] == ["1_b_exact.wav", "3"], errors


def test_an_interrupted_run_goes_on(tag, tmp_path, monkeypatch):
    clips = [write(tmp_path / f"{number}.wav", noise(WINDOW, number)) for number in range(9)]
    audio = [{"bytes": clip.read_bytes(), "path": clip.name} for clip in clips]
    with_audio(audio).save_to_disk(tmp_path / "saved")
    arguments = ("--dataset_name", tmp_path / "saved", "--format", "csv", "--batch_size", 3, "--output")
    tag(*arguments, tmp_path / "whole")
    original, heard = AudioTagger.tag_files, []

    def tag_files(self, files, *given, stop=None, **keywords):
        for result in original(self, files, *given, **keywords):
            if len(heard) == stop:
                raise KeyboardInterrupt
            heard.append(result.file)
            yield result

    monkeypatch.setattr(AudioTagger, "tag_files", lambda *given, **keywords: tag_files(*given, stop=5, **keywords))
    shown = tag(*arguments, tmp_path / "tags", code=130)
    assert "3 of 9 files are tagged" in shown.err
    heard.clear()
    monkeypatch.setattr(AudioTagger, "tag_files", tag_files)
    tag(*arguments, tmp_path / "tags")
    assert heard == [f"{number}.wav" for number in range(3, 9)]
    assert (tmp_path / "tags").read_bytes() == (tmp_path / "whole").read_bytes()


def test_label_files_are_named_by_rows(tag, audio, tmp_path):
    with_audio(audio).save_to_disk(tmp_path / "saved")
    tag("--dataset_name", tmp_path / "saved", "--format", "audacity", "--output", tmp_path / "tracks")
    assert sorted(path.name for path in (tmp_path / "tracks").iterdir()) == [
        "a_short.txt",
        "b_exact.txt",
        "c_long.txt",
        "d_other.txt",
    ]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["clip.wav"], "--dataset_name gone is tagged alone. Leave the other sources out."),
        (["--files_from", "list"], "--dataset_name gone is tagged alone. Leave the other sources out."),
        (["--review", "clips"], "--review is about files, not a data set. Leave one of them out."),
        (["--timeline", "--picture", "p.png"], "--picture is about files, not a data set. Leave one of them out."),
        (["--start_time", "from_file", "--format", "jsonl"], "--start_time from_file is about files, not a data set."),
        (["--blocks", "b"], "--blocks is about files, not a data set. Leave one of them out."),
        (["--split_name", "test"], "--dataset_name gone is neither a data set here nor one that the Hub gives"),
    ],
)
def test_what_does_not_go_together(refused, flags, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert words in refused("--dataset_name", "gone", *flags)


def test_flags_of_a_data_set_need_one(refused, clips):
    words = refused(clips[0], "--split_name", "test")
    assert words.endswith("--split_name is about a data set. Add --dataset_name NAME, or leave it out.")
