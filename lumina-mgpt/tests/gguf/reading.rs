//! What is read from well-formed files.

use lumina_checkpoint::Dtype;
use lumina_checkpoint::gguf::{Array, Value};
use lumina_mgpt::convert::{self, RowOrder};

use crate::build::{F32, Gguf, U8, text};
use crate::shared::{f32_bytes, read_all};
use crate::support::open;

#[test]
fn metadata_of_every_type() {
    let nested = [&9u32.to_le_bytes()[..], &1u64.to_le_bytes(), &0u32.to_le_bytes(), &2u64.to_le_bytes(), &[7, 8]];
    let file = Gguf::new()
        .entry("u8", 0, &[200])
        .entry("i8", 1, &[200])
        .entry("u16", 2, &50_000u16.to_le_bytes())
        .entry("i16", 3, &(-5i16).to_le_bytes())
        .entry("u32", 4, &4_000_000_000u32.to_le_bytes())
        .entry("i32", 5, &(-5i32).to_le_bytes())
        .entry("f32", 6, &1.5f32.to_le_bytes())
        .entry("bool", 7, &[1])
        .entry("string", 8, &text("Größe"))
        .entry("u64", 10, &u64::MAX.to_le_bytes())
        .entry("i64", 11, &i64::MIN.to_le_bytes())
        .entry("f64", 12, &0.1f64.to_le_bytes())
        .array("u8s", 0, 2, &[1, 2])
        .array("i8s", 1, 2, &[1, 255])
        .array("u16s", 2, 1, &[1, 2])
        .array("i16s", 3, 1, &[255, 255])
        .array("u32s", 4, 1, &[1, 0, 0, 0])
        .array("i32s", 5, 1, &[255; 4])
        .array("f32s", 6, 1, &2.5f32.to_le_bytes())
        .array("bools", 7, 2, &[0, 1])
        .array("strings", 8, 2, &[text("a"), text("")].concat())
        .array("u64s", 10, 1, &[255; 8])
        .array("i64s", 11, 1, &[255; 8])
        .array("f64s", 12, 1, &2.5f64.to_le_bytes())
        .array("nested", 9, 1, &nested.concat())
        .array("empty", 8, 0, &[]);
    let checkpoint = open("metadata.gguf", &file.end()).unwrap();
    let metadata = checkpoint.metadata().unwrap();
    let expected = [
        ("bool", Value::Bool(true)),
        ("bools", Value::Array(Array::Bool(vec![false, true]))),
        ("empty", Value::Array(Array::String(vec![]))),
        ("f32", Value::F32(1.5)),
        ("f32s", Value::Array(Array::F32(vec![2.5]))),
        ("f64", Value::F64(0.1)),
        ("f64s", Value::Array(Array::F64(vec![2.5]))),
        ("i16", Value::I16(-5)),
        ("i16s", Value::Array(Array::I16(vec![-1]))),
        ("i32", Value::I32(-5)),
        ("i32s", Value::Array(Array::I32(vec![-1]))),
        ("i64", Value::I64(i64::MIN)),
        ("i64s", Value::Array(Array::I64(vec![-1]))),
        ("i8", Value::I8(-56)),
        ("i8s", Value::Array(Array::I8(vec![1, -1]))),
        ("nested", Value::Array(Array::Array(vec![Array::Array(vec![Array::U8(vec![7, 8])])]))),
        ("string", Value::String("Größe".to_owned())),
        ("strings", Value::Array(Array::String(vec!["a".to_owned(), String::new()]))),
        ("u16", Value::U16(50_000)),
        ("u16s", Value::Array(Array::U16(vec![513]))),
        ("u32", Value::U32(4_000_000_000)),
        ("u32s", Value::Array(Array::U32(vec![1]))),
        ("u64", Value::U64(u64::MAX)),
        ("u64s", Value::Array(Array::U64(vec![u64::MAX]))),
        ("u8", Value::U8(200)),
        ("u8s", Value::Array(Array::U8(vec![1, 2]))),
    ];
    let found: Vec<(&str, &Value)> = metadata.iter().collect();
    assert_eq!(found, expected.iter().map(|(key, value)| (*key, value)).collect::<Vec<_>>());
    assert_eq!(metadata.get("u16").and_then(Value::as_u64), Some(50_000));
    assert_eq!(metadata.get("i32").and_then(Value::as_u64), None);
    assert_eq!(metadata.get("f32").and_then(Value::as_f64), Some(1.5));
    assert_eq!(metadata.get("bool").and_then(Value::as_bool), Some(true));
    assert_eq!(metadata.get("strings").and_then(Value::as_strings).map(<[_]>::len), Some(2));
    assert_eq!((metadata.architecture(), checkpoint.names().count()), ("", 0));
}

