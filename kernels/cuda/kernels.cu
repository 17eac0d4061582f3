// CUDA kernels of `counterfoil-numerics-1` (specs/numerics.md, sections A to I and "CUDA"). One source, two compilers:
// NVRTC for a GPU (kernels.ptx is what it makes of this file), and a C++ compiler with shim/shim.h for a CPU without one.
//
// Lives here: every operation of a forward pass, and the choice of a token. Not here: the order of launches
// (kernels/src/cuda/forward.rs) and the layout of weights (kernels/src/cuda/matrix.rs), which this file only reads.
//
// Rules, checked by `cargo xtask ptx`: an f32 operation is an intrinsic with its rounding in its name (__fmul_rn, __fadd_rn,
// __fsub_rn, __fmaf_rn, __fdiv_rn, __fsqrt_rn), because the compiler may contract a plain `a*b+c`; no approximation, no f32
// atomics, no tensor cores but the integer ones. Floats are summed in the order of the specification whatever the geometry.
//
// Words: a "block" is 32 elements of a row, a "row" of a pass is one position of one sequence, a "slot" is a block of weights.

#ifdef __CUDACC__
#define SHARED(type, name) __shared__ type name
#define DYNAMIC_SHARED(type, name)               \
    extern __shared__ uint4 dynamic_shared_[];   \
    type *name = (type *)dynamic_shared_
__device__ __forceinline__ float f16_to_f32(unsigned short half) {
    float value;
    asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(half));
    return value;
}
__device__ __forceinline__ unsigned short f32_to_f16(float value) {
    unsigned short half;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(half) : "f"(value));
    return half;
}
// c = A (16 x 32, row-major) x B (32 x 8, column-major), exact integers. Fragments: PTX ISA, mma.m16n8k32.
__device__ __forceinline__ void mma_s8(int c[4], const int a[4], const int b[2]) {
    asm volatile("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%10,%10,%10,%10};"
                 : "=r"(c[0]), "=r"(c[1]), "=r"(c[2]), "=r"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]), "r"(0));
}
// Starts a copy of BYTES (4 or 16) from global to shared memory; its end is awaited by copy_wait.
template <int BYTES> __device__ __forceinline__ void copy_start(void *shared, const void *global) {
    unsigned to = (unsigned)__cvta_generic_to_shared(shared);
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2;" ::"r"(to), "l"(global), "n"(BYTES) : "memory");
}
// Waits for the copies this thread has started. Those of other threads are visible after a barrier.
__device__ __forceinline__ void copy_wait() { asm volatile("cp.async.wait_all;" ::: "memory"); }
#endif

typedef unsigned long long u64;

#define ALL_LANES 0xffffffffu
// A block whose largest magnitude is below 2^-119 counts as zero (A).
#define QUANTISE_MIN __int_as_float((127 - 119) << 23)
// Keys of an attention tile, positions of a page (F).
#define PAGE 64
// Tokens of one gemv.
#define GEMV_TOKENS 8
// Tokens, and blocks at a time, of one gemm tile.
#define GEMM_TOKENS 32
#define GEMM_BLOCKS 4
// Bytes from token to token in a gemm stage: 128 of data, 16 so that eight tokens lie in different banks.
#define GEMM_STRIDE 144
// Threads of a block of `sample`.
#define SAMPLE_THREADS 256
#define NO_TOKEN 0xffffffffu

// Tensor types, as kernels/src/cuda/matrix.rs numbers them.
enum { F32, F16, BF16, Q4_0, Q4_1, Q8_0, Q4_K, Q6_K };

// Weights, `rows` x (32 * blocks). Strips of c = ceil(blocks / 8) blocks (B). Block b of row r is slot
// ((r / 4) * c + b % c) * 32 + (r % 4) * 8 + b / c: the 32 slots that a warp reads together lie side by side.
//   low     16 bytes a slot: Q4_*, Q6_K: byte i = element i in the low nibble, i + 16 in the high one; Q8_0: elements 0..16;
//           F16, BF16: 64 bytes a slot, F32: 128
//   high    Q8_0: 16 bytes a slot, elements 16..32; Q6_K: 8 bytes a slot, byte i of word h holds bits 4 and 5 of elements
//           16h + 4k + i in bits 2k and 2k + 1
//   scales  a slot: Q4_0, Q8_0: f16 d; Q4_1: f16 d, f16 m; Q4_K: u8 scale, u8 minimum; Q6_K: i8 of each half
//   supers  [row][blocks / 8]: Q4_K: f16 d, f16 dmin; Q6_K: f16 d
struct Matrix {
    const unsigned char *low, *high, *scales, *supers;
    unsigned rows, blocks;
};

// Activations of a pass: [row][32 * blocks] and, per block, [row][blocks] (A).
struct Activations {
    float *values;
    signed char *quants;
    float *scales;
    float *sums;
    int *integer_sums;
};

// A row of a pass. Its pages are pages[first_page..]; page p holds positions 64p..64p+63 of all layers.
struct Row {
    unsigned token, position, first_page, unused;
};

// How a token is chosen (I). random = the two words of Philox, r0 << 32 | r1; 0 <= temperature; top_k 0: off.
struct Choice {
    float temperature;
    unsigned top_k, top_p_millionths, min_p_millionths;
    u64 random;
};

__device__ __forceinline__ bool is_bad(float value) {
    return (__float_as_int(value) & 0x7fffffff) >= 0x7f800000;
}

__device__ __forceinline__ float magnitude(float value) { return __int_as_float(__float_as_int(value) & 0x7fffffff); }

