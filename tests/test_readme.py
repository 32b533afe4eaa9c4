"""The README's commands parse and its Python runs, on a tiny checkpoint in place of the demo's."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch

from conversion.run_conversion import parse_arguments as parse_conversion_arguments
from finetune.arguments.command_line import parse_arguments as parse_finetune_arguments
from finetune.run_evaluate import parse_arguments as parse_evaluation_arguments
from model_card.run_demo import parse_arguments as parse_demo_arguments
from model_card.run_push import parse_arguments as parse_push_arguments
from modeling_ast import ASTConfig, ASTFeatureExtractor, ASTForAudioClassification, unregister
from modeling_ast.run_export import parse_arguments as parse_export_arguments
from modeling_ast.run_tagging import make_parser as make_tagging_parser

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PARSERS = {
    "ast-convert": parse_conversion_arguments,
    "ast-demo": parse_demo_arguments,
    "ast-evaluate": parse_evaluation_arguments,
    "ast-export": parse_export_arguments,
    "ast-finetune": parse_finetune_arguments,
    "ast-push": parse_push_arguments,
    "ast-tag": make_tagging_parser().parse_args,
}
COMMANDS = re.findall(r"^    (ast-\S+ .+?(?:\\\n.+?)*)$", README, re.MULTILINE)


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_parse(command, tmp_path):
    name, *arguments = shlex.split(command.replace("\\\n", " "), comments=True)
    if name == "ast-finetune" and "--output_dir" not in arguments:
        arguments += ["--output_dir", str(tmp_path)]
    PARSERS[name](arguments)


def test_there_are_commands():
    assert {command.split()[0] for command in COMMANDS} == PARSERS.keys()


def test_python_blocks_run(tmp_path, tiny_sizes, capsys):
    torch.manual_seed(0)
    ASTForAudioClassification(ASTConfig(**tiny_sizes, num_labels=3)).save_pretrained(tmp_path)
    ASTFeatureExtractor(max_length=96).save_pretrained(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    names = {"clip": np.zeros(16_000, np.float32), "shorter_clip": np.zeros(8_000, np.float32)}
    for block in blocks:
        try:
            exec(block.replace("runs/drums", str(tmp_path)), names)
        finally:
            unregister()
    mine, stock = capsys.readouterr().out.splitlines()
    assert mine.count("score") == stock.count("score") == 2
    assert names["logits"].shape == (2, 3)
    assert names["embedding"].per_second.shape == (1, 1, 32)
    assert (tmp_path / "attention.png").is_file()
    assert (tmp_path / "stock_adapter" / "adapter_config.json").is_file()


def test_linked_files_are_there():
    links = [link for link in re.findall(r"\]\(([^)]+)\)", README) if not link.startswith("http")]
    assert links
    assert all((ROOT / link).exists() for link in links)
