//! The scans of a frame, and what is decoded of it.

use super::super::encoded::EncodedImage;
use super::bits::Bits;
use super::frame::Frame;
use super::huffman::Table;
use super::idct::{self, ZIGZAG};
use super::progressive::{self, Band};
use super::segments::{Damage, Tables};
use crate::Result;

/// Why a scan cannot be decoded.
pub(super) struct ScanError(pub(super) Damage);

impl From<Damage> for ScanError {
    fn from(damage: Damage) -> Self {
        Self(damage)
    }
}

/// The lowest bit of a coefficient that was read, before any was.
const UNREAD: u32 = u32::MAX;
/// libjpeg guesses the first ten coefficients where scans lack them.
const NEEDED: usize = 10;

/// What is decoded of a component.
struct Component {
    /// Samples: `[8 block_rows, stride]`. Empty until the end in progressive files.
    plane: Vec<u8>,
    /// Coefficients of progressive files: 64 a block.
    coefficients: Vec<i16>,
    /// The lowest bit of each coefficient that was read.
    lowest: [u32; 64],
    /// The table at the component's first scan.
    quantization: Option<[u16; 64]>,
}

/// What is decoded of a frame. The default has no room yet.
#[derive(Default)]
pub(super) struct Decoded(Vec<Component>);

/// A component in a scan.
#[derive(Clone, Copy)]
struct Member {
    index: usize,
    dc: usize,
    ac: usize,
}

impl Decoded {
    /// Takes the memory that a frame needs, within the limits.
    pub(super) fn new(encoded: &EncodedImage<'_>, frame: &Frame) -> Result<Self> {
        let n_samples = |component: &super::frame::Component| 64 * component.n_blocks() as u64;
        let planes: u64 = frame.components.iter().map(n_samples).sum();
        let largest = frame.components.iter().map(n_samples).max().unwrap_or(0);
        let pixels = (frame.width * frame.height * frame.components.len()) as u64;
        let coefficients = if frame.progressive { 2 * planes + largest } else { 0 };
        encoded.check_bytes(coefficients.max(planes + pixels))?;
        let new = |component: &super::frame::Component| {
            let n = 64 * component.n_blocks();
            let (plane, coefficients) = if frame.progressive { (0, n) } else { (n, 0) };
            Ok(Component {
                plane: encoded.zeroed(plane)?,
                coefficients: encoded.zeroed(coefficients)?,
                lowest: [UNREAD; 64],
                quantization: None,
            })
        };
        frame.components.iter().map(new).collect::<Result<_>>().map(Self)
    }

    /// Whether every coefficient that matters was read to its last bit.
    pub(super) fn is_complete(&self) -> bool {
        !self.0.is_empty()
            && self.0.iter().all(|component| component.lowest[..NEEDED].iter().all(|&lowest| lowest == 0))
    }

    /// Reads a scan with the header `header` from `bytes`, and returns how many of them it has.
    pub(super) fn read_scan(
        &mut self,
        frame: &Frame,
        tables: &Tables,
        header: &[u8],
        bytes: &[u8],
    ) -> Result<usize, ScanError> {
        let (members, band) = parse(frame, header)?;
        for member in &members {
            self.0[member.index].begin(frame, tables, *member, band)?;
        }
        let mut blocks = Blocks { bits: Bits::new(bytes), previous: [0; 4], n_empty: 0, n_units: 0, tables };
        let planes = &mut self.0;
        walk(frame, &members, &mut blocks, |blocks, n, row, column| {
            let member = members[n];
            let (described, component) = (&frame.components[member.index], &mut planes[member.index]);
            if frame.progressive {
                let block = &mut component.coefficients[64 * (row * described.block_columns + column)..];
                let block = block.first_chunk_mut().ok_or("a block is outside the image")?;
                return blocks.progressive(n, member, band, block);
            }
            let mut block = [0; 64];
            blocks.sequential(n, member, &mut block)?;
            let quantization = component.quantization.as_ref().ok_or("a quantization table is missing")?;
            let stride = described.stride();
            idct::block(&block, quantization, &mut component.plane[8 * (row * stride + column)..], stride);
            Ok(())
        })?;
        Ok(blocks.bits.position())
    }

    /// The samples of the components. Fails if some were not in the file.
    pub(super) fn into_planes(self, encoded: &EncodedImage<'_>, frame: &Frame) -> Result<Vec<Vec<u8>>> {
        if !self.is_complete() {
            return Err(encoded.damaged("JPEG", "scans are missing"));
        }
        let plane = |(component, described): (Component, &super::frame::Component)| {
            if !frame.progressive {
                return Ok(component.plane);
            }
            let mut plane = encoded.zeroed(component.coefficients.len())?;
            let (stride, quantization) = (described.stride(), component.quantization.unwrap_or([0; 64]));
            for (n, block) in component.coefficients.as_chunks().0.iter().enumerate() {
                let (row, column) = (n / described.block_columns, n % described.block_columns);
                idct::block(block, &quantization, &mut plane[8 * (row * stride + column)..], stride);
            }
            Ok(plane)
        };
        self.0.into_iter().zip(&frame.components).map(plane).collect()
    }
}

impl Component {
    /// Keeps the tables of the first scan, and checks that the scan follows those before it.
    fn begin(&mut self, frame: &Frame, tables: &Tables, member: Member, band: Band) -> Result<(), ScanError> {
        let table = tables.quantization.get(frame.components[member.index].quantization).copied().flatten();
        self.quantization = self.quantization.or(table);
        if self.quantization.is_none() {
            return Err(ScanError("a quantization table is missing"));
        }
        let expected = if band.high == 0 { UNREAD } else { band.high };
        if band.first > 0 && self.lowest[0] == UNREAD {
            return Err(ScanError("a scan comes before the one that it refines"));
        }
        for lowest in &mut self.lowest[band.first..=band.last] {
            if *lowest != expected {
                return Err(ScanError("a scan does not follow those before it"));
            }
            *lowest = band.low;
        }
        Ok(())
    }
}