// G.
__device__ __forceinline__ float exponential(float x) {
    x = x > -87.0f ? x : -87.0f;
    x = x < 88.0f ? x : 88.0f;
    float n = rintf(__fmul_rn(x, 1.44269504f));
    float r = __fmaf_rn(n, -0.693359375f, x);
    r = __fmaf_rn(n, 2.12194440e-4f, r);
    float p = 1.9875691500e-4f;
    p = __fmaf_rn(p, r, 1.3981999507e-3f);
    p = __fmaf_rn(p, r, 8.3334519073e-3f);
    p = __fmaf_rn(p, r, 4.1665795894e-2f);
    p = __fmaf_rn(p, r, 1.6666665459e-1f);
    p = __fmaf_rn(p, r, 5.0000001201e-1f);
    float y = __fadd_rn(__fmaf_rn(p, __fmul_rn(r, r), r), 1.0f);
    return __int_as_float(__float_as_int(y) + (__float2int_rn(n) << 23));
}

// A, for one block: `value` is element `lane`; the whole warp calls. Marks the row where a value is not finite.
__device__ __forceinline__ void quantise_block(float value, size_t block, Activations out, int *bad) {
    unsigned lane = threadIdx.x & 31;
    float largest = magnitude(value);
    for (int step = 16; step; step >>= 1) {
        float other = __shfl_xor_sync(ALL_LANES, largest, step);
        largest = other > largest ? other : largest;
    }
    bool zero = largest < QUANTISE_MIN;
    float inverse = zero ? 0.0f : __fdiv_rn(127.0f, largest);
    float scale = zero ? 0.0f : __fdiv_rn(largest, 127.0f);
    int quant = __float2int_rn(__fmul_rn(value, inverse));
    int sum = quant;
    for (int step = 16; step; step >>= 1) sum += __shfl_xor_sync(ALL_LANES, sum, step);
    out.values[block * 32 + lane] = value;
    out.quants[block * 32 + lane] = (signed char)quant;
    if (is_bad(value)) *bad = 1;
    if (lane == 0) {
        out.scales[block] = scale;
        out.integer_sums[block] = sum;
        out.sums[block] = __fmul_rn(scale, __int2float_rn(sum));
    }
}

// ------------------------------------------------------------------------------------------------------------- weights

__device__ __forceinline__ size_t slot_of(const Matrix &m, unsigned row, unsigned block) {
    unsigned c = (m.blocks + 7) / 8;
    return ((size_t)(row / 4) * c + block % c) * 32 + (row % 4) * 8 + block / c;
}

__device__ __forceinline__ float half_at(const unsigned char *plane, size_t index) {
    return f16_to_f32(((const unsigned short *)plane)[index]);
}

// What a block's integers are multiplied with: fma(d * dx, f32(idot), acc), then fma(m, s, acc) (B).
struct Scale {
    float d, m;
    int first, second;  // Q6_K: scales of the two halves
};

template <int KIND> __device__ __forceinline__ Scale scale_of(const Matrix &m, size_t slot, unsigned row, unsigned block) {
    Scale scale = {0.0f, 0.0f, 0, 0};
    if (KIND == Q4_0 || KIND == Q8_0) scale.d = half_at(m.scales, slot);
    if (KIND == Q4_1) {
        scale.d = half_at(m.scales, 2 * slot);
        scale.m = half_at(m.scales, 2 * slot + 1);
    }
    size_t super = (size_t)row * (m.blocks / 8) + block / 8;
    if (KIND == Q4_K) {
        scale.d = __fmul_rn(half_at(m.supers, 2 * super), __int2float_rn(m.scales[2 * slot]));
        scale.m = -__fmul_rn(half_at(m.supers, 2 * super + 1), __int2float_rn(m.scales[2 * slot + 1]));
    }
    if (KIND == Q6_K) {
        scale.d = half_at(m.supers, super);
        scale.first = (signed char)m.scales[2 * slot];
        scale.second = (signed char)m.scales[2 * slot + 1];
    }
    return scale;
}

// Six-bit numbers 0..63 in four bytes to q - 32 in four signed bytes.
__device__ __forceinline__ int centre_6bit(unsigned quants) {
    unsigned flipped = quants ^ 0x20202020u, sign = flipped & 0x20202020u;
    return (int)(flipped | sign << 1 | sign << 2);
}

// Words k (columns 4k..4k+4) and 4 + k (columns 16 + 4k..) of a slot as signed bytes; `low`, `high` are what the planes hold.
template <int KIND> __device__ __forceinline__ int2 unpack(unsigned low, unsigned high_word, uint2 pairs, int k) {
    if (KIND == Q8_0) return make_int2((int)low, (int)high_word);
    unsigned first = low & 0x0f0f0f0fu, second = low >> 4 & 0x0f0f0f0fu;
    if (KIND == Q6_K) {
        first = centre_6bit(first | (pairs.x >> (2 * k) & 0x03030303u) << 4);
        second = centre_6bit(second | (pairs.y >> (2 * k) & 0x03030303u) << 4);
    }
    return make_int2((int)first, (int)second);
}

