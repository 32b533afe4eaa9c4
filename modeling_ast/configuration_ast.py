"""AST configuration: the fields of the checkpoints on the Hub, and what this port adds to them.

Follows `config.json` of `MIT/ast-finetuned-audioset-10-10-0.4593`. New fields change nothing at their defaults, so a
configuration saved here loads in stock Transformers and the other way round.
"""

from huggingface_hub.dataclasses import strict
from huggingface_hub.errors import StrictDataclassError
from transformers import PreTrainedConfig
from transformers.activations import ACT2FN
from transformers.utils import logging

from .checkpoints.fields import (
    CHOICES,
    CONFIG_FIELDS,
    CONFIG_FILE_FIELDS,
    MODEL_TYPE,
    check_choices,
    check_fields,
    read_json,
)
from .checkpoints.shipped import folder_of
from .layers.patch_grid import patch_grid_of

logger = logging.get_logger(__name__)

LABEL_FIELDS = ("num_labels", "id2label", "label2id")
NUM_AUDIOSET_LABELS = 527
# First and last display name in the released class_labels_indices.csv, enough to tell the AudioSet label list.
AUDIOSET_FIRST_AND_LAST_LABEL = ("Speech", "Field recording")
# Settings under which a model's output is logits, by name, and nothing else; the config.json of a checkpoint may have others.
LOGITS_ALONE = {"output_hidden_states": False, "output_attentions": False, "return_dict": True}


