//! The built-in steps. Which of them run, and in which order, is the table in `options.rs`.

mod min_p;
mod repetition_penalty;
mod temperature;
mod top_k;
mod top_p;

pub use min_p::MinP;
pub use repetition_penalty::RepetitionPenalty;
pub use temperature::Temperature;
pub use top_k::TopK;
pub use top_p::TopP;