// One element as f32 (H, embedding): the stored value, one rounding.
__device__ float element(const Matrix &m, int kind, unsigned row, unsigned column) {
    unsigned block = column / 32, j = column % 32;
    size_t slot = slot_of(m, row, block);
    if (kind == F32) return ((const float *)m.low)[slot * 32 + j];
    if (kind == F16) return half_at(m.low, slot * 32 + j);
    if (kind == BF16) return __int_as_float((int)((const unsigned short *)m.low)[slot * 32 + j] << 16);
    if (kind == Q8_0) {
        const unsigned char *plane = j < 16 ? m.low : m.high;
        return __fmul_rn(half_at(m.scales, slot), __int2float_rn((signed char)plane[slot * 16 + j % 16]));
    }
    unsigned byte = m.low[slot * 16 + j % 16];
    int quant = (int)(j < 16 ? byte & 15 : byte >> 4);
    if (kind == Q4_0) return __fmul_rn(half_at(m.scales, slot), __int2float_rn(quant - 8));
    if (kind == Q4_1) {
        Scale scale = scale_of<Q4_1>(m, slot, row, block);
        return __fmaf_rn(scale.d, __int2float_rn(quant), scale.m);
    }
    if (kind == Q4_K) {
        Scale scale = scale_of<Q4_K>(m, slot, row, block);
        return __fmaf_rn(scale.d, __int2float_rn(quant), scale.m);
    }
    Scale scale = scale_of<Q6_K>(m, slot, row, block);
    unsigned pair = m.high[slot * 8 + j / 16 * 4 + j % 4] >> (j % 16 / 4 * 2) & 3;
    int half = j < 16 ? scale.first : scale.second;
    return __fmul_rn(__fmul_rn(scale.d, __int2float_rn(half)), __int2float_rn(quant + 16 * (int)pair - 32));
}

// H. stream[row][k] <- the embedding of the row's token; bad[row] <- 0. Grid (blocks, rows), 32 threads: a warp a block.
extern "C" __global__ void embed_gather(Matrix m, int kind, const Row *rows, float *stream, int *bad) {
    if (blockIdx.x == 0 && threadIdx.x == 0) bad[blockIdx.y] = 0;
    unsigned column = blockIdx.x * 32 + threadIdx.x;
    stream[(size_t)blockIdx.y * m.blocks * 32 + column] = element(m, kind, rows[blockIdx.y].token, column);
}

// --------------------------------------------------------------------------------------------------------------- norms

struct Chains {
    float sums[256];
};

// C up to r = 1 / sqrt(mean of squares + epsilon), of x[0..n]; all 256 threads call and get r. Marks `bad`.
__device__ __forceinline__ float inverse_rms(Chains &chains, const float *x, unsigned n, float epsilon, int *bad) {
    unsigned thread = threadIdx.x;
    float sum = 0.0f;
    for (unsigned i = thread; i < n; i += 256) sum = __fmaf_rn(x[i], x[i], sum);
    chains.sums[thread] = sum;
    __syncthreads();
    for (unsigned half = 128; half; half >>= 1) {
        if (thread < half) chains.sums[thread] = __fadd_rn(chains.sums[thread], chains.sums[thread + half]);
        __syncthreads();
    }
    float total = chains.sums[0];
    if (thread == 0 && is_bad(total)) *bad = 1;
    float mean = __fdiv_rn(total, __int2float_rn((int)n));
    return __fdiv_rn(1.0f, __fsqrt_rn(__fadd_rn(mean, epsilon)));
}

// H, C, A. stream[at] += delta[at] (no delta: nothing), out[row] <- quantised norm of it; at = index[row], or row without
// an index. Grid (rows), 256 threads: thread i is chain i, then a warp a block. stream, delta [..][n]; gain [n]; bad [..].
extern "C" __global__ void rmsnorm_q8(float *stream, const float *delta, const float *gain, const unsigned *index, Activations out,
                                      int *bad, unsigned n, float epsilon) {
    SHARED(Chains, chains);
    unsigned at = index ? index[blockIdx.x] : blockIdx.x;
    float *x = stream + (size_t)at * n;
    // Element i is thread i mod 256's here, in the chains and in the blocks below: no barrier between them.
    if (delta)
        for (unsigned i = threadIdx.x; i < n; i += 256) x[i] = __fadd_rn(x[i], delta[(size_t)at * n + i]);
    float r = inverse_rms(chains, x, n, epsilon, bad + at);
    for (unsigned block = threadIdx.x / 32; block < n / 32; block += 8) {
        unsigned i = block * 32 + threadIdx.x % 32;
        quantise_block(__fmul_rn(__fmul_rn(x[i], r), gain[i]), (size_t)blockIdx.x * (n / 32) + block, out, bad + at);
    }
}

// H of qwen2 and qwen3, in place before D: q, k, v += bias (if any); every head of q and of k <- C of it (if gains).
// projections [row][q | k | v]; bias as a row; gains [dim]. Grid (heads + 2 kv_heads, rows), 256 threads: a block a head.
extern "C" __global__ void bias_head_norm(float *projections, const float *bias, const float *query_gain, const float *key_gain,
                                          int *bad, unsigned heads, unsigned kv_heads, unsigned dim, float epsilon) {
    SHARED(Chains, chains);
    unsigned head = blockIdx.x, stride = (heads + 2 * kv_heads) * dim;
    float *x = projections + (size_t)blockIdx.y * stride + head * dim;
    if (bias)
        for (unsigned i = threadIdx.x; i < dim; i += 256) x[i] = __fadd_rn(x[i], bias[head * dim + i]);
    const float *gain = head < heads ? query_gain : key_gain;
    if (!gain || head >= heads + kv_heads) return;
    float r = inverse_rms(chains, x, dim, epsilon, bad + blockIdx.y);
    for (unsigned i = threadIdx.x; i < dim; i += 256) x[i] = __fmul_rn(__fmul_rn(x[i], r), gain[i]);
}

// ------------------------------------------------------------------------------------------------------------ products

