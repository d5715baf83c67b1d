// Hand-overs between blocks. Data is its own flag: a reader polls the words themselves until none is EMPTY. A writer
// empties the buffer of two layers ahead as it fills this layer's; by then every block has read what was in it, because
// this block has since received something that each of them sent after reading. Where a block has several shares, it takes
// all of them through a phase before the next.
#pragma once
#include "ptx.cuh"

// Everything here is small on purpose: the code of a layer must fit the instruction cache, and a waiting loop stands in
// front of each phase.
struct Wait {
  Params const& p;
  int dead = 0;  // the phase given up in: every later wait returns at once, with zeros
  __device__ explicit Wait(Params const& p) : p(p) {}
  // Called in each turn of a waiting loop. Blocks that wait for a dead one reach their own limit.
  __device__ __forceinline__ void turn(int& spins, int phase) { if (++spins == p.max_turns[phase]) dead = phase; }
  // The ring is waited for lane by lane, the exchange by whole warps.
  __device__ __forceinline__ void agree() { dead = __reduce_max_sync(~0u, dead); }
  // Tells the host and the other blocks that the launch cannot go on, at its token t. The first to say so is heard: what
  // others notice after it may be no more than what it left undone.
  __device__ __forceinline__ void report(int phase, int t) {
    const uint32_t code = ((uint32_t)phase << 24) | (blockIdx.x + 1);
    if (atomicCAS(p.error, EMPTY, code) != EMPTY) return;
    p.status->token = t;
    p.status->code = code;
  }
};

// Any word of v still EMPTY?
__device__ __forceinline__ bool has_empty(uint4 v) { return max(max(v.x, v.y), max(v.z, v.w)) == EMPTY; }

// Every lane reads N vectors, and a word where it has one: the first look, which may be too early. More vectors than are
// kept from one look to the next are left to poll.
constexpr int KEPT = 8;
template <int N> __device__ __forceinline__ void look(uint4* v, const char* base, const int* off, uint32_t* word = nullptr, const uint32_t* word_at = nullptr) {
  if constexpr (N <= KEPT) {
#pragma unroll
    for (int i = 0; i < N; i++) v[i] = ptx::ld4(base + off[i]);
    if (word_at) *word = ptx::ld1(word_at);
  }
}
// Looks again until all is there; the warp leaves together. Only what is still missing is read again: polling is traffic, and
// traffic is what delays the hand-overs (a second poll under way half a trip behind the first made a token 8% slower).
template <int N> __device__ __forceinline__ void poll(uint4* v, const char* base, const int* off, uint32_t* word, const uint32_t* word_at, Wait& w, int phase) {
  int spins = 0;
#pragma unroll 1
  while (!w.dead) {
    if constexpr (N > KEPT) {
#pragma unroll
      for (int i = 0; i < N; i++) v[i] = ptx::ld4(base + off[i]);
      if (word_at) *word = ptx::ld1(word_at);
    }
    bool missing = word_at && *word == EMPTY;
#pragma unroll
    for (int i = 0; i < N; i++) missing |= has_empty(v[i]);
    if (!__any_sync(~0u, missing)) return;
    w.turn(spins, phase);
    if constexpr (N <= KEPT) {
#pragma unroll
      for (int i = 0; i < N; i++) if (has_empty(v[i])) v[i] = ptx::ld4(base + off[i]);
      if (word_at && *word == EMPTY) *word = ptx::ld1(word_at);
    }
  }
#pragma unroll
  for (int i = 0; i < N; i++) v[i] = make_uint4(0, 0, 0, 0);
  if (word_at) *word = 0;
}
template <int N> __device__ __forceinline__ void poll(uint4* v, const char* base, const int* off, Wait& w, int phase) {
  poll<N>(v, base, off, nullptr, nullptr, w, phase);
}
