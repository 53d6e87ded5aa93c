//! GGUF files: what is read, what is refused, what is written.

mod build;
mod hostile;
mod interchange;
mod quantising;
mod reading;
mod writing;
