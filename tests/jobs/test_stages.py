"""What a worker makes of what the night's process left."""

import pytest

from jobs.stages import StageFailed, _said
from jobs.supervise import Ended


def test_a_process_that_could_not_begin_is_told_from_a_model_that_was_held_back(tmp_path):
    part = tmp_path / "result"
    part.write_text("")
    with pytest.raises(StageFailed, match=r"ended with exit code 1; its last words: ModuleNotFoundError: No module"):
        _said(part, Ended(1, "ModuleNotFoundError: No module named 'typer'"))
    part.write_text('{"passed": false}')
    assert _said(part, Ended(1, "")) == {"passed": False}
