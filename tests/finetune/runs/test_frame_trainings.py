"""A training of a frame head on tones at known times: targets, scores by scikit-learn, what is left behind and what is refused."""

import hashlib
import json

import datasets
import numpy as np
import pytest
import torch
import yaml
from sklearn.metrics import average_precision_score
from tiny_trainings import write_tones

from finetune.arguments.command_line import parse_arguments
from finetune.augmentations.augmentation_step import TrainingClip
from finetune.augmentations.mixup import Mixup
from finetune.clip_sets.clip_set import Checked, ClipSet
from finetune.clip_sets.frame_targets import FrameCollator
from finetune.clip_sets.waveforms import ClipDataset
from finetune.failures.input_errors import InputError
from finetune.runs.training_run import prepare_run, train_run
from finetune.scores.frame_scores import frame_scores
from model_card.checkpoint_checks import check_checkpoint, files_to_publish
from model_card.push_to_hub import push_to_hub
from modeling_ast import ASTConfig, ASTFeatureExtractor, ASTForAudioClassification, ASTForAudioFrameClassification
from modeling_ast.audio import Heard
from modeling_ast.frame_columns import FrameColumns
from modeling_ast.run_tagging import main as tag

NAMES = ["low", "high"]
RATE, SECONDS, FRAMES = 16_000, 0.975, 96
TINY = {
    "dataset_name": "nobody/marked-tones", "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
    "intermediate_size": 32, "max_length": FRAMES, "num_train_epochs": 12, "per_device_train_batch_size": 8,
    "mixup_probability": 0.2, "learning_rate": 3.0e-3, "use_cpu": True, "disable_tqdm": True, "head": "frame",
}  # fmt: skip


class MarkedTones(ClipSet):
    """Clips of noise in which tones are marked; how a clip sounds is a function of its number."""

    features = datasets.Features({"label": datasets.List(datasets.ClassLabel(names=NAMES))})

    def __init__(self, numbers, columns=None, seconds=SECONDS):
        self.numbers, self.columns, self.seconds = list(numbers), columns, seconds

    def with_frames(self, columns):
        return MarkedTones(self.numbers, columns, self.seconds)

    def __len__(self):
        return len(self.numbers)

    def stretches(self, index):
        generator = np.random.default_rng(self.numbers[index])
        starts = generator.uniform(0, self.seconds - 0.3, 2)
        return [(start, start + 0.3, label) for label, start in enumerate(starts) if generator.random() < 0.8]

    def waveform(self, index):
        waveform = np.random.default_rng((self.numbers[index], 1)).normal(0, 0.01, int(self.seconds * RATE))
        for start, end, label in self.stretches(index):
            time = np.arange(int(start * RATE), int(end * RATE))
            waveform[time] += 0.3 * np.sin(2 * np.pi * (500, 3000)[label] * time / RATE)
        return waveform.astype(np.float32)

    def label_lists(self):
        return [sorted({label for *_, label in self.stretches(index)}) for index in range(len(self))]

    def label_counts(self):
        return np.bincount([label for labels in self.label_lists() for label in labels], minlength=2)

    def label_sets(self):
        return {tuple(labels) for labels in self.label_lists()}

    def name(self, index):
        return f"clip {self.numbers[index]}"

    def digest(self):
        return hashlib.sha256(str(self.numbers).encode()).hexdigest()

    def without(self, left_out):
        return MarkedTones([n for place, n in enumerate(self.numbers) if place not in left_out], self.columns)

    @classmethod
    def check(cls, splits, checks):
        return Checked(splits, [])

    def dataset(self, feature_extractor, augmentation=None, seed=0, *, binary_targets=False, reader=None):
        return Tones(self, reader, feature_extractor.max_samples, augmentation, seed, binary_targets=binary_targets)


class Tones(ClipDataset):
    """The waveforms of [`MarkedTones`], with the labels of their frames."""

    def decode(self, clip):
        waveform = self.split.waveform(clip)
        frames = (len(waveform) - 400) // 160 + 1
        return Heard(waveform), self.split.columns.targets(self.split.stretches(clip), 2, frames)

    def name(self, index):
        return self.split.name(index)

    def label_counts(self):
        return self.split.label_counts()


def prepare(folder, *flags, **fields):
    recipe = folder / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(TINY | {"output_dir": str(folder / "run")} | fields))
    argv = [str(recipe), *flags]
    splits = {"train": MarkedTones(range(40)), "eval": MarkedTones(range(100, 112))}
    if "validation_split_name" in fields:
        splits["validation"] = MarkedTones(range(200, 208))
    return prepare_run(argv, parse_arguments(argv), (splits, "by number"))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("frames")
    return folder / "run", train_run(prepare(folder, validation_split_name="validation"))


