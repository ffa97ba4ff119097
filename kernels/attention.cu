// Attention without its Q x N matrix: out_i = sum_j p_ij v_j,  p_ij = exp(s_ij - l_i),  s_ij = q_i . k_j,
// l_i = log sum_j exp s_ij, and its gradients from recomputed scores:
//
//     u_ij = p_ij (g_i . v_j - delta_i)     gq_i = sum_j u_ij k_j    gk_j = sum_i u_ij q_i    gv_j = sum_i p_ij g_i
//
// All arrays are (B, rows, columns). A block of 16 x 16 threads owns HIGH rows and WIDE = 64 columns of a
// result and passes over the other operand 64 rows at a time. Each thread holds EACH x 4 numbers, side by
// side, of every HIGH x 64 tile; HIGH is 128 for float, 64 for double. With more than 64 columns, several
// blocks compute the same scores.
//
// Where that makes few blocks, the other operand's rows are cut into parts, and each block passes over one
// of them: results are then (B, parts, rows, columns). Those of the backward pass add up; attention's are
// put together by `combine`: with the maximum m_r of part r, z_r = sum_j exp(s_ij - m_r) and o_r = sum_j
// exp(s_ij - m_r) v_j,   l = m + log sum_r exp(m_r - m) z_r,  out = sum_r exp(m_r - m) o_r / sum_r exp(m_r - m) z_r.

constexpr int SIDE = 16, FOUR = 4, WIDE = SIDE * FOUR, THREADS = SIDE * SIDE;

// rows of a thread: of float as many as leave registers for the rest
template <class T> constexpr int EACH = sizeof(T) == 4 ? 8 : 4;
template <class T> constexpr int HIGH = SIDE * EACH<T>;

// the part of two operands that is in shared memory at a time: as much as 48 KB allow beside a tile, which is
// transposed; rows begin at multiples of 16 bytes, so that a thread's four numbers are one access
template <class T> struct alignas(16) Shared {
    static constexpr int CHUNK = 64 / sizeof(T), PAD = 16 / sizeof(T);
    T a[CHUNK][HIGH<T> + PAD], b[CHUNK][WIDE + PAD], tile[WIDE][HIGH<T> + PAD];
};

template <class T> using Held = T[EACH<T>][FOUR];  // a thread's numbers of a tile

__device__ int thread_in_block() { return threadIdx.y * SIDE + threadIdx.x; }
__device__ long long tiles_of(long long size, int of) { return (size + of - 1) / of; }

// sum[i][j] += a[row i of the thread] b[column j of the thread]
template <class T> __device__ void add_products(const T* a, const T* b, Held<T>& sum) {
    for (int i = 0; i < EACH<T>; i++)
        for (int j = 0; j < FOUR; j++) sum[i][j] += a[EACH<T> * threadIdx.y + i] * b[FOUR * threadIdx.x + j];
}

// A thread's share of ROWS x CHUNK numbers of x (X, D), from row x0 and feature d0 on, zeros past an end: read
// while the numbers before them are worked on, then put into shared memory, transposed or as they lie.
template <class T, int ROWS, int CHUNK> struct Share {
    T held[ROWS * CHUNK / THREADS];
    __device__ void read(const T* x, long long x0, long long X, long long d0, long long D) {
        constexpr int APART = THREADS / CHUNK;  // rows between two numbers of a thread
        const long long row = x0 + thread_in_block() / CHUNK, d = d0 + thread_in_block() % CHUNK;
        const T* from = x + row * D + d;
        for (int n = 0; n < ROWS / APART; n++, from += APART * D)
            held[n] = d < D && row + n * APART < X ? *from : T(0);
    }
    template <int WIDTH> __device__ void put_transposed(T (*to)[WIDTH]) const {
        for (int n = 0; n < ROWS * CHUNK / THREADS; n++) {
            const int at = n * THREADS + thread_in_block();
            to[at % CHUNK][at / CHUNK] = held[n];
        }
    }
    template <int WIDTH> __device__ void put(T (*to)[WIDTH]) const {
        for (int n = 0; n < ROWS * CHUNK / THREADS; n++) {
            const int at = n * THREADS + thread_in_block();
            to[at / CHUNK][at % CHUNK] = held[n];
        }
    }
};

// s[i][j] += a_row . b_column for rows a0 + ... of a (A, D) and b0 + ... of b (B, D)
template <class T>
__device__ void add_dots(Shared<T>& shared, const T* a, long long a0, long long A, const T* b, long long b0, long long B,
                         long long D, Held<T>& s) {
    constexpr int CHUNK = Shared<T>::CHUNK;
    Share<T, HIGH<T>, CHUNK> of_a;
    Share<T, WIDE, CHUNK> of_b;
    of_a.read(a, a0, A, 0, D), of_b.read(b, b0, B, 0, D);
    for (long long d0 = 0; d0 < D; d0 += CHUNK) {
        of_a.put_transposed(shared.a), of_b.put_transposed(shared.b);
        __syncthreads();
        if (d0 + CHUNK < D) of_a.read(a, a0, A, d0 + CHUNK, D), of_b.read(b, b0, B, d0 + CHUNK, D);
        for (int d = 0; d < CHUNK; d++) add_products(shared.a[d], shared.b[d], s);
        __syncthreads();
    }
}

