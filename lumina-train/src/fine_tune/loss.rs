//! Cross entropy of the next token, the z-loss that keeps logits from drifting, and their gradients.

use burn::optim::{GradientsAccumulator, GradientsParams};
use burn::tensor::Tensor;
use lumina_mgpt::{Dropout, Pass, Transformer};
use lumina_nn::ops::{cross_entropy, gather, read};
use lumina_tokenizer::IGNORED;

use super::network::Network;
use crate::shards::Part;
use crate::{Error, Result};

/// A sequence with its labels: each token itself where it is to be predicted, [`IGNORED`] elsewhere. Not shifted.
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

/// Whether the activations of the forward pass are kept for the backward pass.
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ActivationMemory {
    /// They are kept: the fastest.
    #[default]
    Keep,
    /// Only each layer's input is kept, and the backward pass runs the layer again: memory of one layer instead of all,
    /// for a third more time.
    Recompute,
}

/// How a batch's loss is computed.
#[derive(Debug, Clone, Copy)]
pub struct LossOptions {
    /// Factor on the z-loss.
    pub z_loss_weight: f64,
    /// Dropout of the pass.
    pub dropout: Dropout,
    /// Whether activations are kept.
    pub activation_memory: ActivationMemory,
}

/// The loss of a batch as tensors that record gradients.
struct LossTensors {
    total: Tensor<1>,
    /// Cross entropy and z-loss, `[2]`.
    terms: Tensor<1>,
    counted: usize,
}

impl LossTensors {
    fn read(&self) -> Result<Loss> {
        let values = read(Tensor::cat(vec![self.total.clone().detach(), self.terms.clone().detach()], 0))?;
        let [total, cross_entropy, z_loss] = [0, 1, 2].map(|index| f64::from(values[index]));
        Ok(Loss { total, cross_entropy, z_loss, counted: self.counted })
    }
}

/// The positions of hidden states that predict a token, and these tokens.
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
                return Err(Error::LabelCount { tokens: tokens.len(), labels: labels.len() });
            }
            for (position, &label) in labels.iter().enumerate().skip(1) {
                if label == IGNORED {
                    continue;
                }
                if !(0..vocab_size as i64).contains(&label) {
                    return Err(Error::UnknownLabel { label, position, vocab_size });
                }
                targets.positions.push((start + position - 1) as u32);
                targets.tokens.push(label as u32);
            }
            start += tokens.len();
        }
        match targets.tokens.len() {
            0 => Err(Error::NothingToPredict),
            _ => Ok(targets),
        }
    }

    /// The loss of the hidden states after the last layer, `[tokens, hidden]`. The head sees only those that predict.
    fn loss(&self, model: &Transformer, hidden: Tensor<2>, z_loss_weight: f64) -> LossTensors {
        let predicting = gather(hidden, &self.positions).expect("positions are those of tokens of the batch");
        let logits = model.logits(model.final_norm(predicting));
        let terms = cross_entropy(logits, &self.tokens)
            .expect("`Targets::of` made sure that there are labels, all in the vocabulary, which the logits have");
        let total = terms.clone().narrow(0, 0, 1) + terms.clone().narrow(0, 1, 1) * z_loss_weight;
        LossTensors { total, terms, counted: self.tokens.len() }
    }
}

