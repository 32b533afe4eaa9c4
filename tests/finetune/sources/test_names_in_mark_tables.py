"""Recordings that a table of marks names by their paths."""

import numpy as np
import pytest
import soundfile

from finetune.arguments.groups import DataArguments
from finetune.sources.data_errors import DataError
from finetune.sources.marked_recordings import load_marked


@pytest.mark.parametrize("order", [(1, 2), (2, 1)])
def test_marks_of_an_absent_recording_do_not_go_to_one_of_its_name(tmp_path, order):
    (tmp_path / "site1").mkdir()
    soundfile.write(tmp_path / "site1" / "0600.wav", np.zeros(16_000), 16_000)
    table = tmp_path / "marks.csv"
    rows = [f"site{site}/0600.wav,0.1,0.{site + 2},owl" for site in order]
    table.write_text("\n".join(["file,start,end,label", *rows]))
    with pytest.raises(DataError, match=r"about a recording that is not there: site\d/0600.wav"):
        load_marked(DataArguments(dataset_name=str(tmp_path), marks=str(table)), 0)
