"""The shipped recipe reaches its score on the held-out kit."""

import json

import pytest

from finetune.run_finetune import main


@pytest.mark.long
def test_the_drums_recipe_reaches_its_score(tmp_path):
    assert main(["finetune/recipes/drums.yaml", "--output_dir", str(tmp_path), "--disable_tqdm", "true"]) == 0
    summary = json.loads((tmp_path / "run_summary.json").read_text())
    assert summary["evaluation"]["metrics"]["accuracy"] >= 0.6
