"""What the tests of features share."""

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
def torch_threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)
