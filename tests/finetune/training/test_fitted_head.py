"""`--head_start fitted`: the classifier that a training begins with, against scikit-learn over stock Transformers' vectors."""

import csv
import json
import shutil

import datasets
import numpy as np
import pytest
import soundfile
import torch
import transformers
from finished_features import build_trainer
from marked_sounds import TIMES, write_marked
from safetensors.torch import load_file
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from tiny_trainings import FIELDS, SIZES, flags, summary_in, write_tones

from finetune import fine_tune
from finetune.arguments.command_line import parse_arguments
from finetune.arguments.groups import OptimizationArguments
from finetune.run_finetune import main
from finetune.run_pretrain import main as pretrain
from finetune.runs.training_run import prepare_run
from finetune.training import fitted_head, trainer
from finetune.training.fitted_head import LinearHead, fit_linear_head, fit_to_clips
from finetune.training.run_folder import IDENTITY_NAME
from finetune.training.trainer import ASTTrainer

EXCLUSIVE, INDEPENDENT = "single_label_classification", "multi_label_classification"
NO_STEP = 1e-30  # a learning rate at which nothing changes: what is published is what the training begins with
CLOSE = 2e-3  # of probabilities: both sides stop at a gradient of 1e-4, from vectors that differ in their last bits
WINDOW = 400 + 47 * 160  # samples of 48 frames
SMALL = [f"--{name}={size}" for name, size in SIZES.items()]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_tones(tmp_path_factory.mktemp("tones") / "data")


@pytest.fixture(scope="module")
def start(data, tmp_path_factory):
    """A checkpoint that knows the three labels already, and has a LayerNorm of its own in the classifier."""
    folder = tmp_path_factory.mktemp("start") / "start"
    assert main(flags(data, folder, num_train_epochs=1, learning_rate=0.02)) == 0
    return folder


def table(folder, data, labels="abc"):
    """A table of the clips of [`write_tones`] whose last two of each label are held out."""
    rows = [(str(path), path.parent.name, "test" if path.stem in "89" else "train") for path in data.glob("*/*.wav")]
    rows = sorted(row for row in rows if row[1] in labels)
    with open(folder / "clips.csv", "w", newline="") as file:
        csv.writer(file).writerows([("path", "label", "split"), *rows])
    return folder / "clips.csv", {side: [row[:2] for row in rows if row[2] == side] for side in ("train", "test")}


def fitted(data, start, folder, **fields):
    """The command line of a training from the start."""
    given = {"head_start": "fitted", "model_name_or_path": start} | dict.fromkeys(SIZES) | fields
    return flags(data, folder, **given)


def by_stock(folder, waveforms, weights=None):
    """What stock Transformers makes of clips with a run's feature extractor: layer-normalised vectors, and logits."""
    model = transformers.ASTForAudioClassification.from_pretrained(weights or folder).eval()
    extractor = transformers.ASTFeatureExtractor.from_pretrained(folder)
    with torch.no_grad():
        features = [extractor(each, sampling_rate=16_000, return_tensors="pt") for each in waveforms]
        vectors = torch.cat([model.audio_spectrogram_transformer(**each).pooler_output for each in features])
        logits = torch.cat([model(**each).logits for each in features])
    normalised = torch.nn.functional.layer_norm(vectors, vectors.shape[1:], eps=model.config.layer_norm_eps)
    return normalised.double().numpy(), logits.double()


def read(rows):
    return [soundfile.read(path, dtype="float32")[0] for path, _ in rows]


def logistic_regression(**settings):
    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000, **settings))


def probabilities(head: LinearHead, vectors, problem_type=EXCLUSIVE):
    logits = torch.from_numpy(vectors @ head.weight.T + head.bias)
    return (logits.softmax(-1) if problem_type == EXCLUSIVE else logits.sigmoid()).numpy()


