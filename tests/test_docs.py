"""README and docs: each command parses, each Python block runs on a tiny checkpoint, each name, flag and link is there.

A block or a command in a form that is not known here fails: what nobody tries is wrong sooner or later.
"""

import argparse
import importlib
import inspect
import re
import shlex
import shutil
import sys
from configparser import ConfigParser
from pathlib import Path
from typing import NamedTuple

import pytest
import soundfile
import torch

from conversion.run_conversion import parse_arguments as parse_conversion_arguments
from finetune.arguments.command_line import parse_arguments as parse_finetune_arguments
from finetune.arguments.groups import PRETRAINING
from finetune.run_evaluate import parse_arguments as parse_evaluation_arguments
from model_card.run_demo import parse_arguments as parse_demo_arguments
from model_card.run_model_card import parse_arguments as parse_card_arguments
from model_card.run_push import parse_arguments as parse_push_arguments
from modeling_ast import (
    ASTConfig,
    ASTFeatureExtractor,
    ASTForAudioClassification,
    run_embedding,
    run_export,
    run_similar,
    run_tagging,
    unregister,
)
from modeling_ast.checkpoints.shipped import AST_SMALL
from modeling_ast.run_export import parse_arguments as parse_export_arguments

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))
SETUP = ConfigParser()
SETUP.read(ROOT / "setup.cfg")
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
# The commands and their modules.
COMMANDS = dict(
    line.split(":")[0].split(" = ") for line in SETUP["options.entry_points"]["console_scripts"].split("\n")[1:]
)
# They refuse more than a parser alone: flags that others make void. `ast-doctor` has no more than a parser.
WHOLE_PARSERS = {
    "ast-convert": parse_conversion_arguments,
    "ast-demo": parse_demo_arguments,
    "ast-evaluate": parse_evaluation_arguments,
    "ast-export": parse_export_arguments,
    "ast-finetune": parse_finetune_arguments,
    "ast-model-card": parse_card_arguments,
    "ast-pretrain": lambda words: parse_finetune_arguments(words, PRETRAINING),
    "ast-push": parse_push_arguments,
    "ast-embed": lambda words: run_embedding.parse_arguments(run_embedding.make_parser(), words),
    "ast-similar": lambda words: run_similar.parse_arguments(run_similar.make_parser(), words),
    "ast-tag": lambda words: run_tagging.parse_arguments(run_tagging.make_parser(), words),
}
LANGUAGES = {"sh", "python", "yaml", "text", "bibtex", "js", "cpp"}
RUN_ELSEWHERE = {"moving_from_stock.md": "test_moving_from_stock.py"}  # beside stock Transformers
PACKAGES = "modeling_ast|model_card|conversion|finetune|benchmarks|pretraining"


class Block(NamedTuple):
    """A fenced block of a page."""

    place: str
    language: str
    text: str


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks_of(page: Path) -> list[Block]:
    """The page's blocks; a fence without a known language, an open one, and an indented block fail."""
    blocks, open_block = [], None
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        place = f"{name_of(page)}:{number}"
        fence = re.match(r"\s*(```|~~~)", line)
        if open_block is None and fence:
            language = line.removeprefix("```")
            assert language in LANGUAGES, f"{place}: {line!r} opens no block of {sorted(LANGUAGES)}"
            open_block = Block(place, language, "")
        elif open_block is None:
            assert not re.match(r" {4}|\t", line), f"{place}: an indented block; fence it and name its language"
        elif fence:
            assert line == "```", f"{place}: {line!r} closes no block"
            blocks, open_block = [*blocks, open_block], None
        else:
            open_block = open_block._replace(text=f"{open_block.text}{line}\n")
    assert open_block is None, f"{open_block.place}: the block is never closed"
    return blocks


def prose_of(page: Path) -> str:
    return re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


def inline_code_of(page: Path) -> list[str]:
    return re.findall(r"(?<!`)`([^`]+)`(?!`)", prose_of(page))


