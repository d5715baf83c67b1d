// The same decoder as one kernel for each operation, to be captured in a CUDA graph and replayed token by token: what the
// megakernel is measured against. Weights lie as in a checkpoint, a warp takes whole rows, and everything that an
// operation reads of them is under way before the first of it is used.
#pragma once
#include "../decode/sampling.cuh"
#include "../overlap.cuh"

namespace baseline {

constexpr int GEMV_THREADS = 128;       // of a product: small blocks spread evenly
constexpr int ATTENTION_THREADS = 128;
constexpr int AT_ONCE = 16;             // 16-byte copies of weights that a lane has under way, at most
constexpr float NO_SCORE = -1e30f;      // below every score; its difference to itself is not NaN

__device__ __forceinline__ uint4 load_once(const void* p) {
  uint4 v;
  asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0,%1,%2,%3},[%4];" : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "l"(p));
  return v;
}
__device__ __forceinline__ void copy_async(void* to, const void* from) {
  asm volatile("cp.async.cg.shared.global [%0],[%1],16;" ::"r"(ptx::smem(to)), "l"(from) : "memory");
}
__device__ __forceinline__ void widen(uint4 v, float* f) {
  f[0] = bf_lo(v.x); f[1] = bf_hi(v.x); f[2] = bf_lo(v.y); f[3] = bf_hi(v.y);
  f[4] = bf_lo(v.z); f[5] = bf_hi(v.z); f[6] = bf_lo(v.w); f[7] = bf_hi(v.w);
}
template <int WIDTH = 32> __device__ __forceinline__ float lanes_sum(float v) {
#pragma unroll
  for (int o = WIDTH / 2; o; o >>= 1) v += __shfl_xor_sync(~0u, v, o);
  return v;
}

// One block: the row of the token that is handed in at this position, or was made at the last.
__device__ __forceinline__ void embed(MkBaseline const& p) {
  take_turns();
  const int index = p.state->position - p.state->start;
  const uint32_t token = index < p.state->n_forced ? p.forced[index] : p.state->token;
  for (int i = threadIdx.x; i < p.hidden; i += blockDim.x) p.x[i] = __bfloat162float(p.embed[(size_t)token * p.hidden + i]);
}

// RMSNorm by one block of 256.
__device__ __forceinline__ void norm(MkBaseline const& p) {
  take_turns();
  __shared__ float sums[8];
  const float4* x = (const float4*)p.x;
  float ss = 0;
  for (int i = threadIdx.x; i < p.hidden / 4; i += 256) {
    const float4 v = x[i];
    ss += v.x * v.x + v.y * v.y + v.z * v.z + v.w * v.w;
  }
  ss = lanes_sum(ss);
  if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = ss;
  __syncthreads();
  ss = 0;
#pragma unroll
  for (int i = 0; i < 8; i++) ss += sums[i];
  const float r = rsqrtf(ss / p.hidden + p.eps);
  for (int i = threadIdx.x; i < p.hidden / 4; i += 256) {
    const float4 v = x[i];
    const uint2 gain = ((const uint2*)p.norms)[i];
    ((uint2*)p.output)[i] = make_uint2(pack2(v.x * r * bf_lo(gain.x), v.y * r * bf_hi(gain.x)),
                                       pack2(v.z * r * bf_lo(gain.y), v.w * r * bf_hi(gain.y)));
  }
}

// What becomes of a product's rows.
enum Then { STORE, ADD, GATE, HEAD };
// Rows of a block, whose warps take `rows` each; a gate and its up row count once.
constexpr uint32_t block_rows(int rows, Then then) { return GEMV_THREADS / 32 * (then == GATE ? 1 : rows); }

