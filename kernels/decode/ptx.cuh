// The instructions the compiler has no name for.
#pragma once
#include "config.cuh"
namespace ptx {
__device__ __forceinline__ uint32_t smem(const void* p) { return (uint32_t)__cvta_generic_to_shared(p); }
__device__ __forceinline__ void mbar_init(uint64_t* m, int n) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0],%1;" ::"r"(smem(m)), "r"(n) : "memory");
}
__device__ __forceinline__ void mbar_expect(uint64_t* m, uint32_t bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _,[%0],%1;" ::"r"(smem(m)), "r"(bytes) : "memory");
}
__device__ __forceinline__ void mbar_arrive(uint64_t* m) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _,[%0];" ::"r"(smem(m)) : "memory");
}
// Waits on the chip for a moment where it can (sm_90 on), else only looks.
#if MK_BULK
#define MK_MBAR_TRY "mbarrier.try_wait.parity.shared::cta.b64"
#else
#define MK_MBAR_TRY "mbarrier.test_wait.parity.shared::cta.b64"
#endif
__device__ __forceinline__ bool mbar_try(uint64_t* m, uint32_t parity) {
  uint32_t ok;
  asm volatile("{\n.reg .pred p;\n" MK_MBAR_TRY " p,[%1],%2;\nselp.u32 %0,1,0,p;\n}"
               : "=r"(ok) : "r"(smem(m)), "r"(parity) : "memory");
  return ok;
}
// Up to so many tries; false if that was not enough.
__device__ __forceinline__ bool mbar_wait(uint32_t m, uint32_t parity, int tries) {
  asm volatile("{\n.reg .pred p;\nW%=: " MK_MBAR_TRY " p,[%1],%2;\n@p bra D%=;\nsub.s32 %0,%0,1;\n"
               "setp.gt.s32 p,%0,0;\n@p bra W%=;\nD%=:\n}" : "+r"(tries) : "r"(m), "r"(parity) : "memory");
  return tries > 0;
}
#if MK_BULK
__device__ __forceinline__ void bulk_load(void* dst, const void* src, uint32_t bytes, uint64_t* m, uint64_t policy) {
  asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint [%0],[%1],%2,[%3],%4;"
               ::"r"(smem(dst)), "l"(src), "r"(bytes), "r"(smem(m)), "l"(policy) : "memory");
}
#else
__device__ __forceinline__ void load16(uint32_t dst, const void* src, uint64_t policy) {
  asm volatile("cp.async.cg.shared.global.L2::cache_hint [%0],[%1],16,%2;" ::"r"(dst), "l"(src), "l"(policy) : "memory");
}
// This thread's copies so far will arrive for it, each time once.
__device__ __forceinline__ void arrive_when_loaded(uint64_t* m) {
  asm volatile("cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%0];" ::"r"(smem(m)) : "memory");
}
#endif
__device__ __forceinline__ uint64_t evict_first() {
  uint64_t p;
  asm volatile("createpolicy.fractional.L2::evict_first.b64 %0;" : "=l"(p));
  return p;
}
// Exchange accesses go to L2, never to L1.
__device__ __forceinline__ uint4 ld4(const void* p) {
  uint4 v;
  asm volatile("ld.relaxed.gpu.global.v4.u32 {%0,%1,%2,%3},[%4];" : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "l"(p) : "memory");
  return v;
}
__device__ __forceinline__ uint32_t ld1(const void* p) {
  uint32_t v;
  asm volatile("ld.relaxed.gpu.global.u32 %0,[%1];" : "=r"(v) : "l"(p) : "memory");
  return v;
}
__device__ __forceinline__ void st1(void* p, uint32_t v) {
  asm volatile("st.relaxed.gpu.global.u32 [%0],%1;" ::"l"(p), "r"(v) : "memory");
}
__device__ __forceinline__ void st2(void* p, uint32_t a, uint32_t b) {
  asm volatile("st.relaxed.gpu.global.v2.u32 [%0],{%1,%2};" ::"l"(p), "r"(a), "r"(b) : "memory");
}
__device__ __forceinline__ void mma(float* c, uint4 a, uint32_t b0, uint32_t b1) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},{%0,%1,%2,%3};"
               : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3]) : "r"(a.x), "r"(a.y), "r"(a.z), "r"(a.w), "r"(b0), "r"(b1));
}
__device__ __forceinline__ float exp2(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0,%1;" : "=f"(y) : "f"(x));
  return y;
}
__device__ __forceinline__ uint64_t nanoseconds() {
  uint64_t t;
  asm volatile("mov.u64 %0,%%globaltimer;" : "=l"(t));
  return t;
}
// All consumer warps; the producer takes no part.
__device__ __forceinline__ void block_sync() { asm volatile("bar.sync 1,512;" ::: "memory"); }
// After it, where one warp reads what all have left and sends it on: the others wait until it has read, since the weights
// they read next would keep the shared memory busy.
__device__ __forceinline__ void release_others() { asm volatile("bar.arrive 2,512;" ::: "memory"); }
__device__ __forceinline__ void await_release() { asm volatile("bar.sync 2,512;" ::: "memory"); }
}  // namespace ptx

__device__ __forceinline__ float bf_lo(uint32_t u) { return __uint_as_float(u << 16); }
__device__ __forceinline__ float bf_hi(uint32_t u) { return __uint_as_float(u & 0xffff0000u); }
// Two products, each rounded once: the same as in f32 and then to bf16.
__device__ __forceinline__ uint32_t mul2(uint32_t a, uint32_t b) {
  __nv_bfloat162 v = __hmul2(*(__nv_bfloat162*)&a, *(__nv_bfloat162*)&b);
  return *(uint32_t*)&v;
}
__device__ __forceinline__ uint32_t pack2(float lo, float hi) {
  __nv_bfloat162 v = __floats2bfloat162_rn(lo, hi);
  return *(uint32_t*)&v;
}
