#!/usr/bin/env bash
# decodeAudioData of Chromium makes floats of 16-bit FLAC by two scales: 1/32768 below zero, 1/32767 above.
#
# libsndfile uses one scale, so that a wave and its negative are each other's negative. Two are a distortion, small, but in quiet
# mel bands of a loud clip log-mel features have it. Expected: sample / 32768 for all.
# Seen with Chromium 156, by playwright 1.65.2: 32767 becomes 1.0 and 16384 becomes 0.500015, while -16384 becomes -0.5.
# Ends with 0 if that is still so, with 1 if not, with 2 if chromium is missing.
set -euo pipefail
if ! command -v chromium > /dev/null; then
    echo "chromium is missing (Debian: apt-get install chromium)" >&2
    exit 2
fi
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check playwright==1.65.2 soundfile==0.14.0 numpy==2.4.6
"$folder/venv/bin/python" - "$folder/ramp.flac" "$(command -v chromium)" <<'PYTHON'
import base64
import sys
from importlib.metadata import version
from pathlib import Path

import numpy
import soundfile
from playwright.sync_api import sync_playwright

DECODE = """async (content) => {
  const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
  const context = new OfflineAudioContext(1, 1, 16000);
  return Array.from((await context.decodeAudioData(bytes.buffer)).getChannelData(0));
}"""
path, program = sys.argv[1:]
whole = numpy.arange(-32768, 32768, 16, dtype=numpy.int16)
whole[-1] = 32767
soundfile.write(path, whole, 16_000, subtype="PCM_16")
assert numpy.array_equal(soundfile.read(path, dtype="float32")[0], whole / numpy.float32(32768))
with sync_playwright() as playwright:
    browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
    print(f"Chromium {browser.version}, playwright {version('playwright')}")
    found = numpy.array(browser.new_page().evaluate(DECODE, base64.b64encode(Path(path).read_bytes()).decode()))
    browser.close()
assert len(found) == len(whole)
for sample in (-32768, -16384, 16384, 32767):
    print(f"{sample}: {found[whole == sample][0]:.6f}, by libsndfile {sample / 32768:.6f}")
below, above = whole <= 0, whole > 0
uneven = numpy.allclose(found[below], whole[below] / 32768, rtol=0, atol=1e-7)
uneven &= numpy.allclose(found[above], whole[above] / 32767, rtol=0, atol=1e-7)
sys.exit(0 if uneven else 1)
PYTHON
