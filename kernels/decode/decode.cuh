// The decode kernel: one launch, up to n_tokens tokens. Five hand-overs a layer:
// residual -> q,k,v -> attention -> residual -> gated activations -> residual, and one a token for the argmax.
#pragma once
#include "attention.cuh"
#include "sampling.cuh"

// Beside the ring, and without the further shares of a block.
template <class S> constexpr int shared_bytes() {
  constexpr int bytes = (sizeof(Shared<S>) + 127) / 128 * 128;
  static_assert(bytes + MIN_SLOTS * CHUNK <= MAX_SHARED, "the smallest ring does not fit");
  return bytes;
}

// The ids of a set that belong to a share, one bit each, in the order of its rows.
__device__ __forceinline__ void own_bits(Params const& p, const uint32_t* set, uint32_t* own, int share) {
  for (int i = threadIdx.x; i < MAX_ROWS / 32; i += WARPS * 32) {
    uint32_t bits = 0;
    for (int k = 0; k < 32; k += 8) {
      const int id = ((i * 32 + k) / 8 * SHARES + share) * 8;
      if (id < p.vocab) bits |= (__ldcg(set + id / 32) >> (id % 32) & 0xff) << k;
    }
    own[i] = bits;
  }
}

template <class S> __device__ void produce(Params const& p, Producer& pr) {
  const char* const weights = (const char*)p.weights;
  const char* const head = (const char*)p.head;
  const char* const cache = (const char*)p.kv;
  const int lm_tiles = (p.vocab + 7) / 8;
  const Pace pace;
  for (int t = 0; t < p.n_tokens; t++) {
    if (t == p.starved && blockIdx.x == 0) return;
    const int pos = p.pos0 + t, splits = splits_at(pos, p.split4, p.split8), D = GROUP / splits;
    pr.pace = S::OUT_ROWS == 8 && pos < PACED ? pace.clocks(p, t) : 0;
    for (int l = 0; l < p.layers; l++) {
      const char* w = weights + l * S::LAYER_BYTES;
      // One matrix after the other; the keys and values come after the first.
      constexpr int ENDS[] = {S::QKV_UNITS / 2, (S::QKV_UNITS + S::O_UNITS) / 2, S::LAYER_CHUNKS - S::DOWN_UNITS / 2, S::LAYER_CHUNKS};
      for (int matrix = 0, first = 0; matrix < 4; first = ENDS[matrix++]) {
        EACH_SHARE(share, nth)
          for (int c = first; c < ENDS[matrix]; c++)
            if (!pr.chunk(w + ((size_t)c * SHARES + share) * CHUNK)) return;
        if (matrix > 0) continue;
        EACH_SHARE(share, nth) {
          const int group = share / GROUP, rank = share % GROUP, split = rank / D, part = rank % D;
          const int tiles = split_tiles(pos, split, splits);
          const char* kv = cache + ((size_t)l * KV_HEADS + group) * p.max_tiles * TILE_BYTES;
          for (int i = 0; i < tiles; i += 2) {
            const char* t0 = kv + (size_t)(split + i * splits) * TILE_BYTES;
            if (!pr.tiles(t0, i + 1 < tiles ? t0 + (size_t)splits * TILE_BYTES : nullptr, D, part)) return;
          }
        }
      }
    }
    pr.pace = 0;
    if (t >= p.head_from)
      EACH_SHARE(share, nth)
        for (int i = share; i < lm_tiles; i += SHARES)
          for (int c = 0; c < S::LM_CHUNKS; c++)
            if (!pr.chunk(head + ((size_t)i * S::LM_CHUNKS + c) * CHUNK)) return;
  }
}

