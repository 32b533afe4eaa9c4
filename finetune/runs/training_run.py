"""One training, from what was asked for to a publishable checkpoint folder.

[`prepare_run`] finds everything that is wrong with the input and changes nothing but the output folder; it puts together
what `preparation.py` makes. [`train_run`] does the rest.
"""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import datasets
from accelerate import PartialState
from transformers import set_seed

from model_card.licenses import license_note
from model_card.run_summary import versions
from modeling_ast.checkpoints.shipped import AST_SMALL, is_there
from modeling_ast.tagging.none_of_these import KNOWN_CLIPS_NAME, NONE_OF_THESE

from ..arguments.command_line import merged_recipe
from ..arguments.conflicts import wrong_way_round
from ..arguments.groups import DataArguments, OptimizationArguments, RunArguments
from ..arguments.optimization_arguments import FITTED
from ..arguments.teacher_arguments import TeacherArguments
from ..arguments.void_fields import void_fields, void_notes
from ..clip_sets.clip_datasets import clip_reader
from ..clip_sets.clip_notes import NotedClip
from ..clip_sets.clip_set import ClipSet
from ..clip_sets.marked_windows import MarkedClips
from ..clip_sets.waveforms import ClipDataset, UsableWaveforms
from ..failures.input_errors import input_errors_in_words
from ..failures.stopped_trainings import failures_in_words
from ..results import summary_sections
from ..results.event_evaluation import evaluate_events, events_in_words
from ..results.known_clips import keep_known_clips
from ..results.label_doubts_file import write_held_out_scores
from ..results.output_folder import check_output_dir, clear_output_dir, make_output_dir, refuse_another_run
from ..results.publishing import NOVELTY_SECTION, publish
from ..results.pushing import push_finished_run
from ..scores.metrics import left_out_note, without_labels_note
from ..scores.thresholds import not_chosen_note
from ..sources.folders import data_folder
from ..sources.labels import label_names
from ..training import trainer_card
from ..training.fitted_head import FITTED_HEAD, fitted_section
from ..training.lora import (
    add_adapters,
    frozen_weights_digest,
    lora_in_words,
    lora_section,
    merge_into_trainer,
    require_peft,
)
from ..training.progress import require_reporters
from ..training.push_checks import check_push
from ..training.setting_checks import check_settings
from ..training.teacher import Student
from ..training.teachers import RECORDED, load_teacher
from ..training.trainer import ASTTrainer
from ..training.weight_averaging import remove_epochs
from .preparation import (
    CLIPS_LOOKED_AT,
    build_datasets,
    build_feature_extractor,
    describe_run,
    keep_clips_in_memory,
    normalization_warning,
    prepare_data,
    refuse_smoothed_vectors,
    set_normalization,
    waveform_cache,
    with_hard_negatives,
)
from .tasks import Task, task_of


@dataclass(frozen=True)
class Looks:
    """What is decoded of the clips before a training, beside what its normalisation is measured on.

    Args:
        files_known (`bool`, defaults to `False`): whether enough of the clips were decoded already to check their files.
        compared (`int`, defaults to 64): clips whose normalised features are compared with what the model expects.
        stand_ins (`bool`, defaults to `False`): whether the next clip is read in place of one that cannot be used.
    """

    files_known: bool = False
    compared: int = CLIPS_LOOKED_AT
    stand_ins: bool = False


@dataclass(frozen=True)
class PreparedRun:
    """A training that only has to be started."""

    task: Task
    trainer: ASTTrainer
    clips: dict[str, ClipDataset]
    data_args: DataArguments
    optimization: OptimizationArguments
    recipe: dict
    summary: dict
    resume_from: str | None
    command: str