// B for one block of one token: acc after the block; `x` counts blocks of activations.
template <int KIND> __device__ __forceinline__ float accumulate(const int quants[8], Scale scale, Activations in, size_t x, float acc) {
    const int4 *words = (const int4 *)(in.quants + x * 32);
    int4 a = words[0], b = words[1];
    int first = __dp4a(quants[0], a.x, __dp4a(quants[1], a.y, __dp4a(quants[2], a.z, __dp4a(quants[3], a.w, 0))));
    int second = __dp4a(quants[4], b.x, __dp4a(quants[5], b.y, __dp4a(quants[6], b.z, __dp4a(quants[7], b.w, 0))));
    int integer = KIND == Q6_K ? scale.first * first + scale.second * second : first + second;
    if (KIND == Q4_0) integer -= 8 * in.integer_sums[x];
    acc = __fmaf_rn(__fmul_rn(scale.d, in.scales[x]), __int2float_rn(integer), acc);
    if (KIND == Q4_1 || KIND == Q4_K) acc = __fmaf_rn(scale.m, in.sums[x], acc);
    return acc;
}

template <int KIND> __device__ __forceinline__ float float_weight(const unsigned char *low, size_t index) {
    if (KIND == F32) return ((const float *)low)[index];
    if (KIND == F16) return half_at(low, index);
    return __int_as_float((int)((const unsigned short *)low)[index] << 16);
}

template <int KIND>
__device__ __forceinline__ void block_quantised(const Matrix &m, size_t slot, unsigned row, unsigned block, Activations in,
                                                unsigned first, unsigned count, float sums[GEMV_TOKENS]) {
    uint4 low = ((const uint4 *)m.low)[slot], high = make_uint4(0, 0, 0, 0);
    uint2 pairs = make_uint2(0, 0);
    if (KIND == Q8_0) high = ((const uint4 *)m.high)[slot];
    if (KIND == Q6_K) pairs = ((const uint2 *)m.high)[slot];
    int2 w0 = unpack<KIND>(low.x, high.x, pairs, 0), w1 = unpack<KIND>(low.y, high.y, pairs, 1);
    int2 w2 = unpack<KIND>(low.z, high.z, pairs, 2), w3 = unpack<KIND>(low.w, high.w, pairs, 3);
    const int quants[8] = {w0.x, w1.x, w2.x, w3.x, w0.y, w1.y, w2.y, w3.y};
    Scale scale = scale_of<KIND>(m, slot, row, block);
#pragma unroll
    for (unsigned t = 0; t < GEMV_TOKENS; t++)
        if (t < count) sums[t] = accumulate<KIND>(quants, scale, in, (size_t)(first + t) * m.blocks + block, sums[t]);
}

template <int KIND>
__device__ __forceinline__ void block_float(const Matrix &m, size_t slot, unsigned block, Activations in, unsigned first,
                                            unsigned count, float sums[GEMV_TOKENS]) {
    for (unsigned j = 0; j < 32; j++) {
        float weight = float_weight<KIND>(m.low, slot * 32 + j);
#pragma unroll
        for (unsigned t = 0; t < GEMV_TOKENS; t++)
            if (t < count)
                sums[t] = __fmaf_rn(weight, in.values[((size_t)(first + t) * m.blocks + block) * 32 + j], sums[t]);
    }
}

// B for up to 8 tokens at a time: y[t][column + r] <- weights[r] . in[t], t < tokens. Grid (ceil(rows / 16), ceil(tokens / 8)),
// 128 threads: a warp has 4 rows x 8 strips, a lane one strip of one row; the strips are added in order by shuffles.
template <int KIND>
__device__ __forceinline__ void gemv(const Matrix &m, Activations in, float *y, unsigned stride, unsigned column, unsigned tokens) {
    unsigned warp = (blockIdx.x * blockDim.x + threadIdx.x) / 32, lane = threadIdx.x % 32;
    unsigned row = warp * 4 + lane / 8, strip = lane % 8, c = (m.blocks + 7) / 8;
    unsigned first = blockIdx.y * GEMV_TOKENS, count = tokens - first < GEMV_TOKENS ? tokens - first : GEMV_TOKENS;
    unsigned begin = strip * c, end = begin + c < m.blocks ? begin + c : m.blocks;
    float sums[GEMV_TOKENS] = {0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f};
    if (row < m.rows) {
        for (unsigned block = begin; block < end; block++) {
            size_t slot = ((size_t)warp * c + (block - begin)) * 32 + lane;
            if (KIND == F32 || KIND == F16 || KIND == BF16)
                block_float<KIND>(m, slot, block, in, first, count, sums);
            else
                block_quantised<KIND>(m, slot, row, block, in, first, count, sums);
        }
    }
#pragma unroll
    for (unsigned t = 0; t < GEMV_TOKENS; t++) {
        if (t >= count) break;
        float total = 0.0f;
        for (unsigned k = 0; k < 8; k++) {
            float sum = __shfl_sync(ALL_LANES, sums[t], (int)k, 8);
            if (k * c < m.blocks) total = __fadd_rn(total, sum);
        }
        if (strip == 0 && row < m.rows) y[(size_t)(first + t) * stride + column + row] = total;
    }
}

#define GEMV(name, kind)                                                                                                       \
    extern "C" __global__ void name(Matrix m, Activations in, float *y, unsigned stride, unsigned column, unsigned tokens) {   \
        gemv<kind>(m, in, y, stride, column, tokens);                                                                          \
    }
GEMV(gemv_f32, F32)
GEMV(gemv_f16, F16)
GEMV(gemv_bf16, BF16)
GEMV(gemv_q4_0, Q4_0)
GEMV(gemv_q4_1, Q4_1)
GEMV(gemv_q8_0, Q8_0)
GEMV(gemv_q4_k, Q4_K)
GEMV(gemv_q6_k, Q6_K)

// GEMM_BLOCKS blocks of GEMM_TOKENS tokens.
struct GemmStage {
    unsigned char quants[GEMM_TOKENS * GEMM_STRIDE];
    float scales[GEMM_TOKENS][GEMM_BLOCKS];
    float sums[GEMM_TOKENS][GEMM_BLOCKS];
    int integer_sums[GEMM_TOKENS][GEMM_BLOCKS];
};

