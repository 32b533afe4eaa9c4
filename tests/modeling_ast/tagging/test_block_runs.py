"""`ast-tag --blocks`: what is in the folder, who goes on there, and what a killed process leaves."""

import itertools
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import forked_python
import numpy as np
import pyarrow.parquet
import pytest
import soundfile
import torch
from tagged_models import SCORE_TOLERANCE, noise, save_checkpoint

from modeling_ast import run_tagging
from modeling_ast.system.run_lock import hold_lock
from modeling_ast.tagging import block_processes, block_runs
from modeling_ast.tagging.block_lists import BlockList, rows_of, write_list
from modeling_ast.tagging.block_runs import BlockFolder, BlockProgress, blocks_in_turn, tag_missing
from modeling_ast.tagging.tagger import AudioTagger

FLAGS = ("--device", "cpu", "--workers", "1", "--block_size", "4", "--format", "jsonl")
# Each block takes a while, so that a process can be killed in the midst of it: half the time the vectors are there by then.
SLOW = """
import sys, time
from modeling_ast import run_tagging
write_lines = run_tagging.write_lines
def write_slowly(*arguments):
    time.sleep(0.03)
    write_lines(*arguments)
run_tagging.write_lines = write_slowly
sys.exit(run_tagging.main(sys.argv[1:]))
"""
# Forked processes have tagged a file when they note their number, and give it back when their parent is gone.
ORPHANS = """
import os, sys, time
from pathlib import Path
from modeling_ast import run_tagging
from modeling_ast.tagging.block_runs import BlockProgress
noted, parent, tag, file = Path(sys.argv.pop(1)), os.getpid(), run_tagging.tag, BlockProgress.file
def tag_until_orphaned(*arguments):
    for outcome in tag(*arguments):
        if os.getpid() != parent:
            (noted / str(os.getpid())).touch()
        while os.getpid() != parent and os.getppid() == parent:
            time.sleep(0.005)
        yield outcome
def file_of_an_orphan(progress):
    if os.getpid() != parent:
        (noted / "went on").touch()
    file(progress)
run_tagging.tag, BlockProgress.file = tag_until_orphaned, file_of_an_orphan
sys.exit(run_tagging.main(sys.argv[1:]))
"""
LONGEST_WAIT = 120  # seconds; what is waited for comes in less than one


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_checkpoint(tmp_path_factory.mktemp("model"), "multi_label_classification")


@pytest.fixture(scope="module")
def names(tmp_path_factory):
    """A list of 30 rows: clips of several lengths, one of which stands there twice, and three that cannot be tagged."""
    folder = tmp_path_factory.mktemp("clips")
    rows = []
    for number in range(26):
        path = folder / f"{number:02}.wav"
        soundfile.write(path, noise(4_000 + 1_700 * number, number), 16_000)
        rows.append(path)
    (folder / "empty.wav").write_bytes(b"")
    (folder / "text.wav").write_text("no audio\n" * 100)
    rows[9:9] = [rows[3], folder / "empty.wav", folder / "text.wav", folder / "missing.wav"]
    listed = folder / "list.txt"
    listed.write_text("".join(f"{row}\n" for row in rows))
    return listed


@pytest.fixture
def tag(model, capsys):
    def run(*arguments, flags=FLAGS):
        code = run_tagging.main([str(each) for each in (*arguments, "--model_name_or_path", model, *flags)])
        return code, capsys.readouterr()

    return run


