"""`--none_of_these`: what a run keeps of its training clips, against scikit-learn over stock Transformers' vectors."""

import csv
import json

import datasets
import numpy as np
import pytest
import soundfile
import torch
import transformers
from marked_sounds import TIMES, write_marked
from safetensors import safe_open
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import normalize
from tiny_trainings import FIELDS, flags, summary_in, write_tones

from finetune import fine_tune
from finetune.results import known_clips
from finetune.results.known_clips import drawn_items
from finetune.run_evaluate import main as evaluate
from finetune.run_events import main as events
from finetune.run_finetune import main
from finetune.run_pretrain import main as pretrain
from model_card.checkpoint_checks import files_to_publish
from modeling_ast.tagging import AudioTagger
from modeling_ast.tagging.none_of_these import KNOWN_CLIPS_NAME, NONE_OF_THESE, KnownClips

HALF_PRECISION = 1e-3
WINDOW = 400 + 47 * 160  # samples of 48 frames


def table(folder, data, sides):
    """A table of the clips of [`write_tones`], by number on the side of that place."""
    rows = [(str(path), path.parent.name, sides[int(path.stem)]) for path in sorted(data.glob("*/*.wav"))]
    with open(folder / "clips.csv", "w", newline="") as file:
        csv.writer(file).writerows([("path", "label", "split"), *rows])
    return folder / "clips.csv", {side: [row[0] for row in rows if row[2] == side] for side in sides}


def kept_in(folder):
    with safe_open(folder / KNOWN_CLIPS_NAME, "np") as file:
        return file.get_tensor("vectors").astype(np.float64), file.metadata()


def stock_vectors(folder, waveforms):
    model = transformers.ASTForAudioClassification.from_pretrained(folder).audio_spectrogram_transformer.eval()
    extractor = transformers.ASTFeatureExtractor.from_pretrained(folder)
    with torch.no_grad():
        features = [extractor(each, sampling_rate=16_000, return_tensors="pt") for each in waveforms]
        return normalize(torch.cat([model(**each).pooler_output for each in features]).double().numpy())


def read(paths):
    return [soundfile.read(path, dtype="float32")[0] for path in paths]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_tones(tmp_path_factory.mktemp("tones") / "data")


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    """A run with a validation split, and its files by side."""
    folder = tmp_path_factory.mktemp("run")
    sides = ["train"] * 5 + ["validation"] * 3 + ["test"] * 2
    clips, files = table(folder, data, sides)
    augmented = {"max_frequency_mask": 24, "mixup_probability": 0.5, "noise_strength": 0.5}
    given = flags(clips, folder / "out", none_of_these=True, validation_split_name="validation", **augmented)
    assert main(given) == 0
    return folder / "out", files


def test_vectors_are_those_of_the_training_clips_as_they_are_scored(run):
    folder, files = run
    vectors, settings = kept_in(folder)
    expected = stock_vectors(folder, read(files["train"]))
    np.testing.assert_allclose(
        vectors[np.lexsort(vectors.T)], expected[np.lexsort(vectors.T * 0)][np.lexsort(vectors.T)], atol=HALF_PRECISION
    )
    assert settings["neighbours"] == "5"


def test_the_threshold_is_what_95_percent_of_the_validation_clips_are_within(run):
    folder, files = run
    vectors, settings = kept_in(folder)
    nearest = NearestNeighbors(n_neighbors=5).fit(normalize(vectors))
    found = {
        side: nearest.kneighbors(stock_vectors(folder, read(files[side])))[0][:, -1] for side in ("validation", "test")
    }
    threshold = float(settings["threshold"])
    assert threshold == pytest.approx(np.quantile(found["validation"], 0.95), abs=HALF_PRECISION)
    section = summary_in(folder)["evaluation"]["none_of_these"]
    assert section["beyond"] == (found["test"] > threshold).sum()
    del section["beyond"]
    assert section == {
        "clips": 15, "windows": 15, "neighbours": 5, "threshold": threshold, "chosen_on": "9 validation clips", "scored": 6,
    }  # fmt: skip


