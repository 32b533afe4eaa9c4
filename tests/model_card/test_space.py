"""The Space that `ast-push --space` writes: read as the Hub reads it, and run with nothing but what it asks for.

`python -S` with a folder of links to the distributions that `requirements.txt` leads to stands for a fresh installation:
neither this checkout nor any other installed package can be imported there.
"""

import ast
import json
import re
import subprocess
import sys
from configparser import ConfigParser
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from huggingface_hub import SpaceCard
from packaging.requirements import Requirement
from packaging.version import Version
from transformers import pipeline

from model_card import space
from model_card.space import write_space
from modeling_ast import ASTConfig, ASTFeatureExtractor, ASTForAudioClassification
from modeling_ast.tagging.none_of_these import KnownClips

ROOT = Path(__file__).parents[2]
LABELS = ["bell", "crash", "kick", "snare"]


@pytest.fixture
def space_folder(tmp_path) -> Path:
    folder = tmp_path / "space"
    write_space(folder, "user/drums", license="cc-by-sa-3.0")
    return folder


def requirements_of(folder: Path) -> list[Requirement]:
    return [Requirement(line) for line in (folder / "requirements.txt").read_text().splitlines()]


def distributions_for(requirements: list[Requirement]) -> dict[str, metadata.Distribution]:
    """What pip would install for these requirements, as it is installed here."""
    found, wanted = {}, [(requirement.name, frozenset(requirement.extras)) for requirement in requirements]
    while wanted:
        name, extras = wanted.pop()
        if (name, extras) in found:
            continue
        found[name, extras] = metadata.distribution(name)
        for requirement in map(Requirement, found[name, extras].requires or []):
            marker = requirement.marker
            if marker is None or any(marker.evaluate({"extra": extra}) for extra in ("", *extras)):
                wanted.append((requirement.name, frozenset(requirement.extras)))
    return {name: distribution for (name, _), distribution in found.items()}


def install(requirements: list[Requirement], folder: Path) -> Path:
    """A folder with links to all that these requirements lead to, and to nothing else."""
    folder.mkdir()
    for distribution in distributions_for(requirements).values():
        home = Path(distribution.locate_file(""))
        for name in {file.parts[0] for file in distribution.files} - {"..", "__pycache__"}:
            if not (folder / name).exists():
                (folder / name).symlink_to(home / name)
    return folder


