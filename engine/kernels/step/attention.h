// Attention of a few neighbouring queries of one head and text: scores, softmax, and the weighted values.
//
// Keys lie in blocks of 16 places, [length / 16][dim][16], values [length][dim]: no sum is taken across a vector, and
// what is loaded serves all queries. How many are taken together changes no result.

#pragma once
#include <limits>

#include "vector.h"

constexpr int64_t TOGETHER = 4;  // queries that share what is loaded

// The first query sees `seen` places, each further one a place more; the strides lead from one query to the next.
struct Attention {
  const float *query, *keys, *values;
  int64_t dim, seen;
  float scale, *score, *out;
  int64_t query_stride, score_stride, out_stride;
};

// Scores of all places, minus infinity for those that a query does not see, and the largest of each query.
template <int N>
inline void rate(const Attention& a, float* most) {
  constexpr float NEVER = -std::numeric_limits<float>::infinity();
  const float* key = a.keys;
  Vector peak[N];
  for (int n = 0; n < N; ++n) peak[n] = Vector{} + NEVER;
  for (int64_t place = 0; place < a.seen + N - 1; place += WIDTH, key += WIDTH * a.dim) {
    Vector sums[N][4] = {};
    for (int64_t i = 0; i < a.dim; i += 4)
      for (int chain = 0; chain < 4; ++chain)
        for (int n = 0; n < N; ++n)
          sums[n][chain] = fused(load(key + (i + chain) * WIDTH), a.query[n * a.query_stride + i + chain], sums[n][chain]);
    for (int n = 0; n < N; ++n) {
      Vector found = ((sums[n][0] + sums[n][1]) + (sums[n][2] + sums[n][3])) * a.scale;
      found = LANES + int32_t(place) < int32_t(a.seen + n) ? found : Vector{} + NEVER;
      store(a.score + n * a.score_stride + place, found);
      peak[n] = larger(peak[n], found);
    }
  }
  for (int n = 0; n < N; ++n) most[n] = largest(peak[n]);
}

// Scores become weights, and their sum is returned.
inline float soften(float* score, int64_t places, float most) {
  Vector sums = {};
  for (int64_t place = 0; place < places; place += WIDTH) {
    const Vector rest = load(score + place) - most;
    const Vector weight = rest < -87.f ? Vector{} : exponential(rest);
    store(score + place, weight);
    sums += weight;
  }
  return total(sums);
}

// `V` vectors of the weighted values, from number `part` on.
template <int N, int V>
inline void weigh(const Attention& a, int64_t part, const float* sum) {
  Vector sums[N][V] = {};
  const float* value = a.values + part;
  for (int64_t place = 0; place < a.seen + N - 1; ++place, value += a.dim)
    for (int v = 0; v < V; ++v)
      for (int n = 0; n < N; ++n)
        sums[n][v] = fused(load(value + v * WIDTH), a.score[n * a.score_stride + place], sums[n][v]);
  for (int n = 0; n < N; ++n)
    for (int v = 0; v < V; ++v) store(a.out + n * a.out_stride + part + v * WIDTH, sums[n][v] / sum[n]);
}

template <int N>
inline void attend(const Attention& a) {
  float most[N], sum[N];
  rate<N>(a, most);
  for (int n = 0; n < N; ++n) sum[n] = soften(a.score + n * a.score_stride, a.seen + N - 1, most[n]);
  int64_t part = 0;
  for (; part + 4 * WIDTH <= a.dim; part += 4 * WIDTH) weigh<N, 4>(a, part, sum);
  for (; part < a.dim; part += WIDTH) weigh<N, 1>(a, part, sum);
}
