"""Reading tensors: files that torch, safetensors and stock Transformers wrote come back bit for bit, all others are refused.

A refusal is one line that names the file, what it is and what to do; nothing in a file is ever run.
"""

import contextlib
import io
import json
import pickle
import random
import re
import struct
import warnings
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from special_paths import WORDS, make_special, never_waits
from torch_files import DAMAGED, FORMATS, UNREADABLE, Payload, assert_same_bits, refusal, save, state_dict, written

from conversion.errors import ConversionError
from conversion.label_files import read_labels
from conversion.tensor_files import read_hub_checkpoint, read_state_dict

OPTIMISER = (
    r"is the state of an optimiser, not a model\..*best_audio_model\.pth or audio_model\.N\.pth; give that file\."
)
WEB_PAGE = r"is a web page, not a checkpoint: .*Download the file itself.*ast-convert --released NAME OUTPUT_DIR\."


@pytest.mark.parametrize("form", FORMATS)
def test_what_a_module_calls_its_state_dict_comes_back_as_a_plain_dict(tmp_path, form):
    expected = torch.nn.BatchNorm1d(3).state_dict()
    assert type(expected) is not dict
    tensors = read_state_dict(save(expected, tmp_path / "model.pth", form))
    assert type(tensors) is dict
    assert list(tensors) == list(expected)
    assert_same_bits(tensors, expected)


@pytest.mark.parametrize("as_path", [str, Path])
@pytest.mark.parametrize("form", FORMATS)
def test_both_formats_come_back_bit_for_bit(tmp_path, form, as_path):
    save(state_dict(), tmp_path / "model.pth", form)
    tensors = read_state_dict(as_path(tmp_path / "model.pth"))
    assert type(tensors) is dict
    assert_same_bits(tensors, state_dict())


def test_safetensors_come_back_bit_for_bit(tmp_path):
    expected = {name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in state_dict().items()}
    save_file(expected, tmp_path / "model.safetensors")
    assert_same_bits(read_state_dict(tmp_path / "model.safetensors"), expected)


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize(
    "wrap",
    [
        lambda tensors: {"model": tensors},
        lambda tensors: {"state_dict": tensors},
        lambda tensors: {"epoch": 25, "state_dict": tensors, "best": 0.95},
        lambda tensors: {"model": {"state_dict": tensors}},
        lambda tensors: {"model": tensors, "optimizer": {"state": {}, "param_groups": []}},
    ],
    ids=["model", "state_dict", "with_epoch", "twice", "with_optimiser"],
)
def test_tensors_are_found_below_the_usual_wrappers(tmp_path, form, wrap):
    save(wrap(state_dict()), tmp_path / "model.pth", form)
    assert_same_bits(read_state_dict(tmp_path / "model.pth"), state_dict())


def test_parameters_and_tensors_called_like_a_wrapper_are_tensors(tmp_path):
    names = ("model", "state_dict", "state")
    save(
        {name: torch.nn.Parameter(torch.full((2,), float(at))) for at, name in enumerate(names)},
        tmp_path / "model.pth",
    )
    tensors = read_state_dict(tmp_path / "model.pth")
    assert {name: tensor.tolist() for name, tensor in tensors.items()} == {
        "model": [0, 0],
        "state_dict": [1, 1],
        "state": [2, 2],
    }


@pytest.mark.parametrize("form", FORMATS)
def test_a_file_saved_on_a_gpu_is_read_on_the_cpu(tmp_path, form):
    content = written({"weight": torch.arange(3.0)}, form)
    place = struct.pack("<cI", b"X", 3) + b"cpu"
    if form == "legacy":
        content = content.replace(place, struct.pack("<cI", b"X", 6) + b"cuda:0")
    else:
        assert place in content
        content = _with_pickle_changed(content, place, struct.pack("<cI", b"X", 6) + b"cuda:0")
    assert b"cuda:0" in content
    (tmp_path / "model.pth").write_bytes(content)
    tensors = read_state_dict(tmp_path / "model.pth")
    assert tensors["weight"].device.type == "cpu"
    assert tensors["weight"].tolist() == [0, 1, 2]


def _with_pickle_changed(content, old, new):
    changed = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as before, zipfile.ZipFile(changed, "w") as after:
        for record in before.infolist():
            data = before.read(record)
            after.writestr(record.filename, data.replace(old, new) if record.filename.endswith(".pkl") else data)
    return changed.getvalue()


