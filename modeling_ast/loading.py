"""Loading a checkpoint for use: a folder or a model of the Hub, with its feature extractor, or words that say why not."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .audio import parse_channels
from .checkpoints.fields import CONFIG, EXTRACTOR, FRAME_ARCHITECTURE, CheckpointError, read_settings
from .checkpoints.shipped import AST_SMALL, folder_of, is_there
from .checkpoints.weights import weight_files
from .system.regular_files import SpecialFileError, refuse_special_in
from .system.surroundings import hub_hint

FRAMES_REFUSED = (
    "it has a frame head, which tells labels of frames and not of clips. Hear with it by ast-tag --timeline, or pass a checkpoint "
    "with a classifier of clips."
)


def load_checkpoint(
    model_name_or_path: str | os.PathLike,
    channels: str | int | None = None,
    tokens_merged_per_layer: int = 0,
    revision: str | None = None,
    frame_heads: bool = False,
):
    """Load a model with a trained classifier, and the feature extractor that was saved with it.

    Args:
        model_name_or_path (`str` or `os.PathLike`): a folder, a Hub id such as `user/name`, or `ast-small`.
        channels (`str` or `int`, *optional*): which channels of files are heard, if not those of the checkpoint.
        tokens_merged_per_layer (`int`, defaults to 0): see [`ASTPreTrainedModel.merge_tokens`].
        revision (`str`, *optional*): branch, tag or commit of a model of the Hub, if not its main branch.
        frame_heads (`bool`, defaults to `False`): whether a checkpoint that tells labels of frames can be used, too.

    Returns:
        [`ASTForAudioClassification`], or [`ASTForAudioFrameClassification`] of a checkpoint with a frame head, in float32 on
        the CPU, and [`ASTFeatureExtractor`].

    Raises:
        CheckpointError: if there is no such model, a file is missing in the folder, it is another kind of model, its
            classifier was never trained, or it has a frame head where that cannot be used.
        ValueError: if there is no such choice of channels; the message says which there are.
    """
    changes = {} if channels is None else {"channels": parse_channels(channels)}
    check_model_name(model_name_or_path)
    import torch

    from .configuration_ast import LOGITS_ALONE, ASTConfig
    from .feature_extraction_ast import ASTFeatureExtractor
    from .frame_classification import ASTForAudioFrameClassification
    from .modeling_ast import ASTForAudioClassification
    from .system.hub_answers import hub_answers

    try:
        with hub_answers():
            place = {} if revision is None else {"revision": revision}
            feature_extractor = ASTFeatureExtractor.from_pretrained(model_name_or_path, **changes, **place)
            of_frames = has_frame_head(ASTConfig.get_config_dict(model_name_or_path, **place)[0])
            if of_frames and not frame_heads:
                raise CheckpointError(FRAMES_REFUSED)
            model_class = ASTForAudioFrameClassification if of_frames else ASTForAudioClassification
            # A checkpoint saved in half precision would load in it, and its features are float32.
            model, loading_info = model_class.from_pretrained(
                model_name_or_path, dtype=torch.float32, output_loading_info=True, **LOGITS_ALONE, **place
            )
    except (OSError, ValueError) as error:
        raise _in_words(model_name_or_path, error) from error
    if loading_info["missing_keys"]:
        raise CheckpointError(
            f"{model_name_or_path} has no trained classifier, so its tags would be random. Fine-tune it first "
            "(ast-finetune) and pass the folder which that writes."
        )
    model.merge_tokens(tokens_merged_per_layer)
    return model, feature_extractor


@contextmanager
def hub_errors_in_words(model_name_or_path: str | os.PathLike) -> Iterator[None]:
    """Say of a model that is neither a folder here nor can be had of the Hub that it is so, in a `with` block that loads of it.

    Args:
        model_name_or_path (`str` or `os.PathLike`): a folder, whose errors pass as they are, or a Hub id.

    Returns:
        A context manager.

    Raises:
        CheckpointError: in place of the libraries' errors, which name the Hub's address alone.
    """
    from .system.hub_answers import hub_answers

    try:
        with hub_answers():
            yield
    except (OSError, ValueError) as error:
        if isinstance(error, CheckpointError) or Path(folder_of(model_name_or_path)).is_dir():
            raise
        raise _in_words(model_name_or_path, error) from error


def _in_words(model_name_or_path: str | os.PathLike, error: OSError | ValueError) -> CheckpointError:
    name, words = str(model_name_or_path), str(error).splitlines()[0]
    if not Path(folder_of(name)).is_dir():
        name = f"There is no folder {name} here, and as a Hub id it"
        words = words.partition(" If you were trying to load it from")[0]  # what follows is about folders
        words = f"{words.rstrip('.')}.{hub_hint()}"
    return CheckpointError(f"{name} cannot be loaded: {words}")


def has_frame_head(config: dict) -> bool:
    """Tell by a checkpoint's configuration whether it tells labels of frames, not of clips.

    Args:
        config (`dict`): what `config.json` holds.

    Returns:
        `bool`.
    """
    return FRAME_ARCHITECTURE in (config.get("architectures") or ())


def check_model_name(model_name_or_path: str | os.PathLike) -> None:
    """Check a checkpoint folder, or that a name can be a Hub id, without importing torch or using the network.

    Args:
        model_name_or_path (`str` or `os.PathLike`): a folder, a Hub id such as `user/name`, or `ast-small`.

    Raises:
        CheckpointError: if there is no such folder and the name is no Hub id, or the folder lacks a file or holds another
            kind of model.
    """
    folder = Path(folder_of(model_name_or_path))
    contents = "config.json, preprocessor_config.json and model.safetensors"
    if not folder.is_dir():
        if folder.exists() or not re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", str(model_name_or_path)):
            raise CheckpointError(
                f"There is no model folder {folder}. Pass --model_name_or_path with a folder that contains {contents}, "
                "as ast-finetune writes it, or a Hub id such as user/name."
                + (f" {AST_SMALL} is the checkpoint that the kit ships." if is_there(AST_SMALL) else "")
            )
        return
    try:
        refuse_special_in(folder)
    except SpecialFileError as error:
        raise CheckpointError(str(error)) from None
    missing = [name for name in (CONFIG, EXTRACTOR) if not (folder / name).is_file()]
    if not any(folder.glob("model*.safetensors")):
        missing.append("model.safetensors")
    if missing:
        raise CheckpointError(
            f"The model folder {folder} has no {' and no '.join(missing)}. A model folder contains {contents}, as "
            "ast-finetune writes them."
        )
    for name in (CONFIG, EXTRACTOR):
        read_settings(folder / name)
    weight_files(folder)
