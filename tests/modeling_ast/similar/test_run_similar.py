"""`ast-similar`: what it finds, labels and draws, against the model itself, NumPy and scikit-learn."""

import csv
import io
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import soundfile
import torch
from matplotlib import image
from sklearn.neighbors import KNeighborsClassifier

from modeling_ast import ASTFeatureExtractor, ASTModel, run_embedding, run_similar
from modeling_ast.similar.library import Library
from modeling_ast.similar.maps import map_points
from modeling_ast.similar.prototypes import Prototypes


def similar(*words):
    hears = "--map" not in words or "--examples" in words
    return run_similar.main([str(word) for word in (*words, *(("--device", "cpu") if hears else ()))])


def rows_of(text):
    return list(csv.DictReader(io.StringIO(text)))


@pytest.fixture(scope="module")
def direct(checkpoint):
    """The transformer's own vector of a waveform of at most a window."""
    model, extractor = ASTModel.from_pretrained(checkpoint).eval(), ASTFeatureExtractor.from_pretrained(checkpoint)

    def call(waveform):
        with torch.no_grad():
            return model(**extractor(waveform, sampling_rate=16_000, return_tensors="pt")).pooler_output[0].numpy()

    return call


def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


@pytest.fixture(scope="module")
def examples(tmp_path_factory, recordings):
    folder = tmp_path_factory.mktemp("examples")
    for label, clips in {"calm": recordings[:2], "wild": recordings[3:6]}.items():
        (folder / label).mkdir()
        for clip in clips:
            shutil.copy(clip, folder / label)
    return folder


def test_the_nearest_stretches_are_found(library, recordings, capsys):
    assert similar(recordings[0], "--in", library, "--top", 4, "--format", "csv") == 0
    found = rows_of(capsys.readouterr().out)
    assert len(found) == 4
    assert found[0] | {"score": ""} == {
        "query": str(recordings[0]), "file": str(recordings[0]), "start": "0.000", "end": "0.400", "score": "",
    }  # fmt: skip
    assert float(found[0]["score"]) == pytest.approx(1, abs=1e-5)
    kept = Library(library)
    cosines = unit(np.array(kept.vectors)) @ unit(np.array(kept.vectors[0]))
    best = np.argsort(-cosines)[:4]
    np.testing.assert_allclose([float(row["score"]) for row in found], cosines[best], atol=1e-5)
    assert [(row["file"], float(row["start"])) for row in found] == [
        (file, pytest.approx(start, abs=1e-3)) for file, start, _ in kept.places(best)
    ]


def test_a_stretch_of_a_file_is_searched_for(library, recordings, direct, capsys):
    waveform = soundfile.read(recordings[4], dtype="float32")[0]
    assert similar(f"{recordings[4]}#t=1.25,2", "--in", library, "--format", "jsonl", "--top", 30) == 0
    (found,) = map(json.loads, capsys.readouterr().out.splitlines())
    kept = Library(library)
    cosines = unit(np.array(kept.vectors)) @ unit(direct(waveform[20_000:32_000]))
    assert found["query"] == f"{recordings[4]}#t=1.25,2"
    np.testing.assert_allclose([hit["score"] for hit in found["similar"]], -np.sort(-cosines), atol=1e-5)
    assert found["similar"][0]["file"] == str(recordings[4])


def test_a_long_clip_is_the_mean_of_its_windows(library, recordings, capsys):
    kept = Library(library)
    own = [row for row, (file, *_) in enumerate(kept.places(range(len(kept)))) if file == str(recordings[4])]
    assert len(own) > 3
    assert similar(recordings[4], "--in", library, "--format", "csv", "--top", 50) == 0
    scores = [float(row["score"]) for row in rows_of(capsys.readouterr().out)]
    query = unit(np.array(kept.vectors[own]).mean(axis=0))
    np.testing.assert_allclose(scores, -np.sort(-unit(np.array(kept.vectors)) @ query), atol=1e-5)


