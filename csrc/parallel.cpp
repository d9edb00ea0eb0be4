// OpenMP, the default number of threads, per-thread memory, and what fork() leaves behind.
#include "parallel.h"

#include <omp.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>

#include <atomic>
#include <cmath>
#include <condition_variable>
#include <mutex>
#include <thread>

namespace headwise {
namespace {

// CPUs the cgroup's quota allows, or 0 if there is none (v2 first, then v1).
double cgroup_cpu_quota() {
  double quota = 0, period = 0;
  if (FILE* file = fopen("/sys/fs/cgroup/cpu.max", "r")) {
    const int read = fscanf(file, "%lf %lf", &quota, &period);  // "max 100000" reads nothing
    fclose(file);
    return read == 2 && period > 0 ? quota / period : 0;
  }
  const char* const names[] = {"/sys/fs/cgroup/cpu/cpu.cfs_quota_us",
                               "/sys/fs/cgroup/cpu/cpu.cfs_period_us"};
  double* const values[] = {&quota, &period};
  for (int i = 0; i < 2; ++i) {
    FILE* file = fopen(names[i], "r");
    if (!file) return 0;
    const int read = fscanf(file, "%lf", values[i]);
    fclose(file);
    if (read != 1) return 0;
  }
  return quota > 0 && period > 0 ? quota / period : 0;
}

int default_num_threads() {
  for (const char* name : {"HEADWISE_NUM_THREADS", "OMP_NUM_THREADS"}) {
    const char* value = getenv(name);
    const int n = value ? atoi(value) : 0;
    if (n > 0) return n;
  }
  int n = 0;
#ifdef __linux__
  cpu_set_t mask;
  if (sched_getaffinity(0, sizeof mask, &mask) == 0) n = CPU_COUNT(&mask);
#endif
  if (n < 1) n = omp_get_num_procs();
  const double quota = cgroup_cpu_quota();
  if (quota > 0 && quota < n) n = static_cast<int>(std::ceil(quota));
  return n < 1 ? 1 : n;
}

std::atomic<int>& thread_count() {
  static std::atomic<int> count{default_num_threads()};
  return count;
}

void run_with_openmp(int threads, void (*body)(void*), void* context) {
#pragma omp parallel num_threads(threads)
  body(context);
}

// libgomp keeps a pool of threads for each thread that opened a parallel region. After fork() the
// forking thread still has its pool, but the threads in it are gone, and its next region waits for them
// for ever. The child therefore opens its regions on a thread of its own, whose pool is new.
class RegionHost {
 public:
  RegionHost() : thread_([this] { serve(); }) { thread_.detach(); }

  void run(int threads, void (*body)(void*), void* context) {
    std::unique_lock<std::mutex> lock(mutex_);
    job_ = {threads, body, context};
    pending_ = true;
    changed_.notify_all();
    changed_.wait(lock, [this] { return !pending_; });
  }

 private:
  struct Job {
    int threads;
    void (*body)(void*);
    void* context;
  };

  void serve() {
    std::unique_lock<std::mutex> lock(mutex_);
    for (;;) {
      changed_.wait(lock, [this] { return pending_; });
      run_with_openmp(job_.threads, job_.body, job_.context);
      pending_ = false;
      changed_.notify_all();
    }
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  Job job_{};
  bool pending_ = false;
  std::thread thread_;
};

// Of the thread that called fork(), in the child: the only thread the child starts with.
thread_local bool pool_was_lost = false;
thread_local RegionHost* host = nullptr;

void after_fork_in_child() {
  pool_was_lost = true;
  host = nullptr;  // its thread is gone too: a leak of 200 bytes a generation of forks
}

// At load time: another library may have opened regions on the same libgomp before our first.
[[maybe_unused]] const int registered = pthread_atfork(nullptr, nullptr, after_fork_in_child);

struct Workspace {
  void* memory = nullptr;
  size_t bytes = 0;
  ~Workspace() { free(memory); }
};

}  // namespace

int num_threads() { return thread_count().load(std::memory_order_relaxed); }

void set_num_threads(int n) { thread_count().store(n, std::memory_order_relaxed); }

void run_on_threads(int threads, void (*body)(void*), void* context) {
  if (!pool_was_lost) return run_with_openmp(threads, body, context);
  if (!host) host = new RegionHost;
  host->run(threads, body, context);
}

void* thread_workspace(size_t bytes) {
  thread_local Workspace workspace;
  if (workspace.bytes < bytes) {
    free(workspace.memory);
    workspace.bytes = 0;
    workspace.memory = aligned_alloc(64, (bytes + 63) / 64 * 64);
    if (workspace.memory) workspace.bytes = bytes;
  }
  return workspace.memory;
}

}  // namespace headwise
