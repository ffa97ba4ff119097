// What CUDA adds to C++, in terms of C++: with this header before it, g++ compiles the text of a .cu file as it is.
//
// A launch runs one block at a time, and of a block one thread at a time, until that thread waits or returns.
// Threads are fibers. They run in two orders, forward and reversed, and the caller compares the results: a
// missing barrier lets a thread see what its neighbours have not yet written, or have already overwritten, and
// which neighbours these are depends on the order. Shared memory starts as NaN in every block.
//
// A launch stops with an error, which names the kernel, the block, threads and lines, where
//   - threads of a block wait at different barriers, or some of them have returned
//   - a mask of a warp function names a lane that does something else, or a shuffle reads a lane outside it
//   - an index leaves an array of known length (g++ -fsanitize=bounds), shared memory included
//   - dynamic shared memory is written behind its end
//   - a protected page is read or written, as the caller has them on either side of its arrays.
// A .cu file may have no mutable variables of its own but shared ones: all of .bss is taken for shared memory.

#pragma once
#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <ucontext.h>

#include <memory>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

struct uint3 { unsigned x, y, z; };
struct dim3 { unsigned x = 1, y = 1, z = 1; };

#define OUTSIDE_BSS __attribute__((section("cuda_host")))
OUTSIDE_BSS uint3 threadIdx = {}, blockIdx = {};
OUTSIDE_BSS dim3 blockDim, gridDim;
constexpr int warpSize = 32;

extern "C" __attribute__((visibility("hidden"))) char __bss_start[], _end[];

namespace cuda_host {

constexpr size_t STACK = (1 << 17) + 17 * 64;  // no power of two: the tops of stacks should not share cache lines
constexpr size_t GUARD = 4096;
constexpr unsigned char POISON = 0xff;  // a NaN of any width

// --- threads and where they wait ------------------------------------------------------------------

enum State { READY, IN_BLOCK_BARRIER, IN_WARP_FUNCTION, RETURNED };

struct Thread {
    uint3 index;
    State state = RETURNED;
    const char* function = nullptr;  // in which it waits, and its line there
    int line = 0;
    unsigned mask = 0;
    uint64_t sent = 0;  // to the lanes of its warp, or its vote
    jmp_buf context;
};

struct Machine {
    std::string error;
    std::vector<Thread> threads;
    std::unique_ptr<char[]> stacks;
    std::vector<uint64_t> received;  // what every thread sent to its warp, once all have
    unsigned votes = 0;              // threads with a true predicate in the last block barrier
    std::vector<char> dynamic_shared;
    size_t dynamic_bytes = 0;
    bool rounds_by_order = false;  // whether numbers were added atomically
    Thread* current = nullptr;
    jmp_buf scheduler;
    void (*body)(void**) = nullptr;
    void** arguments = nullptr;

