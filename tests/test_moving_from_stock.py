"""`docs/moving_from_stock.md` against stock Transformers and this kit, side by side: its code is run, its output compared."""

import re
from pathlib import Path

import pytest
import torch
import transformers
from transformers.utils import logging

import modeling_ast
from finetune.arguments.command_line import fields_as_flags, parse_arguments

PAGE_PATH = Path(__file__).parents[1] / "docs" / "moving_from_stock.md"
PAGE = PAGE_PATH.read_text(encoding="utf-8")
PRINTING = re.compile(r"```python\n((?:(?!```).)*?)```\n\nprints\n\n```text\n(.*?)```", re.DOTALL)
FINDING = "findings/transformers_trainer_reloads_parts_of_an_ast.sh"
SECTIONS = {  # that print something, with what is to be changed when a newer Transformers behaves otherwise
    "Line by line": "the rows of its table on layer names and max_length",
    "The best model at the end is a mixture": f"this section (or take it out) and {FINDING} with its row",
    "A resumed training begins anew": f"this section (or take it out) and {FINDING} with its row",
}


def section(title: str) -> str:
    """A section of the page, up to the next title."""
    found = re.search(rf"^#+ {re.escape(title)}\n(.*?)(?=^#+ |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    assert found, f"{PAGE_PATH.name} has no section {title!r}"
    return found[1]


def code_and_output(title: str) -> tuple[str, str]:
    """The block of a section that prints something, and what the page says it prints."""
    return PRINTING.search(section(title)).groups()


@pytest.fixture(scope="module")
def names(tmp_path_factory):
    """What the page's set-up of both demonstrations defines, in a folder of this test."""
    verbosity = logging.get_verbosity()
    defined = {}
    (setup,) = re.findall(r"```python\n(.*?)```", section("What stock does without an error"), re.DOTALL)
    exec(setup, defined)
    defined["folder"] = tmp_path_factory.mktemp("runs")
    yield defined
    logging.set_verbosity(verbosity)


def test_the_page_says_what_stock_and_this_kit_do(names, capsys):
    """The sections go on from each other, so that they are run in the page's order; all that differ are told."""
    told = []
    for title, if_mended in SECTIONS.items():
        code, expected = code_and_output(title)
        exec(code, names)
        printed = capsys.readouterr().out
        for library, whose in (
            ("modeling_ast", "this kit"),
            ("transformers", f"transformers {transformers.__version__}"),
        ):
            said, seen = (
                [line for line in text.splitlines() if line.startswith(library)] for text in (expected, printed)
            )
            if seen != said:
                told.append(
                    f"{whose} no longer does what {PAGE_PATH.name} says under {title!r}, but {seen}. Check it, then change "
                    f"{if_mended}."
                )
    assert not told, "\n".join(told)


def test_other_positions_are_moved_here_and_zeros_in_stock(tmp_path, tiny_sizes):
    """The row of the table on `ignore_mismatched_sizes`."""
    model = modeling_ast.ASTForAudioClassification(modeling_ast.ASTConfig(**tiny_sizes))
    model.save_pretrained(tmp_path)
    tables = [
        library.ASTForAudioClassification.from_pretrained(
            tmp_path, max_length=64, **options
        ).audio_spectrogram_transformer.embeddings.position_embeddings
        for library, options in ((transformers, {"ignore_mismatched_sizes": True}), (modeling_ast, {}))
    ]
    own = model.audio_spectrogram_transformer.embeddings.position_embeddings
    assert not tables[0].any(), f"stock no longer sets positions to zero: change that row of {PAGE_PATH.name}"
    assert torch.equal(tables[1][:, :2], own[:, :2])
    assert tables[1][:, 2:].any(dim=-1).all()


def test_the_call_parses():
    calls = []
    (code,) = re.findall(r"```python\n(from finetune .*?)```", PAGE, re.DOTALL)
    exec(
        code.replace("from finetune import fine_tune", ""), {"fine_tune": lambda _, **f: calls.append(f), "dataset": 0}
    )
    (fields,) = calls
    parse_arguments([*fields_as_flags(fields, "fine_tune"), "--dataset_name", "clips"])


def test_figures_are_those_of_the_readme():
    readme = (PAGE_PATH.parents[1] / "README.md").read_text(encoding="utf-8")
    rows = re.findall(
        r"^\| .+ \| ([\d.]+) \w+ \| ([\d.]+) (\w+) \| ([\d.]+) \|$", section("What gets faster"), re.MULTILINE
    )
    assert len(rows) == 6
    pages = [
        readme,
        *(page.read_text(encoding="utf-8") for page in PAGE_PATH.parent.glob("*.md") if page != PAGE_PATH),
    ]
    for stock, ours, unit, ratio in rows:
        assert any(
            re.search(rf"\*\*{re.escape(ratio)}x?\*\* \({re.escape(stock)} / {re.escape(ours)} {unit}\)", page)
            for page in pages
        ), f"{stock} / {ours} {unit} is in no table of README or docs"
