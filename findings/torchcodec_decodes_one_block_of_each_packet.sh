#!/usr/bin/env bash
# torchcodec decodes one block of each packet of ADPCM in WAV files, and says nothing of the rest.
#
# FFmpeg's reader of WAV gives several blocks in one packet, of which its decoders make a frame each; AudioDecoder returns
# the first. MS ADPCM and IMA ADPCM are common in telephony and old Windows programs; WMA in WAV suffers alike. Expected:
# all samples, as the ffmpeg of the same libraries and soundfile decode them.
# Seen with torchcodec 0.17.0, torch 2.14.1, FFmpeg 5.1.9, 16 kHz: 1.0 of 8.0 s.
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
    torchcodec==0.17.0 torch==2.14.1 numpy==2.4.6 soundfile==0.14.0
export HF_HUB_OFFLINE=1
"$folder/venv/bin/python" - "$folder" <<'PYTHON'
import subprocess
import sys

import numpy
import soundfile
import torch
import torchcodec
from torchcodec.decoders import AudioDecoder

rate = 16_000
tone = 0.3 * numpy.sin(2 * numpy.pi * 440 / rate * numpy.arange(8 * rate))
version = subprocess.run(["ffmpeg", "-version"], capture_output=True, text=True, check=True).stdout.split()[2]
print(f"torchcodec {torchcodec.__version__}, torch {torch.__version__}, FFmpeg {version}")
shares = {}
for subtype in ("PCM_16", "MS_ADPCM", "IMA_ADPCM"):
    path = f"{sys.argv[1]}/{subtype}.wav"
    soundfile.write(path, tone, rate, subtype=subtype)
    decoded = AudioDecoder(path).get_all_samples().data.shape[1]
    command = ["ffmpeg", "-loglevel", "error", "-i", path, "-f", "s16le", "-"]
    whole = len(subprocess.run(command, capture_output=True, check=True).stdout) // 2
    shares[subtype] = decoded / whole
    heard = len(soundfile.read(path)[0])
    print(f"{subtype}: torchcodec {decoded / rate:.2f} s, ffmpeg {whole / rate:.2f} s, soundfile {heard / rate:.2f} s")
sys.exit(0 if shares.pop("PCM_16") == 1 and max(shares.values()) < 0.5 else 1)
PYTHON