@pytest.mark.parametrize("form", FORMATS)
def test_reading_is_quiet(tmp_path, form):
    save(state_dict(), tmp_path / "model.pth", form, pickle_protocol=3)  # of which torch warns
    (tmp_path / "bare.pth").write_bytes(pickle.dumps({"epoch": 3}, protocol=4))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_same_bits(read_state_dict(tmp_path / "model.pth"), state_dict())
        refusal(tmp_path / "bare.pth")


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="only Linux says what is mapped")
def test_a_zip_file_is_mapped_and_not_copied(tmp_path):
    save({"weight": torch.zeros(1000)}, tmp_path / "model.pth")
    tensors = read_state_dict(tmp_path / "model.pth")
    assert str(tmp_path / "model.pth") in Path("/proc/self/maps").read_text()
    assert tensors["weight"].sum() == 0


@pytest.mark.parametrize(
    "place",
    [
        lambda payload: payload,
        lambda payload: {**state_dict(), "epoch": payload},
        lambda payload: {"model": state_dict(), "args": [payload]},
    ],
    ids=["alone", "beside_tensors", "beside_the_model"],
)
@pytest.mark.parametrize("form", [*FORMATS, "bare"])
def test_code_in_a_pickle_is_not_run(tmp_path, form, place):
    path, marker = tmp_path / "model.pth", tmp_path / "marker"
    content = place(Payload(marker))
    path.write_bytes(pickle.dumps(content, protocol=2) if form == "bare" else written(content, form))
    words = refusal(path)
    assert not marker.exists()
    if form == "bare" and isinstance(content, dict):  # torch gives up at the first tensor, which it did not write
        assert "Give a .pth" in words or "torch.save" in words
    else:
        assert "holds Python objects besides tensors (" in words
        assert "eval), and loading them could run any code, so nothing was loaded." in words
        assert "torch.save(model.state_dict(), FILE)" in words

    with contextlib.suppress(RuntimeError, pickle.UnpicklingError):  # a bare pickle runs before torch sees what it is
        torch.load(path, weights_only=False)
    assert marker.exists(), "the payload is a dud, so the test shows nothing"


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_code_in_a_bare_pickle_of_any_protocol_is_not_run(tmp_path, protocol):
    path, marker = tmp_path / "model.pth", tmp_path / "marker"
    path.write_bytes(pickle.dumps(Payload(marker), protocol=protocol))
    words = refusal(path)
    assert not marker.exists()
    assert "Python objects besides tensors" in words or "is not a file that torch.save writes by default" in words
    pickle.loads(path.read_bytes())
    assert marker.exists(), "the payload is a dud, so the test shows nothing"


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("suffix", [".safetensors", ".bin", ".pt", ""])
def test_the_suffix_does_not_open_a_door_for_code(tmp_path, form, suffix):
    path, marker = tmp_path / f"model{suffix}", tmp_path / "marker"
    save({"weight": Payload(marker)}, path, form)
    refusal(path)
    assert not marker.exists()


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("wrap", [lambda model: model, lambda model: {"model": model}], ids=["alone", "wrapped"])
def test_a_whole_module_is_refused(tmp_path, form, wrap):
    save(wrap(torch.nn.Linear(2, 2)), tmp_path / "model.pth", form)
    words = refusal(tmp_path / "model.pth")
    assert "holds Python objects besides tensors (torch.nn.modules.linear.Linear)" in words
    assert words.endswith("Ask its author for the tensors alone: torch.save(model.state_dict(), FILE).")


@pytest.mark.filterwarnings("ignore:`torch.jit")
def test_a_torchscript_model_is_refused(tmp_path):
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), tmp_path / "model.pth")
    refusal(tmp_path / "model.pth")


def surprises(path, contents):
    """What is not answered by one line that calls the file unreadable, by the names of the contents."""
    expected = re.compile(rf"{re.escape(str(path))}( \([\d,]+ bytes\))? {UNREADABLE}")
    found = {}
    for name, content in contents.items():
        path.write_bytes(content)
        try:
            read_state_dict(path)
            found[name] = "was read"
        except ConversionError as error:
            if not expected.fullmatch(str(error)) or "weights_only" in str(error):
                found[name] = str(error)
        except Exception as error:
            found[name] = repr(error)
    return found


@pytest.mark.parametrize("form", FORMATS)
def test_a_file_cut_off_at_any_byte_is_called_cut_off(tmp_path, form):
    content = written({"weight": torch.randn(60, 30), "numbers": torch.arange(7)}, form)
    assert len(content) > 6000  # torch fails in another place where more than 4 KB are left of a zip
    lengths = {*range(1, 700), *range(700, len(content), 67), len(content) - 1}
    assert surprises(tmp_path / "model.pth", {length: content[:length] for length in sorted(lengths)}) == {}


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("missing", [1, 10, 1000, 0.5, 0.9])
def test_a_cut_off_checkpoint_of_real_size_says_how_long_it_is(tmp_path, form, missing):
    content = written({f"layer.{at}.weight": torch.randn(100, 100) for at in range(12)}, form)
    content = content[: -int(missing * len(content) if isinstance(missing, float) else missing)]
    (tmp_path / "model.pth").write_bytes(content)
    words = refusal(tmp_path / "model.pth")
    assert re.search(rf"model\.pth \({len(content):,} bytes\) {DAMAGED}", words)


