//! Which rank has which parameters: gradients go to their owner, and what it has made of them comes back.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::optim::GradientsParams;
use burn::tensor::{DType, Device, Shape, Tensor, TensorData};
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
    /// All of that, and the weights: each rank has those of its parameters, and under an adapter those of its part of
    /// the frozen ones. The weights of a layer are gathered when it runs and dropped after, in the forward and in the
    /// backward pass, those of the next layer while it runs. FSDP, or ZeRO-3 of arXiv 1910.02054, by whole parameters.
    /// Each pass sends the layers' weights twice, those of embedding and head once, and all gradients once. With one
    /// rank it is `Optimizer`.
    ///
    /// Needs [`ActivationMemory::Recompute`](crate::fine_tune::ActivationMemory::Recompute): what is kept for the
    /// backward pass of a layer has its weights in it.
    Full,
}

impl Sharding {
    /// Whether no rank has all weights.
    pub(crate) fn shares_weights(self, ranks: usize) -> bool {
        self == Self::Full && ranks > 1
    }
}

/// The parameters that are shared out, in the order of the network, and their owners. The same on all ranks.
///
/// A parameter is a whole tensor. So its norm and its update are computed in one place, as without ranks, and the state
/// has the same layout in a checkpoint.
#[derive(Debug)]
pub(crate) struct Shards {
    parameters: Vec<Parameter>,
    places: HashMap<ParamId, usize>,
    /// The parameters of each owner, the largest first.
    owned: Vec<Vec<usize>>,
}

/// Parameters that are needed, and whose gradients are summed, at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    All,
    Embedding,
    /// Those of a layer of the transformer.
    Layer(usize),
    /// Those after the last layer: final norm and head.
    Head,
}

impl Part {
    /// The parts in the order in which a pass needs their weights: forward, and the layers once more backward.
    pub(crate) fn order(layers: usize) -> Vec<Self> {
        let forward = (0..layers).map(Self::Layer);
        std::iter::once(Self::Embedding).chain(forward.clone()).chain([Self::Head]).chain(forward.rev()).collect()
    }
}

/// Which parameters of a network are shared out, by their names in the checkpoint.
#[derive(Debug)]
pub(crate) struct Names<'a> {
    /// Those that are trained.
    pub(crate) trained: &'a HashMap<ParamId, String>,
    /// Others.
    pub(crate) frozen: Option<&'a HashMap<ParamId, String>>,
    /// The shapes of the whole, where the network may have placeholders.
    pub(crate) shapes: Option<&'a BTreeMap<String, Vec<usize>>>,
}

impl<'a> Names<'a> {
    /// The parameters that are trained, in a network that has them all.
    pub(crate) fn trained(trained: &'a HashMap<ParamId, String>) -> Self {
        Self { trained, frozen: None, shapes: None }
    }
}

/// A parameter that is shared out.
#[derive(Debug)]
pub(crate) struct Parameter {
    /// The checkpoint's name.
    pub(crate) name: String,
    /// The shape of the whole, of which a rank may have a placeholder.
    pub(crate) shape: Vec<usize>,
    pub(crate) elements: usize,
    /// Without gradients.
    pub(crate) device: Device,
    pub(crate) is_trained: bool,
    dtype: DType,
    /// Not [`Part::All`].
    part: Part,
}

/// A value for each parameter, flattened. Parameters without a gradient, and those of other owners, have none.
pub(crate) type Values = Vec<Option<Tensor<1>>>;