def test_the_card_says_it_and_a_push_carries_it(run):
    folder, _ = run
    section = summary_in(folder)["evaluation"]["none_of_these"]
    card = (folder / "README.md").read_text()
    assert f"farther from them than {section['threshold']:.4f}, chosen on 9 validation clips" in card
    assert f"{section['beyond']} of 6 held-out clips" in card
    assert KNOWN_CLIPS_NAME in files_to_publish(folder)


def test_stock_transformers_loads_the_run(run):
    _, loading = transformers.ASTForAudioClassification.from_pretrained(run[0], output_loading_info=True)
    assert not loading["missing_keys"]
    assert not loading["unexpected_keys"]


def test_ast_tag_reads_it(run):
    folder, files = run
    tagger = AudioTagger.from_pretrained(folder, "cpu")
    found = [tags.novelty.is_beyond for tags in tagger.tag_files(files["test"])]
    assert sum(found) == summary_in(folder)["evaluation"]["none_of_these"]["beyond"]


def test_ast_evaluate_counts_the_clips_beyond(run, data, tmp_path, capsys):
    folder, _ = run
    tagger = AudioTagger.from_pretrained(folder, "cpu")
    beyond = sum(tags.novelty.is_beyond for tags in tagger.tag_files(sorted(data.glob("*/*.wav"))))
    words = ["--dataset_name", str(data), "--output", str(tmp_path / "scores.json")]
    assert evaluate(["--model_name_or_path", str(folder), *words]) == 0
    assert f"{beyond} of 30 clips are none of these: farther than" in capsys.readouterr().out
    (evaluation,) = json.loads((tmp_path / "scores.json").read_text())["evaluations"]
    assert evaluation["none_of_these"]["beyond"] == beyond


def test_without_a_validation_split_training_clips_are_held_against_the_others(data, tmp_path, capsys):
    clips, files = table(tmp_path, data, ["train"] * 7 + ["test"] * 3)
    assert main(flags(clips, tmp_path / "run", none_of_these=True)) == 0
    vectors, settings = kept_in(tmp_path / "run")
    own = stock_vectors(tmp_path / "run", read(files["train"]))
    nearest = NearestNeighbors(n_neighbors=6).fit(normalize(vectors)).kneighbors(own)[0]
    _, with_itself, others = np.quantile(nearest[:, [0, 4, 5]], 0.95, axis=0)
    assert float(settings["threshold"]) == pytest.approx(others, abs=1e-5)
    assert others > with_itself + 1e-4
    assert (
        "chosen on the training clips, each held against the others, as there is no validation"
        in capsys.readouterr().out
    )


