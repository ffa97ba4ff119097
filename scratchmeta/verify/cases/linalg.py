"""Rows of products."""

from scratchmeta import ops
from scratchmeta.ops.linalg import project, times_transposed, transposed_times
from scratchmeta.verify.cases.rows import row
from scratchmeta.verify.examples import call
from scratchmeta.verify.numbers import invertible, normal


@row("operation", analytic=True)
def matmul(rng):
    yield call(ops.matmul, normal(rng, 3, 4), normal(rng, 4, 2))
    yield call(ops.matmul, normal(rng, 2, 3, 4), normal(rng, 4, 2))
    yield call(ops.matmul, normal(rng, 3, 4), normal(rng, 2, 4, 2))
    yield call(ops.matmul, normal(rng, 2, 1, 3, 4), normal(rng, 3, 4, 2))
    yield call(ops.matmul, normal(rng, 2, 3, 1), normal(rng, 1, 2))
    yield call(ops.matmul, normal(rng, 4), normal(rng, 4))
    yield call(ops.matmul, normal(rng, 2, 3, 4), normal(rng, 4))
    yield call(ops.matmul, normal(rng, 4), normal(rng, 2, 4, 3))


@row("operation", "times_transposed", analytic=True)
def times_transposed_(rng):
    yield call(times_transposed, normal(rng, 3, 4), normal(rng, 2, 4))
    yield call(times_transposed, normal(rng, 2, 3, 4), normal(rng, 2, 4))
    yield call(times_transposed, normal(rng, 2, 1, 3, 4), normal(rng, 3, 2, 4))
    yield call(times_transposed, normal(rng, 2, 3, 1), normal(rng, 2, 1))


@row("operation", "transposed_times", analytic=True)
def transposed_times_(rng):
    yield call(transposed_times, normal(rng, 4, 3), normal(rng, 4, 2))
    yield call(transposed_times, normal(rng, 2, 4, 3), normal(rng, 4, 2))
    yield call(transposed_times, normal(rng, 4, 3), normal(rng, 2, 4, 2))
    yield call(transposed_times, normal(rng, 2, 1, 3), normal(rng, 1, 2))


@row("operation", "project", analytic=True)
def project_(rng):
    yield call(project, normal(rng, 2, 3, 4), normal(rng, 4, 2))
    yield call(project, normal(rng, 2, 3, 4), normal(rng, 2, 4, 2))
    yield call(project, normal(rng, 2, 4), normal(rng, 2, 4, 2))
    yield call(project, normal(rng, 2, 3, 2, 4), normal(rng, 2, 4, 2))


@row("operation", analytic=True)
def affine(rng):
    yield call(project, normal(rng, 4), normal(rng, 4, 2), normal(rng, 2))
    yield call(project, normal(rng, 3, 4), normal(rng, 4, 2), normal(rng, 2))
    yield call(project, normal(rng, 2, 3, 4), normal(rng, 4, 2), normal(rng, 2))
    yield call(project, normal(rng, 2, 3, 4), normal(rng, 2, 4, 2), normal(rng, 2, 2))
    yield call(project, normal(rng, 1, 3, 4), normal(rng, 2, 4, 2), normal(rng, 2, 2))
    yield call(project, normal(rng, 2, 3, 2, 4), normal(rng, 2, 4, 2), normal(rng, 2, 2))


@row("operation", analytic=True)
def einsum(rng):
    yield call(ops.einsum, "nd,md->nm", normal(rng, 2, 3), normal(rng, 4, 3))
    yield call(ops.einsum, "...nd,...df->...fn", normal(rng, 2, 1, 3, 2), normal(rng, 3, 2, 4))
    yield call(ops.einsum, "ij,jk,k->i", normal(rng, 2, 3), normal(rng, 3, 4), normal(rng, 4))
    yield call(ops.einsum, "ijk->j", normal(rng, 2, 3, 2))
    yield call(ops.einsum, "ij,ij->ij", normal(rng, 2, 1), normal(rng, 2, 3))
    yield call(ops.einsum, "ij,ij->i", normal(rng, 2, 3), normal(rng, 2, 1))
    yield call(ops.einsum, "...i,...i->i", normal(rng, 3, 2), normal(rng, 1, 2))
    yield call(ops.einsum, "nd,md->nm", normal(rng, 0, 3), normal(rng, 2, 3))


@row("operation", analytic=True)
def solve(rng):
    yield call(ops.solve, invertible(rng, n=3), normal(rng, 3, 2), order=3)
    yield call(ops.solve, invertible(rng, 2, n=2), normal(rng, 2, 2, 3))
    yield call(ops.solve, invertible(rng, n=2), normal(rng, 2, 2, 1))
    yield call(ops.solve, invertible(rng, 2, n=2), normal(rng, 2, 1), order=3)
    yield call(ops.solve, invertible(rng, 2, 1, n=2), normal(rng, 3, 2, 1))
    yield call(ops.solve, invertible(rng, 2, n=3), normal(rng, 3))
