#!/usr/bin/env bash
# With bf16_full_eval, Trainer saves a model in half precision if it was evaluated after the training.
#
# The documentation: "Only applies during evaluation." evaluate() casts the model itself and never casts it back, so that
# train(), evaluate(), save_model() writes bfloat16 where train(), save_model() writes float32; fp16_full_eval does alike.
# Expected: the same float32 weights with and without the evaluation.
# Seen with transformers 5.24.0, torch 2.14.1: all tensors of the file are bfloat16.
# Ends with 0 if that is still so, with 1 if not.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    transformers==5.24.0 accelerate==1.15.0 torch==2.14.1 numpy==2.4.6
export HF_HUB_OFFLINE=1
"$folder/venv/bin/python" - "$folder" <<'PYTHON'
import sys

import torch
import transformers
from safetensors.torch import load_file
from transformers import BertConfig, BertForSequenceClassification, PrinterCallback, Trainer, TrainingArguments

transformers.logging.disable_progress_bar()
config = BertConfig(vocab_size=9, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)
examples = [{"input_ids": torch.tensor([n, n + 1]), "labels": n % 2} for n in range(8)]


def saved_dtypes(evaluated: bool) -> set[torch.dtype]:
    folder = f"{sys.argv[1]}/evaluated_{evaluated}"
    arguments = TrainingArguments(
        folder, max_steps=1, bf16_full_eval=True, use_cpu=True, report_to=[], disable_tqdm=True, logging_strategy="no",
        save_strategy="no",
    )
    trainer = Trainer(BertForSequenceClassification(config), arguments, train_dataset=examples, eval_dataset=examples)
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    if evaluated:
        trainer.evaluate()
    trainer.save_model()
    return {tensor.dtype for tensor in load_file(f"{folder}/model.safetensors").values()}


without, after = saved_dtypes(False), saved_dtypes(True)
print(f"transformers {transformers.__version__}, torch {torch.__version__}")
print(f"train, save: {without}; train, evaluate, save: {after}")
sys.exit(0 if (without, after) == ({torch.float32}, {torch.bfloat16}) else 1)
PYTHON
