"""Teachers hear what the student hears: against stock Transformers, its pipeline, and Kaldi's mel formula."""

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import transformers
from huggingface_hub import constants
from transformers import Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2ForSequenceClassification

from finetune.arguments.command_line import parse_arguments
from finetune.arguments.teacher_arguments import TeacherArguments
from finetune.augmentations.augmentation import Augmentation
from finetune.clip_sets.collator import ASTDataCollator, model_inputs
from finetune.sources.data_errors import DataError
from finetune.training.ast_teacher import nearest_bins
from finetune.training.teacher import Student
from finetune.training.teachers import RECORDED, load_teacher
from modeling_ast import ASTConfig, ASTFeatureExtractor, ASTForAudioClassification
from modeling_ast.layers.patch_grid import patch_grid_of

SIZES = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 16}
LABELS = {0: "kick", 1: "snare", 2: "bell"}
OTHER_ORDER = {0: "bell", 1: "wind", 2: "kick", 3: "snare"}
ORDER = [2, 3, 0]  # of the student's labels in it


def save_ast(
    folder, max_length=48, sampling_rate=16000, labels=OTHER_ORDER, problem_type="single_label_classification", **sizes
):
    torch.manual_seed(1)
    config = ASTConfig(**SIZES | sizes, max_length=max_length, id2label=labels, problem_type=problem_type)
    ASTForAudioClassification(config).save_pretrained(folder)
    bins = config.num_mel_bins
    extractor = ASTFeatureExtractor(
        max_length=max_length, num_mel_bins=bins, sampling_rate=sampling_rate, mean=-6.0, std=4.0
    )
    extractor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def ast_folder(tmp_path_factory):
    return save_ast(tmp_path_factory.mktemp("ast") / "teacher")


@pytest.fixture(scope="module")
def wav2vec_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wav2vec") / "w2v"
    torch.manual_seed(2)
    config = Wav2Vec2Config(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, conv_dim=(8, 8), conv_kernel=(10, 8),
        conv_stride=(40, 8), num_feat_extract_layers=2, num_conv_pos_embeddings=4, num_conv_pos_embedding_groups=2,
        classifier_proj_size=8, id2label=OTHER_ORDER, label2id={name: place for place, name in OTHER_ORDER.items()},
    )  # fmt: skip
    Wav2Vec2ForSequenceClassification(config).save_pretrained(folder)
    Wav2Vec2FeatureExtractor(sampling_rate=8000, do_normalize=True).save_pretrained(folder)
    return folder


def student(
    augmentation=None,
    problem_type="single_label_classification",
    hears_audio=True,
    clips=None,
    padding="max_length",
    **sizes,
):
    config = ASTConfig(
        **{**SIZES, "hidden_size": 8, "max_length": 48, "id2label": LABELS, "problem_type": problem_type, **sizes}
    )
    extractor = ASTFeatureExtractor(max_length=config.max_length, num_mel_bins=config.num_mel_bins, mean=-5.0, std=3.0)
    extractor.padding = padding
    clips = clips or SimpleNamespace(at_hand=True)
    return Student(config, extractor, augmentation or Augmentation(), clips, hears_audio=hears_audio)


def batch_of(pupil: Student, lengths=(8000, 6000)) -> dict:
    generator = np.random.default_rng(3)
    items = []
    for place, length in enumerate(lengths):
        waveform = 0.1 * generator.standard_normal(length).astype(np.float32)
        draws = pupil.augmentation.draw(0, 0, place, len(lengths))
        items.append({"waveform": waveform, "label": place, "draws": draws})
    return ASTDataCollator(pupil.feature_extractor, compute_features=False)(items)


def looked_at(teacher, batch):
    pupil = teacher.student
    inputs = model_inputs(batch, pupil.feature_extractor, pupil.augmentation, pupil.config)
    return teacher.targets(batch, inputs), inputs


def asked(folder, **fields) -> TeacherArguments:
    return TeacherArguments(teacher=str(folder), **fields)


def stock_outputs(folder, batch):
    """Of stock Transformers' model on its own features, torchaudio's of Kaldi."""
    extractor = transformers.ASTFeatureExtractor.from_pretrained(folder)
    clips = [clip[:length].numpy() for clip, length in zip(batch["waveforms"], batch["lengths"], strict=True)]
    values = extractor(clips, sampling_rate=16000, return_tensors="pt")
    with torch.no_grad():
        return transformers.ASTForAudioClassification.from_pretrained(folder)(**values, output_hidden_states=True)