    unsigned place(const Thread& t) const { return &t - threads.data(); }
    unsigned lane(const Thread& t) const { return place(t) % warpSize; }
    Thread* in_warp_of(const Thread& t, unsigned lane) {
        const unsigned other = place(t) - place(t) % warpSize + lane;
        return other < threads.size() ? &threads[other] : nullptr;
    }
};

OUTSIDE_BSS Machine* machine = nullptr;

inline std::string triple(const uint3& v) {
    return "(" + std::to_string(v.x) + ", " + std::to_string(v.y) + ", " + std::to_string(v.z) + ")";
}

inline std::string describe(const Thread& t) {
    std::string where = t.state == RETURNED ? " has returned"
                                            : std::string(" waits in ") + t.function + ", line " + std::to_string(t.line);
    return "thread " + triple(t.index) + where;
}

// A fiber stops here, and goes on when the scheduler comes back to it. _setjmp and _longjmp leave the
// signal mask alone; swapcontext makes a system call each time.
__attribute__((noinline)) inline void stop(State state) {
    machine->current->state = state;
    if (_setjmp(machine->current->context) == 0) _longjmp(machine->scheduler, 1);
}

[[noreturn]] __attribute__((noinline)) inline void fail(const std::string& what) {
    machine->error = what;
    _longjmp(machine->scheduler, 1);
}

inline void fiber() {
    for (;;) {
        stop(RETURNED);  // until the next block
        machine->body(machine->arguments);
    }
}

__attribute__((noinline)) inline void resume(Thread& t) {
    machine->current = &t;
    threadIdx = t.index;
    if (_setjmp(machine->scheduler) == 0) _longjmp(t.context, 1);
}

__attribute__((noinline)) inline void start(Thread& t, char* stack) {
    ucontext_t context;
    getcontext(&context);
    context.uc_stack.ss_sp = stack;
    context.uc_stack.ss_size = STACK;
    context.uc_link = nullptr;
    makecontext(&context, fiber, 0);
    machine->current = &t;
    if (_setjmp(machine->scheduler) == 0) setcontext(&context);
}

// --- memory that is not the kernel's --------------------------------------------------------------

// An array, `first` ... `end`, the ends of the protected pages on either side, and which argument it is.
struct Guard {
    char *before, *first, *end, *behind;
    int argument;
};

OUTSIDE_BSS const Guard* guards = nullptr;
OUTSIDE_BSS int guards_size = 0;
OUTSIDE_BSS struct sigaction handler_before = {};

// Names the argument whose pages were touched; any other fault is for whoever handled faults before.
inline void touched(int, siginfo_t* info, void*) {
    char* at = static_cast<char*>(info->si_addr);
    for (const Guard* g = guards; g < guards + guards_size; g++) {
        const bool is_before = at >= g->before && at < g->first;
        if (!is_before && !(at >= g->end && at < g->behind)) continue;
        const std::string bytes = std::to_string(is_before ? g->first - at : at - g->end);
        fail("argument " + std::to_string(g->argument) + ": thread " + triple(threadIdx) + " reads or writes outside of the array, " +
             bytes + (is_before ? " bytes before its beginning" : " bytes behind its end"));
    }
    sigaction(SIGSEGV, &handler_before, nullptr);
}

// While it lives, touching the guards' pages stops the launch.
struct Guarded {
    Guarded(const Guard* g, int n) {
        guards = g, guards_size = n;
        struct sigaction action = {};
        action.sa_sigaction = touched, action.sa_flags = SA_SIGINFO | SA_NODEFER;  // _longjmp restores no mask
        sigaction(SIGSEGV, &action, &handler_before);
    }
    ~Guarded() { sigaction(SIGSEGV, &handler_before, nullptr); }
};

// --- the scheduler --------------------------------------------------------------------------------

// Lets the threads of a mask go on, if all of them have come; lanes that the block does not have are not waited for.
inline bool release_warp(Thread& t) {
    for (unsigned lane = 0; lane < warpSize; lane++) {
        const Thread* other = machine->in_warp_of(t, lane);
        const bool named = t.mask >> lane & 1 && other;
        if (named && (other->state != IN_WARP_FUNCTION || other->mask != t.mask || other->line != t.line)) return false;
    }
    for (unsigned lane = 0; lane < warpSize; lane++) {
        Thread* other = machine->in_warp_of(t, lane);
        if (!(t.mask >> lane & 1 && other)) continue;
        machine->received[machine->place(*other)] = other->sent;
        other->state = READY;
    }
    return true;
}

inline bool release_block() {
    const Thread& first = machine->threads[0];
    unsigned votes = 0;
    for (const Thread& t : machine->threads) {
        if (t.state != IN_BLOCK_BARRIER || t.line != first.line) return false;
        votes += t.sent != 0;
    }
    machine->votes = votes;
    for (Thread& t : machine->threads) t.state = READY;
    return true;
}

inline std::string divergence() {
    const Thread& first = machine->threads[0];
    for (const Thread& t : machine->threads)
        if (t.state == IN_WARP_FUNCTION) {
            for (unsigned lane = 0; lane < warpSize; lane++) {
                const Thread* other = machine->in_warp_of(t, lane);
                if (t.mask >> lane & 1 && other && (other->state != t.state || other->mask != t.mask || other->line != t.line))
                    return "the mask names a thread that does not take part: " + describe(t) + ", " + describe(*other);
            }
        }
    for (const Thread& t : machine->threads)
        if (t.state != first.state || t.line != first.line)
            return "diverging barriers: " + describe(first) + ", " + describe(t);
    return "no thread can go on: " + describe(first);
}

// Runs one block; false, with machine->error set, where it cannot be finished.
inline bool run_block(bool reversed) {
    std::vector<Thread>& threads = machine->threads;
    memset(__bss_start, POISON, _end - __bss_start);
    memset(machine->dynamic_shared.data(), POISON, machine->dynamic_shared.size());
    for (Thread& t : threads) t.state = READY;
    for (;;) {
        // all that can run do, before anyone is released: so none misses what `received` and `votes` held
        for (size_t i = 0; i < threads.size(); i++) {
            Thread& t = threads[reversed ? threads.size() - 1 - i : i];
            if (t.state == READY) resume(t);
            if (!machine->error.empty()) return false;
        }
        bool released = false, waiting = false;
        for (Thread& t : threads) {
            if (t.state == IN_WARP_FUNCTION) released |= release_warp(t);
            waiting |= t.state != RETURNED;
        }
        if (!waiting) break;
        if (released || release_block()) continue;
        machine->error = divergence();
        return false;
    }
    for (size_t i = machine->dynamic_bytes; i < machine->dynamic_shared.size(); i++)
        if ((unsigned char)machine->dynamic_shared[i] != POISON) {
            machine->error = "written behind its " + std::to_string(machine->dynamic_bytes) + " bytes of dynamic shared memory";
            return false;
        }
    return true;
}

OUTSIDE_BSS char text[1 << 12] = "";  // what the caller reads; good until the next call

inline const char* write(const std::string& what) {
    strncpy(text, what.c_str(), sizeof text - 1);
    return text;
}

template <class... P, size_t... I>
void call(void (*kernel)(P...), void** arguments, std::index_sequence<I...>) {
    kernel(*static_cast<std::remove_cv_t<P>*>(arguments[I])...);
}

template <auto kernel> struct Call;
template <class... P, void (*kernel)(P...)> struct Call<kernel> {
    static void body(void** arguments) { call(kernel, arguments, std::index_sequence_for<P...>()); }

    // a word for each parameter: NumPy's kind and size of the number, after a * for a pointer to it
    static const char* signature() { return write((std::string() + ... + word<P>())); }
    template <class T> static std::string word() {
        using Number = std::remove_cv_t<std::remove_pointer_t<T>>;
        static_assert(std::is_arithmetic_v<Number>, "a kernel takes numbers and pointers to numbers");
        const char* kind = std::is_same_v<Number, bool>           ? "b"
                           : std::is_floating_point_v<Number>     ? "f"
                           : std::is_signed_v<Number>             ? "i"
                                                                  : "u";
        return (std::is_pointer_v<T> ? " *" : " ") + (kind + std::to_string(sizeof(Number)));
    }
};

// The error, or "". arguments[i] points to the i-th argument.
inline const char* launch(void (*body)(void**), const char* kernel, const unsigned* grid, const unsigned* block,
                          size_t dynamic_bytes, void** arguments, const Guard* guards, int guards_size, bool reversed,
                          bool* rounds_by_order) {
    const Guarded guarded(guards, guards_size);
    gridDim = {grid[0], grid[1], grid[2]}, blockDim = {block[0], block[1], block[2]};
    const size_t size = size_t(blockDim.x) * blockDim.y * blockDim.z;
    // fibers that a launch has brought to their end serve the next one of this size
    if (!machine || machine->threads.size() != size || !machine->error.empty()) {
        delete machine;
        machine = new Machine;
        machine->threads.resize(size), machine->received.resize(size);
        machine->stacks.reset(new char[size * STACK]);  // untouched memory costs nothing
        for (size_t i = 0; i < size; i++) start(machine->threads[i], machine->stacks.get() + i * STACK);
    }
    for (size_t i = 0; i < size; i++)
        machine->threads[i].index = {unsigned(i % blockDim.x), unsigned(i / blockDim.x % blockDim.y), unsigned(i / blockDim.x / blockDim.y)};
    machine->body = body, machine->arguments = arguments, machine->rounds_by_order = false;
    machine->dynamic_bytes = dynamic_bytes, machine->dynamic_shared.resize(dynamic_bytes + GUARD);
    std::string error;
    const size_t blocks = size_t(gridDim.x) * gridDim.y * gridDim.z;
    for (size_t n = 0; n < blocks && error.empty(); n++) {
        const size_t b = reversed ? blocks - 1 - n : n;
        blockIdx = {unsigned(b % gridDim.x), unsigned(b / gridDim.x % gridDim.y), unsigned(b / gridDim.x / gridDim.y)};
        if (!run_block(reversed)) error = std::string(kernel) + ", block " + triple(blockIdx) + ": " + machine->error;
    }
    *rounds_by_order = machine->rounds_by_order;
    return write(error);
}

// --- what threads of a block do together ----------------------------------------------------------

inline void wait(State state, const char* function, int line, unsigned mask, uint64_t sent) {
    Thread& t = *machine->current;
    t.function = function, t.line = line, t.mask = mask, t.sent = sent;
    if (state == IN_WARP_FUNCTION && !(mask >> machine->lane(t) & 1))
        fail("thread " + triple(t.index) + " calls " + function + ", line " + std::to_string(line) + ", with a mask it is not in");
    stop(state);
}

inline void syncthreads(int line) { wait(IN_BLOCK_BARRIER, "__syncthreads", line, 0, 0); }

inline unsigned syncthreads_count(const char* function, int line, bool vote) {
    wait(IN_BLOCK_BARRIER, function, line, 0, vote);
    return machine->votes;
}

struct Syncwarp {
    int line;
    void operator()(unsigned mask = 0xffffffffu) const { wait(IN_WARP_FUNCTION, "__syncwarp", line, mask, 0); }
};

// the votes of the lanes in the mask
inline unsigned ballot(const char* function, int line, unsigned mask, bool vote) {
    wait(IN_WARP_FUNCTION, function, line, mask, vote);
    const Thread& t = *machine->current;
    unsigned votes = 0;
    for (unsigned lane = 0; lane < warpSize; lane++) {
        const Thread* other = machine->in_warp_of(t, lane);
        if (mask >> lane & 1 && other && machine->received[machine->place(*other)]) votes |= 1u << lane;
    }
    return votes;
}

// the value that the lane source(own lane, first of its section, width) has sent
template <class T, class Source>
T shuffle(const char* function, int line, unsigned mask, T value, int width, Source source) {
    static_assert(sizeof(T) == 4 || sizeof(T) == 8);
    uint64_t bits = 0;
    memcpy(&bits, &value, sizeof value);
    wait(IN_WARP_FUNCTION, function, line, mask, bits);
    const Thread& t = *machine->current;
    const int lane = machine->lane(t), from = source(lane, lane / width * width);
    const Thread* other = machine->in_warp_of(t, from);
    if (!other || !(mask >> from & 1))
        fail("thread " + triple(t.index) + " reads lane " + std::to_string(from) + " in " + function + ", line " +
             std::to_string(line) + ", which takes no part");
    memcpy(&value, &machine->received[machine->place(*other)], sizeof value);
    return value;
}

template <class T> T shuffle_idx(int line, unsigned mask, T value, int from, int width = warpSize) {
    return shuffle("__shfl_sync", line, mask, value, width, [=](int, int first) { return first + (from & (width - 1)); });
}
template <class T> T shuffle_up(int line, unsigned mask, T value, unsigned by, int width = warpSize) {
    return shuffle("__shfl_up_sync", line, mask, value, width,
                   [=](int lane, int first) { return lane - int(by) >= first ? lane - int(by) : lane; });
}
template <class T> T shuffle_down(int line, unsigned mask, T value, unsigned by, int width = warpSize) {
    return shuffle("__shfl_down_sync", line, mask, value, width,
                   [=](int lane, int first) { return lane + int(by) < first + width ? lane + int(by) : lane; });
}
template <class T> T shuffle_xor(int line, unsigned mask, T value, int by, int width = warpSize) {
    return shuffle("__shfl_xor_sync", line, mask, value, width,
                   [=](int lane, int first) { return (lane ^ by) < first + width ? lane ^ by : lane; });
}

// --- indices out of bounds, as g++ -fsanitize=bounds reports them ---------------------------------

struct Location { const char* file; uint32_t line, column; };

}  // namespace cuda_host

