"""Geometries from patch counts: what torch's convolution makes of them, and answers that work when they are typed."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from conversion.errors import ConversionError
from conversion.geometry import HIDDEN_SIZES, PatchGeometry, infer_geometry

REFERENCE = json.loads((Path(__file__).parents[1] / "reference" / "cases.json").read_text())
CHECKPOINTS = [case for case in REFERENCE["cases"] if case["kind"] == "checkpoint"]
# Patches of the paper's strides with the recipes' lengths, by hand: frequency x time.
USUAL = {
    (10, 1024): (12, 101),
    (10, 512): (12, 50),
    (10, 128): (12, 12),
    (12, 1024): (10, 85),
    (12, 512): (10, 42),
    (12, 128): (10, 10),
    (14, 1024): (9, 73),
    (14, 512): (9, 36),
    (14, 128): (9, 9),
    (16, 1024): (8, 64),
    (16, 512): (8, 32),
    (16, 128): (8, 8),
}


def convolved(frequency_stride, time_stride, max_length, num_mel_bins=128):
    """Patches along frequency and time that the original's convolution cuts out."""
    projection = torch.nn.Conv2d(1, 1, kernel_size=16, stride=(frequency_stride, time_stride), device="meta")
    return tuple(projection(torch.zeros(1, 1, num_mel_bins, max_length, device="meta")).shape[2:])


def strides_and_length(geometry):
    return geometry.frequency_stride, geometry.time_stride, geometry.max_length


def refusal(num_patches, **flags):
    with pytest.raises(ConversionError) as raised:
        infer_geometry(num_patches, **flags)
    words = str(raised.value)
    assert "\n" not in words
    return words


def answers_in(words):
    """Flags and claimed number of patches of each answer in an error message."""
    found = re.findall(r"((?:--\w+ \d+ )+)\((\d+) patches\)", words.partition(" Nearest: ")[2])
    return [
        ({name: int(value) for name, value in re.findall(r"--(\w+) (\d+)", flags)}, int(claimed))
        for flags, claimed in found
    ]


@pytest.mark.parametrize(("stride", "max_length"), USUAL)
def test_usual_geometries_are_found_from_their_patches(stride, max_length):
    frequency, time = USUAL[stride, max_length]
    assert convolved(stride, stride, max_length) == (frequency, time)
    geometry = infer_geometry(frequency * time)
    assert strides_and_length(geometry) == (stride, stride, max_length)
    assert geometry.num_mel_bins == 128
    assert geometry.grid == (frequency, time)
    assert geometry.num_patches == frequency * time


@pytest.mark.parametrize("case", CHECKPOINTS, ids=lambda case: case["name"])
def test_reference_checkpoints_are_found_from_their_position_tables(case):
    tensors = REFERENCE["tensors"][case["name"]]
    patches = tensors["v.pos_embed"][1] - 2
    expected = (case["fstride"], case["tstride"], case["input_tdim"])
    typed = PatchGeometry(*expected)
    assert typed.num_patches == patches
    assert infer_geometry(patches, *expected) == typed
    if (case["fstride"], case["input_tdim"]) in USUAL and case["fstride"] == case["tstride"]:
        assert infer_geometry(patches) == typed
    assert HIDDEN_SIZES[case["model_size"]] == tensors["v.pos_embed"][2]


@pytest.mark.parametrize(
    ("frequency_stride", "time_stride", "max_length", "num_mel_bins"),
    [(10, 16, 300, 128), (16, 10, 300, 128), (1, 1, 16, 16), (3, 7, 501, 80), (16, 16, 31, 31), (20, 128, 1024, 64)],
)
def test_patches_are_counted_as_the_convolution_cuts_them(frequency_stride, time_stride, max_length, num_mel_bins):
    geometry = PatchGeometry(frequency_stride, time_stride, max_length, num_mel_bins)
    grid = convolved(frequency_stride, time_stride, max_length, num_mel_bins)
    assert geometry.grid == grid
    assert geometry.num_patches == grid[0] * grid[1]


@pytest.mark.parametrize(("patches", "stride", "also"), [(81, 14, 13), (64, 16, 15)])
def test_where_two_strides_fit_the_paper_s_is_taken(patches, stride, also):
    assert convolved(stride, stride, 128) == convolved(also, also, 128)
    assert strides_and_length(infer_geometry(patches)) == (stride, stride, 128)


@pytest.mark.parametrize("max_length", [128, 512, 1024])
@pytest.mark.parametrize("stride", range(1, 17))
def test_every_square_stride_is_tried_with_every_usual_length(stride, max_length):
    frequency, time = convolved(stride, stride, max_length)
    found = infer_geometry(frequency * time)
    assert found.frequency_stride == found.time_stride
    assert found.max_length == max_length
    assert convolved(*strides_and_length(found)) == (frequency, time)


