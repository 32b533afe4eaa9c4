#!/usr/bin/env bash
# soundfile hears a part of an MP3 of variable bit rate that has no Xing header, and says nothing.
#
# The stream is made of the frames that soundfile itself writes, less the first one, which holds the header and no audio;
# broadcasters and old encoders write such files. libsndfile takes the length that mpg123 guesses from the first frames for
# the length of the file and stops there, so that loud beginnings cost the quiet rest. Expected: all frames are decoded.
# Seen with soundfile 0.14.0 (libsndfile 1.2.2): 2.8 of 6.0 s, no error.
# Ends with 0 if that is still so, with 1 if not.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check soundfile==0.14.0 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
import io
import sys

import numpy
import soundfile

rate = 16_000
loudness = numpy.repeat([0.1, 1e-4], [rate, 5 * rate])
samples = numpy.random.default_rng(0).normal(size=6 * rate) * loudness
file = io.BytesIO()
soundfile.write(file, samples, rate, format="MP3", bitrate_mode="VARIABLE")
whole = file.getvalue()
second = whole.index(whole[:2], 4)  # every frame begins with the same two bytes
decoded, _ = soundfile.read(io.BytesIO(whole[second:]))
print(f"soundfile {soundfile.__version__}, libsndfile {soundfile.__libsndfile_version__}")
print(f"with its header {len(soundfile.read(io.BytesIO(whole))[0]) / rate:.1f} s, without {len(decoded) / rate:.1f} s")
sys.exit(0 if len(decoded) < 5 * rate else 1)
PYTHON
