//! What a JSON text takes in memory, before it is parsed.

/// Bytes of a value in `serde_json`.
const VALUE_BYTES: u64 = 32;
/// A node of a map: names and values of 11 entries.
const NODE_BYTES: u64 = 11 * (24 + VALUE_BYTES) + 24;
/// The first elements of a list, for which there is room at once.
const FIRST_ELEMENTS_BYTES: u64 = 4 * VALUE_BYTES;
/// A further element: the list may be half empty, or be copied as it grows.
const ELEMENT_BYTES: u64 = 3 * VALUE_BYTES;
/// A further entry of a map of many: its nodes may be half empty, and there are nodes of nodes.
const ENTRY_BYTES: u64 = 4 * VALUE_BYTES;
/// The allocation of a text, besides its characters.
const TEXT_BYTES: u64 = 32;
/// Depth to which lists and maps are told apart. `serde_json` refuses what is deeper.
const MAX_DEPTH: usize = 128;

/// About the most bytes that a JSON text takes as a tree of values, such as `serde_json::Value` or what `serde`
/// buffers. Four bytes of text, `{"":`, can be a map of 640.
pub(crate) fn tree_bytes(json: &[u8]) -> u64 {
    // For each open list or map: whether it is a map, and the number of commas so far.
    let mut open: Vec<(bool, u64)> = Vec::with_capacity(MAX_DEPTH);
    let (mut bytes, mut position) = (0u64, 0);
    while let Some(&byte) = json.get(position) {
        position += 1;
        bytes += match byte {
            b'{' | b'[' => {
                let is_map = byte == b'{';
                if open.len() < MAX_DEPTH {
                    open.push((is_map, 0));
                }
                if is_map { NODE_BYTES } else { FIRST_ELEMENTS_BYTES }
            }
            b'}' | b']' => {
                open.pop();
                0
            }
            b',' => match open.last_mut() {
                Some((is_map, commas)) => {
                    *commas += 1;
                    match (*is_map, *commas) {
                        (true, ..11) | (false, ..4) => 0,
                        // The map becomes a node of two nodes.
                        (true, 11) => 2 * NODE_BYTES,
                        (true, _) => ENTRY_BYTES,
                        (false, _) => ELEMENT_BYTES,
                    }
                }
                None => ENTRY_BYTES,
            },
            b'"' => {
                let length = text_length(&json[position..]);
                position += length + 1;
                TEXT_BYTES + length as u64
            }
            _ => 0,
        };
    }
    bytes
}

/// The bytes up to the quote that ends a text.
fn text_length(rest: &[u8]) -> usize {
    let mut position = 0;
    while let Some(&byte) = rest.get(position) {
        match byte {
            b'"' => return position,
            // A character after a backslash does not end a text.
            b'\\' => position += 2,
            _ => position += 1,
        }
    }
    rest.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_lists_and_maps_are_counted() {
        let (list, node, text) = (FIRST_ELEMENTS_BYTES, NODE_BYTES, TEXT_BYTES);
        for (json, expected) in [
            ("", 0),
            ("12", 0),
            (r#""ab""#, text + 2),
            (r#""a,\"[\\""#, text + 7),
            (r#""a"#, text + 1),
            (r#""\"#, text + 1),
            ("[1, 2]", list),
            ("[1, 2, 3, 4, 5, 6]", list + 2 * ELEMENT_BYTES),
            ("[[1,2],{},[]]", 3 * list + node),
            (r#"{"a": "[{,", "b": 1}"#, node + 3 * text + 5),
        ] {
            assert_eq!(tree_bytes(json.as_bytes()), expected, "{json}");
        }
        let entries = |n: usize| format!("{{{}}}", vec![r#""":0"#; n].join(","));
        for (n, nodes) in [(11, node), (12, 3 * node), (14, 3 * node + 2 * ENTRY_BYTES)] {
            assert_eq!(tree_bytes(entries(n).as_bytes()), nodes + n as u64 * text, "{n} entries");
        }
        // Deeper than any parser goes.
        assert!(tree_bytes("[".repeat(1000).as_bytes()) >= 1000 * list);
    }
}
