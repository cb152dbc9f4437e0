"""Text as rows of token ids: a tokenizer of one's own, trained on the user's text, and the packing of ids into batches."""
