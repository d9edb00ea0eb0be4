// A pool of threads, the default number of threads, per-thread memory.
//
// Why not OpenMP's: a parallel region ends when every thread of the team has come and gone. On a busy
// machine the caller then waits, whole time slices long, for threads that found no task left (one short
// text took 20 times as long beside one other process); and after fork() libgomp waits for ever for threads
// that the child does not have. Here the caller works too, and at the end waits only for those threads that
// did take part.
#include "parallel.h"

#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#include <atomic>
#include <chrono>
#include <cmath>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

namespace headwise {
namespace {

// ---- how many threads ------------------------------------------------------------------------------------

// CPUs the cgroup's quota allows, or 0 if there is none (v2 first, then v1).
double cgroup_cpu_quota() {
  double quota = 0, period = 0;
  if (FILE* file = fopen("/sys/fs/cgroup/cpu.max", "r")) {
    const int read = fscanf(file, "%lf %lf", &quota, &period);  // "max 100000" reads nothing
    fclose(file);
    return read == 2 && period > 0 ? quota / period : 0;
  }
  const char* const names[] = {"/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "/sys/fs/cgroup/cpu/cpu.cfs_period_us"};
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
    const long n = value ? strtol(value, nullptr, 10) : 0;
    if (n > 0) return n < kMaxThreads ? static_cast<int>(n) : kMaxThreads;
  }
  int n = static_cast<int>(std::thread::hardware_concurrency());
#ifdef __linux__
  cpu_set_t mask;
  if (sched_getaffinity(0, sizeof mask, &mask) == 0) n = CPU_COUNT(&mask);
#endif
  const double quota = cgroup_cpu_quota();
  if (quota > 0 && quota < n) n = static_cast<int>(std::ceil(quota));
  return n < 1 ? 1 : n;
}

std::atomic<int>& thread_count() {
  static std::atomic<int> count{default_num_threads()};
  return count;
}

// ---- the pool --------------------------------------------------------------------------------------------

inline void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

// Calls done() until it is true or this long has passed; whether it was true. Between the operations of a
// layer a thread waits some microseconds, and some tens between two calls from Python, for which going to
// sleep and being woken costs too much.
template <class Done>
bool spin(Done&& done) {
  constexpr std::chrono::microseconds kPatience{100};
  const auto end = std::chrono::steady_clock::now() + kPatience;
  do {
    for (int i = 0; i < 64; ++i) {
      if (done()) return true;
      pause();
    }
  } while (std::chrono::steady_clock::now() < end);
  return false;
}

class Pool {
 public:
  void run(int threads, void (*body)(void*), void* context) {
    Job job{body, context, threads - 1};
    open(job);
    body(context);
    close(job);
    if (spin([&] { return job.running.load(std::memory_order_acquire) == 0; })) return;
    auto held = lock();
    job_left_.wait(held, [&] { return job.running.load(std::memory_order_acquire) == 0; });
  }

 private:
  struct Job {
    void (*body)(void*);
    void* context;
    int places;                   // for further threads
    std::atomic<int> running{0};  // threads inside, besides the caller
    Job* next = nullptr;
  };

  // The mutex is held for some nanoseconds at a time: worth a spin before sleeping for it.
  std::unique_lock<std::mutex> lock() {
    for (int i = 0; i < 1000; ++i) {
      if (mutex_.try_lock()) return {mutex_, std::adopt_lock};
      pause();
    }
    return std::unique_lock<std::mutex>(mutex_);
  }

  void open(Job& job) {
    const auto held = lock();
    while (workers() < job.places && start_worker()) {
    }
    keep_off_callers_cpu();
    Job** last = &jobs_;
    while (*last) last = &(*last)->next;
    *last = &job;
    open_places_.fetch_add(job.places, std::memory_order_release);
    const int wake = sleepers_ < job.places ? sleepers_ : job.places;
    for (int i = 0; i < wake; ++i) job_opened_.notify_one();
  }

  // From here on nobody joins; those inside go on.
  void close(Job& job) {
    const auto held = lock();
    Job** link = &jobs_;
    while (*link != &job) link = &(*link)->next;
    *link = job.next;
    open_places_.fetch_sub(job.places, std::memory_order_relaxed);
  }

