"""Searches in a million vectors, and prototypes from a few clips beside a fine-tuning of the same clips.

    python -m benchmarks.similar_sounds [--vectors 1000000] [--dtype float32] [--folder DIR]
    python -m benchmarks.similar_sounds --prototypes [--fine_tuned RESULTS.json]

The vectors are those that ast-small gives of the drum clips that ship, repeated, with normal noise of a quarter of each dimension's spread.
Exact search reads all of them with NumPy; usearch and faiss-cpu are measured where they are installed. Each row builds, and asks, in a
process of its own: two threads build, one asks. Processor time is given beside the clock's, as it says what a machine without other work takes: of
both threads together, so that two free cores need about half of it. Memory is what the process takes beside Python and its libraries: its
own, and pages of mapped files, which the system takes back when it needs them.

Prototypes are the mean of each label's vectors. The clips are those of benchmarks.pretrained_start --clips_a_label 10, whose results file
has what fine-tunings of the same clips reached.
"""

import argparse
import json
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from benchmarks.pretrained_start import drum_rows
from modeling_ast.similar.index import INDEX, build_index, open_index
from modeling_ast.similar.library import DTYPES, Description, Library, LibraryWriter, of_length_one
from modeling_ast.similar.nearest import cosines, nearest
from modeling_ast.similar.prototypes import MATCHES, Prototypes
from modeling_ast.tagging.embeddings import FileEmbeddings

TOP, QUERIES, PART = 10, 200, 50_000
JITTER = 0.25  # of the standard deviation of each dimension
EDGES, LOOKED_AT, KEPT_IN_VIEW = 16, 64, 256  # of usearch's graph
USEARCH_INDEX = "index.usearch"
THREADS = 2
CLIPS_A_LABEL, SEEDS = 10, range(5)


def main():
    """Print one of the two tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vectors", type=int, default=1_000_000, help="that are searched (default: %(default)s)")
    parser.add_argument("--dtype", choices=DTYPES, default="float32", help="how they are kept (default: %(default)s)")
    parser.add_argument(
        "--folder",
        type=Path,
        help="where they are kept, and searched again if it stands; a temporary one if not given",
    )
    parser.add_argument("--prototypes", action="store_true", help="measure prototypes, not searches")
    parser.add_argument("--fine_tuned", type=Path, help="results file of benchmarks.pretrained_start")
    args = parser.parse_args()
    if args.prototypes:
        return print_prototypes(args.fine_tuned)
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.folder or Path(temporary, "vectors")
        queries = write_million(folder, args.vectors, args.dtype)
        print_searches(folder, queries)


def drum_vectors() -> tuple[tuple[str, ...], tuple[str, ...], np.ndarray]:
    """Names, labels and vectors `(clips, hidden)` of the drum clips, as `ast-similar` has them of `--examples`."""
    from modeling_ast.similar.clips import Clip, embed_clips
    from modeling_ast.tagging.tagger import AudioTagger

    clips = [Clip(row["file_name"], Path(row["file_name"]), label=row["label"]) for row in drum_rows(0, None)]
    embedded = list(embed_clips(AudioTagger.from_pretrained("ast-small", "cpu"), clips, {"embeddings": "file"}))
    names, labels = zip(*[(each.clip.name, each.clip.label) for each in embedded], strict=True)
    return names, labels, np.stack([each.vector for each in embedded])


def write_million(folder: Path, number: int, dtype: str) -> np.ndarray:
    """Keep so many vectors in a folder of `ast-embed`; give queries `(200, hidden)`, jittered clips of all kits."""
    names, _, vectors = drum_vectors()
    everything = vectors.astype(np.float32)
    of_training = {row["file_name"] for row in drum_rows(0, None) if row["split"] == "train"}
    base = everything[[name in of_training for name in names]]
    noise = JITTER * base.std(axis=0)
    asked = everything[np.random.default_rng(1).integers(len(everything), size=QUERIES)]
    asked = asked + noise * np.random.default_rng(2).standard_normal(asked.shape, dtype=np.float32)
    if folder.exists():
        return asked
    draw = np.random.default_rng(0)
    with LibraryWriter(folder, Description("repeated", "", base.shape[1], dtype=dtype)) as library:
        for begin in range(0, number, PART):
            rows = np.arange(begin, min(begin + PART, number))
            jitter = draw.standard_normal((len(rows), base.shape[1]), dtype=np.float32)
            times = np.stack([rows, rows + 1], axis=1).astype(float)
            library.add([f"{begin}.wav", 0, 0], FileEmbeddings(base[rows % len(base)] + noise * jitter, times))
    return asked


def print_searches(folder: Path, queries: np.ndarray):
    """A row for each way to search."""
    library = Library(folder)
    print(f"{len(library)} vectors of {library.vectors.shape[1]} numbers, {library.description.dtype}\n")
    print(
        "| search | build, clock s | processor s | memory | on disk | query, median ms | processor ms | recall at 10 | memory | mapped |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    expected = in_own_process(asked, folder, "NumPy, all vectors", queries)
    print_row("NumPy, all vectors", None, 0, expected, expected["rows"])
    for name, module, file, build in (
        ("faiss-cpu, as the kit does it", "faiss", INDEX, build_with_kit),
        (f"usearch, float16, {EDGES} edges, {KEPT_IN_VIEW} in view", "usearch", USEARCH_INDEX, build_with_usearch),
    ):
        if find_spec(module) is not None:
            built = None if (folder / file).exists() else in_own_process(cost_of, build, folder)
            print_row(
                name,
                built,
                (folder / file).stat().st_size,
                in_own_process(asked, folder, name, queries),
                expected["rows"],
            )


def print_row(name: str, built: dict | None, size: int, found: dict, expected: np.ndarray):
    recall = np.mean([len(set(a) & set(b)) / TOP for a, b in zip(found["rows"], expected, strict=True)])
    build = (
        ["", "", ""]
        if built is None
        else [f"{built['clock']:.0f}", f"{built['processor']:.0f}", megabytes(built["peak"])]
    )
    cells = [
        *build,
        megabytes(size),
        f"{1e3 * found['clock']:.1f}",
        f"{1e3 * found['processor']:.1f}",
        f"{recall:.4f}",
    ]
    print(f"| {' | '.join([name, *cells, megabytes(found['own']), megabytes(found['mapped'])])} |", flush=True)


def megabytes(size: float) -> str:
    return f"{size / 1e6:.0f} MB"


def in_own_process(function: Callable, *arguments):
    """Call a function in a new process, of which NumPy's and faiss's products take one thread."""
    os.environ |= {
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
    }  # one query waits for memory, not for arithmetic
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def cost_of(build: Callable[[Path], None], folder: Path) -> dict:
    """Seconds by the clock and of the processor, and bytes that the process took at its highest."""
    before = memory()["peak"]
    clock, processor = time.perf_counter(), time.process_time()
    build(folder)
    clock, processor = time.perf_counter() - clock, time.process_time() - processor
    return {"clock": clock, "processor": processor, "peak": memory()["peak"] - before}


def build_with_kit(folder: Path):
    import faiss

    faiss.omp_set_num_threads(THREADS)
    build_index(Library(folder), lambda _: None)


def build_with_usearch(folder: Path):
    from usearch.index import Index

    library = Library(folder)
    index = Index(
        ndim=library.vectors.shape[1], metric="cos", dtype="f16", connectivity=EDGES, expansion_add=LOOKED_AT
    )
    for begin in range(0, len(library), PART):
        part = np.asarray(library.vectors[begin : begin + PART], np.float32)
        index.add(np.arange(begin, begin + len(part)), part, threads=THREADS)
    index.save(str(folder / USEARCH_INDEX))


def asked(folder: Path, name: str, queries: np.ndarray) -> dict:
    """Rows that are found, `(queries, 10)`, median seconds of a query by the clock and mean ones of the processor, bytes of memory."""
    before = memory()
    library = Library(folder)
    if name.startswith("usearch"):
        from usearch.index import Index

        index = Index.restore(str(folder / USEARCH_INDEX), view=True)
        index.expansion_search = KEPT_IN_VIEW

        def search(query):
            rows = index.search(query, TOP).keys.astype(np.int64)
            return rows[np.argsort(-cosines(library, rows, of_length_one(query[None]))[:, 0])]
    else:
        index = open_index(library) if name.startswith("faiss") else None

        def search(query):
            return nearest(library, query[None], TOP, index)[0][0]

    search(queries[0])
    rows, clock, processor = [], [], time.process_time()
    for query in queries:
        begin = time.perf_counter()
        rows.append(search(query))
        clock.append(time.perf_counter() - begin)
    processor = time.process_time() - processor
    taken = {name: size - before[name] for name, size in memory().items()}
    found = {"rows": np.stack(rows), "clock": statistics.median(clock), "processor": processor / len(queries)}
    return found | taken


def memory() -> dict:
    """Bytes of this process's own, of pages of mapped files, and of both at their highest (Linux)."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {
        name: int(lines[key].split()[0]) * 1024
        for name, key in (("own", "RssAnon"), ("mapped", "RssFile"), ("peak", "VmHWM"))
    }


