// Layers of a block. Lanes are candidates: x [in, B] holds a number of every candidate per row.
#pragma once
#include "abi.h"
#include "simd.h"

namespace {

// The sums of outputs 0 .. J-1 for both vectors of a block. A chain of members, not arrays: compilers keep the members
// in registers from the first to the last instruction, which they do not do for arrays.
template <int J>
struct Sums : Sums<J - 1> {
  Floats low, high;
  inline explicit Sums(const float* init) : Sums<J - 1>(init) { low = high = Floats{} + init[J - 1]; }
  inline void add(Floats a, Floats b, const float* weight) {
    Sums<J - 1>::add(a, b, weight);
    low += a * weight[J - 1];
    high += b * weight[J - 1];
  }
  template <bool RELU>
  inline void write(float* y) const {
    Sums<J - 1>::template write<RELU>(y);
    store(y + (J - 1) * B, RELU ? positive(low) : low);
    store(y + (J - 1) * B + RK_LANES, RELU ? positive(high) : high);
  }
};

template <>
struct Sums<0> {
  inline explicit Sums(const float*) {}
  inline void add(Floats, Floats, const float*) {}
  template <bool RELU>
  inline void write(float*) const {}
};

template <int J, bool RELU>
inline void tile(const float* x, int in, const float* weight, int64_t step, const float* init, float* y) {
  Sums<J> sums(init);
  for (int k = 0; k < in; k++, x += B, weight += step) sums.add(load<Floats>(x), load<Floats>(x + RK_LANES), weight);
  sums.template write<RELU>(y);
}

// One output alone, as several sums: one would wait for itself at every step.
template <bool RELU>
inline void single(const float* x, int in, const float* weight, int64_t step, float init, float* y) {
  constexpr int CHAINS = 4;
  for (int half = 0; half < B; half += RK_LANES) {
    Floats sum[CHAINS] = {Floats{} + init, {}, {}, {}};
    int k = 0;
    for (; k + CHAINS <= in; k += CHAINS)
      for (int i = 0; i < CHAINS; i++) sum[i] += load<Floats>(x + (k + i) * B + half) * weight[(k + i) * step];
    for (; k < in; k++) sum[0] += load<Floats>(x + k * B + half) * weight[k * step];
    const Floats all = (sum[0] + sum[1]) + (sum[2] + sum[3]);
    store(y + half, RELU ? positive(all) : all);
  }
}

// One block through a layer: y [out, B] = init [out] + weight [in, step] (the first `out` of each row) x [in, B].
template <bool RELU>
inline void affine(const float* x, int in, const float* weight, int64_t step, int out, const float* init, float* y,
                   Fetches& fetches) {
  int j = 0;
  for (; j + RK_TILE <= out; j += RK_TILE) {
    tile<RK_TILE, RELU>(x, in, weight + j, step, init + j, y + j * B);
    fetches.some();
  }
  for (; j + 4 <= out; j += 4) tile<4, RELU>(x, in, weight + j, step, init + j, y + j * B);
  for (; j < out; j++) single<RELU>(x, in, weight + j, step, init[j], y + j * B);
}

// Integer layers: inputs of 15 bits per candidate, weights of 8, exact sums of 32. Half the work of float32, and the same
// sums in every instruction set.
constexpr float STEPS = 32767.0f;
constexpr float LEAST = 1e-30f;      // inputs no larger than this are taken for 0: their inverse would be infinite
// Added to 0 .. STEPS they leave the nearest whole number in the low bits; below, their upper bits cancel.
constexpr float EVEN = 8388608.0f;                    // 2^23: 0x4B000000
constexpr float ODD = EVEN + 65536.0f - 0x4B00;

// The largest of x [in] per lane, or 0; in several chains, since one would wait for itself at every step.
inline Floats largest(const float* x, int in) {
  Floats most[4] = {};
  int k = 0;
  for (; k + 4 <= in; k += 4)
    for (int i = 0; i < 4; i++) most[i] = larger(most[i], load<Floats>(x + (k + i) * B));
  for (; k < in; k++) most[0] = larger(most[0], load<Floats>(x + k * B));
  return larger(larger(most[0], most[1]), larger(most[2], most[3]));
}

// Two numbers within 0 .. STEPS, rounded, as the halves of an integer; the first one low.
inline Ints pair(Floats low, Floats high) {
  const Floats even = low + EVEN, odd = high + ODD;
  return load<Ints>(&even) + (load<Ints>(&odd) << 16);
}

// q [in, B], two to an entry, and the step of each candidate: x = q * step, within half a step. x is not negative.
inline void to_steps(const float* x, int in, Ints* pairs, Floats* step) {
  for (int half = 0; half < 2; half++) {
    const float* own = x + half * RK_LANES;
    const Floats none = {}, most = largest(own, in), inverse = most > LEAST ? STEPS / most : none;
    step[half] = most * (1.0f / STEPS);
    int k = 0;
    for (; k + 2 <= in; k += 2)
      pairs[k + half] = pair(load<Floats>(own + k * B) * inverse, load<Floats>(own + (k + 1) * B) * inverse);
    if (k < in) pairs[k + half] = pair(load<Floats>(own + k * B) * inverse, none);
  }
}

// sum + x * w for both signed 16-bit halves of every lane; what leaves 32 bits is dropped.
inline Ints add_products(Ints sum, Ints x, Ints w) {
#if defined(__AVX512VNNI__)
  return (Ints)_mm512_dpwssd_epi32((__m512i)sum, (__m512i)x, (__m512i)w);
#elif defined(__AVX512BW__)
  return sum + (Ints)_mm512_madd_epi16((__m512i)x, (__m512i)w);
#elif defined(__AVX2__)
  return sum + (Ints)_mm256_madd_epi16((__m256i)x, (__m256i)w);
#elif defined(__SSE2__)
  return sum + (Ints)_mm_madd_epi16((__m128i)x, (__m128i)w);
#else
  const Wholes a = (Wholes)(x << 16) >> 16, b = (Wholes)(w << 16) >> 16, c = (Wholes)x >> 16, d = (Wholes)w >> 16;
  return sum + (Ints)(a * b) + (Ints)(c * d);  // each fits: 2^15 * 2^15
#endif
}

// As Sums, of whole numbers.
template <int J>
struct Dots : Dots<J - 1> {
  Ints low = {}, high = {};
  inline void add(Ints a, Ints b, const uint32_t* weight) {
    Dots<J - 1>::add(a, b, weight);
    const Ints w = Ints{} + weight[J - 1];
    low = add_products(low, a, w);
    high = add_products(high, b, w);
  }
  inline void write(const Floats* step, const float* scale, const float* bias, float* y) const {
    Dots<J - 1>::write(step, scale, bias, y);
    const Floats a = __builtin_convertvector((Wholes)low, Floats) * step[0] * scale[J - 1] + bias[J - 1];
    const Floats b = __builtin_convertvector((Wholes)high, Floats) * step[1] * scale[J - 1] + bias[J - 1];
    store(y + (J - 1) * B, positive(a));
    store(y + (J - 1) * B + RK_LANES, positive(b));
  }
};

template <>
struct Dots<0> {
  inline void add(Ints, Ints, const uint32_t*) {}
  inline void write(const Floats*, const float*, const float*, float*) const {}
};

template <int J>
inline void coded_tile(const Ints* x, const Floats* step, const rk_layer& layer, int j, float* y) {
  Dots<J> dots;
  const uint32_t* weight = layer.pairs + j;
  for (int k = 0; k < layer.in; k += 2, weight += layer.out) dots.add(x[k], x[k + 1], weight);
  dots.write(step, layer.scale + j, layer.bias + j, y + j * B);
}

// y [out, B] = relu(bias + scale * codes x) of a layer with coded weights; `room` holds [in + 1, RK_LANES] integers.
inline void coded_layer(const float* x, const rk_layer& layer, Ints* room, float* y, Fetches& fetches) {
  Floats step[2];
  to_steps(x, layer.in, room, step);
  int j = 0;
  for (; j + RK_TILE <= layer.out; j += RK_TILE) {
    coded_tile<RK_TILE>(room, step, layer, j, y);
    fetches.some();
  }
  for (; j + 4 <= layer.out; j += 4) coded_tile<4>(room, step, layer, j, y);
  for (; j < layer.out; j++) coded_tile<1>(room, step, layer, j, y);
}

// A block through all layers, the last of which has one output: returns where that lies. x and y are room for the widest
// layer each; x holds the first layer's input.
inline const float* through(const rk_layer* layers, int count, float* x, float* y, Ints* room, Fetches& fetches) {
  for (int i = 0; i < count; i++) {
    const rk_layer& layer = layers[i];
    if (layer.pairs) coded_layer(x, layer, room, y, fetches);
    else if (i + 1 < count) affine<true>(x, layer.in, layer.weight, layer.out, layer.out, layer.bias, y, fetches);
    else affine<false>(x, layer.in, layer.weight, layer.out, layer.out, layer.bias, y, fetches);
    float* swap = x;
    x = y;
    y = swap;
  }
  return x;
}

}  // namespace
