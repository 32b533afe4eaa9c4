"""Columns of arrays in place of audio files, brought into the form of files: the rest of a run knows no other.

Each clip becomes the content of a WAV file that decodes to the same samples, so that arrays are heard as files are: integers
at their full scale, channels made one, rates converted. `datasets.Audio` would take integers for floats and clip them.
"""

import io
from collections.abc import Iterator, Sequence

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy.io import wavfile

from modeling_ast.audio import AudioError, decode_audio
from modeling_ast.audio.arrays import (
    ARRAY_KEYS,
    FILE_KEYS,
    IntegerRange,
    clipped_to_full_scale,
    far_beyond_full_scale,
    sample_bits,
    whole_rate,
)

from .data_errors import DataError
from .stored_features import NestedLists, array_of_cell

RATE = "sampling_rate"
ROWS_AT_ONCE = 16
CLIPS_LOOKED_AT = 8
NESTED = (datasets.List, datasets.LargeList, datasets.Array2D)
CHANNELS = NestedLists(
    "channels",
    "samples",
    "arrays of numbers, or files. Name another with --audio_column_name.",
    "Correct or remove it.",
)
_FILE_TYPE = pa.struct({"bytes": pa.binary(), "path": pa.string()})
_DIVIDE = "Divide all arrays by their full scale, 16-bit samples by 32768."


class ArrayEncoder:
    """Makes WAV files of the arrays of a data set, after all of them were looked at.

    Integers wider than their samples, such as the 64 bits of lists of numbers, have the full scale that fits all clips.
    """

    def __init__(self):
        self.ranges: dict[np.dtype, IntegerRange] = {}

    def look_at(self, array: np.ndarray):
        """Learn what of their range the integers of a clip use.

        Args:
            array (`np.ndarray`): the clip.
        """
        if array.dtype.kind in "iu":
            self.ranges.setdefault(array.dtype.newbyteorder("="), IntegerRange()).add(array)

    def encode(self, array: np.ndarray, rate, name: str) -> bytes:
        """Write an array as a WAV file.

        Args:
            array (`np.ndarray` of shape `(samples,)` or `(channels, samples)`): one of those looked at.
            rate: its sampling rate in Hz.
            name (`str`): what messages call it.

        Returns:
            Content of the file.

        Raises:
            DataError: if it is no waveform, has no sampling rate, or nothing tells its full scale.
        """
        if rate is None:
            raise DataError(f"{name} has no {RATE}, which nothing else says of an array. Fill it in, in Hz.")
        if array.ndim == 2 and array.shape[0] > array.shape[1]:
            raise DataError(f"{name} has shape {array.shape}, expected (channels, samples). Store array.T.")
        if array.ndim not in (1, 2):
            raise DataError(f"{name} has shape {array.shape}, expected (samples,), or (channels, samples).")
        if array.dtype.kind == "f":
            fault = far_beyond_full_scale(array)
            if fault:
                raise DataError(f"{name} has {fault}, expected floats in [-1, 1]. {_DIVIDE}")
            bits = None
        else:
            bits = self._bits(array.dtype, name)
        try:
            return as_wav(array.T, whole_rate(rate, name), bits)
        except AudioError as error:
            raise DataError(str(error)) from error

    def _bits(self, dtype: np.dtype, name: str) -> int:
        if dtype.kind not in "iu":
            raise DataError(f"{name} holds values of type {dtype}, expected numbers. {_DIVIDE}")
        found = self.ranges[dtype.newbyteorder("=")]
        bits = sample_bits(dtype, found, whole_data_set=True)
        if bits is None:
            raise DataError(
                f"{name} holds {dtype}, and the samples of all clips lie from {found.smallest} to {found.largest}, which tells "
                "no full scale. Store 16-bit samples as numpy.int16, or floats in [-1, 1]: array / largest_value."
            )
        return bits


def array_key(feature) -> str | None:
    """Tell how a column holds arrays.

    Args:
        feature: type of the column.

    Returns:
        The key under which it holds them, `""` if they are its values; `None` of other columns.
    """
    if isinstance(feature, dict):
        return next((key for key in ARRAY_KEYS if isinstance(feature.get(key), NESTED)), None)
    return "" if isinstance(feature, NESTED) else None


def arrays_as_files(split: datasets.Dataset) -> datasets.Dataset:
    """Make audio files of a column of arrays.

    Args:
        split (`datasets.Dataset`): with arrays of shape `(samples,)` or `(channels, samples)` in `{"array", "sampling_rate"}`,
            or as they are beside a column `"sampling_rate"`.

    Returns:
        The data set with its column `"audio"` as undecoded `datasets.Audio`.

    Raises:
        DataError: see [`ArrayEncoder`]; also if nothing says the sampling rate.
    """
    key = array_key(split.features["audio"])
    if RATE not in (split.features["audio"] if key else split.column_names):
        raise DataError(
            f"The audio column holds arrays of {split.features['audio']} without a {RATE}, which nothing else says. Store "
            f'{{"array": ..., "{RATE}": 16000}} in each row, or add a column {RATE!r} in Hz.'
        )
    encoder = ArrayEncoder()
    table = split.with_format("arrow")
    first_row = 1
    for batch in table.select_columns(["audio"] if key else ["audio", RATE]).iter(ROWS_AT_ONCE):
        for _, _, array, _ in _arrays(batch, key, first_row):
            encoder.look_at(array)
        first_row += len(batch)

    def encoded(batch: pa.Table, rows: list[int]) -> pa.Table:
        audio = batch["audio"].combine_chunks()
        kept = {name: pc.struct_field(audio, name).to_pylist() for name in FILE_KEYS if _has_field(audio, name)}
        files = [{name: values[place] for name, values in kept.items()} for place in range(len(batch))]
        for place, name, array, rate in _arrays(batch, key, rows[0] + 1):
            files[place] = {"bytes": encoder.encode(array, rate, name), "path": None}
        return batch.set_column(batch.column_names.index("audio"), "audio", pa.array(files, _FILE_TYPE))

    file_type = {"bytes": datasets.Value("binary"), "path": datasets.Value("string")}
    files = table.map(
        encoded,
        with_indices=True,
        batched=True,
        batch_size=ROWS_AT_ONCE,
        writer_batch_size=ROWS_AT_ONCE,
        features=datasets.Features(split.features | {"audio": file_type}),
        desc="Arrays",
    )
    return files.with_format(None).cast_column("audio", datasets.Audio(decode=False))


