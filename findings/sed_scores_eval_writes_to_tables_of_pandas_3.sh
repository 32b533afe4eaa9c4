#!/usr/bin/env bash
# sed_scores_eval cannot read the tables of scores that its own function makes, where pandas is of version 3.
#
# Its compiled code asks for arrays that may be written to, and those of pandas 3 are for reading: ValueError. With tables that hand
# out copies it works; it ends with a TypeError if labels that are taken for each other are asked for and there is one label, and with
# an IndexError if a label has no score but minus infinity.
# Seen with sed_scores_eval 0.0.4, pandas 3.1.1 and NumPy 2.4.6. Its installation needs a C compiler.
# Ends with 0 if that is still so, with 1 if not.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check sed_scores_eval==0.0.4 pandas==3.1.1 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
import sys

import numpy as np
import pandas as pd
from sed_scores_eval.base_modules.scores import create_score_dataframe
from sed_scores_eval.intersection_based import psds


class Copied(pd.DataFrame):
    @property
    def _constructor(self):
        return Copied

    def to_numpy(self, *values, **settings):
        return np.array(super().to_numpy(*values, **settings))


def outcome(scores, marked, cttc_threshold=None):
    given = {"scores": {"a": scores}, "ground_truth": {"a": marked}, "audio_durations": {"a": 30.0}}
    try:
        return psds(**given, dtc_threshold=0.7, gtc_threshold=0.7, cttc_threshold=cttc_threshold,
                    alpha_ct=0.5 if cttc_threshold else 0.0)[0]
    except Exception as error:
        return f"{type(error).__name__}: {error}"


times, marked = np.arange(4) * 10.0, [(10.0, 20.0, "cat"), (0.0, 10.0, "dog")]
scores = np.array([[0.1, 0.9], [0.9, 0.1], [0.2, 0.2]])
plain = create_score_dataframe(scores, times, ["cat", "dog"])
silent = create_score_dataframe(np.stack([scores[:, 0], np.full(3, -np.inf)], axis=1), times, ["cat", "dog"])
found = {
    "its own table": outcome(plain, marked),
    "the same with copies": outcome(Copied(plain), marked),
    "one label": outcome(Copied(plain[["onset", "offset", "cat"]]), marked[:1], cttc_threshold=0.3),
    "a label without scores": outcome(Copied(silent), marked),
}
for name, value in found.items():
    print(f"{name}: {value}")
kinds = [str(value).partition(":")[0] for value in found.values()]
as_seen = ["ValueError", "1.0", "TypeError", "IndexError"]
sys.exit(0 if kinds == as_seen else 1)
PYTHON