def contents(folder):
    """All files of a folder that are not hidden, by their names; the command that was typed has nothing to do with the results."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != "run.json")
    found = {str(path.relative_to(folder)): path.read_bytes() for path in files}
    return {name: content for name, content in found.items() if not Path(name).name.startswith(".")}


def rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_blocks_together_are_what_ast_tag_says(tag, names, tmp_path):
    code, shown = tag("--files_from", names, "--blocks", tmp_path / "run")
    listed = names.read_text().splitlines()
    found = rows(tmp_path / "run" / "tags.jsonl")
    failed = rows(tmp_path / "run" / "failed.jsonl")
    assert code == 1
    assert "Tagged 27 of 30 files" in shown.out
    assert [row["file"] for row in found] == [row for row in listed if row not in {each["file"] for each in failed}]
    assert [(row["row"], Path(row["file"]).name) for row in failed] == [
        (10, "empty.wav"),
        (11, "text.wav"),
        (12, "missing.wav"),
    ]
    assert [listed[row["row"]] for row in failed] == [row["file"] for row in failed]
    assert failed[0]["error"].endswith("is empty (0 bytes). Copy or download it again, or leave it out.")
    assert failed[2]["error"].startswith("There is no file")
    plain = tmp_path / "plain.jsonl"
    tag(
        *dict.fromkeys(row["file"] for row in found), "--output", plain, flags=("--device", "cpu", "--format", "jsonl")
    )
    expected = {row["file"]: row["labels"] for row in rows(plain)}
    for row in found:
        assert [label["label"] for label in row["labels"]] == [label["label"] for label in expected[row["file"]]]
        scores = [label["score"] for label in expected[row["file"]]]
        assert [label["score"] for label in row["labels"]] == pytest.approx(
            scores, abs=SCORE_TOLERANCE
        )  # batches differ
    parts = sorted((tmp_path / "run" / "tags").glob("*"))
    assert [part.name for part in parts] == [f"block-{block:06}.jsonl" for block in range(8)]
    assert b"".join(part.read_bytes() for part in parts) == (tmp_path / "run" / "tags.jsonl").read_bytes()
    assert [len(part.read_bytes().splitlines()) for part in parts] == [4, 4, 2, 3, 4, 4, 4, 2]


def test_notes_go_to_a_file_of_their_own(tag, tmp_path):
    soundfile.write(tmp_path / "silent.wav", np.zeros(16_000), 16_000)
    tag(tmp_path / "silent.wav", "--blocks", tmp_path / "run")
    (note,) = rows(tmp_path / "run" / "notes.jsonl")
    assert note["row"] == 0
    assert note["file"] == str(tmp_path / "silent.wav")
    assert "silent" in note["note"]


@pytest.mark.parametrize("output_format", ["csv", "text", "parquet"])
def test_other_formats(tag, names, tmp_path, output_format):
    flags = (*FLAGS[:-1], output_format)
    tag("--files_from", names, "--blocks", tmp_path / "run", flags=flags)
    suffix = {"text": "txt"}.get(output_format, output_format)
    merged = tmp_path / "run" / f"tags.{suffix}"
    parts = sorted((tmp_path / "run" / "tags").glob(f"block-*.{suffix}"))
    assert len(parts) == 8
    if output_format == "csv":
        header, *lines = merged.read_text().splitlines()
        assert header == "file,label,score"
        assert lines == [line for part in parts for line in part.read_text().splitlines()[1:]]
    elif output_format == "text":
        assert merged.read_bytes() == b"".join(part.read_bytes() for part in parts)
    else:
        whole = pyarrow.parquet.read_table(merged)
        assert whole.equals(pyarrow.concat_tables([pyarrow.parquet.read_table(part) for part in parts]))
        assert whole.num_rows == 27 * 3


def test_parquet_is_read_by_datasets_and_duckdb(tag, names, tmp_path):
    from datasets import load_dataset

    flags = (*FLAGS[:-1], "parquet", "--embeddings", "file", "--embeddings_dtype", "float16")
    tag("--files_from", names, "--blocks", tmp_path / "run", flags=flags)
    for kind, count in (("tags", 27 * 3), ("embeddings", 27)):
        data = load_dataset(
            "parquet", data_dir=str(tmp_path / "run" / kind), split="train", cache_dir=str(tmp_path / "cache")
        )
        assert data.num_rows == count
    vectors = np.asarray(data["embedding"], np.float32)
    tag("--files_from", names, "--blocks", tmp_path / "exact", flags=(*flags[:-2],))
    parts = sorted((tmp_path / "exact" / "embeddings").glob("*"))
    exact = pyarrow.concat_tables([pyarrow.parquet.read_table(part) for part in parts])
    assert data["file"][:] == exact["file"].to_pylist()
    np.testing.assert_allclose(vectors, np.asarray(exact["embedding"].to_pylist()), rtol=1e-3, atol=1e-3)  # 11 bits
    assert str(pyarrow.parquet.read_schema(parts[0].parents[2] / "run" / "embeddings" / parts[0].name).types[-1]) == (
        "fixed_size_list<element: halffloat>[32]"
    )
    duckdb = pytest.importorskip("duckdb")
    counted = duckdb.sql(f"select count(*), count(distinct file) from '{tmp_path}/run/tags/*.parquet'").fetchall()
    assert counted == [(81, 26)]
    ((length,),) = duckdb.sql(f"select distinct len(embedding) from '{tmp_path}/run/embeddings/*.parquet'").fetchall()
    assert length == 32


def test_a_block_of_files_that_cannot_be_tagged_is_empty_and_counts(tag, names, tmp_path):
    bad = [names.parent / name for name in ("empty.wav", "text.wav")]
    flags = (*FLAGS[:-3], "2", "--format", "parquet")
    code, _ = tag(*bad, names.parent / "00.wav", "--blocks", tmp_path / "run", flags=flags)
    assert code == 1
    first, second = (pyarrow.parquet.read_table(path) for path in sorted((tmp_path / "run" / "tags").glob("*")))
    assert first.num_rows == 0
    assert first.schema.equals(second.schema)
    assert pyarrow.parquet.read_table(tmp_path / "run" / "tags.parquet").equals(second)


def test_the_same_command_goes_on_and_another_one_is_refused(tag, names, tmp_path, monkeypatch, capsys):
    run = tmp_path / "run"
    tag("--files_from", names, "--blocks", run)
    before = contents(run)
    for name in ("tags/block-000002.jsonl", "tags.jsonl", "failed.jsonl"):
        (run / name).unlink()
    heard = []
    original = AudioTagger.tag_files
    monkeypatch.setattr(
        AudioTagger,
        "tag_files",
        lambda self, files, *args, **more: heard.extend(files) or original(self, files, **more),
    )
    tag("--files_from", names, "--blocks", run)
    assert heard == names.read_text().splitlines()[8:12]
    assert contents(run) == before
    whole = (run / "tags.jsonl").stat().st_ino
    assert tag("--files_from", names, "--blocks", run)[0] == 1  # it is complete, and two files cannot be tagged
    assert (run / "tags.jsonl").stat().st_ino == whole, "what is merged is not written again"
    assert len(heard) == 4

    def refusal(*arguments, flags=FLAGS):
        with pytest.raises(SystemExit, match="2"):
            tag(*arguments, "--blocks", run, flags=flags)
        return capsys.readouterr().err

    words = refusal("--files_from", names, "--top_k", "2")
    assert "holds a run with another --top_k. To go on with that one, type: ast-tag --files_from" in words
    assert "pass a new folder as --blocks" in words
    assert "another --block_size" in refusal("--files_from", names, flags=(*FLAGS[:5], "3", *FLAGS[6:]))
    changed = tmp_path / "changed.txt"
    changed.write_text(names.read_text().replace("05.wav", "06.wav"))
    assert "another list of files." in refusal("--files_from", changed)
    changed.write_text(names.read_text() + f"{names.parent / '00.wav'}\n")
    assert "another number of files, list of files." in refusal("--files_from", changed)
    assert len(heard) == 4
    assert contents(run) == before


def test_relative_names_go_on_in_their_own_working_directory_alone(tag, names, tmp_path, monkeypatch, capsys):
    clips = names.parent
    listed, run = tmp_path / "list.txt", tmp_path / "run"
    listed.write_text("00.wav\n01.wav\n")
    monkeypatch.chdir(clips)
    assert tag("--files_from", listed, "--blocks", run)[0] == 0
    (run / "tags" / "block-000000.jsonl").unlink()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match="2"):
        tag("--files_from", listed, "--blocks", run)
    words = capsys.readouterr().err
    assert "holds a run with another working directory." in words
    assert f"To go on with that one, type: cd {clips} && ast-tag --files_from {listed} --blocks {run} " in words
    monkeypatch.chdir(clips)
    assert tag("--files_from", listed, "--blocks", run)[0] == 0


def test_a_command_that_finds_something_else_is_not_told_to_be_typed_again(tag, names, tmp_path, capsys):
    run, listed = tmp_path / "run", tmp_path / "list.txt"
    first, second, *_ = names.read_text().splitlines()
    listed.write_text(f"{first}\n")
    tag("--files_from", listed, "--blocks", run)
    listed.write_text(f"{first}\n{second}\n")
    capsys.readouterr()
    with pytest.raises(SystemExit, match="2"):
        tag("--files_from", listed, "--blocks", run)
    words = capsys.readouterr().err
    assert "with another number of files, list of files. It was begun by this very command: " in words
    assert (
        f"put back what was changed since. Its files are listed in {run / 'files.jsonl'}. For this one, pass" in words
    )
    assert "type:" not in words


def test_a_command_that_was_refused_leaves_its_folder_to_another(tag, names, tmp_path):
    run = tmp_path / "run"
    with pytest.raises(SystemExit):
        tag(tmp_path / "a typing error", "--blocks", run, "--embeddings", "file")
    assert tag("--files_from", names, "--blocks", run)[0] == 1
    assert len(rows(run / "tags.jsonl")) == 27


@pytest.mark.parametrize("name", ["LOCAL_RANK", "ACCELERATE_MIXED_PRECISION"])
def test_a_launcher_of_one_process_is_not_told_of_a_broken_one(tag, names, tmp_path, monkeypatch, name):
    monkeypatch.setenv(name, "0")
    assert tag("--files_from", names, "--blocks", tmp_path / "run")[0] == 0


def test_what_is_left_out_of_a_folder_is_said(tmp_path):
    (tmp_path / "a.wav").write_bytes(b"")
    os.mkfifo(tmp_path / "b.wav")
    said = []
    assert list(rows_of([str(tmp_path)], None, said.append)) == [str(tmp_path / "a.wav")]
    (words,) = said
    assert words.startswith(f"{tmp_path / 'b.wav'} is left out: it is a pipe")


def test_a_block_without_its_tags_does_not_count(tag, names, tmp_path, monkeypatch):
    run, write_found = tmp_path / "run", run_tagging.write_found

    def fail_in_block_2(args, lines, destination):
        if destination.name == "block-000002.jsonl":
            raise OSError(28, "No space left on device", str(destination))
        write_found(args, lines, destination)

    with monkeypatch.context() as patch:
        patch.setattr(run_tagging, "write_found", fail_in_block_2)
        code, shown = tag("--files_from", names, "--blocks", run)
    assert code == 1
    assert "block-000002.jsonl: No space left on device. Make room" in shown.err
    assert len(rows(run / "failed" / "block-000002.jsonl")) == 2  # all that is written before the tags
    assert not (run / "tags.jsonl").exists()
    (run / "failed" / "block-000002.jsonl").write_text("half of a li")
    tag("--files_from", names, "--blocks", run)
    tag("--files_from", names, "--blocks", tmp_path / "whole")
    assert contents(run) == contents(tmp_path / "whole")


def test_another_model_is_refused(tag, names, tmp_path, capsys):
    tag("--files_from", names, "--blocks", tmp_path / "run")
    other = save_checkpoint(tmp_path / "other", "single_label_classification")
    with pytest.raises(SystemExit, match="2"):
        run_tagging.main(
            [
                *map(str, ("--files_from", names, "--blocks", tmp_path / "run")),
                *("--model_name_or_path", str(other), *FLAGS),
            ]
        )
    assert "holds a run with another model." in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["a folder of something else", "a file", "another program's run.json"])
def test_what_is_no_folder_of_blocks_is_refused(tag, names, tmp_path, capsys, kind):
    place = tmp_path / "place"
    if kind == "a file":
        place.write_text("kept")
    else:
        place.mkdir()
        (place / ("run.json" if "run" in kind else "letter.txt")).write_text("kept")
    with pytest.raises(SystemExit, match="2"):
        tag("--files_from", names, "--blocks", place)
    words = {
        "a file": "is no folder. Pass the name of one.",
        "a folder of something else": "holds letter.txt and is no",
    }
    assert words.get(kind, "its run.json is none that ast-tag wrote") in capsys.readouterr().err
    assert [path.read_text() for path in (tmp_path / "place").glob("*")] == ["kept"] * (kind != "a file")


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--blocks", "run", "--output", "tags"), "--blocks run is where everything goes"),
        (("--blocks", "run", "--format", "audacity"), "Pass --format text or jsonl or csv or parquet"),
        (("--block_size", "3"), "Add --blocks DIR"),
        (("--workers", "3"), "Add --blocks DIR"),
        (("--blocks", "run", "--block_size", "0"), "'0' is not a whole number"),
        (("--blocks", "run", "--embeddings_dtype", "float16"), "--embeddings_dtype is about vectors"),
    ],
)
def test_flags_that_do_not_go_together(model, capsys, flags, words):
    with pytest.raises(SystemExit, match="2"):
        run_tagging.main(["a.wav", "--model_name_or_path", str(model), *flags])
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--workers", "2"), "--workers 2: accelerate launch starts the processes (--num_processes). Leave it out."),
        (("--files_from", "-"), "several processes cannot read one standard input. Pass the name of a file."),
    ],
)
def test_what_launched_processes_cannot(tag, names, tmp_path, monkeypatch, capsys, flags, words):
    monkeypatch.setattr(block_processes, "place_of_process", lambda device: block_processes.Place(0, 2, 2))
    with pytest.raises(SystemExit, match="2"):
        tag(names.parent / "00.wav", "--blocks", tmp_path / "run", *flags, flags=FLAGS[:2])
    assert words in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_block_that_another_process_is_at_is_left_to_it(tag, names, tmp_path):
    run = tmp_path / "run"
    tag("--files_from", names, "--blocks", run)
    before = contents(run)
    for name in ("tags/block-000001.jsonl", "tags/block-000004.jsonl", "tags.jsonl"):
        (run / name).unlink()
    with hold_lock(run / "tags" / "block-000004.jsonl", "ast-tag"):
        code, shown = tag("--files_from", names, "--blocks", run)
    assert code == 0
    assert "1 of 8 blocks are with other processes; if they are ended, the same command goes on in" in shown.out
    assert (run / "tags" / "block-000001.jsonl").exists()
    assert not (run / "tags" / "block-000004.jsonl").exists()
    assert not (run / "tags.jsonl").exists()
    tag("--files_from", names, "--blocks", run)
    assert contents(run) == before


def test_a_block_that_another_process_has_just_ended_is_not_tagged_again(tmp_path, monkeypatch):
    folder, asked, tagged = BlockFolder(tmp_path, ".jsonl"), [], []
    (tmp_path / "tags").mkdir()
    monkeypatch.setattr(BlockFolder, "is_done", lambda self, block: asked.append(block) or asked.count(block) == 2)
    tag_missing(folder, 1, tagged.append)
    assert asked == [0, 0]
    assert tagged == []


def test_every_process_looks_for_its_own_blocks_first_and_for_all_others_then():
    assert list(blocks_in_turn(7, 1, 3)) == [1, 4, 6, 5, 3, 2, 0]
    for world, blocks in itertools.product((1, 2, 5), (0, 1, 9)):
        for rank in range(world):
            assert sorted(blocks_in_turn(blocks, rank, world)) == list(range(blocks))
        first = [list(blocks_in_turn(blocks, rank, world))[: len(range(rank, blocks, world))] for rank in range(world)]
        assert sorted(itertools.chain.from_iterable(first)) == list(range(blocks))


@pytest.fixture
def start(model, names, tmp_path):
    """Start the command in a process of its own."""
    with ExitStack() as stack:
        log = stack.enter_context(open(tmp_path / "log", "w"))

        def child(run, *flags, **environment):
            arguments = ("--files_from", names, "--blocks", run, "--model_name_or_path", model)
            code = ["-c", SLOW, *arguments, *FLAGS, "--embeddings", "file", *flags]
            return stack.enter_context(forked_python.Child(code, log, log, os.environ | environment, session=True))

        yield child


def wait_for_a_block(run, child, more_than=0):
    while child.poll() is None and len(list((run / "tags").glob("block-*"))) <= more_than:
        time.sleep(0.005)


@pytest.mark.parametrize("workers", [pytest.param(1, marks=pytest.mark.long), 2])
def test_killed_five_times_the_result_is_that_of_a_run_without_interruption(start, tmp_path, workers):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert start(whole).wait() == 1
    draw = random.Random(workers)
    for _ in range(5):
        child = start(killed, "--workers", workers)
        wait_for_a_block(killed, child, len(list((killed / "tags").glob("block-*"))))
        time.sleep(draw.random() * 0.1)
        child.send_signal(signal.SIGKILL)
        child.wait()
    assert start(killed, "--workers", workers).wait() == 1
    assert contents(killed) == contents(whole)
    assert list(killed.rglob("*.ast-tmp")) == []


def test_what_a_killed_worker_left_is_done_by_the_others(start, tmp_path):
    whole, run = tmp_path / "whole", tmp_path / "run"
    assert start(whole).wait() == 1
    child = start(run, "--workers", "3")
    wait_for_a_block(run, child)
    others = subprocess.run(["pgrep", "-P", str(child.pid)], capture_output=True, text=True).stdout.split()
    assert len(others) == 2
    os.kill(int(others[0]), signal.SIGKILL)
    assert child.wait() == 1
    assert contents(run) == contents(whole)


def wait_until(holds):
    until = time.monotonic() + LONGEST_WAIT
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.005)


def is_running(pid):
    """Whether there is such a process; of one that nobody has waited for there is no more than its number."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_worker_ends_with_its_parent(model, names, tmp_path):
    noted = tmp_path / "noted"
    noted.mkdir()
    command = (
        "--files_from",
        names,
        "--blocks",
        tmp_path / "run",
        "--model_name_or_path",
        model,
        *FLAGS,
        "--workers",
        "2",
    )
    with (
        open(tmp_path / "log", "w") as log,
        forked_python.Child(["-c", ORPHANS, noted, *command], log, log, session=True) as child,
    ):
        wait_until(lambda: list(noted.iterdir()) or child.poll() is not None)
        (worker,) = noted.iterdir()
        child.send_signal(signal.SIGKILL)
        child.wait()
        wait_until(lambda: not is_running(worker.name))
    assert list(noted.iterdir()) == [worker], "it went on tagging without anybody who waits for it"


