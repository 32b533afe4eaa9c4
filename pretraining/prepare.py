"""From an empty folder to the clips that the small checkpoint is pretrained on.

    python -m pretraining.prepare OUT_DIR

The same packages give the same files: their versions and digests are in `sources.yaml`, the order is that of the table,
and what is drawn is drawn by a seed.
"""

import argparse
import shutil
import sys
from collections import Counter, defaultdict
from pathlib import Path

from .clips import TABLE, ClipWriter, read_part
from .fetch import SOURCES, Package, SourceError, fetch, read_sources
from .kept_out import LIKEST, largest_correlation
from .synthesis import spoken_words, synthetic_sounds

JUDGED_ON = Path(__file__).parents[1] / "finetune" / "sample_data" / "drums"
PAGE = "SOURCES.md"  # written last: where it is, the clips are whole and none of them is judged on
UNFINISHED = "UNFINISHED"  # a file that is there until then
MADE = {"audio", TABLE, PAGE, UNFINISHED}
SYNTHETIC = "synthetic"
SPEECH = "flite"


def main(arguments: list[str] | None = None) -> int:
    """Fetch, cut, synthesise and tell.

    Args:
        arguments (`list[str]`, *optional*): the command line's, by default those of this process.

    Returns:
        0, or 1 after an error that was told.
    """
    try:
        prepare_by_flags(arguments)
    except SourceError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def prepare_by_flags(arguments: list[str] | None = None):
    """Prepare as the command line says, see [`prepare`].

    Args:
        arguments (`list[str]`, *optional*): the command line's, by default those of this process.
    """
    prepare(**vars(parse_arguments(arguments)))


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line.

    Args:
        arguments (`list[str]`, *optional*): the command line's, by default those of this process.

    Returns:
        `argparse.Namespace` with the arguments of [`prepare`].
    """
    parser = argparse.ArgumentParser(prog="python -m pretraining.prepare", description=__doc__.splitlines()[0])
    parser.add_argument(
        "out_dir", type=Path, help="folder for metadata.csv, SOURCES.md and audio/; new, empty or unfinished"
    )
    parser.add_argument(
        "--cache", type=Path, default=Path.home() / ".cache" / "ast-pretraining", help="where packages are kept (3 GB)"
    )
    parser.add_argument("--sources", type=Path, default=SOURCES, help="table of packages")
    parser.add_argument("--per_label", type=int, default=100, help="synthetic clips a label; 0 leaves synthesis out")
    parser.add_argument("--seed", type=int, default=0, help="of what is synthesised")
    parser.add_argument(
        "--judged_on", type=Path, default=JUDGED_ON, help="folder whose clips with `test` in column split are kept out"
    )
    return parser.parse_args(arguments)


def prepare(out_dir: Path, cache: Path, sources: Path, per_label: int, seed: int, judged_on: Path):
    """Write the clips of all packages and all synthesis.

    Args:
        out_dir (`Path`): a folder that is new or empty, or in which a call ended before its end: what that wrote is written anew.
        cache (`Path`): where packages are kept.
        sources (`Path`): the table of packages.
        per_label (`int`): synthetic clips a label; with 0 neither sounds nor words are synthesised.
        seed (`int`): of what is synthesised.
        judged_on (`Path`): see [`largest_correlation`].

    Raises:
        SourceError: if the folder is not empty, a package cannot be used, or a clip is a copy of one that is judged on.
    """
    packages = read_sources(sources)
    begin(out_dir)
    for number, package in enumerate(packages, start=1):
        print(f"[{number}/{len(packages)}] {package.name} {package.version}", flush=True)
        fetch(package, cache)
    writer = ClipWriter(out_dir)
    for package in packages:
        folder = cache / "unpacked" / package.folder_name
        for part in package.parts:
            for waveform, label, recording in read_part(package, part, folder):
                writer.write(waveform, label, package.name, recording, part.license)
        if package.parts:
            print(told(writer, package.name), flush=True)
    if per_label:
        for waveform, label, recording in synthetic_sounds(seed, per_label):
            writer.write(waveform, label, SYNTHETIC, recording, "CC0-1.0")
        print(told(writer, SYNTHETIC), flush=True)
        if any(package.name == SPEECH for package in packages):
            for waveform, label, recording in spoken_words(cache / "unpacked", seed):
                writer.write(waveform, label, SPEECH, recording, "MIT-Festival")
            print(told(writer, SPEECH), flush=True)
    writer.write_table()
    peak, clip, kept_out = largest_correlation(writer, judged_on)
    print(f"largest cross-correlation with a clip judged on: {peak:.3f} (limit {LIKEST}), {clip} with {kept_out}")
    (out_dir / PAGE).write_text(sources_page(packages, writer), encoding="utf-8")
    (out_dir / UNFINISHED).unlink()
    hours = sum(writer.seconds.values()) / 3600
    labelled = sum(bool(clip.label) for clip in writer.clips)
    print(f"{len(writer.clips)} clips, {labelled} of them labelled, {hours:.2f} hours: {out_dir / TABLE}")


def begin(out_dir: Path):
    """Make the folder of the clips, or empty it of what an unfinished call wrote.

    Args:
        out_dir (`Path`): the folder.

    Raises:
        SourceError: if something else is in it.
    """
    there = {path.name for path in out_dir.iterdir()} if out_dir.exists() else set()
    if there and (UNFINISHED not in there or there - MADE):
        raise SourceError(
            f"{out_dir} is not empty; clips of two runs would mix. Name a new folder, or empty this one."
        )
    if there:
        print(f"{out_dir} was not finished: its clips are written anew", flush=True)
        (out_dir / PAGE).unlink(missing_ok=True)
        shutil.rmtree(out_dir / "audio", ignore_errors=True)
    out_dir.mkdir(parents=True, exist_ok=True)
    (out_dir / UNFINISHED).touch()


def told(writer: ClipWriter, source: str) -> str:
    """Tell what a source gave.

    Args:
        writer ([`ClipWriter`]): what was written.
        source (`str`): the source.

    Returns:
        One line: clips, minutes, licences and label sets.
    """
    clips = [clip for clip in writer.clips if clip.source == source]
    sets = Counter(clip.label_set or "unlabelled" for clip in clips)
    licenses = ", ".join(sorted({clip.license for clip in clips}))
    minutes = writer.seconds.get(source, 0) / 60
    return f"  {source}: {len(clips)} clips, {minutes:.1f} min, {licenses}; " + ", ".join(
        f"{n} {s}" for s, n in sets.items()
    )


def sources_page(packages: list[Package], writer: ClipWriter) -> str:
    """Write the page that names every source.

    Args:
        packages (`list[Package]`): the table's.
        writer ([`ClipWriter`]): what was written.

    Returns:
        Markdown: a table of sources with author and licence, and one of label sets.
    """
    counts = Counter((clip.source, clip.license) for clip in writer.clips)
    lines = [
        "# Sources of the clips",
        "",
        "| source | version | author | licence | told by | clips |",
        "|---|---|---|---|---|---|",
    ]
    for package in packages:
        authors = defaultdict(list)
        for part in package.parts:
            authors[part.license].append(part.author)
        for source, license in counts:
            if source == package.name and not package.parts:
                authors[license].append(package.author)
        for license, names in authors.items():
            cells = [f"{package.name} ({package.origin})", package.version, "; ".join(dict.fromkeys(names)), license]
            lines.append(f"| {' | '.join(cells)} | {package.license_file} | {counts[package.name, license]} |")
    for source, license in counts:
        if source == SYNTHETIC:
            made_by = "made by `pretraining/synthesis.py`"
            lines.append(f"| {SYNTHETIC} | - | {made_by} | {license} | - | {counts[source, license]} |")
    lines += ["", "Every clip was brought to 16 kHz, one channel and 16 bits; some are heard at other speeds.", ""]
    lines += ["| label set | labels | clips |", "|---|---|---|"]
    labels = defaultdict(Counter)
    for clip in writer.clips:
        labels[clip.label_set][clip.label] += 1
    for name, found in sorted(labels.items()):
        lines.append(f"| {name or '(no label)'} | {len(found) if name else '-'} | {sum(found.values())} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
