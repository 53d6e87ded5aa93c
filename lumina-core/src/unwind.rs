//! Calls of code that a program gave, such as a sampling step or a clock: a panic in it becomes a message.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Characters of a panic's message that are kept.
const MAX_MESSAGE_CHARS: usize = 200;

/// Calls `call`. Where it panics, the error is the message of the panic: at most 200 characters of it, with control
/// characters escaped.
///
/// What `call` has borrowed may be changed in part then. A program that is built with `panic = "abort"` still ends.
pub fn catch<T>(call: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(call)).map_err(message)
}

fn message(panic: Box<dyn Any + Send>) -> String {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    let message = match text {
        Some(text) => text.chars().take(MAX_MESSAGE_CHARS).flat_map(char::escape_debug).collect(),
        None => "no message".to_owned(),
    };
    // A program can panic with any value, whose `drop` may panic as well.
    if let Err(second) = catch_unwind(AssertUnwindSafe(|| drop(panic))) {
        std::mem::forget(second);
    }
    message
}

#[cfg(test)]
#[allow(clippy::panic, reason = "what is tested")]
mod tests {
    use super::*;

    struct PanicsWhenDropped;

    impl Drop for PanicsWhenDropped {
        fn drop(&mut self) {
            panic!("in drop");
        }
    }

    #[test]
    fn panics_become_messages() {
        assert_eq!(catch(|| 7), Ok(7));
        assert_eq!(catch(|| panic!("plain")), Err::<(), _>("plain".to_owned()));
        assert_eq!(catch(|| panic!("of {}\n", 3)), Err::<(), _>("of 3\\n".to_owned()));
        assert_eq!(catch(|| std::panic::panic_any(7)), Err::<(), _>("no message".to_owned()));
        assert_eq!(catch(|| std::panic::panic_any(PanicsWhenDropped)), Err::<(), _>("no message".to_owned()));
        let long = catch(|| panic!("{}", "x".repeat(1 << 20))).map_err(|message| message.len());
        assert_eq!(long, Err::<(), _>(MAX_MESSAGE_CHARS));
    }
}
