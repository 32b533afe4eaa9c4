"""The licence that a checkpoint inherits, and the notice of BSD-3-Clause that goes along with what derives from it."""

import json
from importlib import metadata
from pathlib import Path

import pytest
from huggingface_hub import constants

from finetune.training.trainer_card import license_in_words, license_section
from model_card.licenses import InheritedLicense, inherited_license, license_note, notice_text
from model_card.render import write_model_card

NOTICE = {
    "work": "the weights of somebody",
    "address": "https://example.org/ast",
    "copyright": "Copyright (c) 1999, Somebody. All rights reserved.",
}


def write_summary(folder: Path, **summary) -> str:
    (folder / "run_summary.json").write_text(json.dumps(summary))
    return str(folder)


def write_card(folder: Path, metadata: str) -> str:
    (folder / "README.md").write_text(f"---\n{metadata}\n---\n\n# A model\n")
    return str(folder)


def test_licence_and_notice_of_a_folder_are_those_of_its_summary(tmp_path):
    write_card(tmp_path, "license: mit")
    base = write_summary(tmp_path, license="apache-2.0", license_notice=NOTICE)
    assert inherited_license(base) == InheritedLicense("apache-2.0", NOTICE)


def test_without_a_summary_the_card_says_the_licence(tmp_path):
    assert inherited_license(write_card(tmp_path, "license: cc-by-4.0")) == InheritedLicense("cc-by-4.0", None)
    assert inherited_license(write_summary(tmp_path, license=None)).license == "cc-by-4.0"


@pytest.mark.parametrize(
    "card", ["license: other", "license: unknown", "license: [mit, cc0-1.0]", "tags: [audio]", "a: [", "x"]
)
def test_a_card_that_names_no_licence_gives_none(tmp_path, card):
    assert inherited_license(write_card(tmp_path, card)) == InheritedLicense()


@pytest.mark.parametrize("summary", ["", "[]", '{"license": '])
def test_a_broken_summary_gives_none(tmp_path, summary):
    (tmp_path / "run_summary.json").write_text(summary)
    assert inherited_license(str(tmp_path)) == InheritedLicense()


def test_bsd_weights_that_say_no_more_are_named_by_their_own_name(tmp_path):
    base = write_card(tmp_path, "license: bsd-3-clause")
    assert inherited_license(base).notice == {"work": f"the checkpoint {tmp_path.name}"}


def test_a_hub_id_is_answered_from_the_cache_without_a_network(tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    assert inherited_license("somebody/ast") == InheritedLicense()
    snapshot = tmp_path / "models--somebody--ast" / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (tmp_path / "models--somebody--ast" / "refs").mkdir()
    (tmp_path / "models--somebody--ast" / "refs" / "main").write_text("0" * 40)
    write_card(snapshot, "license: bsd-3-clause")
    notice = {"work": "the model somebody/ast", "address": "https://huggingface.co/somebody/ast"}
    assert inherited_license("somebody/ast") == InheritedLicense("bsd-3-clause", notice)
    write_summary(snapshot, license="bsd-3-clause", license_notice=NOTICE)
    assert inherited_license("somebody/ast") == InheritedLicense("bsd-3-clause", NOTICE)


def test_a_folder_that_is_gone_says_nothing(tmp_path):
    assert inherited_license(str(tmp_path / "gone")) == InheritedLicense()


@pytest.mark.parametrize("license", [None, "mit", "CC0-1.0", "cc-by-sa-3.0", "other"])
def test_a_licence_of_the_hub_s_list_needs_no_words(license):
    assert license_note(license) is None


@pytest.mark.parametrize(
    ("license", "hint"),
    [
        ("CC0", "or cc0-1.0?"),
        ("apache 2.0", "did you mean apache-2.0"),
        ("house rules", "other is one of them"),
    ],
)
def test_a_licence_that_the_hub_does_not_list_is_named_with_the_nearest(license, hint):
    note = license_note(license)
    assert f"licence {license!r} is not in the Hub's list" in note
    assert hint in note


def test_a_licence_that_was_given_stands_and_the_notice_stays(tmp_path):
    base = write_summary(tmp_path, license="bsd-3-clause", license_notice=NOTICE)
    assert license_section("mit", base) == {"license": "mit", "license_notice": NOTICE}
    assert license_section(None, base) == {"license": "bsd-3-clause", "license_notice": NOTICE}
    assert license_section(None, None) == {"license": None}
    assert license_in_words("mit", "user/ast") == "licence mit, that of user/ast; otherwise pass --license"
    assert license_in_words(None, "user/ast") == "user/ast names no licence: pass --license to have one on the card"


def test_the_notice_holds_the_words_of_the_licence():
    """They are those that another package of this environment is distributed under."""
    (file,) = [file for file in metadata.files("contourpy") if file.name == "LICENSE"]
    words = " ".join(file.read_text().replace("* ", "").split())
    text = notice_text(NOTICE)
    licence = " ".join(text[text.index("Redistribution and use") :].split())
    assert licence in words
    assert f"\n{NOTICE['copyright']}\n\nRedistribution" in text
    assert text.startswith("This checkpoint derives from the weights of somebody.\nIt is at https://example.org")


@pytest.mark.parametrize(
    "known", [{}, {"work": "the weights of X"}, {"address": "https://example.org"}, {"copyright": "Copyright (c) X"}]
)
def test_a_notice_of_which_only_a_part_is_known(known):
    text = notice_text(known)
    assert all(value in text for value in known.values())
    assert "None" not in text


def test_the_card_and_the_notice_are_written_together_and_only_where_there_is_one(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    write_summary(tmp_path, license="mit")
    write_model_card(tmp_path)
    assert not (tmp_path / "NOTICE").exists()
    write_summary(tmp_path, license="mit", license_notice=NOTICE)
    card = write_model_card(tmp_path).read_text()
    assert (tmp_path / "NOTICE").read_text() == notice_text(NOTICE)
    assert "[NOTICE](NOTICE) and has to go along with every copy" in card
    assert "license: mit" in card
