//! Limits of memory by which a model is split over devices.

use std::path::Path;

use lumina_mgpt::{Compute, Fit, Lumina};

/// The devices one after the other, each but the last with as little memory as one layer needs. A model of fewer layers
/// than devices is on the first of them alone.
pub(crate) fn split(folder: &Path, devices: &[Compute]) -> Compute {
    let (last, limited) = devices.split_last().unwrap();
    let chain = |limits: &[u64]| {
        let own = limited.iter().zip(limits).map(|(device, &bytes)| device.clone().max_memory(bytes));
        let mut all = own.chain([last.clone()]);
        let first = all.next().unwrap();
        all.fold(first, Compute::then)
    };
    let fit = |limits: &[u64]| -> Fit { Lumina::fit(folder, &chain(limits)).unwrap() };
    let mut limits = Vec::new();
    for _ in limited {
        let whole = fit(&vec![0; limits.len()]);
        let (mut too_few, mut enough) = (0, whole.overhead + whole.weights + 2 * whole.kv_cache);
        while enough - too_few > 1 {
            let middle = too_few + (enough - too_few) / 2;
            let stages = fit(&[&limits[..], &[middle]].concat()).stages;
            let has_layers = stages.iter().filter(|stage| stage.available.is_some()).count() > limits.len();
            *(if has_layers { &mut enough } else { &mut too_few }) = middle;
        }
        limits.push(enough);
    }
    chain(&limits)
}
