"""What a run calls its data."""

import datasets
import pytest

from finetune.arguments.groups import DataArguments
from finetune.clip_sets.audio_clips import AudioClips
from finetune.results.summary_sections import data_section


@pytest.mark.parametrize(
    ("given", "is_file", "name"),
    [
        ("sc_v0.02", False, "sc_v0.02"),
        ("sc_v0.02/", False, "sc_v0.02"),
        ("./esc.50", False, "esc.50"),
        ("folder.csv", False, "folder.csv"),
        ("clips.csv", True, "clips"),
        ("clips_v0.02.PARQUET", True, "clips_v0.02"),
        (".", False, "here_v1.5"),
    ],
)
def test_a_folder_with_dots_in_its_name_keeps_all_of_it(tmp_path, monkeypatch, given, is_file, name):
    here = tmp_path / "here_v1.5"
    here.mkdir()
    monkeypatch.chdir(here)
    path = here / given
    path.touch() if is_file else path.mkdir(exist_ok=True)
    features = datasets.Features({"label": datasets.ClassLabel(names=["a", "b"])})
    split = datasets.Dataset.from_dict({"label": [0, 1]}, features=features)
    section = data_section(DataArguments(dataset_name=given), {"train": AudioClips(split)}, "as given")
    assert (section["name"], section["hub_id"]) == (name, None)
