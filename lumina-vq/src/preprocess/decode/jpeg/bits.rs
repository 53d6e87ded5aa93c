//! The bits of a scan.

use super::segments::Damage;

/// Reads the bits of entropy-coded bytes. At a marker, or at the end of the bytes, zeros follow; reading them is an
/// error that [`Bits::check`] reports.
pub(super) struct Bits<'a> {
    bytes: &'a [u8],
    position: usize,
    /// The lowest `n` bits are those that come next.
    buffer: u64,
    n: u32,
    /// How many of the bits behind the last byte were made up.
    n_made_up: u32,
}

impl<'a> Bits<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, position: 0, buffer: 0, n: 0, n_made_up: 0 }
    }

    /// Bytes that were read, at most up to the next marker.
    pub(super) fn position(&self) -> usize {
        self.position
    }

    /// Makes at least 32 bits available.
    #[inline(always)]
    pub(super) fn refill(&mut self) {
        if self.n >= 32 {
            return;
        }
        if let Some(&word) = self.bytes[self.position..].first_chunk() {
            let word = u32::from_be_bytes(word);
            // No byte of it is 0xFF.
            if (!word).wrapping_sub(0x0101_0101) & word & 0x8080_8080 == 0 {
                self.buffer = self.buffer << 32 | u64::from(word);
                self.n += 32;
                self.position += 4;
                return;
            }
        }
        self.refill_slowly();
    }

    #[cold]
    fn refill_slowly(&mut self) {
        while self.n < 32 {
            let byte = match self.bytes[self.position..] {
                [0xFF, 0, ..] => {
                    self.position += 2;
                    0xFF
                }
                [0xFF, 0xFF, ..] => {
                    self.position += 1;
                    continue;
                }
                [0xFF, ..] | [] => {
                    self.n_made_up = self.n_made_up.saturating_add(8);
                    0
                }
                [byte, ..] => {
                    self.position += 1;
                    byte
                }
            };
            self.buffer = self.buffer << 8 | u64::from(byte);
            self.n += 8;
        }
    }

    /// The next `n` ≤ 32 bits, which [`Bits::refill`] made available.
    #[inline(always)]
    pub(super) fn peek(&self, n: u32) -> u32 {
        ((self.buffer >> (self.n - n)) & ((1 << n) - 1)) as u32
    }

    #[inline(always)]
    pub(super) fn consume(&mut self, n: u32) {
        self.n -= n;
    }

    /// The next `n` ≤ 16 bits.
    #[inline(always)]
    pub(super) fn take(&mut self, n: u32) -> u32 {
        self.refill();
        let bits = self.peek(n);
        self.consume(n);
        bits
    }

    /// A signed number of `n` ≤ 16 bits: the lower half of their range is negative.
    #[inline(always)]
    pub(super) fn take_signed(&mut self, n: u32) -> i32 {
        let bits = self.take(n) as i32;
        if n > 0 && bits < 1 << (n - 1) { bits - (1 << n) + 1 } else { bits }
    }

    /// Fails if bits were read that the file does not have.
    #[inline(always)]
    pub(super) fn check(&self) -> Result<(), Damage> {
        if self.n < self.n_made_up { Err("a scan is cut off") } else { Ok(()) }
    }

    /// Goes on behind the restart marker with the number `index`, modulo 8.
    pub(super) fn restart(&mut self, index: usize) -> Result<(), Damage> {
        self.check()?;
        let rest = &self.bytes[self.position..];
        let marker = rest.windows(2).position(|pair| pair[0] == 0xFF && !matches!(pair[1], 0 | 0xFF));
        let at =
            marker.filter(|&at| usize::from(rest[at + 1]) == 0xD0 + index % 8).ok_or("a restart marker is missing")?;
        *self = Self { position: self.position + at + 2, ..Self::new(self.bytes) };
        Ok(())
    }
}
