"""The facts of a model card, read from a checkpoint folder and its `run_summary.json` alone.

`config.json`, `preprocessor_config.json` and the header of `model.safetensors` say what the checkpoint is;
`run_summary.json` says how it came about. A fact found in neither stays `None` or empty, and the card leaves it out.
"""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData
from huggingface_hub.utils import HFValidationError, validate_repo_id

from modeling_ast.checkpoints.fields import CONFIG_FILE_FIELDS, EXTRACTOR_FILE_FIELDS, check_fields, read_json
from modeling_ast.checkpoints.shipped import AST_SMALL
from modeling_ast.checkpoints.weights import shapes_in
from modeling_ast.frame_columns import FrameColumns
from modeling_ast.loading import has_frame_head
from modeling_ast.system.names_as_text import storable
from modeling_ast.system.regular_files import refuse_special_in

from .file_names import KNOWN_CLIPS_NAME, PICTURES, RECIPE_NAME
from .run_summary import RUN_SUMMARY_NAME
from .summary_fields import check_summary

FRAME_LENGTH, FRAME_SHIFT = 0.025, 0.010  # seconds; the Kaldi filter bank of Gong et al. 2021

# key in `run_summary.json` -> (metric type in the model index, name for people)
METRICS = {
    "accuracy": ("accuracy", "Accuracy"),
    "f1_macro": ("f1", "F1 (macro)"),
    "mean_average_precision": ("mean_average_precision", "Mean average precision (macro)"),
    "roc_auc_macro": ("roc_auc", "ROC AUC (macro)"),
    "d_prime": ("d_prime", "d-prime"),
}

# The model index wants a type for every data set. A folder or file that isn't on the Hub gets this one rather than its
# own name, under which the Hub may hold somebody else's data.
LOCAL_DATASET_TYPE = "local"

_GEOMETRY = (
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "patch_size",
    "frequency_stride",
    "time_stride",
)
_CONFIG_READ = ("id2label", "label_thresholds", "problem_type")  # beside the geometry, which is shown as it is
_FEATURES = ("sampling_rate", "num_mel_bins", "max_length", "mean", "std", "channels", "resampler")
_SECTIONS = {
    "data": dict,
    "labels": list,
    "features": dict,
    "model": dict,
    "training": dict,
    "history": list,
    "evaluation": dict,
    "environment": dict,
    "time": dict,
    "conversion": dict,
    "license_notice": dict,
    "agreement": dict,
    "published": dict,
}


