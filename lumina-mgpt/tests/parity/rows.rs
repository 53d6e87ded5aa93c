//! What a row of a pass may ask for: logits of several of its tokens, and the rounding of single tokens.

use lumina_mgpt::{Compute, KvCache, Row, Transformer, Weights};
use lumina_nn::ops::AttentionPath;
use lumina_testing::{integers, report};

use super::model::{cases, folders};

/// Several tokens in a pass give the logits that they give one at a time, to the bit, in every format of weights and of
/// the KV cache, and whatever the other rows are: what checking drafted tokens rests on.
#[test]
fn several_tokens_as_decoding_are_single_tokens() {
    let mut ran = 0;
    for folder in folders() {
        for (weights, kv_dtype) in
            [Weights::AsStored, Weights::Q8, Weights::Q4].into_iter().zip(Compute::KV_CACHE_DTYPES)
        {
            let compute = Compute::cpu().weights(weights).kv_cache(kv_dtype);
            let model = Transformer::open(&folder, &compute).unwrap();
            let vocab_size = model.architecture().vocab_size();
            for case in cases(&folder) {
                let tokens: Vec<u32> = integers(&case["tokens"]);
                if tokens.len() < 12 {
                    continue;
                }
                let (prompt, window) = tokens.split_at(tokens.len() - 10);
                // Rotary scaling may depend on the length, which is the whole one in every pass.
                let planned_len = tokens.len();
                let prefill = |cache: &mut KvCache| {
                    model.forward(&mut [Row { planned_len, ..Row::cached(prompt, cache) }]).unwrap();
                };
                let mut cache = model.new_cache(tokens.len());
                prefill(&mut cache);
                let mut expected = Vec::new();
                for token in window.chunks(1) {
                    let row = Row { planned_len, ..Row::cached(token, &mut cache) };
                    let logits = model.run(&mut [row], 0..vocab_size).unwrap();
                    expected.push(logits.row(0).to_vec());
                }
                let mut cache = model.new_cache(tokens.len());
                prefill(&mut cache);
                let other = [tokens[0]];
                let row = Row {
                    planned_len,
                    logits: 0..window.len(),
                    attention: AttentionPath::AsDecoding,
                    ..Row::cached(window, &mut cache)
                };
                let logits = model.run(&mut [Row::whole(&other), row], 0..vocab_size).unwrap();
                let found: Vec<Vec<f32>> = logits.rows().skip(1).map(<[f32]>::to_vec).collect();
                assert!(found == expected, "{} with {weights} weights", folder.display());

                // What was drafted in vain is taken back, and other tokens follow.
                cache.truncate(prompt.len() + 3);
                let row = Row { planned_len, ..Row::cached(&window[3..4], &mut cache) };
                let again = model.run(&mut [row], 0..vocab_size).unwrap();
                assert!(again.row(0) == expected[3], "{} after a roll-back", folder.display());
                ran += 1;
            }
        }
    }
    report("windows of several tokens", ran);
}

#[test]
fn logits_come_for_the_tokens_and_ids_that_are_asked_for() {
    let folder = &folders()[0];
    let model = Transformer::open(folder, &Compute::cpu()).unwrap();
    let tokens: Vec<u32> = integers(&cases(folder)[0]["tokens"]);
    let hidden = model.forward(&mut [Row::whole(&tokens), Row::whole(&tokens[..2])]).unwrap();
    let n = tokens.len();
    let expected = model.logits_among(&hidden, &[1, 2, n, n + 1], 10..20).unwrap();
    let rows = &mut [
        Row { logits: 1..3, ..Row::whole(&tokens) },
        Row { logits: 0..2, ..Row::whole(&tokens[..2]) },
        Row { logits: 0..0, ..Row::whole(&tokens[..1]) },
    ];
    let found = model.run(rows, 10..20).unwrap();
    assert_eq!((found.len(), found.ids()), (4, 10..20));
    assert!(found.rows().eq(expected.rows()));
    let message = model.run(&mut [Row { logits: 0..3, ..Row::whole(&tokens[..2]) }], 0..1).unwrap_err().to_string();
    assert!(message.contains("position 2") && message.contains("2 tokens"), "{message}");
}
