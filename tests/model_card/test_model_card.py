"""The model card against stored ones, its metadata through huggingface_hub, and what it does not know.

Rendered from what two real trainings left, see `tiny_runs.py`. After a wanted change of the card alone, look at the
difference and store it anew: `.venv/bin/python tests/model_card/test_model_card.py && git diff tests/model_card`
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
from card_checks import check_no_gaps, get_snippets, list_paths
from huggingface_hub import ModelCard
from huggingface_hub.repocard_data import eval_results_to_model_index, model_index_to_eval_results
from safetensors.numpy import save_file
from special_paths import make_special, never_waits
from tiny_runs import FIXTURES

from model_card.card_data import ASTModelCardData
from model_card.render import render_model_card, write_model_card
from model_card.run_model_card import main

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
EXPECTED = HERE / "fixtures" / "multi_class" / "expected_card.md"
RUN_SUMMARY = json.loads(EXPECTED.with_name("run_summary.json").read_text())
FEATURES = json.loads(EXPECTED.with_name("preprocessor_config.json").read_text())
EVALUATION = RUN_SUMMARY["evaluation"]
MULTI_LABEL = json.loads((HERE / "fixtures" / "multi_label" / "run_summary.json").read_text())["evaluation"]
PICTURES = ("training_curve.png", "confusion_matrix.png", "spectrogram.png")


def make_checkpoint(parent: Path, name: str | None = None, fixture: str = "multi_class") -> Path:
    """Copy a stored run, and add weights (345 numbers) and empty files in the place of the pictures."""
    folder = parent / (name or FIXTURES[fixture])
    shutil.copytree(HERE / "fixtures" / fixture, folder, ignore=shutil.ignore_patterns("*.md"))
    save_file({"weight": np.zeros((3, 100)), "bias": np.zeros(45)}, folder / "model.safetensors")
    for picture in PICTURES:
        if picture != "confusion_matrix.png" or fixture == "multi_class":
            (folder / picture).touch()
    (folder / "recipe.yaml").touch()
    return folder


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return make_checkpoint(tmp_path)


def edit_json(path: Path, *keys: str, value: object = None) -> None:
    """Set an entry of a JSON file, or remove it when no value is given."""
    content = json.loads(path.read_text())
    parent = content
    for key in keys[:-1]:
        parent = parent[int(key) if isinstance(parent, list) else key]
    if value is None:
        del parent[keys[-1]]
    else:
        parent[keys[-1]] = value
    path.write_text(json.dumps(content))


@pytest.mark.parametrize("fixture", FIXTURES)
def test_whole_card(tmp_path, fixture):
    card = render_model_card(make_checkpoint(tmp_path, fixture=fixture))
    assert card == (HERE / "fixtures" / fixture / "expected_card.md").read_text()
    check_no_gaps(card)


def test_metadata_survives_the_round_trip(checkpoint):
    text = render_model_card(checkpoint)
    card = ModelCard(text)
    assert str(card) == text
    assert card.data.license == "bsd-3-clause"
    assert card.data.library_name == "transformers"
    assert card.data.pipeline_tag == "audio-classification"
    assert card.data.tags == ["audio-spectrogram-transformer", "audio-tagging"]
    assert card.data.base_model == RUN_SUMMARY["base_model"]
    assert card.data.datasets == [RUN_SUMMARY["data"]["hub_id"]]

    edit_json(checkpoint / "run_summary.json", "evaluation", "metrics", "steps_per_second", value=3.0)
    results = ASTModelCardData.from_checkpoint(checkpoint).eval_results()
    assert card.data.eval_results == results
    assert model_index_to_eval_results(eval_results_to_model_index("drums", results)) == ("drums", results)
    scores = EVALUATION["metrics"]
    assert {result.metric_type: result.metric_value for result in results} == {
        "accuracy": round(scores["accuracy"], 4),
        "f1": round(scores["f1_macro"], 4),
        "mean_average_precision": round(scores["mean_average_precision"], 4),
        "roc_auc": round(scores["roc_auc_macro"], 4),
        "d_prime": round(scores["d_prime"], 4),
    }
    assert card.data.metrics == [result.metric_type for result in results]
    assert {result.dataset_split for result in results} == {"test"}


def numbered_anew(content, numbers: dict):
    """The same JSON with numbers that occur nowhere else: integers from 1000, the rest between 0.1 and 1."""
    if isinstance(content, dict):
        return {key: numbered_anew(value, numbers) for key, value in content.items()}
    if isinstance(content, list):
        return [numbered_anew(value, numbers) for value in content]
    if isinstance(content, bool) or not isinstance(content, int | float):
        return content
    place = len(numbers) + 1
    return numbers.setdefault(
        content, 1000 + 7 * place if isinstance(content, int) else round(0.1 + 0.0013 * place, 6)
    )


def strings_in(content) -> list[str]:
    if isinstance(content, dict | list):
        return [
            text for item in (content.values() if isinstance(content, dict) else content) for text in strings_in(item)
        ]
    return [content] if isinstance(content, str) else []


@pytest.mark.parametrize("fixture", FIXTURES)
def test_every_number_on_the_card_is_from_the_summary_or_the_checkpoint(tmp_path, fixture):
    folder = make_checkpoint(tmp_path, fixture=fixture)
    numbers, strings = {}, []
    for name in ("config.json", "preprocessor_config.json", "run_summary.json"):
        content = numbered_anew(json.loads((folder / name).read_text()), numbers)
        strings += strings_in(content)
        (folder / name).write_text(json.dumps(content))
    rate, frames = numbers[16000], numbers[96]
    computed = [345, len(RUN_SUMMARY["labels"]), 1, rate / 1000, rate / 2000, (frames - 1) * 0.01 + 0.025]
    forms = {form.format(number) for number in [*numbers.values(), *computed] for form in ("{:,}", "{:.6g}", "{}")}
    forms |= {f"{number:.{digits}f}" for number in numbers.values() for digits in (1, 3, 4)}

    card = re.sub(r"^```python.*?^```$", "", render_model_card(folder), flags=re.DOTALL | re.MULTILINE)
    for text in sorted(strings, key=len, reverse=True):
        card = card.replace(text, "") if re.search(r"\d", text) else card
    # the paper, the filter bank and formula of AST, the threshold where none was chosen, F1 and such names
    wording = {"2104.01778", "2021", "25", "10", "2", "0.5", "3"}
    found = re.findall(r"(?<![\w.])-?\d+(?:,\d{3})*(?:\.\d+)?(?:e-?\d+)?(?!\w)", card)
    assert len(found) > 90
    assert sorted(set(found) - forms - wording) == []


def test_data_that_are_not_on_the_hub_get_no_hub_id(checkpoint):
    edit_json(checkpoint / "run_summary.json", "data", "hub_id")
    edit_json(checkpoint / "run_summary.json", "data", "name", value="three drums")
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
    edit_json(checkpoint / "run_summary.json", "license", value="CC0-1.0")
    assert ModelCard(render_model_card(checkpoint)).data.license == "cc0-1.0"


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        (("license",), "license: bsd-3-clause"),
        (("license_notice",), "## Licence"),
        (("license_notice", "work"), "the weights of somebody"),
        (("license_notice", "address"), "<https://example.org/ast>"),
        (("base_model",), "somebody/ast-base-drumless"),
        (("seed",), "| seed | 7 |"),
        (("command",), "## Reproduce"),
        (("created",), "| created |"),
        (("kit_version",), "| ast-kit |"),
        (("data",), "### Data"),
        (("data", "hub_id"), "datasets:\n"),
        (("data", "license"), "Licences of the clips"),
        (("data", "split_method"), "The clips were split"),
        (("data", "splits", "test"), "| `test` |"),
        (("data", "splits", "train", "label_counts"), "| label | `train` |"),
        (("data", "splits", "test", "label_counts", "snare|rim"), "| `snare\\|rim` | 5 | 0 |"),
        (("data", "skipped_clips"), "Left out: 1 clip that could not be decoded"),
        (("features", "normalization"), "measured on 15 of 15"),
        (("training", "learning_rate"), "| learning rate |"),
        (("training", "augmentation"), "augmentation"),
        (("history",), "The training loss was"),
        (("evaluation", "split"), "Scored on the split"),
        (("evaluation", "clips"), f"`test` ({EVALUATION['clips']} clips)"),
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


@pytest.mark.parametrize("fixture", FIXTURES)
@pytest.mark.parametrize("name", ["run_summary.json", "config.json", "preprocessor_config.json"])
def test_any_entry_may_be_missing(tmp_path, fixture, name):
    file = make_checkpoint(tmp_path, fixture=fixture) / name
    content = file.read_text()
    paths = list_paths(json.loads(content))
    paths = [path for path in paths if path[0] != "id2label" or len(path) == 1]  # fewer labels are another model's
    assert len(paths) > (90 if name == "run_summary.json" else 5)
    for path in paths:
        file.write_text(content)
        edit_json(file, *path)
        check_no_gaps(render_model_card(file.parent))


def test_almost_nothing_known(tmp_path):
    folder = tmp_path / "unknown"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "run_summary.json").write_text("{}")
    card = render_model_card(folder)
    check_no_gaps(card)
    assert re.findall("^#+ .*", card, flags=re.MULTILINE) == ["# unknown", "## Use"]
    assert "](" not in card.replace("](https://arxiv.org/abs/2104.01778)", "")


@pytest.mark.parametrize("picture", PICTURES)
def test_only_pictures_that_exist_are_linked(checkpoint, picture):
    assert f"]({picture})" in render_model_card(checkpoint)
    (checkpoint / picture).unlink()
    assert picture not in render_model_card(checkpoint)


def test_facts_come_from_the_checkpoint(checkpoint):
    card = ASTModelCardData.from_checkpoint(checkpoint)
    assert card.parameters == 345  # by the weights' header, not by run_summary.json
    assert card.mean == FEATURES["mean"]
    assert card.labels == ["bell", "hat_closed", "snare|rim"]
    # the last of 96 windows of 400 samples, 160 apart, ends here
    assert card.max_seconds == pytest.approx((400 + 95 * 160) / 16000)

    (checkpoint / "model.safetensors").unlink()
    edit_json(checkpoint / "run_summary.json", "features", "mean", value=-7.6)  # rounded
    assert ASTModelCardData.from_checkpoint(checkpoint).mean == FEATURES["mean"]
    (checkpoint / "preprocessor_config.json").unlink()
    card = ASTModelCardData.from_checkpoint(checkpoint)
    assert card.parameters == RUN_SUMMARY["model"]["parameters"]
    assert card.mean == -7.6
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


@pytest.mark.parametrize(("channels", "text"), [("left", ", of several the left one,"), (3, ", of several number 3,")])
def test_which_channel_is_heard_if_it_is_not_the_mean(checkpoint, channels, text):
    edit_json(checkpoint / "preprocessor_config.json", "channels", value=channels)
    assert f"- one channel{text} at 16 kHz" in render_model_card(checkpoint)


def test_features_that_are_not_normalised_have_no_statistics(checkpoint):
    edit_json(checkpoint / "preprocessor_config.json", "do_normalize", value=False)
    assert "normalised" not in render_model_card(checkpoint)


def test_scores_with_both_ways_of_padding(checkpoint):
    longest = {"loss": 0.75, "accuracy": 0.125}
    edit_json(checkpoint / "run_summary.json", "evaluation", "metrics_padding_longest", value=longest)
    card = render_model_card(checkpoint)
    assert '| metric | value | value with padding="longest" |' in card
    accuracy, f1 = EVALUATION["metrics"]["accuracy"], EVALUATION["metrics"]["f1_macro"]
    assert f"| Accuracy | {accuracy:.4f} | 0.1250 |\n| F1 (macro) | {f1:.4f} |  |" in card
    accuracies = [result for result in ModelCard(card).data.eval_results if result.metric_type == "accuracy"]
    assert [result.metric_value for result in accuracies] == [round(accuracy, 4)]  # the way the saved checkpoint pads


@pytest.fixture
def multi_label(tmp_path):
    """A training on several labels a clip, with a validation split, averaged epochs and adapters."""
    return make_checkpoint(tmp_path, fixture="multi_label")


def test_a_multi_label_run_is_scored_and_used_by_its_own_rules(multi_label):
    card = render_model_card(multi_label)
    results = {result.metric_type: result.metric_value for result in ModelCard(card).data.eval_results}
    assert results["mean_average_precision"] == round(MULTI_LABEL["metrics"]["mean_average_precision"], 4)
    assert "accuracy" not in results, "the top label's accuracy is another thing"
    assert "confusion" not in card
    assert all(".sigmoid()" in snippet or "sigmoid" in snippet for snippet in get_snippets(card, "python")[:2])


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        (("ensemble",), "mean scores of"),
        (("ensemble", "epochs"), "mean scores of epochs 1 to 2"),
        (("averaged_epochs",), "The saved weights are the average"),
        (("last_epoch",), "last epoch's weights"),
        (("validation",), "on the validation split"),
        (("validation", "split"), "The split `valid`"),
        (("thresholds",), "threshold"),
        (("thresholds", "bell"), f"| {MULTI_LABEL['thresholds']['bell']:.3f} |"),
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
    table = f"| label | threshold |\n| --- | ---: |\n| `bell` | {MULTI_LABEL['thresholds']['bell']:.3f} |"
    assert table in render_model_card(multi_label)
    edit_json(multi_label / "run_summary.json", "evaluation", "thresholds", value={"bell": 0.5})
    with pytest.raises(ValueError, match="'threshold of bell' is 0.5 .* are not of the same run"):
        render_model_card(multi_label)


def test_averages_of_nothing_are_left_out(multi_label):
    """Without any positive clip every score is NaN, which the summary holds as null."""
    metrics = dict.fromkeys(MULTI_LABEL["metrics"], float("nan")) | {"loss": 0.3}
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
        assert len(snippets) == 3
        for snippet in snippets:
            compile(snippet, "snippet", "exec")
            assert json.dumps(folder.name) in snippet
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


def test_a_card_with_words_of_ones_own_is_kept(checkpoint, capsys):
    assert main([str(checkpoint)]) == 0
    for name, words in (("README.md.before", "My own words."), ("README.md.before_2", "Others.")):
        with open(checkpoint / "README.md", "a") as file:
            file.write(f"{words}\n")
        assert main([str(checkpoint)]) == 0
        assert f"is kept as {checkpoint / name}" in capsys.readouterr().out
        assert (checkpoint / name).read_text() == f"{EXPECTED.read_text()}{words}\n"
        assert (checkpoint / "README.md").read_text() == EXPECTED.read_text()


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
        (break_file("run_summary.json", '{"features": {"mean": -4.2}}'), r"'mean' is -4\.2 .* and -7\.5\d+ in"),
        (
            break_file("model.safetensors", "<html>"),
            r"model\.safetensors: its weights .* are damaged or cut off .*Copy or save the model again",
        ),
    ],
)
def test_wrong_input_is_answered_in_words(checkpoint, capsys, break_it, message):
    break_it(checkpoint)
    assert main([str(checkpoint)]) == 2
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
        for fixture in FIXTURES:
            card = render_model_card(make_checkpoint(Path(parent), fixture=fixture))
            (HERE / "fixtures" / fixture / "expected_card.md").write_text(card)


@pytest.mark.parametrize("name", ["run_summary.json", "preprocessor_config.json", "model.safetensors", "recipe.yaml"])
def test_a_device_in_the_folder_is_not_read(tmp_path, capsys, name):
    folder = make_checkpoint(tmp_path)
    (folder / name).unlink()
    make_special(folder / name, "device")
    with never_waits():
        assert main([str(folder)]) == 2
    assert f"ast-model-card: {folder / name} is a device, not a file." in capsys.readouterr().err
    assert not (folder / "README.md").exists()
