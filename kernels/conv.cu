// Convolution of channels-last images and its adjoints, as products whose left factor is never stored.
//
//     y = columns w        gw = columns^T gy        gx = (what reaches a pixel) w^T
//
// x (T, N, H, W, C), w (T or 1, kh, kw, C, F), y (T, N, OH, OW, F). Row p of the columns is what lies under
// the window at p, kh kw C numbers, zero beyond the border; it is looked up in the images when a tile of the
// product wants it.
//
// A block of 16 x 16 threads computes a tile of 16 EACH x 64 results, each thread EACH x 4 of them side by side;
// of both factors, CHUNK rows of a tile are in shared memory at a time, and the next are on their way. Places in
// a stack of images are 32-bit numbers (the launcher sees to that), offsets in memory 64-bit ones. Blocks lie
// along gridDim.x alone.

constexpr int SIDE = 16, FOUR = 4, WIDE = SIDE * FOUR, CHUNK = 16, THREADS = SIDE * SIDE;

// rows of a thread: of float as many as leave registers for the rest
template <class T> constexpr int MANY = sizeof(T) == 4 ? 8 : 4;

__device__ int thread_in_block() { return threadIdx.y * SIDE + threadIdx.x; }
__device__ int tiles_of(int size, int of) { return (size + of - 1) / of; }

// The sizes of a convolution; `pixels` and `windows` are those of one image, `depth` that of a filter.
struct Sizes {
    int N, H, W, C, kh, kw, F, stride, top, left, OH, OW;
    __device__ int pixels() const { return H * W; }
    __device__ int windows() const { return OH * OW; }
    __device__ int depth() const { return kh * kw * C; }
};

#define SIZES \
    int N, int H, int W, int C, int kh, int kw, int F, int stride, int top, int left, int OH, int OW

// A number written in mixed radix, counted up by a fixed step without a division:
// number = (high * middles + middle) * lows + low.
struct Counter {
    int lows, middles, low, middle, high, step_low, step_middle, step_high;
    __device__ Counter(int number, int step, int radix0, int radix1)
        : lows(radix0 > 0 ? radix0 : 1), middles(radix1 > 0 ? radix1 : 1) {  // 0 where nothing is counted
        low = number % lows, middle = number / lows % middles, high = number / lows / middles;
        step_low = step % lows, step_middle = step / lows % middles, step_high = step / lows / middles;
    }
    __device__ void count() {
        low += step_low;
        const int carry = low >= lows;
        low -= carry * lows, middle += step_middle + carry;
        const int next = middle >= middles;
        middle -= next * middles, high += step_high + next;
    }
};

// --- factors: read() takes the next CHUNK rows of a tile, put(to) puts them, [k][row or column], into shared memory --

// A matrix (K, columns) as it lies in memory, from row k0 and column c0 on; neighbouring threads have
// neighbouring columns.
template <class T> struct Matrix {
    const T* at;
    int columns, k, last, c;  // rows from `last` on are not taken
    T held[FOUR];
    __device__ Matrix(const T* at, int columns, int k0, int last, int c0)
        : at(at), columns(columns), k(k0 + thread_in_block() / WIDE), last(last), c(c0 + thread_in_block() % WIDE) {}
    __device__ void read() {
        for (int i = 0; i < FOUR; i++, k += THREADS / WIDE)
            held[i] = k < last && c < columns ? at[(long long)k * columns + c] : T(0);
    }
    template <int WIDTH> __device__ void put(T (*to)[WIDTH]) const {
        for (int i = 0; i < FOUR; i++) to[thread_in_block() / WIDE + THREADS / WIDE * i][thread_in_block() % WIDE] = held[i];
    }
};

// The number at (h, w, c) of an image of stack x, zero beyond its border.
template <class T> __device__ T pixel(const T* x, const Sizes& s, int n, int h, int w, int c) {
    const bool inside = h >= 0 && h < s.H && w >= 0 && w < s.W;
    return inside ? x[((long long)n * s.pixels() + h * s.W + w) * s.C + c] : T(0);
}

// Numbers [k][row] of a tile that a thread holds: one k, rows SIDE apart
template <class T, int EACH> struct Lane {
    T held[EACH];
    template <int WIDTH> __device__ void put(T (*to)[WIDTH]) const {
        for (int i = 0; i < EACH; i++) to[thread_in_block() % CHUNK][thread_in_block() / CHUNK + SIDE * i] = held[i];
    }
};

