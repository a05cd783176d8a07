// Two loop nests whose tiles the caller chooses: a matrix product and an attention, each with its untiled twin.
//
// A tile changes only the order of the work, so that what is needed again is still in a cache. The innermost
// loops are the same with and without tiles; all matrices are float32 and row-major.

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <memory>
#include <thread>
#include <vector>

namespace {

constexpr int64_t WIDTH = 16;
typedef float Vector __attribute__((vector_size(WIDTH * sizeof(float)), aligned(sizeof(float))));
typedef int32_t Whole __attribute__((vector_size(WIDTH * sizeof(int32_t))));

inline Vector load(const float* from) { return *reinterpret_cast<const Vector*>(from); }
inline void store(float* to, Vector value) { *reinterpret_cast<Vector*>(to) = value; }

inline float total(Vector value) {
  float sum = 0;
  for (int64_t lane = 0; lane < WIDTH; ++lane) sum += value[lane];
  return sum;
}

// Run work(0) ... work(count - 1), each once, on `threads` threads that take the next one when they are free.
template <typename Work>
void share(int64_t count, int64_t threads, Work work) {
  std::atomic<int64_t> next{0};
  auto take = [&] {
    for (int64_t job; (job = next++) < count;) work(job);
  };
  std::vector<std::thread> others;
  for (int64_t number = 1; number < std::min(threads, count); ++number) others.emplace_back(take);
  take();
  for (auto& other : others) other.join();
}

// The dot products of one row of W with TOKENS rows of X: each weight is loaded once and used TOKENS times.
template <int TOKENS>
inline void dots(const float* x, const float* w, float* y, int64_t depth, int64_t rows) {
  constexpr int64_t CHAINS = TOKENS < 4 ? 4 / TOKENS : 1;  // sums that do not wait for each other
  Vector sums[TOKENS][CHAINS] = {};
  int64_t k = 0;
  for (; k + CHAINS * WIDTH <= depth; k += CHAINS * WIDTH)
    for (int64_t chain = 0; chain < CHAINS; ++chain) {
      const Vector weights = load(w + k + chain * WIDTH);
      for (int token = 0; token < TOKENS; ++token)
        sums[token][chain] += weights * load(x + token * depth + k + chain * WIDTH);
    }
  for (int token = 0; token < TOKENS; ++token) {
    float sum = 0;
    for (int64_t chain = 0; chain < CHAINS; ++chain) sum += total(sums[token][chain]);
    for (int64_t rest = k; rest < depth; ++rest) sum += w[rest] * x[token * depth + rest];
    y[token * rows] = sum;
  }
}

template <int TOKENS>
void strip(const float* x, const float* w, float* y, int64_t tokens, int64_t rows, int64_t depth, int64_t first,
           int64_t last) {
  int64_t token = 0;
  for (; token + TOKENS <= tokens; token += TOKENS)
    for (int64_t row = first; row < last; ++row)
      dots<TOKENS>(x + token * depth, w + row * depth, y + token * rows + row, depth, rows);
  for (; token < tokens; ++token)
    for (int64_t row = first; row < last; ++row)
      dots<1>(x + token * depth, w + row * depth, y + token * rows + row, depth, rows);
}

// e^x for x <= 0: 2^n times a polynomial in the rest (Cephes; error below 2e-7 of the value).
inline Vector exponential(Vector x) {
  constexpr float LOG2E = 1.44269504f, LN2_HIGH = 0.693359375f, LN2_LOW = -2.12194440e-4f, ROUNDING = 12582912.f;
  x = x < -87.f ? Vector{} - 87.f : x;
  const Vector power = (x * LOG2E + ROUNDING) - ROUNDING;
  const Vector rest = x - power * LN2_HIGH - power * LN2_LOW;
  Vector series = rest * 1.9875691500e-4f + 1.3981999507e-3f;
  for (float term : {8.3334519073e-3f, 4.1665795894e-2f, 1.6666665459e-1f, 5.0000001201e-1f}) series = series * rest + term;
  const Whole exponent = (__builtin_convertvector(power, Whole) + 127) << 23;
  return (series * rest * rest + rest + 1.f) * (Vector)exponent;
}

constexpr int64_t GROUP = 4;  // queries that share each key and value while it is in a register

inline int64_t padded(int64_t count, int64_t step) { return (count + step - 1) / step * step; }

struct Problem {
  const float *q, *k, *v;
  float* out;
  int64_t heads, sharing, context, dim;  // `sharing` heads of queries use the same keys and values
  const float* keys(int64_t head) const { return k + head / sharing * context * dim; }
  const float* values(int64_t head) const { return v + head / sharing * context * dim; }
};

// Queries first ... last - 1 of a head, scaled, padded with zeros to whole groups.
void gather(const Problem& p, int64_t head, int64_t first, int64_t last, float* to) {
  const float scale = 1.f / std::sqrt(static_cast<float>(p.dim));
  const float* from = p.q + (head * p.context + first) * p.dim;
  const int64_t count = (last - first) * p.dim;
  for (int64_t place = 0; place < count; ++place) to[place] = from[place] * scale;
  std::fill(to + count, to + padded(last - first, GROUP) * p.dim, 0.f);
}

// Keys first ... last - 1 turned on their side, so that neighbouring keys are neighbours in memory: [dim, span].
void turn(const float* keys, int64_t first, int64_t last, int64_t dim, int64_t span, float* to) {
  for (int64_t d = 0; d < dim; ++d) {
    for (int64_t key = first; key < last; ++key) to[d * span + key - first] = keys[key * dim + d];
    std::fill(to + d * span + last - first, to + (d + 1) * span, 0.f);
  }
}

// Scores of one group of queries with the first `count` turned keys: scores[GROUP, span].
void score(const float* queries, const float* turned, int64_t count, int64_t dim, int64_t span, float* scores) {
  for (int64_t key = 0; key < count; key += 2 * WIDTH) {
    Vector sums[GROUP][2] = {};
    for (int64_t d = 0; d < dim; ++d) {
      const Vector near = load(turned + d * span + key), far = load(turned + d * span + key + WIDTH);
      for (int64_t row = 0; row < GROUP; ++row) {
        sums[row][0] += queries[row * dim + d] * near;
        sums[row][1] += queries[row * dim + d] * far;
      }
    }
    for (int64_t row = 0; row < GROUP; ++row) {
      store(scores + row * span + key, sums[row][0]);
      store(scores + row * span + key + WIDTH, sums[row][1]);
    }
  }
}

// Add a group's weights times `count` values to its sums [GROUP, dim]; keys and values run in parallel.
template <int COLUMNS>
void mix(const float* weights, const float* values, int64_t count, int64_t dim, int64_t span, float* sums) {
  Vector held[GROUP][COLUMNS];
  for (int64_t row = 0; row < GROUP; ++row)
    for (int column = 0; column < COLUMNS; ++column) held[row][column] = load(sums + row * dim + column * WIDTH);
  for (int64_t key = 0; key < count; ++key)
    for (int column = 0; column < COLUMNS; ++column) {
      const Vector value = load(values + key * dim + column * WIDTH);
      for (int64_t row = 0; row < GROUP; ++row) held[row][column] += weights[row * span + key] * value;
    }
  for (int64_t row = 0; row < GROUP; ++row)
    for (int column = 0; column < COLUMNS; ++column) store(sums + row * dim + column * WIDTH, held[row][column]);
}

void blend(const float* weights, const float* values, int64_t count, int64_t dim, int64_t span, float* sums) {
  int64_t column = 0;
  for (; column + 4 * WIDTH <= dim; column += 4 * WIDTH)
    mix<4>(weights, values + column, count, dim, span, sums + column);
  for (; column < dim; column += WIDTH) mix<1>(weights, values + column, count, dim, span, sums + column);
}

// Replace the first `seen` scores of a row by e^(score - peak), the rest up to `count` by 0; returns their sum.
float weigh(float* scores, int64_t seen, int64_t count, float peak) {
  std::fill(scores + std::max<int64_t>(seen, 0), scores + padded(count, WIDTH), -std::numeric_limits<float>::max());
  Vector sums = {};
  for (int64_t key = 0; key < count; key += WIDTH) {
    const Vector weight = load(scores + key) < peak - 86.f ? Vector{} : exponential(load(scores + key) - peak);
    store(scores + key, weight);
    sums += weight;
  }
  return total(sums);
}

float highest(const float* scores, int64_t seen) {
  float peak = -std::numeric_limits<float>::max();
  int64_t key = 0;
  Vector peaks = Vector{} + peak;
  for (; key + WIDTH <= seen; key += WIDTH) peaks = load(scores + key) > peaks ? load(scores + key) : peaks;
  for (int64_t lane = 0; lane < WIDTH; ++lane) peak = std::max(peak, peaks[lane]);
  for (; key < seen; ++key) peak = std::max(peak, scores[key]);
  return peak;
}

// What one thread needs while it works on a block of queries: a tile of scores, never the whole matrix.
struct Desk {
  int64_t span;
  std::vector<float> queries, turned, scores, sums, peaks, totals;
  Desk(int64_t block, int64_t tile, int64_t dim)
      : span(padded(tile, 2 * WIDTH)), queries(block * dim), turned(dim * span), scores(GROUP * span),
        sums(block * dim), peaks(block), totals(block) {}
};

// One group of queries meets one tile of keys: earlier sums are scaled down to the highest score so far.
void meet(const Problem& p, Desk& desk, int64_t head, int64_t row, int64_t query, int64_t first, int64_t last) {
  const int64_t count = std::min(last, query + GROUP) - first;  // a query sees itself and what came before
  if (count <= 0) return;
  score(desk.queries.data() + row * p.dim, desk.turned.data(), count, p.dim, desk.span, desk.scores.data());
  for (int64_t member = 0; member < GROUP; ++member) {
    float *scores = desk.scores.data() + member * desk.span, &peak = desk.peaks[row + member];
    const int64_t seen = std::min(count, query + member + 1 - first);
    const float before = peak;
    peak = std::max(peak, highest(scores, seen));
    const float shrink = std::exp(before - peak);
    desk.totals[row + member] = desk.totals[row + member] * shrink + weigh(scores, seen, count, peak);
    if (shrink != 1.f)
      for (int64_t d = 0; d < p.dim; ++d) desk.sums[(row + member) * p.dim + d] *= shrink;
  }
  blend(desk.scores.data(), p.values(head) + first * p.dim, count, p.dim, desk.span, desk.sums.data() + row * p.dim);
}

void attend(const Problem& p, Desk& desk, int64_t head, int64_t first, int64_t last, int64_t tile) {
  gather(p, head, first, last, desk.queries.data());
  std::fill(desk.sums.begin(), desk.sums.end(), 0.f);
  std::fill(desk.totals.begin(), desk.totals.end(), 0.f);
  std::fill(desk.peaks.begin(), desk.peaks.end(), -std::numeric_limits<float>::max());
  for (int64_t key = 0; key < last; key += tile) {
    const int64_t end = std::min(key + tile, last);
    turn(p.keys(head), key, end, p.dim, desk.span, desk.turned.data());
    for (int64_t row = 0; row < last - first; row += GROUP) meet(p, desk, head, row, first + row, key, end);
  }
  for (int64_t row = 0; row < last - first; ++row)
    for (int64_t d = 0; d < p.dim; ++d)
      p.out[(head * p.context + first + row) * p.dim + d] = desk.sums[row * p.dim + d] / desk.totals[row];
}

}  // namespace

