"""Patchout: which patches stay, that they are the clip's own, that they are all that is computed, and where it stops."""

import functools
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tiny_trainings import summary_in

from finetune.augmentations.augmentation import Augmentation, collate_draws
from finetune.clip_sets.collator import model_inputs
from finetune.results import summary_sections
from finetune.run_finetune import main
from modeling_ast import ASTConfig, ASTFeatureExtractor, ASTForAudioClassification

SEED, EPOCH = 7, 2


@pytest.fixture
def config(tiny_sizes) -> ASTConfig:
    """Its patches overlap: 12 rows, 9 columns of 96 frames."""
    return ASTConfig(**tiny_sizes, num_labels=3, problem_type="single_label_classification")


def batch_of(augmentation: Augmentation, lengths: list[int], first: int = 0) -> dict:
    """Features of clips of so many frames, the clips numbered from `first` on."""
    clips = [
        np.random.default_rng(first + row).standard_normal((length, 128), dtype=np.float32)
        for row, length in enumerate(lengths)
    ]
    features = torch.zeros(len(clips), max(lengths), 128)
    for row, clip in enumerate(clips):
        features[row, : len(clip)] = torch.from_numpy(clip)
    draws = [augmentation.draw(SEED, EPOCH, first + row, 100) for row in range(len(clips))]
    return {
        "features": features, "lengths": torch.tensor(lengths), "labels": torch.zeros(len(clips), dtype=torch.long),
        "is_padded": len(set(lengths)) > 1, "draws": collate_draws(draws),
    }  # fmt: skip


def test_rows_and_columns_then_a_share_of_the_rest(config):
    augmentation = Augmentation(patchout_frequency=3, patchout_time=2, patchout_share=0.25)
    inputs = model_inputs(batch_of(augmentation, [96] * 6), ASTFeatureExtractor(max_length=96), augmentation, config)
    assert inputs["patches_kept"].shape == (6, 48)  # of (12 - 3) x (9 - 2) = 63 a quarter, 15, goes
    seen = torch.zeros(6, 108, dtype=torch.bool).scatter(1, inputs["patches_kept"], True).view(6, 12, 9)
    assert (seen.any(dim=2).sum(dim=1) == 9).all()
    assert (seen.any(dim=1).sum(dim=1) == 7).all()
    assert len({tuple(row) for row in inputs["patches_kept"].tolist()}) == 6, "each clip has its own"
    drawn = np.random.default_rng(np.random.default_rng((5, SEED, EPOCH, 4)).integers(2**63 - 1))
    lost_columns, lost_rows = drawn.permutation(9)[:2], drawn.permutation(12)[:3]
    assert not seen[4, :, lost_columns].any()
    assert not seen[4, lost_rows].any()
    assert "patches_kept" not in model_inputs(
        batch_of(augmentation, [96]), ASTFeatureExtractor(max_length=96), augmentation
    )


