"""What the filter bank is made of, against `torchaudio.compliance.kaldi`."""

import torch
import torchaudio.compliance.kaldi

from modeling_ast.features.kaldi import mel_filter_bank


def test_mel_filters_equal_kaldi_bit_for_bit():
    expected, _ = torchaudio.compliance.kaldi.get_mel_banks(128, 512, 16_000.0, 20.0, 0.0, 100.0, -500.0, 1.0)
    filters = mel_filter_bank(128, 16_000)
    assert torch.equal(filters[:-1].T, expected)
    assert not filters[-1].any()
