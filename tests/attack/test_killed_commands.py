"""Every command ended by SIGKILL, SIGTERM and SIGINT at 20 random moments of its work: run again, its results are those of
a run that was left alone, and nothing else lies beside them or in TMPDIR."""

import json
import random
import re
import shutil
import signal
import subprocess
import sys
import time
import zlib
from pathlib import Path

import pytest
import torch
from forked_commands import (
    PATIENCE,
    SIZES,
    Nursery,
    clear,
    contents,
    leftovers,
    write_checkpoint,
    write_clips,
)
from hub_server import HubServer

pytestmark = pytest.mark.attack

MOMENTS = 20  # none in the first 10 ms, before a command has its handlers
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
TRAINING = {
    **SIZES, "eval_fraction": 0.25, "num_train_epochs": 3, "per_device_train_batch_size": 4, "learning_rate": 2e-3,
    "disable_tqdm": "true", "use_cpu": "true", "save_strategy": "steps", "save_steps": 2, "normalization": [-6.5, 4.5],
    "report_to": "none",
}  # fmt: skip


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    """A folder with a checkpoint, clips and an original checkpoint, a Hub, and where commands are forked."""
    folder = tmp_path_factory.mktemp("house")
    with HubServer(folder / "hub") as hub, pytest.MonkeyPatch.context() as context:
        for name in ("HF_HUB_OFFLINE", "TMPDIR", "OMP_NUM_THREADS"):
            context.delenv(name, raising=False)
        for name in ("HF_ENDPOINT", "HF_TOKEN", "HF_HOME", "HF_HUB_DISABLE_XET", "no_proxy"):
            context.setenv(name, "")
        nursery = Nursery(
            folder / "tmp", HF_ENDPOINT=hub.endpoint, HF_TOKEN="hf_user", HF_HOME=str(folder / "hf"),
            HF_HUB_DISABLE_XET="1", HF_HUB_DISABLE_TELEMETRY="1", HF_HUB_DISABLE_PROGRESS_BARS="1",
            HF_UPDATE_DOWNLOAD_COUNTS="0", no_proxy="127.0.0.1",
        )  # fmt: skip
        nursery.hub, nursery.folder = hub, folder
        write_checkpoint(folder / "checkpoint")
        write_clips(folder / "clips")
        yield nursery


@pytest.fixture
def ends(show_figures, request):
    """Signals and exit codes of a test's killed runs, which it fills and which are shown at its end."""
    codes: list[tuple[signal.Signals, int]] = []
    yield codes
    by_signal = sum(code in (-number, 128 + number) for number, code in codes)
    name = request.node.name.removeprefix("test_").replace("_", " ")
    show_figures("killed and run again", f"{name}: {len(codes)} moments, {by_signal} in the middle of a run")


def kill_and_rerun(
    house, ends, command, arguments, results, changed=lambda files: files, resumed=None, whole=None, **options
):
    """Compare 20 killed and repeated runs with one that was left alone.

    Args:
        results (`Path`): the file or folder that is written, removed before each moment.
        changed (`Callable`): leaves out of the files' contents what no two runs have in common.
        resumed (`Callable`): gives the arguments with which it is repeated.
        whole (`Callable`): says whether the killed run had come to its end, after which it is not repeated.
    """
    log, moments = house.folder / "log", random.Random(zlib.crc32(command.encode()))
    beside = house.folder / "results"
    for _ in range(2):  # the first one takes longer
        clear(beside)
        beside.mkdir()
        child = house.start(command, arguments, log, **options)
        assert child.wait() == 0, child.said()
        duration = time.monotonic() - child.began
    expected = changed(contents(results))
    assert expected
    for moment in range(MOMENTS):
        number = SIGNALS[moment % len(SIGNALS)]
        clear(beside)
        beside.mkdir()
        child = house.start(command, arguments, log, **options)
        time.sleep(moments.uniform(0.01, duration))
        child.kill(number)
        code = child.wait()
        ends.append((number, code))
        said = child.said()
        assert "Traceback" not in said, said
        if number != signal.SIGKILL:
            assert code in (0, 128 + number, -number), said  # the last before it has its handlers
            if code == 128 + number:
                assert number.name in said
            # What the same command goes on with, it names.
            assert not [path for path in leftovers(beside, house.temporary) if path not in said], (number, said)
        if not (whole and whole()):
            again = house.start(command, resumed() if resumed else arguments, log, **options)
            assert again.wait() == 0, again.said()
        assert changed(contents(results)) == expected, (moment, number)
        assert not leftovers(beside, house.temporary), (moment, number)
    assert sum(code == 128 + number for number, code in ends) >= 3, ends


