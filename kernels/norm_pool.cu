// Batch-norm, ReLU and max-pooling of channels-last images, in two passes over them.
//
//     z = s r (x - mu) + o,   y = max(0, max of z over each window),   at: which entry, -1 for none
//
// Images x are (S, N, H, W, C), S groups of N images; parameters (S, C); y, g and at (S, N, H', W', C).
// gz is g where `at` names the entry, else 0. Neighbouring threads have neighbouring channels.
//
// Sums over a group are made in two stages, without atomics: a block of 32 channels x ROWS pixels adds
// up PIXELS pixels, each thread 64 of them in T, then all in double; `finish_...` adds the blocks' parts
// and makes the coefficients of the pass that follows.

constexpr int CHANNELS = 32, ROWS = 8, PIXELS = 64 * ROWS;

// The block's place: group s, pixels first ... last - 1 of the group's, channel c, its part of the sums.
struct Place {
    long long s, first, last, part;
    long long c;
};

__device__ Place place(long long pixels, long long C) {
    const long long columns = (C + CHANNELS - 1) / CHANNELS, chunks = (pixels + PIXELS - 1) / PIXELS;
    const long long part = blockIdx.x / columns, first = part % chunks * PIXELS;
    const long long last = first + PIXELS < pixels ? first + PIXELS : pixels;
    return {part / chunks, first + threadIdx.y, last, part, blockIdx.x % columns * CHANNELS + threadIdx.x};
}

// The sums of all threads of a channel -> parts (S chunks, K, C)
template <int K, class T>
__device__ void add_up(const T (&sums)[K], double* parts, Place at, long long C) {
    __shared__ double rows[ROWS][CHANNELS];
    for (int k = 0; k < K; k++) {
        rows[threadIdx.y][threadIdx.x] = sums[k];
        __syncthreads();
        if (threadIdx.y == 0 && at.c < C) {
            double total = 0;
            for (int row = 0; row < ROWS; row++) total += rows[row][threadIdx.x];
            parts[(at.part * K + k) * C + at.c] = total;
        }
        __syncthreads();
    }
}

// Sums of x - x0 and (x - x0)^2, x0 the first pixel of the group
template <class T>
__global__ void moments(const T* x, double* parts, long long N, long long H, long long W, long long C) {
    const Place at = place(N * H * W, C);
    T sums[2] = {};
    if (at.c < C) {
        x += at.s * N * H * W * C + at.c;
        const T shift = x[0];
#pragma unroll 8
        for (long long p = at.first; p < at.last; p += ROWS) {
            const T d = x[p * C] - shift;
            sums[0] += d;
            sums[1] += d * d;
        }
    }
    add_up(sums, parts, at, C);
}

// --- from the parts of the sums to what is done with them: a block has 32 channels of a group -----------------

constexpr int FINISH_ROWS = 16;

// The channel of this thread in a tensor (S, C); C is its number of channels.
__device__ long long group(long long C) { return blockIdx.x / ((C + CHANNELS - 1) / CHANNELS); }
__device__ long long channel(long long C) {
    return blockIdx.x % ((C + CHANNELS - 1) / CHANNELS) * CHANNELS + threadIdx.x;
}

// Means over the group's pixels of what parts (S chunks, K, C) hold, for the threads of row 0
template <int K>
__device__ void add_parts(const double* parts, long long chunks, double pixels, long long C, double (&means)[K]) {
    __shared__ double rows[FINISH_ROWS][CHANNELS];
    for (int k = 0; k < K; k++) {
        double sum = 0;
        if (channel(C) < C)
            for (long long chunk = threadIdx.y; chunk < chunks; chunk += FINISH_ROWS)
                sum += parts[((group(C) * chunks + chunk) * K + k) * C + channel(C)];
        rows[threadIdx.y][threadIdx.x] = sum;
        __syncthreads();
        means[k] = 0;
        for (int row = 0; row < FINISH_ROWS; row++) means[k] += rows[row][threadIdx.x];
        means[k] /= pixels;
        __syncthreads();
    }
}

