"""What was given and has no effect is refused by name, also where it is the default."""

from pathlib import Path

import pytest
import yaml

from finetune.arguments.command_line import known_fields, merged_recipe, parse_arguments
from finetune.arguments.training_fields import REFUSED, WITHOUT_EFFECT
from finetune.arguments.void_fields import EFFECTS, void_fields, void_notes
from finetune.run_evaluate import parse_arguments as parse_evaluation_arguments

RECIPES = Path(__file__).parents[3] / "finetune" / "recipes"
FILES = "--train_file a.csv --eval_file b.csv"
FOLDER = "--dataset_name clips"
# For each field: flags with which it has no effect, and flags with which it has. Where it can be, its value is the default.
PAIRS = {
    "dataset_config_name": [(f"x {FILES}", f"x {FOLDER}")],
    "validation_split_name": [(f"dev {FILES}", f"dev {FILES} --validation_file c.csv")],
    "split_column_name": [(f"split {FILES}", f"split {FOLDER}")],
    "audio_column_name": [("audio --features_column_name mel", "audio")],
    "label_column_name": [("label --label_columns cat dog", "label")],
    "group_column_name": [(f"kit {FILES}", f"kit {FILES} --validation_fraction 0.1")],
    "group_file_pattern": [(f"^. {FILES}", f"^. {FOLDER}")],
    "eval_fraction": [
        (f"0.2 {FILES}", f"0.2 {FOLDER}"), ("0.2 --streaming", "0.2"), ("0.2 --fold_column_name fold", "0.2"),
    ],
    **dict.fromkeys(("mark_label_column", "background_label", "hard_negatives"), [("x", "x --marks beside")]),
    "mark_overlap": [("0.2s", "0.2s --marks beside")],
    "background_share": [("0.5", "0.5 --marks beside")],
    "unmarked": [("ignore", "ignore --marks beside")],
    "memory_for_clips": [("0.25 --marks beside", "0.25"), ("0.25 --streaming", "0.25"), ("0.1 --features_column_name mel", "0")],
    "keep_features": [("true --memory_for_clips 0", "false"), ("true --streaming", "true")],
    "shuffle_buffer": [("1000", "1000 --streaming")],
    "normalization_clips": [("2000 --normalization -4.3 4.6", "0"), ("0 --normalization -4.3 4.6", "0")],
    "noise_dir": [("noises --noise_probability 0", "noises")],
    "noise_probability": [("0.5", "0.5 --noise_dir noises")],
    "min_snr_db": [("5", "-5 --noise_dir noises")],
    "max_snr_db": [("20", "20 --noise_dir noises")],
    "impulse_response_dir": [("rooms --impulse_response_probability 0", "rooms")],
    "impulse_response_probability": [("0.5", "1 --impulse_response_dir rooms")],
    "heard_padding_share": [("0.5", "0.5 --padding longest")],
    "mixup_alpha": [("10", "10 --mixup_probability 0.5"), ("10 --mixup_probability 0", "5 --mixup_probability 1")],
    "decay_every": [("1", "1 --decay_after_epoch 5"), ("1 --decay_after_epoch 0", "1 --decay_after_epoch 1")],
    "decay_factor": [("0.5", "0.5 --decay_after_epoch 5")],
    "warmup_stair": [
        ("50", "50 --decay_after_epoch 5 --warmup_steps 100"),
        ("50 --decay_after_epoch 5", "50 --decay_after_epoch 0 --warmup_steps 100"),
    ],
    "layer_decay": [("0.75 --head_only_epochs 2", "0.75 --head_only_epochs 1")],
    "frozen_layers": [("1 --head_only_epochs 2", "1 --max_steps 9 --head_only_epochs 2")],
    "lora_rank": [("4 --model_name_or_path m --head_only_epochs 3", "4 --model_name_or_path m")],
    "lora_alpha": [("8", "8 --lora_rank 4 --model_name_or_path m")],
    "lora_dropout": [("0.1 --lora_rank 0", "0.1 --lora_rank 4 --model_name_or_path m")],
    "lora_target_modules": [("query value", "query value --lora_rank 4 --model_name_or_path m")],
    **dict.fromkeys(("teacher_revision", "teacher_sha256"), [("abc", "abc --teacher t")]),
    "teacher_weight": [("0.5", "0.5 --teacher t")],
    "teacher_layers": [("2:4", "2:4 --teacher t")],
    "teacher_temperature": [
        ("2.0", "2.0 --teacher t"), ("2.0 --teacher t --teacher_weight 0 --teacher_layers 1:1", "2.0 --teacher t --teacher_weight 1"),
    ],
    "teacher_layer_weight": [("1.0 --teacher t", "1.0 --teacher t --teacher_layers 1:1")],
    "class_weights": [("balanced --teacher t --teacher_weight 1", "balanced --teacher t")],
    "num_train_epochs": [("3.0 --max_steps 4", "3.0 --max_steps -1")],
    "hub_model_id": [("a/b", "a/b --push_to_hub true")],
    "hub_private_repo": [("true", "true --push_to_hub true")],
    "hub_revision": [("main", "main --push_to_hub true")],
    "hub_strategy": [("end", "end --push_to_hub true")],
    "hub_always_push": [("true", "false")],
    "dataloader_persistent_workers": [("true", "true --dataloader_num_workers 1")],
    "dataloader_multiprocessing_context": [("spawn", "spawn --dataloader_num_workers 1")],
    "activation_checkpointing_kwargs": [('{"use_reentrant":false}', '{"use_reentrant":false} --activation_checkpointing true')],
    "gradient_checkpointing_kwargs": [('{"use_reentrant":false}', '{"use_reentrant":false} --gradient_checkpointing true')],
    **dict.fromkeys(("project", "trackio_space_id", "trackio_bucket_id", "trackio_static_space_id"), [("x", "x --report_to trackio")]),
    "eval_delay": [("1", "1 --eval_strategy epoch")],
    "metric_for_best_model": [("accuracy", "accuracy --eval_strategy epoch")],
    "greater_is_better": [
        ("true", "true --metric_for_best_model accuracy --eval_strategy epoch"),
        ("false --eval_strategy epoch", "false --load_best_model_at_end true --eval_strategy epoch"),
    ],
    "eval_steps": [("5", "5 --eval_strategy steps"), ("5 --eval_strategy epoch", "5 --eval_strategy steps")],
    "save_steps": [("500", "500 --save_strategy steps"), ("500 --save_strategy no", "500 --save_strategy steps")],
    "save_total_limit": [("1 --save_strategy no", "1"), ("0 --save_strategy no", "0")],
    "save_in_background": [("true --save_strategy no", "true")],
    "save_only_model": [("true --save_strategy no", "true")],
    "adam_beta1": [("0.9 --optim sgd", "0.9 --optimizer adam")],
    "adam_beta2": [("0.999 --optim adafactor", "0.999")],
    "adam_epsilon": [("1e-8 --optim rmsprop", "1e-8 --optim adamw_torch")],
    "optim": [("adamw_torch --optimizer adam", "sgd --optimizer trainer")],
    "optim_args": [("a=1 --optimizer adam", "momentum=0.9 --optim sgd")],
    "optim_target_modules": [("query --optimizer adam", "query --optim galore_adamw"), ("query", "query --optim galore_adamw")],
    "lr_scheduler_type": [("linear --decay_after_epoch 5", "linear")],
    "set_shares": [("drums=4 --loss label_sets", "drums=4 --loss label_sets --train_sampling_strategy set_balanced")],
    "lr_scheduler_kwargs": [
        ('{"x":1} --decay_after_epoch 5', '{"power":2} --lr_scheduler_type polynomial'),
        ('{"x":1} --lr_scheduler_type constant_with_warmup', "{}"),
    ],
    "warmup_steps": [
        ("9 --lr_scheduler_type constant", "60 --decay_after_epoch 5"), ("9 --lr_scheduler_type greedy --eval_strategy epoch", "0.1"),
    ],
    "run_name": [("x", "x --report_to tensorboard")],
    "fsdp_config": [('{"version":2}', None)],
}  # fmt: skip
CASES = [(name, void, counts) for name, pairs in PAIRS.items() for void, counts in pairs]
# Fields that count in every run, as which flag they are or what data, machine, launcher and a later call make of them.
ALWAYS = {
    "head", "accelerator_config", "activation_checkpointing", "attention_probs_dropout_prob", "attn_implementation", "average_epochs", "band_limit_probability", "bf16",
    "channels", "check_audio", "cluster_sides", "data_seed", "dataloader_drop_last", "dataloader_num_workers", "dataloader_pin_memory",
    "dataset_name", "ddp_backend", "ddp_broadcast_buffers", "ddp_bucket_cap_mb", "ddp_find_unused_parameters", "ddp_static_graph",
    "ddp_timeout", "debug", "decay_after_epoch", "deepspeed", "disable_tqdm", "drop_duplicate_audio", "dry_run", "early_stopping_patience",
    "ensemble_epochs", "eval_accumulation_steps", "eval_file", "eval_on_start", "eval_split_name", "eval_strategy", "features_column_name",
    "fold_column_name", "fp16", "frequency_stride", "fsdp", "full_determinism", "gradient_accumulation_steps", "gradient_checkpointing",
    "head_learning_rate_factor", "head_only_epochs", "head_start", "hidden_dropout_prob", "hidden_size", "hub_token", "ignore_columns", "ignore_data_skip",
    "ignore_labels", "intermediate_size", "join_annotations", "label_columns", "label_csv", "label_separator", "label_smoothing_factor",
    "labels", "learning_rate", "license", "load_best_model_at_end", "log_level", "log_level_replica", "log_on_each_node",
    "logging_first_step", "logging_nan_inf_filter", "logging_steps", "logging_strategy", "loss", "masked_share", "max_filter_db", "max_frequency_mask", "max_gain_db",
    "max_grad_norm", "max_length", "max_quiet_seconds", "max_roll", "max_speed_change", "max_steps", "max_time_mask", "mixup_probability", "model_name_or_path", "none_of_these",
    "noise_floor_probability", "noise_strength", "normalization", "num_attention_heads", "num_hidden_layers", "num_mel_bins", "optimizer", "output_dir",
    "overwrite_output_dir", "padding", "patchout_frequency", "patchout_share", "patchout_time", "per_device_eval_batch_size", "per_device_train_batch_size", "push_to_hub", "reconstruction_weight", "report_to", "resampler",
    "restore_callback_states_from_checkpoint", "resume_from_checkpoint", "save_strategy", "seed", "skip_bad_audio", "skip_memory_metrics",
    "streaming", "strict_audio", "teacher", "tf32", "time_stride", "torch_compile", "torch_compile_backend", "torch_compile_mode",
    "torch_empty_cache_steps", "train_file", "train_sampling_strategy", "train_split_name", "use_cpu", "validation_file",
    "validation_fraction", "waveform_cache", "weight_decay", "clip_windows", "score_windows", "marks",
    "dataloader_prefetch_factor",  # `TrainingArguments` refuses it by itself
}  # fmt: skip


