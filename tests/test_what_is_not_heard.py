"""Every command says what of a file it did not hear, in the same words: one small file of each kind through each."""

import json
import logging
import re
import shutil
from pathlib import Path

import forked_python
import numpy as np
import pytest
import soundfile
import torch
from flawed_audio import RATE, WORDS, write_flawed
from tiny_trainings import SIZES
from varied_model import vary_scores

from finetune import run_evaluate, run_finetune
from finetune.clip_sets.clip_notes import noted_in_words
from finetune.dry_runs.dry_run_report import audio_note_lines
from modeling_ast import ASTConfig, ASTFeatureExtractor, ASTForAudioClassification, register, run_tagging, unregister
from modeling_ast.audio import AudioNote, ffmpeg, files_of_each_kind, find_audio_files
from modeling_ast.audio.ffmpeg import FFmpegError
from modeling_ast.tagging.tagger import AudioTagger

TINY = SIZES | {"max_length": 96}
LESS = ("cut_off", "damaged", "left_out", "cancelled")  # kinds of which less is heard than the file holds
KINDS_IN_COUNTS = {
    "cut_off": "are cut off", "damaged": "are damaged", "left_out": "are heard only in part",
    "cancelled": "have channels that cancel or drown each other", "silent": "are silent",
    "header": "are heard in full, though their headers say something else",
}  # fmt: skip


@pytest.fixture(scope="module")
def complaints_of_ffmpeg():
    return {}


@pytest.fixture(autouse=True)
def ffmpeg_tries_once(monkeypatch, complaints_of_ffmpeg):
    """What the `ffmpeg` program could not decode it cannot decode later: bytes that it failed on are not given to it again."""
    decode_with_program = ffmpeg.decode_with_program

    def decode(content, *args):
        held = content.read(0, content.size)
        if held not in complaints_of_ffmpeg:
            try:
                return decode_with_program(content, *args)
            except FFmpegError as error:
                complaints_of_ffmpeg[held] = str(error)
        raise FFmpegError(complaints_of_ffmpeg[held])

    monkeypatch.setattr(ffmpeg, "decode_with_program", decode)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint")
    torch.manual_seed(0)
    model = ASTForAudioClassification(ASTConfig(**TINY, id2label={0: "a", 1: "b"}, label2id={"a": 0, "b": 1})).eval()
    extractor = ASTFeatureExtractor(max_length=96)
    noise = np.random.default_rng(5).normal(size=(8, RATE)) * np.linspace(0.01, 0.3, 8)[:, None]
    features = extractor(list(noise.astype(np.float32)), sampling_rate=RATE, return_tensors="pt")
    vary_scores(model, 3, lambda: model(**features).logits)
    model.save_pretrained(folder)
    extractor.save_pretrained(folder)
    return str(folder)


@pytest.fixture
def clips(tmp_path):
    """Folders of sound clips for a training, to which tests add a flawed one."""
    generator = np.random.default_rng(0)
    for split, number in (("train", 4), ("test", 2)):
        for label in "ab":
            (tmp_path / "clips" / split / label).mkdir(parents=True)
            for clip in range(number):
                samples = generator.uniform(-0.5, 0.5, 12_000) * (
                    1 if label == "a" else np.sin(np.arange(12_000) / 30)
                )
                soundfile.write(tmp_path / "clips" / split / label / f"{clip}.wav", samples, RATE)
    return tmp_path / "clips"


@pytest.fixture
def finetune(clips, tmp_path, capsys, hasty_estimates):
    """Run `ast-finetune` on the clips: exit code, output, error stream, and the run summary or dry-run report."""

    def finetune(*flags):
        fixed = [f"--{name}={value}" for name, value in TINY.items()]
        fixed += [
            "--dataset_name",
            str(clips),
            "--output_dir",
            str(tmp_path / "run"),
            "--num_train_epochs=1",
            "--use_cpu",
        ]
        fixed += ["--per_device_train_batch_size=4", "--overwrite_output_dir", "--save_strategy=no"]
        capsys.readouterr()
        code = run_finetune.main([*fixed, *flags])
        shown = capsys.readouterr()
        name = "dry_run/dry_run.json" if "--dry_run" in flags else "run_summary.json"
        report = json.loads((tmp_path / "run" / name).read_text()) if code == 0 else None
        return code, shown.out, shown.err, report

    return finetune


def one_line(text: str) -> str:
    return re.sub(r"\s+", " ", text)


# ast-tag