// Rows of [rows][COLUMNS] times the input, ROWS of them a warp. For GATE these are a gate row and its up row.
template <int COLUMNS, int ROWS, Then THEN> __device__ __forceinline__ void gemv(MkBaseline const& p) {
  constexpr int LOADS = COLUMNS / 256, PARTS = (LOADS * ROWS + AT_ONCE - 1) / AT_ONCE, N = LOADS / PARTS;
  static_assert(COLUMNS % 256 == 0 && LOADS % PARTS == 0, "a row is cut into equal parts");
  const int warp = (blockIdx.x * GEMV_THREADS + threadIdx.x) / 32, lane = threadIdx.x % 32;
  const int first = THEN == GATE ? warp : warp * ROWS, step = THEN == GATE ? p.rows : 1;
  // HEAD's last warp may have fewer rows: it reads the last one again.
  auto row = [&](int r) { return THEN == HEAD ? min(first + r, p.rows - 1) : first + r * step; };
  let_next_start();
  float sum[ROWS] = {};
#pragma unroll
  for (int part = 0; part < PARTS; part++) {
    // To shared memory, each lane for itself: into registers the assembler would put each load right before its use.
    __shared__ uint4 room[ROWS + 1][N][GEMV_THREADS];
#pragma unroll
    for (int r = 0; r <= ROWS; r++) {
      if (r == ROWS && part == 0) await_last();
      const uint4* from = (const uint4*)(r < ROWS ? p.weights + (size_t)row(r) * COLUMNS : p.input) + part * N * 32 + lane;
#pragma unroll
      for (int i = 0; i < N; i++) copy_async(&room[r][i][threadIdx.x], from + i * 32);
    }
    asm volatile("cp.async.wait_all;" ::: "memory");
#pragma unroll
    for (int i = 0; i < N; i++) {
      float a[8], b[8];
      widen(room[ROWS][i][threadIdx.x], a);
#pragma unroll
      for (int r = 0; r < ROWS; r++) {
        widen(room[r][i][threadIdx.x], b);
#pragma unroll
        for (int k = 0; k < 8; k++) sum[r] = fmaf(a[k], b[k], sum[r]);
      }
    }
  }
#pragma unroll
  for (int r = 0; r < ROWS; r++) sum[r] = lanes_sum(sum[r]);
  if (THEN == STORE) {
#pragma unroll
    for (int r = 0; r < ROWS; r++) if (lane == r) p.numbers[first + r] = sum[r];
  } else if (THEN == ADD) {
#pragma unroll
    for (int r = 0; r < ROWS; r++) if (lane == r) p.x[first + r] += sum[r];
  } else if (THEN == GATE) {
    if (lane == 0) p.output[first] = __float2bfloat16_rn(sum[0] / (1.f + __expf(-sum[0])) * sum[ROWS - 1]);
  } else {
    __shared__ unsigned long long best[GEMV_THREADS / 32];
    unsigned long long key = 0;
#pragma unroll
    for (int r = 0; r < ROWS; r++) if (first + r < p.rows) {
      if (lane == r) p.numbers[first + r] = sum[r];
      // What is no number wins, so that it is noticed.
      key = max_key(key, sum[r] < INFINITY ? logit_key(sum[r], first + r) : NOT_FINITE);
    }
    if (lane == 0) best[threadIdx.x / 32] = key;
    __syncthreads();
    if (threadIdx.x == 0) {
#pragma unroll
      for (int i = 1; i < GEMV_THREADS / 32; i++) key = max_key(key, best[i]);
      p.keys[blockIdx.x] = key;
    }
  }
}

