"""From an empty folder to the checkpoint `ast-small` that the kit ships: clips, two trainings, the folder of the package.

    python -m pretraining.ast_small OUT_DIR

What is finished is not done again, and a training that was ended goes on from its last checkpoint, so that the same command is
typed again after whatever ended it.
"""

import argparse
import csv
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from modeling_ast.checkpoints.fields import CONFIG, EXTRACTOR
from modeling_ast.system.atomic_files import give_usual_mode

from .clips import TABLE
from .fetch import SourceError
from .prepare import PAGE, prepare_by_flags

HERE = Path(__file__).parent
PACKAGE = HERE.parent / "modeling_ast" / "ast_small"
STAGES = ("ast_small_1", "ast_small_2")
LICENSE = (
    "cc-by-sa-4.0"  # of recordings under CC-BY-SA of several versions, which it is compatible with, and freer ones
)
LABELLED = "labelled.csv"
COLUMNS = ("file_name", "label", "recording")
WEIGHTS, CARD = "model.safetensors", "README.md"
FILES = {WEIGHTS, CONFIG, EXTRACTOR, CARD}
LARGEST_FILE = 12_000_000  # bytes of the weights in the package
HOW = (
    "It was trained in two stages, from random weights; below is the second one. Sets of labels were drawn by the shares in the recipes, "
    "words and drums most often. It is there to be fine-tuned."
)
ABOUT_SCORES = (
    "Whole recordings and voices were held out, which leaves two sets to score: English words by voices that it never heard, and "
    "languages, where all clips of one language were held out, so that none of them could be right. What it is worth to a "
    "fine-tuning is in the kit's documentation (`docs/ast_small.md`)."
)
REPRODUCE = (
    "In the kit's checkout, where both recipes are: `python -m pretraining.ast_small OUT_DIR` fetches the recordings, trains both stages "
    "and makes this folder."
)
NOT_JUDGED = (
    "It was not judged on environmental sounds, music, other languages than English, children, singing, several sounds at once, far or "
    "moving microphones, or other than 16 kHz. It has heard stretches of 1.28 s at most; positions of longer clips are stretched."
)


def main(arguments: list[str] | None = None) -> int:
    """Do what is left of the way.

    Args:
        arguments (`list[str]`, *optional*): the command line's, by default those of this process.

    Returns:
        0, or 1 after an error that was told.
    """
    parser = argparse.ArgumentParser(prog="python -m pretraining.ast_small", description=__doc__.splitlines()[0])
    parser.add_argument("out_dir", type=Path, help="folder for clips/, ast_small_1/ and ast_small_2/")
    parser.add_argument("--clips", type=Path, help="folder of pretraining.prepare, if not OUT_DIR/clips")
    parser.add_argument("--cache", type=Path, help="where packages are kept (3 GB), see pretraining.prepare")
    parser.add_argument(
        "--package", type=Path, default=PACKAGE, help="where the checkpoint is put (default: %(default)s)"
    )
    options = parser.parse_args(arguments)
    clips = options.clips or options.out_dir / "clips"
    try:
        refuse_other_files(options.package)
        if not (clips / PAGE).is_file():
            cache = [] if options.cache is None else ["--cache", str(options.cache)]
            prepare_by_flags([str(clips), *cache])
        table = write_labelled(clips)
        start = None
        for stage in STAGES:
            run = options.out_dir / stage
            if not is_finished(run):
                subprocess.run(training_command(stage, table, run, start), check=True, env=environment())
            start = run
        print(f"{ship(start, clips / PAGE, options.package)}: the checkpoint ast-small")
    except SourceError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except subprocess.CalledProcessError as error:  # which has told its own
        return error.returncode
    return 0


