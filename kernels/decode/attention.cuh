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

// A lane's values of a position, read at once.
template <int N> struct alignas(4 * N) Words { uint32_t word[N]; };

// Sends what two warps or more have of the attention's result: a warp 32 dims of a head, a lane one word of them.
template <int D>
__device__ __forceinline__ void send_attention(Params const& p, int share, uint32_t slot, int head, int warp_of_head, uint32_t word, float lse, int lane) {
  constexpr int DV = HEAD_DIM / D;
  const int group = share / GROUP, rank = share % GROUP, split = rank / D, part = rank % D;
  // 16 words, the warp's halves write them to the even and the odd replicas
  constexpr uint32_t RECS = Q_HEADS * MAX_SPLITS;
  const uint32_t rec = (2 * group + head) * MAX_SPLITS + split;
  const uint32_t at = (rec + (lane >> 4) * RECS) * 64 + part * (DV / 2) + warp_of_head * 16 + (lane & 15);
  const uint32_t now = slot * ATT_REP * RECS, ahead = (slot ^ 2) * ATT_REP * RECS;
#pragma unroll
  for (int r = 0; r < ATT_REP; r += 2) ptx::st1(p.att + (now + r * RECS) * 64 + at, word);
  const bool sends_lse = part == 0 && warp_of_head == 0 && lane < ATT_REP;
  if (sends_lse) ptx::st1(p.lse + now + rec + lane * RECS, __float_as_uint(lse));
#pragma unroll
  for (int r = 0; r < ATT_REP; r += 2) ptx::st1(p.att + (ahead + r * RECS) * 64 + at, EMPTY);
  if (sends_lse) ptx::st1(p.lse + ahead + rec + lane * RECS, EMPTY);
}

// Sums over the 16 lanes of a half-warp, for each of them.
__device__ __forceinline__ void sum_over_16(float (&s)[1][2], int) {
#pragma unroll
  for (int o = 8; o; o >>= 1) { s[0][0] += __shfl_xor_sync(~0u, s[0][0], o); s[0][1] += __shfl_xor_sync(~0u, s[0][1], o); }
}
// Four at once: halves of the lanes go on with half of them each, and all are handed round at the end.
__device__ __forceinline__ void sum_over_16(float (&s)[2][2], int lane) {
  const bool upper = lane & 8, odd = lane & 4;
  const float a = (upper ? s[1][0] : s[0][0]) + __shfl_xor_sync(~0u, upper ? s[0][0] : s[1][0], 8);
  const float b = (upper ? s[1][1] : s[0][1]) + __shfl_xor_sync(~0u, upper ? s[0][1] : s[1][1], 8);
  float sum = (odd ? b : a) + __shfl_xor_sync(~0u, odd ? a : b, 4);
  sum += __shfl_xor_sync(~0u, sum, 2);
  sum += __shfl_xor_sync(~0u, sum, 1);
#pragma unroll
  for (int i = 0; i < 4; i++) s[i / 2][i % 2] = __shfl_sync(~0u, sum, 4 * i, 16);
}

template <int D, class S>
__device__ __forceinline__ void attention(Params const& p, Shared<S>& sh, Wait& wait, Consumer& ring, const char* data, int share, uint32_t slot, int pos, int warp, int lane) {
  constexpr int SPLITS = GROUP / D, DV = HEAD_DIM / D, VD = 8 / D;  // dims of the share, of a lane
  const int rank = share % GROUP, split = rank / D, part = rank % D;
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
  // So many chunks at a time, a position of each to a half-warp. Short contexts have one or two in all.
  constexpr int AT_ONCE = D == 4 ? 1 : 2;
  for (int c = 0; c < n; c += 2 * AT_ONCE) {
    const bool both = AT_ONCE == 2 && c + 2 < n;
    const char* tiles[AT_ONCE];
    int at[AT_ONCE];
    bool valid[AT_ONCE];
    float s[AT_ONCE][2];
    {
      Consumer second = ring;
      second.next();
      tiles[0] = data + ring.wait(wait) + half * TILE_BYTES;
      if (AT_ONCE == 2) tiles[AT_ONCE - 1] = both ? data + second.wait(wait) + half * TILE_BYTES : tiles[0];
    }
    MARK(23);
#pragma unroll
    for (int i = 0; i < AT_ONCE; i++) {
      const int tile = c + 2 * i + half;
      at[i] = (split + tile * SPLITS) * TILE + row;
      valid[i] = tile < n && at[i] <= pos;
      const char* k = at[i] == pos ? (const char*)sh.k_new : tiles[i] + row * 256;
      const uint4 key = *(const uint4*)(k + hl * 16);
      s[i][0] = dot8(key, q0);
      s[i][1] = dot8(key, q1);
    }
    sum_over_16(s, hl);
#pragma unroll
    for (int i = 0; i < AT_ONCE; i++)
      if (!valid[i]) s[i][0] = s[i][1] = NONE;
    const float n0 = fmaxf(m0, fmaxf(s[0][0], s[AT_ONCE - 1][0])), n1 = fmaxf(m1, fmaxf(s[0][1], s[AT_ONCE - 1][1]));
    const float c0 = ptx::exp2(m0 - n0), c1 = ptx::exp2(m1 - n1);
    m0 = n0; m1 = n1;
    l0 *= c0; l1 *= c1;
#pragma unroll
    for (int i = 0; i < VD; i++) { o0[i] *= c0; o1[i] *= c1; }
    uint32_t last = 0;
#pragma unroll
    for (int i = 0; i < AT_ONCE; i++) {
      const int lq = hl * VD / 32;  // quarter within the share's dims
      const char* v = at[i] == pos ? (const char*)(sh.v_new + part * DV + hl * VD)
                                   : tiles[i] + TILE_BYTES / 2 + lq * 1024 + (row ^ ((D == 4 ? part : lq) & 1)) * 64 + (hl * VD % 32) * 2;
      Words<VD / 2> w = *(const Words<VD / 2>*)v;
      last |= w.word[VD / 2 - 1];
      if (!valid[i]) continue;  // whatever lies there
      const float e0 = ptx::exp2(s[i][0] - m0), e1 = ptx::exp2(s[i][1] - m1);
      l0 += e0; l1 += e1;
#pragma unroll
      for (int d = 0; d < VD; d += 2) {
        const float lo = bf_lo(w.word[d / 2]), hi = bf_hi(w.word[d / 2]);
        o0[d] = fmaf(e0, lo, o0[d]); o0[d + 1] = fmaf(e0, hi, o0[d + 1]);
        o1[d] = fmaf(e1, lo, o1[d]); o1[d + 1] = fmaf(e1, hi, o1[d + 1]);
      }
    }
    Consumer::wait_for(last);
    ring.arrive();
    ring.next();
    if (both) {
      ring.arrive();
      ring.next();
    }
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
    ptx::release_others();
    const float sum = L[0] + L[1], v = sum == 0 ? 0.f : __fdividef(acc[0] + acc[1], sum);  // a NaN must stay one
    MARK(26);
    const uint32_t word = pack2(__shfl_sync(~0u, v, 2 * (lane & 15)), __shfl_sync(~0u, v, 2 * (lane & 15) + 1));
    send_attention<D>(p, share, slot, head, warp % HEAD_WARPS, word, sum == 0 ? NONE : M + __log2f(sum), lane);
    MARK(27);
  } else ptx::await_release();
}
