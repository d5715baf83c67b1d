// What a prefill does row by row: embedding, norms, and queries, keys and values after their product.
#pragma once
#include "gemm.cuh"

namespace prefill {

// A block a token.
__device__ __forceinline__ void embed(MkPrefill const& p) {
  take_turns();
  const int token = blockIdx.x;
  for (int i = threadIdx.x; i < p.hidden; i += blockDim.x) {
    const size_t at = (size_t)token * p.hidden + i;
    p.x[at] = p.ids ? __bfloat162float(p.embed[(size_t)p.ids[token] * p.hidden + i]) : p.rows[at];
  }
}

// RMSNorm, a block of 256 a token; before it, what split products have left is added to the residual.
__device__ __forceinline__ void norm(MkPrefill const& p) {
  __shared__ float sums[8];
  const size_t row = (size_t)blockIdx.x * p.hidden;
  float2* x = (float2*)(p.x + row);
  float ss = 0;
  take_turns();
  if (p.splits > 1)
    for (int i = threadIdx.x; i < p.hidden / 2; i += 256) {
      float2 sum = x[i];
      for (int split = 0; split < p.splits; split++) {
        const float2 part = ((const float2*)(p.partials + split * (size_t)p.tokens * p.hidden + row))[i];
        sum.x += part.x; sum.y += part.y;
      }
      x[i] = sum;
    }
  for (int i = threadIdx.x; i < p.hidden / 2; i += 256) ss += x[i].x * x[i].x + x[i].y * x[i].y;
#pragma unroll
  for (int o = 16; o; o >>= 1) ss += __shfl_xor_sync(~0u, ss, o);
  if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = ss;
  __syncthreads();
  ss = 0;
#pragma unroll
  for (int i = 0; i < 8; i++) ss += sums[i];
  const float r = rsqrtf(ss / p.hidden + p.eps);
  const __nv_bfloat162* gain = (const __nv_bfloat162*)p.norms;
  uint32_t* out = (uint32_t*)(p.output + (size_t)blockIdx.x * p.hidden);
  for (int i = threadIdx.x; i < p.hidden / 2; i += 256) {
    const float2 w = __bfloat1622float2(gain[i]);
    out[i] = pack(x[i].x * r * w.x, x[i].y * r * w.y);
  }
}

// A block a token, a warp for each of q0, q1, k, v of each group: norm and rotate queries and keys, keys and values to the
// cache, queries (scaled for a softmax in base 2) to [tokens][Q_HEADS][HEAD_DIM].
__device__ __forceinline__ void heads(MkPrefill const& p) {
  const int token = blockIdx.x, group = threadIdx.x / 128, role = threadIdx.x / 32 % 4, lane = threadIdx.x % 32;
  const int pos = p.pos0 + token, row = pos % TILE;
  take_turns();
  const uint32_t* src = (const uint32_t*)(p.input + ((size_t)token * KV_HEADS + group) * 512) + role * 64 + lane;
  const uint32_t a = src[0], b = src[32];
  char* tile = (char*)p.kv + ((size_t)group * p.max_tiles + pos / TILE) * TILE_BYTES;
  if (role == 3) {
    const int quarter = lane / 16;
    char* d = tile + TILE_BYTES / 2 + quarter * 1024 + (row ^ (quarter & 1)) * 64 + lane % 16 * 4;
    *(uint32_t*)d = a;
    *(uint32_t*)(d + 2048) = b;
    return;
  }
  float2 x = __bfloat1622float2(*(const __nv_bfloat162*)&a), y = __bfloat1622float2(*(const __nv_bfloat162*)&b);
  float ss = x.x * x.x + x.y * x.y + y.x * y.x + y.y * y.y;
#pragma unroll
  for (int o = 16; o; o >>= 1) ss += __shfl_xor_sync(~0u, ss, o);
  const float r = rsqrtf(ss * (1.f / HEAD_DIM) + p.eps);
  const __nv_bfloat162* gain = (const __nv_bfloat162*)(p.norms + 2 * p.hidden + (role == 2 ? HEAD_DIM : 0));
  const float2 w0 = __bfloat1622float2(gain[lane]), w1 = __bfloat1622float2(gain[32 + lane]);
  const float4 angle = ((const float4*)(p.rope + (size_t)pos * HEAD_DIM))[lane];
  x.x *= r * w0.x; x.y *= r * w0.y; y.x *= r * w1.x; y.y *= r * w1.y;
  const float u0 = x.x * angle.x - y.x * angle.y, v0 = y.x * angle.x + x.x * angle.y;
  const float u1 = x.y * angle.z - y.y * angle.w, v1 = y.y * angle.z + x.y * angle.w;
  if (role == 2) {
    uint32_t* d = (uint32_t*)(tile + row * 256) + lane;
    d[0] = pack(u0, u1);
    d[32] = pack(v0, v1);
  } else {
    const float scale = 0.08838834764831845f * 1.4426950408889634f;
    uint32_t* d = (uint32_t*)(p.output + ((size_t)token * Q_HEADS + 2 * group + role) * HEAD_DIM) + lane;
    d[0] = pack(u0 * scale, u1 * scale);
    d[32] = pack(v0 * scale, v1 * scale);
  }
}

}  // namespace prefill