@pytest.mark.parametrize("output_format", ["text", "jsonl", "csv", "raven"])
def test_tagging_says_it_on_the_error_stream_and_tags_what_is_there(checkpoint, tmp_path, capsys, output_format):
    files = write_flawed(tmp_path)
    soundfile.write(tmp_path / "sound.wav", np.random.default_rng(0).uniform(-0.5, 0.5, RATE), RATE)
    flags = ["--format", output_format, *(["--output", str(tmp_path / "tables")] if output_format == "raven" else [])]
    assert run_tagging.main([str(tmp_path), "--model_name_or_path", checkpoint, "--device", "cpu", *flags]) == 0
    shown = capsys.readouterr()
    said = [line for line in shown.err.splitlines() if line.startswith("ast-tag: ")]
    assert len(said) == len(files)
    for kind in files:
        assert sum(line.startswith(f"ast-tag: {tmp_path / WORDS[kind]}") for line in said) == 1
    if output_format == "jsonl":
        rows = {row["file"]: row for row in map(json.loads, shown.out.splitlines())}
        # Both are silent in what is heard of them, and silence is not scored.
        silent = {str(files[kind]) for kind in ("silent", "cancelled")}
        assert all(len(row["labels"]) == 2 * (file not in silent) for file, row in rows.items())
        assert "notes" not in rows[str(tmp_path / "sound.wav")]
        for kind, path in files.items():
            (note,) = rows[str(path)]["notes"]
            assert note["kind"] == kind
            assert f"ast-tag: {note['text']}" in said
    elif output_format == "raven":
        assert len(list((tmp_path / "tables").iterdir())) == len(files) + 1
    else:
        without_rows = {"silent", "cancelled"} if output_format == "csv" else set()
        assert all((str(path) in shown.out) == (kind not in without_rows) for kind, path in files.items())


def test_strict_tagging_refuses_what_is_heard_less_of_and_tags_the_rest(checkpoint, tmp_path, capsys):
    files = write_flawed(tmp_path)
    flags = ["--format", "jsonl", "--strict_audio", "--model_name_or_path", checkpoint, "--device", "cpu"]
    assert run_tagging.main([str(tmp_path), *flags]) == 1
    tagged = {json.loads(line)["file"] for line in capsys.readouterr().out.splitlines()}
    assert tagged == {str(path) for kind, path in files.items() if kind not in LESS}


def test_the_channels_of_a_checkpoint_are_those_of_tagging_and_a_flag_has_the_last_word(checkpoint, tmp_path, capsys):
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, RATE).astype(np.float32)
    path, left = tmp_path / "cancelled.wav", tmp_path / "left.wav"
    soundfile.write(path, np.stack([noise, -noise], axis=1), RATE, subtype="FLOAT")
    soundfile.write(left, noise, RATE, subtype="FLOAT")
    folder = shutil.copytree(checkpoint, tmp_path / "checkpoint")
    ASTFeatureExtractor(max_length=96, channels="left").save_pretrained(folder)

    def tags(model, *flags):
        argv = [
            str(path),
            str(left),
            "--model_name_or_path",
            str(model),
            "--device",
            "cpu",
            "--format",
            "jsonl",
            *flags,
        ]
        assert run_tagging.main(argv) == 0
        rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        return rows[0]["labels"], rows[1]["labels"], rows[0].get("notes")

    for model, flags in ((folder, []), (checkpoint, ["--channels", "left"]), (checkpoint, ["--channels", "1"])):
        one, other, notes = tags(model, *flags)
        assert one == other
        assert notes is None
    one, other, notes = tags(folder, "--channels", "mean")
    assert one != other
    assert notes[0]["kind"] == "cancelled"
    with pytest.raises(SystemExit):
        run_tagging.main([str(path), "--model_name_or_path", checkpoint, "--channels", "middle"])
    assert "channels='middle' is none of mean, left, right" in capsys.readouterr().err


def test_one_file_that_cannot_be_decoded_or_scored_costs_no_other(checkpoint, tmp_path, monkeypatch):
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, (3, 2 * RATE)).astype(np.float32)
    paths = [tmp_path / f"{name}.wav" for name in ("one", "huge", "raises", "two")]
    for path, samples in zip(paths, [noise[0], noise[1] * 1e30, noise[1], noise[2]], strict=True):
        soundfile.write(path, samples, RATE, subtype="FLOAT")
    monkeypatch.setattr("modeling_ast.audio.reading.decode_recording", _raising("raises.wav"))
    tagger = AudioTagger.from_pretrained(checkpoint, "cpu")
    together, alone = list(tagger.tag_files(paths)), [*tagger.tag_files(paths[:1]), *tagger.tag_files(paths[3:])]
    assert [tags.file for tags in together] == [str(path) for path in paths]
    assert together[1].error.startswith(f"{paths[1]} has samples up to ")
    assert together[2].error.startswith(f"{paths[2]} cannot be decoded: MemoryError. There is not enough memory")
    for found, expected in zip([together[0], together[3]], alone, strict=True):
        assert found.error is None
        assert [tag.label for tag in found.labels] == [tag.label for tag in expected.labels]
        assert [tag.score for tag in found.labels] == pytest.approx([tag.score for tag in expected.labels], abs=1e-6)
    with torch.no_grad():
        tagger.model.classifier.dense.bias[0] = torch.nan
    (found,) = tagger.tag_files(paths[:1])
    assert found.error.startswith(f"{paths[0]} gets scores that are not numbers")


