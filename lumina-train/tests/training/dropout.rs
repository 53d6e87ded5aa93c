//! Dropout, and recomputed activations.

use lumina_mgpt::Dropout;
use lumina_nn::Compute;
use lumina_train::fine_tune::{ActivationMemory, LossOptions, Trainable, gradients};

use crate::small::{Sequence, by_name, folder_of, shape};

fn sequences() -> [Sequence; 2] {
    [Sequence::new(1, 24, 2), Sequence::new(2, 17, 5)]
}

/// To the bit: the same operations on the same values, and each parameter has a gradient from one layer only.
#[test]
fn recomputed_activations_give_the_same_gradients() {
    let (_folder, model) = folder_of(&shape());
    let trainable = Trainable::open(&model, &Compute::cpu()).unwrap();
    let sequences = sequences();
    let of = |activation_memory| {
        let options = LossOptions { z_loss_weight: 1e-3, dropout: Dropout::new(0.3, 1, 2), activation_memory };
        let batch = sequences.each_ref().map(Sequence::example);
        let (loss, grads) = gradients(&trainable.model, &batch, &options).unwrap();
        (loss, by_name(&trainable, &grads))
    };
    let (kept, recomputed) = (of(ActivationMemory::Keep), of(ActivationMemory::Recompute));
    assert_eq!(kept.0, recomputed.0);
    for (name, grad) in &kept.1 {
        assert!(*grad == recomputed.1[name], "{name}");
    }
}

#[test]
fn losses_follow_from_seed_and_pass() {
    let (_folder, model) = folder_of(&shape());
    let trainable = Trainable::open(&model, &Compute::cpu()).unwrap();
    let sequences = sequences();
    let batch = sequences.each_ref().map(Sequence::example);
    let loss = |dropout| {
        let options = LossOptions { z_loss_weight: 0.0, dropout, activation_memory: ActivationMemory::Keep };
        gradients(&trainable.model, &batch, &options).unwrap().0
    };
    let with = loss(Dropout::new(0.1, 7, 3));
    assert_eq!(with, loss(Dropout::new(0.1, 7, 3)));
    assert_ne!(with, loss(Dropout::new(0.1, 7, 4)));
    assert_ne!(with, loss(Dropout::new(0.1, 8, 3)));
    let without = loss(Dropout::NONE);
    assert_eq!(without, loss(Dropout::new(0.0, 7, 3)));
    assert_eq!(without, lumina_train::fine_tune::loss(&trainable.model, &batch, 0.0).unwrap());
    assert_ne!(with, without);
}
