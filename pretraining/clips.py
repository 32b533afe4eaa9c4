"""Recordings of a package to clips: 16 kHz, mono, ten seconds at most, without silence and duplicates."""

import csv
import hashlib
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import astuple, dataclass, fields, replace
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
import soundfile

from modeling_ast.audio import AudioError, AudioReader, is_silent, resample

from .fetch import Package, Part, SourceError

TABLE = "metadata.csv"
SAMPLING_RATE = 16_000
MOST_SECONDS = 10.0
LEAST_SECONDS = 0.05
FEWEST = 3  # clips of a label, without which nothing can be learnt of it
QUIETEST = 1e-3  # the largest sample of what counts as heard: -60 dB


@dataclass(frozen=True)
class Clip:
    """One row of `metadata.csv`.

    Args:
        file_name (`str`): path of the FLAC file inside the folder.
        label_set (`str`): which question the label answers; empty for a clip without label.
        label (`str`): `label_set/label`, or empty.
        source (`str`): the package, or what was synthesised.
        recording (`str`): the unit that has to stay on one side of a split.
        license (`str`): SPDX name.
    """

    file_name: str
    label_set: str
    label: str
    source: str
    recording: str
    license: str


class ClipWriter:
    """Writes clips and their table, each sound once.

    Args:
        folder (`str` or `Path`): where `metadata.csv` and the folder `audio` go.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        self.clips: list[Clip] = []
        self.seconds: dict[str, float] = {}
        self._numbers: dict[str, int] = {}
        self._heard: set[bytes] = set()

    def write(self, waveform: np.ndarray, label: str, source: str, recording: str, license: str) -> int:
        """Write a waveform as one or more clips, leaving out silence and what was written before.

        Args:
            waveform (`np.ndarray` of shape `(samples,)`): mono, at 16 kHz, full scale at -1 and 1.
            label (`str`): `label_set/label`, or empty.
            source (`str`): the package, or what was synthesised.
            recording (`str`): the unit that stays on one side of a split.
            license (`str`): SPDX name.

        Returns:
            How many clips were written.
        """
        written, most = 0, round(MOST_SECONDS * SAMPLING_RATE)
        peak = float(np.abs(waveform).max(initial=0))
        if peak > 1:
            waveform = waveform / peak  # resampling rings beyond full scale, which 16 bits would clip
        for start in range(0, len(waveform), most):
            part = np.round(waveform[start : start + most] * 32767).astype(np.int16)
            digest = hashlib.sha256(part.tobytes()).digest()
            quiet = is_silent(part.astype(np.float32)) or np.abs(part.astype(np.int32)).max() < QUIETEST * 32767
            if quiet or len(part) < LEAST_SECONDS * SAMPLING_RATE or digest in self._heard:
                continue
            self._heard.add(digest)
            number = self._numbers[source] = self._numbers.get(source, -1) + 1
            name = f"audio/{_plain(source)}/{number:05d}.flac"
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(path, part, SAMPLING_RATE, subtype="PCM_16")
            self.clips.append(Clip(name, label.partition("/")[0], label, source, recording, license))
            self.seconds[source] = self.seconds.get(source, 0.0) + len(part) / SAMPLING_RATE
            written += 1
        return written

    def write_table(self):
        """Write `metadata.csv`, one row a clip; labels of fewer than `FEWEST` clips are taken off."""
        counts = Counter(clip.label for clip in self.clips)
        rare = {label for label, count in counts.items() if count < FEWEST}
        self.clips = [replace(clip, label_set="", label="") if clip.label in rare else clip for clip in self.clips]
        with open(self.folder / TABLE, "w", newline="", encoding="utf-8") as file:
            table = csv.writer(file, lineterminator="\n")
            table.writerow([column.name for column in fields(Clip)])
            table.writerows(astuple(clip) for clip in self.clips)


def read_part(package: Package, part: Part, folder: Path) -> Iterator[tuple[np.ndarray, str, str]]:
    """Decode the files of a part in the order of their paths.

    Args:
        package ([`Package`]): its row of the table.
        part ([`Part`]): the part of it.
        folder (`Path`): where the package was unpacked.

    Yields:
        Waveform of shape `(samples,)` at 16 kHz, `label_set/label` (or empty) and the recording it belongs to. Files that
        cannot be decoded are told and skipped.

    Raises:
        SourceError: if no file of the package matches the part's patterns.
    """
    paths = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    paths = [path for path in paths if any(fnmatchcase(path, pattern) for pattern in part.files)]
    if not paths:
        raise SourceError(f"{package.name} {package.version} holds no file like {part.files}.")
    for path in paths:
        if any(re.search(pattern, path) for pattern in part.leave_out):
            continue
        try:
            for name, waveform in decoded(folder / path, part.decoder, part.most_seconds):
                name = f"{path}/{name}" if name else path
                label, recording = label_of(name, part.labels), recording_of(package, part, name)
                for speed in part.speeds:
                    changed = (
                        resample(waveform, round(SAMPLING_RATE * speed), SAMPLING_RATE) if speed != 1 else waveform
                    )
                    yield changed, label, recording
        except (AudioError, soundfile.LibsndfileError) as error:
            print(f"  {path} is left out: {error}")


def decoded(path: Path, decoder: str, most_seconds: float) -> Iterator[tuple[str, np.ndarray]]:
    """Decode one file.

    Args:
        path (`Path`): the file.
        decoder (`str`): see [`Part`].
        most_seconds (`float`): how much of it is taken.

    Yields:
        Name of the sound inside the file (empty where it holds one) and waveform of shape `(samples,)` at 16 kHz.
    """
    most = round(most_seconds * SAMPLING_RATE)
    if decoder == "sf2":
        for name, samples, rate in sound_font_samples(path.read_bytes()):
            yield name, resample(samples, rate, SAMPLING_RATE)[:most]
    else:
        yield "", AudioReader(SAMPLING_RATE).hear(path, max_samples=most).waveform[:most]


def sound_font_samples(content: bytes) -> Iterator[tuple[str, np.ndarray, int]]:
    """Read the samples of a SoundFont 2 file, the two halves of a stereo one as their mean.

    Args:
        content (`bytes`): the file.

    Yields:
        Name, waveform of shape `(samples,)` and sampling rate in Hz.

    Source: SoundFont Technical Specification 2.04, sections 6.1 (`smpl`) and 7.10 (`shdr`).
    """
    chunks = {}
    for kind, start in ((b"smpl", content.find(b"sdta") + 4), (b"shdr", content.find(b"pdta") + 4)):
        while content[start : start + 4] != kind:
            start += 8 + int.from_bytes(content[start + 4 : start + 8], "little")
        chunks[kind] = content[start + 8 : start + 8 + int.from_bytes(content[start + 4 : start + 8], "little")]
    columns = [("name", "S20"), ("start", "<u4"), ("end", "<u4"), ("loop", "<u4", 2), ("rate", "<u4"), ("pitch", "u1")]
    headers = np.frombuffer(chunks[b"shdr"], [*columns, ("correction", "i1"), ("other", "<u2"), ("type", "<u2")])[:-1]
    waves = np.frombuffer(chunks[b"smpl"], "<i2")
    right, left = 2, 4
    for header in headers:
        samples = [waves[header["start"] : header["end"]]]
        other = headers[header["other"]] if header["type"] == left and header["other"] < len(headers) else None
        if other is not None and other["type"] == right and other["end"] - other["start"] == len(samples[0]):
            samples.append(waves[other["start"] : other["end"]])
        elif header["type"] == right:
            continue
        mean = np.mean(samples, axis=0, dtype=np.float32) / np.float32(32768)
        yield header["name"].split(b"\0")[0].decode("latin-1").strip(), mean, int(header["rate"])


def label_of(path: str, rules: list[list[str]]) -> str:
    """Read the label off a path.

    Args:
        path (`str`): the path inside the package.
        rules (`list[list[str]]`): see `labels` of [`Part`].

    Returns:
        `label_set/label` in small letters with `_` for what is no letter or digit, or an empty string.
    """
    for pattern, label in rules:
        found = re.search(pattern, path, re.IGNORECASE)
        if found:
            return "/".join(_plain(half) for half in found.expand(label).split("/"))
    return ""


def recording_of(package: Package, part: Part, path: str) -> str:
    """Tell which recording a file belongs to.

    Args:
        package ([`Package`]): its row of the table.
        part ([`Part`]): the part of it.
        path (`str`): the path inside the package.

    Returns:
        The name, beginning with the package's for a folder or where the table names none.
    """
    if isinstance(part.recording, list):
        found = re.search(part.recording[0], path)
        return found.expand(part.recording[1]) if found else package.name
    names = {"package": package.name, "folder": f"{package.name}:{Path(path).parent.name}"}
    return names.get(part.recording, part.recording)


def _plain(text: str) -> str:
    return re.sub(r"[^\w.~-]+", "_", text.lower()).strip("_")
