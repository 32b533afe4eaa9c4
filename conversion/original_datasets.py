"""The three data sets that the authors of AST trained on, and what their recipes fix for each.

Sources: label tables and recipes (`egs/*/run*.sh`) of the released code (Gong et al. 2021).
"""

from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

_TABLES = Path(__file__).parent / "label_tables"


@dataclass(frozen=True)
class OriginalDataset:
    """One of the authors' data sets.

    Args:
        name (`str`): how it is called on the command line.
        title (`str`): how people call it.
        num_labels (`int`): its labels.
        problem_type (`str`): as in a Transformers configuration.
        max_length (`int`): frames (10 ms each) of its recipe.
        mean (`float`): mean of its log-mel features.
        std (`float`): their standard deviation; features are `(x - mean) / (2 * std)`.
    """

    name: str
    title: str
    num_labels: int
    problem_type: str
    max_length: int
    mean: float
    std: float

    @property
    def label_table(self) -> Path:
        """Its labels in output order, a CSV with the columns index, mid and display_name."""
        return _TABLES / f"{self.name}.csv"


AUDIOSET = OriginalDataset("audioset", "AudioSet", 527, "multi_label_classification", 1024, -4.2677393, 4.5689974)
# One word a clip, though the authors trained it with a sigmoid for each label.
SPEECH_COMMANDS = OriginalDataset(
    "speech_commands_v2", "Speech Commands v2", 35, "single_label_classification", 128, -6.845978, 5.5654526
)
ESC50 = OriginalDataset("esc50", "ESC-50", 50, "single_label_classification", 512, -6.6268077, 5.358466)
ORIGINAL_DATASETS = MappingProxyType({dataset.name: dataset for dataset in (AUDIOSET, SPEECH_COMMANDS, ESC50)})
