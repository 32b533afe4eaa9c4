"""Checkpoints that stock Transformers made, noise to tag with them, and the scores that stock Transformers gives."""

import numpy as np
import soundfile
import torch
import transformers
from varied_model import vary_scores

MAX_LENGTH = 96
WINDOW = 400 + 95 * 160  # samples of 96 frames: one of 25 ms, and 95 shifts of 10 ms, at 16 kHz
HOP = WINDOW // 2 // 160 * 160  # half a window, in whole frames
LABELS = ("clap", "kick", "tom-tom")
SCORE_TOLERANCE = 1e-5  # float32 through two layers, filter banks of two implementations


def save_checkpoint(folder, problem_type=None, labels=LABELS, **changes):
    config = transformers.ASTConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_length=MAX_LENGTH,
        num_mel_bins=128,
        problem_type=problem_type,
        id2label=dict(enumerate(labels)),
        label2id={label: index for index, label in enumerate(labels)},
        **changes,
    )
    model = transformers.ASTForAudioClassification(config).eval()
    extractor = transformers.ASTFeatureExtractor(max_length=MAX_LENGTH)
    windows = np.split(noise(8 * WINDOW, seed=2), 8)
    features = extractor(windows, sampling_rate=16_000, return_tensors="pt")
    vary_scores(model, 3, lambda: model(**features).logits)
    model.save_pretrained(folder)
    extractor.save_pretrained(folder)
    return folder


def noise(samples, seed=0):
    """Noise whose colour changes each tenth of a second, so that windows differ."""
    generator = np.random.default_rng(seed)
    waveform = generator.normal(size=samples).astype(np.float32) / 20
    for start in range(0, samples, 1600):
        taps = generator.normal(size=8).astype(np.float32)
        waveform[start : start + 1600] = np.convolve(waveform[start : start + 1600], taps, mode="same")
    return waveform


def write(path, waveform):
    soundfile.write(path, waveform, 16_000, subtype="FLOAT")
    return path


def stock_scores(folder, windows, score="softmax"):
    """Scores of stock Transformers, one window at a time: shape `(windows, labels)`."""
    model = transformers.ASTForAudioClassification.from_pretrained(folder).eval()
    extractor = transformers.ASTFeatureExtractor.from_pretrained(folder)
    rows = []
    for window in windows:
        features = extractor(window, sampling_rate=16_000, return_tensors="pt")
        with torch.no_grad():
            logits = model(**features).logits[0]
        rows.append({"softmax": logits.softmax(-1), "sigmoid": logits.sigmoid(), "none": logits}[score].numpy())
    return np.stack(rows)


def as_vector(tags):
    scores = {tag.label: tag.score for tag in tags}
    return np.array([scores[label] for label in LABELS])


def windows_of(path, starts):
    waveform = soundfile.read(path, dtype="float32")[0]
    return [waveform[start : start + WINDOW] for start in starts]
