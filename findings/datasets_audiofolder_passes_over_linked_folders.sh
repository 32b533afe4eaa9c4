#!/usr/bin/env bash
# load_dataset("audiofolder") passes over class folders that are symbolic links, and says nothing; links to files it takes.
#
# Sets too large for one disk are put together of links. torchvision's ImageFolder follows them. Expected: three classes of
# two clips, or an error. With a metadata.csv that names the clips the same folders are read through the links.
# Seen with datasets 5.2.0, streaming or not: of cat/, cow/ and the link dog/ 4 clips of 2 classes; of cat/ and the link dog/
# 2 clips without labels; with metadata.csv all; of linked files all.
# Ends with 0 if that is still so, with 1 if not.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check datasets==5.2.0 soundfile==0.14.0 numpy==2.4.6
export HF_HUB_OFFLINE=1 HF_HOME="$folder/hf"
"$folder/venv/bin/python" - "$folder" <<'PYTHON'
import sys
import tempfile
from pathlib import Path

import datasets
import numpy
import soundfile


def clips_and_labels(
    kind: str, folders: list[str], links: list[str], metadata: bool = False
) -> tuple[int, list[str] | None]:
    """Clips and labels of folders of two clips each and of links to such folders elsewhere."""
    root = Path(tempfile.mkdtemp(dir=sys.argv[1]))
    lines = ["file_name,animal"]
    for name in folders + links:
        clips = root / ("elsewhere" if name in links else "data") / name
        clips.mkdir(parents=True)
        for clip in ("0.wav", "1.wav"):
            soundfile.write(clips / clip, numpy.zeros(1600), 16_000)
            lines.append(f"{name}/{clip},{name}")
    for name in links:
        if kind == "folders":
            (root / "data" / name).symlink_to(root / "elsewhere" / name)
        else:
            (root / "data" / name).mkdir()
            for clip in (root / "elsewhere" / name).iterdir():
                (root / "data" / name / clip.name).symlink_to(clip)
    if metadata:
        (root / "data" / "metadata.csv").write_text("\n".join(lines))
    loaded = datasets.load_dataset("audiofolder", data_dir=str(root / "data"), streaming=True)["train"]
    paths = loaded.cast_column("audio", datasets.Value("string"))  # for which torchcodec is not needed
    number = len(list(paths))
    labels = loaded.features["label"].names if "label" in loaded.features else None
    print(f"{' '.join(folders)}, linked {kind} {' '.join(links)}, metadata.csv {metadata}: {number} clips, {labels}")
    return number, labels


print(f"datasets {datasets.__version__}")
of_three = clips_and_labels("folders", ["cat", "cow"], ["dog"])
of_two = clips_and_labels("folders", ["cat"], ["dog"])
named = clips_and_labels("folders", ["cat"], ["dog"], metadata=True)
files = clips_and_labels("files", ["cat"], ["dog"])
as_described = (of_three, of_two, named, files) == ((4, ["cat", "cow"]), (2, None), (4, None), (4, ["cat", "dog"]))
sys.exit(0 if as_described else 1)
PYTHON