def test_the_block_of_a_worker_that_is_killed_is_taken_over(tmp_path, capsys):
    folder, held, through = BlockFolder(tmp_path, ".jsonl"), tmp_path / "held", tmp_path / "through"
    (tmp_path / "tags").mkdir()
    parent = os.getpid()

    def tag_block(block):
        if os.getpid() != parent:
            held.touch()
            wait_until(through.exists)
            os.kill(os.getpid(), signal.SIGKILL)
        wait_until(held.exists)
        folder.part("tags", block).touch()

    def work(number):
        tag_missing(folder, 2, tag_block, number, 2)
        through.touch()  # by the parent, which found the other block held

    block_processes.in_processes(work, 2)
    assert folder.missing(2) == []
    assert capsys.readouterr().err == "ast-tag: 1 of 2 processes ended early; this one does what they left.\n"


def test_blocks_are_tagged_with_one_thread(tag, names, tmp_path, monkeypatch):
    """So that their last digits do not depend on the number of processes, whose threads have to share the cores."""
    threads, tag_files, before = [], AudioTagger.tag_files, torch.get_num_threads()

    def tag_and_count(self, files, *args, **more):
        threads.append(torch.get_num_threads())
        return tag_files(self, files, *args, **more)

    monkeypatch.setattr(AudioTagger, "tag_files", tag_and_count)
    torch.set_num_threads(3)
    try:
        tag(names.parent / "00.wav", "--blocks", tmp_path / "run")
    finally:
        torch.set_num_threads(before)
    assert set(threads) == {1}


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def start_ranks(start, run, world):
    """What `accelerate launch` starts."""
    place = {"WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    ranks = [{"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(world)]
    return [start(run, **place, **rank) for rank in ranks]


