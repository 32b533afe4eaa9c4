"""The paper's recipes hold the numbers of the original's training scripts."""

from pathlib import Path

import pytest

from finetune.command_line import parse_arguments

RECIPES = Path(__file__).parents[2] / "finetune" / "recipes"
# As the released scripts have them: learning rate, epochs, batch, decay (after epoch, every, factor), warm-up, loss, widest
# frequency and time mask, share of mixup, noise, frames, mean, std, averaged epochs.
ORIGINAL = {
    "audioset_full": (1e-5, 5, 12, (2, 1, 0.5), 1000, "binary_cross_entropy", 48, 192, 0.5, 0, 1024, -4.2677393, 4.5689974, [1, 5]),
    "audioset_balanced": (5e-5, 25, 12, (10, 5, 0.5), 1000, "binary_cross_entropy", 48, 192, 0.5, 0, 1024, -4.2677393, 4.5689974, [6, 25]),
    "esc50": (1e-5, 25, 48, (5, 1, 0.85), 0, "cross_entropy", 24, 96, 0, 0, 512, -6.6268077, 5.358466, []),
    "speech_commands_v2": (2.5e-4, 30, 128, (5, 1, 0.85), 0, "binary_cross_entropy", 48, 48, 0.6, 0.1, 128, -6.845978, 5.5654526, []),
}  # fmt: skip


@pytest.mark.parametrize("name", ORIGINAL)
def test_the_papers_recipes_are_the_originals(name):
    model, data, augmentation, optimization, training = parse_arguments([str(RECIPES / f"{name}.yaml")])
    assert (
        training.learning_rate, training.num_train_epochs, training.per_device_train_batch_size,
        (optimization.decay_after_epoch, optimization.decay_every, optimization.decay_factor),
        training.warmup_steps, optimization.loss, augmentation.max_frequency_mask, augmentation.max_time_mask,
        augmentation.mixup_probability, augmentation.noise_strength, model.max_length, *data.normalization_statistics(),
        optimization.average_epochs,
    ) == ORIGINAL[name]  # fmt: skip
    assert optimization.optimizer == "adam"
    assert (training.weight_decay, training.adam_beta1, training.adam_beta2) == (5e-7, 0.95, 0.999)
    assert training.max_grad_norm == 0
    assert augmentation.mixup_alpha == 10
    assert augmentation.max_roll == (10 if augmentation.noise_strength else 0)
    assert optimization.warmup_stair == 50
    assert training.gradient_accumulation_steps == 1


def test_what_each_protocol_chooses_and_on_what():
    parsed = {name: parse_arguments([str(RECIPES / f"{name}.yaml")]) for name in ORIGINAL}
    strategies = {name: training.train_sampling_strategy for name, (*_, training) in parsed.items()}
    assert strategies == dict.fromkeys(ORIGINAL, "random") | {"audioset_full": "class_balanced"}
    assert parsed["esc50"][1].fold_column_name == "fold"
    assert parsed["esc50"][4].eval_strategy.value == "epoch"
    assert parsed["speech_commands_v2"][1].has_validation_split()
    assert parsed["speech_commands_v2"][4].load_best_model_at_end
    assert parsed["speech_commands_v2"][4].metric_for_best_model == "accuracy"