@pytest.mark.parametrize("labels", ["abc", "ab"])
@pytest.mark.parametrize("balanced", [False, True])
def test_a_training_begins_with_what_scikit_learn_fits(data, start, tmp_path, labels, balanced):
    clips, rows = table(tmp_path, data, labels)
    del rows["train"][:4]  # not all labels have as many
    with open(clips, "w", newline="") as file:
        sides = [(*row, side) for side in rows for row in rows[side]]
        csv.writer(file).writerows([("path", "label", "split"), *sides])
    weights = {"class_weights": "balanced"} if balanced else {}
    augmented = {"max_frequency_mask": 24, "mixup_probability": 0.5, "noise_strength": 0.5}
    given = fitted(clips, start, tmp_path / "run", learning_rate=NO_STEP, num_train_epochs=1, **weights, **augmented)
    assert main(given) == 0
    vectors, _ = by_stock(tmp_path / "run", read(rows["train"]), start)
    expected = logistic_regression(class_weight="balanced" if balanced else None)
    expected.fit(vectors, [label for _, label in rows["train"]])
    held_out, logits = by_stock(tmp_path / "run", read(rows["test"]))
    np.testing.assert_allclose(logits.softmax(-1), expected.predict_proba(held_out), atol=CLOSE)
    assert [labels[place] for place in logits.argmax(-1)] == expected.predict(held_out).tolist()
    section = summary_in(tmp_path / "run")["training"]["fitted_head"]
    assert section == {
        "clips": len(vectors), "windows": len(vectors), "accuracy": expected.score(vectors, [row[1] for row in rows["train"]]),
    }  # fmt: skip
    weights = load_file(tmp_path / "run" / "model.safetensors")
    assert (weights["classifier.layernorm.weight"] == 1).all()
    assert weights["classifier.layernorm.bias"].abs().max() < 1e-20


def test_independent_labels_are_fitted_one_by_one(data, start, tmp_path):
    clips, rows = table(tmp_path, data)
    given = fitted(clips, start, tmp_path / "run", learning_rate=NO_STEP, loss="binary_cross_entropy")
    assert main(given) == 0
    vectors, _ = by_stock(tmp_path / "run", read(rows["train"]), start)
    held_out, logits = by_stock(tmp_path / "run", read(rows["test"]))
    for place, label in enumerate("abc"):
        expected = logistic_regression().fit(vectors, [row[1] == label for row in rows["train"]])
        np.testing.assert_allclose(logits.sigmoid()[:, place], expected.predict_proba(held_out)[:, 1], atol=CLOSE)


def test_what_it_does_is_said_and_stands_on_the_card(data, start, tmp_path, capsys):
    assert main(fitted(data, start, tmp_path / "run")) == 0
    said = capsys.readouterr().out
    clips = summary_in(tmp_path / "run")["data"]["splits"]["train"]["clips"]
    section = summary_in(tmp_path / "run")["training"]["fitted_head"]
    assert f"from {start} with its classifier; the classifier is replaced by one that is fitted to" in said
    words = f"classifier fitted to {clips} training clips, accuracy {section['accuracy']:.3f} on these, "
    (line,) = [line for line in said.splitlines() if line.startswith("classifier fitted")]
    assert line.startswith(words)
    assert said.index("[4/6]") < said.index(line) < said.index("epoch 1/2")
    card = (tmp_path / "run" / "README.md").read_text()
    assert (
        f"was fitted, by logistic regression, to what the starting checkpoint made of {clips} training clips" in card
    )
    assert "| fitted head" not in card
    assert "| optimization: head start | fitted |" in card


def test_the_encoder_learns_from_the_first_step(data, start, tmp_path):
    assert main(fitted(data, start, tmp_path / "run")) == 0
    before, after = (load_file(folder / "model.safetensors") for folder in (start, tmp_path / "run"))
    assert [name for name in before if torch.equal(before[name], after[name])] == []


@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(data, start, tmp_path, capsys, dropout):
    settings = {"save_strategy": "steps", "save_steps": 2, "save_total_limit": 0, "hidden_dropout_prob": dropout}
    assert main(fitted(data, start, tmp_path / "whole", **settings)) == 0
    assert "classifier fitted to" in capsys.readouterr().out
    shutil.copytree(tmp_path / "whole" / "checkpoint-2", tmp_path / "resumed" / "checkpoint-2")
    assert main([*fitted(data, start, tmp_path / "resumed", **settings), "--resume_from_checkpoint", "true"]) == 0
    said = capsys.readouterr().out
    assert "classifier fitted" not in said
    assert "the classifier is replaced" not in said
    whole, resumed = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "resumed"))
    assert all(torch.equal(resumed[name], tensor) for name, tensor in whole.items())
    sections = [summary_in(tmp_path / name)["training"]["fitted_head"] for name in ("whole", "resumed")]
    assert sections[0] == sections[1]


def test_a_run_of_before_goes_on_and_one_that_began_otherwise_does_not(data, start, tmp_path, capsys):
    random = [*fitted(data, start, tmp_path / "run", head_start=None), "--save_steps", "2", "--save_strategy", "steps"]
    assert main(random) == 0
    (checkpoint,) = (tmp_path / "run").glob("checkpoint-*")
    identity = json.loads((checkpoint / IDENTITY_NAME).read_text())
    assert "head_start" not in identity["training settings"]["optimization"]
    assert main([*random, "--resume_from_checkpoint", "true"]) == 0
    assert main([*random, "--resume_from_checkpoint", "true", "--head_start", "fitted"]) == 2
    assert "is from a run with other training settings" in " ".join(capsys.readouterr().err.split())