def test_an_ast_gives_stock_scores_of_the_labels_by_their_names(ast_folder):
    teacher = load_teacher(asked(ast_folder, teacher_temperature=0.5), student())
    batch = batch_of(teacher.student)
    found, _ = looked_at(teacher, batch)
    expected = (stock_outputs(ast_folder, batch).logits[:, ORDER] / 0.5).softmax(dim=1)
    torch.testing.assert_close(found["teacher_scores"], expected, atol=1e-5, rtol=1e-4)  # two filter banks in float32
    assert not teacher.model.training
    assert not any(parameter.requires_grad for parameter in teacher.model.parameters())


@pytest.mark.parametrize("padding", ["max_length", "longest"])
def test_layers_are_those_of_the_tokens_that_the_student_keeps(ast_folder, padding):
    pupil = student(Augmentation(patchout_share=0.5), padding=padding, time_stride=16, frequency_stride=20)
    teacher = load_teacher(asked(ast_folder, teacher_layers=["1:2", "3:3"]), pupil)
    batch = batch_of(pupil)
    found, inputs = looked_at(teacher, batch)
    expected = stock_outputs(ast_folder, batch).hidden_states
    rows, columns = patch_grid_of(pupil.config, 48)
    kept = inputs["patches_kept"].numpy()
    assert kept.shape[1] < rows * columns
    # Strides are 20 x 16 in the student, 10 x 10 in the teacher: row r is its row 2 r, column 16 c frames its nearest.
    row, column = np.divmod(kept, inputs["input_values"].shape[1] // 16)
    patches = 2 + 2 * row * patch_grid_of(teacher.config, 48)[1] + np.round(1.6 * column).astype(int)
    tokens = np.concatenate([np.tile([0, 1], (2, 1)), patches], axis=1)
    for states, layer in zip(found["teacher_states"], (2, 3), strict=True):
        there = np.stack([clip[places] for clip, places in zip(expected[layer].numpy(), tokens, strict=True)])
        np.testing.assert_allclose(states.numpy(), there, atol=2e-4)
    if padding == "longest":
        real = 1 + (np.array([48, 36]) - 16) // 16  # columns of 16 frames
        assert found["teacher_tokens"][:, 2:].tolist() == (column < real[:, None]).tolist()
    else:
        assert "teacher_tokens" not in found
    assert [layer_map.weight.shape for layer_map in teacher.layer_maps] == [(16, 8), (16, 8)]


def mel(hz):
    return 1127.0 * np.log1p(np.asarray(hz) / 700.0)


def test_masks_hide_the_same_frequencies_and_times_at_another_rate_and_other_bins(tmp_path):
    pupil = student(Augmentation(max_frequency_mask=60, max_time_mask=20))
    teacher = load_teacher(asked(save_ast(tmp_path, sampling_rate=8000, num_mel_bins=64)), pupil)
    batch = batch_of(pupil, (8000,))
    values = teacher.inputs(batch, 48)["input_values"][0]
    silence = (0 + 6.0) / (2 * 4.0)
    hidden = torch.isclose(values, torch.tensor(silence)).numpy()  # (frames, bins)
    own = model_inputs(batch, pupil.feature_extractor, pupil.augmentation)["input_values"][0]
    own_hidden = torch.isclose(own, torch.tensor((0 + 5.0) / (2 * 3.0))).numpy()
    assert (hidden.all(axis=1) == own_hidden.all(axis=1)).all()  # frames of 10 ms at both rates
    assert 0 < own_hidden.all(axis=1).sum() < 48
    middles = mel(20) + (np.arange(64) + 1) * (mel(4000) - mel(20)) / 65
    width = (mel(8000) - mel(20)) / 129
    places = np.round((middles - mel(20)) / width - 1).astype(int)
    bands = own_hidden.all(axis=0)
    assert (hidden.all(axis=0) == bands[places]).all()
    assert 0 < bands.sum() < 128
    assert nearest_bins(128, 16000, 128, 16000).tolist() == list(range(128))
    assert "resampled to 8000 Hz" in teacher.in_words()


def test_an_ast_of_another_length_hears_the_clip_as_the_student_does(tmp_path):
    pupil = student(Augmentation(max_roll=5, noise_strength=0.1, max_time_mask=9, max_frequency_mask=20))
    pupil.feature_extractor.mean, pupil.feature_extractor.std = -6.0, 4.0  # those of the teachers
    batch = batch_of(pupil)
    long = load_teacher(asked(save_ast(tmp_path / "long", max_length=80)), pupil)
    same = load_teacher(asked(save_ast(tmp_path / "same", max_length=48)), pupil)
    values, of_same = long.inputs(batch, 48)["input_values"], same.inputs(batch, 48)["input_values"]
    assert torch.equal(of_same, model_inputs(batch, pupil.feature_extractor, pupil.augmentation)["input_values"])
    assert values.shape == (2, 80, 128)
    assert torch.equal(values[:, :48], of_same)
    assert (values[:, 48:] == np.float32(6.0 / 8)).all()
    short = load_teacher(asked(save_ast(tmp_path / "short", max_length=32)), pupil)
    assert torch.equal(short.inputs(batch, 48)["input_values"], of_same[:, :32])
    assert "it hears no more than the first 0.32 s of a clip" in short.in_words()
    with pytest.raises(DataError, match="hears 32 frames, the student 48.*--max_length 32"):
        load_teacher(asked(tmp_path / "short", teacher_layers=["1:1"]), pupil)


def test_finished_features_are_normalised_by_the_teacher(ast_folder, tmp_path):
    pupil = student(hears_audio=False)
    teacher = load_teacher(asked(ast_folder), pupil)
    features = torch.randn(2, 48, 128)
    batch = {
        "features": features,
        "lengths": torch.tensor([48, 48]),
        "labels": torch.tensor([0, 1]),
        "is_padded": False,
    }
    torch.testing.assert_close(teacher.inputs(batch, 48)["input_values"], (features + 6.0) / 8.0)
    with pytest.raises(DataError, match="128 mel bins at 16000 Hz, and the teacher .* takes 64 at 16000 Hz"):
        load_teacher(asked(save_ast(tmp_path, num_mel_bins=64)), pupil)


def test_another_classifier_answers_as_its_pipeline(wav2vec_folder):
    pupil = student(Augmentation(max_time_mask=9, max_gain_db=3))
    teacher = load_teacher(asked(wav2vec_folder, teacher_temperature=1.0), pupil)
    batch = batch_of(pupil, (8000, 6000, 8000))
    found, _ = looked_at(teacher, batch)
    pipe = transformers.pipeline("audio-classification", model=str(wav2vec_folder), device="cpu")
    for scores, clip, length in zip(found["teacher_scores"], batch["waveforms"], batch["lengths"], strict=True):
        answers = {
            row["label"]: row["score"] for row in pipe({"raw": clip[:length].numpy(), "sampling_rate": 16000}, top_k=4)
        }
        expected = np.array([answers[name] for name in LABELS.values()])
        np.testing.assert_allclose(scores.numpy(), expected / expected.sum(), atol=1e-5)
    assert "it hears waveforms, so that max_time_mask change what the student hears alone" in teacher.in_words()
    assert teacher.section()["kind"] == "audio classifier"


def test_what_does_not_fit_the_student_is_refused_with_what_to_type(ast_folder, wav2vec_folder, tmp_path):
    cases = [
        (ast_folder, student(id2label={0: "kick", 1: "tom"}), {}, "no scores for 1 of 2 labels: tom; it has .*--teacher_weight 0 with"),
        (ast_folder, student(problem_type="multi_label_classification"), {}, "add up to 1, .* --loss cross_entropy"),
        (ast_folder, student(), {"teacher_layers": ["4:1"]}, "names layer 4 of the student, which has 3"),
        (ast_folder, student(), {"teacher_layers": ["1:4"]}, "names layer 4 of the teacher, which has 3"),
        (ast_folder, student(), {"teacher_sha256": "0" * 64}, "another teacher than that of the recipe.*leave out --teacher_sha256"),
        (ast_folder, student(), {"teacher_revision": "main"}, "teacher_revision='main' is of a model on the Hub"),
        (wav2vec_folder, student(), {"teacher_layers": ["1:1"]}, "it is no AST. Leave out --teacher_layers"),
        (wav2vec_folder, student(hears_audio=False), {}, "hears waveforms, and the clips are finished features"),
        (tmp_path / "none", student(), {}, "There is no teacher .*none.* as --teacher"),
        (tmp_path / "none.csv", student(), {}, "There is no file .*none.csv.* as --teacher"),
    ]  # fmt: skip
    for folder, pupil, fields, message in cases:
        with pytest.raises(DataError, match=message):
            load_teacher(asked(folder, **fields), pupil)
    features_alone = load_teacher(
        asked(ast_folder, teacher_weight=0.0, teacher_layers=["1:1"]), student(id2label={0: "tom", 1: "x"})
    )
    assert "teacher_scores" not in looked_at(features_alone, batch_of(features_alone.student))[0]
    untrained = tmp_path / "untrained"
    transformers.Wav2Vec2Model(Wav2Vec2Config.from_pretrained(wav2vec_folder)).save_pretrained(untrained)
    Wav2Vec2FeatureExtractor.from_pretrained(wav2vec_folder).save_pretrained(untrained)
    with pytest.raises(DataError, match="has no weights for .*fine-tuned as a classifier"):
        load_teacher(asked(untrained), student())


def test_the_digest_is_of_the_weights(ast_folder, tmp_path):
    recorded = load_teacher(asked(ast_folder), student()).recorded()
    assert recorded.keys() <= set(RECORDED)
    again = save_ast(tmp_path / "elsewhere")
    assert load_teacher(asked(again, **recorded), student()).recorded() == recorded
    other = save_ast(tmp_path / "other", intermediate_size=24)
    assert load_teacher(asked(other), student()).recorded() != recorded


def test_a_teacher_of_the_hub_is_recorded_with_its_commit(ast_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(transformers.utils.hub.constants, "HF_HUB_CACHE", str(tmp_path))
    commits = {"main": "0" * 40, "older": "1" * 40}
    place = tmp_path / "models--somebody--ast"
    (place / "refs").mkdir(parents=True)
    for name, commit in commits.items():
        (place / "refs" / name).write_text(commit)
        shutil.copytree(ast_folder, place / "snapshots" / commit)
    for name, commit in commits.items():
        recorded = load_teacher(asked("somebody/ast", teacher_revision=name), student()).recorded()
        assert recorded["teacher_revision"] == commit
        again = load_teacher(asked("somebody/ast", **recorded), student())
        assert again.section()["revision"] == commit
        assert again.name == "somebody/ast"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--teacher_temperature 0", r"teacher_temperature=0.0 is not above 0"),
        ("--teacher_weight 1.5", r"teacher_weight=1.5 is not a share from 0 to 1"),
        ("--teacher_weight 0", r"teacher_weight=0 leaves the teacher without a part .*--teacher_layers"),
        ("--teacher_layers 1:2 2-3", r"teacher_layers has '2-3', expected .* --teacher_layers 2:6 4:12"),
        ("--teacher_layers 1:2 --teacher_layer_weight 0", r"teacher_layer_weight=0.0 is not above 0"),
        ("--label_smoothing_factor 0.1", r"Both teacher and label_smoothing_factor were given"),
    ],
)
def test_fields_that_cannot_be_are_refused(words, message):
    with pytest.raises(ValueError, match=message):
        parse_arguments(["--dataset_name", "clips", "--output_dir", "run", "--teacher", "t", *words.split()])


