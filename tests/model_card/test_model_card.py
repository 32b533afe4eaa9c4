"""The model card against a stored one, its metadata through huggingface_hub, its snippets, and what it does not know.

After a wanted change of the card, look at the difference and store it anew:
`.venv/bin/python tests/model_card/test_model_card.py && git diff tests/model_card/expected_card.md`
"""

import configparser
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
from huggingface_hub import ModelCard
from huggingface_hub.repocard_data import eval_results_to_model_index, model_index_to_eval_results
from safetensors.numpy import save_file

from model_card.card_data import ASTModelCardData
from model_card.render import render_model_card, write_model_card
from model_card.run_model_card import main

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
EXPECTED = HERE / "expected_card.md"
RUN_SUMMARY = json.loads((HERE / "fixture_checkpoint" / "run_summary.json").read_text())


def make_checkpoint(parent: Path, name: str = "drums") -> Path:
    """Copy the fixture, and add weights (345 numbers) and empty files in the place of the pictures."""
    folder = shutil.copytree(HERE / "fixture_checkpoint", parent / name)
    save_file({"weight": np.zeros((3, 100)), "bias": np.zeros(45)}, folder / "model.safetensors")
    for picture in ("training_curve.png", "confusion_matrix.png", "spectrogram.png"):
        (folder / picture).touch()
    return folder


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return make_checkpoint(tmp_path)


def edit_json(path: Path, *keys: str, value: object = None) -> None:
    """Set an entry of a JSON file, or remove it when no value is given."""
    content = json.loads(path.read_text())
    parent = content
    for key in keys[:-1]:
        parent = parent[key]
    if value is None:
        del parent[keys[-1]]
    else:
        parent[keys[-1]] = value
    path.write_text(json.dumps(content))


def list_paths(content: object) -> list[tuple[str, ...]]:
    """The keys to every entry of nested JSON objects."""
    if not isinstance(content, dict):
        return []
    return [(key, *rest) for key in content for rest in ((), *list_paths(content[key]))]


def check_no_gaps(card: str) -> None:
    """Fail on what a missing fact would leave behind: a heading without text, an empty name, Python's None."""
    card = re.sub(r"```.*?```", "snippet", card, flags=re.DOTALL)
    lines = [line for line in card.splitlines() if line]
    for line, following in zip(lines, [*lines[1:], "# end"], strict=True):
        if line.startswith("#"):
            level, next_level = (len(text) - len(text.lstrip("#")) for text in (line, following))
            assert not next_level or next_level > level, f"nothing stands under {line!r}"
    for gap in ("None", "nan", "Undefined", "{{", "{%", "``", "()", " .\n", ": .", "\n\n\n"):
        assert gap not in card, f"{gap!r} in the card"