extern "C" inline __attribute__((used)) void __ubsan_handle_out_of_bounds(cuda_host::Location* at, uintptr_t index) {
    cuda_host::fail("thread " + cuda_host::triple(threadIdx) + " uses the index " + std::to_string(intptr_t(index)) +
                    " outside of an array, line " + std::to_string(at->line));
}

// --- CUDA's names ---------------------------------------------------------------------------------

#define __global__
#define __host__
#define __device__ __attribute__((unused))
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __shared__ static

#define __syncthreads() cuda_host::syncthreads(__LINE__)
#define __syncthreads_count(vote) int(cuda_host::syncthreads_count("__syncthreads_count", __LINE__, vote))
#define __syncthreads_or(vote) int(cuda_host::syncthreads_count("__syncthreads_or", __LINE__, vote) > 0)
#define __syncthreads_and(vote) \
    int(cuda_host::syncthreads_count("__syncthreads_and", __LINE__, vote) == blockDim.x * blockDim.y * blockDim.z)
#define __syncwarp cuda_host::Syncwarp{__LINE__}
#define __shfl_sync(...) cuda_host::shuffle_idx(__LINE__, __VA_ARGS__)
#define __shfl_up_sync(...) cuda_host::shuffle_up(__LINE__, __VA_ARGS__)
#define __shfl_down_sync(...) cuda_host::shuffle_down(__LINE__, __VA_ARGS__)
#define __shfl_xor_sync(...) cuda_host::shuffle_xor(__LINE__, __VA_ARGS__)
#define __ballot_sync(mask, vote) cuda_host::ballot("__ballot_sync", __LINE__, mask, vote)
#define __any_sync(mask, vote) int(cuda_host::ballot("__any_sync", __LINE__, mask, vote) != 0)
#define __all_sync(mask, vote) int(cuda_host::ballot("__all_sync", __LINE__, mask, !(vote)) == 0)

