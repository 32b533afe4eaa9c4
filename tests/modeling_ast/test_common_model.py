"""The common model and feature-extractor tests of Transformers, by the library's names, on a tiny configuration.

The library keeps them in mixins that its wheel does not contain, so what each name stands for is written anew here.
Where this port differs on purpose, the test says how. What is left out stands with its reason in `LEFT_OUT`.
"""

import copy
import inspect
import json
import re
import types
import warnings
from unittest import mock

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import BatchFeature, pipeline
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_utils import load_state_dict

from modeling_ast import ASTConfig, ASTFeatureExtractor, ASTForAudioClassification, ASTModel
from modeling_ast.modeling_ast import NUM_CLASS_TOKENS, ASTPatchEmbeddings, ASTPreTrainedModel

ROUNDING = 1e-5  # float32; the same products summed in another order

NO_TEXT = "the model has no text: no token ids, no vocabulary, no embeddings looked up by id"
NO_TIES = "no two tensors of the model are one"
NO_GENERATION = "the model generates nothing; test_save_load asks for can_generate() being false"
NOT_COMPOSITE = "the model has one configuration and no parts with their own"
OTHER_MODALITIES = "the model has no method of this name; its features are ASTModel's output"
NEEDS_ACCELERATOR = "needs an accelerator, and the machines that test this have none"
FLASH = "needs an accelerator and the flash-attn package; that it is declared is in test_modeling_ast.py"
COMPILED = "needs an accelerator in the library; test_model_runtime.py compiles on the CPU, training included"

LEFT_OUT = {
    # Text and generation
    "test_inputs_embeds": NO_TEXT,
    "test_inputs_embeds_matches_input_ids": NO_TEXT,
    "test_resize_tokens_embeddings": NO_TEXT,
    "test_resize_tokens_embeddings_with_deepspeed": NO_TEXT,
    "test_resize_tokens_embeddings_with_deepspeed_multi_gpu": NO_TEXT,
    "test_resize_embeddings_untied": NO_TEXT,
    "test_resize_embeddings_untied_with_deepspeed": NO_TEXT,
    "test_resize_embeddings_untied_with_deepspeed_multi_gpu": NO_TEXT,
    "test_model_forward_default_config_values": NO_TEXT,
    "test_load_with_mismatched_shapes": f"{NO_TEXT}; see test_can_load_ignoring_mismatched_shapes",
    "test_generation_tester_mixin_inheritance": NO_GENERATION,
    "test_tied_weights_keys": f"{NO_TIES}, see test_load_save_without_tied_weights",
    **{
        f"test_{attention}_padding_matches_padding_free_with_position_ids": f"{NO_TEXT}, packed by position ids"
        for attention in ("eager", "sdpa")
    },
    # What other architectures have
    "test_feed_forward_chunking": "the library's chunks of a feed-forward layer are not offered, as in its own AST",
    "test_eager_matches_batched_and_grouped_inference": "the model has no experts",
    "test_sliding_window_mask": "every token attends to all others",
    "test_tp_plan_matches_params": "the model has no tensor-parallel plan, as the library's AST has none",
    "test_capture_outputs_decorator": "forward collects its outputs itself, the decorator is not used",
    "test_attn_implementation_composite_models": NOT_COMPOSITE,
    "test_sdpa_can_dispatch_composite_models": NOT_COMPOSITE,
    "test_internal_model_config_and_subconfig_are_same": NOT_COMPOSITE,
    "test_can_set_attention_dynamically_composite_model": NOT_COMPOSITE,
    "test_flash_attn_2_can_dispatch_composite_models": NOT_COMPOSITE,
    "test_flash_attn_3_can_dispatch_composite_models": NOT_COMPOSITE,
    **{
        f"test_get_{modality}_features_{what}": OTHER_MODALITIES
        for modality in ("text", "image", "audio", "video")
        for what in ("output", "hidden_states", "attentions")
    },
    # What cannot be run here
    "test_multi_gpu_data_parallel_forward": NEEDS_ACCELERATOR,
    "test_model_parallelism": NEEDS_ACCELERATOR,
    "test_can_load_with_device_context_manager": NEEDS_ACCELERATOR,
    "test_can_load_with_global_device_set": NEEDS_ACCELERATOR,
    "test_sdpa_can_dispatch_on_flash": NEEDS_ACCELERATOR,
    "test_flex_attention_with_grads": f"{NEEDS_ACCELERATOR}; without gradients it is in test_modeling_ast.py",
    "test_sdpa_can_compile_dynamic": COMPILED,
    "test_torch_compile_for_training": COMPILED,
    "test_flash_attn_kernels_inference_equivalence": FLASH,
    "test_flash_attn_kernels_mps_inference_equivalence": FLASH,
    "test_flash_attn_2_inference_equivalence": FLASH,
    "test_flash_attn_2_inference_equivalence_right_padding": FLASH,
    "test_flash_attn_3_inference_equivalence": FLASH,
    "test_flash_attn_3_inference_equivalence_right_padding": FLASH,
    "test_flash_attn_2_fp32_ln": FLASH,
    "test_flash_attn_2_can_compile_with_attention_mask_None_without_graph_break": FLASH,
    "test_flash_attn_2_from_config": FLASH,
    "test_flash_attn_3_from_config": FLASH,
    # What would have to be downloaded
    "test_model_from_pretrained": "downloads a checkpoint; tests/conversion compares all released ones",
    "test_inference_audio_classification": "downloads a checkpoint; tests/reference holds outputs of the original code",
    "test_integration": "downloads a clip; test_feature_extraction_ast.py compares shipped clips with Kaldi's features",
    # Feature extraction
    "test_using_audio_utils": "there is no second implementation for machines without torchaudio: ours needs none",
    "test_batch_feature_tf": "the library has given up TensorFlow",
    "test_padding_accepts_tensors_tf": "the library has given up TensorFlow",
}


