// Which instruction sets this processor has; Python picks one and calls its functions by name.
#include "abi.h"

RK_EXPORT int rk_abi() { return RK_ABI; }

// 3: AVX-512 with VNNI, 2: AVX-512 (F, BW, VL, DQ), 1: AVX2 with FMA, 0: what every processor of the platform has.
RK_EXPORT int rk_level() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
      __builtin_cpu_supports("avx512dq"))
    return __builtin_cpu_supports("avx512vnni") ? 3 : 2;
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return 1;
#endif
  return 0;
}
