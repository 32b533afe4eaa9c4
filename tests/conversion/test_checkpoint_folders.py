"""Folders and Hub ids in the layout of Transformers, read for their tensors."""

import http.server
import json
import re
import threading
from pathlib import Path

import pytest
import torch
from huggingface_hub import close_session, constants
from safetensors.torch import load_file
from torch_files import DAMAGED, FORMATS, Payload, assert_same_bits, refusal, save, state_dict
from transformers import ASTConfig, ASTForAudioClassification

from conversion.tensor_files import read_hub_checkpoint


@pytest.fixture(scope="module")
def stock_model():
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    return ASTForAudioClassification(ASTConfig(**sizes, max_length=96))


@pytest.fixture
def folder(stock_model, tmp_path):
    stock_model.save_pretrained(tmp_path / "whole")
    return tmp_path / "whole"


@pytest.fixture
def sharded(stock_model, tmp_path):
    stock_model.save_pretrained(tmp_path / "sharded", max_shard_size="50KB")
    return tmp_path / "sharded"


def shards_of(folder):
    return sorted(folder.glob("*-of-*"))


@pytest.mark.parametrize("as_path", [str, Path])
def test_a_stock_folder_is_read(folder, as_path):
    config, tensors, files = read_hub_checkpoint(as_path(folder))
    assert files == [folder / "model.safetensors"]
    assert config == json.loads((folder / "config.json").read_text())
    assert config["model_type"] == "audio-spectrogram-transformer"
    assert_same_bits(tensors, load_file(folder / "model.safetensors"))


def test_a_sharded_stock_folder_is_read(folder, sharded):
    config, tensors, files = read_hub_checkpoint(str(sharded))
    assert len(files) > 1
    assert files == shards_of(sharded)
    assert config == json.loads((folder / "config.json").read_text())
    assert_same_bits(tensors, load_file(folder / "model.safetensors"))


@pytest.mark.parametrize("form", FORMATS)
def test_a_folder_of_older_days_is_read(folder, form):
    expected = load_file(folder / "model.safetensors")
    save(expected, folder / "pytorch_model.bin", form)
    (folder / "model.safetensors").unlink()
    _, tensors, files = read_hub_checkpoint(str(folder))
    assert files == [folder / "pytorch_model.bin"]
    assert_same_bits(tensors, expected)


def test_a_sharded_folder_of_older_days_is_read(folder):
    expected = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    weight_map = {
        name: f"pytorch_model-0000{2 if 'encoder' in name else 1}-of-00002.bin"
        for name in sorted(expected, reverse=True)
    }
    for shard in set(weight_map.values()):
        save({name: expected[name] for name in expected if weight_map[name] == shard}, folder / shard)
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    _, tensors, files = read_hub_checkpoint(str(folder))
    assert files == shards_of(folder)
    assert_same_bits(tensors, expected)


def test_safetensors_come_before_pickles(folder):
    save({"stale": torch.zeros(1)}, folder / "pytorch_model.bin")
    _, tensors, files = read_hub_checkpoint(str(folder))
    assert files == [folder / "model.safetensors"]
    assert "stale" not in tensors


def test_a_folder_saved_over_a_sharded_one_is_read_as_stock_reads_it(stock_model, sharded):
    """Stock Transformers removes the old shards and leaves their index, which it ignores when it loads."""
    stock_model.save_pretrained(sharded)
    assert (sharded / "model.safetensors.index.json").exists()
    assert shards_of(sharded) == []
    ASTForAudioClassification.from_pretrained(sharded)
    _, tensors, files = read_hub_checkpoint(str(sharded))
    assert files == [sharded / "model.safetensors"]
    assert_same_bits(tensors, load_file(sharded / "model.safetensors"))


def test_code_in_the_weights_of_a_folder_is_not_run(folder, tmp_path):
    (folder / "model.safetensors").unlink()
    save({"weight": Payload(tmp_path / "marker")}, folder / "pytorch_model.bin")
    assert "nothing was loaded" in refusal(folder, read_hub_checkpoint)
    assert not (tmp_path / "marker").exists()


def test_a_folder_without_configuration_is_refused(folder):
    (folder / "config.json").unlink()
    words = refusal(folder, read_hub_checkpoint)
    assert words.startswith(
        f"{folder} has no config.json, expected a checkpoint folder as save_pretrained() writes it."
    )
    assert words.endswith("ast-convert FILE.pth OUTPUT_DIR.")


