// Blocking work on libuv's thread pool, whose result resolves a promise.
#pragma once

#include <node_api.h>

#include <cstdint>
#include <functional>
#include <initializer_list>

namespace varve {

// Queues `work`; the promise resolves with what it returns, -ECANCELED when the environment ends
// first, or -EAGAIN when it cannot be queued. It never rejects. The objects `kept`, whose memory the
// work uses, stay alive until then.
napi_value CallOnPool(napi_env env, const char* label, std::function<int64_t()> work,
                      std::initializer_list<napi_value> kept = {});

}  // namespace varve