// A warp for each head of queries, keys and values: norm and rotation, keys and values to the cache, queries scaled for a
// softmax in base 2. One block of 128 a key head: q0, q1, k, v.
__device__ __forceinline__ void heads(MkBaseline const& p) {
  take_turns();
  const int group = blockIdx.x, role = threadIdx.x / 32, lane = threadIdx.x % 32, pos = p.state->position;
  const int head = role < 2 ? 2 * group + role : role == 2 ? Q_HEADS + group : Q_HEADS + KV_HEADS + group;
  const float2* src = (const float2*)(p.numbers + head * HEAD_DIM);
  float2 x = src[lane], y = src[32 + lane];  // dims 2 lane, 2 lane + 1 and the same of the second half
  const size_t row = ((size_t)group * p.capacity + pos) * (HEAD_DIM / 2);
  uint32_t* out = role < 2 ? (uint32_t*)p.output + head * (HEAD_DIM / 2) : (uint32_t*)(role == 2 ? p.k : p.v) + row;
  if (role < 3) {
    const float ss = lanes_sum(x.x * x.x + x.y * x.y + y.x * y.x + y.y * y.y);
    const float r = rsqrtf(ss * (1.f / HEAD_DIM) + p.eps) * (role < 2 ? 0.08838834764831845f * 1.4426950408889634f : 1.f);
    const uint32_t* gain = (const uint32_t*)(p.norms + (role == 2 ? HEAD_DIM : 0));
    const uint32_t g0 = gain[lane], g1 = gain[32 + lane];
    const float4 angle = ((const float4*)(p.rope + (size_t)pos * HEAD_DIM))[lane];
    x.x *= r * bf_lo(g0); x.y *= r * bf_hi(g0); y.x *= r * bf_lo(g1); y.y *= r * bf_hi(g1);
    const float2 u = make_float2(x.x * angle.x - y.x * angle.y, x.y * angle.z - y.y * angle.w);
    y = make_float2(y.x * angle.x + x.x * angle.y, y.y * angle.z + x.y * angle.w);
    x = u;
  }
  out[lane] = pack2(x.x, x.y);
  out[32 + lane] = pack2(y.x, y.y);
}

// Attention of one key head over one part of the positions: grid (KV_HEADS, splits). Half a warp takes a position, four
// positions at a time while the next four are under way; each half keeps a softmax of its own, and the block joins them.
__device__ __forceinline__ void attention(MkBaseline const& p) {
  take_turns();
  constexpr int HALVES = ATTENTION_THREADS / 16, BATCH = 4, STEP = HALVES * BATCH;
  __shared__ uint4 room[2][2][BATCH][ATTENTION_THREADS];
  __shared__ float values[HALVES][2][HEAD_DIM];
  __shared__ float2 states[HALVES][2];
  const int group = blockIdx.x, split = blockIdx.y, half = threadIdx.x / 16, lane = threadIdx.x % 16;
  const int length = p.state->position + 1, share = (length + gridDim.y - 1) / gridDim.y;
  const int from = split * share, to = min(length, from + share);
  const uint4* cache[2] = {(const uint4*)p.k + (size_t)group * p.capacity * 16 + lane,
                           (const uint4*)p.v + (size_t)group * p.capacity * 16 + lane};
  // A half without positions left reads the last one, and gives it no weight.
  auto fetch = [&](int at, int stage) {
    if (at < to)
#pragma unroll
      for (int kind = 0; kind < 2; kind++)
#pragma unroll
        for (int i = 0; i < BATCH; i++)
          copy_async(&room[stage][kind][i][threadIdx.x], cache[kind] + (size_t)min(at + i * HALVES + half, to - 1) * 16);
    asm volatile("cp.async.commit_group;" ::: "memory");
  };
  fetch(from, 0);
  float q[2][8], top[2] = {NO_SCORE, NO_SCORE}, sum[2] = {}, acc[2][8] = {};
#pragma unroll
  for (int h = 0; h < 2; h++) widen(((const uint4*)p.input)[(2 * group + h) * 16 + lane], q[h]);
  int stage = 0;
#pragma unroll 1
  for (int at = from; at < to; at += STEP, stage ^= 1) {
    fetch(at + STEP, stage ^ 1);
    asm volatile("cp.async.wait_group 1;" ::: "memory");
    float score[2][BATCH];
#pragma unroll
    for (int i = 0; i < BATCH; i++) {
      float f[8];
      widen(room[stage][0][i][threadIdx.x], f);
#pragma unroll
      for (int h = 0; h < 2; h++) {
        float s = 0;
#pragma unroll
        for (int d = 0; d < 8; d++) s = fmaf(q[h][d], f[d], s);
        s = lanes_sum<16>(s);
        score[h][i] = at + i * HALVES + half < to ? s : 2 * NO_SCORE;
      }
    }
#pragma unroll
    for (int h = 0; h < 2; h++) {
      float now = top[h];
#pragma unroll
      for (int i = 0; i < BATCH; i++) now = fmaxf(now, score[h][i]);
      const float keep = ptx::exp2(top[h] - now);
      top[h] = now;
      sum[h] *= keep;
#pragma unroll
      for (int d = 0; d < 8; d++) acc[h][d] *= keep;
#pragma unroll
      for (int i = 0; i < BATCH; i++) { score[h][i] = ptx::exp2(score[h][i] - now); sum[h] += score[h][i]; }
    }
#pragma unroll
    for (int i = 0; i < BATCH; i++) {
      float f[8];
      widen(room[stage][1][i][threadIdx.x], f);
#pragma unroll
      for (int h = 0; h < 2; h++)
#pragma unroll
        for (int d = 0; d < 8; d++) acc[h][d] = fmaf(score[h][i], f[d], acc[h][d]);
    }
  }
#pragma unroll
  for (int h = 0; h < 2; h++) {
    if (lane == 0) states[half][h] = make_float2(top[h], sum[h]);
#pragma unroll
    for (int d = 0; d < 8; d++) values[half][h][lane * 8 + d] = acc[h][d];
  }
  __syncthreads();
  const int dim = threadIdx.x;
  static_assert(ATTENTION_THREADS == HEAD_DIM, "a thread joins a dimension");
#pragma unroll
  for (int h = 0; h < 2; h++) {
    float best = NO_SCORE, total = 0, value = 0;
#pragma unroll
    for (int i = 0; i < HALVES; i++) best = fmaxf(best, states[i][h].x);
#pragma unroll
    for (int i = 0; i < HALVES; i++) {
      const float weight = ptx::exp2(states[i][h].x - best);
      total = fmaf(weight, states[i][h].y, total);
      value = fmaf(weight, values[i][h][dim], value);
    }
    const int part = split * Q_HEADS + 2 * group + h;
    p.parts[(size_t)part * HEAD_DIM + dim] = value;
    if (dim == 0) ((float2*)p.states)[part] = make_float2(best, total);
  }
}