class Named:
    """Training clips that have names."""

    at_hand = True

    def __init__(self, names):
        self.names = names

    def __len__(self):
        return len(self.names)

    def name(self, index):
        return self.names[index]


SCORES = np.array([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8]])


def test_stored_scores_are_mixed_as_labels_are(tmp_path):
    np.savez(tmp_path / "t.npz", files=["a", "b"], labels=["bell", "kick", "snare"], scores=SCORES)
    pupil = student(Augmentation(mixup_probability=1.0, max_time_mask=9, max_gain_db=3), clips=Named(["a", "b"]))
    teacher = load_teacher(asked(tmp_path / "t.npz", teacher_temperature=2.0), pupil)
    batch = batch_of(pupil) | {"keys": [(0, 0, 0), (0, 1, 0)]}
    found = teacher.targets(batch, {})["teacher_scores"].numpy()
    softened = SCORES[:, [1, 2, 0]] ** 0.5  # a temperature of 2 is the root
    softened /= softened.sum(axis=1, keepdims=True)
    drawn = batch["draws"]["mixup"]
    weights = np.array(drawn["weight"])[:, None]
    np.testing.assert_allclose(found, weights * softened + (1 - weights) * softened[drawn["partner"]], atol=1e-6)
    assert (
        "mixup_probability mix(es) the scores too; max_gain_db, max_time_mask change what the student hears alone"
        in teacher.in_words()
    )


def test_stored_scores_of_clips_as_they_are_refuse_what_makes_other_sounds(tmp_path):
    path = tmp_path / "t.jsonl"
    tags = [{"label": name, "score": score} for name, score in zip(LABELS.values(), SCORES[0], strict=True)]
    path.write_text(json.dumps({"file": "a", "labels": tags}))
    clips = Named(["a"])
    load_teacher(asked(path), student(clips=clips))
    cases = [
        (
            student(Augmentation(max_speed_change=0.1), clips=clips),
            {},
            "max_speed_change change.*--max_speed_change 0, or pass the model",
        ),
        (student(problem_type="multi_label_classification", clips=clips), {}, "add up to 1"),
        (student(clips=clips), {"teacher_layers": ["1:1"]}, "is a file of scores"),
        (student(clips=SimpleNamespace(at_hand=False)), {}, "Leave out --streaming"),
        (student(clips=Named(["a", "b"])), {}, "no scores for 1 of 2 training clips"),
    ]
    for pupil, fields, message in cases:
        with pytest.raises(DataError, match=message):
            load_teacher(asked(path, **fields), pupil)
