// Slow and plain: one kernel an operation, f32 sums. Three roundings: F32 none (the truth, given the weights); STORED where
// the decode kernel stores bf16; HF wherever a bf16 run of the usual Python implementation rounds.
#pragma once
#include "config.cuh"
#include "pack.cuh"
#include <vector>
#include <cmath>

enum Rounding { F32, STORED, HF };
struct Dims { int hidden, inter, layers, vocab, q_heads, kv_heads, max_pos; float eps; };
struct RawModel {
  std::vector<RawLayer> layers;
  const bf16 *embed, *head, *norms;
  const float2* rope;
};

namespace ref {
__device__ inline float rb(float x) { return __bfloat162float(__float2bfloat16(x)); }
__global__ void embed(const bf16* e, int h, float* x) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < h) x[i] = __bfloat162float(e[i]);
}
__device__ inline float block_sum(float v) {
  __shared__ float s[32];
  __syncthreads();
  for (int o = 16; o; o >>= 1) v += __shfl_xor_sync(~0u, v, o);
  if (threadIdx.x % 32 == 0) s[threadIdx.x / 32] = v;
  __syncthreads();
  v = 0;
  for (int i = 0; i < (int)blockDim.x / 32; i++) v += s[i];
  return v;
}
__global__ void norm(const float* x, const bf16* g, int n, float eps, float* y, int mode) {
  float ss = 0;
  for (int i = threadIdx.x; i < n; i += blockDim.x) { float a = mode == STORED ? rb(x[i]) : x[i]; ss += a * a; }
  float r = rsqrtf(block_sum(ss) / n + eps);
  for (int i = threadIdx.x; i < n; i += blockDim.x) {
    float w = __bfloat162float(g[i]);
    y[i] = mode == F32 ? x[i] * r * w : mode == STORED ? rb(rb(x[i]) * w) * r : rb(rb(x[i] * r) * w);
  }
}
__global__ void matvec(const bf16* w, const float* x, int rows, int cols, float* y, bool round) {
  int row = (blockIdx.x * blockDim.x + threadIdx.x) / 32, lane = threadIdx.x % 32;
  if (row >= rows) return;
  float a = 0;
  for (int i = lane; i < cols; i += 32) a += __bfloat162float(w[(size_t)row * cols + i]) * x[i];
  for (int o = 16; o; o >>= 1) a += __shfl_xor_sync(~0u, a, o);
  if (lane == 0) y[row] = round ? rb(a) : a;
}
// a block a head of q, k, v (64 threads): norm and rotate q and k, append k and v
__global__ void heads(float* qkv, const bf16* qn, const bf16* kn, const float2* rope, int qh, int kh, float eps, float* k, float* v, int max_pos, int pos, int mode) {
  int head = blockIdx.x, i = threadIdx.x;
  float *x = qkv + head * 128, a = x[i], b = x[i + 64];
  if (head >= qh + kh) {
    float* d = v + ((size_t)(head - qh - kh) * max_pos + pos) * 128;
    d[i] = a; d[i + 64] = b;
    return;
  }
  const bf16* w = head < qh ? qn : kn;
  float r = rsqrtf(block_sum(a * a + b * b) / 128 + eps);
  a *= r; b *= r;
  if (mode == HF) { a = rb(a); b = rb(b); }
  a *= __bfloat162float(w[i]); b *= __bfloat162float(w[i + 64]);
  float2 cs = rope[(size_t)pos * 64 + i];
  if (mode == HF) { a = rb(a); b = rb(b); cs.x = rb(cs.x); cs.y = rb(cs.y); }
  float u = a * cs.x - b * cs.y, t = b * cs.x + a * cs.y;
  if (mode == HF) { u = rb(rb(a * cs.x) - rb(b * cs.y)); t = rb(rb(b * cs.x) + rb(a * cs.y)); }
  if (head < qh) { x[i] = u; x[i + 64] = t; return; }
  float* d = k + ((size_t)(head - qh) * max_pos + pos) * 128;
  d[i] = mode == F32 ? u : rb(u); d[i + 64] = mode == F32 ? t : rb(t);
}
__global__ void attend(const float* q, const float* k, const float* v, int per, int max_pos, int n, float* o, int mode) {
  extern __shared__ float s[];
  int head = blockIdx.x;
  const float *kk = k + (size_t)(head / per) * max_pos * 128, *vv = v + (size_t)(head / per) * max_pos * 128;
  float top = -1e30f;
  for (int p = threadIdx.x; p < n; p += blockDim.x) {
    float a = 0;
    for (int d = 0; d < 128; d++) a += q[head * 128 + d] * kk[(size_t)p * 128 + d];
    s[p] = a * 0.08838834764831845f;
    if (mode == HF) s[p] = rb(s[p]);
    top = fmaxf(top, s[p]);
  }
  __shared__ float m[256];
  m[threadIdx.x] = top;
  __syncthreads();
  for (int i = 0; i < 256; i++) top = fmaxf(top, m[i]);
  float sum = 0;
  for (int p = threadIdx.x; p < n; p += blockDim.x) { s[p] = expf(s[p] - top); sum += s[p]; }
  sum = block_sum(sum);
  __syncthreads();
  if (threadIdx.x < 128) {
    float a = 0;
    for (int p = 0; p < n; p++) a += (mode == HF ? rb(s[p] / sum) : s[p] / sum) * vv[(size_t)p * 128 + threadIdx.x];
    o[head * 128 + threadIdx.x] = mode == F32 ? a : rb(a);
  }
}
__global__ void gate(const float* gu, int n, float* h, int mode) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  float g = gu[i], a = g / (1.f + expf(-g));
  if (mode == HF) a = rb(a);
  a *= gu[n + i];
  h[i] = mode == F32 ? a : rb(a);
}
__global__ void add(float* x, const float* y, int n, int mode) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) x[i] = mode == HF ? rb(x[i] + y[i]) : x[i] + y[i];
}

