"""What makes a tampered checkpoint folder of a good one: a function for each kind of fault, by its name."""

import json
import math
import random
import struct
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

SEED = 17
LABELS = ("bell", "crash", "tom")
WHOLE = {  # whole numbers of config.json in the good folder
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 128, "patch_size": 16,
    "frequency_stride": 10, "time_stride": 10, "max_length": 96, "num_mel_bins": 128,
}  # fmt: skip
REAL = (
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "initializer_range",
    "layer_norm_eps",
    "classifier_layer_norm_eps",
)
NO_WHOLE_NUMBERS = {
    "none": None, "negative": -3, "zero": 0, "a million": 10**6, "huge": 10**12, "beyond 64 bits": 10**30, "NaN": math.nan,
    "infinite": math.inf, "half": 16.5, "word": "many", "digits": "16", "list": [16], "object": {"a": 16}, "truth": True,
}  # fmt: skip
NO_REAL_NUMBERS = {
    "negative": -1.0,
    "NaN": math.nan,
    "infinite": -math.inf,
    "huge": 1e300,
    "word": "small",
    "list": [0.1],
}
EXTRACTOR_WHOLE = ("sampling_rate", "num_mel_bins", "max_length", "feature_size")
EXTRACTOR_REAL = ("mean", "std", "padding_value")
EMBEDDINGS = "audio_spectrogram_transformer.embeddings."
PATCHES = f"{EMBEDDINGS}patch_embeddings.projection.weight"
QUERY = "audio_spectrogram_transformer.encoder.layer.0.attention.attention.query.weight"
DENSE = "classifier.dense.weight"
MISSING = object()


def change_json(name: str, **changes) -> Callable[[Path], None]:
    """Set fields of a JSON file of the folder, or take them out."""

    def tamper(folder: Path):
        content = json.loads((folder / name).read_text()) | changes
        content = {key: value for key, value in content.items() if value is not MISSING}
        (folder / name).write_text(json.dumps(content))

    return tamper


def config(**changes) -> Callable[[Path], None]:
    return change_json("config.json", **changes)


def write(name: str, content: bytes | str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)


def damaged_json(name: str) -> dict[str, Callable[[Path], None]]:
    """A file that should hold a JSON object and does not."""

    def rewrite(change: Callable[[str], bytes]) -> Callable[[Path], None]:
        return lambda folder: (folder / name).write_bytes(change((folder / name).read_text()))

    def as_folder(folder: Path):
        (folder / name).unlink()
        (folder / name).mkdir()

    nested = "[" * 100_000 + "]" * 100_000
    return {
        f"{name} empty": write(name, ""),
        f"{name} cut off": rewrite(lambda text: text[: len(text) // 2].encode()),
        f"{name} an array": write(name, "[1, 2]"),
        f"{name} a number": write(name, "1e5"),
        f"{name} null": write(name, "null"),
        f"{name} with a BOM": rewrite(lambda text: text.encode("utf-8-sig")),
        f"{name} in UTF-16": rewrite(lambda text: text.encode("utf-16")),
        f"{name} bytes": write(name, random.Random(SEED).randbytes(300)),
        f"{name} nested deep": rewrite(lambda text: text.replace("{", f'{{"a": {nested},', 1).encode()),
        f"{name} of many digits": rewrite(lambda text: text.replace("{", '{"a": ' + "9" * 5000 + ",", 1).encode()),
        f"{name} a key twice": rewrite(lambda text: text.replace("{", '{"max_length": 2,', 1).encode()),
        f"{name} a folder": as_folder,
        f"{name} missing": lambda folder: (folder / name).unlink(),
    }


def labels(names) -> dict:
    return {"id2label": dict(enumerate(names)), "label2id": {name: index for index, name in enumerate(names)}}


def change_tensors(change: Callable[[dict], dict | None]) -> Callable[[Path], None]:
    def tamper(folder: Path):
        tensors = load_file(folder / "model.safetensors")
        tensors = change(tensors) or tensors
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "model.safetensors")

    return tamper


def one_tensor(name: str, change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Path], None]:
    return change_tensors(lambda tensors: tensors | {name: change(tensors[name])})


def with_value(value: float) -> Callable[[torch.Tensor], torch.Tensor]:
    def change(tensor: torch.Tensor) -> torch.Tensor:
        tensor = tensor.clone()
        tensor.flatten()[3] = value
        return tensor

    return change


