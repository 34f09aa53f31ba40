// Flushing to the disk, on this thread or on the thread pool.
#include <unistd.h>

#include <memory>
#include <string_view>

#include "syscalls.hh"

namespace varve {
namespace {

int64_t Fsync(int32_t fd) { return Result(::fsync(fd)); }

int64_t Fdatasync(int32_t fd) { return Result(::fdatasync(fd)); }

int64_t Syncfs(int32_t fd) { return Result(::syncfs(fd)); }

// One flush in flight; owned by the work item from queueing to completion.
struct PendingSync {
  int64_t (*flush)(int32_t);
  int32_t fd;
  int64_t result = 0;
  napi_deferred deferred = nullptr;
  napi_async_work work = nullptr;
};

void RunSync(napi_env, void* data) {
  auto* pending = static_cast<PendingSync*>(data);
  pending->result = pending->flush(pending->fd);
}

void FinishSync(napi_env env, napi_status status, void* data) {
  std::unique_ptr<PendingSync> pending(static_cast<PendingSync*>(data));
  if (status == napi_cancelled) pending->result = -ECANCELED;
  napi_resolve_deferred(env, pending->deferred, MakeNumber(env, pending->result));
  napi_delete_async_work(env, pending->work);
}

napi_value SyncAsync(napi_env env, const Path& kind, int32_t fd) {
  auto pending = std::make_unique<PendingSync>();
  const std::string_view name(kind.c_str(), kind.length);
  pending->fd = fd;
  pending->flush = name == "fsync" ? Fsync : name == "fdatasync" ? Fdatasync : Syncfs;
  napi_value label = nullptr;
  napi_value promise = nullptr;
  napi_create_string_utf8(env, "varve:sync", NAPI_AUTO_LENGTH, &label);
  if (napi_create_promise(env, &pending->deferred, &promise) != napi_ok) return nullptr;
  napi_create_async_work(env, nullptr, label, RunSync, FinishSync, pending.get(), &pending->work);
  if (napi_queue_async_work(env, pending->work) != napi_ok) {
    napi_delete_async_work(env, pending->work);
    napi_resolve_deferred(env, pending->deferred, MakeNumber(env, -EAGAIN));
    return promise;
  }
  pending.release();  // FinishSync frees it
  return promise;
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