class ASTModelTester:
    """A tiny configuration with odd sizes, inputs for it, and what follows from it."""

    batch_size = 3
    num_labels = 5
    sizes = types.MappingProxyType(
        {
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "intermediate_size": 40,
            "patch_size": 4,
            "frequency_stride": 3,
            "time_stride": 2,
            "num_mel_bins": 19,
            "max_length": 23,
            "hidden_dropout_prob": 0.1,
            "attention_probs_dropout_prob": 0.1,
        }
    )

    def config(self, **changes) -> ASTConfig:
        return ASTConfig(**{**self.sizes, "num_labels": self.num_labels, **changes})

    def num_tokens(self, config: ASTConfig) -> int:
        along_frequency = (config.num_mel_bins - config.patch_size) // config.frequency_stride + 1
        along_time = (config.max_length - config.patch_size) // config.time_stride + 1
        return NUM_CLASS_TOKENS + along_frequency * along_time

    def model(self, model_class, **changes):
        """A model in which every tensor matters: the initial ones are close to zero, the biases zero."""
        torch.manual_seed(0)
        model = model_class(self.config(**changes))
        with torch.no_grad():
            for parameter in model.parameters():
                nn.init.normal_(parameter, std=0.2)
        return model.eval()

    def inputs(self, model_class=None, labels: bool = False) -> dict[str, torch.Tensor]:
        generator = torch.Generator().manual_seed(1)
        shape = (self.batch_size, self.sizes["max_length"], self.sizes["num_mel_bins"])
        inputs = {"input_values": torch.randn(shape, generator=generator)}
        if labels and model_class is ASTForAudioClassification:
            inputs["labels"] = torch.arange(self.batch_size) % self.num_labels
        return inputs

    def loss(self, model, inputs) -> torch.Tensor:
        """The classifier's own loss; any number that needs every token for the bare model."""
        outputs = model(**inputs)
        return outputs.loss if "loss" in outputs else outputs.last_hidden_state.pow(2).mean()

    def gradients(self, model, inputs) -> dict[str, torch.Tensor]:
        model.zero_grad()
        torch.manual_seed(2)  # of dropout
        self.loss(model, inputs).backward()
        return {name: parameter.grad for name, parameter in model.named_parameters()}


def assert_same_weights(model, other):
    expected, found = model.state_dict(), other.state_dict()
    assert expected.keys() == found.keys()
    for name, tensor in expected.items():
        assert torch.equal(tensor, found[name]), name


def run(model, inputs, **kwargs):
    with torch.no_grad():
        return model(**inputs, **kwargs)


@pytest.fixture
def tester():
    return ASTModelTester()


@pytest.fixture(params=[ASTModel, ASTForAudioClassification])
def model_class(request):
    return request.param