// Y = X W^T with X [tokens, depth], W [rows, depth], Y [tokens, rows]. All tokens pass over a tile of `tile` rows
// of W, `block` (1, 2, 4 or 8) at once, before the next tile is touched. tile = rows, block = 1 is the untiled loop.
extern "C" int product(const float* x, const float* w, float* y, int64_t tokens, int64_t rows, int64_t depth,
                       int64_t tile, int64_t block, int64_t threads) {
  auto chosen = block == 1 ? strip<1> : block == 2 ? strip<2> : block == 4 ? strip<4> : block == 8 ? strip<8> : nullptr;
  if (!chosen || tile < 1 || threads < 1) return 1;
  share(threads, threads, [&](int64_t number) {
    const int64_t end = rows * (number + 1) / threads;
    for (int64_t first = rows * number / threads; first < end; first += tile)
      chosen(x, w, y, tokens, rows, depth, first, std::min(end, first + tile));
  });
  return 0;
}

// Causal attention with an online softmax (arXiv:2205.14135): q and out [heads, context, dim], k and v
// [heads / sharing, context, dim]. `block` queries at a time pass over tiles of `tile` keys.
extern "C" int attention(const float* q, const float* k, const float* v, float* out, int64_t heads, int64_t sharing,
                         int64_t context, int64_t dim, int64_t block, int64_t tile, int64_t threads) {
  if (dim % WIDTH || heads % sharing || block < 1 || tile < 1 || threads < 1) return 1;
  const Problem p{q, k, v, out, heads, sharing, context, dim};
  const int64_t blocks = (context + block - 1) / block;
  std::atomic<int64_t> next{0};
  share(threads, threads, [&](int64_t) {
    Desk desk(padded(block, GROUP), std::min(tile, context), dim);
    for (int64_t job; (job = next++) < heads * blocks;) {
      const int64_t first = job % blocks * block;
      attend(p, desk, job / blocks, first, std::min(context, first + block), tile);
    }
  });
  return 0;
}

