"""LoRA adapters of this model (PEFT), and the same adapters for stock Transformers.

Layers here have the names of the checkpoints on the Hub; Transformers 5 calls them otherwise in memory. PEFT finds layers
by their names, so that an adapter trained here finds none in the stock model until it is renamed.
"""

import json
import os
import re
from pathlib import Path

from .checkpoints.fields import read_json
from .checkpoints.tensor_names import STOCK_LAYER_NAMES
from .system.atomic_files import give_usual_mode, make_folder_atomically

LORA_TARGET_MODULES = ("query", "value")  # as Hu et al. 2021 (LoRA) chose: the attention's query and value projections
ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"

_LAYER = re.compile(r"\bencoder\.layer\.(\d+)\.(" + "|".join(re.escape(name) for name in STOCK_LAYER_NAMES) + r")\b")
_NAMES_ELSEWHERE = ("rank_pattern", "alpha_pattern", "layers_pattern", "exclude_modules")
_INSTEAD = "Merge the adapter with merge_and_unload() and save the model instead; that loads in stock Transformers."


def convert_adapter_for_stock(adapter_dir: str | os.PathLike, output_dir: str | os.PathLike) -> None:
    """Write a LoRA adapter of this model as one for stock Transformers 5.

    Args:
        adapter_dir (`str` or `os.PathLike`): what `PeftModel.save_pretrained` wrote, with `adapter_config.json` and
            `adapter_model.safetensors`.
        output_dir (`str` or `os.PathLike`): new folder, for `PeftModel.from_pretrained(stock_model, output_dir)`.

    Raises:
        FileExistsError: if there is already something at `output_dir`.
        FileNotFoundError: if a file of the adapter is missing.
        ValueError: if its configuration is no JSON object of a bounded size, it is no LoRA adapter, adapts other layers than
            the linear ones of the transformer, or names them by pattern.
    """
    from safetensors.torch import load_file, save_file

    adapter_dir = Path(adapter_dir)
    for name in (ADAPTER_CONFIG, ADAPTER_WEIGHTS):
        if not (adapter_dir / name).is_file():
            raise FileNotFoundError(
                f"{adapter_dir} has no {name}. Pass the folder that PeftModel.save_pretrained wrote."
            )
    config = _read_config(adapter_dir / ADAPTER_CONFIG)
    if config.get("peft_type") != "LORA":
        raise ValueError(f"{adapter_dir} is an adapter of type {config.get('peft_type')!r}, expected LORA. {_INSTEAD}")
    given = [name for name in _NAMES_ELSEWHERE if config.get(name)]
    if given:
        raise ValueError(
            f"{adapter_dir}/{ADAPTER_CONFIG} uses {', '.join(given)}, which is not renamed here. {_INSTEAD}"
        )
    config["target_modules"] = _stock_targets(config.get("target_modules"))
    weights = load_file(adapter_dir / ADAPTER_WEIGHTS)
    renamed = {_LAYER.sub(_stock_layer, name): tensor for name, tensor in weights.items()}
    foreign = [name for name in renamed if "encoder.layer." in name or ("lora_" in name and ".layers." not in name)]
    if foreign:
        raise ValueError(
            f"{adapter_dir} adapts {foreign[0]}, which is no linear layer of this model's transformer. {_INSTEAD}"
        )
    with make_folder_atomically(output_dir) as folder:
        (folder / ADAPTER_CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        save_file(renamed, folder / ADAPTER_WEIGHTS, metadata={"format": "pt"})
        give_usual_mode(folder / ADAPTER_WEIGHTS)


def _read_config(path: Path) -> dict:
    try:
        config = read_json(path)
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} is not a valid JSON object ({error}). Save the adapter again.") from error
    if not isinstance(config, dict):
        raise ValueError(f"{path} is not a JSON object. Save the adapter again.")
    return config


def _stock_layer(match: re.Match) -> str:
    return f"layers.{match[1]}.{STOCK_LAYER_NAMES[match[2]]}"


def _stock_targets(targets: list[str] | str | None) -> list[str]:
    """Layers, by their whole names or how these end, as the names of the same layers in stock Transformers."""
    stock = set()
    for target in targets if isinstance(targets, list) else [targets]:
        whole_name = _LAYER.sub(_stock_layer, str(target))
        found = {theirs for ours, theirs in STOCK_LAYER_NAMES.items() if f".{ours}".endswith(f".{target}")}
        if whole_name != str(target):
            found = {whole_name}
        if not found:
            raise ValueError(
                f"The adapter's target_modules has {target!r}, expected names that end like "
                f"{', '.join(STOCK_LAYER_NAMES)}. {_INSTEAD}"
            )
        stock |= found
    return sorted(stock)
