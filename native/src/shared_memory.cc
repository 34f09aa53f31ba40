// Files as memory: what is written there outlives a process that is killed.
#include <sys/mman.h>

#include "syscalls.hh"

namespace varve {
namespace {

void Unmap(napi_env, void* data, void* hint) {
  ::munmap(data, reinterpret_cast<size_t>(hint));
}

// An ArrayBuffer over the first `length` bytes of a file, which must have them; or a negative errno.
napi_value MapShared(napi_env env, int32_t fd, int64_t length) {
  const auto size = static_cast<size_t>(length);
  void* data = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (data == MAP_FAILED) return MakeNumber(env, -errno);
  napi_value buffer = nullptr;
  void* hint = reinterpret_cast<void*>(size);
  if (napi_create_external_arraybuffer(env, data, size, Unmap, hint, &buffer) != napi_ok) {
    ::munmap(data, size);
    return MakeNumber(env, -ENOMEM);
  }
  return buffer;
}

constexpr Method kMethods[] = {{"mapShared", Bind<MapShared>}};

}  // namespace

Methods SharedMemoryMethods() { return kMethods; }

}  // namespace varve
