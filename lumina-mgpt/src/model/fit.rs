//! What a model takes on a device, before anything is allocated.

use lumina_checkpoint::{Checkpoint, Dtype};
use lumina_nn::{Compute, Role, Weights};

use super::config::Architecture;
use crate::Error;

/// Bytes that a model takes where it computes, and what there is: made by [`Lumina::fit`](crate::Lumina::fit).
///
/// With [`Compute::cpu`](crate::Compute) weights as stored are page cache, which the system can take back, so all
/// that is needed is not needed at once.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Fit {
    /// Bytes of the weights, in the format asked for.
    pub weights: u64,
    /// Bytes of the keys and values of one sequence as long as the context, with guidance.
    pub kv_cache: u64,
    /// Bytes of activations and of what drivers and kernels take, roughly.
    pub overhead: u64,
    /// Bytes of the device's memory, free or not, where its driver says so.
    pub total: Option<u64>,
    /// Bytes of it that are free now, where its driver says so: on CUDA. What other programs, and models of this one,
    /// have there is not.
    pub free: Option<u64>,
    /// Bytes of the weights in each smaller format, from the largest.
    pub smaller: Vec<(Weights, u64)>,
}

/// What kernels, drivers and activations of a pass take on a GPU. A guess: half a gigabyte.
const OVERHEAD: u64 = 1 << 29;

impl Fit {
    pub(crate) fn new(checkpoint: &Checkpoint, architecture: &Architecture, compute: &Compute) -> Self {
        let weights = |format| weight_bytes(checkpoint, format);
        let formats = [Weights::BF16, Weights::Q8, Weights::Q4];
        let own = weights(compute.format());
        let smaller = formats.map(|format| (format, weights(format)));
        let tokens = architecture.max_positions() as u64;
        let per_token = kv_bytes_per_token(architecture, compute.kv_dtype());
        Self {
            weights: own,
            kv_cache: 2 * tokens * per_token,
            overhead: OVERHEAD,
            total: compute.device_memory(),
            free: compute.free_device_memory(),
            smaller: smaller.into_iter().filter(|(_, bytes)| *bytes < own).collect(),
        }
    }

    /// Bytes before any request: the keys and values of sequences come on top, and take what is left.
    pub fn needed(&self) -> u64 {
        self.weights.saturating_add(self.overhead)
    }

    /// Bytes that the model can have: those that are [free](Fit::free), or where that is not known, [all](Fit::total).
    pub fn available(&self) -> Option<u64> {
        self.free.or(self.total)
    }

    /// Whether so much is [available](Fit::available); yes where the driver does not say.
    pub fn fits(&self) -> bool {
        self.available().is_none_or(|available| self.needed() <= available)
    }

    /// Why the model does not fit, and what to do; `None` where it does.
    pub(crate) fn error(&self) -> Option<Error> {
        if self.fits() {
            return None;
        }
        let other = match self.format_that_fits() {
            Some(format) => format!("it would fit with `Compute::weights` {format}"),
            None => "choose a smaller model, a shorter context, or `Compute::cpu`".to_owned(),
        };
        // Others have what lacks.
        let has_room = self.free.and(self.total).is_some_and(|total| self.needed() <= total);
        let remedy = if has_room { format!("close what else uses the device, or {other}") } else { other };
        Some(Error::DoesNotFit { needed: self.needed(), free: self.free, total: self.total, remedy })
    }

    /// The largest smaller format in which the model would fit.
    pub fn format_that_fits(&self) -> Option<Weights> {
        let available = self.available()?;
        let fits = |bytes: u64| bytes.saturating_add(self.overhead) <= available;
        self.smaller.iter().find(|(_, bytes)| fits(*bytes)).map(|(format, _)| *format)
    }
}

/// Bytes of all tensors of the transformer in a format.
fn weight_bytes(checkpoint: &Checkpoint, format: Weights) -> u64 {
    let views = checkpoint.names().filter(|name| !name.starts_with("model.vqmodel.")).filter_map(|name| {
        let view = checkpoint.get(name)?;
        let role = match name {
            "lm_head.weight" => Some(Role::Head),
            "model.embed_tokens.weight" => Some(Role::Embedding),
            _ if name.ends_with("_proj.weight") => Some(Role::Linear),
            _ => None,
        };
        Some((view, role))
    });
    views
        .map(|(view, role)| {
            let stored = view.bytes().len();
            let converted = role.and_then(|role| format.dtype_of(role)).and_then(|dtype| dtype.bytes_of(view.shape()));
            converted.map_or(stored, |bytes| bytes.min(stored)) as u64
        })
        .sum()
}

/// Bytes of the keys and values of a token in all layers.
fn kv_bytes_per_token(architecture: &Architecture, dtype: Dtype) -> u64 {
    let &Architecture { layers, kv_heads, head_dim, .. } = architecture;
    // A head's numbers, and the scale of a quantised one.
    let head = match dtype {
        Dtype::Q8_0 => head_dim + 4,
        Dtype::F16 | Dtype::BF16 => 2 * head_dim,
        _ => 4 * head_dim,
    };
    2 * (layers * kv_heads * head) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_format_that_fits_is_the_largest_of_those() {
        let smaller = vec![(Weights::BF16, 14 << 30), (Weights::Q8, 7 << 30), (Weights::Q4, 4 << 30)];
        let fit = |gigabytes: u64| Fit {
            weights: 28 << 30,
            kv_cache: 4 << 30,
            overhead: OVERHEAD,
            total: Some(gigabytes << 30),
            free: None,
            smaller: smaller.clone(),
        };
        assert!(fit(29).fits());
        for (gigabytes, format) in
            [(28, Some(Weights::BF16)), (14, Some(Weights::Q8)), (5, Some(Weights::Q4)), (4, None)]
        {
            assert!(!fit(gigabytes).fits());
            assert_eq!(fit(gigabytes).format_that_fits(), format, "{gigabytes} GB");
        }
        assert!(Fit { total: None, ..fit(1) }.fits());
    }

    /// A card that is large enough, most of which others have.
    #[test]
    fn what_is_free_counts_before_what_the_card_has() {
        let fit = |free| Fit {
            weights: 14 << 30,
            kv_cache: 4 << 30,
            overhead: OVERHEAD,
            total: Some(24 << 30),
            free,
            smaller: vec![(Weights::Q8, 7 << 30)],
        };
        assert!(fit(None).fits() && fit(Some(20 << 30)).fits());
        let short = fit(Some(10 << 30));
        assert_eq!((short.fits(), short.format_that_fits()), (false, Some(Weights::Q8)));
        let error = short.error().expect("it does not fit").to_string();
        assert_eq!(
            error,
            "the model takes 15.6 GB on the device, which has 10.7 GB free of 25.8 GB; close what else uses the device, \
             or it would fit with `Compute::weights` q8"
        );
        let error = Fit { total: Some(10 << 30), ..fit(None) }.error().expect("it does not fit").to_string();
        assert!(error.contains("which has 10.7 GB; it would fit with"), "{error}");
    }
}
