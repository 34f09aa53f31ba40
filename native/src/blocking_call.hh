// System calls that may wait for a reply of the very thread that makes them.
#pragma once

#include <napi.h>

#include <cerrno>
#include <cstdint>
#include <functional>
#include <thread>
#include <utility>

// Runs `work` on a thread of its own and resolves a promise with its result. Not the libuv pool:
// such a call may wait for a reply of the very session that asked, and a few of them would starve
// the fsync that the reply needs.
class BlockingCall {
 public:
  static Napi::Value Run(Napi::Env env, std::function<int()> work) {
    auto* call = new BlockingCall;
    napi_value promise;
    if (napi_create_promise(env, &call->deferred_, &promise) != napi_ok) {
      delete call;
      return env.Undefined();
    }
    napi_value name = Napi::String::New(env, "varve.fuse.blocking");
    napi_status status =
        napi_create_threadsafe_function(env, nullptr, nullptr, name, 0, 1, nullptr, nullptr, call,
                                        BlockingCall::Deliver, &call->function_);
    if (status != napi_ok) {
      napi_resolve_deferred(env, call->deferred_, Napi::Number::New(env, -EAGAIN));
      delete call;
      return Napi::Value(env, promise);
    }
    std::thread([function = call->function_, work = std::move(work)] {
      auto result = static_cast<intptr_t>(work());
      // napi_closing: the environment is gone and `call` with its deferred with it.
      if (napi_call_threadsafe_function(function, reinterpret_cast<void*>(result),
                                        napi_tsfn_nonblocking) == napi_ok) {
        napi_release_threadsafe_function(function, napi_tsfn_release);
      }
    }).detach();
    return Napi::Value(env, promise);
  }

 private:
  static void Deliver(napi_env env, napi_value, void* context, void* data) {
    auto* call = static_cast<BlockingCall*>(context);
    if (env != nullptr) {
      Napi::HandleScope scope(env);
      auto result = static_cast<double>(reinterpret_cast<intptr_t>(data));
      napi_resolve_deferred(env, call->deferred_, Napi::Number::New(env, result));
    }
    delete call;
  }

  napi_deferred deferred_ = nullptr;
  napi_threadsafe_function function_ = nullptr;
};
