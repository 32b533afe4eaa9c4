"""Which of the common tests of Transformers are left out, and why."""

import re
from pathlib import Path

NO_TEXT = "the model has no text: no token ids, no vocabulary, no embeddings looked up by id"
NO_TIES = "no two tensors of the model are one"
NO_GENERATION = "the model generates nothing; test_save_load asks for can_generate() being false"
NOT_COMPOSITE = "the model has one configuration and no parts with their own"
OTHER_MODALITIES = "the model has no method of this name; its features are ASTModel's output"
NEEDS_ACCELERATOR = "needs an accelerator, and the machines that test this have none"
FLASH = "needs an accelerator and the flash-attn package; that it is declared is in test_modeling_ast.py"
COMPILED = "needs an accelerator in the library; test_model_runtime.py compiles on the CPU, training included"

LEFT_OUT = {
    # Text and generation
    "test_inputs_embeds": NO_TEXT,
    "test_inputs_embeds_matches_input_ids": NO_TEXT,
    "test_resize_tokens_embeddings": NO_TEXT,
    "test_resize_tokens_embeddings_with_deepspeed": NO_TEXT,
    "test_resize_tokens_embeddings_with_deepspeed_multi_gpu": NO_TEXT,
    "test_resize_embeddings_untied": NO_TEXT,
    "test_resize_embeddings_untied_with_deepspeed": NO_TEXT,
    "test_resize_embeddings_untied_with_deepspeed_multi_gpu": NO_TEXT,
    "test_model_forward_default_config_values": NO_TEXT,
    "test_load_with_mismatched_shapes": f"{NO_TEXT}; see test_can_load_ignoring_mismatched_shapes",
    "test_generation_tester_mixin_inheritance": NO_GENERATION,
    "test_tied_weights_keys": f"{NO_TIES}, see test_load_save_without_tied_weights",
    **{
        f"test_{attention}_padding_matches_padding_free_with_position_ids": f"{NO_TEXT}, packed by position ids"
        for attention in ("eager", "sdpa")
    },
    # What other architectures have
    "test_feed_forward_chunking": "the library's chunks of a feed-forward layer are not offered, as in its own AST",
    "test_eager_matches_batched_and_grouped_inference": "the model has no experts",
    "test_sliding_window_mask": "every token attends to all others",
    "test_tp_plan_matches_params": "the model has no tensor-parallel plan, as the library's AST has none",
    "test_capture_outputs_decorator": "forward collects its outputs itself, the decorator is not used",
    "test_attn_implementation_composite_models": NOT_COMPOSITE,
    "test_sdpa_can_dispatch_composite_models": NOT_COMPOSITE,
    "test_internal_model_config_and_subconfig_are_same": NOT_COMPOSITE,
    "test_can_set_attention_dynamically_composite_model": NOT_COMPOSITE,
    "test_flash_attn_2_can_dispatch_composite_models": NOT_COMPOSITE,
    "test_flash_attn_3_can_dispatch_composite_models": NOT_COMPOSITE,
    **{
        f"test_get_{modality}_features_{what}": OTHER_MODALITIES
        for modality in ("text", "image", "audio", "video")
        for what in ("output", "hidden_states", "attentions")
    },
    # What cannot be run here
    "test_multi_gpu_data_parallel_forward": NEEDS_ACCELERATOR,
    "test_model_parallelism": NEEDS_ACCELERATOR,
    "test_can_load_with_device_context_manager": NEEDS_ACCELERATOR,
    "test_can_load_with_global_device_set": NEEDS_ACCELERATOR,
    "test_sdpa_can_dispatch_on_flash": NEEDS_ACCELERATOR,
    "test_flex_attention_with_grads": f"{NEEDS_ACCELERATOR}; without gradients it is in test_modeling_ast.py",
    "test_sdpa_can_compile_dynamic": COMPILED,
    "test_torch_compile_for_training": COMPILED,
    "test_flash_attn_kernels_inference_equivalence": FLASH,
    "test_flash_attn_kernels_mps_inference_equivalence": FLASH,
    "test_flash_attn_2_inference_equivalence": FLASH,
    "test_flash_attn_2_inference_equivalence_right_padding": FLASH,
    "test_flash_attn_3_inference_equivalence": FLASH,
    "test_flash_attn_3_inference_equivalence_right_padding": FLASH,
    "test_flash_attn_2_fp32_ln": FLASH,
    "test_flash_attn_2_can_compile_with_attention_mask_None_without_graph_break": FLASH,
    "test_flash_attn_2_from_config": FLASH,
    "test_flash_attn_3_from_config": FLASH,
    # What would have to be downloaded
    "test_model_from_pretrained": "downloads a checkpoint; tests/conversion compares all released ones",
    "test_inference_audio_classification": "downloads a checkpoint; tests/reference holds outputs of the original code",
    "test_integration": "downloads a clip; test_feature_extraction_ast.py compares shipped clips with Kaldi's features",
    # Feature extraction
    "test_using_audio_utils": "there is no second implementation for machines without torchaudio: ours needs none",
    "test_batch_feature_tf": "the library has given up TensorFlow",
    "test_padding_accepts_tensors_tf": "the library has given up TensorFlow",
}


HERE = Path(__file__).parent


def test_what_is_left_out_is_not_tested_and_has_a_reason():
    sources = [HERE / f"test_common_{part}.py" for part in ("model", "training", "feature_extractor")]
    tested = {
        name for source in sources for name in re.findall(r"^    def (test_\w+)", source.read_text(), re.MULTILINE)
    }
    assert len(tested) > 60
    assert not tested & LEFT_OUT.keys()
    assert all(len(reason.split()) > 3 for reason in LEFT_OUT.values())
