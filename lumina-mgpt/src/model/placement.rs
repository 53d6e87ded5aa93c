//! Which layers go to which device.

use std::ops::Range;

/// What a device has room for, and what the parts of a network take there.
#[derive(Debug, Clone)]
pub(super) struct Room {
    /// Bytes for weights, and for keys and values; `None` where nobody says how many.
    pub(super) bytes: Option<u64>,
    /// Bytes of the embedding.
    pub(super) embedding: u64,
    /// Bytes of the weights of each layer.
    pub(super) layers: Vec<u64>,
    /// Bytes of the final norm and the head.
    pub(super) head: u64,
    /// Bytes of the keys and values of a token in a layer.
    pub(super) kv: u64,
}

/// Layers on a device: its index, and theirs.
pub(super) type Placed = (usize, Range<usize>);

impl Room {
    /// Bytes of these layers with keys and values of so many tokens.
    pub(super) fn bytes_of(&self, layers: Range<usize>, tokens: u64) -> u64 {
        let bytes = |weights: &u64| weights.saturating_add(tokens.saturating_mul(self.kv));
        self.layers[layers].iter().map(bytes).fold(0, u64::saturating_add)
    }
}

/// The layers of each device, in the order of the layers, with room for keys and values of as many of `most_tokens`
/// as possible; `None` where not even the weights fit.
///
/// Devices are filled in the order in which they are named, from the last layer on: the first one has the head, which
/// is about as large as a layer, and draws the tokens. The embedding is with the first layers.
pub(super) fn place(rooms: &[Room], most_tokens: u64) -> Option<Vec<Placed>> {
    if let Some(placed) = with_tokens(rooms, most_tokens) {
        return Some(placed);
    }
    // With fewer tokens no device has fewer layers. There is room for `low` tokens, and none for `high`.
    let mut placed = with_tokens(rooms, 0)?;
    let (mut low, mut high) = (0, most_tokens);
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        match with_tokens(rooms, middle) {
            Some(more) => (low, placed) = (middle, more),
            None => high = middle,
        }
    }
    Some(placed)
}

