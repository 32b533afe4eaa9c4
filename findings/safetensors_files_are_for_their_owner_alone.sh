#!/usr/bin/env bash
# safetensors' save_file writes weights that only their owner may read, whatever the umask and the mode of an older file.
#
# config.json beside them gets the rights that the umask gives. In a shared folder, or an image built by root, other users
# are told by from_pretrained that there is no file model.safetensors. Expected: 644 under the umask 022, 664 under 002, as
# safetensors 0.7.0 writes; and the mode of the file that is written over.
# Seen with safetensors 0.8.0: 600 each time. The bytes of save(), written by open(), are 644 and 664.
# Ends with 0 if that is still so, with 1 if not.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
seen=
for version in 0.7.0 0.8.0; do
    python3 -m venv "$folder/$version"
    "$folder/$version/bin/pip" install --quiet --disable-pip-version-check "safetensors==$version" numpy==2.4.6
    seen+=$("$folder/$version/bin/python" - "$folder" <<'PYTHON'
import os
import sys
import tempfile
from pathlib import Path

import numpy
import safetensors
from safetensors.numpy import save, save_file

tensors, modes = {"weight": numpy.zeros(3, numpy.float32)}, []
for umask in (0o022, 0o002):
    os.umask(umask)
    folder = Path(tempfile.mkdtemp(dir=sys.argv[1]))
    save_file(tensors, folder / "new.safetensors")
    (folder / "older.safetensors").write_bytes(save(tensors))
    modes.append([f"{(folder / f'{name}.safetensors').stat().st_mode & 0o777:o}" for name in ("new", "older")])
    save_file(tensors, folder / "older.safetensors")
    modes[-1].append(f"{(folder / 'older.safetensors').stat().st_mode & 0o777:o}")
    print(
        f"safetensors {safetensors.__version__}, umask {umask:03o}: save_file {modes[-1][0]}, save and open() "
        f"{modes[-1][1]}, save_file over that {modes[-1][2]}",
        file=sys.stderr,
    )
print(" ".join(mode for row in modes for mode in row), end=" ")
PYTHON
    )
    seen+="; "
done
test "$seen" = "644 644 644 664 664 664 ; 600 644 600 600 664 600 ; "
