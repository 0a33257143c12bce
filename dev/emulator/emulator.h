/* emulator.h: CUDA kernels on the CPU, for tests of correctness only. kernels/cu.h includes it where the compiler is not nvcc; it says
   by which rules kernels are written.

   An OS thread runs one block at a time; every CUDA thread is a fiber; the blocks of a grid are spread over the OpenMP threads. The
   README beside this file says what is checked, how, and what escapes. Environment:
   EMU_ORDER=fwd|rev|rand:SEED|prio:SEED   the order of threads and blocks; prio gives warps random priorities, which starves the others
   EMU_LAZY=1                              work is done when the host waits for it, and not before
   EMU_LAX=1                               lanes that have returned may be missing at barriers and warp operations */
#ifndef EMULATOR_H
#define EMULATOR_H

#include "emu_types.h"
#include "emu_engine.h"
#include "emu_device.h"
#include "emu_runtime.h"

/* ---- keywords: after every header of the system, which use some of these names ------------------------------------------------------- */

#define __global__
#define __device__
#define __host__
#define __constant__ static
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))
#define __forceinline__ inline __attribute__((always_inline))
#define __grid_constant__
/* There is no __shared__: a plain one would have no red zones. */

#define threadIdx (emu::thread->index)
#define blockIdx (emu::block->index)
#define blockDim (emu::block->size)
#define gridDim (emu::block->grid)
constexpr int warpSize = 32;

#define SHARED(T, name, dims) auto &name = emu::shared_variable<T dims>([] {})
#define SMEM_CARVER(name) emu::SharedCarver name
#define LAUNCH(kernel, grid, block, shared_bytes, stream, ...)                                                                       \
    (emu::launch({#kernel, emu::address_of(kernel), (grid), (block), size_t(shared_bytes)}, (stream),                                      \
                 [](auto... arguments) { kernel(arguments...); }, ##__VA_ARGS__),                                                    \
     cuda_launched(#kernel, __FILE__, __LINE__))

#endif