@dataclass
class ASTModelCardData:
    """What is known about one checkpoint; `None` or empty is "unknown", and the card has no line for it.

    Args:
        name (`str`): of the folder, or of the repository if that is known; the card's title.
        repo_id (`str`, *optional*): `user/name` on the Hub, for a card that is published there.
        license (`str`, *optional*): licence of the model, a Hub licence id such as `"apache-2.0"`; where the user gave none
            that of the checkpoint it was trained from.
        base_model (`str`, *optional*): Hub id or path of the checkpoint the training started from.
        dataset_name (`str`, *optional*): name of the data for people.
        dataset_id (`str`, *optional*): Hub id of the data, if they are on the Hub.
        dataset_licenses (`list[str]`): licences of the clips.
        seed (`int`, *optional*): seed of every random draw.
        command (`str`, *optional*): the command that made the checkpoint.
        created (`str`, *optional*): when it was made, ISO 8601.
        kit_version (`str`, *optional*): version of this kit.
        license_notice (`dict[str, str]`): `work`, `address` and `copyright` of BSD-3-Clause work that it derives
            from.
        from_scratch (`bool`): whether the training started from random weights.
        features_column (`str`, *optional*): column of log-mel features that were computed before the training.
        split_method (`str`, *optional*): how the data were split.
        share_that_counts (`float`, *optional*): of soft labels, the share from which a clip was counted and scored as having one.
        windows (`str`, *optional*): what was heard of clips that last longer than the model hears.
        skipped_clips (`int`): clips left out because they cannot be decoded, are cut off, empty, too short or hold NaN.
        splits (`dict[str, dict]`): for each split its `clips`, `seconds` and `label_counts`.
        normalization (`str`, *optional*): how `mean` and `std` were got.
        source (`str`, *optional*): name of the file or checkpoint that this one was converted from.
        source_address (`str`, *optional*): where its authors keep it.
        model_size (`str`, *optional*): the original's name for the size of the model.
        sha256 (`dict[str, str]`): of the source's files, by name.
        agreement (`dict[str, Any]`): `largest_difference`, `tolerance` and `outputs` of the check against the source.
        unused_tensors (`list[str]`): tensors of the source that AST does not use.
        notes (`list[str]`): what else a converter has to say.
        published (`dict[str, Any]`): the source's scores as its authors published them, and `by` whom.
        training (`dict[str, Any]`): hyper-parameters, nested as the recipe has them.
        history (`list[dict[str, float]]`): log rows with `epoch`, `loss` and more.
        eval_split (`str`, *optional*): the split the scores are from.
        eval_clips (`int`, *optional*): its number of clips.
        eval_protocol (`str`, *optional*): when it was scored.
        metrics (`dict[str, float]`): the scores, with the padding that is saved in the feature extractor.
        label_sets (`dict[str, dict]`): of a training on several sets of labels, of each set its `labels`, and the held-out
            `clips` and their `accuracy` within the set.
        chance (`float`, *optional*): of a pretraining, the matching accuracy of a blind guess.
        metrics_padding_longest (`dict[str, float]`): the scores with `padding="longest"`, where a training used it.
        ensemble (`dict[str, Any]`): first and last of the `epochs` whose mean scores were scored too, and their `metrics`.
        averaged_epochs (`list[int]`): first and last epoch whose weights the checkpoint is the average of.
        last_epoch_metrics (`dict[str, float]`): the scores of the last epoch's weights, where the checkpoint is an average.
        validation (`dict[str, Any]`): name of the `split` on which choices were made, its `clips` and `metrics`.
        thresholds (`dict[str, float]`): for labels of a multi-label model the score from which they count.
        thresholds_not_chosen (`list[str]`): labels whose threshold stays at 0.5, as no validation clip has them or all have.
        left_out (`list[str]`): labels without positive clips, left out of the averages.
        clips_without_labels (`int`): scored clips of several labels that have none, left out of the accuracy.
        label_doubts (`dict[str, int]`): of a fold of a cross-validation, its `clips` and how many of them have a label that is
            likely wrong by models that were not trained on them, `likely_errors`.
        events (`dict[str, Any]`): of a model of marked recordings, how well their events are found: `event_based`, `per_label` and
            more.
        none_of_these (`dict[str, Any]`): of a checkpoint that keeps vectors of its training clips how many `clips`, the
            `threshold` of their distance and what it was `chosen_on`; of the clips that were `scored` how many are `beyond`.
        one_label_a_clip (`bool`): whether each scored clip has exactly one label, by whose top score it is judged.
        per_class (`list[dict[str, Any]]`): a row for each label: `label`, `precision`, `recall` and more.
        environment (`dict[str, Any]`): versions, device, threads, processes.
        training_seconds (`float`, *optional*): duration of the training in s.
        train_samples_per_second (`float`, *optional*): clips a second in training.
        labels (`list[str]`): the labels in the order of the logits.
        problem_type (`str`, *optional*): one of Transformers' three problem types.
        frame_seconds (`float`, *optional*): of a checkpoint with a frame head, how long the frames are that it tells labels of.
        eval_frames (`int`, *optional*): of such, how many were scored.
        parameters (`int`, *optional*): number of weights in `model.safetensors`.
        geometry (`dict[str, Any]`): widths, depths, patch size and strides from `config.json`.
        sampling_rate (`int`, *optional*): in Hz.
        channels (`str` or `int`, *optional*): which channel of audio files is heard, if it is not the mean of all.
        resampler (`str`, *optional*): what brings audio files of other rates to it.
        num_mel_bins (`int`, *optional*): mel bins of a frame.
        max_length (`int`, *optional*): frames of a clip; longer clips are cut.
        mean (`float`, *optional*): mean of the log-mel values, `None` where nothing is normalised.
        std (`float`, *optional*): their standard deviation.
        pictures (`list[str]`): names of the pictures that lie in the folder.
        recipe (`str`, *optional*): name of the recipe that lies in the folder.
    """

    # Given by the user
    name: str
    repo_id: str | None = None
    license: str | None = None
    base_model: str | None = None
    dataset_name: str | None = None
    dataset_id: str | None = None
    dataset_licenses: list[str] = field(default_factory=list)
    seed: int | None = None
    command: str | None = None

    # Collected during the run
    created: str | None = None
    kit_version: str | None = None
    license_notice: dict[str, str] = field(default_factory=dict)
    from_scratch: bool = False
    features_column: str | None = None
    split_method: str | None = None
    share_that_counts: float | None = None
    windows: str | None = None
    skipped_clips: int = 0
    splits: dict[str, dict] = field(default_factory=dict)
    normalization: str | None = None
    source: str | None = None
    source_address: str | None = None
    model_size: str | None = None
    sha256: dict[str, str] = field(default_factory=dict)
    agreement: dict[str, Any] = field(default_factory=dict)
    unused_tensors: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    published: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, float]] = field(default_factory=list)
    eval_split: str | None = None
    eval_clips: int | None = None
    eval_protocol: str | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    label_sets: dict[str, dict[str, Any]] = field(default_factory=dict)
    chance: float | None = None
    metrics_padding_longest: dict[str, float] = field(default_factory=dict)
    ensemble: dict[str, Any] = field(default_factory=dict)
    averaged_epochs: list[int] = field(default_factory=list)
    last_epoch_metrics: dict[str, float] = field(default_factory=dict)
    validation: dict[str, Any] = field(default_factory=dict)
    thresholds_not_chosen: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    clips_without_labels: int = 0
    label_doubts: dict[str, int] = field(default_factory=dict)
    events: dict[str, Any] = field(default_factory=dict)
    none_of_these: dict[str, Any] = field(default_factory=dict)
    one_label_a_clip: bool = False
    per_class: list[dict[str, Any]] = field(default_factory=list)
    environment: dict[str, Any] = field(default_factory=dict)
    training_seconds: float | None = None
    train_samples_per_second: float | None = None

    # Computed from the checkpoint
    labels: list[str] = field(default_factory=list)
    problem_type: str | None = None
    frame_seconds: float | None = None
    eval_frames: int | None = None
    thresholds: dict[str, float] = field(default_factory=dict)
    parameters: int | None = None
    geometry: dict[str, Any] = field(default_factory=dict)
    sampling_rate: int | None = None
    channels: str | int | None = None
    resampler: str | None = None
    num_mel_bins: int | None = None
    max_length: int | None = None
    mean: float | None = None
    std: float | None = None
    pictures: list[str] = field(default_factory=list)
    recipe: str | None = None

    @classmethod
    def from_checkpoint(cls, checkpoint_dir: str | Path, repo_id: str | None = None) -> "ASTModelCardData":
        """Read the facts from a checkpoint folder, offline and without torch.

        Where both say something, the checkpoint is believed and `run_summary.json` must agree.

        Args:
            checkpoint_dir (`str` or `Path`): folder with `config.json` and `run_summary.json`;
                `preprocessor_config.json`, `model.safetensors` and the pictures are read if they are there.
            repo_id (`str`, *optional*): `user/name`, if the card is for the Hub.

        Returns:
            `ASTModelCardData`.

        Raises:
            FileNotFoundError: if the folder or one of the two files isn't there.
            ValueError: if a file can't be parsed, or `run_summary.json` describes another checkpoint.
        """
        folder = Path(checkpoint_dir).resolve()
        refuse_special_in(folder)
        if not folder.is_dir():
            raise FileNotFoundError(
                f"{str(checkpoint_dir)!r} is not a folder; expected one that holds a checkpoint. "
                "Type ast-model-card runs/drums, or ast-finetune RECIPE.yaml to make a checkpoint first."
            )
        config = _known(read_json_object(folder / "config.json", "save_pretrained() writes it beside the weights"))
        recorded_summary = read_json_object(
            folder / RUN_SUMMARY_NAME, "ast-finetune and ast-convert write it beside the weights"
        )
        summary = _known(recorded_summary)
        for section, kind in _SECTIONS.items():
            if not isinstance(summary.get(section, kind()), kind):
                raise ValueError(
                    f"{folder / RUN_SUMMARY_NAME}: {section!r} is {summary[section]!r}, expected a JSON "
                    f"{'object' if kind is dict else 'array'}. Run what made the checkpoint again to have the file written anew."
                )
        check_summary(summary, folder / RUN_SUMMARY_NAME)
        check_fields(
            {name: config[name] for name in _CONFIG_READ if name in config}, CONFIG_FILE_FIELDS, folder / "config.json"
        )
        extractor = folder / "preprocessor_config.json"
        features = _known(read_json_object(extractor, "save_pretrained() writes it")) if extractor.exists() else {}

        check_fields(features, EXTRACTOR_FILE_FIELDS, extractor)
        id2label = config.get("id2label", {})
        labels = [str(id2label[index]) for index in sorted(id2label, key=int)]
        recorded = summary.get("features", {})
        _check_agreement(folder, "labels", summary.get("labels"), labels or None)
        for name in _FEATURES:
            _check_agreement(folder, name, recorded.get(name), features.get(name))
        features = {name: features.get(name, recorded.get(name)) for name in (*_FEATURES, "do_normalize")}
        if features.pop("do_normalize") is False:
            features["mean"] = features["std"] = None

        data, evaluation = summary.get("data", {}), summary.get("evaluation", {})
        for label, threshold in config.get("label_thresholds", {}).items():
            recorded_threshold = evaluation.get("thresholds", {}).get(label)
            _check_agreement(folder, f"threshold of {label}", recorded_threshold, threshold)
        time, licenses = summary.get("time", {}), data.get("license", [])
        conversion, digest = summary.get("conversion", {}), summary.get("sha256", {})
        return cls(
            name=repo_id.split("/")[-1] if repo_id else folder.name,
            repo_id=repo_id,
            license=summary.get("license"),
            base_model=summary.get("base_model"),
            dataset_name=data.get("name"),
            dataset_id=data.get("hub_id"),
            dataset_licenses=[licenses] if isinstance(licenses, str) else licenses,
            seed=summary.get("seed"),
            command=summary.get("command"),
            created=summary.get("created"),
            kit_version=summary.get("kit_version"),
            license_notice=summary.get("license_notice", {}),
            # A training that records no base model on purpose; a converted checkpoint has no "training".
            from_scratch="training" in summary and recorded_summary.get("base_model", "unknown") is None,
            features_column=data.get("features_column"),
            split_method=data.get("split_method"),
            share_that_counts=data.get("share_that_counts"),
            windows=data.get("windows", {}).get("in_words"),
            skipped_clips=len(data.get("skipped_clips", [])),
            splits=data.get("splits", {}),
            normalization=recorded.get("normalization"),
            source=summary.get("source"),
            source_address=summary.get("source_address"),
            model_size=summary.get("model", {}).get("size"),
            sha256=digest if isinstance(digest, dict) else {summary.get("source"): digest},
            agreement=summary.get("agreement", {}),
            unused_tensors=conversion.get("left_out", []),
            notes=conversion.get("notes", []),
            published=summary.get("published", {}),
            training=summary.get("training", {}),
            history=summary.get("history", []),
            eval_split=evaluation.get("split"),
            eval_clips=evaluation.get("clips"),
            eval_protocol=evaluation.get("protocol"),
            metrics=evaluation.get("metrics", {}),
            label_sets=evaluation.get("label_sets", {}),
            chance=evaluation.get("chance"),
            metrics_padding_longest=evaluation.get("metrics_padding_longest", {}),
            ensemble=evaluation.get("ensemble", {}),
            averaged_epochs=evaluation.get("averaged_epochs", []),
            last_epoch_metrics=evaluation.get("last_epoch", {}).get("metrics", {}),
            validation=evaluation.get("validation", {}),
            thresholds_not_chosen=evaluation.get("thresholds_not_chosen", []),
            left_out=evaluation.get("left_out", []),
            clips_without_labels=evaluation.get("clips_without_labels", 0),
            label_doubts=evaluation.get("label_doubts", {}),
            events=evaluation.get("events", {}),
            none_of_these=_known_clips(folder, evaluation.get("none_of_these", {})),
            one_label_a_clip="confusion_matrix" in evaluation,
            per_class=evaluation.get("per_class", []),
            environment=summary.get("environment", {}),
            training_seconds=time.get("training_seconds"),
            train_samples_per_second=time.get("train_samples_per_second"),
            labels=labels or summary.get("labels", []),
            problem_type=config.get("problem_type", summary.get("problem_type")),
            frame_seconds=_frame_seconds(config),
            eval_frames=evaluation.get("frames"),
            thresholds=config.get("label_thresholds", evaluation.get("thresholds", {})),
            parameters=_count_parameters(folder / "model.safetensors", summary.get("model", {}).get("parameters")),
            geometry={name: config[name] for name in _GEOMETRY if name in config},
            pictures=[name for name in PICTURES if (folder / name).is_file()],
            recipe=RECIPE_NAME if (folder / RECIPE_NAME).is_file() else None,
            **features,
        )

    @property
    def max_seconds(self) -> float | None:
        """Seconds of audio that `max_length` frames see, from the start of the first to the end of the last."""
        return None if self.max_length is None else (self.max_length - 1) * FRAME_SHIFT + FRAME_LENGTH

    @property
    def place(self) -> str:
        """Where the card's snippets load the model from."""
        return self.repo_id or self.name

    @property
    def multi_label(self) -> bool:
        """Whether a clip may have any number of the labels."""
        return self.problem_type == "multi_label_classification"

    @property
    def pretraining(self) -> dict[str, Any]:
        """What a pretraining without labels has hidden; empty if it was none."""
        settings = self.training.get("pretraining", {})
        return settings if settings.keys() >= {"masked_share", "cluster_sides"} else {}

    @property
    def task_type(self) -> str:
        """The Hub's name for what it does; of frames there is none, and no widget or pipeline."""
        return "audio-classification" if self.frame_seconds is None else "audio-frame-classification"

    @property
    def top_label_accuracy(self) -> bool:
        """Whether the accuracy is that of the top label of clips that may have several."""
        return self.multi_label and not self.one_label_a_clip and len(self.labels) > 1

    @property
    def base_is_shipped(self) -> bool:
        """Whether the training started from the checkpoint that the kit ships, whose name no folder and no Hub id has."""
        return self.base_model == AST_SMALL

    @property
    def base_model_id(self) -> str | None:
        """`base_model` where it can be a Hub id; a path has no place in the metadata."""
        if self.base_model is None or self.base_is_shipped:
            return None
        try:
            validate_repo_id(self.base_model)
        except HFValidationError:
            return None
        return self.base_model

    def eval_results(self) -> list[EvalResult]:
        """The scores as `huggingface_hub` wants them; none if the data they are from have no name.

        Returns:
            A list of `EvalResult`, one for each of `METRICS` that is known, values rounded to 4 decimals. The loss and
            what else a run records is only in the card's text, and so is the accuracy of clips with several labels, which
            is of the top label and not what others call by that name.
        """
        dataset_name = self.dataset_name or self.dataset_id
        if dataset_name is None:
            return []
        results = []
        for key, (metric_type, metric_name) in METRICS.items():
            if key not in self.metrics or (key == "accuracy" and self.top_label_accuracy):
                continue
            results.append(
                EvalResult(
                    task_type=self.task_type,
                    task_name=self.task_type.replace("-", " ").capitalize(),
                    dataset_type=self.dataset_id or LOCAL_DATASET_TYPE,
                    dataset_name=storable(dataset_name),
                    dataset_split=self.eval_split and storable(self.eval_split),
                    metric_type=metric_type,
                    metric_name=metric_name,
                    metric_value=round(self.metrics[key], 4),
                )
            )
        return results

    def front_matter(self) -> ModelCardData:
        """Make the card's metadata.

        Returns:
            `ModelCardData`, whose `to_yaml()` is the block at the top of `README.md`.
        """
        results = self.eval_results()
        pipeline_tag = "audio-classification" if self.labels else "feature-extraction"
        tags = ["audio-spectrogram-transformer", "audio-tagging"]
        if self.frame_seconds is not None:  # a pipeline would take it for a classifier of clips that has no weights
            pipeline_tag, tags = None, [tags[0], "sound-event-detection", self.task_type]
        return ModelCardData(
            license=self.license.lower() if self.license else None,
            library_name="transformers",
            pipeline_tag=pipeline_tag,
            tags=tags,
            base_model=self.base_model_id,
            datasets=[self.dataset_id] if self.dataset_id else None,
            metrics=list(dict.fromkeys(result.metric_type for result in results)) or None,
            model_name=storable(self.name) if results else None,
            eval_results=results or None,
        )


