"""What reading clips costs in passes over all of them, read by one process and by more.

    python -m benchmarks.reading_clips [--clips 300] [--rounds 3] [--kinds mp3 flac ogg wav drums]

Clips of ten seconds are drum clips laid end to end, in stereo at 44.1 kHz; `drums` are those that are shipped, as they are. The passes
are those of `ast-finetune` and `ast-evaluate`: `look` decodes all clips (`--skip_bad_audio`, `--check_audio`), `measure` is for the
normalisation, `cache` fills a `--waveform_cache` of beginnings, `score` runs a model of the sizes of `drums_from_scratch.yaml` with
random weights, as long as the clips. Without help is `--dataloader_num_workers 0`; helped is without that flag, and with 1 for
`score`, where nobody helps unasked. Sides take turns in one process. Each column is the median of its rounds, so that the last one,
of the ratios of both sides in a round, need not be the ratio of the columns. Beside seconds stand those of the processor, of this
process and of the others, which other work on the machine disturbs less.
"""

import argparse
import os
import resource
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path

from .tagging_stream import DRUMS, recording

DISTINCT = 50  # files; the others are links to these
KINDS = ("mp3", "flac", "ogg", "wav", "drums")
LABELS = ("a", "b")
SECONDS = 10.0
BATCH = 8


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=300, help="of each kind (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="in which both sides take turns (default: %(default)s)")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS, help="of files")
    args = parser.parse_args()
    print("| clips | pass | s, without help | of processor | s, helped | of processor, this process and others | x |")
    print("|---|---|---|---|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        for kind in args.kinds:
            folder = DRUMS if kind == "drums" else ten_seconds(Path(scratch) / kind, kind, args.clips)
            for row in rows(folder, kind, args.rounds):
                print(row, flush=True)
    return 0


def ten_seconds(folder: Path, kind: str, number: int) -> Path:
    """Make a folder of labels with files of ten seconds."""
    for count in range(number):
        path = folder / LABELS[count % 2] / f"{count:05}.{kind}"
        path.parent.mkdir(parents=True, exist_ok=True)
        if count < DISTINCT:
            recording(path, SECONDS, count)
        else:
            os.link(folder / LABELS[count % DISTINCT % 2] / f"{count % DISTINCT:05}.{kind}", path)
    return folder


def rows(folder: Path, kind: str, rounds: int):
    """Yield a line of the table for each pass."""
    for name, work in passes(folder, kind).items():
        found = {workers: [] for workers in (0, 1 if name == "score" else None)}
        for _ in range(rounds):
            for workers, times in found.items():
                began, used = time.perf_counter(), processor_seconds()
                work(workers)
                spent = [after - before for after, before in zip(processor_seconds(), used, strict=True)]
                times.append((time.perf_counter() - began, *spent))
        alone, helped = ([statistics.median(each) for each in zip(*times, strict=True)] for times in found.values())
        ratio = statistics.median(one[0] / other[0] for one, other in zip(*found.values(), strict=True))
        yield (
            f"| {kind} | {name} | {alone[0]:.1f} | {alone[1]:.1f} | {helped[0]:.1f} | {helped[1]:.1f} and {helped[2]:.1f} | "
            f"{ratio:.2f} |"
        )


def processor_seconds() -> tuple[float, float]:
    """Of this process, and of those that it has waited for."""
    both = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return tuple(used.ru_utime + used.ru_stime for used in both)


def passes(folder: Path, kind: str) -> dict:
    """Give the passes by name, each called with a number of workers."""
    import torch

    from finetune.arguments.groups import DataArguments
    from finetune.clip_sets.audio_clips import look_at_every_clip
    from finetune.clip_sets.clip_datasets import clip_set
    from finetune.clip_sets.decoding import sampled_clips
    from finetune.clip_sets.normalization import measure_normalization
    from finetune.clip_sets.waveform_cache import WaveformCache
    from finetune.scores.scoring import predict_scores
    from finetune.sources.splits import load_splits
    from modeling_ast import ASTConfig, ASTFeatureExtractor, ASTForAudioClassification

    data = DataArguments(dataset_name=str(folder))
    split = clip_set(load_splits(data, 0)[0]["train"])
    frames = 96 if kind == "drums" else 1024
    extractor = ASTFeatureExtractor(max_length=frames)
    torch.manual_seed(0)
    sizes = {"hidden_size": 128, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 512}
    config = ASTConfig(**sizes, frequency_stride=16, time_stride=16, max_length=frames, num_labels=9)
    config.problem_type = "single_label_classification"
    model, reader = ASTForAudioClassification(config), extractor.audio_reader()
    clips = split.dataset(extractor)
    list(sampled_clips(clips, 8, 0, 0))  # what is compiled and loaded once

    def cache(workers):
        with tempfile.TemporaryDirectory() as scratch:
            WaveformCache(scratch, reader, extractor.max_samples).fill(split.rows.select_columns("audio"), workers)

    return {
        "look": partial(look_at_every_clip, {"train": split}, data, reader, extractor.max_samples),
        "measure": lambda workers: measure_normalization(sampled_clips(clips, 0, 0, workers), extractor),
        "cache": cache,
        "score": lambda workers: predict_scores(model, extractor, clips, BATCH, "cpu", workers),
    }


if __name__ == "__main__":
    main()