@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.*is deprecated:FutureWarning")
class TestASTModel:
    def test_model(self, tester):
        config = tester.config()
        outputs = run(tester.model(ASTModel), tester.inputs())
        tokens = tester.num_tokens(config)
        assert outputs.last_hidden_state.shape == (tester.batch_size, tokens, config.hidden_size)
        assert outputs.pooler_output.shape == (tester.batch_size, config.hidden_size)
        classified = run(tester.model(ASTForAudioClassification), tester.inputs())
        assert classified.logits.shape == (tester.batch_size, tester.num_labels)
        assert classified.loss is None

    def test_config(self, tester, tmp_path):
        config = tester.config(num_labels=3)
        for name, value in tester.sizes.items():
            assert getattr(config, name) == value
            setattr(config, name, value)
        assert config.id2label == {0: "LABEL_0", 1: "LABEL_1", 2: "LABEL_2"}
        assert config.label2id == {"LABEL_0": 0, "LABEL_1": 1, "LABEL_2": 2}
        assert {name: json.loads(config.to_json_string())[name] for name in tester.sizes} == dict(tester.sizes)
        config.to_json_file(tmp_path / "config.json")
        assert ASTConfig.from_json_file(tmp_path / "config.json").to_dict() == config.to_dict()
        config.save_pretrained(tmp_path / "in" / "here")
        assert ASTConfig.from_pretrained(tmp_path / "in", subfolder="here").to_dict() == config.to_dict()
        assert ASTConfig().to_dict() == ASTConfig.from_dict({}).to_dict(), "every field has a default"

    def test_forward_signature(self, model_class):
        names = list(inspect.signature(model_class.forward).parameters)
        assert names[:3] == ["self", "input_values", "attention_mask"]
        assert ("labels" in names) == (model_class is ASTForAudioClassification)

    def test_model_main_input_name(self, model_class):
        assert list(inspect.signature(model_class.forward).parameters)[1] == model_class.main_input_name

    def test_model_base_model_prefix(self, tester):
        model = tester.model(ASTForAudioClassification)
        assert model.base_model is model.audio_spectrogram_transformer
        assert isinstance(model.base_model, ASTModel)

    def test_model_is_small(self, tester, model_class):
        assert tester.model(model_class).num_parameters() < 1_000_000

    def test_num_layers_is_small(self, tester):
        assert tester.sizes["num_hidden_layers"] == 2, "one of them is the last layer, one is not"

    def test_model_get_set_embeddings(self, tester, model_class):
        model = tester.model(model_class)
        assert isinstance(model.get_input_embeddings(), ASTPatchEmbeddings)
        new = ASTPatchEmbeddings(model.config)
        model.set_input_embeddings(new)
        assert model.get_input_embeddings() is new
        assert model.get_output_embeddings() is None

    # Saving and loading

    def test_save_load(self, tester, model_class, tmp_path):
        model = tester.model(model_class)
        expected = run(model, tester.inputs())[0]
        for folder in (
            tmp_path / "first",
            tmp_path / "second",
        ):  # the second time with what loading added to the config
            model.save_pretrained(folder)
            assert (folder / "config.json").is_file()
            assert not model.can_generate()
            assert not (folder / "generation_config.json").exists()
            model = model_class.from_pretrained(folder)
            assert not model.training
            assert torch.equal(run(model, tester.inputs())[0], expected)

    def test_from_pretrained_no_checkpoint(self, tester, model_class):
        model = tester.model(model_class)
        loaded = model_class.from_pretrained(None, config=model.config, state_dict=model.state_dict())
        assert_same_weights(model, loaded)

    def test_torch_save_load(self, tester, model_class, tmp_path):
        model = tester.model(model_class)
        for zipped in (True, False):
            torch.save(model.state_dict(), tmp_path / "weights.bin", _use_new_zipfile_serialization=zipped)
            fresh = model_class(tester.config())
            fresh.load_state_dict(load_state_dict(str(tmp_path / "weights.bin")))
            assert_same_weights(model, fresh)

    def test_can_use_safetensors(self, tester, model_class, tmp_path):
        model = tester.model(model_class)
        model.save_pretrained(tmp_path)
        loaded, info = model_class.from_pretrained(tmp_path, output_loading_info=True)
        assert_same_weights(model, loaded)
        assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))

    def test_load_save_without_tied_weights(self, tester, model_class, tmp_path):
        model = tester.model(model_class, tie_word_embeddings=False)
        model.save_pretrained(tmp_path)
        assert len({tensor.data_ptr() for tensor in model.state_dict().values()}) == len(model.state_dict())
        assert load_file(tmp_path / "model.safetensors").keys() == model.state_dict().keys()
        assert_same_weights(model, model_class.from_pretrained(tmp_path))

    def test_save_load_keys_to_ignore_on_save(self, tester, model_class, tmp_path):
        """The library leaves this out where nothing is ignored. Here that nothing is ignored is what is asked for."""
        model = tester.model(model_class)
        model.save_pretrained(tmp_path)
        saved = load_file(tmp_path / "model.safetensors")
        assert saved.keys() == {name for name, _ in model.named_parameters()}
        result = model_class(tester.config()).load_state_dict(saved)
        assert not result.missing_keys
        assert not result.unexpected_keys

    def test_load_contiguous_weights(self, tester, model_class, tmp_path):
        model = tester.model(model_class)
        model.save_pretrained(tmp_path)
        for candidate in (model, model_class.from_pretrained(tmp_path)):
            assert all(parameter.is_contiguous() for parameter in candidate.parameters())

    def test_reverse_loading_mapping(self, tester, model_class, tmp_path):
        """Differs from the library's AST: names in memory are those in the files, so that there is nothing to reverse."""
        model = tester.model(model_class)
        assert not get_model_conversion_mapping(model, add_legacy=False)
        model.save_pretrained(tmp_path)
        assert load_file(tmp_path / "model.safetensors").keys() == model.state_dict().keys()

    def test_can_load_from_already_mapped_keys(self, tester, model_class, tmp_path):
        model = tester.model(model_class)
        model.save_pretrained(tmp_path, save_original_format=False)
        assert_same_weights(model, model_class.from_pretrained(tmp_path))

    def test_correct_missing_keys(self, tester, tmp_path):
        model = tester.model(ASTForAudioClassification)
        model.base_model.save_pretrained(tmp_path)
        loaded, info = ASTForAudioClassification.from_pretrained(tmp_path, output_loading_info=True)
        assert set(info["missing_keys"]) == {name for name in model.state_dict() if name.startswith("classifier.")}
        assert_same_weights(model.base_model, loaded.base_model)

    def test_model_weights_reload_no_missing_tied_weights(self, tester, model_class, tmp_path):
        """Differs from the library: a file with none of the weights is an error that names them, not a warning."""
        tester.model(model_class).save_pretrained(tmp_path)
        save_file({"tensor": torch.tensor([1.0, 2.0])}, tmp_path / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(ValueError, match=r"embeddings.cls_token is missing; .* and \d+ more") as error:
            model_class.from_pretrained(tmp_path)
        named, more = re.search(r"model: (.*); and (\d+) more", str(error.value)).groups()
        tensors = set(model_class(tester.config()).state_dict())
        new = {name for name in tensors if name.startswith("classifier.")}  # a classifier may be new as a whole
        assert len(named.split("; ")) + int(more) == len(tensors - new)

    def test_can_load_ignoring_mismatched_shapes(self, tester, model_class, tmp_path):
        """Differs from the library: other labels get a new classifier when they are asked for by name or number, also
        without ignore_mismatched_sizes; and no other tensor is initialised anew even with it."""
        model = tester.model(ASTForAudioClassification)
        model.save_pretrained(tmp_path)
        if model_class is ASTForAudioClassification:
            loaded = model_class.from_pretrained(tmp_path, num_labels=42)
            assert loaded.classifier.dense.weight.shape == (42, model.config.hidden_size)
            assert_same_weights(model.base_model, loaded.base_model)
        config = json.loads((tmp_path / "config.json").read_text())
        (tmp_path / "config.json").write_text(json.dumps(config | {"intermediate_size": 41}))
        with pytest.raises(ValueError, match=r"has shape \(40,\), the configuration needs \(41,\)"):
            model_class.from_pretrained(tmp_path, ignore_mismatched_sizes=True)

    def test_keep_in_fp32_modules_exist(self, tester, model_class):
        """The library leaves this out where no module is kept in float32. Here that none is kept is asked for."""
        model = tester.model(model_class)
        assert not model._keep_in_fp32_modules
        assert not model._keep_in_fp32_modules_strict

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_keep_in_fp32_modules(self, tester, model_class, dtype, tmp_path):
        tester.model(model_class).save_pretrained(tmp_path)
        model = model_class.from_pretrained(tmp_path, dtype=dtype)
        assert {tensor.dtype for tensor in model.state_dict().values()} == {dtype}
        assert run(model, tester.inputs())[0].dtype is dtype

    @pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "auto", torch.float16])
    def test_bc_torch_dtype(self, tester, model_class, dtype, tmp_path):
        tester.model(model_class).save_pretrained(tmp_path)
        old = model_class.from_pretrained(tmp_path, torch_dtype=dtype)
        new = model_class.from_pretrained(tmp_path, dtype=dtype)
        assert (
            old.dtype is new.dtype is {"auto": torch.float32}.get(dtype, getattr(torch, str(dtype).split(".")[-1], 0))
        )
        assert_same_weights(old, new)

    def test_can_be_initialized_on_meta(self, tester, model_class):
        with torch.device("meta"):
            model = model_class(tester.config())
        assert {parameter.device.type for parameter in model.parameters()} == {"meta"}

    def test_cannot_load_with_meta_device_context_manager(self, tester, model_class, tmp_path):
        tester.model(model_class).save_pretrained(tmp_path)
        with torch.device("meta"), pytest.raises(RuntimeError, match="meta device context manager"):
            model_class.from_pretrained(tmp_path)

    def check_offloaded(self, tester, model_class, folder, layers_on: str, **kwargs):
        """Loads with the layers on the CPU or the disk; without an accelerator it is the CPU that computes."""
        prefix = "" if model_class is ASTModel else f"{ASTModel.base_model_prefix}."
        parts = {name.removeprefix(prefix).split(".")[0] for name in tester.model(model_class).state_dict()}
        device_map = {name if name == "classifier" else prefix + name: "cpu" for name in parts}
        model = model_class.from_pretrained(folder, device_map=device_map | {f"{prefix}encoder": layers_on}, **kwargs)
        absent = {name for name, parameter in model.named_parameters() if parameter.is_meta}
        layers = {name for name in model.state_dict() if name.startswith(f"{prefix}encoder.")}
        assert absent == (layers if layers_on == "disk" else set())
        assert torch.equal(run(model, tester.inputs())[0], run(tester.model(model_class), tester.inputs())[0])

    def test_cpu_offload(self, tester, model_class, tmp_path):
        tester.model(model_class).save_pretrained(tmp_path)
        self.check_offloaded(tester, model_class, tmp_path, "cpu")

    def test_disk_offload_safetensors(self, tester, model_class, tmp_path):
        tester.model(model_class).save_pretrained(tmp_path)
        self.check_offloaded(tester, model_class, tmp_path, "disk")

    def test_disk_offload_bin(self, tester, model_class, tmp_path):
        model = tester.model(model_class)
        model.config.save_pretrained(tmp_path)
        torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
        folder = tmp_path / "offloaded"
        self.check_offloaded(tester, model_class, tmp_path, "disk", offload_folder=folder, use_safetensors=False)

    # Initial weights

    def test_initialization(self, tester, model_class):
        """With a standard deviation of zero every tensor is all ones (the LayerNorms' scales) or all zeros."""
        model = model_class(tester.config(initializer_range=1e-10))
        for name, parameter in model.named_parameters():
            mean = parameter.mean().item()
            assert mean == pytest.approx(1.0 if re.search(r"layernorm\w*\.weight", name) else 0.0, abs=1e-9), name

    def test_can_init_all_missing_weights(self, tester, model_class, monkeypatch):
        """Differs from the library: that weights are missing is an error. That `_init_weights` knows every tensor is
        asked of a model whose memory held something else."""
        config = tester.config()
        with pytest.raises(ValueError, match="embeddings.cls_token is missing"):
            model_class.from_pretrained(None, config=config, state_dict={})
        own = ASTPreTrainedModel._init_weights

        def seeded(model, module):
            torch.manual_seed(3)
            own(model, module)

        monkeypatch.setattr(ASTPreTrainedModel, "_init_weights", seeded)
        expected = model_class(config)
        with torch.device("meta"):
            model = model_class(config)
        model.to_empty(device="cpu")
        for tensor in model.state_dict().values():
            tensor.fill_(torch.nan)
        model.init_weights()
        assert_same_weights(expected, model)

    def test_init_weights_can_init_buffers(self, tester, model_class):
        """There are none, so that none can be forgotten."""
        assert not dict(tester.model(model_class).named_buffers())

    def test_all_tensors_are_parameter_or_buffer(self, tester, model_class):
        with torch.device("meta"):
            model = model_class(tester.config())
        model.to_empty(device="cpu")
        model.init_weights()
        assert run(model.eval(), tester.inputs())[0].isfinite().all()

    # Outputs

    def test_determinism(self, tester, model_class):
        model = tester.model(model_class)
        assert torch.equal(run(model, tester.inputs())[0], run(model, tester.inputs())[0])
        model.train()
        assert not torch.equal(run(model, tester.inputs())[0], run(model, tester.inputs())[0]), (
            "dropout only in training"
        )

    def test_batching_equivalence(self, tester, model_class):
        model, inputs = tester.model(model_class), tester.inputs()
        together = run(model, inputs, output_hidden_states=True)
        for row in range(tester.batch_size):
            alone = run(model, {"input_values": inputs["input_values"][row : row + 1]}, output_hidden_states=True)
            pairs = [(together[0], alone[0]), *zip(together.hidden_states, alone.hidden_states, strict=True)]
            for of_batch, of_row in pairs:
                torch.testing.assert_close(of_batch[row], of_row[0], atol=ROUNDING, rtol=ROUNDING)

    @pytest.mark.parametrize("implementation", ["eager", "sdpa"])
    def test_attention_outputs(self, tester, model_class, implementation):
        config = tester.config()
        tokens = tester.num_tokens(config)
        model = tester.model(model_class, attn_implementation=implementation)
        asked = run(model, tester.inputs(), output_attentions=True)
        # Transformers refuses a configuration that asks for attentions with another implementation.
        configured = run(
            tester.model(model_class, attn_implementation="eager", output_attentions=True), tester.inputs()
        )
        for outputs in (asked, configured):
            assert len(outputs.attentions) == config.num_hidden_layers
            for weights in outputs.attentions:
                assert weights.shape == (tester.batch_size, config.num_attention_heads, tokens, tokens)
                torch.testing.assert_close(weights.sum(dim=3), torch.ones(weights.shape[:3]))
        both = run(model, tester.inputs(), output_attentions=True, output_hidden_states=True)
        assert list(both)[-2:] == ["hidden_states", "attentions"]
        assert len(both) == len(asked) + 1

    def test_hidden_states_output(self, tester, model_class):
        config = tester.config()
        asked = run(tester.model(model_class), tester.inputs(), output_hidden_states=True)
        configured = run(tester.model(model_class, output_hidden_states=True), tester.inputs())
        for outputs in (asked, configured):
            assert len(outputs.hidden_states) == 1 + config.num_hidden_layers
            for states in outputs.hidden_states:
                assert states.shape == (tester.batch_size, tester.num_tokens(config), config.hidden_size)
        assert run(tester.model(model_class), tester.inputs()).hidden_states is None

    def test_retain_grad_hidden_states_attentions(self, tester, model_class):
        outputs = tester.model(model_class)(**tester.inputs(), output_hidden_states=True, output_attentions=True)
        first = (outputs.hidden_states[0], outputs.attentions[0])
        for tensor in first:
            tensor.retain_grad()
        outputs[0].flatten()[0].backward(retain_graph=True)
        assert all(tensor.grad.abs().sum() > 0 for tensor in first)

    @pytest.mark.parametrize("labels", [False, True])
    @pytest.mark.parametrize("kwargs", [{}, {"output_hidden_states": True}, {"output_attentions": True}])
    def test_model_outputs_equivalence(self, tester, model_class, labels, kwargs):
        model, inputs = tester.model(model_class), tester.inputs(model_class, labels)
        named = run(model, inputs, **kwargs)
        plain = run(model, inputs, return_dict=False, **kwargs)
        assert type(plain) is tuple
        flat = [
            [tensor for value in values for tensor in (value if isinstance(value, tuple) else (value,))]
            for values in (plain, named.to_tuple())
        ]
        assert all(torch.equal(one, other) for one, other in zip(*flat, strict=True))

    @pytest.mark.parametrize("output_attentions", [False, True])
    @pytest.mark.parametrize("masked", [False, True])
    @pytest.mark.parametrize(
        ("dtype", "tolerance"),
        # Both sum in another order. Half precision rounds every layer's output, of size 1, to 11 or 8 bits.
        [(torch.float32, ROUNDING), (torch.float16, 1e-2), (torch.bfloat16, 5e-2)],
    )
    def test_eager_matches_sdpa_inference(self, tester, model_class, dtype, tolerance, masked, output_attentions):
        inputs = tester.inputs()
        if masked:  # the library pads on either side; clips are padded at their end
            lengths = torch.tensor([[23], [11], [4]])
            inputs["attention_mask"] = torch.arange(tester.sizes["max_length"]) < lengths
        eager, sdpa = (
            run(
                tester.model(model_class, attn_implementation=implementation).to(dtype),
                inputs,
                output_attentions=output_attentions,
            )
            for implementation in ("eager", "sdpa")
        )
        of_clips = slice(None, NUM_CLASS_TOKENS)  # what stands at tokens of padding is arbitrary
        torch.testing.assert_close(eager[0][:, of_clips], sdpa[0][:, of_clips], atol=tolerance, rtol=tolerance)

    def test_sdpa_can_dispatch_non_composite_models(self, tester, model_class, tmp_path):
        tester.model(model_class).save_pretrained(tmp_path)
        assert model_class.from_pretrained(tmp_path).config._attn_implementation == "sdpa"
        eager = model_class.from_pretrained(tmp_path, attn_implementation="eager")
        implementations = {
            module.config._attn_implementation for module in eager.modules() if hasattr(module, "config")
        }
        assert implementations == {"eager"}

    def test_config_attn_implementation_setter(self, tester):
        config = tester.config(attn_implementation="eager")
        assert config._attn_implementation == "eager"
        config._attn_implementation = "sdpa"
        assert config._attn_implementation == "sdpa"

    def test_can_set_attention_dynamically(self, tester, model_class):
        model = tester.model(model_class, attn_implementation="eager")
        with mock.patch.object(
            nn.functional, "scaled_dot_product_attention", side_effect=RuntimeError("asked")
        ) as sdpa:
            run(model, tester.inputs())
            assert not sdpa.called
            model.set_attn_implementation("sdpa")
            assert model.config._attn_implementation == "sdpa"
            with pytest.raises(RuntimeError, match="asked"):
                run(model, tester.inputs())
        with pytest.raises(ValueError, match='`attn_implementation="foo"` is not supported'):
            model.set_attn_implementation("foo")
        assert model.config._attn_implementation == "sdpa"

    def test_torch_export(self, tester, model_class):
        model, inputs = tester.model(model_class, attn_implementation="sdpa"), tester.inputs()
        program = torch.export.export(model, args=(), kwargs=inputs)
        torch.testing.assert_close(
            run(program.module(), inputs)[0], run(model, inputs)[0], atol=ROUNDING, rtol=ROUNDING
        )

    def test_pipeline_audio_classification(self, tester):
        settings = {"max_length": tester.sizes["max_length"], "num_mel_bins": tester.sizes["num_mel_bins"]}
        classifier = pipeline(
            "audio-classification",
            model=tester.model(ASTForAudioClassification),
            feature_extractor=ASTFeatureExtractor(**settings),
        )
        scores = classifier(np.zeros(4000, np.float32), top_k=tester.num_labels)
        assert {score["label"] for score in scores} == set(tester.config().label2id)
        assert sum(score["score"] for score in scores) == pytest.approx(1, abs=ROUNDING)

    # Positions

    @pytest.mark.parametrize("max_length", [41, 13])
    def test_resize_position_vector_embeddings(self, tester, model_class, max_length):
        """By the paper's rule, which is in test_loading_with_changes.py; positions here are a frequency x time grid."""
        model = tester.model(model_class)
        before = copy.deepcopy(model.state_dict())
        model.resize_patch_grid(max_length=max_length)
        config = tester.config(max_length=max_length)
        assert model.config.max_length == max_length
        table = model.base_model.embeddings.position_embeddings
        assert table.shape == (1, tester.num_tokens(config), config.hidden_size)
        changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
        assert [name.rsplit(".", 1)[-1] for name in changed] == ["position_embeddings"]
        inputs = torch.zeros(1, max_length, config.num_mel_bins)
        assert run(model, {"input_values": inputs})[0].isfinite().all()

    # Training

    def test_training(self, tester, model_class):
        model, inputs = tester.model(model_class).train(), tester.inputs(model_class, labels=True)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
        before = tester.loss(model.eval(), inputs).item()
        for _ in range(3):
            gradients = tester.gradients(model.train(), inputs)
            assert all(gradient.isfinite().all() and gradient.any() for gradient in gradients.values())
            optimizer.step()
        assert tester.loss(model.eval(), inputs).item() < before

    def test_training_overfit(self, tester, model_class):
        """The library knows only texts here; for it, loss and gradient have to lose nine tenths."""
        model, inputs = tester.model(model_class).train(), tester.inputs(model_class, labels=True)
        optimizer = torch.optim.Adam(model.parameters(), lr=4e-3)
        losses, norms = [], []
        for _ in range(150):
            optimizer.zero_grad()
            loss = tester.loss(model, inputs)
            loss.backward()
            norms.append(nn.utils.get_total_norm(parameter.grad for parameter in model.parameters()).item())
            losses.append(loss.item())
            optimizer.step()
        assert max(losses[-5:]) < 0.1 * losses[0]
        if model_class is ASTForAudioClassification:  # the other loss does not end at a minimum
            assert max(norms[-5:]) < 0.1 * norms[0]

    def check_checkpointed_training(self, tester, model_class, kwargs):
        model, inputs = tester.model(model_class).train(), tester.inputs(model_class, labels=True)
        expected = tester.gradients(model, inputs)
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=kwargs)
        layer = next(module for module in model.modules() if isinstance(module, GradientCheckpointingLayer))
        with mock.patch.object(layer.attention, "forward", wraps=layer.attention.forward) as forward:
            gradients = tester.gradients(model, inputs)
        assert forward.call_count == 2, "once in the forward pass, once again in the backward pass"
        for name, gradient in expected.items():
            assert torch.equal(gradients[name], gradient), name

    def test_training_gradient_checkpointing(self, tester, model_class):
        self.check_checkpointed_training(tester, model_class, None)

    def test_training_gradient_checkpointing_use_reentrant_false(self, tester, model_class):
        self.check_checkpointed_training(tester, model_class, {"use_reentrant": False})

    def test_training_gradient_checkpointing_use_reentrant_true(self, tester, model_class):
        self.check_checkpointed_training(tester, model_class, {"use_reentrant": True})

    def test_gradient_checkpointing_backward_compatibility(self, tester, model_class):
        assert model_class(tester.config(gradient_checkpointing=True)).is_gradient_checkpointing

    def test_gradient_checkpointing_enable_disable(self, tester, model_class):
        model = model_class(tester.config())
        layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
        assert len(layers) == model.config.num_hidden_layers
        assert not model.is_gradient_checkpointing
        model.gradient_checkpointing_enable()
        assert model.is_gradient_checkpointing
        assert all(layer.gradient_checkpointing for layer in layers)
        model.gradient_checkpointing_disable()
        assert not model.is_gradient_checkpointing
        assert not any(layer.gradient_checkpointing for layer in layers)

    def test_peft_gradient_checkpointing_enable_disable(self, tester, model_class):
        """With an adapter loaded, it is the input that has to ask for gradients: the weights are frozen."""
        model = model_class(tester.config()).requires_grad_(False)
        model._hf_peft_config_loaded = True
        model.gradient_checkpointing_enable()
        assert model.is_gradient_checkpointing
        assert model(**tester.inputs())[0].requires_grad
        model.gradient_checkpointing_disable()
        assert not model.is_gradient_checkpointing
        assert not model(**tester.inputs())[0].requires_grad

    def test_enable_input_require_grads(self, tester, model_class):
        model = model_class(tester.config()).requires_grad_(False)
        assert not model(**tester.inputs())[0].requires_grad
        model.enable_input_require_grads()
        assert model(**tester.inputs())[0].requires_grad
        model.disable_input_require_grads()
        assert not model(**tester.inputs())[0].requires_grad

    def test_enable_input_require_grads_with_gradient_checkpointing(self, tester, model_class):
        model, inputs = tester.model(model_class).train(), tester.inputs(model_class, labels=True)
        expected = tester.gradients(model, inputs)
        model.gradient_checkpointing_enable()
        model.enable_input_require_grads()
        gradients = tester.gradients(model, inputs)
        name = next(name for name in expected if name.endswith("patch_embeddings.projection.weight"))
        assert torch.equal(gradients[name], expected[name])

    @pytest.mark.parametrize(
        ("problem_type", "num_labels", "labels"),
        [
            ("multi_label_classification", 2, torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 0.0]])),
            ("single_label_classification", 4, torch.tensor([3, 0, 2])),
            ("regression", 1, torch.tensor([0.5, -1.0, 2.0])),
        ],
    )
    def test_problem_types(self, tester, problem_type, num_labels, labels):
        model = tester.model(ASTForAudioClassification, problem_type=problem_type, num_labels=num_labels).train()
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # a target of another size than the logits is only warned about
            loss = model(**tester.inputs(), labels=labels).loss
        loss.backward()
        assert loss.isfinite()
        assert all(parameter.grad is not None for parameter in model.parameters())


