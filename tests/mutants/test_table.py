"""The table of mutations fits the sources; whether the mutants are caught takes minutes: `make mutants`."""

from __future__ import annotations

import pytest

from .table import MUTATIONS, ROOT, Mutation


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_every_mutation_is_one_change_that_a_test_looks_for(mutation: Mutation):
    text = (ROOT / "src/tacit" / mutation.file).read_text()
    assert text.count(mutation.old) == 1, "the line changed: bring the mutation up to date"
    assert mutation.new != mutation.old
    compile(text.replace(mutation.old, mutation.new), mutation.file, "exec")
    file, _, test = mutation.test.partition("::")
    assert f"def {test.partition('[')[0]}(" in (ROOT / "tests" / file).read_text()


def test_names_are_different():
    assert len({mutation.name for mutation in MUTATIONS}) == len(MUTATIONS)
