"""The steps of `lumina-train/benches/training.rs` in PyTorch: same shapes, batch, loss, clipping and optimizer, in f32 on
the CPU. Prints tokens a second, and the parts of a step.

    python -m venv venv && venv/bin/pip install torch numpy
    venv/bin/python benches/pytorch_training.py [embedded] [mid]

PyTorch runs at its best: with its attention kernel and its fused AdamW. The number of threads is PyTorch's default, or
`OMP_NUM_THREADS`.
"""

import statistics
import sys
import time

import torch
import torch.nn.functional as F
from torch import nn

# name: hidden, intermediate, layers, heads, batch, length, runs; as in the Rust benchmark.
SIZES = {
    "embedded": (192, 512, 5, 6, 32, 96, 9),
    "mid": (512, 1376, 8, 8, 8, 256, 5),
}
VOCABULARY = 1680
DROPOUT = 0.05
Z_LOSS = 1e-5


class HeadNorm(nn.Module):
    """Layer norm over a head's width, one weight for all heads."""

    def __init__(self, width):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1, width))
        self.bias = nn.Parameter(torch.zeros(1, width))

    def forward(self, x):
        return F.layer_norm(x, x.shape[-1:], None, None, 1e-5) * self.weight + self.bias


def rotate(x, cos, sin):
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-second, first), dim=-1) * sin


class Layer(nn.Module):
    def __init__(self, hidden, intermediate, heads):
        super().__init__()
        self.heads, width = heads, hidden // heads
        self.before_attention, self.before_mlp = nn.RMSNorm(hidden, 1e-5), nn.RMSNorm(hidden, 1e-5)
        self.q, self.k, self.v, self.o = (nn.Linear(hidden, hidden, bias=False) for _ in range(4))
        self.q_norm, self.k_norm = HeadNorm(width), HeadNorm(width)
        self.gate, self.up = (nn.Linear(hidden, intermediate, bias=False) for _ in range(2))
        self.down = nn.Linear(intermediate, hidden, bias=False)

    def forward(self, x, cos, sin):
        rows, length, hidden = x.shape
        y = self.before_attention(x)
        q, k, v = (f(y).view(rows, length, self.heads, -1).transpose(1, 2) for f in (self.q, self.k, self.v))
        q, k = rotate(self.q_norm(q), cos, sin), rotate(self.k_norm(k), cos, sin)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(rows, length, hidden)
        x = x + F.dropout(self.o(y), DROPOUT, self.training)
        y = self.before_mlp(x)
        return x + F.dropout(self.down(F.silu(self.gate(y)) * self.up(y)), DROPOUT, self.training)


class Model(nn.Module):
    def __init__(self, hidden, intermediate, layers, heads):
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, hidden)
        self.layers = nn.ModuleList(Layer(hidden, intermediate, heads) for _ in range(layers))
        self.norm = nn.RMSNorm(hidden, 1e-5)
        self.head = nn.Linear(hidden, VOCABULARY, bias=False)
        self.width = hidden // heads
        for module in self.modules():
            if isinstance(module, (nn.Linear, nn.Embedding)):
                nn.init.normal_(module.weight, std=0.02)

    def loss(self, tokens, predicting, targets):
        angles = torch.arange(tokens.shape[1])[:, None] * 10_000.0 ** (-torch.arange(0, self.width, 2) / self.width)
        angles = torch.cat((angles, angles), dim=-1)
        cos, sin = angles.cos(), angles.sin()
        x = self.embedding(tokens)
        for layer in self.layers:
            x = layer(x, cos, sin)
        # The head sees only positions that predict a token.
        logits = self.head(self.norm(x[:, predicting].reshape(len(targets), -1)))
        return F.cross_entropy(logits, targets) + Z_LOSS * logits.logsumexp(-1).square().mean()


def generated(seed, count):
    """The sequence of the Rust benchmark."""
    values, state = [], seed
    for _ in range(count):
        state = (state * 1_664_525 + 1_013_904_223) % 2**32
        values.append((state >> 8) % VOCABULARY)
    return values


def run(name):
    hidden, intermediate, layers, heads, rows, length, runs = SIZES[name]
    torch.manual_seed(0)
    model = Model(hidden, intermediate, layers, heads)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=1e-3, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1, fused=True
    )
    tokens = torch.tensor([generated(row, length) for row in range(rows)])
    predicting = slice(length // 2 - 1, length - 1)
    targets = tokens[:, length // 2 :].reshape(-1)
    times = []
    for _ in range(runs + 1):
        marks = [time.perf_counter()]
        loss = model.loss(tokens, predicting, targets)
        marks.append(time.perf_counter())
        loss.backward()
        marks.append(time.perf_counter())
        nn.utils.clip_grad_norm_(model.parameters(), 4.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        value = loss.item()
        marks.append(time.perf_counter())
        times.append([after - before for before, after in zip(marks, marks[1:])])
    times = times[1:]
    step = statistics.median(sum(parts) for parts in times)
    forward, backward, rest = (100 * statistics.median(part) / step for part in zip(*times))
    millions = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    print(
        f"{name}: {millions:.1f} million parameters, vocabulary {VOCABULARY}, batch {rows} x {length}\n"
        f"  {rows * length / step:.0f} tokens/s, {1e3 * step:.1f} ms a step: forward {forward:.0f} %, "
        f"backward {backward:.0f} %, the rest {rest:.0f} %\n"
        f"  PyTorch {torch.__version__}, {torch.get_num_threads()} threads; loss after {runs + 1} steps {value:.4f}"
    )


if __name__ == "__main__":
    for size in sys.argv[1:] or SIZES:
        run(size)