class ASTFeatureExtractionTester:
    """Settings far from the defaults, and waveforms of several lengths."""

    num_samples = (400, 1200, 2000, 4000)  # one window, then more; the frames follow from them
    max_samples = max(num_samples)
    settings = types.MappingProxyType(
        {
            "num_mel_bins": 20,
            "max_length": 30,
            "padding_value": -1.5,
            "mean": -3.0,
            "std": 2.0,
            "return_attention_mask": True,
        }
    )

    def frames(self) -> list[int]:
        return [1 + (count - 400) // 160 for count in self.num_samples]  # 25 ms every 10 ms at 16 kHz

    def extractor(self, **changes) -> ASTFeatureExtractor:
        return ASTFeatureExtractor(**{**self.settings, **changes})

    def padding(self) -> float:
        """What stands at padding in normalised features."""
        return (self.settings["padding_value"] - self.settings["mean"]) / (2 * self.settings["std"])

    def inputs(self, equal_length: bool = False, as_arrays: bool = False) -> list:
        generator = np.random.default_rng(0)
        counts = [self.max_samples] * len(self.num_samples) if equal_length else self.num_samples
        waveforms = [generator.uniform(-1, 1, count).astype(np.float32) for count in counts]
        return waveforms if as_arrays else [waveform.tolist() for waveform in waveforms]


@pytest.fixture
def extraction():
    return ASTFeatureExtractionTester()


class TestASTFeatureExtractor:
    def test_feat_extract_common_properties(self, extraction):
        extractor = extraction.extractor(padding="longest", do_normalize=False)
        changes = {"padding": "longest", "do_normalize": False, "feature_size": 1, "sampling_rate": 16_000}
        for name, value in {**extraction.settings, **changes}.items():
            assert getattr(extractor, name) == value

    def test_init_without_params(self):
        assert ASTFeatureExtractor().model_input_names[0] == ASTModel.main_input_name

    def test_feat_extract_to_json_string(self, extraction):
        settings = json.loads(extraction.extractor().to_json_string())
        assert {name: settings[name] for name in extraction.settings} == dict(extraction.settings)

    def test_feat_extract_to_json_file(self, extraction, tmp_path):
        first = extraction.extractor()
        first.to_json_file(tmp_path / "settings.json")
        assert ASTFeatureExtractor.from_json_file(tmp_path / "settings.json").to_dict() == first.to_dict()

    def test_feat_extract_from_and_save_pretrained(self, extraction, tmp_path):
        first = extraction.extractor()
        (file,) = first.save_pretrained(tmp_path)
        assert file == str(tmp_path / "preprocessor_config.json")
        assert json.loads((tmp_path / "preprocessor_config.json").read_text()) == json.loads(first.to_json_string())
        assert ASTFeatureExtractor.from_pretrained(tmp_path).to_dict() == first.to_dict()

    @pytest.mark.parametrize("return_tensors", [None, "np"])
    def test_batch_feature(self, extraction, return_tensors):
        """The library wraps waveforms in its container; here it is what comes out of the extractor."""
        batch = extraction.extractor()(
            extraction.inputs(equal_length=True), sampling_rate=16_000, return_tensors=return_tensors
        )
        assert type(batch) is BatchFeature
        assert list(batch) == ["input_values", "attention_mask"]
        assert type(batch.input_values) is (np.ndarray if return_tensors else list)
        assert np.shape(batch["input_values"]) == (len(extraction.num_samples), 30, 20)

    def test_batch_feature_pt(self, extraction):
        batch = extraction.extractor()(extraction.inputs(equal_length=True), sampling_rate=16_000, return_tensors="pt")
        assert batch.input_values.shape == (len(extraction.num_samples), 30, 20)
        assert batch.to(torch.float64).input_values.dtype is torch.float64

    def test_call(self, extraction):
        lists, arrays = extraction.inputs(), extraction.inputs(as_arrays=True)
        extractor = extraction.extractor()

        def features(raw_speech, **kwargs):
            return extractor(raw_speech, sampling_rate=16_000, return_tensors="np", **kwargs).input_values

        assert np.array_equal(features(lists[0]), features(arrays[0]))
        assert np.array_equal(features(lists, padding=True), features(arrays, padding=True))
        equal = extraction.inputs(equal_length=True, as_arrays=True)
        assert np.array_equal(features(np.stack(equal)), features(equal)), "a 2-D array is a batch"

    def check_padding(self, extraction, waveforms):
        """The library pads what is given; here waveforms become features first, and it is these that are padded, before
        they are normalised. A clip of less than a patch is padded even without padding."""
        extractor, frames = extraction.extractor(), extraction.frames()
        unpadded = extractor(waveforms, sampling_rate=16_000, padding=False).input_values
        assert [len(clip) for clip in unpadded] == [max(count, 16) for count in frames]
        longest = extractor(waveforms, sampling_rate=16_000, padding="longest", return_tensors="np").input_values
        assert longest.shape == (len(frames), max(frames), 20)
        assert np.array_equal(
            longest, extractor(waveforms, sampling_rate=16_000, padding=True, return_tensors="np").input_values
        )
        default = extractor(waveforms, sampling_rate=16_000, return_tensors="np").input_values
        assert default.shape == (len(frames), 30, 20)
        further = extractor(waveforms, sampling_rate=16_000, max_length=50, return_tensors="np").input_values
        assert further.shape == (len(frames), 50, 20)
        for clip, count in enumerate(frames):
            for padded in (longest, default, further):
                assert np.array_equal(padded[clip, :count], unpadded[clip][:count])
                assert np.allclose(padded[clip, count:], extraction.padding())

    def test_padding_from_list(self, extraction):
        self.check_padding(extraction, extraction.inputs())

    def test_padding_from_array(self, extraction):
        self.check_padding(extraction, extraction.inputs(as_arrays=True))

    def check_truncation(self, extraction, waveforms):
        """The library truncates only with `padding="max_length"` and only if told; here a clip is cut at `max_length`
        with every kind of padding unless told otherwise."""
        extractor, frames = extraction.extractor(), extraction.frames()
        shortest_that_cuts = 18
        assert min(frames) < shortest_that_cuts < max(frames)
        whole = extractor(
            waveforms, sampling_rate=16_000, padding="longest", truncation=False, max_length=18, return_tensors="np"
        ).input_values
        assert whole.shape[1] == max(frames)
        for padding in ("longest", "max_length"):
            cut = extractor(waveforms, sampling_rate=16_000, padding=padding, max_length=18, return_tensors="np")
            assert np.array_equal(cut.input_values, whole[:, :18])
        lengths = [
            len(c) for c in extractor(waveforms, sampling_rate=16_000, padding=False, max_length=18).input_values
        ]
        assert lengths == [min(max(count, 16), 18) for count in frames]

    def test_truncation_from_list(self, extraction):
        self.check_truncation(extraction, extraction.inputs())

    def test_truncation_from_array(self, extraction):
        self.check_truncation(extraction, extraction.inputs(as_arrays=True))

    def test_padding_accepts_tensors_pt(self, extraction):
        extractor, arrays = extraction.extractor(), extraction.inputs(as_arrays=True)
        tensors = [torch.from_numpy(array) for array in arrays]
        expected = extractor(arrays, sampling_rate=16_000, padding="longest", return_tensors="np")
        found = extractor(tensors, sampling_rate=16_000, padding="longest", return_tensors="pt")
        for name in ("input_values", "attention_mask"):
            assert np.array_equal(found[name].numpy(), expected[name])

    @pytest.mark.parametrize("padding", ["longest", "max_length"])
    def test_attention_mask(self, extraction, padding):
        batch = extraction.extractor()(extraction.inputs(), sampling_rate=16_000, padding=padding, return_tensors="np")
        assert batch.attention_mask.shape == batch.input_values.shape[:2]
        assert batch.attention_mask.sum(axis=1).tolist() == extraction.frames()
        assert batch.attention_mask.dtype == np.int64
        for mask, count in zip(batch.attention_mask, extraction.frames(), strict=True):
            assert mask[:count].all(), "real frames come first"

    def test_attention_mask_with_truncation(self, extraction):
        batch = extraction.extractor()(extraction.inputs(), sampling_rate=16_000, max_length=18, return_tensors="np")
        assert batch.attention_mask.shape == (len(extraction.num_samples), 18)
        assert batch.attention_mask.sum(axis=1).tolist() == [min(count, 18) for count in extraction.frames()]

    def test_double_precision_pad(self, extraction):
        waveforms = [array.astype(np.float64) for array in extraction.inputs(as_arrays=True)]
        for given in (waveforms, [waveform.tolist() for waveform in waveforms]):
            for return_tensors, dtype in (("np", np.float32), ("pt", torch.float32)):
                batch = extraction.extractor()(given, sampling_rate=16_000, return_tensors=return_tensors)
                assert batch.input_values.dtype == dtype


def test_what_is_left_out_is_not_tested_and_has_a_reason():
    tested = {
        name for tests in (TestASTModel, TestASTFeatureExtractor) for name in vars(tests) if name.startswith("test_")
    }
    assert not tested & LEFT_OUT.keys()
    assert all(len(reason.split()) > 3 for reason in LEFT_OUT.values())
