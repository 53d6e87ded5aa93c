//! The segments of a JPEG file, and the tables that they define.

use super::huffman::Table;
use super::idct::ZIGZAG;

/// What is wrong with a file.
pub(super) type Damage = &'static str;

const SHORT: Damage = "a segment is cut off";

/// Walks over the segments of a file.
pub(super) struct Segments<'a> {
    bytes: &'a [u8],
    position: usize,
}

impl<'a> Segments<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, position: 0 }
    }

    /// What follows the segment that was returned last.
    pub(super) fn rest(&self) -> &'a [u8] {
        &self.bytes[self.position..]
    }

    pub(super) fn skip(&mut self, n_bytes: usize) {
        self.position += n_bytes;
    }

    /// The next marker and its payload; `None` at the end of the bytes. Bytes between segments are passed over.
    pub(super) fn next(&mut self) -> Result<Option<(u8, &'a [u8])>, Damage> {
        loop {
            let Some(n) = self.rest().windows(2).position(|pair| pair[0] == 0xFF && !matches!(pair[1], 0 | 0xFF))
            else {
                return Ok(None);
            };
            let marker = self.rest()[n + 1];
            self.position += n + 2;
            match marker {
                // SOI, RSTn and TEM have no payload.
                0x01 | 0xD0..=0xD8 => {}
                0xD9 => return Ok(Some((marker, &[]))),
                _ => {
                    let length = self.rest().first_chunk().map(|length| usize::from(u16::from_be_bytes(*length)));
                    let payload = length.and_then(|length| self.rest().get(2..length)).ok_or(SHORT)?;
                    self.position += 2 + payload.len();
                    return Ok(Some((marker, payload)));
                }
            }
        }
    }
}

/// The tables that are defined so far.
pub(super) struct Tables {
    /// In the order of rows, not in zigzag.
    pub(super) quantization: [Option<[u16; 64]>; 4],
    pub(super) dc: [Option<Table>; 4],
    pub(super) ac: [Option<Table>; 4],
    /// MCUs between restart markers; 0 for none.
    pub(super) restart: usize,
}

impl Default for Tables {
    /// Frames of Motion JPEG leave the usual Huffman tables out.
    fn default() -> Self {
        let [dc, ac] = [Table::usual_dc(), Table::usual_ac()];
        Self { quantization: [None; 4], dc: dc.map(Some), ac: ac.map(Some), restart: 0 }
    }
}

impl Tables {
    pub(super) fn define_quantization(&mut self, mut payload: &[u8]) -> Result<(), Damage> {
        while let [head, rest @ ..] = payload {
            let width = if head >> 4 == 0 { 1 } else { 2 };
            let (values, rest) = rest.split_at_checked(64 * width).ok_or(SHORT)?;
            let slot = self.quantization.get_mut(usize::from(head & 15)).ok_or("a quantization table has no place")?;
            let mut table = [0; 64];
            for (place, value) in ZIGZAG.iter().zip(values.chunks_exact(width)) {
                table[usize::from(*place)] = value.iter().fold(0, |high, &low| high << 8 | u16::from(low));
            }
            *slot = Some(table);
            payload = rest;
        }
        Ok(())
    }

    pub(super) fn define_huffman(&mut self, mut payload: &[u8]) -> Result<(), Damage> {
        while let [head, rest @ ..] = payload {
            let (counts, rest) = rest.split_first_chunk::<16>().ok_or(SHORT)?;
            let n_values = counts.iter().map(|&count| usize::from(count)).sum();
            let (values, rest) = rest.split_at_checked(n_values).ok_or(SHORT)?;
            let tables = if head >> 4 == 0 { &mut self.dc } else { &mut self.ac };
            let slot = tables.get_mut(usize::from(head & 15)).ok_or("a Huffman table has no place")?;
            *slot = Some(Table::new(counts, values)?);
            payload = rest;
        }
        Ok(())
    }

    pub(super) fn define_restart(&mut self, payload: &[u8]) -> Result<(), Damage> {
        let interval = payload.first_chunk().ok_or(SHORT)?;
        self.restart = usize::from(u16::from_be_bytes(*interval));
        Ok(())
    }
}
