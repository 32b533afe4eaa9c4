"""Clips decoded and resampled once into a file that is memory-mapped, for later epochs and later runs.

The folder holds `waveforms.f32`, float32 samples one clip after the other, `index.bin`, one record a clip, and
`notes.jsonl`, what the reader says of clips. All only grow. Samples and notes are on the disk before the record of a clip
is written, so that a build that was killed, or found the disk full, goes on where it was, and what has no record is written
over. `unusable.bin` holds the keys of clips that could not be used, so that they are tried again without being announced.

A clip is known by its path, size and time of modification, or by its bytes, and by how it is heard: sampling rate, channels
and resampler. What is refused of all that can be heard is told by the notes, so that one cache serves strict and lenient
runs. Of a changed file, the old samples stay behind unused. Of a long clip only the beginning is kept that training can hear;
a run that hears more decodes it again, and what was said of the shorter beginning is no longer said.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path

import datasets
import numpy as np
import soundfile
from accelerate import PartialState
from filelock import FileLock, Timeout

from modeling_ast.audio import AudioError, AudioNote, AudioReader
from modeling_ast.audio.errors import ERRORS_OF_A_FILE
from modeling_ast.system.atomic_files import open_atomically, sync

from ..sources.audio_columns import audio_batches
from ..sources.data_errors import DataError
from .decoding import decoded_clips
from .waveforms import clip_name

WAVEFORMS_NAME, INDEX_NAME, LOCK_NAME = "waveforms.f32", "index.bin", "lock"
NOTES_NAME = "notes.jsonl"  # the last line may be torn by a kill
UNUSABLE_NAME = "unusable.bin"  # keys of clips that could not be used when they were last decoded
SAMPLE = np.dtype("<f4")
# `offset` and `samples` count what is kept in the file, `length` is that of the clip as far as it was decoded.
RECORD = np.dtype([("key", "S16"), ("offset", "<u8"), ("samples", "<u8"), ("length", "<u8")])
KEY_VERSION = 2  # to be raised when decoding comes to give other samples
UNTOLD_SECONDS = 60  # that are counted of a clip that does not tell its length, where whole clips are kept
COMMIT_BYTES = 64_000_000  # written between two waits for the disk, and lost at most by a build that is killed


@dataclass(frozen=True)
class FilledCache:
    """What is known of clips after they were put into the cache.

    Args:
        lengths (`np.ndarray` of shape `(clips,)`): samples of each clip as far as it was decoded, which is further than
            what is kept of a longer one; 0 for those that cannot be used.
        faults (`dict[int, str]`): by row, why a clip cannot be used.
        notes (`dict[int, tuple[AudioNote, ...]]`): by row, what is to be said of clips that can.
        decoded (`int`): how many files had to be decoded.
        kept_bytes (`int`): what the clips take up in the cache.
    """

    lengths: np.ndarray
    faults: dict[int, str]
    notes: dict[int, tuple[AudioNote, ...]]
    decoded: int
    kept_bytes: int


class CachedWaveforms:
    """The waveforms of a split, in the order of its rows.

    The file is mapped when the first of them is asked for, in every process by itself.

    Args:
        path (`Path`): file of samples.
        offsets (`np.ndarray` of shape `(clips,)`): where each clip begins, in samples.
        samples (`np.ndarray` of shape `(clips,)`): how many of each clip there are.
    """

    def __init__(self, path: Path, offsets: np.ndarray, samples: np.ndarray):
        self.path = path
        self.offsets = offsets
        self.samples = samples
        self._mapped: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.offsets)

    def __getitem__(self, row: int) -> np.ndarray:
        """The kept beginning of a clip, a copy: `(samples,)`, mono float32 in [-1, 1].

        Raises:
            AudioError: if the cache is not there any more.
        """
        return self.piece(row, 0, int(self.samples[row]))

    def length(self, row: int) -> int:
        """Tell how much of a clip there is.

        Args:
            row (`int`): which clip.

        Returns:
            Samples.
        """
        return int(self.samples[row])

    def piece(self, row: int, start: int, samples: int) -> np.ndarray:
        """Take a part of a clip.

        Args:
            row (`int`): which clip.
            start (`int`): first sample.
            samples (`int`): how many at most.

        Returns:
            `np.ndarray` of shape `(samples,)`, float32, a copy.

        Raises:
            AudioError: if the cache is not there any more.
        """
        if self._mapped is None:
            try:
                self._mapped = np.memmap(self.path, SAMPLE, "r", shape=(int((self.offsets + self.samples).max()),))
            except (OSError, ValueError) as error:  # ValueError: it became shorter
                raise AudioError(
                    f"The waveform cache {self.path} was removed or cut while it was in use ({error}). Run again to have it "
                    "made anew."
                ) from error
        first = int(self.offsets[row]) + start
        stop = int(self.offsets[row]) + min(start + samples, int(self.samples[row]))
        return np.array(self._mapped[first:stop], dtype=np.float32)

    def __getstate__(self) -> dict:
        return vars(self) | {"_mapped": None}  # pickled, it would be the samples themselves


class WaveformCache:
    """Decoded clips in a folder that several runs may share, also at the same time.

    Args:
        folder (`str` or `Path`): made if it is not there.
        reader ([`AudioReader`]): how clips are heard. One folder may hold clips of several readers.
        max_samples (`int`): samples of a clip that have to be there; see [`samples_needed`]. `WHOLE` for all.
    """

    def __init__(self, folder: str | Path, reader: AudioReader, max_samples: int):
        self.folder = Path(folder)
        self.reader = reader
        self.max_samples = max_samples

    def fill(self, audio: datasets.Dataset, num_workers: int | None = 0) -> FilledCache:
        """Decode the clips that are not in the cache. Of several processes on a machine one does it, the others wait.

        Args:
            audio (`datasets.Dataset`): clips with the undecoded column `"audio"`, of which some may be the same file.
            num_workers (`int`, *optional*, defaults to 0): processes that decode; see [`read_in_turn`].

        Returns:
            [`FilledCache`].

        Raises:
            DataError: if the folder cannot be written, or its disk is too small; the message says what is needed.
        """
        keys = self._keys(audio)
        missing = self._missing(keys)
        try:
            with self._locked(bool(len(missing))):
                if len(missing):
                    missing = self._missing(keys)  # without what another process has decoded meanwhile
                faults, decoded = self._decode(audio, keys, missing, num_workers) if len(missing) else ({}, 0)
        except OSError as error:
            raise DataError(
                f"The waveform cache {self.folder} cannot be opened: {error}. Pass --waveform_cache with another folder, or "
                "leave it out."
            ) from error
        records, places = self._find(keys)
        lengths = np.where(places >= 0, records["length"][places], 0) if len(records) else np.zeros(len(keys), int)
        kept = records[np.unique(places[places >= 0])]
        samples = np.where(places >= 0, records["samples"][places], -1) if len(records) else np.full(len(keys), -1)
        notes = self._notes_of_rows(audio, keys, samples)
        texts = {
            row: [note.text for note in of_clip if note.kind in self.reader.refused] for row, of_clip in notes.items()
        }
        refused = {row: of_clip[0] for row, of_clip in texts.items() if of_clip}
        lengths[list(refused)] = 0
        notes = {row: of_clip for row, of_clip in notes.items() if row not in refused}
        return FilledCache(lengths, faults | refused, notes, decoded, int(kept["samples"].sum()) * SAMPLE.itemsize)

    def waveforms(self, audio: datasets.Dataset) -> CachedWaveforms:
        """Give the clips of a split, all of which are in the cache.

        Args:
            audio (`datasets.Dataset`): clips with the undecoded column `"audio"`.

        Returns:
            [`CachedWaveforms`], in the order of the rows.

        Raises:
            DataError: if a file is not the one that was decoded.
        """
        records, places = self._find(self._keys(audio))
        absent = np.flatnonzero(places < 0)
        if len(absent):
            raise DataError(
                f"{audio[int(absent[0])]['audio']['path']} is not in the waveform cache {self.folder}: it was changed after the "
                "cache was filled. Run again."
            )
        found = records[places]
        return CachedWaveforms(self.folder / WAVEFORMS_NAME, found["offset"], found["samples"])

    def _keys(self, audio: datasets.Dataset) -> np.ndarray:
        """By what each clip is known, `(clips,)`; empty for a file that is not there. Each file is looked at once."""
        keys: list[bytes] = []
        of_file: dict[str | None, bytes] = {}
        for paths, contents in audio_batches(audio):
            for path, content in zip(paths.to_pylist(), contents, strict=True):
                if content.is_valid:
                    keys.append(self._key(hashlib.sha256(content.as_buffer()).hexdigest()))
                    continue
                if path not in of_file:
                    of_file[path] = self._file_key(path)
                keys.append(of_file[path])
        return np.array(keys, dtype=RECORD["key"])

    def _file_key(self, path: str | None) -> bytes:
        try:
            status = os.stat(path)
        except (OSError, TypeError):  # TypeError: neither path nor bytes
            return b""
        return self._key(f"{os.path.abspath(path)}\0{status.st_size} {status.st_mtime_ns}")

    def _key(self, content: str) -> bytes:
        """Sixteen bytes that stand for undecoded audio and how it is heard."""
        digest = hashlib.blake2b(digest_size=RECORD["key"].itemsize)
        digest.update(f"{KEY_VERSION} {self.reader.key} {content}".encode(errors="surrogateescape"))
        return digest.digest()

    def space_needed(self, audio: datasets.Dataset) -> int:
        """Tell from the files' headers what [`WaveformCache.fill`] would add.

        Args:
            audio (`datasets.Dataset`): clips with the undecoded column `"audio"`.

        Returns:
            Bytes at most.
        """
        keys = self._keys(audio)
        return self._space(audio, _first_rows(keys, self._missing(keys)))

    def _records(self) -> np.ndarray:
        """All records whose samples are there, in the order in which they were written."""
        try:
            content = (self.folder / INDEX_NAME).read_bytes()
            size = os.path.getsize(self.folder / WAVEFORMS_NAME) // SAMPLE.itemsize
        except (FileNotFoundError, NotADirectoryError):
            return np.empty(0, RECORD)
        records = np.frombuffer(content, RECORD, count=len(content) // RECORD.itemsize)
        return records[records["offset"] + records["samples"] <= size]

    def _find(self, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The records, and for each key the place of the one to use, -1 if there is none with samples enough."""
        records = self._records()
        records = records[np.argsort(records["key"], kind="stable")]
        places = np.searchsorted(records["key"], keys, side="right").astype(np.int64) - 1  # the latest of several
        known = places >= 0
        known[known] = records["key"][places[known]] == keys[known]
        found = records[places[known]]
        known[known] = found["samples"] >= np.minimum(found["length"], self.max_samples)
        return records, np.where(known, places, -1)

    def _missing(self, keys: np.ndarray) -> np.ndarray:
        return np.flatnonzero(self._find(keys)[1] < 0)

    @contextmanager
    def _locked(self, wanted: bool) -> Iterator[None]:
        """Hold the folder for this process if that is wanted, the local main process being the first to get it."""
        state, lock = PartialState(), FileLock(self.folder / LOCK_NAME)
        try:
            if wanted and state.is_local_main_process:
                self.folder.mkdir(parents=True, exist_ok=True)
                with suppress(Timeout):  # another run fills the folder
                    lock.acquire(blocking=False)
        finally:
            # Also where nothing is wanted here: on another machine it may be. Nobody waits here for a whole build,
            # which may last longer than processes wait for each other.
            state.wait_for_everyone()
        if not wanted:
            yield
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        if not lock.is_locked:
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

    def _decode(
        self, audio: datasets.Dataset, keys: np.ndarray, missing: np.ndarray, num_workers: int | None
    ) -> tuple[dict[int, str], int]:
        """Decode what is missing, each file once; return by row why clips cannot be used, and how many were decoded."""
        rows = _first_rows(keys, missing)
        unusable = self._unusable()
        needed = self._check_space(audio, rows, sum(keys[row] not in unusable for row in rows))
        faults, decoded = {}, 0
        reader = replace(self.reader, refused=frozenset())
        clips = decoded_clips(audio, rows, reader, self.max_samples, num_workers, "waveform cache")
        try:
            with _Appender(self.folder, self._records()) as appender:
                for clip in clips:
                    if clip.fault is None:
                        name = clip_name(audio[clip.row]["audio"]) if clip.notes else ""
                        appender.add(keys[clip.row], clip.waveform, clip.length, name, clip.notes)
                        decoded += 1
                    else:
                        faults[clip.row] = clip.fault
        except OSError as error:
            raise DataError(
                f"The waveform cache {self.folder} cannot be written: {error}. Its {len(rows)} new clips need "
                f"{in_bytes(needed)}; those that are in it are kept, and the next run goes on from there. Free some space, pass "
                "--waveform_cache with a folder on a larger disk, or leave it out."
            ) from error
        by_key = {keys[row]: fault for row, fault in faults.items() if keys[row] != b""}
        self._remember_unusable(unusable | by_key.keys())
        return faults | {int(row): by_key[keys[row]] for row in missing if keys[row] in by_key}, decoded

    def _notes_of_rows(
        self, audio: datasets.Dataset, keys: np.ndarray, samples: np.ndarray
    ) -> dict[int, tuple[AudioNote, ...]]:
        """What is to be said of clips, by row, each by the name that its file has there.

        Args:
            audio (`datasets.Dataset`): the clips.
            keys (`np.ndarray` of shape `(clips,)`): the key of each in the cache; see [`WaveformCache`].
            samples (`np.ndarray` of shape `(clips,)`): of the record that is used of each; -1 if there is none.
        """
        noted = self._notes()
        found = {}
        for row in np.flatnonzero(np.isin(keys, np.array(list(noted), RECORD["key"]))).tolist() if noted else ():
            name = clip_name(audio[row]["audio"])
            of_clip = tuple(
                AudioNote(kind, text.replace(written, name))
                for kind, text, written, beginning in noted[bytes(keys[row])]
                if beginning == samples[row]
            )
            if of_clip:
                found[row] = of_clip
        return found

    def _notes(self) -> dict[bytes, list[tuple[str, str, str, int]]]:
        """By key the kind and text of notes, how the text calls the file, and samples of the record they belong to."""
        path = self.folder / NOTES_NAME
        lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
        noted: dict[bytes, dict[tuple, None]] = {}
        for line in lines:
            with suppress(ValueError):  # torn by a kill, and written anew by the next build
                note = json.loads(line)
                # As NumPy gives keys back: without zeros at their end.
                key = bytes.fromhex(note["key"]).rstrip(b"\0")
                row = note["kind"], note["text"], note["name"], note["samples"]
                noted.setdefault(key, {})[row] = None
        return {key: list(notes) for key, notes in noted.items()}

    def _unusable(self) -> set[bytes]:
        """Clips that could not be used before: they are tried again, as what was missing may have been installed."""
        path = self.folder / UNUSABLE_NAME
        return set(np.fromfile(path, RECORD["key"]).tolist()) if path.exists() else set()

    def _remember_unusable(self, keys: set[bytes]):
        if keys != self._unusable():
            with open_atomically(self.folder / UNUSABLE_NAME) as file:
                file.write(np.array(sorted(keys), RECORD["key"]).tobytes())

    def _space(self, audio: datasets.Dataset, rows: np.ndarray) -> int:
        return sum(self._samples_at_most(audio[int(row)]["audio"]) for row in rows) * SAMPLE.itemsize

    def _check_space(self, audio: datasets.Dataset, rows: np.ndarray, num_new: int) -> int:
        """Say how many bytes the clips need at most, and refuse to begin where there are less.

        Clips that could not be used the last time are tried in silence.
        """
        needed, free = self._space(audio, rows), shutil.disk_usage(self.folder).free
        if needed > free:
            raise DataError(
                f"The waveform cache needs {in_bytes(needed)} for {len(rows)} clips, but only {in_bytes(free)} are free "
                f"in {self.folder}. Free some, name a folder on a larger disk with --waveform_cache, or leave it out."
            )
        if num_new and PartialState().is_main_process:
            print(
                f"waveform cache: decoding {num_new} clips into {self.folder}, {in_bytes(needed)} at most, "
                f"{in_bytes(free)} free",
                flush=True,
            )
        return needed

    def _samples_at_most(self, audio: dict) -> int:
        try:
            header = soundfile.info(audio["path"] if audio["bytes"] is None else BytesIO(audio["bytes"]))
        except (*ERRORS_OF_A_FILE, soundfile.SoundFileError, TypeError):
            return self._samples_unknown()  # no header that is read without decoding, or no audio at all
        # Of what was written to a pipe there is more than it says, or no number at all, which libsndfile calls 2^63 - 1.
        if not 0 < header.frames < 1 << 62 or header.samplerate <= 0:
            return self._samples_unknown()
        return min(-(-header.frames * self.reader.sampling_rate // header.samplerate), self.max_samples)

    def _samples_unknown(self) -> int:
        """Samples that are counted of a clip that does not tell its length."""
        return min(self.max_samples, UNTOLD_SECONDS * self.reader.sampling_rate)


class _Appender:
    """Appends to the two files of a cache; samples without a record are taken off again where the block raises."""

    def __init__(self, folder: Path, records: np.ndarray):
        self.folder = folder
        self.end = int((records["offset"] + records["samples"]).max(initial=0))  # of what has a record, in samples
        self.pending: list[tuple] = []
        self.noted: list[dict] = []
        index = folder / INDEX_NAME
        if not index.exists() or index.stat().st_size != len(records) * RECORD.itemsize:
            # A record torn by a kill, or whose samples were lost, must not come to point at new samples.
            with open_atomically(index) as file:
                file.write(records.tobytes())

    def __enter__(self) -> "_Appender":
        self.waveforms = open(self.folder / WAVEFORMS_NAME, "ab")  # noqa: SIM115
        self.waveforms.truncate(self.end * SAMPLE.itemsize)
        return self

    def add(self, key: bytes, waveform: np.ndarray, length: int, name: str, notes: tuple[AudioNote, ...]):
        self.waveforms.write(waveform.astype(SAMPLE).tobytes())
        start = self.pending[-1][1] + self.pending[-1][2] if self.pending else self.end
        self.pending.append((key, start, len(waveform), length))
        row = {"key": bytes(key).hex(), "name": name, "samples": len(waveform)}
        self.noted += [row | {"kind": note.kind, "text": note.text} for note in notes]
        if (start + len(waveform) - self.end) * SAMPLE.itemsize > COMMIT_BYTES:
            self.commit()

    def commit(self):
        """Wait until the samples and notes are on the disk, then write their records."""
        self.waveforms.flush()
        os.fsync(self.waveforms.fileno())
        if self.noted:
            with open(self.folder / NOTES_NAME, "ab") as file:
                # What a kill may have left of a line ends before the first of these.
                file.write(b"\n" + b"".join(json.dumps(note).encode() + b"\n" for note in self.noted))
                file.flush()
                os.fsync(file.fileno())
            self.noted = []
        with open(self.folder / INDEX_NAME, "ab") as index:
            index.write(np.array(self.pending, RECORD).tobytes())
            index.flush()
            os.fsync(index.fileno())
        self.end = max([self.end, *(start + samples for _, start, samples, _ in self.pending)])
        self.pending = []

    def __exit__(self, exception_type, exception, traceback):
        try:
            if exception is None:
                self.commit()
                sync(self.folder)
        finally:
            try:
                self.waveforms.close()
            finally:
                os.truncate(self.folder / WAVEFORMS_NAME, self.end * SAMPLE.itemsize)


def in_bytes(number: int) -> str:
    """Write a number of bytes.

    Args:
        number (`int`): of bytes.

    Returns:
        In MB, or from a thousand of these on in GB.
    """
    return f"{number / 1e9:.1f} GB" if number >= 1e9 else f"{number / 1e6:.1f} MB"


def _first_rows(keys: np.ndarray, missing: np.ndarray) -> np.ndarray:
    """Of the missing rows those to decode: each clip once, but of files that are not there each, for its own message."""
    _, first = np.unique(keys[missing], return_index=True)
    absent = keys[missing] == b""
    first = first[~absent[first]]
    return missing[np.union1d(first, np.flatnonzero(absent))]
