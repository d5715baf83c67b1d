// One KV head's attention by a group of 16 shares: S splits of the positions x D parts of the value dims, S*D = 16.
// Few splits for short contexts (less to hand over), 16 for long ones (nothing read twice). The KV tiles come through the
// ring, so they are on the chip before the query is. Partial results are normalised; whoever reads them weighs them by
// their log-sum-exp (base 2), so no merge step is needed.
#pragma once
#include "shared.cuh"

constexpr float NONE = -1e30f;  // score of no position; finite, so that no inf - inf arises

__host__ __device__ inline int splits_at(int pos, int split4, int split8) { return pos < split4 ? 4 : pos < split8 ? 8 : 16; }

// Positions of a split: tiles s, s+S, ... of the pos/16+1 there are (the newest included).
__device__ __forceinline__ int split_tiles(int pos, int s, int S) {
  int n = pos / TILE + 1;
  return n > s ? (n - s + S - 1) / S : 0;
}

__device__ __forceinline__ float dot8(uint4 v, const float* x) {
  float a = bf_lo(v.x) * x[0], b = bf_hi(v.x) * x[1];
  a = fmaf(bf_lo(v.y), x[2], a); b = fmaf(bf_hi(v.y), x[3], b);
  a = fmaf(bf_lo(v.z), x[4], a); b = fmaf(bf_hi(v.z), x[5], b);
  a = fmaf(bf_lo(v.w), x[6], a); b = fmaf(bf_hi(v.w), x[7], b);
  return a + b;
}

// What a warp of the attention inputs needs beside the data, fetched long before: the head norm's weights, and the angles.
struct HeadInput {
  uint32_t n0, n1;
  float4 r;
};

// Warps 4 to 7 take one of q0, q1, k, v each, norm and rotate it.
template <class S>
__device__ __forceinline__ void attention_inputs(Params const& p, Shared<S>& sh, Wait& w, HeadInput const& in, int share, uint32_t slot, int role, int lane) {
  const int group = share / GROUP, rank = share % GROUP;
  const uint32_t* src = p.qkv + ((slot * QKV_REP + rank % QKV_REP) * KV_HEADS + group) * 256 + role * 64 + lane;
  uint32_t a = 0, b = 0;
  int spins = 0;
#pragma unroll 1
  while (!w.dead) {
    a = ptx::ld1(src); b = ptx::ld1(src + 32);
    if (!__any_sync(~0u, a == EMPTY || b == EMPTY)) break;
    w.turn(spins, MK_PHASE_QKV);
  }
  if (role == 3) {
    ((uint32_t*)sh.v_new)[lane] = a; ((uint32_t*)sh.v_new)[32 + lane] = b;
    return;
  }
  float x0 = bf_lo(a), x1 = bf_hi(a), y0 = bf_lo(b), y1 = bf_hi(b);
  float ss = x0 * x0 + x1 * x1 + y0 * y0 + y1 * y1;
#pragma unroll
  for (int o = 16; o; o >>= 1) ss += __shfl_xor_sync(~0u, ss, o);
  float r = rsqrtf(ss * (1.f / HEAD_DIM) + p.eps);
  x0 *= r * bf_lo(in.n0); x1 *= r * bf_hi(in.n0); y0 *= r * bf_lo(in.n1); y1 *= r * bf_hi(in.n1);
  float u0 = x0 * in.r.x - y0 * in.r.y, v0 = y0 * in.r.x + x0 * in.r.y;
  float u1 = x1 * in.r.z - y1 * in.r.w, v1 = y1 * in.r.z + x1 * in.r.w;
  if (role < 2) {
    const float scale = 0.08838834764831845f * 1.4426950408889634f;  // 1/sqrt(128), and softmax in base 2
    float* q = sh.q + role * HEAD_DIM;
    *(float2*)(q + 2 * lane) = make_float2(u0 * scale, u1 * scale);
    *(float2*)(q + 64 + 2 * lane) = make_float2(v0 * scale, v1 * scale);
  } else {
    uint32_t ka = pack2(u0, u1), kb = pack2(v0, v1);
    ((uint32_t*)sh.k_new)[lane] = ka; ((uint32_t*)sh.k_new)[32 + lane] = kb;
  }
}

