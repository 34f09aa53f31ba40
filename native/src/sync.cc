// Flushing to the disk, on this thread or on the thread pool.
#include <unistd.h>

#include <string_view>

#include "pool_call.hh"
#include "syscalls.hh"

namespace varve {
namespace {

int64_t Fsync(int32_t fd) { return Result(::fsync(fd)); }

int64_t Fdatasync(int32_t fd) { return Result(::fdatasync(fd)); }

int64_t Syncfs(int32_t fd) { return Result(::syncfs(fd)); }

napi_value SyncAsync(napi_env env, const Path& kind, int32_t fd) {
  const std::string_view name(kind.c_str(), kind.length);
  const auto flush = name == "fsync" ? Fsync : name == "fdatasync" ? Fdatasync : Syncfs;
  return CallOnPool(env, "varve:sync", [=] { return flush(fd); });
}

constexpr Method kMethods[] = {
    {"fsync", Bind<Fsync>},
    {"fdatasync", Bind<Fdatasync>},
    {"syncfs", Bind<Syncfs>},
    {"syncAsync", Bind<SyncAsync>},
};

}  // namespace

Methods SyncMethods() { return kMethods; }

}  // namespace varve
