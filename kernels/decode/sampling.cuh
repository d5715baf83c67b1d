// Choosing a token as mk-model's sampling/mod.rs says, to the bit. Greedy needs no more than the keys of the argmax. The
// rest costs one hand-over more: every block knows the best key of every share; the k-th best of these bounds the k-th
// best logit of the vocabulary from below, so a block need only send its logits from that bound up: a hundred or so in
// all. Every block then makes the same choice.
#pragma once
#include "shared.cuh"

constexpr int MAX_TOP_K = MK_MAX_TOP_K;
constexpr uint32_t FLAG = 0x80000000u;  // free in the lower word of a key
// A key orders logits, the larger first, and equal ones by id, the lowest first: bits of the logit << 32 | ID_TOP - id.
// With ID_TOP of 31 bits less one, no flagged key is EMPTY.
constexpr uint32_t ID_TOP = 0x7ffffffeu;
constexpr unsigned long long NOT_FINITE = 0xfffffffe00000000ull;  // above every logit, so that it is noticed
constexpr unsigned long long LEAST = 0x0080000000000000ull;       // below it: minus infinity, or no row at all
constexpr unsigned long long LOGIT = 0xffffffff00000000ull;       // the logit's part of a key

__device__ __forceinline__ unsigned long long logit_key(float v, int id) {
  const uint32_t u = __float_as_uint(v + 0.f);
  return ((unsigned long long)((u >> 31) ? ~u : u | 0x80000000u) << 32) | (ID_TOP - (uint32_t)id);
}
__device__ __forceinline__ float key_logit(unsigned long long k) {
  const uint32_t u = (uint32_t)(k >> 32);
  return __uint_as_float((u >> 31) ? u & 0x7fffffffu : ~u);
}
__device__ __forceinline__ int key_id(unsigned long long k) { return (int)(ID_TOP - (uint32_t)k); }
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

// Two entries of a list of candidates: whether they have been written, of which the second never is where the first, a zero,
// ends the list; and whether the list ends in them.
__device__ __forceinline__ bool pair_there(uint4 v) {
  return v.x != EMPTY && v.y != EMPTY && ((v.x | v.y) == 0 || (v.z != EMPTY && v.w != EMPTY));
}
__device__ __forceinline__ bool ends_in(uint4 v) { return (v.x | v.y) == 0 || (v.z | v.w) == 0; }

__device__ __forceinline__ float penalised(float v, float penalty) {
  return v > 0 ? fminf(__fdiv_rn(v, penalty), 3.402823466e38f) : __fmul_rn(v, penalty);
}

// mk-model's sampling/weight.rs `exp`: the same operations in the same order, none contracted.
__device__ __forceinline__ float weight_exp(float y) {
  const float lowest = -28.f, rounder = 12582912.f;
  const float clamped = y > lowest ? y : lowest;
  const float rounded = __fadd_rn(__fmul_rn(clamped, 1.44269504088896340736f), rounder);
  const float n = __fsub_rn(rounded, rounder);
  const float r = __fsub_rn(__fsub_rn(clamped, __fmul_rn(n, 0.693359375f)), __fmul_rn(n, -2.12194440e-4f));
  const float taylor[7] = {1.f / 720, 1.f / 120, 1.f / 24, 1.f / 6, 0.5f, 1.f, 1.f};
  float value = 1.f / 5040;
#pragma unroll
  for (int i = 0; i < 7; i++) value = __fadd_rn(__fmul_rn(value, r), taylor[i]);
  const uint32_t exponent = (__float_as_uint(rounded) - __float_as_uint(rounder) + 127) << 23;
  return y >= lowest ? __fmul_rn(value, __uint_as_float(exponent)) : 0.f;
}
// Whole units of 2^-39, as weight.rs `quantise`.
__device__ __forceinline__ unsigned long long units_of(float weight) { return __float2ull_rz(__fmul_rn(weight, 549755813888.f)); }

