//! Kernels of `draw` and `attention`.

use cubecl::prelude::*;

use super::{CUDA, EVERYWHERE, Sources, buffer};
use crate::attention::{AttentionShape, KvFormat, combine, norm_rotate, prompt, split};
use crate::draw;
use crate::matmul::MatmulPrecision;

pub(super) fn draws(s: &mut Sources) {
    let count = || CubeCount::Static(1, 1, 1);
    let b = || buffer(1 << 16);
    for masked in [false, true] {
        for units in [256usize, 1024] {
            let variant = format!("{units}{}", if masked { "_masked" } else { "" });
            s.add(EVERYWHERE, "draw::kernel", &variant, |p, t| {
                let dim = CubeDim::new_1d(units as u32);
                draw::kernel::create_dummy_kernel(
                    p,
                    t,
                    count(),
                    dim,
                    b(),
                    b(),
                    b(),
                    b(),
                    b(),
                    1,
                    9,
                    0,
                    3,
                    masked,
                    units,
                )
            });
        }
    }
}

/// Kernels of `attention`, for 32 heads of 128 numbers.
pub(super) fn attention(s: &mut Sources) {
    let count = || CubeCount::Static(1, 1, 1);
    let b = || buffer(1 << 16);
    for (format, name) in
        [(KvFormat::F32, "f32"), (KvFormat::F16, "f16"), (KvFormat::BF16, "bf16"), (KvFormat::Q8_0, "q8_0")]
    {
        let shape = AttentionShape { heads: 32, kv_heads: 32, head_dim: 128, format };
        let config = norm_rotate::Config { shape, q_group: 1, k_group: 1, lanes: 32 };
        s.add(EVERYWHERE, "attention::norm_rotate::kernel", name, |p, t| {
            norm_rotate::kernel::create_dummy_kernel(
                p,
                t,
                count(),
                CubeDim::new_2d(32, 8),
                b(),
                b(),
                b(),
                b(),
                b(),
                b(),
                b(),
                b(),
                b(),
                b(),
                b(),
                b(),
                b(),
                b(),
                9,
                64,
                1e-5,
                0,
                config,
            )
        });
        for tokens in [1usize, 4] {
            let config = split::Config { shape, tokens, heads: 1, lanes: 32, is_masked: tokens > 1 };
            s.add(EVERYWHERE, "attention::split::kernel", &format!("{name}_{tokens}"), |p, t| {
                split::kernel::create_dummy_kernel(
                    p,
                    t,
                    count(),
                    CubeDim::new_1d((config.lanes * config.teams()) as u32),
                    b(),
                    b(),
                    b(),
                    b(),
                    b(),
                    b(),
                    b(),
                    b(),
                    b(),
                    b(),
                    b(),
                    split::SizesLaunch::new(64, 0, 0, 1),
                    0.1,
                    config,
                )
            });
        }
        for precision in [MatmulPrecision::High, MatmulPrecision::Fast] {
            for head_dim in [32, 64, 128] {
                let config = prompt::Config::new(AttentionShape { head_dim, ..shape }, precision);
                // Tensor cores have no numbers in 32 bits.
                if format == KvFormat::F32 {
                    continue;
                }
                s.add(CUDA, "attention::prompt::flash::kernel", &format!("{name}_{precision:?}_{head_dim}"), |p, t| {
                    prompt::flash::kernel::create_dummy_kernel(
                        p,
                        t,
                        count(),
                        CubeDim::new_1d(config.units() as u32),
                        b(),
                        b(),
                        b(),
                        b(),
                        b(),
                        b(),
                        b(),
                        b(),
                        prompt::flash::SizesLaunch::new(64, 9),
                        0.1,
                        config,
                    )
                });
            }
        }
        s.add(EVERYWHERE, "attention::combine::kernel", name, |p, t| {
            let dim = CubeDim::new_1d(128);
            combine::kernel::create_dummy_kernel(p, t, count(), dim, b(), b(), b(), b(), b(), 0, 16, shape)
        });
    }
}