def test_of_two_processes_one_is_killed_and_any_number_goes_on(start, tmp_path):
    whole, run = tmp_path / "whole", tmp_path / "run"
    assert start(whole).wait() == 1
    first, second = start_ranks(start, run, 2)
    wait_for_a_block(run, first)
    second.send_signal(signal.SIGKILL)
    first.send_signal(signal.SIGTERM)  # as the launcher does then
    assert (second.wait(), first.wait()) == (-signal.SIGKILL, 128 + signal.SIGTERM)
    assert not (run / "tags.jsonl").exists()
    assert [child.wait() for child in start_ranks(start, run, 3)] == [0, 0, 0]  # bad files are no broken process
    assert contents(run) == contents(whole)


def test_processes_divide_the_blocks(start, tmp_path):
    run = tmp_path / "run"
    assert [child.wait() for child in start_ranks(start, run, 2)] == [0, 0]
    log = (tmp_path / "log").read_text()
    assert log.count("Tagged 27 of 30 files") >= 1
    assert len(rows(run / "tags.jsonl")) == 27


@pytest.mark.long
def test_accelerate_launches_several_processes(model, names, tmp_path):
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    launcher += [
        "--num_machines",
        "1",
        "--mixed_precision",
        "no",
        "--dynamo_backend",
        "no",
        "--main_process_port",
        "0",
    ]
    command = ["-m", "modeling_ast.run_tagging", "--files_from", names, "--model_name_or_path", model, *FLAGS[:2]]
    for number, start in enumerate(([*launcher], [sys.executable])):
        subprocess.run([*start, *command, *FLAGS[4:], "--blocks", tmp_path / str(number)], check=not number)
    assert contents(tmp_path / "0") == contents(tmp_path / "1")


