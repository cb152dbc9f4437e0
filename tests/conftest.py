"""How tests are shared out among processes."""

from __future__ import annotations

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What is dear to make is made once: tests of one file run in one process, those of the contract by method."""
    for item in items:
        told = getattr(item, "callspec", None)
        params = {} if told is None else told.params
        name = params.get("name") or (params.get("case") or ("",))[0] if "contract" in item.path.parts else ""
        item.add_marker(pytest.mark.xdist_group(f"{item.path.stem} {name}".rstrip()))