struct Run {
  Dims d;
  RawModel m;
  int mode;
  float *x, *y, *qkv, *o, *gu, *h, *logits, *k, *v;
  Run(Dims d, RawModel m, int mode) : d(d), m(m), mode(mode) {
    auto get = [](size_t n) { float* p; cudaMalloc(&p, n * 4); cudaMemset(p, 0, n * 4); return p; };
    x = get(d.hidden); y = get(d.hidden > 2048 ? d.hidden : 2048); qkv = get((d.q_heads + 2 * d.kv_heads) * 128); o = get(d.q_heads * 128);
    gu = get(2 * d.inter); h = get(d.inter); logits = get(d.vocab);
    k = get((size_t)d.layers * d.kv_heads * d.max_pos * 128); v = get((size_t)d.layers * d.kv_heads * d.max_pos * 128);
  }
  ~Run() { for (float* p : {x, y, qkv, o, gu, h, logits, k, v}) cudaFree(p); }
  size_t kv_layer() const { return (size_t)d.kv_heads * d.max_pos * 128; }
  void mv(const bf16* w, const float* in, int rows, int cols, float* out, bool round) { matvec<<<(rows * 32 + 255) / 256, 256>>>(w, in, rows, cols, out, round); }
  void token(int tok, int pos) {
    embed<<<(d.hidden + 255) / 256, 256>>>(m.embed + (size_t)tok * d.hidden, d.hidden, x);
    const int heads_n = d.q_heads + 2 * d.kv_heads;
    for (int l = 0; l < d.layers; l++) {
      const bf16* n = m.norms + (size_t)l * (2 * d.hidden + 256);
      norm<<<1, 256>>>(x, n, d.hidden, d.eps, y, mode);
      mv(m.layers[l].qkv, y, heads_n * 128, d.hidden, qkv, mode != F32);
      heads<<<heads_n, 64>>>(qkv, n + 2 * d.hidden, n + 2 * d.hidden + 128, m.rope, d.q_heads, d.kv_heads, d.eps, k + l * kv_layer(), v + l * kv_layer(), d.max_pos, pos, mode);
      attend<<<d.q_heads, 256, (pos + 1) * 4>>>(qkv, k + l * kv_layer(), v + l * kv_layer(), d.q_heads / d.kv_heads, d.max_pos, pos + 1, o, mode);
      mv(m.layers[l].o, o, d.hidden, d.q_heads * 128, y, mode == HF);
      add<<<(d.hidden + 255) / 256, 256>>>(x, y, d.hidden, mode);
      norm<<<1, 256>>>(x, n + d.hidden, d.hidden, d.eps, y, mode);
      mv(m.layers[l].gu, y, 2 * d.inter, d.hidden, gu, mode == HF);
      gate<<<(d.inter + 255) / 256, 256>>>(gu, d.inter, h, mode);
      mv(m.layers[l].down, h, d.hidden, d.inter, y, mode == HF);
      add<<<(d.hidden + 255) / 256, 256>>>(x, y, d.hidden, mode);
    }
    norm<<<1, 256>>>(x, m.norms + (size_t)d.layers * (2 * d.hidden + 256), d.hidden, d.eps, y, mode);
    mv(m.head, y, d.vocab, d.hidden, logits, mode == HF);
  }
};
}  // namespace ref

