"""File formats, as the kinds read them: one file per reader."""
