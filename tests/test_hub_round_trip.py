"""From clips to the Hub and back: data sets, a training, its checkpoint, both pipelines, a second training from it.

Everything is asked of the loopback Hub by the unmodified clients of Transformers, datasets and huggingface_hub.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from hub_repositories import card_metadata
from huggingface_hub import ModelCardData
from safetensors.torch import load_file
from tiny_trainings import SIZES

from model_card.render import render_model_card
from modeling_ast import ASTFeatureExtractor, ASTForAudioClassification

TINY = SIZES | {"max_length": 96}
TRAINING = {"num_train_epochs": 1, "learning_rate": 1e-3, "use_cpu": True, "disable_tqdm": True}

PUSH_DATA = """
import json
from pathlib import Path
from datasets import Audio, ClassLabel, Dataset, DatasetDict, load_dataset
from huggingface_hub import HfApi
rows = json.loads(Path("rows.json").read_text())
names = sorted({row["label"] for row in rows})
splits = {
    split: Dataset.from_list([{"audio": row["path"], "label": row["label"]} for row in rows if row["split"] == split])
    .cast_column("audio", Audio())
    .cast_column("label", ClassLabel(names=names))
    for split in ("train", "test")
}
DatasetDict(splits).push_to_hub("user/audio-set", private=True)
HfApi().create_repo("user/audio-folder", repo_type="dataset")
HfApi().upload_folder(repo_id="user/audio-folder", repo_type="dataset", folder_path="clips")
for name in ("user/audio-set", "user/audio-folder"):
    for split, clips in load_dataset(name).items():
        clips = clips.cast_column("audio", Audio(decode=False))
        label = clips.features["label"].int2str
        contents = [clip["audio"]["bytes"] or Path(clip["audio"]["path"]).read_bytes() for clip in clips]
        found = [(label(clip["label"]), content.hex()) for clip, content in zip(clips, contents)]
        print(json.dumps([name, split, found]))
"""

LOAD = """
import re, shutil, soundfile, torch
from huggingface_hub import hf_hub_download
from transformers import AutoFeatureExtractor, AutoModelForAudioClassification, pipeline
from modeling_ast import ASTFeatureExtractor, ASTForAudioClassification, register

def logits(extractor, model, **revision):
    samples, rate = soundfile.read(CLIP, dtype="float32")
    extractor = extractor.from_pretrained("user/name", **revision)
    inputs = extractor(samples, sampling_rate=rate, return_tensors="pt")["input_values"]
    with torch.no_grad():
        return model.from_pretrained("user/name", **revision).eval()(inputs).logits[0].tolist()

def scores(classifier, clip):
    found["modules"].append(type(classifier.model).__module__.rsplit(".", 1)[0])
    found["scores"].append({row["label"]: row["score"] for row in classifier(clip, top_k=None)})

def run_snippet():
    # the first one of the card on the Hub, as somebody would who found it there
    card = open(hf_hub_download("user/name", "README.md")).read()
    shutil.copy(CLIP, "clip.wav")
    scope = {}
    exec(re.search(r"```python\\n(.*?)```", card, re.DOTALL)[1], scope)
    rows = scope["classifier"](scope["clip"], top_k=None)
    found["by_the_card"] = {row["label"]: row["score"] for row in rows}

def load():
    found["logits"] = [
        logits(ASTFeatureExtractor, ASTForAudioClassification),
        logits(AutoFeatureExtractor, AutoModelForAudioClassification),
    ]
    samples, rate = soundfile.read(CLIP, dtype="float32")
    scores(pipeline("audio-classification", model="user/name"), {"raw": samples, "sampling_rate": rate})
    register()
    scores(pipeline("audio-classification", model="user/name"), CLIP)
"""


@pytest.fixture
def clips(hub, drum_rows):
    """Four training and two test clips of three drums, as rows and as a folder of class folders."""
    rows = []
    for label in ("bell", "hat_closed", "kick"):
        for split, count in (("train", 4), ("test", 2)):
            rows += [row for row in drum_rows if row["label"] == label and row["split"] == split][:count]
    (hub.home / "rows.json").write_text(json.dumps(rows))
    for row in rows:
        copy = hub.home / "clips" / row["split"] / row["label"] / Path(row["path"]).name
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(Path(row["path"]).read_bytes())
    return rows


def logits_of(checkpoint: Path, clip: str) -> np.ndarray:
    samples, rate = soundfile.read(clip, dtype="float32")
    inputs = ASTFeatureExtractor.from_pretrained(checkpoint)(samples, sampling_rate=rate, return_tensors="pt")
    with torch.no_grad():
        model = ASTForAudioClassification.from_pretrained(checkpoint).eval()
        return model(inputs["input_values"]).logits[0].numpy()


def flags(**fields) -> list[str]:
    return [word for name, value in fields.items() for word in (f"--{name}", str(value))]


def test_a_training_from_hub_data_is_pushed_loaded_back_and_trained_further(hub, clips):
    loaded = [json.loads(line) for line in hub.run(PUSH_DATA).stdout.splitlines()]
    assert [(name, split) for name, split, _ in loaded] == [
        ("user/audio-set", "train"), ("user/audio-set", "test"),
        ("user/audio-folder", "train"), ("user/audio-folder", "test"),
    ]  # fmt: skip
    for _, split, found in loaded:
        sent = [(row["label"], Path(row["path"]).read_bytes().hex()) for row in clips if row["split"] == split]
        assert sorted(map(tuple, found)) == sorted(sent)

    first, second = hub.home / "first", hub.home / "second"
    clip = clips[-1]["path"]
    begin = flags(dataset_name="user/audio-set", output_dir=first, **TINY, **TRAINING)
    go_on = flags(dataset_name="user/audio-folder", output_dir=second, model_name_or_path="user/name", **TRAINING)
    done = hub.run(
        f"CLIP = {clip!r}\n{LOAD}"
        + f"""
