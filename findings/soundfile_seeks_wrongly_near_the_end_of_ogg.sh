#!/usr/bin/env bash
# In the last page of an Ogg Vorbis file soundfile's seek goes to a wrong place, without a word.
#
# SoundFile.seek(n) says that it went to n, and what is read from there is as many samples as there should be, but they are those of
# another place. Expected: the samples that a decode of the whole file has there, as it is everywhere before, and in WAV and FLAC.
# Who cuts windows or excerpts out of recordings gets the wrong end of each.
# Seen with soundfile 0.14.0 (libsndfile 1.2.2), of 14 s of noise in two channels at 44.1 kHz: 0 off up to 4,000 samples before the end,
# and 0.44 of full scale from 2,000 on, four standard deviations of the noise.
# Ends with 0 if that is still so, with 1 if not.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check soundfile==0.14.0 numpy==2.4.6
"$folder/venv/bin/python" - "$folder" <<'PYTHON'
import sys
from pathlib import Path

import numpy
import soundfile

print(f"soundfile {soundfile.__version__}, {soundfile.__libsndfile_version__}")
rate, seconds = 44_100, 14
noise = numpy.random.default_rng(0).standard_normal((seconds * rate, 2)) / 10
largest = {}
for suffix in ("wav", "flac", "ogg"):
    path = Path(sys.argv[1]) / f"noise.{suffix}"
    soundfile.write(path, noise, rate)
    whole, _ = soundfile.read(path, dtype="float32")
    for before_end in (10 * rate, 4 * rate, rate, rate // 2, 10_000, 4_000, 2_000, 1_000, 300, 100):
        with soundfile.SoundFile(path) as file:
            place = len(whole) - before_end
            assert file.seek(place) == place
            found = file.read(dtype="float32")
        assert len(found) == before_end, (suffix, before_end, len(found))
        largest[suffix, before_end] = float(abs(found - whole[place:]).max())
    print(suffix, {distance: round(off, 6) for (kind, distance), off in largest.items() if kind == suffix})
early = max(off for (_, distance), off in largest.items() if distance >= 4 * rate)
others = max(off for (suffix, _), off in largest.items() if suffix != "ogg")
late = max(off for (suffix, distance), off in largest.items() if suffix == "ogg" and distance < rate)
sys.exit(0 if early < 1e-6 and others == 0 and late > 0.1 else 1)
PYTHON
