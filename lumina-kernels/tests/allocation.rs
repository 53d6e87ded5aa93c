//! Once begun, decoding allocates nothing in these kernels. A test binary of its own, as it counts the allocations of a
//! whole process.

use lumina_kernels::{ActivationPrecision, Format, Matmul, MatmulTask, Matrix};
use lumina_testing::Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting::new();

#[test]
fn a_step_of_decoding_allocates_nothing() {
    // From within a pool, as an app runs it; entering one from outside is rayon's to pay.
    let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
    pool.install(|| {
        let (rows, columns) = (1000, 1024);
        let x = vec![0.5; 2 * columns];
        let (mut y, mut z) = (vec![0.0; 2 * rows], vec![0.0; 2 * 8]);
        for format in [Format::F32, Format::BF16, Format::Q8_0, Format::Q4_0] {
            let bytes = vec![0; format.matrix_bytes(rows, columns).unwrap()];
            let w = Matrix::new(format, rows, columns, &bytes).unwrap();
            for matmul in [Matmul::new(ActivationPrecision::F32), Matmul::new(ActivationPrecision::Reduced)] {
                let mut step = || {
                    let mut tasks = [MatmulTask::new(w, &mut y), MatmulTask::new(w.rows_from(0, 8), &mut z)];
                    matmul.run_shared(&x, columns, &mut tasks).unwrap();
                };
                // Both threads must have had a task of each kind.
                (0..50).for_each(|_| step());
                let before = ALLOCATOR.count();
                (0..20).for_each(|_| step());
                // Rayon's queues may grow now and then; a step that allocated would show twenty times.
                let allocations = ALLOCATOR.count() - before;
                assert!(allocations < 10, "{matmul:?} {format}: {allocations} allocations in 20 steps");
            }
        }
    });
}
