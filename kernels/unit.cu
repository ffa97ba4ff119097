// Rows of length one. One warp for each row; its 32 lanes share the row's D numbers.
//
//     r = 1 / |x|, or 0 where |x|^2 < tiny        y = r x        gx = r (gy - y (y . gy))

template <class T>
__device__ T sum_over_warp(T value) {
    for (int lanes = 16; lanes > 0; lanes /= 2) value += __shfl_xor_sync(0xffffffffu, value, lanes);
    return value;
}

// x, y (rows, D); r (rows)
template <class T>
__global__ void unit(const T* x, T tiny, T* y, T* r, long long rows, long long D) {
    const long long row = (long long)blockIdx.x * blockDim.y + threadIdx.y;
    if (row >= rows) return;  // the whole warp
    x += row * D, y += row * D;
    T square = 0;
    for (long long d = threadIdx.x; d < D; d += 32) square += x[d] * x[d];
    square = sum_over_warp(square);
    const T inverse = square < tiny ? T(0) : T(1) / sqrt(square);
    for (long long d = threadIdx.x; d < D; d += 32) y[d] = inverse * x[d];
    if (threadIdx.x == 0) r[row] = inverse;
}

// gy, y, gx (rows, D); r (rows)
template <class T>
__global__ void unit_backward(const T* gy, const T* y, const T* r, T* gx, long long rows, long long D) {
    const long long row = (long long)blockIdx.x * blockDim.y + threadIdx.y;
    if (row >= rows) return;  // the whole warp
    gy += row * D, y += row * D, gx += row * D;
    T along = 0;
    for (long long d = threadIdx.x; d < D; d += 32) along += y[d] * gy[d];
    along = sum_over_warp(along);
    for (long long d = threadIdx.x; d < D; d += 32) gx[d] = r[row] * (gy[d] - along * y[d]);
}