// The parts of a query head joined: a block of HEAD_DIM threads each.
__device__ __forceinline__ void merge(MkBaseline const& p) {
  take_turns();
  const int head = blockIdx.x, dim = threadIdx.x;
  float best = NO_SCORE, total = 0, value = 0;
  for (int s = 0; s < p.splits; s++) best = fmaxf(best, p.states[s * Q_HEADS + head][0]);
  for (int s = 0; s < p.splits; s++) {
    const float2 state = ((const float2*)p.states)[s * Q_HEADS + head];
    const float weight = ptx::exp2(state.x - best);
    total = fmaf(weight, state.y, total);
    value = fmaf(weight, p.parts[(size_t)(s * Q_HEADS + head) * HEAD_DIM + dim], value);
  }
  p.output[head * HEAD_DIM + dim] = __float2bfloat16_rn(value / total);
}

// One block of 1,024: the best of the head's blocks is the token. The host hears of it, and the next replay of the graph
// takes it from there.
__device__ __forceinline__ void argmax(MkBaseline const& p) {
  take_turns();
  __shared__ unsigned long long best[32];
  unsigned long long key = 0;
  for (int i = threadIdx.x; i < p.rows; i += 1024) key = max_key(key, p.keys[i]);
  key = warp_max(key);
  if (threadIdx.x % 32 == 0) best[threadIdx.x / 32] = key;
  __syncthreads();
  if (threadIdx.x >= 32) return;
  key = warp_max(best[threadIdx.x]);
  if (threadIdx.x != 0) return;
  const uint32_t token = key >= NOT_FINITE ? MK_NO_TOKEN : (uint32_t)key_id(key);
  const int index = p.state->position - p.state->start;
  p.state->position++;
  p.state->token = token == MK_NO_TOKEN ? 0 : token;
  p.out[index] = (uint64_t)(index + 1) << 32 | token;
}

}  // namespace baseline