def _arrays(batch: pa.Table, key: str, first_row: int) -> Iterator[tuple[int, str, np.ndarray, object]]:
    """Of each row of a batch that has an array its place, what to call it, the array and its sampling rate."""
    audio = batch["audio"].combine_chunks()
    arrays, rates = (pc.struct_field(audio, key), pc.struct_field(audio, RATE)) if key else (audio, batch[RATE])
    for place, rate in enumerate(rates.to_pylist()):
        if arrays[place].is_valid:
            name = f"Row {first_row + place} of the audio column"
            yield place, name, _array_of(arrays.slice(place, 1), name), rate


def _array_of(cell: pa.Array, name: str) -> np.ndarray:
    try:
        return array_of_cell(cell, name, CHANNELS)
    except AudioError as error:
        raise DataError(str(error)) from error


def _has_field(audio: pa.StructArray | pa.Array, name: str) -> bool:
    return pa.types.is_struct(audio.type) and audio.type.get_field_index(name) >= 0


def encoded_arrays(values: Sequence, rates: Sequence | None, table: str) -> list:
    """Make audio files of the arrays in a table's audio column.

    Args:
        values (sequence): what the column holds; an array as `{"array", "sampling_rate"}`, or as it is.
        rates (sequence, *optional*): sampling rates of arrays that are there as they are, in Hz.
        table (`str`): what messages call the table.

    Returns:
        The values, with `{"bytes", "path"}` in place of arrays.

    Raises:
        DataError: see [`ArrayEncoder`].
    """
    encoder, found = ArrayEncoder(), {}
    for row, value in enumerate(values):
        name = f"{table}: row {row + 1} of the audio column"
        if is_array_value(value):
            key = next(key for key in ARRAY_KEYS if value.get(key) is not None)
            found[row] = name, _as_array(value[key], name), value.get(RATE)
        elif isinstance(value, (list, np.ndarray)):
            found[row] = name, _as_array(value, name), None if rates is None else rates[row]
    for _, array, _ in found.values():
        encoder.look_at(array)
    encoded = {
        row: {"bytes": encoder.encode(array, rate, name), "path": None} for row, (name, array, rate) in found.items()
    }
    return [encoded.get(row, value) for row, value in enumerate(values)]


def is_array_value(value) -> bool:
    """Tell whether a value of an audio column is an array with its sampling rate.

    Args:
        value: what the column holds.

    Returns:
        `True` if it is.
    """
    return isinstance(value, dict) and any(value.get(key) is not None for key in ARRAY_KEYS)


def _as_array(value, name: str) -> np.ndarray:
    try:
        # Parquet's nested lists are arrays of arrays.
        return np.array(value.tolist() if isinstance(value, np.ndarray) and value.dtype == object else value)
    except ValueError as error:
        raise DataError(f"{name} has channels of different lengths. Store all with as many samples.") from error


def refuse_clipped_integers(split: datasets.Dataset):
    """Refuse clips of which `datasets.Audio` kept nothing but full scale, as it takes integers for floats in [-1, 1].

    Args:
        split (`datasets.Dataset`): with the column "audio", undecoded; its first clips are looked at, as all were made alike.

    Raises:
        DataError: if they were.
    """
    clipped = 0
    for row in split.select_columns("audio").select(range(min(len(split), CLIPS_LOOKED_AT))):
        audio = row["audio"]
        if not audio or audio["bytes"] is None or audio["path"] is not None:  # not of an array
            return
        try:
            samples = decode_audio(audio).samples
        except AudioError:  # said where clips are looked at one by one
            return
        if clipped_to_full_scale(samples):
            clipped += 1
        elif samples.any():
            return
    if clipped:
        raise DataError(
            "The clips of the audio column hold nothing but full scale: they were given to datasets.Audio as integers, or as "
            "floats far beyond 1, which it takes for floats in [-1, 1] and clips. Make the data set again with array / 32768 "
            '(of 16-bit samples), or of {"array": ..., "sampling_rate": ...} without the type Audio.'
        )


def as_wav(array: np.ndarray, array_rate: int, bits: int | None) -> bytes:
    """Write an array as a WAV file, which decodes to the same samples, bit for bit.

    Args:
        array (`np.ndarray` of shape `(samples,)` or `(samples, channels)`): floats, kept as 32-bit ones, or integers.
        array_rate (`int`): its sampling rate in Hz.
        bits (`int`, *optional*): of integers, see [`sample_bits`].

    Returns:
        Content of the file.
    """
    if array.dtype.kind == "f":
        array = array.astype(np.float32)
    elif array.dtype == np.int8:  # WAV has 8 bits without a sign only
        array = array.astype(np.int16) * 2**8
    elif array.dtype != np.uint8:
        array = array.astype(np.int16 if bits == 16 else np.int32)
    content = io.BytesIO()
    wavfile.write(content, array_rate, array)
    return content.getvalue()
