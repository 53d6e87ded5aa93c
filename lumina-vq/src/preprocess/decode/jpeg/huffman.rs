//! Huffman tables.

use super::bits::Bits;
use super::segments::Damage;

/// Codes of at most so many bits are looked up at once.
const LOOKUP_BITS: u32 = 9;

/// A Huffman table.
pub(super) struct Table {
    /// By the next bits: length of the code × 256 + value; 0 for longer codes.
    lookup: [u16; 1 << LOOKUP_BITS],
    /// By length: the largest code of that length, or −1.
    largest: [i32; 17],
    /// By length: the index of a value is this plus the code.
    offset: [i32; 17],
    values: Vec<u8>,
}

impl Table {
    /// The table of codes of which `counts[n − 1]` have `n` bits, in the order of their `values`.
    pub(super) fn new(counts: &[u8; 16], values: &[u8]) -> Result<Self, Damage> {
        let mut table = Self { lookup: [0; _], largest: [-1; 17], offset: [0; 17], values: values.to_vec() };
        let (mut code, mut index) = (0i32, 0usize);
        for (length, &count) in (1u32..).zip(counts) {
            table.offset[length as usize] = index as i32 - code;
            for _ in 0..count {
                if code >= 1 << length {
                    return Err("a Huffman table has too many codes");
                }
                let value = *values.get(index).ok_or("a Huffman table lacks values")?;
                if length <= LOOKUP_BITS {
                    let first = (code as usize) << (LOOKUP_BITS - length);
                    let same = 1 << (LOOKUP_BITS - length);
                    table.lookup[first..first + same].fill((length << 8) as u16 | u16::from(value));
                }
                table.largest[length as usize] = code;
                (code, index) = (code + 1, index + 1);
            }
            code <<= 1;
        }
        Ok(table)
    }

    /// The next value. After it at least 16 bits are left to peek at.
    #[inline(always)]
    pub(super) fn read(&self, bits: &mut Bits<'_>) -> Result<u8, Damage> {
        bits.refill();
        let entry = self.lookup[bits.peek(LOOKUP_BITS) as usize];
        if entry == 0 {
            return self.read_long(bits);
        }
        bits.consume(u32::from(entry >> 8));
        Ok(entry as u8)
    }

    #[cold]
    fn read_long(&self, bits: &mut Bits<'_>) -> Result<u8, Damage> {
        for length in LOOKUP_BITS + 1..=16 {
            let code = bits.peek(length) as i32;
            if code <= self.largest[length as usize] {
                bits.consume(length);
                let index = (code + self.offset[length as usize]) as usize;
                return self.values.get(index).copied().ok_or("a Huffman code has no value");
            }
        }
        bits.check()?;
        Err("a Huffman code is not in its table")
    }
}

/// Annex K of the standard: the tables of luma and chroma, which most encoders write.
impl Table {
    pub(super) fn usual_dc() -> [Self; 4] {
        const VALUES: [u8; 12] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11];
        const COUNTS: [[u8; 16]; 2] =
            [[0, 1, 5, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0], [0, 3, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0]];
        [0, 1, 0, 1].map(|i: usize| Self::new(&COUNTS[i], &VALUES).expect("the table of the standard is valid"))
    }

    pub(super) fn usual_ac() -> [Self; 4] {
        const COUNTS: [[u8; 16]; 2] =
            [[0, 2, 1, 3, 3, 2, 4, 3, 5, 5, 4, 4, 0, 0, 1, 0x7D], [0, 2, 1, 2, 4, 4, 3, 4, 7, 5, 4, 4, 0, 1, 2, 0x77]];
        const VALUES: [&[u8; 162]; 2] = [
            b"\x01\x02\x03\x00\x04\x11\x05\x12\x21\x31\x41\x06\x13\x51\x61\x07\x22\x71\x14\x32\x81\x91\xa1\x08\x23\x42\
            \xb1\xc1\x15\x52\xd1\xf0\x24\x33\x62\x72\x82\x09\x0a\x16\x17\x18\x19\x1a\x25\x26\x27\x28\x29\x2a\x34\x35\
            \x36\x37\x38\x39\x3a\x43\x44\x45\x46\x47\x48\x49\x4a\x53\x54\x55\x56\x57\x58\x59\x5a\x63\x64\x65\x66\x67\
            \x68\x69\x6a\x73\x74\x75\x76\x77\x78\x79\x7a\x83\x84\x85\x86\x87\x88\x89\x8a\x92\x93\x94\x95\x96\x97\x98\
            \x99\x9a\xa2\xa3\xa4\xa5\xa6\xa7\xa8\xa9\xaa\xb2\xb3\xb4\xb5\xb6\xb7\xb8\xb9\xba\xc2\xc3\xc4\xc5\xc6\xc7\
            \xc8\xc9\xca\xd2\xd3\xd4\xd5\xd6\xd7\xd8\xd9\xda\xe1\xe2\xe3\xe4\xe5\xe6\xe7\xe8\xe9\xea\xf1\xf2\xf3\xf4\
            \xf5\xf6\xf7\xf8\xf9\xfa",
            b"\x00\x01\x02\x03\x11\x04\x05\x21\x31\x06\x12\x41\x51\x07\x61\x71\x13\x22\x32\x81\x08\x14\x42\x91\xa1\xb1\
            \xc1\x09\x23\x33\x52\xf0\x15\x62\x72\xd1\x0a\x16\x24\x34\xe1\x25\xf1\x17\x18\x19\x1a\x26\x27\x28\x29\x2a\
            \x35\x36\x37\x38\x39\x3a\x43\x44\x45\x46\x47\x48\x49\x4a\x53\x54\x55\x56\x57\x58\x59\x5a\x63\x64\x65\x66\
            \x67\x68\x69\x6a\x73\x74\x75\x76\x77\x78\x79\x7a\x82\x83\x84\x85\x86\x87\x88\x89\x8a\x92\x93\x94\x95\x96\
            \x97\x98\x99\x9a\xa2\xa3\xa4\xa5\xa6\xa7\xa8\xa9\xaa\xb2\xb3\xb4\xb5\xb6\xb7\xb8\xb9\xba\xc2\xc3\xc4\xc5\
            \xc6\xc7\xc8\xc9\xca\xd2\xd3\xd4\xd5\xd6\xd7\xd8\xd9\xda\xe2\xe3\xe4\xe5\xe6\xe7\xe8\xe9\xea\xf2\xf3\xf4\
            \xf5\xf6\xf7\xf8\xf9\xfa",
        ];
        [0, 1, 0, 1].map(|i: usize| Self::new(&COUNTS[i], VALUES[i]).expect("the table of the standard is valid"))
    }
}