// o[i][d] += sum_j tile[j][i] b[b0 + j][d0 + d] for the rows b0 + ... of b (B, D)
template <class T>
__device__ void add_weighted(Shared<T>& shared, const T* b, long long b0, long long B, long long d0, long long D,
                             Held<T>& o) {
    constexpr int CHUNK = Shared<T>::CHUNK;
    Share<T, CHUNK, WIDE> of_b;
    of_b.read(b, b0, B, d0, D);
    for (int j0 = 0; j0 < WIDE; j0 += CHUNK) {
        of_b.put(shared.b);
        __syncthreads();
        if (j0 + CHUNK < WIDE) of_b.read(b, b0 + j0 + CHUNK, B, d0, D);
        for (int j = 0; j < CHUNK; j++) add_products(shared.tile[j0 + j], shared.b[j], o);
        __syncthreads();
    }
}

// the thread's numbers to x (A, D), those inside
template <class T>
__device__ void store(const Held<T>& o, T* x, long long a0, long long A, long long d0, long long D) {
    for (int i = 0; i < EACH<T>; i++)
        for (int d = 0; d < FOUR; d++) {
            const long long row = a0 + EACH<T> * threadIdx.y + i, column = d0 + FOUR * threadIdx.x + d;
            if (row < A && column < D) x[row * D + column] = o[i][d];
        }
}

// What a block is for: batch, the first row and column of its tile, its part of the other operand's rows.
struct Work {
    long long batch, row, column, part, first, last;
    __device__ Work(int high, long long rows, long long columns, long long others, long long parts) {
        const long long wide = columns ? tiles_of(columns, WIDE) : 1, tiles = wide * tiles_of(rows, high);
        const long long tile = blockIdx.x % tiles, rest = blockIdx.x / tiles, all = tiles_of(others, WIDE);
        batch = rest / parts, part = rest % parts, row = tile / wide * high, column = tile % wide * WIDE;
        first = all * part / parts * WIDE, last = all * (part + 1) / parts * WIDE;
        last = last < others ? last : others;
    }
};

// q (B, Q, D), k (B, N, D), v (B, N, V) -> out (B, Q, V), lse (B, Q); or with parts, o (B, parts, Q, V) in the
// place of out, m (B, parts, Q) in that of lse, and z (B, parts, Q)
template <class T>
__global__ void __launch_bounds__(THREADS)
attention(const T* q, const T* k, const T* v, T* out, T* lse, T* sums, long long Q, long long N, long long D,
          long long V, long long parts) {
    __shared__ Shared<T> shared;
    const Work work(HIGH<T>, Q, V, N, parts);
    q += work.batch * Q * D, k += work.batch * N * D, v += work.batch * N * V;
    out += (work.batch * parts + work.part) * Q * V, lse += (work.batch * parts + work.part) * Q;
    sums += (work.batch * parts + work.part) * Q;

    // the 16 threads of a row hold the same m and z
    Held<T> o = {};
    T m[EACH<T>], z[EACH<T>] = {};
    for (int i = 0; i < EACH<T>; i++) m[i] = log(T(0));  // minus infinity: NVRTC has no INFINITY
    for (long long j0 = work.first; j0 < work.last; j0 += WIDE) {
        Held<T> s = {};
        add_dots(shared, q, work.row, Q, k, j0, work.last, D, s);
        for (int i = 0; i < EACH<T>; i++) {
            T top = m[i], total = 0;
            for (int j = 0; j < FOUR; j++)
                if (j0 + FOUR * threadIdx.x + j < work.last && s[i][j] > top) top = s[i][j];
            for (int lanes = SIDE / 2; lanes > 0; lanes /= 2) {
                const T other = __shfl_xor_sync(0xffffffffu, top, lanes);
                top = other > top ? other : top;
            }
            for (int j = 0; j < FOUR; j++) {
                s[i][j] = j0 + FOUR * threadIdx.x + j < work.last ? exp(s[i][j] - top) : T(0);
                total += s[i][j];
            }
            for (int lanes = SIDE / 2; lanes > 0; lanes /= 2) total += __shfl_xor_sync(0xffffffffu, total, lanes);
            const T shrink = exp(m[i] - top);
            for (int d = 0; d < FOUR; d++) o[i][d] *= shrink;
            z[i] = z[i] * shrink + total;
            m[i] = top;
        }
        for (int j = 0; j < FOUR; j++)
            for (int i = 0; i < EACH<T>; i++) shared.tile[FOUR * threadIdx.x + j][EACH<T> * threadIdx.y + i] = s[i][j];
        add_weighted(shared, v, j0, work.last, work.column, V, o);
    }
    for (int i = 0; i < EACH<T>; i++) {
        if (parts == 1)
            for (int d = 0; d < FOUR; d++) o[i][d] = N ? o[i][d] / z[i] : T(0);
        const long long row = work.row + EACH<T> * threadIdx.y + i;
        if (work.column == 0 && threadIdx.x == 0 && row < Q) {
            lse[row] = parts == 1 ? m[i] + log(z[i]) : m[i];
            if (parts > 1) sums[row] = z[i];
        }
    }
    store(o, out, work.row, Q, work.column, V);
}

