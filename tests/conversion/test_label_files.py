"""Label tables: the built-in ones against the authors' lists typed in here, the user's own in every spelling and misspelling."""

import csv
import dataclasses
import hashlib
import json
import random

import pytest
from transformers import ASTConfig

from conversion.errors import ConversionError
from conversion.label_files import read_labels
from conversion.original_datasets import ORIGINAL_DATASETS

# Output order of the released checkpoints. Source: class_labels_indices.csv of each recipe of YuanGongND/ast.
ESC50 = (
    "dog rooster pig cow frog cat hen insects sheep crow rain sea_waves crackling_fire crickets chirping_birds "
    "water_drops wind pouring_water toilet_flush thunderstorm crying_baby sneezing clapping breathing coughing footsteps "
    "laughing brushing_teeth snoring drinking_sipping door_wood_knock mouse_click keyboard_typing door_wood_creaks "
    "can_opening washing_machine vacuum_cleaner clock_alarm clock_tick glass_breaking helicopter chainsaw siren car_horn "
    "engine train church_bells airplane fireworks hand_saw"
)
SPEECH_COMMANDS = (
    "backward follow five bed zero on learn two house tree dog stop seven eight down six forward cat right visual four "
    "wow no nine off three left marvin yes up sheila happy bird go one"
)
AUDIOSET = {
    0: "Speech",
    1: "Male speech, man speaking",
    73: "Domestic animals, pets",
    74: "Dog",
    137: "Music",
    289: "Rain",
    428: "Machine gun",
    524: "Television",
    525: "Radio",
    526: "Field recording",
}
AUDIOSET_DIGEST = "0b14c3a038e682627b9d4133084a7b63f805a7ab61896c5df8d3ec227af18c18"  # of the 527 names, a line each


def refusal(path):
    """The message of the refusal, which names the file."""
    with pytest.raises(ConversionError) as raised:
        read_labels(str(path))
    words = str(raised.value)
    assert str(path) in words
    assert words.endswith(".")
    return words


@pytest.fixture
def table(tmp_path):
    """Write a table: `table("labels.csv", text or bytes or a JSON object)`."""

    def write(name, content):
        path = tmp_path / name
        if not isinstance(content, str | bytes):
            content = json.dumps(content)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write


# Built-in tables


def test_the_built_in_tables_are_those_of_the_three_data_sets():
    assert list(ORIGINAL_DATASETS) == ["audioset", "speech_commands_v2", "esc50"]


@pytest.mark.parametrize(("name", "words"), [("esc50", ESC50), ("speech_commands_v2", SPEECH_COMMANDS)])
def test_small_tables_are_the_authors_lists(name, words):
    assert read_labels(name) == words.split()


def test_audioset_has_the_authors_527_names():
    labels = read_labels("audioset")
    assert len(labels) == 527
    assert {index: labels[index] for index in AUDIOSET} == AUDIOSET
    assert hashlib.sha256("\n".join(labels).encode()).hexdigest() == AUDIOSET_DIGEST


# Source: run.sh of the three recipes of YuanGongND/ast.
@pytest.mark.parametrize(
    "facts",
    [
        ("audioset", "AudioSet", 527, "multi_label_classification", 1024, -4.2677393, 4.5689974),
        ("speech_commands_v2", "Speech Commands v2", 35, "single_label_classification", 128, -6.845978, 5.5654526),
        ("esc50", "ESC-50", 50, "single_label_classification", 512, -6.6268077, 5.358466),
    ],
    ids=lambda facts: facts[0],
)
def test_facts_of_the_recipes(facts):
    dataset = ORIGINAL_DATASETS[facts[0]]
    assert dataclasses.astuple(dataset) == facts
    assert len(read_labels(facts[0])) == dataset.num_labels


def test_the_facts_are_read_only():
    with pytest.raises(TypeError):
        ORIGINAL_DATASETS["mine"] = ORIGINAL_DATASETS["esc50"]
    with pytest.raises(dataclasses.FrozenInstanceError):
        ORIGINAL_DATASETS["esc50"].num_labels = 51


