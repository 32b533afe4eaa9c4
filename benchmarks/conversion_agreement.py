"""Conversions against the outputs of the original code: 16 reference models, converted and run.

    python -m benchmarks.conversion_agreement [NAME ...]

Each model is filled with the reference's reproducible weights, saved as the original saves it, converted by `ast-convert`,
and run by this port and, in a process of its own, by stock Transformers. The table shows the largest differences from the
original's logits and position tables, and whether the way back to a `.pth` is bit-equal.
"""

import argparse
import json
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from transformers.utils import logging

from conversion.convert_ast_checkpoint import Overrides, convert_checkpoint
from conversion.geometry import PatchGeometry
from conversion.imagenet_start import start_from_imagenet
from conversion.to_original import convert_to_original
from modeling_ast import ASTForAudioClassification

REFERENCE = Path(__file__).parents[1] / "tests" / "reference"
NORM_WEIGHTS = ("norm1.weight", "norm2.weight", "norm.weight", "mlp_head.0.weight")
DEIT_TABLES = {"tiny224": "deit/deit_tiny_distilled_patch16_224", "base384": "deit/deit_base_distilled_patch16_384"}
AUDIOSET_TABLE = "checkpoint/base384_f10_t10_T1024_n527"  # what the reference's `audioset_start` models begin with
AT_ONCE = 2**16  # random numbers, in float64: half a megabyte
SLICE_CHANNELS = 4  # of the position tables, in the reference


@dataclass(frozen=True)
class ReferenceCase:
    """One model of `cases.json`, with what the original code returned for it.

    Args:
        name (`str`): of the case.
        kind (`str`): `"checkpoint"`, `"imagenet_start"` or `"audioset_start"`.
        settings (`dict`): the case's other entries.
        logits (`np.ndarray` of shape `(2, num_labels)`): the original's.
        position_slice (`np.ndarray` of shape `(2 + patches, 4)`, *optional*): first channels of its position table.
    """

    name: str
    kind: str
    settings: dict
    logits: np.ndarray
    position_slice: np.ndarray | None

    @property
    def input_values(self) -> torch.Tensor:
        """Normalised features of shape `(2, frames, 128)`."""
        generator = np.random.RandomState(self.settings["input_seed"])
        values = generator.standard_normal((2, self.settings["input_tdim"], 128)) * 0.5
        return torch.from_numpy(values.astype(np.float32))

    @property
    def geometry(self) -> PatchGeometry:
        """Strides and frames of the model."""
        return PatchGeometry(self.settings["fstride"], self.settings["tstride"], self.settings["input_tdim"])


def reference_cases() -> dict[str, ReferenceCase]:
    """The cases by name."""
    outputs = np.load(REFERENCE / "logits.npz")
    cases = {}
    for settings in _reference()["cases"]:
        name, kind = settings["name"], settings["kind"]
        slices = outputs.get(f"{name}.pos_embed_slice")
        cases[name] = ReferenceCase(name, kind, settings, outputs[f"{name}.logits"], slices)
    return cases


class RandomNumbers:
    """Normal numbers of one seed, each drawn once: what is asked for begins with what was asked for before.

    Args:
        seed (`int`): of NumPy's `RandomState`.
        scale (`float`): their standard deviation.
    """

    def __init__(self, seed: int, scale: float):
        self.generator, self.scale = np.random.RandomState(seed), scale
        self.numbers = np.empty(0, np.float32)

    def first(self, count: int) -> np.ndarray:
        """Return the first numbers.

        Args:
            count (`int`): how many.

        Returns:
            `np.ndarray` of shape `(count,)`, float32: not to be written to.
        """
        if count > len(self.numbers):
            known, self.numbers = self.numbers, np.empty(count, np.float32)
            self.numbers[: len(known)] = known
            for start in range(len(known), count, AT_ONCE):
                further = self.numbers[start : start + AT_ONCE]
                further[:] = self.generator.standard_normal(len(further)) * self.scale
        return self.numbers[:count]


@lru_cache(maxsize=1)  # a large model's are 350 MB
def random_numbers(seed: int, scale: float) -> RandomNumbers:
    """Return the numbers of a seed, kept until those of another are asked for."""
    return RandomNumbers(seed, scale)


def random_weights(table: dict[str, list[int]], seed: int, scale: float = 0.05) -> dict[str, torch.Tensor]:
    """The reference's reproducible weights, a function of names, shapes, their order and the seed."""
    sizes = {name: math.prod(shape) for name, shape in table.items()}
    numbers, start, weights = random_numbers(seed, scale).first(sum(sizes.values())), 0, {}
    for name, shape in table.items():
        value = numbers[start : start + sizes[name]].reshape(shape).copy()
        start += sizes[name]
        weights[name] = torch.from_numpy(value + np.float32(1) if name.endswith(NORM_WEIGHTS) else value)
    return weights


def original_weights(table_name: str, seed: int = 0) -> dict[str, torch.Tensor]:
    """Weights of a table of the reference, by the original's names."""
    return random_weights(_reference()["tensors"][table_name], seed)


