//! Which rank has which parameters: gradients go to their owner, and what it has made of them comes back.

use std::cmp::Reverse;
use std::collections::HashMap;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::optim::GradientsParams;
use burn::tensor::{Device, Tensor, TensorData};
use bytes::Bytes;
use lumina_nn::ops::read;

use crate::collective::{Collective, RankProblem, bytes_f32, f32_bytes};
use crate::{Error, Result};

/// What the ranks of a run share out among them. Results are the same to the bit.
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sharding {
    /// Nothing: each rank has the whole state of the optimizer and updates all weights.
    None,
    /// The state of the optimizer and the sums of gradients: each rank has those of its parameters, updates these, and
    /// gives them to the others. What is sent is the same as with `None`, or less. ZeRO-2 of arXiv 1910.02054, by whole
    /// parameters.
    #[default]
    Optimizer,
}

/// The parameters that are trained, in the order of the network, and their owners. The same on all ranks.
///
/// A parameter is a whole tensor. So its norm and its update are computed in one place, as without ranks, and the state
/// has the same layout in a checkpoint.
#[derive(Debug)]
pub(super) struct Shards {
    parameters: Vec<Parameter>,
    places: HashMap<ParamId, usize>,
    /// The parameters of each owner, the largest first.
    owned: Vec<Vec<usize>>,
}

/// Parameters whose gradients are summed at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    All,
    /// Those of a layer of the transformer.
    Layer(usize),
    /// Those of no layer: embedding, head, final norm.
    Rest,
}

#[derive(Debug)]
struct Parameter {
    id: ParamId,
    name: String,
    elements: usize,
    device: Device,
    /// Its layer or the rest.
    part: Part,
}

/// A value for each parameter, flattened. Parameters without a gradient, and those of other owners, have none.
pub(super) type Values = Vec<Option<Tensor<1>>>;

