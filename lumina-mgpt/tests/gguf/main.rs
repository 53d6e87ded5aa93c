//! GGUF files: what is read, what is refused, what is written.

mod build;
mod hostile;
mod interchange;
mod llama_order;
mod quantising;
mod reading;
mod writing;