import json
from huggingface_hub import HfApi
from finetune.run_finetune import main as finetune
from model_card.run_push import main as push
codes = [finetune({begin}), push([{str(first)!r}, "--repo_id", "user/name"])]
found = {{"modules": [], "scores": []}}
run_snippet()
load()
codes += [finetune({go_on}), push([{str(second)!r}, "--repo_id", "user/name"])]
found["newest"] = logits(ASTFeatureExtractor, ASTForAudioClassification)
older = HfApi().list_repo_commits("user/name")[1].commit_id
found["pinned"] = logits(ASTFeatureExtractor, ASTForAudioClassification, revision=older)
print(json.dumps(found | {{"codes": codes}}))
"""
    )
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["codes"] == [0, 0, 0, 0]

    # What came back is what is in the folder on this side, read without a Hub.
    assert found["modules"] == ["transformers.models.audio_spectrogram_transformer", "modeling_ast"]
    expected = logits_of(first, clip)
    for logits in (*found["logits"], found["pinned"]):
        np.testing.assert_allclose(logits, expected, atol=1e-5)
    np.testing.assert_allclose(found["newest"], logits_of(second, clip), atol=1e-5)
    labels = ASTForAudioClassification.from_pretrained(first).config.id2label
    probabilities = np.exp(expected) / np.exp(expected).sum()
    for scores in (*found["scores"], found["by_the_card"]):
        np.testing.assert_allclose([scores[labels[index]] for index in range(len(labels))], probabilities, atol=1e-5)

    # Two commits, each the folder that was pushed, the second trained from the first.
    commits = hub.commits("user/name")
    assert [commit.title for commit in commits] == ["Upload second", "Upload first", "initial commit"]
    for folder, commit in zip((second, first), commits, strict=False):
        published = hub.files("user/name", revision=commit.sha)
        assert {"model.safetensors", "config.json", "preprocessor_config.json", "README.md"} <= set(published)
        del published["recipe.yaml"]  # of which folders of this machine are left out
        assert published.pop("README.md").decode() == render_model_card(folder, "user/name")
        assert all((folder / path).read_bytes() == content for path, content in published.items())
    before, after = (load_file(folder / "model.safetensors") for folder in (first, second))
    assert not any(torch.equal(before[name], after[name]) for name in before)
    cards = [ModelCardData(**card_metadata(commit.files["README.md"].content.decode())) for commit in commits[1::-1]]
    assert [card.datasets for card in cards] == [["user/audio-set"], ["user/audio-folder"]]
    assert [card.base_model for card in cards] == [None, "user/name"]


@pytest.mark.long
@pytest.mark.parametrize("name", ["user/audio-set", "user/audio-folder"])
def test_data_on_the_hub_can_be_streamed(hub, clips, name):
    hub.run(PUSH_DATA)
    downloads = len(hub.requests)
    argv = flags(dataset_name=name, output_dir=hub.home / "run", streaming=True, **TINY, **TRAINING)
    assert "12 training clips, 6 to score" in hub.run(["-m", "finetune.run_finetune", *argv]).stdout
    assert any(request.status == 206 for request in hub.requests[downloads:])


@pytest.mark.long
def test_data_and_models_that_cannot_be_seen_are_said_in_words(hub, clips):
    """A private repository is, without its owner's token, no different from one that is not there."""
    hub.run(
        """
from huggingface_hub import HfApi
HfApi().create_repo("user/private", private=True)
HfApi().create_repo("user/private", private=True, repo_type="dataset")
"""
    )
    argv = flags(output_dir=hub.home / "run", **TRAINING)
    done = hub.run(
        f"""
from finetune.run_finetune import main
print(main({argv} + ["--dataset_name", "user/private", "--hidden_size", "32"]))
print(main({argv} + ["--dataset_name", "clips", "--model_name_or_path", "user/private"]))
""",
        token=None,
    )
    assert done.stdout == "2\n2\n"
    data, model = (line for line in done.stderr.splitlines() if line.startswith("ast-finetune: user/private"))
    assert "doesn't exist on the Hub or cannot be accessed" in data
    assert "Check --dataset_name" in data
    assert "is not a local folder and is not a valid model identifier" in model
    assert "hf auth login" in done.stderr
