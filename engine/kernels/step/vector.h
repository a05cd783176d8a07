// Sixteen numbers at a time, in the compiler's own vector types: any processor runs them, wide ones run them fast.

#pragma once
#include <cstdint>
#include <cstring>
#include <initializer_list>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

constexpr int64_t WIDTH = 16;
typedef float Vector __attribute__((vector_size(64), aligned(4)));
typedef int32_t Whole __attribute__((vector_size(64), aligned(4)));

constexpr Whole LANES = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};

inline Vector load(const float* from) { return *reinterpret_cast<const Vector*>(from); }
inline void store(float* to, Vector value) { *reinterpret_cast<Vector*>(to) = value; }
inline Whole load(const int32_t* from) { return *reinterpret_cast<const Whole*>(from); }
inline Whole raw(const void* from) { return *reinterpret_cast<const Whole*>(from); }
inline Vector floats(Whole value) { return __builtin_convertvector(value, Vector); }
inline Vector bits(Whole value) {
  Vector same;
  std::memcpy(&same, &value, sizeof same);
  return same;
}

// a * b + c, rounded once. The compiler is told to fuse nothing by itself: it would choose anew for each number of
// tokens, and what a text says would depend on how many are read together.
inline Vector fused(Vector a, Vector b, Vector c) {
#if defined(__AVX512F__)
  return (Vector)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif defined(__FMA__)
  typedef float Half __attribute__((vector_size(32)));
  Half x[2], y[2], z[2];
  std::memcpy(x, &a, sizeof a), std::memcpy(y, &b, sizeof b), std::memcpy(z, &c, sizeof c);
  for (int half = 0; half < 2; ++half) z[half] = (Half)_mm256_fmadd_ps((__m256)x[half], (__m256)y[half], (__m256)z[half]);
  std::memcpy(&c, z, sizeof c);
  return c;
#else
  return a * b + c;
#endif
}
inline Vector fused(Vector a, float b, Vector c) { return fused(a, Vector{} + b, c); }

inline float total(Vector v) {
#if defined(__AVX512F__)
  return _mm512_reduce_add_ps((__m512)v);
#else
  float sum = 0;
  for (int64_t lane = 0; lane < WIDTH; ++lane) sum += v[lane];
  return sum;
#endif
}

inline int32_t total(Whole v) {
#if defined(__AVX512F__)
  return _mm512_reduce_add_epi32((__m512i)v);
#else
  int32_t sum = 0;
  for (int64_t lane = 0; lane < WIDTH; ++lane) sum += v[lane];
  return sum;
#endif
}

inline float largest(Vector v) {
#if defined(__AVX512F__)
  return _mm512_reduce_max_ps((__m512)v);
#else
  float most = v[0];
  for (int64_t lane = 1; lane < WIDTH; ++lane) most = v[lane] > most ? v[lane] : most;
  return most;
#endif
}

inline Vector magnitude(Vector v) { return v < 0.f ? -v : v; }
inline Vector larger(Vector a, Vector b) { return a > b ? a : b; }

// The nearest integers, for numbers below 2^22.
inline Vector nearest(Vector v) {
  constexpr float ROUNDING = 12582912.f;
  return (v + ROUNDING) - ROUNDING;
}

// e^x: 2^n times a polynomial in the rest (Cephes; error below 2e-7 of the value).
inline Vector exponential(Vector x) {
  constexpr float LOG2E = 1.44269504f, HIGH = 0.693359375f, LOW = -2.12194440e-4f;
  x = larger(Vector{} - 87.f, x > 88.f ? Vector{} + 88.f : x);
  const Vector power = nearest(x * LOG2E);
  const Vector rest = fused(power, -LOW, fused(power, -HIGH, x));
  Vector sum = Vector{} + 1.9875691500e-4f;
  for (float factor : {1.3981999507e-3f, 8.3334519073e-3f, 4.1665795894e-2f, 1.6666665459e-1f, 5.0000001201e-1f})
    sum = fused(sum, rest, Vector{} + factor);
  sum = fused(sum * rest, rest, rest) + 1.f;
  return sum * bits((__builtin_convertvector(power, Whole) + 127) << 23);
}

#if defined(__AVX512BF16__)
constexpr bool PAIRS = true;
#else
constexpr bool PAIRS = false;
#endif

// sums + the products of two bfloat16 numbers with two others, in each of 16 lanes; only where there are PAIRS.
inline Vector pairs(Vector sums, Whole two, Whole others) {
#if defined(__AVX512BF16__)
  return (Vector)_mm512_dpbf16_ps((__m512)sums, (__m512bh)two, (__m512bh)others);
#else
  return sums;
#endif
}

// The nearest bfloat16 numbers, those between two going to the even one.
inline Whole halves(Vector v) {
  Whole same;
  std::memcpy(&same, &v, sizeof same);
  return (same + 0x7fff + ((same >> 16) & 1)) >> 16;
}

// sums + the products of four unsigned bytes with four signed ones, in each of 16 lanes.
inline Whole bytes(Whole sums, Whole unsigned4, Whole signed4) {
#if defined(__AVX512VNNI__)
  return (Whole)_mm512_dpbusd_epi32((__m512i)sums, (__m512i)unsigned4, (__m512i)signed4);
#else
  typedef int16_t Short __attribute__((vector_size(64)));
  for (int part = 0; part < 4; ++part)  // one byte of each lane at a time: shifts that every processor has
    sums += ((unsigned4 >> (8 * part)) & 255) * ((signed4 << (24 - 8 * part)) >> 24);
  return sums;
#endif
}
