//! The first passes, made ahead of the first request.

use lumina_core::CodeGrid;
use lumina_vq::Bands;

use super::Lumina;
use crate::Result;
use crate::model::{KvCache, Row};

/// A step of [`Lumina::warm_up`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct WarmUp {
    /// What is done now.
    pub step: &'static str,
    /// Steps before it.
    pub done: usize,
    /// All steps.
    pub of: usize,
}

/// Tokens of the prompt, above the number from which prompts take other kernels than single tokens.
const PROMPT: usize = 40;

/// Passes of one kind: the first compiles kernels, the second records launches where they can be replayed.
const PASSES: usize = 3;

impl Lumina {
    /// Makes passes of each kind that a request makes, and forgets them: on a GPU kernels are then compiled, and on a
    /// processor the weights read from the disk. A server calls it before it takes requests. `progress` is called
    /// before each step.
    ///
    /// # Errors
    /// [`Error::Nn`](crate::Error::Nn) where the device fails.
    pub fn warm_up(&self, mut progress: impl FnMut(WarmUp)) -> Result<()> {
        let transformer = self.transformer();
        let vocabulary = self.tokenizer().vocabulary();
        let ids = match vocabulary.image_tokens() {
            [first, .., last] => *first as usize..*last as usize + 1,
            _ => 0..transformer.architecture().vocab_size(),
        };
        let prompt = vec![vocabulary.bos(); PROMPT.min(transformer.architecture().max_positions())];
        let decoder = self.image_tokenizer().ok().filter(|images| images.has_decoder());
        let steps = ["prompt", "one token", "one token with guidance"];
        let of = steps.len() + usize::from(decoder.is_some());
        let mut begin = |done| progress(WarmUp { step: steps.get(done).copied().unwrap_or("image"), done, of });

        begin(0);
        transformer.run(&mut [Row::whole(&prompt)], ids.clone())?;
        for (done, n) in [(1, 1), (2, 2)] {
            begin(done);
            let mut caches: Vec<KvCache> = (0..n).map(|_| transformer.new_cache(PASSES)).collect();
            for _ in 0..PASSES.min(transformer.architecture().max_positions()) {
                let mut rows: Vec<Row<'_>> = caches.iter_mut().map(|cache| Row::cached(&prompt[..1], cache)).collect();
                transformer.run(&mut rows, ids.clone())?;
            }
        }
        if let Some(images) = decoder {
            begin(3);
            images.decode(&CodeGrid::new(2, 2, vec![0; 4])?, Bands::Whole)?;
        }
        Ok(())
    }
}
