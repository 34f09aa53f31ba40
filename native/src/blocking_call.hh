// System calls that may wait for a reply of the very thread that makes them.
#pragma once

#include <napi.h>
#include <pthread.h>

#include <cerrno>
#include <functional>
#include <memory>
#include <mutex>
#include <utility>

// Runs `work` on a thread of its own and resolves a promise with its result. Not the libuv pool:
// such a call may wait for a reply of the very session that asked, and a few of them would starve
// the fsync that the reply needs.
class BlockingCall {
 public:
  static Napi::Value Run(Napi::Env env, std::function<int()> work) {
    auto call = std::make_shared<BlockingCall>();
    napi_value promise;
    if (napi_create_promise(env, &call->deferred_, &promise) != napi_ok) return env.Undefined();
    napi_value name = Napi::String::New(env, "varve.fuse.blocking");
    auto* held = new std::shared_ptr<BlockingCall>(call);
    napi_status status = napi_create_threadsafe_function(
        env, nullptr, nullptr, name, 0, 1, held, BlockingCall::Forget, call.get(),
        BlockingCall::Deliver, &call->function_);
    if (status != napi_ok) {
      delete held;
      napi_resolve_deferred(env, call->deferred_, Napi::Number::New(env, -EAGAIN));
      return Napi::Value(env, promise);
    }
    Start(call, std::move(work));
    return Napi::Value(env, promise);
  }

 private:
  struct Task {
    std::shared_ptr<BlockingCall> call;
    std::function<int()> work;
  };

  // Not std::thread, which ends the process when there are too many: this resolves with -EAGAIN.
  static void Start(std::shared_ptr<BlockingCall> call, std::function<int()> work) {
    auto* task = new Task{std::move(call), std::move(work)};
    pthread_t thread;
    if (pthread_create(&thread, nullptr, BlockingCall::Main, task) == 0) {
      pthread_detach(thread);
    } else {
      task->call->Finish(-EAGAIN);
      delete task;
    }
  }

  static void* Main(void* data) {
    std::unique_ptr<Task> task(static_cast<Task*>(data));
    task->call->Finish(task->work());
    return nullptr;
  }

  // On the call's own thread.
  void Finish(int result) {
    std::lock_guard<std::mutex> lock(mutex_);
    if (function_ == nullptr) return;
    result_ = result;
    // Otherwise the environment is going, and nobody waits any more.
    if (napi_call_threadsafe_function(function_, nullptr, napi_tsfn_nonblocking) == napi_ok) {
      napi_release_threadsafe_function(function_, napi_tsfn_release);
    }
  }

  static void Deliver(napi_env env, napi_value, void* context, void*) {
    if (env == nullptr) return;  // After Forget: the context may be gone.
    auto* call = static_cast<BlockingCall*>(context);
    Napi::HandleScope scope(env);
    napi_resolve_deferred(env, call->deferred_, Napi::Number::New(env, call->result_));
  }

  // Node.js frees the function of an environment that ends whoever still holds it: a thread that is
  // terminated while a call is under way.
  static void Forget(napi_env, void* data, void*) {
    auto* held = static_cast<std::shared_ptr<BlockingCall>*>(data);
    {
      std::lock_guard<std::mutex> lock((*held)->mutex_);
      (*held)->function_ = nullptr;
    }
    delete held;
  }

  std::mutex mutex_;
  napi_deferred deferred_ = nullptr;
  napi_threadsafe_function function_ = nullptr;
  int result_ = 0;
};
