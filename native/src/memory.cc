#include "memory.hh"

#include <malloc.h>

#include "pool_call.hh"
#include "syscalls.hh"

namespace varve {
namespace {

napi_value TrimHeapAsync(napi_env env) {
  return CallOnPool(env, "varve:trimHeap", []() -> int64_t {
#ifdef __GLIBC__
    return ::malloc_trim(0);
#else
    return 0;
#endif
  });
}

constexpr Method kMethods[] = {{"trimHeapAsync", Bind<TrimHeapAsync>}};

}  // namespace

Methods MemoryMethods() { return kMethods; }

void BoundMalloc() {
#ifdef __GLIBC__
  // Each thread would get an arena of its own, and keep in it the most that it ever needed.
  ::mallopt(M_ARENA_MAX, 2);
  // The first large buffer that is freed would raise this to its size: buffers of megabytes would
  // then lie in the arenas, between small blocks that keep them from shrinking.
  ::mallopt(M_MMAP_THRESHOLD, 256 * 1024);
  ::mallopt(M_TRIM_THRESHOLD, 1024 * 1024);
#endif
}

}  // namespace varve
