//! Mean and variance of groups of channels.

use burn::tensor::{Tensor, TensorData};
use lumina_kernels::norm::group_moments as kernel;

use super::kernel::Constant;

/// Mean and variance over each group of consecutive channels of `x` `[batch, channels, height, width]`: `[batch,
/// groups, 1]` each.
///
/// Where Burn's operations compute them, it is in bands of `band_rows` rows, whose temporaries are the only ones. A
/// kernel, which runs in `f32` on the CPU where no gradients are recorded, has none.
pub fn group_moments(x: &Tensor<4>, groups: usize, band_rows: usize) -> [Tensor<3>; 2] {
    let [batch, channels, height, width] = x.dims();
    let per_group = channels / groups.max(1);
    match Constant::unrecorded(x).filter(|_| groups > 0 && channels.is_multiple_of(groups)) {
        Some(values) => {
            let kernel::GroupMoments { means, variances } =
                kernel::forward(values.values(), per_group * height * width);
            let tensor = |values| Tensor::from_data(TensorData::new(values, [batch, groups, 1]), &x.device());
            [tensor(means), tensor(variances)]
        }
        None => {
            let n = (per_group * height * width) as f64;
            let mean_of = |term: &dyn Fn(Tensor<3>) -> Tensor<3>| {
                let band = |start: usize| {
                    let rows = band_rows.max(1).min(height - start);
                    let band = if rows == height { x.clone() } else { x.clone().narrow(2, start, rows) };
                    term(band.reshape([batch, groups, per_group * rows * width])).sum_dim(2)
                };
                let later = (0..height).step_by(band_rows.max(1)).skip(1);
                later.fold(band(0), |sum, start| sum + band(start)) / n
            };
            let mean = mean_of(&|x| x);
            let variance = mean_of(&|x| (x - mean.clone()).square());
            [mean, variance]
        }
    }
}
