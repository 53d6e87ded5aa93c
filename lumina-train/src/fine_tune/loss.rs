//! Cross entropy of the next token, the z-loss that keeps logits from drifting, and their gradients.

use burn::optim::{GradientsAccumulator, GradientsParams};
use burn::tensor::Tensor;
use lumina_mgpt::{Dropout, Transformer};
use lumina_nn::ops::{cross_entropy, gather};
use lumina_tokenizer::IGNORED;

use crate::{Error, Result};

/// A sequence with what is to be predicted of it: for each token itself, or [`IGNORED`]. Not shifted.
#[derive(Debug, Clone, Copy)]
pub struct Example<'a> {
    /// The tokens.
    pub tokens: &'a [u32],
    /// As many labels.
    pub labels: &'a [i64],
}

/// The loss of a batch.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Loss {
    /// What is minimised: cross entropy plus the weighted z-loss.
    pub total: f64,
    /// Mean cross entropy of the predicted tokens, in nats.
    pub cross_entropy: f64,
    /// Mean squared log-sum-exp over the same positions, before its weight.
    pub z_loss: f64,
    /// Number of predicted tokens.
    pub counted: usize,
}

/// What the backward pass needs of the forward pass.
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activations {
    /// Kept: the fastest.
    #[default]
    Keep,
    /// Each layer's input is kept, and the layer run again on the way back: memory of one layer instead of all, for a
    /// third more time.
    Recompute,
}

/// How a batch's loss is computed.
#[derive(Debug, Clone, Copy)]
pub struct LossOptions {
    /// What the z-loss is multiplied by.
    pub z_loss_weight: f64,
    /// What is dropped.
    pub dropout: Dropout,
    /// What is kept for the backward pass.
    pub activations: Activations,
}

/// The loss on the graph, and its parts.
struct OnGraph {
    total: Tensor<1>,
    /// Cross entropy and z-loss, `[2]`.
    parts: Tensor<1>,
    counted: usize,
}

impl OnGraph {
    fn read(&self) -> Result<Loss> {
        let parts = Tensor::cat(vec![self.total.clone().detach(), self.parts.clone().detach()], 0);
        let values = lumina_nn::ops::read(parts)?;
        let &[total, cross_entropy, z_loss] = &values[..] else {
            return Err(Error::Compute { reason: "three values".to_owned() });
        };
        let counted = self.counted;
        Ok(Loss { total: total.into(), cross_entropy: cross_entropy.into(), z_loss: z_loss.into(), counted })
    }
}

/// The positions of hidden states that predict something, and what they predict.
struct Targets {
    positions: Vec<u32>,
    tokens: Vec<u32>,
}

impl Targets {
    fn of(batch: &[Example<'_>], vocab_size: usize) -> Result<Self> {
        let mut targets = Self { positions: Vec::new(), tokens: Vec::new() };
        let mut start = 0;
        for Example { tokens, labels } in batch {
            if tokens.len() != labels.len() {
                let reason = format!("are {}, for {} tokens", labels.len(), tokens.len());
                return Err(Error::Setting { field: "labels", reason });
            }
            for (position, &label) in labels.iter().enumerate().skip(1) {
                if label == IGNORED {
                    continue;
                }
                if !(0..vocab_size as i64).contains(&label) {
                    let reason = format!("hold {label} at {position}; the vocabulary has {vocab_size} tokens");
                    return Err(Error::Setting { field: "labels", reason });
                }
                targets.positions.push((start + position - 1) as u32);
                targets.tokens.push(label as u32);
            }
            start += tokens.len();
        }
        match targets.tokens.len() {
            0 => Err(Error::Setting { field: "labels", reason: "of the batch predict nothing".to_owned() }),
            _ => Ok(targets),
        }
    }

    /// The loss of the hidden states after the last layer, `[n, hidden]`. The head sees only what predicts something.
    fn loss(&self, model: &Transformer, hidden: Tensor<2>, z_loss_weight: f64) -> OnGraph {
        let predicting = gather(hidden, &self.positions).expect("positions are those of tokens of the batch");
        let logits = model.logits(model.final_norm(predicting));
        let parts = cross_entropy(logits, &self.tokens)
            .expect("`Targets::of` made sure that there are labels, all in the vocabulary, which the logits have");
        let total = parts.clone().narrow(0, 0, 1) + parts.clone().narrow(0, 1, 1) * z_loss_weight;
        OnGraph { total, parts, counted: self.tokens.len() }
    }
}

/// The loss of a batch without its gradients, as for held-out data.
///
/// # Errors
/// As [`gradients`].
pub fn loss(model: &Transformer, batch: &[Example<'_>], z_loss_weight: f64) -> Result<Loss> {
    let targets = Targets::of(batch, model.architecture().vocab_size())?;
    let rows: Vec<&[u32]> = batch.iter().map(|example| example.tokens).collect();
    let (pass, mut x) = model.begin(&rows, Dropout::NONE)?;
    for layer in 0..model.architecture().n_layers() {
        x = model.layer(layer, x, &pass)?.detach();
    }
    targets.loss(model, x, z_loss_weight).read()
}

/// The loss of a batch, a mean over all its predicted tokens, and the gradient of each parameter.
///
/// Mirrors `ChameleonXLLMXForConditionalGeneration.forward`, and its `backward`.
///
/// # Errors
/// [`Error::Setting`] where tokens and labels differ in number, a label is no token, or nothing is predicted;
/// [`Error::Model`] for a token that the vocabulary lacks; [`Error::Compute`].
pub fn gradients(model: &Transformer, batch: &[Example<'_>], options: &LossOptions) -> Result<(Loss, GradientsParams)> {
    let targets = Targets::of(batch, model.architecture().vocab_size())?;
    let rows: Vec<&[u32]> = batch.iter().map(|example| example.tokens).collect();
    let (pass, mut x) = model.begin(&rows, options.dropout)?;
    let layers = model.architecture().n_layers();
    if options.activations == Activations::Keep {
        for layer in 0..layers {
            x = model.layer(layer, x, &pass)?;
        }
        let loss = targets.loss(model, x, options.z_loss_weight);
        let read = loss.read()?;
        return Ok((read, GradientsParams::from_grads(loss.total.backward(), model)));
    }

    let mut all = GradientsAccumulator::new();
    let embedded = x;
    let mut inputs = Vec::with_capacity(layers);
    let mut x = embedded.clone().detach();
    for layer in 0..layers {
        inputs.push(x.clone());
        x = model.layer(layer, x, &pass)?.detach();
    }
    let x = x.require_grad();
    let loss = targets.loss(model, x.clone(), options.z_loss_weight);
    let read = loss.read()?;
    let mut grads = loss.total.backward();
    let mut upstream = x.grad_remove(&mut grads);
    all.accumulate(model, GradientsParams::from_grads(grads, model));
    for (layer, input) in inputs.into_iter().enumerate().rev() {
        let Some(grad) = upstream else { break };
        let input = input.require_grad();
        // A sum whose derivative by the layer's output is the gradient that came back so far.
        let output = model.layer(layer, input.clone(), &pass)?;
        let mut grads = (output * Tensor::from_inner(grad)).sum().backward();
        upstream = input.grad_remove(&mut grads);
        all.accumulate(model, GradientsParams::from_grads(grads, model));
    }
    // A frozen embedding records nothing to go back over.
    if let Some(grad) = upstream.filter(|_| embedded.is_tracked()) {
        let grads = (embedded * Tensor::from_inner(grad)).sum().backward();
        all.accumulate(model, GradientsParams::from_grads(grads, model));
    }
    Ok((read, all.grads()))
}
