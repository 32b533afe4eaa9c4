"""Peak memory of a training with --streaming on one, three and ten times as much data: it should stay where it is.

python -m benchmarks.streaming_memory [--clips 2000]

Each size is a Parquet table in a temporary folder that holds the audio itself, the shipped drum clips over and over, in
one row group. A process of its own trains a tiny model on it for an epoch and says how much memory it took at most
(`VmHWM`, Linux). The first size fills the shuffle buffer several times over.
"""

import argparse
import csv
import json
import random
import subprocess
import sys
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

DRUMS = Path(__file__).parents[1] / "finetune" / "sample_data" / "drums"
SIZES = (1, 3, 10)
LARGEST_SLOPE = 0.05
SCHEMA = pa.schema({"audio": pa.binary(), "label": pa.string(), "split": pa.string()})
CHILD = (
    "import sys; from benchmarks.streaming_memory import train_in_this_process; train_in_this_process(*sys.argv[1:])"
)
MEGA = 1e6
SETTINGS = {
    "streaming": True, "shuffle_buffer": 100, "normalization_clips": 100,
    "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 16,
    "frequency_stride": 32, "time_stride": 32, "max_length": 32, "mixup_probability": 0.5,
    "num_train_epochs": 1, "per_device_train_batch_size": 32, "per_device_eval_batch_size": 32,
    "save_strategy": "no", "use_cpu": True, "disable_tqdm": True,
}  # fmt: skip


def write_table(path: Path, num_clips: int) -> Path:
    """Write a table of clips with their bytes, nine in ten of them to train on.

    Args:
        path (`Path`): Parquet file to write.
        num_clips (`int`): how many clips, the shipped ones in a random order, over and over.

    Returns:
        `Path`: the file.
    """
    with open(DRUMS / "metadata.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    random.Random(0).shuffle(rows)
    clips = [(DRUMS / row["file_name"]).read_bytes() for row in rows]
    # Each clip differs in its last byte, which no decoder needs, or a dictionary would hold the data in little room.
    columns = {"audio": [], "label": [], "split": []}
    for place in range(num_clips):
        row = rows[place % len(rows)]
        columns["audio"].append(clips[place % len(rows)] + place.to_bytes(4, "little"))
        columns["label"].append(row["label"])
        columns["split"].append("test" if place % 10 == 9 else "train")
    table = pa.table(columns, SCHEMA)
    pq.write_table(table, path, row_group_size=num_clips, use_dictionary=["label", "split"], compression="none")
    return path


def train_in_this_process(table: str, output_dir: str):
    """Train on a table and print the peak memory of this process in MB."""
    from finetune.run_finetune import main

    flags = [word for name, value in SETTINGS.items() for word in (f"--{name}", str(value))]
    if main(["--dataset_name", table, "--output_dir", output_dir, *flags]):
        sys.exit(1)
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    kilobytes = next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))
    print(int(kilobytes) * 1024 / MEGA)


def main() -> int:
    """Print a table of sizes; fail if memory grows."""
    parser = argparse.ArgumentParser(description="Peak memory of a streamed training on ever more data.")
    parser.add_argument("--clips", type=int, default=2000, help="clips of the smallest size")
    base = parser.parse_args().clips
    peaks = []
    print(f"{'clips':>8} {'table':>10} {'peak memory':>12} {'training':>10}")
    with tempfile.TemporaryDirectory() as folder:
        for size in SIZES:
            table = write_table(Path(folder, f"{size}.parquet"), size * base)
            command = [sys.executable, "-c", CHILD, str(table), str(Path(folder, f"run{size}"))]
            output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            peaks.append(float(output.splitlines()[-1]))
            summary = json.loads(Path(folder, f"run{size}", "run_summary.json").read_text(encoding="utf-8"))
            megabytes, seconds = table.stat().st_size / MEGA, summary["time"]["training_seconds"]
            print(f"{size * base:8} {megabytes:7.0f} MB {peaks[-1]:9.0f} MB {seconds:8.1f} s", flush=True)
            table.unlink()
    slope = peaks[-1] / peaks[0] - 1
    print(f"ten times the data took {slope:+.1%} memory (at most {LARGEST_SLOPE:.0%} are allowed)")
    return 0 if slope < LARGEST_SLOPE else 1


if __name__ == "__main__":
    sys.exit(main())
