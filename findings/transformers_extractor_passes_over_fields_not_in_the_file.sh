#!/usr/bin/env bash
# FeatureExtractor.from_pretrained(folder, field=value) passes over a field that the file does not name, and says nothing.
#
# Files written before a field existed lack it: those of the first Whisper models have no "dither". The documentation says
# that values "of any keys which are feature extractor attributes will be used to override the loaded values"; only keys of
# the file are. Configurations, loaded with the same call, do take them. Expected: dither=0.1 is 0.1, or an error.
# Seen with transformers 5.24.0: dither=0.1 is 0.0 where the file does not name it, 0.1 where it does.
# Ends with 0 if that is still so, with 1 if not.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check transformers==5.24.0 numpy==2.4.6
export HF_HUB_OFFLINE=1
"$folder/venv/bin/python" - "$folder" <<'PYTHON'
import json
import sys
from pathlib import Path

import transformers
from transformers import WhisperConfig, WhisperFeatureExtractor

folder = Path(sys.argv[1])
print(f"transformers {transformers.__version__}")
WhisperFeatureExtractor().save_pretrained(folder)
file = folder / "preprocessor_config.json"
named = WhisperFeatureExtractor.from_pretrained(folder, dither=0.1).dither
fields = json.loads(file.read_text())
del fields["dither"]
file.write_text(json.dumps(fields))
unnamed = WhisperFeatureExtractor.from_pretrained(folder, dither=0.1).dither
print(f"extractor, dither=0.1: {named} if the file names the field, {unnamed} if not")

WhisperConfig().save_pretrained(folder)
file = folder / "config.json"
fields = json.loads(file.read_text())
del fields["dropout"]
file.write_text(json.dumps(fields))
dropout = WhisperConfig.from_pretrained(folder, dropout=0.1).dropout
print(f"configuration, dropout=0.1: {dropout} though the file does not name the field")
sys.exit(0 if (named, unnamed, dropout) == (0.1, 0.0, 0.1) else 1)
PYTHON
