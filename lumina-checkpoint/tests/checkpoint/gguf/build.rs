//! GGUF files byte by byte, so that they can lie.

/// Numbers of the format's types.
pub(crate) const F32: u32 = 0;
pub(crate) const U8: u32 = 24;

/// A text after its length.
pub(crate) fn text(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat()
}

/// A file in the making.
#[derive(Clone)]
pub(crate) struct Gguf {
    version: u32,
    alignment: usize,
    entries: Vec<u8>,
    n_entries: u64,
    tensors: Vec<u8>,
    n_tensors: u64,
    data: Vec<u8>,
}

impl Gguf {
    pub(crate) fn new() -> Self {
        let (entries, tensors, data) = (vec![], vec![], vec![]);
        Self { version: 3, alignment: 32, entries, n_entries: 0, tensors, n_tensors: 0, data }
    }

    /// An entry of a type, by its number, and the bytes of its value.
    pub(crate) fn entry(mut self, key: &str, kind: u32, value: &[u8]) -> Self {
        self.entries.extend(text(key));
        self.entries.extend(kind.to_le_bytes());
        self.entries.extend(value);
        self.n_entries += 1;
        self
    }

    pub(crate) fn string(self, key: &str, value: &str) -> Self {
        self.entry(key, 8, &text(value))
    }

    pub(crate) fn u32(self, key: &str, value: u32) -> Self {
        self.entry(key, 4, &value.to_le_bytes())
    }

    /// An array of a type, by its number, that claims `count` elements.
    pub(crate) fn array(self, key: &str, kind: u32, count: u64, elements: &[u8]) -> Self {
        self.entry(key, 9, &[&kind.to_le_bytes()[..], &count.to_le_bytes(), elements].concat())
    }

    /// A tensor whose description may be any: axes innermost first.
    pub(crate) fn describe(mut self, name: &str, axes: &[u64], kind: u32, offset: u64) -> Self {
        self.tensors.extend(text(name));
        self.tensors.extend((axes.len() as u32).to_le_bytes());
        self.tensors.extend(axes.iter().flat_map(|axis| axis.to_le_bytes()));
        self.tensors.extend(kind.to_le_bytes());
        self.tensors.extend(offset.to_le_bytes());
        self.n_tensors += 1;
        self
    }

    /// A version other than 3.
    pub(crate) fn version(self, version: u32) -> Self {
        Self { version, ..self }
    }

    /// Tensors at multiples of `alignment`, whatever the metadata says.
    pub(crate) fn aligned(self, alignment: usize) -> Self {
        Self { alignment, ..self }
    }

    /// A tensor after the others.
    pub(crate) fn tensor(mut self, name: &str, axes: &[u64], kind: u32, data: &[u8]) -> Self {
        self.data.resize(self.data.len().next_multiple_of(self.alignment), 0);
        let offset = self.data.len() as u64;
        self.data.extend(data);
        self.describe(name, axes, kind, offset)
    }

    /// A tensor of `f32`.
    pub(crate) fn floats(self, name: &str, axes: &[u64], values: impl IntoIterator<Item = f32>) -> Self {
        self.tensor(name, axes, F32, &values.into_iter().flat_map(f32::to_le_bytes).collect::<Vec<u8>>())
    }

    pub(crate) fn end(self) -> Vec<u8> {
        let mut file = b"GGUF".to_vec();
        file.extend(self.version.to_le_bytes());
        file.extend(self.n_tensors.to_le_bytes());
        file.extend(self.n_entries.to_le_bytes());
        file.extend(self.entries);
        file.extend(self.tensors);
        file.resize(file.len().next_multiple_of(self.alignment), 0);
        file.extend(self.data);
        file
    }
}