def _raising(name, error=MemoryError):
    """A decoder that fails on the file of this name."""
    from modeling_ast.audio import reading

    decode = reading.decode_recording

    def decode_or_raise(content, audio_format, called, *args):
        if called.endswith(name):
            raise error
        return decode(content, audio_format, called, *args)

    return decode_or_raise


# ast-finetune


def test_a_clip_of_which_several_things_are_said_counts_once():
    """As one in which two of the recordings that are joined in it are not heard."""
    notes = tuple(AudioNote("left_out", f"a.ogg: recording {number} of the 3 is not heard.") for number in (2, 3))
    (words,) = noted_in_words([notes], 4)
    assert words.startswith("1 of 4 clips are heard only in part:")
    assert all(note.text in words for note in notes)
    rows = [{"split": "train", "row": 1, "kind": note.kind, "text": note.text} for note in notes]
    assert "1 of 4 clips are heard only in part:" in [*audio_note_lines(rows, 4)]
    assert files_of_each_kind([notes, notes[:1]]) == {"left_out": 2}


@pytest.mark.parametrize(
    "flags", [(), ("--streaming",), ("--skip_bad_audio",), ("--waveform_cache=",), ("--dry_run",)]
)
def test_a_training_counts_names_and_lists_what_it_did_not_hear(clips, finetune, tmp_path, flags):
    kinds = [kind for kind in WORDS if kind != "cut_off"]
    files = write_flawed(clips / "train" / "a", kinds)
    if "--streaming" in flags:
        rows = [f"{path},{path.parent.name},{path.parts[-3]}" for path in find_audio_files(clips)]
        (tmp_path / "clips.csv").write_text("\n".join(["path,label,split", *rows]))
        flags = (*flags, "--dataset_name", str(tmp_path / "clips.csv"), "--shuffle_buffer=100")
    flags = [flag + str(tmp_path / "cache") if flag.endswith("=") and "cache" in flag else flag for flag in flags]
    code, output, error, report = finetune(*flags)
    assert code == 0, error
    for kind, path in files.items():
        assert f"1 of 17 clips {KINDS_IN_COUNTS[kind]}" in one_line(output)
        assert one_line(str(path.parent / WORDS[kind])) in one_line(output)
    rows = report["audio_notes"] if "--dry_run" in flags else report["data"]["audio_notes"]
    assert {row["kind"] for row in rows} == set(kinds)
    assert {row["split"] for row in rows} == {"train"}
    if "--dry_run" not in flags:
        assert {Path(row["file"]).name for row in rows} == {path.name for path in files.values()}
        assert str(tmp_path) not in json.dumps(rows), "where they lie is nobody's business"
        assert not re.search(r"^\S+ is silent", error, re.MULTILINE), "said before, and not once more in training"


@pytest.mark.parametrize("flags", [(), ("--waveform_cache=",), ("--streaming",), ("--dry_run",)])
@pytest.mark.parametrize("strict", [False, True])
def test_a_training_refuses_cut_off_clips_and_strictly_all_of_which_it_hears_less(
    clips, finetune, tmp_path, flags, strict
):
    files = write_flawed(clips / "train" / "a", LESS if strict else ["cut_off"])
    if "--streaming" in flags:
        rows = [f"{path},{path.parent.name},{path.parts[-3]}" for path in find_audio_files(clips)]
        (tmp_path / "clips.csv").write_text("\n".join(["path,label,split", *rows]))
        flags = (*flags, "--dataset_name", str(tmp_path / "clips.csv"), "--shuffle_buffer=100")
    flags = [flag + str(tmp_path / "cache") if flag.endswith("=") and "cache" in flag else flag for flag in flags]
    flags += ["--strict_audio"] if strict else []
    code, output, error, report = finetune(*flags)
    said = one_line(output + error)
    assert f"{len(files)} of {12 + len(files)} clips looked at cannot be used" in said
    assert "--skip_bad_audio" in said
    for kind, path in files.items():
        assert one_line(str(path.parent / WORDS[kind])) in said
    if "--dry_run" in flags:
        assert len(report["bad_clips"]) == len(files)
        return
    assert code == 2
    code, output, error, report = finetune(*flags, "--skip_bad_audio")
    assert code == 0, error
    skipped = report["data"]["skipped_clips"]
    assert {Path(clip["file"]).name for clip in skipped} == {path.name for path in files.values()}
    assert report["data"]["splits"]["train"]["clips"] == 8


