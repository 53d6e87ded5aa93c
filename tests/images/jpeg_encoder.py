"""A JPEG encoder that writes what others do not: any sampling factors, scans, markers and component ids.

`encode(planes, sampling, ...)` takes the components as they are stored, each of the size that its sampling factors
give it, and returns the file. The Huffman tables are those of Annex K, so that files are valid in every mode.
"""

import struct

import numpy as np

ZIGZAG = sorted(range(64), key=lambda i: (i // 8 + i % 8, (i // 8 if (i // 8 + i % 8) % 2 else i % 8)))

DC_BITS = [0, 1, 5, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0]
DC_VALUES = list(range(12))
AC_BITS = [0, 2, 1, 3, 3, 2, 4, 3, 5, 5, 4, 4, 0, 0, 1, 0x7D]
AC_VALUES = list(bytes.fromhex(
    "01020300041105122131410613516107227114328191a1082342b1c11552d1f02433627282090a161718191a25262728292a3435363738"
    "393a434445464748494a535455565758595a636465666768696a737475767778797a838485868788898a92939495969798999aa2a3a4a5"
    "a6a7a8a9aab2b3b4b5b6b7b8b9bac2c3c4c5c6c7c8c9cad2d3d4d5d6d7d8d9dae1e2e3e4e5e6e7e8e9eaf1f2f3f4f5f6f7f8f9fa"))

COSINES = np.array([[np.cos((2 * x + 1) * u * np.pi / 16) * (np.sqrt(0.125) if u == 0 else 0.5) for x in range(8)]
                    for u in range(8)])


def codes(bits, values):
    table, code, at = {}, 0, 0
    for length, count in enumerate(bits, 1):
        for value in values[at:at + count]:
            table[value] = (code, length)
            code += 1
        at += count
        code <<= 1
    return table


DC_CODES, AC_CODES = codes(DC_BITS, DC_VALUES), codes(AC_BITS, AC_VALUES)


class Bits:
    """The entropy-coded bytes of a scan."""

    def __init__(self):
        self.out, self.value, self.n = bytearray(), 0, 0

    def put(self, value, length):
        self.value, self.n = (self.value << length) | value, self.n + length
        while self.n >= 8:
            byte = (self.value >> (self.n - 8)) & 255
            self.out.append(byte)
            if byte == 255:
                self.out.append(0)
            self.n -= 8
            self.value &= (1 << self.n) - 1

    def number(self, value, length):
        self.put(value if value >= 0 else value + (1 << length) - 1, length)

    def flush(self):
        if self.n:
            self.put((1 << (8 - self.n)) - 1, 8 - self.n)

    def restart(self, index):
        self.flush()
        self.out += bytes([255, 0xD0 + index % 8])


class Component:
    """Quantised coefficients, `[rows, columns, 64]` in zigzag order, padded to whole MCUs."""

    def __init__(self, plane, sampling, mcus, step):
        self.h, self.v = sampling
        # Blocks of the component alone, and of the whole MCUs of an interleaved scan.
        self.rows, self.columns = -(-plane.shape[0] // 8), -(-plane.shape[1] // 8)
        rows, columns = mcus[0] * self.v, mcus[1] * self.h
        padding = ((0, rows * 8 - plane.shape[0]), (0, columns * 8 - plane.shape[1]))
        padded = np.pad(plane.astype(float) - 128, padding, mode="edge")
        blocks = padded.reshape(rows, 8, columns, 8).transpose(0, 2, 1, 3)
        frequencies = np.round(COSINES @ blocks @ COSINES.T / step).astype(int)
        self.blocks = frequencies.reshape(rows, columns, 64)[:, :, ZIGZAG]


def segment(marker, data):
    return bytes([255, marker]) + struct.pack(">H", len(data) + 2) + data


def write_block(bits, block, previous, band, low):
    """Writes the coefficients `band` of a block, without their `low` lowest bits; returns its DC for the next."""
    first, last = band
    if first == 0:
        dc = int(block[0]) >> low
        size = int(abs(dc - previous)).bit_length()
        bits.put(*DC_CODES[size])
        if size:
            bits.number(dc - previous, size)
        previous, first = dc, 1
    run = 0
    for k in range(first, last + 1):
        value = int(block[k])
        if value == 0:
            run += 1
            continue
        while run > 15:
            bits.put(*AC_CODES[0xF0])
            run -= 16
        size = abs(value).bit_length()
        bits.put(*AC_CODES[run << 4 | size])
        bits.number(value, size)
        run = 0
    if run and last >= first:
        bits.put(*AC_CODES[0])
    return previous


def write_scan(components, members, mcus, restart, band=(0, 63), high=0, low=0, ids=None):
    """One scan of the components with the indices `members`."""
    bits, previous, restarts = Bits(), dict.fromkeys(members, 0), 0

    def put(index, row, column):
        block = components[index].blocks[row, column]
        if high:
            bits.put((int(block[0]) >> low) & 1, 1)
        else:
            previous[index] = write_block(bits, block, previous[index], band, low)

    if len(members) == 1:
        only = components[members[0]]
        units = [[(members[0], row, column)] for row in range(only.rows) for column in range(only.columns)]
    else:
        units = [[(i, row * components[i].v + y, column * components[i].h + x)
                  for i in members for y in range(components[i].v) for x in range(components[i].h)]
                 for row in range(mcus[0]) for column in range(mcus[1])]
    for n, unit in enumerate(units):
        if restart and n and n % restart == 0:
            bits.restart(restarts)
            restarts, previous = restarts + 1, dict.fromkeys(members, 0)
        for place in unit:
            put(*place)
    bits.flush()
    header = bytes([len(members)]) + b"".join(bytes([ids[i], 0]) for i in members)
    header += bytes([band[0], band[1], high << 4 | low])
    return segment(0xDA, header) + bytes(bits.out)


def sizes(width, height, sampling):
    """(rows, columns) of each component's samples."""
    h, v = max(s[0] for s in sampling), max(s[1] for s in sampling)
    return [(-(-height * s[1] // v), -(-width * s[0] // h)) for s in sampling]


def encode(planes, sampling, width, height, *, separate=False, progressive=False, restart=0, jfif=True, adobe=None,
           ids=None, step=3):
    ids = ids or list(range(1, len(planes) + 1))
    h, v = max(s[0] for s in sampling), max(s[1] for s in sampling)
    mcus = (-(-height // (8 * v)), -(-width // (8 * h)))
    if len(planes) == 1:
        mcus = (-(-height // 8), -(-width // 8))
        components = [Component(planes[0], (1, 1), mcus, step)]
    else:
        components = [Component(p, s, mcus, step) for p, s in zip(planes, sampling)]
    out = b"\xff\xd8"
    if jfif:
        out += segment(0xE0, b"JFIF\0\x01\x01\0\0\x01\0\x01\0\0")
    if adobe is not None:
        out += segment(0xEE, b"Adobe\0\x64\0\0\0\0" + bytes([adobe]))
    out += segment(0xDB, b"\0" + bytes([step] * 64))
    frame = struct.pack(">BHHB", 8, height, width, len(planes))
    frame += b"".join(bytes([i, s[0] << 4 | s[1], 0]) for i, s in zip(ids, sampling))
    out += segment(0xC2 if progressive else 0xC0, frame)
    out += segment(0xC4, b"\x00" + bytes(DC_BITS) + bytes(DC_VALUES))
    out += segment(0xC4, b"\x10" + bytes(AC_BITS) + bytes(AC_VALUES))
    if restart:
        out += segment(0xDD, struct.pack(">H", restart))
    every = list(range(len(planes)))
    groups = [[i] for i in every] if separate else [every]
    if progressive:
        for group in groups:
            out += write_scan(components, group, mcus, restart, (0, 0), 0, 1, ids)
        for band in [(1, 5), (6, 63)]:
            for i in every:
                out += write_scan(components, [i], mcus, restart, band, 0, 0, ids)
        for group in groups:
            out += write_scan(components, group, mcus, restart, (0, 0), 1, 0, ids)
    else:
        for group in groups:
            out += write_scan(components, group, mcus, restart, ids=ids)
    return out + b"\xff\xd9"