def words_of_commands(text: str) -> list[list[str]]:
    """The words of each command of a shell block; shells' pipes and redirections fail."""
    commands = []
    for line in text.replace("\\\n", " ").splitlines():
        unquoted = re.sub(r"'[^']*'|\"[^\"]*\"|(^|\s)#.*", "", line)
        assert not re.search(r"[|&;<>`]", unquoted), f"{line!r}: type a command by itself"
        commands.append(shlex.split(line, comments=True))
    return [words for words in commands if words]


class Caught(BaseException):
    """Carries a parser out of a program that was about to use it; no `Exception`, which a program may handle."""


def parser_of(main, monkeypatch) -> argparse.ArgumentParser:
    """The parser that a program makes, before it reads anything."""

    def caught(parser, *_, **__):
        raise Caught(parser)

    with monkeypatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, "parse_known_args", caught)
        patch.setattr(sys, "argv", ["program"])
        with pytest.raises(Caught) as end:
            main([]) if inspect.signature(main).parameters else main()
    return end.value.args[0]


@pytest.fixture(scope="module")
def parsers() -> dict[str, argparse.ArgumentParser]:
    """Of each command, of `accelerate launch`, and of those benchmarks and files of `pretraining` that have flags."""
    from accelerate.commands.launch import launch_command_parser

    monkeypatch = pytest.MonkeyPatch()
    made = {"accelerate": launch_command_parser()}
    for command, module in COMMANDS.items():
        main = WHOLE_PARSERS.get(command) or inspect.unwrap(importlib.import_module(module).main)
        made[command] = parser_of(main, monkeypatch)
    for path in [*(ROOT / "benchmarks").glob("*.py"), *(ROOT / "pretraining").glob("*.py")]:
        if "ArgumentParser" in path.read_text(encoding="utf-8"):
            module = f"{path.parent.name}.{path.stem}"
            made[module] = parser_of(importlib.import_module(module).main, monkeypatch)
    return made


@pytest.fixture(scope="module")
def desk(tmp_path_factory) -> Path:
    """A folder in which what the pages name is there: the checkout's files, and one tiny checkpoint in place of each model."""
    folder = tmp_path_factory.mktemp("desk")
    for name in ("finetune", "benchmarks", "tests", "Makefile"):
        (folder / name).symlink_to(ROOT / name)
    drums = folder / "runs" / "drums"
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    ASTForAudioClassification(ASTConfig(**sizes, max_length=96, num_labels=3)).save_pretrained(drums)
    ASTFeatureExtractor(max_length=96).save_pretrained(drums)
    shutil.copytree(drums, folder / "MIT" / "ast-finetuned-audioset-10-10-0.4593")
    return folder


@pytest.fixture
def at_desk(desk, monkeypatch) -> Path:
    monkeypatch.chdir(desk)
    yield desk
    unregister()


def check_command(words: list[str], parsers: dict[str, argparse.ArgumentParser]):
    """Parse one command as its program does; one that nothing here knows fails."""
    program, *rest = words
    if program in COMMANDS:
        check_flags(program, rest, parsers)
        WHOLE_PARSERS.get(program, parsers[program].parse_args)(rest)
    elif program == "accelerate" and rest[0] == "launch":
        check_flags("accelerate", rest[1 : rest.index("-m")], parsers)
        launch = parsers["accelerate"].parse_args(rest[1:])
        assert launch.module
        (launched,) = (name for name in ("ast-finetune", "ast-tag") if COMMANDS[name] == launch.training_script)
        check_command([launched, *launch.training_script_args], parsers)
    elif words[:-1] == ["python", "-m", "http.server", "--directory"]:  # Python's own
        assert words[-1] == "site"
    elif program == "python" and rest[0] == "-m":
        check_module(rest[1], rest[2:], parsers)
    elif program == "python3" and rest == ["-m", "venv", ".venv"]:
        assert ".venv" in MAKEFILE
    elif program == "make":
        check_target(rest)
    elif words == ["pip", "install", "--no-deps", "."]:
        assert (ROOT / "setup.cfg").is_file()
    elif program == "pip" and rest[0] == "install" and set(rest[1:]) <= runtime_packages():
        assert set(rest[1:]) == runtime_packages(), "packages of the extra runtime are missing"
    elif program == "pip" and rest[:2] == ["install", "-e"]:
        extras = re.fullmatch(r"\.(?:\[([a-z,]+)\])?", rest[2])
        assert set((extras[1] or "dev").split(",")) <= SETUP["options.extras_require"].keys()
    elif program == "docker" and rest[0] == "run":
        check_command(rest[rest.index("IMAGE") + 1 :], parsers)
    elif program == "cp" and len(rest) == 2:
        shutil.copy(*rest)
    elif words != ["source", ".venv/bin/activate"]:
        pytest.fail(f"This test knows no command {shlex.join(words)!r}. Teach it, or leave the command out.")