def logits_and_truth(run, numbers, columns=None):
    """Of each clip by itself what the saved checkpoint gives, and whether tones cover half of each frame."""
    model = ASTForAudioFrameClassification.from_pretrained(run).eval()
    extractor = ASTFeatureExtractor.from_pretrained(run)
    clips = MarkedTones(numbers)
    rows, truths = [], []
    for index in range(len(clips)):
        features = extractor(clips.waveform(index), sampling_rate=RATE, return_tensors="pt")
        with torch.no_grad():
            rows.append(model(**features).logits[0].double().numpy())
        edges = FrameColumns().edges(FRAMES)
        truth = np.zeros((9, 2), int)
        for start, end, label in clips.stretches(index):
            moments = np.linspace(start, end, 3000, endpoint=False)
            counts = np.histogram(moments, edges)[0] * (end - start) / 3000
            truth[counts >= np.diff(edges) / 2 - 1e-3, label] = 1
        truths.append(truth)
    return np.concatenate(rows), np.concatenate(truths)


def test_scores_are_those_of_the_saved_checkpoint_over_frames(trained):
    run, summary = trained
    logits, truth = logits_and_truth(run, range(100, 112))
    evaluation = summary["evaluation"]
    assert (evaluation["clips"], evaluation["frames"], evaluation["frame_seconds"]) == (12, 12 * 9, 0.1)
    of_labels = [average_precision_score(truth[:, label], logits[:, label]) for label in range(2)]
    assert evaluation["metrics"]["mean_average_precision"] == pytest.approx(np.mean(of_labels), abs=1e-6)
    assert [row["average_precision"] for row in evaluation["per_class"]] == pytest.approx(of_labels, abs=1e-6)
    probabilities = 1 / (1 + np.exp(-logits))
    losses = -np.log(np.where(truth == 1, probabilities, 1 - probabilities))
    assert evaluation["metrics"]["loss"] == pytest.approx(losses.mean(), rel=1e-4)
    assert np.mean(of_labels) > 0.9, "tones are learned where they are"
    assert summary["training"]["loss"] == "binary_cross_entropy"


def test_thresholds_are_chosen_on_frames_of_the_validation_split(trained):
    run, summary = trained
    logits, truth = logits_and_truth(run, range(200, 208))
    scores = 1 / (1 + np.exp(-logits))
    config = json.loads((run / "config.json").read_text())
    assert config["architectures"] == ["ASTForAudioFrameClassification"]

    def f1(label, threshold):
        found = scores[:, label] >= threshold
        return 2 * (found & (truth[:, label] == 1)).sum() / (found.sum() + truth[:, label].sum())

    for label, name in enumerate(NAMES):
        best = max(f1(label, threshold) for threshold in scores[:, label])
        assert f1(label, config["label_thresholds"][name]) == pytest.approx(best)
    assert summary["evaluation"]["validation"]["clips"] == 8


def test_the_folder_can_be_published_and_heard_with(trained, tmp_path, capsys):
    import soundfile

    run, _ = trained
    assert {"config.json", "model.safetensors", "README.md", "spectrogram.png"} <= files_to_publish(run).keys()
    assert check_checkpoint(run) == []
    card = (run / "README.md").read_text()
    front_matter = yaml.safe_load(card.split("---")[1])
    assert "pipeline_tag" not in front_matter
    assert {"sound-event-detection", "audio-frame-classification"} <= set(front_matter["tags"])
    assert "tells when any of 2 labels is heard: it gives each 100 ms" in card
    assert "ast-tag clip.wav --model_name_or_path run --timeline" in card
    assert 'pipeline("audio-classification", model=' not in card
    assert "(12 clips, 108 frames)" in card
    lines = []
    push_to_hub(run, "user/frames", dry_run=True, report=lines.append)
    assert any("model.safetensors" in line for line in lines)
    with pytest.raises(ValueError, match="has a frame head, and the demo page shows labels of clips"):
        push_to_hub(run, "user/frames", dry_run=True, space=True)

    clip = MarkedTones([100])
    soundfile.write(tmp_path / "clip.wav", clip.waveform(0), RATE, subtype="FLOAT")
    assert tag([str(tmp_path / "clip.wav"), "--model_name_or_path", str(run), "--timeline", "--format", "jsonl"]) == 0
    segments = json.loads(capsys.readouterr().out)["segments"]
    for start, end, label in clip.stretches(0):
        assert any(
            each["label"] == NAMES[label] and abs(each["start"] - start) < 0.15 and abs(each["end"] - end) < 0.15
            for each in segments
        )