def test_the_fit_is_part_of_the_time_of_the_training(data, start, tmp_path, monkeypatch):
    fit = ASTTrainer._fit_head

    def slow_fit(self):
        fit(self)
        self._seconds_of_fit += 1000

    monkeypatch.setattr(ASTTrainer, "_fit_head", slow_fit)
    assert main(fitted(data, start, tmp_path / "run")) == 0
    assert summary_in(tmp_path / "run")["time"]["training_seconds"] > 1000


def test_model_and_random_numbers_stay_as_they_are(data, start, tmp_path):
    argv = fitted(data, start, tmp_path / "run")
    of_run = prepare_run(argv, parse_arguments(argv)).trainer
    before = {name: tensor.clone() for name, tensor in of_run.model.state_dict().items()}
    of_run.model.train()
    state = torch.get_rng_state()
    fit_to_clips(of_run.model, of_run.feature_extractor, of_run.train_dataset, False, 4, 0, 0)
    assert torch.equal(torch.get_rng_state(), state)
    assert of_run.model.training
    assert all(torch.equal(before[name], tensor) for name, tensor in of_run.model.state_dict().items())


def test_everything_else_goes_on_as_ever(data, start, tmp_path, capsys):
    clips, _ = table(tmp_path, data)
    more = {"teacher": start, "teacher_weight": 0.5, "patchout_share": 0.2, "layer_decay": 0.75, "head_only_epochs": 1}
    given = fitted(clips, start, tmp_path / "run", mixup_probability=0.5, **more)
    assert main([*given, "--average_epochs", "1", "2"]) == 0
    assert "classifier fitted to 24 training clips" in capsys.readouterr().out
    section = summary_in(tmp_path / "run")["training"]
    assert section["teacher"]["weight"] == 0.5
    assert section["fitted_head"]["clips"] == 24


def test_adapters_learn_beside_it(data, start, tmp_path):
    pytest.importorskip("peft")
    both = {}
    for name, more in {"plain": {}, "lora": {"lora_rank": 2}}.items():
        assert main(fitted(data, start, tmp_path / name, learning_rate=NO_STEP, **more)) == 0
        both[name] = load_file(tmp_path / name / "model.safetensors")
    for name, tensor in both["plain"].items():
        torch.testing.assert_close(both["lora"][name], tensor, rtol=1e-4, atol=1e-5)


def test_all_windows_of_longer_clips_count(start, tmp_path, capsys):
    generator = np.random.default_rng(0)
    for place in range(12):
        waveform = generator.normal(size=(1 + 2 * (place % 2)) * WINDOW) / (4 + place % 3)
        soundfile.write(tmp_path / f"{place:02d}.wav", waveform.astype(np.float32), 16_000, subtype="FLOAT")
    with open(tmp_path / "clips.csv", "w") as file:
        file.write("path,label,split\n")
        for place in range(12):
            file.write(f"{tmp_path / f'{place:02d}.wav'},{'ab'[place // 2 % 2]},{'train' if place < 8 else 'test'}\n")
    for windows, number in {"all": 16, "random": 8, "beginning": 8}.items():
        given = fitted(tmp_path / "clips.csv", start, tmp_path / windows, clip_windows=windows)
        assert main(given) == 0
        section = summary_in(tmp_path / windows)["training"]["fitted_head"]
        assert (section["clips"], section["windows"]) == (8, number)
    assert "classifier fitted to 8 training clips in 16 windows, accuracy" in capsys.readouterr().out


def test_windows_of_marked_recordings_are_fitted_to(start, tmp_path):
    recordings = write_marked(tmp_path / "recordings", TIMES * 2)
    assert main(fitted(recordings, start, tmp_path / "run", marks="beside", validation_fraction=0.3)) == 0
    section = summary_in(tmp_path / "run")["training"]["fitted_head"]
    assert section["clips"] == summary_in(tmp_path / "run")["data"]["splits"]["train"]["clips"]
    assert section["mean_average_precision"] > 0.9  # two tones over noise


def finished_features(labels):
    generator = np.random.default_rng(0)
    clips = [(-5 + generator.normal(size=(48, 128))).astype(np.float32) for _ in labels]
    return datasets.Dataset.from_dict({"features": clips, "label": labels})


