"""Every field of `TrainingArguments`: it works, is refused before training, or is said to have no effect."""

import dataclasses
import json
import os
import re
import shutil
from pathlib import Path

import pytest
import soundfile
import torch
from safetensors import safe_open
from tiny_trainings import flags, summary_in, write_tones
from transformers import TrainingArguments, pipeline
from transformers.trainer_utils import SchedulerType

from finetune.arguments.command_line import parse_arguments
from finetune.arguments.groups import ASTTrainingArguments
from finetune.arguments.training_fields import RANGES, REFUSED, SCORES, WITHOUT_EFFECT
from finetune.arguments.void_fields import EFFECTS, void_notes
from finetune.run_finetune import main
from finetune.runs.training_run import prepare_run
from finetune.training.setting_checks import check_settings
from modeling_ast.tagging.tagger import AudioTagger

DOCS = Path(__file__).parents[3] / "docs" / "training_arguments.md"
VERDICTS = {"works", "refused", "without effect"}
# Values that are not the default, of the fields that are refused.
REFUSED_VALUES = {
    "prediction_loss_only": "true", "eval_do_concat_batches": "false", "include_for_metrics": "inputs",
    "batch_eval_metrics": "true", "eval_use_gather_object": "true", "label_names": "label", "remove_unused_columns": "true",
    "use_liger_kernel": "true", "neftune_noise_alpha": "5", "auto_find_batch_size": "true",
    "include_num_input_tokens_seen": "true", "bf16_full_eval": "true", "fp16_full_eval": "true", "save_on_each_node": "true",
    "enable_jit_checkpoint": "true", "dataloader_in_order": "false",
}  # fmt: skip
# The command line has no words for these; a call from Python might.
NOT_IN_WORDS = {"parallelism_config", "liger_kernel_config"}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_tones(tmp_path_factory.mktemp("data") / "tones")


def test_the_table_in_the_docs_has_every_field_of_the_installed_class():
    rows = dict(re.findall(r"^\| `(\w+)` \| ([\w ]+) \|", DOCS.read_text(), flags=re.MULTILINE))
    assert rows.keys() == {item.name for item in dataclasses.fields(TrainingArguments)}
    assert set(rows.values()) == VERDICTS
    assert {name for name, verdict in rows.items() if verdict == "refused"} == set(REFUSED)
    assert {name for name, verdict in rows.items() if verdict == "without effect"} == set(WITHOUT_EFFECT)
    assert set(RANGES) <= rows.keys()
    notes = dict(re.findall(r"^\| `(\w+)` \| works \| (.*) \|$", DOCS.read_text(), flags=re.MULTILINE))
    assert not [name for name in EFFECTS.keys() & rows.keys() if not re.search("refused|only `", notes[name])]


@pytest.mark.parametrize("name", sorted(REFUSED.keys() - NOT_IN_WORDS))
def test_what_a_run_cannot_obey_is_refused_before_training(name):
    with pytest.raises(ValueError, match=rf"^{name}=.* was given, but .*\. Leave it out\."):
        parse_arguments([*flags("data", "run"), f"--{name}", REFUSED_VALUES[name]])


def test_every_refused_field_is_tried():
    assert REFUSED_VALUES.keys() | NOT_IN_WORDS == REFUSED.keys()


