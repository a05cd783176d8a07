// Products of a few inputs with the rows of a weight matrix, which is read once, from its beginning to its end.
//
// Rows are packed in blocks of 32, so that two vectors hold one column of them: no sum is ever taken across a vector.

#pragma once
#include <algorithm>
#include <vector>

#include "vector.h"

enum Kind : int64_t { FLOAT32, BFLOAT16, INT8, INT4 };

constexpr int64_t BLOCK = 32, GROUP = 32;

// Weights [rows, depth], packed in blocks of 32 rows:
//   FLOAT32   [rows / 32][depth][32]
//   BFLOAT16  [rows / 32][depth / 2][32][2]
//   INT8      [rows / 32][depth / 4][32][4]; `scales` and `sums` (of the integers) for each row
//   INT4      [rows / 32][depth / 32][4][32][4], where a byte holds column c + 16 above column c, and 8 was added to
//             each; `scales` are bfloat16, [rows / 32][depth / 32][16][2] for rows r and r + 16
struct Matrix {
  int64_t kind, rows, depth;
  const void *data, *scales;
  const int32_t* sums;

  bool whole() const { return kind == INT8 || kind == INT4; }

  // Ask for the beginning of a block: it comes while its reader waits for other threads and prepares its inputs.
  void fetch(int64_t block) const {
    constexpr int64_t BITS[] = {32, 16, 8, 4}, BYTES = 1 << 12, LINE = 64;
    const char* from = static_cast<const char*>(data) + block * BLOCK * depth * BITS[kind] / 8;
    for (int64_t place = 0; place < BYTES; place += LINE) __builtin_prefetch(from + place);
  }

  float at(int64_t row, int64_t column) const {  // of FLOAT32 and BFLOAT16
    const int64_t block = row / BLOCK * BLOCK * depth, lane = row % BLOCK;
    if (kind == FLOAT32) return static_cast<const float*>(data)[block + column * BLOCK + lane];
    const uint32_t half = static_cast<const uint16_t*>(data)[block + (column & ~1) * BLOCK + lane * 2 + (column & 1)];
    const uint32_t wide = half << 16;
    float value;
    std::memcpy(&value, &wide, 4);
    return value;
  }
};

// Inputs [tokens, depth] as floats; as bfloat16 numbers in `shorts`; and as integers of 16 bits in two parts, or of 8
// bits in `high` alone.
// With INT8 weights the parts are unsigned and 128 was added to the high one; with INT4 weights both are signed.
struct Input {
  std::vector<float> values, scales;
  std::vector<int16_t> shorts;
  std::vector<int8_t> high, low;
  std::vector<int32_t> groups;  // sums of the integers in each group, [tokens][depth / 32]

  void reserve(int64_t tokens, int64_t widest) {
    values.resize(tokens * widest);
    shorts.resize(tokens * widest);
    high.resize(tokens * widest);
    low.resize(tokens * widest);
    scales.resize(tokens);
    groups.resize(tokens * widest / GROUP);
  }

  void round(int64_t token, const Matrix& reader, bool fine) {
    if (!reader.whole()) return fine ? void() : shorten(token, reader.depth);
    const int64_t depth = reader.depth;
    const float* row = &values[token * depth];
    Vector most = {};
    for (int64_t i = 0; i < depth; i += WIDTH) most = larger(most, magnitude(load(row + i)));
    const float peak = largest(most), top = fine ? 32639.f : 127.f;
    scales[token] = peak / top;
    const float factor = peak > 0 ? top / peak : 0.f;
    for (int64_t i = 0; i < depth; i += GROUP) {
      Whole sum = {};
      for (int64_t half = i; half < i + GROUP; half += WIDTH) {
        const Whole q = __builtin_convertvector(nearest(load(row + half) * factor), Whole);
        split(q, token * depth + half, reader.kind == INT4, fine);
        sum += q;
      }
      groups[(token * depth + i) / GROUP] = total(sum);
    }
  }

 private:
  void shorten(int64_t token, int64_t depth) {
    typedef int16_t Shorts __attribute__((vector_size(32), aligned(2)));
    for (int64_t i = token * depth; i < (token + 1) * depth; i += WIDTH)
      *reinterpret_cast<Shorts*>(&shorts[i]) = __builtin_convertvector(halves(load(&values[i])), Shorts);
  }

  void split(Whole q, int64_t at, bool is_signed, bool fine) {
    typedef int8_t Bytes __attribute__((vector_size(16), aligned(1)));
    const Whole top = !fine ? q : is_signed ? (q + 128) >> 8 : q >> 8;
    const Whole rest = q - (top << 8);
    *reinterpret_cast<Bytes*>(&high[at]) = __builtin_convertvector(is_signed ? top : top + 128, Bytes);
    *reinterpret_cast<Bytes*>(&low[at]) = __builtin_convertvector(rest, Bytes);
  }
};

