"""Matrix products inside Numba kernels, at the speed of the best libraries, for operands in cache,
and what has the shape of one: a sum over k of some term in a_ik and b_kj.

    product(a, b, c)            c = a b
    add_product(a, b, c)        c += a b
    squares(a, b, w, c)         c_ij = Σ_k (a_ik − b_kj)²
    differences(a, b, w, c)     c_ij = Σ_k w_k |a_ik − b_kj|

a (R, K) may have any strides; b (K, W) and c (R, W) have contiguous rows, w (K,) is contiguous. R
must be at least ROWS and W at least `lanes(dtype)`; for `add_product` they must be multiples of
these. Nothing is checked.

A kernel that calls these on tiles of its own can use a tile while it is in the cache, and needs no
BLAS, whose threads would have to take turns with the kernel's.

Numba has no vectors, and its loops keep no vector of partial sums in registers. So the innermost
step is written in LLVM's intermediate language: 4 rows of 3 vectors of c stay in 12 registers while
k runs, and for each k

    y0, y1, y2 = three vectors of b[k];  in each of the 4 rows:  c0, c1, c2 += a[row, k] y0, y1, y2

which is 12 multiply-adds for 7 loads: the arithmetic, not the loads, sets the pace. Processors with
AVX-512 have 32 registers of twice the length: there it is 4 rows of 4 vectors, and the rest of a
row in shorter ones. Rows and columns left over at the end are computed with those before them once
more.
"""

import functools

import llvmlite.binding
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, register_jitable

ROWS = 4
_VECTOR_BYTES = 32
_WIDE_BYTES = 64
WIDE = bool(llvmlite.binding.get_host_cpu_features().get("avx512f"))  # Numba compiles for the host
_CONTRACT = ("contract",)  # a multiplication and an addition may become one instruction


def lanes(dtype) -> int:
    """Numbers of this dtype in a vector."""
    return _VECTOR_BYTES // dtype.itemsize


# Terms: instructions for total + term, with a_ik as a vector x, b_kj as y, w_k as the vector w().


def _times(builder, total, x, y, w):
    term = builder.fmul(x, y, flags=_CONTRACT)
    return builder.fadd(total, term, flags=_CONTRACT)


def _square(builder, total, x, y, w):
    difference = builder.fsub(x, y)
    return _times(builder, total, difference, difference, w)


def _difference(builder, total, x, y, w):
    difference, kind = builder.fsub(x, y), x.type
    negative = builder.fcmp_ordered("<", difference, ir.Constant(kind, None))
    absolute = builder.select(negative, builder.fneg(difference), difference)
    return _times(builder, total, w(), absolute, w)


def _tile(term, vectors: int, vector_bytes: int, adding: bool):
    """c[i : i + ROWS, j : j + vectors] (+)= Σ_k term, with partial sums in registers."""

    def generate(context, builder, signature, args):
        a, b, w, c = (
            context.make_array(kind)(context, builder, value)
            for kind, value in zip(signature.args[:4], args[:4], strict=True)
        )
        i, j = args[4:]
        real = context.get_value_type(signature.args[0].dtype)
        itemsize = context.get_abi_sizeof(real)
        vector = ir.VectorType(real, vector_bytes // itemsize)
        a_steps, b_steps, c_steps = (cgutils.unpack_tuple(builder, x.strides) for x in (a, b, c))
        depth = cgutils.unpack_tuple(builder, a.shape)[1]

        def number(value):
            return ir.Constant(i.type, value)

        def pointer(array, offset, kind):
            address = builder.add(builder.ptrtoint(array.data, i.type), offset)
            return builder.inttoptr(address, kind.as_pointer())

        def load(array, offset, kind):
            return builder.load(pointer(array, offset, kind), align=itemsize)

        def everywhere(array, offset):
            x = load(array, offset, real)
            x = builder.insert_element(ir.Constant(vector, ir.Undefined), x, number(0))
            zeros = ir.Constant(ir.VectorType(ir.IntType(32), vector.count), None)
            return builder.shuffle_vector(x, x, zeros)

        row_offsets = [builder.mul(builder.add(i, number(r)), a_steps[0]) for r in range(ROWS)]
        columns = [
            builder.add(builder.mul(j, number(itemsize)), number(v * vector_bytes))
            for v in range(vectors)
        ]
        results = [
            builder.add(builder.mul(builder.add(i, number(r)), c_steps[0]), column)
            for r in range(ROWS)
            for column in columns
        ]
        # LLVM turns these variables into registers
        sums = [cgutils.alloca_once(builder, vector) for _ in results]
        for total, offset in zip(sums, results, strict=True):
            start = load(c, offset, vector) if adding else ir.Constant(vector, None)
            builder.store(start, total)

        with cgutils.for_range(builder, depth, intp=i.type) as loop:
            b_row = builder.mul(loop.index, b_steps[0])
            ys = [load(b, builder.add(b_row, column), vector) for column in columns]
            factor = functools.cache(
                lambda: everywhere(w, builder.mul(loop.index, number(itemsize)))
            )
            for r in range(ROWS):
                offset = builder.add(row_offsets[r], builder.mul(loop.index, a_steps[1]))
                x = everywhere(a, offset)
                for y, total in zip(ys, sums[r * vectors :], strict=False):
                    builder.store(term(builder, builder.load(total), x, y, factor), total)

        for total, offset in zip(sums, results, strict=True):
            builder.store(builder.load(total), pointer(c, offset, vector), align=itemsize)
        return context.get_dummy_value()

    @intrinsic
    def tile(typing_context, a, b, w, c, i, j):
        return types.void(a, b, w, c, types.intp, types.intp), generate

    return tile


def _combine(term, adding: bool = False):
    """The sum of terms made of the largest tiles, and smaller ones at the right edge."""
    tile3, tile2, tile1 = (_tile(term, vectors, _VECTOR_BYTES, adding) for vectors in (3, 2, 1))
    wide4, wide2 = (_tile(term, vectors, _WIDE_BYTES, adding) for vectors in (4, 2))

    @register_jitable
    def combine(a, b, w, c):
        vector = _VECTOR_BYTES // a.itemsize
        j = 0
        while j < b.shape[1]:
            j = min(j, b.shape[1] - vector)
            vectors = (b.shape[1] - j) // vector
            vectors = min(3, vectors) if not WIDE or vectors < 4 else 8 if vectors >= 8 else 4
            # the same columns of b for all rows, while they are in the first-level cache
            for row in range(0, a.shape[0], ROWS):
                i = min(row, a.shape[0] - ROWS)
                if vectors == 8:
                    wide4(a, b, w, c, i, j)
                elif vectors == 4:
                    wide2(a, b, w, c, i, j)
                elif vectors == 3:
                    tile3(a, b, w, c, i, j)
                elif vectors == 2:
                    tile2(a, b, w, c, i, j)
                else:
                    tile1(a, b, w, c, i, j)
            j += vectors * vector

    return combine


_product, _add_product = _combine(_times), _combine(_times, adding=True)
squares, differences = _combine(_square), _combine(_difference)


@register_jitable
def product(a, b, c):
    """c = a b."""
    _product(a, b, b, c)


@register_jitable
def add_product(a, b, c):
    """c += a b."""
    _add_product(a, b, b, c)
