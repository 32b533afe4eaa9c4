"""The 16 models that the original code computed, converted and run: by this port, by stock Transformers, and back.

The outside truth is `tests/reference`, outputs of YuanGongND/ast on seeded weights.
"""

import forked_python
import pytest

from benchmarks import conversion_agreement
from benchmarks.conversion_agreement import (
    convert_case,
    port_differences,
    random_numbers,
    reference_cases,
    stock_differences,
    way_back_is_bit_equal,
)
from conversion.verification import Agreement

ORIGINAL_TOLERANCE = 2e-5  # float32 rounding of another order of operations, logits of magnitude 1 to 5
POSITION_TOLERANCE = 1e-6  # values of magnitude 0.2; interpolation may be compiled differently elsewhere
STOCK_TOLERANCE = 1e-4  # stock Transformers has one LayerNorm epsilon where the original has two
CASES = reference_cases()
# Many seconds each; the others have these sizes, strides and lengths too, though not together.
LARGE = [name for name, case in CASES.items() if "base384" in name and case.settings["input_tdim"] >= 512]
# Those of one seed one after the other, so that its random numbers are drawn once.
OTHERS = sorted(set(CASES) - set(LARGE), key=lambda name: (CASES[name].kind == "imagenet_start", name))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reference")
    yield folder
    for path in sorted(folder.rglob("*"), reverse=True):  # gigabytes, which pytest would keep for three runs
        path.rmdir() if path.is_dir() else path.unlink()
    random_numbers.cache_clear()


def test_there_are_16_models_of_three_kinds():
    kinds = [case.kind for case in CASES.values()]
    assert (kinds.count("checkpoint"), kinds.count("imagenet_start"), kinds.count("audioset_start")) == (8, 5, 3)


@pytest.mark.parametrize("name", [*OTHERS, *(pytest.param(name, marks=pytest.mark.long) for name in LARGE)])
def test_logits_and_positions_equal_the_originals(name, folder, monkeypatch):
    if CASES[name].kind == "audioset_start" and name not in LARGE:
        # The large model that it begins with is verified as a case of its own, with the large ones.
        monkeypatch.setattr("conversion.output_checkpoint.expected_outputs", lambda *_: None)
        monkeypatch.setattr("conversion.output_checkpoint.verify", lambda *_: Agreement(0.0, 0.0, 0.0, "logits"))
    logits, positions = port_differences(CASES[name], convert_case(CASES[name], folder))
    assert logits < ORIGINAL_TOLERANCE
    assert (positions is None) == (CASES[name].kind == "checkpoint")
    assert positions is None or positions < POSITION_TOLERANCE


@pytest.mark.parametrize("names", [OTHERS, pytest.param(LARGE, marks=pytest.mark.long)], ids=["", "large"])
def test_converted_folders_in_stock_transformers_agree_with_the_original(names, folder, monkeypatch):
    cases = [CASES[name] for name in names]
    if names != LARGE:
        monkeypatch.setattr(conversion_agreement, "subprocess", forked_python.StockSubprocess)
    for case in cases:
        if not (folder / case.name).exists():  # a test run alone
            convert_case(case, folder)
    differences = stock_differences(cases, folder)
    assert list(differences) == names
    assert max(differences.values()) < STOCK_TOLERANCE, differences


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.long] * (name in LARGE))
        for name, case in CASES.items()
        if case.kind == "checkpoint"
    ],
)
def test_the_way_back_is_bit_equal_on_every_tensor(name, folder):
    if not (folder / name).exists():
        convert_case(CASES[name], folder)
    assert way_back_is_bit_equal(CASES[name], folder)
