/* What the host and the kernels agree on: plain structs, the same in C, C++, CUDA and (by bindgen) Rust. Pointers are
 * device addresses unless they say otherwise. `crates/mk-sys/src/abi.rs` is made from this file by
 * `cargo xtask codegen`. */
#ifndef MK_ABI_H
#define MK_ABI_H

#include <stdint.h>

#ifdef __CUDACC__
#include <cuda_bf16.h>
typedef __nv_bfloat16 mk_bf16;
#else
typedef uint16_t mk_bf16;
#endif

#define MK_TILE 16          /* positions of a tile of the cache */
#define MK_MAX_STOPS 16     /* ids that end a run on the device */
#define MK_MAX_TOP_K 64     /* the largest top_k that is sampled on the device */
#define MK_PREFILL_BATCH 2048 /* positions that a prefill takes through the layers together, at most */

/* What a compiled shape is, and what it needs; `mk_shape_H_I` in a module. Sizes in bytes, offsets from the start of the
 * exchange buffer. */
typedef struct MkShape {
  uint32_t hidden, inter;
  uint32_t q_heads, kv_heads, head_dim;
  /* Of the decode launch, which has as many blocks as shares, or fewer that take several; all of them at once on the
   * device. A block's dynamic shared memory is a ring of slots, shared_bytes, and share_bytes for each share beyond its
   * first. */
  uint32_t shares, min_blocks, threads;
  uint32_t shared_bytes, share_bytes;
  uint32_t slot_bytes, min_slots, max_slots;
  uint32_t max_vocab;
  uint32_t tile_bytes;         /* of one tile of the cache of one layer and key head */
  uint32_t head_tile_bytes;    /* of 8 packed rows of an output head */
  uint64_t layer_bytes;        /* of a packed layer */
  uint64_t exchange_bytes;
  uint64_t xa, xb, h, qkv, att, lse, keys, cand, error;
  uint64_t qkv_weights, o_weights, gate_up_weights, down_weights; /* where the matrices begin in a packed layer */
} MkShape;

/* How a token is chosen; mk-model's sampling/mod.rs is the contract. */
typedef struct MkSampling {
  float temperature;           /* 0: greedy */
  float top_p;                 /* 1: off */
  float min_p;                 /* 0: off */
  float repetition_penalty;    /* 1: off */
  uint32_t top_k;              /* 1..MK_MAX_TOP_K; not looked at when greedy */
  uint32_t suppresses;         /* whether any id is suppressed */
  uint64_t seed;
  uint64_t first_draw;         /* number of the launch's first draw */
} MkSampling;

/* What a launch reports, in mapped host memory. */
typedef struct MkStatus {
  uint32_t code;               /* MkPhase << 24 | block + 1; 0: no error */
  uint32_t token;              /* index within the launch of the token at which it was noticed */
  uint32_t cancel;             /* set by the host: end at the next token */
  uint32_t reserved;
} MkStatus;

/* Where a launch gave up: a wait that took too long, by what it waited for, or a result that cannot be used. */
typedef enum MkPhase {
  MK_PHASE_NONE = 0,
  MK_PHASE_X_ATTENTION = 1,
  MK_PHASE_QKV = 2,
  MK_PHASE_ATTENTION = 3,
  MK_PHASE_X_MLP = 4,
  MK_PHASE_H = 5,
  MK_PHASE_X_HEAD = 6,
  MK_PHASE_KEYS = 7,
  MK_PHASE_CANDIDATES = 8,
  MK_PHASE_RING = 9,           /* the block's own copies of weights, keys and values */
  MK_PHASE_NOT_FINITE = 10,    /* a logit is NaN or plus infinity */
  MK_PHASE_NOTHING = 11,       /* every logit is minus infinity or suppressed */
  MK_PHASE_TIES = 12           /* more equal logits than the device samples among: the host has to */
} MkPhase;

#define MK_WAITS 10            /* the phases that are waits, and 0 */

