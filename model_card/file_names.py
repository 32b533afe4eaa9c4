"""Names of the files in the folder of a finished checkpoint, as trainings and conversions leave it and the Hub gets it.

What else lies there, checkpoints to resume from, logs of TensorBoard or whatever a user put there, is nobody's business.
"""

import re

from huggingface_hub import constants

from modeling_ast.adapters import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from modeling_ast.tagging.none_of_these import KNOWN_CLIPS_NAME

from .licenses import NOTICE_NAME
from .run_summary import RUN_SUMMARY_NAME

CARD_NAME = constants.REPOCARD_NAME
CONFIG_NAME = constants.CONFIG_NAME
FEATURE_EXTRACTOR_NAME = "preprocessor_config.json"
WEIGHTS_NAME = constants.SAFETENSORS_SINGLE_FILE
WEIGHTS_INDEX_NAME = constants.SAFETENSORS_INDEX_FILE
WEIGHTS_PART = re.compile(r"model-\d{5}-of-\d{5}\.safetensors")  # of weights in several files
RECIPE_NAME = "recipe.yaml"
TRAINING_CURVE_NAME = "training_curve.png"
CONFUSION_MATRIX_NAME = "confusion_matrix.png"
SPECTROGRAM_NAME = "spectrogram.png"
TIMELINE_NAME = "timeline.png"
PICTURES = (TRAINING_CURVE_NAME, CONFUSION_MATRIX_NAME, SPECTROGRAM_NAME, TIMELINE_NAME)
ADAPTER_DIR = "adapter"
ADAPTER_FILES = tuple(f"{ADAPTER_DIR}/{name}" for name in (CARD_NAME, ADAPTER_CONFIG, ADAPTER_WEIGHTS))

REQUIRED = (CARD_NAME, CONFIG_NAME, FEATURE_EXTRACTOR_NAME)
OPTIONAL = (NOTICE_NAME, RUN_SUMMARY_NAME, RECIPE_NAME, *PICTURES, KNOWN_CLIPS_NAME, *ADAPTER_FILES)