/// [`place`] with room for keys and values of so many tokens.
fn with_tokens(rooms: &[Room], tokens: u64) -> Option<Vec<Placed>> {
    let mut placed = Vec::new();
    let mut end = rooms.first()?.layers.len();
    for (device, room) in rooms.iter().enumerate() {
        let head = if placed.is_empty() { room.head } else { 0 };
        let Some(mut left) = room.bytes.unwrap_or(u64::MAX).checked_sub(head) else { continue };
        if room.embedding.saturating_add(room.bytes_of(0..end, tokens)) <= left {
            placed.push((device, 0..end));
            placed.reverse();
            return Some(placed);
        }
        // The first layer is where the embedding is, on a later device.
        let mut start = end;
        while start > 1 && room.bytes_of(start - 1..start, tokens) <= left {
            start -= 1;
            left -= room.bytes_of(start..start + 1, tokens);
        }
        if start < end {
            placed.push((device, start..end));
            end = start;
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ten layers of 10 bytes and 1 for each token, an embedding of 15, a head of 20.
    fn room(bytes: impl Into<Option<u64>>) -> Room {
        Room { bytes: bytes.into(), embedding: 15, layers: vec![10; 10], head: 20, kv: 1 }
    }

    #[test]
    fn all_is_on_the_first_device_where_it_fits() {
        let all = 15 + 10 * (10 + 5) + 20;
        assert_eq!(place(&[room(all), room(1000)], 5), Some(vec![(0, 0..10)]));
        assert_eq!(place(&[room(None), room(1000)], 5), Some(vec![(0, 0..10)]));
        // One byte less, and the last of what does not fit goes on: the first layer, with the embedding.
        assert_eq!(place(&[room(all - 1), room(1000)], 5), Some(vec![(1, 0..1), (0, 1..10)]));
        assert_eq!(place(&[room(1000)], 5), Some(vec![(0, 0..10)]));
        assert_eq!(place(&[], 5), None);
    }

    #[test]
    fn devices_are_filled_in_their_order_from_the_last_layer_on() {
        // 20 and three layers of 15; four of them; what is left, in host memory.
        let rooms = [room(20 + 45 + 14), room(60), room(None)];
        assert_eq!(place(&rooms, 5), Some(vec![(2, 0..3), (1, 3..7), (0, 7..10)]));
        // A device that is too small for a layer, or for one with the head, has none; the head is with the last layer.
        let rooms = [room(34), room(14), room(35), room(None)];
        assert_eq!(place(&rooms, 5), Some(vec![(3, 0..9), (2, 9..10)]));
        let rooms = [room(10), room(None)];
        assert_eq!(place(&rooms, 5), Some(vec![(1, 0..10)]));
    }

    #[test]
    fn layers_may_differ_in_size() {
        let layers = vec![30, 10, 20, 10, 5];
        let room = |bytes| Room { bytes, embedding: 1, layers: layers.clone(), head: 2, kv: 0 };
        assert_eq!(place(&[room(Some(17)), room(Some(31))], 9), None);
        assert_eq!(place(&[room(Some(17)), room(Some(61))], 9), Some(vec![(1, 0..3), (0, 3..5)]));
        assert_eq!(place(&[room(Some(16)), room(Some(70)), room(Some(30))], 9), None);
        let three = vec![(2, 0..1), (1, 1..4), (0, 4..5)];
        assert_eq!(place(&[room(Some(16)), room(Some(70)), room(Some(31))], 9), Some(three));
        assert_eq!(place(&[room(Some(16)), room(Some(71))], 9), Some(vec![(1, 0..4), (0, 4..5)]));
    }

    /// Where the keys and values of a whole context have no room, all devices have room for as many tokens.
    #[test]
    fn what_room_there_is_for_keys_and_values_is_shared_out() {
        // Weights alone are 135 bytes: 20 on the first device, 115 on the second, if it is filled to the brim.
        let rooms = [room(90), room(90)];
        let placed = place(&rooms, 1000).unwrap();
        assert_eq!(placed, vec![(1, 0..5), (0, 5..10)]);
        for tokens in 0..1000 {
            let least = with_tokens(&rooms, tokens);
            // 20 + 5 · (10 + 4) = 90, and 15 + 5 · (10 + 5) = 90.
            assert_eq!(least.is_some(), tokens <= 4, "{tokens}");
            assert!(least.is_none_or(|least| tokens < 4 || least == placed));
        }
        assert_eq!(place(&[room(60), room(60)], 1000), None);
        assert_eq!(place(&[room(69), room(66)], 1000), None);
        assert_eq!(place(&[room(70), room(65)], 1000), Some(vec![(1, 0..5), (0, 5..10)]));
    }

    proptest::proptest! {
        /// Every layer is on one device, every device holds what it has, and one more token would not fit.
        #[test]
        fn nothing_is_lost_or_over(
            bytes in proptest::collection::vec(proptest::option::weighted(0.8, 0u64..300), 1..5),
            layers in proptest::collection::vec(1u64..40, 1..12),
            embedding in 0u64..40,
            head in 0u64..40,
            kv in 0u64..4,
            tokens in 0u64..50,
        ) {
            let rooms: Vec<Room> =
                bytes.iter().map(|&bytes| Room { bytes, embedding, layers: layers.clone(), head, kv }).collect();
            match place(&rooms, tokens) {
                None => assert!((0..=tokens).all(|tokens| with_tokens(&rooms, tokens).is_none())),
                Some(placed) => {
                    let most = (0..=tokens).rfind(|&tokens| with_tokens(&rooms, tokens).is_some()).unwrap();
                    let mut next = 0;
                    for (index, (device, layers)) in placed.iter().enumerate() {
                        assert!(layers.start == next && !layers.is_empty());
                        next = layers.end;
                        let mut used = rooms[*device].bytes_of(layers.clone(), most);
                        used += if index == 0 { embedding } else { 0 };
                        used += if index + 1 == placed.len() { head } else { 0 };
                        assert!(rooms[*device].bytes.is_none_or(|bytes| used <= bytes));
                    }
                    assert_eq!(next, layers.len());
                    assert!(placed.windows(2).all(|pair| pair[0].0 > pair[1].0));
                }
            }
        }
    }
}
