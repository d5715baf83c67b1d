// Host side: one decoder's memory, and its launches.
#pragma once
#include "decode.cuh"
#include "pack.cuh"
#include <cstdio>
#include <cstdlib>
#define CK(x) do { cudaError_t e_ = (x); if (e_ != cudaSuccess) { printf("%s:%d %s: %s\n", __FILE__, __LINE__, #x, cudaGetErrorString(e_)); fflush(stdout); exit(1); } } while (0)

struct Config { int layers, vocab, max_pos; float eps, theta; };

template <class S> struct Decoder {
  Params p{};
  Config cfg;
  char* weights;
  char* exchange;
  size_t exchange_bytes;
  unsigned long long* out;     // host
  volatile uint32_t* host_error;
  int out_capacity = 1 << 20;
  cudaStream_t stream;
  static size_t layer_bytes() { return (size_t)S::LAYER_CHUNKS * BLOCKS * CHUNK; }
  size_t kv_bytes() const { return (size_t)cfg.layers * KV_HEADS * p.max_tiles * TILE_BYTES; }

  Decoder(Config c, const std::vector<RawLayer>& raw, const bf16* embed, const bf16* head, const bf16* norms) : cfg(c) {
    const size_t tiles = (c.vocab + 7) / 8, head_bytes = tiles * S::LM_CHUNKS * CHUNK;
    CK(cudaMalloc(&weights, c.layers * layer_bytes() + head_bytes));
    for (int l = 0; l < c.layers; l++) pack_layer<S><<<(unsigned)(layer_bytes() / 16 / 256), 256>>>(raw[l], (uint4*)(weights + l * layer_bytes()));
    pack_head<S><<<(unsigned)(head_bytes / 16 / 256), 256>>>(head, c.vocab, (uint4*)(weights + c.layers * layer_bytes()));
    CK(cudaGetLastError());
    CK(cudaStreamCreate(&stream));
    p.weights = weights; p.embed = embed; p.norms = norms;
    std::vector<float2> rope((size_t)c.max_pos * 64);
    for (int pos = 0; pos < c.max_pos; pos++)
      for (int i = 0; i < 64; i++) { double a = pos * pow((double)c.theta, -i / 64.0); rope[pos * 64 + i] = make_float2((float)cos(a), (float)sin(a)); }
    float2* dr;
    CK(cudaMalloc(&dr, rope.size() * 8));
    CK(cudaMemcpy(dr, rope.data(), rope.size() * 8, cudaMemcpyHostToDevice));
    p.rope = dr;
    p.sampling = {0.f, 1, 1.f, 1.f, 0};
    if ((tiles + BLOCKS - 1) / BLOCKS * 8 > MAX_ROWS) { printf("vocabulary too large\n"); exit(1); }
    p.layers = c.layers; p.vocab = c.vocab; p.eps = c.eps; p.max_tiles = (c.max_pos + TILE - 1) / TILE;
    CK(cudaMalloc((void**)&p.kv, kv_bytes()));
    CK(cudaMemset(p.kv, 0, kv_bytes()));
    size_t at = 0;
    auto take = [&](size_t bytes) { size_t r = at; at += (bytes + 255) / 256 * 256; return r; };
    size_t xa = take((size_t)DEPTH * X_REP * S::HIDDEN * 2), xb = take((size_t)DEPTH * X_REP * S::HIDDEN * 2);
    size_t h = take((size_t)DEPTH * H_REP * S::INTER * 2), qkv = take((size_t)DEPTH * QKV_REP * KV_HEADS * 1024);
    size_t att = take((size_t)DEPTH * ATT_REP * Q_HEADS * MAX_SPLITS * 256), lse = take((size_t)DEPTH * ATT_REP * Q_HEADS * MAX_SPLITS * 4);
    size_t keys = take((size_t)DEPTH * KEY_REP * BLOCKS * 8), cand = take((size_t)DEPTH * BLOCKS * 64 * 8);
    exchange_bytes = at;
    CK(cudaMalloc((void**)&exchange, at + 256));
    p.xa = (uint32_t*)(exchange + xa); p.xb = (uint32_t*)(exchange + xb); p.h = (uint32_t*)(exchange + h); p.qkv = (uint32_t*)(exchange + qkv);
    p.att = (uint32_t*)(exchange + att); p.lse = (float*)(exchange + lse); p.keys = (unsigned long long*)(exchange + keys); p.cand = (unsigned long long*)(exchange + cand);
    p.error = (uint32_t*)(exchange + at);
    CK(cudaMalloc((void**)&p.seen, (c.vocab + 31) / 32 * 4));
    CK(cudaMemset(p.seen, 0, (c.vocab + 31) / 32 * 4));
    void* host;
    CK(cudaHostAlloc(&host, out_capacity * 8 + 64, cudaHostAllocMapped));
    memset(host, 0, out_capacity * 8 + 64);
    out = (unsigned long long*)host; host_error = (uint32_t*)(out + out_capacity);
    p.out = out; p.host_error = host_error;
    p.max_turns = 3000000;
    p.eos = -1; p.split4 = 256; p.split8 = 4096;
    auto k = decode<S>;
    CK(cudaFuncSetAttribute(k, cudaFuncAttributeMaxDynamicSharedMemorySize, shared_bytes<S>()));
    int per_sm = 0, sms = 0;
    CK(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&per_sm, k, THREADS, shared_bytes<S>()));
    CK(cudaDeviceGetAttribute(&sms, cudaDevAttrMultiProcessorCount, 0));
    if (per_sm * sms < BLOCKS) { printf("the grid does not fit: %d blocks an SM, %d SMs\n", per_sm, sms); exit(1); }
    CK(cudaDeviceSynchronize());
  }
  // Starts n tokens at a position; returns at once. The cooperative launch fails where the grid cannot be resident.
  void launch(int pos0, int n, const int* forced, int n_forced, int head_from, float* logits) {
    if (pos0 < 0 || pos0 + n > cfg.max_pos) { printf("positions out of range\n"); exit(1); }
    p.pos0 = pos0; p.n_tokens = n; p.forced = forced; p.n_forced = n_forced; p.head_from = head_from; p.logits = logits;
    for (int i = 0; i < n - head_from; i++) out[i] = 0;
    *host_error = 0;
    CK(cudaMemsetAsync(exchange, 0xff, exchange_bytes, stream));
    CK(cudaMemsetAsync(p.error, 0, 4, stream));
    void* args[] = {&p};
    CK(cudaLaunchCooperativeKernel((void*)decode<S>, dim3(BLOCKS), dim3(THREADS), args, (size_t)shared_bytes<S>(), stream));
  }
  void sync() {
    CK(cudaStreamSynchronize(stream));
    if (*host_error) { printf("decoder error: phase %u block %u\n", *host_error >> 24, (*host_error & 0xffffff) - 1); fflush(stdout); }
  }
};
