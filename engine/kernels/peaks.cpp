// What a processor can do at most: read memory from front to back, and multiply and add what is in its registers.

#include <algorithm>
#include <cstdint>
#include <ctime>
#include <thread>
#include <vector>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "step/shares.h"

namespace {

#if defined(__AVX512F__)
constexpr int64_t BYTES = 64;
#elif defined(__AVX__)
constexpr int64_t BYTES = 32;
#else
constexpr int64_t BYTES = 16;
#endif
constexpr int64_t WIDTH = BYTES / sizeof(float), CHUNK = 1 << 18, ROUNDS = 1 << 13, AHEAD = 1 << 10;
#if defined(__AVX512F__)
constexpr int64_t CHAINS = 16;  // sums that do not wait for each other; 32 registers hold them and two factors
#else
constexpr int64_t CHAINS = 10;  // here there are 16 registers
#endif

typedef float Vector __attribute__((vector_size(BYTES), aligned(sizeof(float))));

template <typename Lanes>
inline float total(Lanes value) {
  float sum = 0;
  for (int64_t lane = 0; lane < int64_t(sizeof(value) / 4); ++lane) sum += value[lane];
  return sum;
}

// Run work(0) ... work(count - 1) `passes` times on `threads` threads, shared as a model's step shares them. Returns the
// sum of what they gave, so that the compiler leaves nothing out.
template <typename Work>
float share(int64_t count, int64_t threads, int64_t passes, Work work) {
  std::vector<Shares> shares;
  for (int64_t pass = 0; pass < passes; ++pass) shares.emplace_back(threads);
  std::vector<float> sums(threads);
  auto take = [&](int64_t number) {
    float sum = 0;
    for (Shares& one : shares)
      for (int64_t job; (job = one.take(number, count)) < count;) sum += work(job);
    sums[number] = sum;
  };
  std::vector<std::thread> others;
  for (int64_t number = 1; number < threads; ++number) others.emplace_back(take, number);
  take(0);
  for (auto& other : others) other.join();
  float sum = 0;
  for (float part : sums) sum += part;
  return sum;
}

float read_part(const float* data, int64_t count) {
  Vector chains[8] = {};
  int64_t place = 0;
  for (; place + 8 * WIDTH <= count; place += 8 * WIDTH)
    for (int64_t chain = 0; chain < 8; ++chain) {
      __builtin_prefetch(data + place + chain * WIDTH + AHEAD, 0, 0);  // as a model's step does
      chains[chain] += *reinterpret_cast<const Vector*>(data + place + chain * WIDTH);
    }
  float sum = 0;
  for (const Vector& chain : chains) sum += total(chain);
  for (; place < count; ++place) sum += data[place];
  return sum;
}

// One job of a kind: ROUNDS times CHAINS instructions, each of which needs the same chain's last one. Chains begin with
// different numbers: the compiler would make one of those that are alike.
template <typename Lanes, typename Number, typename Step>
float chained(Step step) {
  Lanes chains[CHAINS];
  for (int64_t chain = 0; chain < CHAINS; ++chain) chains[chain] = Lanes{} + Number(chain);
  for (int64_t round = 0; round < ROUNDS; ++round)
    for (int64_t chain = 0; chain < CHAINS; ++chain) chains[chain] = step(chains[chain]);
  float sum = 0;
  for (const Lanes& chain : chains) sum += total(chain);
  return sum;
}

enum Kind : int64_t { FLOAT32, BFLOAT16, INT8 };

constexpr int64_t FOUR = 4;  // bytes that an int8 product adds up in each lane

double own_seconds() {  // for which this thread has had a core
  timespec now;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return now.tv_sec + 1e-9 * now.tv_nsec;
}

// Operations a second of all threads: each does `jobs` of them, and only the time counts in which it had a core.
template <typename Work>
double together(int64_t threads, int64_t jobs, int64_t operations, float* sum, Work work) {
  std::vector<double> rates(threads);
  *sum = share(threads, threads, 1, [&](int64_t number) {
    const double start = own_seconds();
    float part = 0;
    for (int64_t job = 0; job < jobs; ++job) part += work();
    rates[number] = jobs * ROUNDS * CHAINS * operations / (own_seconds() - start);
    return part;
  });
  double all = 0;
  for (double rate : rates) all += rate;
  return all;
}

}  // namespace

// Read `count` numbers `passes` times and return their sum, once.
extern "C" float read_all(const float* data, int64_t count, int64_t threads, int64_t passes) {
  const int64_t chunks = (count + CHUNK - 1) / CHUNK;
  return share(chunks, threads, passes, [&](int64_t job) {
    const int64_t first = job * CHUNK;
    return read_part(data + first, std::min(CHUNK, count - first));
  }) / passes;
}

// Multiply and add on every thread for `jobs` jobs; returns operations a second (a multiplication and an addition are
// two), or 0 where this processor has no instruction for this kind of number.
extern "C" double multiply(int64_t kind, int64_t threads, int64_t jobs, float* sum) {
  if (kind == FLOAT32) {
    const Vector factor = Vector{} + 0.999f, term = Vector{} + 0.001f;
    return together(threads, jobs, 2 * WIDTH, sum, [&] {
      return chained<Vector, float>([&](Vector x) { return x * factor + term; });
    });
  }
#if defined(__AVX512BF16__)
  if (kind == BFLOAT16) {
    const __m512bh factor = _mm512_cvtne2ps_pbh(_mm512_set1_ps(0.5f), _mm512_set1_ps(0.5f));
    return together(threads, jobs, 2 * 2 * WIDTH, sum, [&] {
      return chained<Vector, float>([&](Vector x) { return (Vector)_mm512_dpbf16_ps((__m512)x, factor, factor); });
    });
  }
#endif
#if defined(__AVX512VNNI__) || defined(__AVXVNNI__)
  typedef int32_t Whole __attribute__((vector_size(BYTES)));
  if (kind == INT8) {
    const Whole factor = Whole{} + 0x01010101;
    return together(threads, jobs, 2 * FOUR * WIDTH, sum, [&] {
      return chained<Whole, int32_t>([&](Whole x) {
#if defined(__AVX512VNNI__)
        return (Whole)_mm512_dpbusd_epi32((__m512i)x, (__m512i)factor, (__m512i)factor);
#else
        return (Whole)_mm256_dpbusd_avx_epi32((__m256i)x, (__m256i)factor, (__m256i)factor);
#endif
      });
    });
  }
#endif
  return 0;
}