def test_a_cut_off_safetensors_file_is_called_cut_off(tmp_path):
    save_file({"weight": torch.randn(40, 30), "numbers": torch.arange(7)}, tmp_path / "whole.safetensors")
    content = (tmp_path / "whole.safetensors").read_bytes()
    contents = {
        length: content[:length] for length in (*range(1, 200), *range(200, len(content), 67), len(content) - 1)
    }
    assert surprises(tmp_path / "model.safetensors", contents) == {}


def test_a_damaged_byte_never_gets_past_as_another_error(tmp_path):
    """Most damaged bytes cannot be noticed; the others must be answered like every bad file."""
    content = written({"weight": torch.randn(4, 3), "numbers": torch.arange(7)}, "legacy")
    path = tmp_path / "model.pth"
    escaped = {}
    for at in range(len(content)):
        path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        try:
            read_state_dict(path)
        except ConversionError:
            pass
        except Exception as error:
            escaped[at] = repr(error)
    assert escaped == {}


def test_random_bytes_are_no_checkpoint(tmp_path):
    contents = {
        (first, seed): bytes([first]) + random.Random(seed).randbytes(300) for first in range(256) for seed in range(3)
    }
    assert surprises(tmp_path / "model.pth", contents) == {}


def zipped(records):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in records.items():
            archive.writestr(name, content)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        zipped({}),
        zipped({"readme.txt": "Checkpoints of 2021"}),
        zipped({"archive/model.pth": b"PK"}),
        zipped({"archive/data.pkl": pickle.dumps({}), "archive/version": "3\n"}),
        zipped({"archive/data.pkl": b"", "archive/version": "3\n", "archive/byteorder": "little"}),
        b"hello world\n",
        b'{"error": "not found"}',
        bytes(1000),  # space that a download reserved and never filled
        b"PK",
        b"PK\x03\x04",
    ],
    ids=[
        "empty_zip",
        "another_zip",
        "zip_in_folder",
        "half_a_checkpoint",
        "empty_pickle",
        "text",
        "json",
        "zeros",
        "2_bytes",
        "4_bytes",
    ],
)
def test_what_torch_did_not_write_is_unreadable(tmp_path, content):
    (tmp_path / "model.pth").write_bytes(content)
    words = refusal(tmp_path / "model.pth")
    assert re.search(UNREADABLE, words)
    assert not re.search(r"damaged: \S*\. Copy", words), "a bare word or number is no reason"


def safetensors_file(header, data=b""):
    header = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(header)) + header + data


@pytest.mark.parametrize(
    "content",
    [
        b"\x00",
        struct.pack("<Q", 10**15),
        safetensors_file(b"not json"),
        safetensors_file({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}),
        safetensors_file({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}, bytes(4)),
        safetensors_file({"a": {"dtype": "F31", "shape": [1], "data_offsets": [0, 4]}}, bytes(4)),
        safetensors_file({"a": {"shape": [1]}}, bytes(4)),
        written({"weight": torch.zeros(2)}, "zip"),
    ],
    ids=["1_byte", "huge_header", "no_json", "no_data", "wrong_shape", "wrong_type", "no_type", "a_pth"],
)
def test_a_broken_safetensors_file_is_unreadable(tmp_path, content):
    (tmp_path / "model.safetensors").write_bytes(content)
    assert re.search(DAMAGED, refusal(tmp_path / "model.safetensors"))


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_an_empty_file_is_called_empty(tmp_path, suffix):
    path = tmp_path / f"model{suffix}"
    path.touch()
    assert re.search(r"is empty, expected .*Copy or download it again\.", refusal(path))


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize(
    "page",
    [
        b"<!DOCTYPE html><html><body>Sign in</body></html>",
        b"<html>",
        b"\n\r\n \t<!doctype html>",
        b"  <HTML LANG='en'><HEAD>",
        b"<?xml version='1.0'?><html xmlns='http://www.w3.org/1999/xhtml'>",
        b"<HEAD><TITLE>404 Not Found</TITLE>",
        b"<script>location='/login'</script>",
    ],
)
def test_a_web_page_is_called_one(tmp_path, page, suffix):
    path = tmp_path / f"model{suffix}"
    path.write_bytes(page)
    assert re.search(WEB_PAGE, refusal(path))


def test_a_folder_is_called_one(tmp_path):
    words = refusal(tmp_path)
    assert "is a folder, expected a file" in words
    assert "type ast-convert --to_original FOLDER OUTPUT.pth" in words


