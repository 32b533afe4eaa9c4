#!/usr/bin/env bash
# The class-wise average of sed_eval leaves out labels that were never found, so that finding less gives a better score.
#
# A label that is marked and never found has a recall of 0, and an F1 of 0. sed_eval gives its precision and F1 as NaN and takes the
# mean of the others: with one of two labels found perfectly and the other never, the macro F1 is 1.0. One wrong find of that other
# label makes it 0.5.
# Seen with sed_eval 0.2.1 and dcase_util 0.2.20.
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


def events(*stretches):
    return MetaDataContainer([{"file": "a.wav", "onset": on, "offset": off, "event_label": label} for on, off, label in stretches])


marked = events((0.0, 1.0, "cat"), (5.0, 6.0, "dog"))
found = {
    "cat found, dog never": events((0.0, 1.0, "cat")),
    "cat found, dog in the wrong place": events((0.0, 1.0, "cat"), (8.0, 9.0, "dog")),
}
macro = {}
for name, predicted in found.items():
    metrics = EventBasedMetrics(event_label_list=["cat", "dog"])
    metrics.evaluate(reference_event_list=marked, estimated_event_list=predicted)
    macro[name] = metrics.results_class_wise_average_metrics()["f_measure"]["f_measure"]
    print(f"{name}: macro F1 {macro[name]}, of dog {metrics.results_class_wise_metrics()['dog']['f_measure']}")
sys.exit(0 if list(macro.values()) == [1.0, 0.5] else 1)
PYTHON
