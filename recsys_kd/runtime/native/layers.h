// Layers of a block. Lanes are candidates: x [in, B] holds a number of every candidate per row.
#pragma once
#include "abi.h"
#include "simd.h"

namespace {

// The sums of outputs 0 .. J-1 for both vectors of a block. A chain of members, not arrays: compilers keep the members
// in registers from the first to the last instruction, which they do not do for arrays. What they start from is added
// last: it is larger than most of what they sum, and would round every step of theirs.
template <int J>
struct Sums : Sums<J - 1> {
  Floats low = {}, high = {};
  RK_ALWAYS void add(Floats a, Floats b, const float* weight) {
    Sums<J - 1>::add(a, b, weight);
    low += a * weight[J - 1];
    high += b * weight[J - 1];
  }
  template <bool RELU>
  RK_ALWAYS void write(const float* init, float* y) const {
    Sums<J - 1>::template write<RELU>(init, y);
    const Floats a = low + init[J - 1], b = high + init[J - 1];
    store(y + (J - 1) * B, RELU ? positive(a) : a);
    store(y + (J - 1) * B + RK_LANES, RELU ? positive(b) : b);
  }
};

template <>
struct Sums<0> {
  RK_ALWAYS void add(Floats, Floats, const float*) {}
  template <bool RELU>
  RK_ALWAYS void write(const float*, float*) const {}
};

template <int J, bool RELU>
inline void tile(const float* x, int in, const float* weight, int64_t step, const float* init, float* y) {
  Sums<J> sums;
  for (int k = 0; k < in; k++, x += B, weight += step) sums.add(load<Floats>(x), load<Floats>(x + RK_LANES), weight);
  sums.template write<RELU>(init, y);
}

// One output alone, as several sums: one would wait for itself at every step.
template <bool RELU>
inline void single(const float* x, int in, const float* weight, int64_t step, float init, float* y) {
  constexpr int CHAINS = 4;
  for (int half = 0; half < B; half += RK_LANES) {
    Floats sum[CHAINS] = {};
    int k = 0;
    for (; k + CHAINS <= in; k += CHAINS)
      for (int i = 0; i < CHAINS; i++) sum[i] += load<Floats>(x + (k + i) * B + half) * weight[(k + i) * step];
    for (; k < in; k++) sum[0] += load<Floats>(x + k * B + half) * weight[k * step];
    const Floats all = (sum[0] + sum[1]) + (sum[2] + sum[3]) + init;
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

// The largest of x [in, B] per candidate, or 0; in two chains, since one would wait for itself at every step.
inline void largest(const float* x, int in, Floats* most) {
  Floats a = {}, b = {}, c = {}, d = {};
  for (; in > 1; in -= 2, x += 2 * B) {
    a = larger(a, load<Floats>(x));
    b = larger(b, load<Floats>(x + RK_LANES));
    c = larger(c, load<Floats>(x + B));
    d = larger(d, load<Floats>(x + B + RK_LANES));
  }
  if (in) a = larger(a, load<Floats>(x)), b = larger(b, load<Floats>(x + RK_LANES));
  most[0] = larger(a, c);
  most[1] = larger(b, d);
}

// Two numbers within 0 .. STEPS, rounded, as the halves of an integer; the first one low.
inline Ints pair(Floats low, Floats high) {
  const Floats even = low + EVEN, odd = high + ODD;
  return load<Ints>(&even) + (load<Ints>(&odd) << 16);
}

// q [in, B], two to an entry, and the step of each candidate: x = q * step, within half a step. x is not negative.
inline void to_steps(const float* x, int in, Ints* pairs, Floats* step) {
  const Floats none = {};
  Floats most[2];
  largest(x, in, most);
  const Floats low = most[0] > LEAST ? STEPS / most[0] : none, high = most[1] > LEAST ? STEPS / most[1] : none;
  step[0] = most[0] * (1.0f / STEPS);
  step[1] = most[1] * (1.0f / STEPS);
  for (; in > 1; in -= 2, x += 2 * B, pairs += 2) {
    pairs[0] = pair(load<Floats>(x) * low, load<Floats>(x + B) * low);
    pairs[1] = pair(load<Floats>(x + RK_LANES) * high, load<Floats>(x + B + RK_LANES) * high);
  }
  if (!in) return;
  pairs[0] = pair(load<Floats>(x) * low, none);
  pairs[1] = pair(load<Floats>(x + RK_LANES) * high, none);
}

// sum + x * w for both signed 16-bit halves of every lane; what leaves 32 bits is dropped.
RK_ALWAYS Ints add_products(Ints sum, Ints x, Ints w) {
#if defined(__AVX512VNNI__)
  // As an intrinsic, GCC 12 copies every sum before each product, and keeps some in memory: 9% of a request.
  asm("vpdpwssd %2, %1, %0" : "+v"(sum) : "v"(x), "v"(w));
  return sum;
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
  RK_ALWAYS void add(Ints a, Ints b, const uint32_t* weight) {
    Dots<J - 1>::add(a, b, weight);
    const Ints w = Ints{} + weight[J - 1];
    low = add_products(low, a, w);
    high = add_products(high, b, w);
  }
  // y = init + sums * step * scale, where init is y itself if MORE.
  template <bool MORE, bool RELU>
  RK_ALWAYS void write(const Floats* step, const float* scale, const float* init, float* y) const {
    Dots<J - 1>::template write<MORE, RELU>(step, scale, init, y);
    float *own = y + (J - 1) * B, *next = own + RK_LANES;
    const Floats a = __builtin_convertvector((Wholes)low, Floats) * step[0] * scale[J - 1];
    const Floats b = __builtin_convertvector((Wholes)high, Floats) * step[1] * scale[J - 1];
    const Floats x = MORE ? a + load<Floats>(own) : a + init[J - 1], z = MORE ? b + load<Floats>(next) : b + init[J - 1];
    store(own, RELU ? positive(x) : x);
    store(next, RELU ? positive(z) : z);
  }
};

template <>
struct Dots<0> {
  RK_ALWAYS void add(Ints, Ints, const uint32_t*) {}
  template <bool MORE, bool RELU>
  RK_ALWAYS void write(const Floats*, const float*, const float*, float*) const {}
};

// y [out, B] = init + sums of x [in, B] times codes, which count step (of the candidate) * scale (of the output).
struct Whole {
  int in, out;
  const uint32_t* pairs;
  const float *scale, *init;
  const Ints* x;
  const Floats* step;

  template <int J, bool MORE, bool RELU>
  inline void tile(int j, float* y) const {
    Dots<J> dots;
    const uint32_t* weight = pairs + j;
    for (int k = 0; k < in; k += 2, weight += out) dots.add(x[k], x[k + 1], weight);
    dots.template write<MORE, RELU>(step, scale + j, init + j, y + j * B);
  }

  template <bool MORE, bool RELU>
  inline void run(float* y, Fetches& fetches) const {
    int j = 0;
    for (; j + RK_TILE <= out; j += RK_TILE) {
      tile<RK_TILE, MORE, RELU>(j, y);
      fetches.some();
    }
    for (; j + 4 <= out; j += 4) tile<4, MORE, RELU>(j, y);
    for (; j < out; j++) tile<1, MORE, RELU>(j, y);
  }
};

// y [out, B] = relu(bias + scale * codes x) of a layer with coded weights; `room` holds [in + 1, RK_LANES] integers.
inline void coded_layer(const float* x, const rk_layer& layer, Ints* room, float* y, Fetches& fetches) {
  Floats step[2];
  to_steps(x, layer.in, room, step);
  Whole{layer.in, layer.out, layer.pairs, layer.scale, layer.bias, room, step}.run<false, true>(y, fetches);
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
