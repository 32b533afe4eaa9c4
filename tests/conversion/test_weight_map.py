"""The weight map against stock Transformers: its names, its modules, its folders; and the way back, bit for bit."""

import json
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    ASTConfig,
    ASTForAudioClassification,
    ASTModel,
    DeiTConfig,
    DeiTForImageClassificationWithTeacher,
)

from conversion.errors import ConversionError
from conversion.original_checkpoint import read_original
from conversion.weight_map import hub_names, hub_to_original, merge_qkv, original_to_hub, rows, split_qkv

REFERENCE = json.loads((Path(__file__).parents[1] / "reference" / "cases.json").read_text())
TABLE = REFERENCE["tensors"]["checkpoint/tiny224_f10_t10_T1024_n527"]
DEIT_TABLE = REFERENCE["tensors"]["deit/deit_tiny_distilled_patch16_224"]
# The reference's sizes made small, and the stock configuration that has them: 2 x 2 patches and two class tokens.
SMALL = {192: 12, 576: 36, 768: 48, 1214: 6, 527: 5, 1000: 7}
SIZES = {"hidden_size": 12, "num_hidden_layers": 12, "num_attention_heads": 3, "intermediate_size": 48}
CONFIG = ASTConfig(**SIZES, max_length=32, num_mel_bins=32, num_labels=5)
IMAGENET_HEADS = {"v.head.weight", "v.head.bias", "v.head_dist.weight", "v.head_dist.bias"}


@pytest.fixture(autouse=True)
def one_layer_may_be_a_model(monkeypatch):
    """The original's twelve are demanded by the tests of whole files."""
    monkeypatch.setattr("conversion.weight_map.NUM_LAYERS", 1)


def made(table):
    """Tensors of a table of the reference in small, no two alike."""
    generator = torch.Generator().manual_seed(0)
    return {
        name: torch.randn([SMALL.get(size, size) for size in shape], generator=generator)
        for name, shape in table.items()
    }


@pytest.fixture
def original():
    return made(TABLE)


@pytest.fixture
def expected(original):
    """What must come back: all but the heads of the image model."""
    return {name: tensor for name, tensor in original.items() if name not in IMAGENET_HEADS}


@pytest.fixture(scope="module")
def stock_tensors(tmp_path_factory):
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("stock")
    model = ASTForAudioClassification(CONFIG)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)
    model.save_pretrained(folder / "ordinary")
    model.save_pretrained(folder / "in_memory", save_original_format=False)
    return {path.parent.name: load_file(path) for path in folder.glob("*/model.safetensors")}


def assert_same_bits(actual, expected):
    assert actual.keys() == expected.keys()
    for name, tensor in expected.items():
        assert (actual[name].dtype, actual[name].shape) == (tensor.dtype, tensor.shape), name
        assert torch.equal(actual[name], tensor), name


def fault(function, tensors, *arguments, **keywords):
    """Unknown and missing names in the error, whose numbers must be right."""
    with pytest.raises(ConversionError) as raised:
        function(tensors, *arguments, **keywords)
    words = str(raised.value)
    assert "\n" not in words
    assert words.startswith("These are not the tensors of ")
    assert words.endswith(". Give one of its checkpoints.")
    listed = {}
    for kind in ("unknown", "missing"):
        found = re.search(rf"{kind} \((\d+)\): ([^ ]+(?:, [^ ]+)*?)(?:; |\. Give)", words)
        names = found.group(2).split(", ") if found else []
        assert len(names) == (int(found.group(1)) if found else 0)
        assert names == sorted(names)
        listed[kind] = set(names)
    return listed


# Names and places


def test_names_and_shapes_are_those_of_a_stock_folder(original, stock_tensors):
    assert original.keys() > IMAGENET_HEADS
    converted = original_to_hub(original)
    assert {name: tensor.shape for name, tensor in converted.items()} == {
        name: tensor.shape for name, tensor in stock_tensors["ordinary"].items()
    }