def change_header(change: Callable[[dict], dict | bytes | None], length: int | None = None) -> Callable[[Path], None]:
    """Write the JSON header of the weights anew, as it may not be."""

    def tamper(folder: Path):
        content = (folder / "model.safetensors").read_bytes()
        (size,) = struct.unpack("<Q", content[:8])
        header = json.loads(content[8 : 8 + size])
        header = change(header) or header
        header = header if isinstance(header, bytes) else json.dumps(header).encode()
        length_field = struct.pack("<Q", len(header) if length is None else length)
        (folder / "model.safetensors").write_bytes(length_field + header + content[8 + size :])

    return tamper


def of_tensor(name: str, **changes) -> Callable[[Path], None]:
    return change_header(lambda header: header | {name: header[name] | changes})


def cut_weights(share: float) -> Callable[[Path], None]:
    def tamper(folder: Path):
        content = (folder / "model.safetensors").read_bytes()
        (folder / "model.safetensors").write_bytes(content[: int(len(content) * share)])

    return tamper


def index(weight_map, keep: bool = False) -> Callable[[Path], None]:
    """An index that names other files, in place of the weights or beside them."""

    def tamper(folder: Path):
        if not keep:
            (folder / "model.safetensors").rename(folder / "model-00001-of-00001.safetensors")
        names = load_file(next(folder.glob("model*.safetensors")))
        content = weight_map(folder, names) if callable(weight_map) else weight_map
        (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": content}))

    return tamper


def tampered_configs() -> dict[str, Callable[[Path], None]]:
    draw = random.Random(SEED)
    found = damaged_json("config.json")
    for name in WHOLE:
        for kind in draw.sample(sorted(NO_WHOLE_NUMBERS), 6):
            found[f"config.json {name} {kind}"] = config(**{name: NO_WHOLE_NUMBERS[kind]})
        found[f"config.json {name} missing"] = config(**{name: MISSING})
    for name in REAL:
        for kind in draw.sample(sorted(NO_REAL_NUMBERS), 3):
            found[f"config.json {name} {kind}"] = config(**{name: NO_REAL_NUMBERS[kind]})
    others = {
        "a million layers": {"num_hidden_layers": 10**6},
        "a thousand layers": {"num_hidden_layers": 1000},
        "1e8 labels": {"id2label": MISSING, "label2id": MISSING, "num_labels": 10**8},
        "-1 labels": {"id2label": MISSING, "label2id": MISSING, "num_labels": -1},
        "labels a word": {"id2label": MISSING, "label2id": MISSING, "num_labels": "many"},
        "heads that do not divide": {"num_attention_heads": 5},
        "more heads than width": {"num_attention_heads": 64},
        "another width": {"hidden_size": 48},
        "a wide model": {"hidden_size": 65_536, "intermediate_size": 65_536},
        "a longer input": {"max_length": 1024},
        "a length of 1e12": {"max_length": 10**12},
        "patches of 7": {"patch_size": 7},
        "patches above the bins": {"patch_size": 200},
        "a stride of 1": {"frequency_stride": 1, "time_stride": 1},
        "an unknown activation": {"hidden_act": "boom"},
        "no activation": {"hidden_act": None},
        "an activation of dunder": {"hidden_act": "__class__"},
        "qkv_bias a word": {"qkv_bias": "no"},
        "no qkv_bias": {"qkv_bias": False},
        "problem_type unknown": {"problem_type": "guess"},
        "problem_type a list": {"problem_type": ["regression"]},
        "id2label with a gap": {"id2label": {"0": "a", "2": "b", "3": "c"}},
        "id2label from 1": {"id2label": {"1": "a", "2": "b", "3": "c"}},
        "id2label a list": {"id2label": ["a", "b", "c"]},
        "id2label of words": {"id2label": {"a": 0, "b": 1, "c": 2}},
        "id2label of numbers": {"id2label": {"0": 0, "1": 1, "2": 2}},
        "id2label of nulls": {"id2label": {"0": None, "1": None, "2": None}},
        "id2label of lists": {"id2label": {"0": ["a"], "1": ["b"], "2": ["c"]}},
        "id2label empty": {"id2label": {}},
        "id2label a word": {"id2label": "abc"},
        "a label twice": {"id2label": {"0": "a", "1": "a", "2": "b"}},
        "an index twice": {"id2label": {"0": "a", "00": "b", "1": "c"}},
        "more labels": labels("abcd"),
        "fewer labels": labels("ab"),
        "label2id of others": {"label2id": {"x": 0, "y": 1, "z": 2}},
        "label2id a list": {"label2id": ["bell"]},
        "label2id of words": {"label2id": {"bell": "zero", "crash": "one", "tom": "two"}},
        "label2id of digits": {"label2id": {"bell": "0", "crash": "1", "tom": "2"}},
        "thresholds of others": {"label_thresholds": {"x": 0.5}},
        "thresholds beyond": {"label_thresholds": {"bell": 7}},
        "thresholds NaN": {"label_thresholds": {"bell": math.nan}},
        "thresholds a list": {"label_thresholds": [0.5, 0.5, 0.5]},
        "thresholds of words": {"label_thresholds": {"bell": "half"}},
        "thresholds a number": {"label_thresholds": 0.5},
        "model_type of others": {"model_type": "bert"},
        "model_type a list": {"model_type": ["audio-spectrogram-transformer"]},
        "model_type missing": {"model_type": MISSING},
        "architectures of others": {"architectures": ["BertModel"]},
        "architectures a word": {"architectures": "ASTModel"},
        "architectures of numbers": {"architectures": [1]},
        "auto_map": {"auto_map": {"AutoConfig": "evil.Config", "AutoModelForAudioClassification": "evil.Model"}},
        "auto_map a word": {"auto_map": "evil"},
        "dtype unknown": {"dtype": "float33"},
        "dtype no dtype": {"dtype": "load"},
        "dtype of integers": {"dtype": "int8"},
        "torch_dtype a list": {"torch_dtype": ["float32"]},
        "attn_implementation unknown": {"attn_implementation": "fast"},
        "attn_implementation of the Hub": {"attn_implementation": "user/kernel"},
        "_attn_implementation of the Hub": {"_attn_implementation": "user/kernel"},
        "output_attentions": {"output_attentions": True},
        "output_attentions a word": {"output_attentions": "yes"},
        "return_dict off": {"return_dict": False, "use_return_dict": False},
        "quantization_config": {"quantization_config": {"quant_method": "bitsandbytes", "load_in_8bit": True}},
        "quantization_config unknown": {"quantization_config": {"quant_method": "magic"}},
        "quantization_config a word": {"quantization_config": "int8"},
        "per_layer_config": {"per_layer_config": {"0": {"hidden_size": 3}}},
        "a method": {"to_dict": 5},
        "a property": {"patch_grid": [1, 1]},
        "a class": {"__class__": "int", "__dict__": {}},
        "a private field": {"_attn_implementation_internal": "eager", "_internal": {"a": 1}},
        "a key of nothing": {"": 1, " ": 2},
        "transformers_version a list": {"transformers_version": [5]},
        "chunk_size a word": {"chunk_size_feed_forward": "x"},
        "rope": {"rope_scaling": {"type": "x"}, "rope_theta": 1},
        "sub_configs": {"sub_configs": {"a": 1}},
        "base_config_key": {"base_config_key": "text_config", "text_config": {"hidden_size": 3}},
        "tie_word_embeddings": {"tie_word_embeddings": True, "tie_encoder_decoder": True},
        "pruned_heads": {"pruned_heads": {"0": [0]}},
    }  # fmt: skip
    return found | {f"config.json {name}": config(**changes) for name, changes in others.items()}


def tampered_extractors() -> dict[str, Callable[[Path], None]]:
    draw = random.Random(SEED + 1)
    name = "preprocessor_config.json"
    found = damaged_json(name)
    for field in EXTRACTOR_WHOLE:
        for kind in draw.sample(sorted(NO_WHOLE_NUMBERS), 6):
            found[f"{name} {field} {kind}"] = change_json(name, **{field: NO_WHOLE_NUMBERS[kind]})
    for field in EXTRACTOR_REAL:
        for kind in draw.sample(sorted(NO_REAL_NUMBERS), 4):
            found[f"{name} {field} {kind}"] = change_json(name, **{field: NO_REAL_NUMBERS[kind]})
    others = {
        "std 0": {"std": 0.0},
        "mean null": {"mean": None},
        "a rate of 1": {"sampling_rate": 1},
        "a rate of 1e12": {"sampling_rate": 10**12},
        "a float rate": {"sampling_rate": 16000.0},
        "another length": {"max_length": 1024},
        "64 bins": {"num_mel_bins": 64},
        "padding unknown": {"padding": "sometimes"},
        "padding a number": {"padding": 5},
        "padding a list": {"padding": ["longest"]},
        "do_normalize a word": {"do_normalize": "no"},
        "return_attention_mask a word": {"return_attention_mask": "yes"},
        "type of others": {"feature_extractor_type": "Wav2Vec2FeatureExtractor"},
        "type a list": {"feature_extractor_type": ["ASTFeatureExtractor"]},
        "type missing": {"feature_extractor_type": MISSING},
        "channels unknown": {"channels": "middle"},
        "channels negative": {"channels": -1},
        "channels a list": {"channels": [0, 1]},
        "resampler unknown": {"resampler": "magic"},
        "resampler a number": {"resampler": 5},
        "padding_side unknown": {"padding_side": "up"},
        "a method": {"audio_reader": 5, "to_dict": 3, "__call__": 1},
        "auto_map": {"auto_map": {"AutoFeatureExtractor": "evil.Extractor"}},
        "windows of others": {"window": 3, "fft_window": "hann", "mel_filters": [[1.0]]},
    }
    return found | {f"{name} {kind}": change_json(name, **changes) for kind, changes in others.items()}


def tampered_weights() -> dict[str, Callable[[Path], None]]:
    last = "model-00001-of-00001.safetensors"
    found = {
        "empty": write("model.safetensors", b""),
        "cut in the header": cut_weights(0.001),
        "cut in the data": cut_weights(0.7),
        "a byte too long": lambda folder: (folder / "model.safetensors").open("ab").write(b"x"),
        "header of 2^60": change_header(lambda header: None, length=2**60),
        "header of 2^64 - 1": change_header(lambda header: None, length=2**64 - 1),
        "header of 0": change_header(lambda header: b""),
        "header an array": change_header(lambda header: b"[]"),
        "header nested deep": change_header(lambda header: b'{"a":' * 100_000 + b"1" + b"}" * 100_000),
        "header without tensors": change_header(lambda header: b"{}"),
        "no tensors": change_tensors(lambda tensors: {"x": torch.zeros(3)}),
        "offsets beyond": of_tensor(QUERY, data_offsets=[10**12, 10**12 + 4096]),
        "offsets that overlap": change_header(lambda header: header | {QUERY: header[QUERY] | {"data_offsets": [0, 4096]}}),
        "offsets negative": of_tensor(QUERY, data_offsets=[-8, 4088]),
        "offsets the wrong way": of_tensor(QUERY, data_offsets=[4096, 0]),
        "a type unknown": of_tensor(QUERY, dtype="F33"),
        "a shape of 2^40": of_tensor(QUERY, shape=[2**40, 2**40]),
        "a shape negative": of_tensor(QUERY, shape=[-32, -32]),
        "a shape flat": of_tensor(QUERY, shape=[1024]),
        "a shape of words": of_tensor(QUERY, shape=["32", "32"]),
        "metadata no words": change_header(lambda header: header | {"__metadata__": {"format": 5}}),
        "metadata of others": change_header(lambda header: header | {"__metadata__": {"format": "flax"}}),
        "metadata missing": change_header(lambda header: {k: v for k, v in header.items() if k != "__metadata__"}),
        "a name twice": change_header(lambda header: json.dumps(header).encode()[:-1] + b',"classifier.dense.bias":{"dtype":"F32","shape":[3],"data_offsets":[0,12]}}'),
        "query missing": change_tensors(lambda tensors: {k: v for k, v in tensors.items() if k != QUERY}),
        "classifier missing": change_tensors(lambda tensors: {k: v for k, v in tensors.items() if not k.startswith("classifier")}),
        "bias of the classifier missing": change_tensors(lambda tensors: {k: v for k, v in tensors.items() if k != "classifier.dense.bias"}),
        "a layer missing": change_tensors(lambda tensors: {k: v for k, v in tensors.items() if "layer.1." not in k}),
        "a tensor unexpected": change_tensors(lambda tensors: tensors | {"evil.weight": torch.zeros(3)}),
        "a layer unexpected": change_tensors(lambda tensors: tensors | {QUERY.replace("layer.0", "layer.7"): torch.zeros(32, 32)}),
        "a layer far away": change_tensors(lambda tensors: tensors | {QUERY.replace("layer.0", "layer.99999999999"): torch.zeros(32, 32)}),
        "classifier transposed": one_tensor(DENSE, lambda tensor: tensor.T),
        "patches transposed": one_tensor(PATCHES, lambda tensor: tensor.transpose(0, 1)),
        "positions cut": one_tensor(f"{EMBEDDINGS}position_embeddings", lambda tensor: tensor[:, :50]),
        "a scalar": one_tensor(QUERY, lambda tensor: torch.tensor(1.0)),
        "zero-size": one_tensor(QUERY, lambda tensor: tensor[:0]),
        "NaN in the query": one_tensor(QUERY, with_value(math.nan)),
        "NaN in the classifier": one_tensor(DENSE, with_value(math.nan)),
        "infinite positions": one_tensor(f"{EMBEDDINGS}position_embeddings", with_value(math.inf)),
        "-infinite bias": one_tensor("classifier.layernorm.bias", with_value(-math.inf)),
        "huge values": one_tensor(QUERY, with_value(3e38)),
        "NaN in half precision": change_tensors(lambda tensors: {k: with_value(math.nan)(v).half() if k == QUERY else v.half() for k, v in tensors.items()}),
        "float64": change_tensors(lambda tensors: {k: v.double() for k, v in tensors.items()}),
        "bfloat16": change_tensors(lambda tensors: {k: v.bfloat16() for k, v in tensors.items()}),
        "float64 beyond float32": change_tensors(lambda tensors: {k: with_value(1e300)(v.double()) if k == QUERY else v for k, v in tensors.items()}),
        "int8": change_tensors(lambda tensors: {k: v.to(torch.int8) for k, v in tensors.items()}),
        "one of int64": one_tensor(QUERY, lambda tensor: tensor.long()),
        "complex": one_tensor(QUERY, lambda tensor: tensor.to(torch.complex64)),
        "truth values": one_tensor(QUERY, lambda tensor: tensor > 0),
        "two names of one": change_tensors(lambda tensors: tensors | {f"module.{QUERY}": tensors[QUERY].clone()}),
        "wrapped": change_tensors(lambda tensors: {f"module.{k}": v for k, v in tensors.items()}),
        "a pickle": write("model.safetensors", b"\x80\x02cos\nsystem\nq\x00."),
        "a folder": lambda folder: ((folder / "model.safetensors").unlink(), (folder / "model.safetensors").mkdir()),
        "missing": lambda folder: (folder / "model.safetensors").unlink(),
        "index of a missing file": index(lambda folder, names: dict.fromkeys(names, "model-00009-of-00009.safetensors")),
        "index of an absolute path": index(lambda folder, names: dict.fromkeys(names, str(folder.parent / "good" / "model.safetensors"))),
        "index of the parent": index(lambda folder, names: dict.fromkeys(names, "../good/model.safetensors")),
        "index of a pickle": index(lambda folder, names: dict.fromkeys(names, "pytorch_model.bin")),
        "index of numbers": index(lambda folder, names: dict.fromkeys(names, 5)),
        "index of lists": index(lambda folder, names: dict.fromkeys(names, ["a"])),
        "index empty": index({}),
        "index a list": index(["a"]),
        "index null": index(None),
        "index that names too few": index(lambda folder, names: {QUERY: last}),
        "index that names too many": index(lambda folder, names: dict.fromkeys([*names, "evil"], last)),
        "index of a folder": index(lambda folder, names: dict.fromkeys(names, ".")),
        "index right": index(lambda folder, names: dict.fromkeys(names, last)),
        "index beside the weights": index({"evil": "../../../../etc/passwd"}, keep=True),
        "index no JSON": lambda folder: (index({})(folder), write("model.safetensors.index.json", "{")(folder)),
        "index no object": lambda folder: (index({})(folder), write("model.safetensors.index.json", "[]")(folder)),
        "index in UTF-16": lambda folder: (index({})(folder), write("model.safetensors.index.json", "{}".encode("utf-16"))(folder)),
    }  # fmt: skip
    return {f"weights {name}": tamper for name, tamper in found.items()}


def tampered_summaries() -> dict[str, Callable[[Path], None]]:
    name = "run_summary.json"
    others = {
        "labels of numbers": {"labels": [1, 2, 3]},
        "labels an object": {"labels": {"a": 1}},
        "labels of others": {"labels": ["x", "y", "z"]},
        "data a list": {"data": []},
        "data of numbers": {"data": {"name": 5, "hub_id": 7, "splits": 3, "license": 4, "skipped_clips": 5}},
        "splits of lists": {"data": {"splits": {"train": [1]}}},
        "splits of words": {"data": {"splits": {"train": {"clips": "many", "seconds": "long", "label_counts": 3}}}},
        "evaluation of words": {"evaluation": {"metrics": {"accuracy": "good"}, "split": 5, "clips": "all"}},
        "evaluation NaN": {"evaluation": {"metrics": {"accuracy": math.nan}, "clips": math.inf}},
        "metrics a list": {"evaluation": {"metrics": [1]}},
        "thresholds a list": {"evaluation": {"thresholds": [0.5]}},
        "per_class of words": {"evaluation": {"per_class": ["a"]}},
        "per_class a number": {"evaluation": {"per_class": 5}},
        "ensemble of words": {"evaluation": {"ensemble": {"epochs": "all", "metrics": {"accuracy": "x"}}}},
        "ensemble a list": {"evaluation": {"ensemble": [1]}},
        "averaged_epochs a word": {"evaluation": {"averaged_epochs": "all"}},
        "last_epoch a word": {"evaluation": {"last_epoch": "good"}},
        "validation a word": {"evaluation": {"validation": "good"}},
        "left_out a number": {"evaluation": {"left_out": 3}},
        "history of words": {"history": ["a", 1, None]},
        "history a row of words": {"history": [{"epoch": "x", "loss": "y"}]},
        "training of lists": {"training": {"lora": [1], "learning_rate": [[1]]}},
        "lora of words": {"training": {"lora": {"rank": "x", "alpha": [], "target_modules": 5, "trained_in_full": 1, "trainable_parameters": "many"}}},
        "time of words": {"time": {"training_seconds": "long", "train_samples_per_second": "fast"}},
        "time NaN": {"time": {"training_seconds": math.nan}},
        "license a list": {"license": ["mit"]},
        "license a number": {"license": 5},
        "license_notice of numbers": {"license_notice": {"work": 1, "address": 2, "copyright": 3}},
        "license_notice empty": {"license_notice": {"x": 1}},
        "base_model a number": {"base_model": 5},
        "base_model a list": {"base_model": ["user/name"]},
        "command a list": {"command": ["ast-finetune"]},
        "seed a word": {"seed": "lucky"},
        "created a number": {"created": 5},
        "features of words": {"features": {"sampling_rate": "fast", "mean": "low"}},
        "features of lists": {"features": {"mean": [1], "std": {}}},
        "features of another run": {"features": {"sampling_rate": 8000}},
        "model a list": {"model": [1]},
        "model of words": {"model": {"size": 5, "parameters": "many"}},
        "agreement of words": {"agreement": {"largest_difference": "none", "tolerance": "some", "outputs": 5}},
        "published of words": {"published": {"accuracy": "good", "by": 5, "on_the_hub": 7}},
        "conversion of words": {"source": 5, "source_address": 6, "conversion": {"left_out": 5, "notes": 7}, "sha256": 5},
        "sha256 of numbers": {"source": "a", "sha256": {"a": 5}},
        "environment nested": {"environment": {"a": {"b": {"c": [1, {"d": 2}]}}}},
    }  # fmt: skip
    return damaged_json(name) | {f"{name} {kind}": change_json(name, **changes) for kind, changes in others.items()}


def tampered_cards() -> dict[str, Callable[[Path], None]]:
    lines = ["a: &a [x, x]"] + [f"{b}: &{b} [*{a}, *{a}]" for a, b in zip("abcdefgh", "bcdefghi", strict=True)]
    fronts = {
        "no YAML": "{",
        "a list": "- a",
        "a Python tag": "license: !!python/object/apply:os.getcwd []",
        "aliases": "\n".join(lines),
        "a license that is none": "license: [1, 2]",
        "model-index a word": "model-index: x",
        "model-index of nulls": "model-index:\n- name: x\n  results:\n  - task: null",
        "nested deep": "a: " + "[" * 3000 + "]" * 3000,
    }
    cards = {name: f"---\n{front}\n---\n# A card\n" for name, front in fronts.items()} | {
        "empty": "",
        "of bytes": "\x00\x01",
    }
    return {f"README.md {name}": write("README.md", card) for name, card in cards.items()} | {
        "README.md in UTF-16": write("README.md", "---\nlicense: mit\n---\n".encode("utf-16")),
        "recipe.yaml no YAML": write("recipe.yaml", "{"),
        "recipe.yaml aliases": write("recipe.yaml", "\n".join(lines)),
        "recipe.yaml of bytes": write("recipe.yaml", b"\xff\xfe\x00"),
    }