// 24 random bits of (seed, draw): the first word of Philox4x32-10, as mk-model's rng.rs.
__device__ __forceinline__ uint32_t random24(unsigned long long seed, unsigned long long draw) {
  uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
  uint32_t x0 = (uint32_t)draw, x1 = (uint32_t)(draw >> 32), x2 = 0, x3 = 0;
#pragma unroll 1
  for (int i = 0; i < 10; i++) {
    const uint32_t a_lo = 0xd2511f53u * x0, a_hi = __umulhi(0xd2511f53u, x0);
    const uint32_t b_lo = 0xcd9e8d57u * x2, b_hi = __umulhi(0xcd9e8d57u, x2);
    x0 = b_hi ^ x1 ^ k0; x1 = b_lo; x2 = a_hi ^ x3 ^ k1; x3 = a_lo;
    k0 += 0x9e3779b9u; k1 += 0xbb67ae85u;
  }
  return x0 >> 8;
}

// By all consumer warps, after sh.keys holds every share's best. Leaves the token in sh.token, or sh.stop set. Never
// inlined: it runs once a token, and the layers need the instruction cache.
template <class S> __device__ __noinline__ void sample(Params const& p, Shared<S>& sh, int t, int dead) {
  constexpr int CAPACITY = sizeof(sh.o) / 16;  // candidates in the first half of it, their weights in the second
  const int tid = threadIdx.x, slot = t & 3, threads = WARPS * 32;
  const int k = p.sampling.top_k;
  unsigned long long* list = (unsigned long long*)sh.o;
  unsigned long long* units = list + CAPACITY;
  if (tid == 0) sh.bound = 0;  // fewer than k shares with rows: no bound
  ptx::block_sync();
  {  // four threads a key
    constexpr int PARTS = WARPS * 32 / SHARES;
    const unsigned long long mine = sh.keys[tid / PARTS];
    int rank = rank_of(mine, sh.keys + tid % PARTS * (SHARES / PARTS), SHARES / PARTS);
#pragma unroll
    for (int o = 1; o < PARTS; o <<= 1) rank += __shfl_xor_sync(~0u, rank, o);
    if (tid % PARTS == 0 && rank == k - 1) sh.bound = mine & LOGIT;
  }
  EACH_SHARE(share, nth) {
    if (tid == 0) { sh.count = 0; sh.edge[0] = sh.edge[1] = 0; }
    ptx::block_sync();
    const unsigned long long bound = max_key(sh.bound, LEAST);
    const int rows = tiles_of(p, share) * 8;
    for (int i = tid; i < rows; i += threads) {
      const int id = (i / 8 * SHARES + share) * 8 + i % 8;
      if (id >= p.vocab) continue;
      const unsigned long long key = logit_key(sh.share[nth].logits[i], id);
      if (key < bound) continue;
      const int at = atomicAdd(&sh.count, 1);
      if (at < 2 * CAPACITY) list[at] = key;  // no share has more rows than that
    }
    ptx::block_sync();
    // Out in order of rank; a zero ends the list. More than fit matter only where the first of them equals the last that fits.
    uint64_t* sent = p.cand + (size_t)(slot * SHARES + share) * MAX_TOP_K;
    const int n = sh.count;
    for (int i = tid; i < n; i += threads) {
      const int r = rank_of(list[i], list, n);
      if (r == MAX_TOP_K - 1) sh.edge[0] = list[i] & LOGIT;
      if (r == MAX_TOP_K) sh.edge[1] = list[i] & LOGIT;
    }
    ptx::block_sync();
    const uint32_t overflow = n > MAX_TOP_K && sh.edge[0] == sh.edge[1] ? FLAG : 0;
    for (int i = tid; i <= n; i += threads) {
      const unsigned long long key = i < n ? list[i] : 0;
      const int r = i < n ? rank_of(key, list, n) : n;
      if (r < MAX_TOP_K) ptx::st2(sent + r, (uint32_t)key | overflow, (uint32_t)(key >> 32));
    }
    if (tid < MAX_TOP_K) ptx::st2(p.cand + (size_t)((slot ^ 2) * SHARES + share) * MAX_TOP_K + tid, EMPTY, EMPTY);
    ptx::block_sync();
  }
  const unsigned long long best = sh.best[0];
  if (tid == 0) { sh.count = 0; sh.bound = 0; }
  ptx::block_sync();
  if (tid < SHARES) {
    const uint64_t* theirs = p.cand + (size_t)(slot * SHARES + tid) * MAX_TOP_K;
    int spins = 0;
    bool more = true;
    for (int i = 0; i < MAX_TOP_K && more && !dead; i += 4) {  // a trip to the L2 for four, which is what most have at most
      uint4 v[2];
      while (v[0] = ptx::ld4(theirs + i), v[1] = ptx::ld4(theirs + i + 2), !(pair_there(v[0]) && (ends_in(v[0]) || pair_there(v[1]))))
        if (++spins == p.max_turns[MK_PHASE_CANDIDATES]) { dead = MK_PHASE_CANDIDATES; break; }
      for (int j = 0; j < 2 && more && !dead; j++) {
        const int count = (v[j].x | v[j].y) == 0 ? 0 : ends_in(v[j]) ? 1 : 2;
        more = count == 2;
        if (count == 0) break;
        const int at = atomicAdd(&sh.count, v[j].x & FLAG ? CAPACITY : count);
        if (at + count > CAPACITY || v[j].x & FLAG) { more = false; break; }
        list[at] = ((unsigned long long)v[j].y << 32) | v[j].x;
        if (count == 2) list[at + 1] = ((unsigned long long)v[j].w << 32) | v[j].z;
      }
    }
    if (dead) sh.stop = dead;
  }
  ptx::block_sync();
  const int all = sh.count;
  const int failed = *(volatile int*)&sh.stop ? sh.stop : all >= CAPACITY ? MK_PHASE_TIES : 0;  // the latter in every block alike
  if (failed) {
    if (tid == 0) { Wait(p).report(failed, t); sh.stop = failed; }
    ptx::block_sync();
    return;
  }
  // Top-k, with all that tie with the last; then weights.
  for (int i = tid; i < all; i += threads) if (rank_of(list[i], list, all) == k - 1) sh.bound = list[i] & LOGIT;
  ptx::block_sync();
  const float top = key_logit(best);
  for (int i = tid; i < all; i += threads)
    units[i] = list[i] >= sh.bound ? units_of(weight_exp(__fdiv_rn(__fsub_rn(key_logit(list[i]), top), p.sampling.temperature))) : 0;
  ptx::block_sync();
  // Top-p and min-p.
  if (p.sampling.top_p < 1.f || p.sampling.min_p > 0.f) {
    bool keep[CAPACITY / threads];
#pragma unroll
    for (int j = 0; j < CAPACITY / threads; j++) {
      const int i = j * threads + tid;
      keep[j] = true;
      if (i >= all) continue;
      const unsigned long long key = list[i];
      if (p.sampling.top_p < 1.f) {
        unsigned long long total = 0, before = 0;
        for (int o = 0; o < all; o++) { const unsigned long long u = units[o]; total += u; before += list[o] > key ? u : 0; }
        const unsigned long long limit = (unsigned long long)ceil(__dmul_rn((double)p.sampling.top_p, __ull2double_rn(total)));
        keep[j] = before < (limit ? limit : 1);
      }
      if (p.sampling.min_p > 0.f) keep[j] &= weight_exp(__fdiv_rn(__fsub_rn(key_logit(key), top), p.sampling.temperature)) >= p.sampling.min_p;
    }
    ptx::block_sync();
#pragma unroll
    for (int j = 0; j < CAPACITY / threads; j++) if (!keep[j] && j * threads + tid < all) units[j * threads + tid] = 0;
    ptx::block_sync();
  }
  // The draw: the first, in id order, at which the running sum exceeds u times the whole.
  for (int i = tid; i < all; i += threads) {
    const unsigned long long own = units[i];
    if (own == 0) continue;
    const uint32_t id = (uint32_t)list[i];
    unsigned long long total = 0, running = 0;
    for (int o = 0; o < all; o++) { const unsigned long long u = units[o]; total += u; running += (uint32_t)list[o] >= id ? u : 0; }
    const unsigned long long u = random24(p.sampling.seed, p.sampling.first_draw + (t - p.head_from));
    const unsigned long long target = u * (total >> 24) + (u * (total & 0xffffff) >> 24) + 1;
    if (running >= target && running - own < target) sh.token = key_id(list[i]);
  }
  ptx::block_sync();
}