# Flags


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({"max_length": 300}, (10, 10, 300)),
        ({"max_length": 1024}, (10, 10, 1024)),
        ({"frequency_stride": 10, "time_stride": 16, "max_length": 300}, (10, 16, 300)),
        ({"frequency_stride": 16, "time_stride": 10, "max_length": 300}, (16, 10, 300)),
        ({"time_stride": 16, "max_length": 300}, (10, 16, 300)),
        ({"frequency_stride": 10, "max_length": 300}, (10, 16, 300)),
        ({"frequency_stride": 12, "time_stride": 10}, (12, 10, 512)),
        ({"frequency_stride": 14}, (14, 14, 512)),
        ({"time_stride": 14}, (14, 14, 1024)),
        ({"frequency_stride": 20, "time_stride": 20, "max_length": 200}, (20, 20, 200)),
        ({"frequency_stride": 7, "time_stride": 9, "max_length": 999, "num_mel_bins": 80}, (7, 9, 999)),
    ],
)
def test_flags_are_kept_and_the_rest_is_found(flags, expected):
    mel_bins = flags.get("num_mel_bins", 128)
    frequency, time = convolved(*expected, mel_bins)
    geometry = infer_geometry(frequency * time, **flags)
    assert strides_and_length(geometry) == expected
    assert geometry.num_mel_bins == mel_bins


def test_a_typed_length_replaces_the_usual_ones():
    """1212 patches are 10 / 10 / 1024; with other flags they must not be taken for that."""
    assert infer_geometry(1212, max_length=1019).max_length == 1019
    assert "--max_length 512" in refusal(1212, max_length=512)


@pytest.mark.parametrize("flag", ["frequency_stride", "time_stride"])
@pytest.mark.parametrize("stride", [10, 12, 13, 14, 15, 16])
def test_one_typed_stride_means_the_square_one_where_that_fits(flag, stride):
    frequency, time = convolved(stride, stride, 128)
    assert strides_and_length(infer_geometry(frequency * time, **{flag: stride})) == (stride, stride, 128)


@pytest.mark.parametrize(("stride", "max_length", "patches"), [(10, 1024, 505), (10, 512, 250), (12, 128, 50)])
def test_other_mel_bins(stride, max_length, patches):
    frequency, time = convolved(stride, stride, max_length, 64)
    assert frequency * time == patches
    geometry = infer_geometry(patches, num_mel_bins=64)
    assert geometry == PatchGeometry(stride, stride, max_length, 64)


def test_what_is_typed_is_contradicted_by_the_table():
    words = refusal(1212, frequency_stride=16, time_stride=16, max_length=1024)
    assert words.startswith(
        "The position table has 1212 patches, which at 128 mel bins --frequency_stride 16 --time_stride 16 --max_length 1024 does not make."
    )
    assert answers_in(words)[0] == ({"frequency_stride": 10, "time_stride": 10, "max_length": 1024}, 1212)


# No fit


def test_the_refusal_says_what_was_tried_and_what_to_type():
    words = refusal(84)
    assert words.startswith(
        "The position table has 84 patches, which at 128 mel bins no square stride with 128 or 512 or 1024 frames makes. Pass the flags "
        "the model was trained with. Nearest: --frequency_stride 10 --time_stride 10 --max_length 76 (84 patches); "
    )
    assert words.endswith(" patches).")


NO_FIT = [1, 7, 84, 216, 349, 853, 1199, 1213, 1214, 2447, 4001]


@pytest.mark.parametrize("num_patches", NO_FIT)
@pytest.mark.parametrize(
    "flags",
    [
        {},
        {"max_length": 301},
        {"frequency_stride": 11},
        {"time_stride": 16},
        {"frequency_stride": 10, "time_stride": 16},
        {"frequency_stride": 16, "max_length": 40},
        {"num_mel_bins": 64},
        {"num_mel_bins": 80, "max_length": 700},
    ],
    ids=lambda flags: " ".join(flags) or "nothing",
)
def test_three_answers_that_keep_what_was_typed_and_make_what_they_claim(num_patches, flags):
    answers = answers_in(refusal(num_patches, **flags))
    assert len(answers) == 3
    assert len({str(answer) for answer in answers}) == 3
    for typed, claimed in answers:
        assert typed.items() >= flags.items()
        assert {"frequency_stride", "time_stride", "max_length"} <= typed.keys()
        frequency, time = convolved(**typed)
        assert frequency * time == claimed
        found = infer_geometry(claimed, **typed)
        assert strides_and_length(found) == (typed["frequency_stride"], typed["time_stride"], typed["max_length"])
        assert found.num_patches == claimed
    distances = [abs(claimed - num_patches) for _, claimed in answers]
    assert distances == sorted(distances)


