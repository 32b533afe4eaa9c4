"""A masked pretraining from a folder of recordings without labels to a checkpoint that a fine-tuning starts from."""

import json
import re
import shutil
from types import SimpleNamespace

import datasets
import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file
from tiny_trainings import SIZES, summary_in, write_recipe, write_tones

from finetune.arguments.command_line import parse_arguments
from finetune.arguments.groups import FINE_TUNING, PRETRAINING
from finetune.clip_sets.audio_clips import AudioClips
from finetune.clip_sets.clip_set import Checks
from finetune.clip_sets.row_clips import advice_on_rows
from finetune.clip_sets.unlabelled import MaskedCollator, Masking, UnlabelledClips
from finetune.run_finetune import main as finetune
from finetune.run_pretrain import main
from finetune.sources.splits import load_splits
from finetune.training.losses import masked_modeling_loss
from modeling_ast import ASTConfig, ASTFeatureExtractor, ASTForMaskedSpectrogramModeling
from modeling_ast.audio import read_audio
from modeling_ast.layers.patch_masks import draw_patch_mask

SEED, PATCH = 3, 16
TRAINED, HELD_OUT = 12, 4
LONGEST, SHORTEST = 0.6, 0.2  # s; the model hears 48 frames


def write_recordings(folder):
    """Noise in a band of each recording, of several lengths, at several depths."""
    generator = np.random.default_rng(0)
    for number, length in enumerate(np.linspace(LONGEST, SHORTEST, TRAINED + HELD_OUT)):
        place = folder / ("deep/er" if number % 2 else ".")
        place.mkdir(parents=True, exist_ok=True)
        seconds = np.arange(int(16_000 * length)) / 16_000
        clip = 0.3 * np.sin(2 * np.pi * (200 + 300 * number) * seconds) + 0.01 * generator.standard_normal(
            len(seconds)
        )
        soundfile.write(place / f"{number}.wav", clip.astype(np.float32), 16_000)
    return folder


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    return write_recordings(tmp_path_factory.mktemp("recordings"))


@pytest.fixture(scope="module")
def pretrained(recordings, tmp_path_factory):
    """The folder of a pretraining of two epochs, with both checkpoints."""
    place = tmp_path_factory.mktemp("pretrained")
    recipe = write_recipe(
        place, recordings, seed=SEED, eval_fraction=0.25, padding="longest", save_total_limit=2, save_strategy="epoch"
    )
    assert main([recipe]) == 0
    return place / "run"


def stopped(capsys, *words):
    """What a command line that cannot be obeyed is answered."""
    sizes = [f"--{name}={value}" for name, value in SIZES.items()]
    assert main([*sizes, "--use_cpu=true", *map(str, words)]) == 2
    return capsys.readouterr().err


def masked_clips(recordings, **fields):
    """The splits that a pretraining on these makes of them."""
    flags = ["--dataset_name", str(recordings), "--output_dir", "unused", "--eval_fraction", "0.25"]
    splits, _ = load_splits(parse_arguments(flags, PRETRAINING).data, SEED)
    masking = Masking(**{"share": 0.75, "cluster_sides": (1, 2), "patch_size": PATCH} | fields)
    return {side: UnlabelledClips(rows, masking) for side, rows in splits.items()}


def test_each_epoch_is_scored_on_clips_that_are_not_trained_on(pretrained):
    summary = summary_in(pretrained)
    assert [{"eval_matching_accuracy", "eval_reconstruction_error"} <= row.keys() for row in summary["history"]] == [
        True
    ] * 2
    sizes = {name: split["clips"] for name, split in summary["data"]["splits"].items()}
    assert sizes == {"train": TRAINED, "test": HELD_OUT}
    assert summary["labels"] == []
    assert summary["training"]["loss"] == "masked_modeling_loss"


def test_the_scores_are_those_of_each_held_out_clip_by_itself(pretrained, recordings):
    model = ASTForMaskedSpectrogramModeling.from_pretrained(pretrained).eval()
    extractor = ASTFeatureExtractor.from_pretrained(pretrained)
    held_out = masked_clips(recordings)["eval"]
    errors, found, chances = [], [], []
    for index in range(HELD_OUT):
        waveform = torch.from_numpy(read_audio(held_out.name(index), 16_000))[None]
        raw, frames = extractor.log_mel(waveform, torch.tensor([waveform.shape[1]]), extractor.max_length, None)
        values = extractor.normalize(raw)
        columns = frames.item() // PATCH
        mask = draw_patch_mask(np.random.default_rng((101, SEED, index)), (8, columns))
        with torch.no_grad():
            output = model(values, patches_masked=torch.from_numpy(mask.reshape(1, -1)))
        patches = values[0].numpy().T[:, : columns * PATCH].reshape(8, PATCH, columns, PATCH).transpose(0, 2, 1, 3)
        differences = output.reconstruction[0].numpy().reshape(8, columns, -1) - patches.reshape(8, columns, -1)
        errors.append(np.mean(differences[mask] ** 2))
        found.append(output.matching_accuracies.item())
        chances.append(1 / mask.sum())
    evaluation = summary_in(pretrained)["evaluation"]
    assert evaluation["metrics"]["reconstruction_error"] == pytest.approx(
        np.mean(errors), rel=1e-4
    )  # float32, in batches
    assert evaluation["metrics"]["matching_accuracy"] == pytest.approx(np.mean(found), abs=1e-6)
    assert evaluation["chance"] == pytest.approx(np.mean(chances))
    scored = evaluation["metrics"]
    assert scored["loss"] == pytest.approx(scored["matching_loss"] + 10 * scored["reconstruction_error"])


