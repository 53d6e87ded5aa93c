//! What the tests of kernels share: comparison with a definition in `f64`, and of gradients with numerical gradients of
//! it.

pub(crate) use lumina_testing::numbers;

fn to_f64(inputs: &[&[f32]]) -> Vec<Vec<f64>> {
    inputs.iter().map(|input| input.iter().map(|&value| f64::from(value)).collect()).collect()
}

/// Asserts that `found` is what `reference` computes from the inputs.
pub(crate) fn assert_close(found: &[f32], inputs: &[&[f32]], reference: &dyn Fn(&[Vec<f64>]) -> Vec<f64>) {
    let expected = reference(&to_f64(inputs));
    assert_eq!(found.len(), expected.len());
    for (at, (&found, expected)) in found.iter().zip(expected).enumerate() {
        assert!((f64::from(found) - expected).abs() < 2e-5 * (1.0 + expected.abs()), "{at}: {found}, not {expected}");
    }
}

/// Asserts that `gradients`, one for each input, are those of `Σ dy · reference(inputs)`, by central differences along
/// three directions with all components, and along four axes.
pub(crate) fn assert_gradients(
    inputs: &[&[f32]],
    gradients: &[&[f32]],
    dy: &[f32],
    reference: &dyn Fn(&[Vec<f64>]) -> Vec<f64>,
) {
    const STEP: f64 = 1e-5;
    let inputs = to_f64(inputs);
    let total =
        |inputs: &[Vec<f64>]| -> f64 { reference(inputs).iter().zip(dy).map(|(y, &dy)| y * f64::from(dy)).sum() };
    for (index, gradient) in gradients.iter().enumerate() {
        assert_eq!(gradient.len(), inputs[index].len());
        let n = gradient.len();
        let axes = [0, n / 3, n / 2, n - 1].map(|axis| (0..n).map(|at| f64::from(u8::from(at == axis))).collect());
        let directions = (7..10).map(|seed| numbers(n, seed).into_iter().map(f64::from).collect());
        for direction in axes.into_iter().chain(directions) {
            let direction: Vec<f64> = direction;
            let total_at = |step: f64| {
                let mut inputs = inputs.clone();
                inputs[index].iter_mut().zip(&direction).for_each(|(value, direction)| *value += step * direction);
                total(&inputs)
            };
            let expected = (total_at(STEP) - total_at(-STEP)) / (2.0 * STEP);
            let found: f64 = gradient.iter().zip(&direction).map(|(&gradient, by)| f64::from(gradient) * by).sum();
            let size: f64 =
                gradient.iter().zip(&direction).map(|(&gradient, by)| (f64::from(gradient) * by).abs()).sum();
            assert!((found - expected).abs() < 1e-4 * (1.0 + size), "input {index}: {found}, not {expected}");
        }
    }
}