@pytest.mark.parametrize(
    ("name", "close"),
    [
        ("audioste", "audioset"),
        ("esc-50", "esc50"),
        ("speech_commands", "speech_commands_v2"),
        ("speech_comands_v2", "speech_commands_v2"),
    ],
)
def test_a_misspelt_table_gets_the_closest_name(name, close):
    words = refusal(name)
    assert words.startswith(
        f"--labels {name} is neither a file nor a built-in table (audioset, speech_commands_v2, esc50). Did you mean {close}? "
    )
    assert words.endswith("Give a CSV or JSON file of the names in the order of the outputs.")


@pytest.mark.parametrize("name", ["urbansound8k", "gone/labels.csv", "labels.json"])
def test_an_unknown_table_gets_no_far_fetched_guess(name):
    words = refusal(name)
    assert words.startswith(f"--labels {name} is neither a file nor a built-in table (")
    assert "Did you mean" not in words


def test_a_folder_is_no_table(tmp_path):
    assert "is neither a file nor a built-in table" in refusal(tmp_path)


def test_a_built_in_name_comes_before_a_file_of_that_name(table, tmp_path, monkeypatch):
    table("esc50", "label\nmine\n")
    monkeypatch.chdir(tmp_path)
    assert read_labels("esc50") == ESC50.split()


# CSV


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("index,mid,display_name\n0,/m/1,ay\n1,/m/2,bee\n", ["ay", "bee"]),
        ("index,mid,display_name\n1,/m/2,bee\n0,/m/1,ay\n", ["ay", "bee"]),
        ("display_name,index\nbee,1\nay,0\n", ["ay", "bee"]),
        ("label\nbee\nay\n", ["bee", "ay"]),
        ("name\nbee\nay", ["bee", "ay"]),
        ("id,name\n7,bee\n3,ay\n", ["bee", "ay"]),
        ("name,display_name,label\nx,bee,1\ny,ay,2\n", ["bee", "ay"]),
        ("name,label\nx,bee\ny,ay\n", ["bee", "ay"]),
        ("label\r\nbee\r\nay\r\n", ["bee", "ay"]),
        ("label\nbee\n\nay\n\n", ["bee", "ay"]),
        ('index,label\n0,"Male speech, man speaking"\n1,"say ""ah"""\n', ["Male speech, man speaking", 'say "ah"']),
        ("label\nTür\n犬\n", ["Tür", "犬"]),
        ("index,label\n00,ay\n 1 ,bee\n", ["ay", "bee"]),
    ],
    ids=[
        "as_the_original",
        "out_of_order",
        "index_behind",
        "label",
        "name",
        "another_column",
        "display_name_first",
        "label_before_name",
        "windows",
        "blank_lines",
        "quotes",
        "other_alphabets",
        "index_with_blanks",
    ],
)
@pytest.mark.parametrize("byte_order_mark", [False, True])
def test_spellings_of_a_csv(table, text, labels, byte_order_mark):
    path = table("labels.csv", text.encode("utf-8-sig" if byte_order_mark else "utf-8"))
    assert read_labels(str(path)) == labels


@pytest.mark.parametrize("name", ["labels.csv", "labels.CSV", "labels.txt", "labels"])
def test_whatever_is_not_called_json_is_read_as_csv(table, name):
    assert read_labels(str(table(name, "label\nbee\nay\n"))) == ["bee", "ay"]


def test_a_hundred_indices_are_ordered_as_numbers(table):
    names = [f"class {index}" for index in range(100)]
    rows = [f"{index},{name}" for index, name in enumerate(names)]
    random.Random(0).shuffle(rows)
    assert read_labels(str(table("labels.csv", "\n".join(["index,label", *rows])))) == names


