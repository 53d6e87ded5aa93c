//! The stack machine that interprets a pickle.

use std::collections::HashMap;

use super::{Global, Id, Value};

// Limits far above those of real checkpoints: a thousand tensors are about 17,000 values in 120 kB, and torch empties
// the stack every thousand items. They bound the memory, at a few hundred bytes for each value.
const MAX_BYTES: usize = 1 << 24;
const MAX_VALUES: usize = 1 << 20;
const MAX_STACK: usize = 1 << 16;
const MAX_NAME_BYTES: usize = 1 << 10;

/// The reason to stop before the end.
pub(super) enum Fault {
    Foreign(String),
    Malformed(String),
}

type Step<T> = std::result::Result<T, Fault>;

fn malformed<T>(reason: impl Into<String>) -> Step<T> {
    Err(Fault::Malformed(reason.into()))
}

/// The interpreter's state.
pub(super) struct Machine<'a> {
    bytes: &'a [u8],
    position: usize,
    values: Vec<Value<'a>>,
    stack: Vec<Id>,
    /// Lengths of the stack at which groups of values begin.
    marks: Vec<usize>,
    memo: HashMap<u32, Id>,
}

impl<'a> Machine<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self {
            bytes: &bytes[..bytes.len().min(MAX_BYTES)],
            position: 0,
            values: Vec::new(),
            stack: Vec::new(),
            marks: Vec::new(),
            memo: HashMap::new(),
        }
    }

    /// Number of bytes read so far.
    pub(super) fn position(&self) -> usize {
        self.position
    }

    pub(super) fn into_values(self) -> Vec<Value<'a>> {
        self.values
    }

    /// Executes one opcode. The last one returns the root.
    pub(super) fn step(&mut self) -> Step<Option<Id>> {
        match self.byte()? {
            // PROTO
            0x80 => match self.byte()? {
                2..=5 => {}
                version => return malformed(format!("protocol {version} is not one of 2 to 5")),
            },
            // FRAME: only a hint for buffering.
            0x95 => {
                self.take(8)?;
            }
            // STOP
            b'.' => return self.pop().map(Some),

            // NONE, NEWTRUE, NEWFALSE
            b'N' => self.push(Value::Plain("None"))?,
            0x88 => self.push(Value::Bool(true))?,
            0x89 => self.push(Value::Bool(false))?,
            // BININT, BININT1, BININT2
            b'J' => {
                let value = i32::from_le_bytes(self.array()?);
                self.push(Value::Int(value.into()))?;
            }
            b'K' => {
                let value = self.byte()?;
                self.push(Value::Int(value.into()))?;
            }
            b'M' => {
                let value = u16::from_le_bytes(self.array()?);
                self.push(Value::Int(value.into()))?;
            }
            // LONG1, LONG4
            0x8a => {
                let length = self.byte()?;
                self.long(length.into())?;
            }
            0x8b => {
                let length = self.length4()?;
                self.long(length)?;
            }
            // BINFLOAT
            b'G' => {
                self.take(8)?;
                self.push(Value::Plain("a float"))?;
            }
            // SHORT_BINUNICODE, BINUNICODE, BINUNICODE8; SHORT_BINSTRING, BINSTRING of Python 2
            0x8c | b'U' => {
                let length = self.byte()?;
                self.string(length.into())?;
            }
            b'X' | b'T' => {
                let length = self.length4()?;
                self.string(length)?;
            }
            0x8d => {
                let length = self.length8()?;
                self.string(length)?;
            }
            // SHORT_BINBYTES, BINBYTES, BINBYTES8, BYTEARRAY8
            b'C' => {
                let length = self.byte()?;
                self.binary(length.into())?;
            }
            b'B' => {
                let length = self.length4()?;
                self.binary(length)?;
            }
            0x8e | 0x96 => {
                let length = self.length8()?;
                self.binary(length)?;
            }

            // MARK, POP, POP_MARK, DUP
            b'(' => {
                self.marks.push(self.stack.len());
                self.check_stack()?;
            }
            b'0' if self.marks.last() == Some(&self.stack.len()) => {
                self.marks.pop();
            }
            b'0' => {
                self.pop()?;
            }
            b'1' => {
                self.group()?;
            }
            b'2' => {
                let top = self.top()?;
                self.push_id(top)?;
            }

            // EMPTY_TUPLE, TUPLE, TUPLE1, TUPLE2, TUPLE3
            b')' => self.push(Value::Tuple(Vec::new()))?,
            b't' => {
                let elements = self.group()?;
                self.push(Value::Tuple(elements))?;
            }
            opcode @ 0x85..=0x87 => {
                let mut elements = vec![0; usize::from(opcode - 0x84)];
                for element in elements.iter_mut().rev() {
                    *element = self.pop()?;
                }
                self.push(Value::Tuple(elements))?;
            }
            // EMPTY_LIST, LIST, APPEND, APPENDS
            b']' => self.push(Value::List(Vec::new()))?,
            b'l' => {
                let elements = self.group()?;
                self.push(Value::List(elements))?;
            }
            b'a' => {
                let element = self.pop()?;
                self.append(vec![element])?;
            }
            b'e' => {
                let elements = self.group()?;
                self.append(elements)?;
            }
            // EMPTY_DICT, DICT, SETITEM, SETITEMS
            b'}' => self.push(Value::Dict(Vec::new()))?,
            b'd' => {
                let items = self.group()?;
                self.push(Value::Dict(Vec::new()))?;
                self.set_items(items)?;
            }
            b's' => {
                let value = self.pop()?;
                let key = self.pop()?;
                self.set_items(vec![key, value])?;
            }
            b'u' => {
                let items = self.group()?;
                self.set_items(items)?;
            }
            // EMPTY_SET, ADDITEMS, FROZENSET
            0x8f => self.push(Value::Plain("a set"))?,
            0x90 => {
                self.group()?;
                self.top()?;
            }
            0x91 => {
                self.group()?;
                self.push(Value::Plain("a set"))?;
            }

            // BINPUT, LONG_BINPUT, MEMOIZE
            b'q' => {
                let key = self.byte()?;
                self.put(key.into())?;
            }
            b'r' => {
                let key = u32::from_le_bytes(self.array()?);
                self.put(key)?;
            }
            0x94 => self.put(self.memo.len() as u32)?,
            // BINGET, LONG_BINGET
            b'h' => {
                let key = self.byte()?;
                self.recall(key.into())?;
            }
            b'j' => {
                let key = u32::from_le_bytes(self.array()?);
                self.recall(key)?;
            }

            // GLOBAL, STACK_GLOBAL
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                self.global(module, name)?;
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                match (&self.values[module as usize], &self.values[name as usize]) {
                    (&Value::Text(module), &Value::Text(name)) => self.global(module, name)?,
                    _ => return malformed("a name that is not text"),
                }
            }
            // BINPERSID
            b'Q' => {
                let place = self.pop()?;
                self.push(Value::Storage(place))?;
            }
            // REDUCE, NEWOBJ, NEWOBJ_EX
            b'R' | 0x81 => {
                let (arguments, callable) = (self.pop()?, self.pop()?);
                self.call(callable, arguments)?;
            }
            0x92 => {
                self.pop()?;
                let (arguments, callable) = (self.pop()?, self.pop()?);
                self.call(callable, arguments)?;
            }
            // BUILD: attributes, such as the `_metadata` of a state dict, are not needed.
            b'b' => {
                self.pop()?;
                self.top()?;
            }

            opcode => return malformed(format!("{opcode:#04x} is no opcode that data needs")),
        }
        Ok(None)
    }

    /// Records a call, and pushes the value that stands for its result.
    fn call(&mut self, callable: Id, arguments: Id) -> Step<()> {
        let Value::Global { global, .. } = self.values[callable as usize] else {
            return malformed("a call of what is no function");
        };
        let Value::Tuple(given) = &self.values[arguments as usize] else {
            return malformed("a call with arguments that are no tuple");
        };
        match global {
            Global::Rebuild(rebuild) => self.push(Value::Tensor(rebuild, arguments)),
            Global::Parameter => match given.first() {
                Some(&tensor) => self.push_id(tensor),
                None => malformed("a parameter without a tensor"),
            },
            // The class and the attributes do not change the elements.
            Global::OfClass => match *given.as_slice() {
                [function, _, arguments, _] => match self.values[function as usize] {
                    Value::Global { global: Global::OfClass, .. } => malformed("a tensor of a class of a class"),
                    _ => self.call(function, arguments),
                },
                _ => malformed("a tensor of a class without its four parts"),
            },
            Global::OrderedDict if given.is_empty() => self.push(Value::Dict(Vec::new())),
            _ => self.push(Value::Object { class: callable }),
        }
    }

    fn global(&mut self, module: &'a str, name: &'a str) -> Step<()> {
        match Global::find(module, name) {
            Some(global) => self.push(Value::Global { global, module, name }),
            None => Err(Fault::Foreign(format!("{}.{}", module.escape_debug(), name.escape_debug()))),
        }
    }

    fn append(&mut self, elements: Vec<Id>) -> Step<()> {
        let list = self.top()?;
        match &mut self.values[list as usize] {
            Value::List(list) => list.extend(elements),
            Value::Object { .. } => {}
            _ => return malformed("appends to what is no list"),
        }
        Ok(())
    }

    fn set_items(&mut self, items: Vec<Id>) -> Step<()> {
        let (pairs, []) = items.as_chunks() else { return malformed("a key without a value") };
        let dict = self.top()?;
        match &mut self.values[dict as usize] {
            Value::Dict(dict) => dict.extend(pairs.iter().map(|&[key, value]| (key, value))),
            Value::Object { .. } => {}
            _ => return malformed("sets items of what is no dict"),
        }
        Ok(())
    }

    /// A little-endian integer in two's complement.
    fn long(&mut self, length: usize) -> Step<()> {
        let bytes = self.take(length)?;
        if length > 8 {
            return self.push(Value::Plain("an integer of more than 64 bits"));
        }
        let fill = if bytes.last().is_some_and(|byte| byte & 0x80 != 0) { 0xff } else { 0 };
        let mut wide = [fill; 8];
        wide[..length].copy_from_slice(bytes);
        self.push(Value::Int(i64::from_le_bytes(wide)))
    }

    fn string(&mut self, length: usize) -> Step<()> {
        // Python's text can contain lone surrogates, which are not valid UTF-8. Names of tensors have none.
        let value = std::str::from_utf8(self.take(length)?).map_or(Value::Plain("text that is not UTF-8"), Value::Text);
        self.push(value)
    }

    fn binary(&mut self, length: usize) -> Step<()> {
        self.take(length)?;
        self.push(Value::Plain("bytes"))
    }

    fn put(&mut self, key: u32) -> Step<()> {
        let top = self.top()?;
        if self.memo.len() == MAX_VALUES {
            return malformed(format!("more than {MAX_VALUES} memos"));
        }
        self.memo.insert(key, top);
        Ok(())
    }

    fn recall(&mut self, key: u32) -> Step<()> {
        match self.memo.get(&key) {
            Some(&id) => self.push_id(id),
            None => malformed(format!("refers to memo {key}, which was not set")),
        }
    }

    fn push(&mut self, value: Value<'a>) -> Step<()> {
        if self.values.len() == MAX_VALUES {
            return malformed(format!("more than {MAX_VALUES} values"));
        }
        self.values.push(value);
        self.push_id((self.values.len() - 1) as Id)
    }

    fn push_id(&mut self, id: Id) -> Step<()> {
        self.stack.push(id);
        self.check_stack()
    }

    fn check_stack(&self) -> Step<()> {
        if self.stack.len() + self.marks.len() > MAX_STACK {
            return malformed(format!("values nest more than {MAX_STACK} deep"));
        }
        Ok(())
    }

    /// The value on top of the stack. It must be in the current group.
    fn top(&self) -> Step<Id> {
        let floor = self.marks.last().copied().unwrap_or(0);
        match self.stack[floor..].last() {
            Some(&id) => Ok(id),
            None => malformed("a value is missing"),
        }
    }

    fn pop(&mut self) -> Step<Id> {
        let id = self.top()?;
        self.stack.pop();
        Ok(id)
    }

    /// All values since the last mark.
    fn group(&mut self) -> Step<Vec<Id>> {
        match self.marks.pop() {
            Some(height) => Ok(self.stack.split_off(height)),
            None => malformed("a mark is missing"),
        }
    }

    fn line(&mut self) -> Step<&'a str> {
        let rest = &self.bytes[self.position..];
        let Some(length) = rest.iter().take(MAX_NAME_BYTES).position(|&byte| byte == b'\n') else {
            return malformed(format!("a name does not end within {MAX_NAME_BYTES} bytes"));
        };
        self.position += length + 1;
        std::str::from_utf8(&rest[..length]).or_else(|_| malformed("a name is not UTF-8"))
    }

    fn length4(&mut self) -> Step<usize> {
        Ok(u32::from_le_bytes(self.array()?) as usize)
    }

    fn length8(&mut self) -> Step<usize> {
        let length = u64::from_le_bytes(self.array()?);
        usize::try_from(length).or_else(|_| malformed(format!("a length of {length}")))
    }

    fn byte(&mut self) -> Step<u8> {
        Ok(self.array::<1>()?[0])
    }

    fn array<const N: usize>(&mut self) -> Step<[u8; N]> {
        let bytes = self.take(N)?;
        Ok(*bytes.first_chunk().expect("`take` returns as many bytes as it is asked for"))
    }

    fn take(&mut self, length: usize) -> Step<&'a [u8]> {
        let rest = &self.bytes[self.position..];
        match rest.get(..length) {
            Some(taken) => {
                self.position += length;
                Ok(taken)
            }
            None if self.bytes.len() == MAX_BYTES => malformed(format!("longer than {MAX_BYTES} bytes")),
            None => malformed(format!("ends {} bytes into something of {length}", rest.len())),
        }
    }
}
