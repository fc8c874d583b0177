"""A reader of `.scc` streams by ``docs/scc-format.md``, in plain Python: slow, and without the library.

It reads down to arrays. Which kernels and variables there are, and their shapes, is for the caller to say: that needs
the rules of Keras's layers. Files are taken to be sound: only the checksum and the end of the stream are checked.
"""

import json
import math
import zlib

import numpy as np
from independent_coder import Coder, Mixer, Tables, after, clamp
from independent_kernels import Kernel

KINDS = ("flag", "step", "fraction", "fixed", "dropped", "sign", "exponent", "byte")
EXAMPLES = {
    "flag": [0] * 6,
    "step": [-12, 6, 18, -40, -24, 10, 4, -16, 33, -21],
    "fraction": [4, 4, 5, 3, 4],
    "fixed": [0, 1, -2, 0, 3, -1, 0, -5, 1, 0, 2, 4, -1, -3, 0, 7, -2, 1, 0, -10],
    "dropped": [20, 0, 19, 0],
    "exponent": [-1, 0, -2, -3, 1, 0, -1, 2, -1, -4, -2, 0],
}


class Reader:
    """A file's stream.

    Args:
        content: bytes, of the file.
        dictionary: bytes.
    """

    def __init__(self, content, dictionary):
        if content[:4] != b"SCC\5" or zlib.crc32(content[:4] + content[8:]) != int.from_bytes(content[4:8], "little"):
            raise ValueError("Expected a sound file of version 5. Received: another")
        self.mixer, self.slots, self.counts, self.step = Mixer(), Tables(), [], None
        self.taps = [[8192, 8192, 0, 0], [8192, 8192, 0, 0]]
        for kind, values in EXAMPLES.items():
            self.numbers(len(values), kind, values)
        self.coder = Coder(content[8:])
        text = after(dictionary).continued().read(self.coder)
        if not text:
            text = zlib.decompress(bytes(self.coder.uniform(8) for _ in range(self.numbers(1, "byte")[0])))
        self.architecture = json.loads(text)

    def numbers(self, n, kind, known=None):
        kind, before, found_all, fresh = KINDS.index(kind), 0, [], Tables()

        def decide(node, sign, bit):
            a = 256 * kind + node
            keys = (0, 8 * a), (1, 8 * a + before), (2, 8 * a + sign)
            slots = [*(self.slots[key] for key in keys), fresh[node]]
            sets = 176 + kind, 184 + min(node, 63), 184 + min(node, 63)
            return self.mixer.decide(None if known else self.coder, (), slots, sets, int(bit) if known else None)

        for i in range(n):
            value = known[i] if known else 0
            size = abs(value)
            if not decide(0, 0, value != 0):
                before = 0
                found_all.append(0)
                continue
            sign, bits = decide(1, 0, value > 0), 1
            while bits < 62 and decide(1 + bits, sign, size >> bits > 0):
                bits += 1
            found = 1
            for k in range(bits - 2, -1, -1):
                node = 64 + 8 * min(bits, 15) + found
                bit = size >> k & 1
                if found < 8:
                    bit = decide(node, sign, bit)
                elif not known:
                    bit = self.coder.bit(1 << 15)
                found = 2 * found + bit
            found_all.append(found if sign else -found)
            before = 1 + min(bits, 6)
        return found_all

    def array(self, shape, dtype="float32"):
        n = math.prod(shape)
        if dtype != "float32":  # bfloat16 and the like: as their bytes
            size = {"bfloat16": 2}.get(dtype) or np.dtype(dtype).itemsize
            planes = np.array([self.numbers(n, "byte") for _ in range(size)], np.uint8).reshape(size, n)
            if dtype == "bfloat16":
                planes, dtype = np.concatenate([np.zeros((2, n), np.uint8), planes]), "float32"
            return np.ascontiguousarray(planes.T).view(dtype).reshape(shape)
        if not n:
            return np.zeros(shape, np.float32)
        (f,) = self.numbers(1, "fraction")
        if f < 16:
            return np.ldexp(np.array(self.numbers(n, "fixed"), np.float32), -f).reshape(shape)
        (dropped,) = self.numbers(1, "dropped")
        signs, exponents = self.numbers(n, "sign"), self.numbers(n, "exponent")
        mantissas = [self.coder.uniform(23 - dropped) << dropped for _ in range(n)]
        bits = [s << 31 | e + 127 << 23 | m for s, e, m in zip(signs, exponents, mantissas, strict=True)]
        return np.array(bits, np.uint32).view(np.float32).reshape(shape)

    # Weights, by parts ------------------------------------------------------------------------------------------------

    def quantized(self, shape):
        """A self-compressing kernel ``(…, inputs, channels)``: ``codes * 2^exponent``."""
        kernel = Kernel(self, shape)
        live = [c for c, flag in enumerate(kernel.channels) if flag]
        exponents = np.zeros(shape[-1], np.float32)
        if live:
            exponents[live] = self.exponents(len(live))
        scales = np.clip(np.rint(np.clip(exponents, -100, 100) * 16), -320, 320).astype(int).tolist()
        return kernel.read(scales, 3).astype(np.float32) * np.exp2(exponents.astype(np.float64)).astype(np.float32)

    def exponents(self, n):
        (form,) = self.numbers(1, "flag")
        if form == 1:
            return self.array((n,))
        if form == 0:
            self.step = (-48 if self.step is None else self.step) + self.numbers(1, "step")[0]
            return np.full(n, self.step / 16, np.float32)
        unit, values = 1 << 6 - form, []
        mean = (-80 if self.step is None else self.step) // unit
        for distance in self.numbers(n, "fixed"):
            values.append((mean + distance) * unit / 16)
            mean += clamp(distance, -4, 4) // 2
        self.step = int(values[-1] * 16)
        return np.array(values, np.float32)

    def codes(self, shape):
        """A kernel of integers alone."""
        return Kernel(self, shape).read([-80] * shape[-1], 1 << 30)

    def shared(self, shape, clusters):
        """``(centroids, indices)`` of a weight-sharing kernel."""
        centroids = self.array((clusters,))
        codes, below = self.codes(shape), int((centroids < 0).sum())
        return centroids, np.where(codes, codes + below + (codes < 0), 0)

    def masked(self, shape, dtype="float32"):
        """``(mask, kernel)`` of a stock layer."""
        stored, kernel, mask = self.codes(shape) != 0, np.zeros(shape, np.float32), np.zeros(shape)
        kernel[stored] = self.array((stored.sum(),), dtype)
        mask[stored] = 1 - np.array(self.numbers(stored.sum(), "flag"))
        return mask, kernel

    def mask(self, kernel):
        """The mask of a self-compressing kernel."""
        return (self.codes(kernel.shape) != 0) != (kernel != 0)
