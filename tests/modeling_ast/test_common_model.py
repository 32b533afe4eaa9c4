"""The common model tests of Transformers, by the library's names, on a tiny configuration.

The library keeps them in mixins that its wheel does not contain, so what each name stands for is written anew here.
Where this port differs on purpose, the test says how. What is left out stands with its reason in test_common_left_out.py.
"""

import copy
import inspect
import json
import re
from unittest import mock

import numpy as np
import pytest
import torch
from common_model import run
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import pipeline
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.modeling_utils import load_state_dict

from modeling_ast import ASTConfig, ASTFeatureExtractor, ASTForAudioClassification, ASTModel
from modeling_ast.modeling_ast import NUM_CLASS_TOKENS, ASTPatchEmbeddings, ASTPreTrainedModel

ROUNDING = 1e-5  # float32; the same products summed in another order


def assert_same_weights(model, other):
    expected, found = model.state_dict(), other.state_dict()
    assert expected.keys() == found.keys()
    for name, tensor in expected.items():
        assert torch.equal(tensor, found[name]), name


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
        torch.testing.assert_close(
            run(model, tester.inputs())[0], run(tester.model(model_class), tester.inputs())[0], atol=1e-5, rtol=1e-5
        )  # hooked modules are not fused

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
