"""Clips longer than the model hears: windows that are drawn, all of them, and scores that are put together again."""

import json
import re

import datasets
import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file
from tiny_trainings import summary_in, write_recipe, write_tones

from finetune import run_evaluate
from finetune.arguments.data_arguments import DataArguments
from finetune.augmentations.augmentation import Augmentation
from finetune.clip_sets.audio_clips import AudioClips
from finetune.clip_sets.clip_windows import AllWindows, DrawnWindows
from finetune.clip_sets.waveforms import ASTDataset
from finetune.run_finetune import main
from finetune.scores.clip_scores import loss_of_clips, references_of_clips, scores_of_clips
from finetune.sources.splits import load_splits
from modeling_ast import ASTFeatureExtractor, ASTForAudioClassification
from modeling_ast.audio import AudioReader, excerpts
from modeling_ast.tagging.tagger import AudioTagger

RATE = 16_000
HEARD = 48 * 160 + 240  # samples of the 48 frames that the tiny model hears


def ramp(seconds: float, offset: float) -> np.ndarray:
    """A sound of which every sample tells its place."""
    return (np.arange(round(seconds * RATE)) % 30_000 + offset).astype(np.float32) / 40_000


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Four of 1.9 s and two that the model hears to their end, in two classes."""
    folder = tmp_path_factory.mktemp("ramps")
    for label in "ab":
        (folder / label).mkdir()
        for number, seconds in enumerate((1.9, 1.9, 0.4)):
            soundfile.write(folder / label / f"{number}.wav", ramp(seconds, number), RATE, subtype="FLOAT")
    data = DataArguments(dataset_name=str(folder), eval_fraction=0.5)
    splits, _ = load_splits(data, 0)
    return splits["train"], splits["eval"], folder


@pytest.fixture
def extractor() -> ASTFeatureExtractor:
    return ASTFeatureExtractor(max_length=48)


def dataset(rows, extractor, windows, augmentation=None, seed=3):
    return AudioClips(rows).with_windows(windows).dataset(extractor, augmentation, seed)


def test_the_drawn_window_is_a_function_of_seed_epoch_and_clip(clips, extractor):
    rows = clips[0]
    drawn, again = (dataset(rows, extractor, "random", Augmentation()) for _ in range(2))
    assert isinstance(drawn, DrawnWindows)
    by_key = {}
    for index in reversed(range(len(rows))):  # in another order, as other workers have it
        for epoch in range(3):
            by_key[epoch, index] = again[epoch, index]["waveform"]
    longer = 0
    for (epoch, index), expected in sorted(by_key.items()):
        found = drawn[epoch, index]["waveform"]
        np.testing.assert_array_equal(found, expected)
        whole, _ = soundfile.read(drawn.name(index), dtype="float32")
        if len(whole) <= HEARD:
            np.testing.assert_array_equal(found, whole)
            continue
        longer += 1
        start = round(float(found[0]) * 40_000) - int(drawn.name(index)[-5])
        np.testing.assert_array_equal(found, whole[start : start + HEARD])
    assert longer
    of_one = [by_key[epoch, index][0] for (epoch, index) in by_key if len(by_key[epoch, index]) == HEARD]
    assert len(set(map(float, of_one))) > 1
    other_seed = dataset(rows, extractor, "random", Augmentation(), seed=4)
    assert any(not np.array_equal(other_seed[key]["waveform"], value) for key, value in by_key.items())


def test_windows_reach_from_the_beginning_to_the_end(clips, extractor):
    drawn = dataset(clips[0], extractor, "random", Augmentation())
    longer = next(index for index in range(len(drawn)) if len(drawn[0, index]["waveform"]) == HEARD)
    starts = [drawn.start_of(drawn.heard_as(longer, epoch)) for epoch in range(300)]
    last = round(1.9 * RATE) - HEARD
    assert 0 <= min(starts) < last / 30
    assert last >= max(starts) > last * 29 / 30


@pytest.mark.parametrize("seconds", [0.55, 1.9])
def test_windows_reach_the_end_where_the_speed_changes_too(tmp_path, extractor, seconds):
    """0.55 s are more than the model hears, and less than the fastest speed makes of that."""
    for name in ("train/a", "train/b", "test/a", "test/b"):
        (tmp_path / name).mkdir(parents=True)
        soundfile.write(tmp_path / name / "0.wav", ramp(seconds, 0), RATE, subtype="FLOAT")
    rows = load_splits(DataArguments(dataset_name=str(tmp_path)), 0)[0]["train"]
    drawn = dataset(rows, extractor, "random", Augmentation(max_speed_change=0.3))
    assert drawn.samples_needed > 1.3 * HEARD
    starts = [drawn.start_of(drawn.heard_as(0, epoch)) for epoch in range(300)]
    last = round(seconds * RATE) - HEARD
    assert 0 <= min(starts) < last / 30
    assert last >= max(starts) > last * 29 / 30
    for epoch, start in enumerate(starts[:20]):
        heard, _ = drawn.decode(drawn.heard_as(0, epoch))
        whole = ramp(seconds, 0)
        np.testing.assert_array_equal(heard.waveform, whole[start : start + drawn.samples_needed])


def test_all_windows_cover_a_clip_and_its_scores_are_put_together(clips, extractor):
    rows = clips[1]
    windows = dataset(rows, extractor, "max")
    assert isinstance(windows, AllWindows)
    of_clips = [[] for _ in rows]
    for item, clip in enumerate(windows.clip_of_item):
        of_clips[clip].append(windows[item]["waveform"])
    for clip, found in enumerate(of_clips):
        whole, _ = soundfile.read(rows[clip]["audio"]["path"], dtype="float32")
        starts = [*range(0, max(len(whole) - HEARD, 0), HEARD), max(len(whole) - HEARD, 0)]
        assert len(found) == len(starts)
        for waveform, start in zip(found, starts, strict=True):
            np.testing.assert_array_equal(waveform, whole[start : start + HEARD])
    scores = np.random.default_rng(0).random((len(windows), 2)).astype(np.float32)
    expected = np.stack([scores[windows.clip_of_item == clip].max(axis=0) for clip in range(len(rows))])
    np.testing.assert_array_equal(scores_of_clips(scores, windows), expected)
    windows.reduction = "mean"
    expected = np.stack([scores[windows.clip_of_item == clip].mean(axis=0) for clip in range(len(rows))])
    np.testing.assert_allclose(scores_of_clips(scores, windows), expected, rtol=1e-6)
    labels = np.array([item["label"] for item in map(windows.__getitem__, range(len(windows)))])
    np.testing.assert_array_equal(references_of_clips(labels, windows), rows["label"][:])
    logits = torch.from_numpy(scores)
    of_windows = torch.nn.functional.cross_entropy(logits, torch.from_numpy(labels), reduction="none").numpy()
    by_clip = np.mean([of_windows[windows.clip_of_item == clip].mean() for clip in range(len(rows))])
    found = loss_of_clips(scores, labels, "single_label_classification", windows)
    np.testing.assert_allclose(found, by_clip, rtol=1e-6)


def test_clips_that_are_heard_to_their_end_make_the_plain_data_set(tmp_path, extractor):
    folder = write_tones(tmp_path / "tones", "ab", 2)
    rows = load_splits(DataArguments(dataset_name=str(folder), eval_fraction=0.5), 0)[0]["eval"]
    assert type(dataset(rows, extractor, "mean")) is ASTDataset


@pytest.fixture(scope="module")
def long_tones(tmp_path_factory):
    """Three tones of which each begins with half a second of noise: what tells them apart is behind what is heard first."""
    folder = tmp_path_factory.mktemp("tones") / "long"
    generator = np.random.default_rng(1)
    write_tones(folder, "abc", 10)
    for path in folder.rglob("*.wav"):
        tone, rate = soundfile.read(path, dtype="float32")
        noise = (0.05 * generator.standard_normal(8_000)).astype(np.float32)
        soundfile.write(path, np.concatenate([noise, tone, tone]), rate)
    return folder


def test_a_training_scores_clips_and_says_what_was_heard(long_tones, tmp_path, capsys):
    recipe = write_recipe(tmp_path, long_tones, eval_strategy="epoch")
    assert main([recipe]) == 0
    said = capsys.readouterr().out
    line = (
        "30 of 30 clips looked at are longer than the 0.49 s that the model hears; trained on is a window of each that is drawn in "
        "every epoch, scored is the mean of all their windows"
    )
    assert line in said.splitlines()[0] + said.splitlines()[1]
    assert "24 training clips, 6 to score" in said
    run = tmp_path / "run"
    summary = summary_in(run)
    assert summary["evaluation"]["clips"] == 6
    assert sum(map(sum, summary["evaluation"]["confusion_matrix"])) == 6
    assert "Of clips longer than the model hears, trained on is a window" in (run / "README.md").read_text()

    # The held-out clips again, window by window, by the model alone.
    output, predictions = tmp_path / "scores.json", tmp_path / "scores.csv"
    flags = ["--dataset_name", str(long_tones), "--model_name_or_path", str(run)]
    assert run_evaluate.main([*flags, "--output", str(output), "--predictions", str(predictions)]) == 0
    said = capsys.readouterr().out
    assert (
        "30 of 30 clips are longer than the 0.49 s that the model hears: scored by the mean of all their windows"
        in said
    )
    extractor = ASTFeatureExtractor.from_pretrained(run)
    model = ASTForAudioClassification.from_pretrained(run).eval()
    reader = extractor.audio_reader()
    for row in predictions.read_text().splitlines()[1:4]:
        name, _, *found = row.split(",")
        waveform = reader.hear(name).waveform
        starts = list(range(0, len(waveform) - HEARD, HEARD))
        if (last := len(waveform) - HEARD) - starts[-1] >= HEARD // 8:
            starts.append(last)
        pieces = [waveform[start : start + HEARD] for start in starts]
        inputs = extractor(pieces, sampling_rate=RATE, return_tensors="pt")
        with torch.inference_mode():
            expected = model(**inputs).logits.softmax(-1).mean(0)
        np.testing.assert_allclose(np.array(found, float), expected.numpy(), atol=2e-6)
    assert json.loads(output.read_text())["evaluations"][0]["clips"] == 30


def test_all_windows_of_a_clip_are_those_that_ast_tag_scores(long_tones, tmp_path):
    """A rest of less than an eighth of such a short window has no window of its own, neither here nor there."""
    assert main([write_recipe(tmp_path, long_tones)]) == 0
    tagger = AudioTagger.from_pretrained(tmp_path / "run", "cpu")
    cut, rests, source = (
        tmp_path / "rests",
        (0, HEARD // 8 - 1, HEARD // 8 + 1, HEARD + HEARD // 8 - 1),
        next(long_tones.rglob("*.wav")),
    )
    cut.mkdir()
    samples, rate = soundfile.read(source, dtype="int16")
    assert rate == RATE
    assert tagger.window_samples == HEARD
    for number, rest in enumerate(rests):
        soundfile.write(cut / f"{number}.wav", samples[: HEARD + rest], rate)
    clips = [{"audio": {"path": str(path), "bytes": None}, "label": 0} for path in sorted(cut.iterdir())]
    split = datasets.Dataset.from_list(clips).cast_column("audio", datasets.Audio(decode=False))
    split = split.cast_column("label", datasets.ClassLabel(names=["a", "b", "c"]))
    windows = AllWindows(split, tagger.reader, HEARD)
    assert windows.starts.tolist() == [0, 0, 0, HEARD // 8 + 1, 0, HEARD]
    assert windows.num_longer == 3  # as every command says of these clips
    with torch.inference_mode():
        for number, path in enumerate(sorted(cut.iterdir())):
            items = [windows.decode(item)[0].waveform for item in np.flatnonzero(windows.clip_of_item == number)]
            pieces = [waveform[:HEARD] for waveform in items]
            inputs = tagger.feature_extractor(pieces, sampling_rate=RATE, return_tensors="pt")
            expected = tagger.model(**inputs).logits.softmax(-1).mean(0)
            (tags,) = tagger.tag_files([path], top_k=tagger.config.num_labels)
            found = {tag.label: tag.score for tag in tags.labels}
            np.testing.assert_allclose(
                [found[tagger.config.id2label[label]] for label in range(len(found))], expected, atol=2e-6
            )


def test_beginning_is_what_a_file_cut_there_gives(long_tones, tmp_path):
    """A run on the beginnings of clips, and one on files that hold nothing else, leave the same weights."""
    cut = tmp_path / "clips"
    for path in long_tones.rglob("*.wav"):
        target = cut / path.relative_to(long_tones)
        target.parent.mkdir(parents=True, exist_ok=True)
        samples, rate = soundfile.read(path, dtype="int16")
        soundfile.write(target, samples[:HEARD], rate)
    weights = []
    for name, data, flags in (("long", long_tones, ["--clip_windows", "beginning"]), ("cut", cut, [])):
        (tmp_path / name).mkdir()
        assert main([write_recipe(tmp_path / name, data, eval_strategy="epoch"), *flags]) == 0
        weights.append(load_file(tmp_path / name / "run" / "model.safetensors"))
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


@pytest.mark.parametrize("windows", ["random", "all"])
def test_workers_cache_memory_and_a_resume_change_nothing(long_tones, tmp_path, windows):
    given = ["--clip_windows", windows, "--mixup_probability", "0.5", "--save_total_limit", "2"]
    runs = {
        "one": [],
        "cache": ["--waveform_cache", str(tmp_path / "cache"), "--dataloader_num_workers", "2"],
        "no memory": ["--memory_for_clips", "0"],
    }
    weights, of_what = {}, "windows of training clips" if windows == "all" else "training clips"
    for name, flags in runs.items():
        (tmp_path / name).mkdir()
        recipe = write_recipe(tmp_path / name, long_tones)
        assert main([recipe, *given, *flags]) == 0
        weights[name] = load_file(tmp_path / name / "run" / "model.safetensors")
        summary = json.loads((tmp_path / name / "run" / "run_summary.json").read_text())
        assert re.search(rf"measured on \d+ of \d+ {of_what} ", json.dumps(summary))
    run = tmp_path / "one" / "run"
    for path in (*run.glob("*.safetensors"), run / "run_summary.json"):
        path.unlink()
    (last,) = [path for path in run.glob("checkpoint-*") if max(run.glob("checkpoint-*"), key=_step) == path]
    for path in last.rglob("*"):
        path.unlink()
    last.rmdir()
    recipe = str(tmp_path / "one" / "recipe.yaml")
    assert main([recipe, "--clip_windows", "beginning", "--resume_from_checkpoint", "true"]) == 2
    assert main([recipe, *given, "--resume_from_checkpoint", "true"]) == 0
    weights["resumed"] = load_file(run / "model.safetensors")
    for name, tensors in weights.items():
        assert all(torch.equal(tensors[key], weights["no memory"][key]) for key in tensors), name


def _step(path) -> int:
    return int(path.name.rpartition("-")[2])


@pytest.mark.parametrize(
    ("suffix", "rate", "channels"), [("wav", RATE, 1), ("flac", 44_100, 2), ("ogg", 44_100, 1), ("mp3", 22_050, 2)]
)
def test_windows_of_clips_that_are_kept_whole_are_the_same_bit_for_bit(
    tmp_path, extractor, monkeypatch, suffix, rate, channels
):
    noise = np.random.default_rng(0)
    for label, seconds in (("a", 1.5), ("b", 1.9), ("c", 2.5), ("d", 0.4)):  # c is too long, d is heard to its end
        (tmp_path / label).mkdir()
        samples = noise.uniform(-0.5, 0.5, (round(seconds * rate), channels))
        for number in range(2):
            soundfile.write(tmp_path / label / f"{number}.{suffix}", samples, rate)
    rows = load_splits(DataArguments(dataset_name=str(tmp_path), eval_fraction=0.5), 0)[0]["train"]
    plain, kept, full = (dataset(rows, extractor, "random", Augmentation()) for _ in range(3))
    kept.keep_whole_clips(10_000_000, 4)
    full.keep_whole_clips(round(1.5 * rate) * channels * 5, 4)  # room for a, and not for b
    decoded = []
    original = excerpts._decoded
    monkeypatch.setattr(excerpts, "_decoded", lambda *given: decoded.append(given) or original(*given))
    for epoch, times in enumerate([(3, 3, 4), (3, 1, 2), (3, 1, 2)], start=1):
        for each, number in zip((plain, kept, full), times, strict=True):
            decoded.clear()
            found = [each[epoch, index]["waveform"] for index in range(len(rows))]
            assert len(decoded) == (3 if suffix == "mp3" else number)
            if each is plain:
                expected = found
            assert all(map(np.array_equal, found, expected))


@pytest.mark.parametrize("epochs", [1, 2])
def test_clips_of_more_windows_than_epochs_are_not_decoded_as_a_whole(clips, extractor, monkeypatch, epochs):
    train = dataset(clips[0], extractor, "random", Augmentation())
    train.keep_whole_clips(10_000_000, epochs)
    monkeypatch.setattr(train.excerpts, "samples_of_file", lambda *_: pytest.fail("decoded as a whole"))
    assert all(len(train[1, index]["waveform"]) for index in range(len(train)))


def test_a_training_keeps_whole_clips_where_memory_is_left(long_tones, tmp_path, monkeypatch):
    room = []
    monkeypatch.setattr(DrawnWindows, "keep_whole_clips", lambda self, *given: room.append(given))
    recipe = write_recipe(tmp_path, long_tones, num_train_epochs=2)
    for flags in ([], ["--memory_for_clips", "0"], ["--max_steps", "3"]):
        assert main([recipe, "--clip_windows", "random", "--overwrite_output_dir", "true", *flags]) == 0
    (first, epochs), (second, part) = room
    assert min(first, second) > 1_000_000
    assert epochs == 2
    assert 0 < part < 2


def test_what_windows_cannot_do_is_refused_by_name(long_tones, tmp_path, capsys):
    recipe = write_recipe(tmp_path, long_tones)
    for flags, said in (
        (["--clip_windows", "some"], "clip_windows"),
        (["--score_windows", "max", "--streaming", "true"], "score_windows is for clips at hand"),
    ):
        assert main([recipe, *flags]) == 2
        assert said in capsys.readouterr().err


def test_a_reader_of_another_rate_finds_the_same_window(clips, extractor):
    """The window is drawn in the model's samples, whatever the file's own rate is."""
    other = DrawnWindows(clips[0], AudioReader(8_000), HEARD // 2, Augmentation(), 3)
    for index in range(len(other)):
        assert len(other[1, index]["waveform"]) <= HEARD // 2
