// What a block keeps in shared memory beside the ring.
#pragma once
#include "gemv.cuh"
#include "exchange.cuh"

// In-kernel clocks, for finding out where time goes (build with -DPROFILE). A mark straight after a barrier is taken before
// the barrier is passed (the barrier blocks late), so the wait shows in the next interval.
#ifdef PROFILE
#ifndef PROFILE_WARP
#define PROFILE_WARP 0
#endif
__device__ unsigned long long profile[32];  // clocks summed over blocks, for one warp
__shared__ unsigned prof_all[16][32], last_all[16];
#define MARK(i) do { if ((threadIdx.x & 31) == 0) { unsigned now_ = clock(); prof_all[threadIdx.x / 32][i] += now_ - last_all[threadIdx.x / 32]; last_all[threadIdx.x / 32] = now_; } } while (0)
#else
#define MARK(i)
#endif

constexpr int MAX_ROWS = 1216;  // vocabulary rows of a share

// What is kept for each share of a block.
struct ShareState {
  float logits[MAX_ROWS];             // when sampling
  uint32_t seen[MAX_ROWS / 32];       // which of its rows are in the text already
  uint32_t suppressed[MAX_ROWS / 32]; // which of its rows are never chosen
#if !MK_BULK
  float residual[32];                 // warp 0's
#endif
};
// Vocabulary tiles of a share.
__device__ __forceinline__ int tiles_of(Params const& p, int share) { return ((p.vocab + 7) / 8 - share + SHARES - 1) / SHARES; }
constexpr int LM_GROUP = 4;  // vocabulary tiles a block sums up at once (32 rows: one a lane)

template <class S> struct Shared {
  static constexpr int PART_ROWS = 2 * S::H_ROWS > 32 ? 2 * S::H_ROWS : 32;
  Ring ring;
  alignas(16) float part[2][PART_ROWS * PART_STRIDE];
  alignas(16) float ss[16];           // a warp's share of the sum of squares
  alignas(16) float q[2 * HEAD_DIM];  // this group's two query heads, roped and scaled
  alignas(16) bf16 k_new[HEAD_DIM], v_new[HEAD_DIM];
  alignas(16) float m[2][WARPS], l[2][WARPS];
  alignas(16) float o[WARPS][2 * HEAD_DIM];
  unsigned long long best[WARPS];
  unsigned long long keys[SHARES];    // every share's best logit and id; then the k best
  unsigned long long bound, edge[2];
  int count;
  int token, stop;
  ShareState share[1];                // and more behind it where a block has more
};