// The same on the CPU in doubles, no rounding: what the F32 reference is checked against, on a tiny shape.
struct CpuRun {
  Dims d;
  std::vector<float> embed, head, norms;
  std::vector<std::vector<float>> qkv, o, gu, down;
  std::vector<float2> rope;
  std::vector<double> k, v;
  static std::vector<double> mv(const std::vector<float>& w, const std::vector<double>& x, int rows) {
    std::vector<double> y(rows);
    int c = x.size();
    for (int r = 0; r < rows; r++) { double a = 0; for (int i = 0; i < c; i++) a += (double)w[(size_t)r * c + i] * x[i]; y[r] = a; }
    return y;
  }
  std::vector<double> norm(const std::vector<double>& x, const float* g) const {
    double ss = 0;
    for (double a : x) ss += a * a;
    double r = 1 / sqrt(ss / x.size() + d.eps);
    std::vector<double> y(x.size());
    for (size_t i = 0; i < x.size(); i++) y[i] = x[i] * r * g[i];
    return y;
  }
  std::vector<double> token(int tok, int pos) {
    k.resize((size_t)d.layers * d.kv_heads * d.max_pos * 128); v.resize(k.size());
    std::vector<double> x(embed.begin() + (size_t)tok * d.hidden, embed.begin() + (size_t)(tok + 1) * d.hidden);
    for (int l = 0; l < d.layers; l++) {
      const float* n = &norms[(size_t)l * (2 * d.hidden + 256)];
      auto a = mv(qkv[l], norm(x, n), (d.q_heads + 2 * d.kv_heads) * 128);
      auto rot = [&](double* h, const float* g) {
        std::vector<double> y = norm(std::vector<double>(h, h + 128), g);
        for (int i = 0; i < 64; i++) {
          double c = rope[pos * 64 + i].x, s = rope[pos * 64 + i].y;
          h[i] = y[i] * c - y[i + 64] * s; h[i + 64] = y[i + 64] * c + y[i] * s;
        }
      };
      for (int h = 0; h < d.q_heads; h++) rot(&a[h * 128], n + 2 * d.hidden);
      for (int h = 0; h < d.kv_heads; h++) {
        rot(&a[(d.q_heads + h) * 128], n + 2 * d.hidden + 128);
        size_t at = (((size_t)l * d.kv_heads + h) * d.max_pos + pos) * 128;
        for (int i = 0; i < 128; i++) { k[at + i] = a[(d.q_heads + h) * 128 + i]; v[at + i] = a[(d.q_heads + d.kv_heads + h) * 128 + i]; }
      }
      std::vector<double> out(d.q_heads * 128);
      for (int h = 0; h < d.q_heads; h++) {
        size_t at = ((size_t)l * d.kv_heads + h / (d.q_heads / d.kv_heads)) * d.max_pos * 128;
        std::vector<double> s(pos + 1);
        double top = -1e300, sum = 0;
        for (int p = 0; p <= pos; p++) { for (int i = 0; i < 128; i++) s[p] += a[h * 128 + i] * k[at + p * 128 + i]; s[p] /= sqrt(128.0); top = fmax(top, s[p]); }
        for (double& e : s) { e = exp(e - top); sum += e; }
        for (int p = 0; p <= pos; p++) for (int i = 0; i < 128; i++) out[h * 128 + i] += s[p] / sum * v[at + p * 128 + i];
      }
      auto y = mv(o[l], out, d.hidden);
      for (int i = 0; i < d.hidden; i++) x[i] += y[i];
      auto gv = mv(gu[l], norm(x, n + d.hidden), 2 * d.inter);
      std::vector<double> hh(d.inter);
      for (int i = 0; i < d.inter; i++) hh[i] = gv[i] / (1 + exp(-gv[i])) * gv[d.inter + i];
      y = mv(down[l], hh, d.hidden);
      for (int i = 0; i < d.hidden; i++) x[i] += y[i];
    }
    return mv(head, norm(x, &norms[(size_t)d.layers * (2 * d.hidden + 256)]), d.vocab);
  }
};
