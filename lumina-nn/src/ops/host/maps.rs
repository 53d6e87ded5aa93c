//! Feature maps in host memory, and the layers of the VQGAN on them.

use std::ops::Range;
use std::sync::Arc;

use lumina_kernels::conv::conv3x3::RowPadding;
use lumina_kernels::conv::im2col::ConvShape;
use lumina_kernels::conv::upsample2x::PlaneSize;
use rayon::prelude::*;

use super::real::Real;
use crate::ops::maps::Bands;

/// From this many values on, threads share an elementwise operation.
const MIN_PARALLEL: usize = 1 << 16;

/// Feature maps in one of the types that they are computed in. Cloning them copies no value.
#[derive(Clone)]
pub(in crate::ops) enum HostMaps {
    F32(Planes<f32>),
    /// Those of a few positions.
    F64(Planes<f64>),
}

/// Values `[batch, channels, height, width]`.
#[derive(Clone)]
pub(in crate::ops) struct Planes<T> {
    values: Arc<Vec<T>>,
    shape: [usize; 4],
}

/// The same on maps of either type.
macro_rules! in_type {
    ($maps:expr, $x:ident => $result:expr) => {
        match $maps {
            HostMaps::F32($x) => HostMaps::F32($result),
            HostMaps::F64($x) => HostMaps::F64($result),
        }
    };
}

impl HostMaps {
    /// Of `[batch, channels, height, width]` values.
    pub(in crate::ops) fn new(values: Vec<f32>, shape: [usize; 4]) -> Self {
        assert_eq!(values.len(), shape.iter().product::<usize>(), "maps have as many values as their shape says");
        Self::F32(Planes { values: Arc::new(values), shape })
    }

    pub(in crate::ops) fn shape(&self) -> [usize; 4] {
        match self {
            Self::F32(x) => x.shape,
            Self::F64(x) => x.shape,
        }
    }

    pub(in crate::ops) fn into_f32(self) -> Self {
        match self {
            Self::F32(x) => Self::F32(x),
            Self::F64(x) => Self::F32(x.map(|value| value as f32)),
        }
    }

    pub(in crate::ops) fn into_f64(self) -> Self {
        match self {
            Self::F32(x) => Self::F64(x.map(f64::from)),
            Self::F64(x) => Self::F64(x),
        }
    }

    /// The values in `f32`: moved, where these are the only maps that have them.
    pub(in crate::ops) fn into_values(self) -> Vec<f32> {
        match self {
            Self::F32(x) => Arc::unwrap_or_clone(x.values),
            Self::F64(x) => x.values.iter().map(|&value| value as f32).collect(),
        }
    }

    /// A convolution that keeps the size.
    pub(in crate::ops) fn conv(&self, conv: &HostConv) -> Self {
        in_type!(self, x => conv.same(x))
    }

    /// A convolution of stride 2, with zeros to the right and below.
    pub(in crate::ops) fn halved(&self, conv: &HostConv) -> Self {
        in_type!(self, x => conv.padded(x, RowPadding { top: 0, bottom: 1 }, 2))
    }

    /// Each pixel repeated to 2×2, then a convolution.
    pub(in crate::ops) fn doubled(&self, conv: &HostConv, bands: Bands) -> Self {
        in_type!(self, x => {
            let [_, _, height, width] = x.shape;
            let plane = PlaneSize { height, width };
            let input = |rows: Range<usize>| {
                x.with_rows(Real::upsample2x(&x.values, plane, &rows), rows.len(), 2 * width)
            };
            in_bands(bands, 2 * height, |band| conv.forward_band(band, 2 * height, input))
        })
    }

    /// `conv(swish(norm(x)))`.
    pub(in crate::ops) fn norm_swish_conv(&self, norm: HostNorm<'_>, conv: &HostConv, bands: Bands) -> Self {
        in_type!(self, x => {
            let [_, _, height, width] = x.shape;
            let (scale, shift) = norm.scale_shift(x);
            let input = |rows: Range<usize>| {
                let n = rows.len();
                if n == height {
                    x.with_rows(Real::scaled_swish(&x.values, &scale, &shift), n, width)
                } else {
                    x.with_rows(Real::scaled_swish(&x.rows(rows), &scale, &shift), n, width)
                }
            };
            in_bands(bands, height, |band| conv.forward_band(band, height, input))
        })
    }

    /// A norm.
    pub(in crate::ops) fn norm(&self, norm: HostNorm<'_>) -> Self {
        in_type!(self, x => {
            let (scale, shift) = norm.scale_shift(x);
            let mut values = x.values.to_vec();
            let [_, _, height, width] = x.shape;
            let planes = values.par_chunks_mut((height * width).max(1)).zip(scale.into_par_iter().zip(shift));
            planes.for_each(|(plane, (scale, shift))| {
                plane.iter_mut().for_each(|value| *value = *value * scale + shift);
            });
            Planes { values: Arc::new(values), shape: x.shape }
        })
    }

