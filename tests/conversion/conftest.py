"""Small checkpoints as the original AST code saves them: real names and widths, two layers, seeded weights."""

from pathlib import Path

import pytest
import torch

from benchmarks.conversion_agreement import original_weights

TINY = "checkpoint/tiny224_f10_t10_T1024_n527"


@pytest.fixture(scope="session")
def tiny_weights() -> dict[str, torch.Tensor]:
    """The reference's tiny224 with 527 labels, strides 10 and 1024 frames, cut to its first two layers."""
    weights = original_weights(TINY)
    return {
        name: tensor
        for name, tensor in weights.items()
        if not name.startswith("v.blocks.") or name.split(".")[2] in ("0", "1")
    }


@pytest.fixture
def two_layers(monkeypatch):
    """Let two layers be a whole model; the original's twelve are in the reference models."""
    monkeypatch.setattr("conversion.weight_map.NUM_LAYERS", 2)


@pytest.fixture
def make_original(tiny_weights, two_layers, tmp_path_factory):
    """Save a variant of the small checkpoint: `make_original(name, patches=..., labels=..., prefix=..., **save)`."""

    def make(
        name: str = "best_audio_model.pth",
        patches: int = 1212,
        labels: int = 527,
        prefix: str = "module.",
        change=lambda weights: None,
        **save,
    ) -> Path:
        weights = dict(tiny_weights)
        weights["v.pos_embed"] = weights["v.pos_embed"][:, : patches + 2]
        for kind in ("weight", "bias"):
            weights[f"mlp_head.1.{kind}"] = weights[f"mlp_head.1.{kind}"][:labels]
        change(weights)
        path = tmp_path_factory.mktemp("original") / name
        torch.save({prefix + key: tensor.clone() for key, tensor in weights.items()}, path, **save)
        return path

    return make


@pytest.fixture
def convert(capsys):
    """Run `ast-convert` in this process: `code, out, err = convert(path, folder, "--flag", value)`."""
    from conversion.run_conversion import main

    def run(*arguments) -> tuple[int, str, str]:
        capsys.readouterr()  # what the test itself printed
        code = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run