#[test]
fn tensors_of_every_type() {
    let types = [
        (0, Dtype::F32, 64 * 4),
        (1, Dtype::F16, 64 * 2),
        (30, Dtype::BF16, 64 * 2),
        (28, Dtype::F64, 64 * 8),
        (24, Dtype::I8, 64),
        (25, Dtype::I16, 64 * 2),
        (26, Dtype::I32, 64 * 4),
        (27, Dtype::I64, 64 * 8),
        (8, Dtype::Q8_0, 2 * 34),
        (2, Dtype::Q4_0, 2 * 18),
        (3, Dtype::Q4_1, 2 * 20),
        (6, Dtype::Q5_0, 2 * 22),
        (7, Dtype::Q5_1, 2 * 24),
    ];
    for version in [2, 3] {
        for alignment in [8, 32, 4096] {
            let mut file = Gguf::new().version(version).aligned(alignment).u32("general.alignment", alignment as u32);
            for (number, dtype, bytes) in types {
                // Three rows of 64.
                let data: Vec<u8> = (0..3 * bytes).map(|at| (at * 7 + number as usize) as u8).collect();
                file = file.tensor(&dtype.to_string(), &[64, 3], number, &data);
            }
            for (number, name, bytes) in
                [(10, "q2_k", 84), (11, "q3_k", 110), (12, "q4_k", 144), (13, "q5_k", 176), (14, "q6_k", 210)]
            {
                file = file.tensor(name, &[256, 1, 2], number, &vec![1; 2 * bytes]);
            }
            let checkpoint = open("types.gguf", &file.end()).unwrap();
            assert_eq!(read_all(&checkpoint), types.len() + 5);
            for (number, dtype, bytes) in types {
                let view = checkpoint.get(&dtype.to_string()).unwrap();
                assert_eq!((view.dtype(), view.shape()), (dtype, &[3, 64][..]));
                assert_eq!(view.bytes()[..9], (0..9).map(|at| at * 7 + number as u8).collect::<Vec<u8>>());
                assert_eq!(view.bytes().len(), 3 * bytes);
            }
            assert_eq!(checkpoint.get("q6_k").unwrap().shape(), [2, 1, 256]);
        }
    }
}

#[test]
fn scalars_empty_tensors_and_any_order_of_data() {
    let file = Gguf::new()
        .describe("second", &[2], F32, 32)
        .describe("first", &[], F32, 0)
        .describe("empty", &[3, 0], F32, 4096)
        .tensor("bytes", &[1], U8, &[9]);
    let mut bytes = file.end();
    bytes.truncate(bytes.len() - 1);
    // The builder put `bytes` at 0; here it would be on top of `first`.
    assert!(open("w.gguf", &bytes).is_err());

    let file = Gguf::new().describe("second", &[2], F32, 32).describe("first", &[], F32, 0);
    let mut bytes = file.describe("empty", &[3, 0], F32, 4096).end();
    bytes.extend(f32_bytes([0.5]));
    bytes.extend([0; 28]);
    bytes.extend(f32_bytes([1.0, 2.0]));
    let checkpoint = open("w.gguf", &bytes).unwrap();
    assert_eq!(checkpoint.get("first").unwrap().to_f32().unwrap(), [0.5]);
    assert_eq!(checkpoint.get("second").unwrap().to_f32().unwrap(), [1.0, 2.0]);
    assert_eq!(checkpoint.get("empty").unwrap().shape(), [0, 3]);
}