def convert_case(case: ReferenceCase, folder: Path) -> ASTForAudioClassification:
    """Make the case's model by this project: from a `.pth` in `folder`, by way of a converted checkpoint there.

    Args:
        case ([`ReferenceCase`]): which model.
        folder (`Path`): where files of earlier cases are used again.

    Returns:
        The model, with the reference's classifier where the case makes a new one.
    """
    settings = case.settings
    if case.kind == "imagenet_start":
        table = DEIT_TABLES[settings["model_size"]]
        source = _saved(folder, table, seed=settings["deit_seed"], prefix="")
        labels = [f"LABEL_{index}" for index in range(settings["num_labels"])]
        start_from_imagenet(str(source), folder / case.name, case.geometry, labels, report=_silent)
    else:
        table = AUDIOSET_TABLE if case.kind == "audioset_start" else case.name
        geometry = PatchGeometry(10, 10, 1024) if case.kind == "audioset_start" else case.geometry
        flags = {name: getattr(geometry, name) for name in ("frequency_stride", "time_stride", "max_length")}
        if not (folder / table).exists():
            convert_checkpoint(_saved(folder, table), folder / table, Overrides(**flags), report=_silent)
    if case.kind == "audioset_start":
        model = ASTForAudioClassification.from_pretrained(
            folder / AUDIOSET_TABLE, max_length=settings["input_tdim"], num_labels=settings["num_labels"]
        )
    else:
        model = ASTForAudioClassification.from_pretrained(folder / case.name)
    if case.kind != "checkpoint":
        _fill_classifier(model, settings["head_seed"])
        model.save_pretrained(folder / case.name)
    return model.eval()


def port_differences(case: ReferenceCase, model: ASTForAudioClassification) -> tuple[float, float | None]:
    """Largest differences of the logits and, where the reference has it, of the position table's first channels."""
    with torch.no_grad():
        logits = model(case.input_values).logits.numpy()
    table = model.audio_spectrogram_transformer.embeddings.position_embeddings[0, :, :SLICE_CHANNELS].detach().numpy()
    positions = None if case.position_slice is None else float(np.abs(table - case.position_slice).max())
    return float(np.abs(logits - case.logits).max()), positions


def stock_differences(cases: Iterable[ReferenceCase], folder: Path) -> dict[str, float]:
    """Largest difference of stock Transformers' logits on each converted checkpoint, from one process without ours."""
    requests = {}
    for case in cases:
        input_file = folder / f"{case.name.replace('/', '_')}.npy"
        np.save(input_file, case.input_values.numpy())
        requests[str(folder / case.name)] = str(input_file)
    script, output = Path(__file__).with_name("stock_logits.py"), folder / "stock.npz"
    subprocess.run(
        [sys.executable, "-I", script, output],
        input=json.dumps(requests),
        text=True,
        check=True,
        stderr=subprocess.PIPE,
    )
    logits = np.load(output)
    return {case.name: float(np.abs(logits[str(folder / case.name)] - case.logits).max()) for case in cases}


def way_back_is_bit_equal(case: ReferenceCase, folder: Path) -> bool:
    """Whether original -> Hub -> original leaves every tensor of a `checkpoint` case as it was."""
    back = folder / f"{case.name}.back.pth"
    convert_to_original(str(folder / case.name), back, report=_silent)
    before, after = (torch.load(path, weights_only=True, mmap=True) for path in (folder / f"{case.name}.pth", back))
    used = {name: tensor for name, tensor in before.items() if not name.startswith("module.v.head")}
    return used.keys() == after.keys() and all(torch.equal(tensor, after[name]) for name, tensor in used.items())


def _reference() -> dict:
    return json.loads((REFERENCE / "cases.json").read_text())


def _saved(folder: Path, table_name: str, seed: int = 0, prefix: str = "module.") -> Path:
    path = folder / f"{table_name}.pth"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        weights = original_weights(table_name, seed)
        torch.save({prefix + name: tensor for name, tensor in weights.items()}, path)
    return path


@torch.no_grad()
def _fill_classifier(model: ASTForAudioClassification, seed: int):
    classifier = model.classifier
    parameters = {
        "mlp_head.0.weight": classifier.layernorm.weight,
        "mlp_head.0.bias": classifier.layernorm.bias,
        "mlp_head.1.weight": classifier.dense.weight,
        "mlp_head.1.bias": classifier.dense.bias,
    }
    weights = random_weights({name: list(parameter.shape) for name, parameter in parameters.items()}, seed)
    for name, parameter in parameters.items():
        parameter.copy_(weights[name])


def _silent(line: str):
    """Reports of the conversions are not what this is about."""


def main():
    """Print the table."""
    cases = reference_cases()
    parser = argparse.ArgumentParser(description="Conversions against the outputs of the original AST code.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="cases of the reference; all if none is given")
    names = parser.parse_args().names or list(cases)
    unknown = [name for name in names if name not in cases]
    if unknown:
        parser.error(f"{unknown[0]} is no case; there are {', '.join(cases)}")
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        rows = {}
        for name in names:
            logits, positions = port_differences(cases[name], convert_case(cases[name], folder))
            back = ""
            if cases[name].kind == "checkpoint":
                back = "yes" if way_back_is_bit_equal(cases[name], folder) else "NO"
            rows[name] = [logits, positions, back]
        stock = stock_differences([cases[name] for name in names], folder)
    print("| model | largest logit | port - original | positions | stock - original | way back bit-equal |")
    print("|---|---|---|---|---|---|")
    for name, (logits, positions, back) in rows.items():
        largest = np.abs(cases[name].logits).max()
        shown = "" if positions is None else f"{positions:.1e}"
        print(f"| {name} | {largest:.2f} | {logits:.1e} | {shown} | {stock[name]:.1e} | {back} |")
    print(f"\n{len(rows)} models in {time.perf_counter() - start:.0f} s.")


if __name__ == "__main__":
    main()
