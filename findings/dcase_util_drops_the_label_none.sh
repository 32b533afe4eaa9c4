#!/usr/bin/env bash
# dcase_util takes the event label "none" for no label, and cuts spaces off others.
#
# Events whose label is "none" or "None", as data sets call their background, have no label any more once they are in a
# MetaDataContainer, without a word. sed_eval, which is given such containers, then counts nothing for a label that is marked and found.
# Seen with dcase_util 0.2.20 and sed_eval 0.2.1.
# Ends with 0 if that is still so, with 1 if not.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check sed_eval==0.2.1 dcase_util==0.2.20
"$folder/venv/bin/python" - <<'PYTHON'
import sys

from dcase_util.containers import MetaDataContainer
from sed_eval.sound_event import EventBasedMetrics

LABELS = ["none", "None", " owl", "fox"]
found = {}
for label in LABELS:
    events = MetaDataContainer([{"file": "a.wav", "onset": 0.0, "offset": 1.0, "event_label": label}])
    metrics = EventBasedMetrics(event_label_list=LABELS)
    metrics.evaluate(reference_event_list=events, estimated_event_list=events)
    found[label] = (events[0].event_label, metrics.class_wise[label]["Ntp"])
    print(f"{label!r} became {found[label][0]!r}; hits of this label: {found[label][1]}")
as_seen = {"none": (None, 0), "None": (None, 0), " owl": ("owl", 0), "fox": ("fox", 1)}
sys.exit(0 if found == as_seen else 1)
PYTHON