def runtime_packages() -> set[str]:
    """What the extra names for use without PyTorch."""
    return set(re.findall(r"^[a-z]+", SETUP["options.extras_require"]["runtime"], re.MULTILINE))


def check_flags(program: str, words: list[str], parsers: dict[str, argparse.ArgumentParser]):
    unknown = {word for word in words if word.startswith("--")} - parsers[program]._option_string_actions.keys()
    assert not unknown, f"{program} has no {unknown}"  # abbreviated ones, which parsers may take


def check_module(module: str, words: list[str], parsers: dict[str, argparse.ArgumentParser]):
    assert (ROOT / f"{module.replace('.', '/')}.py").is_file(), f"there is no module {module}"
    if module in parsers:
        check_flags(module, words, parsers)
        parsers[module].parse_args(words)
    else:
        assert not words, f"{module} has no flags"


def check_target(words: list[str]):
    for word in words:
        variable, equals, _ = word.partition("=")
        pattern = rf"\$\({variable}\)" if equals else rf"^{re.escape(word)}:.*##"
        assert re.search(pattern, MAKEFILE, re.MULTILINE), f"make has no {word}"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_and_recipes_parse(page, parsers, at_desk):
    for block in blocks_of(page):
        try:
            if block.language == "sh":
                commands = words_of_commands(block.text)
                assert commands, "a shell block without a command"
                for words in commands:
                    check_command(words, parsers)
            elif block.language == "yaml":
                recipe = at_desk / "block.yaml"
                recipe.write_text(block.text, encoding="utf-8")
                parse_finetune_arguments([str(recipe)])
        except (Exception, SystemExit) as error:
            error.add_note(f"in the block of {block.place}")
            raise


def test_every_command_is_shown():
    blocks = [block for page in PAGES for block in blocks_of(page) if block.language == "sh"]
    shown = {words[0] for block in blocks for words in words_of_commands(block.text)}
    assert shown >= COMMANDS.keys()


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_printed_text_hides_no_command(page):
    programs = {*COMMANDS, "$", ">>>", "accelerate", "python", "make", "pip", "docker", "import", "from"}
    for block in blocks_of(page):
        if block.language == "text":
            hidden = [line for line in block.text.splitlines() if line.split()[:1] and line.split()[0] in programs]
            assert not hidden, f"{block.place}: {hidden} is no output; make it a block of sh or python"


@pytest.mark.parametrize("page", [page for page in PAGES if "```python" in page.read_text("utf-8")], ids=name_of)
def test_python_runs_from_the_top_of_the_page(page, at_desk, capsys, monkeypatch):
    if page.name in RUN_ELSEWHERE:
        assert page.name in (ROOT / "tests" / RUN_ELSEWHERE[page.name]).read_text(encoding="utf-8")
        return
    if page.name == "deploy.md":
        assert run_export.main(["runs/drums", "drums.onnx", "--waveform", "--overwrite"]) == 0
        soundfile.write("clip.wav", torch.rand(8_000).numpy(), 16_000)
        monkeypatch.setattr(sys, "argv", ["tag.py", "drums.onnx", "clip.wav"])
        capsys.readouterr()
    names = {}
    for block in blocks_of(page):
        if block.language == "python":
            exec(compile(block.text, block.place, "exec"), names)
    printed = capsys.readouterr().out
    if page.name == "tag.md":
        mine, stock = printed.splitlines()
        assert mine.count("score") == stock.count("score") == 2
        assert names["logits"].shape == (2, 3)
    elif page.name == "length.md":
        assert names["embedding"].per_second.shape == (1, 1, 32)
    elif page.name == "demo_page.md":
        assert (at_desk / "runs" / "drums" / "attention.png").is_file()
    elif page.name == "adapters.md":
        assert (at_desk / "runs" / "drums" / "stock_adapter" / "adapter_config.json").is_file()


