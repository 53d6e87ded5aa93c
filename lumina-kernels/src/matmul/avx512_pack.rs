//! Panels with AVX-512: 16 rows are read a cache line each, turned in registers so that a row becomes a lane, and stored.

use std::arch::x86_64::*;

use super::arithmetic::{Arithmetic, PANEL_BLOCK};
use super::kernel::Source;
use super::portable;
use crate::Format;
use crate::format::{q4_0, q8_0};
use crate::scratch::Lanes;

/// Bytes of a vector, and of a cache line.
const LINE: usize = 64;

pub(super) fn pack(arithmetic: Arithmetic, format: Format) -> unsafe fn(&Source<'_>, &mut [Lanes]) {
    match (arithmetic, format) {
        (Arithmetic::Bfloat, _) => pairs,
        (Arithmetic::Bytes { .. }, Format::Q8_0) => bytes,
        (Arithmetic::Bytes { .. }, _) => nibbles,
        (_, Format::F32) => floats,
        (_, Format::BF16) => widened_bfloats,
        (_, Format::F16) => widened_halves,
        _ => blocks_as_floats,
    }
}

/// What the compiler makes of the plain code with wider vectors.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c")]
fn blocks_as_floats(source: &Source<'_>, panel: &mut [Lanes]) {
    portable::float_panel(source, panel);
}

#[target_feature(enable = "avx512f")]
fn floats(source: &Source<'_>, panel: &mut [Lanes]) {
    lines(source, source.step * 4, source.steps / 16, |line, vectors| {
        for (vector, to) in vectors.iter().zip(&mut panel[line * 16..]) {
            store(to, *vector);
        }
    });
    rest(source, source.steps / 16 * 16, panel);
}

#[target_feature(enable = "avx512f")]
fn pairs(source: &Source<'_>, panel: &mut [Lanes]) {
    let whole = whole_lines(source, source.step * 4, source.steps / 16);
    lines(source, source.step * 4, whole, |line, vectors| {
        for (vector, to) in vectors.iter().zip(&mut panel[line * 16..]) {
            store(to, *vector);
        }
    });
    if whole * 16 < source.steps {
        portable::pairs_panel(source, whole * 16, panel);
    }
}

#[target_feature(enable = "avx512f")]
fn widened_bfloats(source: &Source<'_>, panel: &mut [Lanes]) {
    lines(source, source.step * 2, source.steps / 32, |line, vectors| {
        for (pair, to) in vectors.iter().zip(panel[line * 32..].as_chunks_mut::<2>().0) {
            store(&mut to[0], _mm512_slli_epi32::<16>(*pair));
            store(&mut to[1], _mm512_and_si512(*pair, _mm512_set1_epi32(0xFFFF_0000u32.cast_signed())));
        }
    });
    rest(source, source.steps / 32 * 32, panel);
}

#[target_feature(enable = "avx512f")]
fn widened_halves(source: &Source<'_>, panel: &mut [Lanes]) {
    lines(source, source.step * 2, source.steps / 32, |line, vectors| {
        for (pair, to) in vectors.iter().zip(panel[line * 32..].as_chunks_mut::<2>().0) {
            let low = _mm512_cvtph_ps(_mm512_cvtepi32_epi16(*pair));
            let high = _mm512_cvtph_ps(_mm512_cvtepi32_epi16(_mm512_srli_epi32::<16>(*pair)));
            store(&mut to[0], _mm512_castps_si512(low));
            store(&mut to[1], _mm512_castps_si512(high));
        }
    });
    rest(source, source.steps / 32 * 32, panel);
}

/// Of `wanted` whole lines from byte `start` of a row, those that a row has.
fn whole_lines(source: &Source<'_>, start: usize, wanted: usize) -> usize {
    wanted.min(source.lane(0, start).len() / LINE)
}

/// Steps of `f32` arithmetic that fill no line.
fn rest(source: &Source<'_>, done: usize, panel: &mut [Lanes]) {
    if done < source.steps {
        let source = Source { step: source.step + done, steps: source.steps - done, ahead: &[], ..*source };
        portable::float_panel(&source, &mut panel[done..]);
    }
}