@pytest.mark.parametrize("character", [",", '"', "'", ";", "\t", "\u2028", "\x85", "\x0c"])
def test_what_a_csv_writer_wrote_comes_back(tmp_path, character):
    names = [f"one{character}two", "three"]
    with open(tmp_path / "labels.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["index", "label"], *enumerate(names)])
    assert read_labels(str(tmp_path / "labels.csv")) == names


NUMBER_THEM = r"the indices of \d labels are not 0 to \d, each once\. Number them so, in the order of the outputs\."


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "index,label\n0,a\n0,b\n",
            r"labels\.csv: the indices of 2 labels are not 0 to 1, each once\. Number them so",
        ),
        ("index,label\n0,a\n2,b\n", NUMBER_THEM),
        ("index,label\n1,a\n2,b\n", NUMBER_THEM),
        ("index,label\n-1,a\n0,b\n", NUMBER_THEM),
        (
            "index,label\n0,a\n1,b\n2,a\n",
            r"labels\.csv holds a more than once\. Give every output a name of its own\.",
        ),
        ("label\nb\na\nb\na\nc\n", r"holds a, b more than once\."),
        ("label\n" + "\n".join("abcdefg" * 2), r"holds a, b, c, d, e more than once\."),
        ("index,label\n0,\n1,b\n", r"holds no label or an empty one\. Give every output a name of its own\."),
        (
            "index,word\n0,a\n",
            "it has the columns index, word, expected one of display_name, label, name, and perhaps",
        ),
        ("dog\ncat\n", r"it has the columns dog, expected one of .*\. Add that header line\."),
        ("index;label\n0;a\n", "it has the columns index;label, expected one of display_name, label, name"),
        ("", "labels.csv: .*expected one of display_name, label, name"),
        ("index,label\n", r"labels.csv"),
        ("index,label\none,a\n", "labels.csv .*'one'"),
        ("index,label\n0.0,a\n", r"labels.csv .*'0\.0'"),
        ("index,label\n,a\n", "labels.csv .*''"),
        ('label\n"' + "a" * 200_000 + '"\n', "cannot be read as a label table: .*Give a CSV or JSON file"),
        ("label\nCafé\n".encode("latin-1"), "cannot be read as a label table: .*utf-8.*Give a CSV or JSON file"),
        ("label\na\n".encode("utf-16"), "cannot be read as a label table: .*utf-8.*Give a CSV or JSON file"),
        (b"PK\x03\x04\x14\x00", "labels.csv"),
    ],
    ids=[
        "doubled_index",
        "gap",
        "from_1",
        "negative",
        "doubled_name",
        "two_doubled_names",
        "many_doubled_names",
        "empty_name",
        "no_usable_column",
        "no_header",
        "semicolons",
        "empty",
        "only_a_header",
        "index_in_words",
        "broken_index",
        "empty_index",
        "endless_field",
        "latin",
        "utf16",
        "spreadsheet",
    ],
)
def test_a_csv_that_cannot_be_a_table_is_refused(table, text, words):
    path = table("labels.csv", text)
    with pytest.raises(ConversionError, match=words):
        read_labels(str(path))
    refusal(path)


@pytest.mark.parametrize(
    "text",
    [
        "index,mid,label\n0,/m/1\n1,/m/2,b\n",
        "index,label\n0\n1\n",
        "label,index\na\nb,1\n",
        "index,label\n0,Male speech, man speaking\n1,Music\n",
    ],
    ids=["one_without_a_name", "none_with_a_name", "one_without_an_index", "a_comma_without_quotes"],
)
def test_a_row_with_too_few_or_too_many_cells_is_refused(table, text):
    refusal(table("labels.csv", text))


@pytest.mark.parametrize("header", ["Index,label", "INDEX,label", " index,label"])
def test_an_index_column_is_never_passed_over(table, header):
    path = table("labels.csv", f"{header}\n1,bee\n0,ay\n")
    try:
        labels = read_labels(str(path))
    except ConversionError:
        return  # an answer as good as obeying it
    assert labels == ["ay", "bee"]


