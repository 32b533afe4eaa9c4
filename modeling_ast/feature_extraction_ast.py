"""AST feature extractor: waveforms to padded, normalised log-mel features, a batch at a time.

Settings and defaults are those of the checkpoints on the Hub, so `preprocessor_config.json` is interchangeable with
stock Transformers. Differs from the class there in that clips of a batch are computed together and on any device, that
`padding`, `truncation`, `max_length` and `return_attention_mask` are obeyed at call time, and that input from which no
sensible features can come is an error.
"""

import inspect
import math
import os
import warnings
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from transformers import BatchFeature, SequenceFeatureExtractor
from transformers.utils import PaddingStrategy, TensorType, logging

from .audio import DEFAULT_RESAMPLER, AudioReader, checked_resampler, parse_channels
from .audio.arrays import (
    FAR_BEYOND,
    FAR_BEYOND_SHARE,
    LOOKED_AT,
    far_beyond_full_scale,
    full_scale_waveform,
    look_like_channels,
)
from .checkpoints.fields import EXTRACTOR, EXTRACTOR_FIELDS, EXTRACTOR_FILE_FIELDS, check_fields
from .checkpoints.shipped import folder_of
from .features.kaldi import FRAME_LENGTH_MS, frame_length, num_frames, num_samples
from .features.log_mel import log_mel_spectrogram, write_log_mel
from .features.padding import fill_padding, frame_mask, pad_frames, padded_length

logger = logging.get_logger(__name__)

AUDIOSET_MEAN = -4.2677393  # Gong et al. 2021, released code
AUDIOSET_STD = 4.5689974  # Gong et al. 2021, released code
LARGEST_AMPLITUDE = 1e9  # beyond it energies come near the largest float32
FAR_ABOVE = 4  # times the checkpoint's own length; only a number of samples taken for frames is that much
MOST_CHANNELS = 8  # rows of an array that may be the channels of one recording (7.1)

_said: set[str] = set()  # what was warned of, once for each kind in a process


