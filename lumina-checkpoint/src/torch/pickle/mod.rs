//! A pickle interpreter that builds data and executes nothing.
//!
//! It knows the opcodes that Python writes for data at protocols 2 to 5. It records calls and does not make them. For a
//! function that builds a tensor it keeps the arguments. For the other names on the list of [`Global`] it keeps the
//! name. A name that is not on the list is an error.
//!
//! All values are in one list and refer to one another by index. Nesting therefore needs no recursion, and a value that
//! is used a thousand times, or within itself, is stored once. A reference takes at least a byte of the pickle.

mod globals;
mod integers;
mod machine;

use std::path::Path;

pub(super) use globals::{Global, Rebuild};
pub use integers::{Integers, read_integers};
use machine::{Fault, Machine};

use crate::{Error, Result};

/// The index of a value.
pub(super) type Id = u32;

/// One value of a pickle.
#[derive(Debug)]
pub(super) enum Value<'a> {
    Bool(bool),
    Int(i64),
    Text(&'a str),
    Tuple(Vec<Id>),
    List(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    Global {
        global: Global,
        module: &'a str,
        name: &'a str,
    },
    /// A storage: the tuple that describes it.
    Storage(Id),
    /// A tensor: the function that builds it, and the arguments.
    Tensor(Rebuild, Id),
    /// Plain data whose value is not needed: what kind it is.
    Plain(&'static str),
    /// The result of a call of [`Global::Leftover`].
    Object {
        class: Id,
    },
}

/// The values of one pickle.
#[derive(Debug)]
pub(super) struct Pickle<'a> {
    values: Vec<Value<'a>>,
    /// The pickled value.
    pub(super) root: Id,
    /// Number of bytes, including the last opcode.
    pub(super) length: usize,
}

impl<'a> Pickle<'a> {
    /// Reads the pickle at the start of `bytes`, which are part of `file`.
    ///
    /// # Errors
    /// [`Error::ForeignGlobal`] for a name that is not on the list, [`Error::Pickle`] for everything else.
    pub(super) fn read(file: &Path, bytes: &'a [u8]) -> Result<Self> {
        let mut machine = Machine::new(bytes);
        loop {
            let position = machine.position();
            match machine.step() {
                Ok(None) => {}
                Ok(Some(root)) => return Ok(Self { root, length: machine.position(), values: machine.into_values() }),
                Err(Fault::Foreign(global)) => return Err(Error::ForeignGlobal { file: file.to_owned(), global }),
                Err(Fault::Malformed(reason)) => return Err(Error::Pickle { file: file.to_owned(), position, reason }),
            }
        }
    }

    pub(super) fn get(&self, id: Id) -> &Value<'a> {
        &self.values[id as usize]
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &Value<'a>> {
        self.values.iter()
    }

    /// The integer at this index.
    pub(super) fn int(&self, id: Id) -> Option<i64> {
        match self.get(id) {
            Value::Int(value) => Some(*value),
            _ => None,
        }
    }

    /// The text at this index.
    pub(super) fn text(&self, id: Id) -> Option<&'a str> {
        match self.get(id) {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The elements of the tuple at this index.
    pub(super) fn tuple(&self, id: Id) -> Option<&[Id]> {
        match self.get(id) {
            Value::Tuple(elements) => Some(elements),
            _ => None,
        }
    }

    /// The kind of a value, for messages.
    pub(super) fn describe(&self, id: Id) -> String {
        match self.get(id) {
            Value::Bool(_) => "a bool".to_owned(),
            Value::Int(_) => "an integer".to_owned(),
            Value::Text(_) => "text".to_owned(),
            Value::Tuple(_) => "a tuple".to_owned(),
            Value::List(_) => "a list".to_owned(),
            Value::Dict(_) => "a dict".to_owned(),
            Value::Global { module, name, .. } => quoted(module, name),
            Value::Storage(_) => "a storage without a tensor".to_owned(),
            Value::Tensor(..) => "a tensor".to_owned(),
            Value::Plain(what) => (*what).to_owned(),
            Value::Object { class } => match self.get(*class) {
                Value::Global { module, name, .. } => format!("an object of {}", quoted(module, name)),
                _ => "an object".to_owned(),
            },
        }
    }
}

fn quoted(module: &str, name: &str) -> String {
    format!("`{}.{}`", module.escape_debug(), name.escape_debug())
}