@pytest.mark.parametrize("name", sorted(RANGES))
def test_numbers_that_make_no_sense_are_refused(name, tmp_path):
    numbers = RANGES[name]
    wrong = [numbers.lowest - 1] + ([numbers.lowest] if numbers.above else [])
    if numbers.highest != float("inf"):
        wrong.append(numbers.highest + (not numbers.below))
    for value in wrong:
        with pytest.raises(ValueError, match=rf"^{name}={re.escape(f'{value:g}')} was given, expected a number"):
            ASTTrainingArguments(output_dir=str(tmp_path), **{name: value})
    assert numbers.holds(numbers.lowest) or numbers.above
    assert not numbers.holds(float("nan"))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--max_steps", "0"], "max_steps=0 was given, expected a number from 1 on"),
        (["--num_train_epochs", "0"], "which trains nothing"),
        (["--num_train_epochs", "inf"], "--num_train_epochs: 'inf' is no finite number"),
        (["--learning_rate", "nan"], "--learning_rate: 'nan' is no finite number"),
        (["--accelerator_config", "{oops"], r"accelerator_config='\{oops' is no JSON"),
        (["--accelerator_config", '{"foo": 1}'], "unexpected keyword argument 'foo'. Correct --accelerator_config"),
        (
            ["--accelerator_config", '{"gradient_accumulation_kwargs": {"num_steps": 2}}'],
            "--gradient_accumulation_steps",
        ),
        (["--lr_scheduler_kwargs", "settings.json"], "lr_scheduler_kwargs='settings.json' is no mapping. Pass JSON"),
        (
            ["--activation_checkpointing", "true", "--activation_checkpointing_kwargs", '{"foo": 1}'],
            "activation_checkpointing_kwargs has foo, expected .*use_reentrant",
        ),
        (["--ddp_backend", "gloo"], "is about several processes, and this is one. Run it with accelerate launch"),
        (["--debug", "tpu_metrics_debug"], "this kit has no TPU code"),
        (["--save_strategy", "best", "--eval_strategy", "epoch"], "Pass --metric_for_best_model accuracy"),
    ],
)
def test_values_that_would_end_in_a_traceback_are_answered_in_words(given, message):
    with pytest.raises(ValueError, match=message):
        parse_arguments([*flags("data", "run"), *given])


@pytest.mark.parametrize("setting", ['{"even_batches": false}', '{"split_batches": true}'])
def test_settings_of_accelerate_that_one_process_may_have_are_refused_for_several(monkeypatch, setting):
    argv = [*flags("data", "run"), "--accelerator_config", setting]
    parse_arguments(argv)
    monkeypatch.setattr(ASTTrainingArguments, "world_size", 2)
    with pytest.raises(ValueError, match="but of several processes .* Leave it out"):
        parse_arguments(argv)


def test_fields_that_mean_what_is_so_anyway_are_no_mistake():
    given = ["--label_names", "labels", "--remove_unused_columns", "false", "--greater_is_better", "true"]
    given += ["--eval_strategy", "epoch", "--metric_for_best_model", "eval_accuracy", "--hub_token", "hf_secret"]
    training = parse_arguments([*flags("data", "run"), *given]).training
    assert training.greater_is_better


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--optim", "galore_adamw", "--optim_target_modules", "query"], "galore_torch"),
        (["--optim", "rmsprop", "--optim_args", "alpha"], "optim_args is name=value,name=value"),
        (["--optim", "sgd", "--optim_args", "momentum=0.9,momentun=0.8"], "momentun=0.8, which changes nothing of optim=sgd"),
        (["--optim_args", "momentum=0.9"], "momentum=0.9, which changes nothing of optim=adamw_torch"),
        (["--lr_scheduler_type", "warmup_stable_decay"], "make no schedule: .*num_decay_steps"),
        (["--lr_scheduler_type", "cosine", "--lr_scheduler_kwargs", '{"power": 2}'], "make no schedule: .*power"),
        (["--dataloader_drop_last", "true", "--per_device_train_batch_size", "25"], "leaves nothing of 24 training clips"),
    ],
)  # fmt: skip
def test_what_is_known_with_the_clips_is_refused_before_training(data, tmp_path, given, message, capsys):
    assert main([*flags(data, tmp_path / "run"), *given]) == 2
    captured = capsys.readouterr()
    assert re.search(message, captured.err)
    assert "[4/6]" not in captured.out
    assert not (tmp_path / "run").exists()


def test_what_has_no_effect_is_said_and_what_a_recipe_lost_by_a_flag_is_not_saved(data, tmp_path, capsys):
    given = dict.fromkeys(WITHOUT_EFFECT, "true")
    given |= {"local_rank": 0, "length_column_name": "length", "do_train": "false"}  # some of them their defaults
    (tmp_path / "mine.yaml").write_text("eval_strategy: steps\neval_steps: 2\n")
    argv = [
        str(tmp_path / "mine.yaml"),
        *flags(data, tmp_path / "run", num_train_epochs=1, eval_strategy="epoch", **given),
    ]
    assert main(argv) == 0
    (first,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("[1/6]")]
    assert re.findall(r"--(\w+) has no effect: ", first) == [*WITHOUT_EFFECT, "eval_steps"]
    again = parse_arguments([str(tmp_path / "run" / "recipe.yaml")])
    assert len(void_notes(again)) == len(WITHOUT_EFFECT)
    assert again.saved_by_a_run
    assert "eval_steps" not in again.given