def test_a_single_file_is_not_a_folder(tmp_path):
    save(state_dict(), tmp_path / "model.pth")
    assert "ast-convert FILE.pth OUTPUT_DIR" in refusal(tmp_path / "model.pth", read_hub_checkpoint)


def test_a_folder_without_weights_is_refused(folder):
    (folder / "model.safetensors").unlink()
    words = refusal(folder, read_hub_checkpoint)
    assert words == (
        f"{folder} has no weights, expected model.safetensors or pytorch_model.bin beside its config.json."
    )


@pytest.mark.parametrize("content", [b"", b"{\n\n", b"\xff\xfe\x00", b'{"a": 1,}'])
def test_a_broken_configuration_is_named(folder, content):
    (folder / "config.json").write_bytes(content)
    words = refusal(folder, read_hub_checkpoint)
    assert words.startswith(f"{folder / 'config.json'} is not valid JSON (")
    assert words.endswith("Put an unbroken copy there.")


@pytest.mark.parametrize("content", ["[1]", "3", "null", '"audio-spectrogram-transformer"'])
def test_a_configuration_that_is_no_object_is_named(folder, content):
    (folder / "config.json").write_text(content)
    assert str(folder / "config.json") in refusal(folder, read_hub_checkpoint)


@pytest.mark.parametrize("content", ["{", "{}", "[]", "null", '{"weight_map": null}', '{"weight_map": ["a"]}'])
def test_a_broken_index_is_named(sharded, content):
    (sharded / "model.safetensors.index.json").write_text(content)
    assert str(sharded / "model.safetensors.index.json") in refusal(sharded, read_hub_checkpoint)


def test_a_missing_shard_is_named(sharded):
    missing = shards_of(sharded)[1]
    missing.unlink()
    words = refusal(sharded, read_hub_checkpoint)
    assert str(missing) in words
    assert "There is no file" in words
    assert "Give a .pth file" not in words, "the advice is for another command"


def test_a_damaged_shard_is_named(sharded):
    damaged = shards_of(sharded)[-1]
    damaged.write_bytes(damaged.read_bytes()[:-1])
    assert re.search(rf"{re.escape(str(damaged))} \([\d,]+ bytes\) {DAMAGED}", refusal(sharded, read_hub_checkpoint))


def test_an_unknown_id_with_the_network_off_is_answered_in_words(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    words = refusal("nobody/no-such-model", read_hub_checkpoint)
    assert words.startswith("nobody/no-such-model is no folder here and could not be had from the Hub: ")
    assert (
        "Check the name and the connection, or give a folder. The Hub was not asked, as HF_HUB_OFFLINE is set: unset it"
        in words
    )


@pytest.mark.parametrize("name", ["/no/such/folder", "../gone", "a/b/c", "two words", "no-such-folder/"])
def test_what_can_be_no_id_is_not_looked_for_on_the_hub(name):
    words = refusal(name, read_hub_checkpoint)
    assert "is neither a folder nor an id on the Hub. Give a folder that holds config.json, or user/name." in words


class Hub(http.server.BaseHTTPRequestHandler):
    """Answers every request in the way that the server's `answer` names."""

    def do_GET(self):  # noqa: N802
        if self.server.answer == "hang_up":
            return
        self.send_response(self.server.answer if isinstance(self.server.answer, int) else 200)
        self.end_headers()
        if self.server.answer == "page":
            self.wfile.write(b"<html>Accept the terms of this hotel</html>")

    do_HEAD = do_GET  # noqa: N815

    def log_message(self, *arguments):
        pass


@pytest.fixture
def hub(monkeypatch, tmp_path):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    close_session()  # it keeps connections, and whether it is offline
    yield server
    server.shutdown()
    server.server_close()
    close_session()


@pytest.mark.parametrize("answer", [404, 401, 500, "hang_up", "page"])
def test_a_hub_that_does_not_deliver_is_answered_in_words(hub, answer):
    hub.answer = answer
    words = refusal("nobody/no-such-model", read_hub_checkpoint)
    assert words.startswith("nobody/no-such-model is no folder here and could not be had from the Hub: ")
    assert words.endswith("Check the name and the connection, or give a folder.")


def test_a_hub_that_is_not_there_is_answered_in_words(hub, monkeypatch):
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert "could not be had from the Hub" in refusal("nobody/no-such-model", read_hub_checkpoint)