def prepare_run(
    argv: list[str],
    arguments: RunArguments,
    loaded: tuple[Mapping[str, ClipSet | datasets.Dataset], str] | None = None,
    looks: Looks | None = None,
) -> PreparedRun:
    """Check the input, load the clips, build the model and its trainer, make the output folder.

    Args:
        argv (`list[str]`): the command line, for the saved recipe and the summary.
        arguments ([`RunArguments`]): what [`parse_arguments`] makes of it.
        loaded (`tuple`, *optional*): splits by side, of any kind (see [`clip_set`]), and how they were made in words, if
            they are not to be loaded here.
        looks ([`Looks`], *optional*): what is decoded before the training, other than usual.

    Returns:
        [`PreparedRun`]: what [`train_run`] takes.

    Raises:
        InputError: for whatever is wrong with the input; the message says what to type.
    """
    model_args, data_args, optimization_args = arguments.model, arguments.data, arguments.optimization
    training_args = arguments.training
    with input_errors_in_words(model_args):
        recipe = merged_recipe(argv, [void.name for void in void_fields(arguments.groups)])
        set_seed(training_args.seed)
        if optimization_args.lora_rank:
            require_peft()  # before anything takes time
        require_reporters(training_args)
        if training_args.push_to_hub:
            check_push(training_args)
        resume_from = check_output_dir(training_args, model_args, data_args)
        with make_output_dir(Path(training_args.output_dir)):
            task = task_of(arguments)
            trainer, clips, summary = _prepare_trainer(argv, arguments, task, loaded, looks or Looks())
            if resume_from:
                refuse_another_run(Path(resume_from), trainer.identity)
            else:
                clear_output_dir(Path(training_args.output_dir))
        if trainer.teacher is not None:
            recipe = {name: value for name, value in recipe.items() if name not in RECORDED}
            recipe |= trainer.teacher.recorded()
    return PreparedRun(
        task, trainer, clips, data_args, optimization_args, recipe, summary, resume_from, arguments.command.name
    )


def _prepare_trainer(
    argv: list[str], arguments: RunArguments, task: Task, loaded: tuple[Mapping, str] | None, looks: Looks
) -> tuple[ASTTrainer, dict[str, ClipDataset], dict]:
    """The first three stages: trainer, data sets, and what is known of the run before it is trained."""
    model_args, data_args, augmentation_args = arguments.model, arguments.data, arguments.augmentation
    optimization_args, training_args = arguments.optimization, arguments.training
    feature_extractor = build_feature_extractor(model_args, data_args)
    if loaded is None:
        loaded = task.load(model_args, data_args, training_args.seed)
    reader = clip_reader(data_args, feature_extractor)
    augmentation = augmentation_args.augmentation()
    sounds = augmentation.look_at_files()
    cache = waveform_cache(data_args, feature_extractor, augmentation)
    noted: list[NotedClip] = []
    num_workers = training_args.reading_workers
    splits, split_method, notes, skipped = prepare_data(
        data_args,
        feature_extractor,
        training_args.seed,
        loaded,
        cache,
        num_workers,
        looks.files_known,
        noted,
        task.scores_windows,
        lambda found: task.clips(found, model_args),
    )
    if data_args.hard_negatives:
        splits["train"], words = with_hard_negatives(splits["train"], data_args, training_args)
        notes.append(words)
    sizes = f"{len(splits['train'])} training clips, {len(splits['eval'])} to score"
    if "validation" in splits:
        sizes += f", {len(splits['validation'])} to choose on"
    notes += sounds + void_notes(arguments)
    if wrong_way_round(training_args):
        notes.append(f"--greater_is_better {training_args.greater_is_better} chooses {wrong_way_round(training_args)}")
    in_line, lists = ([words for words in notes if ("\n" in words) == is_list] for is_list in (False, True))
    print_stage(1, "\n  ".join(["; ".join([f"data: {sizes}, split {split_method}", *in_line]), *lists]))

    problem_type = task.problem_type(splits["train"], optimization_args)
    clips = build_datasets(splits, feature_extractor, augmentation, training_args.seed, problem_type, reader)
    for dataset in clips.values():
        dataset.said.add(note.text for clip in noted for note in clip.notes)
    if cache is not None:
        for dataset in clips.values():
            dataset.read_from(cache.waveforms(dataset.split))
    elif looks.stand_ins:
        for dataset in clips.values():
            dataset.read_from(UsableWaveforms(dataset.split, reader, dataset.samples_needed))
    memory_note = None
    if not looks.stand_ins:
        # A teacher hears the waveforms, and features of an accelerator depend on the batch.
        features_too = training_args.device.type == "cpu" and not optimization_args.teacher
        epochs = training_args.num_train_epochs
        if training_args.max_steps > 0:
            epochs = training_args.max_steps * training_args.train_batch_size / len(clips["train"])
        memory_note = keep_clips_in_memory(clips, data_args, feature_extractor, features_too, epochs)
    normalization = set_normalization(
        feature_extractor, clips["train"], model_args, data_args, training_args.seed, num_workers
    )
    warning = normalization_warning(feature_extractor, clips["train"], training_args.seed, looks.compared)
    words = f"features: mean {feature_extractor.mean:.4f}, std {feature_extractor.std:.4f}, {normalization}"
    print_stage(2, "; ".join(filter(None, [words, warning, memory_note])))

    labels = label_names(splits["train"])
    if optimization_args.none_of_these and NONE_OF_THESE in labels:
        raise ValueError(
            f"none_of_these was given, and a label is called {NONE_OF_THESE!r}, as clips are said to be that are none of the labels. "
            "Give it another name, or leave out --none_of_these."
        )
    model, tells, origin = task.build_model(model_args, labels, problem_type)
    in_words = f"model: {model.num_parameters():,} parameters, {tells}, {origin}"
    feature_extractor.padding = data_args.padding
    summary = describe_run(argv, arguments, splits, split_method, feature_extractor, normalization, model)
    summary["training"] |= task.settings()
    if optimization_args.lora_rank:
        num_parameters = model.num_parameters()
        model = add_adapters(model, optimization_args, model_args.model_name_or_path)
        summary["training"]["lora"] = lora_section(model)
        summary["environment"] |= versions(["peft"])
        in_words += f"; {lora_in_words(summary['training']['lora'], num_parameters)}"
    if optimization_args.head_start == FITTED and not training_args.resume_from_checkpoint:
        in_words += "; the classifier is replaced by one that is fitted to the training clips"
    if model_args.model_name_or_path and not data_args.license:
        in_words += f"; {trainer_card.license_in_words(summary['license'], model_args.model_name_or_path)}"
    if not model_args.model_name_or_path and arguments.pretraining is None and is_there(AST_SMALL):
        in_words += f"; --model_name_or_path {AST_SMALL} starts from the pretrained one that the kit ships"
    teacher = None
    if optimization_args.teacher:
        hears_audio = not data_args.features_column_name
        student = Student(
            model.config, feature_extractor, augmentation, clips["train"], training_args.seed, hears_audio
        )
        teacher = load_teacher(_teacher_asked_for(arguments), student)
        summary["training"]["teacher"] = teacher.section()
        in_words += f"; {teacher.in_words()}"
    note = license_note(data_args.license)
    print_stage(3, f"{in_words}; {note}" if note else in_words)
    if data_args.skip_bad_audio:
        summary["data"]["skipped_clips"] = summary_sections.skipped_section(data_args, skipped)
    if splits["train"].num_longer and {split.windows for split in splits.values()} != {"beginning"}:
        summary["data"]["windows"] = summary_sections.windows_section(splits)
    if noted:
        summary["data"]["audio_notes"] = summary_sections.audio_notes_section(data_args, noted)
    identity = summary_sections.identity(summary, splits)
    if optimization_args.lora_rank:
        identity["starting weights"] = frozen_weights_digest(model)
    refuse_smoothed_vectors(training_args, problem_type)
    trainer = task.build_trainer(
        model, feature_extractor, clips, augmentation, optimization_args, training_args, identity, teacher
    )
    check_settings(trainer)
    summary["training"]["loss"] = trainer.loss_name
    return trainer, clips, summary


