// Shared-memory ring: a producer copies weights and KV tiles in their order of use, paced, 16 warps consume. With bulk
// copies the producer is one thread; else a warp, whose lanes copy 16 bytes each.
#pragma once
#include "exchange.cuh"

// As many as fit beside the rest in 227 KB, which makes their number a constant; elsewhere the most that a launch may have.
#ifndef SLOTS
#define SLOTS 11
#endif
constexpr int MIN_SLOTS = MK_BULK ? SLOTS : 2;
// Looks at a barrier in a turn of a wait: with bulk copies a look is a wait of some 4 us, else it takes 20 to 30 ns.
constexpr int LOOKS = MK_BULK ? 1 : 32;
__device__ __forceinline__ int ring_slots(Params const& p) { return MK_BULK ? SLOTS : p.slots; }

#ifndef IN_FLIGHT
#define IN_FLIGHT (MK_BULK ? 49152 : 65536)  // bytes under way at most; more delays the exchanges, fewer starves the ring
#endif

// At short contexts the layers of the small shape do not need the whole bandwidth all the time, and bursts only delay the
// exchanges, so copies of weights come no faster than the memory serves all blocks. A time is meant by that, but there are
// only clocks to count, whose worth changes with the power drawn: it is what it has been on average since the launch.
constexpr int PACED = 1024;  // positions; beyond, the cache takes what the weights leave of the bandwidth
struct Pace {
  uint32_t clock0 = clock();
  uint64_t time0 = ptx::nanoseconds();
  __device__ uint32_t clocks(Params const& p, int t) const {
    if (t == 0) return p.pace;
    return (uint64_t)p.pace * ((uint32_t)clock() - clock0) * 1000 / ((ptx::nanoseconds() - time0 + 1) * p.clock_mhz);
  }
};

struct Ring {
  uint64_t full[SLOTS], empty[SLOTS];
  int bytes[SLOTS];  // the producer's own note of what a slot awaits
  __device__ void init() {
    for (int i = 0; i < SLOTS; i++) { ptx::mbar_init(full + i, MK_BULK ? 1 : 32); ptx::mbar_init(empty + i, WARPS); }
#if MK_BULK
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
#endif
  }
};

struct Cursor {
  int slot = 0;
  uint32_t parity = 0;
  __device__ __forceinline__ void next(int slots) { if (++slot == slots) { slot = 0; parity ^= 1; } }
};

// A warp's view of the ring, in shared-memory addresses.
struct Consumer {
  uint32_t bar, offset;  // of the current slot: its 'full' barrier, its data
  uint32_t parity, first_bar, end;
  __device__ Consumer(Ring* ring, int slots) : bar(ptx::smem(ring->full)), offset(0), parity(0), first_bar(bar), end(slots * CHUNK) {}
  // Gives up like any other wait; the warp then goes on with whatever lies there. One that has given up elsewhere waits
  // here all the same: the ring still turns, and whoever ran ahead would make others miss a turn of it.
  __device__ __forceinline__ uint32_t wait(Wait& w) {
    if (!ptx::mbar_wait(bar, parity, w.dead == MK_PHASE_RING ? 1 : w.p.max_turns[MK_PHASE_RING] * LOOKS)) w.dead = MK_PHASE_RING;
    return offset;
  }
  __device__ __forceinline__ void arrive() {
    if ((threadIdx.x & 31) == 0) asm volatile("mbarrier.arrive.shared::cta.b64 _,[%0];" ::"r"(bar + SLOTS * 8) : "memory");
  }
  // 'last' is the last word read from the slot. Looking at it makes the warp wait until it is there: the arrival may
  // otherwise overtake the reads before it, and the next copy them (seen).
  static __device__ __forceinline__ void wait_for(uint32_t last) {
    asm volatile("{\n.reg .pred p;\nsetp.eq.u32 p,%0,0x7fc1dead;\n@p nanosleep.u32 1;\n}" ::"r"(last) : "memory");
    __syncwarp();
  }
  __device__ __forceinline__ void next() {
    bar += 8; offset += CHUNK;
    if (offset == end) { offset = 0; bar = first_bar; parity ^= 1; }
  }
};

struct Producer {
  Ring* ring;
  char* data;
  volatile int* stop;
  int slots;
  int tries;  // before a copy counts as lost
  uint64_t policy;
  Cursor at, oldest;
  int under_way = 0, unsettled = 0;  // bytes, slots
  uint32_t pace = 0;              // clocks from one copy of weights to the next one, at least
  uint32_t last = 0, gap = 0;  // when the last copy started, and how long the next one has to wait
  // Takes the next slot for so many bytes. False: the consumers have stopped, or a copy is lost, which they notice too.
  // They never keep the producer waiting for ever, since each of their waits ends.
  __device__ bool open(int bytes) {
    while (!everyone(ptx::mbar_try(ring->empty + at.slot, at.parity ^ 1))) if (!everyone(!*stop)) return false;
    // A slot that is filled anew must have been settled: its barrier tells the last two uses apart, no more.
    while (under_way > 0 && (under_way + bytes > IN_FLIGHT || unsettled == slots)) if (!settle()) return false;
    while ((uint32_t)clock() - last < gap) {}
    ring->bytes[at.slot] = bytes;
    under_way += bytes;
    unsettled++;
#if MK_BULK
    ptx::mbar_expect(ring->full + at.slot, bytes);
#endif
    return true;
  }
  // What open has opened is all under way.
  __device__ void close() {
#if !MK_BULK
    ptx::arrive_when_loaded(ring->full + at.slot);
#endif
    at.next(slots);
  }
  __device__ bool settle() {
    if (!everyone(ptx::mbar_wait(ptx::smem(ring->full + oldest.slot), oldest.parity, tries))) return false;
    under_way -= ring->bytes[oldest.slot];
    unsettled--;
    oldest.next(slots);
    return true;
  }
  __device__ void load(char* dst, const char* src, int bytes) {
#if MK_BULK
    ptx::bulk_load(dst, src, bytes, ring->full + at.slot, policy);
#else
    const int lane = threadIdx.x % 32 * 16;
    const uint32_t to = ptx::smem(dst) + lane;
#pragma unroll 8
    for (int i = 0; i < bytes; i += 512) ptx::load16(to + i, src + lane + i, policy);
#endif
  }
  static __device__ __forceinline__ bool everyone(bool yes) {
#if MK_BULK
    return yes;
#else
    return __all_sync(~0u, yes);
#endif
  }
  __device__ bool chunk(const char* src) {
    if (!open(CHUNK)) return false;
    load(data + at.slot * CHUNK, src, CHUNK);
    close();
    last = clock();
    gap = pace;
    return true;
  }
  // Up to two KV tiles: keys whole, of the values only dims [part*128/D, (part+1)*128/D).
  __device__ bool tiles(const char* t0, const char* t1, int D, int part) {
    const uint32_t K = TILE_BYTES / 2, v = K / D;
    if (!open((K + v) * (t1 ? 2 : 1))) return false;
    gap = 0;
    char* dst = data + at.slot * CHUNK;
    for (int i = 0; i < 2; i++) {
      const char* t = i ? t1 : t0;
      if (!t) break;
      if (D == 1) load(dst + i * TILE_BYTES, t, TILE_BYTES);
      else {
        load(dst + i * TILE_BYTES, t, K);
        load(dst + i * TILE_BYTES + K, t + K + v * part, v);
      }
    }
    close();
    return true;
  }
  // A block must not exit while copies into it are under way.
  __device__ void drain() { while (under_way > 0 && settle()) {} }
};