impl Shards {
    /// Shares the parameters of a network out to as many owners.
    pub(crate) fn new(model: &impl Module, names: &Names<'_>, ranks: usize) -> Self {
        struct List<'a> {
            names: &'a Names<'a>,
            parameters: Vec<Parameter>,
            places: HashMap<ParamId, usize>,
        }
        impl ModuleVisitor for List<'_> {
            fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
                let Names { trained, frozen, shapes } = self.names;
                let is_trained = trained.contains_key(&param.id);
                let name = trained.get(&param.id).or_else(|| frozen.and_then(|frozen| frozen.get(&param.id)));
                let Some(name) = name else { return };
                let tensor = param.val().inner();
                let of_whole = shapes.and_then(|shapes| shapes.get(name).cloned());
                let shape = of_whole.unwrap_or_else(|| tensor.dims().to_vec());
                let at = self.parameters.len();
                self.parameters.push(Parameter {
                    name: name.clone(),
                    elements: shape.iter().product(),
                    shape,
                    device: tensor.device(),
                    is_trained,
                    dtype: tensor.dtype(),
                    part: part_of(name, at),
                });
                self.places.insert(param.id, at);
            }
        }
        let mut list = List { names, parameters: Vec::new(), places: HashMap::new() };
        model.visit(&mut list);
        let List { parameters, places, .. } = list;
        // Each kind by itself, as a parameter that is trained takes several times the memory.
        let [mut owned, frozen] = [true, false].map(|is_trained| {
            let of_kind = parameters.iter().enumerate().filter(|(_, parameter)| parameter.is_trained == is_trained);
            shared_out(of_kind.map(|(at, parameter)| (at, parameter.elements)), ranks)
        });
        owned.iter_mut().zip(frozen).for_each(|(owned, frozen)| owned.extend(frozen));
        Self { owned, places, parameters }
    }

    /// A checksum of names and sizes.
    pub(crate) fn fingerprint(&self) -> u32 {
        let mut crc32 = crc32fast::Hasher::new();
        for Parameter { name, elements, .. } in &self.parameters {
            crc32.update(format!("{name}:{elements};").as_bytes());
        }
        crc32.finalize()
    }

    /// The parameters, in the order of the network.
    pub(crate) fn parameters(&self) -> &[Parameter] {
        &self.parameters
    }

    /// Which rank owns a parameter.
    pub(crate) fn owner(&self, at: usize) -> Option<usize> {
        self.owned.iter().position(|owned| owned.contains(&at))
    }

    /// Whether a parameter is in a part.
    pub(crate) fn is_in(&self, at: usize, part: Part) -> bool {
        part == Part::All || self.parameters[at].part == part
    }

    /// No values.
    pub(crate) fn none(&self) -> Values {
        self.parameters.iter().map(|_| None).collect()
    }

    /// Whether this is the name of a parameter of this owner.
    pub(crate) fn is_owned(&self, owner: usize, name: &str) -> bool {
        self.owned.get(owner).is_some_and(|owned| owned.iter().any(|&at| self.parameters[at].name == name))
    }

    /// What is exchanged at once: one parameter of each owner at most, of similar sizes.
    fn stripes(&self, is_wanted: impl Fn(usize) -> bool) -> Vec<Vec<Option<usize>>> {
        let wanted = |owned: &Vec<usize>| owned.iter().copied().filter(|&at| is_wanted(at)).collect();
        let owned: Vec<Vec<usize>> = self.owned.iter().map(wanted).collect();
        let n_stripes = owned.iter().map(Vec::len).max().unwrap_or(0);
        (0..n_stripes).map(|stripe| owned.iter().map(|owned| owned.get(stripe).copied()).collect()).collect()
    }

    /// The gradients as values.
    pub(crate) fn values_of(&self, model: &impl Module, gradients: GradientsParams) -> Values {
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
    pub(crate) fn gradients_of(&self, model: &impl Module, values: Values) -> GradientsParams {
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
    pub(crate) fn weights(&self, model: &impl Module, wanted: &[bool]) -> Values {
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

    /// What a network holds of the parameters that a rank owns.
    pub(crate) fn own_weights(&self, model: &impl Module, rank: usize) -> Values {
        let mut is_own = vec![false; self.parameters.len()];
        self.owned.get(rank).into_iter().flatten().for_each(|&at| is_own[at] = true);
        self.weights(model, &is_own)
    }

    /// Zeros for the parameters of a part that a rank does not own.
    pub(crate) fn zeros_for(&self, rank: usize, part: Part) -> Values {
        let mut values = self.none();
        let owners = self.owned.iter().enumerate().filter(|(owner, _)| *owner != rank);
        for &at in owners.flat_map(|(_, owned)| owned).filter(|&&at| self.is_in(at, part)) {
            let Parameter { elements, device, dtype, .. } = &self.parameters[at];
            values[at] = Some(Tensor::zeros([*elements], (device, *dtype)));
        }
        values
    }

    /// The network with these values.
    pub(crate) fn with_weights<M: Module>(&self, model: M, values: Values) -> M {
        struct Set<'a> {
            shards: &'a Shards,
            values: Values,
        }
        impl ModuleMapper for Set<'_> {
            fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
                let (id, tensor, mapper) = param.consume();
                let at = self.shards.places.get(&id).copied();
                let tensor = match at.and_then(|at| Some((&self.shards.parameters[at], self.values[at].take()?))) {
                    Some((parameter, value)) => {
                        let tensor = Tensor::from_inner(value.reshape(Shape::from(parameter.shape.clone())));
                        if parameter.is_trained { tensor.require_grad() } else { tensor }
                    }
                    None => tensor,
                };
                Param::from_mapped_value(id, tensor, mapper)
            }
        }
        model.map(&mut Set { shards: self, values })
    }

    /// Adds the gradients of a part in a pass on each rank to the sums, which each owner has, in the order of ranks.
    pub(crate) fn reduce(&self, ranks: &dyn Collective, part: Part, mut pass: Values, sums: &mut Values) -> Result<()> {
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
        for stripe in self.stripes(|at| self.parameters[at].is_trained && self.is_in(at, part)) {
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

    /// The values of a part's parameters, of which each owner gives its own.
    pub(crate) fn gather(&self, ranks: &dyn Collective, part: Part, mut own: Values) -> Result<Values> {
        for stripe in self.stripes(|at| self.is_in(at, part)).iter().filter(|_| ranks.size() > 1) {
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
        let Parameter { elements, device, dtype, .. } = &self.parameters[at];
        if values.len() != *elements {
            return Err(Error::Rank { rank, problem: RankProblem::Differs });
        }
        // Frozen weights may be of 16 bits, of which `f32` holds all values.
        let data = TensorData::new(values, [*elements]).convert_dtype(*dtype);
        Ok(Tensor::from_data(data, (device, *dtype)))
    }
}

/// The values times a factor.
pub(crate) fn scaled(values: Values, factor: f64) -> Values {
    match factor == 1.0 {
        true => values,
        false => values.into_iter().map(|value| value.map(|value| value * factor)).collect(),
    }
}

/// Shares parameters, given by place and size, out: the largest first, each to the owner that has the least.
fn shared_out(parameters: impl Iterator<Item = (usize, usize)>, ranks: usize) -> Vec<Vec<usize>> {
    let mut by_size: Vec<(usize, usize)> = parameters.collect();
    by_size.sort_by_key(|&(_, size)| Reverse(size));
    let mut owned: Vec<(usize, Vec<usize>)> = vec![(0, Vec::new()); ranks];
    for (at, size) in by_size {
        if let Some((elements, of_owner)) = owned.iter_mut().min_by_key(|(elements, _)| *elements) {
            *elements += size;
            of_owner.push(at);
        }
    }
    owned.into_iter().map(|(_, of_owner)| of_owner).collect()
}

/// The part that a parameter is of, by its name, as `model.layers.3.mlp.up_proj.weight` is of layer 3, and its place: a
/// head that is the embedding's table has its name as well.
fn part_of(name: &str, at: usize) -> Part {
    let layer = name.split_once("layers.").and_then(|(_, rest)| rest.split('.').next());
    match layer.and_then(|layer| layer.parse().ok()) {
        Some(layer) => Part::Layer(layer),
        None if at == 0 && name.ends_with("embed_tokens.weight") => Part::Embedding,
        None => Part::Head,
    }
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
            let owned = shared_out(sizes.iter().copied().enumerate(), ranks);
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
        let names =
            ["model.layers.12.mlp.up_proj.weight", "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"];
        assert_eq!(names.map(|name| part_of(name, 0)), [Part::Layer(12), Part::Layer(0)]);
        let embedding = "model.embed_tokens.weight";
        assert_eq!(part_of(embedding, 0), Part::Embedding);
        assert_eq!(
            [("lm_head.weight", 0), ("model.norm.weight", 8), (embedding, 9)].map(|(n, at)| part_of(n, at)),
            [Part::Head; 3]
        );
    }
}
