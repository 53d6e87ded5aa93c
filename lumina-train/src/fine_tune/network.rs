//! The network of a pass: whole, or with the weights of one part at a time, which the ranks give each other.

use std::panic::resume_unwind;
use std::thread;

use lumina_mgpt::Transformer;

use crate::Result;
use crate::collective::Collective;
use crate::shards::{Part, Shards, Values};

/// The network of one pass over its parts.
pub(super) struct Network<'a> {
    model: &'a Transformer,
    /// How it gets the weights that this rank does not have.
    gathers: Option<Gathers<'a>>,
}

/// The weights of the parts, in the order in which the pass needs them: [`Part::order`].
struct Gathers<'a> {
    shards: &'a Shards,
    ranks: &'a dyn Collective,
    /// The weights that this rank has.
    own: Values,
    /// The parts that are still to come.
    order: std::vec::IntoIter<Part>,
    /// The weights of the first of them, once they are gathered.
    ahead: Option<Values>,
}

impl<'a> Network<'a> {
    /// A network that has all weights.
    pub(super) fn whole(model: &'a Transformer) -> Self {
        Self { model, gathers: None }
    }

    /// A network of which each rank has the weights that it owns. All ranks make the pass together, those without any
    /// sequences as well.
    pub(super) fn shared_out(model: &'a Transformer, shards: &'a Shards, ranks: &'a dyn Collective) -> Self {
        let own = shards.own_weights(model, ranks.rank());
        let order = Part::order(model.architecture().n_layers()).into_iter();
        Self { model, gathers: Some(Gathers { shards, ranks, own, order, ahead: None }) }
    }

    /// The number of layers.
    pub(super) fn n_layers(&self) -> usize {
        self.model.architecture().n_layers()
    }

    /// The number of tokens that it knows.
    pub(super) fn vocab_size(&self) -> usize {
        self.model.architecture().vocab_size()
    }

    /// Runs `compute` on the network with the weights of a part, and drops those that this rank does not own. The
    /// weights of the part after it are gathered meanwhile.
    ///
    /// Nothing else may be exchanged by `compute`, so that all ranks exchange in the same order.
    pub(super) fn run<T>(&mut self, part: Part, compute: impl FnOnce(&Transformer) -> Result<T>) -> Result<T> {
        let Some(gathers) = &mut self.gathers else { return compute(self.model) };
        let expected = gathers.order.next();
        debug_assert_eq!(expected, Some(part), "parts come in the order of a pass");
        let weights = match gathers.ahead.take() {
            Some(weights) => weights,
            None => gathers.shards.gather(gathers.ranks, part, gathers.own_of(part))?,
        };
        let model = gathers.shards.with_weights(self.model.clone(), weights);
        let next = gathers.order.as_slice().first().map(|&next| (next, gathers.own_of(next)));
        let (shards, ranks) = (gathers.shards, gathers.ranks);
        let (computed, ahead) = thread::scope(|scope| {
            let ahead = next.map(|(next, own)| scope.spawn(move || shards.gather(ranks, next, own)));
            let computed = compute(&model);
            // A panic there is one of this rank.
            (computed, ahead.map(|ahead| ahead.join().unwrap_or_else(|panic| resume_unwind(panic))))
        });
        // This rank's own error comes first: the others learn of it.
        let computed = computed?;
        gathers.ahead = ahead.transpose()?;
        Ok(computed)
    }

    /// Runs `compute` on the network with zeros as the embedding, unless this rank has it. The embedding's gradient
    /// does not depend on its values, so they need not be gathered again.
    pub(super) fn run_with_any_embedding<T>(&self, compute: impl FnOnce(&Transformer) -> Result<T>) -> Result<T> {
        match &self.gathers {
            None => compute(self.model),
            Some(Gathers { shards, ranks, .. }) => {
                let zeros = shards.zeros_for(ranks.rank(), Part::Embedding);
                compute(&shards.with_weights(self.model.clone(), zeros))
            }
        }
    }
}

impl Gathers<'_> {
    /// The weights of a part that this rank has.
    fn own_of(&self, part: Part) -> Values {
        let own = self.own.iter().enumerate();
        own.map(|(at, value)| value.as_ref().filter(|_| self.shards.is_in(at, part)).cloned()).collect()
    }
}
