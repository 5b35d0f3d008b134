"""Raw key -> row in 1 to 6 bytes per key plus half a byte for the directory.

Keys less `base` are spread by a bijection of `bits`-bit numbers. The top bits of the result say in which bucket a key
lies, so only the other bits are stored. Where ids span at most 48 bits nothing is lost, and a key that was never put in
is never found. Of wider keys (hashed strings) 32 bits beside the bucket's are kept: one unseen key in 270 million is
then taken for a known one. Rows lie in the order of the spread keys.
Source: quotienting, Knuth, The Art of Computer Programming 3, section 6.4, exercise 13.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Keys = NDArray[np.int64]
_PER_BUCKET = 16
_EXACT_BITS, _HASH_BITS = 48, 32
_ODD = (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9)


class BadIndex(ValueError):
    """The parts of a stored index do not belong together."""


def spread(keys: Keys, base: int, bits: int) -> tuple[NDArray[np.uint64], NDArray[np.bool_]]:
    """Return each key's `bits`-bit image [N], and whether it can be in the index at all."""
    mask = np.uint64(2**bits - 1)
    x = keys.view(np.uint64) - np.uint64(base % 2**64)
    inside = x <= mask
    shift = np.uint64((bits + 1) // 2)
    for odd in _ODD:
        x = (x * np.uint64(odd)) & mask
        x ^= x >> shift
    return x, inside


def layout(count: int, kept: int) -> tuple[int, int]:
    """Return how many of the `kept` bits choose a bucket, and the bytes that each key's other bits take."""
    top = min((count // _PER_BUCKET).bit_length(), kept)
    return top, max(1, -(-(kept - top) // 8))


def default_kept(count: int, bits: int) -> int:
    """Return how many of `bits` bits an index of so many keys keeps, unless two keys agree in them."""
    return bits if bits <= _EXACT_BITS else min(bits, layout(count, bits)[0] + _HASH_BITS)


def span_bits(keys: Keys) -> int:
    """Return how many bits tell all keys apart once the smallest is taken off."""
    return max(1, (int(keys.max()) - int(keys.min())).bit_length()) if len(keys) else 1


def index_bytes(counts: NDArray[np.int64], bits: int) -> NDArray[np.int64]:
    """Return the bytes of an index of so many keys that span `bits` bits [N]; not rising everywhere: a doubled
    directory may save a byte on every key.
    """
    # Top bits change where count // 16 doubles: a few dozen layouts serve any number of counts.
    step = np.frexp(counts // _PER_BUCKET)[1]
    layouts = [layout(n, default_kept(n, bits)) for n in (_PER_BUCKET << s >> 1 for s in range(int(step.max()) + 1))]
    top, width = np.array(layouts, dtype=np.int64)[step].T
    total: NDArray[np.int64] = counts * width + 4 * (2**top + 1)
    return total


@dataclass(frozen=True)
class KeyIndex:
    """`starts` uint32 [buckets + 1]: first row of each; `rests` uint8 [rows, width]: the other bits, little-endian."""

    base: int
    bits: int
    kept: int
    """How many of the spread keys' top bits are known."""
    starts: NDArray[np.uint32]
    rests: NDArray[np.uint8]

    @staticmethod
    def build(keys: Keys) -> tuple["KeyIndex", NDArray[np.int64]]:
        """Return the index of distinct `keys` [N], and the order they lie in: row i belongs to keys[order[i]]."""
        base, bits = (int(keys.min()) if len(keys) else 0), span_bits(keys)
        whole, _ = spread(np.ascontiguousarray(keys), base, bits)
        order = np.argsort(whole, kind="stable")
        kept = default_kept(len(keys), bits)
        while kept < bits and len(np.unique(whole >> np.uint64(bits - kept))) < len(keys):
            kept = min(bits, kept + 8)
        image = whole[order] >> np.uint64(bits - kept)
        top, width = layout(len(keys), kept)
        low = kept - top
        bucket = (image >> np.uint64(low)).astype(np.int64) if low < 64 else np.zeros(len(keys), np.int64)
        starts = np.searchsorted(bucket, np.arange(2**top + 1)).astype(np.uint32)
        rest = image & np.uint64(2**low - 1)
        rests = rest.astype("<u8").view(np.uint8).reshape(-1, 8)[:, :width]
        return KeyIndex(base, bits, kept, starts, np.ascontiguousarray(rests)), order

    def __len__(self) -> int:
        return len(self.rests)

    @property
    def nbytes(self) -> int:
        """Bytes of both arrays."""
        return int(self.starts.nbytes + self.rests.nbytes)

    @property
    def _rest(self) -> NDArray[np.uint64]:
        wide = np.zeros((len(self), 8), dtype=np.uint8)
        wide[:, : self.rests.shape[1]] = self.rests
        return wide.view("<u8")[:, 0].astype(np.uint64)

    @cached_property
    def images(self) -> NDArray[np.uint64]:
        """The kept bits of the spread keys in row order, rising; 8 bytes a key, so kept only once it is asked for."""
        return self._images()

    def _images(self) -> NDArray[np.uint64]:
        """Put the spread keys together again from buckets and rests."""
        sizes = self.starts[1:].astype(np.int64) - self.starts[:-1].astype(np.int64)
        bucket = np.repeat(np.arange(len(sizes), dtype=np.uint64), sizes)
        low = self.kept - layout(len(self), self.kept)[0]
        if low == 64:  # a single bucket; numbers can't be shifted by their whole width
            return self._rest
        images: NDArray[np.uint64] = (bucket << np.uint64(low)) | self._rest
        return images

    def check(self) -> None:
        """Raise BadIndex unless every row lies in its bucket, in order, within `kept` bits."""
        if not (type(self.bits) is int and type(self.kept) is int and 1 <= self.kept <= self.bits <= 64):
            raise BadIndex(f"{self.kept!r} of {self.bits!r} bits are not sensible")
        if type(self.base) is not int:
            raise BadIndex(f"base {self.base!r} is not a number")
        if not -(2**63) <= self.base < 2**63:
            raise BadIndex(f"base {self.base} does not fit in 64 bits")
        top, width = layout(len(self), self.kept)
        if self.starts.shape != (2**top + 1,) or self.rests.shape[1] != width:
            raise BadIndex(f"{len(self)} keys of {self.kept} bits do not lie in {len(self.starts) - 1} buckets")
        if self.starts[0] != 0 or self.starts[-1] != len(self) or (self.starts[1:] < self.starts[:-1]).any():
            raise BadIndex("its buckets do not follow each other from the first row to the last")
        if self.kept - top < 64 and self._rest.max(initial=0) >> np.uint64(self.kept - top):
            raise BadIndex(f"a key has more than {self.kept} bits")
        images = self._images()
        if (images[1:] <= images[:-1]).any():
            raise BadIndex("its keys are not strictly increasing")

    def rows(self, keys: Keys) -> NDArray[np.int64]:
        """Return each key's row [N]; len(index), the fallback, where it has none."""
        if len(self) == 0:
            return np.zeros(len(keys), dtype=np.int64)
        image, inside = spread(np.ascontiguousarray(keys, dtype=np.int64), self.base, self.bits)
        image >>= np.uint64(self.bits - self.kept)
        at = np.searchsorted(self.images, image)
        at[at == len(self)] = 0
        return np.where(inside & (self.images[at] == image), at, len(self))
