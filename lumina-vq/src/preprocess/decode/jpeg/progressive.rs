//! The blocks of progressive scans. Mirrors libjpeg's `jdphuff.c`.

use super::bits::Bits;
use super::huffman::Table;
use super::idct::ZIGZAG;
use super::segments::Damage;

const OUTSIDE: Damage = "a coefficient is outside its block";

/// Which coefficients of a block a scan has, and which bits of them.
#[derive(Clone, Copy)]
pub(super) struct Band {
    /// First and last coefficient, in zigzag order.
    pub(super) first: usize,
    pub(super) last: usize,
    /// The lowest bit that earlier scans had; 0 for none.
    pub(super) high: u32,
    /// The lowest bit that this scan has.
    pub(super) low: u32,
}

/// The upper bits of a block's DC coefficient.
pub(super) fn dc_first(
    bits: &mut Bits<'_>,
    table: &Table,
    previous: &mut i32,
    low: u32,
    block: &mut [i16; 64],
) -> Result<(), Damage> {
    let size = table.read(bits)?;
    if size > 16 {
        return Err("a difference has too many bits");
    }
    *previous = previous.wrapping_add(bits.take_signed(u32::from(size)));
    block[0] = (*previous << low) as i16;
    bits.check()
}

/// One more bit of a block's DC coefficient.
pub(super) fn dc_refine(bits: &mut Bits<'_>, low: u32, block: &mut [i16; 64]) -> Result<(), Damage> {
    block[0] |= (bits.take(1) << low) as i16;
    bits.check()
}

/// The upper bits of a band. `n_empty` counts the blocks that a code declared empty.
pub(super) fn ac_first(
    bits: &mut Bits<'_>,
    table: &Table,
    band: Band,
    n_empty: &mut u32,
    block: &mut [i16; 64],
) -> Result<(), Damage> {
    if *n_empty > 0 {
        *n_empty -= 1;
        return Ok(());
    }
    let mut k = band.first;
    while k <= band.last {
        let code = table.read(bits)?;
        let (run, size) = (usize::from(code >> 4), u32::from(code & 15));
        if size == 0 && run < 15 {
            *n_empty = (1 << run) - 1 + bits.take(run as u32);
            break;
        }
        k += run;
        if size > 0 {
            let place = *ZIGZAG.get(k).ok_or(OUTSIDE)?;
            block[usize::from(place)] = (bits.take_signed(size) << band.low) as i16;
        }
        k += 1;
    }
    bits.check()
}

/// One more bit of each coefficient of a band, and those that become non-zero by it.
pub(super) fn ac_refine(
    bits: &mut Bits<'_>,
    table: &Table,
    band: Band,
    n_empty: &mut u32,
    block: &mut [i16; 64],
) -> Result<(), Damage> {
    let bit = 1i16 << band.low;
    let refine = |bits: &mut Bits<'_>, coefficient: &mut i16| {
        if bits.take(1) == 1 && *coefficient & bit == 0 {
            let change = if *coefficient >= 0 { bit } else { -bit };
            *coefficient = coefficient.wrapping_add(change);
        }
    };
    let mut k = band.first;
    if *n_empty == 0 {
        while k <= band.last {
            let code = table.read(bits)?;
            let (mut run, size) = (code >> 4, code & 15);
            let mut new = 0;
            if size > 0 {
                new = if bits.take(1) == 1 { bit } else { -bit };
            } else if run < 15 {
                *n_empty = (1 << run) + bits.take(u32::from(run));
                break;
            }
            // Passes over non-zero coefficients, which get a bit each, and over `run` that stay zero.
            while k <= band.last {
                let coefficient = &mut block[usize::from(ZIGZAG[k])];
                if *coefficient != 0 {
                    refine(bits, coefficient);
                } else if run == 0 {
                    *coefficient = new;
                    break;
                } else {
                    run -= 1;
                }
                k += 1;
            }
            k += 1;
        }
    }
    if *n_empty > 0 {
        *n_empty -= 1;
        for place in ZIGZAG.iter().take(band.last + 1).skip(k) {
            let coefficient = &mut block[usize::from(*place)];
            if *coefficient != 0 {
                refine(bits, coefficient);
            }
        }
    }
    bits.check()
}
