"""Unknown flags: the one that is meant is named, by every command that is no trainer."""

import pytest

from conversion.run_conversion import main as convert
from finetune.run_evaluate import main as evaluate
from model_card.run_demo import main as demo
from model_card.run_model_card import main as card
from model_card.run_push import main as push
from modeling_ast.doctor import main as doctor
from modeling_ast.run_export import main as export
from modeling_ast.run_tagging import main as tag
from modeling_ast.system.flags import FlagParser


@pytest.mark.parametrize(
    ("main", "argv", "hint"),
    [
        (tag, ["a.wav", "--model_name_or_path", "m", "--topk", "3"], "Did you mean --top_k for --topk?"),
        (tag, ["a.wav", "--model_name_or_path", "m", "--batchsize=3"], "Did you mean --batch_size for --batchsize?"),
        (export, ["run", "out.onnx", "--int9"], "Did you mean --int8 for --int9?"),
        (convert, ["a.pth", "out", "--lables", "esc50"], "Did you mean --labels for --lables?"),
        (demo, ["run", "--prot", "1"], "Did you mean --port for --prot?"),
        (push, ["run", "--repo_id", "a/b", "--privte"], "Did you mean --private for --privte?"),
        (card, ["run", "--prnt"], "Did you mean --print for --prnt?"),
        (doctor, ["--hlp"], "Did you mean --help for --hlp?"),
    ],
)
def test_the_flag_that_is_meant_is_named(capsys, main, argv, hint):
    with pytest.raises(SystemExit) as ended:
        main(argv)
    assert ended.value.code == 2
    words = capsys.readouterr().err
    assert f"unrecognized arguments: {argv[-2] if argv[-1] in ('1', '3', 'esc50') else argv[-1]}" in words
    assert words.rstrip().endswith(hint)


def test_scoring_names_it_too(capsys):
    assert evaluate(["--model_name_or_path", "run", "--dataset_nam", "clips"]) == 2
    assert "Did you mean --dataset_name for --dataset_nam?" in capsys.readouterr().err


def test_words_that_are_near_to_nothing_are_refused_as_argparse_does(capsys):
    parser = FlagParser(prog="kit")
    parser.add_argument("--threshold", type=float)
    assert parser.parse_args(["--threshold", "0.5"]).threshold == 0.5
    for words in (["clip.wav"], ["--zzz"]):
        with pytest.raises(SystemExit):
            parser.parse_args(words)
        assert capsys.readouterr().err.endswith(f"kit: error: unrecognized arguments: {words[0]}\n")
