#!/usr/bin/env bash
# FFmpeg decodes AAC with noise bands differently after a seek, for good: the part is not the part of the whole.
#
# AAC may say of a band only how loud its noise is (perceptual noise substitution, which FFmpeg's own encoder uses unless told not
# to). The decoder draws that noise from numbers that run on from frame to frame and are not put back by a seek or a flush. Expected:
# seconds after a seek, when all overlap is over, the samples of the whole decode, as of the same sound encoded without such bands.
# Seen with PyAV 18.1.0 (libavcodec 62): 0 without noise bands; with them up to 0.18 of full scale, as large as the noise.
# So windows cut from long M4A files by seeking, as for training, depend on where the decoder began.
# Ends with 0 if that is still so, with 1 if not.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check av==18.1.0 numpy==2.4.6
"$folder/venv/bin/python" - "$folder" <<'PYTHON'
import sys

import av
import numpy

RATE, SECONDS, START = 44_100, 12, 6


def encode(path: str, options: dict[str, str]):
    sound = (0.1 * numpy.random.default_rng(0).standard_normal((1, RATE * SECONDS))).astype(numpy.float32)
    with av.open(path, "w") as file:
        stream = file.add_stream("aac", rate=RATE, layout="mono", options=options)
        stream.bit_rate = 48_000
        for first in range(0, sound.shape[1], 1024):
            frame = av.AudioFrame.from_ndarray(sound[:, first : first + 1024], format="fltp", layout="mono")
            frame.sample_rate, frame.pts = RATE, first
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))


def decode(path: str, start: float) -> dict[int, numpy.ndarray]:
    """Frames by their time stamps, from a second on or from the beginning."""
    with av.open(path) as file:
        stream = file.streams.audio[0]
        if start:
            file.seek(round(start / stream.time_base), stream=stream)
        return {frame.pts: frame.to_ndarray()[0] for frame in file.decode(stream)}


def difference(name: str, options: dict[str, str]) -> float:
    """The largest one from a second after the seek on, when the frames around it are long over."""
    path = f"{sys.argv[1]}/{name}.m4a"
    encode(path, options)
    whole, part = decode(path, 0), decode(path, START)
    later = [time for time in sorted(part)[:-2] if time > (START + 1) * RATE]
    assert len(later) > 100 and set(later) <= set(whole)
    found = max(float(numpy.abs(whole[time] - part[time]).max()) for time in later)
    print(f"{name}: largest difference from 1 s after the seek on {found:.4f}, in {len(later)} frames")
    return found


print(f"PyAV {av.__version__}, libavcodec {av.library_versions['libavcodec']}")
with_noise_bands = difference("as the encoder likes it", {})
without = difference("without noise bands", {"aac_pns": "0"})
sys.exit(0 if without == 0 and with_noise_bands > 0.01 else 1)
PYTHON