def get_snippets(card: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", card, flags=re.DOTALL | re.MULTILINE)


def test_whole_card(checkpoint):
    card = render_model_card(checkpoint)
    assert card == EXPECTED.read_text()
    check_no_gaps(card)


def test_metadata_survives_the_round_trip(checkpoint):
    text = render_model_card(checkpoint)
    card = ModelCard(text)
    assert str(card) == text
    assert card.data.license == "apache-2.0"
    assert card.data.library_name == "transformers"
    assert card.data.pipeline_tag == "audio-classification"
    assert card.data.tags == ["audio-spectrogram-transformer", "audio-tagging"]
    assert card.data.base_model == RUN_SUMMARY["base_model"]
    assert card.data.datasets == [RUN_SUMMARY["data"]["hub_id"]]

    edit_json(checkpoint / "run_summary.json", "evaluation", "metrics", "steps_per_second", value=3.0)
    results = ASTModelCardData.from_checkpoint(checkpoint).eval_results()
    assert card.data.eval_results == results
    assert model_index_to_eval_results(eval_results_to_model_index("drums", results)) == ("drums", results)
    scores = RUN_SUMMARY["evaluation"]["metrics"]
    assert {result.metric_type: result.metric_value for result in results} == {
        "accuracy": round(scores["accuracy"], 4),
        "f1": round(scores["f1_macro"], 4),
        "mean_average_precision": round(scores["mean_average_precision"], 4),
        "roc_auc": round(scores["roc_auc_macro"], 4),
        "d_prime": round(scores["d_prime"], 4),
    }
    assert card.data.metrics == [result.metric_type for result in results]
    assert {result.dataset_split for result in results} == {"test"}


def test_data_that_are_not_on_the_hub_get_no_hub_id(checkpoint):
    edit_json(checkpoint / "run_summary.json", "data", "hub_id")
    data = ModelCard(render_model_card(checkpoint)).data
    assert data.datasets is None
    assert {(result.dataset_type, result.dataset_name) for result in data.eval_results} == {("local", "three drums")}
    edit_json(checkpoint / "run_summary.json", "data", "name")
    assert ModelCard(render_model_card(checkpoint)).data.eval_results is None


@pytest.mark.parametrize("path", ["/home/somebody/ast", "./ast", "../runs/ast", "~/ast", "runs/of/ast"])
def test_a_local_base_model_stays_out_of_the_metadata(checkpoint, path):
    edit_json(checkpoint / "run_summary.json", "base_model", value=path)
    card = render_model_card(checkpoint)
    assert ModelCard(card).data.base_model is None
    assert f"fine-tuned from the local checkpoint `{path}`" in card


def test_license_is_a_hub_id(checkpoint):
    edit_json(checkpoint / "run_summary.json", "license", value="BSD-3-Clause")
    assert ModelCard(render_model_card(checkpoint)).data.license == "bsd-3-clause"


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        (("license",), "license: apache-2.0"),
        (("base_model",), "somebody/ast-base-drumless"),
        (("seed",), "| seed | 7 |"),
        (("command",), "## Reproduce"),
        (("created",), "| created |"),
        (("kit_version",), "| ast-kit |"),
        (("data",), "### Data"),
        (("data", "hub_id"), "datasets:\n"),
        (("data", "license"), "Licences of the clips"),
        (("data", "split_method"), "Split by"),
        (("data", "splits", "test"), "| `test` |"),
        (("data", "splits", "train", "label_counts"), "| 33 |"),
        (("features", "normalization"), "measured on 61"),
        (("training", "learning_rate"), "| learning rate |"),
        (("training", "augmentation"), "augmentation"),
        (("history",), "The training loss was"),
        (("evaluation", "split"), "Scored on the split"),
        (("evaluation", "clips"), "(13 clips)"),
        (("evaluation", "protocol"), "Protocol"),
        (("evaluation", "metrics"), "model-index"),
        (("evaluation", "metrics", "mean_average_precision"), "Mean average precision"),
        (("evaluation", "left_out"), "Without a positive clip"),
        (("evaluation", "per_class"), "| recall |"),
        (("environment", "torch"), "| torch |"),
        (("time", "training_seconds"), "The training took"),
        (("time", "train_samples_per_second"), "clips a second"),
    ],
)
@pytest.mark.parametrize("how", ["absent", "null"])
def test_an_unknown_fact_takes_its_line_along(checkpoint, keys, text, how):
    assert text in render_model_card(checkpoint)
    summary = checkpoint / "run_summary.json"
    if how == "absent":
        edit_json(summary, *keys)
    else:
        edit_json(summary, *keys, value="to be null")
        summary.write_text(summary.read_text().replace('"to be null"', "null"))
    assert text not in render_model_card(checkpoint)


def test_any_entry_may_be_missing(checkpoint):
    paths = list_paths(RUN_SUMMARY)
    assert len(paths) > 60
    for path in paths:
        (checkpoint / "run_summary.json").write_text(json.dumps(RUN_SUMMARY))
        edit_json(checkpoint / "run_summary.json", *path)
        check_no_gaps(render_model_card(checkpoint))


def test_almost_nothing_known(tmp_path):
    folder = tmp_path / "unknown"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "run_summary.json").write_text("{}")
    card = render_model_card(folder)
    check_no_gaps(card)
    assert re.findall("^#+ .*", card, flags=re.MULTILINE) == ["# unknown", "## Use"]
    assert "](" not in card.replace("](https://arxiv.org/abs/2104.01778)", "")


@pytest.mark.parametrize("picture", ["training_curve.png", "confusion_matrix.png", "spectrogram.png"])
def test_only_pictures_that_exist_are_linked(checkpoint, picture):
    assert f"]({picture})" in render_model_card(checkpoint)
    (checkpoint / picture).unlink()
    assert picture not in render_model_card(checkpoint)


