"""What surrounds the model when it runs: compilers, mixed precision, padded batches, accelerators."""

import shutil

import numpy as np
import pytest
import torch
from model_runs import (
    MEL_BINS,
    ROUNDING,
    SHORTCUT_TOLERANCE,
    TRAINED_FRAMES,
    assert_close_gradients,
    gradients,
    make_inputs,
    run,
)
from torch._dynamo.utils import counters
from torch._subclasses.fake_tensor import FakeTensorMode, unset_fake_temporarily
from torch.utils._pytree import tree_map_only

from finetune.augmentations.augmentation import Augmentation
from finetune.clip_sets.collator import ASTDataCollator, model_inputs
from modeling_ast import ASTFeatureExtractor, ASTModel
from modeling_ast.features import log_mel
from modeling_ast.modeling_ast import NUM_CLASS_TOKENS

needs_compiler = pytest.mark.skipif(
    not any(shutil.which(name) for name in ("g++", "clang++", "c++")), reason="no C++ compiler for inductor"
)


# torch.compile


# Shorter than trained, as long, longer; (frames, lengths of the clips). An axis of one, be it clips or time patches, is
# for PyTorch always a graph of its own.
BATCHES = [(50, [50, 27, 9]), (96, [96, 50]), (200, [96, 200, 40]), (307, [306, 120, 50, 3])]


def make_batch(frames: int, lengths: list[int], masked: bool) -> dict:
    """Inputs, their mask in the dtype of the feature extractor's."""
    inputs = make_inputs(frames, lengths if masked else None, batch=len(lengths))
    return inputs | {name: mask.long() for name, mask in inputs.items() if name == "attention_mask"}


class CompiledModel:
    """A model, the same compiled, and how many graphs that took."""

    def __init__(self, model, **settings):
        self.model, self.graphs = model, 0
        self._compiled = torch.compile(model, fullgraph=True, **settings)

    def __call__(self, **inputs):
        before = counters["stats"]["unique_graphs"]
        outputs = self._compiled(**inputs)
        self.graphs += counters["stats"]["unique_graphs"] - before
        return outputs

    def __getattr__(self, name):
        return getattr(self.model, name)


@pytest.fixture(scope="module")
def traced():
    """Compiled models by their settings: to trace one takes a second, whatever goes through it afterwards."""
    torch._dynamo.reset()
    with torch._dynamo.config.patch(recompile_limit=64):  # of one `forward`, whichever model's
        yield {}
    torch._dynamo.reset()


@pytest.fixture
def compile_model(make_model, traced):
    """Models compiled for clips of any length, each once."""

    def compiled(train: bool, masked: bool, checkpointed: bool = False) -> CompiledModel:
        settings = train, masked, checkpointed
        if settings not in traced:
            model = make_model(num_hidden_layers=1 if checkpointed else 2).train(train)
            if checkpointed:
                model.activation_checkpointing_enable()
            traced[settings] = CompiledModel(model, dynamic=True, backend="eager")
        return traced[settings]

    return compiled


@pytest.mark.parametrize("masked", [False, True])
def test_one_compiled_graph_serves_clips_shorter_than_trained_as_long_and_longer(compile_model, masked):
    compiled = compile_model(train=False, masked=masked)
    for frames, lengths in BATCHES:
        inputs = make_batch(frames, lengths, masked)
        expected = run(compiled.model, inputs).logits
        torch.testing.assert_close(run(compiled, inputs).logits, expected, atol=ROUNDING, rtol=ROUNDING)
    assert compiled.graphs == 1