/// The loss of a batch without its gradients, as for held-out data.
///
/// # Errors
/// As [`gradients`].
pub fn loss(model: &Transformer, batch: &[Example<'_>], z_loss_weight: f64) -> Result<Loss> {
    let targets = Targets::of(batch, model.architecture().vocab_size())?;
    let rows: Vec<&[u32]> = batch.iter().map(|example| example.tokens).collect();
    let model = &model.unrecorded();
    let (pass, mut x) = model.begin(&rows, Dropout::NONE)?;
    for layer in 0..model.architecture().n_layers() {
        x = model.layer(layer, x, &pass)?;
    }
    targets.loss(model, x, z_loss_weight).read()
}

/// The loss of a batch, a mean over all its predicted tokens, and the gradient of each parameter.
///
/// Mirrors `ChameleonXLLMXForConditionalGeneration.forward`, and its `backward`.
///
/// # Errors
/// [`Error::LabelCount`], [`Error::UnknownLabel`], [`Error::NothingToPredict`]; [`Error::Model`] for a token that the
/// vocabulary lacks; [`Error::Nn`] where the device fails.
pub fn gradients(model: &Transformer, batch: &[Example<'_>], options: &LossOptions) -> Result<(Loss, GradientsParams)> {
    let mut all = GradientsAccumulator::new();
    let loss = gradients_by_part(&mut Network::whole(model), batch, options, &mut |_, of_part| {
        all.accumulate(model, of_part);
        Ok(())
    })?;
    Ok((loss, all.grads()))
}

/// Takes the gradients of a part of the network.
pub(super) type TakePart<'a> = dyn FnMut(Part, GradientsParams) -> Result<()> + 'a;

/// As [`gradients`], which `take` gets: all at once, or, where activations are not kept, those of each part as soon as
/// they are computed, from the head to the embedding, each part once.
pub(super) fn gradients_by_part(
    network: &mut Network<'_>,
    batch: &[Example<'_>],
    options: &LossOptions,
    take: &mut TakePart<'_>,
) -> Result<Loss> {
    let targets = Targets::of(batch, network.vocab_size())?;
    let rows: Vec<&[u32]> = batch.iter().map(|example| example.tokens).collect();
    let pass = PassOf { rows: &rows, targets: &targets, options };
    match options.activation_memory {
        ActivationMemory::Keep => {
            let (loss, gradients) = network.run(Part::All, |model| keep(model, &pass))?;
            take(Part::All, gradients)?;
            Ok(loss)
        }
        ActivationMemory::Recompute => recompute(network, &pass, take),
    }
}

/// What a rank does in a round in which it has no pass, and activations are not kept: its part in what the others
/// gather and sum.
pub(super) fn no_pass(network: &mut Network<'_>, take: &mut TakePart<'_>) -> Result<()> {
    let layers = network.n_layers();
    network.run(Part::Embedding, |_| Ok(()))?;
    for layer in 0..layers {
        network.run(Part::Layer(layer), |_| Ok(()))?;
    }
    network.run(Part::Head, |_| Ok(()))?;
    take(Part::Head, GradientsParams::new())?;
    for part in (0..layers).rev().map(Part::Layer) {
        network.run(part, |_| Ok(()))?;
        take(part, GradientsParams::new())?;
    }
    take(Part::Embedding, GradientsParams::new())
}

/// The sequences of a pass, and what is to be computed of them.
struct PassOf<'a> {
    rows: &'a [&'a [u32]],
    targets: &'a Targets,
    options: &'a LossOptions,
}

impl PassOf<'_> {
    /// The pass, and the hidden states before the first layer.
    fn begin(&self, model: &Transformer) -> Result<(Pass, Tensor<2>)> {
        Ok(model.begin(self.rows, self.options.dropout)?)
    }

    fn loss(&self, model: &Transformer, hidden: Tensor<2>) -> LossTensors {
        self.targets.loss(model, hidden, self.options.z_loss_weight)
    }
}

/// Forward through all layers, and backward.
fn keep(model: &Transformer, batch: &PassOf<'_>) -> Result<(Loss, GradientsParams)> {
    let (pass, mut x) = batch.begin(model)?;
    for layer in 0..model.architecture().n_layers() {
        x = model.layer(layer, x, &pass)?;
    }
    let loss = batch.loss(model, x);
    let read = loss.read()?;
    Ok((read, GradientsParams::from_grads(loss.total.backward(), model)))
}

/// Forward through all layers, of which only the inputs are kept; then, from the last layer to the first, forward
/// through it again, and backward.
fn recompute(network: &mut Network<'_>, batch: &PassOf<'_>, take: &mut TakePart<'_>) -> Result<Loss> {
    let layers = network.n_layers();
    let mut inputs = Vec::with_capacity(layers);
    // A frozen embedding records nothing, and has no backward pass.
    let (pass, is_embedding_trained, forward, mut x) = network.run(Part::Embedding, |model| {
        let (pass, embedded) = batch.begin(model)?;
        let (forward, x) = batch.begin(&model.unrecorded())?;
        Ok((pass, embedded.is_tracked(), forward, x))
    })?;
    for layer in 0..layers {
        inputs.push(x.clone());
        x = network.run(Part::Layer(layer), |model| Ok(model.unrecorded().layer(layer, x, &forward)?))?;
    }
    let x = Tensor::from_inner(x).require_grad();
    let (read, gradients, mut upstream) = network.run(Part::Head, |model| {
        let loss = batch.loss(model, x.clone());
        let read = loss.read()?;
        let mut grads = loss.total.backward();
        let upstream = x.grad_remove(&mut grads);
        Ok((read, GradientsParams::from_grads(grads, model), upstream))
    })?;
    take(Part::Head, gradients)?;
    for (layer, input) in inputs.into_iter().enumerate().rev() {
        let gradients = network.run(Part::Layer(layer), |model| {
            let Some(gradient) = upstream.take() else { return Ok(GradientsParams::new()) };
            let input = Tensor::from_inner(input).require_grad();
            // The derivative of this sum by the layer's output is the gradient at the output.
            let output = model.layer(layer, input.clone(), &pass)?;
            let mut grads = (output * Tensor::from_inner(gradient)).sum().backward();
            upstream = input.grad_remove(&mut grads);
            Ok(GradientsParams::from_grads(grads, model))
        })?;
        take(Part::Layer(layer), gradients)?;
    }
    let gradients = match upstream.filter(|_| is_embedding_trained) {
        None => GradientsParams::new(),
        Some(gradient) => network.run_with_any_embedding(|model| {
            let (_, embedded) = batch.begin(model)?;
            let grads = (embedded * Tensor::from_inner(gradient)).sum().backward();
            Ok(GradientsParams::from_grads(grads, model))
        })?,
    };
    take(Part::Embedding, gradients)?;
    Ok(read)
}