def test_facts_come_from_the_checkpoint(checkpoint):
    card = ASTModelCardData.from_checkpoint(checkpoint)
    assert card.parameters == 345  # by the weights' header, not the 123456 of the fixture's run_summary.json
    assert card.mean == -6.513274
    assert card.labels == ["bell", "hat_closed", "snare|rim"]
    # the last of 96 windows of 400 samples, 160 apart, ends here
    assert card.max_seconds == pytest.approx((400 + 95 * 160) / 16000)

    (checkpoint / "model.safetensors").unlink()
    (checkpoint / "preprocessor_config.json").unlink()
    card = ASTModelCardData.from_checkpoint(checkpoint)
    assert card.parameters == RUN_SUMMARY["model"]["parameters"]
    assert card.mean == RUN_SUMMARY["features"]["mean"]
    edit_json(checkpoint / "config.json", "id2label")
    assert ASTModelCardData.from_checkpoint(checkpoint).labels == RUN_SUMMARY["labels"]


def test_a_single_licence_of_the_clips(checkpoint):
    edit_json(checkpoint / "run_summary.json", "data", "license", value="CC0")
    assert "Licences of the clips: CC0." in render_model_card(checkpoint)


@pytest.mark.parametrize(
    ("seconds", "text"), [(12.34, "12.3 s"), (150.2, "2 min 30 s"), (3600, "1 h 0 min"), (7499.9, "2 h 5 min")]
)
def test_durations_in_units_of_people(checkpoint, seconds, text):
    edit_json(checkpoint / "run_summary.json", "time", "training_seconds", value=seconds)
    assert f"The training took {text}." in render_model_card(checkpoint)


def test_splits_have_columns_for_what_is_known(checkpoint):
    splits = {"train": {"clips": 5}, "test": {}}
    edit_json(checkpoint / "run_summary.json", "data", "splits", value=splits)
    assert "| split | clips |\n| --- | ---: |\n| `train` | 5 |\n| `test` |  |\n" in render_model_card(checkpoint)
    edit_json(checkpoint / "run_summary.json", "data", "splits", "train", "clips")
    assert "| split |" not in render_model_card(checkpoint)


def test_labels_in_the_order_of_the_logits(checkpoint):
    labels = [f"label_{i}" for i in range(12)]
    edit_json(checkpoint / "run_summary.json", "labels", value=labels)
    shuffled = {str(i): labels[i] for i in (10, 2, 1, 11, *range(3, 10), 0)}
    edit_json(checkpoint / "config.json", "id2label", value=shuffled)
    assert ASTModelCardData.from_checkpoint(checkpoint).labels == labels


def test_features_that_are_not_normalised_have_no_statistics(checkpoint):
    edit_json(checkpoint / "preprocessor_config.json", "do_normalize", value=False)
    assert "normalised" not in render_model_card(checkpoint)


def test_scores_with_both_ways_of_padding(checkpoint):
    longest = {"loss": 0.75, "accuracy": 0.5}
    edit_json(checkpoint / "run_summary.json", "evaluation", "metrics_padding_longest", value=longest)
    card = render_model_card(checkpoint)
    assert '| metric | value | value with padding="longest" |' in card
    assert "| Accuracy | 0.6923 | 0.5000 |\n| F1 (macro) | 0.5152 |  |" in card
    accuracies = [result for result in ModelCard(card).data.eval_results if result.metric_type == "accuracy"]
    assert [result.metric_value for result in accuracies] == [0.6923]  # the way the saved checkpoint pads


MULTI_LABEL_EVALUATION = {
    "split": "test",
    "clips": 13,
    "protocol": "scored once, after the last epoch",
    "metrics": {"loss": 0.3, "accuracy": 0.5, "f1_macro": 0.75, "mean_average_precision": 0.8},
    "last_epoch": {"metrics": {"mean_average_precision": 0.78}},
    "ensemble": {"epochs": [2, 3], "metrics": {"f1_macro": 0.76, "mean_average_precision": 0.82}},
    "averaged_epochs": [2, 3],
    "validation": {"split": "valid", "clips": 9, "metrics": {"loss": 0.4, "mean_average_precision": 0.7}},
    "thresholds": {"bell": 0.125, "hat_closed": 0.75, "snare|rim": 0.5},
    "left_out": ["snare|rim"],
    "per_class": RUN_SUMMARY["evaluation"]["per_class"],
}
MULTI_LABEL_SECTION = """\
## Evaluation

Scored on the split `test` (13 clips).
Protocol: scored once, after the last epoch.
The split `valid` (9 clips) was kept apart for choices and has no part in the scores.

| metric | value | last epoch's weights | mean scores of epochs 2 to 3 | on the validation split |
| --- | ---: | ---: | ---: | ---: |
| Loss | 0.3000 |  |  | 0.4000 |
| Accuracy of the top label | 0.5000 |  |  |  |
| F1 (macro) | 0.7500 |  | 0.7600 |  |
| Mean average precision (macro) | 0.8000 | 0.7800 | 0.8200 | 0.7000 |

The top label of a clip is right if it is the first of the clip's labels.

Without a positive clip and so left out of the averages: `snare|rim`.

A label counts from its threshold on, which was chosen on the validation split for the best F1; precision, recall and F1 \
of each label and the macro F1 of the held-out clips are by these thresholds, other columns by 0.5.

| label | precision | recall | F1 | average precision | ROC AUC | support | threshold |
| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |
| `bell` | 0.500 | 0.250 | 0.333 | 0.600 | 0.750 | 4 | 0.125 |
| `hat_closed` | 0.800 | 0.889 | 0.842 | 0.900 | 0.917 | 9 | 0.750 |
| `snare\\|rim` | 0.000 | 0.000 | 0.000 |  |  | 0 | 0.500 |

"""