def test_finished_features_and_a_label_that_no_clip_has(start, tmp_path):
    data = finished_features([["a"], ["b"], ["a", "b"], []] * 6)
    fields = {name: value for name, value in FIELDS.items() if name not in SIZES}
    fields |= {"features_column_name": "features", "eval_fraction": 0.25, "labels": ["a", "b", "never"]}
    fields |= {"model_name_or_path": str(start), "head_start": "fitted", "learning_rate": NO_STEP}
    summary = fine_tune(data, output_dir=tmp_path / "run", **fields)
    clips = summary["data"]["splits"]["train"]["clips"]
    assert summary["training"]["fitted_head"]["clips"] == clips
    weights = load_file(tmp_path / "run" / "model.safetensors")
    never = weights["classifier.dense.weight"][2], weights["classifier.dense.bias"][2]
    assert never[0].abs().max() < 1e-20
    assert never[1].sigmoid().item() == pytest.approx(0.5 / (clips + 1))
    assert weights["classifier.dense.weight"][:2].abs().amax(dim=1).min() > 1e-3


def test_windows_that_are_drawn_have_the_frequencies_of_all():
    labels = [[0]] * 50 + [[1]] * 950 + [[1, 2]] + [[]] * 10
    drawn = fitted_head.drawn_windows(labels, 400, seed=0)
    assert drawn.tolist() == sorted(set(drawn.tolist()))
    assert 400 <= len(drawn) <= 401
    assert 10 <= (drawn < 50).sum() <= 32  # of 20 that are expected
    assert 1000 in drawn  # the only one of its label
    assert fitted_head.drawn_windows(labels, 400, seed=0).tolist() == drawn.tolist()
    assert fitted_head.drawn_windows(labels, 400, seed=1).tolist() != drawn.tolist()
    assert len(fitted_head.drawn_windows(labels, 5000, seed=0)) == len(labels)


def test_of_many_clips_some_are_taken(data, start, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(fitted_head, "MOST_WINDOWS", 7)
    assert main(fitted(data, start, tmp_path / "run")) == 0
    assert summary_in(tmp_path / "run")["training"]["fitted_head"]["clips"] == 7
    assert "classifier fitted to 7 training clips, accuracy" in capsys.readouterr().out


@pytest.mark.parametrize(("faulty", "words"), [(2, "2 of 24 training clips are not"), (None, "Pass another --model")])
def test_vectors_that_are_not_numbers_end_it_in_words(data, start, tmp_path, monkeypatch, capsys, faulty, words):
    compute = fitted_head.vectors_and_targets

    def diverged(*arguments):
        vectors, targets = compute(*arguments)
        vectors[:faulty] = np.nan
        return vectors, targets

    monkeypatch.setattr(fitted_head, "vectors_and_targets", diverged)
    clips, rows = table(tmp_path, data)
    assert main(fitted(clips, start, tmp_path / "run")) == 1
    said = capsys.readouterr().err
    assert words in said
    assert faulty is None or all(path in said for path, _ in rows["train"][:2])


def test_a_dry_run_does_not_fit(data, start, tmp_path, capsys, monkeypatch, hasty_estimates):
    monkeypatch.setattr(trainer, "fit_to_clips", None)
    assert main([*fitted(data, start, tmp_path / "run"), "--dry_run", "true"]) == 0
    assert "heard once more for --head_start fitted, and the fit itself" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--loss", "label_sets"], "with --loss label_sets the heads of the sets begin with random weights"),
        (["--head", "frame"], "with --head frame a frame head is not fitted before the first step"),
        (["--streaming", "true"], "Pass --head_start loaded, or leave out --streaming"),
        (
            ["--model_name_or_path", "", *SMALL],
            "none was given: random weights know nothing of sounds. Pass --model_name_or",
        ),
    ],
)
def test_where_it_makes_no_sense_it_is_refused(data, start, tmp_path, capsys, more, words):
    with pytest.raises(SystemExit) as ended:
        raise SystemExit(main([*fitted(data, start, tmp_path / "run"), *more]))
    assert ended.value.code == 2
    assert words in capsys.readouterr().err


def test_a_pretraining_refuses_it(data, tmp_path, capsys):
    assert pretrain(flags(data, tmp_path / "run", head_start="fitted")) == 2
    assert "head_start='fitted' was given, but it is about a classifier" in capsys.readouterr().err


def test_a_data_set_without_clips_as_they_are_is_refused(tmp_path):
    with pytest.raises(ValueError, match="but Clips does not give each clip as it is. Pass an ASTDataset"):
        build_trainer(tmp_path, {"head_start": "fitted"})


