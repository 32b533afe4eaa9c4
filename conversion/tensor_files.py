"""Reads tensors from files: `.pth` of any age without running what is in it, safetensors, and Hub folders.

`torch.load(..., weights_only=True)` with no fallback: a file that needs more is refused.
"""

import codecs
import os
import pickle
import re
import warnings
import zipfile
from pathlib import Path

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HFValidationError, HTTPError
from safetensors.torch import load_file

from modeling_ast.checkpoints.fields import read_json
from modeling_ast.system.hub_answers import hub_answers
from modeling_ast.system.regular_files import SpecialFileError, refuse_special, refuse_special_in, what_is_special
from modeling_ast.system.surroundings import hub_hint

from .errors import ConversionError

WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")  # in this order of preference; both may be sharded
KEYS_AROUND_TENSORS = (
    "model",
    "state_dict",
)  # DeiT's release and many training scripts put the tensors below such a key


def read_state_dict(path: str | os.PathLike) -> dict[str, torch.Tensor]:
    """Read the state dict in a `.pth` (zip, or the format before torch 1.6) or safetensors file.

    Args:
        path (`str` or `os.PathLike`): the file.

    Returns:
        `dict[str, torch.Tensor]` on the CPU; tensors of zip files are mapped from the file, not copied.

    Raises:
        ConversionError: if the file holds something else, is cut off, or would run code; the message says what it is.
    """
    path = Path(path)
    _refuse_by_appearance(path)
    try:
        if path.suffix.lower() == ".safetensors":
            return load_file(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickle protocols; what cannot be read raises
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        raise ConversionError(_why_not_unpickled(path, str(error))) from None
    except MemoryError:
        raise
    except Exception as error:  # broken bytes make torch raise anything: AssertionError, struct.error, TypeError ...
        raise ConversionError(_damaged(path, str(error))) from None
    return _state_dict_in(path, content)


def read_hub_checkpoint(name_or_dir: str) -> tuple[dict, dict[str, torch.Tensor], list[Path]]:
    """Read configuration and tensors of a checkpoint in the Transformers layout, sharded or not.

    Args:
        name_or_dir (`str`): a folder, or an id on the Hub, whose files are then downloaded to its cache.

    Returns:
        The content of `config.json`, the tensors by the names in the files, and the files with the weights.

    Raises:
        ConversionError: if there is no such checkpoint or a file of it cannot be read.
    """
    folder = Path(name_or_dir)
    try:
        refuse_special(folder)
        refuse_special_in(folder)
    except SpecialFileError as error:
        raise ConversionError(str(error)) from None
    if not folder.exists():
        folder = _download(name_or_dir)
    config_file = folder / "config.json"
    if not config_file.is_file():
        raise ConversionError(
            f"{name_or_dir} has no config.json, expected a checkpoint folder as save_pretrained() writes it. A single "
            "file of tensors is given as ast-convert FILE.pth OUTPUT_DIR."
        )
    files = _weight_files(folder)
    if not files:
        raise ConversionError(
            f"{name_or_dir} has no weights, expected {' or '.join(WEIGHT_FILES)} beside its config.json."
        )
    tensors = {name: tensor for file in files for name, tensor in read_state_dict(file).items()}
    return _read_json(config_file), tensors, files


def _weight_files(folder: Path) -> list[Path]:
    for name in WEIGHT_FILES:
        if (folder / name).is_file():  # before an index, which Transformers leaves behind when it saves over shards
            return [folder / name]
        index_file = folder / f"{name}.index.json"
        if index_file.is_file():
            shards = _read_json(index_file).get("weight_map")
            if not isinstance(shards, dict) or not all(
                isinstance(shard, str) and Path(shard).name == shard for shard in shards.values()
            ):
                raise ConversionError(
                    f"{index_file} has no weight_map of files that lie beside it. Put an unbroken copy there."
                )
            files = [folder / shard for shard in sorted(set(shards.values()))]
            missing = [str(file) for file in files if not file.is_file()]
            if missing:
                raise ConversionError(
                    f"There is no file {', '.join(missing)}, which {index_file.name} names. Copy or download the "
                    "whole checkpoint again."
                )
            return files
    return []


def _read_json(path: Path) -> dict:
    try:
        content = read_json(path)
    except ValueError as error:
        raise ConversionError(f"{path} is not valid JSON ({error}). Put an unbroken copy there.") from None
    if not isinstance(content, dict):
        raise ConversionError(f"{path} holds {content!r:.60}, expected an object. Put an unbroken copy there.")
    return content


def _download(hub_id: str) -> Path:
    try:
        for name in WEIGHT_FILES:  # one after the other: most repositories have both, and each is the whole model
            stem, suffix = name.split(".")
            patterns = ["config.json", f"{stem}*.{suffix}", f"{name}.index.json"]
            with hub_answers():
                folder = Path(snapshot_download(hub_id, allow_patterns=patterns))
            if _weight_files(folder):
                break
        return folder
    except HFValidationError:
        raise ConversionError(
            f"{hub_id} is neither a folder nor an id on the Hub. Give a folder that holds config.json, or user/name."
        ) from None
    except (HTTPError, OSError, ValueError) as error:  # ValueError: an answer that is no JSON
        reason = str(error).partition("\n")[0].rstrip(".")
        raise ConversionError(
            f"{hub_id} is no folder here and could not be had from the Hub: {reason}. Check the name and the "
            f"connection, or give a folder.{hub_hint()}"
        ) from None


def _refuse_by_appearance(path: Path) -> None:
    """Say what a file is that torch would only call unreadable."""
    if path.is_dir():
        raise ConversionError(
            f"{path} is a folder, expected a file with the tensors of the original AST. For a checkpoint of the Hub "
            "type ast-convert --to_original FOLDER OUTPUT.pth."
        )
    if kind := what_is_special(path):
        raise ConversionError(f"{path} is {kind}")
    if not path.is_file():
        raise ConversionError(
            f"There is no file {path}. Give a .pth file, or ast-convert --released NAME OUTPUT_DIR to download one."
        )
    with open(path, "rb") as file:
        start = file.read(4096).removeprefix(codecs.BOM_UTF8).lstrip().lower()
    if not start:
        raise ConversionError(f"{path} is empty, expected a .pth file. Copy or download it again.")
    if start.startswith((b"<!doctype", b"<html", b"<?xml", b"<head", b"<script", b"<!--")):
        raise ConversionError(
            f"{path} is a web page, not a checkpoint: the download was answered with a page. Download the file itself, "
            "for a released one with ast-convert --released NAME OUTPUT_DIR."
        )
    if start.startswith(b"version https://git-lfs"):
        raise ConversionError(f"{path} is a git-lfs pointer, not the file it stands for. Type git lfs pull beside it.")


def _damaged(path: Path, reason: str) -> str:
    if "TorchScript" in reason:
        return (
            f"{path} is a TorchScript program, not tensors. Ask its author for torch.save(model.state_dict(), FILE)."
        )
    reason = reason.partition("\n")[0].rstrip(".")
    if " " not in reason or "weights_only" in reason:  # nothing that helps, or torch's advice to load it unsafely
        reason = "it does not hold what its beginning promises"
    return f"{path} ({path.stat().st_size:,} bytes) is cut off or damaged: {reason}. Copy or download it again."


def _why_not_unpickled(path: Path, message: str) -> str:
    refused = re.search(r"Unsupported (?:global: GLOBAL|class) (\S+)", message) or re.search(r"GLOBAL (\S+)", message)
    if refused:
        if _ends_with(path, refused.group(1).rpartition(".")[2]):  # half the name of a class that torch knows
            return _damaged(path, "it ends too early")
        return (
            f"{path} holds Python objects besides tensors ({refused.group(1)}), and loading them could run any code, so "
            "nothing was loaded. Ask its author for the tensors alone: torch.save(model.state_dict(), FILE)."
        )
    return f"{path} is not a file that torch.save writes by default, or it is damaged. Give a .pth file with a state dict."


def _ends_with(path: Path, name: str) -> bool:
    with open(path, "rb") as file:
        file.seek(-min(512, path.stat().st_size), os.SEEK_END)
        end = file.read()
    return end.endswith(name.encode()) or end[:-1].endswith(name.encode())  # a cut name is read without its last byte


def _state_dict_in(path: Path, content) -> dict[str, torch.Tensor]:
    if isinstance(content, dict) and {"state", "param_groups"} <= content.keys():
        raise ConversionError(
            f"{path} is the state of an optimiser, not a model. The original AST saves the model beside it, as "
            "best_audio_model.pth or audio_model.N.pth; give that file."
        )
    for wrapper in KEYS_AROUND_TENSORS:
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    if not isinstance(content, dict) or not content:
        shown = " ".join(repr(content).split())
        raise ConversionError(f"{path} holds {type(content).__name__} {shown:.60}, expected a dict of tensors.")
    others = [
        " ".join(str(name).split())
        for name, tensor in content.items()
        if not isinstance(name, str) or not isinstance(tensor, torch.Tensor)
    ]
    if others:
        raise ConversionError(
            f"{path} holds entries that are no tensors: {', '.join(others[:5])}. Expected a state dict, as "
            "torch.save(model.state_dict(), FILE) writes it."
        )
    odd = [name for name, tensor in content.items() if tensor.layout != torch.strided or tensor.is_meta]
    if odd:
        raise ConversionError(
            f"{path} holds sparse tensors or tensors without data: {', '.join(odd[:5])}. Expected dense ones; save it with "
            "tensor.to_dense() for each."
        )
    return dict(content)