def _teacher_asked_for(arguments: RunArguments) -> TeacherArguments:
    """The teacher's fields; what a recipe says of its teacher is not about another one that a flag names."""
    asked = copy.copy(arguments.optimization)
    if "teacher" not in arguments.from_recipe:
        for name in arguments.from_recipe.intersection(RECORDED):
            setattr(asked, name, None)
    return asked


def train_run(run: PreparedRun, held_out_scores: Path | None = None) -> dict:
    """Train, score, write the checkpoint folder, and push it to the Hub if that was asked for.

    Args:
        run ([`PreparedRun`]): from [`prepare_run`].
        held_out_scores (`Path`, *optional*): where the scores of the held-out clips are written, clip by clip, before the
            summary tells that the run is finished.

    Returns:
        The run summary.

    Raises:
        TrainingStoppedError: see [`failures_in_words`].
        ResumeError: if the checkpoint to go on from is whole, but of another training.
        NotPushedError: if the run is whole in its folder, but could not be pushed.
    """
    with failures_in_words(run.trainer, run.data_args, run.recipe):
        summary = _train_and_publish(run, held_out_scores)
    if run.trainer.args.push_to_hub:
        push_finished_run(run.trainer)
    return summary


def _train_and_publish(run: PreparedRun, held_out_scores: Path | None) -> dict:
    trainer, args = run.trainer, run.trainer.args
    length = f"{args.max_steps} steps" if args.max_steps > 0 else f"{args.num_train_epochs:g} epochs"
    print_stage(4, f"training: {length} on {args.device}")
    outcome = trainer.train(resume_from_checkpoint=run.resume_from)
    adapted = merge_into_trainer(trainer)
    evaluation = run.task.evaluate(trainer, run.clips, run.data_args, run.optimization)
    scores = "  ".join(f"{name} {value:.3f}" for name, value in evaluation["metrics"].items())
    words = [f"score: {scores}", *evaluation_notes(evaluation)]
    findings = None
    if isinstance(run.clips["eval"].split, MarkedClips):
        of_sides = {side: clips.split for side, clips in run.clips.items()}
        findings = evaluate_events(trainer, of_sides, data_folder(run.data_args))
    if findings is not None:
        evaluation["events"] = findings.section
        words.append(events_in_words(findings.section))
    fitted = fitted_section(trainer.state.log_history)
    summary = run.summary | {
        "training": run.summary["training"] | ({FITTED_HEAD: fitted} if fitted else {}),
        "history": trainer_card.history_section(trainer.state.log_history),
        "evaluation": evaluation,
    }
    if not run.resume_from:  # a resumed run knows only its own share of the time
        summary["time"] = summary_sections.cost_section(outcome, args)
        words.append(summary_sections.cost_in_words(summary["time"]))
    print_stage(5, "; ".join(words))
    if held_out_scores is not None:
        write_held_out_scores(held_out_scores, trainer, run.clips["eval"])
    averaged = run.optimization.average_epochs  # into weights that are no longer those of one adapter
    known_clips = _known_clips(run) if run.optimization.none_of_these else None
    kept = None if averaged else adapted
    publish(trainer, run.clips["eval"], run.recipe, summary, kept, run.command, findings, known_clips)
    if not run.optimization.ensemble_epochs and PartialState().is_main_process:
        remove_epochs(args.output_dir)  # those that were kept for their average
    name = run.task.headline(run.clips["eval"].split)
    notes = known_clips_note(evaluation.get(NOVELTY_SECTION), wanted=known_clips is not None)
    score = f"{name.replace('_', ' ')} {evaluation['metrics'][name]:.3f} on {evaluation['clips']} clips"
    print_stage(6, "; ".join([f"{args.output_dir}: {score}", *notes]))
    return summary