def test_a_clip_checkpoint_starts_it_and_padding_is_not_scored(tmp_path, capsys):
    start = tmp_path / "clips"
    sizes = {
        name: TINY[name] for name in ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
    }
    ASTForAudioClassification(ASTConfig(**sizes, max_length=FRAMES)).save_pretrained(start)
    ASTFeatureExtractor(max_length=FRAMES).save_pretrained(start)
    fields = dict.fromkeys((*sizes, "max_length")) | {"num_train_epochs": 1, "model_name_or_path": str(start)}
    recipe = {name: value for name, value in (TINY | fields).items() if value is not None}
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe | {"output_dir": str(tmp_path / "run"), "padding": "longest"}))
    splits = {"train": MarkedTones(range(8), seconds=0.6), "eval": MarkedTones(range(4), seconds=0.6)}
    run = prepare_run([str(path)], parse_arguments([str(path)]), (splits, "by number"))
    summary = train_run(run)
    assert f"2 labels of frames of 100 ms, from {start} with a new frame head" in capsys.readouterr().out
    assert summary["evaluation"]["frames"] == 4 * 5  # of 58 frames of 10 ms, though 9 columns are computed
    assert np.isfinite(summary["evaluation"]["metrics_padding_longest"]["loss"])


@pytest.mark.parametrize("padding", ["max_length", "longest"])
def test_a_batch_has_labels_of_all_its_columns(padding):
    extractor = ASTFeatureExtractor(max_length=FRAMES, padding=padding)
    long, short = (MarkedTones([seed], FrameColumns(), seconds) for seed, seconds in ((1, 0.8), (2, 0.4)))
    items = [clips.dataset(extractor)[0] for clips in (long, short)]
    batch = FrameCollator(extractor, FrameColumns())(items)
    width = 9 if padding == "max_length" else 7
    assert batch["labels"].shape == (2, width, 2)
    for labels, item in zip(batch["labels"].numpy(), items, strict=True):
        own = len(item["label"])
        np.testing.assert_array_equal(labels[:own], item["label"])
        assert (labels[own:] == -100).all()
    items[0]["label"] = items[0]["label"][:-1]
    with pytest.raises(ValueError, match="has labels of 6 columns, expected 7"):
        FrameCollator(extractor, FrameColumns())(items)


def test_labels_of_frames_are_mixed_as_far_as_both_clips_last():
    clip, partner = (
        TrainingClip(np.ones(length, np.float32), labels.astype(np.float32), RATE)
        for length, labels in ((9000, np.eye(5, 2)), (5000, np.ones((3, 2))))
    )
    mixed = Mixup(mixup_probability=1.0).change_waveform(clip, {"weight": 0.75}, partner).label
    expected = 0.75 * np.eye(5, 2)
    expected[:3] += 0.25
    np.testing.assert_allclose(mixed, expected)
    back = Mixup(mixup_probability=1.0).change_waveform(partner, {"weight": 0.75}, clip).label
    np.testing.assert_allclose(back, 0.75 + 0.25 * np.eye(5, 2)[:3])


def test_frames_that_do_not_count_have_no_part_in_scores():
    generator = np.random.default_rng(0)
    logits, labels = generator.normal(size=(3, 6, 4)), generator.integers(0, 2, (3, 6, 4)).astype(np.float32)
    labels[1, 4:] = labels[2, 2:] = -100
    counted = np.concatenate([logits[0], logits[1, :4], logits[2, :2]])
    truth = np.concatenate([labels[0], labels[1, :4], labels[2, :2]])
    expected = np.mean([average_precision_score(truth[:, label], counted[:, label]) for label in range(4)])
    logits[1, 4:] = logits[2, 2:] = np.nan
    assert frame_scores(logits, labels)["mean_average_precision"] == pytest.approx(expected)


@pytest.mark.parametrize(
    "flags",
    [
        ["--max_roll", "10"],
        ["--heard_padding_share", "0.5"],
        ["--max_speed_change", "0.1"],
        ["--max_quiet_seconds", "0.1"],
        ["--class_weights", "balanced"],
        ["--loss", "cross_entropy"],
        ["--teacher", "user/model"],
        ["--lora_rank", "4"],
        ["--average_epochs", "1", "2"],
    ],
)
def test_what_frames_cannot_obey_is_refused_by_name(tmp_path, flags):
    with pytest.raises(
        ValueError, match=f"^{flags[0][2:]}=.* was given, but with --head frame .* Leave out one of them"
    ):
        parse_arguments(["--dataset_name", "x", "--output_dir", str(tmp_path), "--head", "frame", *flags])


def test_clips_without_marked_stretches_are_refused(tmp_path):
    data = write_tones(tmp_path / "clips", count=4)
    argv = ["--dataset_name", str(data), "--output_dir", str(tmp_path / "run"), "--head", "frame", "--use_cpu", "true"]
    with pytest.raises(InputError, match="learns when each label sounds, and these clips have labels of whole clips"):
        prepare_run(argv, parse_arguments(argv))
