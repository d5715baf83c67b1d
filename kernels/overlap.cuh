// Launches that overlap: a kernel may start while the one before it on its stream still runs (programmatic dependent launch,
// from compute capability 9.0 on, where the host asks for it). It waits itself before it touches what that one writes.
#pragma once

// The next kernel may start now; and this one goes on when all before it is done and visible. Weights need no waiting for.
__device__ __forceinline__ void let_next_start() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}
__device__ __forceinline__ void await_last() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}
__device__ __forceinline__ void take_turns() { let_next_start(); await_last(); }
