// Attention of a prefill: a block takes 64 positions of both query heads of a key head, a warp 16 positions of one head,
// and all blocks of 64 keys up to their own, as in FlashAttention-2 (Dao, 2023).
#pragma once
#include "gemm.cuh"

namespace prefill {

constexpr int KEYS = 64;                      // of a step
constexpr int KEY_BYTES = KEYS * HEAD_DIM * 2;  // and as much for values
constexpr int ATTENTION_SHARED = 4 * KEY_BYTES;

// Four 8x8 blocks of 16-bit values, transposed.
__device__ __forceinline__ uint4 load_transposed(uint32_t row) {
  uint4 v;
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3},[%4];" : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "r"(row) : "memory");
  return v;
}
__device__ __forceinline__ float exp2_of(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0,%1;" : "=f"(y) : "f"(x));
  return y;
}

__device__ __forceinline__ void attention(MkPrefill const& p, char* shared) {
  const int tid = threadIdx.x, lane = tid % 32, warp = tid / 32, g = lane >> 2, tig = lane & 3;
  const int group = blockIdx.y, head = 2 * group + warp / 4;
  const int first = (gridDim.x - 1 - blockIdx.x) * 64;  // the longest rows first
  const int row0 = first + warp % 4 * 16 + g, row1 = row0 + 8;
  const int end = p.pos0 + min(first + 64, p.tokens);  // keys that the block needs
  const int steps = (end + KEYS - 1) / KEYS;
  const char* cache = (const char*)p.kv + (size_t)group * p.max_tiles * TILE_BYTES;
  const uint32_t base = shared_address(shared);

  // Keys as [4 x 32 dims][key][64 bytes], values as [16 x 8 dims][key][16 bytes]: both read without bank conflicts.
  auto fetch = [&](int step) {
    const uint32_t keys = base + step % 2 * 2 * KEY_BYTES, values = keys + KEY_BYTES;
    for (int k = tid; k < KEYS * 16; k += 256) {
      const int key = k / 16, c = k % 16, pos = step * KEYS + key, row = pos % TILE;
      const char* tile = cache + (size_t)(pos / TILE) * TILE_BYTES;
      const bool there = pos < end;
      if (!there) tile = cache;
      copy16(keys + c / 4 * (KEYS * 64) + key * 64 + c % 4 * 16, tile + row * 256 + c * 16, there);
      copy16(values + c * (KEYS * 16) + key * 16, tile + TILE_BYTES / 2 + c / 4 * 1024 + (row ^ (c / 4 & 1)) * 64 + c % 4 * 16, there);
    }
  };

  take_turns();
  uint4 q0[4], q1[4];
#pragma unroll
  for (int j = 0; j < 4; j++) {
    const uint4 none = make_uint4(0, 0, 0, 0);
    q0[j] = row0 < p.tokens ? *(const uint4*)(p.input + ((size_t)row0 * Q_HEADS + head) * HEAD_DIM + 32 * j + tig * 8) : none;
    q1[j] = row1 < p.tokens ? *(const uint4*)(p.input + ((size_t)row1 * Q_HEADS + head) * HEAD_DIM + 32 * j + tig * 8) : none;
  }
  float o[16][4] = {};
  float m0 = -1e30f, m1 = -1e30f, l0 = 0, l1 = 0;
  fetch(0);
  commit();
#pragma unroll 1
  for (int step = 0; step < steps; step++) {
    if (step + 1 < steps) fetch(step + 1);
    commit();
    wait_copies<1>();
    __syncthreads();
    const char* keys = shared + step % 2 * 2 * KEY_BYTES;
    float s[8][4] = {};
#pragma unroll
    for (int j = 0; j < 4; j++)
#pragma unroll
      for (int n = 0; n < 8; n++) {
        const uint4 k = *(const uint4*)(keys + j * (KEYS * 64) + (n * 8 + g) * 64 + tig * 16);
        mma(s[n], q0[j].x, q1[j].x, q0[j].y, q1[j].y, k.x, k.y);
        mma(s[n], q0[j].z, q1[j].z, q0[j].w, q1[j].w, k.z, k.w);
      }
    const int at = step * KEYS + 2 * tig - p.pos0;  // of the lane's first key, as a row of this prefill
    if (step * KEYS + KEYS > p.pos0 + first + warp % 4 * 16) {
#pragma unroll
      for (int n = 0; n < 8; n++) {
        const int key = at + n * 8;
        if (key > row0) s[n][0] = -1e30f;
        if (key + 1 > row0) s[n][1] = -1e30f;
        if (key > row1) s[n][2] = -1e30f;
        if (key + 1 > row1) s[n][3] = -1e30f;
      }
    }
    float t0 = m0, t1 = m1;
#pragma unroll
    for (int n = 0; n < 8; n++) { t0 = fmaxf(t0, fmaxf(s[n][0], s[n][1])); t1 = fmaxf(t1, fmaxf(s[n][2], s[n][3])); }
#pragma unroll
    for (int x = 1; x < 4; x <<= 1) { t0 = fmaxf(t0, __shfl_xor_sync(~0u, t0, x)); t1 = fmaxf(t1, __shfl_xor_sync(~0u, t1, x)); }
    const float c0 = exp2_of(m0 - t0), c1 = exp2_of(m1 - t1);
    m0 = t0; m1 = t1;
    l0 *= c0; l1 *= c1;
#pragma unroll
    for (int n = 0; n < 16; n++) { o[n][0] *= c0; o[n][1] *= c0; o[n][2] *= c1; o[n][3] *= c1; }
    const uint32_t values = base + step % 2 * 2 * KEY_BYTES + KEY_BYTES;
#pragma unroll
    for (int k = 0; k < 4; k++) {  // 16 keys
      uint32_t a[4];
#pragma unroll
      for (int h = 0; h < 2; h++) {
        const float* v = s[2 * k + h];
        const float e0 = exp2_of(v[0] - m0), e1 = exp2_of(v[1] - m0), e2 = exp2_of(v[2] - m1), e3 = exp2_of(v[3] - m1);
        l0 += e0 + e1; l1 += e2 + e3;
        a[2 * h] = pack(e0, e1); a[2 * h + 1] = pack(e2, e3);
      }
#pragma unroll
      for (int n = 0; n < 16; n += 2) {  // 8 dims, and 8 more
        const uint4 v = load_transposed(values + (n + lane / 16) * (KEYS * 16) + (k * 16 + lane % 16) * 16);
        mma(o[n], a[0], a[1], a[2], a[3], v.x, v.y);
        mma(o[n + 1], a[0], a[1], a[2], a[3], v.z, v.w);
      }
    }
    __syncthreads();
  }
#pragma unroll
  for (int x = 1; x < 4; x <<= 1) { l0 += __shfl_xor_sync(~0u, l0, x); l1 += __shfl_xor_sync(~0u, l1, x); }
  const float r0 = 1.f / l0, r1 = 1.f / l1;
#pragma unroll
  for (int n = 0; n < 16; n++) {
    const int d = n * 8 + 2 * tig;
    if (row0 < p.tokens) *(uint32_t*)(p.output + ((size_t)row0 * Q_HEADS + head) * HEAD_DIM + d) = pack(o[n][0] * r0, o[n][1] * r0);
    if (row1 < p.tokens) *(uint32_t*)(p.output + ((size_t)row1 * Q_HEADS + head) * HEAD_DIM + d) = pack(o[n][2] * r1, o[n][3] * r1);
  }
}

}  // namespace prefill