def test_a_list_is_read_a_block_at_a_time(tmp_path):
    odd = ["a.wav", "two\nlines.wav", os.fsdecode(b"\xff.wav"), "a.wav", "\N{SNOWMAN}.wav"]
    digest = write_list(odd, tmp_path / "list")
    listed = BlockList(tmp_path / "list", 2)
    assert (digest.number, listed.number, len(listed)) == (5, 5, 3)
    assert [listed.rows(block) for block in range(3)] == [odd[:2], odd[2:4], odd[4:]]
    assert len(BlockList(tmp_path / "list", 5)) == 1


def test_rows_of_lists_and_folders_are_not_looked_at(tmp_path):
    folder = tmp_path / "clips"
    (folder / "deep").mkdir(parents=True)
    for name in ("b.wav", "a.flac", "deep/c.mp3", "notes.txt", ".hidden.wav"):
        (folder / name).write_bytes(b"")
    listed = tmp_path / "list"
    listed.write_bytes(b"\xef\xbb\xbfnowhere.wav\r\n\n \nclips\nnowhere.wav\n")
    found = list(rows_of([str(folder)], str(listed)))
    assert [Path(row).name for row in found] == ["a.flac", "b.wav", "c.mp3", "nowhere.wav", "clips", "nowhere.wav"]


def test_progress_counts_what_all_processes_did(tmp_path, monkeypatch, capsys):
    folder = BlockFolder(tmp_path, ".jsonl")
    (tmp_path / "tags").mkdir()
    write_list([f"{number}.wav" for number in range(10)], tmp_path / "list")
    listed = BlockList(tmp_path / "list", 4)
    folder.part("tags", 2).write_bytes(b"")  # the last one, of two rows
    now = 100.0
    monkeypatch.setattr(block_runs.time, "monotonic", lambda: now)
    with BlockProgress(folder, listed) as progress:
        now = 102.0
        progress.file()
        assert progress.words() == "3 of 10 files, 0.5 files a second, 0:00:14 left"
        folder.part("tags", 0).write_bytes(b"")
        progress.block()
        assert progress.words() == "6 of 10 files, 2.0 files a second, 0:00:02 left"
        assert capsys.readouterr().err == ""
        now = 170.0
        progress.file()
        assert capsys.readouterr().err == "ast-tag: 7 of 10 files, 0.1 files a second, 0:00:42 left\n"
