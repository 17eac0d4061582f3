// The scheduler behind shim.h: runs the blocks of a launch one after another, the threads of a block as fibres in an order that a
// seed shuffles each round. Poisons shared memory per block, checks masks, barriers, bounds of shared memory and copies nobody
// waited for. A run-time switch leaves out the barriers of one line, for the shim's own mutation test.
#include "shim.h"

#include <cstdarg>
#include <cstdio>
#include <memory>
#include <sys/mman.h>
#include <vector>
#if !defined(__x86_64__)
#include <ucontext.h>
#endif

namespace {

const size_t STACK_BYTES = 64 << 10;
const unsigned THREADS_MAX = 1024, WARPS_MAX = THREADS_MAX / 32, COPIES_MAX = 32;
// What a GPU gives every block without being asked.
const size_t SHARED_BYTES_MAX = 48 << 10;
const unsigned char POISON = 0xCD;
const size_t CANARY_BYTES = 64;

typedef void (*Kernel)(void **args);

#if defined(__x86_64__)
// Saves the registers a callee must keep, changes stacks (System V).
asm(R"(
.text
.type shim_switch, @function
shim_switch:
  pushq %rbp; pushq %rbx; pushq %r12; pushq %r13; pushq %r14; pushq %r15
  movq %rsp, (%rdi)
  movq (%rsi), %rsp
  popq %r15; popq %r14; popq %r13; popq %r12; popq %rbx; popq %rbp
  ret
.size shim_switch, .-shim_switch
)");
typedef void *Context;
extern "C" void shim_switch(Context *save, Context *to);
void prepare(Context &context, char *stack, void (*entry)()) {
    void **top = (void **)((uintptr_t)(stack + STACK_BYTES) & ~(uintptr_t)15);
    // At entry the stack pointer is 8 below a multiple of 16, as after a call.
    *--top = nullptr;
    *--top = (void *)entry;
    for (int i = 0; i < 6; i++) *--top = nullptr;
    context = top;
}
#else
typedef ucontext_t Context;
void shim_switch(Context *save, Context *to) { swapcontext(save, to); }
void prepare(Context &context, char *stack, void (*entry)()) {
    getcontext(&context);
    context.uc_stack.ss_sp = stack;
    context.uc_stack.ss_size = STACK_BYTES;
    context.uc_link = nullptr;
    makecontext(&context, entry, 0);
}
#endif

struct Copy {
    void *to;
    const void *from;
    unsigned bytes;
};

enum Waiting { NOTHING, BARRIER, WARP, DONE };

struct Fibre {
    Context context;
    shim::Index index;
    unsigned linear;
    Waiting waiting;
    unsigned generation;
    unsigned copy_count;
    Copy copies[COPIES_MAX];
};

struct Warp {
    unsigned lanes, exited, arrived, generation, operation;
    shim::Words shown[2][32];
};

struct Machine {
    Kernel kernel;
    void **args;
    shim::Index block, block_extent, grid_extent;
    unsigned thread_count, live, barrier_arrived, barrier_generation, barrier_line, skipped_line;
    size_t dynamic_bytes;
    bool static_ready, failed;
    char message[256];
    Context scheduler;
    Fibre *current;
    char *stacks;
    std::vector<Fibre> fibres;
    std::vector<unsigned> order;
    alignas(16) unsigned char static_area[SHARED_BYTES_MAX];
    alignas(16) unsigned char dynamic_area[SHARED_BYTES_MAX + CANARY_BYTES];
    Warp warps[WARPS_MAX];