def test_a_channel_of_a_stretch_is_heard(embed, recordings, tmp_path, capsys):
    left, right = (soundfile.read(file, dtype="float32")[0][:15_000] for file in (recordings[2], recordings[4]))
    soundfile.write(tmp_path / "both.wav", np.stack([left, right], axis=1), 16_000, subtype="FLOAT")
    soundfile.write(tmp_path / "right.wav", right, 16_000, subtype="FLOAT")
    assert embed(tmp_path / "library", tmp_path / "both.wav", "--channels", "right") == 0
    capsys.readouterr()
    for clip in (f"{tmp_path / 'both.wav'}#t=0", f"{tmp_path / 'both.wav'}#t=0,0.9375"):
        assert similar(clip, "--in", tmp_path / "library", "--format", "csv") == 0
        assert float(rows_of(capsys.readouterr().out)[0]["score"]) == pytest.approx(1, abs=1e-5)


def test_clips_are_searched_for_one_by_one_and_bad_ones_told(library, recordings, tmp_path, capsys):
    bad, silent = tmp_path / "bad.wav", tmp_path / "silent.wav"
    bad.write_bytes(b"RIFF")
    soundfile.write(silent, np.zeros(16_000), 16_000)
    clips = (recordings[1], bad, f"{recordings[0]}#t=3,4", silent, f"{recordings[2]}#t=,0.7")
    output = tmp_path / "found.txt"
    assert similar(*clips, "--in", library, "--top", 1, "--output", output) == 1
    said = capsys.readouterr().err
    assert f"ast-similar: {bad}" in said
    assert "0.wav ends after 0.40 s. Name an earlier stretch." in said
    assert "silent.wav is silent, and has no vector" in said
    lines = output.read_text().splitlines()
    assert [line for line in lines if not line.startswith(" ")] == [str(recordings[1]), clips[-1]]
    assert lines[1] == f"   1.0000       0.00 -      0.97 s  {recordings[1]}"


def test_another_model_is_refused(make_checkpoint, library, recordings, tmp_path, capsys):
    other = make_checkpoint(tmp_path / "other", 1)
    with pytest.raises(SystemExit) as ended:
        similar(recordings[0], "--in", library, "--model_name_or_path", other)
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert f"{other} is another model than the one that made the vectors" in said
    assert f"ast-embed FILES --model_name_or_path {other} --output NEW_DIR" in said


def test_a_model_that_was_changed_at_its_place_is_not_asked_for_again(make_checkpoint, recordings, tmp_path, capsys):
    model = make_checkpoint(tmp_path / "my model", 0)
    words = ("--output", tmp_path / "kept", "--model_name_or_path", model, "--device", "cpu")
    assert run_embedding.main([str(word) for word in (recordings[0], *words)]) == 0
    make_checkpoint(model, 1)
    with pytest.raises(SystemExit):
        similar(recordings[0], "--in", tmp_path / "kept")
    said = capsys.readouterr().err
    assert "as it was then: its files, or this kit's version, were changed since. Put the earlier ones back" in said
    assert f"ast-embed FILES --model_name_or_path '{model}' --output NEW_DIR" in said


