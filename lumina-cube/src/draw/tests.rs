//! The parts of a draw against those of the host, one by one.
#![allow(clippy::unwrap_used, reason = "a panic is the failure")]

use super::*;
use crate::DeviceChoice;
use lumina_sampling::race;

/// For each unit the quotient of two floats; depth below the first, noise and its arrival of block `words[unit]`.
#[cube(launch_unchecked)]
fn parts_kernel(words: &[u32], temperature: &[u32], out: &mut [u32]) {
    let unit = ABSOLUTE_POS;
    let word = words[unit];
    let key = NoiseKey {
        seed_low: words[0],
        seed_high: words[1],
        branch_low: words[2],
        branch_high: words[3],
        position: words[4],
    };
    out[unit * 8] = quotient(word, temperature[4], temperature[5], temperature[6]);
    out[unit * 8 + 1] = depth(words[0], word);
    out[unit * 8 + 2] = arrival(word);
    let bits = noise(&key, word >> 2u32);
    #[unroll]
    for n in 0..4usize {
        out[unit * 8 + 4 + n] = bits[n];
    }
}

fn gpu() -> Option<Gpu> {
    let cuda = std::env::var("LUMINA_GPU").is_ok_and(|choice| choice == "cuda");
    Gpu::open(if cuda { DeviceChoice::Cuda(0) } else { DeviceChoice::Wgpu }).ok()
}

const PLAIN: Draw = Draw {
    row: 0,
    unconditional: None,
    guidance_scale: 1.0,
    top_k: 1,
    temperature: 1.0,
    seed: 0,
    branch: 0,
    position: 0,
};

/// Guidance rounds twice, as on the host. Keys ascend as logits do, and those outside of the row or the mask are 0.
#[test]
fn keys_are_those_of_guided_logits() {
    const WIDTH: usize = 4099;
    let Some(gpu) = gpu() else { return };
    let values = |seed| {
        let zeros = [0.0, -0.0, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, f32::MIN];
        let random = lumina_testing::lcg(seed).map(|word| (word >> 8) as f32 / (1 << 19) as f32 - 16.0);
        zeros.into_iter().chain(random).take(WIDTH).collect::<Vec<f32>>()
    };
    let (conditional, unconditional) = (values(1), values(2));
    let key = |logit: f32| match logit.to_bits() {
        0x8000_0000 => 0x8000_0000,
        0xff80_0000 => 0,
        bits if bits >> 31 == 1 => !bits,
        bits => bits | 0x8000_0000,
    };
    let logits = gpu.upload_f32(&[&conditional[..], &unconditional].concat());
    let mask: Vec<u32> = lumina_testing::lcg(3).map(|word| word | 0xff).take(WIDTH.div_ceil(32)).collect();
    let allowed = gpu.upload(&mask);
    for (guidance_scale, first_id) in [(4.0, 4), (1.7, 5), (-0.3, 7), (1.0, 0)] {
        let other = (guidance_scale != 1.0).then_some(1);
        let draws = gpu.upload(&Draw { unconditional: other, guidance_scale, ..PLAIN }.words());
        let keys = gpu.empty(n_blocks(first_id, WIDTH) as usize * 4);
        launch(&gpu, &logits, first_id, WIDTH, Some(&allowed), &draws, [&keys, &gpu.empty(1)]);
        let mut guided = conditional.clone();
        if other.is_some() {
            lumina_sampling::guide(&mut guided, &unconditional, guidance_scale);
        }
        let expected = |token: u32| {
            let at = token.checked_sub(first_id).filter(|&at| (at as usize) < WIDTH)? as usize;
            (mask[at / 32] >> (at % 32) & 1 == 1).then_some(guided[at])
        };
        for (token, found) in (first_id / 4 * 4..).zip(gpu.read(&keys).unwrap()) {
            match expected(token) {
                // It is counted, and ends the draw.
                Some(logit) if logit.is_nan() => {}
                logit => assert_eq!(found, logit.map_or(0, key), "{token}, {logit:?}"),
            }
        }
    }
}

/// Each part of a draw against the host's, for words of every size.
#[test]
fn parts_are_those_of_the_host() {
    const N: usize = 1 << 13;
    let Some(gpu) = gpu() else { return };
    let edges = [0, 1, u32::MAX, 0x7fff_ffff, 0x8000_0000, 0x7f80_0000, 0xff80_0000, 0x7f7f_ffff, 0x0080_0000];
    for (index, temperature) in
        [1.0f32, 0.7, 1e-6, 2.5, 0.999_999_94, 1.999_999_9, 1.000_000_1, 3e5, 8e30, f32::MAX].into_iter().enumerate()
    {
        let random = lumina_testing::lcg(index as u32).map(|word| word.rotate_left(13));
        let words: Vec<u32> =
            random.take(5).chain(edges).chain(lumina_testing::lcg(index as u32 + 99)).take(N).collect();
        // The first is the highest logit of the depths.
        let words: Vec<u32> = [20f32.to_bits()].into_iter().chain(words).take(N).collect();
        let out = gpu.empty(N * 8);
        let buffers = [gpu.upload(&words), gpu.upload(&Draw { temperature, ..PLAIN }.words())];
        // SAFETY: there is a word for each unit, and room for its results.
        unsafe {
            parts_kernel::launch_unchecked(
                gpu.client(),
                gpu.cubes_for(N),
                CubeDim::new_1d(256),
                buffers[0].arg(1),
                buffers[1].arg(1),
                out.arg(1),
            );
        }
        let found = gpu.read(&out).unwrap();
        let pair = |at: usize| u64::from(words[at + 1]) << 32 | u64::from(words[at]);
        for (&word, found) in words.iter().zip(found.chunks(8)) {
            let logit = f32::from_bits(word);
            if !logit.is_nan() {
                let quotient = logit / temperature;
                // Below the normal numbers it is zero, as it may be for logits there.
                let is_normal = quotient.is_normal() || !quotient.is_finite();
                let expected = if is_normal && !logit.is_subnormal() { quotient } else { 0f32.copysign(logit) };
                assert_eq!(f32::from_bits(found[0]).to_bits(), expected.to_bits(), "{logit:e} / {temperature:e}");
                if logit <= 20.0 {
                    assert_eq!(found[1], race::depth(20.0, logit), "{logit:e}");
                }
            }
            assert_eq!(found[2], race::arrival(word), "{word:#x}");
            let noise = |n| race::noise(pair(0), pair(2), words[4], word / 4 * 4 + n);
            assert_eq!(found[4..], [0, 1, 2, 3].map(noise), "{word:#x}");
        }
    }
}
