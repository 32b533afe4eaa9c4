#!/usr/bin/env bash
# load_best_model_at_end loads a checkpoint of another step than the best one, and says nothing.
#
# save_steps=2 with eval_steps=1 is accepted, as saving need only be at a multiple of evaluating; the documentation says
# "the best checkpoint is always saved". If the best evaluation is at a step that saves nothing, an older checkpoint is
# loaded, or, if there is none, the last weights stay; best_metric still reports the best. Expected: its weights, or an error.
# Seen with transformers 5.24.0, torch 2.14.1: best after step 3, weights of step 2; best after step 1, weights of step 4.
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
from transformers import BertConfig, BertForSequenceClassification, PrinterCallback, Trainer, TrainingArguments

transformers.logging.disable_progress_bar()
config = BertConfig(vocab_size=9, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)
examples = [{"input_ids": torch.tensor([n, n + 1]), "labels": n % 2} for n in range(8)]


def steps_of_weights(scores: list[float]) -> list[int]:
    """Steps whose weights the model has at the end, where the evaluation after step n gives scores[n - 1]."""
    model = BertForSequenceClassification(config)
    weights = []

    def compute_metrics(_) -> dict[str, float]:
        weights.append({name: tensor.clone() for name, tensor in model.state_dict().items()})
        return {"accuracy": scores[len(weights) - 1]}

    arguments = TrainingArguments(
        f"{sys.argv[1]}/{scores[0]}", max_steps=len(scores), learning_rate=0.01, eval_strategy="steps", eval_steps=1,
        save_strategy="steps", save_steps=2, load_best_model_at_end=True, metric_for_best_model="accuracy",
        use_cpu=True, report_to=[], disable_tqdm=True, logging_strategy="no",
    )
    trainer = Trainer(model, arguments, train_dataset=examples, eval_dataset=examples, compute_metrics=compute_metrics)
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    at_end = model.state_dict()
    steps = [
        step
        for step, seen in enumerate(weights, 1)
        if all(torch.equal(seen[name], tensor) for name, tensor in at_end.items())
    ]
    print(f"accuracy after each step {scores}: best_metric {trainer.state.best_metric}, weights of step {steps}")
    return steps


print(f"transformers {transformers.__version__}, torch {torch.__version__}")
older, last = steps_of_weights([0.1, 0.5, 0.9, 0.6]), steps_of_weights([0.9, 0.5, 0.4, 0.3])
sys.exit(0 if (older, last) == ([2], [4]) else 1)
PYTHON
