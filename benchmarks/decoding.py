"""What is heard of whole, cut-off, joined and damaged files of each format, beside FFmpeg and `audio_length`.

    python -m benchmarks.decoding [--output docs/decoding.md]

Ten seconds of noise are coded by the ffmpeg program and then changed as broken downloads (the first half), `cat` (twice one
after the other), dying disks (3 kB in the middle overwritten) and pipes (written to one, so that no size is known) do it.
"""

import argparse
import random
import subprocess
import sys
import tempfile
from pathlib import Path

from modeling_ast.audio import AudioError, audio_length, decode_audio

SECONDS, RATE = 10, 16_000
# Name, suffix, what ffmpeg is told, and the name of its muxer if it can write to a pipe.
FORMATS = (
    ("WAV", "wav", [], "wav"),
    ("WAV, 24 bits", "wav", ["-c:a", "pcm_s24le"], None),
    ("WAV, ADPCM", "wav", ["-c:a", "adpcm_ms"], None),
    ("WAV, WMA", "wav", ["-c:a", "wmav2"], None),
    ("RF64", "wav", ["-rf64", "always"], None),
    ("W64", "w64", [], "w64"),
    ("AIFF", "aiff", [], "aiff"),
    ("AU", "au", [], "au"),
    ("CAF", "caf", [], "caf"),
    ("FLAC", "flac", [], "flac"),
    ("Ogg Vorbis", "ogg", [], "ogg"),
    ("Opus", "opus", [], "opus"),
    ("MP3, constant bit rate", "mp3", ["-b:a", "64k"], "mp3"),
    ("MP3, variable bit rate", "mp3", ["-q:a", "4"], None),
    ("MP3, variable, no header", "mp3", ["-q:a", "4", "-write_xing", "0"], None),
    ("AAC in MP4", "m4a", [], None),
    ("AAC in MP4, index first", "m4a", ["-movflags", "faststart"], None),
    ("ALAC in CAF", "caf", ["-c:a", "alac"], None),
    ("AAC", "aac", ["-aac_pns", "1"], None),
    ("WMA", "wma", [], None),
    ("WebM", "webm", [], None),
    ("AVI, ADPCM", "avi", ["-c:a", "adpcm_ms"], None),
    ("WavPack", "wv", [], None),
    ("TTA", "tta", [], None),
)


def main(argv: list[str] | None = None) -> int:
    """Write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, help="write a page there too")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        lines = list(table(Path(folder)))
    print("\n".join(lines))
    if args.output:
        command = ["```sh", "python -m benchmarks.decoding --output docs/decoding.md", "```"]
        text = __doc__.splitlines()[4:]
        args.output.write_text("\n".join(["# What is heard of which file", "", *command, "", *text, "", *lines, ""]))
    return 0


def table(folder: Path):
    """Yield the lines of a Markdown table."""
    source = folder / "source.wav"
    noise = f"anoisesrc=d={SECONDS}:c=pink:r={RATE}:seed=1:a=0.3,tremolo=f=0.5:d=0.9"
    ffmpeg("-f", "lavfi", "-i", noise, "-ac", "1", source)
    yield "| format | fault | heard, s | FFmpeg, s | `audio_length`, s | what is said |"
    yield "|---|---|---|---|---|---|"
    for name, suffix, settings, muxer in FORMATS:
        whole = folder / f"whole.{suffix}"
        ffmpeg("-i", source, *settings, whole)
        content = whole.read_bytes()
        faults = {"whole": content, "half of it": content[: len(content) // 2], "twice": 2 * content}
        middle, spot = len(content) // 2, min(3000, len(content) // 10)
        damaged = random.Random(1).randbytes(spot)
        faults["damaged spot"] = content[:middle] + damaged + content[middle + spot :]
        if muxer:
            faults["from a pipe"] = ffmpeg("-i", source, *settings, "-f", muxer, "-")
        for fault, changed in faults.items():
            path = folder / f"clip.{suffix}"
            path.write_bytes(changed)
            yield f"| {name} | {fault} | {' | '.join(row(path))} |"


def row(path: Path) -> tuple[str, str, str, str]:
    """Seconds that this kit hears and FFmpeg decodes, the length that is told, and the words."""
    by_ffmpeg = len(ffmpeg("-i", path, "-ar", RATE, "-f", "f32le", "-", may_fail=True)) / 4 / RATE
    try:
        decoded = decode_audio(path, "clip")
        length = audio_length(path)
    except AudioError as error:
        return "", f"{by_ffmpeg:.2f}" if by_ffmpeg else "none", "", str(error).replace(str(path), "clip")
    told = f"{length.seconds:.2f}" + (" (estimate)" if length.is_estimate else "")
    heard = len(decoded.samples) / decoded.sampling_rate
    return (
        f"{heard:.2f}",
        f"{by_ffmpeg:.2f}" if by_ffmpeg else "none",
        told,
        " ".join(note.text for note in decoded.notes),
    )


def ffmpeg(*arguments, may_fail: bool = False) -> bytes:
    """Run the ffmpeg program and return what it writes to standard output."""
    command = ["ffmpeg", "-v", "error", "-nostdin", "-y", *map(str, arguments)]
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=not may_fail).stdout


if __name__ == "__main__":
    sys.exit(main())