def test_all_windows_of_longer_clips_are_kept_and_a_clip_is_their_mean(tmp_path):
    generator = np.random.default_rng(0)
    audio = [
        generator.normal(size=(1 + 2 * (place % 2)) * WINDOW).astype(np.float32) / (4 + place % 3)
        for place in range(12)
    ]
    for place, waveform in enumerate(audio):
        soundfile.write(tmp_path / f"{place:02d}.wav", waveform, 16_000, subtype="FLOAT")
    with open(tmp_path / "clips.csv", "w") as file:
        file.write("path,label,split\n")
        for place in range(12):
            side = "train" if place < 6 else "validation" if place < 10 else "test"
            file.write(f"{tmp_path / f'{place:02d}.wav'},{'ab'[place % 2]},{side}\n")
    more = {"none_of_these": True, "validation_split_name": "validation"}
    assert main(flags(tmp_path / "clips.csv", tmp_path / "run", **more)) == 0
    vectors, settings = kept_in(tmp_path / "run")
    assert len(vectors) == 3 * 1 + 3 * 3
    assert summary_in(tmp_path / "run")["evaluation"]["none_of_these"]["clips"] == 6
    nearest = NearestNeighbors(n_neighbors=5).fit(normalize(vectors))
    of_clips = [
        nearest.kneighbors(stock_vectors(tmp_path / "run", np.split(waveform, len(waveform) // WINDOW)))[0][
            :, -1
        ].mean()
        for waveform in audio[6:10]
    ]
    assert float(settings["threshold"]) == pytest.approx(np.quantile(of_clips, 0.95), abs=HALF_PRECISION)
    assert main(flags(tmp_path / "clips.csv", tmp_path / "first", clip_windows="beginning", **more)) == 0
    assert len(kept_in(tmp_path / "first")[0]) == 6


@pytest.mark.parametrize("how", ["averaged", "lora"])
def test_vectors_are_of_the_weights_that_are_published(data, run, tmp_path, how):
    clips, files = table(tmp_path, data, ["train"] * 8 + ["test"] * 2)
    given = flags(clips, tmp_path / "run", none_of_these=True)
    if how == "lora":
        pytest.importorskip("peft")
        given = [word for word in given if not word.startswith(tuple(f"--{name}" for name in SIZES_OF_A_START))]
        given += ["--model_name_or_path", str(run[0]), "--lora_rank", "2"]
    else:
        given += ["--average_epochs", "1", "2"]
    assert main(given) == 0
    vectors, _ = kept_in(tmp_path / "run")
    expected = stock_vectors(tmp_path / "run", read(files["train"]))
    distances = NearestNeighbors(n_neighbors=1).fit(normalize(vectors)).kneighbors(expected)[0]
    assert distances.max() < HALF_PRECISION


SIZES_OF_A_START = (
    "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "frequency_stride", "time_stride", "max_length",
)  # fmt: skip


def test_a_run_that_replaces_another_does_not_leave_what_that_kept(data, tmp_path):
    assert main(flags(data, tmp_path / "run", none_of_these=True)) == 0
    assert (tmp_path / "run" / KNOWN_CLIPS_NAME).is_file()
    assert main([*flags(data, tmp_path / "run"), "--overwrite_output_dir"]) == 0
    assert not (tmp_path / "run" / KNOWN_CLIPS_NAME).exists()
    assert "none_of_these" not in summary_in(tmp_path / "run")["evaluation"]


def test_a_finished_run_gets_it_when_it_is_gone_on_with(data, tmp_path):
    given = flags(data, tmp_path / "run")
    assert main(given) == 0
    weights = (tmp_path / "run" / "model.safetensors").read_bytes()
    assert main([*given, "--none_of_these", "true", "--resume_from_checkpoint", "true"]) == 0
    assert (tmp_path / "run" / "model.safetensors").read_bytes() == weights
    assert (tmp_path / "run" / KNOWN_CLIPS_NAME).is_file()


def test_a_fold_keeps_its_own(data, tmp_path):
    clips, _ = table(tmp_path, data, list("uvuvuvuvuv"))
    given = [*flags(clips, tmp_path / "folds", none_of_these=True, fold_column_name="split"), "--save_strategy", "no"]
    assert main(given) == 0
    kept = [kept_in(tmp_path / "folds" / f"fold-{name}")[0] for name in "uv"]
    assert [len(vectors) for vectors in kept] == [15, 15]


def test_of_many_clips_some_of_each_label_are_kept(data, tmp_path, monkeypatch):
    monkeypatch.setattr(known_clips, "MOST_VECTORS", 7)
    assert main(flags(data, tmp_path / "run", none_of_these=True)) == 0
    assert len(kept_in(tmp_path / "run")[0]) == 7
    assert summary_in(tmp_path / "run")["evaluation"]["none_of_these"]["clips"] == 7


def test_finished_features_are_heard_as_they_are(tmp_path):
    generator = np.random.default_rng(0)
    clips = {
        "features": [(-5 + generator.normal(size=(48, 128))).astype(np.float32) for _ in range(20)],
        "label": list("ab") * 10,
    }
    data = datasets.Dataset.from_dict(clips)
    fields = FIELDS | {"features_column_name": "features", "none_of_these": True, "eval_fraction": 0.3}
    summary = fine_tune(data, output_dir=tmp_path / "run", **fields)
    assert summary["evaluation"]["none_of_these"]["clips"] == len(kept_in(tmp_path / "run")[0]) == 14


def test_windows_of_marked_recordings_are_kept(tmp_path):
    recordings = write_marked(tmp_path / "recordings", TIMES * 2)
    given = flags(recordings, tmp_path / "run", none_of_these=True, marks="beside", validation_fraction=0.3)
    assert main(given) == 0
    section = summary_in(tmp_path / "run")["evaluation"]["none_of_these"]
    trained = summary_in(tmp_path / "run")["data"]["splits"]["train"]["clips"]
    assert section["windows"] == section["clips"] == trained == len(kept_in(tmp_path / "run")[0])
    assert section["scored"] == summary_in(tmp_path / "run")["evaluation"]["clips"]


def test_what_is_drawn_is_spread_over_the_labels():
    labels = [[0]] * 90 + [[1]] * 6 + [[2]] * 3 + [[]]
    drawn = drawn_items(labels, 20, seed=0)
    counts = [sum(labels[item] == label for item in drawn) for label in ([0], [1], [2], [])]
    assert counts == [10, 6, 3, 1]
    assert drawn.tolist() == sorted(set(drawn.tolist()))
    assert drawn_items(labels, 20, seed=0).tolist() == drawn.tolist()
    assert drawn_items(labels, 20, seed=1).tolist() != drawn.tolist()
    assert drawn_items(labels, 100, seed=0).tolist() == list(range(100))
    several = drawn_items([[0, 1]] * 50 + [[2]] * 2, 10, seed=0)
    assert set(several) >= {50, 51}


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--loss", "label_sets"], "with --loss label_sets a clip is looked for among those of its own set alone"),
        (["--head", "frame"], "with --head frame what is kept is what a classifier of clips reads"),
        (["--streaming", "true"], "Leave out --none_of_these, or --streaming"),
    ],
)
def test_where_it_makes_no_sense_it_is_refused(data, tmp_path, capsys, more, words):
    with pytest.raises(SystemExit) as ended:
        raise SystemExit(main([*flags(data, tmp_path / "run", none_of_these=True), *more]))
    assert ended.value.code == 2
    assert words in capsys.readouterr().err


