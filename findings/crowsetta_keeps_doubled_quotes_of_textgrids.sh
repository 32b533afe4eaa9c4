#!/usr/bin/env bash
# crowsetta leaves the quotation marks in a label of Praat's TextGrid doubled.
#
# Praat writes a quotation mark inside a text as two, and every reader is to make one of them again. praat-parselmouth (Praat
# itself), praatio and textgrid do. crowsetta reads with textgrid and gives both: a label such as: call "b", is another class than
# the one that was written, without a word.
# Seen with crowsetta 5.1.2; praat-parselmouth 0.4.7, praatio 6.2.2 and textgrid 1.6.1 beside it.
# Ends with 0 if that is still so, with 1 if not.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    praat-parselmouth==0.4.7 praatio==6.2.2 textgrid==1.6.1 crowsetta==5.1.2
"$folder/venv/bin/python" - "$folder" <<'PYTHON'
import sys
from importlib.metadata import version
from pathlib import Path

import crowsetta
import parselmouth
import textgrid
from parselmouth.praat import call
from praatio import textgrid as praatio_textgrid

LABEL = 'call "b"'
path = Path(sys.argv[1]) / "marks.TextGrid"
grid = call("Create TextGrid", 0.0, 1.0, "calls", "")
call(grid, "Set interval text", 1, 1, LABEL)
call(grid, "Save as text file", str(path))  # by Praat, so that the file is what Praat makes of the label
print([line.strip() for line in path.read_text().splitlines() if "call" in line])

read = {}
read["praat-parselmouth"] = call(parselmouth.read(str(path)), "Get label of interval", 1, 1)
tiers = praatio_textgrid.openTextgrid(str(path), includeEmptyIntervals=True)
read["praatio"] = tiers.getTier(tiers.tierNames[0]).entries[0].label
read["textgrid"] = textgrid.TextGrid.fromFile(str(path)).tiers[0].intervals[0].mark
sequence = crowsetta.formats.seq.TextGrid.from_file(path).to_seq()
sequence = sequence[0] if isinstance(sequence, list) else sequence
read["crowsetta"] = str(sequence.segments[0].label)
for package, label in read.items():
    print(f"{package} {version(package)}: label {label!r}")
as_seen = dict.fromkeys(read, LABEL) | {"crowsetta": LABEL.replace('"', '""')}
sys.exit(0 if read == as_seen else 1)
PYTHON
