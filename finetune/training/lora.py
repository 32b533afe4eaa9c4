"""LoRA: small adapters learn in place of all weights, and what is saved at the end is an ordinary checkpoint again.

Follows Hu et al. 2021 (LoRA) by way of PEFT: to the output of a linear layer is added `alpha / rank * B @ A` of its input,
`A` and `B` being what learns; the classifier learns in full. Differs from a plain PEFT training in that a checkpoint whose
positions were moved to another patch grid lets its embeddings learn in full too (frozen, they would stay as they were
interpolated, and a saved adapter would not hold them), and in that the adapter's files name no folder of the user's.
"""

import copy
import hashlib
import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn
from transformers import Trainer

from modeling_ast import ASTConfig, ASTForAudioClassification
from modeling_ast.adapters import ADAPTER_CONFIG, ADAPTER_WEIGHTS, LORA_TARGET_MODULES, STOCK_LAYER_NAMES
from modeling_ast.checkpoints.shipped import AST_SMALL
from modeling_ast.system.atomic_files import give_usual_mode, sync
from modeling_ast.system.installation import install_command

from ..arguments.groups import OptimizationArguments
from .optimization import freeze_lowest_layers

if TYPE_CHECKING:  # an optional package, imported where it is used
    from peft import PeftModel

CLASSIFIER = "classifier"
EMBEDDINGS = "audio_spectrogram_transformer.embeddings"  # in full: PEFT looks at ends, and patch_embeddings ends alike
_ENCODER = "audio_spectrogram_transformer.encoder.layer."
_README = """---
library_name: peft
{base_model}tags:
- audio-spectrogram-transformer
- lora
---

# A LoRA adapter of an Audio Spectrogram Transformer

The folder above holds the same model with the adapter merged into its weights; it is all that is needed to use it.
This is the adapter by itself, for the checkpoint that it was trained from, {base}:

```python
from modeling_ast import ASTForAudioClassification
from peft import PeftModel

labels = {labels}
base = ASTForAudioClassification.from_pretrained(
    {place}, id2label=dict(enumerate(labels)){geometry}
)
model = PeftModel.from_pretrained(base, "adapter")
```

For the class in stock Transformers, which calls its layers otherwise, first convert it:
`modeling_ast.adapters.convert_adapter_for_stock("adapter", "stock_adapter")`.
"""


def require_peft():
    """Import PEFT.

    Returns:
        The module.

    Raises:
        ImportError: if it is not installed; the message says how to install it.
    """
    try:
        import peft
    except ImportError as error:
        raise ImportError(
            f"lora_rank needs the package peft, which cannot be imported ({error}). Type {install_command('peft')}, or "
            "leave out --lora_rank to train all weights."
        ) from error
    return peft


def is_adapted(model: nn.Module) -> bool:
    """Whether a model is one that [`add_adapters`] made.

    Args:
        model (`torch.nn.Module`): any model.

    Returns:
        `bool`: whether it is.
    """
    return hasattr(model, "merge_and_unload")


def add_adapters(model: ASTForAudioClassification, optimization: OptimizationArguments, start: str) -> "PeftModel":
    """Wrap a model so that only LoRA adapters and the classifier learn, from the layer on that is not frozen.

    Args:
        model ([`ASTForAudioClassification`]): loaded from `start`; changed in place.
        optimization ([`OptimizationArguments`]): rank, alpha, dropout, target layers and frozen layers.
        start (`str`): the checkpoint, folder or Hub id. Where `model` has another patch grid or stride than it, the
            embeddings learn in full too.

    Returns:
        `peft.PeftModel`. With an adapter that has not learned its logits are those of the model.

    Raises:
        ImportError: if PEFT is not installed.
        ValueError: if a target is no linear layer of the transformer, or all layers are frozen.
    """
    peft = require_peft()
    num_layers, frozen = model.config.num_hidden_layers, optimization.frozen_layers
    if frozen >= num_layers:
        raise ValueError(
            f"lora_rank={optimization.lora_rank} adapts layers, and frozen_layers={frozen} freezes all {num_layers}. Leave "
            "out one of the two: --frozen_layers alone trains the classifier only."
        )
    targets = list(optimization.lora_target_modules) or list(LORA_TARGET_MODULES)
    _refuse_other_targets(model, targets)
    own = ASTConfig.from_pretrained(start)
    moved = any(
        getattr(own, name) != getattr(model.config, name) for name in ("patch_grid", "frequency_stride", "time_stride")
    )
    # PEFT writes these into every checkpoint, and looks them up on the Hub each time it does.
    model.name_or_path = model.config._name_or_path = ""
    settings = peft.LoraConfig(
        r=optimization.lora_rank,
        lora_alpha=lora_alpha(optimization),
        lora_dropout=optimization.lora_dropout,
        target_modules=targets,
        modules_to_save=[CLASSIFIER, EMBEDDINGS] if moved else [CLASSIFIER],
    )
    with warnings.catch_warnings():  # PEFT reads a property that Transformers is about to rename
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing", category=FutureWarning)
        adapted = peft.get_peft_model(model, settings)
    freeze_lowest_layers(adapted, num_layers, frozen)
    return adapted


def lora_alpha(optimization: OptimizationArguments) -> float:
    """The alpha that was given, or twice the rank.

    Args:
        optimization ([`OptimizationArguments`]): with `lora_rank`, and `lora_alpha` if one was given.

    Returns:
        `float`: what the product of the two small matrices is multiplied by, times the rank.
    """
    return 2 * optimization.lora_rank if optimization.lora_alpha is None else optimization.lora_alpha


