"""What each part of the pretraining of `ast-small` is worth: short pretrainings in which one is left out, on training kits alone.

    python -m benchmarks.pretraining_parts CLIPS [--steps 1500] [--seeds 0]

CLIPS is a folder of `python -m pretraining.prepare`. Each pretraining has as many steps as the others; its second stage has a quarter of
them. It is scored by linear classifiers on its vectors of the drum clips (benchmarks.linear_probe), one training kit left out at a
time; the test kit is never read. Finished pretrainings stay in `--runs`, so that a second call goes on where the first ended.
"""

import argparse
import csv
import io
import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import yaml

from modeling_ast.system.atomic_files import open_atomically
from pretraining.ast_small import COLUMNS, HERE, STAGES, environment

from .linear_probe import probe

MADE = ("synthetic", "flite")  # sources of what is no recording
SPOKEN = ("words_", "language")  # sets of labels
SECOND_SHARE = 0.25
# Whether a clip takes part, by the name of what is left out.
PARTS: dict[str, Callable[[dict], bool]] = {
    "nothing": lambda row: True,
    "speech": lambda row: not row["label_set"].startswith(SPOKEN),
    "drums": lambda row: row["label_set"] != "drums",
    "synthesis": lambda row: row["source"] not in MADE,
    "recordings": lambda row: row["source"] in MADE,
    "second stage": lambda row: True,
}


def main():
    """Pretrain what is not there yet, and print a row for each part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", type=Path, help="folder of pretraining.prepare")
    parser.add_argument("--steps", type=int, default=1500, help="of both stages together (default: %(default)s)")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0], help="of the pretrainings (default: 0)")
    parser.add_argument(
        "--parts", nargs="+", choices=PARTS, default=list(PARTS), help="what is left out (default: all)"
    )
    parser.add_argument(
        "--ignore_labels",
        nargs="+",
        default=[],
        help="left out of all that are pretrained now: where ast-finetune says that without a part some have no training clip",
    )
    parser.add_argument(
        "--runs", type=Path, default=Path("runs/pretraining_parts"), help="where pretrainings are kept"
    )
    args = parser.parse_args()
    print("| left out | clips | one training kit left out | difference |\n|---|---|---|---|")
    whole = None
    for part in args.parts:
        number, scores = 0, []
        for seed in args.seeds:
            folder = args.runs.resolve() / f"{part.replace(' ', '_')}_{args.steps}_{seed}"
            number = write_part(args.clips, folder, part, args.ignore_labels)
            scores.append(scored(pretrained(folder, part, args.steps, seed), folder / "score.json"))
        score = statistics.mean(scores)
        whole = score if part == "nothing" else whole
        difference = "" if whole is None or part == "nothing" else f"{100 * (score - whole):+.1f}"
        print(f"| {part} | {number:,} | {score:.3f} | {difference} |", flush=True)


def write_part(clips: Path, folder: Path, part: str, ignored: Sequence[str] = ()) -> int:
    """Write the table of the clips that take part, and count them."""
    with open(clips / "metadata.csv", newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["label"] and PARTS[part](row)]
    rows = [row for row in rows if row["label"] not in ignored]
    table = io.StringIO()
    writer = csv.DictWriter(table, COLUMNS, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(row | {"file_name": str((clips / row["file_name"]).resolve())} for row in rows)
    folder.mkdir(parents=True, exist_ok=True)
    kept = folder / "clips.csv"
    if (folder / "score.json").exists():  # it is finished, and stays as it is
        with open(kept, newline="", encoding="utf-8") as file:
            return sum(1 for _ in csv.DictReader(file))
    begun = any(folder.glob("*/run_summary.json"))
    if begun and kept.read_text(encoding="utf-8") != table.getvalue():
        sys.exit(
            f"{folder} was begun on other clips, or with other labels left out. Pass another --runs, or remove it."
        )
    kept.write_text(table.getvalue(), encoding="utf-8")
    return len(rows)


def pretrained(folder: Path, part: str, steps: int, seed: int) -> Path:
    """Pretrain in both stages, or in the first alone, what is not finished: the folder of the checkpoint."""
    second = 0 if part == "second stage" else round(SECOND_SHARE * steps)
    start = None
    for stage, length in zip(STAGES, (steps - second, second), strict=True):
        if not length:
            continue
        run = folder / stage
        if not (run / "run_summary.json").is_file():
            given = {
                "dataset_name": folder / "clips.csv",
                "output_dir": run,
                "max_steps": length,
                "seed": seed,
                "save_strategy": "no",
            }
            given |= {} if start is None else {"model_name_or_path": start}
            flags = [word for name, value in given.items() for word in (f"--{name}", str(value))]
            recipe = HERE / f"{stage}.yaml"
            flags += shares_of(recipe, folder / "clips.csv")
            command = [sys.executable, "-m", "finetune.run_finetune", str(recipe), *flags]
            subprocess.run(
                [*command, "--overwrite_output_dir", "true", "--disable_tqdm", "true"],
                check=True,
                env=environment(),
                stdout=subprocess.DEVNULL,
            )
        start = run
    return start


def shares_of(recipe: Path, table: Path) -> list[str]:
    """The flag with a recipe's shares of the sets that take part: a share of another one is refused."""
    with open(table, newline="", encoding="utf-8") as file:
        sets = {row["label"].partition("/")[0] for row in csv.DictReader(file)}
    shares = yaml.safe_load(recipe.read_text(encoding="utf-8")).get("set_shares", [])
    kept = [share for share in shares if share.partition("=")[0] in sets]
    return ["--set_shares", *kept] if kept else []


def scored(checkpoint: Path, kept: Path) -> float:
    """The score of a checkpoint, kept beside it."""
    if not kept.exists():
        with open_atomically(kept, "w") as file:
            json.dump(probe(str(checkpoint)), file)
    return json.loads(kept.read_text())


if __name__ == "__main__":
    main()
