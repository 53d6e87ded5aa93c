"""Compares this project's pixels of image files with Pillow's: `compare.py PROGRAM FILE-OR-FOLDER…`.

PROGRAM is the example `decode` (`cargo build --release -p lumina-vq --example decode`). Where Pillow is not installed
the script says so and passes. JPEG and lossy WebP may differ by 8 levels a sample and 1 on average, others by nothing.
It prints what differs, what only one side reads, and a summary; the exit status is 1 if pixels differ.
"""

import collections
import os
import pathlib
import subprocess
import sys
import warnings

try:
    import numpy as np
    from PIL import Image
except ImportError as error:
    print(f"skipped: {error}; install pillow and numpy to compare")
    sys.exit(0)

Image.init()
FORMATS = ["PNG", "JPEG", "WEBP", "GIF", "BMP", "DIB", "TIFF"]
LOSSY = (8, 1.0)


def on_white(image):
    """RGB as the original makes it: transparent pixels on white, in f64, truncated."""
    if image.mode in ("RGB", "L", "1", "I", "F", "CMYK", "I;16", "I;16B") and "transparency" not in image.info:
        return np.asarray(image.convert("RGB"))
    if image.mode in ("RGB", "CMYK"):
        return np.asarray(image.convert("RGB"))
    values = np.asarray(image.convert("RGBA")).astype(float)
    alpha = values[:, :, 3:] / 255
    return ((1 - alpha) * 255 + alpha * values[:, :, :3]).astype(np.uint8)


def by_pillow(file):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with Image.open(file, formats=FORMATS) as image:
            image.load()
            mode = "RGBA" if image.mode == "RGBX" else image.mode
            return mode.replace("I;16B", "I;16"), on_white(image)


def is_lossy(file):
    head = file.read_bytes()
    # In a TIFF: tag 259, compression, of one SHORT, 7.
    in_tiff = b"\x03\x01\x03\0\x01\0\0\0\x07\0" in head or b"\x01\x03\0\x03\0\0\0\x01\0\x07" in head
    return head[:2] == b"\xff\xd8" or b"VP8 " in head[:4096] and head[8:12] == b"WEBP" or in_tiff


def main():
    program, *given = sys.argv[1:]
    files = []
    for path in map(pathlib.Path, given):
        files += sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    kinds, notes = collections.Counter(), []
    with subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        for file in files:
            process.stdin.write(os.fsencode(file) + b"\n")
            process.stdin.flush()
            status, _, rest = process.stdout.readline().decode(errors="replace").rstrip("\n").partition(" ")
            found = None
            if status == "ok":
                width, height, mode = rest.split(" ")
                shape = (int(height), int(width), 3)
                found = np.frombuffer(process.stdout.read(shape[0] * shape[1] * 3), np.uint8).reshape(shape)
            elif status != "error":
                sys.exit(f"{file}: the program ended")
            try:
                expected_mode, expected = by_pillow(file)
            except Exception as error:  # Pillow raises many kinds
                kind = "both refuse" if found is None else "only Pillow refuses"
                if found is not None:
                    notes.append(f"{kind}: {file}: {type(error).__name__}: {error}")
                kinds[kind] += 1
                continue
            if found is None:
                kind, note = "only Pillow reads", rest
            elif found.shape != expected.shape:
                kind, note = "DIFFERENT", f"size {found.shape}, not {expected.shape}"
            else:
                difference = np.abs(found.astype(int) - expected)
                largest, mean = int(difference.max(initial=0)), float(difference.mean()) if difference.size else 0.0
                note = f"by {largest}, on average by {mean:.3f}"
                if largest == 0:
                    kind = "equal"
                elif is_lossy(file) and largest <= LOSSY[0] and mean <= LOSSY[1]:
                    kind = "near"
                else:
                    kind = "DIFFERENT"
                if kind != "DIFFERENT" and mode != expected_mode:
                    kind, note = "DIFFERENT MODE", f"{mode}, not {expected_mode}"
            kinds[kind] += 1
            if kind not in ("equal", "near"):
                notes.append(f"{kind}: {file}: {note}")
        process.stdin.close()
    print("\n".join(sorted(notes)))
    print(", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items())))
    sys.exit(any("DIFFERENT" in kind for kind in kinds))


if __name__ == "__main__":
    main()
