"""Hostile and broken input: what is attacked (`targets`), how (`mutations`), and in what cage (`attack`)."""