def test_every_tensor_reaches_its_module_in_stock_transformers(original, tmp_path):
    CONFIG.save_pretrained(tmp_path)
    converted = {name: tensor.clone() for name, tensor in original_to_hub(original).items()}
    save_file(converted, tmp_path / "model.safetensors", metadata={"format": "pt"})
    model, loading = ASTForAudioClassification.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(loading.values()), loading

    transformer, head = model.audio_spectrogram_transformer, model.classifier
    embeddings = transformer.embeddings
    places = {
        "v.cls_token": embeddings.cls_token,
        "v.dist_token": embeddings.distillation_token,
        "v.pos_embed": embeddings.position_embeddings,
        "v.patch_embed.proj": embeddings.patch_embeddings.projection,
        "v.norm": transformer.layernorm,
        "mlp_head.0": head.layernorm,
        "mlp_head.1": head.dense,
    }
    for index, layer in enumerate(transformer.layers):
        places |= {
            f"v.blocks.{index}.norm1": layer.layernorm_before,
            f"v.blocks.{index}.attn.proj": layer.attention.o_proj,
            f"v.blocks.{index}.norm2": layer.layernorm_after,
            f"v.blocks.{index}.mlp.fc1": layer.mlp.fc1,
            f"v.blocks.{index}.mlp.fc2": layer.mlp.fc2,
        }
    seen = set()
    for name, place in places.items():
        if isinstance(place, torch.nn.Parameter):
            pairs = {name: place}
        else:
            pairs = {f"{name}.weight": place.weight, f"{name}.bias": place.bias}
        for key, parameter in pairs.items():
            assert torch.equal(parameter, original[key]), key
            seen.add(key)
    for index, layer in enumerate(transformer.layers):
        for kind in ("weight", "bias"):
            fused = original[f"v.blocks.{index}.attn.qkv.{kind}"]
            for at, projection in enumerate((layer.attention.q_proj, layer.attention.k_proj, layer.attention.v_proj)):
                assert torch.equal(getattr(projection, kind), fused[12 * at : 12 * (at + 1)]), (index, kind, at)
            seen.add(f"v.blocks.{index}.attn.qkv.{kind}")
    assert seen == original.keys() - IMAGENET_HEADS


@pytest.mark.parametrize("layers", [1, 2, 11])
def test_no_tensor_shares_a_name(layers):
    table = list(rows(layers))
    originals = [row.original for row in table]
    hub = [name for row in table for name in row.hub]
    assert len(set(originals)) == len(originals) == 11 + 12 * layers
    assert len(set(hub)) == len(hub) == 11 + 16 * layers
    assert not any("{" in name for name in originals + hub)
    assert [row.original for row in rows(layers, classifier=False)] == originals[:-4]


# There and back


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_there_and_back_is_bit_equal(original, expected, dtype):
    original = {name: tensor.to(dtype) for name, tensor in original.items()}
    back = hub_to_original(original_to_hub(original))
    assert_same_bits(back, {name: original[name] for name in expected})


def test_back_and_there_is_bit_equal(stock_tensors):
    stock = stock_tensors["ordinary"]
    assert_same_bits(original_to_hub(hub_to_original(stock)), stock)


def test_the_way_back_has_the_names_and_shapes_of_the_original(expected, stock_tensors):
    back = hub_to_original(stock_tensors["ordinary"])
    assert {name: tensor.shape for name, tensor in back.items()} == {
        name: tensor.shape for name, tensor in expected.items()
    }


def test_nothing_is_copied_on_the_way_there(original, expected):
    storages = {tensor.untyped_storage().data_ptr() for tensor in expected.values()}
    assert {tensor.untyped_storage().data_ptr() for tensor in original_to_hub(original).values()} == storages


def test_the_given_tensors_stay_as_they_are(original):
    before = {name: tensor.clone() for name, tensor in original.items()}
    hub_to_original(original_to_hub(original))
    assert_same_bits(original, before)


@pytest.mark.parametrize("layers", [1, 3])
def test_another_number_of_layers_is_told_from_the_names(expected, layers):
    fewer = {
        name: tensor
        for name, tensor in expected.items()
        if not name.startswith("v.blocks.") or int(name.split(".")[2]) < layers
    }
    converted = original_to_hub(fewer)
    assert len(converted) == 11 + 16 * layers
    assert_same_bits(hub_to_original(converted), fewer)


# Fused projections


def test_thirds_are_query_key_and_value():
    fused = torch.arange(24.0).view(6, 4)
    query, key, value = split_qkv(fused)
    assert (query[0, 0], key[0, 0], value[0, 0]) == (0, 8, 16)
    assert query.shape == key.shape == value.shape == (2, 4)
    assert torch.equal(merge_qkv(query, key, value), fused)
    assert not torch.equal(merge_qkv(key, query, value), fused)
    assert [part.tolist() for part in split_qkv(torch.arange(3))] == [[0], [1], [2]]


