"""Every command as a user without a name, a home or a cache, as containers run them: each works, and says nothing of it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

pytestmark = pytest.mark.attack

HOUSE = Path(__file__).parents[2]
NOWHERE = f"{os.devnull}/x"
USER = "12345"
# A user without an entry in /etc/passwd, who may read all that Python itself lies in, and write where the test lets him.
AS_NOBODY = [
    "setpriv", "--reuid", USER, "--regid", USER, "--clear-groups", "--inh-caps", "+dac_read_search",
    "--ambient-caps", "+dac_read_search",
]  # fmt: skip
SIZES = {
    "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32, "frequency_stride": 16,
    "time_stride": 16, "max_length": 48, "num_train_epochs": 1, "per_device_train_batch_size": 8, "use_cpu": "true",
}  # fmt: skip
FLAGS = [f"--{name}={value}" for name, value in SIZES.items()]
COMPLAINTS = ("Traceback", "Warning", "warn", "ermission", "mkdir", "No such file", "onnxruntime", NOWHERE)


@pytest.fixture(scope="module")
def area(tmp_path_factory):
    """A folder to write into, with clips, and a folder for temporary files."""
    area = tmp_path_factory.mktemp("container")
    for folder in (area, *area.parents):
        if folder.is_relative_to(Path(tmp_path_factory.getbasetemp()).parent):
            folder.chmod(0o777)
    generator = np.random.default_rng(0)
    for label in "ab":
        (area / "tones" / label).mkdir(parents=True)
        for number in range(8):
            noise = generator.uniform(-0.3, 0.3, 8_000).astype(np.float32)
            soundfile.write(area / "tones" / label / f"{number}.wav", noise, 16_000)
    (area / "tmp").mkdir(mode=0o777)
    (area / "tmp").chmod(0o777)
    rows = [f"{path.relative_to(area)},{path.parent.name}" for path in sorted((area / "tones").rglob("*.wav"))]
    (area / "metadata.csv").write_text("\n".join(["file_name,label", *rows]))
    return area


@pytest.fixture(scope="module")
def run(area):
    """Run a module as nobody; returns what it printed."""
    prefix = AS_NOBODY if os.geteuid() == 0 and shutil.which("setpriv") else []
    environment = {
        "PATH": os.environ["PATH"], "PYTHONPATH": str(HOUSE), "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1", "HOME": NOWHERE, "TMPDIR": str(area / "tmp"),
    }  # fmt: skip

    def run_module(module: str, *arguments, code: int = 0, **changes) -> subprocess.CompletedProcess:
        command = [*prefix, sys.executable, "-m", module, *map(str, arguments)]
        finished = subprocess.run(
            command, env=environment | changes, cwd="/", capture_output=True, text=True, timeout=300
        )
        assert finished.returncode == code, finished.stderr
        return finished

    return run_module


@pytest.fixture(scope="module")
def checkpoint(run, area):
    finished = run("finetune.run_finetune", f"--dataset_name={area / 'tones'}", f"--output_dir={area / 'run'}", *FLAGS)
    assert not [words for words in COMPLAINTS if words in finished.stderr], finished.stderr
    return area / "run"


@pytest.mark.parametrize(
    ("module", "arguments"),
    [
        ("modeling_ast.run_tagging", ["{area}/tones/a/0.wav", "--model_name_or_path", "{run}"]),
        ("finetune.run_finetune", ["--dataset_name={area}/metadata.csv", "--output_dir={area}/dry", "--dry_run=true"]),
        ("finetune.run_evaluate", ["--model_name_or_path", "{run}", "--dataset_name", "{area}/metadata.csv"]),
        ("modeling_ast.run_export", ["{run}", "{area}/model.onnx"]),
        ("model_card.run_push", ["{run}", "--repo_id", "user/name", "--dry_run"]),
        ("model_card.run_model_card", ["{run}", "--print"]),
        ("modeling_ast.doctor", []),
    ],
)
def test_a_command_without_a_home(run, area, checkpoint, module, arguments):
    given = [argument.format(area=area, run=checkpoint) for argument in arguments]
    if module == "finetune.run_finetune":
        given += FLAGS
    if module == "modeling_ast.run_export":
        pytest.importorskip("onnxscript")
    finished = run(module, *given)
    assert not [words for words in COMPLAINTS if words in finished.stderr], finished.stderr
    assert finished.stdout
    assert not os.path.lexists("/~")  # where a home that cannot be told would be taken for a name
    left = [name for name in os.listdir(area / "tmp") if not name.startswith("torchinductor")]
    assert left == []


@pytest.mark.parametrize("module", ["modeling_ast.run_tagging", "finetune.run_finetune", "finetune.run_evaluate"])
def test_a_command_without_a_folder_for_temporary_files(area, module):
    """In a view of the file system of its own, in which the folders that are tried take nothing."""
    # What lies in them stays there to be read: perhaps this very checkout.
    read_only = "mount --bind {0} {0} && mount -o remount,bind,ro {0}"
    mounts = " && ".join(read_only.format(folder) for folder in ("/tmp", "/var/tmp"))
    mounts += " && cd / && mount -t proc proc /mnt && cd /mnt"  # the current folder is tried as well
    if subprocess.run(["unshare", "-m", "sh", "-c", mounts], capture_output=True).returncode:
        pytest.skip("mounting needs root")
    script = f"{mounts} && exec {sys.executable} -m {module} --help"
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(HOUSE), "HOME": NOWHERE}
    finished = subprocess.run(
        ["unshare", "-m", "sh", "-c", script], env=environment, capture_output=True, text=True, timeout=60
    )
    assert finished.returncode == 2, finished.stderr
    (sentence,) = finished.stderr.splitlines()
    assert "Set TMPDIR to a folder that can be written to" in sentence
