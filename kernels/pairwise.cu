// Distances between all rows of x (B, N, D) and y (B, M, D), and the gradient of the L1 ones.
//
//     D_ij = sum_d (x_id - y_jd)^2  or  sum_d w_d |x_id - y_jd|
//     gx_id = sum_j g_ij sign(x_id - y_jd)                  of the latter, but for the weight
//
// As in a matrix product, a block of 16 x 16 threads computes a tile of 64 x 64 results, each thread
// 4 x 4 of them, 16 apart; its operands pass through shared memory CHUNK at a time. Blocks lie along
// gridDim.x alone, which has no small limit.

constexpr int SIDE = 16, EACH = 4, TILE = SIDE * EACH, CHUNK = 16, THREADS = SIDE * SIDE;

struct Square {
    template <class T> static __device__ T term(T t, T w) { return t * t; }
};

struct Absolute {
    template <class T> static __device__ T term(T t, T w) { return t < T(0) ? -w * t : w * t; }
};

template <class T>
__device__ T with_sign(T g, T t) { return t > T(0) ? g : t < T(0) ? -g : t; }  // of NaN NaN

__device__ long long tiles_of(long long size) { return (size + TILE - 1) / TILE; }

// x (B, N, D), y (B, M, D), w (B, D) -> out (B, N, M)
template <class Metric, class T>
__device__ void distances(const T* x, const T* y, const T* w, T* out, long long N, long long M, long long D) {
    __shared__ T xs[CHUNK][TILE + 1], ys[CHUNK][TILE + 1], ws[CHUNK];
    const long long columns = tiles_of(M), tiles = columns * tiles_of(N);
    const long long batch = blockIdx.x / tiles, tile = blockIdx.x % tiles;
    const long long i0 = tile / columns * TILE, j0 = tile % columns * TILE;
    x += batch * N * D, y += batch * M * D, w += batch * D, out += batch * N * M;
    const int thread = threadIdx.y * SIDE + threadIdx.x;

    T sum[EACH][EACH] = {};
    for (long long d0 = 0; d0 < D; d0 += CHUNK) {
        // neighbouring threads load neighbouring features; past an end, zeros add nothing
        for (int k = thread; k < TILE * CHUNK; k += THREADS) {
            const int row = k / CHUNK, c = k % CHUNK;
            const bool inside = d0 + c < D;
            xs[c][row] = inside && i0 + row < N ? x[(i0 + row) * D + d0 + c] : T(0);
            ys[c][row] = inside && j0 + row < M ? y[(j0 + row) * D + d0 + c] : T(0);
        }
        if (thread < CHUNK) ws[thread] = d0 + thread < D ? w[d0 + thread] : T(0);
        __syncthreads();
        for (int c = 0; c < CHUNK; c++)
            for (int i = 0; i < EACH; i++)
                for (int j = 0; j < EACH; j++)
                    sum[i][j] += Metric::term(xs[c][threadIdx.y + SIDE * i] - ys[c][threadIdx.x + SIDE * j], ws[c]);
        __syncthreads();
    }
    for (int i = 0; i < EACH; i++)
        for (int j = 0; j < EACH; j++) {
            const long long row = i0 + threadIdx.y + SIDE * i, column = j0 + threadIdx.x + SIDE * j;
            if (row < N && column < M) out[row * M + column] = sum[i][j];
        }
}

// g_ij at g[B N M + i * g_row + j * g_column], x (B, N, D), y (B, M, D) -> gx (B, N, D)
template <class T>
__global__ void __launch_bounds__(THREADS)
cityblock_backward(const T* g, const T* x, const T* y, T* gx, long long N, long long M, long long D, long long g_row,
                   long long g_column) {
    __shared__ T gs[CHUNK][TILE + 1], ys[CHUNK][TILE];
    const long long columns = tiles_of(D), tiles = columns * tiles_of(N);
    const long long batch = blockIdx.x / tiles, tile = blockIdx.x % tiles;
    const long long i0 = tile / columns * TILE, d0 = tile % columns * TILE;
    g += batch * N * M, x += batch * N * D, y += batch * M * D, gx += batch * N * D;
    const int thread = threadIdx.y * SIDE + threadIdx.x;

    T own[EACH][EACH], sum[EACH][EACH] = {};
    for (int i = 0; i < EACH; i++)
        for (int d = 0; d < EACH; d++) {
            const long long row = i0 + threadIdx.y + SIDE * i, feature = d0 + threadIdx.x + SIDE * d;
            own[i][d] = row < N && feature < D ? x[row * D + feature] : T(0);
        }
    for (long long j0 = 0; j0 < M; j0 += CHUNK) {
        for (int k = thread; k < TILE * CHUNK; k += THREADS) {
            // neighbouring threads load neighbouring numbers, whichever way g lies in memory
            const int row = g_column == 1 ? k / CHUNK : k % TILE, c = g_column == 1 ? k % CHUNK : k / TILE;
            gs[c][row] = i0 + row < N && j0 + c < M ? g[(i0 + row) * g_row + (j0 + c) * g_column] : T(0);
            const int feature = k % TILE, r = k / TILE;
            ys[r][feature] = j0 + r < M && d0 + feature < D ? y[(j0 + r) * D + d0 + feature] : T(0);
        }
        __syncthreads();
        for (int c = 0; c < CHUNK; c++)
            for (int i = 0; i < EACH; i++)
                for (int d = 0; d < EACH; d++)
                    sum[i][d] += with_sign(gs[c][threadIdx.y + SIDE * i], own[i][d] - ys[c][threadIdx.x + SIDE * d]);
        __syncthreads();
    }
    for (int i = 0; i < EACH; i++)
        for (int d = 0; d < EACH; d++) {
            const long long row = i0 + threadIdx.y + SIDE * i, feature = d0 + threadIdx.x + SIDE * d;
            if (row < N && feature < D) gx[row * D + feature] = sum[i][d];
        }
}

template <class T>
__global__ void __launch_bounds__(THREADS)
sqeuclidean(const T* x, const T* y, const T* w, T* out, long long N, long long M, long long D) {
    distances<Square>(x, y, w, out, N, M, D);
}

template <class T>
__global__ void __launch_bounds__(THREADS)
cityblock(const T* x, const T* y, const T* w, T* out, long long N, long long M, long long D) {
    distances<Absolute>(x, y, w, out, N, M, D);
}