impl Shards {
    /// Shares the parameters that have names out to as many owners.
    pub(super) fn new(model: &impl Module, names: &HashMap<ParamId, String>, ranks: usize) -> Self {
        struct List<'a> {
            names: &'a HashMap<ParamId, String>,
            parameters: Vec<Parameter>,
        }
        impl ModuleVisitor for List<'_> {
            fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
                if let Some(name) = self.names.get(&param.id) {
                    let (tensor, name) = (param.val().inner(), name.clone());
                    let (elements, device) = (tensor.shape().num_elements(), tensor.device());
                    let part = part_of(&name);
                    self.parameters.push(Parameter { id: param.id, name, elements, device, part });
                }
            }
        }
        let mut list = List { names, parameters: Vec::new() };
        model.visit(&mut list);
        let parameters = list.parameters;
        let sizes: Vec<usize> = parameters.iter().map(|parameter| parameter.elements).collect();
        let places = parameters.iter().enumerate().map(|(at, parameter)| (parameter.id, at)).collect();
        Self { owned: shared_out(&sizes, ranks), places, parameters }
    }

    /// A checksum of names and sizes.
    pub(super) fn fingerprint(&self) -> u32 {
        let mut crc32 = crc32fast::Hasher::new();
        for Parameter { name, elements, .. } in &self.parameters {
            crc32.update(format!("{name}:{elements};").as_bytes());
        }
        crc32.finalize()
    }

    /// No values.
    pub(super) fn none(&self) -> Values {
        self.parameters.iter().map(|_| None).collect()
    }

    /// Whether this is the name of a parameter of this owner.
    pub(super) fn is_owned(&self, owner: usize, name: &str) -> bool {
        self.owned.get(owner).is_some_and(|owned| owned.iter().any(|&at| self.parameters[at].name == name))
    }

    /// What is exchanged at once: one parameter of each owner at most, of similar sizes.
    fn stripes(&self, part: Part) -> Vec<Vec<Option<usize>>> {
        let is_in = |at: &&usize| part == Part::All || self.parameters[**at].part == part;
        let owned: Vec<Vec<usize>> =
            self.owned.iter().map(|owned| owned.iter().filter(is_in).copied().collect()).collect();
        let n_stripes = owned.iter().map(Vec::len).max().unwrap_or(0);
        (0..n_stripes).map(|stripe| owned.iter().map(|owned| owned.get(stripe).copied()).collect()).collect()
    }

    /// The gradients as values.
    pub(super) fn values_of(&self, model: &impl Module, gradients: GradientsParams) -> Values {
        struct Take<'a> {
            places: &'a HashMap<ParamId, usize>,
            gradients: GradientsParams,
            values: &'a mut Values,
        }
        impl ModuleVisitor for Take<'_> {
            fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
                if let Some((gradient, &at)) = self.gradients.remove::<D>(param.id).zip(self.places.get(&param.id)) {
                    self.values[at] = Some(flat(gradient));
                }
            }
        }
        let mut values = self.none();
        model.visit(&mut Take { places: &self.places, gradients, values: &mut values });
        values
    }

    /// The values as gradients.
    pub(super) fn gradients_of(&self, model: &impl Module, values: Values) -> GradientsParams {
        struct Give<'a> {
            places: &'a HashMap<ParamId, usize>,
            values: Values,
            gradients: GradientsParams,
        }
        impl ModuleVisitor for Give<'_> {
            fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
                if let Some(value) = self.places.get(&param.id).and_then(|&at| self.values[at].take()) {
                    self.gradients.register::<D>(param.id, value.reshape(param.val().shape()));
                }
            }
        }
        let mut give = Give { places: &self.places, values, gradients: GradientsParams::new() };
        model.visit(&mut give);
        give.gradients
    }

    /// What the network holds of the parameters that `wanted` has values for.
    pub(super) fn weights(&self, model: &impl Module, wanted: &[bool]) -> Values {
        struct Copy<'a> {
            places: &'a HashMap<ParamId, usize>,
            wanted: &'a [bool],
            values: Values,
        }
        impl ModuleVisitor for Copy<'_> {
            fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
                if let Some(&at) = self.places.get(&param.id).filter(|&&at| self.wanted[at]) {
                    self.values[at] = Some(flat(param.val().inner()));
                }
            }
        }
        let mut copy = Copy { places: &self.places, wanted, values: self.none() };
        model.visit(&mut copy);
        copy.values
    }

    /// The network with these values.
    pub(super) fn with_weights<M: Module>(&self, model: M, values: Values) -> M {
        struct Set<'a> {
            places: &'a HashMap<ParamId, usize>,
            values: Values,
        }
        impl ModuleMapper for Set<'_> {
            fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
                let (id, tensor, mapper) = param.consume();
                let tensor = match self.places.get(&id).and_then(|&at| self.values[at].take()) {
                    Some(value) => Tensor::from_inner(value.reshape(tensor.shape())).require_grad(),
                    None => tensor,
                };
                Param::from_mapped_value(id, tensor, mapper)
            }
        }
        model.map(&mut Set { places: &self.places, values })
    }

    /// Adds the gradients of a part in a pass on each rank to the sums, which each owner has, in the order of ranks.
    pub(super) fn reduce(&self, ranks: &dyn Collective, part: Part, mut pass: Values, sums: &mut Values) -> Result<()> {
        // Nothing goes through host memory where there is one device.
        if ranks.size() == 1 {
            for (sum, gradient) in sums.iter_mut().zip(pass) {
                *sum = match (sum.take(), gradient) {
                    (Some(sum), Some(gradient)) => Some(sum + gradient),
                    (sum, gradient) => sum.or(gradient),
                };
            }
            return Ok(());
        }
        for stripe in self.stripes(part) {
            let given = |at: &Option<usize>| at.and_then(|at| pass[at].take()).map_or(Ok(Vec::new()), read);
            let parts: Vec<Vec<f32>> = stripe.iter().map(given).collect::<Result<_, lumina_nn::Error>>()?;
            let own = stripe[ranks.rank()];
            let mut sum = own.and_then(|at| sums[at].take()).map(read).transpose()?;
            ranks.reduce_scatter(parts, &mut sum)?;
            if let Some((at, sum)) = own.zip(sum) {
                sums[at] = Some(self.tensor(at, ranks.rank(), sum)?);
            }
        }
        Ok(())
    }

    /// The values of all parameters, of which each owner gives its own.
    pub(super) fn gather(&self, ranks: &dyn Collective, mut own: Values) -> Result<Values> {
        for stripe in self.stripes(Part::All).iter().filter(|_| ranks.size() > 1) {
            let value = stripe[ranks.rank()].and_then(|at| own[at].clone()).map(read).transpose()?;
            let all = ranks.all_gather(value.map_or(Bytes::new(), f32_bytes))?;
            for (owner, (bytes, at)) in all.iter().zip(stripe).enumerate().filter(|(owner, _)| *owner != ranks.rank()) {
                if let Some(at) = at.filter(|_| !bytes.is_empty()) {
                    own[at] = Some(self.tensor(at, owner, bytes_f32(bytes))?);
                }
            }
        }
        Ok(own)
    }

    /// Values of a parameter that came from a rank.
    fn tensor(&self, at: usize, rank: usize, values: Vec<f32>) -> Result<Tensor<1>> {
        let Parameter { elements, device, .. } = &self.parameters[at];
        if values.len() != *elements {
            return Err(Error::Rank { rank, problem: RankProblem::Differs });
        }
        Ok(Tensor::from_data(TensorData::new(values, [*elements]), device))
    }
}