def command(words: str) -> list[str]:
    data = [] if FILES in words or FOLDER in words else FOLDER.split()
    length = [] if "--num_train_epochs" in words or "--max_steps" in words else ["--num_train_epochs", "2"]
    return ["--output_dir", "run", *data, *length, *words.split()]


@pytest.mark.parametrize(("name", "void", "counts"), CASES, ids=lambda value: value and value[:30])
def test_what_has_no_effect_is_refused_with_what_leaves_it_so(name, void, counts):
    with pytest.raises(ValueError, match=rf"^{name} .*\. (Pass|Leave out) .*: \w+ is .*\.$") as caught:
        parse_arguments(command(f"--{name} {void}"))
    assert any(f": {effect.by[0]} is " in str(caught.value) for effect in EFFECTS[name])
    if counts is not None:
        assert name in parse_arguments(command(f"--{name} {counts}")).given


def test_every_field_has_a_row_or_counts_always():
    assert PAIRS.keys() == EFFECTS.keys()
    assert known_fields() == EFFECTS.keys() | REFUSED.keys() | WITHOUT_EFFECT.keys() | ALWAYS
    assert not EFFECTS.keys() & (REFUSED.keys() | WITHOUT_EFFECT.keys() | ALWAYS)


@pytest.mark.parametrize(
    "words",
    ["--lora_rank 0 --lora_dropout 0", "--noise_probability 0 --impulse_response_probability 0", "--hub_always_push false", "--eval_delay 0", "--warmup_steps 0 --lr_scheduler_type constant"],
)  # fmt: skip
def test_what_switches_off_what_is_off_is_obeyed(words):
    parse_arguments(command(words))


