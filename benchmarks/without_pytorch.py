"""What `ast-tag` of one clip costs: a checkpoint folder beside a file of `ast-export --waveform`, whole processes.

    python -m benchmarks.without_pytorch runs/drums drums.onnx finetune/sample_data/drums/snare/FluidR3_474.flac
    python -m benchmarks.without_pytorch runs/drums drums.onnx CLIP --runtime_python PYTHON_WITHOUT_PYTORCH

Processor seconds (user and system) and peak memory are those that the system counts for the process; the two take turns, and of
each the least of several runs is told, as what else the machine does only adds to it. Results of both are compared.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def measured(python: str, model: str, clip: str) -> tuple[float, float, dict[str, float]]:
    """Run `ast-tag` once.

    Args:
        python (`str`): the interpreter.
        model (`str`): folder or file.
        clip (`str`): audio file.

    Returns:
        Processor seconds, peak memory in MB, and the scores by label.
    """
    command = [python, "-m", "modeling_ast.run_tagging", clip, "--model_name_or_path", model, "--format", "jsonl"]
    command += ["--top_k", "1000"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment) as process:
        printed = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}.")
    labels = json.loads(printed.splitlines()[0])["labels"]
    return (
        usage.ru_utime + usage.ru_stime,
        usage.ru_maxrss / 1024,
        {tag["label"]: tag["score"] for tag in labels},
    )


def main():
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", help="checkpoint folder")
    parser.add_argument("file", help="the same model by ast-export --waveform")
    parser.add_argument("clip", help="audio file")
    parser.add_argument("--runtime_python", default=sys.executable, help="interpreter for the file")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    runs = {"folder": (sys.executable, args.folder), "file": (args.runtime_python, args.file)}
    found = {name: [] for name in runs}
    for _ in range(args.rounds + 1):  # the first one fills caches
        for name, (python, model) in runs.items():
            found[name].append(measured(python, model, args.clip))
    least = {name: [min(each[which] for each in rows[1:]) for which in (0, 1)] for name, rows in found.items()}
    print(f"{'':8}{'processor s':>14}{'peak MB':>10}")
    for name, (seconds, megabytes) in least.items():
        print(f"{name:8}{seconds:14.2f}{megabytes:10.0f}")
    ratios = [least["file"][which] / least["folder"][which] for which in (0, 1)]
    print(f"{'ratio':8}{ratios[0]:14.3f}{ratios[1]:10.3f}")
    scores = [found[name][0][2] for name in runs]
    print(f"largest difference of a score: {max(abs(scores[0][label] - scores[1][label]) for label in scores[0]):.1e}")


if __name__ == "__main__":
    main()