    Machine() : fibres(THREADS_MAX), order(THREADS_MAX) {
        // A page more than the stacks, because they are shifted against each other.
        stacks = (char *)mmap(nullptr, STACK_BYTES * (THREADS_MAX + 1), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    }
    ~Machine() { munmap(stacks, STACK_BYTES * (THREADS_MAX + 1)); }
    // Shifted by 320 bytes a fibre, so that their tops do not fight for one set of the cache.
    char *stack(unsigned fibre) { return stacks + STACK_BYTES * fibre + fibre % 128 * 320; }
};

thread_local Machine *machine;

void yield() { shim_switch(&machine->current->context, &machine->scheduler); }

// Ends the launch: this fibre never runs again.
void fail(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(machine->message, sizeof machine->message, format, arguments);
    va_end(arguments);
    machine->failed = true;
    for (;;) yield();
}

void release_barrier() {
    machine->barrier_arrived = 0;
    machine->barrier_generation++;
}

void entry() {
    Machine &m = *machine;
    m.kernel(m.args);
    Fibre &own = *m.current;
    if (own.copy_count) fail("thread %u ended with %u copies nobody waited for", own.linear, own.copy_count);
    own.waiting = DONE;
    m.live--;
    m.warps[own.linear / 32].exited |= 1u << own.linear % 32;
    if (m.live && m.barrier_arrived == m.live) release_barrier();
    for (;;) yield();
}

uint64_t next_random(uint64_t &state) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
}

void prepare_block(Machine &m) {
    m.live = m.thread_count;
    m.barrier_arrived = m.barrier_generation = 0;
    m.static_ready = false;
    memset(m.dynamic_area, POISON, m.dynamic_bytes + CANARY_BYTES);
    for (unsigned w = 0; w * 32 < m.thread_count; w++) {
        unsigned lanes = m.thread_count - w * 32;
        m.warps[w].lanes = lanes >= 32 ? 0xffffffffu : (1u << lanes) - 1;
        m.warps[w].exited = m.warps[w].arrived = m.warps[w].generation = 0;
    }
    for (unsigned i = 0; i < m.thread_count; i++) {
        Fibre &fibre = m.fibres[i];
        fibre.index = {i % m.block_extent.x, i / m.block_extent.x % m.block_extent.y, i / (m.block_extent.x * m.block_extent.y)};
        fibre.linear = i;
        fibre.waiting = NOTHING;
        fibre.copy_count = 0;
        prepare(fibre.context, m.stack(i), entry);
        m.order[i] = i;
    }
}

bool can_run(const Machine &m, const Fibre &fibre) {
    if (fibre.waiting == NOTHING) return true;
    if (fibre.waiting == BARRIER) return fibre.generation != m.barrier_generation;
    return fibre.waiting == WARP && fibre.generation != m.warps[fibre.linear / 32].generation;
}

void run_block(Machine &m, uint64_t seed) {
    prepare_block(m);
    uint64_t state = seed ^ 0x9E3779B97F4A7C15ull;
    while (m.live && !m.failed) {
        if (seed)
            for (unsigned i = m.thread_count - 1; i > 0; i--) std::swap(m.order[i], m.order[(next_random(state) >> 32) * (i + 1) >> 32]);
        bool any = false;
        for (unsigned i = 0; i < m.thread_count && !m.failed; i++) {
            Fibre &fibre = m.fibres[m.order[i]];
            if (!can_run(m, fibre)) continue;
            any = true;
            fibre.waiting = NOTHING;
            m.current = &fibre;
            shim_switch(&m.scheduler, &fibre.context);
        }
        if (!any && !m.failed) {
            m.failed = true;
            snprintf(m.message, sizeof m.message, "deadlock: %u threads wait for each other, %u of them at a barrier", m.live, m.barrier_arrived);
        }
    }
    for (size_t i = 0; i < CANARY_BYTES && !m.failed; i++) {
        if (m.dynamic_area[m.dynamic_bytes + i] == POISON) continue;
        m.failed = true;
        snprintf(m.message, sizeof m.message, "a thread wrote beyond the %zu bytes of dynamic shared memory", m.dynamic_bytes);
    }
}

}  // namespace