@pytest.fixture
def multi_label(checkpoint):
    """The fixture as a training on several labels a clip leaves it: thresholds, and no confusion matrix."""
    (checkpoint / "confusion_matrix.png").unlink()
    edit_json(checkpoint / "config.json", "problem_type", value="multi_label_classification")
    edit_json(checkpoint / "config.json", "label_thresholds", value=MULTI_LABEL_EVALUATION["thresholds"])
    summary = RUN_SUMMARY | {"problem_type": "multi_label_classification", "evaluation": MULTI_LABEL_EVALUATION}
    (checkpoint / "run_summary.json").write_text(json.dumps(summary))
    return checkpoint


def test_evaluation_of_a_multi_label_run(multi_label):
    card = render_model_card(multi_label)
    check_no_gaps(card)
    start = card.index("## Evaluation")
    assert card[start : card.index("## Inputs")] == MULTI_LABEL_SECTION
    assert "any number of 3 labels" in card
    assert "The saved weights are the average of those after epochs 2 to 3." in card
    assert "when each label was heard, by the thresholds above" in card
    assert "The scores of the labels are independent" in card
    results = {result.metric_type: result.metric_value for result in ModelCard(card).data.eval_results}
    assert results == {"f1": 0.75, "mean_average_precision": 0.8}, "the top label's accuracy is another thing"


def test_any_entry_of_a_multi_label_run_may_be_missing(multi_label):
    edit_json(multi_label / "config.json", "label_thresholds")
    summary = json.loads((multi_label / "run_summary.json").read_text())
    paths = [path for path in list_paths(summary) if path[0] == "evaluation"]
    assert len(paths) > 20
    for path in paths:
        (multi_label / "run_summary.json").write_text(json.dumps(summary))
        edit_json(multi_label / "run_summary.json", *path)
        check_no_gaps(render_model_card(multi_label))


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        (("ensemble",), "mean scores of"),
        (("ensemble", "epochs"), "mean scores of epochs 2 to 3"),
        (("averaged_epochs",), "The saved weights are the average"),
        (("last_epoch",), "last epoch's weights"),
        (("validation",), "on the validation split"),
        (("validation", "split"), "The split `valid`"),
        (("thresholds",), "threshold"),
        (("thresholds", "bell"), "| 0.125 |"),
    ],
)
def test_an_unknown_choice_takes_its_line_along(multi_label, keys, text):
    edit_json(multi_label / "config.json", "label_thresholds")
    assert text in render_model_card(multi_label)
    edit_json(multi_label / "run_summary.json", "evaluation", *keys)
    assert text not in render_model_card(multi_label)


def test_thresholds_are_those_of_the_checkpoint(multi_label):
    edit_json(multi_label / "run_summary.json", "evaluation", "per_class")
    edit_json(multi_label / "run_summary.json", "evaluation", "thresholds")
    assert "| label | threshold |\n| --- | ---: |\n| `bell` | 0.125 |" in render_model_card(multi_label)
    edit_json(multi_label / "run_summary.json", "evaluation", "thresholds", value={"bell": 0.5})
    with pytest.raises(ValueError, match="'thresholds' is .* are not of the same run"):
        render_model_card(multi_label)


def test_averages_of_nothing_are_left_out(multi_label):
    """Without any positive clip every score is NaN, which the summary holds as null."""
    metrics = dict.fromkeys(MULTI_LABEL_EVALUATION["metrics"], float("nan")) | {"loss": 0.3}
    edit_json(multi_label / "run_summary.json", "evaluation", "metrics", value=metrics)
    card = render_model_card(multi_label)
    check_no_gaps(card)
    assert "| Loss | 0.3000 |" in card
    assert not ModelCard(card).data.eval_results


