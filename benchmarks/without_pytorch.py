"""What `ast-tag` of clips costs: a checkpoint folder beside a file of `ast-export --waveform`, whole processes.

    python -m benchmarks.without_pytorch runs/drums drums.onnx finetune/sample_data/drums/snare/FluidR3_474.flac
    python -m benchmarks.without_pytorch runs/drums drums.onnx CLIP --runtime_python PYTHON_WITHOUT_PYTORCH
    python -m benchmarks.without_pytorch runs/drums drums.onnx finetune/sample_data/drums --files 2000

Processor seconds (user and system) and peak memory are those that the system counts for the process; the two take turns, and of
each the least of several runs is told, as what else the machine does only adds to it. Results of both are compared. With
`--files` the clips are heard in turn, by other names, until they are so many.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from modeling_ast.audio import find_audio_files

ROOT = Path(__file__).resolve().parent.parent


def measured(python: str, model: str, clip: str) -> tuple[float, float, list[dict[str, float]]]:
    """Run `ast-tag` once.

    Args:
        python (`str`): the interpreter.
        model (`str`): folder or file.
        clip (`str`): audio file, or a folder of them.

    Returns:
        Processor seconds, peak memory in MB, and of each file the scores by label.
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
    lines = [json.loads(line) for line in printed.splitlines()]
    return (
        usage.ru_utime + usage.ru_stime,
        usage.ru_maxrss / 1024,
        [{tag["label"]: tag["score"] for tag in line["labels"]} for line in lines],
    )


def main():
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", help="checkpoint folder")
    parser.add_argument("file", help="the same model by ast-export --waveform")
    parser.add_argument("clip", help="audio file, or a folder of them")
    parser.add_argument("--files", type=int, metavar="N", help="hear N files: those of the folder in turn")
    parser.add_argument("--runtime_python", default=sys.executable, help="interpreter for the file")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    runs = {"folder": (sys.executable, args.folder), "file": (args.runtime_python, args.file)}
    found = {name: [] for name in runs}
    with tempfile.TemporaryDirectory() as folder:
        clip = args.clip
        if args.files:
            clip, given = folder, find_audio_files([args.clip])
            for number in range(args.files):
                file = given[number % len(given)].resolve()
                (Path(folder) / f"{number:06}{file.suffix}").symlink_to(file)
        for turn in range(args.rounds + 1):  # the first one fills caches
            for name in list(runs)[:: -1 if turn % 2 else 1]:
                found[name].append(measured(*runs[name], clip))
    least = {name: [min(each[which] for each in rows[1:]) for which in (0, 1)] for name, rows in found.items()}
    print(f"{'':8}{'processor s':>14}{'peak MB':>10}")
    for name, (seconds, megabytes) in least.items():
        print(f"{name:8}{seconds:14.2f}{megabytes:10.0f}")
    ratios = [least["file"][which] / least["folder"][which] for which in (0, 1)]
    print(f"{'ratio':8}{ratios[0]:14.3f}{ratios[1]:10.3f}")
    medians = [
        statistics.median(rows[1:][turn][which] / others[1:][turn][which] for turn in range(args.rounds))
        for which, (rows, others) in enumerate([(found["file"], found["folder"])] * 2)
    ]
    print(f"{'median':8}{medians[0]:14.3f}{medians[1]:10.3f}")
    pairs = zip(*(found[name][0][2] for name in runs), strict=True)
    largest = max(abs(one[label] - other[label]) for one, other in pairs for label in one)
    print(f"{len(found['file'][0][2])} file(s), largest difference of a score: {largest:.1e}")


if __name__ == "__main__":
    main()