def test_a_cache_tells_in_later_runs_what_was_said_when_it_was_filled(clips, finetune, tmp_path):
    write_flawed(clips / "train" / "a", ["damaged", "cancelled"])
    cache = f"--waveform_cache={tmp_path / 'cache'}"
    first = finetune(cache)
    with open(tmp_path / "cache" / "notes.jsonl", "ab") as file:
        file.write(b'{"key": "00')  # as a kill leaves it
    second = finetune(cache)
    assert "14 decoded now" in first[1]
    assert ", 0 decoded now" in second[1]
    assert second[3]["data"]["audio_notes"] == first[3]["data"]["audio_notes"] != []
    # Another strictness takes the same samples, another channel is heard anew.
    code, _, error, _ = finetune(cache, "--strict_audio")
    assert code == 2
    assert "2 of 14 clips looked at cannot be used" in error
    code, output, _, report = finetune(cache, "--strict_audio", "--skip_bad_audio")
    assert ", 0 decoded now" in output
    assert len(report["data"]["skipped_clips"]) == 2
    code, output, _, report = finetune(cache, "--channels", "left")
    assert "14 decoded now" in output
    assert [row["kind"] for row in report["data"]["audio_notes"]] == ["damaged"]
    assert ", 0 decoded now" in finetune(cache, "--channels", "1")[1]


def test_the_channels_of_a_training_are_saved_and_are_those_of_what_starts_from_it(clips, finetune, tmp_path):
    write_flawed(clips / "train" / "a", ["cancelled"])
    code, output, _, report = finetune("--channels", "left")
    assert code == 0
    assert "cancel" not in output
    assert report["features"]["channels"] == "left"
    saved = json.loads((tmp_path / "run" / "preprocessor_config.json").read_text())
    assert saved["channels"] == "left"
    tagger = AudioTagger.from_pretrained(tmp_path / "run", "cpu")
    assert tagger.reader.channels == "left"
    code, output, error, _ = finetune("--channels", "right")
    assert code == 2
    assert "is mono, so there is no right channel in it" in error
    code, _, _, report = finetune()
    assert "channels" not in report["features"]
    assert "channels" not in json.loads((tmp_path / "run" / "preprocessor_config.json").read_text())
    assert "channels='middle' is none of mean, left" in finetune("--channels", "middle")[2]


@pytest.mark.parametrize("error", [ValueError, MemoryError, SystemError, RuntimeError])
@pytest.mark.parametrize("flags", [(), ("--waveform_cache=",), ("--dry_run",)])
def test_whatever_a_decoder_raises_in_a_training_is_an_error_of_that_clip(
    clips, finetune, tmp_path, monkeypatch, error, flags
):
    monkeypatch.setattr("modeling_ast.audio.reading.decode_recording", _raising("a/1.wav", error("array is too big")))
    flags = [flag + str(tmp_path / "cache") if flag.endswith("=") else flag for flag in flags]
    code, output, errors, report = finetune(*flags)
    said = one_line(output + errors)
    assert "2 of 12 clips looked at cannot be used" in said
    assert f"{clips}/train/a/1.wav cannot be decoded:" in said
    assert "array is too big" in said
    if "--dry_run" not in flags:
        assert code == 2
        code, _, _, report = finetune(*flags, "--skip_bad_audio")
        assert code == 0
        assert [Path(clip["file"]).name for clip in report["data"]["skipped_clips"]] == ["1.wav", "1.wav"]


