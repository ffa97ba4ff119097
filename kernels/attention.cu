// Attention without its Q x N matrix: out_i = sum_j p_ij v_j,  p_ij = exp(s_ij - l_i),  s_ij = q_i . k_j,
// l_i = log sum_j exp s_ij, and its gradients from recomputed scores:
//
//     u_ij = p_ij (g_i . v_j - delta_i)     gq_i = sum_j u_ij k_j    gk_j = sum_i u_ij q_i    gv_j = sum_i p_ij g_i
//
// All arrays are (B, rows, columns). A block of 16 x 16 threads owns 64 rows and 64 columns of a result
// and passes over the other operand 64 rows at a time. Each thread holds 4 x 4 numbers, 16 apart, of every
// 64 x 64 tile. With more than 64 columns, several blocks compute the same scores.

constexpr int SIDE = 16, EACH = 4, TILE = SIDE * EACH, THREADS = SIDE * SIDE;

// blocks that a multiprocessor is to have registers for at the same time: as many as spill none
template <class T> constexpr int BLOCKS = sizeof(T) == 4 ? 2 : 1;

// the part of two operands that is in shared memory at a time: as much as 48 KB allow beside a tile
template <class T> struct Shared {
    static constexpr int CHUNK = 64 / sizeof(T);
    T a[CHUNK][TILE + 1], b[CHUNK][TILE + 1], tile[TILE][TILE + 1];
};

__device__ int thread_in_block() { return threadIdx.y * SIDE + threadIdx.x; }
__device__ long long tiles_of(long long size) { return (size + TILE - 1) / TILE; }

// s[i][j] += a_row . b_column for rows a0 + ... of a (A, D) and b0 + ... of b (B, D)
template <class T>
__device__ void add_dots(Shared<T>& shared, const T* a, long long a0, long long A, const T* b, long long b0, long long B,
                         long long D, T (&s)[EACH][EACH]) {
    constexpr int CHUNK = Shared<T>::CHUNK;
    for (long long d0 = 0; d0 < D; d0 += CHUNK) {
        for (int n = thread_in_block(); n < TILE * CHUNK; n += THREADS) {
            const int row = n / CHUNK, d = n % CHUNK;
            shared.a[d][row] = a0 + row < A && d0 + d < D ? a[(a0 + row) * D + d0 + d] : T(0);
            shared.b[d][row] = b0 + row < B && d0 + d < D ? b[(b0 + row) * D + d0 + d] : T(0);
        }
        __syncthreads();
        for (int d = 0; d < CHUNK; d++)
            for (int i = 0; i < EACH; i++)
                for (int j = 0; j < EACH; j++)
                    s[i][j] += shared.a[d][threadIdx.y + SIDE * i] * shared.b[d][threadIdx.x + SIDE * j];
        __syncthreads();
    }
}

// o[i][d] += sum_j tile[i][j] b[b0 + j][d0 + d] for the rows b0 + ... of b (B, D)
template <class T>
__device__ void add_weighted(Shared<T>& shared, const T* b, long long b0, long long B, long long d0, long long D,
                             T (&o)[EACH][EACH]) {
    constexpr int CHUNK = Shared<T>::CHUNK;
    for (int j0 = 0; j0 < TILE; j0 += CHUNK) {
        for (int n = thread_in_block(); n < CHUNK * TILE; n += THREADS) {
            const int j = n / TILE, d = n % TILE;
            shared.b[j][d] = b0 + j0 + j < B && d0 + d < D ? b[(b0 + j0 + j) * D + d0 + d] : T(0);
        }
        __syncthreads();
        for (int j = 0; j < CHUNK; j++)
            for (int i = 0; i < EACH; i++)
                for (int d = 0; d < EACH; d++)
                    o[i][d] += shared.tile[threadIdx.y + SIDE * i][j0 + j] * shared.b[j][threadIdx.x + SIDE * d];
        __syncthreads();
    }
}

// the thread's numbers to x (A, D), those inside
template <class T>
__device__ void store(const T (&o)[EACH][EACH], T* x, long long a0, long long A, long long d0, long long D) {
    for (int i = 0; i < EACH; i++)
        for (int d = 0; d < EACH; d++) {
            const long long row = a0 + threadIdx.y + SIDE * i, column = d0 + threadIdx.x + SIDE * d;
            if (row < A && column < D) x[row * D + column] = o[i][d];
        }
}

