"""How near the clips come to those that the checkpoint is judged on, which it must never have heard."""

import csv
from pathlib import Path

import numpy as np
import scipy.fft

from modeling_ast.audio import AudioError

from .clips import SAMPLING_RATE, TABLE, ClipWriter, decoded
from .fetch import SourceError

LIKEST = 0.985  # a normalised cross-correlation that two takes of one instrument do not reach, and copies do
NO_RECORDING = ("voice:", "flite:", "synthetic:")  # speech and what was computed is no take of an instrument


def largest_correlation(writer: ClipWriter, judged_on: Path) -> tuple[float, str, str]:
    """Compare every recording that is no speech with every clip that is judged on, at every shift.

    Args:
        writer ([`ClipWriter`]): what was written.
        judged_on (`Path`): a folder with `metadata.csv`, whose rows with `test` in the column `split` are judged on.

    Returns:
        The largest normalised cross-correlation (1 for a copy at any level), of which clip and with which; of each the
        first two seconds are compared.

    Raises:
        SourceError: if it is `LIKEST` or more, the folder has no such clips, or one of them cannot be read.
    """
    table = judged_on / TABLE
    rows = list(csv.DictReader(table.read_text(encoding="utf-8").splitlines())) if table.is_file() else []
    names = [row["file_name"] for row in rows if row.get("split") == "test"]
    if not names:
        raise SourceError(f"{table} names no clip with `test` in the column split. Pass --judged_on FOLDER.")
    most = 2 * SAMPLING_RATE
    size = scipy.fft.next_fast_len(2 * most, real=True)
    spectra = np.stack([_spectrum(judged_on / name, most, size) for name in names]).conj()
    nearest = (0.0, "", "")
    for clip in writer.clips:
        if not clip.recording.startswith(NO_RECORDING):
            products = spectra * _spectrum(writer.folder / clip.file_name, most, size)
            peaks = np.abs(scipy.fft.irfft(products, size)).max(axis=1)
            nearest = max(nearest, (float(peaks.max()), clip.file_name, names[int(peaks.argmax())]))
    if nearest[0] >= LIKEST:
        raise SourceError(
            f"{nearest[1]} is a copy of {nearest[2]}, which is judged on: their cross-correlation is {nearest[0]:.3f}. "
            "Leave its file out in sources.yaml."
        )
    return nearest


def _spectrum(path: Path, most: int, size: int) -> np.ndarray:
    try:
        ((_, waveform),) = decoded(path, "", most / SAMPLING_RATE)
    except AudioError as error:
        raise SourceError(f"{path} cannot be compared with others: {error}") from None
    return scipy.fft.rfft(waveform / max(float(np.linalg.norm(waveform)), 1e-9), size)
