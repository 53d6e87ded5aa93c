"""Compares Lumina, llama.cpp and PyTorch on a CPU: one checkpoint of random weights, the same work, one table.

    python -m venv venv
    venv/bin/pip install torch "transformers==4.57.*" numpy
    CMAKE_ARGS="-DGGML_NATIVE=ON" venv/bin/pip install llama-cpp-python  # from source: cmake, a C++ compiler, 10 minutes
    venv/bin/python benches/peers.py /tmp/peers [--model mid | 7b] [--only lumina llama.cpp torch] \\
        [--precision q4_0 …] [--rounds 12]

The folder keeps the checkpoint (`mid`: 2.2 GB, `7b`: 14 GB) and its GGUF files for llama.cpp. Use an idle machine. A
peer that is not installed is left out.

Measured are: a prompt of 512 tokens with the head on its last token; 16 steps after it of one row, and of the two
rows of guidance in one pass, with the whole head; and the memory bandwidth, read by all threads for about as long.
Each peer is a process that has opened the model and waits for commands. The peers run one at a time, in turn, because
the speed of a machine may change within seconds. Figures and ratios are medians of the rounds, after one round that
is not counted.
"""

import argparse
import importlib.util
import os
import statistics
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
VOCAB, PROMPT, STEPS = 65536, 512, 16
# name: hidden, intermediate, layers, heads
SIZES = {"mid": (2048, 5504, 16, 16), "7b": (4096, 11008, 32, 32)}
BITS = {"f32": 32, "bf16": 16, "q8_0": 8.5, "q4_0": 4.5}
# Which precisions a peer has. Keys and values are bf16 or f16 everywhere but in f32.
PEERS = {"lumina": list(BITS), "llama.cpp": ["bf16", "q8_0", "q4_0"], "torch": ["f32", "bf16"]}
MODULES = {"llama.cpp": "llama_cpp", "torch": "transformers"}
FIRST_TEXT_TOKEN = 9000
# Bytes that `lumina` reads to measure the bandwidth.
MEMORY = 32 << 29


def cargo(*words):
    """Builds and runs a target of this workspace; returns what it printed."""
    root = os.path.dirname(HERE)
    return subprocess.run(["cargo", *words], cwd=root, check=True, stdout=subprocess.PIPE, text=True).stdout


def serve(runs):
    """Prints `open`, then runs what each line of the input names and prints the seconds it took."""
    for run in runs.values():
        run()
    print("open", flush=True)
    for line in sys.stdin:
        begun = time.perf_counter()
        runs[line.strip()]()
        print(time.perf_counter() - begun, flush=True)


def llama_cpp(path):
    """llama.cpp by its C interface: what its server does for a step, without the server."""
    import ctypes

    import llama_cpp as L

    quiet = L.llama_log_callback(lambda level, text, _: None)
    L.llama_log_set(quiet, ctypes.c_void_p(0))
    L.llama_backend_init()
    options = L.llama_model_default_params()
    options.n_gpu_layers = 0
    options.use_extra_bufts = "LLAMA_NO_REPACK" not in os.environ
    model = L.llama_model_load_from_file(path.encode(), options)
    options = L.llama_context_default_params()
    options.n_ctx, options.n_batch, options.n_ubatch = 2 * (PROMPT + 2 * STEPS), PROMPT, PROMPT
    options.n_seq_max, options.kv_unified = 2, False
    options.n_threads = options.n_threads_batch = os.cpu_count()
    context = L.llama_init_from_model(model, options)
    assert context, "llama.cpp does not open " + path
    memory, batch = L.llama_get_memory(context), L.llama_batch_init(PROMPT, 0, 1)

    def run(positions, sequences, every_logits):
        """A pass with a token at each position of each sequence."""
        entries = [(position, sequence) for position in positions for sequence in sequences]
        batch.n_tokens = len(entries)
        for index, (position, sequence) in enumerate(entries):
            batch.token[index], batch.pos[index] = FIRST_TEXT_TOKEN + position, position
            batch.n_seq_id[index], batch.seq_id[index][0] = 1, sequence
            batch.logits[index] = every_logits or index + 1 == len(entries)
        assert L.llama_decode(context, batch) == 0
        L.llama_synchronize(context)

    def prefill(sequence=0):
        L.llama_memory_seq_rm(memory, sequence, 0, -1)
        run(range(PROMPT), [sequence], False)

    def steps(sequences):
        for sequence in sequences:
            L.llama_memory_seq_rm(memory, sequence, PROMPT, -1)
        for position in range(PROMPT, PROMPT + STEPS):
            run([position], sequences, True)

    prefill(1)
    serve({"prefill": prefill, "decode": lambda: steps([0]), "guided": lambda: steps([0, 1])})