    /// A norm and swish.
    pub(in crate::ops) fn norm_swish(&self, norm: HostNorm<'_>) -> Self {
        in_type!(self, x => {
            let (scale, shift) = norm.scale_shift(x);
            Planes { values: Arc::new(Real::scaled_swish(&x.values, &scale, &shift)), shape: x.shape }
        })
    }

    /// Squares of `side` × `side` positions as images: `[batch · rows · columns, channels, side, side]`.
    pub(in crate::ops) fn patches(&self, side: usize) -> Self {
        in_type!(self, x => {
            let [batch, channels, height, width] = x.shape;
            let (rows, columns) = (height / side, width / side);
            let n = batch * rows * columns;
            let mut values = Vec::with_capacity(x.values.len());
            for plane in 0..n * channels {
                let (patch, channel) = (plane / channels, plane % channels);
                let (image, row, column) = (patch / (rows * columns), patch / columns % rows, patch % columns);
                for line in row * side..(row + 1) * side {
                    let start = ((image * channels + channel) * height + line) * width + column * side;
                    values.extend_from_slice(&x.values[start..start + side]);
                }
            }
            Planes { values: Arc::new(values), shape: [n, channels, side, side] }
        })
    }

    /// Images of one position, `[batch · rows · columns, channels, 1, 1]`, as positions.
    pub(in crate::ops) fn grids(&self, [batch, rows, columns]: [usize; 3]) -> Self {
        in_type!(self, x => {
            let channels = x.shape[1];
            let images = x.values.chunks_exact((channels * rows * columns).max(1));
            let values = images.flat_map(|image| {
                (0..channels).flat_map(move |channel| image[channel..].iter().step_by(channels).copied())
            });
            Planes { values: Arc::new(values.collect()), shape: [batch, channels, rows, columns] }
        })
    }

    /// Attention of one head over all positions of each image, with these as queries.
    pub(in crate::ops) fn attend(self, k: Self, v: Self) -> Self {
        match (self, k, v) {
            (Self::F32(q), Self::F32(k), Self::F32(v)) => Self::F32(attend(&q, &k, &v)),
            (q, k, v) => match [q, k, v].map(Self::into_f64) {
                [Self::F64(q), Self::F64(k), Self::F64(v)] => Self::F64(attend(&q, &k, &v)),
                _ => unreachable!("`into_f64` gives this variant alone"),
            },
        }
    }

    /// The sum, in the type of these.
    pub(in crate::ops) fn add(self, other: &Self) -> Self {
        match (self, other) {
            (Self::F32(x), Self::F32(y)) => Self::F32(x.add(y)),
            (Self::F64(x), Self::F64(y)) => Self::F64(x.add(y)),
            (x @ Self::F32(_), y) => x.add(&y.clone().into_f32()),
            (x @ Self::F64(_), y) => x.add(&y.clone().into_f64()),
        }
    }
}

impl<T: Real> Planes<T> {
    fn map<U: Send + Sync>(self, change: impl Fn(T) -> U + Sync) -> Planes<U> {
        let values = self.values.par_iter().with_min_len(MIN_PARALLEL).map(|&value| change(value)).collect();
        Planes { values: Arc::new(values), shape: self.shape }
    }

    /// Values of as many images and channels.
    fn with_rows(&self, values: Vec<T>, height: usize, width: usize) -> Self {
        let [batch, channels, ..] = self.shape;
        Self { values: Arc::new(values), shape: [batch, channels, height, width] }
    }

    /// A copy of some rows.
    fn rows(&self, rows: Range<usize>) -> Vec<T> {
        let [_, _, height, width] = self.shape;
        let mut values = T::zeros(self.values.len() / height.max(1) * rows.len());
        let bands = values.par_chunks_exact_mut((rows.len() * width).max(1));
        bands.zip(self.values.par_chunks_exact((height * width).max(1))).for_each(|(band, plane)| {
            band.copy_from_slice(&plane[rows.start * width..rows.end * width]);
        });
        values
    }

    /// `self + other`, in the memory of these where nothing else has it.
    fn add(mut self, other: &Self) -> Self {
        let values = Arc::make_mut(&mut self.values).par_chunks_mut(MIN_PARALLEL);
        values.zip(other.values.par_chunks(MIN_PARALLEL)).for_each(|(x, y)| {
            x.iter_mut().zip(y).for_each(|(x, &y)| *x = *x + y);
        });
        self
    }
}

fn attend<T: Real>(q: &Planes<T>, k: &Planes<T>, v: &Planes<T>) -> Planes<T> {
    let [_, channels, height, width] = q.shape;
    let image = (channels * height * width).max(1);
    let images = q.values.chunks_exact(image).zip(k.values.chunks_exact(image)).zip(v.values.chunks_exact(image));
    let mut attended: Vec<Vec<T>> = images.map(|((q, k), v)| T::attention(q, k, v, channels)).collect();
    let values = if attended.len() == 1 { attended.swap_remove(0) } else { attended.concat() };
    Planes { values: Arc::new(values), shape: q.shape }
}