struct GemmStages {
    uint4 align;
    GemmStage stage[2];
};

// Starts the copies of blocks [block, block + 4) of tokens [first, first + 32), as far as they exist.
__device__ __forceinline__ void stage_start(GemmStage &stage, Activations in, unsigned blocks, unsigned block, unsigned first, unsigned tokens) {
    for (unsigned i = threadIdx.x; i < GEMM_TOKENS * GEMM_BLOCKS * 2; i += 128) {
        unsigned token = i / (GEMM_BLOCKS * 2), part = i % (GEMM_BLOCKS * 2);
        if (first + token < tokens && block + part / 2 < blocks) {
            size_t x = (size_t)(first + token) * blocks + block;
            copy_start<16>(stage.quants + token * GEMM_STRIDE + part * 16, in.quants + x * 32 + part * 16);
        }
    }
    unsigned token = threadIdx.x / GEMM_BLOCKS, part = threadIdx.x % GEMM_BLOCKS;
    if (first + token < tokens && block + part < blocks) {
        size_t x = (size_t)(first + token) * blocks + block + part;
        copy_start<4>(&stage.scales[token][part], in.scales + x);
        copy_start<4>(&stage.sums[token][part], in.sums + x);
        copy_start<4>(&stage.integer_sums[token][part], in.integer_sums + x);
    }
}

// The fragment of 16 rows x 32 columns that this lane feeds to the tensor core: rows `row` and `row + 8`, word k.
template <int KIND> __device__ __forceinline__ void fragment(int a[4], const Matrix &m, const size_t slot[2], unsigned k) {
    for (int i = 0; i < 2; i++) {
        unsigned low = ((const unsigned *)m.low)[slot[i] * 4 + k], high = 0;
        uint2 pairs = make_uint2(0, 0);
        if (KIND == Q8_0) high = ((const unsigned *)m.high)[slot[i] * 4 + k];
        if (KIND == Q6_K) pairs = ((const uint2 *)m.high)[slot[i]];
        int2 words = unpack<KIND>(low, high, pairs, (int)k);
        a[i] = words.x;
        a[i + 2] = words.y;
    }
}

// B, one block: 16 rows x 8 tokens of integers, then the f32 steps. Lane (g, k) has rows g, g + 8 and tokens 2k, 2k + 1.
template <int KIND>
__device__ __forceinline__ void multiply_tile(float acc[4], const int a[4], const Scale scale[2], const GemmStage &stage, unsigned tile, unsigned j) {
    unsigned g = threadIdx.x % 32 / 4, k = threadIdx.x % 4;
    const int *words = (const int *)(stage.quants + (tile * 8 + g) * GEMM_STRIDE + j * 32);
    const int b[2] = {words[k], words[4 + k]};
    int c[4], second[4] = {0, 0, 0, 0};
    if (KIND == Q6_K) {
        const int low[4] = {a[0], a[1], 0, 0}, high[4] = {0, 0, a[2], a[3]};
        mma_s8(c, low, b);
        mma_s8(second, high, b);
    } else {
        mma_s8(c, a, b);
    }
    for (int i = 0; i < 4; i++) {
        unsigned token = tile * 8 + 2 * k + i % 2;
        const Scale &own = scale[i / 2];
        int integer = KIND == Q6_K ? own.first * c[i] + own.second * second[i] : c[i];
        if (KIND == Q4_0) integer -= 8 * stage.integer_sums[token][j];
        acc[i] = __fmaf_rn(__fmul_rn(own.d, stage.scales[token][j]), __int2float_rn(integer), acc[i]);
        if (KIND == Q4_1 || KIND == Q4_K) acc[i] = __fmaf_rn(own.m, stage.sums[token][j], acc[i]);
    }
}

// B for many tokens, quantised weights: y[t][column + r] <- weights[r] . in[t], t < tokens. Grid (ceil(rows / 64),
// ceil(tokens / 32)), 128 threads: a warp has 16 rows x 32 tokens as four mma.m16n8k32; activations come through two stages of
// shared memory. Two sets of sums, `acc` within a strip and `total`, in the order of the specification.
template <int KIND>
__device__ __forceinline__ void gemm(const Matrix &m, Activations in, float *y, unsigned stride, unsigned column, unsigned tokens) {
    SHARED(GemmStages, stages);
    unsigned lane = threadIdx.x % 32, g = lane / 4, k = lane % 4, c = (m.blocks + 7) / 8;
    unsigned top = blockIdx.x * 64 + threadIdx.x / 32 * 16, first = blockIdx.y * GEMM_TOKENS;
    float acc[4][4], total[4][4];
    for (int i = 0; i < 16; i++) acc[i / 4][i % 4] = total[i / 4][i % 4] = 0.0f;
    stage_start(stages.stage[0], in, m.blocks, 0, first, tokens);
    for (unsigned start = 0, turn = 0; start < m.blocks; start += GEMM_BLOCKS, turn ^= 1) {
        copy_wait();
        // All copies of this stage are there, and nobody reads the other stage any more.
        __syncthreads();
        if (start + GEMM_BLOCKS < m.blocks)
            stage_start(stages.stage[turn ^ 1], in, m.blocks, start + GEMM_BLOCKS, first, tokens);
        for (unsigned j = 0; j < GEMM_BLOCKS && start + j < m.blocks; j++) {
            unsigned block = start + j;
            if (block > 0 && block % c == 0) {
                for (int i = 0; i < 16; i++) {
                    total[i / 4][i % 4] = __fadd_rn(total[i / 4][i % 4], acc[i / 4][i % 4]);
                    acc[i / 4][i % 4] = 0.0f;
                }
            }
            // Rows beyond the last repeat it; their results are not stored.
            unsigned rows[2] = {top + g < m.rows ? top + g : m.rows - 1, top + g + 8 < m.rows ? top + g + 8 : m.rows - 1};
            const size_t slot[2] = {slot_of(m, rows[0], block), slot_of(m, rows[1], block)};
            const Scale scale[2] = {scale_of<KIND>(m, slot[0], rows[0], block), scale_of<KIND>(m, slot[1], rows[1], block)};
            int a[4];
            fragment<KIND>(a, m, slot, k);
#pragma unroll
            for (unsigned tile = 0; tile < 4; tile++)
                if (first + tile * 8 < tokens) multiply_tile<KIND>(acc[tile], a, scale, stages.stage[turn], tile, j);
        }
    }
    for (int i = 0; i < 16; i++) {
        unsigned row = top + g + (i % 4 / 2) * 8, token = first + i / 4 * 8 + 2 * k + i % 2;
        float sum = __fadd_rn(total[i / 4][i % 4], acc[i / 4][i % 4]);
        if (row < m.rows && token < tokens) y[(size_t)token * stride + column + row] = sum;
    }
}

