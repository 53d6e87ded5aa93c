//! A request before it is added to an engine: checked, with its prompt as tokens.

use lumina_sampling::Sampler;

use super::clock::{Clock, now};
use super::options::{EngineOptions, Submission};
use super::request::{GenerateOptions, Prompt, Request};
use super::sequence::{Sequence, SequenceParts};
use crate::error::catch;
use crate::model::ModelParts;
use crate::{Error, Result};

/// A request that an engine can take at once. It is made on any thread, so that no pass waits for it.
pub(crate) struct Prepared {
    pub(super) sequence: Sequence,
    pub(super) options: GenerateOptions,
}

impl Prepared {
    /// Checks a request, and makes tokens of its prompt.
    ///
    /// # Errors
    /// Those of [`Engine::submit`](super::Engine::submit).
    pub(crate) fn new(
        model: &ModelParts,
        options: &EngineOptions,
        request: &Request,
        submission: Submission,
        clock: &dyn Clock,
    ) -> Result<Self> {
        if let Prompt::Task(task, input) = &request.prompt {
            model.preset.check_input(*task, input)?;
        }
        let Submission { cancel, sampler: adapt } = submission;
        let sampling = &request.options.sampling;
        // Now, and not after all passes of an image that could not be shown.
        if sampling.modality.is_one_image() {
            let images = model.image_tokenizer()?;
            if !images.has_decoder() {
                return Err(lumina_vq::Error::NoDecoder.into());
            }
            if let Some(size) = sampling.image_size {
                images.bands_within_limits([size.latent_rows(), size.latent_columns()].map(|side| side as usize))?;
            }
        }
        let unirep = &model.unirep;
        let context = model.transformer.architecture().max_positions();
        let prompt = unirep.encode_within(&*request.prompt.conversation()?, context)?.tokens;
        if let Some(size) = sampling.image_size.filter(|_| sampling.modality.is_one_image())
            && prompt.len() + size.n_tokens() > context
        {
            let (tokens, prompt) = (size.n_tokens(), prompt.len());
            return Err(Error::ImageBeyondContext { size, tokens, prompt, context });
        }
        let sampler = Sampler::new(unirep.vocabulary(), sampling)?;
        let sampler = match adapt {
            Some(adapt) => catch("the function that changes the sampler", || adapt(sampler))?,
            None => sampler,
        };
        let parts = SequenceParts {
            transformer: &model.transformer,
            vocabulary: unirep.vocabulary(),
            options: &request.options,
            cancel,
            now: now(clock)?,
        };
        let sequence = Sequence::new(parts, prompt, sampler)?;
        let needed = sequence.least_bytes();
        let limit = model.limits.kv_cache_bytes;
        if needed > limit {
            return Err(Error::KvLimit { needed, limit });
        }
        if let Some(budget) = options.kv_budget_bytes.filter(|&budget| needed > budget) {
            return Err(Error::KvBudget { needed, budget });
        }
        Ok(Self { sequence, options: request.options.clone() })
    }
}
