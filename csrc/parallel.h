// The only threads in the tree. Kernels deal tasks with parallel_for; which thread runs which task
// never changes a bit of a result.
#pragma once
#include <stddef.h>
#include <stdint.h>

#include "include/headwise.h"

namespace headwise {

constexpr int kMaxThreads = 4096;

// Runs body(context) on the calling thread and, as they come free, on up to threads - 1 others; returns when
// all that began have finished. So body must take its work from a shared counter. Safe after fork() and from
// several threads at once.
void run_on_threads(int threads, void (*body)(void*), void* context);

// The calling thread's own 64-byte aligned scratch memory of at least this size, or null. It is kept for
// the next call and freed with the thread; no kernel asks for more than 2 MB.
void* thread_workspace(size_t bytes);

// A value that differs from thread to thread.
const void* this_thread();

// Asks the check that hw_set_interrupt_check() set, if this thread has not done so for 20 ms.
bool interrupt_requested();
void set_interrupt_check(int (*check)(void));

int num_threads();
void set_num_threads(int n);

}  // namespace headwise

namespace {

// Hands out the task numbers 0 .. count - 1 in ascending order, until all are taken or the call must end.
class TaskCounter {
 public:
  explicit TaskCounter(int64_t count) : count_(count), caller_(headwise::this_thread()) {}

  // The next task, or -1 when there is none.
  int64_t next() {
    const int64_t task = __atomic_fetch_add(&taken_, 1, __ATOMIC_RELAXED);
    // Short tasks cost less than to read the clock for each.
    return task < count_ && !(task % 4 == 3 ? stopped() : ended()) ? task : -1;
  }

  // Whether to give up; also for a long task to ask now and then.
  bool stopped() {
    if (headwise::this_thread() == caller_ && headwise::interrupt_requested()) stop(HW_INTERRUPTED);
    return ended();
  }

  void stop(hw_status why) { __atomic_store_n(&status_, why, __ATOMIC_RELAXED); }
  hw_status status() const { return __atomic_load_n(&status_, __ATOMIC_RELAXED); }

 private:
  bool ended() const { return status() != HW_OK; }

  int64_t count_;
  const void* caller_;
  int64_t taken_ = 0;
  hw_status status_ = HW_OK;
};

// A thread costs a few microseconds to start: below this much work one thread is faster.
constexpr double kFlopsPerThread = 1e6;

inline int threads_for(double flops, int64_t tasks) {
  const int64_t useful = static_cast<int64_t>(flops / kFlopsPerThread);
  int64_t threads = headwise::num_threads();
  if (threads > useful) threads = useful;
  if (threads > tasks) threads = tasks;
  return threads < 1 ? 1 : static_cast<int>(threads);
}

// worker(counter) runs on each thread and takes tasks until counter.next() is -1. HW_OK if all were done.
template <class Worker>
hw_status parallel_for(int threads, int64_t tasks, Worker&& worker) {
  struct Context {
    TaskCounter counter;
    Worker& worker;
  } context{TaskCounter(tasks), worker};
  if (threads == 1)
    worker(context.counter);
  else
    headwise::run_on_threads(
        threads, [](void* c) { static_cast<Context*>(c)->worker(static_cast<Context*>(c)->counter); },
        &context);
  return context.counter.status();
}

}  // namespace