def test_masks_are_a_function_of_seed_epoch_and_clip(recordings):
    extractor = ASTFeatureExtractor(max_length=48)
    train = masked_clips(recordings)["train"].dataset(extractor, seed=SEED)
    masks = {key: train[key]["patches_masked"] for key in [(1, 5), (1, 5), (2, 5), 5]}
    grid = masks[5].shape
    for key, drawn_by in {(1, 5): (100, SEED, 1, 5), (2, 5): (100, SEED, 2, 5), 5: (101, SEED, 5)}.items():
        expected = draw_patch_mask(np.random.default_rng(drawn_by), grid, 0.75, (1, 2))
        assert np.array_equal(masks[key], expected)
    assert len({mask.tobytes() for mask in masks.values()}) == 3


@pytest.mark.parametrize("padding", ["max_length", "longest"])
def test_padding_is_never_hidden(recordings, padding):
    extractor = ASTFeatureExtractor(max_length=80, padding=padding)
    train = masked_clips(recordings)["train"].dataset(extractor, seed=SEED)
    items = [train[(0, index)] for index in range(3)]
    hidden = MaskedCollator(extractor, PATCH)(items)["targets"]["patches_masked"].reshape(3, 8, -1)
    widths = [item["patches_masked"].shape[1] for item in items]
    assert len(set(widths)) > 1
    assert hidden.shape[2] == (5 if padding == "max_length" else max(widths))
    for mask, item, width in zip(hidden, items, widths, strict=True):
        assert np.array_equal(mask[:, :width], item["patches_masked"])
        assert not mask[:, width:].any()


def test_a_resumed_pretraining_ends_in_the_same_weights(pretrained, recordings, tmp_path):
    recipe = write_recipe(tmp_path, recordings, seed=SEED, eval_fraction=0.25, padding="longest")
    first, last = sorted(pretrained.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    shutil.copytree(first, tmp_path / "run" / first.name)
    assert main([recipe, "--resume_from_checkpoint", "true"]) == 0
    resumed, whole = (load_file(folder / "model.safetensors") for folder in (tmp_path / "run", pretrained))
    assert resumed.keys() == whole.keys()
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)
    assert summary_in(tmp_path / "run")["evaluation"]["metrics"] == summary_in(pretrained)["evaluation"]["metrics"]
    assert not torch.equal(load_file(first / "model.safetensors")["mask_embedding"], whole["mask_embedding"])


def test_it_is_not_resumed_with_another_share(pretrained, recordings, tmp_path, capsys):
    recipe = write_recipe(tmp_path, recordings, seed=SEED, eval_fraction=0.25, padding="longest", masked_share=0.5)
    assert main([recipe, "--resume_from_checkpoint", str(next(pretrained.glob("checkpoint-*")))]) == 2
    assert "is from a run with other training settings" in capsys.readouterr().err


def test_a_fine_tuning_starts_from_the_encoder_and_says_so(pretrained, tmp_path, capsys):
    recipe = write_recipe(
        tmp_path, write_tones(tmp_path / "tones", "ab", 5), **dict.fromkeys(set(SIZES) - {"max_length"}),
        model_name_or_path=str(pretrained), num_train_epochs=1, learning_rate=0.0,
    )  # fmt: skip
    assert finetune([recipe]) == 0
    printed = capsys.readouterr().out
    assert f"from {pretrained} with a new classifier, without the heads of its pretraining" in printed
    start, end = (load_file(folder / "model.safetensors") for folder in (pretrained, tmp_path / "run"))
    encoder = {name for name in start if name.startswith("audio_spectrogram_transformer.")}
    assert len(encoder) > 10
    assert all(torch.equal(start[name], end[name]) for name in encoder)
    assert {name.split(".")[0] for name in end.keys() - encoder} == {"classifier"}

    again = [
        f"--output_dir={tmp_path / 'again'}",
        f"--model_name_or_path={tmp_path / 'run'}",
        "--max_steps=1",
        "--use_cpu=true",
    ]
    assert main([*again, f"--dataset_name={tmp_path / 'tones'}"]) == 0
    assert f"from {tmp_path / 'run'} with new pretraining heads" in capsys.readouterr().out
    assert ASTConfig.from_pretrained(tmp_path / "again").problem_type is None
    assert summary_in(tmp_path / "again")["labels"] == []
    assert (
        "It was pretrained further from the local checkpoint `./run`."
        in (tmp_path / "again" / "README.md").read_text()
    )


