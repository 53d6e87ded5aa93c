//! A row of logits and the token ids that it is for.

use std::ops::Range;

use crate::{Error, Result};

/// Logits of the ids `first_id .. first_id + logits.len()`.
///
/// A model that computes the logits of a range of ids alone, such as those of the image tokens, passes them on as they
/// are. A slice is a row that starts at id 0.
///
/// ```
/// use lumina_sampling::LogitsRow;
/// let whole: LogitsRow = (&[0.5, 1.0, 2.0]).into();
/// let part = LogitsRow { first_id: 1, logits: &whole.logits[1..] };
/// assert_eq!((whole.get(2), part.get(2)), (Some(2.0), Some(2.0)));
/// assert_eq!((whole.get(0), part.get(0)), (Some(0.5), None));
/// ```
#[derive(Clone, Copy, PartialEq)]
pub struct LogitsRow<'a> {
    /// The id of the first logit.
    pub first_id: u32,
    /// The logits, `[n_ids]`, by ascending id.
    pub logits: &'a [f32],
}

impl<'a> LogitsRow<'a> {
    /// The ids that the row has logits for.
    pub fn ids(self) -> Range<u32> {
        let len = u32::try_from(self.logits.len()).unwrap_or(u32::MAX);
        self.first_id..self.first_id.saturating_add(len)
    }

    /// The logit of a token; `None` where the row has none for it.
    pub fn get(self, token: u32) -> Option<f32> {
        self.logits.get(token.checked_sub(self.first_id)? as usize).copied()
    }

    /// Appends the logits of `tokens`, which ascend, to `buffer`.
    ///
    /// # Errors
    /// [`Error::ShortRow`] where the row lacks one of them.
    pub(crate) fn append_to(self, buffer: &mut Vec<f32>, tokens: &[u32]) -> Result<()> {
        self.check(tokens)?;
        match self.without_gaps(tokens) {
            Some(part) => buffer.extend_from_slice(part),
            None => buffer.extend(tokens.iter().map(|&token| self.logits[(token - self.first_id) as usize])),
        }
        Ok(())
    }

    /// The logits of `tokens`, which ascend: a part of the row if the ids have no gaps, or else gathered in `buffer`.
    ///
    /// # Errors
    /// [`Error::ShortRow`] where the row lacks one of them.
    pub(crate) fn of<'b>(self, tokens: &[u32], buffer: &'b mut Vec<f32>) -> Result<&'b [f32]>
    where
        'a: 'b,
    {
        self.check(tokens)?;
        if let Some(part) = self.without_gaps(tokens) {
            return Ok(part);
        }
        buffer.clear();
        self.append_to(buffer, tokens)?;
        Ok(buffer)
    }

    /// The logits of `tokens`, which ascend and are in the row, if their ids have no gaps: those of the image tokens
    /// have none in every published vocabulary.
    fn without_gaps(self, tokens: &[u32]) -> Option<&'a [f32]> {
        let (&first, &last) = tokens.first().zip(tokens.last())?;
        let is_run = (last - first) as usize == tokens.len() - 1;
        is_run.then(|| &self.logits[(first - self.first_id) as usize..][..tokens.len()])
    }

    /// Checks that the row has the logits of `tokens`, which ascend.
    fn check(self, tokens: &[u32]) -> Result<()> {
        let lacking = tokens.last().into_iter().chain(tokens.first()).find(|&&token| self.get(token).is_none());
        lacking.map_or(Ok(()), |&token| Err(self.lacks(token)))
    }

    /// The error that the row has no logit for `token`.
    pub(crate) fn lacks(self, token: u32) -> Error {
        Error::ShortRow { ids: self.ids(), token }
    }
}

impl<'a> From<&'a [f32]> for LogitsRow<'a> {
    fn from(logits: &'a [f32]) -> Self {
        Self { first_id: 0, logits }
    }
}

impl<'a, const N: usize> From<&'a [f32; N]> for LogitsRow<'a> {
    fn from(logits: &'a [f32; N]) -> Self {
        logits.as_slice().into()
    }
}

impl<'a> From<&'a Vec<f32>> for LogitsRow<'a> {
    fn from(logits: &'a Vec<f32>) -> Self {
        logits.as_slice().into()
    }
}

impl std::fmt::Debug for LogitsRow<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LogitsRow").field("ids", &self.ids()).finish_non_exhaustive()
    }
}