def _refuse_other_targets(model: ASTForAudioClassification, targets: list[str]):
    linear = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    for target in targets:
        found = [name for name in linear if f".{name}".endswith(f".{target}")]
        outside = [name for name in found if not name.startswith(_ENCODER)]
        if found and not outside:
            continue
        why = (
            f"is also the end of {outside[0]}, which learns in full" if outside else "is no linear layer of the model"
        )
        raise ValueError(
            f"lora_target_modules has {target!r}, which {why}. Pass ends of layer names, for example "
            f"--lora_target_modules {' '.join(STOCK_LAYER_NAMES)}"
        )


def merged_copy(model: "PeftModel") -> ASTForAudioClassification:
    """An ordinary model with the adapters added to its weights; the adapted one and the random state stay as they are.

    Args:
        model (`peft.PeftModel`): from [`add_adapters`].

    Returns:
        [`ASTForAudioClassification`]: on the same device.
    """
    return copy.deepcopy(model).merge_and_unload()


def merge_into_trainer(trainer: Trainer) -> "PeftModel | None":
    """Give a trainer that has trained an adapted model the merged one, so that what is scored is what is saved.

    Args:
        trainer (`Trainer`): after its training.

    Returns:
        The adapted model, for [`save_adapter`]; None if the trainer's model has no adapters.
    """
    adapted = trainer.model
    if not is_adapted(adapted):
        return None
    trainer.model = trainer.model_wrapped = merged_copy(adapted)
    trainer.accelerator.free_memory()  # or the trainer would take the merged model for one that is prepared
    return adapted


@contextmanager
def saving_merged(trainer: Trainer) -> Iterator[None]:
    """Within this block the trainer saves an adapted model as a merged, ordinary checkpoint.

    Args:
        trainer (`Trainer`): whose model is adapted, or not.
    """
    model = trainer.model
    if is_adapted(model):
        trainer.model = merged_copy(model)
    try:
        yield
    finally:
        trainer.model = model


def lora_section(model: "PeftModel") -> dict:
    """What a run summary says of the adapters.

    Args:
        model (`peft.PeftModel`): from [`add_adapters`].

    Returns:
        `rank`, `alpha`, `dropout`, `target_modules`, the modules `trained_in_full`, and the number of
        `trainable_parameters`.
    """
    settings = model.active_peft_config
    trainable, _ = model.get_nb_trainable_parameters()
    return {
        "rank": settings.r,
        "alpha": settings.lora_alpha,
        "dropout": settings.lora_dropout,
        "target_modules": sorted(settings.target_modules),
        "trained_in_full": [name.rpartition(".")[2] for name in settings.modules_to_save],
        "trainable_parameters": trainable,
    }


def lora_in_words(section: dict, num_parameters: int) -> str:
    """Rank, targets, and how many parameters learn, beside how many the model has without adapters; a part of a line.

    Args:
        section (`dict`): from [`lora_section`].
        num_parameters (`int`): of the model without adapters.

    Returns:
        `str`: a part of a line.
    """
    learned = section["trainable_parameters"]
    return (
        f"LoRA of rank {section['rank']} on {', '.join(section['target_modules'])}, {' and '.join(section['trained_in_full'])} "
        f"in full: {learned:,} trainable parameters, {learned / num_parameters:.2%} of {num_parameters:,}"
    )


def frozen_weights_digest(model: "PeftModel") -> str:
    """SHA-256 of the weights that an adapter was trained for, which its checkpoints do not hold.

    Args:
        model (`peft.PeftModel`): from [`add_adapters`].

    Returns:
        `str`: 64 hexadecimal digits.
    """
    digest = hashlib.sha256()
    for name, tensor in model.get_base_model().state_dict().items():
        if not (name.startswith(CLASSIFIER) or "lora_" in name or "modules_to_save" in name):
            digest.update(name.encode() + tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def save_adapter(model: "PeftModel", folder: Path, base_model: str) -> None:
    """Write an adapter by itself, with a short note on how to load it.

    Args:
        model (`peft.PeftModel`): from [`add_adapters`].
        folder (`Path`): a new folder.
        base_model (`str`): Hub id of the checkpoint that it was trained from, or `./name` of a local one.
    """
    settings, config = model.active_peft_config, model.config
    settings.base_model_name_or_path = base_model
    model.save_pretrained(str(folder), save_embedding_layers=False)  # "auto" would ask the Hub
    give_usual_mode(folder / ADAPTER_WEIGHTS)
    settings.base_model_name_or_path = None
    moved = any(name.endswith(EMBEDDINGS) for name in settings.modules_to_save)
    geometry = {
        name: getattr(config, name) for name in ("max_length", "num_mel_bins", "frequency_stride", "time_stride")
    }
    local = base_model.startswith("./") or base_model == AST_SMALL
    note = _README.format(
        base_model="" if local else f"base_model: {base_model}\n",
        base=f"the local checkpoint `{base_model}`" if local else f"`{base_model}`",
        labels=json.dumps([config.id2label[index] for index in range(config.num_labels)], ensure_ascii=False),
        place=json.dumps(base_model, ensure_ascii=False),
        geometry="".join(f", {name}={value}" for name, value in geometry.items()) if moved else "",
    )
    (folder / "README.md").write_text(note, encoding="utf-8")
    for path in (folder / ADAPTER_CONFIG, folder / ADAPTER_WEIGHTS, folder / "README.md", folder):
        sync(path)
