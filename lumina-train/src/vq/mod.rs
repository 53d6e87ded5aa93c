//! Training of the VQ image tokenizer.