template <class T> T atomicAdd(T* p, std::common_type_t<T> value) {
    cuda_host::machine->rounds_by_order |= std::is_floating_point_v<T>;
    return std::exchange(*p, *p + value);
}
template <class T> T atomicMax(T* p, std::common_type_t<T> value) { return std::exchange(*p, *p < value ? value : *p); }
template <class T> T atomicMin(T* p, std::common_type_t<T> value) { return std::exchange(*p, value < *p ? value : *p); }
template <class T> T atomicCAS(T* p, std::common_type_t<T> compare, std::common_type_t<T> value) { return std::exchange(*p, *p == compare ? value : *p); }

template <class A, class B> std::common_type_t<A, B> max(A a, B b) { return a < b ? b : a; }
template <class A, class B> std::common_type_t<A, B> min(A a, B b) { return b < a ? b : a; }
template <class T> T __ldg(const T* p) { return *p; }
inline float rsqrtf(float x) { return 1 / sqrtf(x); }
inline float rsqrt(float x) { return 1 / sqrtf(x); }
inline double rsqrt(double x) { return 1 / ::sqrt(x); }
inline float __fdividef(float x, float y) { return x / y; }
// libm has __expf and __logf of its own
#define __expf(x) expf(x)
#define __logf(x) logf(x)

#define ENTRY(number, ...)                                                                                             \
    extern "C" __attribute__((visibility("default"))) const char* launch_##number(                                     \
        const unsigned* grid, const unsigned* block, size_t dynamic_bytes, void** arguments,                           \
        const cuda_host::Guard* guards, int guards_size, bool reversed, bool* atomic) {                                \
        return cuda_host::launch(cuda_host::Call<&__VA_ARGS__>::body, #__VA_ARGS__, grid, block, dynamic_bytes, arguments, \
                                 guards, guards_size, reversed, atomic);                                               \
    }                                                                                                                  \
    extern "C" __attribute__((visibility("default"))) const char* signature_##number() {                               \
        return cuda_host::Call<&__VA_ARGS__>::signature();                                                             \
    }
