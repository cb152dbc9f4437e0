"""From whatever a person points at to batches: sources, kinds, the index, the store and the loader."""