@pytest.mark.parametrize("num_patches", NO_FIT)
def test_the_first_answer_is_as_near_as_the_paper_s_strides_get(num_patches):
    rows = [convolved(stride, stride, 16)[0] for stride in (10, 12, 14, 16)]
    nearest = min(abs(row * steps - num_patches) for row in rows for steps in range(1, num_patches + 2))
    (_, claimed), *_ = answers_in(refusal(num_patches))
    assert abs(claimed - num_patches) == nearest


def test_among_exact_answers_square_ones_come_first():
    answers = answers_in(refusal(216))
    assert [claimed for _, claimed in answers] == [216] * 3
    assert all(typed["frequency_stride"] == typed["time_stride"] for typed, _ in answers)
    lengths = {typed["max_length"] for typed, _ in answers}
    assert lengths == {186, 338, 432}  # 12 x 18 by strides of 10, 9 x 24 by 14, 8 x 27 by 16


@pytest.mark.parametrize(
    ("num_patches", "first"),
    [(1213, (10, 10, 1024)), (601, (10, 10, 512)), (511, (16, 16, 1024)), (851, (12, 12, 1024))],
)
def test_among_answers_as_near_a_usual_length_comes_first(num_patches, first):
    (typed, _), *_ = answers_in(refusal(num_patches))
    assert (typed["frequency_stride"], typed["time_stride"], typed["max_length"]) == first


def test_among_exact_answers_lengths_near_a_usual_one_come_first():
    answers = answers_in(refusal(216, time_stride=16))
    lengths = [typed["max_length"] for typed, claimed in answers if claimed == 216]
    away = [min(abs(length - usual) for usual in (128, 512, 1024)) for length in lengths[1:]]  # the first is square
    assert len(away) == 2
    assert away == sorted(away)


# Too small


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"frequency_stride": 0}, "--frequency_stride 0 is too small. Pass 1 or more."),
        ({"time_stride": 0}, "--time_stride 0 is too small. Pass 1 or more."),
        ({"time_stride": -3}, "--time_stride -3 is too small. Pass 1 or more."),
        ({"max_length": 15}, "--max_length 15 is too small. Pass 16 or more."),
        ({"max_length": 0}, "--max_length 0 is too small. Pass 16 or more."),
        ({"num_mel_bins": 15}, "--num_mel_bins 15 is too small. Pass 16 or more."),
        ({"num_mel_bins": 0}, "--num_mel_bins 0 is too small. Pass 16 or more."),
    ],
)
def test_too_small_values_are_refused(flags, words):
    assert refusal(1212, **flags) == words


def test_the_smallest_values_are_taken():
    smallest = {"frequency_stride": 1, "time_stride": 1, "max_length": 16, "num_mel_bins": 16}
    assert infer_geometry(1, **smallest) == PatchGeometry(1, 1, 16, 16)


# Flags as text


@pytest.mark.parametrize(
    ("geometry", "flags"),
    [
        (PatchGeometry(10, 10, 1024), "--frequency_stride 10 --time_stride 10 --max_length 1024"),
        (PatchGeometry(10, 16, 128), "--frequency_stride 10 --time_stride 16 --max_length 128"),
        (PatchGeometry(10, 16, 300, 64), "--frequency_stride 10 --time_stride 16 --max_length 300 --num_mel_bins 64"),
    ],
)
def test_flags_that_say_the_same(geometry, flags):
    assert geometry.as_flags() == flags


def test_geometries_are_equal_by_value_and_frozen():
    assert len({PatchGeometry(10, 10, 1024), PatchGeometry(10, 10, 1024, 128)}) == 1
    with pytest.raises(AttributeError):
        PatchGeometry(10, 10, 1024).max_length = 512


def test_every_size_has_the_width_of_its_deit():
    widths = {
        name: tensors["v.pos_embed"][2] for name, tensors in REFERENCE["tensors"].items() if "v.pos_embed" in tensors
    }
    by_size = {name.split("/")[1].split("_")[0]: width for name, width in widths.items()}
    assert by_size.items() <= HIDDEN_SIZES.items()
    assert HIDDEN_SIZES["base224"] == HIDDEN_SIZES["base384"]
    assert list(HIDDEN_SIZES) == ["tiny224", "small224", "base224", "base384"]


def test_the_module_imports_nothing_heavy():
    code = "import sys, conversion.geometry; print(*{name.split('.')[0] for name in sys.modules})"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "transformers", "huggingface_hub", "numpy"} & set(loaded)
