"""Runs every command on one small file of each kind of which something is to be said, and prints what they say and do.

    python -m benchmarks.what_is_not_heard

It is the table of `docs/what_is_not_heard.md`; a command that does not say the words ends it.
"""

import contextlib
import io
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import soundfile

from .flawed_audio import RATE, write_flawed

MODEL = ["--hidden_size=32", "--num_hidden_layers=1", "--num_attention_heads=2", "--intermediate_size=64"]
TRAINING = [*MODEL, "--max_length=96", "--num_train_epochs=1", "--use_cpu"]
STRICT = "with `--strict_audio`"


def run(*command: str) -> str:
    """Output and error stream of a command of this kit, which may end with any exit code."""
    finished = subprocess.run([sys.executable, "-m", *command], capture_output=True, text=True)
    return finished.stdout + finished.stderr


def write_clips(folder: Path):
    """Sound clips of two classes."""
    generator = np.random.default_rng(1)
    for place in ("train/a", "train/b", "test/a", "test/b"):
        (folder / place).mkdir(parents=True)
        for number in range(4):
            samples = generator.uniform(-0.5, 0.5, 12_000) * np.sin(
                np.arange(12_000) / (3 if place[-1] == "a" else 30)
            )
            soundfile.write(folder / place / f"{number}.wav", samples, RATE)


def on_the_page(model: str, path: Path) -> tuple[bool, str]:
    """Whether the page takes a recording, and what it says of it."""
    from model_card.demo_page import tag_recording
    from modeling_ast.audio import AudioError
    from modeling_ast.tagging.tagger import AudioTagger

    with contextlib.redirect_stderr(io.StringIO()):
        tagger = AudioTagger.from_pretrained(model, "cpu")
    try:
        tags, _ = tag_recording(tagger, path)
    except AudioError as error:
        return False, str(error)
    return True, " ".join(note.text for note in tags.notes)


def what_is_done(folder: Path) -> tuple[dict[str, str], dict[str, dict[str, str]]]:
    """By kind the words, and what each command does with the file.

    Raises:
        RuntimeError: if a command does not say the words.
    """
    clips, model = folder / "clips", str(folder / "model")
    write_clips(clips)
    run("finetune.run_finetune", *TRAINING, "--dataset_name", str(clips), "--output_dir", model)
    files = write_flawed(clips / "test" / "a")
    training = [*TRAINING, "--dataset_name", str(clips), "--output_dir", str(folder / "run"), "--overwrite_output_dir"]
    scoring = ["--model_name_or_path", model, "--dataset_name", str(clips), "--device", "cpu", "--skip_bad_audio"]
    scoring += ["--output", str(folder / "scores.json")]
    words, done = {}, {}
    for strict in (False, True):
        flags = ["--strict_audio"] if strict else []
        tagging = run(
            "modeling_ast.run_tagging",
            *map(str, files.values()),
            "--model_name_or_path",
            model,
            "--format",
            "jsonl",
            *flags,
        )
        tagged = [json.loads(line) for line in tagging.splitlines() if line.startswith("{")]
        words |= {Path(row["file"]).stem: row["notes"][0]["text"] for row in tagged}
        evaluation = run("finetune.run_evaluate", *scoring, *flags)
        skipped = json.loads((folder / "scores.json").read_text()).get("skipped_clips", [])
        refused = run("finetune.run_finetune", *training, *flags)
        trained = run("finetune.run_finetune", *training, *flags, "--skip_bad_audio")
        summary = json.loads((folder / "run" / "run_summary.json").read_text())["data"]
        run("finetune.run_finetune", *training, *flags, "--skip_bad_audio", "--dry_run")
        dry_run = json.loads((folder / "run" / "dry_run" / "dry_run.json").read_text())
        for kind, path in files.items():
            left_out = path.name in {clip["file"] for clip in summary["skipped_clips"]}
            said = {
                "`ast-tag`": tagging,
                "training": refused if left_out else trained,
                "dry run": json.dumps([dry_run["bad_clips"], dry_run["audio_notes"]], ensure_ascii=False),
                "`ast-evaluate`": evaluation,
            }
            did = {
                "`ast-tag`": "tags" if path.stem in {Path(row["file"]).stem for row in tagged} else "refuses",
                "training": "refuses or skips" if left_out else "takes",
                "dry run": "refuses or skips" if path.name in json.dumps(dry_run["bad_clips"]) else "takes",
                "`ast-evaluate`": "refuses or skips" if path.name in {clip["file"] for clip in skipped} else "scores",
            }
            if not strict:
                takes, said["page"] = on_the_page(model, path)
                did["page"] = "tags" if takes else "refuses"
            sentence = words[kind].replace(str(path), path.name)
            for command, text in said.items():
                if sentence not in text.replace(str(path), path.name).replace('\\"', '"'):
                    raise RuntimeError(f"{command} does not say {sentence!r}:\n{text}")
            done.setdefault(kind, {}).update(
                {f"{command}, {STRICT}" if strict else command: action for command, action in did.items()}
            )
    return {kind: text.replace(str(files[kind]), files[kind].name) for kind, text in words.items()}, done


def main():
    with tempfile.TemporaryDirectory() as folder:
        words, done = what_is_done(Path(folder))
    print("| kind | what every command says |\n|---|---|")
    for kind, text in words.items():
        print(f"| `{kind}` | {text} |")
    columns = list(next(iter(done.values())))
    print("\n| kind | " + " | ".join(columns) + " |\n|---|" + "---|" * len(columns))
    for kind, actions in done.items():
        print(f"| `{kind}` | " + " | ".join(actions[column] for column in columns) + " |")


if __name__ == "__main__":
    main()
