// Shapes, and everything a launch is told.
#pragma once
#include <cuda_bf16.h>
#include <cstdint>

typedef __nv_bfloat16 bf16;

constexpr int BLOCKS = 128;         // one per SM; 1,024 rows divide by it, by 132 they do not
constexpr int WARPS = 16;           // consumer warps; one producer thread more feeds the ring
constexpr int THREADS = WARPS * 32 + 128;  // a whole warpgroup for the producer, so that it can give registers away
constexpr int HEAD_DIM = 128;
constexpr int Q_HEADS = 16;
constexpr int KV_HEADS = 8;
constexpr int GROUP = BLOCKS / KV_HEADS;  // blocks that serve one KV head
constexpr int CHUNK = 16384;        // bytes of a ring slot: 2 units for each of 16 warps
constexpr int TILE = 16;            // positions of a KV tile
constexpr int TILE_BYTES = TILE * HEAD_DIM * 2 * 2;
constexpr int DEPTH = 4;            // exchange buffers of a kind, used in turn by layer
constexpr int MAX_SPLITS = 16;
constexpr uint32_t EMPTY = 0xffffffffu;  // 'not yet written': a pair of NaNs that no conversion produces

// A weight matrix is cut into units: 16 bytes a lane, the A operand of one m16n8k16 (256 weights).
// A chunk holds two units of each warp. Everything below is per block.
template <int HIDDEN_, int INTER_> struct Shape {
  static constexpr int HIDDEN = HIDDEN_, INTER = INTER_;
  static constexpr int QKV_ROWS = (Q_HEADS + 2 * KV_HEADS) * HEAD_DIM / BLOCKS;  // 32
  static constexpr int OUT_ROWS = HIDDEN / BLOCKS;    // rows of O and of down: 8 or 16
  static constexpr int H_ROWS = INTER / BLOCKS;       // gated activations: 24 or 48
  static constexpr int X_SLICE = HIDDEN / WARPS;      // columns a warp owns of a HIDDEN-wide input
  static constexpr int H_SLICE = INTER / WARPS;
  static constexpr int QKV_UNITS = QKV_ROWS * X_SLICE / 256;
  static constexpr int O_UNITS = OUT_ROWS * HEAD_DIM / 256;
  static constexpr int GU_UNITS = 2 * H_ROWS * X_SLICE / 256;
  static constexpr int DOWN_UNITS = OUT_ROWS * H_SLICE / 256;
  static constexpr int LM_UNITS = 8 * X_SLICE / 256;  // of a tile of 8 vocabulary rows
  static constexpr int LAYER_CHUNKS = (QKV_UNITS + O_UNITS + GU_UNITS + DOWN_UNITS) / 2;
  static constexpr int LM_CHUNKS = LM_UNITS / 2;      // of a tile
};
using Qwen06 = Shape<1024, 3072>;
using Qwen17 = Shape<2048, 6144>;

// Replicas of the exchange buffers: blocks that poll the same lines slow each other.
#ifndef X_REP
#define X_REP 8
#endif
#ifndef H_REP
#define H_REP 4
#endif
#ifndef ATT_REP
#define ATT_REP 8
#endif
#ifndef QKV_REP
#define QKV_REP 2
#endif
#ifndef KEY_REP
#define KEY_REP 8
#endif

struct Sampling {
  float temperature;       // 0: greedy
  int top_k;               // 1..64
  float top_p;
  float repetition_penalty;
  unsigned long long seed;
};

enum Phase { PH_NONE, PH_X_ATT, PH_QKV, PH_ATT, PH_X_MLP, PH_H, PH_X_HEAD, PH_KEY, PH_CANDIDATES, PH_NAN, PH_TOKEN, PH_RING };

// Everything a launch needs. All buffers belong to one decoder.
struct Params {
  const char* weights;        // packed stream, see pack.cuh
  const bf16* embed;          // [vocab][hidden], row-major
  const bf16* norms;          // per layer: input norm, post-attention norm [hidden] each, q norm, k norm [128]; then the final norm
  const float2* rope;         // [max_pos][64] (cos, sin)
  char* kv;                   // [layer][kv head][tile] of TILE_BYTES
  // exchange
  uint32_t *xa, *xb;          // residual after attention / after the MLP: [DEPTH][rep][hidden/2]
  uint32_t* h;                // [DEPTH][rep][inter/2]
  uint32_t* qkv;              // [DEPTH][rep][KV_HEADS][256]
  uint32_t* att;              // [DEPTH][rep][Q_HEADS][MAX_SPLITS][64]
  float* lse;                 // [DEPTH][rep][Q_HEADS][MAX_SPLITS]
  unsigned long long* keys;   // [DEPTH][rep][BLOCKS]: best logit and id of a block
  unsigned long long* cand;   // [DEPTH][BLOCKS][64]: candidates of a block
  uint32_t* seen;             // bit a vocabulary id: already in the text
  uint32_t* error;            // device: phase<<24 | block, 0 none
  volatile unsigned long long* out;  // host-mapped: (index+1)<<32 | token
  volatile uint32_t* host_error;
  const int* forced;          // tokens handed in, n_forced of them
  const bf16* embeds_in;      // or their vectors
  float* logits;              // null, or [n_tokens - head_from][vocab]
  int max_turns;              // polls (about 0.7 us each) before a wait is an error
  Sampling sampling;
  int layers, vocab, max_tiles;
  int pos0, n_tokens, n_forced, head_from;
  int eos;                    // -1: none
  int split4, split8;         // contexts up to which 4 and 8 splits are used
  int out_base;
  float eps;
};
