"""What a sample is: one file per kind of data. Only here are file formats known."""
