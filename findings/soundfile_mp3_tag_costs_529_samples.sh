#!/usr/bin/env bash
# A tag in front of an MP3 stream makes soundfile leave out its first 529 samples, though the tag names no delay.
#
# 529 samples are the delay of every decoder of layer III. mpg123, which libsndfile decodes with, takes them off a stream
# whose first frame is an Info tag, also one without the LAME part that says how much padding an encoder added, and off no
# stream without a tag. Expected: a tag that says nothing but the number of frames changes no sample.
# Seen with soundfile 0.14.0 (libsndfile 1.2.2): the stream with the tag is 529 samples shorter, at its beginning.
# Ends with 0 if that is still so, with 1 if not.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check soundfile==0.14.0 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
import io
import struct
import sys

import numpy
import soundfile

rate = 16_000
file = io.BytesIO()
soundfile.write(file, numpy.random.default_rng(0).normal(size=rate) * 0.1, rate, format="MP3", bitrate_mode="CONSTANT")
whole = file.getvalue()
size = whole.index(whole[:2], 4)  # of a frame: every frame begins with the same two bytes
frames = whole[size:]
# MPEG-2, mono: the tag stands behind four bytes of header and nine of side information.
head = frames[:4] + bytes(9)
tag = (head + struct.pack(">4sII", b"Info", 1, len(frames) // size)).ljust(size, b"\0")
with_tag, without = (soundfile.read(io.BytesIO(content))[0] for content in (tag + frames, frames))
shift = next((n for n in range(2000) if numpy.allclose(with_tag[:500], without[n : n + 500], atol=1e-6)), None)
print(f"soundfile {soundfile.__version__}, libsndfile {soundfile.__libsndfile_version__}")
print(f"without a tag {len(without)} samples, with one {len(with_tag)}; its first sample is number {shift} of the other")
sys.exit(0 if shift == 529 else 1)
PYTHON
