// Attention without its Q x N matrix: out_i = sum_j p_ij v_j,  p_ij = exp(s_ij - l_i),  s_ij = q_i . k_j,
// l_i = log sum_j exp s_ij, and its gradients from recomputed scores:
//
//     u_ij = p_ij (g_i . v_j - delta_i)     gq_i = sum_j u_ij k_j    gk_j = sum_i u_ij q_i    gv_j = sum_i p_ij g_i
//
// All arrays are (B, rows, columns). A block of 16 x 16 threads owns 64 rows and 64 columns of a result
// and passes over the other operand 64 rows at a time. Each thread holds 4 x 4 numbers, side by side, of
// every 64 x 64 tile. With more than 64 columns, several blocks compute the same scores.
//
// Where that makes few blocks, the other operand's rows are cut into parts, and each block passes over one
// of them: results are then (B, parts, rows, columns). Those of the backward pass add up; attention's are
// put together by `combine`, since over all parts r   l = log sum_r exp l_r,  out = sum_r exp(l_r - l) out_r.

constexpr int SIDE = 16, EACH = 4, TILE = SIDE * EACH, THREADS = SIDE * SIDE;

// blocks that a multiprocessor is to have registers for at the same time: as many as spill none
template <class T> constexpr int BLOCKS = sizeof(T) == 4 ? 2 : 1;

// the part of two operands that is in shared memory at a time: as much as 48 KB allow beside a tile; rows
// begin at multiples of 16 bytes, so that a thread's four numbers are one access
template <class T> struct alignas(16) Shared {
    static constexpr int CHUNK = 64 / sizeof(T), WIDE = TILE + 16 / sizeof(T);
    T a[CHUNK][WIDE], b[CHUNK][WIDE], tile[TILE][WIDE];
};

__device__ int thread_in_block() { return threadIdx.y * SIDE + threadIdx.x; }
__device__ long long tiles_of(long long size) { return (size + TILE - 1) / TILE; }

// sum[i][j] += a[row i of the thread] b[column j of the thread], rows of a tile lying side by side
template <class T> __device__ void add_products(const T* a, const T* b, T (&sum)[EACH][EACH]) {
    for (int i = 0; i < EACH; i++)
        for (int j = 0; j < EACH; j++) sum[i][j] += a[EACH * threadIdx.y + i] * b[EACH * threadIdx.x + j];
}

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
        for (int d = 0; d < CHUNK; d++) add_products(shared.a[d], shared.b[d], s);
        __syncthreads();
    }
}

// o[i][d] += sum_j tile[j][i] b[b0 + j][d0 + d] for the rows b0 + ... of b (B, D)
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
        for (int j = 0; j < CHUNK; j++) add_products(shared.tile[j0 + j], shared.b[j], o);
        __syncthreads();
    }
}

// the thread's numbers to x (A, D), those inside
template <class T>
__device__ void store(const T (&o)[EACH][EACH], T* x, long long a0, long long A, long long d0, long long D) {
    for (int i = 0; i < EACH; i++)
        for (int d = 0; d < EACH; d++) {
            const long long row = a0 + EACH * threadIdx.y + i, column = d0 + EACH * threadIdx.x + d;
            if (row < A && column < D) x[row * D + column] = o[i][d];
        }
}

// What a block is for: batch, the first row and column of its tile, its part of the other operand's rows.
struct Work {
    long long batch, row, column, part, first, last;
    __device__ Work(long long rows, long long columns, long long others, long long parts) {
        const long long wide = columns ? tiles_of(columns) : 1, tiles = wide * tiles_of(rows);
        const long long tile = blockIdx.x % tiles, rest = blockIdx.x / tiles;
        batch = rest / parts, part = rest % parts, row = tile / wide * TILE, column = tile % wide * TILE;
        first = tiles_of(others) * part / parts * TILE, last = tiles_of(others) * (part + 1) / parts * TILE;
        last = last < others ? last : others;
    }
};

