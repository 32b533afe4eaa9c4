"""Commands in forked children of one process that has everything imported, so that a run costs only its work."""

import importlib
import multiprocessing
import os
import shutil
import signal
import sys
import time
from pathlib import Path

import numpy as np
import soundfile
import torch

from modeling_ast import ASTConfig, ASTFeatureExtractor, ASTForAudioClassification

COMMANDS = {
    "ast-tag": "modeling_ast.run_tagging",
    "ast-convert": "conversion.run_conversion",
    "ast-export": "modeling_ast.run_export",
    "ast-finetune": "finetune.run_finetune",
    "ast-evaluate": "finetune.run_evaluate",
    "ast-model-card": "model_card.run_model_card",
    "ast-push": "model_card.run_push",
    "ast-demo": "model_card.run_demo",
}
IMPORTED = [
    *COMMANDS.values(), "modeling_ast.tagging.tagger", "modeling_ast.quantization", "modeling_ast.features.log_mel_kernels", "conversion.convert_ast_checkpoint",
    "conversion.to_original", "model_card.push_to_hub", "model_card.demo_page", "model_card.render",
    "finetune.results.publishing", "onnx", "onnxruntime", "onnxscript", "uvicorn", "fastapi",
    "transformers.models.audio_spectrogram_transformer", "torchcodec", "matplotlib.backends.backend_agg",
]  # fmt: skip
PATIENCE = 120  # seconds
SIZES = {
    "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32,
    "frequency_stride": 16, "time_stride": 16, "max_length": 48,
}  # fmt: skip
MARKS = (".ast-tmp", ".ast-lock", ".unfinished", ".tmp", ".part")


class Nursery:
    """Where the children come from.

    Args:
        temporary (`Path`): their TMPDIR.
        environment (`str`): further variables.
    """

    def __init__(self, temporary: Path, **environment: str):
        temporary.mkdir()
        self.temporary = temporary
        os.environ.update({"TMPDIR": str(temporary), "OMP_NUM_THREADS": "1"} | environment)
        self.context = multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload([*IMPORTED, __name__])

    def start(self, command: str, arguments: list, log: Path, num_layers: int = 12) -> "Child":
        return Child(self.context, command, [str(argument) for argument in arguments], log, num_layers)

    def run(self, *arguments, code: int = 0, **options) -> str:
        child = self.start(*arguments, **options)
        assert child.wait() == code, child.said()
        return child.said()


class Child:
    """A command in a process; it has begun its work when this is made."""

    def __init__(self, context, command: str, arguments: list[str], log: Path, num_layers: int):
        self.log = log
        log.unlink(missing_ok=True)
        begun, at_work = context.Pipe(duplex=False)
        target = (COMMANDS[command], arguments, str(log), num_layers, at_work)
        self.process = context.Process(target=_work, args=target)
        self.process.start()
        at_work.close()
        begun.recv()
        self.began = time.monotonic()

    def kill(self, number: int):
        if self.process.is_alive():
            os.kill(self.process.pid, number)

    def wait(self) -> int:
        self.process.join(PATIENCE)
        if self.process.is_alive():
            self.process.kill()
            raise AssertionError(f"it did not end:\n{self.said()}")
        return self.process.exitcode

    def said(self) -> str:
        return self.log.read_text()


def _work(module: str, arguments: list[str], log: str, num_layers: int, at_work):
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115
    main = importlib.import_module(module).main
    for name in ("weight_map", "original_checkpoint"):
        importlib.import_module(f"conversion.{name}").NUM_LAYERS = num_layers
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in a fork server
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    at_work.send(True)
    code = 1
    try:
        code = main(arguments)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        if sys.exc_info()[0] is None:
            os._exit(code)  # what a process does at its end, the fork server's children do otherwise


def leftovers(*folders: Path) -> list[str]:
    """What is only there for a while, in these folders at any depth."""
    found = [path for folder in folders for path in folder.rglob("*")]
    return [str(path) for path in found if any(mark in path.name for mark in MARKS)]


def contents(place: Path) -> dict[str, bytes]:
    """Every file of a folder, or the one file, by its name."""
    if place.is_file():
        return {"": place.read_bytes()}
    return {str(path.relative_to(place)): path.read_bytes() for path in sorted(place.rglob("*")) if path.is_file()}


def clear(place: Path):
    shutil.rmtree(place, ignore_errors=True)
    place.unlink(missing_ok=True)


def write_checkpoint(folder: Path) -> Path:
    """A tiny classifier of three labels."""
    torch.manual_seed(0)
    labels = dict(enumerate("abc"))
    config = ASTConfig(**SIZES, id2label=labels, label2id={label: index for index, label in labels.items()})
    ASTForAudioClassification(config).save_pretrained(folder)
    ASTFeatureExtractor(max_length=SIZES["max_length"], mean=-6.5, std=4.5).save_pretrained(folder)
    return folder


def write_clips(folder: Path, count: int = 8) -> Path:
    """Seeded noise of half a second in a folder for each label."""
    generator = np.random.default_rng(0)
    for label in "abc":
        (folder / label).mkdir(parents=True)
        for number in range(count):
            samples = 0.1 * generator.standard_normal(8_000)
            soundfile.write(folder / label / f"{label}{number}.wav", samples.astype(np.float32), 16_000)
    return folder