@pytest.fixture
def results(house):
    return house.folder / "results"


def test_tags_in_one_file(house, results, ends):
    output = results / "tags.jsonl"
    flags = ["--model_name_or_path", house.folder / "checkpoint", "--format", "jsonl", "--output", output]
    kill_and_rerun(house, ends, "ast-tag", [house.folder / "clips", *flags], output)


def test_tags_in_a_folder(house, results, ends):
    output = results / "tags"
    flags = ["--model_name_or_path", house.folder / "checkpoint", "--format", "raven", "--output", output]
    kill_and_rerun(house, ends, "ast-tag", [house.folder / "clips", *flags], output)


def test_scores(house, results, ends):
    output = results / "scores.json"
    flags = ["--dataset_name", house.folder / "clips", "--output", output, "--predictions", results / "clips.csv"]
    kill_and_rerun(house, ends, "ast-evaluate", ["--model_name_or_path", house.folder / "checkpoint", *flags], results)


def test_export(house, results, ends):
    output = results / "model.onnx"
    kill_and_rerun(
        house, ends, "ast-export", [house.folder / "checkpoint", output], output, whole=lambda: output.exists()
    )


@pytest.fixture(scope="module")
def original(house):
    """The tensors of a checkpoint of two layers, as the original code saves them."""
    from benchmarks.conversion_agreement import original_weights

    weights = original_weights("checkpoint/tiny224_f10_t10_T1024_n527")
    kept = {
        name: value
        for name, value in weights.items()
        if not name.startswith("v.blocks.") or name.split(".")[2] in ("0", "1")
    }
    torch.save({f"module.{name}": value.clone() for name, value in kept.items()}, house.folder / "original.pth")
    return house.folder / "original.pth"


def without_times(files: dict[str, bytes]) -> dict:
    summary = json.loads(files.pop("run_summary.json"))
    card = files["README.md"].replace(summary["created"][:19].encode(), b"")
    own = {"README.md": card, "run_summary.json": {name: summary[name] for name in summary if name != "created"}}
    return files | own


def test_conversion(house, results, original, ends):
    output = results / "ast"
    kill_and_rerun(
        house, ends, "ast-convert", [original, output], output, without_times, whole=output.exists, num_layers=2
    )


def test_conversion_back(house, results, original, ends):
    source, output = house.folder / "converted", results / "again.pth"
    if not source.exists():
        house.run("ast-convert", [original, source], house.folder / "log", num_layers=2)
    kill_and_rerun(
        house, ends, "ast-convert", ["--to_original", source, output], output, whole=output.exists, num_layers=2
    )


def training_flags(house, output: Path, **fields) -> list[str]:
    given = TRAINING | {"dataset_name": house.folder / "clips", "output_dir": output} | fields
    flags = []
    for name, value in ((name, value) for name, value in given.items() if value is not None):
        flags += [f"--{name}", *(map(str, value) if isinstance(value, list) else [str(value)])]
    return flags


def weights(files: dict[str, bytes]) -> dict[str, bytes]:
    return {name: content for name, content in files.items() if name.endswith("model.safetensors")}


def test_training(house, results, ends):
    output = results / "run"
    flags = training_flags(house, output)

    def resumed():
        begun = any(re.fullmatch(r"checkpoint-\d+", path.name) for path in output.glob("checkpoint-*"))
        return [*flags, "--resume_from_checkpoint", "true"] if begun else [*flags, "--overwrite_output_dir"]

    kill_and_rerun(house, ends, "ast-finetune", flags, output, weights, resumed, (output / "run_summary.json").exists)


@pytest.fixture(scope="module")
def finished(house):
    output = house.folder / "finished"
    house.run("ast-finetune", training_flags(house, output, num_train_epochs=1), house.folder / "log")
    for path in output.glob("checkpoint-*"):
        shutil.rmtree(path)
    return output


