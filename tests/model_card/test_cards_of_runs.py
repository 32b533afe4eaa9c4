"""The cards that real runs leave: everything they record is in the stored fixtures, nothing private, every snippet runs."""

import json
import os
from pathlib import Path

import forked_python
import numpy as np
import pytest
import soundfile
import yaml
from card_checks import check_no_gaps, get_snippets, list_paths
from huggingface_hub import ModelCard
from huggingface_hub.repocard_data import eval_results_to_model_index, model_index_to_eval_results
from tiny_runs import DRUMS, FIXTURES, RECIPE, SIZES, train, train_multi_class, train_multi_label, write_clips

from finetune.arguments.command_line import recorded_arguments
from model_card.render import write_model_card
from model_card.run_summary import write_run_summary
from modeling_ast import ASTConfig, ASTFeatureExtractor
from modeling_ast.audio import read_audio

HERE = Path(__file__).parent
PACKAGES = ("modeling_ast", "model_card", "conversion", "finetune")
# An import of what is None fails; what the forked child's parent imported has told the Auto classes nothing.
AS_IF_ABSENT = f"""
import sys
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
sys.modules |= dict.fromkeys([*{PACKAGES}, *(name for name in sys.modules if name.partition(".")[0] in {PACKAGES})])
assert not CONFIG_MAPPING._extra_content
"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    """A folder with the two runs of the stored fixtures, trained now, and what they were made from."""
    folder = tmp_path_factory.mktemp("private_place")
    train_multi_class(folder)
    train_multi_label(folder)
    return folder


def summary_of(run: Path) -> dict:
    return json.loads((run / "run_summary.json").read_text())


def check_card(run: Path) -> str:
    """The card of a run, in which nothing is missing and nothing private, and whose metadata are good."""
    text = (run / "README.md").read_text()
    check_no_gaps(text)
    published = [text, *(path.read_text() for path in run.glob("*.json"))]
    assert not any(str(run.parent) in file or str(Path.home()) in file for file in published)
    data = ModelCard(text).data
    assert (data.library_name, data.pipeline_tag) == ("transformers", "audio-classification")
    name, results = model_index_to_eval_results(eval_results_to_model_index(data.model_name, data.eval_results))
    assert (name, results) == (run.name, data.eval_results)
    assert "mean_average_precision" in {result.metric_type for result in results}
    assert all(picture in text for picture in (path.name for path in run.glob("*.png")))
    return text


@pytest.mark.parametrize("fixture", FIXTURES)
def test_a_run_records_and_its_card_says_what_the_stored_one_does(runs, fixture):
    run = runs / FIXTURES[fixture]
    check_card(run)
    stored = json.loads((HERE / "fixtures" / fixture / "run_summary.json").read_text())
    assert set(list_paths(summary_of(run))) == set(list_paths(stored)), "store it anew: see tiny_runs.py"


def test_the_command_names_files_but_no_folders_and_no_secret(tmp_path, monkeypatch):
    (tmp_path / "clients" / "secret").mkdir(parents=True)
    (tmp_path / "clients" / "clips.csv").touch()
    monkeypatch.chdir(tmp_path / "clients")
    recipe = DRUMS.parents[1] / "recipes" / "drums.yaml"
    argv = [
        str(recipe), "--dataset_name", str(tmp_path / "clients" / "clips.csv"), f"--output_dir={tmp_path / 'clients'}",
        "--train_file", "../clients/clips.csv", "--label_separator", "/", "--group_file_pattern", "^/home/[^/]+/x",
        "--hub_token", "hf_secret", "--hub-token=hf_secret", "--labels", "a/b", "3", "--model_name_or_path", "user/ast",
        "--eval_file", "finetune/sample_data/drums/metadata.csv", "--waveform_cache", "secret/..",
    ]  # fmt: skip
    assert recorded_arguments(argv) == [
        "finetune/recipes/drums.yaml", "--dataset_name", "clips.csv", "--output_dir=clients",
        "--train_file", "clips.csv", "--label_separator", "/", "--group_file_pattern", "^/home/[^/]+/x",
        "--labels", "a/b", "3", "--model_name_or_path", "user/ast",
        "--eval_file", "finetune/sample_data/drums/metadata.csv", "--waveform_cache", "clients",
    ]  # fmt: skip


def test_the_licence_of_the_base_model_and_its_notice_are_carried_on(runs):
    for name in FIXTURES.values():
        assert ModelCard.load(runs / name / "README.md").data.license == "bsd-3-clause"
        assert "the weights of somebody" in (runs / name / "NOTICE").read_text()


def test_every_snippet_of_the_cards_runs_and_all_ways_agree(runs):
    """The stock snippet in a process in which this project cannot be imported, the others together in a second one."""
    # At the model's rate: of others, the pipeline of stock Transformers hears more above 7 kHz than the checkpoint's resampler.
    soundfile.write(runs / "clip.wav", np.random.default_rng(0).normal(0, 0.1, (16_000, 2)), 16_000)
    fields = RECIPE | {"dataset_name": "three_drums.csv", "output_dir": "further", "overwrite_output_dir": True}
    (runs / "my_recipe.yaml").write_text(yaml.safe_dump(fields | {"skip_bad_audio": True}))
    cards = [(runs / name / "README.md").read_text() for name in FIXTURES.values()]
    stock, classes, kit = zip(*(get_snippets(card, "python") for card in cards), strict=True)
    commands = [line for card in cards for snippet in get_snippets(card, "bash")[:2] for line in snippet.splitlines()]
    assert [command.split()[0] for command in commands] == ["ast-tag", "ast-finetune"] * 2
    between = "print('----')\n"
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    children = [
        forked_python.run(["-c", code], environment, runs)
        for code in (AS_IF_ABSENT + between.join(stock), between.join([*classes, *kit, *map(run_command, commands)]))
    ]
    outputs = []
    for child in children:
        assert child.returncode == 0, child.stderr
        outputs.append([part.strip() for part in child.stdout.split("----\n")])
    of_stock = [scores_of_pipeline(part) for part in outputs[0]]
    (first, second), of_kit, by_tag = outputs[1][:2], outputs[1][2:4], (outputs[1][4], outputs[1][6])
    assert all(scores.keys() == {"bell", "hat_closed", "snare|rim"} for scores in of_stock)
    assert sum(of_stock[0].values()) == pytest.approx(1, abs=1e-5)  # float32 softmax
    for expected, from_classes, from_kit, tagged in zip(of_stock, (first, second), of_kit, by_tag, strict=True):
        printed = {label: float(score) for score, label in (line.split(" ", 1) for line in from_classes.splitlines())}
        assert printed == pytest.approx(expected, abs=1e-4)
        assert scores_of_pipeline(from_kit) == pytest.approx(expected, abs=1e-4)
        assert all(label in tagged for label in expected)
    assert summary_of(runs / "further")["base_model"] == f"./{FIXTURES['multi_label']}"


def run_command(command: str) -> str:
    """Python that does what a shell would do with an installed command, and fails as it would."""
    return (
        "import shlex, sys\n"
        "from importlib.metadata import distribution\n"
        f"name, *sys.argv[1:] = shlex.split({command!r})\n"
        "(entry,) = distribution('ast-kit').entry_points.select(group='console_scripts', name=name)\n"
        "assert not entry.load()()\n"
    )


def scores_of_pipeline(printed: str) -> dict[str, float]:
    return {entry["label"]: entry["score"] for entry in eval(printed.splitlines()[-1])}  # noqa: S307


def test_folds_of_a_model_with_random_weights(tmp_path):
    """Each fold leaves a card that says which fold was scored, and of which clips."""
    clips = write_clips(tmp_path)
    train(tmp_path, "folds", dataset_name=str(clips), fold_column_name="split", skip_bad_audio=True, **SIZES)
    text = check_card(tmp_path / "folds" / "fold-valid")
    assert "It was trained from random weights." in text
    assert "fold valid is scored" in text
    assert "license" not in ModelCard(text).data.to_dict(), "nobody gave one"
    assert "## Licence" not in text
    assert not (tmp_path / "folds" / "fold-valid" / "NOTICE").exists()


def test_features_that_were_computed_before(tmp_path):
    feature_extractor = ASTFeatureExtractor(max_length=96, do_normalize=False)
    lines = ["features,label,split"]
    for label in ("bell", "kick"):
        for number, path in enumerate(sorted((DRUMS / label).glob("*.flac"))[:4]):
            clip = feature_extractor(read_audio(path), sampling_rate=16_000, return_tensors="np")["input_values"][0]
            np.save(tmp_path / f"{label}_{number}.npy", clip)
            lines.append(f"{tmp_path / f'{label}_{number}.npy'},{label},{'test' if number % 2 else 'train'}")
    (tmp_path / "features.csv").write_text("\n".join(lines))
    given = {"dataset_name": str(tmp_path / "features.csv"), "features_column_name": "features", "license": "cc0-1.0"}
    train(tmp_path, "model", **given, **SIZES, mixup_probability=0.0)
    text = check_card(tmp_path / "model")
    assert "log-mel features that were computed before it, from the column `features`" in text
    assert "license: cc0-1.0" in text


def test_the_card_of_one_label_says_what_its_accuracy_is(tmp_path):
    ASTConfig(
        max_length=96, id2label={0: "speech"}, label2id={"speech": 0}, problem_type="multi_label_classification"
    ).save_pretrained(tmp_path)
    ASTFeatureExtractor(max_length=96).save_pretrained(tmp_path)
    write_run_summary(tmp_path, {"labels": ["speech"], "evaluation": {"metrics": {"accuracy": 0.5}}})
    card = " ".join(write_model_card(tmp_path).read_text().split())
    assert "that tells whether a clip of audio has the label `speech`." in card
    assert "The accuracy is the share of clips that are rightly said to have the label, from a score of 0.5 on" in card
    assert "top label" not in card
