from __future__ import annotations

from typing import Any

import pytest

from tacit.core.errors import TacitError, nearest, one_of


def test_a_choice_that_is_none_names_them_all_and_the_nearest():
    assert one_of("strategy", "fsdp", ("ddp", "fsdp")) == "fsdp"
    with pytest.raises(TacitError, match=r"strategy is one of ddp, fsdp, not 'fsp'; did you mean 'fsdp'\?"):
        one_of("strategy", "fsp", ("ddp", "fsdp"))
    assert nearest("zebra", ("ddp", "fsdp")) == ""


@pytest.mark.parametrize("value", [1.5, None, True, ["ddp"], {"ddp": 1}])
def test_what_is_no_text_is_refused_in_one_line_too(value: Any):
    with pytest.raises(TacitError, match="strategy is one of ddp, fsdp, not") as refused:
        one_of("strategy", value, ("ddp", "fsdp"))
    assert "\n" not in str(refused.value)
