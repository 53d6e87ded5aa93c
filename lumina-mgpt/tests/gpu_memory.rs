//! Host memory while weights go to a GPU: that of the ring through which they go, whatever the size of the file. A test
//! binary of its own, as it counts the allocations of a whole process.
#![cfg(any(feature = "wgpu", feature = "cuda"))]
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a panic is the failure, a print the report")]

use std::io::Write;
use std::path::Path;

use lumina_checkpoint::Checkpoint;
use lumina_mgpt::{Compute, Weights};
use lumina_nn::Loader;
use lumina_testing::Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting::new();

/// A file of `n` matrices `w.0`, `w.1` and so on, all of it zeros, which take no room on the disk.
fn zeros(file: &Path, n: usize, dtype: &str, bytes: usize, [rows, columns]: [usize; 2]) {
    let each = rows * columns * bytes;
    let entry = |index: usize| {
        let (start, end) = (index * each, (index + 1) * each);
        format!(r#""w.{index}.weight":{{"dtype":"{dtype}","shape":[{rows},{columns}],"data_offsets":[{start},{end}]}}"#)
    };
    let header = format!("{{{}}}", (0..n).map(entry).collect::<Vec<_>>().join(","));
    let mut file = std::fs::File::create(file).unwrap();
    file.write_all(&(header.len() as u64).to_le_bytes()).unwrap();
    file.write_all(header.as_bytes()).unwrap();
    file.set_len((8 + header.len() + n * each) as u64).unwrap();
}

#[test]
fn opening_takes_the_memory_of_the_ring() {
    let compute = Compute::available().into_iter().find(|compute| {
        let name = compute.to_string();
        name.starts_with("wgpu") || name.starts_with("cuda")
    });
    let Some(compute) = compute else {
        eprintln!("SKIPPED: this machine has no driver for a GPU");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    // 640 MB as stored; 1 GB, of which a matrix is 140 MB when it is quantised.
    for (n, dtype, bytes, shape, weights) in
        [(5, "BF16", 2, [8192, 8192], Weights::AsStored), (2, "F32", 4, [16_384, 8192], Weights::Q8)]
    {
        let file = folder.path().join("model.safetensors");
        zeros(&file, n, dtype, bytes, shape);
        let checkpoint = Checkpoint::open(&file).unwrap();
        let compute = compute.clone().weights(weights);
        compute.check().unwrap();
        let open = || {
            let loader = Loader::new(&checkpoint, &compute);
            let layers = loader.pp("w").parts(n, |loader, _| loader.linear(shape[1], shape[0], false));
            loader.finish(|_| false).unwrap();
            compute.sync().unwrap();
            layers
        };
        let (layers, peak) = ALLOCATOR.peak_of(open);
        assert_eq!(layers.len(), n);
        // 64 MB of the ring, 32 MB that are quantised at a time, and what threads and the driver take.
        assert!(peak < 128 << 20, "{dtype}: {} MB", peak >> 20);
        eprintln!("{dtype} to {weights}: {} MB of host memory at most", peak >> 20);
        drop(layers);
        std::fs::remove_file(&file).unwrap();
    }
}