// The columns' transpose, (depth, windows), from window p0 on; neighbouring threads have neighbouring depths.
template <class T, int EACH> struct Windows : Lane<T, EACH> {
    const T* x;
    const Sizes& s;
    Counter k;  // of the thread's depth: channel, column and row of the filter
    int n[EACH], h[EACH], w[EACH];  // the image and the upper left corner of the thread's windows
    __device__ Windows(const T* x, const Sizes& s, int p0)
        : x(x), s(s), k(thread_in_block() % CHUNK, CHUNK, s.C, s.kw) {
        for (int i = 0; i < EACH; i++) {
            const int p = p0 + thread_in_block() / CHUNK + SIDE * i, window = p % s.windows();
            n[i] = p < s.N * s.windows() ? p / s.windows() : -1;
            h[i] = window / s.OW * s.stride - s.top, w[i] = window % s.OW * s.stride - s.left;
        }
    }
    __device__ void read() {
        for (int i = 0; i < EACH; i++)
            this->held[i] =
                n[i] >= 0 && k.high < s.kh ? pixel(x, s, n[i], h[i] + k.high, w[i] + k.middle, k.low) : T(0);
        k.count();
    }
};

// The columns (windows, depth), from depth k0 and window `first` on; neighbouring threads have neighbouring
// depths.
template <class T, int EACH> struct Columns {
    static constexpr int HIGH = SIDE * EACH;
    const T* x;
    const Sizes& s;
    int at, last;  // windows from `last` on are not taken
    int a, b, c;
    bool inside;
    Counter p;  // of the thread's window: column, row and image
    T held[EACH];
    __device__ Columns(const T* x, const Sizes& s, int k0, int first, int last)
        : x(x), s(s), at(first + thread_in_block() / HIGH), last(last), p(at, THREADS / HIGH, s.OW, s.OH) {
        const int k = k0 + thread_in_block() % HIGH;
        inside = k < s.depth();
        c = k % s.C, a = k / s.C / s.kw, b = k / s.C % s.kw;
    }
    __device__ void read() {
        for (int i = 0; i < EACH; i++, at += THREADS / HIGH, p.count())
            held[i] = inside && at < last
                          ? pixel(x, s, p.high, p.middle * s.stride - s.top + a, p.low * s.stride - s.left + b, c) : T(0);
    }
    template <int WIDTH> __device__ void put(T (*to)[WIDTH]) const {
        for (int i = 0; i < EACH; i++) to[thread_in_block() / HIGH + THREADS / HIGH * i][thread_in_block() % HIGH] = held[i];
    }
};

// What reaches a pixel of x: of gy (N, OH, OW, F), for each offset (a, b) and filter f the window that has the
// pixel at that offset. (kh kw F, pixels), from pixel q0 on; neighbouring threads have neighbouring filters.
template <class T, int EACH> struct Reaching : Lane<T, EACH> {
    const T* gy;
    const Sizes& s;
    Counter k;  // of filter, column and row of the filter
    int n[EACH], h[EACH], w[EACH];
    __device__ Reaching(const T* gy, const Sizes& s, int q0)
        : gy(gy), s(s), k(thread_in_block() % CHUNK, CHUNK, s.F, s.kw) {
        for (int i = 0; i < EACH; i++) {
            const int q = q0 + thread_in_block() / CHUNK + SIDE * i, place = q % s.pixels();
            n[i] = q < s.N * s.pixels() ? q / s.pixels() : -1;
            h[i] = place / s.W + s.top, w[i] = place % s.W + s.left;
        }
    }
    // the window that begins `offset` further up or left, -1 where there is none
    __device__ int window(int offset, int size) const {
        const int index = s.stride == 1 ? offset : offset % s.stride ? -1 : offset / s.stride;
        return index < size ? index : -1;
    }
    __device__ void read() {
        for (int i = 0; i < EACH; i++) {
            const int oh = window(h[i] - k.high, s.OH), ow = window(w[i] - k.middle, s.OW);
            const bool inside = n[i] >= 0 && k.high < s.kh && oh >= 0 && ow >= 0;
            this->held[i] = inside ? gy[((long long)n[i] * s.windows() + oh * s.OW + ow) * s.F + k.low] : T(0);
        }
        k.count();
    }
};

// The filters as (kh kw F, C), from channel c0 on; neighbouring threads have neighbouring filters.
template <class T> struct Transposed : Lane<T, FOUR> {
    const T* weight;
    const Sizes& s;
    int c0;
    Counter k;  // of filter, and offset in the filter
    __device__ Transposed(const T* weight, const Sizes& s, int c0)
        : weight(weight), s(s), c0(c0 + thread_in_block() / CHUNK),
          k(thread_in_block() % CHUNK, CHUNK, s.F, s.kh * s.kw) {}
    __device__ void read() {
        for (int i = 0; i < FOUR; i++) {
            const int c = c0 + SIDE * i;
            this->held[i] = k.high == 0 && c < s.C ? weight[((long long)k.middle * s.C + c) * s.F + k.low] : T(0);
        }
        k.count();
    }
};

// --- their product ------------------------------------------------------------------------------------------