// mu, r = 1 / sqrt(variance + eps) and the slope s r, all (S, C)
template <class T>
__global__ void finish_moments(const double* parts, const T* x, const T* scale, double eps, T* mean, double* r,
                               T* slope, long long chunks, long long pixels, long long C) {
    double means[2];
    add_parts(parts, chunks, pixels, C, means);
    if (threadIdx.y > 0 || channel(C) >= C) return;
    const long long i = group(C) * C + channel(C);
    const double variance = means[1] - means[0] * means[0];
    mean[i] = (T)(x[group(C) * pixels * C + channel(C)] + means[0]);
    r[i] = 1 / sqrt((variance < 0 ? 0 : variance) + eps);
    slope[i] = (T)(scale[i] * r[i]);
}

// a, b, d of `backward`, and the gradients of scale and offset
template <class T>
__global__ void finish_backward(const double* parts, const double* r, const T* scale, T* a, T* b, T* d, T* gscale,
                                T* goffset, long long chunks, long long pixels, long long C) {
    double means[2];
    add_parts(parts, chunks, pixels, C, means);
    if (threadIdx.y > 0 || channel(C) >= C) return;
    const long long i = group(C) * C + channel(C);
    const double eg = means[0], egx = r[i] * means[1], slope = scale[i] * r[i];
    a[i] = (T)slope, b[i] = (T)(slope * eg), d[i] = (T)(slope * r[i] * egx);
    gscale[i] = (T)(pixels * egx), goffset[i] = (T)(pixels * eg);
}

// p, q, e, a, b, d of `double_backward`, and what reaches the scale; letters as in norm_pool.py
template <class T>
__global__ void finish_double_backward(const double* parts, const double* uparts, const double* r, const T* scale,
                                       const T* uscale, const T* uoffset, T* p, T* q, T* e, T* a, T* b, T* d,
                                       T* gscale, long long chunks, long long uchunks, long long pixels, long long C) {
    double of_g[2], of_u[3];
    add_parts(parts, chunks, pixels, C, of_g);
    add_parts(uparts, uchunks, pixels, C, of_u);
    if (threadIdx.y > 0 || channel(C) >= C) return;
    const long long i = group(C) * C + channel(C);
    const double eg = of_g[0], egx = r[i] * of_g[1], eu = of_u[0], eux = r[i] * of_u[1];
    const double k = of_u[2] - eu * eg - eux * egx, us = uscale[i], slope = scale[i] * r[i];
    const double eh = us * eg - slope * (eu * egx + eg * eux), ehx = us * egx - 2 * slope * eux * egx;
    p[i] = (T)slope, q[i] = (T)(us * r[i] - slope * r[i] * eux), e[i] = (T)(uoffset[i] - slope * eu);
    a[i] = (T)(-slope * r[i] * egx), b[i] = (T)(r[i] * eh), d[i] = (T)(r[i] * r[i] * (ehx + slope * k));
    gscale[i] = (T)(pixels * r[i] * k);
}

// Of output pixel p of group s, channel c: the entry of x that is its maximum, as an index
__device__ long long chosen(long long s, long long p, long long c, int k, int size, long long N, long long H,
                            long long W, long long C) {
    const long long high = H / size, wide = W / size;
    const long long n = p / (high * wide), h = p / wide % high, w = p % wide;
    return (((s * N + n) * H + h * size + k / size) * W + w * size + k % size) * C + c;
}

// Sums of gz and gz (x - mu)
template <class T>
__global__ void backward_sums(const T* x, const T* g, const signed char* which, const T* mean, int size, double* parts,
                              long long N, long long H, long long W, long long C) {
    const long long pixels = N * (H / size) * (W / size);
    const Place at = place(pixels, C);
    T sums[2] = {};
    if (at.c < C)
#pragma unroll 4
        for (long long p = at.first; p < at.last; p += ROWS) {
            const long long i = (at.s * pixels + p) * C + at.c;
            const int k = which[i];
            if (k >= 0) {
                sums[0] += g[i];
                sums[1] += g[i] * (x[chosen(at.s, p, at.c, k, size, N, H, W, C)] - mean[at.s * C + at.c]);
            }
        }
    add_up(sums, parts, at, C);
}