// Input of a projection: this warp's slice of the residual, times the norm's weight, as B operands; its sum of squares.
template <class S> struct Input {
  static constexpr int N = S::X_SLICE / 32;
  uint4 x[N];
  __device__ __forceinline__ void scale(const uint4* raw, const uint4* gain) {
#pragma unroll
    for (int i = 0; i < N; i++)
      x[i] = make_uint4(mul2(raw[i].x, gain[i].x), mul2(raw[i].y, gain[i].y), mul2(raw[i].z, gain[i].z), mul2(raw[i].w, gain[i].w));
  }
  static __device__ __forceinline__ float squares(const uint4* raw) {
    float a = 0, b = 0;
#pragma unroll
    for (int i = 0; i < N; i++) {
      const uint32_t r[4] = {raw[i].x, raw[i].y, raw[i].z, raw[i].w};
#pragma unroll
      for (int k = 0; k < 4; k++) { a = fmaf(bf_lo(r[k]), bf_lo(r[k]), a); b = fmaf(bf_hi(r[k]), bf_hi(r[k]), b); }
    }
    return a + b;
  }
};

// One head's share of O: the columns of B carry four splits at a time, weighed afterwards by their log-sum-exp.
template <class S, int SPLITS>
__device__ __forceinline__ void project_heads(Params const& p, Wait& wait, const uint4* w, uint32_t rec, float* part, int warp, int lane) {
  constexpr bool ROWS8 = S::OUT_ROWS == 8;
  constexpr int N = ROWS8 ? 2 : 4, ROUNDS = SPLITS / 4;
  const int g = lane >> 2, tig = lane & 3;
  const char* att = (const char*)(p.att + rec * 64) + (ROWS8 ? g >> 1 : g & 3) * 256 + (ROWS8 ? (g & 1) * 128 : 0) + tig * 16;
  const uint32_t* lses = (const uint32_t*)p.lse + rec + (lane & (SPLITS - 1));
  uint4 x[ROUNDS * N];
  uint32_t lse;
  int off[ROUNDS * N];
#pragma unroll
  for (int i = 0; i < ROUNDS * N; i++) off[i] = i / N * 1024 + i % N * 64;
  look<ROUNDS * N>(x, att, off, &lse, lses);
  poll<ROUNDS * N>(x, att, off, &lse, lses, wait, MK_PHASE_ATTENTION);
  MARK(8);
  float top = __uint_as_float(lse);
#pragma unroll
  for (int o = 1; o < SPLITS; o <<= 1) top = fmaxf(top, __shfl_xor_sync(~0u, top, o));
  float weight = ptx::exp2(__uint_as_float(lse) - top), sum = weight;
#pragma unroll
  for (int o = 1; o < SPLITS; o <<= 1) sum += __shfl_xor_sync(~0u, sum, o);
  weight = __fdividef(weight, sum);
  float r0 = 0, r1 = 0;  // rows g and, with 16 rows, g+8
#pragma unroll
  for (int round = 0; round < ROUNDS; round++) {
    float c[4] = {};
#pragma unroll
    for (int k = 0; k < S::O_UNITS; k++) mma_step(c, w[k], x + round * N, k);
    if (ROWS8) {
      r0 = fmaf(__shfl_sync(~0u, weight, round * 4 + tig), c[0] + c[3], r0);
    } else {  // columns 2 tig, 2 tig + 1 hold splits (2 tig) mod 4 and the next
      float a = __shfl_sync(~0u, weight, round * 4 + ((2 * tig) & 3)), b = __shfl_sync(~0u, weight, round * 4 + ((2 * tig + 1) & 3));
      r0 = fmaf(a, c[0], fmaf(b, c[1], r0));
      r1 = fmaf(a, c[2], fmaf(b, c[3], r1));
    }
  }
  if (ROWS8) put8(part, 0, sum_tig(r0), warp, lane);
  else {
    r0 += __shfl_xor_sync(~0u, r0, 1);
    r1 += __shfl_xor_sync(~0u, r1, 1);
    float c[4] = {r0, 0, r1, 0};
    put16(part, 0, c, warp, lane);
  }
}

