"""Time and memory of converting one base384 checkpoint with 527 labels.

    python -m benchmarks.conversion_cost [--runs 3]

Each run is a process of its own that converts a `.pth` in the new (zip) or the old format with verification, as
`ast-convert` does. Memory is the peak resident size above that of the process after its imports.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

from .conversion_agreement import AUDIOSET_TABLE, original_weights

LARGEST_RATIO, LONGEST_SECONDS = 3, 30
CHILD = """
import json, resource, sys, time
from transformers.utils import logging
from conversion.convert_ast_checkpoint import convert_checkpoint
from conversion import download, imagenet_start  # what else the command imports
logging.disable_progress_bar()
with open("/proc/self/statm") as file:
    before = int(file.read().split()[1]) * resource.getpagesize()
start = time.perf_counter()
convert_checkpoint(sys.argv[1], sys.argv[2], report=lambda line: None)
seconds = time.perf_counter() - start
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(json.dumps({"seconds": seconds, "peak_bytes": peak - before}))
"""


def measure(path: Path, folder: Path) -> dict[str, float]:
    """Convert once in a process of its own; seconds, and peak bytes above its imports."""
    command = [sys.executable, "-c", CHILD, path, folder]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def main():
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3, help="processes for each format; the median counts")
    runs = parser.parse_args().runs
    if runs < 1:
        parser.error(f"--runs {runs} is too few, expected 1 or more")
    weights = {f"module.{name}": tensor for name, tensor in original_weights(AUDIOSET_TABLE).items()}
    print("| format | file, MB | seconds | peak above imports, MB | times the file |\n|---|---|---|---|---|")
    missed = []
    for name, zipped in (("zip", True), ("before torch 1.6", False)):
        with tempfile.TemporaryDirectory() as scratch:
            path = Path(scratch) / "best_audio_model.pth"
            torch.save(weights, path, _use_new_zipfile_serialization=zipped)
            size = path.stat().st_size
            results = [measure(path, Path(scratch) / f"run-{run}") for run in range(runs)]
        seconds = statistics.median(result["seconds"] for result in results)
        peak = statistics.median(result["peak_bytes"] for result in results)
        print(f"| {name} | {size / 1e6:.0f} | {seconds:.1f} | {peak / 1e6:.0f} | {peak / size:.2f} |")
        if peak > LARGEST_RATIO * size or seconds > LONGEST_SECONDS:
            missed.append(name)
    if missed:
        print(f"\nMissed (at most {LARGEST_RATIO} times the file, {LONGEST_SECONDS} s): {', '.join(missed)}.")


if __name__ == "__main__":
    main()
