"""The authors' released checkpoints, converted, against the Hub's own copies and the logits published for them.

    python -m benchmarks.released_checkpoints [NAME ...] [--download_dir DIR]

For those with a network: each name is 0.35 GB from the authors' address and as much from the Hub. A released `.pth` is
downloaded and converted as `ast-convert --released` does, every tensor is compared bit for bit with the copy in the Hub's
repository, and the first three logits with those that the conversion script of Transformers expects. The command exits with 1
if one of them differs, and says which.

The script's clip for AudioSet is `sample_audio.flac` of a data set on the Hub, and the first validation clip of Speech Commands
v0.02 for that checkpoint. For the latter it asks its feature extractor for 128 frames, which that ignores in favour of its own 1024;
a position table for 128 frames takes no 1024 in stock Transformers. So both lengths are computed here, 1024 with positions
stretched as the port does it, and the line says which of them gives the published logits.
"""

import argparse
import io
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType

import numpy as np
import soundfile
import torch
from datasets import Audio, load_dataset
from huggingface_hub import hf_hub_download
from transformers.utils import logging

from conversion.convert_ast_checkpoint import convert_checkpoint
from conversion.download import download_checkpoint
from conversion.errors import ConversionError
from conversion.original_datasets import AUDIOSET, SPEECH_COMMANDS
from conversion.released_checkpoints import ReleasedCheckpoint, released_checkpoint
from modeling_ast import ASTFeatureExtractor, ASTForAudioClassification

# First logits by released name. Source: convert_audio_spectrogram_transformer_original_to_pytorch.py of Transformers, which
# names the checkpoints as the Hub does.
PUBLISHED_LOGITS = MappingProxyType(
    {
        "audioset_10_10_0.4593": (-0.8760, -7.0042, -8.6602),
        "audioset_10_10_0.4495": (-1.1986, -7.0903, -8.2718),
        "audioset_10_10_0.4483": (-2.6128, -8.0080, -9.4344),
        "audioset_10_10_0.4475": (-1.5080, -7.4534, -8.8917),
        "audioset_12_12_0.4467": (-0.5050, -6.5833, -8.0843),
        "audioset_14_14_0.4431": (-0.3826, -7.0336, -8.2413),
        "audioset_16_16_0.4422": (-1.2113, -6.9101, -8.3470),
        "speechcommands_10_10_0.9812": (6.1589, -8.0566, -8.7984),
    }
)
# The script's; its logits have four decimals, and stock's class has one LayerNorm epsilon where AST has two.
TOLERANCE = 1e-4
FRAMES = {AUDIOSET.name: (1024,), SPEECH_COMMANDS.name: (128, 1024)}
SAMPLING_RATE = 16_000  # Hz; the script takes its clips as they are
SAMPLE_REPOSITORY, SAMPLE_FILE = "nielsr/audio-spectogram-transformer-checkpoint", "sample_audio.flac"
# The repository's own files were once a script, which `datasets` 4 does not run; the Hub's Parquet copy has its order.
SPEECH_COMMANDS_CLIPS = {"path": "google/speech_commands", "data_dir": "v0.02", "revision": "refs/convert/parquet"}


@dataclass(frozen=True)
class Comparison:
    """What was found out about one released checkpoint.

    Args:
        name (`str`): its name.
        tensors (`int`): how many were compared.
        unlike (`dict[str, str]`): what is the matter with each tensor that is not the Hub's, by the Hub's name for it.
        published (`tuple[float, ...]`): the expected first logits.
        logits (`dict[int, tuple[float, ...]]`): those of the converted checkpoint, by number of frames.
    """

    name: str
    tensors: int
    unlike: dict[str, str]
    published: tuple[float, ...]
    logits: dict[int, tuple[float, ...]]

    @property
    def reproduced_with(self) -> list[int]:
        """Numbers of frames with which the logits are the published ones within the tolerance."""
        return [frames for frames in self.logits if self.difference(frames) <= TOLERANCE]

    @property
    def agrees(self) -> bool:
        """Whether every tensor is the Hub's and some number of frames gives the published logits."""
        return not self.unlike and bool(self.reproduced_with)

    def difference(self, frames: int) -> float:
        """Largest difference from the published logits.

        Args:
            frames (`int`): a key of `logits`.

        Returns:
            `float`: not negative, or NaN.
        """
        return float(np.abs(np.subtract(self.logits[frames], self.published)).max())

    def lines(self) -> list[str]:
        """The comparison in words.

        Returns:
            `list[str]`: the verdict, then what differs.
        """
        told = [f"{self.name}: {self.tensors - len(self.unlike)} of {self.tensors} tensors are the Hub's"]
        told += [f"  {tensor}: {reason}" for tensor, reason in self.unlike.items()]
        for frames, logits in self.logits.items():
            verdict = "as published" if frames in self.reproduced_with else f"published {_shown(self.published)}"
            told.append(
                f"  {frames} frames: logits {_shown(logits)}, {verdict}, largest difference {self.difference(frames):.1e}"
            )
        if not self.reproduced_with:
            told.append(f"  no number of frames gives the published logits within {TOLERANCE:g}")
        return told


def compare_released(row: ReleasedCheckpoint, download_dir: Path, folder: Path) -> Comparison:
    """Download and convert a released checkpoint, and compare it with what is published.

    Args:
        row ([`ReleasedCheckpoint`]): which one.
        download_dir (`Path`): where the `.pth` is, or goes.
        folder (`Path`): where the converted checkpoint goes; must not exist.

    Returns:
        [`Comparison`].

    Raises:
        ConversionError: if the file cannot be had or converted.
        OSError: if the Hub does not give its copy or a clip.
        ValueError: if the Hub's copy is no AST, or a clip is not mono at 16 kHz.
    """
    convert_checkpoint(download_checkpoint(row, download_dir), folder, released=row)
    converted = ASTForAudioClassification.from_pretrained(folder).state_dict()
    hubs = ASTForAudioClassification.from_pretrained(row.hub_id).state_dict()
    waveform = sample_clip() if row.dataset is AUDIOSET else first_speech_command()
    return Comparison(
        row.name,
        len(converted.keys() | hubs.keys()),
        unlike_tensors(converted, hubs),
        PUBLISHED_LOGITS[row.name],
        {frames: first_logits(folder, waveform, frames) for frames in FRAMES[row.dataset.name]},
    )