class ASTFeatureExtractor(SequenceFeatureExtractor):
    r"""
    Args:
        feature_size (`int`, defaults to 1): channels of the waveform.
        sampling_rate (`int`, defaults to 16000): sampling rate that the model hears, in Hz.
        num_mel_bins (`int`, defaults to 128): mel bins.
        max_length (`int`, defaults to 1024): frames (10 ms each) to pad and cut to.
        padding_value (`float`, defaults to 0.0): log-mel value of padding frames, before normalising.
        do_normalize (`bool`, defaults to `True`): whether to normalise to `(x - mean) / (2 * std)`.
        mean (`float`, defaults to -4.2677393): mean of the log-mel features of the training data.
        std (`float`, defaults to 4.5689974): their standard deviation.
        return_attention_mask (`bool`, defaults to `False`): whether to return the mask of real frames.
        padding (`str`, defaults to `"max_length"`): `"max_length"` pads every clip to `max_length` frames, as the
            original does; `"longest"` to the longest clip of the batch, with a mask if one is padded.
        resampler (`str`, *optional*): by which audio files are brought to the sampling rate, `"soxr"` or `"torchaudio"`;
            see [`resample`]. Of a checkpoint that names none it is torchaudio's.
        channels (`str` or `int`, defaults to `"mean"`): which channels of audio files are heard; see [`AudioReader`].
            Only saved if it is another, and without effect on waveforms, which have one channel.

    Raises:
        ValueError: for a value beyond the bounds of `checkpoint_fields`, and if there is no such choice of channels or no such
            resampler; the message says which there are.
    """

    model_input_names = ["input_values", "attention_mask"]

    def __init__(
        self,
        feature_size: int = 1,
        sampling_rate: int = 16_000,
        num_mel_bins: int = 128,
        max_length: int = 1024,
        padding_value: float = 0.0,
        do_normalize: bool = True,
        mean: float = AUDIOSET_MEAN,
        std: float = AUDIOSET_STD,
        return_attention_mask: bool = False,
        padding: str = PaddingStrategy.MAX_LENGTH.value,
        resampler: str | None = None,
        channels: str | int = "mean",
        **kwargs,
    ):
        given = {
            "feature_size": feature_size, "sampling_rate": sampling_rate, "num_mel_bins": num_mel_bins,
            "max_length": max_length, "padding_value": padding_value, "mean": mean, "std": std,
        }  # fmt: skip
        check_fields(given, EXTRACTOR_FIELDS)
        super().__init__(feature_size=feature_size, sampling_rate=sampling_rate, padding_value=padding_value, **kwargs)
        self.num_mel_bins = num_mel_bins
        self.max_length = max_length
        self.do_normalize = do_normalize
        self.mean = float(mean)  # a NumPy scalar would not survive JSON
        self.std = float(std)
        self.return_attention_mask = return_attention_mask
        self.padding = padding
        self.resampler = None if resampler is None else checked_resampler(resampler)
        self.channels = parse_channels(channels)

    @property
    def max_samples(self) -> int:
        """Samples of a clip that the model hears: the fewest that give `max_length` frames."""
        return num_samples(self.max_length, self.sampling_rate)

    @classmethod
    def get_feature_extractor_dict(cls, pretrained_model_name_or_path, **kwargs) -> tuple[dict, dict]:
        """As the stock method, but a checkpoint that the kit ships is found by its name.

        Args:
            pretrained_model_name_or_path (`str` or `os.PathLike`): a folder, a Hub id, or `ast-small`.
            kwargs: as of the stock method.

        Returns:
            The fields, and what is left of `kwargs`.

        Raises:
            CheckpointError: see [`folder_of`].
        """
        return super().get_feature_extractor_dict(folder_of(pretrained_model_name_or_path), **kwargs)

    @classmethod
    def from_dict(cls, feature_extractor_dict: dict, **kwargs):
        """Make a feature extractor of the fields of `preprocessor_config.json`.

        The library passes over keyword arguments that are no fields of the file, without a word; here each is obeyed.

        Args:
            feature_extractor_dict (`dict`): the fields.
            kwargs: of the class, in place of the fields.

        Returns:
            [`ASTFeatureExtractor`].

        Raises:
            CheckpointError: if a field holds what it cannot.
        """
        check_fields(feature_extractor_dict, EXTRACTOR_FILE_FIELDS, EXTRACTOR, cls)
        parameters = inspect.signature(cls).parameters.values()
        defaults = {item.name: item.default for item in parameters if item.default is not inspect.Parameter.empty}
        return super().from_dict(defaults | feature_extractor_dict, **kwargs)

    def to_dict(self) -> dict:
        """Give what is saved: the fields of stock Transformers, and what is heard otherwise than there.

        Returns:
            The fields of `preprocessor_config.json`.
        """
        fields = super().to_dict()
        if fields["resampler"] is None:
            del fields["resampler"]
        if fields["channels"] == "mean":
            del fields["channels"]
        return fields

    def __call__(
        self,
        raw_speech: np.ndarray | torch.Tensor | Sequence,
        sampling_rate: int | None = None,
        return_tensors: str | TensorType | None = None,
        padding: str | bool | None = None,
        max_length: int | None = None,
        truncation: bool = True,
        return_attention_mask: bool | None = None,
        device: str | torch.device | None = None,
    ) -> BatchFeature:
        r"""
        Args:
            raw_speech (`np.ndarray`, `torch.Tensor`, or a list of these or of lists): one mono waveform of shape
                `(samples,)`, a batch of shape `(batch, samples)`, or a list of waveforms of any lengths. Floats in
                [-1, 1]; integers of 8, 16 and 32 bits are scaled to that as those of WAV files are. An array whose few rows
                look like the channels of one recording is taken as a batch with a warning, and so are floats far beyond 1.
            sampling_rate (`int`, *optional*): sampling rate of `raw_speech` in Hz, compared with the extractor's.
            return_tensors (`str`, *optional*): `"pt"` or `"np"`; a list of arrays of shape `(frames, mel bins)` if
                not given.
            padding (`str` or `bool`, *optional*): `"max_length"`, `"longest"` (or `True`), or `False` for no padding;
                the extractor's own setting if not given.
            max_length (`int`, *optional*): frames of 10 ms, not samples, to pad and cut to; the extractor's own if not
                given. Under 16, one patch of the released models, clips are cut to it and padded to 16.
            truncation (`bool`, defaults to `True`): whether to cut clips longer than `max_length` frames.
            return_attention_mask (`bool`, *optional*): whether to return the mask of real frames, shape
                `(batch, frames)`. If not given: the extractor's own setting, and always when `"longest"` padded a clip.
            device (`str` or `torch.device`, *optional*): where to compute; the waveform's own device if not given.

        Returns:
            [`BatchFeature`] with `input_values` of shape `(batch, frames, mel bins)` and perhaps `attention_mask`.

        Raises:
            ValueError: for a wrong sampling rate, several channels, an empty clip, one shorter than a 25 ms window,
                integers whose full scale nothing tells, or NaN and infinite samples among those that are not cut; the
                message names the clip.
        """
        if sampling_rate is None:
            logger.warning_once(
                f"sampling_rate was not given; the audio is taken as {self.sampling_rate} Hz. Pass sampling_rate=... "
                "so that audio of another rate is refused."
            )
        elif sampling_rate != self.sampling_rate:
            raise ValueError(
                f"The audio has a sampling rate of {sampling_rate} Hz, this checkpoint hears {self.sampling_rate} Hz. "
                f"Resample it, for example with torchaudio.functional.resample(audio, {sampling_rate}, "
                f"{self.sampling_rate})."
            )
        padding = self._padding_strategy(self.padding if padding is None else padding)
        max_length = self.max_length if max_length is None else max_length
        if max_length < 1:
            raise ValueError(f"max_length={max_length} is not a number of frames of 10 ms. Pass 1 or more.")
        if max_length > FAR_ABOVE * self.max_length:
            self._warn_of_long_input(max_length)
        most = num_samples(max_length, self.sampling_rate) if truncation else None
        given = _as_clips(raw_speech, frame_length(self.sampling_rate))
        if not given:
            raise ValueError("An empty list was given, expected at least one waveform.")
        clips = [self._mono_waveform(clip, position, most) for position, clip in enumerate(given)]
        if isinstance(raw_speech, (np.ndarray, torch.Tensor)) and raw_speech.ndim == 2:
            self._warn_of_channels(raw_speech)
        device = clips[0].device if device is None else torch.device(device)

        frames = [num_frames(clip.shape[0], self.sampling_rate) for clip in clips]
        sizes = [padded_length(count) for count in frames]  # of the outputs
        if padding is not PaddingStrategy.DO_NOT_PAD:
            pad_to = max_length if padding is PaddingStrategy.MAX_LENGTH else None
            sizes = [padded_length(max(frames), pad_to)] * len(clips)
        elif return_tensors is not None and len(set(sizes)) > 1:
            raise ValueError(
                f"Clips of {sorted(set(sizes))} frames do not make one tensor with padding=False. Pass "
                'padding="longest", or leave return_tensors out.'
            )
        if len(set(sizes)) == 1:
            features = torch.empty(len(clips), sizes[0], self.num_mel_bins, device=device, dtype=torch.float32)
        else:
            features = [torch.empty(size, self.num_mel_bins, device=device, dtype=torch.float32) for size in sizes]
        self._compute(clips, frames, features)

        outputs = {"input_values": features}
        if return_attention_mask is None:
            padded_to_longest = padding is PaddingStrategy.LONGEST and frames != sizes
            return_attention_mask = self.return_attention_mask or padded_to_longest
        if return_attention_mask:
            mask = frame_mask(torch.tensor(frames, device=device), max(sizes)).to(torch.int64)
            if len(set(sizes)) > 1:
                mask = [row[:size] for row, size in zip(mask, sizes, strict=True)]
            outputs["attention_mask"] = mask
        return BatchFeature({name: _to_tensor_type(rows, return_tensors) for name, rows in outputs.items()})

    def frames(self, waveform: np.ndarray | torch.Tensor, device: str | torch.device | None = None) -> torch.Tensor:
        """Normalised log-mel features of a waveform of any length: frame by frame what a call gives, without padding.

        Args:
            waveform (`np.ndarray` or `torch.Tensor` of shape `(samples,)`): mono, of one window of 25 ms at least.
            device (`str` or `torch.device`, *optional*): where to compute; the waveform's own device if not given.

        Returns:
            `torch.Tensor` of shape `(frames, mel bins)`, float32.

        Raises:
            ValueError: see [`ASTFeatureExtractor.__call__`].
        """
        clip = self._mono_waveform(waveform, 0, None)
        count = num_frames(len(clip), self.sampling_rate)
        device = clip.device if device is None else torch.device(device)
        features = torch.empty(count, self.num_mel_bins, device=device, dtype=torch.float32)
        self._compute([clip], [count], [features])
        return features

    def batch_of_frames(self, features: Sequence[torch.Tensor]) -> BatchFeature:
        """Make a batch of features from [`ASTFeatureExtractor.frames`], padded as a call pads clips of that many frames.

        Args:
            features (sequence of `torch.Tensor` of shapes `(frames, mel bins)`): on one device, none longer than the checkpoint's
                `max_length`.

        Returns:
            [`BatchFeature`] of tensors: `input_values` of shape `(batch, frames, mel bins)` and perhaps `attention_mask`.
        """
        frames = [len(row) for row in features]
        padding = self._padding_strategy(self.padding)
        size = padded_length(max(frames), self.max_length if padding is PaddingStrategy.MAX_LENGTH else None)
        if frames == [size] * len(frames):
            padded = torch.stack(list(features))
        else:
            padded = features[0].new_empty(len(frames), size, self.num_mel_bins)
            for row, place in zip(features, padded, strict=True):
                place[: len(row)] = row
            scale, offset = self._normalisation()
            fill_padding(padded, frames, scale * self.padding_value + offset)
        outputs = {"input_values": padded}
        padded_to_longest = padding is PaddingStrategy.LONGEST and frames != [size] * len(frames)
        if self.return_attention_mask or padded_to_longest:
            outputs["attention_mask"] = frame_mask(torch.tensor(frames, device=padded.device), size).to(torch.int64)
        return BatchFeature(outputs)

    def _normalisation(self) -> tuple[float, float]:
        """What features are multiplied with, and what is added to them then."""
        return (1 / (2 * self.std), -self.mean / (2 * self.std)) if self.do_normalize else (1.0, 0.0)

    def audio_reader(self, **settings) -> AudioReader:
        """Make the reader by which audio files become the waveforms that this checkpoint hears.

        Args:
            settings: of [`AudioReader`], in place of the checkpoint's own.

        Returns:
            [`AudioReader`].
        """
        own = {
            "sampling_rate": self.sampling_rate,
            "channels": self.channels,
            "resampler": self.resampler or DEFAULT_RESAMPLER,
        }
        return AudioReader(**own | settings)

    def _compute(self, clips: list[torch.Tensor], frames: list[int], features: torch.Tensor | list[torch.Tensor]):
        """Write normalised features and padding into place.

        Args:
            clips (`list[torch.Tensor]` of shapes `(samples,)`): mono waveforms as they were given, but cut.
            frames (`list[int]`): real frames of each.
            features (`torch.Tensor` of shape `(batch, frames, mel bins)`, or list of `(frames, mel bins)`): written to.
        """
        self._check_amplitudes(clips)
        scale, offset = self._normalisation()
        places = [row[:count] for row, count in zip(features, frames, strict=True)]
        write_log_mel(clips, places, self.sampling_rate, scale, offset)
        fill_padding(features, frames, scale * self.padding_value + offset)

    @staticmethod
    def _check_amplitudes(waveforms: list[torch.Tensor]):
        """Refuse samples of which no finite features come; warn of floats that are none in [-1, 1]."""
        floats = {position: waveform for position, waveform in enumerate(waveforms) if waveform.is_floating_point()}
        # The norm is not less than any peak, takes no memory, and fails the comparison if a sample is NaN.
        norm = float(torch.nn.utils.get_total_norm(list(floats.values())))
        if norm <= LARGEST_AMPLITUDE:
            # Less than that it cannot be if such a share of any clip is that far beyond full scale: usually none is looked at.
            shortest = min(map(len, floats.values()), default=0)
            if norm**2 >= FAR_BEYOND_SHARE * FAR_BEYOND**2 * shortest > 0 and "amplitudes" not in _said:
                _warn_of_amplitudes(floats)
            return
        for position, waveform in floats.items():
            peak = max(waveform.max().item(), -waveform.min().item())
            if not math.isfinite(peak):
                raise ValueError(f"Clip {position} holds NaN or infinite samples. Leave it out or repair it.")
            if peak > LARGEST_AMPLITUDE:
                raise ValueError(
                    f"Clip {position} has samples up to {peak:.1e}, expected floats in [-1, 1]. Divide it by its full "
                    "scale."
                )

    def _warn_of_long_input(self, max_length: int):
        seconds, own_seconds = (
            num_samples(frames, self.sampling_rate) / self.sampling_rate for frames in (max_length, self.max_length)
        )
        meant = num_frames(max(max_length, frame_length(self.sampling_rate)), self.sampling_rate)
        _warn_once(
            "long input",
            f"max_length={max_length} counts frames of 10 ms, not samples: clips are padded and cut to {seconds:.1f} s, and this "
            f"checkpoint was made for {self.max_length} frames ({own_seconds:.1f} s). If {max_length} samples were meant, "
            f"pass max_length={meant}, or leave it out.",
        )

    def _warn_of_channels(self, batch: np.ndarray | torch.Tensor):
        """Warn of a batch that may be the channels of one recording."""
        rows, samples = batch.shape
        if not 1 < rows <= MOST_CHANNELS or "channels" in _said:
            return
        if look_like_channels(batch):
            why = "and its rows are nearly equal or sound together"
        elif rows == 2 and samples > self.max_samples:
            why = f"two rows of {samples / self.sampling_rate:.1f} s"
        else:
            return
        _warn_once(
            "channels",
            f"The audio has shape {(rows, samples)}, {why}; it is taken as {rows} clips. If these are the channels of one "
            "recording, pass audio.mean(axis=0), or one of them; if they are clips, pass list(audio).",
        )

    def log_mel(
        self,
        waveforms: torch.Tensor,
        lengths: torch.Tensor,
        max_length: int | None = None,
        pad_to: int | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Log-mel features of zero-padded waveforms, before normalising.

        Args:
            waveforms (`torch.Tensor` of shape `(batch, samples)`): waveforms, zero beyond their length.
            lengths (`torch.Tensor` of shape `(batch,)`): samples of each clip, at least one window.
            max_length (`int`, *optional*): frames after which a clip is cut.
            pad_to (`int`, *optional*): frames to pad to; those of the longest clip, at least one patch, if not given.

        Returns:
            Features of shape `(batch, frames, mel bins)` in which padding frames are `padding_value`, and the number
            of real frames of each clip, shape `(batch,)`.
        """
        if max_length is not None:
            waveforms = waveforms[:, : num_samples(max_length, self.sampling_rate)]
        features = log_mel_spectrogram(waveforms, self.sampling_rate, self.num_mel_bins)
        frames = num_frames(lengths, self.sampling_rate).clamp(max=features.shape[1])
        return pad_frames(features, frames, self.padding_value, pad_to), frames

    def normalize(self, features: torch.Tensor) -> torch.Tensor:
        """Normalise features to about mean 0 and standard deviation 0.5, if `do_normalize`.

        Args:
            features (`torch.Tensor` of any shape): log-mel values.

        Returns:
            `torch.Tensor` of that shape: `(features - mean) / (2 * std)`, or the features as they are.
        """
        return (features - self.mean) / (2 * self.std) if self.do_normalize else features

    def _mono_waveform(self, clip, position: int, most: int | None) -> torch.Tensor:
        """The clip, or its first `most` samples, as a tensor of its own type on its own device."""
        if clip.ndim != 1:
            shape, advice = tuple(clip.shape), ""
            if shape:
                advice = f" Average its channels first, for example with audio.mean(axis={shape.index(min(shape))})."
            raise ValueError(
                f"Clip {position} has shape {shape}, expected a mono waveform of shape (samples,).{advice}"
            )
        clip = clip[:most]
        if not _is_float_or_int16(clip):
            clip = _in_full_scale(clip, f"Clip {position}")
        clip = _as_tensor(clip)
        shortest = frame_length(self.sampling_rate)
        if len(clip) < shortest:
            raise ValueError(
                f"Clip {position} has {len(clip)} samples, one analysis window needs {shortest} "
                f"({FRAME_LENGTH_MS} ms). Leave it out or pad it with zeros."
            )
        return clip

    @staticmethod
    def _padding_strategy(padding: str | bool) -> PaddingStrategy:
        if isinstance(padding, bool):
            return PaddingStrategy.LONGEST if padding else PaddingStrategy.DO_NOT_PAD
        return PaddingStrategy(padding)  # its error lists the choices


def _as_clips(raw_speech, shortest: int) -> list[np.ndarray | torch.Tensor]:
    """The clips of a batch; one waveform is a batch of one. `shortest` is the number of samples of one window."""
    if isinstance(raw_speech, (np.ndarray, torch.Tensor)):
        if raw_speech.ndim == 2 and raw_speech.shape[1] < min(shortest, len(raw_speech)):
            clips, samples = raw_speech.shape
            raise ValueError(
                f"The audio has shape {(clips, samples)}, which is {clips} clips of {samples} samples, where one window "
                f"needs {shortest}. If it is (samples, channels), average its channels first, for example with "
                "audio.mean(axis=1)."
            )
        return [raw_speech] if raw_speech.ndim < 2 else list(raw_speech)
    if isinstance(raw_speech, (str, Mapping)) or not hasattr(raw_speech, "__iter__"):
        return [_as_array(raw_speech, 0)]
    raw_speech = list(raw_speech)
    holds_clips = not raw_speech or not isinstance(raw_speech[0], (int, float, np.number))
    return [_as_array(clip, position) for position, clip in enumerate(raw_speech if holds_clips else [raw_speech])]


def _as_array(clip, position: int) -> np.ndarray | torch.Tensor:
    if isinstance(clip, (np.ndarray, torch.Tensor)):
        return clip
    if hasattr(clip, "__iter__") and not isinstance(clip, (str, Mapping)):
        try:
            array = np.asarray(list(clip))
        except ValueError:
            raise ValueError(
                f"Clip {position} is a {type(clip).__name__} of parts of unequal shapes, expected numbers. Pass clips as a list "
                "of arrays."
            ) from None
        return array.astype(np.float32) if array.dtype.kind == "f" else array
    named = f", {str(clip)!r}" if isinstance(clip, (str, os.PathLike)) else ""
    raise ValueError(
        f"Clip {position} is a {type(clip).__name__}{named}, expected a waveform as an array or tensor. Of a data set's row "
        "pass row['audio']['array']; of a file what modeling_ast.audio.read_audio(path, sampling_rate) gives."
    )


def _is_float_or_int16(clip: np.ndarray | torch.Tensor) -> bool:
    if isinstance(clip, torch.Tensor):
        return clip.is_floating_point() or clip.dtype == torch.int16
    return clip.dtype.kind == "f" or clip.dtype.newbyteorder("=") == np.int16


def _in_full_scale(clip: np.ndarray | torch.Tensor, name: str) -> np.ndarray | torch.Tensor:
    """Integers of other widths as float32, on their own device."""
    if isinstance(clip, torch.Tensor):
        return torch.from_numpy(full_scale_waveform(clip.cpu().numpy(), name)).to(clip.device)
    return full_scale_waveform(clip, name)


def _warn_of_amplitudes(waveforms: dict[int, torch.Tensor]):
    for position, waveform in waveforms.items():
        energy = float(torch.linalg.vector_norm(waveform.detach().float())) ** 2
        if energy < FAR_BEYOND_SHARE * FAR_BEYOND**2 * min(len(waveform), LOOKED_AT):
            continue  # so little cannot have that share of samples that far beyond
        fault = far_beyond_full_scale(waveform.detach()[:LOOKED_AT].float().cpu().numpy())
        if fault:
            _warn_once(
                "amplitudes",
                f"Clip {position} has {fault}, expected floats in [-1, 1]: it is heard that much too loud. Divide it by its "
                "full scale, 16-bit samples by 32768.",
            )
            return


def _warn_once(kind: str, message: str):
    if kind not in _said:
        _said.add(kind)
        logger.warning(f"{message} This is said once.")


def _as_tensor(clip: np.ndarray | torch.Tensor) -> torch.Tensor:
    """The waveform as a tensor, copied where torch does not take an array as it is."""
    if isinstance(clip, torch.Tensor):
        return clip
    if clip.dtype.itemsize > np.dtype(np.float64).itemsize:
        clip = clip.astype(np.float64)
    if not clip.dtype.isnative:
        clip = clip.astype(clip.dtype.newbyteorder("="))
    if clip.strides[0] < 0 or clip.strides[0] % clip.itemsize:
        clip = clip.copy()
    if clip.flags.writeable:
        return torch.from_numpy(clip)
    with warnings.catch_warnings():  # torch warns of such arrays; nothing here writes to what was given
        warnings.simplefilter("ignore")
        return torch.from_numpy(clip)


def _to_tensor_type(rows: torch.Tensor | list[torch.Tensor], return_tensors: str | TensorType | None):
    """Rows as one tensor or array, or as a list of arrays if no type was asked for."""
    if return_tensors is None:
        return [row.cpu().numpy() for row in rows]
    if TensorType(return_tensors) is TensorType.PYTORCH:
        return rows
    if TensorType(return_tensors) is TensorType.NUMPY:
        return rows.cpu().numpy()
    raise ValueError(f"return_tensors={return_tensors!r} is not made here. Pass 'pt' or 'np', or leave it out.")
