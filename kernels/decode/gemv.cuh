// Matrix times vector on the tensor cores. The columns are split over the warps: warp w needs only its own slice of the
// input, so it starts when that slice has arrived, and its weights wait for it in registers.
//
// A unit is one A operand. '16-row' units hold 16 rows; '8-row' units hold 8 rows twice, for two halves of the slice,
// and even columns of B carry the first half, odd columns the second.
#pragma once
#include "ring.cuh"

constexpr int PART_STRIDE = 20;  // 16 warps and padding that keeps 16-byte reads free of bank conflicts

// Units of a phase into registers; the slots are free at once. 'meanwhile' is what else can be asked for while they are on
// their way: a first look at the input takes as long as they do.
template <int N, class F> __device__ __forceinline__ void load_units(Consumer& ring, Wait& wait, const char* data, uint4* w, int thread, F meanwhile) {
#if MK_BULK
  Consumer ahead = ring;
#pragma unroll
  for (int c = 0; c < N / 2; c++) {
    const uint4* s = (const uint4*)(data + ahead.wait(wait)) + thread;
    w[2 * c] = s[0];
    w[2 * c + 1] = s[512];
    ahead.next();
  }
  meanwhile();
  wait.agree();
  Consumer::wait_for(w[N - 1].w);  // a warp's reads return in order
#pragma unroll 1
  for (int c = 0; c < N / 2; c++) { ring.arrive(); ring.next(); }
#else  // one by one: a phase may have more than the ring holds
#pragma unroll
  for (int c = 0; c < N / 2; c++) {
    const uint4* s = (const uint4*)(data + ring.wait(wait)) + thread;
    w[2 * c] = s[0];
    w[2 * c + 1] = s[512];
    if (c == N / 2 - 1) meanwhile();
    Consumer::wait_for(w[2 * c + 1].w);
    ring.arrive();
    ring.next();
  }
  wait.agree();
#endif
}
template <int N> __device__ __forceinline__ void load_units(Consumer& ring, Wait& wait, const char* data, uint4* w, int thread) {
  load_units<N>(ring, wait, data, w, thread, [] {});
}

// B operand of k-step kk out of the lane's vectors (two k-steps a vector).
__device__ __forceinline__ void mma_step(float* c, uint4 a, const uint4* x, int kk) {
  uint4 v = x[kk >> 1];
  if (kk & 1) ptx::mma(c, a, v.z, v.w);
  else ptx::mma(c, a, v.x, v.y);
}

// Partial sums of 16 rows to shared memory.
__device__ __forceinline__ void put16(float* part, int row0, const float* c, int warp, int lane) {
  int g = lane >> 2, t = lane & 3;
  if (t < 2) part[(row0 + g + 8 * t) * PART_STRIDE + warp] = t ? c[2] : c[0];
}
__device__ __forceinline__ void put8(float* part, int row0, float v, int warp, int lane) {
  if ((lane & 3) == 0) part[(row0 + (lane >> 2)) * PART_STRIDE + warp] = v;
}
__device__ __forceinline__ float sum16(const float* p) {
  const float4* q = (const float4*)p;
  float4 a = q[0], b = q[1], c = q[2], d = q[3];
  return ((a.x + a.y) + (a.z + a.w)) + ((b.x + b.y) + (b.z + b.w)) + ((c.x + c.y) + (c.z + c.w)) + ((d.x + d.y) + (d.z + d.w));
}
// Sum over the four lanes of a group, which hold different columns.
__device__ __forceinline__ float sum_tig(float a) {
  a += __shfl_xor_sync(~0u, a, 1);
  return a + __shfl_xor_sync(~0u, a, 2);
}
