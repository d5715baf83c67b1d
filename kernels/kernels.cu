// Every kernel the crates load, by its plain name, for each shape there is.
#include "baseline/baseline.cuh"
#include "decode/decode.cuh"
#include "decode/pack.cuh"
#include "prefill/attention.cuh"
#include "prefill/gemm.cuh"
#include "prefill/rows.cuh"
#include "read.cuh"

template <class S> constexpr MkShape shape_of() {
  typedef Exchange<S> E;
  return {S::HIDDEN, S::INTER, Q_HEADS, KV_HEADS, HEAD_DIM, SHARES, MK_BULK ? SHARES : 1, THREADS,
          (uint32_t)shared_bytes<S>(), (uint32_t)sizeof(ShareState), CHUNK, MIN_SLOTS, SLOTS,
          (uint32_t)MAX_ROWS * SHARES, TILE_BYTES, (uint32_t)S::LM_CHUNKS * CHUNK, S::LAYER_BYTES, E::BYTES,
          E::XA, E::XB, E::H, E::QKV, E::ATT, E::LSE, E::KEYS, E::CAND, E::ERROR,
          0, S::O_AT, S::GU_AT, S::DOWN_AT};
}

#define MK_KERNELS(NAME, SHAPE)                                                                                   \
  extern "C" { __device__ MkShape mk_shape_##NAME = shape_of<SHAPE>(); }                                          \
  extern "C" __global__ void __launch_bounds__(THREADS, 1) mk_decode_##NAME(const __grid_constant__ MkDecode p) { \
    extern __shared__ __align__(128) char base[];                                                                 \
    decode<SHAPE>(p, base);                                                                                       \
  }                                                                                                               \
  extern "C" __global__ void __launch_bounds__(256) mk_pack_layer_##NAME(const __grid_constant__ MkPackLayer p) { \
    pack_layer<SHAPE>(p);                                                                                         \
  }                                                                                                               \
  extern "C" __global__ void __launch_bounds__(256) mk_pack_head_##NAME(const __grid_constant__ MkPackHead p) { \
    pack_head<SHAPE>(p.head, (int)p.vocab, (uint4*)p.out);                                                        \
  }

MK_KERNELS(1024_3072, Qwen06)
MK_KERNELS(2048_6144, Qwen17)

// Prefill, for any shape.
#define MK_GEMM(NAME, CONFIG, EPILOGUE, ROWS8)                                                                       \
  extern "C" __global__ void __launch_bounds__(prefill::CONFIG::THREADS, 1) NAME(const __grid_constant__ MkPrefill p) { \
    extern __shared__ __align__(128) char base[];                                                                    \
    prefill::gemm<prefill::CONFIG, prefill::EPILOGUE, ROWS8>(p, base);                                               \
  }
MK_GEMM(mk_gemm_store_large, Large, STORE, false)
MK_GEMM(mk_gemm_store_small, Small, STORE, false)
MK_GEMM(mk_gemm_gate_large, LargeGate, GATE, false)
MK_GEMM(mk_gemm_gate_small, SmallGate, GATE, false)
MK_GEMM(mk_gemm_add_large, Large, ADD, false)
MK_GEMM(mk_gemm_add_small, Small, ADD, false)
MK_GEMM(mk_gemm_add8_large, Large, ADD, true)
MK_GEMM(mk_gemm_add8_small, Small, ADD, true)

template <class C> constexpr MkGemm config_of() { return {C::ROWS, C::TOKENS, C::THREADS, C::SHARED}; }
extern "C" {
__device__ MkGemm mk_gemm_configs[5] = {
    config_of<prefill::Large>(), config_of<prefill::Small>(), config_of<prefill::LargeGate>(), config_of<prefill::SmallGate>(),
    {0, 64, 256, prefill::ATTENTION_SHARED}};
}

extern "C" __global__ void __launch_bounds__(512) mk_read(const __grid_constant__ MkRead p) { read_all(p); }
extern "C" __global__ void __launch_bounds__(256) mk_embed(const __grid_constant__ MkPrefill p) { prefill::embed(p); }
extern "C" __global__ void __launch_bounds__(256) mk_norm(const __grid_constant__ MkPrefill p) { prefill::norm(p); }
extern "C" __global__ void __launch_bounds__(1024) mk_heads(const __grid_constant__ MkPrefill p) { prefill::heads(p); }
extern "C" __global__ void __launch_bounds__(256) mk_attention(const __grid_constant__ MkPrefill p) {
  extern __shared__ __align__(128) char base[];
  prefill::attention(p, base);
}

// One kernel an operation, for the benchmark to compare with.
#define MK_BASELINE(NAME, THREADS)                                                                                \
  extern "C" __global__ void __launch_bounds__(THREADS) mk_base_##NAME(const __grid_constant__ MkBaseline p) { \
    baseline::NAME(p);                                                                                            \
  }
MK_BASELINE(embed, 256)
MK_BASELINE(norm, 256)
MK_BASELINE(heads, 128)
MK_BASELINE(attention, baseline::ATTENTION_THREADS)
MK_BASELINE(merge, HEAD_DIM)
MK_BASELINE(argmax, 1024)

// Products: columns, and the rows of a warp, so that every multiprocessor has some 16 warps of each.
#define MK_BASELINE_GEMV(NAME, COLUMNS, ROWS, THEN)                                                                             \
  extern "C" __global__ void __launch_bounds__(baseline::GEMV_THREADS) mk_base_##NAME(const __grid_constant__ MkBaseline p) { \
    baseline::gemv<COLUMNS, ROWS, baseline::THEN>(p);                                                                           \
  }                                                                                                                             \
  extern "C" { __device__ uint32_t mk_base_rows_##NAME = baseline::block_rows(ROWS, baseline::THEN); }
MK_BASELINE_GEMV(qkv_1024_3072, 1024, 2, STORE)
MK_BASELINE_GEMV(o_1024_3072, 2048, 1, ADD)
MK_BASELINE_GEMV(gate_1024_3072, 1024, 2, GATE)
MK_BASELINE_GEMV(down_1024_3072, 3072, 1, ADD)
MK_BASELINE_GEMV(head_1024_3072, 1024, 4, HEAD)
MK_BASELINE_GEMV(qkv_2048_6144, 2048, 1, STORE)
MK_BASELINE_GEMV(o_2048_6144, 2048, 1, ADD)
MK_BASELINE_GEMV(gate_2048_6144, 2048, 2, GATE)
MK_BASELINE_GEMV(down_2048_6144, 6144, 1, ADD)
MK_BASELINE_GEMV(head_2048_6144, 2048, 1, HEAD)
