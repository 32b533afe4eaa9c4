#!/usr/bin/env bash
# load_dataset("audiofolder") drops every class but the one whose folder is called like a split; and Test/ is no split.
#
# Split words are looked for in the path of each file, in lower case, as whole words of any folder. One class folder "test"
# (or "sound_test", "dog train") beside others makes a data set of that folder alone, without labels; "Train/" and "Test/"
# make one split of all. Expected: three classes; two splits as with "train/" and "test/"; or a warning.
# Seen with datasets 5.2.0: of cat/, dog/, test/ one split of the 2 clips of test/; of Train/ and Test/ one split of all.
# Ends with 0 if that is still so, with 1 if not, with 2 if ffmpeg is missing, whose libraries torchcodec loads.
set -euo pipefail
if ! command -v ffmpeg > /dev/null; then
    echo "ffmpeg is missing: torchcodec loads its libraries (Debian: apt-get install ffmpeg)" >&2
    exit 2
fi
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    datasets==5.2.0 torchcodec==0.17.0 torch==2.14.1 numpy==2.4.6 soundfile==0.14.0
export HF_HUB_OFFLINE=1
"$folder/venv/bin/python" - "$folder" <<'PYTHON'
import sys
import tempfile
from pathlib import Path

import datasets
import numpy
import soundfile


def clips_of_splits(*folders: str) -> dict[str, tuple[int, list[str] | None]]:
    """Clips and labels of each split that is made of these folders of two clips each."""
    root = Path(tempfile.mkdtemp(dir=sys.argv[1]))
    for folder in folders:
        (root / "data" / folder).mkdir(parents=True)
        for number in range(2):
            soundfile.write(root / "data" / folder / f"{number}.wav", numpy.zeros(1600), 16_000)
    loaded = datasets.load_dataset("audiofolder", data_dir=str(root / "data"), cache_dir=str(root / "cache"))
    splits = {
        name: (len(split), split.features["label"].names if "label" in split.features else None)
        for name, split in loaded.items()
    }
    print(f"{' '.join(f'{folder}/' for folder in folders)}: {splits}")
    return splits


datasets.disable_progress_bars()
print(f"datasets {datasets.__version__}, splits with their number of clips and their labels:")
classes = ["cat", "dog"]
lower = clips_of_splits("train/cat", "train/dog", "test/cat", "test/dog")
upper = clips_of_splits("Train/cat", "Train/dog", "Test/cat", "Test/dog")
named = clips_of_splits("cat", "dog", "test")
within = clips_of_splits("cat", "dog", "sound_test")
as_described = (
    lower == {"train": (4, classes), "test": (4, classes)}
    and upper == {"train": (8, classes)}
    and named == within == {"test": (2, None)}
)
sys.exit(0 if as_described else 1)
PYTHON
