#!/usr/bin/env bash
# Trainer reloads only parts of an Audio Spectrogram Transformer, with the best checkpoint and on resuming alike.
#
# Transformers 5 renames AST's tensors when it loads and back when it saves (encoder.layer.0.attention.attention.query <->
# layers.0.attention.q_proj). Trainer loads its checkpoints without the renaming and not strictly: every tensor of the
# transformer layers keeps what the model had. load_best_model_at_end mixes the best classifier with the last layers;
# resume_from_checkpoint goes on with the layers that the model began with. All that is said is a warning of missing keys.
# Expected: the checkpoint's weights, as from_pretrained loads them, or an error.
# Seen with transformers 5.24.0, torch 2.14.1: 11 of 27 tensors are those of the checkpoint, both times.
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
from transformers import ASTConfig, ASTForAudioClassification, PrinterCallback, Trainer, TrainerCallback, TrainingArguments

transformers.logging.disable_progress_bar()
transformers.logging.set_verbosity_error()  # the warnings list 32 names each
config = ASTConfig(
    hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, max_length=32, num_mel_bins=32
)
generator = torch.Generator().manual_seed(0)
clips = [{"input_values": torch.randn(32, 32, generator=generator), "labels": n % 2} for n in range(8)]


def make_trainer(scores: list[float], **fields: bool) -> Trainer:
    remaining = iter(scores)
    arguments = TrainingArguments(
        f"{sys.argv[1]}/run", max_steps=3, learning_rate=0.01, eval_strategy="steps", eval_steps=1, save_strategy="steps",
        save_steps=1, metric_for_best_model="accuracy", use_cpu=True, report_to=[], disable_tqdm=True,
        logging_strategy="no", **fields,
    )
    model = ASTForAudioClassification(config)
    trainer = Trainer(
        model, arguments, train_dataset=clips, eval_dataset=clips,
        compute_metrics=lambda _: {"accuracy": next(remaining)},
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def tensors_of(model: torch.nn.Module, checkpoint: str) -> int:
    """Number of the model's tensors that are those of the checkpoint."""
    saved = ASTForAudioClassification.from_pretrained(checkpoint).state_dict()
    return sum(torch.equal(saved[name], tensor) for name, tensor in model.state_dict().items())


class Compare(TrainerCallback):
    def on_train_begin(self, args, state, control, model, **kwargs):
        self.number = tensors_of(model, best)


print(f"transformers {transformers.__version__}, torch {torch.__version__}")
trainer = make_trainer([0.1, 0.9, 0.5], load_best_model_at_end=True)
trainer.train()
best = trainer.state.best_model_checkpoint
number = len(trainer.model.state_dict())
loaded = tensors_of(trainer.model, best)
print(f"load_best_model_at_end: {loaded} of {number} tensors are those of {best.rsplit('/', 1)[-1]}")
trainer, compare = make_trainer([0.5]), Compare()
trainer.add_callback(compare)
trainer.train(resume_from_checkpoint=best)
print(f"resume_from_checkpoint: {compare.number} of {number} tensors are those of {best.rsplit('/', 1)[-1]}")
sys.exit(0 if best.endswith("checkpoint-2") and max(loaded, compare.number) < number else 1)
PYTHON