// Two lines of weights, which are read once and not again, are asked for early: a step of one token is 2 to 8 % shorter
// than where the processor alone looks ahead, one of eight in bfloat16 a third, a prompt 6 to 11 %.
inline void ask(const void* weights) {
  constexpr int64_t AHEAD = 1 << 12, LINE = 64;
  const char* at = static_cast<const char*>(weights) + AHEAD;
  __builtin_prefetch(at, 0, 0);
  __builtin_prefetch(at + LINE, 0, 0);
}

inline Whole four(const void* from) {  // four neighbouring bytes in each lane
  int32_t packed;
  std::memcpy(&packed, from, 4);
  return Whole{} + packed;
}

// Each kind fills y [TOKENS][2] for one block of 32 rows, from input `token` on. Sums are the function's own until the
// end: what others might see is moved about in every round.
template <int TOKENS>
inline void block_float32(const Matrix& m, const Input& x, int64_t token, int64_t block, Vector (*y)[2]) {
  Vector sums[TOKENS][2] = {};
  const float* w = static_cast<const float*>(m.data) + block * BLOCK * m.depth;
  const float* in = &x.values[token * m.depth];
  for (int64_t k = 0; k < m.depth; ++k, w += BLOCK) {
    ask(w);
    for (int t = 0; t < TOKENS; ++t) {
      const float value = in[t * m.depth + k];
      sums[t][0] = fused(load(w), value, sums[t][0]);
      sums[t][1] = fused(load(w + WIDTH), value, sums[t][1]);
    }
  }
  std::copy_n(sums[0], 2 * TOKENS, y[0]);
}

template <int TOKENS>
inline void block_bfloat16(const Matrix& m, const Input& x, int64_t token, int64_t block, Vector (*y)[2]) {
  Vector sums[TOKENS][2] = {};
  const uint16_t* w = static_cast<const uint16_t*>(m.data) + block * BLOCK * m.depth;
  const float* in = &x.values[token * m.depth];
  const Whole upper = Whole{} + int32_t(0xffff0000);
  for (int64_t k = 0; k < m.depth; k += 2, w += 2 * BLOCK) {
    const Whole first = raw(w), second = raw(w + BLOCK);
    ask(w);
    const Vector even[2] = {bits(first << 16), bits(second << 16)}, odd[2] = {bits(first & upper), bits(second & upper)};
    for (int t = 0; t < TOKENS; ++t)
      for (int half = 0; half < 2; ++half) {
        sums[t][half] = fused(even[half], in[t * m.depth + k], sums[t][half]);
        sums[t][half] = fused(odd[half], in[t * m.depth + k + 1], sums[t][half]);
      }
  }
  std::copy_n(sums[0], 2 * TOKENS, y[0]);
}

template <int TOKENS>
inline void block_pairs(const Matrix& m, const Input& x, int64_t token, int64_t block, Vector (*y)[2]) {
  Vector sums[TOKENS][2] = {};
  const uint16_t* w = static_cast<const uint16_t*>(m.data) + block * BLOCK * m.depth;
  const int16_t* in = &x.shorts[token * m.depth];
  for (int64_t k = 0; k < m.depth; k += 2, w += 2 * BLOCK) {
    const Whole value[2] = {raw(w), raw(w + BLOCK)};
    ask(w);
    for (int t = 0; t < TOKENS; ++t)
      for (int half = 0; half < 2; ++half)
        sums[t][half] = pairs(sums[t][half], four(&in[t * m.depth + k]), value[half]);
  }
  std::copy_n(sums[0], 2 * TOKENS, y[0]);
}

template <int TOKENS, bool FINE>
inline void block_int8(const Matrix& m, const Input& x, int64_t token, int64_t block, Vector (*y)[2]) {
  const int8_t* w = static_cast<const int8_t*>(m.data) + block * BLOCK * m.depth;
  Whole high[TOKENS][2] = {}, low[TOKENS][2] = {};
  const auto add = [&](int64_t k) {
    const Whole value[2] = {raw(w + k * BLOCK), raw(w + k * BLOCK + 64)};
    ask(w + k * BLOCK);
    for (int t = 0; t < TOKENS; ++t)
      for (int half = 0; half < 2; ++half) {
        high[t][half] = bytes(high[t][half], four(&x.high[(token + t) * m.depth + k]), value[half]);
        if (FINE) low[t][half] = bytes(low[t][half], four(&x.low[(token + t) * m.depth + k]), value[half]);
      }
  };
  constexpr int UNROLLED = FINE ? 1 : 4;  // a step is 3 to 7 % shorter; fine ones become longer
  for (int64_t k = 0; k < m.depth; k += 4 * UNROLLED)
    for (int part = 0; part < UNROLLED; ++part) add(k + 4 * part);
  const float* scales = static_cast<const float*>(m.scales);
  for (int half = 0; half < 2; ++half) {
    const int64_t row = block * BLOCK + half * WIDTH;
    for (int t = 0; t < TOKENS; ++t) {
      const Vector upper = floats(high[t][half] - 128 * load(m.sums + row));
      y[t][half] = (FINE ? fused(upper, 256.f, floats(low[t][half])) : upper) * load(scales + row) * x.scales[token + t];
    }
  }
}

