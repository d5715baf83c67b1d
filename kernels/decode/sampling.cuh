// Temperature, top-k and top-p over the whole vocabulary with one hand-over more than the argmax. Every block knows the
// best key of every block; the k-th best of these bounds the k-th best of the vocabulary from below, so a block need only
// send its logits above that bound: a hundred or so in all. Every block then makes the same choice.
#pragma once
#include "shared.cuh"

constexpr int MAX_TOP_K = 64;

__device__ __forceinline__ unsigned long long logit_key(float v, int id) {
  uint32_t u = __float_as_uint(v + 0.f);
  u = v != v ? 0xfffffffeu : (u >> 31) ? ~u : u | 0x80000000u;  // a NaN wins, so that it is noticed
  return ((unsigned long long)u << 32) | (uint32_t)(0x7fffffff - id);
}
__device__ __forceinline__ float key_logit(unsigned long long k) {
  uint32_t u = (uint32_t)(k >> 32);
  return __uint_as_float((u >> 31) ? u & 0x7fffffffu : ~u);
}
__device__ __forceinline__ int key_id(unsigned long long k) { return 0x7fffffff - (int)(uint32_t)k; }
__device__ __forceinline__ unsigned long long max_key(unsigned long long a, unsigned long long b) { return a > b ? a : b; }
__device__ __forceinline__ unsigned long long warp_max(unsigned long long k) {
#pragma unroll
  for (int o = 16; o; o >>= 1) k = max_key(k, __shfl_xor_sync(~0u, k, o));
  return k;
}
// How many of n keys are greater.
__device__ __forceinline__ int rank_of(unsigned long long key, const unsigned long long* keys, int n) {
  int r = 0;
#pragma unroll 8
  for (int i = 0; i < n; i++) r += keys[i] > key;
  return r;
}
// A uniform number of (seed, index): a counter hashed, so a rerun draws the same.
__device__ __forceinline__ float uniform(unsigned long long seed, unsigned long long index) {
  unsigned long long z = seed + (index + 1) * 0x9e3779b97f4a7c15ull;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
  return (float)((z ^ (z >> 31)) >> 40) * (1.f / 16777216.f);
}

// By all consumer warps, after sh.keys holds every block's best. Leaves the token in sh.token. Never inlined: it runs once a
// token, and the layers need the instruction cache.
template <class S> __device__ __noinline__ void sample(Params const& p, Shared<S>& sh, int t, int rows, int dead) {
  const int tid = threadIdx.x, bid = blockIdx.x, slot = t & 3;
  const int k = min(max(p.sampling.top_k, 1), MAX_TOP_K);
  unsigned long long* list = (unsigned long long*)sh.o;
  constexpr int CAPACITY = sizeof(sh.o) / 8;
  if (tid == 0) { sh.count = 0; sh.bound = 0; }  // fewer than k blocks with rows: no bound
  ptx::block_sync();
  if (tid < BLOCKS && rank_of(sh.keys[tid], sh.keys, BLOCKS) == k - 1) sh.bound = sh.keys[tid];
  ptx::block_sync();
  const unsigned long long bound = sh.bound;
  for (int i = tid; i < rows; i += WARPS * 32) {
    const int id = (i / 8 * BLOCKS + bid) * 8 + i % 8;
    if (id >= p.vocab) continue;
    const unsigned long long key = logit_key(sh.logits[i], id);
    if (key >= bound) list[atomicAdd(&sh.count, 1)] = key;
  }
  ptx::block_sync();
  // Out in order of rank; a zero ends the list.
  unsigned long long* mine = p.cand + (size_t)(slot * BLOCKS + bid) * MAX_TOP_K;
  const int n = sh.count;
  for (int i = tid; i <= n; i += WARPS * 32) {
    const unsigned long long key = i < n ? list[i] : 0;
    const int r = i < n ? rank_of(key, list, n) : n;
    if (r < MAX_TOP_K) ptx::st2(mine + r, (uint32_t)key, (uint32_t)(key >> 32));
  }
  if (tid < MAX_TOP_K) ptx::st2(p.cand + (size_t)((slot ^ 2) * BLOCKS + bid) * MAX_TOP_K + tid, EMPTY, EMPTY);
  ptx::block_sync();
  if (tid == 0) sh.count = 0;
  ptx::block_sync();
  if (tid < BLOCKS) {
    const unsigned long long* theirs = p.cand + (size_t)(slot * BLOCKS + tid) * MAX_TOP_K;
    int spins = 0;
    for (int i = 0; i < MAX_TOP_K && !dead; i += 2) {
      uint4 v;
      // the second of the pair may never be written where the first ends the list
      while (v = ptx::ld4(theirs + i), v.x == EMPTY || v.y == EMPTY || ((v.x | v.y) != 0 && (v.z == EMPTY || v.w == EMPTY)))
        if (++spins == p.max_turns) { dead = PH_CANDIDATES; break; }
      if (dead || (v.x | v.y) == 0) break;
      int at = atomicAdd(&sh.count, (v.z | v.w) != 0 ? 2 : 1);
      if (at + 1 >= CAPACITY) { dead = PH_CANDIDATES; break; }  // thousands of equals: not a distribution to sample from
      list[at] = ((unsigned long long)v.y << 32) | v.x;
      if ((v.z | v.w) == 0) break;
      list[at + 1] = ((unsigned long long)v.w << 32) | v.z;
    }
    if (dead) {
      *p.host_error = ((uint32_t)dead << 24) | (bid + 1);
      ptx::st1(p.error, ((uint32_t)dead << 24) | (bid + 1));
      sh.stop = 1;
    }
  }
  ptx::block_sync();
  const int all = min(sh.count, CAPACITY);
  for (int i = tid; i < all; i += WARPS * 32) {
    const unsigned long long key = list[i];
    const int r = rank_of(key, list, all);
    if (r < k) sh.keys[r] = key;
  }
  ptx::block_sync();
  if (tid < 32) {
    const int n2 = min(all, k);
    const float inv = 1.4426950408889634f / p.sampling.temperature, top = key_logit(sh.keys[0]);
    float e[2], c[2];
#pragma unroll
    for (int j = 0; j < 2; j++) {  // in order: lane holds entries 2 lane, 2 lane + 1
      const int i = 2 * tid + j;
      e[j] = i < n2 ? ptx::exp2((key_logit(sh.keys[i]) - top) * inv) : 0.f;
    }
    float s = e[0] + e[1];
#pragma unroll
    for (int o = 1; o < 32; o <<= 1) { float a = __shfl_up_sync(~0u, s, o); if (tid >= o) s += a; }
    const float total = __shfl_sync(~0u, s, 31);
    c[1] = s; c[0] = s - e[1];
    // kept: what begins below top_p of the total (the first always)
    float kept = 0;
#pragma unroll
    for (int j = 0; j < 2; j++) if (e[j] > 0 && (c[j] - e[j] < p.sampling.top_p * total || 2 * tid + j == 0)) kept = c[j];
#pragma unroll
    for (int o = 16; o; o >>= 1) kept = fmaxf(kept, __shfl_xor_sync(~0u, kept, o));
    const float u = uniform(p.sampling.seed, (unsigned long long)(p.pos0 + t)) * kept;
    // the first entry whose running sum passes u
    const unsigned passed = __ballot_sync(~0u, c[1] > u);
    const int lane = passed ? __ffs(passed) - 1 : 0;
    const int pick = 2 * lane + (__shfl_sync(~0u, c[0], lane) > u ? 0 : 1);
    if (tid == 0) sh.token = key_id(sh.keys[min(pick, n2 - 1)]);
  }
  ptx::block_sync();
}
