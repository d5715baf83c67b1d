// Shared-memory ring: one producer thread copies weights and KV tiles in their order of use, paced, 16 warps consume.
#pragma once
#include "ptx.cuh"

#ifndef SLOTS
#define SLOTS 11
#endif
#ifndef IN_FLIGHT
#define IN_FLIGHT 32768   // bytes under way at most; more delays the exchanges, fewer starves the ring
#endif

// Clocks between two copies of a layer, at least (0: as fast as they fit). At short contexts the layers of the small shape
// do not need the whole bandwidth all the time, and bursts only delay the exchanges: 900 gains 0.8% there, but the test
// costs longer contexts 1 to 2%.
#ifndef GAP
#define GAP 0
#endif

struct Ring {
  uint64_t full[SLOTS], empty[SLOTS];
  int bytes[SLOTS];  // the producer's own note of what a slot awaits
  __device__ void init() {
    for (int i = 0; i < SLOTS; i++) { ptx::mbar_init(full + i, 1); ptx::mbar_init(empty + i, WARPS); }
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  }
};

struct Cursor {
  int slot = 0;
  uint32_t parity = 0;
  __device__ __forceinline__ void next() { if (++slot == SLOTS) { slot = 0; parity ^= 1; } }
};

// A warp's view of the ring, in shared-memory addresses.
struct Consumer {
  uint32_t bar, offset;  // of the current slot: its 'full' barrier, its data
  uint32_t parity, first_bar;
  __device__ Consumer(Ring* ring) : bar(ptx::smem(ring->full)), offset(0), parity(0), first_bar(bar) {}
  __device__ __forceinline__ uint32_t wait() {
    asm volatile("{\n.reg .pred p;\nW%=: mbarrier.try_wait.parity.shared::cta.b64 p,[%0],%1;\n@!p bra W%=;\n}" ::"r"(bar), "r"(parity) : "memory");
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
    if (offset == SLOTS * CHUNK) { offset = 0; bar = first_bar; parity ^= 1; }
  }
};

struct Producer {
  Ring* ring;
  char* data;
  volatile int* stop;
  uint64_t policy;
  Cursor at, paced;
  int under_way = 0;
  uint32_t last = 0, gap = 0;
  // Takes the next slot for so many bytes. False: the consumers have stopped.
  __device__ bool open(int bytes) {
    while (!ptx::mbar_try(ring->empty + at.slot, at.parity ^ 1)) if (*stop) return false;
    while (under_way > 0 && under_way + bytes > IN_FLIGHT) settle();
    if (GAP) {
      while (clock() - last < gap) {}
      last = clock();
    }
    ring->bytes[at.slot] = bytes;
    under_way += bytes;
    ptx::mbar_expect(ring->full + at.slot, bytes);
    return true;
  }
  __device__ void settle() {
    while (!ptx::mbar_try(ring->full + paced.slot, paced.parity)) {}
    under_way -= ring->bytes[paced.slot];
    paced.next();
  }
  __device__ bool chunk(const char* src) {
    if (!open(CHUNK)) return false;
    ptx::bulk_load(data + at.slot * CHUNK, src, CHUNK, ring->full + at.slot, policy);
    at.next();
    return true;
  }
  // Up to two KV tiles: keys whole, of the values only dims [part*128/D, (part+1)*128/D).
  __device__ bool tiles(const char* t0, const char* t1, int D, int part) {
    const uint32_t K = TILE_BYTES / 2, v = K / D;
    if (!open((K + v) * (t1 ? 2 : 1))) return false;
    char* dst = data + at.slot * CHUNK;
    for (int i = 0; i < 2; i++) {
      const char* t = i ? t1 : t0;
      if (!t) break;
      if (D == 1) ptx::bulk_load(dst + i * TILE_BYTES, t, TILE_BYTES, ring->full + at.slot, policy);
      else {
        ptx::bulk_load(dst + i * TILE_BYTES, t, K, ring->full + at.slot, policy);
        ptx::bulk_load(dst + i * TILE_BYTES + K, t + K + v * part, v, ring->full + at.slot, policy);
      }
    }
    at.next();
    return true;
  }
  // A block must not exit while copies into it are under way.
  __device__ void drain() { while (under_way > 0) settle(); }
};
