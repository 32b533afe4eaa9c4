"""What the tests of the model share."""

import pytest
import torch
from common_model import ASTModelTester
from model_runs import MEL_BINS, NUM_LABELS
from torch import nn
from torch._dynamo.utils import counters

from modeling_ast import ASTConfig, ASTForAudioClassification, ASTModel


@pytest.fixture
def make_model(tiny_sizes):
    """Models with the same random weights everywhere, large enough for every tensor to matter."""

    def make(model_class=ASTForAudioClassification, **changes):
        torch.manual_seed(0)
        sizes = tiny_sizes | {"num_mel_bins": MEL_BINS, "num_labels": NUM_LABELS}
        model = model_class(ASTConfig(**(sizes | changes)))
        with torch.no_grad():
            for parameter in model.parameters():
                nn.init.normal_(parameter, std=0.2)
        return model.eval()

    return make


@pytest.fixture
def graphs():
    """Counts the graphs compiled since."""
    torch._dynamo.reset()
    counters.clear()
    yield lambda: counters["stats"]["unique_graphs"]
    torch._dynamo.reset()


@pytest.fixture
def tester():
    return ASTModelTester()


@pytest.fixture(params=[ASTModel, ASTForAudioClassification])
def model_class(request):
    return request.param
