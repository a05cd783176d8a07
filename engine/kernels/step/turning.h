// A query or a key of one head: scaled by a norm of its own, and turned by its place (RoPE, arXiv:2104.09864).

#pragma once
#include <cmath>

#include "vector.h"

inline void scale(float* x, const float* weight, int64_t dim, float epsilon) {
  float sum = 0;
  for (int64_t i = 0; i < dim; ++i) sum += x[i] * x[i];
  const float inverse = 1.f / std::sqrt(sum / dim + epsilon);
  for (int64_t i = 0; i < dim; ++i) x[i] *= inverse * weight[i];
}

inline void rotate(float* x, const float* cosine, const float* sine, int64_t half) {
  for (int64_t i = 0; i < half; ++i) {
    const float a = x[i], b = x[i + half];
    x[i] = a * cosine[i] - b * sine[i];
    x[i + half] = b * cosine[i] + a * sine[i];
  }
}