// The new key and value into the cache, by one share of the group. Nobody reads them before the next token, so this comes
// after the hand-over: the fence (the ring's copies read the cache by another path) takes as long as a hand-over.
template <class S>
__device__ __forceinline__ void append(Params const& p, Shared<S>& sh, int share, int layer, int pos, bool value, int lane) {
  const int group = share / GROUP, row = pos % TILE;
  char* tile = (char*)p.kv + (((size_t)layer * KV_HEADS + group) * p.max_tiles + pos / TILE) * TILE_BYTES;
  const uint32_t* src = (const uint32_t*)(value ? sh.v_new : sh.k_new) + lane;
  // values: quarters of 32 dims; odd quarters with neighbouring rows exchanged (bank conflicts)
  const int quarter = lane / 16;
  char* d = value ? tile + TILE_BYTES / 2 + quarter * 1024 + (row ^ (quarter & 1)) * 64 + (lane % 16) * 4 : tile + row * 256 + lane * 4;
  *(uint32_t*)d = src[0];
  *(uint32_t*)(d + (value ? 2048 : 128)) = src[32];
#if MK_BULK
  asm volatile("fence.proxy.async.global;" ::: "memory");
#else
  __threadfence();
#endif
}

template <int D, class S>
__device__ __forceinline__ void attention(Params const& p, Shared<S>& sh, Wait& wait, Consumer& ring, const char* data, int share, uint32_t slot, int pos, int warp, int lane) {
  constexpr int SPLITS = GROUP / D, DV = HEAD_DIM / D, VD = 8 / D;  // dims of the share, of a lane
  const int group = share / GROUP, rank = share % GROUP, split = rank / D, part = rank % D;
  const int hl = lane & 15, hw = lane >> 4;
  float q0[8], q1[8];
#pragma unroll
  for (int i = 0; i < 8; i++) { q0[i] = sh.q[hl * 8 + i]; q1[i] = sh.q[HEAD_DIM + hl * 8 + i]; }
  MARK(22);
  float m0 = NONE, m1 = NONE, l0 = 0, l1 = 0, o0[VD], o1[VD];
#pragma unroll
  for (int i = 0; i < VD; i++) o0[i] = o1[i] = 0;
  const int n = split_tiles(pos, split, SPLITS);
  const int half = warp >> 3, row = (2 * warp + hw) & 15;
  for (int c = 0; c < (n + 1) / 2; c++) {
    const char* tile = data + ring.wait(wait) + half * TILE_BYTES;
    uint32_t last = 0;
    MARK(23);
    const int at = (split + (2 * c + half) * SPLITS) * TILE + row;
    const bool valid = 2 * c + half < n && at <= pos;
    if (__any_sync(~0u, valid)) {
      const char* k = at == pos ? (const char*)sh.k_new : tile + row * 256;
      uint4 kv = *(const uint4*)(k + hl * 16);
      float s0 = dot8(kv, q0), s1 = dot8(kv, q1);
#pragma unroll
      for (int o = 8; o; o >>= 1) { s0 += __shfl_xor_sync(~0u, s0, o); s1 += __shfl_xor_sync(~0u, s1, o); }
      float n0 = fmaxf(m0, valid ? s0 : NONE), n1 = fmaxf(m1, valid ? s1 : NONE);
      float c0 = ptx::exp2(m0 - n0), c1 = ptx::exp2(m1 - n1);
      float e0 = valid ? ptx::exp2(s0 - n0) : 0.f, e1 = valid ? ptx::exp2(s1 - n1) : 0.f;
      m0 = n0; m1 = n1;
      l0 = l0 * c0 + e0; l1 = l1 * c1 + e1;
      const char* v;
      const int lq = hl * VD / 32;  // quarter within the share's dims
      if (at == pos) v = (const char*)(sh.v_new + part * DV + hl * VD);
      else v = tile + TILE_BYTES / 2 + lq * 1024 + (row ^ ((D == 4 ? part : lq) & 1)) * 64 + (hl * VD % 32) * 2;
      float vf[VD];
#pragma unroll
      for (int i = 0; i < VD; i += 2) { uint32_t u = ((const uint32_t*)v)[i / 2]; vf[i] = bf_lo(u); vf[i + 1] = bf_hi(u); last = u; }
      if (valid) {
#pragma unroll
        for (int i = 0; i < VD; i++) { o0[i] = fmaf(e0, vf[i], o0[i] * c0); o1[i] = fmaf(e1, vf[i], o1[i] * c1); }
      }
    }
    Consumer::wait_for(last);
    ring.arrive();
    ring.next();
  }
  MARK(24);
  // the two half-warps, then the 16 warps
  {
    float a0 = fmaxf(m0, __shfl_xor_sync(~0u, m0, 16)), a1 = fmaxf(m1, __shfl_xor_sync(~0u, m1, 16));
    float c0 = ptx::exp2(m0 - a0), c1 = ptx::exp2(m1 - a1);
    l0 *= c0; l1 *= c1;
    l0 += __shfl_xor_sync(~0u, l0, 16); l1 += __shfl_xor_sync(~0u, l1, 16);
#pragma unroll
    for (int i = 0; i < VD; i++) {
      o0[i] *= c0; o1[i] *= c1;
      o0[i] += __shfl_xor_sync(~0u, o0[i], 16); o1[i] += __shfl_xor_sync(~0u, o1[i], 16);
    }
    float* o = sh.o[warp] + (hw ? DV : 0) + hl * VD;  // the upper half-warp writes head 1
#pragma unroll
    for (int i = 0; i < VD; i++) o[i] = hw ? o1[i] : o0[i];
    if (lane == 0) { sh.m[0][warp] = a0; sh.l[0][warp] = l0; sh.m[1][warp] = a1; sh.l[1][warp] = l1; }
  }
  MARK(25);
  ptx::block_sync();
  // A warp a head (or two, or four): its lanes are dims.
  constexpr int HEAD_WARPS = DV / 32;
  if (warp < 2 * HEAD_WARPS) {
    const int head = warp / HEAD_WARPS, dim = warp % HEAD_WARPS * 32 + lane;
    float m[WARPS], l[WARPS];
#pragma unroll
    for (int i = 0; i < WARPS; i += 4) {
      float4 a = *(const float4*)&sh.m[head][i], b = *(const float4*)&sh.l[head][i];
      m[i] = a.x; m[i + 1] = a.y; m[i + 2] = a.z; m[i + 3] = a.w;
      l[i] = b.x; l[i + 1] = b.y; l[i + 2] = b.z; l[i + 3] = b.w;
    }
    float top[8];
#pragma unroll
    for (int i = 0; i < 8; i++) top[i] = fmaxf(m[i], m[i + 8]);
    const float M = fmaxf(fmaxf(fmaxf(top[0], top[1]), fmaxf(top[2], top[3])), fmaxf(fmaxf(top[4], top[5]), fmaxf(top[6], top[7])));
    float L[2] = {0, 0}, acc[2] = {0, 0};
#pragma unroll
    for (int i = 0; i < WARPS; i++) {
      float e = ptx::exp2(m[i] - M);
      L[i & 1] = fmaf(e, l[i], L[i & 1]);
      acc[i & 1] = fmaf(e, sh.o[i][head * DV + dim], acc[i & 1]);
    }
    const float sum = L[0] + L[1], v = sum == 0 ? 0.f : __fdividef(acc[0] + acc[1], sum);  // a NaN must stay one
    MARK(26);
    // 16 words, the warp's halves write them to the even and the odd replicas
    const float lo = __shfl_sync(~0u, v, 2 * (lane & 15)), hi = __shfl_sync(~0u, v, 2 * (lane & 15) + 1);
    const uint32_t word = pack2(lo, hi);
    constexpr uint32_t RECS = Q_HEADS * MAX_SPLITS;
    const uint32_t rec = (2 * group + head) * MAX_SPLITS + split;
    const uint32_t at = (rec + (lane >> 4) * RECS) * 64 + part * (DV / 2) + warp % HEAD_WARPS * 16 + (lane & 15);
    const uint32_t now = slot * ATT_REP * RECS, ahead = (slot ^ 2) * ATT_REP * RECS;
#pragma unroll
    for (int r = 0; r < ATT_REP; r += 2) ptx::st1(p.att + (now + r * RECS) * 64 + at, word);
    const bool sends_lse = part == 0 && warp % HEAD_WARPS == 0 && lane < ATT_REP;
    if (sends_lse) ptx::st1(p.lse + now + rec + lane * RECS, __float_as_uint(sum == 0 ? NONE : M + __log2f(sum)));
#pragma unroll
    for (int r = 0; r < ATT_REP; r += 2) ptx::st1(p.att + (ahead + r * RECS) * 64 + at, EMPTY);
    if (sends_lse) ptx::st1(p.lse + ahead + rec + lane * RECS, EMPTY);
    MARK(27);
  }
}
