"""Names under which other programs save the tensors of this model, and those of the checkpoints on the Hub.

One table, read by loading, by the conversion, and for adapters: [`hub_name`] gives the Hub's name for any of them.
"""

import re

# Linear layers within `encoder.layer.N`, and what stock Transformers 5 calls them within `layers.N`: in memory, in files of
# `save_pretrained(save_original_format=False)`, and in those of `Accelerator.save_model`.
STOCK_LAYER_NAMES = {
    "attention.attention.query": "attention.q_proj",
    "attention.attention.key": "attention.k_proj",
    "attention.attention.value": "attention.v_proj",
    "attention.output.dense": "attention.o_proj",
    "intermediate.dense": "mlp.fc1",
    "output.dense": "mlp.fc2",
}
# What a model wrapped whole or in parts puts before the names: torch.compile, DataParallel and DistributedDataParallel, FSDP,
# and torch's checkpoint wrapper.
WRAPPERS = ("_orig_mod", "module", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
WRAPPED_PARTS = 4  # of a name that may be wrapped each by itself: the model, the transformer, a layer, a part of it

_START = r"(?<![^.])"  # of the name, or of what follows a dot
_WRAPPED = _START + r"(?:(?:" + "|".join(WRAPPERS) + r")\.)+"
_RENAMED = {
    _START + r"layers\.(?=\d)": "encoder.layer.",
    **{_START + re.escape(theirs) + r"\.": f"{ours}." for ours, theirs in STOCK_LAYER_NAMES.items()},
}
# For `key_mapping` of `from_pretrained`, which applies each row once: equal patterns have to differ in a comment.
HUB_KEY_MAPPING = {f"{_WRAPPED}(?#{part})": "" for part in range(WRAPPED_PARTS)} | _RENAMED


def hub_name(name: str) -> str:
    """The Hub's name of a tensor, whatever program saved it; a name that is of no such program stays as it is.

    Args:
        name (`str`): as it stands in a file.

    Returns:
        `str`: as it stands in the files of the Hub.
    """
    for pattern, replacement in HUB_KEY_MAPPING.items():
        name = re.sub(pattern, replacement, name, count=1)
    return name


def is_wrapped(name: str) -> bool:
    """Tell whether a tensor was saved from a model that something was wrapped around; stock Transformers loads no such file.

    Args:
        name (`str`): as it stands in a file.

    Returns:
        `bool`: whether the name has a wrapper's part in it.
    """
    return re.search(_WRAPPED, name) is not None