def test_training_from_random_weights(checkpoint):
    summary = RUN_SUMMARY | {"base_model": None}
    (checkpoint / "run_summary.json").write_text(json.dumps(summary))
    assert "It was trained from random weights." in render_model_card(checkpoint)
    del summary["training"]  # as a converter writes it: the weights were trained, elsewhere
    (checkpoint / "run_summary.json").write_text(json.dumps(summary))
    assert "random weights" not in render_model_card(checkpoint)


def test_a_converted_checkpoint(checkpoint):
    summary = {
        "license": "bsd-3-clause",
        "source": "audioset_10_10_0.4593.pth",
        "sha256": "0" * 64,
        "agreement": {"largest_difference": 3.3e-6, "tolerance": 2e-5, "outputs": "logits"},
        "published": {"mean_average_precision": 0.459, "by": "the authors", "weight_averaged": True},
        "conversion": {"left_out": ["v.head.weight"], "notes": ["Unverified."]},
    }
    (checkpoint / "run_summary.json").write_text(json.dumps(summary))
    (checkpoint / "training_curve.png").unlink()
    edit_json(checkpoint / "config.json", "problem_type", value="multi_label_classification")
    card = render_model_card(checkpoint)
    check_no_gaps(card)
    assert "any number of 3 labels" in card
    assert "## Training" not in card
    assert "| parameters | 345 |" in card
    assert "It was converted from `audioset_10_10_0.4593.pth`, a checkpoint of the original code." in card
    assert (
        "Published by the authors for `audioset_10_10_0.4593.pth` and not measured here: Mean average precision (macro) "
        "0.4590, weights averaged over epochs."
    ) in card
    assert not ModelCard(card).data.eval_results, "somebody else's score is not this run's"
    assert "\n- Unverified.\n" in card
    assert f"| SHA-256 of `audioset_10_10_0.4593.pth` | `{'0' * 64}` |" in card
    assert (
        "| largest difference of the logits from an independent forward pass of the source's tensors | 3.3e-06 |\n| tolerance | 2.0e-05 |"
        in card
    )
    assert "| left out, unused by AST | `v.head.weight` |" in card
    assert "add up to 1" not in card
    # older Transformers releases take softmax unless told otherwise
    assert 'function_to_apply="sigmoid"' in get_snippets(card, "python")[0]


def test_many_labels_are_folded(checkpoint):
    labels = [f"label {i}" for i in range(31)]
    edit_json(checkpoint / "run_summary.json", "labels", value=labels)
    edit_json(checkpoint / "config.json", "id2label", value=dict(enumerate(labels)))
    assert "<details><summary>All 31 labels</summary>\n\n`label 0`, `label 1`" in render_model_card(checkpoint)


def test_every_snippet_parses(checkpoint, tmp_path):
    odd = make_checkpoint(tmp_path, name='it\'s a "drum" `kit`')
    edit_json(odd / "config.json", "problem_type", value="multi_label_classification")
    for folder in (checkpoint, odd):
        card = render_model_card(folder)
        snippets = get_snippets(card, "python")
        assert len(snippets) == 2
        for snippet in snippets:
            compile(snippet, "snippet", "exec")
            assert f"model={json.dumps(folder.name)}" in snippet
        for command in get_snippets(card, "bash")[:2]:
            assert shlex.split(command)[-2:] == ["--model_name_or_path", folder.name]
        assert ModelCard(card).data.model_name == folder.name


def test_every_command_is_installed(checkpoint):
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    scripts = {line.split("=")[0].strip() for line in setup["options.entry_points"]["console_scripts"].splitlines()}
    commands = [
        line.split()[0] for snippet in get_snippets(EXPECTED.read_text(), "bash") for line in snippet.splitlines()
    ]
    assert commands == ["ast-tag", "ast-finetune", "ast-finetune"]
    assert set(commands) <= scripts


