#!/usr/bin/env bash
# psds_eval cannot compute a score where pandas is of version 3, or NumPy of version 2.4.
#
# It fills gaps with `fillna(method="ffill")`, which pandas 3 has no more, and makes numbers of arrays with one element, which NumPy
# 2.4 no longer does: a TypeError each, after all operating points were added. With pandas 2.3.3 and NumPy 2.3.5 it works.
# Seen with psds_eval 0.5.3; pandas 3.1.1 and 2.3.3; NumPy 2.4.6 and 2.3.5.
# Ends with 0 if that is still so, with 1 if not.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat > "$folder/score.py" <<'PYTHON'
import numpy as np
import pandas as pd
from psds_eval import PSDSEval

columns = ["filename", "onset", "offset", "event_label"]
marked = pd.DataFrame([["a", 1.0, 2.0, "cat"], ["a", 5.0, 6.0, "dog"]], columns=columns)
lengths = pd.DataFrame([["a", 60.0]], columns=["filename", "duration"])
scorer = PSDSEval(dtc_threshold=0.7, gtc_threshold=0.7, cttc_threshold=0.3, ground_truth=marked, metadata=lengths)
scorer.add_operating_point(marked)
print()
versions = f"pandas {pd.__version__}, numpy {np.__version__}"
try:
    print(f"{versions}:", scorer.psds(alpha_ct=0, alpha_st=1, max_efpr=100).value)
except TypeError as error:
    print(f"{versions}: {error}")
PYTHON
python3 -m venv "$folder/venv"
for versions in "pandas==3.1.1 numpy==2.4.6" "pandas==2.3.3 numpy==2.4.6" "pandas==2.3.3 numpy==2.3.5"; do
    # shellcheck disable=SC2086  # two packages
    "$folder/venv/bin/pip" install --quiet --disable-pip-version-check psds_eval==0.5.3 $versions
    "$folder/venv/bin/python" -W ignore "$folder/score.py" | tee -a "$folder/said"
done
grep -q "^pandas 3.1.1, .*unexpected keyword argument 'method'" "$folder/said"
grep -q "^pandas 2.3.3, numpy 2.4.6: only 0-dimensional arrays" "$folder/said"
grep -q "^pandas 2.3.3, numpy 2.3.5: 1.0" "$folder/said"