def _known_clips(run: PreparedRun) -> Callable[[Path], dict]:
    """What writes into a checkpoint folder that which it keeps of the training clips."""
    args = run.trainer.args
    return partial(
        keep_known_clips,
        clips=run.clips,
        windows=run.data_args.windows_scored(),
        batch_size=args.per_device_eval_batch_size,
        device=args.device,
        num_workers=args.dataloader_num_workers,
        seed=args.seed,
    )


def known_clips_note(section: dict | None, wanted: bool) -> list[str]:
    """Say of what is kept of the training clips what it finds.

    Args:
        section (`dict`, *optional*): from [`keep_known_clips`].
        wanted (`bool`): whether something was to be kept.

    Returns:
        `list[str]`: a part of a line, or nothing.
    """
    if section is None:
        why = f"no {KNOWN_CLIPS_NAME} is kept: what the model makes of clips are not numbers, so its training diverged"
        return [f"{why}; train it with a lower --learning_rate"] if wanted else []
    return [
        f"{section['beyond']} of the {section['scored']} scored clips are none of these, by the distance {section['threshold']:.3f} "
        f"from {section['clips']} training clips (chosen on {section['chosen_on']})"
    ]


def evaluation_notes(evaluation: dict) -> list[str]:
    """What to say of an evaluation beside its scores: what they leave out, and what was not chosen although it was to be.

    Args:
        evaluation (`dict`): from [`evaluate`].

    Returns:
        `list[str]`: notes in words.
    """
    notes = [
        left_out_note(evaluation.get("left_out", []), len(evaluation.get("per_class", []))),
        without_labels_note(evaluation.get("clips_without_labels", 0), evaluation["clips"]),
        not_chosen_note(evaluation.get("thresholds_not_chosen", [])),
    ]
    if "not_chosen" in evaluation.get("best_checkpoint", {}):
        notes.append(f"published are {evaluation['protocol']}")
    return [note for note in notes if note]


def print_stage(number: int, message: str):
    """One numbered line per stage, printed by the main process only.

    Args:
        number (`int`): of the stage, from 1 to 6.
        message (`str`): one line or several.
    """
    if PartialState().is_main_process:
        print(f"[{number}/6] {message}", flush=True)