// Warp 0's, lane modulo OUT_ROWS: the residual stream in the rows of each share, never rounded.
struct Residual {
#if MK_BULK
  float own = 0;
  __device__ explicit Residual(ShareState*) {}
  __device__ __forceinline__ float& operator[](int) { return own; }
#else
  ShareState* share;
  __device__ explicit Residual(ShareState* share) : share(share) {}
  __device__ __forceinline__ float& operator[](int nth) { return share[nth].residual[threadIdx.x % 32]; }
#endif
};

// Units that wait in registers for a wide shape's input; the rest of a phase follows through the ring. With more of them
// registers spill.
constexpr int WAITING = 8;

template <class S> __device__ __forceinline__ void consume(Params const& p, Shared<S>& sh, char* base, const int warp) {
  const int lane = threadIdx.x % 32, bid = blockIdx.x;
  const int g = lane >> 2, tig = lane & 3;
  constexpr int H = S::HIDDEN, I = S::INTER, NX = Input<S>::N;
  constexpr bool ROWS8 = S::OUT_ROWS == 8;
  // A wide shape has no registers to keep an input in beside the weights.
  constexpr bool EARLY = ROWS8;
  Consumer ring(&sh.ring, ring_slots(p));
  const char* data = base;
  Wait wait(p);
  const int x_rep = bid % X_REP, h_rep = bid % H_REP, att_rep = bid % ATT_REP;
  int x_off[NX];
#pragma unroll
  for (int i = 0; i < NX; i++) x_off[i] = warp * S::X_SLICE * 2 + tig * 16 + i * 64;
  const int layer_norms = 2 * H + 2 * HEAD_DIM;
  Residual residual(sh.share);
  uint32_t step = 0;
  int token = 0;
#ifdef PROFILE
  unsigned* prof = prof_all[warp];
  prof[lane] = 0;
  last_all[warp] = clock();
#endif
  float* part = sh.part[0];
  float* part_next = sh.part[1];
  auto flip = [&] { float* t = part; part = part_next; part_next = t; };
  auto load_gain = [&](uint4* gain, const bf16* norm) {
#pragma unroll
    for (int i = 0; i < NX; i++) gain[i] = __ldg((const uint4*)((const char*)norm + x_off[i]));
  };
  auto put_ss = [&](float ss) { ss = sum_tig(ss); if (lane == 0) sh.ss[warp] = ss; };
  auto rstd = [&] { return rsqrtf(sum16(sh.ss) * (1.f / H) + p.eps); };
  // Warp 0: sums of a share's output rows onto the residual, and out to every replica.
  constexpr int W = S::OUT_ROWS / 2, PER = 32 / W;
  auto add_and_send = [&](uint32_t* buf, uint32_t slot, int share, float& rows) {
    const uint32_t x_at = lane / W * (H / 2) + share * W + lane % W;
    const float4* q = (const float4*)(part + lane % S::OUT_ROWS * PART_STRIDE);
    float sum;
    if (ROWS8) {
      float4 a = q[lane >> 3];
      sum = (a.x + a.y) + (a.z + a.w);
      sum += __shfl_xor_sync(~0u, sum, 8);
    } else {
      float4 a = q[lane >> 4], b = q[(lane >> 4) + 2];
      sum = ((a.x + a.y) + (a.z + a.w)) + ((b.x + b.y) + (b.z + b.w));
    }
    sum += __shfl_xor_sync(~0u, sum, 16);
    ptx::release_others();
    rows += sum;
    const float lo = __shfl_sync(~0u, rows, 2 * (lane % W)), hi = __shfl_sync(~0u, rows, 2 * (lane % W) + 1);
    const uint32_t word = pack2(lo, hi);
    uint32_t *now = buf + slot * (X_REP * H / 2) + x_at, *ahead = buf + (slot ^ 2) * (X_REP * H / 2) + x_at;
#pragma unroll
    for (int r = 0; r < X_REP; r += PER) if (X_REP % PER == 0 || r + lane / W < X_REP) ptx::st1(now + r * (H / 2), word);
#pragma unroll
    for (int r = 0; r < X_REP; r += PER) if (X_REP % PER == 0 || r + lane / W < X_REP) ptx::st1(ahead + r * (H / 2), EMPTY);
  };

  const bool sampling = p.sampling.temperature > 0, suppresses = p.sampling.suppresses != 0;
  const float penalty = p.sampling.repetition_penalty;
  EACH_SHARE(share, nth) {
    if (penalty != 1.f) own_bits(p, p.seen, sh.share[nth].seen, share);
    if (suppresses) own_bits(p, p.suppressed, sh.share[nth].suppressed, share);
  }
  ptx::block_sync();

  for (int t = 0; t < p.n_tokens; t++) {
    const int pos = p.pos0 + t, splits = splits_at(pos, p.split4, p.split8);
    const bool by_row = t < p.n_forced && p.rows;
    if (t < p.n_forced && !by_row) token = t == 0 ? p.first_token : (int)p.forced[t];
    const bf16* row = by_row ? p.rows + (size_t)t * H : p.embed + (size_t)token * H;
    EACH_SHARE(share, nth) {
      if (warp == 0) {
        const int i = share * S::OUT_ROWS + lane % S::OUT_ROWS;
        residual[nth] = by_row ? p.rows_f32[(size_t)t * H + i] : __bfloat162float(row[i]);
      }
      if (penalty != 1.f && threadIdx.x == 0 && token / 8 % SHARES == share && !by_row) {  // the token handed in counts as seen
        const int i = token / 8 / SHARES * 8 + token % 8;
        sh.share[nth].seen[i / 32] |= 1u << (i % 32);
      }
    }
    const uint32_t error = ptx::ld1(p.error);  // another block's; looked at when the token is done

    HeadInput head_in{};
    if (warp >= 4 && warp < 7) head_in.r = __ldg((const float4*)(p.rope + (size_t)pos * HEAD_DIM) + lane);
    for (int l = 0; l < p.layers; l++, step++) {
      const uint32_t slot = step & 3;
      const bf16* norms = p.norms + (size_t)l * layer_norms;
      Input<S> in;  // read with the first share of a phase, as all inputs that fit registers
      // ---- q, k, v
      EACH_SHARE(share, nth) {
        constexpr int T = S::QKV_ROWS / 16, KK = S::X_SLICE / 16, PRE = WAITING < S::QKV_UNITS ? KK : S::QKV_UNITS;
        uint4 w[PRE], raw[NX], gain[NX];
        if (nth == 0) load_gain(gain, norms);
        if (nth == 0 && warp >= 4 && warp < 7) {
          const uint32_t* n = (const uint32_t*)(norms + 2 * H + (warp == 6 ? HEAD_DIM : 0));
          head_in.n0 = __ldg(n + lane); head_in.n1 = __ldg(n + 32 + lane);
        }
        // the first layer's input is the embedding row itself; no need to wait, but the same code reads it
        const char* from = l == 0 ? (const char*)row : (const char*)(p.xb + (((step - 1) & 3) * X_REP + x_rep) * (H / 2));
        load_units<PRE>(ring, wait, data, w, threadIdx.x, [&] { if (EARLY && nth == 0) look<NX>(raw, from, x_off); });
        MARK(0);
        if (!EARLY && nth == 0) look<NX>(raw, from, x_off);
        if (nth == 0) poll<NX>(raw, from, x_off, wait, MK_PHASE_X_ATTENTION);
        MARK(1);
        if (nth == 0) in.scale(raw, gain);
        float c[T][4] = {};
#pragma unroll
        for (int k = 0; k < KK; k++)
#pragma unroll
          for (int i = 0; i < PRE / KK; i++) mma_step(c[i], w[i * KK + k], in.x, k);
        if (nth == 0) put_ss(Input<S>::squares(raw));
#pragma unroll
        for (int i = PRE / KK; i < T; i++) {
          load_units<KK>(ring, wait, data, w, threadIdx.x);
#pragma unroll
          for (int k = 0; k < KK; k++) mma_step(c[i], w[k], in.x, k);
        }
#pragma unroll
        for (int i = 0; i < T; i++) put16(part, i * 16, c[i], warp, lane);
        ptx::block_sync();
        MARK(2);
        if (warp == 0) {
          const float v = sum16(part + lane * PART_STRIDE) * rstd();
          ptx::release_others();
          const uint32_t word = pack2(__shfl_sync(~0u, v, 2 * (lane & 15)), __shfl_sync(~0u, v, 2 * (lane & 15) + 1));
          const uint32_t at = (lane >> 4) * (KV_HEADS * 256) + share * 16 + (lane & 15), all = QKV_REP * KV_HEADS * 256;
#pragma unroll
          for (int r = 0; r < QKV_REP; r += 2)
            if (QKV_REP > 1 || lane < 16) ptx::st1(p.qkv + slot * all + at + r * (KV_HEADS * 256), word);
#pragma unroll
          for (int r = 0; r < QKV_REP; r += 2)
            if (QKV_REP > 1 || lane < 16) ptx::st1(p.qkv + (slot ^ 2) * all + at + r * (KV_HEADS * 256), EMPTY);
        } else ptx::await_release();
        flip();
      }
      MARK(3);
      // ---- attention
      EACH_SHARE(share, nth) {
        if (nth > 0) ptx::block_sync();  // the key and value of the last share have been appended
        if (warp >= 4 && warp < 8) attention_inputs<S>(p, sh, wait, head_in, share, slot, warp - 4, lane);
        MARK(4);
        ptx::block_sync();
        MARK(5);
        if (splits == 4) attention<4, S>(p, sh, wait, ring, data, share, slot, pos, warp, lane);
        else if (splits == 8) attention<2, S>(p, sh, wait, ring, data, share, slot, pos, warp, lane);
        else attention<1, S>(p, sh, wait, ring, data, share, slot, pos, warp, lane);
        if (share % GROUP == pos % GROUP && warp >= WARPS - 2) append<S>(p, sh, share, l, pos, warp == WARPS - 1, lane);
      }
      // ---- O: warp w takes head w
      EACH_SHARE(share, nth) {
        uint4 wo[S::O_UNITS];
        load_units<S::O_UNITS>(ring, wait, data, wo, threadIdx.x);
        MARK(7);
        {
          const uint32_t rec = ((slot * ATT_REP + att_rep) * Q_HEADS + warp) * MAX_SPLITS;
          if (splits == 4) project_heads<S, 4>(p, wait, wo, rec, part, warp, lane);
          else if (splits == 8) project_heads<S, 8>(p, wait, wo, rec, part, warp, lane);
          else project_heads<S, 16>(p, wait, wo, rec, part, warp, lane);
        }
        ptx::block_sync();
        MARK(9);
        if (warp == 0) add_and_send(p.xa, slot, share, residual[nth]);
        else ptx::await_release();
        MARK(10);
        flip();
      }
      // ---- gate and up
      EACH_SHARE(share, nth) {
        {
          constexpr int T = 2 * S::H_ROWS / 16, KK = S::X_SLICE / 16, PRE = ROWS8 ? S::GU_UNITS : WAITING / KK * KK;
          uint4 w[PRE], raw[NX], gain[NX];
          if (nth == 0) load_gain(gain, norms + H);
          const char* from = (const char*)(p.xa + (slot * X_REP + x_rep) * (H / 2));
          load_units<PRE>(ring, wait, data, w, threadIdx.x, [&] { if (EARLY && nth == 0) look<NX>(raw, from, x_off); });
          MARK(11);
          if (!EARLY && nth == 0) look<NX>(raw, from, x_off);
          if (nth == 0) poll<NX>(raw, from, x_off, wait, MK_PHASE_X_MLP);
          MARK(12);
          if (nth == 0) in.scale(raw, gain);
          float c[T][4] = {};
#pragma unroll
          for (int i = 0; i < PRE / KK; i++)
#pragma unroll
            for (int k = 0; k < KK; k++) mma_step(c[i], w[i * KK + k], in.x, k);
          if (nth == 0) put_ss(Input<S>::squares(raw));
#pragma unroll
          for (int i = PRE / KK; i < T; i++) {
            load_units<KK>(ring, wait, data, w, threadIdx.x);
#pragma unroll
            for (int k = 0; k < KK; k++) mma_step(c[i], w[k], in.x, k);
          }
#pragma unroll
          for (int i = 0; i < T; i++) put16(part, i * 16, c[i], warp, lane);
        }
        ptx::block_sync();
        MARK(13);
        if (warp == 0) {
          const float r = rstd();
          constexpr int W = S::H_ROWS / 2;
#pragma unroll
          for (int i0 = 0; i0 < S::H_ROWS; i0 += 32) {
            const int i = min(i0 + lane, S::H_ROWS - 1);
            float gate = sum16(part + i * PART_STRIDE) * r, up = sum16(part + (S::H_ROWS + i) * PART_STRIDE) * r;
            if (i0 + 32 >= S::H_ROWS) ptx::release_others();
            float v = __fdividef(gate, 1.f + __expf(-gate)) * up;
            // words of these (up to) 32 activations, to every replica
            constexpr int FIRST = W < 16 ? W : 16, LAST = W - (W - 1) / 16 * 16;
            static_assert(LAST == FIRST || S::H_ROWS % 32 == 16, "");
            const int words = i0 + 32 <= S::H_ROWS ? FIRST : LAST;
#pragma unroll
            for (int k0 = 0; k0 < words * H_REP; k0 += 32) {
              const int k = k0 + lane, n = k % words;
              const uint32_t o = pack2(__shfl_sync(~0u, v, 2 * n), __shfl_sync(~0u, v, 2 * n + 1));
              const uint32_t at = k / words * (I / 2) + share * W + i0 / 2 + n;
              if (k < words * H_REP) {
                ptx::st1(p.h + slot * (H_REP * I / 2) + at, o);
                ptx::st1(p.h + (slot ^ 2) * (H_REP * I / 2) + at, EMPTY);
              }
            }
          }
        } else ptx::await_release();
        flip();
      }
      MARK(14);
      // ---- down
      constexpr int NH = ROWS8 ? S::H_SLICE / 64 : S::H_SLICE / 32;
      uint4 x[NH];
      EACH_SHARE(share, nth) {
        {
          constexpr int N = NH, PRE = ROWS8 ? S::DOWN_UNITS : WAITING / 2;
          uint4 w[PRE];
          int off[N];
#pragma unroll
          for (int i = 0; i < N; i++) off[i] = warp * S::H_SLICE * 2 + (ROWS8 ? (g & 1) * S::H_SLICE : 0) + tig * 16 + i * 64;
          const char* from = (const char*)(p.h + (slot * H_REP + h_rep) * (I / 2));
          load_units<PRE>(ring, wait, data, w, threadIdx.x, [&] { if (EARLY && nth == 0) look<N>(x, from, off); });
          MARK(15);
          if (!EARLY && nth == 0) look<N>(x, from, off);
          if (nth == 0) poll<N>(x, from, off, wait, MK_PHASE_H);
          MARK(16);
          float c[2][4] = {};
#pragma unroll
          for (int k = 0; k < PRE; k++) mma_step(c[k & 1], w[k], x, k);
#pragma unroll
          for (int k0 = PRE; k0 < S::DOWN_UNITS; k0 += PRE) {
            load_units<PRE>(ring, wait, data, w, threadIdx.x);
#pragma unroll
            for (int k = 0; k < PRE; k++) mma_step(c[k & 1], w[k], x, k0 + k);
          }
#pragma unroll
          for (int i = 0; i < 4; i++) c[0][i] += c[1][i];
          if (ROWS8) put8(part, 0, c[0][0] + c[0][3], warp, lane);
          else put16(part, 0, c[0], warp, lane);
        }
        ptx::block_sync();
        MARK(17);
        if (warp == 0) add_and_send(p.xb, slot, share, residual[nth]);
        else ptx::await_release();
        MARK(18);
        flip();
      }
    }

    if (t < p.head_from) continue;
    // ---- LM head
    // Read from the host's memory long before it is looked at.
    const uint32_t cancel = bid == 0 && warp == 0 ? p.status->cancel : 0;
    Input<S> in;
    {
      uint4 raw[NX], gain[NX];
      load_gain(gain, p.norms + (size_t)p.layers * layer_norms);
      const char* from = (const char*)(p.xb + (((step - 1) & 3) * X_REP + x_rep) * (H / 2));
      look<NX>(raw, from, x_off);
      poll<NX>(raw, from, x_off, wait, MK_PHASE_X_HEAD);
      MARK(19);
      in.scale(raw, gain);
      put_ss(Input<S>::squares(raw));
#pragma unroll
      for (int i = 0; i < NX / 2; i++) in.x[i] = (g & 1) ? in.x[i + NX / 2] : in.x[i];
    }
    if (p.hidden) {
      ptx::block_sync();
      EACH_SHARE(share, nth)
        if (warp == 0 && lane < S::OUT_ROWS) {
          const int i = share * S::OUT_ROWS + lane;
          const float gain = __bfloat162float(p.norms[(size_t)p.layers * layer_norms + i]);
          p.hidden[(size_t)(t - p.head_from) * H + i] = residual[nth] * rstd() * gain;
        }
    }
    const int slot = t & 3;
    unsigned long long best = 0;
    EACH_SHARE(share, nth) {
      ShareState& state = sh.share[nth];
      const int mine = tiles_of(p, share);
      best = 0;
      for (int i0 = 0, group = 0; i0 < mine; i0 += LM_GROUP, group++) {
#pragma unroll
        for (int i = 0; i < LM_GROUP; i++) {
          if (i0 + i >= mine) break;
          float c[4] = {};
          uint4 w[S::LM_UNITS];
          load_units<S::LM_UNITS>(ring, wait, data, w, threadIdx.x);
#pragma unroll
          for (int k = 0; k < S::LM_UNITS; k++) mma_step(c, w[k], in.x, k);
          put8(part, i * 8, c[0] + c[3], warp, lane);
        }
        ptx::block_sync();
        if (warp == group % WARPS) {  // each warp in turn, so that none falls behind
          const int tile = i0 + lane / 8, id = (tile * SHARES + share) * 8 + lane % 8;
          if (tile < mine && id < p.vocab) {
            float v = sum16(part + lane * PART_STRIDE) * rstd();
            if (p.logits) p.logits[(size_t)(t - p.head_from) * p.vocab + id] = v;
            if (!(v < INFINITY)) { best = NOT_FINITE; v = 0; }
            const int word = i0 * 8 / 32;
            if (penalty != 1.f && (state.seen[word] >> lane & 1)) v = penalised(v, penalty);
            if (suppresses && (state.suppressed[word] >> lane & 1)) v = -INFINITY;
            if (sampling) state.logits[i0 * 8 + lane] = v;
            best = max_key(best, logit_key(v, id));
          }
        }
        flip();
      }
      // ---- argmax over the share, then over all of them
      MARK(20);
      best = warp_max(best);
      if (lane == 0) sh.best[warp] = best;
      if (wait.dead) wait.report(wait.dead, t);
      ptx::block_sync();
      if (warp == 0) {
        best = warp_max(lane < WARPS ? sh.best[lane] : 0);
        for (int r = lane; r < KEY_REP; r += 32) {
          ptx::st2(p.keys + (size_t)(slot * KEY_REP + r) * SHARES + share, (uint32_t)best | (cancel ? FLAG : 0), (uint32_t)(best >> 32));
          ptx::st2(p.keys + (size_t)((slot ^ 2) * KEY_REP + r) * SHARES + share, EMPTY, EMPTY);
        }
      }
      if (!MK_BULK) ptx::block_sync();  // before the next share's best
    }
    if (warp == 0) {
      uint4 k[2];
      const int off[2] = {lane * 16, 512 + lane * 16};
      look<2>(k, (const char*)(p.keys + (size_t)(slot * KEY_REP + bid % KEY_REP) * SHARES), off);
      poll<2>(k, (const char*)(p.keys + (size_t)(slot * KEY_REP + bid % KEY_REP) * SHARES), off, wait, MK_PHASE_KEYS);
      best = 0;
      const bool cancelled = k[0].x & FLAG;  // of lane 0: what block 0 sent
#pragma unroll
      for (int i = 0; i < 2; i++) {
        k[i].x &= ~FLAG;
        const unsigned long long a = ((unsigned long long)k[i].y << 32) | k[i].x, b = ((unsigned long long)k[i].w << 32) | k[i].z;
        sh.keys[i * 64 + 2 * lane] = a;
        sh.keys[i * 64 + 2 * lane + 1] = b;
        best = max_key(best, max_key(a, b));
      }
      best = warp_max(best);
      if (lane == 0) {
        sh.best[0] = best;
        sh.token = key_id(best);
        bool stop = wait.dead || error != EMPTY || cancelled;
        if (wait.dead) wait.report(wait.dead, t);
        else if (best == NOT_FINITE) { wait.report(MK_PHASE_NOT_FINITE, t); stop = true; }
        else if (best < LEAST) { if (!stop) wait.report(MK_PHASE_NOTHING, t); stop = true; }
        if (stop) sh.stop = 1;
      }
    }
    if (sampling) {
      ptx::block_sync();
      if (!*(volatile int*)&sh.stop) sample<S>(p, sh, t, wait.dead);
    }
    if (threadIdx.x == 0) {
      int next = sh.token;
      const bool failed = sh.stop;
      if (next < 0 || next >= p.vocab) next = 0;
      sh.token = next;
      for (int i = 0; i < p.n_stops; i++) if (next == p.stops[i]) sh.stop = 1;
      const uint32_t index = t - p.head_from;
      if (bid == 0 && !failed) p.out[index] = ((unsigned long long)(index + 1) << 32) | (uint32_t)next;
    }
    ptx::block_sync();
    token = sh.token;
    MARK(21);
    if (*(volatile int*)&sh.stop) return;
  }
  if (wait.dead) {  // the last token ran without the head
    wait.report(wait.dead, p.n_tokens - 1);
    sh.stop = 1;  // the producer may be waiting for what a warp skipped
  }
#ifdef PROFILE
  __syncwarp();
  if (warp == PROFILE_WARP) atomicAdd(profile + lane, (unsigned long long)prof[lane]);
#endif
}

template <class S> __device__ __forceinline__ void decode(Params const& p, char* base) {
  const int slots = ring_slots(p);
  Shared<S>& sh = *(Shared<S>*)(base + slots * CHUNK);
  const int warp = __shfl_sync(~0u, threadIdx.x / 32, 0);
  if (threadIdx.x == 0) { sh.ring.init(); sh.stop = 0; }
  __syncthreads();
  if (warp >= WARPS) {
#if MK_BULK
    asm volatile("setmaxnreg.dec.sync.aligned.u32 24;");
    if (threadIdx.x != WARPS * 32) return;
#endif
    Producer pr{&sh.ring, base, &sh.stop, slots, p.max_turns[MK_PHASE_RING] * LOOKS, ptx::evict_first()};
    produce<S>(p, pr);
    pr.drain();
  } else {
#if MK_BULK
    asm volatile("setmaxnreg.inc.sync.aligned.u32 112;");
#endif
    consume<S>(p, sh, base, warp);
  }
}