@pytest.fixture
def determinism_undone(monkeypatch):
    """--full_determinism is for the whole process, in which other tests follow."""
    for name in ("CUDA_LAUNCH_BLOCKING", "CUBLAS_WORKSPACE_CONFIG", "ASCEND_LAUNCH_BLOCKING", "HCCL_DETERMINISTIC"):
        monkeypatch.setenv(name, os.environ.get(name, ""))
    monkeypatch.setenv("FLASH_ATTENTION_DETERMINISTIC", os.environ.get("FLASH_ATTENTION_DETERMINISTIC", ""))
    yield
    torch.use_deterministic_algorithms(False)
    torch.backends.cudnn.deterministic = False


# Settings that go together in one run, most of them with another value than the default.
GROUPS = {
    "steps": {
        "max_steps": 4, "gradient_accumulation_steps": 2, "per_device_eval_batch_size": 3, "adam_beta1": 0.8, "adam_beta2": 0.99,
        "adam_epsilon": 1e-7, "weight_decay": 0.01, "max_grad_norm": 0.5, "label_smoothing_factor": 0.1, "warmup_steps": 0.25,
        "logging_strategy": "steps", "logging_steps": 2, "logging_first_step": "true", "logging_nan_inf_filter": "true",
        "eval_strategy": "steps", "eval_steps": 2, "eval_delay": 2, "eval_on_start": "true", "eval_accumulation_steps": 1,
        "save_strategy": "steps", "save_steps": 2, "save_total_limit": 0, "save_only_model": "true", "log_level": "error",
        "log_level_replica": "error", "log_on_each_node": "false", "ignore_data_skip": "true", "torch_empty_cache_steps": 1,
        "skip_memory_metrics": "false", "tf32": "false", "debug": "underflow_overflow", "seed": 7, "data_seed": 8,
    },
    "epochs": {
        "bf16": "true", "activation_checkpointing": "true", "full_determinism": "true", "save_strategy": "best",
        "activation_checkpointing_kwargs": '{"use_reentrant": false, "preserve_rng_state": true, "every_n_layers": 1}',
        "eval_strategy": "epoch", "load_best_model_at_end": "true", "metric_for_best_model": "f1_macro",
        "greater_is_better": "true", "dataloader_num_workers": 1, "dataloader_prefetch_factor": 1,
        "dataloader_multiprocessing_context": "fork", "dataloader_pin_memory": "false",
        "restore_callback_states_from_checkpoint": "true", "ddp_find_unused_parameters": "true", "ddp_bucket_cap_mb": 5,
        "ddp_broadcast_buffers": "true", "ddp_static_graph": "true", "ddp_timeout": 60, "run_name": "mine",
        "report_to": "tensorboard", "accelerator_config": '{"split_batches": false, "even_batches": false}',
        "lr_scheduler_type": "cosine_with_restarts", "lr_scheduler_kwargs": '{"num_cycles": 2}',
    },
    "optimiser": {
        "fp16": "true", "optim": "sgd", "optim_args": "momentum=0.9,nesterov=true", "gradient_checkpointing": "true",
        "gradient_checkpointing_kwargs": '{"use_reentrant": true}', "lr_scheduler_type": "reduce_lr_on_plateau",
        "eval_strategy": "epoch", "metric_for_best_model": "eval_loss", "logging_strategy": "no", "save_strategy": "no",
        "num_train_epochs": 1.5,
    },
    "slower": {
        "torch_compile": "true", "torch_compile_mode": "default", "torch_compile_backend": "eager",
        "dataloader_num_workers": 1, "dataloader_persistent_workers": "true",
    },
}  # fmt: skip


