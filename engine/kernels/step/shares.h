// Jobs shared by threads: each has neighbouring ones, since memory is read fastest in order, and then those of others.

#pragma once
#include <atomic>
#include <cstdint>
#include <vector>

class Shares {
 public:
  explicit Shares(int64_t threads) : taken(threads) {}

  // The first of the jobs that are a thread's own.
  int64_t begin(int64_t number, int64_t jobs) const { return jobs * number / int64_t(taken.size()); }

  // The next of `jobs` for a thread, or `jobs` where none is left: one that is held up does not hold up the others.
  int64_t take(int64_t number, int64_t jobs) {
    const int64_t threads = taken.size();
    for (int64_t turn = 0; turn < threads; ++turn) {
      const int64_t owner = (number + turn) % threads;
      const int64_t first = begin(owner, jobs), count = begin(owner + 1, jobs) - first;
      if (taken[owner].count.load(std::memory_order_relaxed) >= count) continue;
      const int64_t job = taken[owner].count.fetch_add(1, std::memory_order_relaxed);
      if (job < count) return first + job;
    }
    return jobs;
  }

  // Jobs are counted from 0 again. No thread may be taking one.
  void restart() {
    for (auto& one : taken) one.count.store(0, std::memory_order_relaxed);
  }

 private:
  struct alignas(64) Taken {  // a cache line of its own
    std::atomic<int64_t> count{0};
  };

  std::vector<Taken> taken;
};