/// Shares parameters of these sizes out: the largest first, each to the owner that has the least.
fn shared_out(sizes: &[usize], ranks: usize) -> Vec<Vec<usize>> {
    let mut by_size: Vec<usize> = (0..sizes.len()).collect();
    by_size.sort_by_key(|&index| Reverse(sizes[index]));
    let mut owned: Vec<(usize, Vec<usize>)> = vec![(0, Vec::new()); ranks];
    for index in by_size {
        if let Some((elements, of_owner)) = owned.iter_mut().min_by_key(|(elements, _)| *elements) {
            *elements += sizes[index];
            of_owner.push(index);
        }
    }
    owned.into_iter().map(|(_, of_owner)| of_owner).collect()
}

/// The part that a parameter is of, by its name: `model.layers.3.mlp.up_proj.weight` is of layer 3.
fn part_of(name: &str) -> Part {
    let layer = name.split_once("layers.").and_then(|(_, rest)| rest.split('.').next());
    layer.and_then(|layer| layer.parse().ok()).map_or(Part::Rest, Part::Layer)
}

fn flat<const D: usize>(tensor: Tensor<D>) -> Tensor<1> {
    let elements = tensor.shape().num_elements();
    tensor.reshape([elements])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_shared_out_evenly() {
        let sizes = [1000, 10, 10, 400, 300, 300, 20, 10, 10, 90];
        for ranks in [1, 2, 3, 4, 7, 20] {
            let owned = shared_out(&sizes, ranks);
            let mut all: Vec<usize> = owned.concat();
            all.sort_unstable();
            assert_eq!(all, (0..sizes.len()).collect::<Vec<_>>(), "each has one owner");
            let most = owned.iter().map(|of| of.iter().map(|&at| sizes[at]).sum::<usize>()).max().unwrap();
            let total: usize = sizes.iter().sum();
            assert!(most <= (total / ranks + 100).max(1000), "{ranks} ranks: {most} of {total}");
        }
    }

    #[test]
    fn layers_are_parts() {
        let parts =
            ["model.layers.12.mlp.up_proj.weight", "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"];
        assert_eq!(parts.map(part_of), [Part::Layer(12), Part::Layer(0)]);
        assert_eq!(["lm_head.weight", "model.embed_tokens.weight"].map(part_of), [Part::Rest; 2]);
    }
}