#define GEMM(name, kind)                                                                                                       \
    extern "C" __global__ void name(Matrix m, Activations in, float *y, unsigned stride, unsigned column, unsigned tokens) {   \
        gemm<kind>(m, in, y, stride, column, tokens);                                                                          \
    }
GEMM(gemm_q4_0, Q4_0)
GEMM(gemm_q4_1, Q4_1)
GEMM(gemm_q8_0, Q8_0)
GEMM(gemm_q4_k, Q4_K)
GEMM(gemm_q6_k, Q6_K)

// ----------------------------------------------------------------------------------------------------------- attention

// Where the heads of a model lie.
struct Heads {
    unsigned heads, kv_heads, dim, halves;  // halves: pairs (i, i + dim/2) instead of (2i, 2i+1)
};

// K [dim][64] of a head of a layer in a page; V [64][dim] follows it.
__device__ __forceinline__ size_t tile_offset(Heads shape, unsigned layer, unsigned head) {
    return ((size_t)layer * shape.kv_heads + head) * 2 * PAGE * shape.dim;
}

// D, E. Rotates queries in place; keys (rotated) and values go to the row's page, and to stored[row][layer][k | v] for the
// host's copy of the page. projections [row][q | k | v]; angles [row][cos: dim/2 | sin: dim/2].
// Grid (ceil((heads + 2 kv_heads) dim / 2 / 128), rows), 128 threads: a thread a pair.
extern "C" __global__ void rope_kv_store(float *projections, const float *angles, const Row *rows, unsigned short *const *pages,
                                         unsigned short *stored, int *bad, Heads shape, unsigned layer, unsigned layers) {
    unsigned half = shape.dim / 2, pair = blockIdx.x * blockDim.x + threadIdx.x, head = pair / half, i = pair % half;
    if (head >= shape.heads + 2 * shape.kv_heads) return;
    bool is_value = head >= shape.heads + shape.kv_heads;
    float *x = projections + (size_t)blockIdx.y * (shape.heads + 2 * shape.kv_heads) * shape.dim + head * shape.dim;
    unsigned one = shape.halves ? i : 2 * i, two = shape.halves ? i + half : 2 * i + 1;
    float a = x[one], b = x[two];
    if (!is_value) {
        const float *angle = angles + (size_t)blockIdx.y * shape.dim;
        float c = angle[i], s = angle[half + i], before = a;
        a = __fmaf_rn(before, c, -__fmul_rn(b, s));
        b = __fmaf_rn(before, s, __fmul_rn(b, c));
    }
    if (head < shape.heads) {
        x[one] = a;
        x[two] = b;
        return;
    }
    unsigned short low = f32_to_f16(a), high = f32_to_f16(b);
    if ((low & 0x7c00) == 0x7c00 || (high & 0x7c00) == 0x7c00) bad[blockIdx.y] = 1;
    unsigned kv = (head - shape.heads) % shape.kv_heads, position = rows[blockIdx.y].position, width = shape.kv_heads * shape.dim;
    unsigned short *page = pages[rows[blockIdx.y].first_page + position / PAGE] + tile_offset(shape, layer, kv);
    size_t key_step = is_value ? 1 : PAGE;
    unsigned short *to = is_value ? page + PAGE * shape.dim + position % PAGE * shape.dim : page + position % PAGE;
    to[one * key_step] = low;
    to[two * key_step] = high;
    unsigned short *copy = stored + ((size_t)blockIdx.y * layers + layer) * 2 * width + (is_value ? width : 0) + kv * shape.dim;
    copy[one] = low;
    copy[two] = high;
}