#[test]
fn a_file_with_a_brace_where_safetensors_have_one() {
    // 123 is `{`.
    let file = (0..123).fold(Gguf::new(), |file, i| file.floats(&format!("t{i}"), &[1], [i as f32]));
    let checkpoint = open("many", &file.end()).unwrap();
    assert_eq!(checkpoint.get("t77").unwrap().to_f32().unwrap(), [77.0]);
}

/// A model of two query heads, one key head, four channels a head and a width of two, as llama.cpp would have it. An
/// element's value is its place in Hugging Face's order: rows of a head there are 0 1 | 2 3, and here 0 2 1 3.
fn foreign(architecture: &str) -> Gguf {
    let rows =
        |rows: &[u64]| rows.iter().flat_map(|row| [row * 2, row * 2 + 1]).map(|at| at as f32).collect::<Vec<_>>();
    let q = [0, 2, 1, 3, 4, 6, 5, 7];
    Gguf::new()
        .string("general.architecture", architecture)
        .u32(&format!("{architecture}.attention.head_count"), 2)
        .u32(&format!("{architecture}.attention.head_count_kv"), 1)
        .floats("token_embd.weight", &[2, 3], (0..6).map(|at| at as f32))
        .floats("blk.0.attn_q.weight", &[2, 8], rows(&q))
        .floats("blk.0.attn_q.bias", &[8], q.map(|at| at as f32))
        .floats("blk.0.attn_k.weight", &[2, 4], rows(&[0, 2, 1, 3]))
        .floats("blk.0.attn_v.weight", &[2, 4], rows(&[0, 1, 2, 3]))
        .floats("blk.0.attn_q_norm.weight", &[4, 2], q.map(|at| at as f32))
        .floats("blk.0.attn_k_norm.bias", &[4, 1], [0.0, 2.0, 1.0, 3.0])
        .floats("blk.0.ffn_down.weight", &[2, 4], rows(&[0, 1, 2, 3]))
        .floats("output_norm.weight", &[2], [0.0, 1.0])
}

#[test]
fn a_model_of_llama_cpp_is_one_of_hugging_face() {
    let checkpoint = open("chameleon.gguf", &foreign("chameleon").end()).unwrap();
    let layer = "model.layers.0";
    for name in [
        "model.embed_tokens.weight",
        &format!("{layer}.self_attn.q_proj.weight"),
        &format!("{layer}.self_attn.q_proj.bias"),
        &format!("{layer}.self_attn.k_proj.weight"),
        &format!("{layer}.self_attn.v_proj.weight"),
        &format!("{layer}.self_attn.q_norm.weight"),
        &format!("{layer}.self_attn.k_norm.bias"),
        &format!("{layer}.mlp.down_proj.weight"),
        "model.norm.weight",
    ] {
        let values = checkpoint.get(name).unwrap().to_f32().unwrap();
        assert_eq!(values, (0..values.len()).map(|at| at as f32).collect::<Vec<_>>(), "{name}");
    }
    assert_eq!(read_all(&checkpoint), 9);
    assert_eq!(convert::row_order(checkpoint.metadata().unwrap()).unwrap(), RowOrder::LlamaCpp);
    // What is in order is not copied.
    let v = "model.layers.0.self_attn.v_proj.weight";
    assert_eq!(checkpoint.get(v).unwrap().bytes().as_ptr(), checkpoint.get(v).unwrap().bytes().as_ptr());
}