def test_the_card_says_what_was_heard_and_how_it_scored(pretrained):
    card = (pretrained / "README.md").read_text()
    assert "It was pretrained without labels, as SSAST" in card
    assert "78.1 % of the patches of each clip were hidden, in squares of 3 to 5 patches a side" in card
    seconds = sum(split["seconds"] for split in summary_in(pretrained)["data"]["splits"].values())
    assert seconds == pytest.approx((LONGEST + SHORTEST) / 2 * (TRAINED + HELD_OUT), abs=0.01)
    assert f"| `train` | {TRAINED} | " in card
    metrics = summary_in(pretrained)["evaluation"]["metrics"]
    assert f"| Matching accuracy | {metrics['matching_accuracy']:.4f} |" in card
    assert f"| Reconstruction error | {metrics['reconstruction_error']:.4f} |" in card
    assert f"a blind guess finds {summary_in(pretrained)['evaluation']['chance']:.4f}" in card
    assert "with labels" not in card


def test_the_recipe_that_it_saves_is_its_own(pretrained):
    assert (pretrained / "recipe.yaml").read_text().startswith("# ast-pretrain recipe.yaml\n")
    arguments = parse_arguments([str(pretrained / "recipe.yaml")], PRETRAINING)
    assert arguments.saved_by_a_run
    assert json.loads((pretrained / "run_summary.json").read_text())["command"].startswith("ast-pretrain ")


def test_the_loss_is_the_mean_of_both_tasks():
    generator = np.random.default_rng(0)
    matching, errors = generator.random(5), generator.random(5)
    outputs = SimpleNamespace(matching_losses=torch.tensor(matching), reconstruction_errors=torch.tensor(errors))
    loss = masked_modeling_loss(outputs, {}, reconstruction_weight=2.5)
    assert loss.item() == pytest.approx(np.mean(matching + 2.5 * errors))


def test_the_weight_of_the_reconstruction_is_trained_with(recordings, tmp_path):
    recipe = write_recipe(
        tmp_path, recordings, max_steps=1, num_train_epochs=None, save_strategy="no", logging_strategy="steps"
    )
    losses = []
    for weight in (0, 1, 2):
        out = tmp_path / str(weight)
        assert main([recipe, "--logging_steps=1", f"--output_dir={out}", f"--reconstruction_weight={weight}"]) == 0
        losses.append(next(row["loss"] for row in summary_in(out)["history"] if "loss" in row))
    assert losses[2] - losses[1] == pytest.approx(losses[1] - losses[0], abs=2e-4)  # the log has four digits
    assert losses[1] > losses[0] > 1


def test_splits_of_folders_and_of_data_sets_without_labels_are_found(recordings, tmp_path):
    halves = tmp_path / "halves"
    for name, place in {"train": "deep", "test": "."}.items():
        (halves / name).mkdir(parents=True)
        for file in (recordings / place).rglob("*.wav" if place == "deep" else "?.wav"):
            shutil.copy(file, halves / name)
    assert {side: len(split) for side, split in masked_clips(halves).items()} == {"train": 8, "eval": 10}
    files = sorted(map(str, recordings.rglob("*.wav")))
    rows = datasets.Dataset.from_dict({"audio": files, "species": ["owl"] * len(files)})
    rows.cast_column("audio", datasets.Audio(decode=False)).save_to_disk(tmp_path / "saved")
    assert {side: len(split) for side, split in masked_clips(tmp_path / "saved").items()} == {"train": 12, "eval": 4}


