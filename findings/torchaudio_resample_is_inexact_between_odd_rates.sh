#!/usr/bin/env bash
# torchaudio.functional.resample of float32 is off by far more than float32, and transforms.Resample hardly better.
#
# Both take times of the filter in float32 and multiply them by the lower of the reduced rates, so the error grows with it.
# The documentation says that Resample computes its kernel in float64 (without dtype one term of the times is float32) and
# that the functional form is the more precise one. Expected: errors near 3e-7, as from 2 to 1 Hz.
# Seen with torchaudio 2.11.1, torch 2.14.1, noise within 1, 1201 to 1600 Hz: functional 1.3e-4 (four steps of 16 bits),
# Resample 9e-5, Resample(dtype=torch.float64).to(torch.float32) 3e-7. Its kernel holds 1,944,000 numbers, most of them 0.
# Ends with 0 if that is still so, with 1 if not.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    torch==2.14.1 torchaudio==2.11.1 numpy==2.4.6
export HF_HUB_OFFLINE=1
"$folder/venv/bin/python" - "$folder" <<'PYTHON'
import sys

import torch
import torchaudio
from torchaudio.functional import resample
from torchaudio.transforms import Resample

print(f"torchaudio {torchaudio.__version__}, torch {torch.__version__}")
exact = 2 * torch.rand(48_000, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) - 1
errors = {}
for rates in ((2, 1), (441, 160), (1201, 1600)):
    expected = resample(exact, *rates)
    transforms = {
        "functional.resample": lambda waveform: resample(waveform, *rates),
        "transforms.Resample": Resample(*rates),
        "transforms.Resample(dtype=float64)": Resample(*rates, dtype=torch.float64).to(torch.float32),
    }
    print(f"{rates[0]} to {rates[1]} Hz, kernel of {Resample(*rates).kernel.numel():,} numbers, largest error of float32:")
    for name, transform in transforms.items():
        errors[rates, name] = (transform(exact.float()) - expected).abs().max().item()
        print(f"  {name}: {errors[rates, name]:.1e}")
odd = [errors[(1201, 1600), name] for name in transforms]
kernel_size = Resample(1201, 1600).kernel.numel()
sys.exit(0 if odd[0] > 5e-5 and odd[1] > 3e-5 and odd[2] < 1e-6 and kernel_size == 1_944_000 else 1)
PYTHON
