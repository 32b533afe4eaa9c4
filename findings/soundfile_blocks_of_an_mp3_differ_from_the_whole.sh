#!/usr/bin/env bash
# An MP3 that is read in blocks by soundfile has other samples than the same MP3 read at once.
#
# SoundFile.read seeks, after each block, to the place where it is anyway. The MP3 decoder behind libsndfile then begins anew, and of
# frames whose bits lie partly in the frames before them (MPEG's bit reservoir) too few are at hand: samples are up to a tenth of full
# scale off. Which lengths of blocks do it depends on the file. Expected: the same samples, as of WAV, FLAC and Ogg.
# Seen with soundfile 0.14.0, of 8 s of noise at 16 kHz: 0.108 off in blocks of 1000, rounding in blocks of 1152 and 8000. What the
# decoder says on the error stream about missing bits is its own; the file is whole.
# Ends with 0 if that is still so, with 1 if not.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check soundfile==0.14.0 numpy==2.4.6
"$folder/venv/bin/python" - "$folder" 2>/dev/null <<'PYTHON'
import sys
from pathlib import Path

import numpy
import soundfile

print(f"soundfile {soundfile.__version__}, {soundfile.__libsndfile_version__}")
noise = numpy.random.default_rng(0).standard_normal(8 * 16_000) / 10
largest = {}
for suffix in ("wav", "flac", "mp3"):
    path = Path(sys.argv[1]) / f"noise.{suffix}"
    soundfile.write(path, noise, 16_000)
    whole, _ = soundfile.read(path, dtype="float32")
    for length in (1000, 1152, 8000):
        joined = numpy.concatenate(list(soundfile.blocks(path, length, dtype="float32")))
        assert len(joined) == len(whole)
        largest[suffix, length] = float(abs(joined - whole).max())
        print(f"{suffix} in blocks of {length}: {largest[suffix, length]:.2g} of full scale off")
others = max(value for (suffix, _), value in largest.items() if suffix != "mp3")
sys.exit(0 if others == 0 and largest["mp3", 1000] > 0.01 and largest["mp3", 8000] < 1e-6 else 1)
PYTHON