/* One launch of the decode kernel. All but the weights belongs to one sequence. */
typedef struct MkDecode {
  const uint8_t* weights;      /* [layers] of MkShape.layer_bytes, packed */
  const uint8_t* head;         /* [ceil(vocab/8)] of MkShape.head_tile_bytes, packed */
  const mk_bf16* embed;        /* [vocab][hidden]; null where only rows are fed */
  const mk_bf16* norms;        /* a layer: input norm, post-attention norm [hidden], q norm, k norm [head_dim]; then the final norm */
  const float* rope;           /* [positions][head_dim/2][cos, sin] */
  uint8_t* kv;                 /* [layers][kv_heads][max_tiles] of MkShape.tile_bytes */
  uint32_t *xa, *xb, *h, *qkv, *att, *lse; /* exchange; all of it 0xff bytes before a launch */
  uint64_t *keys, *cand;
  uint32_t* error;
  const uint32_t* seen;        /* bit an id; looked at where repetition_penalty is not 1 */
  const uint32_t* suppressed;  /* bit an id; looked at where sampling.suppresses */
  volatile uint64_t* out;      /* mapped host, [n_tokens - head_from]: (index + 1) << 32 | token */
  volatile MkStatus* status;   /* mapped host */
  const uint32_t* forced;      /* [n_forced] ids handed in, from the second on; null with rows */
  const mk_bf16* rows;         /* or [n_forced][hidden] rows, and the same not rounded */
  const float* rows_f32;
  float* logits;               /* null, or [n_tokens - head_from][vocab], before any processing */
  float* hidden;               /* null, or [n_tokens - head_from][hidden], after the final norm */
  MkSampling sampling;
  int32_t layers, vocab, max_tiles;
  int32_t pos0, n_tokens, n_forced, head_from; /* the head runs from token head_from on */
  int32_t first_token;        /* the first id handed in */
  int32_t n_stops;
  int32_t stops[MK_MAX_STOPS];
  int32_t split4, split8;     /* positions up to which attention has 4 and 8 splits */
  int32_t slots;              /* of the ring of each block */
  int32_t pace;               /* clocks between two copies of weights, at least, at the highest clock; 0: none. See ring.cuh */
  int32_t clock_mhz;          /* the highest clock */
  int32_t starved;            /* for tests: the token from which on block 0 copies nothing, so that its waits fail; else -1 */
  int32_t max_turns[MK_WAITS]; /* turns of a wait, by its phase, before it is an error: 0.2 to 0.7 us, the ring's 1 to 4 */
  float eps;
} MkDecode;

/* Repacking one layer. */
typedef struct MkPackLayer {
  const mk_bf16* qkv;          /* [(q_heads + 2 kv_heads) head_dim][hidden] */
  const mk_bf16* o;            /* [hidden][q_heads head_dim] */
  const mk_bf16* gate_up;      /* [2 inter][hidden] */
  const mk_bf16* down;         /* [hidden][inter] */
  uint8_t* out;                /* MkShape.layer_bytes */
} MkPackLayer;

/* Repacking an output head. */
typedef struct MkPackHead {
  const mk_bf16* head;         /* [vocab][hidden] */
  uint8_t* out;                /* [ceil(vocab/8)] of MkShape.head_tile_bytes */
  int64_t vocab;
} MkPackHead;

/* Reading memory, to know how fast that is. */
typedef struct MkRead {
  const uint8_t* from;
  uint64_t bytes;
  uint32_t* out;               /* 4 bytes */
} MkRead;

/* How a kernel of the prefill cuts its work, and what it needs; `mk_gemm_configs` in a module has those of the products
 * (large, small, and both again for gate and up) and that of the attention. */
typedef struct MkGemm {
  uint32_t rows, tokens;       /* of a block */
  uint32_t threads;
  uint32_t shared_bytes;       /* dynamic */
} MkGemm;

