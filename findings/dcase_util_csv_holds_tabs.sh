#!/usr/bin/env bash
# dcase_util writes a .csv with tabs between the cells, and its columns in the order of the alphabet.
#
# MetaDataContainer.save("events.csv") writes a header and rows with tabs, so that pandas and spreadsheets find one column. The same
# events saved as .txt have no header and another order of columns.
# Seen with dcase_util 0.2.20 and pandas 3.0.5.
# Ends with 0 if that is still so, with 1 if not.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check dcase_util==0.2.20 'setuptools<82' pandas==3.0.5
cd "$folder"
venv/bin/python - <<'PYTHON'
import sys
import warnings

warnings.simplefilter("ignore")
import pandas
from dcase_util.containers import MetaDataContainer

events = [{"filename": "a.wav", "onset": 0.5, "offset": 1.0, "event_label": "owl"}]
for suffix in ("csv", "txt"):
    MetaDataContainer(events).save(f"events.{suffix}")
csv, txt = open("events.csv").read(), open("events.txt").read()
columns = list(pandas.read_csv("events.csv").columns)
print(f"events.csv: {csv!r}\nevents.txt: {txt!r}\npandas.read_csv finds the columns {columns}")
as_seen = csv.startswith("event_label\tfilename\toffset\tonset\n") and txt == "a.wav\t0.5\t1.0\towl\n" and len(columns) == 1
sys.exit(0 if as_seen else 1)
PYTHON