def test_stock_snippet_runs_without_this_project(checkpoint):
    """A random stock model of the fixture's geometry answers a stereo 22.05 kHz clip."""
    soundfile.write(checkpoint.parent / "clip.wav", np.random.default_rng(0).normal(0, 0.1, (22050, 2)), 22050)
    script = (
        "from transformers import ASTConfig, ASTForAudioClassification\n"
        "ASTForAudioClassification(ASTConfig.from_pretrained('drums')).save_pretrained('drums')\n"
        f"{get_snippets(render_model_card(checkpoint), 'python')[0]}\n"
        "import sys\n"
        "assert not {'modeling_ast', 'model_card'} & set(sys.modules)\n"
    )
    run = run_python(script, cwd=checkpoint.parent)
    assert run.returncode == 0, run.stderr
    answer = eval(run.stdout.splitlines()[-1])  # noqa: S307
    assert {entry["label"] for entry in answer} == {"bell", "hat_closed", "snare|rim"}
    assert sum(entry["score"] for entry in answer) == pytest.approx(1, abs=1e-5)  # float32 softmax


def run_python(script: str, cwd: Path) -> subprocess.CompletedProcess:
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    return subprocess.run([sys.executable, "-c", script], cwd=cwd, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize("arguments", [["--help"], ["drums", "--print"]])
def test_the_command_imports_neither_torch_nor_transformers(checkpoint, arguments):
    script = (
        "import sys\n"
        "from model_card.run_model_card import main\n"
        "try:\n"
        f"    main({arguments})\n"
        "except SystemExit:\n"
        "    pass\n"
        "assert not {'torch', 'transformers', 'matplotlib'} & set(sys.modules)\n"
    )
    run = run_python(script, cwd=checkpoint.parent)
    assert run.returncode == 0, run.stderr
    assert "CHECKPOINT_DIR" in run.stdout if "--help" in arguments else run.stdout == EXPECTED.read_text()


def test_command_writes_the_card(checkpoint, capsys):
    assert main([str(checkpoint)]) == 0
    assert capsys.readouterr().out == f"Model card: {checkpoint / 'README.md'}\n"
    assert (checkpoint / "README.md").read_text() == EXPECTED.read_text()


def test_command_as_a_module_prints_the_card_and_writes_nothing(checkpoint):
    command = [sys.executable, "-m", "model_card.run_model_card", str(checkpoint), "--print"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout == EXPECTED.read_text()
    assert not (checkpoint / "README.md").exists()


def break_file(name: str, content: str | None):
    def break_it(folder: Path) -> None:
        (folder / name).unlink() if content is None else (folder / name).write_text(content)

    return break_it


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (shutil.rmtree, r"drums' is not a folder; expected .* Type ast-model-card runs/drums"),
        (break_file("config.json", None), r"drums has no config\.json; save_pretrained\(\) writes it"),
        (
            break_file("run_summary.json", None),
            r"drums has no run_summary\.json; ast-finetune and ast-convert write it",
        ),
        (break_file("run_summary.json", '{"seed": 0,'), r"run_summary\.json is not valid JSON \(.*line 1.*\)"),
        (break_file("config.json", "[1, 2]"), r"config\.json holds \[1, 2\], expected a JSON object"),
        (break_file("preprocessor_config.json", ""), r"preprocessor_config\.json is not valid JSON"),
        (
            break_file("run_summary.json", '{"history": 3}'),
            r"run_summary\.json: 'history' is 3, expected a JSON array",
        ),
        (break_file("run_summary.json", '{"labels": ["a"]}'), r"'labels' is \['a'\] in run_summary.json and \['bell'"),
        (break_file("run_summary.json", '{"features": {"mean": -4.2}}'), r"'mean' is -4\.2 .* and -6\.513274 in"),
        (break_file("model.safetensors", "<html>"), r"model\.safetensors can't be read \(.*Put an unbroken copy"),
    ],
)
def test_wrong_input_is_answered_in_words(checkpoint, capsys, break_it, message):
    break_it(checkpoint)
    assert main([str(checkpoint)]) == 1
    output = capsys.readouterr()
    assert re.match(f"ast-model-card: .*{message}", output.err)
    assert output.out == ""
    assert not (checkpoint / "README.md").exists()


def test_an_interrupted_write_leaves_the_old_card(checkpoint, monkeypatch):
    (checkpoint / "README.md").write_text("the old card")
    before = sorted(checkpoint.iterdir())
    synced = []

    def fail(source, target):
        assert synced
        assert Path(source).parent == checkpoint
        assert Path(source).read_text() == EXPECTED.read_text()
        raise OSError("no space left")

    monkeypatch.setattr(os, "fsync", synced.append)
    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="no space left"):
        write_model_card(checkpoint)
    assert (checkpoint / "README.md").read_text() == "the old card"
    assert sorted(checkpoint.iterdir()) == before


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as parent:
        EXPECTED.write_text(render_model_card(make_checkpoint(Path(parent))))
