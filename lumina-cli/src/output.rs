//! How programs write to the standard outputs, and how they end.
//!
//! `println!` panics where the output is closed or full. [`say!`](crate::say) returns an error instead, and
//! [`main`](crate::main) ends the program by it: quietly where the reader has gone (`| head`), as other programs
//! do, and with a message where the disk is full.

use std::fmt;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::{Arg, Parser};

use crate::{Error, Result};

/// Writes a line to the standard output. An output that is closed or full is an error.
#[macro_export]
macro_rules! say {
    ($($arg:tt)*) => { $crate::write_output(format_args!("{}\n", format_args!($($arg)*))) };
}

/// As [`say!`](crate::say), without the end of the line.
#[macro_export]
macro_rules! say_piece {
    ($($arg:tt)*) => { $crate::write_output(format_args!($($arg)*)) };
}

/// Writes a line to the standard error output, if somebody reads it.
#[macro_export]
macro_rules! note {
    ($($arg:tt)*) => { $crate::write_note(format_args!($($arg)*)) };
}

/// The standard output is closed or full.
#[derive(Debug)]
pub(crate) struct OutputError(io::Error);

impl OutputError {
    /// Whether nobody reads the output any more.
    fn is_closed(&self) -> bool {
        self.0.kind() == io::ErrorKind::BrokenPipe
    }
}

impl fmt::Display for OutputError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the standard output cannot be written; is the disk full?")
    }
}

impl std::error::Error for OutputError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.0)
    }
}

/// What [`say!`](crate::say) calls: writes text to the standard output at once.
///
/// # Errors
/// The output is closed or full. [`main`] knows the error.
pub fn write_output(text: fmt::Arguments<'_>) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    Ok(stdout.write_fmt(text).and_then(|()| stdout.flush()).map_err(OutputError)?)
}

/// How results are written to the standard output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// In words.
    Text,
    /// As JSON, an object a line.
    Json,
}

impl Form {
    /// Writes a result: `record`, or `text` as a line.
    ///
    /// # Errors
    /// The output is closed or full.
    pub fn result(self, record: serde_json::Value, text: impl FnOnce() -> String) -> anyhow::Result<()> {
        match self {
            Self::Text => crate::say!("{}", text()),
            Self::Json => crate::say!("{record}"),
        }
    }
}

/// What [`note!`](crate::note) calls. Notes are about the work, not its result: where nobody can read them, it goes on.
pub fn write_note(text: fmt::Arguments<'_>) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// What the `main` of each program calls: parses the arguments, runs the program, and says what went wrong.
pub fn main<A: Parser>(program: fn(A) -> Result<()>) -> ExitCode {
    // -3 is a number, not a flag: that it is out of range is better said by the library.
    let numbers = |arg: Arg| if arg.get_action().takes_values() { arg.allow_negative_numbers(true) } else { arg };
    let command = A::command().mut_args(numbers).mut_subcommands(|command| command.mut_args(numbers));
    let matches = command.try_get_matches();
    let ended = match matches.and_then(|matches| A::from_arg_matches(&matches)) {
        Ok(args) => program(args),
        // The help, or what is wrong with the arguments.
        Err(message) => {
            let printed = message.print().map_err(OutputError);
            if message.use_stderr() {
                return ExitCode::from(2);
            }
            printed.map_err(Error::from)
        }
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.output().is_some_and(OutputError::is_closed) => ExitCode::SUCCESS,
        Err(error) => {
            note!("Error: {error:?}");
            ExitCode::FAILURE
        }
    }
}

impl Error {
    /// The failure of the standard output, if that is what went wrong.
    pub(crate) fn output(&self) -> Option<&OutputError> {
        self.cause()
    }
}