// q (B, Q, D), k (B, N, D), v (B, N, V) -> out (B, parts, Q, V), lse (B, parts, Q)
template <class T>
__global__ void __launch_bounds__(THREADS, BLOCKS<T>)
attention(const T* q, const T* k, const T* v, T* out, T* lse, long long Q, long long N, long long D, long long V,
          long long parts) {
    __shared__ Shared<T> shared;
    const Work work(Q, V, N, parts);
    q += work.batch * Q * D, k += work.batch * N * D, v += work.batch * N * V;
    out += (work.batch * parts + work.part) * Q * V, lse += (work.batch * parts + work.part) * Q;

    // the 16 threads of a row hold the same m and z
    T o[EACH][EACH] = {}, m[EACH], z[EACH] = {};
    for (int i = 0; i < EACH; i++) m[i] = log(T(0));  // minus infinity: NVRTC has no INFINITY
    for (long long j0 = work.first; j0 < work.last; j0 += TILE) {
        T s[EACH][EACH] = {};
        add_dots(shared, q, work.row, Q, k, j0, work.last, D, s);
        for (int i = 0; i < EACH; i++) {
            T top = m[i], total = 0;
            for (int j = 0; j < EACH; j++)
                if (j0 + EACH * threadIdx.x + j < work.last && s[i][j] > top) top = s[i][j];
            for (int lanes = SIDE / 2; lanes > 0; lanes /= 2) {
                const T other = __shfl_xor_sync(0xffffffffu, top, lanes);
                top = other > top ? other : top;
            }
            for (int j = 0; j < EACH; j++) {
                s[i][j] = j0 + EACH * threadIdx.x + j < work.last ? exp(s[i][j] - top) : T(0);
                total += s[i][j];
            }
            for (int lanes = SIDE / 2; lanes > 0; lanes /= 2) total += __shfl_xor_sync(0xffffffffu, total, lanes);
            const T shrink = exp(m[i] - top);
            for (int d = 0; d < EACH; d++) o[i][d] *= shrink;
            z[i] = z[i] * shrink + total;
            m[i] = top;
        }
        for (int j = 0; j < EACH; j++)
            for (int i = 0; i < EACH; i++) shared.tile[EACH * threadIdx.x + j][EACH * threadIdx.y + i] = s[i][j];
        add_weighted(shared, v, j0, work.last, work.column, V, o);
    }
    for (int i = 0; i < EACH; i++) {
        for (int d = 0; d < EACH; d++) o[i][d] = N ? o[i][d] / z[i] : T(0);
        const long long row = work.row + EACH * threadIdx.y + i;
        if (work.column == 0 && threadIdx.x == 0 && row < Q) lse[row] = m[i] + log(z[i]);
    }
    store(o, out, work.row, Q, work.column, V);
}

// outs (B, parts, Q, V), lses (B, parts, Q) -> out (B, Q, V), lse (B, Q); a warp has a row
template <class T>
__global__ void combine(const T* outs, const T* lses, T* out, T* lse, long long rows, long long Q, long long V,
                        long long parts) {
    const long long row = (long long)blockIdx.x * blockDim.y + threadIdx.y, batch = row / Q, i = row % Q;
    if (row >= rows) return;
    lses += batch * parts * Q + i, outs += (batch * parts * Q + i) * V;
    T top = lses[0], z = 0;
    for (long long part = 1; part < parts; part++) top = lses[part * Q] > top ? lses[part * Q] : top;
    for (long long part = 0; part < parts; part++) z += exp(lses[part * Q] - top);
    const T whole = top + log(z);
    for (long long d = threadIdx.x; d < V; d += blockDim.x) {
        T sum = 0;
        for (long long part = 0; part < parts; part++) sum += exp(lses[part * Q] - whole) * outs[part * Q * V + d];
        out[row * V + d] = sum;
    }
    if (threadIdx.x == 0) lse[row] = whole;
}