def unlike_tensors(converted: dict[str, torch.Tensor], hubs: dict[str, torch.Tensor]) -> dict[str, str]:
    """Find the tensors in which two state dicts differ.

    Args:
        converted (`dict[str, torch.Tensor]`): by the Hub's names.
        hubs (`dict[str, torch.Tensor]`): likewise.

    Returns:
        `dict[str, str]`: how, by name; empty if all are equal bit for bit.
    """
    unlike = {}
    for name in sorted(converted.keys() | hubs.keys()):
        ours, theirs = converted.get(name), hubs.get(name)
        if ours is None or theirs is None:
            unlike[name] = f"is only in the {'converted checkpoint' if theirs is None else 'copy of the Hub'}"
        elif ours.shape != theirs.shape:
            unlike[name] = f"is {tuple(ours.shape)}, {tuple(theirs.shape)} on the Hub"
        elif not torch.equal(ours, theirs):
            differing = int((ours != theirs).sum())
            unlike[name] = f"{differing} of {ours.numel()} values differ, by up to {(ours - theirs).abs().max():.1e}"
    return unlike


@torch.no_grad()
def first_logits(folder: Path, waveform: np.ndarray, frames: int) -> tuple[float, ...]:
    """Run a converted checkpoint on a clip that is padded or cut to so many frames.

    Args:
        folder (`Path`): the checkpoint.
        waveform (`np.ndarray` of shape `(samples,)`): mono, at 16 kHz.
        frames (`int`): of 10 ms; where the checkpoint has fewer, its positions are stretched.

    Returns:
        `tuple[float, ...]`: the first three logits.
    """
    model = ASTForAudioClassification.from_pretrained(folder, max_length=frames).eval()
    feature_extractor = ASTFeatureExtractor.from_pretrained(folder)
    inputs = feature_extractor(
        waveform, sampling_rate=SAMPLING_RATE, padding="max_length", max_length=frames, return_tensors="pt"
    )
    return tuple(model(**inputs).logits[0, :3].tolist())


@cache
def sample_clip() -> np.ndarray:
    """Download the clip of the AudioSet checkpoints.

    Returns:
        `np.ndarray` of shape `(samples,)`, float32 at 16 kHz.

    Raises:
        OSError: if the Hub does not give it.
        ValueError: if it is not mono at 16 kHz.
    """
    return _mono(hf_hub_download(SAMPLE_REPOSITORY, SAMPLE_FILE, repo_type="dataset"), SAMPLE_FILE)


@cache
def first_speech_command() -> np.ndarray:
    """Download the first validation clip of Speech Commands v0.02, and no other.

    Returns:
        `np.ndarray` of shape `(samples,)`, float32 at 16 kHz.

    Raises:
        OSError: if the Hub does not give it.
        ValueError: if it is not mono at 16 kHz.
    """
    clips = load_dataset(**SPEECH_COMMANDS_CLIPS, split="validation", streaming=True)
    audio = next(iter(clips.cast_column("audio", Audio(decode=False))))["audio"]
    return _mono(io.BytesIO(audio["bytes"]), audio["path"])


def _mono(file, name: str) -> np.ndarray:
    waveform, sampling_rate = soundfile.read(file, dtype="float32")
    if sampling_rate != SAMPLING_RATE or waveform.ndim != 1:
        raise ValueError(
            f"{name} has {sampling_rate} Hz and shape {waveform.shape}, expected one channel at {SAMPLING_RATE} Hz: it is not "
            "the clip that the published logits are of."
        )
    return waveform


def _shown(logits: Sequence[float]) -> str:
    return " ".join(f"{logit:.4f}" for logit in logits)


def main(argv: Sequence[str] | None = None) -> int:
    """Compare the named checkpoints, or all.

    Args:
        argv (`Sequence[str]`, *optional*): arguments after the program's name, by default those of the process.

    Returns:
        `int`: 0, or 1 if one differs or could not be compared.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"{', '.join(PUBLISHED_LOGITS)}; all if none is given"
    )
    parser.add_argument("--download_dir", type=Path, help="where the .pth files are kept (torch's hub folder)")
    arguments = parser.parse_args(argv)
    names = arguments.names or list(PUBLISHED_LOGITS)
    unknown = [name for name in names if name not in PUBLISHED_LOGITS]
    if unknown:
        parser.error(f"{unknown[0]} is no released checkpoint; there are {', '.join(PUBLISHED_LOGITS)}")
    download_dir = arguments.download_dir or Path(torch.hub.get_dir()) / "checkpoints"
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    agreeing = 0
    for name in names:
        try:
            with tempfile.TemporaryDirectory() as scratch:
                comparison = compare_released(released_checkpoint(name), download_dir, Path(scratch, name))
            agreeing += comparison.agrees
            print(*comparison.lines(), sep="\n", flush=True)
        except (ConversionError, OSError, ValueError) as error:
            print(f"{name}: not compared: {' '.join(str(error).split())}", flush=True)
    print(f"{agreeing} of {len(names)} checkpoints agree with the Hub's copies and the published logits.")
    return 0 if agreeing == len(names) else 1


if __name__ == "__main__":
    sys.exit(main())