@pytest.mark.parametrize("match", ["mean", "nearest"])
def test_examples_label_clips(library, checkpoint, recordings, examples, direct, match, capsys):
    """Clips of at most a window, so that the model itself gives their vectors."""
    short = [file for file in sorted(examples.rglob("*.wav")) if soundfile.info(file).duration < 0.98]
    small = examples.parent / f"small_{match}"
    for file in short:
        (small / file.parent.name).mkdir(parents=True, exist_ok=True)
        shutil.copy(file, small / file.parent.name)
    query = f"{recordings[2]}#t=0,0.9"
    words = (query, "--examples", small, "--match", match, "--format", "csv")
    assert similar(*words, "--model_name_or_path", checkpoint) == 0
    printed = capsys.readouterr().out
    vectors = unit(np.stack([direct(soundfile.read(file, dtype="float32")[0]) for file in short]))
    labels = np.array([file.parent.name for file in short])
    heard = unit(direct(soundfile.read(recordings[2], dtype="float32")[0][:14_400]))
    wanted = {}
    for label in ("calm", "wild"):
        own = vectors[labels == label]
        wanted[label] = (own @ heard).max() if match == "nearest" else unit(own.mean(axis=0)) @ heard
    found = rows_of(printed)
    assert [row["label"] for row in found] == sorted(wanted, key=wanted.get, reverse=True)
    np.testing.assert_allclose([float(row["score"]) for row in found], sorted(wanted.values())[::-1], atol=1e-5)
    assert similar(*words, "--in", library) == 0  # which has the same settings
    assert capsys.readouterr().out == printed


def test_clips_beside_the_folders_of_examples_are_said(library, recordings, examples, tmp_path, capsys):
    folder = shutil.copytree(examples, tmp_path / "examples")
    shutil.copy(recordings[0], folder / "loose.wav")
    (folder / "notes.txt").write_text("of no label")
    assert similar(recordings[2], "--examples", folder, "--in", library) == 0
    assert f"'loose.wav' in {folder} itself: of no label, and not used. Put clips into" in capsys.readouterr().err


def test_names_with_spaces_can_be_typed_as_they_are_said(tmp_path, capsys):
    (tmp_path / "my bells").mkdir()
    with pytest.raises(SystemExit):
        similar("--in", tmp_path / "my bells", "--map", tmp_path / "map.png")
    assert f"Type: ast-embed FILES --output '{tmp_path / 'my bells'}'" in capsys.readouterr().err


def test_a_channel_that_a_folder_was_made_with_is_said(embed, recordings, tmp_path, capsys):
    stereo = np.stack([np.zeros(16_000), soundfile.read(recordings[3])[0][:16_000]], axis=1)
    soundfile.write(tmp_path / "stereo.wav", stereo, 16_000, subtype="FLOAT")
    assert embed(tmp_path / "library", recordings[0], "--channels", "left") == 0
    similar(tmp_path / "stereo.wav", "--in", tmp_path / "library")
    assert f"{tmp_path / 'library'} was made with --channels left, and so clips are heard." in capsys.readouterr().err


def test_examples_label_what_is_kept(library, examples, tmp_path, capsys):
    assert similar("--in", library, "--examples", examples, "--top", 2, "--format", "jsonl") == 0
    files = list(map(json.loads, capsys.readouterr().out.splitlines()))
    kept = Library(library)
    places = kept.places(range(len(kept)))
    stretches = [(each["file"], part["start"], part["end"]) for each in files for part in each["segments"]]
    assert stretches[::2] == places == stretches[1::2]
    assert {part["label"] for each in files for part in each["segments"]} == {"calm", "wild"}
    assert similar("--in", library, "--examples", examples, "--match", "nearest", "--format", "csv") == 0
    found = [row["label"] for row in rows_of(capsys.readouterr().out)]
    marked = {file.name: file.parent.name for file in examples.rglob("*.wav")}
    names = [place[0].rpartition("/")[2] for place in places]
    means = {
        name: np.mean([kept.vectors[i] for i, each in enumerate(names) if each == name], axis=0) for name in marked
    }
    neighbour = KNeighborsClassifier(1, metric="cosine").fit(np.stack([*means.values()]), [*marked.values()])
    assert found == list(neighbour.predict(kept.vectors))


def test_prototypes_are_means_of_directions():
    draw = np.random.default_rng(0)
    vectors, labels = draw.normal(size=(9, 5)) * draw.uniform(1, 9, size=(9, 1)), list("babcabcca")
    prototypes = Prototypes(labels, vectors)
    assert prototypes.labels == ["a", "b", "c"]
    for label, vector in zip("abc", prototypes.vectors, strict=True):
        own = unit(vectors[[each == label for each in labels]])
        np.testing.assert_allclose(vector, unit(own.mean(axis=0)), atol=1e-6)