// q (B, Q, D), k (B, N, D), v (B, N, V) -> out (B, Q, V), lse (B, Q)
template <class T>
__global__ void __launch_bounds__(THREADS, BLOCKS<T>)
attention(const T* q, const T* k, const T* v, T* out, T* lse, long long Q, long long N, long long D, long long V) {
    __shared__ Shared<T> shared;
    const long long columns = V ? tiles_of(V) : 1, tiles = columns * tiles_of(Q);
    const long long batch = blockIdx.x / tiles, tile = blockIdx.x % tiles;
    const long long i0 = tile / columns * TILE, d0 = tile % columns * TILE;
    q += batch * Q * D, k += batch * N * D, v += batch * N * V, out += batch * Q * V, lse += batch * Q;

    // the 16 threads of a row hold the same m and z
    T o[EACH][EACH] = {}, m[EACH], z[EACH] = {};
    for (int i = 0; i < EACH; i++) m[i] = log(T(0));  // minus infinity: NVRTC has no INFINITY
    for (long long j0 = 0; j0 < N; j0 += TILE) {
        T s[EACH][EACH] = {};
        add_dots(shared, q, i0, Q, k, j0, N, D, s);
        for (int i = 0; i < EACH; i++) {
            T top = m[i], total = 0;
            for (int j = 0; j < EACH; j++)
                if (j0 + threadIdx.x + SIDE * j < N && s[i][j] > top) top = s[i][j];
            for (int lanes = SIDE / 2; lanes > 0; lanes /= 2) {
                const T other = __shfl_xor_sync(0xffffffffu, top, lanes);
                top = other > top ? other : top;
            }
            for (int j = 0; j < EACH; j++) {
                const T p = j0 + threadIdx.x + SIDE * j < N ? exp(s[i][j] - top) : T(0);
                shared.tile[threadIdx.y + SIDE * i][threadIdx.x + SIDE * j] = p;
                total += p;
            }
            for (int lanes = SIDE / 2; lanes > 0; lanes /= 2) total += __shfl_xor_sync(0xffffffffu, total, lanes);
            const T shrink = exp(m[i] - top);
            for (int d = 0; d < EACH; d++) o[i][d] *= shrink;
            z[i] = z[i] * shrink + total;
            m[i] = top;
        }
        add_weighted(shared, v, j0, N, d0, V, o);
    }
    for (int i = 0; i < EACH; i++) {
        for (int d = 0; d < EACH; d++) o[i][d] = N ? o[i][d] / z[i] : T(0);
        const long long row = i0 + threadIdx.y + SIDE * i;
        if (d0 == 0 && threadIdx.x == 0 && row < Q) lse[row] = m[i] + log(z[i]);
    }
    store(o, out, i0, Q, d0, V);
}

// g (B, Q, V), delta and lse (B, Q) -> gq (B, Q, D)
template <class T>
__global__ void __launch_bounds__(THREADS, BLOCKS<T>)
attention_backward_queries(const T* g, const T* q, const T* k, const T* v, const T* delta, const T* lse, T* gq,
                           long long Q, long long N, long long D, long long V) {
    __shared__ Shared<T> shared;
    const long long columns = tiles_of(D), tiles = columns * tiles_of(Q);
    const long long batch = blockIdx.x / tiles, tile = blockIdx.x % tiles;
    const long long i0 = tile / columns * TILE, d0 = tile % columns * TILE;
    g += batch * Q * V, q += batch * Q * D, k += batch * N * D, v += batch * N * V, gq += batch * Q * D;
    delta += batch * Q, lse += batch * Q;

    T o[EACH][EACH] = {};
    for (long long j0 = 0; j0 < N; j0 += TILE) {
        T s[EACH][EACH] = {}, gp[EACH][EACH] = {};
        add_dots(shared, q, i0, Q, k, j0, N, D, s);
        add_dots(shared, g, i0, Q, v, j0, N, V, gp);
        for (int i = 0; i < EACH; i++)
            for (int j = 0; j < EACH; j++) {
                const long long row = i0 + threadIdx.y + SIDE * i;
                const bool inside = row < Q && j0 + threadIdx.x + SIDE * j < N;
                shared.tile[threadIdx.y + SIDE * i][threadIdx.x + SIDE * j] =
                    inside ? exp(s[i][j] - lse[row]) * (gp[i][j] - delta[row]) : T(0);
            }
        add_weighted(shared, k, j0, N, d0, D, o);
    }
    store(o, gq, i0, Q, d0, D);
}

// -> gk (B, N, D), gv (B, N, V); tiles are transposed, keys x queries
template <class T>
__global__ void __launch_bounds__(THREADS)
attention_backward_keys(const T* g, const T* q, const T* k, const T* v, const T* delta, const T* lse, T* gk, T* gv,
                        long long Q, long long N, long long D, long long V) {
    __shared__ Shared<T> shared;
    const long long columns = tiles_of(D > V ? D : V), tiles = columns * tiles_of(N);
    const long long batch = blockIdx.x / tiles, tile = blockIdx.x % tiles;
    const long long j0 = tile / columns * TILE, d0 = tile % columns * TILE;
    g += batch * Q * V, q += batch * Q * D, k += batch * N * D, v += batch * N * V;
    delta += batch * Q, lse += batch * Q, gk += batch * N * D, gv += batch * N * V;

    T ok[EACH][EACH] = {}, ov[EACH][EACH] = {};
    for (long long i0 = 0; i0 < Q; i0 += TILE) {
        T s[EACH][EACH] = {}, gp[EACH][EACH] = {};
        add_dots(shared, k, j0, N, q, i0, Q, D, s);
        add_dots(shared, v, j0, N, g, i0, Q, V, gp);
        for (int j = 0; j < EACH; j++)
            for (int i = 0; i < EACH; i++) {
                const long long row = i0 + threadIdx.x + SIDE * i;
                const bool inside = row < Q && j0 + threadIdx.y + SIDE * j < N;
                const T p = inside ? exp(s[j][i] - lse[row]) : T(0);
                shared.tile[threadIdx.y + SIDE * j][threadIdx.x + SIDE * i] = p;
                s[j][i] = inside ? p * (gp[j][i] - delta[row]) : T(0);
            }
        add_weighted(shared, g, i0, Q, d0, V, ov);
        for (int j = 0; j < EACH; j++)
            for (int i = 0; i < EACH; i++)
                shared.tile[threadIdx.y + SIDE * j][threadIdx.x + SIDE * i] = s[j][i];
        add_weighted(shared, q, i0, Q, d0, D, ok);
    }
    store(ok, gk, j0, N, d0, D);
    store(ov, gv, j0, N, d0, V);
}
