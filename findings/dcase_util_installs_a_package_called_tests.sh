#!/usr/bin/env bash
# Installing sed_eval puts a package called `tests` beside all others, and projects no longer import their own tests.
#
# The wheel of dcase_util, which sed_eval stands on, holds its tests as a top-level package. A project whose folder `tests` has no
# __init__.py then finds that package in place of its own modules, even when it is started in its own folder: `from tests.helpers
# import ...` ends with ModuleNotFoundError. With an __init__.py of its own, the project's folder comes first.
# It also imports pkg_resources without asking for setuptools: beside setuptools 82 and newer `import sed_eval` fails.
# Seen with sed_eval 0.2.1, dcase_util 0.2.20, setuptools 82.0.1 and 81.0.0.
# Ends with 0 if that is still so, with 1 if not.
set -uo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
python="$folder/venv/bin/python"
mkdir -p "$folder/project/tests"
echo "ANSWER = 1" > "$folder/project/tests/helpers.py"
cd "$folder/project"
say() { if "$python" -W ignore -c "$2" 2>"$folder/error"; then echo "$1: imported"; else echo "$1: $(tail -n 1 "$folder/error")"; fi; }
before=$(say "own helpers before" "from tests.helpers import ANSWER")
"$python" -m pip install --quiet --disable-pip-version-check setuptools==82.0.1 sed_eval==0.2.1 dcase_util==0.2.20 || exit 2
after=$(say "own helpers beside dcase_util" "from tests.helpers import ANSWER")
touch tests/__init__.py
own=$(say "own helpers with an __init__.py" "from tests.helpers import ANSWER")
newer=$(say "sed_eval beside setuptools 82" "import sed_eval")
"$python" -m pip install --quiet --disable-pip-version-check setuptools==81.0.0
older=$(say "sed_eval beside setuptools 81" "import sed_eval")
printf '%s\n' "$before" "$after" "$own" "$newer" "$older"
[[ $before == *": imported" && $after == *"No module named 'tests.helpers'" && $own == *": imported" ]] || exit 1
[[ $newer == *"No module named 'pkg_resources'" && $older == *": imported" ]] || exit 1