def imported_modules(source: Path) -> set[str]:
    """Absolute names of all that a file imports, also within functions."""
    names = set()
    for node in ast.walk(ast.parse(source.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            package = source.parents[max(node.level, 1) - 1]
            above = source.parents[len(source.parts) - 2 - source.parts.index("modeling_ast")] if node.level else None
            inside = [above.name, *package.relative_to(above).parts] if above else []
            names |= {".".join([*inside, name]) for name in ([node.module] if node.module else [])}
    return names


def test_the_metadata_block_is_what_the_hub_reads(space_folder):
    card = SpaceCard.load(space_folder / "README.md")
    card_data = card.data.to_dict()
    assert card_data["title"] == "drums"
    assert (card_data["sdk"], card_data["app_file"]) == ("gradio", "app.py")
    assert card_data["sdk_version"] == metadata.version("gradio")
    assert card_data["python_version"] == f"{sys.version_info.major}.{sys.version_info.minor}"  # text: 3.10 is not 3.1
    assert card_data["models"] == ["user/drums"]
    assert card_data["license"] == "cc-by-sa-3.0"
    assert 0 < len(card_data["short_description"]) <= 60  # the Hub takes no more
    colors = {"red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray"}
    assert {card_data["colorFrom"], card_data["colorTo"]} <= colors
    assert "(https://huggingface.co/user/drums)" in card.text


def test_an_unknown_license_is_left_out(tmp_path):
    write_space(tmp_path / "space", "user/drums")
    assert SpaceCard.load(tmp_path / "space" / "README.md").data.license is None
    assert "None" not in (tmp_path / "space" / "README.md").read_text()


def test_the_copies_are_unchanged_and_say_whence_they_are(space_folder):
    copies = sorted((space_folder / "modeling_ast").rglob("*.py"))
    names = {copy.relative_to(space_folder / "modeling_ast").as_posix() for copy in copies}
    there = {file.relative_to(ROOT / "modeling_ast").as_posix() for file in (ROOT / "modeling_ast").rglob("*.py")}
    assert there - names == set(space.NOT_VENDORED), "each of them is a file, and the others are there"
    for copy in copies:
        assert copy.read_bytes() == (ROOT / copy.relative_to(space_folder)).read_bytes()
    for name in space.PAGE:
        assert (space_folder / name).read_bytes() == (ROOT / "model_card" / name).read_bytes()
    assert (space_folder / "modeling_ast" / "LICENSE").read_text() == (ROOT / "LICENSE").read_text()
    assert f"ast-kit {metadata.version('ast-kit')}" in (readme := (space_folder / "README.md").read_text())
    head = subprocess.run(["git", "-C", ROOT, "rev-parse", "HEAD"], capture_output=True, text=True).stdout.strip()
    assert head in readme  # empty where this is no checkout


def test_the_files_are_those_the_readme_lists_and_no_others(tmp_path):
    written = write_space(tmp_path / "space", "user/drums")
    assert written == sorted(path for path in (tmp_path / "space").rglob("*") if path.is_file())
    names = {path.relative_to(tmp_path / "space").parts[0] for path in written}
    table = re.findall(r"^\| (.*?) \|", (tmp_path / "space" / "README.md").read_text(), re.MULTILINE)
    assert names == {"README.md", *re.findall(r"`([\w.]+)/?`", " ".join(table))}
    assert {path.suffix for path in written if path.parent.name == "modeling_ast"} == {".py", ""}  # LICENSE has none


def test_nothing_of_this_machine_goes_along(space_folder, tmp_path):
    places = {str(ROOT), str(tmp_path), sys.prefix}
    for path in filter(Path.is_file, space_folder.rglob("*")):
        assert not [place for place in places if place in path.read_text()], path


def test_every_import_is_vendored_or_required(space_folder):
    tops = {}
    for name, distribution in distributions_for(requirements_of(space_folder)).items():
        tops |= dict.fromkeys({file.parts[0].removesuffix(".py") for file in distribution.files}, name)
    for source in space_folder.rglob("*.py"):
        for module in imported_modules(source):
            top, _, rest = module.partition(".")
            if top in ("modeling_ast", "demo_page", "page_guard"):
                place = space_folder / module.replace(".", "/")
                is_there = place.with_suffix(".py").is_file() or (place / "__init__.py").is_file()
                assert is_there or not rest, f"{source}: {module}"
            else:
                assert top in tops or top in sys.stdlib_module_names, (
                    f"{source} imports {module}, which is not required"
                )


def test_requirements_are_imported_and_bounded_as_in_setup_cfg(space_folder):
    config = ConfigParser()
    config.read(ROOT / "setup.cfg")
    lines = config["options"]["install_requires"] + config["options.extras_require"]["demo"]
    bounds = {item.name: item.specifier for item in map(Requirement, lines.strip().splitlines())}
    imported = {
        module.partition(".")[0] for source in space_folder.rglob("*.py") for module in imported_modules(source)
    }
    for requirement in requirements_of(space_folder):
        assert requirement.specifier == bounds[requirement.name]
        assert requirement.name in imported
    sdk_version = SpaceCard.load(space_folder / "README.md").data.sdk_version
    assert Version(sdk_version) in bounds["gradio"]


def test_without_gradio_here_the_space_gets_the_lowest_tested_one(tmp_path, monkeypatch):
    def version(name):
        return None if name == "gradio" else metadata.version(name)

    monkeypatch.setattr(space, "package_version", version)
    write_space(tmp_path / "space", "user/drums")
    sdk_version = SpaceCard.load(tmp_path / "space" / "README.md").data.sdk_version
    gradio = next(item for item in requirements_of(tmp_path / "space") if item.name == "gradio")
    assert str(gradio.specifier) == f">={sdk_version}"


def test_a_kit_that_is_not_installed_says_what_to_type(tmp_path, monkeypatch):
    monkeypatch.setattr(space, "DISTRIBUTION", "ast-kit-that-nobody-installed")
    with pytest.raises(ValueError, match=r"not installed.* Type pip install -e .*\[demo\]'?$"):
        write_space(tmp_path / "space", "user/drums")
    assert not (tmp_path / "space").exists()


def test_a_folder_with_something_in_it_is_left_alone(tmp_path):
    (tmp_path / "diary.txt").write_text("Monday")
    with pytest.raises(FileExistsError, match="name a new one"):
        write_space(tmp_path, "user/drums")
    assert [path.name for path in tmp_path.iterdir()] == ["diary.txt"]


def test_a_path_in_place_of_a_hub_id_is_refused(tmp_path):
    with pytest.raises(ValueError, match="runs/models/drums"):
        write_space(tmp_path / "space", "runs/models/drums")
    assert not (tmp_path / "space").exists()


# What a fresh installation of the Space does: it starts without the secret that a private model needs, then with it.
START = """
import importlib.util, os, runpy, modeling_ast
print(modeling_ast.__file__, importlib.util.find_spec("model_card"))
token = os.environ.pop("HF_TOKEN")
try:
    runpy.run_path("app.py", run_name="__main__")
except SystemExit as end:
    print(end, "REFUSED", sep="\\n")
os.environ["HF_TOKEN"] = token
runpy.run_path("app.py", run_name="__main__")
"""
# Starts the Space, asks its page for the labels of a clip and ends it.
VISIT = """
import json, os, subprocess, sys
from gradio_client import Client, handle_file

folder, clip, code = sys.argv[1:]
start = [sys.executable, "-S", "-u", "-c", code]
with subprocess.Popen(start, cwd=folder, env=dict(os.environ, PYTHONPATH=os.environ["SITE"]), text=True,
                      stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as app:
    try:
        lines = []
        while not lines or "Running on local URL" not in lines[-1]:
            lines.append(next(app.stdout, None))
            assert lines[-1] is not None, "".join(lines[:-1])
        url = lines[-1].split()[-1]
        page = Client(url, verbose=False)
        answer = page.predict(handle_file(clip), "All (rollout)", "All (mean)", api_name="/tag")
        print(json.dumps({"said": "".join(lines), "url": url, "answer": answer}))
    finally:
        app.terminate()
"""


def test_the_space_runs_by_itself_and_answers_as_the_stock_pipeline(hub, tmp_path, tiny_sizes, drum_rows):
    torch.manual_seed(0)
    checkpoint = tmp_path / "checkpoint"
    model = ASTForAudioClassification(ASTConfig(**tiny_sizes, id2label=dict(enumerate(LABELS))))
    model.classifier.dense.weight.data *= 100  # so that the scores differ
    model.save_pretrained(checkpoint)
    ASTFeatureExtractor(max_length=tiny_sizes["max_length"]).save_pretrained(checkpoint)
    KnownClips(np.eye(model.config.hidden_size), 1, 0.0).save(checkpoint)
    write_space(tmp_path / "space", "user/drums", license="mit", revision="second")
    hub.run(
        "from huggingface_hub import HfApi; api = HfApi(); api.create_repo('user/drums', private=True);"
        "api.create_branch('user/drums', branch='second');"
        f"api.upload_folder(repo_id='user/drums', folder_path={str(checkpoint)!r}, revision='second')"
    )
    site = str(install(requirements_of(tmp_path / "space"), tmp_path / "site"))

    clip = drum_rows[0]["path"]
    environment = {"SITE": site, "GRADIO_SERVER_NAME": "localhost", "no_proxy": "127.0.0.1,localhost"}
    environment |= {"SYSTEM": "spaces", "SPACE_ID": "user/drums"}
    visit = hub.run(["-c", VISIT, tmp_path / "space", clip, START], token="hf_read", **environment)
    shown = json.loads(visit.stdout.splitlines()[-1])

    # Nothing but the Space's own copy can be imported as `modeling_ast`, and none of the kit's other packages.
    found, said = shown["said"].split("\n", 1)
    assert found.split() == [str(tmp_path / "space" / "modeling_ast" / "__init__.py"), "None"]

    # Without the secret that the Space needs for a private model.
    refused, said = said.split("REFUSED\n")
    assert "user/drums (revision second) cannot be loaded" in refused
    assert "Settings > Variables and secrets > New secret, with the name HF_TOKEN" in refused
    assert "Traceback" not in refused
    assert "cannot be loaded" not in said

    assert shown["url"].startswith("http://localhost:")
    (labels,) = (part for part in shown["answer"] if isinstance(part, dict) and "confidences" in part)
    expected = pipeline("audio-classification", model=str(checkpoint))(soundfile.read(clip, dtype="float32")[0])
    assert [row["label"] for row in labels["confidences"]] == [row["label"] for row in expected]
    for row, stock in zip(labels["confidences"], expected, strict=True):
        assert row["confidence"] == pytest.approx(stock["score"], abs=1e-5)
    assert any("<b>None of these</b>: " in str(part) for part in shown["answer"])
