//! The frame header: the size of the image, and how its components are sampled.

use super::super::encoded::EncodedImage;
use crate::Result;

/// A component: a plane of samples that may be coarser than the image.
pub(super) struct Component {
    pub(super) id: u8,
    /// Sampling factors, 1..=4.
    pub(super) h: usize,
    pub(super) v: usize,
    /// The place of its quantization table.
    pub(super) quantization: usize,
    /// Samples that the image has.
    pub(super) width: usize,
    pub(super) height: usize,
    /// Blocks of 8×8 samples, with those that only complete an MCU.
    pub(super) block_columns: usize,
    pub(super) block_rows: usize,
}

impl Component {
    /// Samples in a row of the plane, with those that only complete an MCU.
    pub(super) fn stride(&self) -> usize {
        8 * self.block_columns
    }

    pub(super) fn n_blocks(&self) -> usize {
        self.block_columns * self.block_rows
    }
}

/// The frame of an image.
pub(super) struct Frame {
    pub(super) progressive: bool,
    pub(super) width: usize,
    pub(super) height: usize,
    pub(super) components: Vec<Component>,
    /// The largest sampling factors.
    pub(super) h_max: usize,
    pub(super) v_max: usize,
    /// Columns and rows of MCUs in a scan of several components.
    pub(super) mcu_columns: usize,
    pub(super) mcu_rows: usize,
}

impl Frame {
    /// Parses SOF0, SOF1 or SOF2, and checks the size against the limits.
    pub(super) fn parse(encoded: &EncodedImage<'_>, payload: &[u8], progressive: bool) -> Result<Self> {
        let damaged = |reason: &'static str| encoded.damaged("JPEG", reason);
        let (&[bits, y1, y0, x1, x0, n], rest) =
            payload.split_first_chunk().ok_or_else(|| damaged("its frame header is cut off"))?;
        let [width, height] = [[x1, x0], [y1, y0]].map(|side| usize::from(u16::from_be_bytes(side)));
        encoded.check((width as u32, height as u32))?;
        if bits != 8 {
            return Err(encoded.unsupported(format!("a JPEG of {bits} bits a sample is not supported")));
        }
        if !matches!(n, 1 | 3 | 4) {
            return Err(encoded.unsupported(format!("a JPEG of {n} channels is not supported")));
        }
        let described = rest.as_chunks::<3>().0;
        if described.len() != usize::from(n) {
            return Err(damaged("its frame header has another number of channels than it states"));
        }
        let factors = |sampling: u8| (usize::from(sampling >> 4), usize::from(sampling & 15));
        if described.iter().map(|&[_, sampling, _]| factors(sampling)).any(|(h, v)| h * v == 0 || h > 4 || v > 4) {
            return Err(damaged("a sampling factor is not from 1 to 4"));
        }
        let h_max = described.iter().map(|&[_, sampling, _]| factors(sampling).0).max().unwrap_or(1);
        let v_max = described.iter().map(|&[_, sampling, _]| factors(sampling).1).max().unwrap_or(1);
        let (mcu_columns, mcu_rows) = (width.div_ceil(8 * h_max), height.div_ceil(8 * v_max));
        let component = |&[id, sampling, quantization]: &[u8; 3]| {
            let (h, v) = factors(sampling);
            let (width, height) = ((width * h).div_ceil(h_max), (height * v).div_ceil(v_max));
            let (block_columns, block_rows) = (mcu_columns * h, mcu_rows * v);
            Component { id, h, v, quantization: usize::from(quantization), width, height, block_columns, block_rows }
        };
        let components: Vec<Component> = described.iter().map(component).collect();
        if components.iter().any(|component| h_max % component.h != 0 || v_max % component.v != 0) {
            return Err(encoded.unsupported("a JPEG whose sampling factors are no multiples of each other"));
        }
        Ok(Self { progressive, width, height, components, h_max, v_max, mcu_columns, mcu_rows })
    }

    /// Columns of whole MCUs, for rows of upsampled samples.
    pub(super) fn padded_width(&self) -> usize {
        8 * self.h_max * self.mcu_columns
    }
}
