//! lumina-tokenizer