@pytest.mark.parametrize(
    "group", [pytest.param(name, marks=[pytest.mark.long] if name == "slower" else []) for name in GROUPS]
)
@pytest.mark.filterwarnings("ignore:`gradient_checkpointing")
@pytest.mark.usefixtures("determinism_undone")
def test_a_training_obeys_the_fields_that_work(data, tmp_path, group):
    assert main(flags(data, tmp_path / "run", **GROUPS[group])) == 0
    evaluation = summary_in(tmp_path / "run")["evaluation"]
    assert set(evaluation["metrics"]) == {"loss", *SCORES}, "no times and no memory among the scores"
    assert evaluation["clips"] == sum(map(sum, evaluation["confusion_matrix"])) == 6
    with safe_open(tmp_path / "run" / "model.safetensors", "np") as weights:
        assert {weights.get_slice(name).get_dtype() for name in weights.keys()} == {"F32"}  # noqa: SIM118
    history = summary_in(tmp_path / "run")["history"]
    if group == "steps":
        assert [row["epoch"] for row in history if "eval_loss" in row] == [0, 1, 2]
        assert sorted(path.name for path in (tmp_path / "run").glob("checkpoint-*")) == [
            "checkpoint-2",
            "checkpoint-4",
        ]


SCHEDULE_SETTINGS = {
    "warmup_stable_decay": {"num_decay_steps": 1},
    "cosine_with_min_lr": {"min_lr": 1e-6},
    "cosine_warmup_with_min_lr": {"min_lr": 1e-6},
}


def test_every_schedule_of_the_installed_transformers_can_be_had(data, tmp_path):
    argv = flags(data, tmp_path / "run", eval_strategy="epoch")
    trainer = prepare_run(argv, parse_arguments(argv)).trainer
    for schedule in SchedulerType:
        trainer.args.lr_scheduler_type = schedule
        trainer.args.lr_scheduler_kwargs = SCHEDULE_SETTINGS.get(schedule.value)
        check_settings(trainer)


@pytest.mark.parametrize("eval_batch_size", [4, 5])
def test_every_scored_clip_is_scored_where_training_drops_some(data, tmp_path, eval_batch_size):
    """24 training clips in batches of 7 are 3 whole ones; 6 scored clips are no whole number of batches."""
    settings = {
        "per_device_train_batch_size": 7,
        "per_device_eval_batch_size": eval_batch_size,
        "eval_strategy": "epoch",
    }
    assert main(flags(data, tmp_path / "run", dataloader_drop_last="true", **settings)) == 0
    evaluation = summary_in(tmp_path / "run")["evaluation"]
    assert sum(map(sum, evaluation["confusion_matrix"])) == evaluation["clips"] == 6
    (last,) = (tmp_path / "run").glob("checkpoint-*")
    assert last.name == "checkpoint-6"  # and not 8, in two epochs
    scored = [row for row in summary_in(tmp_path / "run")["history"] if "eval_loss" in row]
    assert scored[-1]["eval_loss"] == pytest.approx(evaluation["metrics"]["loss"], abs=1e-5)


@pytest.fixture(scope="module")
def start(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("start") / "run"
    assert main(flags(data, folder, num_train_epochs=1)) == 0
    return folder


@pytest.mark.parametrize(
    "setting", [{"output_hidden_states": True}, {"output_attentions": True}, {"return_dict": False}], ids=lambda setting: str(*setting)
)  # fmt: skip
def test_a_checkpoint_with_other_outputs_switched_on_is_trained_and_tagged_with(start, data, tmp_path, setting):
    shutil.copytree(start, tmp_path / "start")
    config = tmp_path / "start" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | setting))
    samples = soundfile.read(data / "a" / "0.wav", dtype="float32")[0][:7920]  # one window
    clip = tmp_path / "clip.wav"
    soundfile.write(clip, samples, 16_000, subtype="FLOAT")
    (tagged,) = AudioTagger.from_pretrained(tmp_path / "start", "cpu").tag_files([clip])
    expected = pipeline("audio-classification", model=str(start))(samples)
    scores = {tag.label: tag.score for tag in tagged.labels}
    assert scores == pytest.approx({answer["label"]: answer["score"] for answer in expected}, abs=1e-5)
    sizes = dict.fromkeys(("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size"))
    again = flags(data, tmp_path / "run", model_name_or_path=tmp_path / "start", eval_strategy="epoch", **sizes)
    assert main(again) == 0
    assert not setting.keys() & json.loads((tmp_path / "run" / "config.json").read_text()).keys()