# A shipped recipe, flags over it, and which of its fields these leave without effect.
OVERRIDDEN = [
    ("drums", "--max_steps 4", {"num_train_epochs"}),
    ("drums", "--mixup_probability 0 --max_time_mask 0 --num_train_epochs 3", set()),
    ("drums", "--lr_scheduler_type constant", {"warmup_steps"}),
    ("audioset_full", "--warmup_steps 0 --train_file mine.json", {"warmup_stair"}),
    ("audioset_balanced", "--decay_after_epoch 0 --frequency_stride 16", {"decay_every", "decay_factor"}),
    ("esc50", "--optimizer trainer --optim sgd", {"adam_beta1", "adam_beta2"}),
    ("speech_commands_v2", "--eval_strategy no --load_best_model_at_end false", {"metric_for_best_model"}),
    ("custom", "--learning_rate 3e-5 --num_train_epochs 10 --dataset_name mine --max_length 1024", set()),
]


@pytest.mark.parametrize(("recipe", "words", "void"), OVERRIDDEN)
def test_a_field_of_a_recipe_that_a_flag_overrides_is_said_and_not_saved(tmp_path, recipe, words, void):
    argv = [str(RECIPES / f"{recipe}.yaml"), "--output_dir", "run", *words.split()]
    first = parse_arguments(argv)
    assert {field.name for field in void_fields(first.groups)} == void
    assert [note.split()[0] for note in void_notes(first)] == [f"--{name}" for name in EFFECTS if name in void]
    again = tmp_path / "again.yaml"
    again.write_text(yaml.safe_dump(merged_recipe(argv, void)))
    second = parse_arguments([str(again)])
    assert second.given == first.given - void
    assert void_notes(second) == []


