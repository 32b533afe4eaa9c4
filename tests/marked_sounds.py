"""Recordings of eight seconds with two tones at known times over noise, and files that mark them."""

from pathlib import Path

import numpy as np
import soundfile

RATE, SECONDS = 16_000, 8.0
TONES = {"high": 3_000, "low": 500}
# Start, end and label in each recording; the last one has none.
TIMES = [
    [(0.5, 1.1, "low"), (3.0, 3.4, "high"), (6.0, 6.6, "low")],
    [(1.0, 1.4, "high"), (4.2, 4.9, "low")],
    [(2.0, 2.5, "low"), (2.3, 2.9, "high"), (5.5, 6.0, "high")],
    [(0.2, 0.7, "high"), (5.0, 5.5, "low")],
    [(1.5, 2.0, "low"), (6.5, 7.0, "high")],
    [],
]


def write_recordings(folder: Path, times=TIMES, suffix: str = ".wav") -> list[Path]:
    """Write `rec0` and so on."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(0)
    seconds = np.arange(round(SECONDS * RATE)) / RATE
    paths = []
    for number, of_recording in enumerate(times):
        sound = 0.01 * generator.standard_normal(len(seconds))
        for start, end, label in of_recording:
            sound += 0.3 * np.sin(2 * np.pi * TONES[label] * seconds) * ((seconds >= start) & (seconds < end))
        paths.append(folder / f"rec{number}{suffix}")
        soundfile.write(paths[-1], sound.astype(np.float32), RATE)
    return paths


def audacity(times, frequencies: bool = False, comma: bool = False) -> str:
    """Write a label track as Audacity's export does."""
    lines = []
    for start, end, label in times:
        line = f"{start:.6f}\t{end:.6f}\t{label}"
        lines.append(line.replace(".", ",") if comma else line)
        if frequencies:
            lines.append(f"\\\t{TONES[label] - 100:.6f}\t{TONES[label] + 100:.6f}")
    return "".join(f"{line}\n" for line in lines)


RAVEN = ("Selection", "View", "Channel", "Begin Time (s)", "End Time (s)", "Low Freq (Hz)", "High Freq (Hz)")


def raven(times, column: str = "Annotation", views=("Waveform 1", "Spectrogram 1")) -> str:
    """Write a selection table as Raven does, with a row for each view."""
    rows = ["\t".join((*RAVEN, column))]
    for number, (start, end, label) in enumerate(times, 1):
        for view in views:
            rows.append(
                f"{number}\t{view}\t1\t{start:.9f}\t{end:.9f}\t{TONES[label] - 100:.3f}\t{TONES[label] + 100:.3f}\t{label}"
            )
    return "\n".join(rows) + "\n"


def write_marked(folder: Path, times=TIMES) -> Path:
    """Recordings with label tracks beside them."""
    for path, of_recording in zip(write_recordings(folder, times), times, strict=True):
        path.with_suffix(".txt").write_text(audacity(of_recording))
    return folder