def test_a_model_that_is_shared_out_is_refused_when_it_is_trained(data, start, tmp_path, monkeypatch):
    argv = fitted(data, start, tmp_path / "run")
    of_run = prepare_run(argv, parse_arguments(argv)).trainer
    monkeypatch.setattr(trainer, "DTensor", torch.nn.Parameter)  # as FSDP leaves parameters after an evaluation
    with pytest.raises(ValueError, match="FSDP has shared it out already, .*Train first, or pass head_start='loaded'"):
        of_run.train()


def test_a_trainer_that_only_scores_needs_no_training_clips(data, start, tmp_path):
    argv = fitted(data, start, tmp_path / "run")
    of_run = prepare_run(argv, parse_arguments(argv)).trainer
    of_run.train_dataset = None
    of_run._refuse_fit()


def test_a_start_of_another_name_is_refused():
    with pytest.raises(ValueError, match="head_start='fit' is unknown. Pass 'loaded' or 'fitted'"):
        OptimizationArguments(head_start="fit")


def test_a_model_that_does_not_classify_or_is_split_is_refused(data, start, tmp_path):
    argv = fitted(data, start, tmp_path / "run")
    of_run = prepare_run(argv, parse_arguments(argv)).trainer
    of_run.is_deepspeed_enabled = True
    with pytest.raises(ValueError, match="which DeepSpeed does not leave there. Pass --head_start loaded"):
        of_run._refuse_fit()
    of_run.model.config.problem_type = "regression"
    with pytest.raises(ValueError, match="with the problem_type 'regression' has no classifier of clips, expected"):
        of_run._refuse_fit()
    of_run.fits_head = False
    of_run._refuse_fit()


def vectors_of(number, seed=0):
    generator = np.random.default_rng(seed)
    return generator.normal(3, 5, size=(number, 6)) * np.arange(1, 7) * [1, 1, 1, 1, 1, 0]  # the last never changes


@pytest.mark.parametrize("problem_type", [EXCLUSIVE, INDEPENDENT])
def test_a_share_counts_as_clips_of_both_kinds(problem_type):
    """Shares of thirds are the same as three clips, of which each has the label or not."""
    vectors, generator = vectors_of(40), np.random.default_rng(1)
    thirds = generator.multinomial(3, [0.5, 0.3, 0.2], size=40)
    head = fit_linear_head(vectors, (thirds / 3).astype(np.float32), 3, problem_type)
    scaler = StandardScaler().fit(vectors)
    standardised = scaler.transform(np.repeat(vectors, 3, axis=0))
    labels = np.concatenate([np.repeat(np.arange(3), of_clip) for of_clip in thirds])
    found = probabilities(head, vectors, problem_type)
    weight = np.full(len(labels), 1 / 3)
    if problem_type == EXCLUSIVE:
        expected = LogisticRegression(max_iter=1000).fit(standardised, labels, weight)
        np.testing.assert_allclose(found, expected.predict_proba(scaler.transform(vectors)), atol=CLOSE)
        return
    for label in range(3):
        expected = LogisticRegression(max_iter=1000).fit(standardised, labels == label, weight)
        np.testing.assert_allclose(
            found[:, label], expected.predict_proba(scaler.transform(vectors))[:, 1], atol=CLOSE
        )


def test_few_clips_and_labels_without_any_have_sane_scores():
    vectors = vectors_of(4)
    head = fit_linear_head(vectors, np.array([0, 1, 3, 3]), 5, EXCLUSIVE)
    found = probabilities(head, vectors)
    assert np.isfinite(found).all()
    assert found.argmax(axis=1).tolist() == [0, 1, 3, 3]
    assert (found[:, [2, 4]] < 1 / 8).all()
    always = fit_linear_head(vectors, np.array([[1, 0], [1, 0], [1, 0], [1, 1]], np.float32), 2, INDEPENDENT)
    np.testing.assert_allclose(probabilities(always, vectors, INDEPENDENT)[:, 0], 4.5 / 5)


def test_what_is_no_more_than_rounding_has_no_say():
    vectors, labels = vectors_of(40), np.arange(40) % 3
    vectors[:, 4] = 1 + 1e-7 * labels  # in float32, as the model has it, the same number for all
    head = fit_linear_head(vectors, labels, 3, EXCLUSIVE)
    others = fit_linear_head(np.delete(vectors, 4, axis=1), labels, 3, EXCLUSIVE)
    np.testing.assert_allclose(
        probabilities(head, vectors), probabilities(others, np.delete(vectors, 4, 1)), atol=CLOSE
    )


def test_one_label_alone_is_refused():
    with pytest.raises(ValueError, match="needs clips of two labels to tell apart, and all 4 have the same"):
        fit_linear_head(vectors_of(4), np.array([1, 1, 1, 1]), 3, EXCLUSIVE)