def pytorch(size, precision):
    """The Chameleon of Hugging Face, with a static cache and a head for the whole vocabulary."""
    import torch
    from transformers import ChameleonConfig, ChameleonModel, StaticCache

    hidden, intermediate, layers, heads = SIZES[size]
    dtype = {"f32": torch.float32, "bf16": torch.bfloat16}[precision]
    config = ChameleonConfig(
        vocab_size=VOCAB, hidden_size=hidden, intermediate_size=intermediate, num_hidden_layers=layers,
        num_attention_heads=heads, num_key_value_heads=heads, max_position_embeddings=PROMPT + STEPS,
        vocabulary_map={"<image>": VOCAB - 1}, attn_implementation="sdpa",
        vq_config=dict(base_channels=32, channel_multiplier=[1], num_res_blocks=1, resolution=32),
    )
    with torch.device("meta"):
        model = ChameleonModel(config)
        del model.vqmodel
        head = torch.nn.Linear(hidden, VOCAB, bias=False)
    for module in (model, head):
        module.to(dtype).to_empty(device="cpu")
        for parameter in module.parameters():
            # Values do not matter for the time, but must not be subnormal.
            torch.nn.init.uniform_(parameter, -0.02, 0.02) if parameter.dim() > 1 else torch.nn.init.ones_(parameter)
    for layer in model.layers:  # buffers are lost on the meta device
        rotary = type(layer.self_attn.rotary_emb)
        layer.self_attn.rotary_emb = rotary(hidden // heads, max_position_embeddings=PROMPT + STEPS)
    model.eval()
    positions = torch.arange(PROMPT + STEPS)

    @torch.inference_mode()
    def run(rows, span, cache):
        ids = torch.full((rows, len(span)), FIRST_TEXT_TOKEN)
        out = model(input_ids=ids, cache_position=span, position_ids=span[None], past_key_values=cache, use_cache=True)
        return head(out.last_hidden_state[:, -1])

    def new_cache():
        return StaticCache(config=config, max_cache_len=PROMPT + STEPS)

    def steps(rows):
        cache = new_cache()
        run(rows, positions[:PROMPT], cache)
        return lambda: [run(rows, positions[at : at + 1], cache) for at in range(PROMPT, PROMPT + STEPS)]

    serve({"prefill": lambda: run(1, positions[:PROMPT], new_cache()), "decode": steps(1), "guided": steps(2)})


def checkpoint(folder, size):
    """The folder of the checkpoint, which is made if it is missing."""
    path = os.path.join(folder, size)
    if not os.path.exists(os.path.join(path, "config.json")):
        hidden, intermediate, layers, heads = map(str, SIZES[size])
        cargo("run", "--release", "--example", "random_model", "--", path, "--hidden", hidden, "--intermediate",
              intermediate, "--layers", layers, "--heads", heads)
    return path


class Peer:
    """A process that has opened the model in a precision, and runs what it is told."""

    def __init__(self, name, folder, size, precision):
        self.name, path = name, checkpoint(folder, size)
        if name == "lumina":
            tries = [(["cargo", "bench", "-p", "lumina-mgpt", "--bench", "peers", "--", path, precision], {})]
        else:
            if name == "llama.cpp":
                gguf = f"{path}-{precision}.gguf"
                if not os.path.exists(gguf):
                    cargo("run", "--release", "--example", "quantize", "--", gguf, "--model", path, "--to", precision,
                          "--llama-cpp")
                path = gguf
            words = [sys.executable, os.path.abspath(__file__), folder, "--model", size, "--one", name, precision, path]
            # Some builds of llama.cpp crash with weights repacked for AMX, and run with the layout of the file.
            tries = [(words, {}), (words, {"LLAMA_NO_REPACK": "1"})] if name == "llama.cpp" else [(words, {})]
        for words, environment in tries:
            self.process = subprocess.Popen(words, cwd=os.path.dirname(HERE), env={**os.environ, **environment},
                                            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            if self.line() == "open":
                return
        raise RuntimeError(f"{name} does not run in {precision}")

    def line(self):
        """The next line of its protocol; `None` if the process has ended."""
        for line in self.process.stdout:
            if line.strip() == "open" or line[0].isdigit():
                return line.strip()

    def seconds(self, what):
        # Threads of the previous peer may still be spinning.
        time.sleep(0.2)
        self.process.stdin.write(what + "\n")
        self.process.stdin.flush()
        return float(self.line())

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def measure(peers, rounds):
    """The seconds of every round: for each peer and task, and for reading memory with all threads."""
    seconds = {}
    for number in range(rounds + 1):
        # For a moment after arithmetic the bandwidth may be higher.
        of_memory = ["memory", "decode", "guided"] if number % 2 else ["guided", "decode", "memory"]
        for what in ["prefill", *of_memory]:
            for peer in peers if what != "memory" else [peer for peer in peers if peer.name == "lumina"]:
                took = peer.seconds(what)
                if number > 0:
                    seconds.setdefault((peer.name, what), []).append(took)
    return seconds


def processor():
    try:
        with open("/proc/cpuinfo") as file:
            lines = [line.split(":", 1) for line in file.read().split("\n\n")[0].splitlines() if ":" in line]
        info = {key.strip(): value.strip() for key, value in lines}
        interesting = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8")
        known = [flag for flag in interesting if flag in info["flags"].split()]
        return f"{info['model name']} (family {info['cpu family']}, model {info['model']}: {' '.join(known)})"
    except (OSError, KeyError):
        return "unknown processor"


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("folder", help="folder of checkpoints and GGUF files")
    arguments.add_argument("--model", choices=SIZES, default="mid")
    arguments.add_argument("--only", nargs="+", choices=PEERS, default=list(PEERS))
    arguments.add_argument("--precision", nargs="+", choices=BITS, default=list(BITS))
    arguments.add_argument("--rounds", type=int, default=12)
    arguments.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    a = arguments.parse_args()
    if a.one:
        peer, precision, path = a.one
        return llama_cpp(path) if peer == "llama.cpp" else pytorch(a.model, precision)

    folder = os.path.abspath(a.folder)
    os.makedirs(folder, exist_ok=True)
    hidden, intermediate, layers, _ = SIZES[a.model]
    weights = layers * (4 * hidden * hidden + 3 * hidden * intermediate) + VOCAB * hidden
    print(f"{processor()}, {os.cpu_count()} processors; `{a.model}`: {weights / 1e9:.2f} G weights a token\n")
    print("| | prompt of 512, tokens/s | decode, tokens/s | % of the bandwidth | guided, steps/s | "
          "guided ÷ plain, time | min, max decode |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for precision in a.precision:
        installed = [name for name in a.only if importlib.util.find_spec(MODULES.get(name, "os"))]
        names = [name for name in installed if precision in PEERS[name]]
        peers = [Peer(name, folder, a.model, precision) for name in names]
        seconds = measure(peers, a.rounds)
        for peer in peers:
            peer.close()
        memory = [MEMORY / time for time in seconds.get(("lumina", "memory"), [])]
        for name in names:
            prefill, decode, guided = (seconds[name, what] for what in ("prefill", "decode", "guided"))
            a_step = weights * BITS[precision] / 8 * STEPS
            shares = [a_step / time / limit for time, limit in zip(decode, memory)]
            ratios = [two / one for one, two in zip(decode, guided)]
            median, rate = statistics.median, lambda count, times: f"{count / statistics.median(times):.3g}"
            print(f"| {name} {precision} | {rate(PROMPT, prefill)} | {rate(STEPS, decode)} | "
                  f"{f'{100 * median(shares):.0f}' if shares else '-'} | {rate(STEPS, guided)} | "
                  f"{median(ratios):.2f} | {STEPS / max(decode):.3g}, {STEPS / min(decode):.3g} |", flush=True)
        if memory:
            low, middle, high = (value / 1e9 for value in (min(memory), statistics.median(memory), max(memory)))
            print(f"| bandwidth, GB/s | | | {middle:.3g} ({low:.3g} to {high:.3g}) | | | |")


if __name__ == "__main__":
    main()
