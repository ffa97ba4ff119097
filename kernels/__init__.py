"""Kernels: arrays in, arrays out. Accelerated forward and backward passes, never the definition.

Every file shows one kernel in the same order: the formula, the Numba version for NumPy arrays, the
CUDA launcher for CuPy arrays; the CUDA source lies beside it in a ``.cu`` file under the same names.
The readable definitions are the library's plain ops, and nothing here knows of differentiation.

    pairwise     squared Euclidean, L1 and cosine distances between all rows of two arrays
    attention    softmax(scale · score(query, keys)) values, without its Q x N matrix
    lstm         the LSTM cell, its backward and the backward of its backward
    unit         rows of length one, which cosines are made of
    elementary   exp, sigmoid and tanh that the compiler can vectorise
    runtime      threads, dense arrays, CUDA modules: what the kernels have in common

Importing a kernel module imports Numba, so the library imports them when they are first used.
"""
