//! The head before and after its image rows are zeroed.

use burn::module::{Module, ModuleVisitor, Param, ParamId};
use burn::tensor::Tensor;
use lumina_nn::Compute;
use lumina_testing::{json, part, report};
use lumina_tokenizer::TextTokenizer;
use lumina_train::fine_tune::Trainable;

fn norm_of_head(trainable: &Trainable) -> f64 {
    struct Norm(ParamId, f64);
    impl ModuleVisitor for Norm {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            if param.id == self.0 {
                let values: Vec<f32> = param.val().into_data().try_into_vec().unwrap();
                self.1 = values.iter().map(|&value| f64::from(value).powi(2)).sum::<f64>().sqrt();
            }
        }
    }
    let (&head, _) = trainable.names.iter().find(|(_, name)| *name == "lm_head.weight").unwrap();
    let mut norm = Norm(head, 0.0);
    trainable.model.visit(&mut norm);
    norm.1
}

#[test]
fn image_rows_of_the_head_are_zeroed() {
    let case = json("training/starting_point.json");
    let folder = part("model").join(case["model"].as_str().unwrap());
    let tokenizer = if folder.join("tokenizer.json").exists() { folder.clone() } else { part("tokenizer") };
    let vocabulary = TextTokenizer::open(tokenizer).unwrap().vocabulary().unwrap();
    assert_eq!(vocabulary.image_tokens().len() as u64, case["n"].as_u64().unwrap());
    let trainable = Trainable::open(&folder, &Compute::cpu()).unwrap();
    let close = |found: f64, expected: &serde_json::Value| {
        let expected = expected.as_f64().unwrap();
        // The reference sums 600,000 squares in f32; we in f64.
        assert!((found - expected).abs() <= 1e-4 * expected, "norm of the head: {found}, expected {expected}");
    };
    close(norm_of_head(&trainable), &case["norm_before"]);
    let trainable = trainable.zero_head_rows(vocabulary.image_tokens());
    close(norm_of_head(&trainable), &case["norm_after"]);
    report("starting point", 1);
}
