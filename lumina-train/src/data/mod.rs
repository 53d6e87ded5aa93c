//! From records of conversations and images to batches of tokens.
