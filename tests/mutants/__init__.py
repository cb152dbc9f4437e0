"""Each mutation that a card says a suite must catch, switched on in turn: `python -m tests.mutants [NAME ...]`."""
