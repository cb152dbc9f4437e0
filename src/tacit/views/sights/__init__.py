"""How samples are shown where no method has a say: one file per kind of data."""