def test_card(house, results, finished, ends):
    def card(files):
        return {name: content for name, content in files.items() if name in ("README.md", "NOTICE")}

    copy = results.with_name("carded")
    shutil.copytree(finished, copy, dirs_exist_ok=True)
    # Its work takes a tenth of a second: the folder's other files must stay, and no part of a card may.
    house.run("ast-model-card", [copy], house.folder / "log")
    expected = contents(copy)
    moments = random.Random(5)
    for moment in range(MOMENTS):
        (copy / "README.md").unlink(missing_ok=True)
        child = house.start("ast-model-card", [copy], house.folder / "log")
        time.sleep(moments.uniform(0.01, 0.1))
        number = SIGNALS[moment % len(SIGNALS)]
        child.kill(number)
        ends.append((number, child.wait()))
        assert "Traceback" not in child.said()
        house.run("ast-model-card", [copy], house.folder / "log")
        assert contents(copy) == expected


def test_push(house, finished, ends):
    hub, moments, log = house.hub, random.Random(6), house.folder / "log"
    expected, duration = None, 0.0
    for moment in range(MOMENTS + 1):
        name = f"user/drums{moment}"
        child = house.start("ast-push", [finished, "--repo_id", name], log)
        if moment:
            number = SIGNALS[moment % len(SIGNALS)]
            time.sleep(moments.uniform(0.01, duration))
            child.kill(number)
            code = child.wait()
            ends.append((number, code))
            assert "Traceback" not in child.said(), child.said()
            if number != signal.SIGKILL:
                assert code in (0, 128 + number, -number), child.said()
                assert code != 128 + number or "Type the same command again to go on" in child.said()
                assert not leftovers(house.temporary)
            house.run("ast-push", [finished, "--repo_id", name], log)
        else:
            assert child.wait() == 0, child.said()
            duration = time.monotonic() - child.began
        files = {path: content.replace(f"drums{moment}".encode(), b"ID") for path, content in hub.files(name).items()}
        expected = expected or files
        assert files == expected
        assert len(hub.commits(name)) <= 3, "the commit is made once"
        assert not leftovers(house.temporary)


def test_demo(house, ends):
    moments, log = random.Random(7), house.folder / "log"
    arguments = [house.folder / "checkpoint", "--port", "0"]

    def serving(child):
        end = time.monotonic() + PATIENCE
        while "(Ctrl-C ends it)" not in child.said():
            assert child.process.is_alive(), child.said()
            assert time.monotonic() < end, child.said()
            time.sleep(0.01)

    child = house.start("ast-demo", arguments, log)
    serving(child)
    duration = time.monotonic() - child.began
    child.kill(signal.SIGTERM)
    assert child.wait() == 0, child.said()
    for moment in range(MOMENTS):
        number = SIGNALS[moment % len(SIGNALS)]
        child = house.start("ast-demo", arguments, log)
        time.sleep(moments.uniform(0.01, 1.2 * duration))
        child.kill(number)
        code = child.wait()
        ends.append((number, code))
        assert "Traceback" not in child.said(), child.said()
        if number != signal.SIGKILL:
            assert code in (0, 128 + number, -number), child.said()
            assert not leftovers(house.temporary)
        elif leftovers(house.temporary):
            child = house.start("ast-demo", arguments, log)
            serving(child)
            child.kill(signal.SIGTERM)
            assert child.wait() == 0
            assert not leftovers(house.temporary)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_during_the_imports(house, number):
    """In a process of its own, once its handlers are there."""
    code = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from modeling_ast.run_tagging import main\n"
        "print('begun', flush=True); sys.exit(main(sys.argv[1:]))"
    )
    flags = [house.folder / "clips", "--model_name_or_path", house.folder / "checkpoint"]
    for delay in (0.1, 0.6, 1.5):
        child = subprocess.Popen(
            [sys.executable, "-c", code, *flags], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert child.stdout.readline() == "begun\n"
        time.sleep(delay)
        child.send_signal(number)
        _, errors = child.communicate(timeout=PATIENCE)
        assert child.returncode == 128 + number, errors
        assert "Traceback" not in errors
        assert f"ast-tag: interrupted ({number.name})" in errors