def test_a_missing_file_is_called_missing(tmp_path):
    words = refusal(tmp_path / "gone.pth")
    assert words.startswith(f"There is no file {tmp_path / 'gone.pth'}. Give a .pth file")
    assert "ast-convert --released NAME OUTPUT_DIR" in words


def optimizer_state(make, steps):
    model = torch.nn.Linear(3, 2)
    optimizer = make(model.parameters())
    for _ in range(steps):
        model(torch.ones(1, 3)).sum().backward()
        optimizer.step()
    return optimizer.state_dict()


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("steps", [0, 2])
@pytest.mark.parametrize(
    "make",
    [
        lambda parameters: torch.optim.Adam(
            parameters, 1e-5, weight_decay=5e-7, betas=(0.95, 0.999)
        ),  # the original's
        lambda parameters: torch.optim.SGD(parameters, 0.1),
    ],
    ids=["adam", "sgd"],
)
def test_the_state_of_an_optimiser_is_called_one(tmp_path, form, steps, make):
    save(optimizer_state(make, steps), tmp_path / "best_optim_state.pth", form)
    assert re.search(OPTIMISER, refusal(tmp_path / "best_optim_state.pth"))


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize(
    ("content", "words"),
    [
        ([1, 2], r"holds list \[1, 2\], expected a dict of tensors"),
        (3, "holds int 3, expected a dict of tensors"),
        (None, "holds NoneType None, expected a dict of tensors"),
        ("two\nlines", r"holds str 'two\\nlines', expected a dict of tensors"),
        ((torch.ones(1),), "holds tuple .*, expected a dict of tensors"),
        (torch.ones(3, 3), "holds Tensor .*, expected a dict of tensors"),
        ([torch.zeros(5, 5)], "holds list .*, expected a dict of tensors"),
        ({}, r"holds dict \{\}, expected a dict of tensors"),
        ({"model": {}}, r"holds dict \{\}, expected a dict of tensors"),
        ({"weight": torch.ones(1), "epoch": 3}, r"holds entries that are no tensors: epoch\. Expected a state dict"),
        ({"model": 3, "weight": torch.ones(1)}, r"holds entries that are no tensors: model\. Expected a state dict"),
        ({"a": {"weight": torch.ones(1)}}, r"holds entries that are no tensors: a\. Expected a state dict"),
        ({"state_dict": {"epoch": 3}}, r"holds entries that are no tensors: epoch\. Expected a state dict"),
        (dict.fromkeys("abcdefg", 1), r"holds entries that are no tensors: a, b, c, d, e\. Expected a state dict"),
        ({"two\nlines": 1}, "holds entries that are no tensors: .*two.*lines.* Expected a state dict"),
        (
            {0: torch.ones(1), 1: torch.ones(2)},
            "expected a dict of tensors|Expected a state dict",
        ),  # numbers, not names
        ([["a" * 1000]], r"holds list \[\['a{50,60}, expected a dict of tensors"),
    ],
)
def test_what_is_no_state_dict_is_described(tmp_path, form, content, words):
    save(content, tmp_path / "model.pth", form)
    assert re.search(words, refusal(tmp_path / "model.pth"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xef\xbb\xbf<!-- saved --><html>", "is a web page"),
        (b" " * 600 + b"<HTML>", "is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "is a git-lfs pointer.*git lfs pull"),
    ],
)
def test_what_downloads_leave_in_place_of_a_file_is_named(tmp_path, content, message):
    (tmp_path / "model.pth").write_bytes(content)
    with pytest.raises(ConversionError, match=message):
        read_state_dict(tmp_path / "model.pth")


def test_a_torchscript_program_is_named(tmp_path):
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), tmp_path / "model.pth")
    with pytest.raises(ConversionError, match="is a TorchScript program, not tensors"):
        read_state_dict(tmp_path / "model.pth")


def test_the_suffix_may_be_written_in_capitals(tmp_path):
    save_file({"a": torch.ones(2)}, tmp_path / "model.SAFETENSORS")
    assert torch.equal(read_state_dict(tmp_path / "model.SAFETENSORS")["a"], torch.ones(2))


@pytest.mark.parametrize("kind", WORDS)
def test_what_is_no_file_is_refused_at_once(tmp_path, kind):
    path = make_special(tmp_path / "x.pth", kind)
    (tmp_path / "folder").mkdir()
    inside = make_special(tmp_path / "folder" / "config.json", kind)
    for read, given, named in (
        (read_state_dict, path, path),
        (read_hub_checkpoint, path, path),
        (read_hub_checkpoint, tmp_path / "folder", inside),
        (read_labels, path, path),
    ):
        with never_waits(), pytest.raises(ConversionError) as error:
            read(str(given))
        assert f"{named} {WORDS[kind]}" in str(error.value)