def test_what_only_shows_in_the_loaders_processes_is_said_once_on_the_error_stream(clips, tmp_path, monkeypatch):
    write_flawed(clips / "train" / "a", ["silent", "header"])
    code = (
        "import sys; from finetune import run_finetune; from finetune.clip_sets import split_checks; split_checks.CLIPS_CHECKED = 0\n"
        "sys.exit(run_finetune.main(sys.argv[1:]))"
    )
    flags = [f"--{name}={value}" for name, value in TINY.items()]
    flags += ["--dataset_name", str(clips), "--output_dir", str(tmp_path / "run"), "--num_train_epochs=2", "--use_cpu"]
    flags += [
        "--normalization",
        "-6.0",
        "4.0",
        "--dataloader_num_workers=2",
        "--eval_strategy=epoch",
        "--save_strategy=no",
    ]
    run = forked_python.run(["-c", code, *flags])
    assert run.returncode == 0, run.stderr
    for kind in ("silent", "header"):
        assert run.stderr.count(str(clips / "train" / "a" / WORDS[kind])) == 1, run.stderr


# ast-evaluate


@pytest.mark.parametrize("flags", [[], ["--dataloader_num_workers=2"], ["--waveform_cache="]])
def test_an_evaluation_names_counts_and_lists_what_it_did_not_hear(
    clips, checkpoint, tmp_path, capfd, monkeypatch, flags
):
    monkeypatch.setattr(logging.getLogger(), "handlers", [])  # warnings go to the error stream, as outside tests
    files = write_flawed(clips / "test" / "b")
    flags = [flag + str(tmp_path / "cache") if flag.endswith("=") else flag for flag in flags]
    fixed = ["--dataset_name", str(clips), "--device", "cpu", "--output", str(tmp_path / "scores.json")]
    assert run_evaluate.main(["--model_name_or_path", checkpoint, checkpoint, *fixed, *flags]) == 0
    shown = capfd.readouterr()
    for kind, path in files.items():
        assert shown.err.count(str(path.parent / WORDS[kind])) == 1, "once, of two models"
        assert f"1 of 10 clips {KINDS_IN_COUNTS[kind]}" in shown.out
    notes = json.loads((tmp_path / "scores.json").read_text())["audio_notes"]
    assert {note["kind"] for note in notes} == files.keys()
    assert run_evaluate.main(["--model_name_or_path", checkpoint, *fixed, *flags, "--strict_audio"]) == 1
    assert "ast-evaluate: " in capfd.readouterr().err
    assert run_evaluate.main(["--model_name_or_path", checkpoint, *fixed, *flags, "--channels", "left"]) == 0
    assert "cancel" not in capfd.readouterr().out
    (clips / "test" / "b" / "empty.wav").touch()
    assert run_evaluate.main(["--model_name_or_path", checkpoint, *fixed, *flags]) == 1
    assert "empty.wav is empty" in capfd.readouterr().err
    flags += ["--skip_bad_audio", "--strict_audio"]
    assert run_evaluate.main(["--model_name_or_path", checkpoint, *fixed, *flags]) == 0
    assert "6 clips, the split 'test' but 5 that cannot be used" in capfd.readouterr().out
    skipped = json.loads((tmp_path / "scores.json").read_text())["skipped_clips"]
    assert {Path(clip["file"]).name for clip in skipped} == {"empty.wav", *(files[kind].name for kind in LESS)}


# The page, the pipeline, the export


def test_the_page_says_it_above_the_labels_and_refuses_silence_in_the_same_words(checkpoint, tmp_path):
    demo_page = pytest.importorskip("model_card.demo_page")
    tagger = AudioTagger.from_pretrained(checkpoint, "cpu")
    for kind, path in write_flawed(tmp_path).items():
        if kind in ("silent", "cancelled"):
            with pytest.raises(ValueError, match=f"^{re.escape(WORDS[kind])}"):
                demo_page.tag_recording(tagger, path)
            continue
        tags, _ = demo_page.tag_recording(tagger, path)
        assert len(tags.labels) == 2
        assert demo_page.message_html(tags).startswith(f'<p role="status">{WORDS[kind]}')


def test_the_pipeline_warns(checkpoint, tmp_path, caplog):
    from transformers import pipeline

    register()
    try:
        classifier = pipeline("audio-classification", model=checkpoint, device="cpu")
        files = write_flawed(tmp_path)
        for kind, path in files.items():
            caplog.clear()
            assert len(classifier(str(path))) == 2
            assert [message.startswith(str(tmp_path / WORDS[kind])) for message in caplog.messages] == [True]
    finally:
        unregister()


def test_the_export_warns_of_the_clips_that_it_compares_on(checkpoint, tmp_path, caplog):
    from modeling_ast.quantization import read_clips

    files = write_flawed(tmp_path)
    assert len(read_clips(list(files.values()), ASTFeatureExtractor(max_length=96))) == len(files)
    assert len(caplog.messages) == len(files)
    caplog.clear()
    left = ASTFeatureExtractor(max_length=96, channels="left")
    read_clips([files["cancelled"]], left)
    assert not caplog.messages