@strict
class ASTConfig(PreTrainedConfig):
    r"""
    The defaults are those of
    [MIT/ast-finetuned-audioset-10-10-0.4593](https://huggingface.co/MIT/ast-finetuned-audioset-10-10-0.4593).

    Args:
        hidden_size (`int`, defaults to 768): width of the tokens.
        num_hidden_layers (`int`, defaults to 12): number of transformer layers.
        num_attention_heads (`int`, defaults to 12): heads of each layer; must divide `hidden_size`.
        intermediate_size (`int`, defaults to 3072): width of the feed-forward layers.
        hidden_act (`str`, defaults to `"gelu"`): activation of the feed-forward layers.
        hidden_dropout_prob (`float`, defaults to 0.0): dropout on embeddings and layer outputs.
        attention_probs_dropout_prob (`float`, defaults to 0.0): dropout on attention weights.
        initializer_range (`float`, defaults to 0.02): standard deviation of new weights.
        layer_norm_eps (`float`, defaults to 1e-12): epsilon of every LayerNorm in the transformer.
        patch_size (`int`, defaults to 16): side of a square patch, in mel bins and in frames.
        qkv_bias (`bool`, defaults to `True`): whether query, key and value have a bias.
        frequency_stride (`int`, defaults to 10): distance of two patches in mel bins.
        time_stride (`int`, defaults to 10): distance of two patches in frames.
        max_length (`int`, defaults to 1024): frames (10 ms each) that the position table was made for.
        num_mel_bins (`int`, defaults to 128): mel bins of the input.
        classifier_layer_norm_eps (`float`, *optional*): epsilon of the classifier's LayerNorm; `layer_norm_eps` if
            `None`. The original code uses 1e-6 in the transformer and 1e-5 in the head, stock Transformers one for both.
        label_thresholds (`dict[str, float]`, *optional*): for labels of a multi-label model the score from which they
            count, 0.5 where a label is not named. The model's output does not depend on them; tagging obeys them.
        event_rules (`dict[str, dict[str, float]]`, *optional*): for labels what makes their events on a time line: `on`, the score
            with which one begins, and perhaps `off`, down to which it goes on, `min_duration`, `close_gaps` and `median_filter` in
            seconds. As with `label_thresholds`, the model's output does not depend on them; `ast-tag --timeline` obeys them.
        position_cut (`str`, defaults to `"middle"`): which positions along time stay when `max_length` is made shorter:
            `"middle"`, as in the paper, or `"beginning"`, of a model that was trained on clips of any length, unpadded.

    Raises:
        ValueError: if a value is beyond the bounds of `checkpoint_fields`, `num_attention_heads` does not divide
            `hidden_size`, the input is smaller than one patch, or a threshold or a rule of events cannot be or is of no label.

    A checkpoint with the 527 AudioSet labels and no `problem_type` is taken as multi-label: its scores are independent
    (sigmoid), while stock Transformers applies a softmax to them.
    """

    model_type = MODEL_TYPE
    keys_to_ignore_at_inference = ["frame_mask"]  # noqa: RUF012 - a list, to which `Trainer` adds; what `Trainer` does not take for predictions

    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    hidden_dropout_prob: float | int = 0.0
    attention_probs_dropout_prob: float | int = 0.0
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-12
    patch_size: int = 16
    qkv_bias: bool = True
    frequency_stride: int = 10
    time_stride: int = 10
    max_length: int = 1024
    num_mel_bins: int = 128
    classifier_layer_norm_eps: float | None = None
    label_thresholds: dict[str, float | int] | None = None
    event_rules: dict[str, dict[str, float | int]] | None = None
    position_cut: str = "middle"

    def __post_init__(self, **kwargs):
        check_fields({name: kwargs[name] for name in LABEL_FIELDS if name in kwargs}, CONFIG_FILE_FIELDS)
        super().__post_init__(**kwargs)
        check_fields({name: getattr(self, name) for name in CONFIG_FIELDS}, CONFIG_FIELDS)
        if self.hidden_act not in ACT2FN:
            raise ValueError(
                f"hidden_act={self.hidden_act!r:.60} is no activation of Transformers. Set it to gelu, as AST has it."
            )
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"hidden_size={self.hidden_size} is not a multiple of num_attention_heads={self.num_attention_heads}. "
                "Choose num_attention_heads so that it divides hidden_size."
            )
        for name in ("max_length", "num_mel_bins"):
            if getattr(self, name) < self.patch_size:
                raise ValueError(
                    f"{name}={getattr(self, name)} is less than one patch of {self.patch_size}. Set {name} to "
                    f"{self.patch_size} or more."
                )
        check_choices(self)
        if self.problem_type is None and self._has_audioset_labels():
            self.problem_type = "multi_label_classification"
            logger.warning_once(
                "This checkpoint has the 527 AudioSet labels and no problem_type; it is used as "
                "multi_label_classification (sigmoid scores). Pass problem_type to choose otherwise."
            )

    @classmethod
    def from_dict(cls, config_dict: dict, **kwargs):
        """As the stock method, but labels among `kwargs` have to fit each other, `label2id` alone says them too, and what
        a missing `problem_type` is concluded from are the labels that the configuration ends up with. Thresholds and rules
        of events of other labels are not kept.

        Args:
            config_dict (`dict`): the fields, as `config.json` holds them.
            kwargs: fields in place of those; `None` is not given. With `return_unused_kwargs=True` what is no field is
                returned too.

        Returns:
            [`ASTConfig`], or that and the `dict` of what is no field.

        Raises:
            ValueError: if `num_labels`, `id2label` and `label2id` contradict each other, or a field is of another type or
                beyond its bounds.
        """
        check_fields(config_dict, CONFIG_FILE_FIELDS, "config.json", cls)
        kwargs = {name: value for name, value in kwargs.items() if value is not None}
        choices = {name: kwargs.pop(name) for name in CHOICES if name in kwargs}
        check_fields(choices, CONFIG_FIELDS)
        labels = {name: kwargs.pop(name) for name in LABEL_FIELDS if name in kwargs}
        if labels:
            own = config_dict.get("id2label") or {index: f"LABEL_{index}" for index in range(2)}
            kwargs["id2label"] = wanted_id2label(labels, {int(index): label for index, label in own.items()})
            kwargs["label2id"] = {label: index for index, label in kwargs["id2label"].items()}
            if kwargs["id2label"] != {int(index): label for index, label in own.items()}:
                config_dict = config_dict | dict.fromkeys(CHOICES)
        return_unused_kwargs = kwargs.pop("return_unused_kwargs", False)
        given = config_dict.get("problem_type") or kwargs.get("problem_type")
        try:
            config, unused = super().from_dict(config_dict, return_unused_kwargs=True, **kwargs)
        except StrictDataclassError as error:
            raise ValueError(" ".join(str(error).split())) from error
        if not given and not config._has_audioset_labels():
            config.problem_type = None
        if choices:  # of the labels that it ends up with
            for name, value in choices.items():
                setattr(config, name, value)
            check_choices(config)
        return (config, unused) if return_unused_kwargs else config

    @classmethod
    def get_config_dict(cls, pretrained_model_name_or_path, **kwargs) -> tuple[dict, dict]:
        """As the stock method, but a checkpoint that the kit ships is found by its name.

        Args:
            pretrained_model_name_or_path (`str` or `os.PathLike`): a folder, a Hub id, or `ast-small`.
            kwargs: as of the stock method.

        Returns:
            The fields, and what is left of `kwargs`.

        Raises:
            CheckpointError: see [`folder_of`].
        """
        return super().get_config_dict(folder_of(pretrained_model_name_or_path), **kwargs)

    @classmethod
    def _dict_from_json_file(cls, json_file):
        """As the stock method; larger and deeper files than a configuration can be are refused."""
        return read_json(json_file)

    def forget_choices(self):
        """Take out what was chosen for the labels of weights that are not these: thresholds and rules of events."""
        for name in CHOICES:
            setattr(self, name, None)

    def _has_audioset_labels(self) -> bool:
        if self.num_labels != NUM_AUDIOSET_LABELS:
            return False
        first, last = self.id2label[0], self.id2label[NUM_AUDIOSET_LABELS - 1]
        return (first, last) == AUDIOSET_FIRST_AND_LAST_LABEL

    @property
    def patch_grid(self) -> tuple[int, int]:
        """Patches along frequency and along time of an input of `max_length` frames."""
        return patch_grid_of(self, self.max_length)