#[test]
fn our_own_order_is_left_alone_and_other_architectures_their_names() {
    let ours = foreign("chameleon").string("lumina.row_order", "huggingface");
    let checkpoint = open("ours.gguf", &ours.end()).unwrap();
    let bias = checkpoint.get("model.layers.0.self_attn.q_proj.bias").unwrap().to_f32().unwrap();
    assert_eq!(bias, [0.0, 2.0, 1.0, 3.0, 4.0, 6.0, 5.0, 7.0]);

    let checkpoint = open("llama.gguf", &foreign("llama").end()).unwrap();
    assert!(checkpoint.contains("blk.0.attn_q.weight") && checkpoint.document("config.json").unwrap().is_none());
    let error = open("newer.gguf", &foreign("chameleon").string("lumina.row_order", "spiral").end()).unwrap_err();
    assert!(error.to_string().contains("`lumina.row_order`"), "{error}");
}

#[test]
fn rows_of_blocks_are_reordered_whole() {
    let head = |rows: [u8; 4]| rows.iter().flat_map(|&row| [row; 34]).collect::<Vec<u8>>();
    let file = Gguf::new().string("general.architecture", "chameleon").u32("chameleon.attention.head_count", 1).tensor(
        "blk.3.attn_k.weight",
        &[32, 4],
        8,
        &head([0, 2, 1, 3]),
    );
    let checkpoint = open("blocks.gguf", &file.end()).unwrap();
    let view = checkpoint.get("model.layers.3.self_attn.k_proj.weight").unwrap();
    assert_eq!((view.dtype(), &view.bytes()[..]), (Dtype::Q8_0, &head([0, 1, 2, 3])[..]));
}

#[test]
fn the_config_of_a_foreign_file() {
    let file = foreign("chameleon")
        .u32("chameleon.embedding_length", 8)
        .u32("chameleon.feed_forward_length", 4)
        .u32("chameleon.block_count", 1)
        .entry("chameleon.context_length", 10, &4096u64.to_le_bytes())
        .entry("chameleon.attention.layer_norm_rms_epsilon", 6, &1e-5f32.to_le_bytes())
        .entry("chameleon.rope.freq_base", 6, &10_000f32.to_le_bytes())
        .entry("chameleon.swin_norm", 7, &[1])
        .u32("tokenizer.ggml.eos_token_id", 2)
        .array("tokenizer.ggml.tokens", 8, 3, &[text("<s>"), text("IMGIMGAZ"), text("<s>")].concat());
    let checkpoint = open("chameleon.gguf", &file.end()).unwrap();
    let config = checkpoint.document("config.json").unwrap().unwrap();
    let config: serde_json::Value = serde_json::from_slice(&config).unwrap();
    let expected = serde_json::json!({
        "architectures": ["ChameleonForConditionalGeneration"], "model_type": "chameleon",
        "vocab_size": 3, "hidden_size": 8, "intermediate_size": 4, "num_hidden_layers": 1,
        "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 4096,
        "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "swin_norm": true,
        "attention_bias": true, "tie_word_embeddings": true, "eos_token_id": 2,
        "vocabulary_map": {"<s>": 0, "IMGIMGAZ": 1},
    });
    assert_eq!(config, expected);

    let checkpoint = open("chameleon.gguf", &foreign("chameleon").u32("chameleon.vocab_size", 3).end()).unwrap();
    let error = checkpoint.document("config.json").unwrap_err().to_string();
    assert!(error.contains("chameleon.gguf: `chameleon.embedding_length`: it is missing"), "{error}");
}

#[test]
fn documents_lie_in_the_file_or_beside_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    std::fs::write(&path, Gguf::new().string("lumina.config_json", "{}").end()).unwrap();
    std::fs::write(folder.path().join("config.json"), "elsewhere").unwrap();
    std::fs::write(folder.path().join("tokenizer.json"), "[]").unwrap();
    // The folder is opened as its one file.
    for path in [&path, folder.path()] {
        let checkpoint = convert::open(path).unwrap();
        assert_eq!(checkpoint.document("config.json").unwrap().unwrap(), "{}");
        assert_eq!(checkpoint.document("tokenizer.json").unwrap().unwrap(), "[]");
        assert!(checkpoint.document("generation_config.json").unwrap().is_none());
    }
}