def test_names_that_a_spreadsheet_would_run(library, recordings, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    shutil.copy(recordings[0], "=1+1.wav")
    (tmp_path / "marked" / "-label").mkdir(parents=True)
    shutil.copy(recordings[0], tmp_path / "marked" / "-label")
    flags = ("--in", library, "--format", "csv", "--spreadsheet_safe")
    assert similar("=1+1.wav", *flags) == 0
    assert rows_of(capsys.readouterr().out)[0]["query"] == "'=1+1.wav"
    assert similar("=1+1.wav", *flags, "--examples", "marked") == 0
    assert list(rows_of(capsys.readouterr().out)[0].values())[:2] == ["'=1+1.wav", "'-label"]


@pytest.mark.pictures
@pytest.mark.parametrize("flags", [(), ("--map_method", "pca"), ("--examples",)])
def test_a_map_is_drawn(library, examples, tmp_path, flags, capsys):
    flags = (*flags, examples) if flags == ("--examples",) else flags
    assert similar("--in", library, "--map", tmp_path / "map.png", *flags) == 0
    number = len(Library(library))
    assert f"map.png shows {number} of {number} vectors" in capsys.readouterr().out
    picture = image.imread(tmp_path / "map.png")[..., :3]
    colours = {tuple(colour) for colour in np.round(255 * picture).astype(int).reshape(-1, 3).tolist()}
    assert {(31, 119, 180), (174, 199, 232)} <= colours  # of two groups, the first of tab20


def test_what_is_alike_lies_together_on_a_map():
    draw = np.random.default_rng(0)
    groups = np.repeat([0, 1, 2], 40)
    vectors = draw.normal(size=(3, 32))[groups] + draw.normal(size=(120, 32)) / 4
    for method in ("tsne", "pca"):
        points = map_points(vectors, method)
        told = KNeighborsClassifier(1).fit(points[::2], groups[::2]).predict(points[1::2])
        assert (told == groups[1::2]).mean() > 0.95


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["{clip}"], "Nothing is searched. Add --in DIR"),
        (["--in", "{library}"], "Name a CLIP, or pass --examples FOLDER or --map FILE.png"),
        (["{clip}", "--in", "{library}", "--match", "mean"], "--match is about --examples"),
        (["{clip}", "--in", "{library}", "--map", "a.png"], "CLIP is not about --map"),
        (["--in", "{library}", "--map", "a.jpg"], "a.jpg is no name of a PNG"),
        (
            ["--in", "{library}", "--map", "a.png", "--model_name_or_path", "x"],
            "--model_name_or_path is about hearing",
        ),
        (["--in", "{library}", "--map", "a.png", "--device", "cpu"], "--map hears nothing without --examples"),
        (["--in", "{library}", "--map", "a.png", "--batch_size", "2"], "--batch_size is about hearing"),
        (["--in", "{library}", "--map", "a.png", "--strict_audio"], "--strict_audio is about hearing"),
        (["--in", "{library}", "--map", "none/a.png"], "there is no folder none"),
        (["{clip}", "--in", "{library}", "--map_method", "pca"], "--map_method is about --map"),
        (["{clip}", "--in", "{library}", "--spreadsheet_safe"], "Add --format csv"),
        (["--examples", "x", "--in", "{library}", "--exact"], "--exact is about searches"),
        (["none.wav", "--in", "{library}"], "none.wav is not there"),
        (["{clip}#t=2,1", "--in", "{library}"], "ends before it begins. Type for example"),
        (["{clip}#t=", "--in", "{library}"], "#t= is no stretch. Type for example"),
        (["{clip}#12", "--in", "{library}"], "#12 is no stretch"),
        (["{clip}", "--in", "{here}"], "holds no embedded sounds"),
        (["{clip}", "--in", "{library}", "--examples", "{here}"], "holds no folder. Put the clips of each label"),
        (["{clip}", "--in", "{library}", "--examples", "none"], "--examples none is no folder"),
    ],
)
def test_wrong_input_is_refused(library, recordings, tmp_path, words, said, capsys):
    places = {"clip": recordings[0], "library": library, "here": tmp_path}
    with pytest.raises(SystemExit) as ended:
        similar(*[word.format(**places) for word in words])
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


