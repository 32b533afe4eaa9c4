"""The paper's recipes hold the numbers of the original's training scripts."""

import time
from pathlib import Path

import pytest
import yaml

from finetune.arguments.command_line import parse_arguments

RECIPES = Path(__file__).parents[3] / "finetune" / "recipes"
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
    arguments = parse_arguments([str(RECIPES / f"{name}.yaml")])
    model, data, augmentation = arguments.model, arguments.data, arguments.augmentation
    optimization, training = arguments.optimization, arguments.training
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
    strategies = {name: arguments.training.train_sampling_strategy for name, arguments in parsed.items()}
    assert strategies == dict.fromkeys(ORIGINAL, "random") | {"audioset_full": "class_balanced"}
    assert parsed["esc50"].data.fold_column_name == "fold"
    assert parsed["esc50"].training.eval_strategy.value == "epoch"
    assert parsed["speech_commands_v2"].data.has_validation_split()
    assert parsed["speech_commands_v2"].training.load_best_model_at_end
    assert parsed["speech_commands_v2"].training.metric_for_best_model == "accuracy"


def bomb(levels: int) -> str:
    """Ten aliases of ten aliases: harmless at three levels, ten billion values at ten."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    return "\n".join(lines + [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, levels)])


FAULTY = {
    "an alias bomb": (bomb(6), r"line \d: with its aliases \(\*\) this has more than 50,000 values"),
    "an alias of itself": ("seed: 1\nlabels: &a [b, *a]", "line 2: this holds itself, by an alias"),
    "a merge": ("a: &a {seed: 1}\n<<: *a", r"line 2: a merge \(<<\) is not read here"),
    "a key twice": ("seed: 1\nmax_length: 96\nseed: 2", "line 3: 'seed' is there a second time"),
    "a key that is a list": ("seed: 1\n? [a, b]\n: 3", "line 2: a key is a list or a mapping, expected a name"),
    "a key that is a number": ("seed: 1\n5: 3", r"Unknown field '5' \(.*line 2\)"),
    "an empty key": ("seed: 1\n'': 3", r"Unknown field '' \(.*line 2\)"),
    "a key of YAML's own": ("seed: 1\nno: 3", r"Unknown field 'no' \(.*line 2\)"),
    "not a number": ("seed: 1\nlearning_rate: .nan", r"learning_rate.*'\.nan'.* It stands in .*, line 2"),
    "nan": ("seed: 1\nlearning_rate: nan", "learning_rate: 'nan' is no finite number.* line 2"),
    "infinite": ("seed: 1\nlearning_rate: inf", "learning_rate: 'inf' is no finite number.* line 2"),
    "beyond all numbers": ("seed: 1\nlearning_rate: 1e400", "learning_rate: '1e400' is no finite number.* line 2"),
    "base 60": ("seed: 1\nmax_length: 1:30", "max_length: invalid int value: '1:30'.* line 2"),
    "base 16": ("seed: 1\nmax_length: 0x10", "max_length: invalid int value: '0x10'.* line 2"),
    "a date": ("seed: 1\nmax_length: 2024-01-01", "max_length: invalid int value: '2024-01-01'.* line 2"),
    "a date in a mapping": ("seed: 1\nlr_scheduler_kwargs: {a: 2024-01-01}", "line 2: .*date is not JSON.*Write texts"),
    "no date": ("seed: 1\nlr_scheduler_kwargs: {a: 2024-99-01}", "line 2: not a value .*Put it in quotes"),
    "a mapping of no number": ("seed: 1\nlr_scheduler_kwargs: {a: .nan}", "line 2: Out of range float"),
    "a mapping for a number": ("seed: 1\nmax_length: {a: 1}", "max_length: invalid int value.* line 2"),
    "a list for a number": ("seed: 1\nmax_length: [96, 128]", "line 2: max_length is a list, expected one value"),
    "a list of lists": ("seed: 1\nlabels: [[a], b]", "line 2: a list holds a list or a mapping"),
    "a Python tag": ("seed: 1\nlabels: !!python/name:os.getcwd", "line 2: the tag 'tag:yaml.org,2002:python/name:os.getcwd' is"),
    "bytes": ("seed: 1\nlabels: !!binary aGVsbG8=", "line 2: the tag 'tag:yaml.org,2002:binary' is not read here"),
    "a tag of its own": ("seed: !mine 1", "line 1: the tag '!mine' is not read here"),
    "deep": ("seed: 1\nlabels: " + "[" * 40 + "]" * 40, "line 2: nested deeper than 30 levels"),
    "deeper": ("a: " + "[" * 50_000, "line 1: n.* nest"),
    "two documents": ("seed: 1\n---\nseed: 2", "line 2: a second document begins here"),
    "a tab": ("seed: 1\n\tmax_length: 3", "line 2: not valid YAML"),
    "an open list": ("seed: 1\nlabels: [a, b", "line 3: not valid YAML"),
    "an alias of nothing": ("seed: 1\nlabels: *a", "line 2: not valid YAML .*undefined alias"),
    "a number": ("5", "holds no 'field: value' lines"),
    "nothing": ("", "holds no 'field: value' lines"),
    "megabytes": ("# " + "x" * (1 << 20), "has more than 1,048,576 bytes"),
    "a control character": ("seed: \x01", "not valid YAML"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTY)
def test_a_faulty_recipe_is_refused_in_a_second_with_its_line(tmp_path, fault):
    text, message = FAULTY[fault]
    (tmp_path / "recipe.yaml").write_text(text)
    begun = time.process_time()
    with pytest.raises(ValueError, match=message):
        parse_arguments([str(tmp_path / "recipe.yaml")])
    assert time.process_time() - begun < 1


@pytest.mark.parametrize("content", ["seed: 1".encode("utf-16"), b"\xff\xfe\x00", b"label: \xe9"])
def test_a_recipe_in_another_encoding_is_refused(tmp_path, content):
    (tmp_path / "recipe.yaml").write_bytes(content)
    with pytest.raises(ValueError, match="is not text in UTF-8"):
        parse_arguments([str(tmp_path / "recipe.yaml")])


def test_words_of_a_recipe_are_what_its_fields_make_of_them(tmp_path):
    text = (
        "dataset_name: no\noutput_dir: on\nlabels: [on, 1:30, 010, 2024-01-01, 'x']\nlearning_rate: 1e-4\nmax_steps: 1_000\nbf16: no\n"
        "weight_decay: 0\nlicense: null\neval_split_name: ~\nignore_labels: &few [off]\nmax_length: 010\n"
        "lr_scheduler_kwargs: {power: 2, names: [a, b]}\n"
    )
    (tmp_path / "recipe.yaml").write_text(text, encoding="utf-8-sig")
    arguments = parse_arguments([str(tmp_path / "recipe.yaml")])
    model, data, training = arguments.model, arguments.data, arguments.training
    assert (data.dataset_name, training.output_dir) == ("no", "on")
    assert data.labels == ["on", "1:30", "010", "2024-01-01", "x"]
    assert data.ignore_labels == ["off"]
    assert data.license is None
    assert (training.learning_rate, training.max_steps, training.bf16, training.weight_decay) == (1e-4, 1000, False, 0)
    assert model.max_length == 10, "not 8"
    assert training.lr_scheduler_kwargs == {"power": 2, "names": ["a", "b"]}


@pytest.mark.parametrize("word", ["true", "True", "yes", "on", "ON", "'on'", "false", "no", "off", "OFF"])
def test_all_truth_values_of_yaml_are_read(tmp_path, word):
    (tmp_path / "recipe.yaml").write_text(f"dataset_name: x\noutput_dir: x\nskip_bad_audio: {word}")
    assert parse_arguments([str(tmp_path / "recipe.yaml")]).data.skip_bad_audio is yaml.safe_load(word.strip("'"))


def test_a_list_of_up_to_one_value_stands_where_there_can_be_no_more(tmp_path):
    (tmp_path / "recipe.yaml").write_text("dataset_name: [x]\noutput_dir: x\nreport_to: [none]\nlicense: []")
    arguments = parse_arguments([str(tmp_path / "recipe.yaml")])
    data, training = arguments.data, arguments.training
    assert (data.dataset_name, training.report_to, data.license) == ("x", [], None)


@pytest.mark.parametrize(
    "flag", ["--learning_rate", "--weight_decay", "--mixup_probability", "--max_grad_norm", "--noise_strength"]
)
@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "1e999"])
def test_flags_that_are_no_numbers_are_refused(flag, value):
    with pytest.raises(ValueError, match=f"{flag}.* is no finite number"):
        parse_arguments([f"{flag}={value}"])


def test_a_flag_over_the_recipe_is_not_blamed_on_it(tmp_path):
    (tmp_path / "recipe.yaml").write_text("learning_rate: 0.1")
    with pytest.raises(ValueError, match="learning_rate.*'nan' is no finite number") as stop:
        parse_arguments([str(tmp_path / "recipe.yaml"), "--learning_rate", "nan"])
    assert "line" not in str(stop.value)