def test_a_pretraining_refuses_it(data, tmp_path, capsys):
    assert pretrain(flags(data, tmp_path / "run", none_of_these=True)) == 2
    assert "none_of_these=True was given, but ast-pretrain reads no labels" in capsys.readouterr().err


def test_a_label_of_that_name_is_refused(data, tmp_path, capsys):
    (tmp_path / "data").mkdir()
    for label in "ab":
        (tmp_path / "data" / label).symlink_to(data / label)
    (tmp_path / "data" / NONE_OF_THESE).symlink_to(data / "c")
    assert main(flags(tmp_path / "data", tmp_path / "run", none_of_these=True)) == 2
    assert "a label is called 'none of these'" in capsys.readouterr().err


def test_events_of_it_are_no_false_alarms(tmp_path, capsys):
    (tmp_path / "marked.csv").write_text("file,start,end,label,duration\na.wav,1,2,dog,10\n")
    (tmp_path / "found.csv").write_text(
        f"file,start,end,label,score\na.wav,1,2,dog,0.9\na.wav,5,6,{NONE_OF_THESE},0.4\n"
    )
    output = tmp_path / "scores.json"
    assert (
        events([str(tmp_path / "found.csv"), "--reference", str(tmp_path / "marked.csv"), "--output", str(output)])
        == 0
    )
    assert NONE_OF_THESE not in output.read_text()


def test_of_a_model_that_diverged_nothing_is_kept_and_it_is_said(data, tmp_path, capsys, monkeypatch):
    def diverged(model, extractor, dataset, *_):
        return np.full((len(dataset), model.config.hidden_size), np.nan)

    monkeypatch.setattr(known_clips, "pooled_vectors", diverged)
    assert main(flags(data, tmp_path / "run", none_of_these=True)) == 0
    said = capsys.readouterr().out.splitlines()[-1]
    assert f"no {KNOWN_CLIPS_NAME} is kept: what the model makes of clips are not numbers" in said
    assert not (tmp_path / "run" / KNOWN_CLIPS_NAME).exists()
    assert "none_of_these" not in summary_in(tmp_path / "run")["evaluation"]
    assert next(iter(AudioTagger.from_pretrained(tmp_path / "run").tag_files([next(data.glob("*/*.wav"))]))).labels


@pytest.mark.parametrize(("vectors", "threshold"), [(np.eye(3), np.nan), (np.full((3, 3), np.nan), 0.5)])
def test_what_nobody_could_load_is_not_saved(tmp_path, vectors, threshold):
    with pytest.raises(ValueError, match="expected numbers, and a threshold from 0 to 2"):
        KnownClips(vectors, 1, threshold).save(tmp_path)
    assert not list(tmp_path.iterdir())
