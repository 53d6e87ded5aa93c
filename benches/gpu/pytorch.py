"""The same passes as lumina-mgpt's `gpu` benchmark, in PyTorch: `python3 benches/gpu/pytorch.py [7b|1b|tiny]`.

Random weights in bf16; a step is captured in a CUDA graph and replayed. Prints the rows of the table that run.py merges.
"""

import sys
import time

import torch
import torch.nn.functional as F

SHAPES = {"7b": (4096, 11008, 32, 32), "1b": (2048, 5504, 16, 16), "tiny": (256, 704, 2, 4)}
IMAGE_TOKENS = 8192
CONTEXT, CAPACITY, STEPS = 16, 2048 + 64, 20


class Model:
    def __init__(self, hidden, intermediate, layers, heads):
        def weight(rows, columns):
            return torch.randn(rows, columns, device="cuda", dtype=torch.bfloat16) * 0.02

        self.heads, self.hidden = heads, hidden
        self.embed, self.head = weight(65536, hidden), weight(IMAGE_TOKENS, hidden)
        self.norm = torch.ones(hidden, device="cuda", dtype=torch.bfloat16)
        self.layers = [
            [weight(3 * hidden, hidden), weight(hidden, hidden), weight(2 * intermediate, hidden), weight(hidden, intermediate)]
            for _ in range(layers)
        ]

    def run(self, tokens, cos, sin, caches, start, mask, logits_of):
        """tokens [rows, n]; caches: keys and values [layers][rows, heads, CAPACITY, dim]; the cache is written at start."""
        rows, n = tokens.shape
        dim = self.hidden // self.heads
        x = self.embed[tokens]
        for (qkv, out, gate_up, down), (keys, values) in zip(self.layers, caches):
            normed = F.rms_norm(x, (self.hidden,), self.norm)
            q, k, v = (normed @ qkv.T).view(rows, n, 3, self.heads, dim).permute(2, 0, 3, 1, 4)
            q, k = (F.layer_norm(part, (dim,)) for part in (q, k))
            q, k = (part * cos + torch.cat([-part[..., dim // 2 :], part[..., : dim // 2]], -1) * sin for part in (q, k))
            keys[:, :, start : start + n], values[:, :, start : start + n] = k, v
            seen = start + n
            y = F.scaled_dot_product_attention(q, keys[:, :, :seen], values[:, :, :seen], attn_mask=mask)
            x = x + y.transpose(1, 2).reshape(rows, n, self.hidden) @ out.T
            gate, up = (F.rms_norm(x, (self.hidden,), self.norm) @ gate_up.T).chunk(2, -1)
            x = x + (F.silu(gate) * up) @ down.T
        return F.rms_norm(x[:, logits_of], (self.hidden,), self.norm) @ self.head.T


def timed(run, times):
    fastest = float("inf")
    for _ in range(times):
        torch.cuda.synchronize()
        start = time.perf_counter()
        run()
        torch.cuda.synchronize()
        fastest = min(fastest, time.perf_counter() - start)
    return fastest


@torch.inference_mode()
def main():
    hidden, intermediate, layers, heads = SHAPES[sys.argv[1] if len(sys.argv) > 1 else "7b"]
    model = Model(hidden, intermediate, layers, heads)
    dim = hidden // heads

    def case(rows, n, start, logits_of):
        cache = lambda: torch.zeros(rows, heads, CAPACITY, dim, device="cuda", dtype=torch.bfloat16)
        caches = [(cache(), cache()) for _ in range(layers)]
        tokens = torch.arange(n, device="cuda").repeat(rows, 1)
        angles = torch.rand(n, dim, device="cuda", dtype=torch.bfloat16)
        mask = None
        if n > 1:
            mask = torch.ones(n, start + n, device="cuda", dtype=torch.bool).tril(start)
        return lambda: model.run(tokens, angles.cos(), angles.sin(), caches, start, mask, logits_of)

    for rows, n in [(1, 1), (2, 1), (4, 1), (8, 1), (2, 16), (2, 32), (2, 64)]:
        run = case(rows, n, CONTEXT, slice(None))
        for _ in range(3):
            run()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            run()
        print(f"bf16: {rows} × {n}|{timed(graph.replay, STEPS) * 1e3:.2f} ms", flush=True)
        del graph, run
    for n in [512, 2048]:
        run = case(1, n, 0, slice(-1, None))
        run()
        print(f"bf16: prompt of {n}|{timed(run, 4) * 1e3:.2f} ms", flush=True)
        del run


main()
