#!/usr/bin/env bash
# HfArgumentParser takes the values of a YAML recipe as they come, of any type; the same words as flags it converts.
#
# YAML 1.1 reads "1e-4" (no point) as text, "1:30" as 90 (base 60), "2.5" as a float whatever the field is. Expected: the
# types of the fields as with flags, or an error; as it is, `if freeze_encoder:` is true for the quoted "no" and a learning
# rate is text until the optimizer compares it.
# Seen with transformers 5.24.0, PyYAML 6.0.4: learning_rate '1e-4', epochs 2.5 (int), start 90 (str), freeze_encoder 'no'.
# As flags: 0.0001, an error, '1:30', False.
# Ends with 0 if that is still so, with 1 if not.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check transformers==5.24.0 PyYAML==6.0.4
export HF_HUB_OFFLINE=1
"$folder/venv/bin/python" - "$folder" <<'PYTHON'
import contextlib
import dataclasses
import io
import sys
from pathlib import Path

import transformers
import yaml
from transformers import HfArgumentParser


@dataclasses.dataclass
class Arguments:
    learning_rate: float = 1e-3
    epochs: int = 1
    start: str = "0:00"  # minutes and seconds
    freeze_encoder: bool = True


words = {"learning_rate": "1e-4", "epochs": "2.5", "start": "1:30", "freeze_encoder": "'no'"}
recipe = Path(sys.argv[1]) / "recipe.yaml"
recipe.write_text("".join(f"{name}: {word}\n" for name, word in words.items()))
parser = HfArgumentParser(Arguments)
(of_recipe,) = parser.parse_yaml_file(recipe)
print(f"transformers {transformers.__version__}, PyYAML {yaml.__version__}")
of_flags = {}
for field in dataclasses.fields(Arguments):
    with contextlib.redirect_stderr(io.StringIO()):
        try:
            (parsed,) = parser.parse_args_into_dataclasses([f"--{field.name}", words[field.name].strip("'")])
            of_flags[field.name] = getattr(parsed, field.name)
        except SystemExit:
            of_flags[field.name] = "an error"
    print(
        f"{field.name} ({field.type.__name__}): {words[field.name]} of a recipe is {getattr(of_recipe, field.name)!r}, "
        f"as a flag {of_flags[field.name]!r}"
    )
as_described = of_recipe == Arguments("1e-4", 2.5, 90, "no") and of_flags == {
    "learning_rate": 1e-4,
    "epochs": "an error",
    "start": "1:30",
    "freeze_encoder": False,
}
sys.exit(0 if as_described else 1)
PYTHON
