// Compression on the thread pool.
#include "codecs.hh"

#include <memory>

#include "arguments.hh"
#include "deflate.hh"

namespace varve {
namespace {

// One piece in flight; owned by the work item from queueing to completion.
struct PendingDeflate {
  int level;
  Slice data;
  size_t history;
  Bytes out;
  // Keep the memory of both buffers.
  napi_ref references[2] = {};
  size_t written = 0;
  napi_deferred deferred = nullptr;
  napi_async_work work = nullptr;
};

void RunDeflate(napi_env, void* data) {
  auto* pending = static_cast<PendingDeflate*>(data);
  const auto& [bytes, length] = pending->data;
  pending->written = Deflate(pending->level, bytes, pending->history, length, pending->out.data);
}

void FinishDeflate(napi_env env, napi_status status, void* data) {
  std::unique_ptr<PendingDeflate> pending(static_cast<PendingDeflate*>(data));
  for (napi_ref reference : pending->references) napi_delete_reference(env, reference);
  const int64_t result =
      status == napi_cancelled ? -ECANCELED : static_cast<int64_t>(pending->written);
  napi_resolve_deferred(env, pending->deferred, MakeNumber(env, result));
  napi_delete_async_work(env, pending->work);
}

napi_value DeflateAsync(napi_env env, int32_t level, const Kept<Slice>& data, int64_t history,
                        const Kept<Bytes>& out) {
  const auto length = static_cast<int64_t>(data.length);
  const bool isInRange = level >= kDeflateLowest && level <= kDeflateHighest && history >= 0 &&
                         history <= length && length <= INT32_MAX &&
                         out.length >= DeflateBound(static_cast<size_t>(length - history));
  if (!isInRange) return MakeNumber(env, -EINVAL);
  auto pending = std::make_unique<PendingDeflate>();
  pending->level = level;
  pending->data = data;
  pending->history = static_cast<size_t>(history);
  pending->out = out;
  napi_value label = nullptr;
  napi_value promise = nullptr;
  napi_create_string_utf8(env, "varve:deflate", NAPI_AUTO_LENGTH, &label);
  if (napi_create_promise(env, &pending->deferred, &promise) != napi_ok) return nullptr;
  napi_create_reference(env, data.value, 1, &pending->references[0]);
  napi_create_reference(env, out.value, 1, &pending->references[1]);
  napi_create_async_work(env, nullptr, label, RunDeflate, FinishDeflate, pending.get(),
                         &pending->work);
  if (napi_queue_async_work(env, pending->work) != napi_ok) {
    FinishDeflate(env, napi_cancelled, pending.release());
    return promise;
  }
  pending.release();  // FinishDeflate frees it
  return promise;
}

int64_t RoomForDeflate(int64_t length) {
  return length < 0 ? -EINVAL : static_cast<int64_t>(DeflateBound(static_cast<size_t>(length)));
}

constexpr Method kMethods[] = {
    {"deflateAsync", Bind<DeflateAsync>},
    {"deflateBound", Bind<RoomForDeflate>},
};

}  // namespace
}  // namespace varve

Napi::Object InitCodecs(Napi::Env env) {
  Napi::Object exports = Napi::Object::New(env);
  varve::DefineMethods(env, exports, varve::kMethods);
  return exports;
}
