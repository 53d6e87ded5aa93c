"""Writes TIFF files of the kinds that Pillow reads, with each compression: `tiff_matrix.py FOLDER`.

The first part is written by Pillow, the second one by hand: byte orders, planes, tiles, fill order, premultiplied alpha.
`compare.py` holds decoders against Pillow on them.
"""

import itertools
import pathlib
import struct
import sys
import zlib

import numpy as np
from PIL import Image


def values(height, width, n, dtype, low, high):
    y, x = np.mgrid[0:height, 0:width]
    rng = np.random.default_rng(n)
    waves = [np.sin(x / (3 + s) + y / (5 - s % 3) + s) for s in range(n)]
    unit = np.clip((np.stack(waves, -1) + 1) / 2 + rng.normal(0, 0.02, (height, width, n)), 0, 1)
    return (low + unit * (high - low)).astype(dtype)


def by_pillow(folder):
    base = Image.fromarray(values(45, 61, 4, np.uint8, 0, 255), "RGBA")
    images = {mode: base.convert("RGB").convert(mode) for mode in ["1", "L", "P", "RGB", "CMYK", "YCbCr"]}
    images["RGBA"], images["LA"] = base, base.convert("LA")
    images["I;16"] = Image.fromarray(values(45, 61, 1, np.uint16, 0, 600)[:, :, 0])
    images["I"] = Image.fromarray(values(45, 61, 1, np.int32, -300, 600)[:, :, 0])
    images["F"] = Image.fromarray(values(45, 61, 1, np.float32, -300, 600)[:, :, 0])
    compressions = [None, "tiff_lzw", "tiff_adobe_deflate", "tiff_deflate", "packbits", "jpeg", "group4", "group3",
                    "tiff_ccitt", "lzma", "zstd", "webp"]
    for (mode, image), compression in itertools.product(images.items(), compressions):
        for predictor in [1, 2, 3]:
            if predictor > 1 and compression not in ("tiff_lzw", "tiff_adobe_deflate"):
                continue
            name = folder / f"pillow_{mode.replace(';', '')}_{compression}_{predictor}.tif"
            try:
                image.save(name, compression=compression, tiffinfo={317: predictor} if predictor > 1 else {})
            except (OSError, ValueError, RuntimeError, KeyError):
                name.unlink(missing_ok=True)


def tiff(order, entries, data):
    """A file of one directory; `data` are the chunks."""
    big = ">" if order == "MM" else "<"
    out = bytearray(order.encode() + struct.pack(big + "HI", 42, 0))
    offsets = []
    for chunk in data:
        offsets.append(len(out))
        out += chunk + b"\0" * (len(chunk) % 2)
    tiled = 322 in entries
    entries = {**entries, 324 if tiled else 273: (4, offsets), 325 if tiled else 279: (4, [len(c) for c in data])}
    packed = []
    for tag, (kind, numbers) in sorted(entries.items()):
        raw = b"".join(struct.pack(big + {3: "H", 4: "I"}[kind], number) for number in numbers)
        if len(raw) > 4:
            place = struct.pack(big + "I", len(out))
            out += raw
        else:
            place = raw.ljust(4, b"\0")
        packed.append(struct.pack(big + "HHI", tag, kind, len(numbers)) + place)
    out[4:8] = struct.pack(big + "I", len(out))
    out += struct.pack(big + "H", len(packed)) + b"".join(packed) + b"\0\0\0\0"
    return bytes(out)


