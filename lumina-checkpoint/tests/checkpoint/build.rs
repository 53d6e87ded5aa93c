//! Files of every kind, byte by byte, so that they can lie.

use lumina_checkpoint::Checkpoint;

use crate::shared::write_and_open;

/// A safetensors file of this header and data.
pub(crate) fn safetensors(header: &str, data: &[u8]) -> Vec<u8> {
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.as_bytes());
    file.extend(data);
    file
}

/// A safetensors file with one `u8` tensor of two elements.
pub(crate) fn two_bytes(name: &str) -> Vec<u8> {
    safetensors(&format!(r#"{{"{name}":{{"dtype":"U8","shape":[2],"data_offsets":[0,2]}}}}"#), &[7, 9])
}

/// A file of a zip archive; `claimed` is the length that the archive gives it.
pub(crate) struct Entry {
    pub(crate) name: String,
    pub(crate) data: Vec<u8>,
    pub(crate) claimed: u32,
    pub(crate) method: u16,
}

impl Entry {
    pub(crate) fn new(name: impl Into<String>, data: impl Into<Vec<u8>>) -> Self {
        let data = data.into();
        Self { name: name.into(), claimed: data.len() as u32, data, method: 0 }
    }
}

/// A zip archive.
pub(crate) fn zip(entries: &[Entry]) -> Vec<u8> {
    let mut file = Vec::new();
    let mut directory = Vec::new();
    let fields = |entry: &Entry| {
        let mut fields = vec![10, 0, 0, 0];
        fields.extend(entry.method.to_le_bytes());
        // Time and date, then a checksum of 0, which nobody reads.
        fields.extend([0, 0, 0x21, 0, 0, 0, 0, 0]);
        fields.extend(entry.claimed.to_le_bytes());
        fields.extend(entry.claimed.to_le_bytes());
        fields.extend((entry.name.len() as u16).to_le_bytes());
        fields.extend([0, 0]);
        fields
    };
    for entry in entries {
        let start = file.len() as u32;
        file.extend(b"PK\x03\x04");
        file.extend(fields(entry));
        file.extend(entry.name.as_bytes());
        file.extend(&entry.data);

        directory.extend(b"PK\x01\x02\x0a\0");
        directory.extend(fields(entry));
        directory.extend([0; 10]);
        directory.extend(start.to_le_bytes());
        directory.extend(entry.name.as_bytes());
    }
    let start = file.len() as u32;
    file.extend(&directory);
    file.extend(b"PK\x05\x06\0\0\0\0");
    file.extend((entries.len() as u16).to_le_bytes());
    file.extend((entries.len() as u16).to_le_bytes());
    file.extend((directory.len() as u32).to_le_bytes());
    file.extend(start.to_le_bytes());
    file.extend([0, 0]);
    file
}

/// A file as `torch.save` writes it: a pickle, and storages by key.
pub(crate) fn torch(pickle: &[u8], storages: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut entries = vec![Entry::new("name/data.pkl", pickle), Entry::new("name/byteorder", "little")];
    entries.extend(storages.iter().map(|(key, data)| Entry::new(format!("name/data/{key}"), data.clone())));
    zip(&entries)
}

/// A file as `torch.save` wrote it before version 1.6.
pub(crate) fn legacy(pickle: &[u8], storages: &[(&str, i64, Vec<u8>)]) -> Vec<u8> {
    let mut file = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.".to_vec();
    file.extend(Pickle::new().int(1001).end());
    file.extend(Pickle::new().op(b"}").text("little_endian").op(b"\x88s").end());
    file.extend(pickle);
    let keys = storages.iter().fold(Pickle::new().op(b"]("), |pickle, (key, ..)| pickle.text(key));
    file.extend(keys.op(b"e").end());
    for (_, length, data) in storages {
        file.extend(length.to_le_bytes());
        file.extend(data);
    }
    file
}

/// A pickle in the making.
pub(crate) struct Pickle(Vec<u8>);

impl Pickle {
    pub(crate) fn new() -> Self {
        Self(b"\x80\x02".to_vec())
    }

    /// Opcodes as they are.
    pub(crate) fn op(mut self, opcodes: &[u8]) -> Self {
        self.0.extend(opcodes);
        self
    }

    pub(crate) fn text(self, text: &str) -> Self {
        self.op(b"X").op(&(text.len() as u32).to_le_bytes()).op(text.as_bytes())
    }

    pub(crate) fn int(self, value: i64) -> Self {
        self.op(b"\x8a\x08").op(&value.to_le_bytes())
    }

    pub(crate) fn ints(self, values: &[i64]) -> Self {
        values.iter().fold(self.op(b"("), |pickle, &value| pickle.int(value)).op(b"t")
    }

    pub(crate) fn global(self, module: &str, name: &str) -> Self {
        self.op(format!("c{module}\n{name}\n").as_bytes())
    }

    pub(crate) fn storage(self, class: &str, key: &str, length: i64) -> Self {
        self.op(b"(").text("storage").global("torch", class).text(key).text("cpu").int(length).op(b"tQ")
    }

    /// A tensor that is a view of a storage.
    pub(crate) fn view(self, storage: (&str, &str, i64), offset: i64, shape: &[i64], strides: &[i64]) -> Self {
        let (class, key, length) = storage;
        self.global("torch._utils", "_rebuild_tensor_v2")
            .op(b"(")
            .storage(class, key, length)
            .int(offset)
            .ints(shape)
            .ints(strides)
            .op(b"\x89")
            .global("collections", "OrderedDict")
            .op(b")RtR")
    }

    /// A vector of `f32` that is the whole of its storage.
    pub(crate) fn vector(self, key: &str, length: i64) -> Self {
        self.view(("FloatStorage", key, length), 0, &[length], &[1])
    }

    pub(crate) fn end(self) -> Vec<u8> {
        self.op(b".").0
    }
}

/// Writes one file and opens it.
pub(crate) fn open(name: &str, bytes: &[u8]) -> lumina_checkpoint::Result<Checkpoint> {
    write_and_open(name, bytes, |path| Checkpoint::open(path))
}