namespace shim {

const Index &thread_index() { return machine->current->index; }
const Index &block_index() { return machine->block; }
const Index &block_extent() { return machine->block_extent; }
const Index &grid_extent() { return machine->grid_extent; }
unsigned lane() { return machine->current->linear % 32; }
void *dynamic_shared() { return machine->dynamic_area; }

void *static_shared(size_t bytes) {
    if (bytes > SHARED_BYTES_MAX) fail("%zu bytes of static shared memory, at most %zu", bytes, SHARED_BYTES_MAX);
    if (!machine->static_ready) memset(machine->static_area, POISON, bytes);
    machine->static_ready = true;
    return machine->static_area;
}

void barrier(unsigned line) {
    Machine &m = *machine;
    if (line == m.skipped_line) return;
    if (m.barrier_arrived && m.barrier_line != line)
        fail("divergent barrier: thread %u is at line %u, others at line %u", m.current->linear, line, m.barrier_line);
    m.barrier_line = line;
    if (++m.barrier_arrived == m.live) return release_barrier();
    m.current->waiting = BARRIER;
    m.current->generation = m.barrier_generation;
    yield();
}

const Words *exchange(unsigned mask, unsigned operation, const Words &mine) {
    Machine &m = *machine;
    Warp &warp = m.warps[m.current->linear / 32];
    unsigned own = m.current->linear % 32;
    if (!(mask >> own & 1)) fail("lane %u calls a warp collective outside its own mask %08x", own, mask);
    if (mask & warp.lanes & warp.exited) fail("mask %08x names lanes that have ended (%08x)", mask, warp.exited);
    if ((mask & warp.lanes) != warp.lanes || warp.lanes != 0xffffffffu)
        fail("mask %08x: only collectives of whole warps are emulated (lanes %08x)", mask, warp.lanes);
    if (warp.arrived && warp.operation != operation) fail("divergent warp: collectives %u and %u meet", warp.operation, operation);
    warp.operation = operation;
    // Two sets in turn: nobody can show something new in this one before all have read it and met in the other.
    Words *shown = warp.shown[warp.generation & 1];
    shown[own] = mine;
    warp.arrived |= 1u << own;
    if (warp.arrived == warp.lanes) {
        warp.arrived = 0;
        warp.generation++;
    } else {
        m.current->waiting = WARP;
        m.current->generation = warp.generation;
        yield();
    }
    return shown;
}

void copy_later(void *to, const void *from, unsigned bytes) {
    Fibre &own = *machine->current;
    if ((uintptr_t)to % bytes || (uintptr_t)from % bytes) fail("a copy of %u bytes is not aligned", bytes);
    if (own.copy_count == COPIES_MAX) fail("more than %u copies at once", COPIES_MAX);
    own.copies[own.copy_count++] = {to, from, bytes};
}

void copy_all() {
    Fibre &own = *machine->current;
    for (unsigned i = 0; i < own.copy_count; i++) memcpy(own.copies[i].to, own.copies[i].from, own.copies[i].bytes);
    own.copy_count = 0;
}

}  // namespace shim

#include "../kernels.cu"

// Kernels with one mistake each, for the tests of the shim (src/lib.rs).
namespace faulty {

void divergent_barrier() {
    if (threadIdx.x < 5)
        __syncthreads();
    else
        shim::barrier(1);
}
void lane_outside_its_mask() {
    if (threadIdx.x % 32 >= 16) __shfl_xor_sync(0x0000ffffu, 1, 1);
}
void divergent_warp() {
    if (threadIdx.x % 2) __shfl_xor_sync(0xffffffffu, 1, 1);
    else __shfl_sync(0xffffffffu, 1, 0, 32);
}
void half_a_warp_waits() {
    if (threadIdx.x % 32 < 16) __shfl_xor_sync(0xffffffffu, 1, 1);
    else __syncthreads();
}
void ended_lanes() {
    if (threadIdx.x % 32 < 16) return;
    __shfl_xor_sync(0xffffffffu, 1, 1);
}
void beyond_shared() {
    DYNAMIC_SHARED(int, words);
    words[64] = 1;
}
void copy_not_awaited(const int *from) {
    SHARED(uint4, to);
    copy_start<4>(&to, from);
}
// out[0] <- what shared memory held before anybody wrote; out[1] <- what a copy has brought before it was awaited.
void reads_poison(const int *from, int *out) {
    SHARED(uint4, to);
    out[0] = (int)to.x;
    copy_start<4>(&to, from);
    out[1] = (int)to.x;
    copy_wait();
    out[2] = (int)to.x;
}
// out[i] <- the order in which thread i ran.
void order(int *counter, int *out) { out[threadIdx.x] = (*counter)++; }

}  // namespace faulty

