"""AST feature extractor: waveforms to padded, normalised log-mel features, a batch at a time.

Settings and defaults are those of the checkpoints on the Hub, so `preprocessor_config.json` is interchangeable with
stock Transformers. Differs from the class there in that clips of a batch are computed together and on any device, that
`padding`, `truncation`, `max_length` and `return_attention_mask` are obeyed at call time, and that input from which no
sensible features can come is an error.
"""

from collections.abc import Sequence

import numpy as np
import torch
from transformers import BatchFeature, SequenceFeatureExtractor
from transformers.utils import PaddingStrategy, TensorType, logging

from .log_mel import FRAME_LENGTH_MS, frame_length, log_mel_spectrogram, num_frames, num_samples

logger = logging.get_logger(__name__)

AUDIOSET_MEAN = -4.2677393  # Gong et al. 2021, released code
AUDIOSET_STD = 4.5689974  # Gong et al. 2021, released code
MIN_FRAMES = 16  # one patch of the model


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
            original does; `"longest"` to the longest clip of the batch, with a mask if lengths differ.
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
        **kwargs,
    ):
        super().__init__(feature_size=feature_size, sampling_rate=sampling_rate, padding_value=padding_value, **kwargs)
        self.num_mel_bins = num_mel_bins
        self.max_length = max_length
        self.do_normalize = do_normalize
        self.mean = float(mean)  # a NumPy scalar would not survive JSON
        self.std = float(std)
        self.return_attention_mask = return_attention_mask
        self.padding = padding

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
                [-1, 1]; 16-bit integers are scaled to that.
            sampling_rate (`int`, *optional*): sampling rate of `raw_speech` in Hz, compared with the extractor's.
            return_tensors (`str`, *optional*): `"pt"` or `"np"`; a list of arrays of shape `(frames, mel bins)` if
                not given.
            padding (`str` or `bool`, *optional*): `"max_length"`, `"longest"` (or `True`), or `False` for no padding;
                the extractor's own setting if not given.
            max_length (`int`, *optional*): frames to pad and cut to; the extractor's own if not given.
            truncation (`bool`, defaults to `True`): whether to cut clips longer than `max_length` frames.
            return_attention_mask (`bool`, *optional*): whether to return the mask of real frames, shape
                `(batch, frames)`. If not given: the extractor's own setting, and always when `"longest"` padded.
            device (`str` or `torch.device`, *optional*): where to compute; the waveform's own device if not given.

        Returns:
            [`BatchFeature`] with `input_values` of shape `(batch, frames, mel bins)` and perhaps `attention_mask`.

        Raises:
            ValueError: for a wrong sampling rate, several channels, an empty clip, one shorter than a 25 ms window,
                or NaN and infinite samples; the message names the clip.
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
        clips = [self._mono_waveform(clip, position) for position, clip in enumerate(_as_clips(raw_speech))]
        if not clips:
            raise ValueError("An empty list was given, expected at least one waveform.")

        lengths = torch.tensor([len(clip) for clip in clips])
        waveforms = torch.nn.utils.rnn.pad_sequence(clips, batch_first=True)
        if device is not None:
            waveforms = waveforms.to(device)
        pad_to = max_length if padding is PaddingStrategy.MAX_LENGTH else None
        features, frames = self.log_mel(
            waveforms, lengths.to(waveforms.device), max_length if truncation else None, pad_to
        )
        features = self.normalize(features)

        if padding is PaddingStrategy.DO_NOT_PAD:
            input_values = [
                clip[: max(count, MIN_FRAMES)] for clip, count in zip(features, frames.tolist(), strict=True)
            ]
            if return_tensors is not None and len({len(clip) for clip in input_values}) > 1:
                raise ValueError(
                    f"Clips of {sorted({len(clip) for clip in input_values})} frames do not make one tensor with "
                    'padding=False. Pass padding="longest", or leave return_tensors out.'
                )
        else:
            input_values = list(features)
        outputs = {"input_values": input_values}
        if return_attention_mask is None:
            padded_to_longest = padding is PaddingStrategy.LONGEST and len(frames.unique()) > 1
            return_attention_mask = self.return_attention_mask or padded_to_longest
        if return_attention_mask:
            mask = frame_mask(frames, features.shape[1]).to(torch.int64)
            outputs["attention_mask"] = [row[: len(clip)] for row, clip in zip(mask, input_values, strict=True)]
        return _to_tensor_type(outputs, return_tensors)

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
        real = frame_mask(frames, features.shape[1])
        features = features.masked_fill(~real[:, :, None], self.padding_value)
        missing = max(MIN_FRAMES, pad_to or 0) - features.shape[1]
        if missing > 0:
            features = torch.nn.functional.pad(features, (0, 0, 0, missing), value=self.padding_value)
        return features, frames

    def normalize(self, features: torch.Tensor) -> torch.Tensor:
        """`(features - mean) / (2 * std)`, to about mean 0 and standard deviation 0.5, if `do_normalize`."""
        return (features - self.mean) / (2 * self.std) if self.do_normalize else features

    def _mono_waveform(self, clip, position: int) -> torch.Tensor:
        waveform = clip if isinstance(clip, torch.Tensor) else torch.from_numpy(np.array(clip))
        if waveform.dim() != 1:
            raise ValueError(
                f"Clip {position} has shape {tuple(waveform.shape)}, expected a mono waveform of shape (samples,). "
                "Average its channels first, for example with audio.mean(axis=0)."
            )
        if waveform.dtype == torch.int16:
            waveform = waveform.to(torch.float32) / 2**15
        elif not waveform.is_floating_point():
            raise ValueError(
                f"Clip {position} has dtype {waveform.dtype}, expected floats in [-1, 1] or 16-bit integers. "
                "Convert it with audio.astype(numpy.float32) / largest_value."
            )
        waveform = waveform.to(torch.float32)
        shortest = frame_length(self.sampling_rate)
        if len(waveform) < shortest:
            raise ValueError(
                f"Clip {position} has {len(waveform)} samples, one analysis window needs {shortest} "
                f"({FRAME_LENGTH_MS} ms). Leave it out or pad it with zeros."
            )
        if not torch.isfinite(waveform).all():
            raise ValueError(f"Clip {position} holds NaN or infinite samples. Leave it out or repair it.")
        return waveform

    @staticmethod
    def _padding_strategy(padding: str | bool) -> PaddingStrategy:
        if isinstance(padding, bool):
            return PaddingStrategy.LONGEST if padding else PaddingStrategy.DO_NOT_PAD
        return PaddingStrategy(padding)  # its error lists the choices


