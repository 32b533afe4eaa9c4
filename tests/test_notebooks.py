"""The notebooks of `docs/` run from their first cell to their last, offline, on a few of the shipped clips, and are committed clean."""

import base64
import json
import re
import shutil
import signal
from configparser import ConfigParser
from pathlib import Path

import forked_python
import nbformat
import pytest
from jupyter_client import KernelManager
from jupyter_client.provisioning import local_provisioner
from nbclient import NotebookClient

ROOT = Path(__file__).parents[1]
NOTEBOOKS = {path.stem: path for path in sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))}
LARGEST = 150_000  # bytes of a notebook with its picture


def cell(notebook, tag: str):
    """The one cell with a tag."""
    (found,) = (each for each in notebook.cells if tag in each.metadata.get("tags", ()))
    return found


@pytest.fixture
def few_clips(drum_rows, tmp_path):
    """Three training clips and two held-out ones of each label, in a folder per class."""
    for split, count in (("train", 3), ("test", 2)):
        for label in sorted({row["label"] for row in drum_rows}):
            folder = tmp_path / "clips" / label
            folder.mkdir(parents=True, exist_ok=True)
            for row in [row for row in drum_rows if (row["label"], row["split"]) == (label, split)][:count]:
                shutil.copy(row["path"], folder)
    return tmp_path / "clips"


class KernelProcess(forked_python.Child):
    """A kernel's process as `jupyter_client` knows one, with torch imported already."""

    stdin = stdout = stderr = None

    def kill(self):
        self.send_signal(signal.SIGKILL)

    def terminate(self):
        self.send_signal(signal.SIGTERM)


@pytest.fixture(scope="module")
def kernel(tmp_path_factory):
    """One kernel for both notebooks; each begins without the other's names."""
    folder = tmp_path_factory.mktemp("jupyter")
    with pytest.MonkeyPatch.context() as patch, open(folder / "log", "w") as log:

        def launch_kernel(command, env, cwd=None, **_):
            return KernelProcess(command[command.index("-m") :], log, log, env, cwd, session=True)

        patch.setattr(local_provisioner, "launch_kernel", launch_kernel)
        patch.setenv("JUPYTER_RUNTIME_DIR", str(folder / "runtime"))
        patch.setenv("IPYTHONDIR", str(folder / "ipython"))
        manager = KernelManager(kernel_name="python3")
        manager.start_kernel()
        yield manager
        manager.shutdown_kernel()
        manager.cleanup_resources()


def run(name: str, parameters: dict, kernel):
    """Run a notebook with other values in its cell of parameters; returns it with its outputs."""
    notebook = nbformat.read(NOTEBOOKS[name], as_version=4)
    chosen = cell(notebook, "parameters")
    assert [line.split(" = ")[0] for line in chosen.source.splitlines()] == list(parameters)
    chosen.source = "\n".join(f"{key} = {value!r}" for key, value in parameters.items())
    notebook.cells.insert(0, nbformat.v4.new_code_cell(f"%reset -f\n%cd -q {NOTEBOOKS[name].parent}"))
    NotebookClient(notebook, km=kernel, timeout=300).execute()
    return notebook


def printed(notebook, identity: str) -> str:
    """What a cell printed and returned, as text."""
    (found,) = (each for each in notebook.cells if each.id == identity)
    return "".join(
        output.text if output.output_type == "stream" else f"{output.data.get('text/plain', '')}\n"
        for output in found.outputs
    )


def shows_no_bar(notebook) -> bool:
    """Whether the kit's own lines are all that a training shows: the table of `Trainer` in notebooks would say it again."""
    return not any(
        "<progress" in output.get("data", {}).get("text/html", "")
        for each in notebook.cells
        for output in each.get("outputs", ())
    )


def pictures(notebook, identity: str) -> int:
    """How many pictures a cell shows."""
    (found,) = (each for each in notebook.cells if each.id == identity)
    return sum("image/png" in output.get("data", {}) for output in found.outputs)


def test_hear_and_look(few_clips, kernel, tmp_path):
    model = tmp_path / "model"
    parameters = {"MODEL": str(model), "TRAINING_CLIPS": str(few_clips), "EPOCHS": 1}
    notebook = run("hear_and_look", parameters, kernel)
    assert "epoch 1/1" in printed(notebook, "model")
    assert f"{model} hears 0.97 s at a time" in printed(notebook, "model")
    scores = re.findall(r"^(\d\.\d{3})  \w+$", printed(notebook, "hear"), re.MULTILINE)
    assert len(scores) == 5
    assert scores == sorted(scores, reverse=True)
    assert [pictures(notebook, identity) for identity in ("picture", "layers", "timeline")] == [1, 3, 1]
    assert shows_no_bar(notebook)


def test_fine_tune_on_a_folder(few_clips, kernel, tmp_path):
    output = tmp_path / "run"
    parameters = {"FOLDER": str(few_clips), "OUTPUT": str(output), "EPOCHS": 1}
    notebook = run("fine_tune_on_a_folder", parameters, kernel)
    assert "('snare', 'train'): 3" in printed(notebook, "clips")
    assert "('snare', 'test'): 2" in printed(notebook, "clips")
    assert "27 training clips, 18 to score" in printed(notebook, "train")
    summary = json.loads((output / "run_summary.json").read_text())
    assert f"'accuracy': {summary['evaluation']['metrics']['accuracy']}" in printed(notebook, "train")
    assert [pictures(notebook, identity) for identity in ("picture", "curve")] == [1, 1]
    wrong = re.findall(r"^\d\.\d{3}  (\w+) +(\S+)$", printed(notebook, "use"), re.MULTILINE)
    assert len(wrong) == 5  # after one epoch most of the 18 are
    assert all(Path(path).parent.name != label for label, path in wrong)
    assert shows_no_bar(notebook)


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_one_picture_is_all_that_is_committed_of_the_outputs(name):
    notebook = nbformat.read(NOTEBOOKS[name], as_version=4)
    nbformat.validate(notebook)
    outputs = [(each.id, output) for each in notebook.cells if each.cell_type == "code" for output in each.outputs]
    assert [identity for identity, _ in outputs] == ["picture"], (
        "clear all outputs but that of the cell tagged 'picture'"
    )
    assert list(outputs[0][1]["data"]) == ["image/png"]
    assert base64.b64decode(outputs[0][1]["data"]["image/png"]).startswith(b"\x89PNG")
    assert not any(each.get("execution_count") for each in notebook.cells), "clear the numbers of the cells"
    assert NOTEBOOKS[name].stat().st_size < LARGEST
    assert notebook.metadata.kernelspec.name == "python3"


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_links_and_commands_are_there(name):
    text = "\n".join(each.source for each in nbformat.read(NOTEBOOKS[name], as_version=4).cells)
    links = re.findall(r"\]\(([^)]+)\)", text)
    assert links
    assert all((NOTEBOOKS[name].parent / link).is_file() for link in links if not link.startswith("http"))
    config = ConfigParser()
    config.read(ROOT / "setup.cfg")
    commands = {line.split("=")[0].strip() for line in config["options.entry_points"]["console_scripts"].splitlines()}
    assert set(re.findall(r"`(ast-\w+)", text)) <= commands
