#!/usr/bin/env bash
# In a Jupyter kernel, trainer.remove_callback(ProgressCallback) removes nothing, and says nothing.
#
# There, Trainer adds NotebookProgressCallback in place of ProgressCallback, and it is no subclass of it. Code that takes the
# progress bar away to print its own lines does so in plain Python, but in a notebook the HTML table is shown beside them.
# Expected: no progress of Trainer in either, or an error or warning that there is no such callback.
# Seen with transformers 5.24.0, torch 2.14.1, ipykernel 7.4.0: plain Python has the own lines alone, the kernel the table too.
# Ends with 0 if that is still so, with 1 if not.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    transformers==5.24.0 accelerate==1.15.0 torch==2.14.1 numpy==2.4.6 nbclient==0.11.0 ipykernel==7.4.0
export HF_HUB_OFFLINE=1 IPYTHONDIR="$folder/ipython" JUPYTER_CONFIG_DIR="$folder/config" JUPYTER_RUNTIME_DIR="$folder/runtime"
cat >"$folder/cell.py" <<'PYTHON'
import torch
import transformers
from transformers import BertConfig, BertForSequenceClassification, ProgressCallback, Trainer, TrainerCallback, TrainingArguments

transformers.logging.disable_progress_bar()


class OwnLines(TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):
        print(f"own line: step {state.global_step}")


config = BertConfig(vocab_size=9, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)
examples = [{"input_ids": torch.tensor([n, n + 1]), "labels": n % 2} for n in range(8)]
arguments = TrainingArguments(
    "unused", max_steps=2, use_cpu=True, report_to=[], disable_tqdm=False, logging_steps=1, save_strategy="no"
)
trainer = Trainer(BertForSequenceClassification(config), arguments, train_dataset=examples, callbacks=[OwnLines()])
before = [type(callback).__name__ for callback in trainer.callback_handler.callbacks]
trainer.remove_callback(ProgressCallback)
after = [type(callback).__name__ for callback in trainer.callback_handler.callbacks]
print(f"removed: {[name for name in before if name not in after]}, left: {[name for name in after if 'Progress' in name]}")
trainer.train();
PYTHON
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import nbformat
from nbclient import NotebookClient

source = Path("cell.py").read_text()
plain = subprocess.run([sys.executable, "-W", "always::UserWarning", "cell.py"], capture_output=True, text=True, check=True)
notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)])
NotebookClient(notebook, kernel_name="python3", timeout=300).execute()
outputs = notebook.cells[0].outputs
streams = {
    name: "".join(output.text for output in outputs if output.output_type == "stream" and output.name == name)
    for name in ("stdout", "stderr")
}
tables = [output.data["text/html"] for output in outputs if "text/html" in output.get("data", {})]

print(", ".join(f"{name} {version(name)}" for name in ("transformers", "torch", "ipykernel")))
print(f"plain Python, stdout:\n{plain.stdout}plain Python, stderr: {plain.stderr!r}")
print(f"kernel, stdout:\n{streams['stdout']}kernel, stderr: {streams['stderr']!r}")
print(f"kernel, HTML shown: {len(tables)}, with a table: {sum('<table' in html for html in tables)}")

lines = "own line: step 1\nown line: step 2\n"
as_described = (
    "removed: ['ProgressCallback'], left: []" in plain.stdout
    and lines in plain.stdout
    and "%|" not in plain.stderr
    and "removed: [], left: ['NotebookProgressCallback']" in streams["stdout"]
    and lines.splitlines()[0] in streams["stdout"]
    and "callback" not in streams["stderr"].lower()
    and any("Training Loss" in html for html in tables)
)
sys.exit(0 if as_described else 1)
PYTHON
