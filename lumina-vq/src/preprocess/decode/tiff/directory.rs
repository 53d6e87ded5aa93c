//! The first directory of a TIFF file: its tags and their values.

use std::collections::BTreeMap;

/// What is wrong with a file.
pub(super) type Damage = &'static str;

/// The numbers of tags.
pub(super) mod tag {
    pub(in super::super) const WIDTH: u16 = 256;
    pub(in super::super) const HEIGHT: u16 = 257;
    pub(in super::super) const BITS: u16 = 258;
    pub(in super::super) const COMPRESSION: u16 = 259;
    pub(in super::super) const PHOTOMETRIC: u16 = 262;
    pub(in super::super) const FILL_ORDER: u16 = 266;
    pub(in super::super) const STRIP_OFFSETS: u16 = 273;
    pub(in super::super) const ORIENTATION: u16 = 274;
    pub(in super::super) const SAMPLES: u16 = 277;
    pub(in super::super) const ROWS_PER_STRIP: u16 = 278;
    pub(in super::super) const STRIP_BYTES: u16 = 279;
    pub(in super::super) const PLANAR: u16 = 284;
    pub(in super::super) const PREDICTOR: u16 = 317;
    pub(in super::super) const COLOR_MAP: u16 = 320;
    pub(in super::super) const TILE_WIDTH: u16 = 322;
    pub(in super::super) const TILE_HEIGHT: u16 = 323;
    pub(in super::super) const TILE_OFFSETS: u16 = 324;
    pub(in super::super) const TILE_BYTES: u16 = 325;
    pub(in super::super) const EXTRA_SAMPLES: u16 = 338;
    pub(in super::super) const SAMPLE_FORMAT: u16 = 339;
    pub(in super::super) const JPEG_TABLES: u16 = 347;
}

/// The values of a tag.
struct Entry<'a> {
    kind: u16,
    bytes: &'a [u8],
}

/// The first directory of a file.
pub(super) struct Directory<'a> {
    pub(super) big_endian: bool,
    entries: BTreeMap<u16, Result<Entry<'a>, Damage>>,
}

const CUT_OFF: Damage = "it is cut off in its directory";

/// Bytes of a value, by the type of the entry.
fn value_bytes(kind: u16) -> usize {
    match kind {
        1 | 2 | 6 | 7 => 1,
        3 | 8 => 2,
        4 | 9 | 11 | 13 => 4,
        5 | 10 | 12 | 16..=18 => 8,
        _ => 0,
    }
}

fn number(bytes: &[u8], big_endian: bool) -> u64 {
    let add = |value: u64, &byte: &u8| value << 8 | u64::from(byte);
    if big_endian { bytes.iter().fold(0, add) } else { bytes.iter().rev().fold(0, add) }
}

impl<'a> Directory<'a> {
    /// Parses TIFF and BigTIFF.
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Self, Damage> {
        let big_endian = bytes.starts_with(b"MM");
        let at = |offset: usize, n: usize| {
            let field = offset.checked_add(n).and_then(|end| bytes.get(offset..end));
            field.map(|field| number(field, big_endian)).ok_or(CUT_OFF)
        };
        let is_big = at(2, 2)? == 43;
        // Bytes of the number of entries, of an offset, and of an entry.
        let (count_bytes, offset_bytes, entry_bytes) = if is_big { (8, 8, 20) } else { (2, 4, 12) };
        let first = usize::try_from(at(if is_big { 8 } else { 4 }, offset_bytes)?).map_err(|_| CUT_OFF)?;
        let n_entries = at(first, count_bytes)?.min(u64::from(u16::MAX)) as usize;
        let mut entries = BTreeMap::new();
        for n in 0..n_entries {
            let start = first + count_bytes + n * entry_bytes;
            let Ok(tag) = at(start, 2) else { break };
            let (kind, count) = (at(start + 2, 2)? as u16, at(start + 4, offset_bytes)?);
            let place = start + 4 + offset_bytes;
            let values =
                usize::try_from(count).ok().and_then(|count| count.checked_mul(value_bytes(kind))).and_then(|length| {
                    let start = if length <= offset_bytes { place } else { at(place, offset_bytes).ok()? as usize };
                    bytes.get(start..start.checked_add(length)?)
                });
            let entry = values.map(|bytes| Entry { kind, bytes }).ok_or("a tag's values are outside the file");
            entries.entry(tag as u16).or_insert(entry);
        }
        Ok(Self { big_endian, entries })
    }

    pub(super) fn has(&self, tag: u16) -> bool {
        self.entries.contains_key(&tag)
    }

    fn entry(&self, tag: u16) -> Result<Option<&Entry<'a>>, Damage> {
        self.entries.get(&tag).map(|entry| entry.as_ref().map_err(|damage| *damage)).transpose()
    }

    /// The unsigned integers of a tag; none where it is absent.
    pub(super) fn numbers(&self, tag: u16) -> Result<Vec<u64>, Damage> {
        let Some(entry) = self.entry(tag)? else { return Ok(Vec::new()) };
        match entry.kind {
            1 | 3 | 4 | 13 | 16 => {
                let values = entry.bytes.chunks_exact(value_bytes(entry.kind));
                Ok(values.map(|value| number(value, self.big_endian)).collect())
            }
            _ => Err("a tag has values of another type"),
        }
    }

    /// The first integer of a tag.
    pub(super) fn number(&self, tag: u16, default: u64) -> Result<u64, Damage> {
        Ok(self.numbers(tag)?.first().copied().unwrap_or(default))
    }

    /// The bytes of a tag.
    pub(super) fn bytes(&self, tag: u16) -> Result<Option<&'a [u8]>, Damage> {
        Ok(self.entry(tag)?.map(|entry| entry.bytes))
    }
}