# JSON


@pytest.mark.parametrize(
    ("content", "labels"),
    [
        (["bee", "ay"], ["bee", "ay"]),
        ({"1": "bee", "0": "ay"}, ["ay", "bee"]),
        ({"bee": 1, "ay": 0}, ["ay", "bee"]),
        ({"id2label": {"1": "bee", "0": "ay"}}, ["ay", "bee"]),
        ({"model_type": "x", "id2label": {"0": "ay"}, "label2id": {"ay": 0}, "hidden_size": 3}, ["ay"]),
        ({"1": 0, "0": 1}, ["1", "0"]),  # digits as names: the direction is told by the values
        ({"0": "1", "1": "0"}, ["1", "0"]),
        ([1, 2], ["1", "2"]),
    ],
    ids=["list", "id2label", "label2id", "short_config", "config", "digits_to_index", "index_to_digits", "numbers"],
)
@pytest.mark.parametrize("name", ["labels.json", "LABELS.JSON"])
def test_spellings_of_a_json(table, name, content, labels):
    assert read_labels(str(table(name, content))) == labels


def test_a_json_with_a_byte_order_mark(table):
    assert read_labels(str(table("labels.json", '["Tür", "bee"]'.encode("utf-8-sig")))) == ["Tür", "bee"]


def test_a_configuration_of_stock_transformers(tmp_path):
    names = [f"class {index}" for index in range(12)]  # so that "10" must come after "9"
    labels = {"id2label": dict(enumerate(names)), "label2id": {name: index for index, name in enumerate(names)}}
    ASTConfig(**labels).save_pretrained(tmp_path)
    assert read_labels(str(tmp_path / "config.json")) == names


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("3", r"labels\.json: it holds 3, expected a list or an object of label names\."),
        ('"dog"', "it holds 'dog', expected a list or an object of label names"),
        ("null", "it holds None, expected a list or an object of label names"),
        ('"' + "x" * 500 + '"', r"it holds 'x{59}, expected a list"),
        ('{"id2label": 3}', "it holds 3, expected a list"),
        ('{"0": ', r"labels\.json cannot be read as a label table: Expecting value.*\. Give a CSV or JSON file\."),
        ("", "labels.json cannot be read as a label table"),
        ("index,label\n0,a\n", "labels.json cannot be read as a label table"),
        ('{"0": "a", "2": "b"}', NUMBER_THEM),
        ('{"1": "a", "2": "b"}', NUMBER_THEM),
        ('{"a": 0, "b": 0}', NUMBER_THEM),
        ('{"a": 0, "b": 2}', NUMBER_THEM),
        ('{"0": "a", "00": "b"}', NUMBER_THEM),
        ('{"0": "a", "one": "b"}', "labels.json .*'one'"),
        ('{"a": 0, "b": "1"}', "labels.json .*'a'"),
        ('["a", "b", "a"]', "holds a more than once"),
        ('["a", ""]', "holds no label or an empty one"),
        ("[]", "holds no label or an empty one"),
        ("{}", "holds no label or an empty one"),
    ],
)
def test_a_json_that_cannot_be_a_table_is_refused(table, content, words):
    path = table("labels.json", content)
    with pytest.raises(ConversionError, match=words):
        read_labels(str(path))
    refusal(path)


@pytest.mark.parametrize(
    "content",
    [["a", None], {"0": None, "1": "b"}, [["a"], ["b"]], [{"name": "a"}], {"0": {"name": "a"}}],
    ids=["null_in_list", "null_in_object", "lists", "objects_in_list", "objects"],
)
def test_what_is_no_name_does_not_become_one(table, content):
    refusal(table("labels.json", content))


def test_a_configuration_without_labels_is_refused(table):
    refusal(table("config.json", {"model_type": "audio-spectrogram-transformer", "hidden_size": 192}))
