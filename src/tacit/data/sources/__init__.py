"""Where samples come from: one file per way that data lies around."""