  static constexpr int kNoCpu = -1, kUnknownCpu = -2;

  int workers() const { return static_cast<int>(workers_.size()); }

  // Workers keep off the CPU that the caller is on. Left to themselves some are woken there though another
  // CPU is idle, by kernels that gather what seems to do little, and wait until the caller has done all the
  // work. With many threads one that waits is a small loss, and telling all of them a larger one.
  void keep_off_callers_cpu() {
#ifdef __linux__
    constexpr int kFew = 8;
    const int cpu = workers() > kFew ? kNoCpu : sched_getcpu();
    cpu_set_t allowed;
    if (cpu == callers_cpu_ || sched_getaffinity(0, sizeof allowed, &allowed) != 0) return;
    if (cpu >= 0) CPU_CLR(cpu, &allowed);
    if (CPU_COUNT(&allowed) == 0) return;
    callers_cpu_ = cpu;
    for (const auto worker : workers_) pthread_setaffinity_np(worker, sizeof allowed, &allowed);
#endif
  }

  // False if the system has no more threads to give: those there are do the work.
  bool start_worker() {
    try {
      workers_.reserve(workers_.size() + 1);
      std::thread worker([this] { work(); });
      workers_.push_back(worker.native_handle());
      worker.detach();
      callers_cpu_ = kUnknownCpu;
      return true;
    } catch (const std::exception&) {
      return false;
    }
  }

  void work() {
    for (;;) {
      spin([this] { return open_places_.load(std::memory_order_acquire) > 0; });
      auto held = lock();
      Job* job = joinable();
      if (!job) {
        ++sleepers_;
        job_opened_.wait(held);
        --sleepers_;
        continue;  // a job so short that it is over by now may be the first of many: stay awake for the next
      }
      --job->places;
      open_places_.fetch_sub(1, std::memory_order_relaxed);
      job->running.fetch_add(1, std::memory_order_relaxed);
      held.unlock();
      job->body(job->context);
      held = lock();  // the caller may leave, and the job with it, as soon as running is 0
      job->running.fetch_sub(1, std::memory_order_release);
      job_left_.notify_all();
    }
  }

  Job* joinable() const {
    Job* job = jobs_;
    while (job && job->places == 0) job = job->next;
    return job;
  }

  std::mutex mutex_;
  std::condition_variable job_opened_, job_left_;
  Job* jobs_ = nullptr;              // open ones, oldest first; they live on their callers' stacks
  std::atomic<int> open_places_{0};  // of all of them: whether to look
  int sleepers_ = 0;
  std::vector<std::thread::native_handle_type> workers_;
  int callers_cpu_ = kNoCpu;  // which workers keep off
};

// Never destroyed, as its threads outlive main(). A forked child has none of them and may have inherited a
// locked mutex: it starts a pool of its own.
std::atomic<Pool*> current_pool{nullptr};
[[maybe_unused]] const int at_fork = pthread_atfork(nullptr, nullptr, [] { current_pool = nullptr; });

Pool& pool() {
  Pool* pool = current_pool.load(std::memory_order_acquire);
  if (pool) return *pool;
  Pool* mine = new Pool;
  if (current_pool.compare_exchange_strong(pool, mine)) return *mine;
  delete mine;
  return *pool;
}

thread_local Membership* member_of = nullptr;

// A thread is a member for as long as this lives.
class Joined {
 public:
  explicit Joined(Team* team) : membership_{team, 0}, before_(member_of) { member_of = &membership_; }
  ~Joined() { member_of = before_; }

