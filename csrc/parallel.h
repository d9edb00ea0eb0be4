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
// several threads at once. Within body, parallel_for() stays on its thread.
void run_on_threads(int threads, void (*body)(void*), void* context);

// One parallel_for() of a team: how many of its tasks are taken, and how many are done.
struct alignas(64) Phase {
  int64_t taken = 0, finished = 0;
};

// Threads that all run the same code and meet at each parallel_for(), to share its tasks. That is a barrier
// for tasks, not for threads: one that was delayed finds its phases done by the others.
struct Team {
  int threads;
  const void* leader;  // the thread that asks for interruption
  Phase* phases;
  int64_t max_phases;
  hw_status status = HW_OK;
};

// body(context) by a team; it may meet at most max_phases parallel_for(), and must decide nothing from what
// only one of the threads knows.
hw_status run_as_team(int threads, int64_t max_phases, void (*body)(void*), void* context);

// What the calling thread is part of: null if nothing, so that parallel_for() may ask for threads.
struct Membership {
  Team* team;  // null: on its own
  int64_t next_phase;
};
Membership* membership();

// Waits, at first without sleeping, until all tasks of the phase are done or the team has given up.
void wait_for(const Phase& phase, int64_t tasks, const Team& team);

// Memory for one task at a time, however long: kept when given back, for the next that asks, as many pieces
// as were ever in use at once. Null if there is none. trim() frees those not in use.
class Buffer {
 public:
  explicit Buffer(size_t bytes);
  ~Buffer();
  Buffer(const Buffer&) = delete;
  void* memory() const { return memory_; }

 private:
  void* memory_;
  size_t bytes_;
};
void trim();

// The calling thread's own 64-byte aligned scratch memory of at least this size, or null. It is kept for
// the next call and freed with the thread; no kernel asks for more than 2 MB, but linear layers of reduced
// precision with more than 40,000 input features.
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
  TaskCounter(int64_t count, int64_t* taken, hw_status* status, const void* caller)
      : count_(count), taken_(taken), status_(status), caller_(caller) {}

  // The next task, or -1 when there is none.
  int64_t next() {
    const int64_t task = __atomic_fetch_add(taken_, 1, __ATOMIC_RELAXED);
    // Short tasks cost less than to read the clock for each.
    if (task >= count_ || (task % 4 == 3 ? stopped() : ended())) return -1;
    ++handed_out_;
    return task;
  }
  int64_t handed_out() const { return handed_out_; }

  // Whether to give up; also for a long task to ask now and then.
  bool stopped() {
    if (headwise::this_thread() == caller_ && headwise::interrupt_requested()) stop(HW_INTERRUPTED);
    return ended();
  }

  void stop(hw_status why) { __atomic_store_n(status_, why, __ATOMIC_RELAXED); }

 private:
  bool ended() const { return __atomic_load_n(status_, __ATOMIC_RELAXED) != HW_OK; }

  int64_t count_;
  int64_t* taken_;
  hw_status* status_;
  const void* caller_;
  int64_t handed_out_ = 0;
};

// A thread costs a few microseconds to start: below this much work one thread is faster.
constexpr double kFlopsPerThread = 1e6;

inline int threads_for(double flops, int64_t tasks) {
  int64_t threads = headwise::num_threads();
  if (const headwise::Membership* member = headwise::membership()) {
    threads = member->team ? member->team->threads : 1;  // they are there already
  } else {
    const int64_t useful = static_cast<int64_t>(flops / kFlopsPerThread);
    if (threads > useful) threads = useful;
  }
  if (threads > tasks) threads = tasks;
  return threads < 1 ? 1 : static_cast<int>(threads);
}

// worker(counter) runs on each thread and takes tasks until counter.next() is -1. HW_OK if all were done.
template <class Worker>
hw_status parallel_for(int threads, int64_t tasks, Worker&& worker) {
  headwise::Membership* member = headwise::membership();
  if (member && member->team) {
    headwise::Team& team = *member->team;
    headwise::Phase& phase = team.phases[member->next_phase++];
    TaskCounter counter(tasks, &phase.taken, &team.status, team.leader);
    worker(counter);
    __atomic_fetch_add(&phase.finished, counter.handed_out(), __ATOMIC_RELEASE);
    headwise::wait_for(phase, tasks, team);
    return __atomic_load_n(&team.status, __ATOMIC_RELAXED);
  }
  struct Context {
    Worker& worker;
    int64_t tasks;
    const void* caller;
    int64_t taken;
    hw_status status;
    void run() {
      TaskCounter counter(tasks, &taken, &status, caller);
      worker(counter);
    }
  } context{worker, tasks, headwise::this_thread(), 0, HW_OK};
  if (threads == 1)
    context.run();
  else
    headwise::run_on_threads(threads, [](void* c) { static_cast<Context*>(c)->run(); }, &context);
  return __atomic_load_n(&context.status, __ATOMIC_RELAXED);
}

}  // namespace