/// Calls `each` with every line of words, turned: 16 vectors, each with a word of every row.
#[inline]
#[target_feature(enable = "avx512f")]
fn lines(source: &Source<'_>, start: usize, count: usize, mut each: impl FnMut(usize, &[__m512i; 16])) {
    let rows = lanes(source, start);
    let mut ahead = source.ahead.chunks(LINE);
    for line in 0..count {
        let mut vectors = [_mm512_setzero_si512(); 16];
        for (vector, row) in vectors.iter_mut().zip(&rows) {
            *vector = load(&row[line * LINE..]);
            fetch(ahead.next());
        }
        each(line, &turn(vectors));
    }
}

/// The bytes of all rows, from byte `start` of each.
fn lanes<'a>(source: &Source<'a>, start: usize) -> [&'a [u8]; 16] {
    std::array::from_fn(|lane| source.lane(lane, start))
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn bytes(source: &Source<'_>, panel: &mut [Lanes]) {
    let rows = lanes(source, source.step * q8_0::BYTES);
    let mut ahead = source.ahead.chunks(LINE);
    for (block, to) in panel.as_chunks_mut::<PANEL_BLOCK>().0.iter_mut().enumerate() {
        let start = block * q8_0::BYTES;
        // Vector r of the first four has rows r and r + 4, of the others rows r + 4 and r + 8 of 16.
        let mut vectors = [_mm512_setzero_si512(); 8];
        for (r, vector) in vectors.iter_mut().enumerate() {
            let row = if r < 4 { r } else { r + 4 };
            let (low, high) = (&rows[row][start + q8_0::QUANTS..], &rows[row + 4][start + q8_0::QUANTS..]);
            *vector = _mm512_inserti64x4::<1>(_mm512_castsi256_si512(load_half(low)), load_half(high));
            fetch(ahead.next());
        }
        fetch(ahead.next());
        let first = turn_quarters([vectors[0], vectors[1], vectors[2], vectors[3]]);
        let second = turn_quarters([vectors[4], vectors[5], vectors[6], vectors[7]]);
        let shift = _mm512_set1_epi8(i8::MIN);
        for j in 0..4 {
            let low = _mm512_shuffle_i32x4::<0b10_00_10_00>(first[j], second[j]);
            let high = _mm512_shuffle_i32x4::<0b11_01_11_01>(first[j], second[j]);
            store(&mut to[j], _mm512_xor_si512(low, shift));
            store(&mut to[j + 4], _mm512_xor_si512(high, shift));
        }
        scales(&rows, start, &mut to[PANEL_BLOCK - 1]);
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn nibbles(source: &Source<'_>, panel: &mut [Lanes]) {
    let rows = lanes(source, source.step * q4_0::BYTES);
    let mut ahead = source.ahead.chunks(LINE);
    for (block, to) in panel.as_chunks_mut::<PANEL_BLOCK>().0.iter_mut().enumerate() {
        let start = block * q4_0::BYTES + q4_0::QUANTS;
        let mut vectors = [_mm512_setzero_si512(); 4];
        for (r, vector) in vectors.iter_mut().enumerate() {
            let quarter = |row: usize| load_quarter(&rows[row][start..]);
            let low = _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(quarter(r)), quarter(r + 4));
            let high = _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(quarter(r + 8)), quarter(r + 12));
            *vector = _mm512_inserti64x4::<1>(_mm512_castsi256_si512(low), high);
            fetch(ahead.next());
        }
        fetch(ahead.next());
        let vectors = turn_quarters(vectors);
        let mask = _mm512_set1_epi8(15);
        for j in 0..4 {
            store(&mut to[j], _mm512_and_si512(vectors[j], mask));
            store(&mut to[j + 4], _mm512_and_si512(_mm512_srli_epi16::<4>(vectors[j]), mask));
        }
        scales(&rows, start - q4_0::QUANTS, &mut to[PANEL_BLOCK - 1]);
    }
}

/// The `f16` at byte `start` of every row, widened.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn scales(rows: &[&[u8]; 16], start: usize, to: &mut Lanes) {
    let mut halves = [0u16; 16];
    for (half, row) in halves.iter_mut().zip(rows) {
        *half = u16::from_le_bytes([row[start], row[start + 1]]);
    }
    let halves = load_half(halves.map(u16::to_ne_bytes).as_flattened());
    store(to, _mm512_castps_si512(_mm512_cvtph_ps(halves)));
}

