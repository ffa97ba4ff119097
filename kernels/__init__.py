"""Kernels: arrays in, arrays out. Accelerated forward and backward passes, never the definition.

Every file shows one kernel in the same order: the formula, the Numba version for NumPy arrays, the
CUDA launcher for CuPy arrays. The CUDA source lies beside it, in a ``.cu`` file under the same
names. The readable definitions are the library's plain ops; nothing here knows of differentiation.

    pairwise     squared Euclidean, L1 and cosine distances between all rows of two arrays
    attention    softmax(scale · score(query, keys)) values, without its Q x N matrix
    lstm         the LSTM cell, its backward and the backward of its backward
    conv         convolution of channels-last images and its adjoints
    norm_pool    batch-norm, ReLU and max-pooling in one pass
    unit         rows of length one, which cosines are made of
    elementary   exp, sigmoid and tanh that the compiler can vectorise
    product      matrix products inside other kernels
    compiling    with which options, kept on disk, and said when it takes long
    threads      the tasks of a kernel shared among threads
    runtime      dense arrays, CUDA modules

Importing a kernel module imports Numba, so the library imports them when they are first used.
"""