/* A step of a prefill over `tokens` positions; each kernel takes what it needs of this. Activations are [tokens][...]. */
typedef struct MkPrefill {
  const uint8_t* weights;      /* a matrix inside a packed layer */
  const mk_bf16* norms;        /* of a layer, or of one norm */
  const float* rope;
  uint8_t* kv;                 /* of a layer */
  const mk_bf16* embed;
  const uint32_t* ids;         /* null with rows */
  const float* rows;           /* [hidden] a token */
  float* x;                    /* [hidden], the residual stream */
  const mk_bf16* input;        /* [columns] */
  mk_bf16* output;
  float* partials;             /* [splits][tokens][hidden] */
  int32_t tokens, pos0, max_tiles;
  int32_t hidden;
  int32_t columns;             /* of the matrix */
  int32_t out_columns;
  int32_t slice;               /* columns of one of the 16 slices */
  int32_t steps;               /* of 64 columns, in a slice */
  int32_t tiles_per_block;     /* of 16 rows */
  int32_t gate_rows;           /* gate rows of a block, followed by as many up rows */
  int32_t splits;              /* of the columns of the product before a norm, whose sums are in partials */
  float eps;
} MkPrefill;

/* Where the decoder of one kernel an operation is, in device memory: a replay takes it up and leaves it one further. */
typedef struct MkBaselineState {
  int32_t position;
  uint32_t token;              /* the last one made */
  int32_t start;               /* position of the first of `forced` */
  int32_t n_forced;
} MkBaselineState;

#define MK_NO_TOKEN 0xffffffffu /* the logits are not all numbers */

/* A step of that decoder, which the benchmark compares with; each kernel takes what it needs of this. Weights are
 * [rows][columns], as in a checkpoint. */
typedef struct MkBaseline {
  const mk_bf16* weights;
  const mk_bf16* norms;        /* one norm's; for heads q norm, k norm */
  const mk_bf16* embed;
  const float* rope;           /* [positions][head_dim/2][cos, sin] */
  const uint32_t* forced;      /* [n_forced] ids handed in */
  float* x;                    /* [hidden], the residual stream */
  const mk_bf16* input;        /* [columns]; of the attention the queries */
  mk_bf16* output;
  float* numbers;              /* q, k and v, or logits */
  mk_bf16 *k, *v;              /* [kv_heads][capacity][head_dim], of a layer */
  float* parts;                /* [splits][q_heads][head_dim] */
  float (*states)[2];          /* [splits][q_heads]: the largest score, the sum of weights */
  uint64_t* keys;              /* best logit and id of each block of the head */
  MkBaselineState* state;
  volatile uint64_t* out;      /* mapped host: (index + 1) << 32 | token */
  int32_t hidden;
  int32_t rows;                /* of the matrix; gate rows; of argmax the keys */
  int32_t capacity;
  int32_t splits;
  float eps;
  uint32_t reserved;
} MkBaseline;

#ifdef __cplusplus
#define MK_ASSERT static_assert
#else
#define MK_ASSERT _Static_assert
#endif
#include <stddef.h>
MK_ASSERT(sizeof(MkShape) == 64 + 15 * 8, "MkShape");
MK_ASSERT(offsetof(MkShape, layer_bytes) == 64, "MkShape.layer_bytes");
MK_ASSERT(sizeof(MkSampling) == 40, "MkSampling");
MK_ASSERT(offsetof(MkSampling, seed) == 24, "MkSampling.seed");
MK_ASSERT(sizeof(MkStatus) == 16, "MkStatus");
MK_ASSERT(offsetof(MkDecode, out) == 17 * 8, "MkDecode.out");
MK_ASSERT(offsetof(MkDecode, sampling) == 24 * 8, "MkDecode.sampling");
MK_ASSERT(offsetof(MkDecode, layers) == 24 * 8 + 40, "MkDecode.layers");
MK_ASSERT(offsetof(MkDecode, stops) == 24 * 8 + 40 + 9 * 4, "MkDecode.stops");
MK_ASSERT(sizeof(MkDecode) == 24 * 8 + 40 + 9 * 4 + 16 * 4 + 7 * 4 + MK_WAITS * 4, "MkDecode");
MK_ASSERT(sizeof(MkPackLayer) == 40, "MkPackLayer");
MK_ASSERT(sizeof(MkPackHead) == 24, "MkPackHead");
MK_ASSERT(sizeof(MkRead) == 24, "MkRead");
MK_ASSERT(sizeof(MkGemm) == 16, "MkGemm");
MK_ASSERT(sizeof(MkPrefill) == 11 * 8 + 12 * 4, "MkPrefill");
MK_ASSERT(sizeof(MkBaseline) == 16 * 8 + 6 * 4, "MkBaseline");

#endif