 private:
  Membership membership_;
  Membership* before_;
};

// ---- interruption ----------------------------------------------------------------------------------------

std::atomic<int (*)(void)> interrupt_check{nullptr};

// ---- memory ----------------------------------------------------------------------------------------------

struct Workspace {
  void* memory = nullptr;
  size_t bytes = 0;
  ~Workspace() { free(memory); }
};

// Pages of their own, large ones if the system has them: what is freed goes back to the system at once.
void* map_pages(size_t bytes) {
  void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return nullptr;
#ifdef MADV_HUGEPAGE
  madvise(memory, bytes, MADV_HUGEPAGE);
#endif
  return memory;
}

// Buffers given back. A forked child may have inherited a locked mutex: it starts with none.
struct IdleBuffers {
  std::mutex mutex;
  std::vector<std::pair<void*, size_t>> buffers;
};
std::atomic<IdleBuffers*> current_idle{new IdleBuffers};
[[maybe_unused]] const int idle_at_fork =
    pthread_atfork(nullptr, nullptr, [] { current_idle = new IdleBuffers; });

}  // namespace

int num_threads() { return thread_count().load(std::memory_order_relaxed); }

void set_num_threads(int n) { thread_count().store(n, std::memory_order_relaxed); }

void run_on_threads(int threads, void (*body)(void*), void* context) {
  struct Alone {
    void (*body)(void*);
    void* context;
  } alone{body, context};
  const auto run = [](void* c) {
    const Joined joined(nullptr);
    static_cast<Alone*>(c)->body(static_cast<Alone*>(c)->context);
  };
  if (threads <= 1) return run(&alone);
  pool().run(threads, run, &alone);
}

hw_status run_as_team(int threads, int64_t max_phases, void (*body)(void*), void* context) {
  std::vector<Phase> phases(static_cast<size_t>(max_phases));
  struct Shared {
    Team team;
    void (*body)(void*);
    void* context;
  } shared{{threads, this_thread(), phases.data(), max_phases}, body, context};
  const auto run = [](void* c) {
    Shared& s = *static_cast<Shared*>(c);
    const Joined joined(&s.team);
    s.body(s.context);
  };
  if (threads <= 1)
    run(&shared);
  else
    pool().run(threads, run, &shared);
  return shared.team.status;
}

Membership* membership() { return member_of; }

void wait_for(const Phase& phase, int64_t tasks, const Team& team) {
  const auto over = [&] {
    return __atomic_load_n(&phase.finished, __ATOMIC_ACQUIRE) >= tasks ||
           __atomic_load_n(&team.status, __ATOMIC_RELAXED) != HW_OK;
  };
  while (!spin(over)) sched_yield();
}

const void* this_thread() {
  thread_local char here;
  return &here;
}

void set_interrupt_check(int (*check)(void)) { interrupt_check = check; }

bool interrupt_requested() {
  using Clock = std::chrono::steady_clock;
  thread_local Clock::time_point last_asked;
  const auto check = interrupt_check.load(std::memory_order_relaxed);
  if (!check) return false;
  const auto now = Clock::now();
  if (now - last_asked < std::chrono::milliseconds(20)) return false;
  last_asked = now;
  return check() != 0;
}

Buffer::Buffer(size_t bytes) : memory_(nullptr), bytes_(0) {
  constexpr size_t kPage = size_t(2) << 20;
  bytes = (bytes + kPage - 1) / kPage * kPage;
  std::pair<void*, size_t> found{nullptr, 0};
  {
    IdleBuffers& idle = *current_idle;
    const std::lock_guard<std::mutex> held(idle.mutex);
    if (!idle.buffers.empty()) {
      found = idle.buffers.back();
      idle.buffers.pop_back();
    }
  }
  if (found.second < bytes) {  // too small: replaced, so that there are never more than were in use at once
    if (found.first) munmap(found.first, found.second);
    found = {map_pages(bytes), bytes};
  }
  memory_ = found.first;
  bytes_ = found.second;
}

Buffer::~Buffer() {
  if (!memory_) return;
  IdleBuffers& idle = *current_idle;
  const std::lock_guard<std::mutex> held(idle.mutex);
  idle.buffers.emplace_back(memory_, bytes_);
}

void trim() {
  IdleBuffers& idle = *current_idle;
  const std::lock_guard<std::mutex> held(idle.mutex);
  for (const auto& [memory, bytes] : idle.buffers) munmap(memory, bytes);
  idle.buffers.clear();
}

void* thread_workspace(size_t bytes) {
  thread_local Workspace workspace;
  if (!workspace.memory || workspace.bytes < bytes) {
    free(workspace.memory);
    workspace.bytes = 0;
    workspace.memory = aligned_alloc(64, (bytes + 64) / 64 * 64);
    if (workspace.memory) workspace.bytes = bytes;
  }
  return workspace.memory;
}

}  // namespace headwise