def test_a_file_with_several_annotations_is_heard_once(recordings, tmp_path):
    """Its rows differ in what is not read here, the labels; a file in two splits that the data says is still refused."""
    files = sorted(map(str, recordings.rglob("*.wav")))
    rows = [(file, f"bird {number}", "") for number in range(3) for file in files]
    table = tmp_path / "annotations.csv"

    def written(rows, *columns):
        lines = [",".join(["path", "species", *columns]), *(",".join(row[: 2 + len(columns)]) for row in rows)]
        table.write_text("\n".join(lines) + "\n")

    written(rows)
    assert {side: len(split) for side, split in masked_clips(table).items()} == {"train": 12, "eval": 4}
    flags = ["--dataset_name", str(table), "--output_dir", "unused", "--eval_fraction", "0.25"]
    assert "48 rows of 16 clips, each heard once" in load_splits(parse_arguments(flags, PRETRAINING).data, SEED)[1]
    written([(file, name, "test" if file in files[:5] else "train") for file, name, _ in rows], "split")
    assert {side: len(split) for side, split in masked_clips(table).items()} == {"train": 11, "eval": 5}
    written([(file, name, "test" if name == "bird 1" else "train") for file, name, _ in rows], "split")
    assert {side: len(split) for side, split in masked_clips(table).items()} == {"train": 16, "eval": 16}


def test_advice_names_no_flag_that_is_refused(recordings, tmp_path):
    """A split to choose on is of no use here, nor are marks."""
    files = sorted(map(str, recordings.rglob("*.wav")))
    table = tmp_path / "splits.csv"
    splits = ["train"] * 8 + ["test"] * 4 + ["dev"] * 4
    table.write_text("path,split\n" + "".join(f"{file},{split}\n" for file, split in zip(files, splits, strict=True)))
    flags = ["--dataset_name", str(table), "--output_dir", "unused"]
    arguments = parse_arguments(flags, PRETRAINING)
    rows, words = load_splits(arguments.data, SEED)
    assert (
        "without 'dev' (4 clips), which takes part if named with --train_split_name dev or --eval_split_name" in words
    )
    assert "validation_split_name" not in words
    copies = tmp_path / "marked"
    shutil.copytree(recordings, copies)
    for file in copies.rglob("*.wav"):
        file.with_suffix(".txt").write_text("0.0\t0.1\tbird\n")
    flags = ["--dataset_name", str(copies), "--output_dir", "unused"]
    side = AudioClips(load_splits(parse_arguments(flags, PRETRAINING).data, SEED)[0]["train"])
    for command, marked in ((PRETRAINING, False), (FINE_TUNING, True)):
        notes = advice_on_rows({"train": side}, Checks(parse_arguments(flags, command).data, None, None))
        assert any("--marks beside" in note for note in notes) == marked


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--label_column_name species", "label_column_name='species' was given, but ast-pretrain reads no labels. Leave it out"),
        ("--train_sampling_strategy class_balanced", "class_balanced' was given, but ast-pretrain reads no labels"),
        ("--set_shares a=2", r"set_shares=.* was given, but ast-pretrain reads no labels\. Leave it out"),
        ("--mixup_alpha 5", r"mixup_alpha is about mixup_probability, which ast-pretrain does not do: .* Leave it out\."),
        ("--teacher_temperature 3", r"teacher_temperature is about teacher, which ast-pretrain does not do: .* Leave it out"),
        ("--lora_alpha 3", r"lora_alpha is about lora_rank, which ast-pretrain does not do: .* Leave it out"),
        ("--masked_share 1", "masked_share=1 is not between 0 and 1"),
        ("--masked_share 0.01", "masked_share=0.01 hides none of the 24 patches .* Pass for example --masked_share 0.75"),
        ("--cluster_sides 5 3", r"cluster_sides=\[5, 3\] is not a least and a largest side"),
        ("--reconstruction_weight -1", "reconstruction_weight=-1 is negative"),
        ("--time_stride 10", "time_stride=10 of the model are not both 16.* Pass --frequency_stride 16 --time_stride 16"),
        ("--num_mel_bins 16", r"lasts 0.2 s, which is shorter than 2 patches of 16 frames"),
        ("--metric_for_best_model accuracy", "the best checkpoint of a pretraining is chosen by its loss"),
        ("--teacher runs/large", "teacher='runs/large' was given, but a teacher knows labels"),
        ("--dry_run", "dry_run=True was given, but it looks at labels"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_said_in_words(recordings, tmp_path, capsys, words, message):
    said = stopped(capsys, "--dataset_name", recordings, "--output_dir", tmp_path / "run", *words.split())
    assert said.startswith("ast-pretrain: ")
    assert re.search(message, said, re.DOTALL)
    assert not (tmp_path / "run").exists()


def test_a_folder_without_audio_is_refused(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    said = stopped(capsys, "--dataset_name", tmp_path / "empty", "--output_dir", tmp_path / "run")
    assert "and the folders below it hold no audio file" in said


def test_what_only_a_pretraining_knows_is_refused_by_a_fine_tuning(recordings, tmp_path, capsys):
    assert (
        finetune(["--dataset_name", str(recordings), "--output_dir", str(tmp_path / "run"), "--masked_share", "0.5"])
        == 2
    )
    assert (
        "masked_share belongs to ast-pretrain, and ast-finetune has no use for it. Leave it out."
        in capsys.readouterr().err
    )
