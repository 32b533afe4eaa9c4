#!/usr/bin/env bash
# datasets.Audio makes a square wave of full scale of an array of 16-bit integers, and says nothing.
#
# Integers are what scipy.io.wavfile.read and soundfile.read(dtype="int16") return. encode_example casts them to float32
# without dividing by 32768, and the encoder clips everything beyond 1. Expected: the samples that were given, or an error.
# Seen with datasets 5.2.0, torchcodec 0.17.0: of 201 values from -3000 to 3000 three are left: -32768, 0 and 32767.
# Ends with 0 if that is still so, with 1 if not, with 2 if ffmpeg is missing, whose libraries torchcodec loads.
set -euo pipefail
if ! command -v ffmpeg > /dev/null; then
    echo "ffmpeg is missing: torchcodec loads its libraries (Debian: apt-get install ffmpeg)" >&2
    exit 2
fi
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    datasets==5.2.0 torchcodec==0.17.0 torch==2.14.1 numpy==2.4.6 soundfile==0.14.0
export HF_HUB_OFFLINE=1
"$folder/venv/bin/python" - "$folder" <<'PYTHON'
import io
import sys

import datasets
import numpy
import soundfile
import torch
import torchcodec

rate = 16_000
integers = (3000 * numpy.sin(2 * numpy.pi * 440 / rate * numpy.arange(rate))).astype(numpy.int16)
print(f"datasets {datasets.__version__}, torchcodec {torchcodec.__version__}, torch {torch.__version__}")
print(f"given: {len(numpy.unique(integers))} values, from {integers.min()} to {integers.max()}")
encoded = {}
for kind, array in (("float64", integers / 32768), ("int16", integers)):
    content = datasets.Audio().encode_example({"array": array, "sampling_rate": rate})["bytes"]
    encoded[kind], _ = soundfile.read(io.BytesIO(content), dtype="int16")
    values = numpy.unique(encoded[kind])
    print(f"encoded as {kind}: {len(values)} values, from {values[0]} to {values[-1]}")
clipped = set(numpy.unique(encoded["int16"])) == {-32768, 0, 32767}
sys.exit(0 if clipped and numpy.array_equal(encoded["float64"], integers) else 1)
PYTHON