def write_labelled(clips: Path) -> Path:
    """Write the table of the clips that have a label.

    Args:
        clips (`Path`): folder of `pretraining.prepare`.

    Returns:
        `Path`: the table, in the same folder.
    """
    with open(clips / TABLE, newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["label"]]
    with open(clips / LABELLED, "w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, COLUMNS, extrasaction="ignore", lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
    return clips / LABELLED


def is_finished(run: Path) -> bool:
    """Tell whether a training has left its result.

    Args:
        run (`Path`): its output folder.

    Returns:
        `bool`.
    """
    return (run / "run_summary.json").is_file()


def training_command(stage: str, table: Path, run: Path, start: Path | None) -> list[str]:
    """Say how a training is begun, or gone on with.

    Args:
        stage (`str`): one of `STAGES`, the name of a recipe.
        table (`Path`): of the clips.
        run (`Path`): its output folder.
        start (`Path`, *optional*): the checkpoint that it starts from.

    Returns:
        The words of the command.
    """
    given = {"dataset_name": table, "output_dir": run, "license": LICENSE}
    given |= {} if start is None else {"model_name_or_path": start}
    given |= {"resume_from_checkpoint": "true"} if any(run.glob("checkpoint-*")) else {}
    flags = [word for name, value in given.items() for word in (f"--{name}", str(value))]
    return [sys.executable, "-m", "finetune.run_finetune", str(HERE / f"{stage}.yaml"), *flags]


def environment() -> dict[str, str]:
    """The environment of a training: threads that have nothing to do leave the processor to others.

    Returns:
        `dict[str, str]`.
    """
    return {"OMP_WAIT_POLICY": "passive", **os.environ}


def ship(run: Path, sources: Path, package: Path) -> Path:
    """Make the folder of the package of a finished training: weights in half precision, which are used in single precision.

    Args:
        run (`Path`): output folder of the last training.
        sources (`Path`): the page of the recordings, from `pretraining.prepare`.
        package (`Path`): the folder; an older checkpoint in it is replaced.

    Returns:
        `Path`: the folder.

    Raises:
        SourceError: if the file of the weights is too large for the package, or something else is in the folder.
    """
    refuse_other_files(package)
    making = package.with_name(f"{package.name}.partial")
    shutil.rmtree(making, ignore_errors=True)
    making.mkdir(parents=True)
    weights = {name: tensor.to(torch.float16) for name, tensor in load_file(run / WEIGHTS).items()}
    save_file(weights, making / WEIGHTS, metadata={"format": "pt"})
    size = (making / WEIGHTS).stat().st_size
    if size > LARGEST_FILE:
        raise SourceError(f"The weights of {run} take {size:,} bytes, and the package has room for {LARGEST_FILE:,}.")
    config = json.loads((run / CONFIG).read_text(encoding="utf-8"))
    # Most clips were shorter than what the model hears: the beginning of the positions is what was trained.
    config |= {"position_cut": "beginning", "dtype": "float32"}
    (making / CONFIG).write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    shutil.copyfile(run / EXTRACTOR, making / EXTRACTOR)
    (making / CARD).write_text(card_of_package(run, sources), encoding="utf-8")
    for file in making.iterdir():
        give_usual_mode(file)
    shutil.rmtree(package, ignore_errors=True)
    making.rename(package)
    return package


def refuse_other_files(package: Path):
    """Refuse a folder with more in it than an older checkpoint of this kind, as it is replaced as a whole.

    Args:
        package (`Path`): the folder, if it is there.

    Raises:
        SourceError: if there is more.
    """
    others = sorted({path.name for path in package.iterdir()} - FILES) if package.is_dir() else []
    if others:
        raise SourceError(
            f"{package} holds {others[0]}{', and more' * (len(others) > 1)}, which is no file of the checkpoint, and would be "
            "replaced. Pass --package with a new folder."
        )


def card_of_package(run: Path, sources: Path) -> str:
    """Make the card of the package of that of the last training.

    Args:
        run (`Path`): output folder of the last training.
        sources (`Path`): the page of the recordings, from `pretraining.prepare`.

    Returns:
        `str`: the card, which names no other file than those beside it.

    Raises:
        SourceError: if the run's card has not what is replaced.
    """
    card = (run / CARD).read_text(encoding="utf-8")
    for pattern, words in (
        (r"(?ms)^model-index:\n.*?(?=^---$)", ""),  # scores of two sets out of many are none to be listed by
        (rf"(?m)^# {re.escape(run.name)}$", "# ast-small"),
        (rf"(?<![\w/.]){re.escape(run.name)}(?!\w)", "ast-small"),
        (r"(?m)^It was fine-tuned from the local checkpoint.*$", HOW),
        (rf", taken from \./{STAGES[0]}", ", measured in the first stage"),
        (r"(?m)^!\[.*\n\n?", ""),  # pictures stay with the run
        (r"## Evaluation\n", f"## Evaluation\n\n{ABOUT_SCORES}\n"),
        (r"(?ms)^## Reproduce\n.*", f"## Reproduce\n\n{REPRODUCE}"),
    ):
        card, count = re.subn(pattern, lambda _, words=words: words, card)
        if not count:
            raise SourceError(
                f"The card of {run} has nothing like {pattern}: card_of_package does not fit it any more."
            )
    page = sources.read_text(encoding="utf-8").replace(
        "# Sources of the clips", "## Recordings that it was made of", 1
    )
    return f"{card}\n\n## What it was not judged on\n\n{NOT_JUDGED}\n\n{page}"


if __name__ == "__main__":
    sys.exit(main())