@pytest.mark.parametrize("checkpointed", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_one_compiled_graph_trains_with_clips_of_all_these_lengths(compile_model, masked, checkpointed):
    compiled = compile_model(train=True, masked=masked, checkpointed=checkpointed)
    for frames, lengths in BATCHES:
        inputs = make_batch(frames, lengths, masked)
        assert_close_gradients(gradients(compiled, inputs), gradients(compiled.model, inputs))
    assert compiled.graphs == 1


@pytest.mark.parametrize("dynamic", [False, pytest.param(True, marks=pytest.mark.long)])  # ten seconds of tracing
def test_a_graph_compiled_with_its_backward_pass_gives_the_plain_gradients(make_model, traced, dynamic):
    compiled = CompiledModel(make_model(num_hidden_layers=1).train(), dynamic=dynamic, backend="aot_eager")
    for frames, lengths in BATCHES if dynamic else BATCHES[2:3]:
        inputs = make_inputs(frames, lengths, batch=len(lengths))
        assert_close_gradients(gradients(compiled, inputs), gradients(compiled.model, inputs))
    assert compiled.graphs == 1


@pytest.mark.long  # half a minute of a C++ compiler
@needs_compiler
def test_the_default_compiler_gives_the_logits_of_the_plain_model(make_model, graphs, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    model = make_model(num_hidden_layers=1)
    compiled = torch.compile(model, fullgraph=True)
    inputs = make_inputs(200, [96, 200, 40])
    logits = run(compiled, inputs).logits
    torch.testing.assert_close(logits, run(model, inputs).logits, atol=ROUNDING, rtol=ROUNDING)
    assert graphs() == 1


# Mixed precision


def test_under_bfloat16_autocast_logits_stay_near_and_gradients_are_finite_float32(make_model):
    model = make_model().train()
    inputs = make_inputs(200, [200, 96, 40])
    expected = gradients(model, inputs)
    logits = run(model, inputs).logits
    with torch.autocast("cpu", torch.bfloat16):
        rounded = run(model, inputs).logits
        found = gradients(model, inputs)
    assert rounded.dtype is torch.bfloat16
    # Every product's factors are rounded to 8 bits: 0.4 % each, and these errors add up over the layers.
    assert (rounded - logits).norm() < 0.05 * logits.norm()
    assert all(gradient.dtype is torch.float32 and gradient.isfinite().all() for gradient in found.values())
    far = [name for name in expected if (found[name] - expected[name]).norm() > 0.2 * expected[name].norm()]
    # The same value added to all scores of a softmax changes nothing: these gradients are all rounding.
    assert all(name.endswith("key.bias") for name in far)


# Clips of many lengths in one batch


@pytest.fixture
def clips():
    """Waveforms longer than trained, shorter, and under the 16 frames of a patch."""
    generator = np.random.default_rng(0)
    return [
        generator.uniform(-0.5, 0.5, int(16_000 * seconds)).astype(np.float32) for seconds in (2.3, 0.6, 0.05, 1.4)
    ]


def extract(clips: list) -> dict:
    extractor = ASTFeatureExtractor(max_length=400, num_mel_bins=MEL_BINS, padding="longest")
    return dict(extractor(clips, sampling_rate=16_000, return_tensors="pt"))


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("way", ["eager", "sdpa", "compiled"])
def test_each_clip_of_a_mixed_batch_gets_the_logits_it_gets_alone(make_model, compile_model, clips, way, train):
    runner = (
        compile_model(train, masked=True) if way == "compiled" else make_model(attn_implementation=way).train(train)
    )
    model = runner.model if way == "compiled" else runner
    inputs = extract(clips) | {"labels": torch.arange(len(clips))}
    frames = inputs["attention_mask"].sum(dim=1).tolist()
    assert max(frames) > TRAINED_FRAMES > min(frames)
    assert min(frames) < model.config.patch_size
    with torch.set_grad_enabled(train):
        together = runner(**inputs).logits
    for row, clip in enumerate(clips):
        alone = extract([clip])
        assert ("attention_mask" in alone) == (frames[row] < model.config.patch_size)
        assert (together[row] - run(model, alone).logits[0]).abs().max() < ROUNDING


@pytest.mark.parametrize("patch_size", [8, 20])
def test_patches_of_another_size_than_the_released_ones_keep_to_that(make_model, clips, patch_size):
    model = make_model(patch_size=patch_size, frequency_stride=8, time_stride=8)
    short = [np.resize(clips[0], 400 + 160 * frames) for frames in (3, 6, 11, 25)]
    together = run(model, extract([*short, clips[0]])).logits
    for row, clip in enumerate(short):
        alone = extract([clip])
        frames = alone["input_values"].shape[1]
        if frames < patch_size:
            with pytest.raises(ValueError, match=rf"has {frames} frames, a patch needs {patch_size}\. Pad with"):
                run(model, alone)
        else:
            assert (together[row] - run(model, alone).logits[0]).abs().max() < ROUNDING


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_gradients_of_a_mixed_batch_are_the_mean_of_its_clips(make_model, clips, attention):
    model = make_model(attn_implementation=attention).train()
    labels = torch.arange(len(clips))
    together = gradients(model, extract(clips) | {"labels": labels})
    alone = [
        gradients(model, extract([clip]) | {"labels": label[None]}) for clip, label in zip(clips, labels, strict=True)
    ]
    mean = {name: torch.stack([found[name] for found in alone]).mean(dim=0) for name in together}
    assert_close_gradients(together, mean)


# The last layer


@pytest.fixture
def uncompiled_flex_attention():
    """Transformers compiles its kernels, seconds for each shape; test_modeling_ast.py has them do so."""
    with torch.compiler.set_stance("force_eager"):
        yield


def tokens_seen(model, inputs: dict, **kwargs) -> list[int]:
    """Tokens that come to the feed-forward layers, one number a layer."""
    body = model.base_model
    seen = []
    hooks = [
        layer.intermediate.register_forward_hook(lambda _, args, __: seen.append(args[0].shape[1]))
        for layer in body.encoder.layer
    ]
    run(model, inputs, **kwargs)
    for hook in hooks:
        hook.remove()
    return seen


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile:UserWarning")
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("attention", ["eager", "sdpa", "flex_attention"])
def test_the_last_layer_computes_class_tokens_only_and_they_are_equal(
    uncompiled_flex_attention, make_model, attention, masked
):
    model = make_model(attn_implementation=attention)
    inputs = make_inputs(200, [200, 96, 40] if masked else None)
    short, full = run(model, inputs).logits, run(model, inputs, output_hidden_states=True).logits
    assert (short - full).abs().max() < SHORTCUT_TOLERANCE
    tokens = run(model, inputs, output_hidden_states=True).hidden_states[0].shape[1]
    # The masks of flex attention are made for as many queries as keys: with one, all tokens are computed.
    last = tokens if attention == "flex_attention" and masked else NUM_CLASS_TOKENS
    assert tokens_seen(model, inputs) == [tokens, last]
    assert tokens_seen(model, inputs, output_hidden_states=True) == [tokens, tokens]


@pytest.mark.parametrize("masked", [False, True])
def test_gradients_through_the_class_tokens_equal_those_of_the_whole_last_layer(make_model, masked):
    model, inputs = make_model().train(), make_inputs(200, [200, 96, 40] if masked else None)
    found = gradients(model, inputs)
    assert_close_gradients(found, gradients(model, inputs | {"output_hidden_states": True}))


def test_outputs_of_all_tokens_stay_complete(make_model):
    model, inputs = make_model(), make_inputs()
    tokens = NUM_CLASS_TOKENS + int(np.prod(model.config.patch_grid))
    states = run(model, inputs, output_hidden_states=True).hidden_states
    assert [state.shape[1] for state in states] == [tokens] * (1 + model.config.num_hidden_layers)
    weights = run(model, inputs, output_attentions=True).attentions
    assert [weight.shape[2:] for weight in weights] == [(tokens, tokens)] * model.config.num_hidden_layers
    for setting in ("output_hidden_states", "output_attentions"):  # asked for by the configuration
        configured = make_model(attn_implementation="eager", **{setting: True})
        assert tokens_seen(configured, inputs) == [tokens] * model.config.num_hidden_layers


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile:UserWarning")
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("attention", ["eager", "sdpa", "flex_attention"])
def test_the_bare_model_returns_all_tokens_unless_asked_for_the_class_tokens(
    uncompiled_flex_attention, make_model, attention, masked
):
    model = make_model(ASTModel, attn_implementation=attention)
    inputs = make_inputs(200, [200, 96, 40] if masked else None)
    del inputs["labels"]
    everything, short = run(model, inputs), run(model, inputs, class_tokens_only=True)
    assert everything.last_hidden_state.shape[1] > NUM_CLASS_TOKENS
    assert short.last_hidden_state.shape[1] == NUM_CLASS_TOKENS
    difference = short.last_hidden_state - everything.last_hidden_state[:, :NUM_CLASS_TOKENS]
    # LayerNorm has brought the tokens to size 1: SHORTCUT_TOLERANCE is of the logits.
    assert difference.abs().max() < ROUNDING
    assert (short.pooler_output - everything.pooler_output).abs().max() < ROUNDING


@pytest.mark.parametrize("output", ["output_hidden_states", "output_attentions"])
def test_class_tokens_alone_exclude_outputs_of_all_tokens(make_model, output):
    with pytest.raises(ValueError, match="class_tokens_only=True leaves out .* Pass one or the other"):
        make_model(ASTModel)(make_inputs()["input_values"], class_tokens_only=True, **{output: True})


# A step on an accelerator

AUGMENTATION = Augmentation(max_frequency_mask=8, max_time_mask=20, max_roll=10)


@pytest.fixture
def constants_made_before(monkeypatch):
    """What `log_mel` computes once and keeps is made before a step, and is not what a step waits for."""

    def outside(function):
        def made(*args):
            device = next((arg for arg in args if isinstance(arg, torch.device)), torch.device("cpu"))
            on_cpu = [torch.device("cpu") if isinstance(arg, torch.device) else arg for arg in args]
            with unset_fake_temporarily():
                constants = function(*on_cpu)
            return tree_map_only(torch.Tensor, lambda t: torch.empty(t.shape, dtype=t.dtype, device=device), constants)

        return made

    for name, function in list(vars(log_mel).items()):
        if hasattr(function, "cache_clear"):
            monkeypatch.setattr(log_mel, name, outside(function))


@pytest.fixture
def on_an_accelerator(make_model):
    """A model whose tensors claim to be on a GPU, and the mode in which they do. In it, reading a tensor's value, for
    which the host would have to wait, raises."""

    def make(**changes):
        with torch.device("meta"):
            model = make_model(**changes).train()
        with FakeTensorMode(allow_non_fake_inputs=True) as mode:
            model.to_empty(device="cuda")
        return model, mode

    return make


@pytest.mark.filterwarnings("ignore:Accessing the data pointer of FakeTensor:UserWarning")
@pytest.mark.parametrize("same_length", [False, True])
@pytest.mark.parametrize("padding", ["longest", "max_length"])
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_features_forward_pass_and_loss_never_wait_for_the_device(
    on_an_accelerator, constants_made_before, clips, attention, padding, same_length
):
    extractor = ASTFeatureExtractor(max_length=TRAINED_FRAMES, num_mel_bins=MEL_BINS, padding=padding)
    augmentation = AUGMENTATION
    examples = [
        {
            "waveform": clips[0] if same_length else clip,
            "label": np.int64(index),
            "draws": augmentation.draw(seed=0, epoch=0, index=index, num_clips=len(clips)),
        }
        for index, clip in enumerate(clips)
    ]
    batch = ASTDataCollator(extractor, compute_features=False)(examples)
    model, mode = on_an_accelerator(attn_implementation=attention)
    with mode:
        batch = tree_map_only(
            torch.Tensor, lambda tensor: torch.empty(tensor.shape, dtype=tensor.dtype, device="cuda"), batch
        )
        inputs = model_inputs(batch, extractor, augmentation)
        assert ("attention_mask" in inputs) == (padding == "longest" and not same_length)
        loss = model(**inputs).loss
    assert loss.device.type == "cuda"
    assert loss.requires_grad


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_the_model_and_its_backward_pass_never_wait_for_the_device(make_model, attention):
    """On the device "meta", where there are no values: a backward pass on another one needs its driver. Transformers
    does not look at a mask that is fake, but it would at this one."""
    model = make_model(attn_implementation=attention).train().to("meta")
    inputs = {name: tensor.to("meta") for name, tensor in make_inputs(200, [200, 96, 40]).items()}
    model(**inputs).loss.backward()
    assert all(parameter.grad.shape == parameter.shape for parameter in model.parameters())
