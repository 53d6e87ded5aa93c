//! Errors of programs: those of the libraries, with the names of flags in the place of the libraries' own.

use std::fmt;

/// The result of a program.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What a library's message says, and what a user of a program can do instead.
const FLAGS: [(&str, &str); 27] = [
    ("`LuminaBuilder::image_tokenizer`", "`--image-tokenizer`"),
    ("`LuminaBuilder::tokenizer`", "`--tokenizer`"),
    (", or raise `HandleOptions::max_waiting`", ""),
    ("`LuminaBuilder::target_size_px`", "`--target-size`"),
    ("`Compute::kv_cache`", "`--kv-cache`"),
    (", or name more devices for what does not fit: `Compute::then`", ", or name more devices, as `--device cuda+cpu`"),
    ("`Compute::weights`", "`--weights`"),
    ("`Compute::cpu`", "`--device cpu`"),
    (", or take the whole `Output` with `Malformed::Partial` to get the rows that are there", ""),
    (", or raise `Limits::max_pixels`", ""),
    (", or raise `Limits::image_bytes`", ""),
    (", or raise `Limits::vq_decode_bytes`", ""),
    (", or raise `Limits::kv_cache_bytes`", ""),
    (", or encode it in parts or with `TextTokenizer::encode_up_to`", ""),
    ("; decode with `Malformed::Partial` to keep its complete rows", ""),
    (", or raise `EngineOptions::kv_budget_bytes`", ""),
    ("`max_new_tokens`", "`--max-new-tokens`"),
    ("`preview_every_rows`", "`--preview-every`"),
    ("`guidance_scale`", "`--guidance`"),
    ("`image_top_k`", "`--image-top-k`"),
    ("`text_top_k`", "`--text-top-k`"),
    ("`temperature`", "`--temperature`"),
    ("`greedy`", "`--greedy`"),
    ("`seed`", "`--seed`"),
    ("`learning_rate`", "`--learning-rate`"),
    ("`batch_size`", "`--batch-size`"),
    ("`accumulation`", "`--accumulation`"),
];

/// The error that a program ends with. What it prints names flags rather than methods and options of the libraries.
pub struct Error(anyhow::Error);

impl<E: Into<anyhow::Error>> From<E> for Error {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

impl Error {
    /// The cause of this type, if there is one.
    pub(crate) fn cause<E: std::error::Error + 'static>(&self) -> Option<&E> {
        self.0.chain().find_map(|cause| cause.downcast_ref())
    }

    /// The message with flags, but for what is about the keys of a file: they have the libraries' names.
    fn in_flags(&self, message: String) -> String {
        match self.cause::<lumina_mgpt::Error>() {
            Some(lumina_mgpt::Error::Preset { .. } | lumina_mgpt::Error::GenerationConfig { .. }) => message,
            _ => with_flags(message),
        }
    }
}

/// The message and its causes in one line.
impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.in_flags(format!("{:#}", self.0)))
    }
}

/// What `main` prints: the message and its causes, a line each, and a backtrace if the environment asks for it.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.in_flags(format!("{:?}", self.0)))
    }
}

/// Puts flags in the place of the libraries' names.
pub(crate) fn with_flags(message: String) -> String {
    FLAGS.iter().fold(message, |message, (name, flag)| message.replace(name, flag))
}

#[cfg(test)]
mod tests {
    use lumina_mgpt::{Error as ModelError, StopReason};
    use lumina_tokenizer::MalformedImage;

    use super::*;

    fn shown(error: impl Into<anyhow::Error>) -> String {
        Error::from(error).to_string()
    }

    /// No message names a method that `FLAGS` does not know.
    #[test]
    fn every_name_of_the_libraries_is_known() {
        let mut n_names = 0;
        for name in ["lumina-core", "lumina-tokenizer", "lumina-sampling", "lumina-mgpt"] {
            let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name).join("src/error.rs");
            let source = std::fs::read_to_string(&file).unwrap();
            for line in source.lines().filter(|line| !line.trim_start().starts_with("//")) {
                for quoted in line.split('`').skip(1).step_by(2).filter(|quoted| quoted.contains("::")) {
                    n_names += 1;
                    assert!(FLAGS.iter().any(|(name, _)| name.contains(&format!("`{quoted}`"))), "{name}: {quoted}");
                }
            }
        }
        assert!(n_names >= 5, "{n_names}");
    }

    #[test]
    fn messages_name_flags() {
        let message = shown(ModelError::NoImageTokenizer);
        assert!(message.contains("`--image-tokenizer`") && !message.contains("::"), "{message}");
        let malformed = MalformedImage {
            start: 3,
            position: 9,
            expected: lumina_core::layout::Slot::ImageEnd,
            found: None,
            size: None,
            rows: None,
        };
        let cut = |stop| shown(ModelError::Malformed { malformed: Box::new(malformed.clone()), stop: Some(stop) });
        let message = cut(StopReason::MaxNewTokens);
        assert!(message.ends_with("raise `--max-new-tokens`"), "{message}");
        let message = cut(StopReason::ContextFull);
        assert!(message.contains("context is full") && !message.contains("max-new-tokens"), "{message}");
        let message = cut(StopReason::Deadline);
        assert!(message.contains("deadline") && !message.contains("max-new-tokens"), "{message}");
        let mut options = lumina_mgpt::SamplingOptions::default();
        options.temperature = 0.0;
        let message = shown(options.validate().unwrap_err());
        assert!(message.contains("`--temperature`") && message.contains("`--greedy`"), "{message}");
    }

    #[test]
    fn keys_of_a_file_are_no_flags() {
        let (value, expected) = ("`temperature`".to_owned(), "one of `guidance_scale`, `image_top_k`".to_owned());
        let key = "`guidance` in the section `lumina`".to_owned();
        let message = shown(ModelError::Preset { file: "generation_config.json".into(), key, value, expected });
        assert!(message.contains("`guidance_scale`, `image_top_k`") && !message.contains("--"), "{message}");
    }
}
