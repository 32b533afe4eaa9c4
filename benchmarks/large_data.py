"""From the command to the first training step on tables of 1,000 to 100,000 rows: seconds, and peak memory.

    python -m benchmarks.large_data [--rows 1000 10000 100000]

The rows name the shipped drum clips again and again, with their split, and are trained on by the drums recipe on one
thread. Each run is a process of its own that ends after its first step; its seconds include the start of Python and all
imports. Seconds of computing tell more than seconds where the machine has other work too. Memory is the peak resident size
of the process, imports included.
"""

import argparse
import csv
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
DRUMS = ROOT / "finetune" / "sample_data" / "drums"
RECIPE = ROOT / "finetune" / "recipes" / "drums_from_scratch.yaml"
LONGEST_SECONDS, LARGEST_GROWTH = 30, 100e6
CHILD = """
import json, os, resource, sys
from finetune.run_finetune import main
from finetune.training.trainer import ASTTrainer
train = ASTTrainer.training_step
def first_step(*args, **kwargs):
    train(*args, **kwargs)
    used = resource.getrusage(resource.RUSAGE_SELF)
    print(json.dumps([used.ru_utime + used.ru_stime, used.ru_maxrss * 1024]), flush=True)
    os._exit(0)
ASTTrainer.training_step = first_step
sys.exit(main(sys.argv[1:]))
"""


def write_table(path: Path, num_rows: int):
    """A table of the drum clips by full path, as often as it takes."""
    with open(DRUMS / "metadata.csv", newline="") as file:
        clips = [row | {"file_name": str(DRUMS / row["file_name"])} for row in csv.DictReader(file)]
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, ["file_name", "label", "split"], extrasaction="ignore")
        writer.writeheader()
        writer.writerows(itertools.islice(itertools.cycle(clips), num_rows))


def measure(table: Path, folder: Path) -> tuple[float, float, int]:
    """Seconds to the first step, those of computing, and peak bytes, of a process of its own."""
    words = [RECIPE, "--dataset_name", table, "--output_dir", folder, "--disable_tqdm", "true", "--use_cpu", "true"]
    start = time.perf_counter()
    ended = subprocess.run(
        [sys.executable, "-c", CHILD, *words],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    return time.perf_counter() - start, *json.loads(ended.stdout.splitlines()[-1])


def main():
    """Print a table; fail if 100,000 rows take longer or more memory than they may."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000, 10_000, 100_000], help="sizes of the tables")
    sizes = sorted(parser.parse_args().rows)
    if sizes[0] < 500:
        parser.error(f"--rows {sizes[0]} is too few, expected 500 or more, so that all drum clips are in the table")
    print("| rows | s to the first step | s of computing | peak memory, MB | above the smallest, MB |")
    print("|---|---|---|---|---|", flush=True)
    results = {}
    with tempfile.TemporaryDirectory() as scratch:
        for num_rows in sizes:
            table = Path(scratch) / f"{num_rows}.csv"
            write_table(table, num_rows)
            seconds, computing, peak = results[num_rows] = measure(table, Path(scratch) / f"run-{num_rows}")
            growth = peak - results[sizes[0]][-1]
            print(
                f"| {num_rows:,} | {seconds:.1f} | {computing:.1f} | {peak / 1e6:.0f} | {growth / 1e6:.0f} |",
                flush=True,
            )
    if seconds > LONGEST_SECONDS or growth > LARGEST_GROWTH:
        sys.exit(f"Expected at most {LONGEST_SECONDS} s, and {LARGEST_GROWTH / 1e6:.0f} MB above the smallest.")


if __name__ == "__main__":
    main()