namespace {

struct Named {
    const char *name;
    Kernel kernel;
};

#define EXPORT(kernel) {#kernel, [](void **args) { shim::unpack(&kernel, args); }}
const Named KERNELS[] = {
    EXPORT(embed_gather), EXPORT(rmsnorm_q8), EXPORT(bias_head_norm), EXPORT(gemv_f32), EXPORT(gemv_f16), EXPORT(gemv_bf16),
    EXPORT(gemv_q4_0), EXPORT(gemv_q4_1), EXPORT(gemv_q8_0), EXPORT(gemv_q4_k), EXPORT(gemv_q6_k), EXPORT(gemm_q4_0),
    EXPORT(gemm_q4_1), EXPORT(gemm_q8_0), EXPORT(gemm_q4_k), EXPORT(gemm_q6_k), EXPORT(rope_kv_store), EXPORT(attn_tile),
    EXPORT(attn_combine_q8), EXPORT(silu_mul_q8), EXPORT(sample),
    EXPORT(faulty::divergent_barrier), EXPORT(faulty::lane_outside_its_mask), EXPORT(faulty::divergent_warp),
    EXPORT(faulty::half_a_warp_waits), EXPORT(faulty::ended_lanes), EXPORT(faulty::beyond_shared),
    EXPORT(faulty::copy_not_awaited), EXPORT(faulty::reads_poison), EXPORT(faulty::order),
};

}  // namespace

// How a launch runs; mirrored in src/lib.rs.
struct ShimLaunch {
    const char *kernel;
    unsigned grid[3], block[3];
    unsigned shared_bytes, skipped_line;
    uint64_t seed, first_block, end_block;
};

// Runs blocks first_block..end_block, counted x first. 0, or 1 with the reason in `message`.
extern "C" int counterfoil_shim_launch(const ShimLaunch *launch, void **args, char *message, size_t message_bytes) {
    // On the heap: every thread of the process would carry it otherwise.
    thread_local std::unique_ptr<Machine> own = std::make_unique<Machine>();
    Machine &m = *(machine = own.get());
    m.kernel = nullptr;
    for (const Named &named : KERNELS)
        if (!strcmp(named.name, launch->kernel)) m.kernel = named.kernel;
    uint64_t threads = (uint64_t)launch->block[0] * launch->block[1] * launch->block[2];
    if (!m.kernel || threads == 0 || threads > THREADS_MAX || launch->shared_bytes > SHARED_BYTES_MAX || m.stacks == MAP_FAILED) {
        snprintf(message, message_bytes, "cannot launch %s with %llu threads and %u bytes of shared memory", launch->kernel,
                 (unsigned long long)threads, launch->shared_bytes);
        return 1;
    }
    m.args = args;
    m.thread_count = (unsigned)threads;
    m.dynamic_bytes = launch->shared_bytes;
    m.skipped_line = launch->skipped_line;
    m.block_extent = {launch->block[0], launch->block[1], launch->block[2]};
    m.grid_extent = {launch->grid[0], launch->grid[1], launch->grid[2]};
    m.failed = false;
    uint64_t count = launch->end_block - launch->first_block;
    for (uint64_t i = 0; i < count && !m.failed; i++) {
        // Odd seeds take the blocks from the end.
        uint64_t block = launch->seed & 1 ? launch->end_block - 1 - i : launch->first_block + i;
        m.block = {(unsigned)(block % launch->grid[0]), (unsigned)(block / launch->grid[0] % launch->grid[1]),
                   (unsigned)(block / launch->grid[0] / launch->grid[1])};
        run_block(m, launch->seed ? launch->seed + block * 0xD1342543DE82EF95ull : 0);
    }
    if (m.failed)
        snprintf(message, message_bytes, "%s, block (%u, %u, %u): %s", launch->kernel, m.block.x, m.block.y, m.block.z, m.message);
    return m.failed;
}
