// The gates of an LSTM cell and two orders of derivatives; a thread for every unit of every row.
//
//     c' = f c + i g,  t = tanh c',  h' = o t;   for a gate a, da is its derivative by its own z
//
// z, gates, gz, u and uz are (R, 4H) in the order i, f, g, o; the other arrays are (R, H).

template <class T>
__device__ T sigmoid(T x) { return T(1) / (T(1) + exp(-x)); }

// the gates of one unit, and where they are
template <class T>
struct Gates {
    T i, f, g, o;
    __device__ Gates(const T* gates, long long first, long long H)
        : i(gates[first]), f(gates[first + H]), g(gates[first + 2 * H]), o(gates[first + 3 * H]) {}
};

template <class T>
__global__ void gates(const T* z, const T* c, T* h_new, T* c_new, T* gates, long long R, long long H) {
    const long long unit = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (unit >= R * H) return;
    const long long first = unit / H * 4 * H + unit % H;
    const T i = sigmoid(z[first]), f = sigmoid(z[first + H]), g = tanh(z[first + 2 * H]), o = sigmoid(z[first + 3 * H]);
    const T state = f * c[unit] + i * g;
    gates[first] = i, gates[first + H] = f, gates[first + 2 * H] = g, gates[first + 3 * H] = o;
    c_new[unit] = state;
    h_new[unit] = o * tanh(state);
}

template <class T>
__global__ void gates_backward(const T* gh, const T* gc, const T* c, const T* c_new, const T* gates, T* gz, T* gc_before,
                               long long R, long long H) {
    const long long unit = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (unit >= R * H) return;
    const long long first = unit / H * 4 * H + unit % H;
    const Gates<T> a(gates, first, H);
    const T t = tanh(c_new[unit]), s = gc[unit] + gh[unit] * a.o * (1 - t * t);
    gz[first] = s * a.g * a.i * (1 - a.i);
    gz[first + H] = s * c[unit] * a.f * (1 - a.f);
    gz[first + 2 * H] = s * a.i * (1 - a.g * a.g);
    gz[first + 3 * H] = gh[unit] * t * a.o * (1 - a.o);
    gc_before[unit] = s * a.f;
}

template <class T>
__global__ void gates_double_backward(const T* u, const T* v, const T* gh, const T* gc, const T* c, const T* c_new,
                                      const T* gates, T* ugh, T* ugc, T* uz, T* uc, long long R, long long H) {
    const long long unit = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (unit >= R * H) return;
    const long long first = unit / H * 4 * H + unit % H;
    const Gates<T> a(gates, first, H), by(u, first, H);
    const T di = a.i * (1 - a.i), df = a.f * (1 - a.f), dg = 1 - a.g * a.g, d_o = a.o * (1 - a.o);
    const T t = tanh(c_new[unit]), dt = 1 - t * t;
    const T s = gc[unit] + gh[unit] * a.o * dt;
    const T k = by.i * a.g * di + by.f * c[unit] * df + by.g * a.i * dg + v[unit] * a.f;
    const T w = gh[unit] * dt * (by.o * d_o - 2 * k * a.o * t);
    ugc[unit] = k;
    ugh[unit] = by.o * t * d_o + k * a.o * dt;
    uz[first] = s * di * (by.i * a.g * (1 - 2 * a.i) + by.g * dg) + w * a.g * di;
    uz[first + H] = s * df * (by.f * c[unit] * (1 - 2 * a.f) + v[unit]) + w * c[unit] * df;
    uz[first + 2 * H] = s * dg * (by.i * di - 2 * by.g * a.i * a.g) + w * a.i * dg;
    uz[first + 3 * H] = gh[unit] * d_o * (by.o * t * (1 - 2 * a.o) + k * dt);
    uc[unit] = s * by.f * df + w * a.f;
}