template <int TOKENS, bool FINE>
inline void block_int4(const Matrix& m, const Input& x, int64_t token, int64_t block, Vector (*y)[2]) {
  const int64_t groups = m.depth / GROUP;
  const uint8_t* w = static_cast<const uint8_t*>(m.data) + block * BLOCK * m.depth / 2;
  const uint16_t* scale = static_cast<const uint16_t*>(m.scales) + block * groups * BLOCK;
  const Whole lower = Whole{} + 0x0f0f0f0f, upper = Whole{} + int32_t(0xffff0000);
  for (int64_t group = 0; group < groups; ++group, scale += BLOCK) {
    Whole high[TOKENS][2] = {}, low[TOKENS][2] = {};
    for (int64_t part = 0; part < 4; ++part, w += 128) {
      ask(w);
      for (int half = 0; half < 2; ++half) {
        const Whole value = raw(w + half * 64), first = value & lower, second = (value >> 4) & lower;
        for (int t = 0; t < TOKENS; ++t) {
          const int64_t at = (token + t) * m.depth + group * GROUP + part * 4;
          high[t][half] = bytes(bytes(high[t][half], first, four(&x.high[at])), second, four(&x.high[at + 16]));
          if (FINE) low[t][half] = bytes(bytes(low[t][half], first, four(&x.low[at])), second, four(&x.low[at + 16]));
        }
      }
    }
    const Vector scales[2] = {bits(raw(scale) << 16), bits(raw(scale) & upper)};
    for (int t = 0; t < TOKENS; ++t)
      for (int half = 0; half < 2; ++half) {
        const Whole sum = FINE ? (high[t][half] << 8) + low[t][half] : high[t][half];
        const Vector found = floats(sum - 8 * x.groups[(token + t) * groups + group]);
        y[t][half] = fused(scales[half], found, y[t][half]);
      }
  }
  for (int t = 0; t < TOKENS; ++t)
    for (int half = 0; half < 2; ++half) y[t][half] *= x.scales[token + t];
}

template <int TOKENS, typename Put>
inline void block_of(const Matrix& m, const Input& x, bool fine, int64_t token, int64_t block, Put put) {
  Vector y[TOKENS][2] = {};
  if (m.kind == FLOAT32) block_float32<TOKENS>(m, x, token, block, y);
  if (m.kind == BFLOAT16)
    fine || !PAIRS ? block_bfloat16<TOKENS>(m, x, token, block, y) : block_pairs<TOKENS>(m, x, token, block, y);
  if (m.kind == INT8) fine ? block_int8<TOKENS, true>(m, x, token, block, y) : block_int8<TOKENS, false>(m, x, token, block, y);
  if (m.kind == INT4) fine ? block_int4<TOKENS, true>(m, x, token, block, y) : block_int4<TOKENS, false>(m, x, token, block, y);
  for (int t = 0; t < TOKENS; ++t) put(token + t, block * BLOCK, y[t][0], y[t][1]);
}

struct Span {
  int64_t first, last;
};

// y = W x for some blocks and tokens: put(token, first row, sums of sixteen rows, those of the next sixteen). A block
// stays in a cache for all tokens, and as many of them are multiplied at once as sums fit into a processor's registers.
template <typename Put>
inline void product(const Matrix& m, const Input& x, bool fine, Span tokens, Span blocks, Put put) {
  const bool wide = m.whole() && (fine || m.kind == INT4);
  for (int64_t block = blocks.first; block < blocks.last; ++block) {
    int64_t token = tokens.first;
    for (; !wide && token + 8 <= tokens.last; token += 8) block_of<8>(m, x, fine, token, block, put);
    for (; token + 4 <= tokens.last; token += 4) block_of<4>(m, x, fine, token, block, put);
    for (; token + 2 <= tokens.last; token += 2) block_of<2>(m, x, fine, token, block, put);
    for (; token < tokens.last; ++token) block_of<1>(m, x, fine, token, block, put);
  }
}
