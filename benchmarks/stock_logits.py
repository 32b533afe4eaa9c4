"""Logits of checkpoints by stock Transformers, to compare conversions with: a script that imports nothing of this project.

    echo '{"runs/mine": "input.npy"}' | python -I benchmarks/stock_logits.py OUTPUT.npz

Takes `{checkpoint folder: .npy file of input_values}`, and writes the logits of each folder under its name.
"""

import json
import sys

import numpy as np
import torch
from transformers import AutoModelForAudioClassification
from transformers.utils import logging


@torch.no_grad()
def main():
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    logits = {}
    for folder, input_file in json.load(sys.stdin).items():
        model = AutoModelForAudioClassification.from_pretrained(folder).eval()
        logits[folder] = model(torch.from_numpy(np.load(input_file))).logits.numpy()
    ours = {"modeling_ast", "conversion", "model_card"} & {name.split(".")[0] for name in sys.modules}
    if ours:
        raise SystemExit(f"{sorted(ours)} were imported: these are not the logits of stock Transformers.")
    np.savez(sys.argv[1], **logits)


if __name__ == "__main__":
    main()