@pytest.mark.parametrize("shape", [(), (4,), (7, 3), (2, 3)])
def test_what_has_no_thirds_is_refused(shape):
    words = rf"has shape {re.escape(str(shape))}, expected \(3 \* hidden_size, \.\.\.\)\. Give a checkpoint of the original"
    with pytest.raises(ConversionError, match=words):
        split_qkv(torch.zeros(shape))


def test_a_checkpoint_whose_projection_has_no_thirds_is_refused(original):
    original["v.blocks.7.attn.qkv.bias"] = torch.zeros(35)
    with pytest.raises(ConversionError, match=r"has shape \(35,\)"):
        original_to_hub(original)


# Unknown and missing


def test_all_unknown_and_missing_tensors_of_an_original_are_listed(original, expected):
    missing = set(list(expected)[::3])
    unknown = {f"v.extra.{index}" for index in range(30)} | {
        "mlp_head.2.weight",
        "v.blocks.0.norm3.weight",
        "cls_token",
    }
    given = {name: tensor for name, tensor in original.items() if name not in missing}
    listed = fault(original_to_hub, given | dict.fromkeys(unknown, torch.zeros(1)))
    assert listed == {"unknown": unknown, "missing": missing}


def test_all_unknown_and_missing_tensors_of_a_hub_checkpoint_are_listed(stock_tensors):
    stock = stock_tensors["ordinary"]
    missing = set(list(stock)[::3])
    unknown = {f"extra.{index}" for index in range(30)} | {"classifier.weight", "embeddings.cls_token"}
    given = {name: tensor for name, tensor in stock.items() if name not in missing}
    listed = fault(hub_to_original, given | dict.fromkeys(unknown, torch.zeros(1)))
    assert listed == {"unknown": unknown, "missing": missing}


def test_only_unknown_or_only_missing_ones_are_listed_alone(original):
    del original["v.dist_token"]
    assert fault(original_to_hub, original) == {"unknown": set(), "missing": {"v.dist_token"}}
    original["v.dist_token"] = original["v.distillation_token"] = torch.zeros(1, 1, 12)
    assert fault(original_to_hub, original) == {"unknown": {"v.distillation_token"}, "missing": set()}


def test_the_error_says_which_model_was_expected(original, stock_tensors):
    with pytest.raises(ConversionError, match="not the tensors of the original AST"):
        original_to_hub(stock_tensors["ordinary"])
    with pytest.raises(ConversionError, match="not the tensors of AST on the Hub"):
        hub_to_original(original)


@pytest.mark.parametrize("layer", [0, 5, 10])
def test_a_layer_missing_in_the_middle_is_listed(original, stock_tensors, layer):
    gone = {name for name in original if name.startswith(f"v.blocks.{layer}.")}
    assert len(gone) == 12
    given = {name: tensor for name, tensor in original.items() if name not in gone}
    assert fault(original_to_hub, given) == {"unknown": set(), "missing": gone}

    stock = stock_tensors["ordinary"]
    gone = {name for name in stock if f".encoder.layer.{layer}." in name}
    assert len(gone) == 16
    given = {name: tensor for name, tensor in stock.items() if name not in gone}
    assert fault(hub_to_original, given) == {"unknown": set(), "missing": gone}


def test_a_model_without_layers_lacks_the_first(original):
    given = {name: tensor for name, tensor in original.items() if not name.startswith("v.blocks.")}
    listed = fault(original_to_hub, given)
    assert listed["missing"] == {name for name in original if name.startswith("v.blocks.0.")}


def test_an_empty_checkpoint_lacks_everything():
    assert len(fault(original_to_hub, {})["missing"]) == 11 + 12
    assert len(fault(hub_to_original, {})["missing"]) == 11 + 16


@pytest.mark.parametrize(
    ("function", "name"),
    [(original_to_hub, "v.blocks.5000.x"), (hub_to_original, "audio_spectrogram_transformer.encoder.layer.5000.x")],
)
def test_one_absurd_layer_number_does_not_make_a_message_of_megabytes(function, name):
    with pytest.raises(ConversionError) as raised:
        function({name: torch.zeros(1)})
    assert name in str(raised.value)
    assert len(str(raised.value)) < 10_000


# ImageNet heads, classifier, prefix


def test_the_four_imagenet_heads_are_dropped_and_nothing_else(original, expected):
    with_heads, without = original_to_hub(original), original_to_hub(expected)
    assert_same_bits(with_heads, without)
    assert not any("head" in name for name in with_heads)
    assert set(hub_to_original(with_heads)) == set(expected)
    for name in ("v.head.extra", "head.weight", "v.head_dist.0.weight"):
        assert fault(original_to_hub, original | {name: torch.zeros(1)})["unknown"] == {name}


