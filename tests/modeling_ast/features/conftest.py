"""What the tests of features share."""

import importlib

import pytest
import torch

from modeling_ast.features import log_mel


@pytest.fixture(params=["compiled loops", "one expression"])
def way(request, monkeypatch):
    """With Numba, and as where it is not."""
    if request.param == "one expression":
        monkeypatch.setattr(log_mel, "_kernels", lambda: None)
    return request.param


@pytest.fixture
def log_mel_kernels():
    """The module, which imports Numba: not before a test asks for it, as processes forked for a test have no Numba."""
    return importlib.import_module("modeling_ast.features.log_mel_kernels")


@pytest.fixture
def torch_threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)