def by_hand(folder):
    width, height = 37, 23
    kinds = {
        # name: photometric, samples, dtype, sample format, extra samples, low, high
        "grey8": (1, 1, "u1", 1, None, 0, 255), "grey8white": (0, 1, "u1", 1, None, 0, 255),
        "grey8signed": (1, 1, "u1", 2, None, 0, 255), "grey16": (1, 1, "u2", 1, None, 0, 700),
        "grey16white": (0, 1, "u2", 1, None, 0, 700), "grey16signed": (1, 1, "i2", 2, None, -200, 700),
        "grey32": (1, 1, "u4", 1, None, 0, 700), "grey32signed": (1, 1, "i4", 2, None, -200, 700),
        "float32": (1, 1, "f4", 3, None, -200, 700), "float32white": (0, 1, "f4", 3, None, -200, 700),
        "greyx": (1, 2, "u1", 1, 0, 0, 255), "greya": (1, 2, "u1", 1, 2, 0, 255),
        "rgb8": (2, 3, "u1", 1, None, 0, 255), "rgb16": (2, 3, "u2", 1, None, 0, 65535),
        "rgbx8": (2, 4, "u1", 1, 0, 0, 255), "rgba8": (2, 4, "u1", 1, 2, 0, 255),
        "rgba8none": (2, 4, "u1", 1, None, 0, 255), "rgbpre8": (2, 4, "u1", 1, 1, 0, 255),
        "rgbcorel8": (2, 4, "u1", 1, 999, 0, 255), "rgbx16": (2, 4, "u2", 1, 0, 0, 65535),
        "rgba16": (2, 4, "u2", 1, 2, 0, 65535), "rgbpre16": (2, 4, "u2", 1, 1, 0, 65535),
        "rgba16none": (2, 4, "u2", 1, None, 0, 65535), "cmyk8": (5, 4, "u1", 1, None, 0, 255),
        "cmyk16": (5, 4, "u2", 1, None, 0, 65535), "greypre": (1, 2, "u1", 1, 1, 0, 255),
    }
    for (name, kind), order, layout, compressed in itertools.product(
            kinds.items(), ["II", "MM"], ["strips", "strip", "tiles", "planes", "tiled_planes"], [False, True]):
        photometric, n, dtype, sample_format, extra, low, high = kind
        # Pillow 13 swaps the bytes of these twice, or forgets a plane.
        by_number = sample_format > 1 and dtype != "u1"
        planar = "planes" in layout
        if by_number and (order == "MM" and (compressed or planar) or planar):
            continue
        if planar and ("none" in name or name in ("greya", "greypre", "grey8white") or dtype == "u2" and not compressed):
            continue
        pixels = values(height, width, n, np.float64, low, high)
        if "pre" in name:
            pixels[:, :, -1] = np.where(pixels[:, :, -1] < high / 5, 0, pixels[:, :, -1])
            pixels[:, :, :-1] *= pixels[:, :, -1:] / high
        pixels = pixels.astype((">" if order == "MM" else "<") + dtype)
        bits = pixels.dtype.itemsize * 8
        entries = {256: (4, [width]), 257: (4, [height]), 258: (3, [bits] * n), 259: (3, [8 if compressed else 1]),
                   262: (3, [photometric]), 277: (3, [n]), 339: (3, [sample_format] * n)}
        if extra is not None:
            entries[338] = (3, [extra])
        planes = [pixels[:, :, s:s + 1] for s in range(n)] if "planes" in layout else [pixels]
        if "planes" in layout:
            entries[284] = (3, [2])
        chunks = []
        for plane in planes:
            if "tile" in layout:
                entries |= {322: (4, [16]), 323: (4, [16])}
                padded = np.pad(plane, ((0, -height % 16), (0, -width % 16), (0, 0)))
                chunks += [padded[y:y + 16, x:x + 16] for y in range(0, height, 16) for x in range(0, width, 16)]
            else:
                rows = height if layout == "strip" else 7
                entries[278] = (4, [rows])
                chunks += [plane[y:y + rows] for y in range(0, height, rows)]
        data = [zlib.compress(chunk.tobytes()) if compressed else chunk.tobytes() for chunk in chunks]
        suffix = "deflate" if compressed else "raw"
        (folder / f"hand_{name}_{order}_{layout}_{suffix}.tif").write_bytes(tiff(order, entries, data))
    for bits, photometric, order, fill_order in itertools.product([1, 2, 4, 8, 12], [0, 1, 3], ["II", "MM"], [1, 2]):
        row = (width * bits + 7) // 8
        data = np.random.default_rng(bits).integers(0, 256, (height, row), np.uint8).tobytes()
        entries = {256: (4, [width]), 257: (4, [height]), 258: (3, [bits]), 259: (3, [1]), 262: (3, [photometric]),
                   266: (3, [fill_order]), 277: (3, [1]), 278: (4, [height])}
        if photometric == 3:
            colors = np.random.default_rng(1).integers(0, 65536, 3 << bits)
            entries[320] = (3, [int(color) for color in colors])
        name = f"hand_bits{bits}_{photometric}_{order}_fill{fill_order}.tif"
        (folder / name).write_bytes(tiff(order, entries, [data]))
    for orientation in range(1, 9):
        pixels = values(height, width, 3, np.uint8, 0, 255)
        entries = {256: (4, [width]), 257: (4, [height]), 258: (3, [8] * 3), 259: (3, [1]), 262: (3, [2]),
                   274: (3, [orientation]), 277: (3, [3]), 278: (4, [height])}
        (folder / f"hand_orientation{orientation}.tif").write_bytes(tiff("II", entries, [pixels.tobytes()]))


if __name__ == "__main__":
    folder = pathlib.Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    by_pillow(folder)
    by_hand(folder)
    print(sum(1 for _ in folder.iterdir()), "files")