// out (rows, columns) = sum over k of a[k][row] b[k][column], so many k's, at tile (r0, c0)
template <int EACH, class T, class A, class B>
__device__ void product(A& a, B& b, int ks, T* out, int r0, int rows, int c0, int columns) {
    alignas(16) __shared__ T as[CHUNK][SIDE * EACH + 4], bs[CHUNK][WIDE + 4];
    T sum[EACH][FOUR] = {};
    if (ks > 0) a.read(), b.read();
    for (int k0 = 0; k0 < ks; k0 += CHUNK) {
        a.put(as), b.put(bs);
        __syncthreads();
        if (k0 + CHUNK < ks) a.read(), b.read();
        for (int k = 0; k < CHUNK; k++)
            for (int i = 0; i < EACH; i++)
                for (int j = 0; j < FOUR; j++)
                    sum[i][j] += as[k][EACH * threadIdx.y + i] * bs[k][FOUR * threadIdx.x + j];
        __syncthreads();
    }
    for (int i = 0; i < EACH; i++)
        for (int j = 0; j < FOUR; j++) {
            const int row = r0 + EACH * threadIdx.y + i, column = c0 + FOUR * threadIdx.x + j;
            if (row < rows && column < columns) out[(long long)row * columns + column] = sum[i][j];
        }
}

// x, w -> y; `bank` is how far apart the tasks' filters are, 0 where they share them
template <class T>
__global__ void __launch_bounds__(THREADS)
conv2d(const T* x, const T* w, T* y, long long bank, SIZES) {
    constexpr int EACH = MANY<T>, HIGH = SIDE * EACH;
    const Sizes s{N, H, W, C, kh, kw, F, stride, top, left, OH, OW};
    const int rows = N * s.windows(), tiles = tiles_of(rows, HIGH) * tiles_of(F, WIDE), tile = blockIdx.x % tiles;
    const long long task = blockIdx.x / tiles;
    const int r0 = tile / tiles_of(F, WIDE) * HIGH, c0 = tile % tiles_of(F, WIDE) * WIDE;
    Windows<T, EACH> windows(x + task * N * s.pixels() * C, s, r0);
    Matrix<T> filters(w + task * bank, F, 0, s.depth(), c0);
    product<EACH>(windows, filters, s.depth(), y + task * rows * F, r0, rows, c0, F);
}

// gy, w -> gx
template <class T>
__global__ void __launch_bounds__(THREADS)
conv2d_input(const T* gy, const T* w, T* gx, long long bank, SIZES) {
    constexpr int EACH = MANY<T>, HIGH = SIDE * EACH;
    const Sizes s{N, H, W, C, kh, kw, F, stride, top, left, OH, OW};
    const int rows = N * s.pixels(), tiles = tiles_of(rows, HIGH) * tiles_of(C, WIDE), tile = blockIdx.x % tiles;
    const long long task = blockIdx.x / tiles;
    const int r0 = tile / tiles_of(C, WIDE) * HIGH, c0 = tile % tiles_of(C, WIDE) * WIDE;
    Reaching<T, EACH> reaching(gy + task * N * s.windows() * F, s, r0);
    Transposed<T> filters(w + task * bank, s, c0);
    product<EACH>(reaching, filters, kh * kw * F, gx + task * rows * C, r0, rows, c0, C);
}

// x, gy -> gw (T, parts, depth, F), of tiles with EACH rows to a thread
template <int EACH, class T>
__device__ void weight_tile(const T* x, const T* gy, T* gw, long long parts, const Sizes& s) {
    constexpr int HIGH = SIDE * EACH;
    const int tiles = tiles_of(s.depth(), HIGH) * tiles_of(s.F, WIDE), tile = blockIdx.x % tiles;
    const long long task = blockIdx.x / tiles / parts, part = blockIdx.x / tiles % parts, windows = s.N * s.windows();
    const int first = (int)(windows * part / parts), last = (int)(windows * (part + 1) / parts);
    const int r0 = tile / tiles_of(s.F, WIDE) * HIGH, c0 = tile % tiles_of(s.F, WIDE) * WIDE;
    Columns<T, EACH> columns(x + task * s.N * s.pixels() * s.C, s, r0, first, last);
    Matrix<T> gys(gy + task * windows * s.F, s.F, first, last, c0);
    product<EACH>(columns, gys, last - first, gw + (task * parts + part) * s.depth() * s.F, r0, s.depth(), c0, s.F);
}

// x, gy -> gw: parts to add up, each over a share of the windows; a small filter has low tiles
template <class T>
__global__ void __launch_bounds__(THREADS)
conv2d_weight(const T* x, const T* gy, T* gw, long long parts, SIZES) {
    const Sizes s{N, H, W, C, kh, kw, F, stride, top, left, OH, OW};
    if (s.depth() <= SIDE) weight_tile<1>(x, gy, gw, parts, s);
    else weight_tile<MANY<T>>(x, gy, gw, parts, s);
}