// The untiled twin: all scores are written out, then turned into weights, then multiplied with the values.
extern "C" int attention_whole(const float* q, const float* k, const float* v, float* out, int64_t heads,
                               int64_t sharing, int64_t context, int64_t dim, int64_t threads) {
  if (dim % WIDTH || heads % sharing || threads < 1) return 1;
  const Problem p{q, k, v, out, heads, sharing, context, dim};
  const int64_t groups = (context + GROUP - 1) / GROUP, span = padded(context, 2 * WIDTH);
  const std::unique_ptr<float[]> turned(new float[heads * dim * span]), scores(new float[heads * groups * GROUP * span]);
  auto row = [&](int64_t job) { return scores.get() + job * GROUP * span; };
  auto query = [&](int64_t job) { return job % groups * GROUP; };
  auto count = [&](int64_t job) { return std::min(context, query(job) + GROUP); };
  share(heads, threads, [&](int64_t h) { turn(p.keys(h), 0, context, dim, span, turned.get() + h * dim * span); });
  share(heads * groups, threads, [&](int64_t job) {
    std::vector<float> queries(GROUP * dim);
    gather(p, job / groups, query(job), count(job), queries.data());
    score(queries.data(), turned.get() + job / groups * dim * span, count(job), dim, span, row(job));
  });
  share(heads * groups, threads, [&](int64_t job) {
    for (int64_t member = 0; query(job) + member < count(job); ++member) {
      float* scores = row(job) + member * span;
      const int64_t seen = query(job) + member + 1;
      const float sum = weigh(scores, seen, count(job), highest(scores, seen));
      for (int64_t key = 0; key < seen; ++key) scores[key] /= sum;
    }
  });
  share(heads * groups, threads, [&](int64_t job) {
    std::vector<float> sums(GROUP * dim, 0.f);
    blend(row(job), p.values(job / groups), count(job), dim, span, sums.data());
    std::memcpy(out + (job / groups * context + query(job)) * dim, sums.data(), (count(job) - query(job)) * dim * 4);
  });
  return 0;
}
