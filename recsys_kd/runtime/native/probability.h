// Logits -> probabilities.
#pragma once
#include "simd.h"

namespace {

// 1 / (1 + exp(-x)) for a block, in place; relative error below 3e-7. exp by powers of two and a polynomial on
// [-ln 2 / 2, ln 2 / 2]. Source: Cephes, expf.
inline void probabilities(float* block) {
  constexpr float LARGEST = 80.0f;  // beyond, exp would leave float32; a probability of 1e-35 is 0 to every use
  constexpr float ROUND = 12582912.0f;  // 1.5 * 2^23: adding it leaves the nearest whole number in the low bits
  for (int c = 0; c < B; c += RK_LANES) {
    Floats x = -load<Floats>(block + c);
    x = x > LARGEST ? Floats{} + LARGEST : x;  // comparisons that let NaN through
    x = x < -LARGEST ? Floats{} - LARGEST : x;
    const Floats shifted = x * 1.44269504088896341f + ROUND, whole = shifted - ROUND;
    const Floats r = x - whole * 0.693359375f + whole * 2.12194440e-4f;
    Floats p = r * 1.9875691500e-4f + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * (r * r) + r + 1.0f;
    const Ints power = (load<Ints>(&shifted) + 127) << 23;  // 2^whole: what lies above its low bits is shifted out
    const Floats e = p * load<Floats>(&power);
    store(block + c, 1.0f / (1.0f + e));
  }
}

}  // namespace
