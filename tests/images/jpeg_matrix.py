"""Writes JPEG files of every kind that the format allows and few encoders write: `jpeg_matrix.py FOLDER`.

The file's name says what it is. `compare.py` holds decoders against Pillow on them.
"""

import itertools
import pathlib
import sys

import numpy as np

from jpeg_encoder import encode, sizes

FACTORS = [(1, 1), (2, 1), (1, 2), (2, 2), (4, 1), (4, 2), (1, 4), (3, 1)]


def plane(rows, columns, seed):
    """A smooth picture with edges and a little noise."""
    y, x = np.mgrid[0:rows, 0:columns] / max(rows, columns)
    angle = seed * 1.3
    wave = 128 + 70 * np.sin(9 * (x * np.cos(angle) + y * np.sin(angle))) + 30 * (x + y > 0.7 + 0.1 * seed)
    noise = np.random.default_rng(seed).normal(0, 4, (rows, columns))
    return np.clip(wave + noise, 0, 255)


def write(folder, name, sampling, width, height, **options):
    planes = [plane(rows, columns, seed) for seed, (rows, columns) in enumerate(sizes(width, height, sampling))]
    (folder / f"{name}.jpg").write_bytes(encode(planes, sampling, width, height, **options))


def label(sampling):
    return "_".join(f"{h}{v}" for h, v in sampling)


def matrix(folder):
    shapes = {"together": {}, "apart": {"separate": True}, "progressive": {"progressive": True},
              "progressive_apart": {"progressive": True, "separate": True}, "restart": {"restart": 3}}
    for sampling in itertools.product(FACTORS, repeat=3):
        blocks = sum(h * v for h, v in sampling)
        for shape, options in shapes.items():
            if blocks > 10 and shape != "apart":
                continue
            # Few of the odder factors: files of 8 x 8 x 8 factors are mostly alike.
            odd = sum(s in ((4, 2), (1, 4), (3, 1)) for s in sampling)
            if odd > 1:
                continue
            write(folder, f"{shape}_{label(sampling)}", sampling, 37, 29, **options)
    usual = [[(1, 1)] * 3, [(2, 1), (1, 1), (1, 1)], [(2, 2), (1, 1), (1, 1)], [(1, 2), (1, 1), (1, 1)],
             [(4, 1), (1, 1), (1, 1)], [(1, 1), (2, 1), (2, 1)], [(1, 1), (2, 2), (1, 1)], [(2, 2), (2, 1), (1, 2)]]
    for sampling in usual:
        for width, height in [(1, 1), (2, 2), (3, 5), (5, 3), (7, 8), (8, 16), (16, 15), (17, 17), (33, 1), (1, 33),
                              (64, 64), (100, 63), (161, 50)]:
            for shape, options in shapes.items():
                write(folder, f"size{width}x{height}_{shape}_{label(sampling)}", sampling, width, height, **options)
        for jfif, adobe, (ids_name, ids) in itertools.product(
                [False, True], [None, 0, 1, 2], {"ids123": [1, 2, 3], "idsRGB": [82, 71, 66], "ids012": [0, 1, 2],
                                                 "ids579": [5, 7, 9]}.items()):
            name = f"colour_{'jfif' if jfif else 'plain'}_adobe{adobe}_{ids_name}_{label(sampling)}"
            write(folder, name, sampling, 40, 24, jfif=jfif, adobe=adobe, ids=ids)
    for sampling in [[(1, 1)], [(2, 2)], [(2, 1)], [(4, 2)]]:
        for shape, options in shapes.items():
            if "apart" in shape:
                continue
            planes = [plane(29, 37, 0)]
            (folder / f"grey_{shape}_{label(sampling)}.jpg").write_bytes(encode(planes, sampling, 37, 29, **options))
    for sampling in [[(1, 1)] * 4, [(2, 2), (1, 1), (1, 1), (2, 2)], [(1, 1), (2, 1), (1, 1), (1, 2)]]:
        for jfif, adobe, (shape, options) in itertools.product([False, True], [None, 0, 1, 2], shapes.items()):
            name = f"four_{'jfif' if jfif else 'plain'}_adobe{adobe}_{shape}_{label(sampling)}"
            write(folder, name, sampling, 37, 29, jfif=jfif, adobe=adobe, **options)
    for step in [1, 12, 40]:
        for shape, options in shapes.items():
            write(folder, f"step{step}_{shape}", [(2, 2), (1, 1), (1, 1)], 120, 90, step=step, **options)


if __name__ == "__main__":
    folder = pathlib.Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    matrix(folder)
    print(sum(1 for _ in folder.iterdir()), "files")
