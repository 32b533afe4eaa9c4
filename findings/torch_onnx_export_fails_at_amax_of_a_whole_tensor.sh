#!/usr/bin/env bash
# torch.onnx.export writes x.max() and x.amax(dim=(0, 1)), but stops with ConversionError at x.amax() and x.amin().
#
# PyTorch documents dim=() as their default, which reduces all dimensions, and torch.export records the call with the tensor alone.
# The exporter's functions for aten.amax and aten.amin want dim as an argument and have no default for it. Expected: a ReduceMax
# without axes, as x.max() becomes. A largest absolute value, as quantisation needs it, has to be written with max().
# Seen with torch 2.14.1, onnxscript 0.7.2, onnx 1.23.2, Python 3.11.7: max, amax of both dimensions: written; amax, amin:
# ConversionError. Ends with 0 if that is still so, with 1 if not.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    torch==2.14.1 onnxscript==0.7.2 onnx==1.23.2 numpy==2.4.6
timeout 300 "$folder/venv/bin/python" - <<'PYTHON' 2>"$folder/errors" || { cat "$folder/errors"; exit 1; }
import sys

import torch


class Reduced(torch.nn.Module):
    def __init__(self, reduce):
        super().__init__()
        self.reduce = reduce

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return self.reduce(values)


REDUCTIONS = {
    "max()": lambda values: values.max(),
    "amax(dim=(0, 1))": lambda values: values.amax(dim=(0, 1)),
    "amax()": lambda values: values.amax(),
    "amin()": lambda values: values.amin(),
}
seen = {}
for name, reduce in REDUCTIONS.items():
    assert reduce(torch.arange(6.0).reshape(2, 3)).shape == ()
    try:
        torch.onnx.export(Reduced(reduce).eval(), (torch.ones(2, 3),), dynamo=True, verbose=False)
        seen[name] = "written"
    except torch.onnx.errors.OnnxExporterError as error:
        seen[name] = type(error).__name__
print(f"torch {torch.__version__}")
for name, outcome in seen.items():
    print(f"{name:18}{outcome}")
sys.exit(list(seen.values()) != ["written", "written", "ConversionError", "ConversionError"])
PYTHON
