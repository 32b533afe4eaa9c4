"""How alike a model's scores are in its folder and in files of `ast-export`, and in several versions of ONNX Runtime.

    python -m benchmarks.exported_scores finetune/sample_data/drums --models runs/drums drums.onnx drums-int8.onnx
    python -m benchmarks.exported_scores CLIPS --models runs/drums drums.onnx --pythons OLDEST/bin/python NEWEST/bin/python

Each model tags all clips, in a process of its own; files that take samples also by each of `--pythons`, interpreters of environments
which need no more than the extra `runtime`. All are compared with the first model.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VERSIONS = (
    "from importlib.metadata import version; import platform; "
    "print('Python', platform.python_version(), *(f'{name} {version(name)}' for name in ('onnxruntime', 'numpy')))"
)


def run(python: str, *words: str) -> str:
    """What a command of Python prints; what it says beside that is shown if it fails."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([python, *words], capture_output=True, text=True, env=environment)
    if done.returncode:
        raise SystemExit(f"{python} {' '.join(words)} ended with {done.returncode}: {done.stderr.strip()[-2000:]}")
    return done.stdout


def scores_of(python: str, model: str, clips: list[str]) -> dict[str, dict[str, float]]:
    """Tag clips by `ast-tag`.

    Args:
        python (`str`): the interpreter.
        model (`str`): folder or file.
        clips (`list[str]`): files and folders.

    Returns:
        Of each file the scores by label.
    """
    flags = ["--model_name_or_path", model, "--format", "jsonl", "--top_k", "10000"]
    lines = run(python, "-m", "modeling_ast.run_tagging", *clips, *flags).splitlines()
    tagged = map(json.loads, lines)
    return {line["file"]: {tag["label"]: tag["score"] for tag in line["labels"]} for line in tagged}


def compared(found: dict[str, dict[str, float]], expected: dict[str, dict[str, float]]) -> tuple[float, int]:
    """Say how alike the scores are.

    Args:
        found (`dict[str, dict[str, float]]`): from [`scores_of`].
        expected (`dict[str, dict[str, float]]`): likewise, of the same files.

    Returns:
        The largest difference of a score, and of how many files the best label is the same.
    """
    if found.keys() != expected.keys():
        raise SystemExit(f"Other files were tagged: {sorted(found.keys() ^ expected.keys())[:5]}")
    differences = [abs(scores[label] - found[file][label]) for file, scores in expected.items() for label in scores]
    kept = sum(
        max(scores, key=scores.get) == max(found[file], key=found[file].get) for file, scores in expected.items()
    )
    return max(differences), kept


def main(argv: list[str] | None = None) -> int:
    """Compare and print; see the module.

    Args:
        argv (`list[str]`, *optional*): arguments after the program's name, by default those of the process.

    Returns:
        0.
    """
    parser = argparse.ArgumentParser(prog="exported_scores", description=__doc__.splitlines()[0])
    parser.add_argument("clips", nargs="+", metavar="AUDIO_OR_FOLDER")
    parser.add_argument(
        "--models", nargs="+", required=True, metavar="DIR_OR_FILE", help="the first one is compared with"
    )
    parser.add_argument(
        "--pythons", nargs="+", default=[], metavar="PYTHON", help="interpreters that hear the files, too"
    )
    args = parser.parse_args(argv)
    first, *others = args.models
    expected = scores_of(sys.executable, first, args.clips)
    print(f"{len(expected)} files; compared with {first}, {run(sys.executable, '-c', VERSIONS).strip()}")
    print("| file | in | largest difference of a score | best label kept |\n|---|---|---|---|")
    files = [model for model in args.models if model.endswith(".onnx")]
    for python, models in ((sys.executable, others), *((python, files) for python in args.pythons)):
        versions = run(python, "-c", VERSIONS).strip()
        for model in models:
            largest, kept = compared(scores_of(python, model, args.clips), expected)
            print(f"| {Path(model).name} | {versions} | {largest:.1e} | {kept} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