/// Maps of `height` rows, of which `compute` gives bands. Each is written into the result at once, so that no more than
/// one is there besides.
fn in_bands<T: Real>(bands: Bands, height: usize, compute: impl Fn(Range<usize>) -> Planes<T>) -> Planes<T> {
    if bands.rows(height) >= height {
        return compute(0..height);
    }
    let mut whole: Option<(Vec<T>, [usize; 4])> = None;
    for rows in bands.split(height) {
        let band = compute(rows.clone());
        let [batch, channels, _, width] = band.shape;
        let shape = [batch, channels, height, width];
        let (values, _) = whole.get_or_insert_with(|| (T::zeros(shape.iter().product()), shape));
        let planes = values.par_chunks_exact_mut((height * width).max(1));
        planes.zip(band.values.par_chunks_exact((rows.len() * width).max(1))).for_each(|(plane, band)| {
            plane[rows.start * width..rows.end * width].copy_from_slice(band);
        });
    }
    let (values, shape) = whole.expect("more rows than a band has are some");
    Planes { values: Arc::new(values), shape }
}

/// A convolution's weights `[outputs, inputs, kernel, kernel]` and bias `[outputs]`. Cloning it copies none.
#[derive(Clone)]
pub(crate) struct HostConv {
    weight: Arc<[f32]>,
    bias: Arc<[f32]>,
    kernel: usize,
}

impl HostConv {
    pub(crate) fn new(weight: Vec<f32>, bias: Vec<f32>, kernel: usize) -> Self {
        Self { weight: weight.into(), bias: bias.into(), kernel }
    }

    fn same<T: Real>(&self, x: &Planes<T>) -> Planes<T> {
        let pad = self.kernel / 2;
        self.padded(x, RowPadding { top: pad, bottom: pad }, 1)
    }

    /// Computes the rows `band` of the result. `input` returns rows of the input, which has `height` rows in all.
    fn forward_band<T: Real>(
        &self,
        band: Range<usize>,
        height: usize,
        input: impl Fn(Range<usize>) -> Planes<T>,
    ) -> Planes<T> {
        let pad = self.kernel / 2;
        let rows = band.start.saturating_sub(pad)..(band.end + pad).min(height);
        // Rows beyond the image are padding. Rows beyond the band, but inside the image, are read from the input.
        let padding = RowPadding { top: pad - (band.start - rows.start), bottom: pad - (rows.end - band.end) };
        self.padded(&input(rows), padding, 1)
    }

    fn padded<T: Real>(&self, x: &Planes<T>, padding: RowPadding, stride: usize) -> Planes<T> {
        let ([batch, in_channels, height, width], out_channels) = (x.shape, self.bias.len());
        let kernel = self.kernel;
        let shape = ConvShape { batch, in_channels, out_channels, height, width, kernel, padding, stride };
        let values = T::conv(&x.values, &self.weight, &self.bias, &shape);
        let shape = [batch, out_channels, shape.output_height(), shape.output_width()];
        Planes { values: Arc::new(values), shape }
    }
}

/// A norm's weight and bias, `[channels]` each.
#[derive(Clone, Copy)]
pub(in crate::ops) struct HostNorm<'a> {
    pub(in crate::ops) weight: &'a [f32],
    pub(in crate::ops) bias: &'a [f32],
    /// None where there are no statistics.
    pub(in crate::ops) groups: Option<usize>,
}

impl HostNorm<'_> {
    /// The scale and the shift of each plane: `norm(x) = x · scale + shift`.
    fn scale_shift<T: Real>(&self, x: &Planes<T>) -> (Vec<T>, Vec<T>) {
        let [batch, channels, height, width] = x.shape;
        let Some(groups) = self.groups else {
            let each = |values: &[f32]| values.iter().map(|&value| T::from(value)).collect::<Vec<T>>().repeat(batch);
            return (each(self.weight), each(self.bias));
        };
        let per_group = channels / groups;
        let (means, variances) = T::group_moments(&x.values, per_group * height * width);
        let groups = means.into_iter().zip(variances);
        let planes = groups.flat_map(|group| std::iter::repeat_n(group, per_group));
        let parameters = self.weight.iter().zip(self.bias).cycle();
        let each = planes.zip(parameters).map(|((mean, variance), (&weight, &bias))| {
            let scale = T::inverse_deviation(variance) * T::from(weight);
            (scale, T::from(bias) - mean * scale)
        });
        each.unzip()
    }
}

impl std::fmt::Debug for HostConv {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HostConv")
            .field("outputs", &self.bias.len())
            .field("kernel", &self.kernel)
            .finish_non_exhaustive()
    }
}
