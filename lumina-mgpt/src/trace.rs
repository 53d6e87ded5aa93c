//! Events for the `tracing` crate, with the feature of that name. Without it they are nothing, and cost nothing.
//!
//! They have sizes, times and causes, and nothing of prompts and answers. The target is `lumina_mgpt`; times between
//! events are those that the subscriber notes.

/// Records an event: a level, fields, and a message. Values are those that the code has anyway.
macro_rules! event {
    ($level:ident, $($fields:tt)+) => {{
        #[cfg(feature = "tracing")]
        ::tracing::event!(target: "lumina_mgpt", ::tracing::Level::$level, $($fields)+);
    }};
}

pub(crate) use event;