// g (B, Q, V), delta and lse (B, Q) -> gq (B, parts, Q, D)
template <class T>
__global__ void __launch_bounds__(THREADS, BLOCKS<T>)
attention_backward_queries(const T* g, const T* q, const T* k, const T* v, const T* delta, const T* lse, T* gq,
                           long long Q, long long N, long long D, long long V, long long parts) {
    __shared__ Shared<T> shared;
    const Work work(Q, D, N, parts);
    g += work.batch * Q * V, q += work.batch * Q * D, k += work.batch * N * D, v += work.batch * N * V;
    delta += work.batch * Q, lse += work.batch * Q, gq += (work.batch * parts + work.part) * Q * D;

    T o[EACH][EACH] = {};
    for (long long j0 = work.first; j0 < work.last; j0 += TILE) {
        T s[EACH][EACH] = {}, gp[EACH][EACH] = {};
        add_dots(shared, q, work.row, Q, k, j0, work.last, D, s);
        add_dots(shared, g, work.row, Q, v, j0, work.last, V, gp);
        for (int j = 0; j < EACH; j++)
            for (int i = 0; i < EACH; i++) {
                const long long row = work.row + EACH * threadIdx.y + i;
                const bool inside = row < Q && j0 + EACH * threadIdx.x + j < work.last;
                shared.tile[EACH * threadIdx.x + j][EACH * threadIdx.y + i] =
                    inside ? exp(s[i][j] - lse[row]) * (gp[i][j] - delta[row]) : T(0);
            }
        add_weighted(shared, k, j0, work.last, work.column, D, o);
    }
    store(o, gq, work.row, Q, work.column, D);
}

// -> gk (B, parts, N, D), gv (B, parts, N, V); tiles are queries x keys
template <class T>
__global__ void __launch_bounds__(THREADS)
attention_backward_keys(const T* g, const T* q, const T* k, const T* v, const T* delta, const T* lse, T* gk, T* gv,
                        long long Q, long long N, long long D, long long V, long long parts) {
    __shared__ Shared<T> shared;
    const Work work(N, D > V ? D : V, Q, parts);
    g += work.batch * Q * V, q += work.batch * Q * D, k += work.batch * N * D, v += work.batch * N * V;
    delta += work.batch * Q, lse += work.batch * Q;
    gk += (work.batch * parts + work.part) * N * D, gv += (work.batch * parts + work.part) * N * V;

    T ok[EACH][EACH] = {}, ov[EACH][EACH] = {};
    for (long long i0 = work.first; i0 < work.last; i0 += TILE) {
        T s[EACH][EACH] = {}, gp[EACH][EACH] = {};
        add_dots(shared, k, work.row, N, q, i0, work.last, D, s);
        add_dots(shared, v, work.row, N, g, i0, work.last, V, gp);
        for (int i = 0; i < EACH; i++)
            for (int j = 0; j < EACH; j++) {
                const long long row = i0 + EACH * threadIdx.x + i;
                const bool inside = row < work.last && work.row + EACH * threadIdx.y + j < N;
                const T p = inside ? exp(s[j][i] - lse[row]) : T(0);
                shared.tile[EACH * threadIdx.x + i][EACH * threadIdx.y + j] = p;
                s[j][i] = inside ? p * (gp[j][i] - delta[row]) : T(0);
            }
        add_weighted(shared, g, i0, work.last, work.column, V, ov);
        for (int i = 0; i < EACH; i++)
            for (int j = 0; j < EACH; j++)
                shared.tile[EACH * threadIdx.x + i][EACH * threadIdx.y + j] = s[j][i];
        add_weighted(shared, q, i0, work.last, work.column, D, ok);
    }
    store(ok, gk, work.row, N, work.column, D);
    store(ov, gv, work.row, N, work.column, V);
}