def test_nothing_is_written_over_what_is_read(copied, checkpoint, recordings, examples, tmp_path, capsys):
    clip, marked = tmp_path / "clip.png", tmp_path / "marked"
    shutil.copy(recordings[0], clip)
    shutil.copytree(examples, marked)
    one = next((marked / "calm").glob("*.wav"))
    other = shutil.copy(recordings[0], tmp_path / "embedded.wav")
    (tmp_path / "link.txt").symlink_to(copied / "files.jsonl")
    inside = f"lies in {copied}, where ast-embed keeps its files. Pass a name outside of it, such as --"
    refused = [
        ([clip, "--in", copied, "--output", clip], f"--output would write over the recording {clip}"),
        ([f"{clip}#t=0,0.3", "--in", copied, "--output", clip.parent / "." / clip.name], "would write over"),
        (
            [clip, "--examples", marked, "--model_name_or_path", checkpoint, "--output", one],
            f"write over the recording {one}",
        ),
        (["--in", copied, "--examples", marked, "--output", one], f"write over the recording {one}"),
        ([clip, "--in", copied, "--output", other], f"--output {other} would write over a recording."),
        ([clip, "--in", copied, "--output", copied / "files.jsonl"], f"{inside}output {tmp_path / 'files.jsonl'}"),
        ([clip, "--in", copied, "--output", copied / "new.csv"], inside),
        ([clip, "--in", copied, "--output", tmp_path / "link.txt"], inside),
        (["--in", copied, "--map", copied / "map.png"], f"{inside}map {tmp_path / 'map.png'}"),
    ]
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for words, said in refused:
        with pytest.raises(SystemExit) as ended:
            similar(*words)
        assert ended.value.code == 2
        assert said in capsys.readouterr().err
        assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_map_is_not_drawn_over_an_example(library, examples, tmp_path, capsys):
    """Audio files are told by their suffixes, so only a link is a PNG and one of them."""
    shutil.copytree(examples, tmp_path / "marked")
    one = next((tmp_path / "marked" / "calm").glob("*.wav"))
    (tmp_path / "map.png").symlink_to(one)
    with pytest.raises(SystemExit):
        similar("--in", library, "--examples", tmp_path / "marked", "--map", tmp_path / "map.png")
    assert f"--map would write over the recording {one}" in capsys.readouterr().err


def test_a_label_whose_clips_cannot_be_used_is_refused(library, recordings, examples, tmp_path, capsys):
    shutil.copytree(examples, tmp_path / "examples")
    (tmp_path / "examples" / "odd").mkdir()
    (tmp_path / "examples" / "odd" / "bad.wav").write_bytes(b"RIFF")
    with pytest.raises(SystemExit):
        similar(recordings[0], "--in", library, "--examples", tmp_path / "examples")
    assert "no clip of 'odd' can be used. Add one, or remove its folder." in capsys.readouterr().err


def test_help_imports_nothing_heavy():
    code = (
        "import sys\n"
        "from modeling_ast import run_embedding, run_similar, run_tagging\n"
        "print(*{name.partition('.')[0] for name in sys.modules})"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "transformers", "sklearn", "matplotlib", "faiss", "scipy"} & set(loaded)


def test_tagging_imports_nothing_of_it():
    code = "import sys\nfrom modeling_ast import run_tagging\nprint(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not [name for name in loaded if name.startswith("modeling_ast.similar")]