def test_other_languages_are_run_elsewhere():
    test = (ROOT / "tests" / "modeling_ast" / "export" / "test_snippets.py").read_text(encoding="utf-8")
    for page in PAGES:
        for block in blocks_of(page):
            if block.language in ("js", "cpp"):
                assert page.name in test, f"{block.place}: nothing runs it"
                assert f'"{block.language}"' in test


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_names_in_the_text_are_there(page, parsers):
    flags = {flag for parser in parsers.values() for flag in parser._option_string_actions}
    for code in inline_code_of(page):
        place = f"{name_of(page)}: `{code}`"
        words = code.split()
        named = {flag for word in words for flag in re.findall(r"^\[?(--[a-z][\w-]*)", word)}
        if words[0] in COMMANDS:
            check_flags(words[0], list(named - {"--field"}), parsers)
        elif re.fullmatch(r"ast-[a-z-]+", words[0]) and words[0] != AST_SMALL:
            pytest.fail(f"{place}: there is no such command")
        elif words[0] == "make":
            check_target(words[1:])
        elif words[:2] == ["python", "-m"] and len(words) > 2:
            assert (ROOT / f"{words[2].replace('.', '/')}.py").is_file(), place
        assert words[0] == "docker" or named <= flags | {"--field"}, place
        if re.fullmatch(rf"({PACKAGES}|tests|docs|findings)/[\w./-]+", code):
            assert (ROOT / code).exists(), place
        elif re.fullmatch(rf"({PACKAGES})(\.\w+)+", code):
            assert resolves(code), place


def resolves(dotted: str) -> bool:
    """Whether a dotted name is a module, or something in one."""
    module, _, name = dotted.rpartition(".")
    path = ROOT / dotted.replace(".", "/")
    return path.is_dir() or path.with_suffix(".py").is_file() or hasattr(importlib.import_module(module), name)


def anchors_of(page: Path) -> set[str]:
    """The anchors that GitHub gives a page's headings."""
    headings = re.findall(r"^#+ (.+)$", prose_of(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)]+)\)", prose_of(page)):
        if link.startswith("https://"):
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), f"{name_of(page)} links to {link}, which is not there"
        assert not anchor or anchor in anchors_of(target), f"{name_of(page)}: {target.name} has no heading #{anchor}"


@pytest.mark.parametrize("page", PAGES[1:], ids=name_of)
def test_pages_begin_with_what_one_needs_most(page):
    head = page.read_text(encoding="utf-8").split("\n## ")[0].split("\n|")[0]
    assert re.search(r"^```(sh|python)$", head, re.MULTILINE), "no command or snippet above the first table or section"


def test_every_page_is_in_the_index():
    index = ROOT / "docs" / "README.md"
    linked = {link.partition("#")[0] for link in re.findall(r"\]\(([^)]+)\)", prose_of(index))}
    pages = {path.relative_to(index.parent).as_posix() for path in [*PAGES[1:], *NOTEBOOKS]} - {"README.md"}
    assert pages <= linked
    assert all(re.fullmatch(r"(notebooks/)?[a-z0-9_]+\.(md|ipynb)", page) for page in pages)


def test_the_readme_is_short():
    assert len(PAGES[0].read_text(encoding="utf-8").splitlines()) < 200