// o (B, parts, Q, V), m and z (B, parts, Q) -> out (B, Q, V), lse (B, Q); a warp has a row
template <class T>
__global__ void combine(const T* o, const T* m, const T* z, T* out, T* lse, long long rows, long long Q, long long V,
                        long long parts) {
    const long long row = (long long)blockIdx.x * blockDim.y + threadIdx.y, first = row / Q * parts * Q + row % Q;
    if (row >= rows) return;
    m += first, z += first, o += first * V;
    T top = m[0], total = 0;
    for (long long part = 1; part < parts; part++) top = m[part * Q] > top ? m[part * Q] : top;
    for (long long part = 0; part < parts; part++) total += exp(m[part * Q] - top) * z[part * Q];
    for (long long d = threadIdx.x; d < V; d += blockDim.x) {
        T sum = 0;
        for (long long part = 0; part < parts; part++) sum += exp(m[part * Q] - top) * o[part * Q * V + d];
        out[row * V + d] = sum / total;
    }
    if (threadIdx.x == 0) lse[row] = top + log(total);
}

// g (B, Q, V), delta and lse (B, Q) -> gq (B, parts, Q, D)
template <class T>
__global__ void __launch_bounds__(THREADS)
attention_backward_queries(const T* g, const T* q, const T* k, const T* v, const T* delta, const T* lse, T* gq,
                           long long Q, long long N, long long D, long long V, long long parts) {
    __shared__ Shared<T> shared;
    const Work work(HIGH<T>, Q, D, N, parts);
    g += work.batch * Q * V, q += work.batch * Q * D, k += work.batch * N * D, v += work.batch * N * V;
    delta += work.batch * Q, lse += work.batch * Q, gq += (work.batch * parts + work.part) * Q * D;

    Held<T> o = {};
    for (long long j0 = work.first; j0 < work.last; j0 += WIDE) {
        Held<T> s = {}, gp = {};
        add_dots(shared, q, work.row, Q, k, j0, work.last, D, s);
        add_dots(shared, g, work.row, Q, v, j0, work.last, V, gp);
        for (int j = 0; j < FOUR; j++)
            for (int i = 0; i < EACH<T>; i++) {
                const long long row = work.row + EACH<T> * threadIdx.y + i;
                const bool inside = row < Q && j0 + FOUR * threadIdx.x + j < work.last;
                shared.tile[FOUR * threadIdx.x + j][EACH<T> * threadIdx.y + i] =
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
    const Work work(HIGH<T>, N, D > V ? D : V, Q, parts);
    g += work.batch * Q * V, q += work.batch * Q * D, k += work.batch * N * D, v += work.batch * N * V;
    delta += work.batch * Q, lse += work.batch * Q;
    gk += (work.batch * parts + work.part) * N * D, gv += (work.batch * parts + work.part) * N * V;

    Held<T> ok = {}, ov = {};
    for (long long i0 = work.first; i0 < work.last; i0 += WIDE) {
        Held<T> s = {}, gp = {};
        add_dots(shared, k, work.row, N, q, i0, work.last, D, s);
        add_dots(shared, v, work.row, N, g, i0, work.last, V, gp);
        for (int i = 0; i < FOUR; i++)
            for (int j = 0; j < EACH<T>; j++) {
                const long long row = i0 + FOUR * threadIdx.x + i;
                const bool inside = row < work.last && work.row + EACH<T> * threadIdx.y + j < N;
                const T p = inside ? exp(s[j][i] - lse[row]) : T(0);
                shared.tile[FOUR * threadIdx.x + i][EACH<T> * threadIdx.y + j] = p;
                s[j][i] = inside ? p * (gp[j][i] - delta[row]) : T(0);
            }
        add_weighted(shared, g, i0, work.last, work.column, V, ov);
        for (int i = 0; i < FOUR; i++)
            for (int j = 0; j < EACH<T>; j++)
                shared.tile[FOUR * threadIdx.x + i][EACH<T> * threadIdx.y + j] = s[j][i];
        add_weighted(shared, q, i0, work.last, work.column, D, ok);
    }
    store(ok, gk, work.row, N, work.column, D);
    store(ov, gv, work.row, N, work.column, V);
}
