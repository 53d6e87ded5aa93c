//! A request in an engine.

use super::event_decoder::EventDecoder;
use super::options::RequestId;
use super::sequence::Sequence;

/// A sequence and its events.
pub(super) struct Entry {
    pub(super) id: RequestId,
    pub(super) sequence: Sequence,
    pub(super) events: EventDecoder,
}