def test_what_a_recipe_itself_leaves_without_effect_is_refused_with_its_line(tmp_path):
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("dataset_name: clips\noutput_dir: run\nshuffle_buffer: 1000\n")
    with pytest.raises(
        ValueError, match=r"^shuffle_buffer .*: streaming is false\. It stands in .*mine.yaml, line 3\."
    ):
        parse_arguments([str(recipe), "--seed", "1"])
    with pytest.raises(ValueError, match="leave it out: streaming is false.$"):
        parse_arguments([str(recipe), "--shuffle_buffer", "8"])
    assert void_notes(parse_arguments([str(recipe), "--streaming", "false"])) == [
        "--shuffle_buffer has no effect: it belongs to clips that are streamed (streaming is false)"
    ]


def test_a_recipe_that_an_earlier_run_saved_runs_again(tmp_path):
    (tmp_path / "recipe.yaml").write_text(
        "# ast-finetune recipe.yaml\ndataset_name: clips\noutput_dir: run\nshuffle_buffer: 1000\nmixup_alpha: 5\n"
        "decay_after_epoch: 5\nlr_scheduler_type: linear\nsave_strategy: 'no'\nsave_total_limit: 2\nmax_steps: 4\n"
        "num_train_epochs: 7\n"
    )
    void = {"shuffle_buffer", "mixup_alpha", "lr_scheduler_type", "save_total_limit", "num_train_epochs"}
    assert len(void_notes(parse_arguments([str(tmp_path / "recipe.yaml")]))) == len(void)
    with pytest.raises(ValueError, match="^save_total_limit .*leave it out: save_strategy is no.$"):
        parse_arguments([str(tmp_path / "recipe.yaml"), "--save_total_limit", "2"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--eval_file b.csv --dataset_config_name x", r"^dataset_config_name .*: eval_file is b.csv"),
        ("--eval_file b.csv --eval_split_name test", r"^eval_split_name .*: eval_file is b.csv"),
        ("--dataset_name clips --split all --split_column_name split", r"^split_column_name .* and split is all"),
        (
            "--dataset_name clips --label_columns a b --label_column_name label",
            "^label_column_name and label_columns both",
        ),
        (
            "--dataset_name clips --features_column_name mel --audio_column_name audio",
            "^audio_column_name and features_col",
        ),
    ],
)
def test_ast_evaluate_refuses_likewise(words, message):
    with pytest.raises(ValueError, match=message):
        parse_evaluation_arguments(["--model_name_or_path", "m", *words.split()])
    assert parse_evaluation_arguments(
        ["--model_name_or_path", "m", "--dataset_name", "x", "--split_column_name", "split"]
    )


def test_no_decay_over_layers_asks_for_nothing_and_a_note_names_both_lengths():
    clips = ["--dataset_name", "clips", "--output_dir", "run"]
    head_alone = ["--head_only_epochs", "3", "--num_train_epochs", "3"]
    parse_arguments([*clips, *head_alone, "--layer_decay", "1.0"])
    with pytest.raises(ValueError, match="layer_decay is about layers"):
        parse_arguments([*clips, *head_alone, "--layer_decay", "0.9"])
    assert void_notes(parse_arguments(["finetune/recipes/drums.yaml", "--max_steps", "4"])) == [
        "--num_train_epochs has no effect: it and max_steps both say how long the training is (max_steps is 4)"
    ]