def print_prototypes(fine_tuned: Path | None):
    """Accuracy on the test kit of each draw, beside what its fine-tuning reached."""
    names, labels, vectors = drum_vectors()
    place = {name: number for number, name in enumerate(names)}
    kept = {} if fine_tuned is None else json.loads(fine_tuned.read_text())
    columns: dict[str, list[float]] = {f"prototypes, {match}": [] for match in MATCHES}
    for seed in SEEDS:
        rows = drum_rows(seed, CLIPS_A_LABEL)
        split = {part: [place[row["file_name"]] for row in rows if row["split"] == part] for part in ("train", "test")}
        for match in MATCHES:
            prototypes = Prototypes([labels[number] for number in split["train"]], vectors[split["train"]], match)
            scores = prototypes.scores(of_length_one(vectors[split["test"]]) @ prototypes.vectors.T)
            told = [prototypes.labels[best] for best in scores.argmax(axis=1)]
            right = [one == labels[number] for one, number in zip(told, split["test"], strict=True)]
            columns[f"prototypes, {match}"].append(statistics.mean(right))
        for key, result in kept.items():
            settings, of_seed, clips = json.loads(key)
            if of_seed == seed and clips == sorted(row["file_name"] for row in rows if row["split"] == "train"):
                start = settings.get("model_name_or_path", "random weights")
                columns.setdefault(f"fine-tuned from {start}", []).append(result["accuracy"])
    print(
        f"| {len(split['train'])} clips, scored on {len(split['test'])} | {' | '.join(f'seed {seed}' for seed in SEEDS)} | mean |"
    )
    print(f"|---|{'---|' * (len(SEEDS) + 1)}")
    for name, values in columns.items():
        print(f"| {name} | {' | '.join(f'{value:.3f}' for value in values)} | {statistics.mean(values):.3f} |")


if __name__ == "__main__":
    main()
