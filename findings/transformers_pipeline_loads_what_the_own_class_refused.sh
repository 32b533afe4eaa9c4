#!/usr/bin/env bash
# pipeline(task, model=folder) goes on with the stock class, without a word, where the registered own class has refused.
#
# An own class is registered for the Auto class of the task; its __init__ raises ValueError for a configuration that it does
# not compute. The pipeline keeps that error to itself, takes the class that config.json names under "architectures" and
# answers with its scores. Expected: the ValueError, as AutoModelForAudioClassification raises, or a warning.
# Seen with transformers 5.24.0: the Auto class raises, the pipeline holds an ASTForAudioClassification, nothing is logged.
# Ends with 0 if that is still so, with 1 if not.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check transformers==5.24.0 torch==2.14.1 numpy==2.4.6
export HF_HUB_OFFLINE=1
"$folder/venv/bin/python" - "$folder" <<'PYTHON'
import contextlib
import io
import logging
import sys

import torch
import transformers
from transformers import (
    ASTConfig,
    ASTFeatureExtractor,
    ASTForAudioClassification,
    AutoModelForAudioClassification,
    pipeline,
)


class OverlappingAST(ASTForAudioClassification):
    """An AST for spectrograms whose patches overlap."""

    def __init__(self, config: ASTConfig) -> None:
        if config.time_stride >= config.patch_size:
            raise ValueError(f"time_stride is {config.time_stride}, expected less than {config.patch_size}")
        super().__init__(config)


def pipeline_and_log(time_stride: int) -> tuple[str, str]:
    """Class that the pipeline has loaded a checkpoint in, and what was logged meanwhile."""
    folder = f"{sys.argv[1]}/{time_stride}"
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    torch.manual_seed(0)
    config = ASTConfig(max_length=64, num_mel_bins=32, time_stride=time_stride, **sizes)
    ASTForAudioClassification(config).save_pretrained(folder)
    ASTFeatureExtractor(max_length=64, num_mel_bins=32).save_pretrained(folder)
    try:
        by_auto = type(AutoModelForAudioClassification.from_pretrained(folder)).__name__
    except ValueError as error:
        by_auto = f"ValueError: {error}"
    log = io.StringIO()
    handler = logging.StreamHandler(log)
    handler.setLevel(logging.WARNING)
    transformers.logging.add_handler(handler)
    with contextlib.redirect_stderr(io.StringIO()):
        by_pipeline = type(pipeline("audio-classification", model=folder).model).__name__
    transformers.logging.remove_handler(handler)
    print(f"time_stride {time_stride}: Auto class: {by_auto}; pipeline: {by_pipeline}; logged: {log.getvalue()!r}")
    return by_auto.partition(":")[0], by_pipeline, log.getvalue()


transformers.logging.disable_progress_bar()
AutoModelForAudioClassification.register(ASTConfig, OverlappingAST, exist_ok=True)
print(f"transformers {transformers.__version__}")
overlapping, apart = pipeline_and_log(10), pipeline_and_log(16)
as_described = overlapping == ("OverlappingAST", "OverlappingAST", "") and apart == (
    "ValueError",
    "ASTForAudioClassification",
    "",
)
sys.exit(0 if as_described else 1)
PYTHON