def wanted_id2label(wanted: dict, own: dict[int, str]) -> dict[int, str]:
    """The labels asked for, or the checkpoint's own where nothing says otherwise.

    Args:
        wanted (`dict`): any of `num_labels`, `id2label` and `label2id`; `None` is not given.
        own (`dict[int, str]`): the checkpoint's `id2label`.

    Returns:
        `dict[int, str]`, in the order of the indices.

    Raises:
        ValueError: if they contradict each other, or the indices are not 0, 1, 2 ...
    """
    count, id2label, label2id = (wanted.get(name) for name in LABEL_FIELDS)
    check_fields({"num_labels": count}, CONFIG_FILE_FIELDS)
    if id2label is None and label2id is not None:
        id2label = {index: label for label, index in label2id.items()}
    if id2label is None:
        id2label = own if count in (None, len(own)) else {index: f"LABEL_{index}" for index in range(count)}
    id2label = dict(enumerate(id2label)) if isinstance(id2label, (list, tuple)) else id2label
    id2label = {int(index): label for index, label in sorted(id2label.items(), key=lambda item: int(item[0]))}
    names = {label: index for index, label in id2label.items()}
    consistent = count in (None, len(id2label)) and (
        label2id is None or {label: int(index) for label, index in label2id.items()} == names
    )
    if not id2label or list(id2label) != list(range(len(id2label))) or not consistent:
        given = ", ".join(f"{name}={wanted[name]!r:.60}" for name in LABEL_FIELDS if wanted.get(name) is not None)
        raise ValueError(
            f"{given} do not name labels with the indices 0, 1, 2 ..., each once. Pass num_labels, id2label and label2id "
            "that fit each other, or only one of them."
        )
    return id2label
