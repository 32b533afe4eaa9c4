"""The weights of a checkpoint by the headers of their files: which files, and whether they are those of a configuration.

Nothing is built for it: a model that does not fit would take memory and time by what its `config.json` says.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from .fields import CheckpointError, read_json
from .tensor_names import hub_name

WEIGHTS, WEIGHTS_INDEX = "model.safetensors", "model.safetensors.index.json"
BODY = "audio_spectrogram_transformer."
BODY_PARTS = ("embeddings.", "encoder.", "layernorm.")
FLOATS = ("F32", "F16", "BF16", "F64")
LARGEST_HEADER = 16 << 20  # bytes; that of an AST of a thousand layers is an eighth of it
FAULTS_SHOWN = 5
NAMES_SHOWN = 3


def parts_of_index(index: str | os.PathLike) -> list[str]:
    """The files that an index of weights names, all beside it.

    Args:
        index (`str` or `os.PathLike`): the index, a JSON file.

    Returns:
        `list[str]`: the files' names, sorted, each once.

    Raises:
        CheckpointError: if it cannot be read, names none, or one that lies elsewhere.
    """
    try:
        content = read_json(index)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{index} is not valid JSON ({error}). Put an unbroken copy there.") from error
    weight_map = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{index} names no files of weights. Put an unbroken copy there.")
    for name in weight_map.values():
        if not isinstance(name, str) or Path(name).name != name or not name.endswith(".safetensors"):
            raise CheckpointError(
                f"{index} names {name!r:.60}, expected .safetensors files that lie beside it. Put an unbroken copy there."
            )
    return sorted(set(weight_map.values()))


def weight_files(folder: str | os.PathLike) -> list[Path]:
    """The files that the weights of a folder are in: `model.safetensors`, or those that its index names.

    Args:
        folder (`str` or `os.PathLike`): the checkpoint.

    Returns:
        `list[Path]`: the files, each of which is there.

    Raises:
        CheckpointError: if there are none, or the index cannot be used or names a file that is not there.
    """
    folder = Path(folder)
    if (folder / WEIGHTS).is_file():  # which is loaded also where an index lies beside it
        return [folder / WEIGHTS]
    if not (folder / WEIGHTS_INDEX).is_file():
        raise CheckpointError(
            f"{folder} has neither {WEIGHTS} nor {WEIGHTS_INDEX}. Put an unbroken copy of the weights there."
        )
    files = [folder / name for name in parts_of_index(folder / WEIGHTS_INDEX)]
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise CheckpointError(
            f"{folder} has no {missing[0]}, which {WEIGHTS_INDEX} names. Put all {len(files)} files of the weights there."
        )
    return files


def open_weights(path: str | os.PathLike, framework: str = "numpy"):
    """Open a safetensors file, whose header safetensors compares with the length of the file.

    Args:
        path (`str` or `os.PathLike`): the file.
        framework (`str`, defaults to `"numpy"`): of the tensors, `"pt"` for torch.

    Returns:
        `safetensors.safe_open`, to be used in a `with` block.

    Raises:
        CheckpointError: if it cannot be read; nothing larger than its header was read then.
    """
    path = Path(path)
    from safetensors import SafetensorError, safe_open

    try:
        with open(path, "rb") as file:
            header = int.from_bytes(file.read(8), "little")
        if header > LARGEST_HEADER:
            raise CheckpointError(
                f"{path}: its weights (.safetensors) are damaged or cut off (a header of {header:,} bytes is no list of tensors). "
                "Copy or save the model again."
            )
        return safe_open(path, framework=framework)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path}: its weights (.safetensors) are damaged or cut off ({error}). Copy or save the model again."
        ) from error


def shapes_in(files: Iterable[str | os.PathLike]) -> dict[str, tuple[int, ...]]:
    """Shapes of the tensors in files, by the names there.

    Args:
        files (iterable of `str` or `os.PathLike`): safetensors files, of which only the headers are read.

    Returns:
        `dict[str, tuple[int, ...]]`: the shape of each tensor.

    Raises:
        CheckpointError: if a file cannot be read, holds a tensor that another one holds, or one that is no float.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for path in files:
        with open_weights(path) as tensors:
            for name in tensors.keys():  # noqa: SIM118 - no mapping
                view = tensors.get_slice(name)
                if view.get_dtype() not in FLOATS:
                    raise CheckpointError(
                        f"{path} holds {name:.200} as {view.get_dtype()}, expected floats ({', '.join(FLOATS)}). Save the "
                        "model again in one of these."
                    )
                if name in shapes:
                    raise CheckpointError(
                        f"{path} holds {name:.200}, which another file holds too. Copy the model again."
                    )
                shapes[name] = tuple(view.get_shape())
    return shapes