/// Turns 16 × 16 words.
#[inline]
#[target_feature(enable = "avx512f")]
fn turn(rows: [__m512i; 16]) -> [__m512i; 16] {
    let mut result = rows;
    // Quarter q of `parts[g][j]` has word 4q + j of rows 4g … 4g + 3.
    let mut parts = [[_mm512_setzero_si512(); 4]; 4];
    for g in 0..4 {
        parts[g] = turn_quarters([rows[4 * g], rows[4 * g + 1], rows[4 * g + 2], rows[4 * g + 3]]);
    }
    for j in 0..4 {
        let even_low = _mm512_shuffle_i32x4::<0b10_00_10_00>(parts[0][j], parts[1][j]);
        let odd_low = _mm512_shuffle_i32x4::<0b11_01_11_01>(parts[0][j], parts[1][j]);
        let even_high = _mm512_shuffle_i32x4::<0b10_00_10_00>(parts[2][j], parts[3][j]);
        let odd_high = _mm512_shuffle_i32x4::<0b11_01_11_01>(parts[2][j], parts[3][j]);
        result[j] = _mm512_shuffle_i32x4::<0b10_00_10_00>(even_low, even_high);
        result[j + 8] = _mm512_shuffle_i32x4::<0b11_01_11_01>(even_low, even_high);
        result[j + 4] = _mm512_shuffle_i32x4::<0b10_00_10_00>(odd_low, odd_high);
        result[j + 12] = _mm512_shuffle_i32x4::<0b11_01_11_01>(odd_low, odd_high);
    }
    result
}

/// Turns 4 × 4 words within each quarter.
#[inline]
#[target_feature(enable = "avx512f")]
fn turn_quarters(rows: [__m512i; 4]) -> [__m512i; 4] {
    let [a, b, c, d] = rows;
    let (ab_low, ab_high) = (_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
    let (cd_low, cd_high) = (_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
    [
        _mm512_unpacklo_epi64(ab_low, cd_low),
        _mm512_unpackhi_epi64(ab_low, cd_low),
        _mm512_unpacklo_epi64(ab_high, cd_high),
        _mm512_unpackhi_epi64(ab_high, cd_high),
    ]
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load(bytes: &[u8]) -> __m512i {
    let line: &[u8; LINE] = bytes.first_chunk().expect("callers count whole lines");
    #[allow(unsafe_code, reason = "the instruction takes a pointer")]
    // SAFETY: `line` is 64 bytes; the instruction asks for no alignment.
    unsafe {
        _mm512_loadu_si512(line.as_ptr().cast())
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load_half(bytes: &[u8]) -> __m256i {
    let half: &[u8; 32] = bytes.first_chunk().expect("a block holds as many");
    #[allow(unsafe_code, reason = "the instruction takes a pointer")]
    // SAFETY: `half` is 32 bytes; the instruction asks for no alignment.
    unsafe {
        _mm256_loadu_si256(half.as_ptr().cast())
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load_quarter(bytes: &[u8]) -> __m128i {
    let quarter: &[u8; 16] = bytes.first_chunk().expect("a block holds as many");
    #[allow(unsafe_code, reason = "the instruction takes a pointer")]
    // SAFETY: `quarter` is 16 bytes; the instruction asks for no alignment.
    unsafe {
        _mm_loadu_si128(quarter.as_ptr().cast())
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn store(to: &mut Lanes, vector: __m512i) {
    #[allow(unsafe_code, reason = "the instruction takes a pointer")]
    // SAFETY: a `Lanes` is 64 bytes, aligned to 64.
    unsafe {
        _mm512_store_si512(to.0.as_mut_ptr().cast(), vector);
    }
}

/// Asks for a line of memory that will be wanted soon.
#[inline(always)]
fn fetch(line: Option<&[u8]>) {
    if let Some(line) = line {
        #[allow(unsafe_code, reason = "the instruction takes a pointer")]
        // SAFETY: a prefetch reads nothing, and the pointer is that of a slice.
        unsafe {
            _mm_prefetch::<_MM_HINT_T1>(line.as_ptr().cast());
        }
    }
}
