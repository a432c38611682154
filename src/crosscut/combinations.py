"""Every combination of the blocks' clips by its number, in plain or balanced order."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

Row = tuple[int, ...]
Numbers = NDArray[np.int64]
Element = TypeVar("Element", int, Numbers)

LOOKUPS = 10**8
"""Pair look-ups the greedy search may spend until every pair is covered: about a second."""

ROUND_LOOKUPS = 4 * 10**6
"""Pair look-ups for one block of one round, which bounds the memory of the search."""


class Combinations:
    """The combinations of blocks that hold `sizes` clips each; a combination is one clip number per block, from 0.

    Without `count`: the whole product in stable order, the last block running fastest, computed from the index alone.
    With `count`: the first `count` rows of one fixed order of the product that is balanced in every prefix. Each clip
    of a block appears as often as any other, give or take one, and every pair of clips of two blocks meets early:
    within n² rows for three blocks of n. Only for three blocks of 2, 6, 14, 18, 26 ... clips evenness gives way to
    that, to give or take two. A `count` beyond the product means all of it.
    """

    def __init__(self, sizes: Sequence[int], count: int | None = None) -> None:
        if not sizes or min(sizes) < 1:
            raise ValueError("every block needs at least one clip")
        if count is not None and count < 1:
            raise ValueError("count starts at 1")
        self.sizes = tuple(sizes)
        self.total = math.prod(self.sizes)
        self._length = self.total if count is None else min(count, self.total)
        # Larger blocks first: they decide how soon all pairs can meet. A block of one clip decides nothing.
        self._wide = sorted((b for b, n in enumerate(self.sizes) if n > 1), key=lambda b: -self.sizes[b])
        wide_sizes = tuple(self.sizes[b] for b in self._wide)
        self._order: _Order | None = None if count is None else _balanced(wide_sizes, self._length)

    def __len__(self) -> int:
        return self._length

    def combination(self, index: int) -> Row:
        if not 0 <= index < self._length:
            raise IndexError(f"combination {index} of {self._length}")
        if self._order is None:
            return _product_row(self.sizes, index)
        row = [0] * len(self.sizes)
        for block, clip in zip(self._wide, self._order.row(index), strict=True):
            row[block] = clip
        return tuple(row)

    def columns(self, start: int, stop: int) -> tuple[Numbers, ...]:
        """Many combinations at once: for each block the clips of those from `start` until `stop`."""
        indexes = np.arange(start, min(stop, self._length))
        if self._order is None:
            return _product_columns(self.sizes, indexes)
        columns = dict(zip(self._wide, self._order.columns(indexes), strict=True))
        return tuple(columns.get(block, np.zeros_like(indexes)) for block in range(len(self.sizes)))


class _Order(Protocol):
    def row(self, index: int) -> Row: ...

    def columns(self, indexes: Numbers) -> tuple[Numbers, ...]: ...


def _balanced(sizes: Row, count: int) -> _Order:
    if len(sizes) < 2:
        return _Plain(sizes)
    if len(sizes) == 3 and len(set(sizes)) == 1 and sizes[0] % 4 == 2:
        return _Squares(sizes[0], _square(sizes[0], -(-count // sizes[0])).tolist())
    return _Search(sizes, count).order()


def _product_row(sizes: Row, index: int) -> Row:
    row = []
    for n in reversed(sizes):
        index, clip = divmod(index, n)
        row.append(clip)
    return tuple(reversed(row))


def _product_columns(sizes: Row, indexes: Numbers) -> tuple[Numbers, ...]:
    columns = []
    for n in reversed(sizes):
        indexes, clips = np.divmod(indexes, n)
        columns.append(clips)
    return tuple(reversed(columns))


@dataclass(frozen=True)
class _Plain:
    sizes: Row

    def row(self, index: int) -> Row:
        return _product_row(self.sizes, index)

    def columns(self, indexes: Numbers) -> tuple[Numbers, ...]:
        return _product_columns(self.sizes, indexes)


# The rounds. Give a block of n clips the group Z_u × (Z_2)^e, n = u·2^e with u odd: clip numbers are added modulo u
# and by exclusive or, glued by the Chinese remainder theorem, so that reduction modulo any divisor of n keeps sums.
# Row t of a round shows clip (t mod n_j) + shift_j of block j. Whatever the shifts, a chunk of n_j rows shows each clip
# once, so every prefix is even as long as shift_j only changes between chunks. A round has lcm(n_j) rows. With shifts
# below g_j = gcd(lcm(n_1 .. n_j-1), n_j), rows at the same place of two rounds differ where their shifts differ, and
# rows at different places always do. So number the rounds by bases, one number below g_j per block, and let each
# chunk of a block have a permutation of its own that turns the base into the shift: all bases give the whole product.
# What is left to choose, the permutations and the order of the bases, is chosen greedily by the number of pairs that
# meet for the first time. Three equal blocks need n rounds if the shifts (0, c, θc) have c -> θc - c one-to-one too.


Permutations = tuple[list[list[int]], ...]
"""By block, chunk and base: the shift. A chunk beyond the list keeps the base."""


@dataclass(frozen=True)
class _Rounds:
    sizes: Row
    length: int
    bases: NDArray[np.int16]
    shifts: Permutations

    def row(self, index: int) -> Row:
        round_, place = divmod(index, self.length)
        row = []
        for n, base, shifts in zip(self.sizes, self.bases[round_].tolist(), self.shifts, strict=True):
            chunk, position = divmod(place, n)
            row.append(_add(position, shifts[chunk][base] if chunk < len(shifts) else base, n))
        return tuple(row)

    def columns(self, indexes: Numbers) -> tuple[Numbers, ...]:
        rounds, places = np.divmod(indexes, self.length)
        columns = []
        for block, (n, known) in enumerate(zip(self.sizes, self.shifts, strict=True)):
            chunks, positions = np.divmod(places, n)
            shifts = self.bases[rounds, block].astype(np.int64)
            if known:
                permuted = chunks < len(known)
                shifts[permuted] = np.array(known)[chunks[permuted], shifts[permuted]]
            columns.append(_add(positions, shifts, n))
        return tuple(columns)


def _add(a: Element, b: Element | int, n: int) -> Element:
    """The sum in the group of `n`."""
    even = n & -n
    odd = n // even
    if even <= 2:
        return (a + b) % n
    return _glue((a ^ b) & (even - 1), (a + b) % odd, even, odd)


def _glue(low: Element, high: Element, even: int, odd: int) -> Element:
    """The number below `even`·`odd` that is `low` modulo `even` and `high` modulo `odd`."""
    return low + even * ((high - low) * pow(even, -1, odd) % odd)


def _multiple(rank: int, c: int, n: int) -> int:
    """The shift that suits block `rank` in round `c`: `rank`·c in Z_u, x^(rank-1)·c in F2[x]/(x^e + x + 1).

    x, x + 1 and x² + x are units there for every e >= 2, which is all that four blocks ask for.
    """
    even = n & -n
    odd = n // even
    low = c % even
    for _ in range(rank - 1 if even > 2 else 0):
        low <<= 1
        if low & even:
            low ^= even | 3
    return _glue(low, rank * c % odd, even, odd)


class _Search:
    """Finds the permutations and the order of the bases; `count` only tells it where to stop."""

    def __init__(self, sizes: Row, count: int) -> None:
        self.sizes = sizes
        self.count = count
        self.blocks = range(len(sizes))
        self.gcds = tuple(math.gcd(math.lcm(*sizes[:b]), n) if b else 1 for b, n in enumerate(sizes))
        self.free = [b for b in self.blocks if self.gcds[b] > 1]
        self.length = math.lcm(*sizes)
        self.shifts: Permutations = tuple([] for _ in sizes)
        # Two blocks without a choice have coprime sizes: all their pairs meet within the product of the two.
        self.fresh: dict[tuple[int, int], NDArray[np.bool_]] = {}
        self.left: dict[tuple[int, int], int] = {}
        for a, b in itertools.combinations(self.blocks, 2):
            if a in self.free or b in self.free:
                self.fresh[a, b] = np.ones((sizes[a], sizes[b]), dtype=np.bool_)
                self.fresh[b, a] = self.fresh[a, b].T
                self.left[a, b] = self.left[b, a] = sizes[a] * sizes[b]
        self.width = max(4, LOOKUPS // (sizes[0] * sizes[1] * max(1, len(self.fresh) // 2)))

    def order(self) -> _Rounds:
        bases = list(itertools.islice(self._bases(), -(-self.count // self.length)))
        for block in self.blocks:  # where the count ended the search early
            self._complete(block)
        return _Rounds(self.sizes, self.length, np.array(bases, dtype=np.int16), self.shifts)

    def _bases(self) -> Iterator[Row]:
        """All bases: those that bring new pairs, then the rest as shifted copies of these."""
        used: dict[Row, None] = {}
        everything = math.prod(self.gcds)
        # A permutation helps where a block has several chunks a round; else the base itself is the better choice.
        filled = max((self.gcds[b] for b in self.free if self.sizes[b] < self.length), default=1)
        for number in range(filled):
            if number and not any(self.left.values()):
                break
            base = tuple(number % g for g in self.gcds)
            self._fill(number, base)
            used[base] = None
            yield base
        taken = Counter(base[: b + 1] for base in used for b in self.blocks)
        for block in self.blocks:
            self._complete(block)
        while len(used) < everything and any(self.left.values()):
            base = self._next_base(len(used), taken)
            taken.update(base[: b + 1] for b in self.blocks)
            used[base] = None
            yield base
        first = list(used)
        for steps in itertools.product(*map(range, self.gcds)):
            for base in first:
                moved = tuple((b + step) % g for b, step, g in zip(base, steps, self.gcds, strict=True))
                if moved not in used:
                    used[moved] = None
                    yield moved
            if len(used) == everything:
                return

    def _fill(self, number: int, base: Row) -> None:
        """Choose the shifts of round `number` chunk by chunk, in order of time."""
        end = min(self.length, self.count - number * self.length)
        rows = min(self.length, end + self.sizes[0])
        choosing = [b for b in self.free if number < self.gcds[b]]
        shown = [
            np.arange(rows) % n if b in choosing else self._shown(b, base[b], rows) for b, n in enumerate(self.sizes)
        ]
        decided = [0 if b in choosing else rows for b in self.blocks]
        for a, b in itertools.combinations(self.blocks, 2):
            if a not in choosing and b not in choosing:
                self._meet(a, shown[a], b, shown[b])
        while waiting := [b for b in choosing if decided[b] < end]:
            block = min(waiting, key=lambda b: (decided[b], b))
            start, n = decided[block], self.sizes[block]
            if not any(self.left[block, b] for b in self.blocks if (block, b) in self.left):
                self._complete(block)
                shown[block][start:] = self._shown(block, base[block], rows)[start:]
                decided[block] = rows
                continue
            mine = shown[block][start : start + n]
            others = {b: shown[b][start : min(decided[b], start + n)] for b in self.blocks if b != block}
            shift = self._best(block, mine, others, self._choices(block, start // n, number))
            self.shifts[block][start // n].append(shift)
            mine[:] = _add(mine, shift, n)
            decided[block] = start + n
            for other, values in others.items():
                self._meet(block, mine[: len(values)], other, values)

    def _choices(self, block: int, chunk: int, number: int) -> list[int]:
        """The shifts this chunk has not had yet, from the suitable one on."""
        if chunk == len(self.shifts[block]):
            self.shifts[block].append([])
        used = set(self.shifts[block][chunk])
        preferred = self._from_suitable(block, number * (self.length // self.sizes[block]) + chunk)
        return [c for c in preferred if c not in used]

    def _from_suitable(self, block: int, number: int) -> list[int]:
        g = self.gcds[block]
        suitable = _multiple(block, number % g, g)
        return [(suitable + step) % g for step in range(g)]

    def _complete(self, block: int) -> None:
        g = self.gcds[block]
        for shifts in self.shifts[block]:
            if len(shifts) < g:
                shifts.extend(sorted(set(range(g)) - set(shifts)))

    def _shown(self, block: int, base: int, rows: int) -> Numbers:
        """The clips of a block in a round whose permutations are complete."""
        n, known = self.sizes[block], self.shifts[block]
        chunks = -(-rows // n)
        shifts = [s[base] for s in known[:chunks]] + [base] * (chunks - len(known))
        return _add(np.arange(rows) % n, np.repeat(np.array(shifts), n)[:rows], n)

    def _next_base(self, number: int, taken: Counter[Row]) -> Row:
        """The base that brings the most new pairs in round `number`, chosen block by block."""
        shown: dict[int, Numbers] = {}
        base: Row = ()
        for block in self.blocks:
            below = math.prod(self.gcds[block + 1 :])
            able = [c for c in self._from_suitable(block, number) if taken[*base, c] < below]
            able = able[: min(self.width, max(2, ROUND_LOOKUPS // self.length))]
            tried = np.stack([self._shown(block, c, self.length) for c in able])
            best = int(np.argmax(self._gains(block, tried, shown)))
            base = (*base, able[best])
            shown[block] = tried[best]
        for a, b in itertools.combinations(self.blocks, 2):
            self._meet(a, shown[a], b, shown[b])
        return base

    def _best(self, block: int, plain: Numbers, others: dict[int, Numbers], choices: list[int]) -> int:
        """The first of the shifts that brings the most new pairs with what the other blocks show."""
        n = self.sizes[block]
        possible = sum(len(values) for values in others.values())
        if self._gains(block, _add(plain, choices[0], n)[None], others)[0] == possible:
            return choices[0]
        tried = np.array(choices[: self.width])
        return int(tried[np.argmax(self._gains(block, _add(plain[None], tried[:, None], n), others))])

    def _gains(self, block: int, tried: Numbers, others: dict[int, Numbers]) -> Numbers:
        gains = np.zeros(len(tried), dtype=np.int64)
        for other, values in others.items():
            if self.left.get((block, other)):
                gains += np.count_nonzero(self.fresh[block, other][tried[:, : len(values)], values], axis=1)
        return gains

    def _meet(self, a: int, shown_a: Numbers, b: int, shown_b: Numbers) -> None:
        if self.left.get((a, b)):
            self.fresh[a, b][shown_a, shown_b] = False
            self.left[a, b] = self.left[b, a] = int(np.count_nonzero(self.fresh[a, b]))


# Three equal blocks of n = 2 mod 4 clips: no group of that order has a θ as above. A Latin square of order n whose
# cells (row, column, symbol) come in n classes that each show everything once would do as well; its copies with the
# symbols shifted then fill the product. Such squares exist for every n except 2 and 6.


@dataclass(frozen=True)
class _Squares:
    size: int
    cells: list[list[int]]

    def row(self, index: int) -> Row:
        layer, cell = divmod(index, self.size**2)
        row, column, symbol = self.cells[cell]
        return (row, column, (symbol + layer) % self.size)

    def columns(self, indexes: Numbers) -> tuple[Numbers, ...]:
        layers, cells = np.divmod(indexes, self.size**2)
        rows, columns, symbols = np.array(self.cells).T[:, cells]
        return (rows, columns, (symbols + layers) % self.size)


def _square(n: int, classes: int) -> Numbers:
    """The cells of the first `classes` classes of a Latin square, n = 2 mod 4, in an order as even as we know."""
    if n == 2:  # the first two rows cannot be even: then the other cells of the square would repeat pairs
        return np.array([(0, 0, 0), (1, 1, 0), (1, 0, 1), (0, 1, 1)])
    return _resolvable_square(n, classes) if n % 3 == 1 else _prolonged_square(n, classes)


def _resolvable_square(n: int, classes: int) -> Numbers:
    """For n = 3m + 1, m odd: the pair of orthogonal squares of Bose, Shrikhande and Parker (1960).

    The second square gives the classes of the first. Numbers below 2m + 1 are residues, the m others stand for
    points at infinity.
    """
    m = (n - 1) // 3
    v = 2 * m + 1
    up, zero, infinite = np.arange(1, m + 1), np.zeros(m, dtype=np.int64), np.arange(v, n)
    rows = (zero, up, v - up, infinite)
    start = np.hstack(
        [np.array([rows[i] for i in p]) for p in ((0, 1, 2, 3), (1, 0, 3, 2), (2, 3, 0, 1), (3, 2, 1, 0))]
    )
    moved = (np.where(start < v, (start + shift) % v, start) for shift in range(v))
    a, b = (axis.ravel() for axis in np.indices((m, m)))
    corner = np.array([a, b, (a + b) % m, (a + 2 * b) % m]) + v
    parts = itertools.chain(moved, (np.tile(np.arange(v), (4, 1)), corner))
    cells = np.hstack([part[:, part[3] < classes] for part in parts])
    return cells[:3, np.argsort(cells[3], kind="stable")].T


def _prolonged_square(n: int, classes: int) -> Numbers:
    """For other n > 2: the cyclic square of order m = n - 1 with its main diagonal moved to infinity, m.

    The first class is even, and so are all classes in rows and columns; each of the others has two symbols twice and
    misses two, at places that nearly cancel between classes, so symbol counts stay within two of each other when the
    rarest symbols of a class come first. Needs m prime to 6.
    """
    m = n - 1
    i = np.arange(m)
    done = [np.vstack([np.column_stack([i, (i + 1) % m, (2 * i + 1) % m]), [[m, m, m]]])]
    c = np.arange(2, m)
    base = np.vstack([np.column_stack([c, 2 * c % m, 3 * c % m]), [[0, 0, m], [1, m, 2], [m, 2, 4 % m]]])
    counts = np.ones(n, dtype=np.int64)
    for step in range(min(m, classes - 1)):
        half = step * (m + 1) // 2
        cells = np.where(base < m, (base + np.array([half, half, step])) % m, m)
        wanted = counts[cells[:, 2]]
        done.append(cells[np.argsort(wanted, kind="stable")])
        counts += np.bincount(cells[:, 2], minlength=n)
    return np.vstack(done)
