// Distances between all rows of x (B, N, D) and y (B, M, D), and the gradient of the L1 ones.
//
//     D_ij = sum_d (x_id - y_jd)^2,  sum_d |x_id - y_jd|  or  sum_d w_d |x_id - y_jd|
//     gx_id = sum_j g_ij sign(x_id - y_jd)                  of the latter, but for the weight
//
// As in a matrix product, a block of 16 x 16 threads computes a tile of 64 x 64 results, each thread
// 4 x 4 of them, side by side; its operands pass through shared memory CHUNK at a time, in rows that begin
// at multiples of 16 bytes, so that a thread's four numbers are one access. Blocks lie along gridDim.x
// alone, which has no small limit.

constexpr int SIDE = 16, EACH = 4, TILE = SIDE * EACH, CHUNK = 16, THREADS = SIDE * SIDE;
template <class T> constexpr int WIDE = TILE + 16 / sizeof(T);

// term(t, w); a metric that is not WEIGHTED is given no weights
struct Square {
    static constexpr bool WEIGHTED = false;
    template <class T> static __device__ T term(T t, T) { return t * t; }
};

struct Absolute {
    static constexpr bool WEIGHTED = false;
    template <class T> static __device__ T term(T t, T) { return fabs(t); }
};

struct Weighted {
    static constexpr bool WEIGHTED = true;
    template <class T> static __device__ T term(T t, T w) { return w * fabs(t); }
};

template <class T>
__device__ T with_sign(T g, T t) { return t > T(0) ? g : t < T(0) ? -g : t; }  // of NaN NaN

__device__ long long tiles_of(long long size) { return (size + TILE - 1) / TILE; }

// x (B, N, D), y (B, M, D), w (B, D) or null -> out (B, N, M)
template <class Metric, class T>
__device__ void distances(const T* x, const T* y, const T* w, T* out, long long N, long long M, long long D) {
    alignas(16) __shared__ T xs[CHUNK][WIDE<T>], ys[CHUNK][WIDE<T>];
    __shared__ T ws[CHUNK];
    const long long columns = tiles_of(M), tiles = columns * tiles_of(N);
    const long long batch = blockIdx.x / tiles, tile = blockIdx.x % tiles;
    const long long i0 = tile / columns * TILE, j0 = tile % columns * TILE;
    x += batch * N * D, y += batch * M * D, out += batch * N * M;
    if (Metric::WEIGHTED) w += batch * D;
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
        if (Metric::WEIGHTED && thread < CHUNK) ws[thread] = d0 + thread < D ? w[d0 + thread] : T(0);
        __syncthreads();
        for (int c = 0; c < CHUNK; c++)
            for (int i = 0; i < EACH; i++)
                for (int j = 0; j < EACH; j++)
                    sum[i][j] += Metric::term(xs[c][EACH * threadIdx.y + i] - ys[c][EACH * threadIdx.x + j],
                                              Metric::WEIGHTED ? ws[c] : T(1));
        __syncthreads();
    }
    for (int i = 0; i < EACH; i++)
        for (int j = 0; j < EACH; j++) {
            const long long row = i0 + EACH * threadIdx.y + i, column = j0 + EACH * threadIdx.x + j;
            if (row < N && column < M) out[row * M + column] = sum[i][j];
        }
}

// g_ij at g[B N M + i * g_row + j * g_column], x (B, N, D), y (B, M, D) -> gx (B, parts, N, D): y's rows are
// cut into parts, which the host adds up, where there are few blocks otherwise
template <class T>
__global__ void __launch_bounds__(THREADS)
cityblock_backward(const T* g, const T* x, const T* y, T* gx, long long N, long long M, long long D, long long g_row,
                   long long g_column, long long parts) {
    alignas(16) __shared__ T gs[CHUNK][WIDE<T>], ys[CHUNK][WIDE<T>];
    const long long columns = tiles_of(D), tiles = columns * tiles_of(N), rest = blockIdx.x / tiles;
    const long long batch = rest / parts, part = rest % parts, tile = blockIdx.x % tiles;
    const long long i0 = tile / columns * TILE, d0 = tile % columns * TILE;
    const long long first = tiles_of(M) * part / parts * TILE, end = tiles_of(M) * (part + 1) / parts * TILE;
    const long long last = end < M ? end : M;
    g += batch * N * M, x += batch * N * D, y += batch * M * D, gx += rest * N * D;
    const int thread = threadIdx.y * SIDE + threadIdx.x;

    T own[EACH][EACH], sum[EACH][EACH] = {};
    for (int i = 0; i < EACH; i++)
        for (int d = 0; d < EACH; d++) {
            const long long row = i0 + EACH * threadIdx.y + i, feature = d0 + EACH * threadIdx.x + d;
            own[i][d] = row < N && feature < D ? x[row * D + feature] : T(0);
        }
    for (long long j0 = first; j0 < last; j0 += CHUNK) {
        for (int k = thread; k < TILE * CHUNK; k += THREADS) {
            // neighbouring threads load neighbouring numbers, whichever way g lies in memory
            const int row = g_column == 1 ? k / CHUNK : k % TILE, c = g_column == 1 ? k % CHUNK : k / TILE;
            gs[c][row] = i0 + row < N && j0 + c < last ? g[(i0 + row) * g_row + (j0 + c) * g_column] : T(0);
            const int feature = k % TILE, r = k / TILE;
            ys[r][feature] = j0 + r < last && d0 + feature < D ? y[(j0 + r) * D + d0 + feature] : T(0);
        }
        __syncthreads();
        for (int c = 0; c < CHUNK; c++)
            for (int i = 0; i < EACH; i++)
                for (int d = 0; d < EACH; d++)
                    sum[i][d] += with_sign(gs[c][EACH * threadIdx.y + i], own[i][d] - ys[c][EACH * threadIdx.x + d]);
        __syncthreads();
    }
    for (int i = 0; i < EACH; i++)
        for (int d = 0; d < EACH; d++) {
            const long long row = i0 + EACH * threadIdx.y + i, feature = d0 + EACH * threadIdx.x + d;
            if (row < N && feature < D) gx[row * D + feature] = sum[i][d];
        }
}

template <class T>
__global__ void __launch_bounds__(THREADS, 2)
sqeuclidean(const T* x, const T* y, T* out, long long N, long long M, long long D) {
    distances<Square, T>(x, y, nullptr, out, N, M, D);
}

template <class T>
__global__ void __launch_bounds__(THREADS, 2)
cityblock(const T* x, const T* y, T* out, long long N, long long M, long long D) {
    distances<Absolute, T>(x, y, nullptr, out, N, M, D);
}

template <class T>
__global__ void __launch_bounds__(THREADS, 2)
weighted_cityblock(const T* x, const T* y, const T* w, T* out, long long N, long long M, long long D) {
    distances<Weighted>(x, y, w, out, N, M, D);
}