// F within tiles. For each query head h of the group: partial[row][h][tile][dim] <- o_t, stats[row][h][tile] <- (m_t, l_t).
// Grid (tiles, kv_heads, rows), 64 threads; blocks beyond a row's last tile do nothing. A thread is a key while scores are
// made, then a dimension. Dynamic shared memory: f32 query [group][dim], weights [group][64], maxima [group][2].
extern "C" __global__ void attn_tile(const float *projections, const Row *rows, unsigned short *const *pages, float *partial, float2 *stats,
                                     int *bad, Heads shape, unsigned layer, float scale) {
    unsigned thread = threadIdx.x, tile = blockIdx.x, tiles = gridDim.x, row = blockIdx.z, group = shape.heads / shape.kv_heads;
    unsigned position = rows[row].position, dim = shape.dim, first = blockIdx.y * group;
    if (tile * PAGE > position) return;
    unsigned live = position + 1 - tile * PAGE < PAGE ? position + 1 - tile * PAGE : PAGE;
    DYNAMIC_SHARED(float, query);
    float *weights = query + group * dim, *maxima = weights + group * PAGE;
    const unsigned short *keys = pages[rows[row].first_page + tile] + tile_offset(shape, layer, blockIdx.y);
    const unsigned short *values = keys + PAGE * dim;
    const float *own = projections + (size_t)row * (shape.heads + 2 * shape.kv_heads) * dim + first * dim;
    for (unsigned i = thread; i < group * dim; i += 64) query[i] = own[i];
    __syncthreads();
    for (unsigned h = 0; h < group; h += 4) {
        unsigned count = group - h < 4 ? group - h : 4;
        float chain[4] = {0.0f, 0.0f, 0.0f, 0.0f};
        for (unsigned d = 0; d < dim && thread < live; d++) {
            float key = f16_to_f32(keys[d * PAGE + thread]);
#pragma unroll
            for (unsigned i = 0; i < 4; i++)
                if (i < count) chain[i] = __fmaf_rn(query[(h + i) * dim + d], key, chain[i]);
        }
#pragma unroll
        for (unsigned i = 0; i < 4; i++) {
            if (i >= count) break;
            float score = thread < live ? __fmul_rn(scale, chain[i]) : __int_as_float((int)0xff800000);
            if (thread < live && is_bad(score)) bad[row] = 1;
            weights[(h + i) * PAGE + thread] = score;
            for (int step = 16; step; step >>= 1) {
                float other = __shfl_xor_sync(ALL_LANES, score, step);
                score = other > score ? other : score;
            }
            if (thread % 32 == 0) maxima[(h + i) * 2 + thread / 32] = score;
        }
    }
    __syncthreads();
    for (unsigned h = 0; h < group && thread < live; h++) {
        float maximum = maxima[h * 2] > maxima[h * 2 + 1] ? maxima[h * 2] : maxima[h * 2 + 1];
        weights[h * PAGE + thread] = exponential(__fsub_rn(weights[h * PAGE + thread], maximum));
    }
    __syncthreads();
    for (unsigned h = 0; h < group; h++) {
        size_t at = ((size_t)row * shape.heads + first + h) * tiles + tile;
        for (unsigned d = thread; d < dim; d += 64) {
            float sum = 0.0f;
            for (unsigned j = 0; j < live; j++) sum = __fmaf_rn(weights[h * PAGE + j], f16_to_f32(values[j * dim + d]), sum);
            partial[at * dim + d] = sum;
        }
        if (thread == h % 64) {
            float total = 0.0f;
            for (unsigned j = 0; j < live; j++) total = __fadd_rn(total, weights[h * PAGE + j]);
            stats[at] = make_float2(maxima[h * 2] > maxima[h * 2 + 1] ? maxima[h * 2] : maxima[h * 2 + 1], total);
        }
    }
}

// F across tiles, then A: out[row] <- quantised outputs of all heads, side by side. `tiles` as in attn_tile's grid.
// Grid (heads dim / 32, rows), 32 threads: a warp a block, a lane an element.
extern "C" __global__ void attn_combine_q8(const float *partial, const float2 *stats, const Row *rows, Activations out, int *bad, Heads shape,
                                           unsigned tiles) {
    unsigned column = blockIdx.x * 32 + threadIdx.x, row = blockIdx.y, head = column / shape.dim, d = column % shape.dim;
    unsigned count = rows[row].position / PAGE + 1;
    size_t at = ((size_t)row * shape.heads + head) * tiles;
    float maximum = stats[at].x;
    for (unsigned t = 1; t < count; t++) maximum = stats[at + t].x > maximum ? stats[at + t].x : maximum;
    float sum = 0.0f, total = 0.0f;
    for (unsigned t = 0; t < count; t++) {
        float factor = exponential(__fsub_rn(stats[at + t].x, maximum));
        sum = __fmaf_rn(partial[(at + t) * shape.dim + d], factor, sum);
        total = __fmaf_rn(stats[at + t].y, factor, total);
    }
    quantise_block(__fdiv_rn(sum, total), (size_t)row * gridDim.x + blockIdx.x, out, bad + row);
}

// ---------------------------------------------------------------------------------------------------------- activation

// H, A. out[row] <- quantised silu(gate) * up. gate_up [row][gate | up], each n. Grid (n / 32, rows), 32 threads.
extern "C" __global__ void silu_mul_q8(const float *gate_up, Activations out, int *bad, unsigned n) {
    unsigned column = blockIdx.x * 32 + threadIdx.x, row = blockIdx.y;
    float gate = gate_up[(size_t)row * 2 * n + column], up = gate_up[(size_t)row * 2 * n + n + column];
    float silu = __fdiv_rn(gate, __fadd_rn(1.0f, exponential(-gate)));
    quantise_block(__fmul_rn(silu, up), (size_t)row * gridDim.x + blockIdx.x, out, bad + row);
}

// ------------------------------------------------------------------------------------------------------ choosing a token

struct SampleShared {
    float maxima[SAMPLE_THREADS];
    unsigned ids[SAMPLE_THREADS];
    u64 buckets[SAMPLE_THREADS];
    u64 prefix, before;
    unsigned bad;
};

// Order of candidates: weight descending, id ascending = this number descending.
__device__ __forceinline__ u64 candidate_key(unsigned weight, unsigned id) { return (u64)weight << 32 | (unsigned)~id; }

