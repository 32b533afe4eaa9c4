"""Padding is the same wherever it is done: at a call, before normalising on a device, and of features that are finished."""

import pytest
import torch

from finetune.clip_sets.collator import ASTDataCollator, raw_features
from modeling_ast import ASTFeatureExtractor
from modeling_ast.features.padding import padded_length


@pytest.mark.parametrize(("frames", "pad_to", "expected"), [(7, None, 16), (7, 12, 16), (40, 20, 40), (40, 96, 96)])
def test_no_input_is_shorter_than_a_patch_or_than_its_longest_clip(frames, pad_to, expected):
    assert padded_length(frames, pad_to) == expected


@pytest.mark.parametrize("lengths", [(9_000, 5_000), (1_500, 1_500), (40_000, 16_000)])
@pytest.mark.parametrize("padding", ["max_length", "longest"])
def test_every_way_pads_with_the_same_value_to_the_same_length(lengths, padding):
    extractor = ASTFeatureExtractor(max_length=96, padding=padding, padding_value=-7.5, do_normalize=False)
    generator = torch.Generator().manual_seed(0)
    clips = [torch.randn(length, generator=generator).numpy() / 9 for length in lengths]
    called = extractor(clips, sampling_rate=16_000, return_tensors="pt")["input_values"]

    alone = [extractor(clip, sampling_rate=16_000, padding=False)["input_values"][0] for clip in clips]
    frames = [min(1 + (length - 400) // 160, 96) for length in lengths]
    for row, own, count in zip(called, alone, frames, strict=True):
        assert torch.equal(row[:count], torch.from_numpy(own)[:count])
        assert (row[count:] == -7.5).all()

    collate = ASTDataCollator(extractor, compute_features=False)
    pad_to = 96 if padding == "max_length" else None
    examples = [
        [{"waveform": clip, "label": 0} for clip in clips],
        [{"features": own[:count], "label": 0} for own, count in zip(alone, frames, strict=True)],
    ]
    for items in examples:
        features, counts = raw_features(collate(items), extractor, pad_to)
        assert counts.tolist() == frames
        assert torch.equal(features, called)
