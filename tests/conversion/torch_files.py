"""Files of `torch.save`, and what is said of those that hold no tensors."""

import io

import pytest
import torch

from conversion.errors import ConversionError
from conversion.tensor_files import read_state_dict

FORMATS = {"zip": True, "legacy": False}  # torch.save's `_use_new_zipfile_serialization`
DAMAGED = r"is cut off or damaged: .*\. Copy or download it again\."
NOT_TORCH = (
    r"is not a file that torch\.save writes by default, or it is damaged\. Give a \.pth file with a state dict\."
)
UNREADABLE = f"({DAMAGED}|{NOT_TORCH})"


def state_dict():
    """Tensors that a careless reader would change: of several types, empty, without dimensions, views of one storage."""
    generator = torch.Generator().manual_seed(0)
    base = torch.randn(40, 30, generator=generator)
    return {
        "weight": base,
        "transposed": base.T,
        "part": base[3:7, ::2],
        "half": base[:2].half(),
        "bfloat16": base[:2].bfloat16(),
        "double": base[:2].double(),
        "numbers": torch.arange(7),
        "mask": base[0] > 0,
        "scalar": torch.tensor(-0.0),
        "not_a_number": torch.tensor([float("nan"), float("-inf")]),
        "empty": torch.zeros(0, 3),
    }


def bits(tensor):
    return tensor.contiguous().reshape(-1).view(torch.uint8).tolist()


def assert_same_bits(actual, expected):
    assert actual.keys() == expected.keys()
    for name, tensor in expected.items():
        assert (actual[name].dtype, actual[name].shape) == (tensor.dtype, tensor.shape), name
        assert bits(actual[name]) == bits(tensor), name


def save(content, path, form="zip", **keywords):
    torch.save(content, path, _use_new_zipfile_serialization=FORMATS[form], **keywords)
    return path


def written(content, form, **keywords):
    buffer = io.BytesIO()
    save(content, buffer, form, **keywords)
    return buffer.getvalue()


def refusal(path, read=read_state_dict):
    """The message, after what must be true of each: one line that names the file and does not ask for trust in it."""
    with pytest.raises(ConversionError) as raised:
        read(path)
    words = str(raised.value)
    assert len(words.splitlines()) == 1, words
    assert str(path) in words
    assert words.endswith(".")
    assert "weights_only" not in words, "torch's advice to load it unsafely is handed on"
    return words


class Payload:
    """Pickles as code that makes a file where it is loaded."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return eval, (f"open({str(self.marker)!r}, 'w').close()",)
