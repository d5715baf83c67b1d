// Matrix times many vectors, on weights as the decode kernel has them (decode/pack.cuh): a unit of 512 bytes is the A
// operand of one m16n8k16 in register order, so it goes from memory to shared memory to registers without a rearrangement.
// The order of columns within 32 that units have is followed by reading B operands 16 bytes a lane.
//
// A step is 64 columns of a slice: four units for each 16 rows. Where a block has 8 rows (O and down at hidden size
// 1,024), its units hold two halves of the columns, and the units of two neighbouring blocks make the A operands of 16
// rows, first of one half, then of the other.
#pragma once
#include "../decode/config.cuh"
#include "../overlap.cuh"

namespace prefill {

enum Epilogue { STORE, ADD, GATE };

__device__ __forceinline__ void mma(float* c, uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3, uint32_t b0, uint32_t b1) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},{%0,%1,%2,%3};"
               : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3]) : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}
// 16 bytes from memory to shared memory; zeros where there is no source.
__device__ __forceinline__ void copy16(uint32_t to, const void* from, bool there) {
  asm volatile("cp.async.cg.shared.global [%0],[%1],16,%2;" ::"r"(to), "l"(from), "r"(there ? 16 : 0) : "memory");
}
__device__ __forceinline__ void commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int N> __device__ __forceinline__ void wait_copies() { asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory"); }
__device__ __forceinline__ uint32_t shared_address(const void* p) { return (uint32_t)__cvta_generic_to_shared(p); }
__device__ __forceinline__ uint32_t pack(float lo, float hi) {
  __nv_bfloat162 v = __floats2bfloat162_rn(lo, hi);
  return *(uint32_t*)&v;
}

// ROW_WARPS x TOKEN_WARPS warps, each ROW_TILES tiles of 16 rows times TOKEN_TILES of 8 tokens.
template <int ROW_WARPS_, int TOKEN_WARPS_, int ROW_TILES_, int TOKEN_TILES_, int STAGES_> struct Config {
  static constexpr int ROW_WARPS = ROW_WARPS_, TOKEN_WARPS = TOKEN_WARPS_, ROW_TILES = ROW_TILES_, TOKEN_TILES = TOKEN_TILES_;
  static constexpr int THREADS = ROW_WARPS * TOKEN_WARPS * 32;
  static constexpr int TILES = ROW_WARPS * ROW_TILES, ROWS = TILES * 16, TOKENS = TOKEN_WARPS * TOKEN_TILES * 8;
  static constexpr int A_BYTES = TILES * 2048, B_BYTES = TOKENS * 128, STAGE = A_BYTES + B_BYTES;
  static constexpr int STAGES = STAGES_ * STAGE <= MAX_SHARED ? STAGES_ : MAX_SHARED / STAGE;  // as wanted, or as fit
  static constexpr int OUT_STRIDE = ROWS + 4;  // floats of a token's row in shared memory, after the product
  static constexpr int SHARED = STAGES * STAGE > TOKENS * OUT_STRIDE * 4 ? STAGES * STAGE : TOKENS * OUT_STRIDE * 4;
  static_assert(STAGES >= 2 && SHARED <= MAX_SHARED, "a tile is too large");
};
using Large = Config<4, 2, 2, 8, 4>;      // 128 rows, 128 tokens
using LargeGate = Config<4, 2, 3, 8, 4>;  // 192 rows, 128 tokens
// Few blocks, each alone on its multiprocessor: what counts is how much is under way.
using Small = Config<2, 2, 2, 4, 12>;      // 64 rows, 64 tokens
using SmallGate = Config<2, 2, 3, 4, 10>;  // 96 rows, 64 tokens

template <class C, Epilogue E, bool ROWS8> __device__ __forceinline__ void gemm(MkPrefill const& p, char* shared) {
  const int tid = threadIdx.x, lane = tid % 32, warp = tid / 32, g = lane >> 2, tig = lane & 3;
  const int row_warp = warp / C::TOKEN_WARPS, token_warp = warp % C::TOKEN_WARPS;
  const int tile0 = blockIdx.x * C::TILES, token0 = blockIdx.y * C::TOKENS;
  const int slices = 16 / gridDim.z, steps = slices * p.steps;  // the last dimension of the grid splits the columns
  const uint32_t base = shared_address(shared);

  // What a thread copies in every step, and how far that moves on from one step of a slice to the next.
  constexpr int A_COPIES = C::TILES * 128 / C::THREADS, B_COPIES = C::TOKENS * 8 / C::THREADS;
  const uint8_t* a_from[A_COPIES];
  const mk_bf16* b_from[B_COPIES];
  bool there[B_COPIES];
#pragma unroll
  for (int n = 0; n < A_COPIES; n++) {
    const int k = tid + n * C::THREADS, tile = tile0 + k / 128, unit = k / 32 % 4;
    const int block = ROWS8 ? 2 * tile + unit / 2 : tile / p.tiles_per_block;
    const int u = ROWS8 ? unit % 2 : tile % p.tiles_per_block * (4 * p.steps) + unit;
    a_from[n] = p.weights + ((size_t)(u / 2 * SHARES + block) * 2 + u % 2) * 8192 + k % 32 * 16;
  }
#pragma unroll
  for (int n = 0; n < B_COPIES; n++) {
    const int k = tid + n * C::THREADS, token = token0 + k / 8, c = k % 8;
    there[n] = token < p.tokens;
    b_from[n] = p.input + (size_t)(there[n] ? token : 0) * p.columns + (ROWS8 ? c / 4 * (p.slice / 2) + c % 4 * 8 : c * 8);
  }
  const uint32_t a_step = (ROWS8 ? 1 : 2) * SHARES * CHUNK, b_step = ROWS8 ? 32 : 64;
  struct Fetch {
    int slice, within = 0;
    uint32_t stage;
    __device__ __forceinline__ void next(int steps, uint32_t base) {
      if (++within == steps) { within = 0; slice++; }
      stage += C::STAGE;
      if (stage == base + C::STAGES * C::STAGE) stage = base;
    }
  };
  auto fetch_weights = [&](Fetch const& at) {
    const uint32_t from = at.slice * 512 + at.within * a_step;
#pragma unroll
    for (int n = 0; n < A_COPIES; n++) copy16(at.stage + (tid + n * C::THREADS) * 16, a_from[n] + from, true);
  };
  auto fetch_input = [&](Fetch const& at) {
    const uint32_t from = at.slice * p.slice + at.within * b_step;
#pragma unroll
    for (int n = 0; n < B_COPIES; n++) {
      const int k = tid + n * C::THREADS, token = k / 8, c = k % 8;
      copy16(at.stage + C::A_BYTES + c / 4 * (C::TOKENS * 64) + token * 64 + c % 4 * 16, b_from[n] + from, there[n]);
    }
  };

  // Weights are under way while the kernel before still makes the input. They all arrive with the first stage's input.
  const Fetch first{(int)blockIdx.z * slices, 0, base};
  Fetch ahead = first;
#pragma unroll
  for (int s = 0; s < C::STAGES - 1; s++) {
    if (s < steps) fetch_weights(ahead);
    ahead.next(p.steps, base);
  }
  take_turns();
  ahead = first;
#pragma unroll
  for (int s = 0; s < C::STAGES - 1; s++) {
    if (s < steps) fetch_input(ahead);
    ahead.next(p.steps, base);
    commit();
  }
  float acc[C::ROW_TILES][C::TOKEN_TILES][4] = {};
  int stage = 0;
#pragma unroll 1
  for (int step = 0; step < steps; step++) {
    wait_copies<C::STAGES - 2>();
    __syncthreads();
    if (step + C::STAGES - 1 < steps) {
      fetch_weights(ahead);
      fetch_input(ahead);
      ahead.next(p.steps, base);
    }
    commit();
    const char* a = shared + stage * C::STAGE + row_warp * C::ROW_TILES * 2048 + lane * 16;
    const char* b = shared + stage * C::STAGE + C::A_BYTES + (token_warp * C::TOKEN_TILES * 8 + g) * 64 + tig * 16;
    if (++stage == C::STAGES) stage = 0;
    uint4 w[C::ROW_TILES][4];
#pragma unroll
    for (int i = 0; i < C::ROW_TILES; i++) {
#pragma unroll
      for (int k = 0; k < 4; k++) w[i][k] = *(const uint4*)(a + i * 2048 + k * 512);
      if (ROWS8)  // two units of one block, two of the next
#pragma unroll
        for (int k = 0; k < 2; k++) {
          const uint4 v = w[i][k], u = w[i][2 + k];
          w[i][k] = make_uint4(v.x, u.x, v.z, u.z);
          w[i][2 + k] = make_uint4(v.y, u.y, v.w, u.w);
        }
    }
#pragma unroll
    for (int half = 0; half < 2; half++) {  // of 32 columns
#pragma unroll
      for (int j = 0; j < C::TOKEN_TILES; j++) {
        const uint4 x = *(const uint4*)(b + half * (C::TOKENS * 64) + j * 512);
#pragma unroll
        for (int i = 0; i < C::ROW_TILES; i++) {
          mma(acc[i][j], w[i][2 * half].x, w[i][2 * half].y, w[i][2 * half].z, w[i][2 * half].w, x.x, x.y);
          mma(acc[i][j], w[i][2 * half + 1].x, w[i][2 * half + 1].y, w[i][2 * half + 1].z, w[i][2 * half + 1].w, x.z, x.w);
        }
      }
    }
  }
  wait_copies<0>();
  __syncthreads();

  // Through shared memory, so that rows of a token are written together.
  float* out = (float*)shared;
#pragma unroll
  for (int i = 0; i < C::ROW_TILES; i++)
#pragma unroll
    for (int j = 0; j < C::TOKEN_TILES; j++) {
      float* o = out + ((token_warp * C::TOKEN_TILES + j) * 8 + 2 * tig) * C::OUT_STRIDE + (row_warp * C::ROW_TILES + i) * 16 + g;
      o[0] = acc[i][j][0]; o[C::OUT_STRIDE] = acc[i][j][1];
      o[8] = acc[i][j][2]; o[C::OUT_STRIDE + 8] = acc[i][j][3];
    }
  __syncthreads();
  const int tokens = min(C::TOKENS, p.tokens - token0);
  if constexpr (E == GATE) {
    constexpr int N = C::ROWS / 2;
    for (int k = tid; k < tokens * (N / 2); k += C::THREADS) {
      const int token = k / (N / 2), i = k % (N / 2) * 2;
      const float* gate = out + token * C::OUT_STRIDE + i / p.gate_rows * 2 * p.gate_rows + i % p.gate_rows;
      const float* up = gate + p.gate_rows;
      const float h0 = __fdividef(gate[0], 1.f + __expf(-gate[0])) * up[0], h1 = __fdividef(gate[1], 1.f + __expf(-gate[1])) * up[1];
      *(uint32_t*)(p.output + (size_t)(token0 + token) * p.out_columns + blockIdx.x * N + i) = pack(h0, h1);
    }
  } else for (int k = tid; k < tokens * (C::ROWS / 4); k += C::THREADS) {
    const int token = k / (C::ROWS / 4), i = k % (C::ROWS / 4) * 4;
    const float4 v = *(const float4*)(out + token * C::OUT_STRIDE + i);
    const size_t at = (size_t)(token0 + token) * p.out_columns + tile0 * 16 + i;
    if (E == ADD && gridDim.z > 1) *(float4*)(p.partials + blockIdx.z * (size_t)p.tokens * p.out_columns + at) = v;
    else if (E == STORE) *(uint2*)(p.output + at) = make_uint2(pack(v.x, v.y), pack(v.z, v.w));
    else {
      float4* x = (float4*)(p.x + at);
      float4 r = *x;
      r.x += v.x; r.y += v.y; r.z += v.z; r.w += v.w;
      *x = r;
    }
  }
}

}  // namespace prefill
