"""The released checkpoints against the facts that the authors published, typed in here a second time."""

import dataclasses
import subprocess
import sys

import pytest

from conversion.errors import ConversionError
from conversion.original_datasets import ORIGINAL_DATASETS
from conversion.released_checkpoints import RELEASED, released_checkpoint

# name, key of the address, name on the Hub, stride (both axes), published score. Source: README of YuanGongND/ast.
# fmt: off
PUBLISHED = (
    ("audioset_10_10_0.4593", "ca0b1v2nlxzyeb4", "ast-finetuned-audioset-10-10-0.4593", 10, 0.4593),
    ("audioset_10_10_0.4495", "1tv0hovue1bxupk", "ast-finetuned-audioset-10-10-0.450", 10, 0.4495),
    ("audioset_10_10_0.4483", "6u5sikl4b9wo4u5", "ast-finetuned-audioset-10-10-0.448", 10, 0.4483),
    ("audioset_10_10_0.4475", "kt6i0v9fvfm1mbq", "ast-finetuned-audioset-10-10-0.448-v2", 10, 0.4475),
    ("audioset_12_12_0.4467", "snfhx3tizr4nuc8", "ast-finetuned-audioset-12-12-0.447", 12, 0.4467),
    ("audioset_14_14_0.4431", "z18s6pemtnxm4k7", "ast-finetuned-audioset-14-14-0.443", 14, 0.4431),
    ("audioset_16_16_0.4422", "mdsa4t1xmcimia6", "ast-finetuned-audioset-16-16-0.442", 16, 0.4422),
    ("speechcommands_10_10_0.9812", "q0tbqpwv44pquwy", "ast-finetuned-speech-commands-v2", 10, 0.9812),
)
# fmt: on
AUDIOSET = {
    "name": "audioset",
    "title": "AudioSet",
    "max_length": 1024,
    "num_labels": 527,
    "problem_type": "multi_label_classification",
    "mean": -4.2677393,
    "std": 4.5689974,
}
SPEECH_COMMANDS = {
    "name": "speech_commands_v2",
    "title": "Speech Commands v2",
    "max_length": 128,
    "num_labels": 35,
    "problem_type": "single_label_classification",
    "mean": -6.845978,
    "std": 5.5654526,
}


@pytest.mark.parametrize(("name", "key", "hub_name", "stride", "score"), PUBLISHED)
def test_row_is_what_was_published(name, key, hub_name, stride, score):
    expected = {
        "name": name,
        "address": f"https://www.dropbox.com/s/{key}/{name}.pth?dl=1",
        "hub_id": f"MIT/{hub_name}",
        "model_size": "base384",
        "frequency_stride": stride,
        "time_stride": stride,
        "published_score": score,
        "license": "bsd-3-clause",
        "weight_averaged": name == "audioset_10_10_0.4593",
    }
    if name.startswith("audioset"):
        expected |= {"dataset": AUDIOSET, "metric": "mean_average_precision"}
    else:
        expected |= {"dataset": SPEECH_COMMANDS, "metric": "accuracy"}
    assert dataclasses.asdict(released_checkpoint(name)) == expected


def test_the_table_has_these_eight_and_is_read_only():
    assert list(RELEASED) == [row[0] for row in PUBLISHED]
    with pytest.raises(TypeError):
        RELEASED["another"] = RELEASED["audioset_10_10_0.4593"]
    with pytest.raises(dataclasses.FrozenInstanceError):
        RELEASED["audioset_10_10_0.4593"].time_stride = 12


# Parameters of state dicts that the original code saved, the two ImageNet heads included.
@pytest.mark.parametrize(
    ("model_size", "hidden_size", "strides", "max_length", "num_labels", "parameters"),
    [
        ("base384", 768, (10, 10), 1024, 527, 88_132_063),
        ("base384", 768, (10, 10), 128, 35, 86_933_491),
        ("tiny224", 192, (10, 16), 300, 7, 5_818_071),
    ],
)
def test_plausible_bytes(model_size, hidden_size, strides, max_length, num_labels, parameters):
    row = dataclasses.replace(
        RELEASED["audioset_10_10_0.4593"],
        model_size=model_size,
        frequency_stride=strides[0],
        time_stride=strides[1],
        dataset=dataclasses.replace(ORIGINAL_DATASETS["audioset"], max_length=max_length, num_labels=num_labels),
    )
    heads = 2 * (1000 * hidden_size + 1000)
    assert row.smallest_bytes == 4 * (parameters - heads)
    assert row.largest_bytes == int(1.1 * 4 * parameters)


def test_unknown_name_lists_the_names_and_the_closest():
    with pytest.raises(ConversionError) as caught:
        released_checkpoint("audioset_10_10_0.459")
    words = str(caught.value)
    assert words.startswith("'audioset_10_10_0.459' is not the name of a released checkpoint.")
    assert "Did you mean audioset_10_10_0.4593?" in words
    assert all(words.count(row[0]) >= 1 for row in PUBLISHED)
    with pytest.raises(ConversionError) as caught:
        released_checkpoint("vggish")
    assert "Did you mean" not in str(caught.value)


def test_the_table_imports_nothing_heavy():
    code = "import sys, conversion.released_checkpoints; print(*{name.split('.')[0] for name in sys.modules})"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "transformers", "huggingface_hub", "numpy"} & set(loaded)