/// Parses a scan header.
fn parse(frame: &Frame, header: &[u8]) -> Result<(Vec<Member>, Band), ScanError> {
    let [n, rest @ ..] = header else { return Err(ScanError("a scan header is cut off")) };
    let (described, rest) = rest.split_at_checked(2 * usize::from(*n)).ok_or("a scan header is cut off")?;
    let &[first, last, bits, ..] = rest else { return Err(ScanError("a scan header is cut off")) };
    let mut members: Vec<Member> = Vec::new();
    for &[id, table] in described.as_chunks().0 {
        let is_new = |index: &usize| members.iter().all(|member| member.index != *index);
        let found = frame.components.iter().enumerate().filter(|(_, component)| component.id == id);
        let index = found.map(|(index, _)| index).find(is_new).ok_or("a scan has a channel that the frame lacks")?;
        members.push(Member { index, dc: usize::from(table >> 4), ac: usize::from(table & 15) });
    }
    let band = if frame.progressive {
        Band { first: first.into(), last: last.into(), high: (bits >> 4).into(), low: (bits & 15).into() }
    } else {
        Band { first: 0, last: 63, high: 0, low: 0 }
    };
    let is_valid = match band {
        Band { first: 0, last: 1.., .. } => !frame.progressive,
        Band { first: 0, .. } => true,
        Band { first, last, .. } => first <= last && last < 64 && members.len() == 1,
    };
    if members.is_empty() || !is_valid || band.low > 13 || (band.high > 0 && band.high != band.low + 1) {
        return Err(ScanError("a scan header has values that do not go together"));
    }
    Ok((members, band))
}

/// The state of reading blocks.
struct Blocks<'a> {
    bits: Bits<'a>,
    /// The last DC coefficient of each component in the scan.
    previous: [i32; 4],
    n_empty: u32,
    /// MCUs so far.
    n_units: usize,
    tables: &'a Tables,
}

fn table(tables: &[Option<Table>; 4], index: usize) -> Result<&Table, Damage> {
    tables.get(index).and_then(Option::as_ref).ok_or("a Huffman table is missing")
}

impl Blocks<'_> {
    /// Reads the restart marker where one is due.
    fn begin_unit(&mut self) -> Result<(), Damage> {
        let interval = self.tables.restart;
        if interval > 0 && self.n_units > 0 && self.n_units.is_multiple_of(interval) {
            self.bits.restart(self.n_units / interval - 1)?;
            (self.previous, self.n_empty) = ([0; 4], 0);
        }
        self.n_units += 1;
        Ok(())
    }

    /// A whole block.
    #[inline(always)]
    fn sequential(&mut self, n: usize, member: Member, block: &mut [i16; 64]) -> Result<(), Damage> {
        let ac = table(&self.tables.ac, member.ac)?;
        progressive::dc_first(&mut self.bits, table(&self.tables.dc, member.dc)?, &mut self.previous[n], 0, block)?;
        let mut k = 1;
        while k < 64 {
            let code = ac.read(&mut self.bits)?;
            let (run, size) = (usize::from(code >> 4), u32::from(code & 15));
            if size == 0 && run < 15 {
                break;
            }
            k += run;
            if size > 0 {
                let place = *ZIGZAG.get(k).ok_or("a coefficient is outside its block")?;
                block[usize::from(place)] = self.bits.take_signed(size) as i16;
            }
            k += 1;
        }
        self.bits.check()
    }

    fn progressive(&mut self, n: usize, member: Member, band: Band, block: &mut [i16; 64]) -> Result<(), Damage> {
        let (bits, tables) = (&mut self.bits, self.tables);
        match (band.first, band.high) {
            (0, 0) => {
                progressive::dc_first(bits, table(&tables.dc, member.dc)?, &mut self.previous[n], band.low, block)
            }
            (0, _) => progressive::dc_refine(bits, band.low, block),
            (_, 0) => progressive::ac_first(bits, table(&tables.ac, member.ac)?, band, &mut self.n_empty, block),
            _ => progressive::ac_refine(bits, table(&tables.ac, member.ac)?, band, &mut self.n_empty, block),
        }
    }
}

/// Visits the blocks of a scan in their order: `visit` gets the component's place in the scan, row and column. A scan
/// of one component has the blocks that the image needs, one of several has whole MCUs.
fn walk<'a>(
    frame: &Frame,
    members: &[Member],
    blocks: &mut Blocks<'a>,
    mut visit: impl FnMut(&mut Blocks<'a>, usize, usize, usize) -> Result<(), Damage>,
) -> Result<(), Damage> {
    if let [only] = members {
        let component = &frame.components[only.index];
        for row in 0..component.height.div_ceil(8) {
            for column in 0..component.width.div_ceil(8) {
                blocks.begin_unit()?;
                visit(blocks, 0, row, column)?;
            }
        }
        return Ok(());
    }
    for mcu_row in 0..frame.mcu_rows {
        for mcu_column in 0..frame.mcu_columns {
            blocks.begin_unit()?;
            for (n, member) in members.iter().enumerate() {
                let component = &frame.components[member.index];
                for (y, x) in (0..component.v).flat_map(|y| (0..component.h).map(move |x| (y, x))) {
                    visit(blocks, n, mcu_row * component.v + y, mcu_column * component.h + x)?;
                }
            }
        }
    }
    Ok(())
}
