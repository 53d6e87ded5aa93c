"""Writes `reference.gguf` with the `gguf` package of llama.cpp (0.19.0): tensors in every quantised type that is read, and
what that package makes of them in f32.

    pip install "gguf==0.19.0" numpy && python make_fixture.py

Two rows of 512 a type. Types without `_k` are the package's quantisation of normal numbers times 0.02 (seed 0). It does not
quantise to `q2_k` … `q6_k`, so their blocks are random bytes with scales of 2**-6 to 2**-4: any bytes are a block.
"""
from pathlib import Path

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFWriter, dequantize, quantize

ROWS, COLUMNS = 2, 512

rng = np.random.default_rng(0)
writer = GGUFWriter(Path(__file__).with_name("reference.gguf"), "none")
writer.add_uint8("value.u8", 200)
writer.add_int8("value.i8", -5)
writer.add_uint16("value.u16", 50_000)
writer.add_int16("value.i16", -5)
writer.add_uint32("value.u32", 4_000_000_000)
writer.add_int32("value.i32", -5)
writer.add_uint64("value.u64", 2**63)
writer.add_int64("value.i64", -(2**62))
writer.add_float32("value.f32", 1.5)
writer.add_float64("value.f64", 0.1)
writer.add_bool("value.bool", True)
writer.add_string("value.string", "Größe")
writer.add_array("value.strings", ["a", "", "b"])
writer.add_array("value.numbers", [1, -2, 3])

for name in ("Q8_0", "Q4_0", "BF16", "F16", "Q4_K", "Q6_K", "Q4_1", "Q5_0", "Q5_1", "Q5_K", "Q2_K", "Q3_K"):
    kind = GGMLQuantizationType[name]
    block, size = GGML_QUANT_SIZES[kind]
    if name.endswith("_K"):
        raw = rng.integers(0, 256, (ROWS, COLUMNS // block, size), dtype=np.uint8)
        scale = rng.uniform(2.0**-6, 2.0**-4, (ROWS, COLUMNS // block, 2)).astype(np.float16).view(np.uint8)
        if name in ("Q3_K", "Q6_K"):
            raw[..., -2:] = scale[..., :2]
        elif name == "Q2_K":
            raw[..., -4:] = scale
        else:
            raw[..., :4] = scale
        raw = raw.reshape(ROWS, -1)
    else:
        values = rng.standard_normal((ROWS, COLUMNS), dtype=np.float32) * np.float32(0.02)
        writer.add_tensor(f"{name.lower()}.source", values)
        raw = quantize(values, kind)
    expected = dequantize(raw, kind)
    writer.add_tensor(name.lower(), raw, raw_dtype=kind)
    writer.add_tensor(f"{name.lower()}.expected", expected.astype(np.float32))

writer.write_header_to_file()
writer.write_kv_data_to_file()
writer.write_tensors_to_file()
writer.close()
