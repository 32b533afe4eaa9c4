#!/usr/bin/env bash
# soundfile decodes the first of several chained Ogg streams and says nothing of the others.
#
# Ogg files may be joined byte for byte (RFC 3533 calls that chaining); recorders of web radio write one stream a song.
# Expected: the length of all, or an error. FFmpeg and libvorbisfile play all.
# Seen with soundfile 0.14.0 (libsndfile 1.2.2), Vorbis and Opus: 2.0 of 4.0 s, no error.
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

rate, heard = 16_000, []
print(f"soundfile {soundfile.__version__}, libsndfile {soundfile.__libsndfile_version__}")
for subtype in ("VORBIS", "OPUS"):
    file = io.BytesIO()
    soundfile.write(file, numpy.random.default_rng(0).normal(size=2 * rate) * 0.1, rate, format="OGG", subtype=subtype)
    samples, _ = soundfile.read(io.BytesIO(2 * file.getvalue()))
    heard.append(len(samples) / rate)
    print(f"{subtype}: twice 2.0 s joined, heard {heard[-1]:.1f} s")
sys.exit(0 if max(heard) < 2.1 else 1)
PYTHON