// gz of an entry (row h, column w) of image n, channel c
template <class T>
__device__ T cotangent(const T* g, const signed char* which, int size, long long n, int h, int w, int c, int H, int W,
                       int C) {
    const int high = H / size, wide = W / size;
    if (h / size >= high || w / size >= wide) return T(0);
    const long long i = ((n * high + h / size) * wide + w / size) * C + c;
    return which[i] == h % size * size + w % size ? g[i] : T(0);
}

// Sums of u, u (x - mu) and u gz
template <class T>
__global__ void double_backward_sums(const T* x, const T* u, const T* g, const signed char* which, const T* mean,
                                     int size, double* parts, long long N, long long H, long long W, long long C) {
    const Place at = place(N * H * W, C);
    T sums[3] = {};
    if (at.c < C)
        for (long long p = at.first; p < at.last; p += ROWS) {
            const long long i = (at.s * N * H * W + p) * C + at.c;
            const long long n = at.s * N + p / (H * W);
            sums[0] += u[i];
            sums[1] += u[i] * (x[i] - mean[at.s * C + at.c]);
            sums[2] += u[i] * cotangent(g, which, size, n, (int)(p / W % H), (int)(p % W), (int)at.c, (int)H, (int)W, (int)C);
        }
    add_up(sums, parts, at, C);
}

// y and which. A block has a row of windows.
template <class T>
__global__ void forward(const T* x, const T* mean, const T* slope, const T* offset, int size, T* y, signed char* which,
                        long long N, int H, int W, int C) {
    const int high = H / size, wide = W / size;
    const long long n = blockIdx.x / high, h = blockIdx.x % high;
    for (int j = threadIdx.x; j < wide * C; j += blockDim.x) {
        const int w = j / C, c = j % C;
        const long long s = n / N * C + c;
        T top = 0;
        int k = -1;
        for (int entry = 0; entry < size * size; entry++) {
            const long long i = ((n * H + h * size + entry / size) * W + w * size + entry % size) * C + c;
            const T z = (x[i] - mean[s]) * slope[s] + offset[s];
            if (!(z <= top)) top = z, k = entry;  // true of NaN, which is to show in y
        }
        const long long out = (long long)blockIdx.x * wide * C + j;
        y[out] = top;
        which[out] = top > T(0) ? (signed char)k : (signed char)-1;  // of NaN, as of 0, no entry is the one
    }
}

// gx = a gz - b - d (x - mu). A block has a row of pixels.
template <class T>
__global__ void backward(const T* x, const T* g, const signed char* which, const T* mean, int size, const T* a,
                         const T* b, const T* d, T* gx, long long N, int H, int W, int C) {
    const long long n = blockIdx.x / H;
    const int h = blockIdx.x % H;
    for (int j = threadIdx.x; j < W * C; j += blockDim.x) {
        const int w = j / C, c = j % C;
        const long long i = (long long)blockIdx.x * W * C + j, s = n / N * C + c;
        gx[i] = a[s] * cotangent(g, which, size, n, h, w, c, H, W, C) - b[s] - d[s] * (x[i] - mean[s]);
    }
}

// ux = a u + q gz - b - d (x - mu), and ug = p u + q (x - mu) + e where gz takes g. A block has a row of pixels.
template <class T>
__global__ void double_backward(const T* x, const T* u, const T* g, const signed char* which, const T* mean, int size,
                                const T* p, const T* q, const T* e, const T* a, const T* b, const T* d, T* ug, T* ux,
                                long long N, int H, int W, int C) {
    const int high = H / size, wide = W / size;
    const long long n = blockIdx.x / H;
    const int h = blockIdx.x % H;
    for (int j = threadIdx.x; j < W * C; j += blockDim.x) {
        const int w = j / C, c = j % C;
        const long long i = (long long)blockIdx.x * W * C + j, s = n / N * C + c;
        const T centred = x[i] - mean[s];
        T out = a[s] * u[i] - b[s] - d[s] * centred;
        if (h / size < high && w / size < wide) {
            const long long window = ((n * high + h / size) * wide + w / size) * C + c;
            const int entry = h % size * size + w % size;
            if (which[window] == entry) {
                out += q[s] * g[window];
                ug[window] = p[s] * u[i] + q[s] * centred + e[s];
            }
        }
        ux[i] = out;
    }
}
