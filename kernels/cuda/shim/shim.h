// CUDA on a CPU, as far as kernels.cu needs it: built-ins, intrinsics, warp collectives, barriers, shared memory, cp.async and
// the integer mma. Every CUDA thread is a fibre; what would wait on a GPU yields. Results are exact; speed, memory order
// between blocks and bank conflicts are not shown. The scheduler stands in shim.cpp.
#pragma once
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <utility>

#define __global__
#define __device__
#define __forceinline__ inline
#define SHARED(type, name) type &name = *(type *)shim::static_shared(sizeof(type))
#define DYNAMIC_SHARED(type, name) type *name = (type *)shim::dynamic_shared()
#define __syncthreads() shim::barrier(__LINE__)
#define threadIdx (shim::thread_index())
#define blockIdx (shim::block_index())
#define blockDim (shim::block_extent())
#define gridDim (shim::grid_extent())

struct int2 { int x, y; };
struct uint2 { unsigned x, y; };
struct float2 { float x, y; };
struct alignas(16) int4 { int x, y, z, w; };
struct alignas(16) uint4 { unsigned x, y, z, w; };
inline int2 make_int2(int x, int y) { return {x, y}; }
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline float2 make_float2(float x, float y) { return {x, y}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }

namespace shim {

struct Index { unsigned x, y, z; };

// What a lane shows the others in a collective: up to eight words.
struct Words { unsigned word[8]; };

const Index &thread_index();
const Index &block_index();
const Index &block_extent();
const Index &grid_extent();
unsigned lane();
void *static_shared(size_t bytes);
void *dynamic_shared();
void barrier(unsigned line);
// Publishes `mine`, waits until the whole warp has, and gives what all 32 lanes published; valid until the next collective.
const Words *exchange(unsigned mask, unsigned operation, const Words &mine);
void copy_later(void *to, const void *from, unsigned bytes);
void copy_all();

template <class T> T shuffle(unsigned mask, unsigned operation, T value, int source) {
    static_assert(sizeof(T) <= sizeof(Words), "a lane shows at most 32 bytes");
    Words mine;
    memcpy(&mine, &value, sizeof value);
    T found;
    memcpy(&found, &exchange(mask, operation, mine)[source & 31], sizeof found);
    return found;
}

inline int dot4(unsigned a, unsigned b) {
    int sum = 0;
    for (int i = 0; i < 4; i++) sum += (int)(int8_t)(a >> 8 * i) * (int)(int8_t)(b >> 8 * i);
    return sum;
}

// void** args, as cuLaunchKernel takes them: one pointer an argument.
template <class... A, size_t... I> void call(void (*kernel)(A...), void **args, std::index_sequence<I...>) { kernel(*(A *)args[I]...); }
template <class... A> void unpack(void (*kernel)(A...), void **args) { call(kernel, args, std::index_sequence_for<A...>{}); }

}  // namespace shim

template <class T> T __shfl_xor_sync(unsigned mask, T value, int step) { return shim::shuffle(mask, 1, value, (int)shim::lane() ^ step); }
template <class T> T __shfl_sync(unsigned mask, T value, int source, int width) {
    return shim::shuffle(mask, 2, value, ((int)shim::lane() & ~(width - 1)) | (source & (width - 1)));
}

inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __fmaf_rn(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
inline float __fsqrt_rn(float a) { return __builtin_sqrtf(a); }
inline float __int2float_rn(int a) { return (float)a; }
// Saturates and takes NaN for 0, as cvt.rni.s32.f32 does.
inline int __float2int_rn(float a) {
    if (!(a == a)) return 0;
    if (a >= 2147483648.0f) return 2147483647;
    if (a < -2147483648.0f) return -2147483647 - 1;
    return (int)__builtin_rintf(a);
}
inline int __float_as_int(float a) { int b; memcpy(&b, &a, 4); return b; }
inline float __int_as_float(int a) { float b; memcpy(&b, &a, 4); return b; }
inline int __dp4a(int a, int b, int c) { return c + shim::dot4((unsigned)a, (unsigned)b); }
inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
    return (unsigned long long)((unsigned __int128)a * b >> 64);
}
// Fibres of a block share one thread of the machine: nobody interrupts this.
inline unsigned long long atomicAdd(unsigned long long *at, unsigned long long value) {
    unsigned long long before = *at;
    *at += value;
    return before;
}

// IEEE binary16 by integers: no compiler flag, no processor feature.
inline float f16_to_f32(unsigned short half) {
    unsigned sign = (unsigned)(half & 0x8000) << 16, exponent = half >> 10 & 31, mantissa = half & 1023, bits;
    if (exponent == 0)
        bits = (unsigned)__float_as_int((float)mantissa * (1.0f / 16777216.0f));
    else
        bits = exponent == 31 ? 0x7f800000 | mantissa << 13 : (exponent + 112) << 23 | mantissa << 13;
    return __int_as_float((int)(sign | bits));
}
inline unsigned short f32_to_f16(float value) {
    unsigned bits = (unsigned)__float_as_int(value), sign = bits >> 16 & 0x8000, magnitude = bits & 0x7fffffff, half;
    if (magnitude > 0x7f800000) half = 0x7fff;
    else if (magnitude >= 0x47800000) half = 0x7c00;
    else if (magnitude < 0x38800000) half = (unsigned)__float_as_int(__int_as_float((int)magnitude) + 0.5f) - 0x3f000000;
    else half = (magnitude + 0xfff + (magnitude >> 13 & 1) - 0x38000000) >> 13;
    return (unsigned short)(sign | half);
}

// The data arrive when this thread waits for them, no earlier: a kernel that forgets to wait reads poison.
template <int BYTES> void copy_start(void *shared, const void *global) { shim::copy_later(shared, global, BYTES); }
inline void copy_wait() { shim::copy_all(); }

inline void mma_s8(int c[4], const int a[4], const int b[2]) {
    shim::Words mine = {{(unsigned)a[0], (unsigned)a[1], (unsigned)a[2], (unsigned)a[3], (unsigned)b[0], (unsigned)b[1], 0, 0}};
    const shim::Words *all = shim::exchange(0xffffffffu, 3, mine);
    unsigned g = shim::lane() / 4, k = shim::lane() % 4;
    for (unsigned i = 0; i < 4; i++) {
        unsigned half = i / 2, token = 2 * k + i % 2;
        c[i] = 0;
        for (unsigned part = 0; part < 4; part++) {
            const shim::Words &row = all[g * 4 + part], &column = all[token * 4 + part];
            c[i] += shim::dot4(row.word[half], column.word[4]) + shim::dot4(row.word[half + 2], column.word[5]);
        }
    }
}
