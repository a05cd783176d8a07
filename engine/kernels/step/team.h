// Threads that go through the passes of a step together: they spin for a moment at each barrier, and sleep between steps.

#pragma once
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <thread>
#include <vector>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "shares.h"

class Team {
 public:
  explicit Team(int64_t size) : size(size), shares(size) {
    for (int64_t number = 1; number < size; ++number) others.emplace_back([this, number] { follow(number); });
  }

  ~Team() {
    ended = true;
    order();
    for (auto& other : others) other.join();
  }

  // Run work(number) on every thread, this one being 0; returns when all have ended.
  template <typename Work>
  void run(Work&& work) {
    call = [](void* what, int64_t number) { (*static_cast<Work*>(what))(number); };
    context = &work;
    left = size;
    order();
    work(0);
    left.fetch_sub(1, std::memory_order_acq_rel);
    wait([&] { return !left.load(std::memory_order_acquire); });
  }

  // Wait for all threads. What they wrote before it can be read after it, and jobs are counted from 0 again. What is
  // done `meanwhile` delays no other thread.
  template <typename Meanwhile>
  void meet(Meanwhile meanwhile) {
    const int64_t round = rounds.load(std::memory_order_acquire);
    if (arrived.fetch_add(1, std::memory_order_acq_rel) + 1 < size) {
      meanwhile();
      wait([&] { return rounds.load(std::memory_order_acquire) != round; });
      return;
    }
    arrived.store(0, std::memory_order_relaxed);
    shares.restart();
    rounds.store(round + 1, std::memory_order_release);
    meanwhile();
  }

  void meet() {
    meet([] {});
  }

  // The next of this pass's jobs for a thread, or `jobs` where none is left.
  int64_t take(int64_t number, int64_t jobs) { return shares.take(number, jobs); }

  int64_t begin(int64_t number, int64_t jobs) const { return shares.begin(number, jobs); }

  const int64_t size;

 private:
  static constexpr int64_t PATIENCE = 64;  // looks, a microsecond: then the core is offered to others
  static constexpr int64_t IDLE = 600;  // times PATIENCE: between steps, before a thread sleeps

  template <typename Condition>
  static bool spin(int64_t tries, Condition met) {
    for (int64_t n = 0; n < tries; ++n) {
      if (met()) return true;
#if defined(__x86_64__)
      _mm_pause();
#endif
    }
    return met();
  }

  // A core that others need is given away instead of spinning on it: with patience for 4096 looks a step of int8 took
  // three times as long beside them, and no less when they were gone.
  template <typename Condition>
  static bool look(int64_t times, Condition met) {
    for (int64_t n = 0; n < times; ++n) {
      if (spin(PATIENCE, met)) return true;
      std::this_thread::yield();
    }
    return met();
  }

  template <typename Condition>
  static void wait(Condition met) {
    while (!look(IDLE, met)) continue;
  }

  void order() {
    {
      std::lock_guard<std::mutex> hold(lock);
      orders.fetch_add(1, std::memory_order_release);
    }
    wake.notify_all();
  }

  void follow(int64_t number) {
    for (int64_t seen = 0;; ++seen) {
      const auto fresh = [&] { return orders.load(std::memory_order_acquire) != seen; };
      if (!look(IDLE, fresh)) {
        std::unique_lock<std::mutex> hold(lock);
        wake.wait(hold, fresh);
      }
      if (ended) return;
      call(context, number);
      left.fetch_sub(1, std::memory_order_acq_rel);
    }
  }

  Shares shares;
  std::vector<std::thread> others;
  std::mutex lock;
  std::condition_variable wake;
  std::atomic<int64_t> orders{0}, left{0}, arrived{0}, rounds{0};
  std::atomic<bool> ended{false};
  void (*call)(void*, int64_t) = nullptr;
  void* context = nullptr;
};
