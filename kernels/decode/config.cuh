// Shapes, and how the chip is divided among them.
#pragma once
#include "../abi.h"

typedef mk_bf16 bf16;
typedef MkDecode Params;

// Whether the chip has Hopper's bulk copies, 227 KB of shared memory a block, and registers to hand over. Everything else,
// and the PTX for chips that are not known yet, takes the portable way: copies of 16 bytes by a warp, a ring as deep as the
// device allows, and as many blocks as it has multiprocessors.
#if !defined(__CUDA_ARCH__) || (__CUDA_ARCH__ >= 900 && __CUDA_ARCH__ < 1200)
#define MK_BULK 1
#else
#define MK_BULK 0
#endif
constexpr int MAX_SHARED = (MK_BULK ? 227 : 99) * 1024;  // of a block; each chip from sm_80 on has the smaller at least

constexpr int SHARES = 128;         // that the work is cut into; 1,024 rows divide by it, by 132 they do not
constexpr int WARPS = 16;           // consumer warps
// The producer that feeds the ring: a thread with bulk copies, but in a whole warpgroup, so that it can give registers
// away; else a warp.
constexpr int THREADS = WARPS * 32 + (MK_BULK ? 128 : 32);
constexpr int HEAD_DIM = 128;
constexpr int Q_HEADS = 16;
constexpr int KV_HEADS = 8;
constexpr int GROUP = SHARES / KV_HEADS;  // shares that serve one KV head
constexpr int CHUNK = 16384;        // bytes of a ring slot: 2 units for each of 16 warps
constexpr int TILE = MK_TILE;       // positions of a KV tile
constexpr int TILE_BYTES = TILE * HEAD_DIM * 2 * 2;
constexpr int DEPTH = 4;            // exchange buffers of a kind, used in turn by layer
constexpr int MAX_SPLITS = 16;
constexpr uint32_t EMPTY = 0xffffffffu;  // 'not yet written': a pair of NaNs that no conversion produces

// A weight matrix is cut into units: 16 bytes a lane, the A operand of one m16n8k16 (256 weights).
// A chunk holds two units of each warp. Everything below is per share.
template <int HIDDEN_, int INTER_> struct Shape {
  static constexpr int HIDDEN = HIDDEN_, INTER = INTER_;
  static constexpr int QKV_ROWS = (Q_HEADS + 2 * KV_HEADS) * HEAD_DIM / SHARES;  // 32
  static constexpr int OUT_ROWS = HIDDEN / SHARES;    // rows of O and of down: 8 or 16
  static constexpr int H_ROWS = INTER / SHARES;       // gated activations: 24 or 48
  static constexpr int X_SLICE = HIDDEN / WARPS;      // columns a warp owns of a HIDDEN-wide input
  static constexpr int H_SLICE = INTER / WARPS;
  static constexpr int QKV_UNITS = QKV_ROWS * X_SLICE / 256;
  static constexpr int O_UNITS = OUT_ROWS * HEAD_DIM / 256;
  static constexpr int GU_UNITS = 2 * H_ROWS * X_SLICE / 256;
  static constexpr int DOWN_UNITS = OUT_ROWS * H_SLICE / 256;
  static constexpr int LM_UNITS = 8 * X_SLICE / 256;  // of a tile of 8 vocabulary rows
  static constexpr int LAYER_CHUNKS = (QKV_UNITS + O_UNITS + GU_UNITS + DOWN_UNITS) / 2;
  static constexpr int LM_CHUNKS = LM_UNITS / 2;      // of a tile
  // Where the matrices begin in a packed layer.
  static constexpr uint64_t O_AT = (uint64_t)QKV_UNITS / 2 * SHARES * CHUNK;
  static constexpr uint64_t GU_AT = O_AT + (uint64_t)O_UNITS / 2 * SHARES * CHUNK;
  static constexpr uint64_t DOWN_AT = GU_AT + (uint64_t)GU_UNITS / 2 * SHARES * CHUNK;
  static constexpr uint64_t LAYER_BYTES = (uint64_t)LAYER_CHUNKS * SHARES * CHUNK;
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

// Where the exchange buffers of a decoder lie, one after the other.
template <class S> struct Exchange {
  static constexpr uint64_t up(uint64_t bytes) { return (bytes + 255) / 256 * 256; }
  static constexpr uint64_t XA = 0;                                          // residual after attention: [DEPTH][X_REP][hidden]
  static constexpr uint64_t XB = XA + up((uint64_t)DEPTH * X_REP * S::HIDDEN * 2);  // after the MLP
  static constexpr uint64_t H = XB + up((uint64_t)DEPTH * X_REP * S::HIDDEN * 2);   // [DEPTH][H_REP][inter]
  static constexpr uint64_t QKV = H + up((uint64_t)DEPTH * H_REP * S::INTER * 2);   // [DEPTH][QKV_REP][KV_HEADS][512]
  static constexpr uint64_t ATT = QKV + up((uint64_t)DEPTH * QKV_REP * KV_HEADS * 1024);  // [DEPTH][ATT_REP][Q_HEADS][MAX_SPLITS][128]
  static constexpr uint64_t LSE = ATT + up((uint64_t)DEPTH * ATT_REP * Q_HEADS * MAX_SPLITS * 256);  // [DEPTH][ATT_REP][Q_HEADS][MAX_SPLITS]
  static constexpr uint64_t KEYS = LSE + up((uint64_t)DEPTH * ATT_REP * Q_HEADS * MAX_SPLITS * 4);   // [DEPTH][KEY_REP][SHARES]: best logit and id of a block
  static constexpr uint64_t CAND = KEYS + up((uint64_t)DEPTH * KEY_REP * SHARES * 8);  // [DEPTH][SHARES][MAX_TOP_K]: candidates of a block
  static constexpr uint64_t ERROR = CAND + up((uint64_t)DEPTH * SHARES * MK_MAX_TOP_K * 8);  // EMPTY: none
  static constexpr uint64_t BYTES = ERROR + 256;
};

// The shares of this block, in turn: one where there are as many blocks as shares, as there always are with bulk copies.
#define EACH_SHARE(share, nth) \
  for (int share = blockIdx.x, nth = 0; MK_BULK ? nth < 1 : share < SHARES; share += gridDim.x, nth++)
