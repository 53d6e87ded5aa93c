#![allow(missing_docs, clippy::print_stdout, clippy::unwrap_used, reason = "scratch")]
use burn::tensor::{Device, Tensor, Distribution, activation};
use burn::tensor::module::conv2d;
use burn::tensor::ops::ConvOptions;
use lumina_core::ops::{conv3x3, scaled_swish};
fn v<const D: usize>(t: Tensor<D>) -> Vec<f32> { t.into_data().try_into_vec().unwrap() }
fn diff(name: &str, a: Vec<f32>, b: Vec<f32>) { let d = a.iter().zip(&b).map(|(a, b)| (a - b).abs()).fold(0.0f32, f32::max); let m = b.iter().fold(0.0f32, |m, x| m.max(x.abs())); println!("{name}: {} {} differ {d:e} of {m}", a.len(), b.len()); }
fn main() {
    let plain = Device::flex();
    for (b, ci, co, h, w) in [(2usize, 64usize, 64usize, 32usize, 32usize), (2, 3, 64, 32, 32), (2, 64, 3, 24, 16), (3, 64, 64, 16, 12)] {
        let r = |s: [usize; 4]| Tensor::<4>::random(s, Distribution::Uniform(-1.0, 1.0), &plain);
        let (x, wt, g) = (r([b, ci, h, w]), r([co, ci, 3, 3]), r([b, co, h, w]));
        let bias = Tensor::<1>::random([co], Distribution::Uniform(-1.0, 1.0), &plain);
        let a = |t: &Tensor<4>| Tensor::<4>::from_inner(t.clone()).require_grad();
        let run = |ours: bool| {
            let (xa, wa) = (a(&x), a(&wt));
            let ba = Tensor::<1>::from_inner(bias.clone()).require_grad();
            // through a permuted view, as strides may be odd
            let xin = xa.clone().swap_dims(2, 3).swap_dims(2, 3) * 1.0;
            let y = if ours { conv3x3(xin, wa.clone(), ba.clone(), (1, 1)) } else { conv2d(xin, wa.clone(), Some(ba.clone()), ConvOptions::new([1, 1], [1, 1], [1, 1], 1)) };
            let out = v(y.clone().inner());
            let mut gr = (y * Tensor::from_inner(g.clone())).sum().backward();
            (out, v(xa.grad_remove(&mut gr).unwrap()), v(wa.grad_remove(&mut gr).unwrap()), v(ba.grad_remove(&mut gr).unwrap()))
        };
        let (o, p) = (run(true), run(false));
        diff("y", o.0, p.0); diff("dx", o.1, p.1); diff("dw", o.2, p.2); diff("db", o.3, p.3);
        let (sc, sh) = (r([b, ci, 1, 1]), r([b, ci, 1, 1]));
        let gx = r([b, ci, h, w]);
        let run = |ours: bool| {
            let (xa, sa, ha) = (a(&x), a(&sc), a(&sh));
            let y = if ours { scaled_swish(xa.clone(), sa.clone(), ha.clone()) } else { activation::silu(xa.clone() * sa.clone() + ha.clone()) };
            let out = v(y.clone().inner());
            let mut gr = (y * Tensor::from_inner(gx.clone())).sum().backward();
            (out, v(xa.grad_remove(&mut gr).unwrap()), v(sa.grad_remove(&mut gr).unwrap()), v(ha.grad_remove(&mut gr).unwrap()))
        };
        let (o, p) = (run(true), run(false));
        diff("swish y", o.0, p.0); diff("dx", o.1, p.1); diff("dscale", o.2, p.2); diff("dshift", o.3, p.3);
    }
}