def read_json_object(path: Path, origin: str) -> dict[str, Any]:
    """Read a JSON object.

    Args:
        path (`Path`): the file.
        origin (`str`): which program should have written it, in words for the error.

    Returns:
        Its fields.

    Raises:
        FileNotFoundError: if it is not there.
        ValueError: if it is no JSON object.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path.parent} has no {path.name}; {origin}. Give the folder of a finished run.")
    try:
        content = read_json(path)
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON ({error}); {origin}. Put an unbroken copy there.") from error
    if not isinstance(content, dict):
        raise ValueError(
            f"{path} holds {content!r:.60}, expected a JSON object; {origin}. Put an unbroken copy there."
        )
    return content


def _frame_seconds(config: dict[str, Any]) -> float | None:
    if not has_frame_head(config):
        return None
    return config.get("time_stride", FrameColumns().time_stride) * FRAME_SHIFT


def _known(value: Any) -> Any:
    """Drop what is `null`, NaN or infinite from the objects in `value`, at any depth."""
    if isinstance(value, dict):
        known = ((key, item) for key, item in value.items() if item is not None)
        return {key: _known(item) for key, item in known if not isinstance(item, float) or math.isfinite(item)}
    return [_known(item) for item in value] if isinstance(value, list) else value


def _check_agreement(folder: Path, name: str, recorded: Any, stored: Any) -> None:
    """Raise a `ValueError` if `run_summary.json` and the checkpoint's own files both know `name` and differ."""
    if recorded is None or stored is None:
        return
    numbers = isinstance(recorded, int | float) and isinstance(stored, int | float)
    # The statistics may be recorded rounded.
    if recorded != stored and not (numbers and math.isclose(recorded, stored, rel_tol=1e-3)):
        raise ValueError(
            f"{folder}: {name!r} is {recorded!r:.200} in run_summary.json and {stored!r:.200} in the checkpoint's own "
            "configuration, so the two are not of the same run. Put the run_summary.json of this checkpoint there."
        )


def _known_clips(folder: Path, section: dict) -> dict:
    """What the summary says of clips that are none of the labels, while the file by which they are told is there."""
    whole = (folder / KNOWN_CLIPS_NAME).is_file() and section.get("threshold") is not None
    return section if whole else {}


def _count_parameters(path: Path, recorded: int | None) -> int | None:
    """Count the weights by the header of a safetensors file; without the file the recorded count stands."""
    if not path.is_file():
        return recorded
    return sum(map(math.prod, shapes_in([path]).values()))
