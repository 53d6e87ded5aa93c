//! Training of the VQ image tokenizer.
//!
//! Mirrors the training of taming-transformers (arXiv 2012.09841): reconstruction, codebook and commitment losses with
//! a straight-through estimate, and an optional patch discriminator with adaptive weight. Its perceptual loss is left
//! out, as it needs the weights of another network; a squared error can be added to the absolute one instead.
//!
//! [`init_vq`] writes a new network, [`VqTrainer`] trains the one in a folder, [`evaluate_vq`] measures the result,
//! [`prune_codebook`] leaves out the codes that hardly occur.
//! What is saved opens as [`lumina_vq::ImageTokenizer`].

mod adversarial_loss;
mod codebook;
mod discriminator;
mod evaluate;
mod init;
mod loss;
mod options;
mod prune;
mod report;
mod step;
mod terms;
mod trainer;

pub use evaluate::{VqEvaluation, VqReport, evaluate_vq};
pub use init::init_vq;
pub use options::{CodebookStart, CodebookUpdate, DiscriminatorOptions, VqTrainingOptions};
pub use prune::prune_codebook;
pub use report::{AdversarialReport, VqStepReport};
pub use trainer::VqTrainer;