def expected_shapes(config) -> dict[str, tuple[int, ...]]:
    """Shapes of the transformer's tensors by their names on the Hub, without the prefix of a model with a head.

    Args:
        config ([`ASTConfig`]): checked already.

    Returns:
        `dict[str, tuple[int, ...]]`: the shape of each tensor.
    """
    width, inner, (frequency, time) = config.hidden_size, config.intermediate_size, config.patch_grid
    shapes = {
        "embeddings.cls_token": (1, 1, width),
        "embeddings.distillation_token": (1, 1, width),
        "embeddings.position_embeddings": (1, 2 + frequency * time, width),
        "embeddings.patch_embeddings.projection.weight": (width, 1, config.patch_size, config.patch_size),
        "embeddings.patch_embeddings.projection.bias": (width,),
        "layernorm.weight": (width,),
        "layernorm.bias": (width,),
    }
    linear = {
        "attention.attention.query": (width, width),
        "attention.attention.key": (width, width),
        "attention.attention.value": (width, width),
        "attention.output.dense": (width, width),
        "intermediate.dense": (inner, width),
        "output.dense": (width, inner),
    }
    for layer in range(config.num_hidden_layers):
        start = f"encoder.layer.{layer}"
        for name, shape in linear.items():
            shapes[f"{start}.{name}.weight"] = shape
            if config.qkv_bias or not name.startswith("attention.attention."):
                shapes[f"{start}.{name}.bias"] = shape[:1]
        for name in ("layernorm_before", "layernorm_after"):
            shapes |= {f"{start}.{name}.{kind}": (width,) for kind in ("weight", "bias")}
    return shapes


def refuse_other_weights(name: str | os.PathLike, config, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Compare the transformer's tensors with those of a configuration; a head's are compared where it is known.

    Args:
        name (`str` or `os.PathLike`): of the checkpoint, for the message.
        config ([`ASTConfig`]): its own.
        shapes (`Mapping`): from [`shapes_in`].

    Raises:
        CheckpointError: if tensors are missing, unexpected or of another shape; the first of them are named.
    """
    found = {hub_name(tensor): shape for tensor, shape in shapes.items()}
    prefix = BODY if any(tensor.startswith(BODY) for tensor in found) else ""
    body = {
        tensor.removeprefix(prefix): shape for tensor, shape in found.items() if tensor.startswith((BODY, *BODY_PARTS))
    }
    expected = expected_shapes(config)
    faults = [f"{prefix}{tensor} is missing" for tensor in sorted(expected.keys() - body.keys())]
    faults += [f"{prefix}{tensor} is not part of the model" for tensor in sorted(body.keys() - expected.keys())]
    faults += [
        f"{prefix}{tensor} has shape {body[tensor]}, the configuration needs {shape}"
        for tensor, shape in sorted(expected.items())
        if body.get(tensor, shape) != shape
    ]
    refuse_faults(name, faults)


def refuse_faults(
    name: str | os.PathLike,
    faults: Sequence[str],
    hint: str = "Check that config.json and the weights belong together.",
) -> None:
    """Refuse a checkpoint whose tensors do not fit.

    Args:
        name (`str` or `os.PathLike`): of the checkpoint or its file, for the message.
        faults (sequence of `str`): what is wrong with each tensor; none if all fit.
        hint (`str`, *optional*): what to do.

    Raises:
        CheckpointError: if there is a fault; the first ones are named.
    """
    if faults:
        more = f"; and {len(faults) - FAULTS_SHOWN} more" if len(faults) > FAULTS_SHOWN else ""
        raise CheckpointError(f"{name} does not fit the model: {'; '.join(faults[:FAULTS_SHOWN])}{more}. {hint}")


def all_finite(values) -> bool:
    """Whether no number of a tensor is NaN or infinite: by its smallest and largest, in one pass and without a copy.

    Args:
        values (`torch.Tensor`): of any shape and dtype.

    Returns:
        `bool`.
    """
    if not values.numel() or not values.is_floating_point() or values.itemsize == 1:  # of those `aminmax` knows none
        return bool(values.isfinite().all())
    return all(bool(extreme.isfinite()) for extreme in values.detach().aminmax())  # both are NaN if one number is


def refuse_broken(name: str | os.PathLike, tensors: Iterable[tuple[str, object]]) -> None:
    """Refuse a checkpoint whose weights are NaN or infinite.

    Args:
        name (`str` or `os.PathLike`): of the checkpoint or its file, for the message.
        tensors (iterable of `str` and `torch.Tensor`): what is on the device `meta` is not looked at.

    Raises:
        CheckpointError: if a weight is; the first tensors are named.
    """
    broken = [tensor for tensor, values in tensors if not values.is_meta and not all_finite(values)]
    if broken:
        more = f" and {len(broken) - NAMES_SHOWN} more" if len(broken) > NAMES_SHOWN else ""
        raise CheckpointError(
            f"{name} holds weights that are NaN or infinite: {', '.join(broken[:NAMES_SHOWN])}{more}. Nobody could use them; "
            "take another checkpoint, or train again, with a lower --learning_rate."
        )