def frame_mask(frames: torch.Tensor, num_frames: int) -> torch.Tensor:
    """Which frames are real: `(batch,)` counts to a boolean mask of shape `(batch, num_frames)`."""
    return torch.arange(num_frames, device=frames.device) < frames[:, None]


def _as_clips(raw_speech) -> list:
    """The clips of a batch; one waveform is a batch of one."""
    if isinstance(raw_speech, (np.ndarray, torch.Tensor)):
        return [raw_speech] if raw_speech.ndim == 1 else list(raw_speech)
    holds_clips = len(raw_speech) == 0 or isinstance(raw_speech[0], (np.ndarray, torch.Tensor, list, tuple))
    if holds_clips:
        return [np.asarray(clip, np.float32) if isinstance(clip, (list, tuple)) else clip for clip in raw_speech]
    return [np.asarray(raw_speech, np.float32)]


def _to_tensor_type(outputs: dict[str, list[torch.Tensor]], return_tensors: str | TensorType | None) -> BatchFeature:
    if return_tensors is not None and TensorType(return_tensors) is TensorType.PYTORCH:
        return BatchFeature({name: torch.stack(rows) for name, rows in outputs.items()})
    arrays = {name: [row.cpu().numpy() for row in rows] for name, rows in outputs.items()}
    return BatchFeature(arrays, tensor_type=return_tensors)
