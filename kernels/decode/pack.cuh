// Repacks row-major weights into the stream the decode kernel reads: [layer][chunk][block][unit][warp][lane] of 16 bytes,
// then the LM head as tiles of 8 vocabulary rows. A tile belongs to block (tile % SHARES).
#pragma once
#include "config.cuh"

// One lane's 16 bytes of unit u: rows r0 (and r1, 8 further on, or the other half of the columns).
__device__ inline uint4 unit16(const bf16* m, size_t cols, size_t r0, size_t r1, int col0, int col1) {
  const uint32_t* a = (const uint32_t*)(m + r0 * cols + col0);
  const uint32_t* b = (const uint32_t*)(m + r1 * cols + col1);
  return make_uint4(a[0], b[0], a[1], b[1]);
}

template <class S> __device__ __forceinline__ void pack_layer(MkPackLayer const& w) {
  uint4* const out = (uint4*)w.out;
  size_t i = blockIdx.x * (size_t)blockDim.x + threadIdx.x;
  const size_t total = (size_t)S::LAYER_CHUNKS * SHARES * (CHUNK / 16);
  if (i >= total) return;
  const int lane = i % 32, warp = i / 32 % WARPS, unit = i / 512 % 2, bid = i / 1024 % SHARES, chunk = (int)(i / 1024 / SHARES);
  const int g = lane / 4, tig = lane % 4;
  int u = 2 * chunk + unit;
  auto col = [&](int slice, int kk) { return warp * slice + 32 * (kk / 2) + tig * 8 + 4 * (kk % 2); };
  constexpr int KX = S::X_SLICE / 16;
  constexpr bool ROWS8 = S::OUT_ROWS == 8;
  if (u < S::QKV_UNITS) {
    auto row = [&](int lr) {  // 512 rows of a group: 256 of q, 128 of k, 128 of v
      int group = bid / GROUP, j = bid % GROUP * S::QKV_ROWS + lr;
      if (j < 256) return group * 256 + j;
      if (j < 384) return Q_HEADS * HEAD_DIM + group * HEAD_DIM + j - 256;
      return (Q_HEADS + KV_HEADS) * HEAD_DIM + group * HEAD_DIM + j - 384;
    };
    int r = u / KX * 16 + g, c = col(S::X_SLICE, u % KX);
    out[i] = unit16(w.qkv, S::HIDDEN, row(r), row(r + 8), c, c);
    return;
  }
  u -= S::QKV_UNITS;
  if (u < S::O_UNITS) {
    int r = bid * S::OUT_ROWS + g, c = col(HEAD_DIM, u);
    out[i] = ROWS8 ? unit16(w.o, Q_HEADS * HEAD_DIM, r, r, c, c + HEAD_DIM / 2) : unit16(w.o, Q_HEADS * HEAD_DIM, r, r + 8, c, c);
    return;
  }
  u -= S::O_UNITS;
  if (u < S::GU_UNITS) {
    auto row = [&](int lr) { return lr < S::H_ROWS ? bid * S::H_ROWS + lr : S::INTER + bid * S::H_ROWS + lr - S::H_ROWS; };
    int r = u / KX * 16 + g, c = col(S::X_SLICE, u % KX);
    out[i] = unit16(w.gate_up, S::HIDDEN, row(r), row(r + 8), c, c);
    return;
  }
  u -= S::GU_UNITS;
  int r = bid * S::OUT_ROWS + g, c = col(S::H_SLICE, u);
  out[i] = ROWS8 ? unit16(w.down, S::INTER, r, r, c, c + S::H_SLICE / 2) : unit16(w.down, S::INTER, r, r + 8, c, c);
}

template <class S> __device__ __forceinline__ void pack_head(const bf16* head, int vocab, uint4* out) {
  size_t i = blockIdx.x * (size_t)blockDim.x + threadIdx.x;
  const int tiles = (vocab + 7) / 8;
  if (i >= (size_t)tiles * S::LM_CHUNKS * (CHUNK / 16)) return;
  const int lane = i % 32, warp = i / 32 % WARPS, unit = i / 512 % 2, chunk = i / 1024 % S::LM_CHUNKS;
  const size_t tile = i / 1024 / S::LM_CHUNKS;
  const int kk = 2 * chunk + unit, g = lane / 4, tig = lane % 4;
  const int c = warp * S::X_SLICE + 32 * (kk / 2) + tig * 8 + 4 * (kk % 2);
  const size_t r = tile * 8 + g;
  out[i] = r < (size_t)vocab ? unit16(head, S::HIDDEN, r, r, c, c + S::X_SLICE / 2) : make_uint4(0, 0, 0, 0);
}
