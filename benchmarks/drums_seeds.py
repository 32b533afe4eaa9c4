"""Mean and spread of the drums recipe over seeds, on the held-out kit.

    python -m benchmarks.drums_seeds

Each seed is a run of `ast-finetune finetune/recipes/drums_from_scratch.yaml`; the last epoch's score counts.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

RECIPE = "finetune/recipes/drums_from_scratch.yaml"
WANTED_ACCURACY, LONGEST_SECONDS = 0.6, 240


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    seeds = parser.parse_args().seeds

    print("| seed | accuracy | macro F1 | mAP | s of training |\n|---|---|---|---|---|")
    accuracies, slowest = [], 0.0
    for seed in seeds:
        summary = run(seed)
        metrics = summary["evaluation"]["metrics"]
        accuracies.append(metrics["accuracy"])
        slowest = max(slowest, summary["time"]["training_seconds"])
        scores = (metrics[name] for name in ("accuracy", "f1_macro", "mean_average_precision"))
        cells = " | ".join(f"{score:.3f}" for score in scores)
        print(f"| {seed} | {cells} | {summary['time']['training_seconds']:.0f} |", flush=True)
    mean, spread = statistics.mean(accuracies), statistics.stdev(accuracies)
    print(f"\nAccuracy over {len(seeds)} seeds: mean {mean:.3f}, standard deviation {spread:.3f}.")
    if mean < WANTED_ACCURACY or slowest > LONGEST_SECONDS:
        print(f"Missed: mean accuracy {WANTED_ACCURACY}, each training within {LONGEST_SECONDS} s.", file=sys.stderr)
        return 1
    return 0


def run(seed: int) -> dict:
    """Train and score with one seed; return the run summary."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "finetune.run_finetune", RECIPE, "--seed", str(seed), "--output_dir", folder]
        subprocess.run([*command, "--disable_tqdm", "true"], check=True, stdout=subprocess.DEVNULL)
        return json.loads(Path(folder, "run_summary.json").read_text())


if __name__ == "__main__":
    sys.exit(main())
