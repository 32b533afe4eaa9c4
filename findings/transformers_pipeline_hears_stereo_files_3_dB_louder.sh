#!/usr/bin/env bash
# The audio classification pipeline hears a stereo file 3 dB louder than the mono file of the same samples.
#
# ffmpeg_read asks ffmpeg for one channel of 32-bit floats; for floats ffmpeg adds both channels times 0.707 and does not
# normalise (for 16-bit integers it averages). Expected: where both channels are alike, that channel, as a mean gives it.
# AST's features and so all scores move.
# Seen with transformers 5.24.0, FFmpeg 5.1.9: peak 1.27 instead of 0.90.
# Ends with 0 if that is still so, with 1 if not, with 2 if ffmpeg is missing, which the pipeline runs.
set -euo pipefail
if ! command -v ffmpeg > /dev/null; then
    echo "ffmpeg is missing: the pipeline runs it (Debian: apt-get install ffmpeg)" >&2
    exit 2
fi
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    transformers==5.24.0 torch==2.14.1 numpy==2.4.6 soundfile==0.14.0
export HF_HUB_OFFLINE=1
"$folder/venv/bin/python" - "$folder" <<'PYTHON'
import subprocess
import sys
import warnings

import numpy
import soundfile
import transformers
from transformers import ASTConfig, ASTFeatureExtractor, ASTForAudioClassification, pipeline
from transformers.pipelines.audio_utils import ffmpeg_read

warnings.filterwarnings("ignore", message="At least one mel filter")
rate = 16_000
noise = numpy.random.default_rng(0).uniform(-0.9, 0.9, size=rate).astype(numpy.float32)
config = ASTConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)
classifier = pipeline(
    "audio-classification", model=ASTForAudioClassification(config).eval(), feature_extractor=ASTFeatureExtractor()
)
version = subprocess.run(["ffmpeg", "-version"], capture_output=True, text=True, check=True).stdout.split()[2]
print(f"transformers {transformers.__version__}, FFmpeg {version}; noise with a peak of 0.9")
peaks, features = {}, {}
for name, samples in (("mono", noise), ("stereo", numpy.stack([noise, noise], axis=1))):
    path = f"{sys.argv[1]}/{name}.wav"
    soundfile.write(path, samples, rate, subtype="FLOAT")
    with open(path, "rb") as file:
        peaks[name] = numpy.abs(ffmpeg_read(file.read(), rate)).max()
    features[name] = classifier.preprocess(path)["input_values"].numpy()[0, :98]  # frames before the padding
    print(f"{name} file: peak {peaks[name]:.3f}, mean of the features {features[name].mean():.3f}")
louder = 20 * numpy.log10(peaks["stereo"] / peaks["mono"])
print(f"stereo is {louder:.2f} dB louder")
sys.exit(0 if 2.9 < louder < 3.1 and features["stereo"].mean() > features["mono"].mean() + 0.05 else 1)
PYTHON