@pytest.mark.parametrize("head", sorted(IMAGENET_HEADS))
def test_any_of_the_imagenet_heads_may_be_absent(original, expected, head):
    del original[head]
    assert_same_bits(hub_to_original(original_to_hub(original)), expected)


@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_file_gives_the_same_tensors_with_and_without_its_prefix(tmp_path, original, expected, prefix):
    torch.save({prefix + name: tensor for name, tensor in original.items()}, tmp_path / "audio_model.1.pth")
    source = read_original(tmp_path / "audio_model.1.pth")
    assert_same_bits(source.tensors, expected)
    assert set(source.left_out) == IMAGENET_HEADS
    assert (source.hidden_size, source.num_patches, source.num_labels) == (12, 4, 5)


def test_a_model_without_classifier(expected):
    bare = {name: tensor for name, tensor in expected.items() if not name.startswith("mlp_head.")}
    converted = original_to_hub(bare, classifier=False)
    assert not any(name.startswith("classifier.") for name in converted)
    assert_same_bits(hub_to_original(converted, classifier=False), bare)

    heads = expected.keys() - bare.keys()
    assert len(heads) == 4
    assert fault(original_to_hub, bare) == {"unknown": set(), "missing": heads}
    assert fault(original_to_hub, expected, classifier=False) == {"unknown": heads, "missing": set()}
    classifiers = {f"classifier.{part}.{kind}" for part in ("layernorm", "dense") for kind in ("weight", "bias")}
    assert fault(hub_to_original, converted) == {"unknown": set(), "missing": classifiers}
    assert fault(hub_to_original, original_to_hub(expected), False) == {"unknown": classifiers, "missing": set()}


def test_a_bare_stock_model_has_these_names_without_their_prefix(tmp_path, expected):
    ASTModel(CONFIG).save_pretrained(tmp_path)
    bare = {name: tensor for name, tensor in expected.items() if not name.startswith("mlp_head.")}
    names = {name.removeprefix("audio_spectrogram_transformer.") for name in original_to_hub(bare, classifier=False)}
    assert load_file(tmp_path / "model.safetensors").keys() == names


def test_an_image_model_of_timm_has_the_same_rows():
    tensors = {f"v.{name}": tensor for name, tensor in made(DEIT_TABLE).items()}
    converted = original_to_hub(tensors, classifier=False)
    assert len(converted) == 7 + 16 * 12
    assert_same_bits(
        hub_to_original(converted, classifier=False),
        {name: tensor for name, tensor in tensors.items() if name not in IMAGENET_HEADS},
    )


# Names in memory of Transformers 5


def test_a_stock_folder_with_the_names_in_memory(stock_tensors):
    ordinary, in_memory = stock_tensors["ordinary"], stock_tensors["in_memory"]
    assert ordinary.keys() != in_memory.keys()
    assert_same_bits(hub_names(in_memory), ordinary)


def test_ordinary_names_stay_as_they_are(stock_tensors):
    ordinary = stock_tensors["ordinary"]
    renamed = hub_names(ordinary)
    assert list(renamed) == list(ordinary)
    assert all(renamed[name] is ordinary[name] for name in ordinary)


@pytest.mark.parametrize(
    ("model_class", "config"),
    [
        (ASTModel, CONFIG),
        (DeiTForImageClassificationWithTeacher, DeiTConfig(**SIZES, image_size=32)),
    ],
    ids=["bare", "deit"],
)
def test_other_stock_models_with_the_names_in_memory(tmp_path, model_class, config):
    model = model_class(config)
    model.save_pretrained(tmp_path / "ordinary")
    model.save_pretrained(tmp_path / "in_memory", save_original_format=False)
    ordinary = load_file(tmp_path / "ordinary" / "model.safetensors")
    in_memory = load_file(tmp_path / "in_memory" / "model.safetensors")
    assert ordinary.keys() != in_memory.keys()
    assert_same_bits(hub_names(in_memory), ordinary)


def test_a_tensor_under_both_names_is_refused():
    both = ("x.layers.0.attention.q_proj.weight", "x.encoder.layer.0.attention.attention.query.weight")
    with pytest.raises(ConversionError, match="is there twice, also as"):
        hub_names({name: torch.zeros(1) for name in both})