// The largest logit and its lowest id, in maxima[0] and ids[0]; `bad` where one is not finite. All threads call.
__device__ void sample_argmax(SampleShared &shared, const float *logits, unsigned vocabulary) {
    unsigned thread = threadIdx.x;
    if (thread == 0) shared.bad = 0;
    __syncthreads();
    float best = __int_as_float((int)0xff800000);
    unsigned id = NO_TOKEN;
    for (unsigned i = thread; i < vocabulary; i += SAMPLE_THREADS) {
        if (is_bad(logits[i])) shared.bad = 1;
        if (logits[i] > best) {
            best = logits[i];
            id = i;
        }
    }
    shared.maxima[thread] = best;
    shared.ids[thread] = id;
    __syncthreads();
    for (unsigned half = SAMPLE_THREADS / 2; half; half >>= 1) {
        if (thread < half) {
            float other = shared.maxima[thread + half];
            unsigned other_id = shared.ids[thread + half];
            bool equal = other == shared.maxima[thread];
            if (other > shared.maxima[thread] || (equal && other_id < shared.ids[thread])) {
                shared.maxima[thread] = other;
                shared.ids[thread] = other_id;
            }
        }
        __syncthreads();
    }
}

// The key of the last candidate that stays, by radix select from the top byte down: of those with key >= `floor_key`, the
// first `limit` (by_weight 0), or the shortest prefix whose weight times a million reaches `limit` (by_weight 1).
__device__ u64 sample_cut(SampleShared &shared, const unsigned *weights, unsigned vocabulary, u64 floor_key, u64 limit, int by_weight) {
    unsigned thread = threadIdx.x;
    u64 prefix = 0, before = 0;
    for (int digit = 7; digit >= 0; digit--) {
        shared.buckets[thread] = 0;
        __syncthreads();
        for (unsigned i = thread; i < vocabulary; i += SAMPLE_THREADS) {
            u64 key = candidate_key(weights[i], i);
            bool same = digit == 7 || key >> (8 * digit + 8) == prefix;
            if (weights[i] > 0 && key >= floor_key && same)
                atomicAdd(&shared.buckets[key >> (8 * digit) & 255], by_weight ? (u64)weights[i] : (u64)1);
        }
        __syncthreads();
        if (thread == 0) {
            unsigned bucket = 255;
            u64 unit = by_weight ? 1000000 : 1;
            for (; bucket > 0 && (before + shared.buckets[bucket]) * unit < limit; bucket--) before += shared.buckets[bucket];
            shared.prefix = prefix << 8 | bucket;
            shared.before = before;
        }
        __syncthreads();
        prefix = shared.prefix;
        before = shared.before;
    }
    return prefix;
}

// Sum over all threads of `value`; all threads call and get it.
__device__ u64 sample_sum(SampleShared &shared, u64 value) {
    shared.buckets[threadIdx.x] = value;
    __syncthreads();
    u64 sum = 0;
    for (unsigned i = 0; i < SAMPLE_THREADS; i++) sum += shared.buckets[i];
    __syncthreads();
    return sum;
}

// I. tokens[row] <- the token chosen from logits[row][vocabulary], or NO_TOKEN where a logit is not finite. weights
// [row][vocabulary] is scratch. Weights are integers: every sum is exact and needs no order. vocabulary < 2^19, so that a sum of
// weights times a million fits 64 bits. Grid (rows), 256 threads.
extern "C" __global__ void sample(const float *logits_of_all, const Choice *choices, unsigned *weights_of_all, unsigned *tokens, unsigned vocabulary) {
    SHARED(SampleShared, shared);
    unsigned thread = threadIdx.x;
    Choice choice = choices[blockIdx.x];
    const float *logits = logits_of_all + (size_t)blockIdx.x * vocabulary;
    unsigned *weights = weights_of_all + (size_t)blockIdx.x * vocabulary;
    sample_argmax(shared, logits, vocabulary);
    if (shared.bad || choice.temperature == 0.0f) {
        if (thread == 0) tokens[blockIdx.x] = shared.bad ? NO_TOKEN : shared.ids[0];
        return;
    }
    float maximum = shared.maxima[0];
    u64 own_count = 0;
    for (unsigned i = thread; i < vocabulary; i += SAMPLE_THREADS) {
        float share = exponential(__fdiv_rn(__fsub_rn(logits[i], maximum), choice.temperature));
        weights[i] = (unsigned)__float2int_rn(__fmul_rn(share, 16777216.0f));
        own_count += weights[i] > 0;
    }
    u64 count = sample_sum(shared, own_count), cut = 0;
    if (choice.top_k > 0 && choice.top_k < count) cut = sample_cut(shared, weights, vocabulary, 0, choice.top_k, 0);
    if (choice.top_p_millionths < 1000000) {
        u64 own = 0;
        for (unsigned i = thread; i < vocabulary; i += SAMPLE_THREADS)
            if (candidate_key(weights[i], i) >= cut) own += weights[i];
        u64 all = sample_sum(shared, own);
        cut = sample_cut(shared, weights, vocabulary, cut, all * choice.top_p_millionths, 1);
    }
    // The largest weight is 2^24: exp(0) = 1.
    u64 least = (u64)16777216 * choice.min_p_millionths, own = 0;
    unsigned each = (vocabulary + SAMPLE_THREADS - 1) / SAMPLE_THREADS, begin = thread * each;
    unsigned end = begin + each < vocabulary ? begin + each : vocabulary;
    for (unsigned i = begin; i < end; i++) {
        bool stays = candidate_key(weights[i], i) >= cut && (u64)weights[i] * 1000000 >= least;
        if (!stays) weights[i] = 0;
        own += weights[i];
    }
    u64 threshold = __umul64hi(choice.random, sample_sum(shared, own)), before = 0;
    // The buckets still hold every thread's sum.
    for (unsigned i = 0; i < thread; i++) before += shared.buckets[i];
    if (before <= threshold && before + own > threshold) {
        for (unsigned i = begin; i < end; i++) {
            before += weights[i];
            if (before > threshold) {
                tokens[blockIdx.x] = i;
                break;
            }
        }
    }
}
