#include "pool_call.hh"

#include <cerrno>
#include <memory>
#include <utility>
#include <vector>

#include "arguments.hh"

namespace varve {
namespace {

// One call in flight; owned by the work item from queueing to completion.
struct PoolCall {
  std::function<int64_t()> work;
  int64_t result = 0;
  std::vector<napi_ref> references;
  napi_deferred deferred = nullptr;
  napi_async_work item = nullptr;
};

void Run(napi_env, void* data) {
  auto* call = static_cast<PoolCall*>(data);
  call->result = call->work();
}

void Finish(napi_env env, napi_status status, void* data) {
  std::unique_ptr<PoolCall> call(static_cast<PoolCall*>(data));
  for (napi_ref reference : call->references) napi_delete_reference(env, reference);
  if (status == napi_cancelled) call->result = -ECANCELED;
  napi_resolve_deferred(env, call->deferred, MakeNumber(env, call->result));
  napi_delete_async_work(env, call->item);
}

}  // namespace

napi_value CallOnPool(napi_env env, const char* label, std::function<int64_t()> work,
                      std::initializer_list<napi_value> kept) {
  auto call = std::make_unique<PoolCall>();
  call->work = std::move(work);
  napi_value name = nullptr;
  napi_value promise = nullptr;
  napi_create_string_utf8(env, label, NAPI_AUTO_LENGTH, &name);
  if (napi_create_promise(env, &call->deferred, &promise) != napi_ok) return nullptr;
  for (napi_value object : kept) {
    napi_create_reference(env, object, 1, &call->references.emplace_back());
  }
  napi_create_async_work(env, nullptr, name, Run, Finish, call.get(), &call->item);
  if (napi_queue_async_work(env, call->item) != napi_ok) {
    call->work = [] { return -EAGAIN; };
    Run(env, call.get());
    Finish(env, napi_ok, call.release());
    return promise;
  }
  call.release();  // Finish frees it
  return promise;
}

}  // namespace varve