def test_a_clip_loses_the_same_alone_and_beside_longer_ones(config):
    """One of a single column keeps some of it, and what a clip gives depends on no other."""
    torch.manual_seed(0)
    model = ASTForAudioClassification(config).train()
    extractor = ASTFeatureExtractor(max_length=96, padding="longest")
    augmentation = Augmentation(patchout_frequency=2, patchout_time=6, patchout_share=0.5)
    lengths = [96, 17, 50, 85]
    together = model_inputs(batch_of(augmentation, lengths), extractor, augmentation, config)
    logits = model(**together).logits
    columns = [9, 1, 4, 7]
    for row, length in enumerate(lengths):
        alone = model_inputs(batch_of(augmentation, [length], first=row), extractor, augmentation, config)
        torch.testing.assert_close(model(**alone).logits[0], logits[row], atol=1e-5, rtol=0)  # summed in another order
        left = 10 * (columns[row] - 6 * columns[row] // 9)
        assert alone["patches_kept"].shape[1] == left - left // 2 > 0
        real = [patch for patch in together["patches_kept"][row].tolist() if patch % 9 < columns[row]]
        moved = [patch // columns[row] * 9 + patch % columns[row] for patch in alone["patches_kept"][0].tolist()]
        assert real == moved


def test_what_is_left_out_is_not_computed(config):
    model = ASTForAudioClassification(config).train()
    widths = []
    model.audio_spectrogram_transformer.encoder.layer[0].register_forward_hook(
        lambda module, given, found: widths.append(given[0].shape[1])
    )
    augmentation = Augmentation(patchout_share=0.5)
    model(**model_inputs(batch_of(augmentation, [96]), ASTFeatureExtractor(max_length=96), augmentation, config))
    assert widths == [2 + 54]


def test_more_than_there_is_is_refused(config):
    for strengths, words in {
        "patchout_frequency": "patchout_frequency=12 leaves no patch: .* 12 rows .* 9 columns .* Pass at most 11",
        "patchout_time": "patchout_time=9 leaves no patch: .* Pass at most 8",
    }.items():
        count = {"patchout_frequency": 12, "patchout_time": 9}[strengths]
        Augmentation(**{strengths: count - 1}).check_model(config)
        with pytest.raises(ValueError, match=words):
            Augmentation(**{strengths: count}).check_model(config)
    with pytest.raises(ValueError, match=r"patchout_share=1 leaves no patch\. Pass a share below 1"):
        Augmentation(patchout_share=1)


def test_a_run_with_it(recipe, tmp_path, capsys, monkeypatch, hasty_estimates):
    """8 rows and 3 columns: refused, said by a dry run, recorded, and clips that are scored are heard whole."""
    assert main([recipe, "--patchout_time", "3"]) == 2
    assert "patchout_time=3 leaves no patch" in capsys.readouterr().err
    flags = [recipe, "--patchout_frequency", "2", "--patchout_share", "0.5", "--num_train_epochs", "1"]
    flags += ["--clip_windows", "beginning"]
    assert main([*flags, "--dry_run"]) == 0
    assert "Patchout: in training 9 of the 24 patches" in " ".join(capsys.readouterr().out.split())
    dry_run = json.loads((tmp_path / "run" / "dry_run" / "dry_run.json").read_text())
    assert dry_run["cost"]["patchout"] == {"kept": 9, "of": 24}

    heard, forward = [], ASTForAudioClassification.forward

    @functools.wraps(forward)  # `Trainer` reads what the model takes from the signature
    def watched(self, input_values, *args, patches_kept=None, **kwargs):
        kept = None if patches_kept is None else patches_kept.shape[1]
        heard.append((self.training, kept, len(input_values)))
        return forward(self, input_values, *args, patches_kept=patches_kept, **kwargs)

    monkeypatch.setattr(ASTForAudioClassification, "forward", watched)
    assert main(flags) == 0
    assert {kept for training, kept, _ in heard if training} == {9}
    whole, partly = (sum(clips for training, kept, clips in heard if not training and kept == k) for k in (None, 9))
    # The scored clips; the watch for divergence asks for its last training batch again.
    assert (whole, partly) == (9, 8)
    assert summary_in(tmp_path / "run")["training"]["augmentation"]["patchout_share"] == 0.5
    assert "| augmentation: patchout share | 0.5 |" in (tmp_path / "run" / "README.md").read_text()


def test_a_run_from_before_it_goes_on_without_it_only():
    clips = SimpleNamespace(digest=lambda: "", windows="beginning")

    def identity_with(**strengths):
        training = {"augmentation": {"max_roll": 0} | strengths}
        summary = {"training": training, "seed": 0, "labels": [], "model": {}, "features": {}}
        return summary_sections.identity(summary, {"train": clips, "eval": clips})

    assert identity_with(patchout_time=0, patchout_frequency=0, patchout_share=0.0) == identity_with()
    assert identity_with(patchout_time=1) != identity_with()
