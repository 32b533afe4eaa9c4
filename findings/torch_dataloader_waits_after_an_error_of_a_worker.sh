#!/usr/bin/env bash
# After an error of a DataLoader's process, freeing the iterator stops the program for 5 s for each process, some time later.
#
# ExceptionWrapper.reraise keeps the error in a local variable of its frame, which the traceback of the error holds: a cycle, and
# the iterator hangs on it. So the garbage collector frees it, and that runs the finalizers of the queues to the processes before
# the iterator's __del__. The None by which __del__ ends each process goes into a queue that is closed and never arrives;
# join(timeout=5) runs out for one process after the other, and only then are they terminated. The documentation says that
# processes are shut down when the iterator becomes garbage collected. Expected: at once, as after a break.
# Seen with torch 2.14.1, Python 3.11.7, processes started by fork: 0.1 s after a break and after an error of the loop itself;
# after an error of the data set 5.2 s with one process and 10.3 s with two; 0.2 s if traceback.clear_frames had that error.
# Ends with 0 if that is still so, with 1 if not.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    torch==2.14.1 numpy==2.4.6
timeout 120 "$folder/venv/bin/python" - <<'PYTHON'
import gc
import multiprocessing
import sys
import time
import traceback

import torch
from torch.utils.data import DataLoader, Dataset


class Clips(Dataset):
    def __init__(self, bad: int | None):
        self.bad = bad

    def __len__(self) -> int:
        return 40

    def __getitem__(self, index: int) -> torch.Tensor:
        if index == self.bad:
            raise ValueError("a bad clip")
        return torch.zeros(100)


def iterate(end: str, workers: int):
    bad = 13 if end.startswith("error of the data set") else None
    for number, _ in enumerate(DataLoader(Clips(bad), batch_size=4, num_workers=workers)):
        if number == 2 and end == "break":
            break
        if number == 2 and end == "error of the loop":
            raise ValueError("another error")


def freed(end: str, workers: int) -> tuple[int, float]:
    """Processes that are left once the loop is, and the seconds that a collection takes then."""
    try:
        iterate(end, workers)
    except ValueError as error:
        if end.endswith("cleared"):
            traceback.clear_frames(error.__traceback__)
    left, start = len(multiprocessing.active_children()), time.perf_counter()
    gc.collect()
    return left, time.perf_counter() - start


multiprocessing.set_start_method("fork")
gc.disable()  # which would come at some other time
print(f"torch {torch.__version__}, Python {sys.version.split()[0]}")
seen = {}
for end in ("break", "error of the loop", "error of the data set", "error of the data set, frames cleared"):
    for workers in (1, 2):
        seen[end, workers] = left, seconds = freed(end, workers)
        print(f"{end}, num_workers={workers}: {left} processes left, then {seconds:.1f} s to collect the garbage")
waits = all(
    left == workers and 5 * workers - 1 < seconds if end == "error of the data set" else left == 0 and seconds < 2
    for (end, workers), (left, seconds) in seen.items()
)
sys.exit(0 if waits else 1)
PYTHON
