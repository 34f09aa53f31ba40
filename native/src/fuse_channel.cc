#include "fuse_channel.hh"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/uio.h>
#include <unistd.h>
#include <uv.h>

#include <cassert>
#include <cerrno>
#include <cstdint>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "fuse_mount.hh"

namespace {

// linux/fuse.h of Debian 12 is 7.38; these came with 7.40.
struct BackingMap {
  int32_t fd;
  uint32_t flags;
  uint64_t padding;
};
constexpr unsigned long kIocClone = _IOR(229, 0, uint32_t);
constexpr unsigned long kIocBackingOpen = _IOW(229, 1, BackingMap);
constexpr unsigned long kIocBackingClose = _IOW(229, 2, uint32_t);

int Fail() { return -errno; }

// A ByteString: one byte per character.
std::string Bytes(const Napi::Value& value) {
  size_t length = 0;
  napi_get_value_string_latin1(value.Env(), value, nullptr, 0, &length);
  std::string text(length, '\0');
  napi_get_value_string_latin1(value.Env(), value, text.data(), length + 1, &length);
  return text;
}

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

class FuseChannel;

// The poll handle of a started channel. It outlives the channel's interest in it until libuv has
// closed it, and keeps the environment's teardown waiting for that (libuv aborts otherwise).
struct Poll {
  uv_poll_t handle;
  FuseChannel* channel;
  napi_async_cleanup_hook_handle hook;
  bool closing;

  static void Close(Poll* poll);
  static void OnClosed(uv_handle_t* handle);
  static void OnReadable(uv_poll_t* handle, int status, int events);
  static void OnTeardown(napi_async_cleanup_hook_handle hook, void* data);
};

// Owns one /dev/fuse descriptor. JavaScript calls it on the thread of its environment only.
class FuseChannel : public Napi::ObjectWrap<FuseChannel> {
 public:
  static Napi::Function Define(Napi::Env env);

  explicit FuseChannel(const Napi::CallbackInfo& info)
      : Napi::ObjectWrap<FuseChannel>(info), fd_(info[0].As<Napi::Number>().Int32Value()) {}

  ~FuseChannel() override { Shut(); }

  void Readable();
  // Stops polling and closes the descriptor; the wrapper object may live on.
  void Shut();

 private:
  Napi::Value Fd(const Napi::CallbackInfo& info);
  Napi::Value Receive(const Napi::CallbackInfo& info);
  Napi::Value Send(const Napi::CallbackInfo& info);
  Napi::Value Start(const Napi::CallbackInfo& info);
  void Stop(const Napi::CallbackInfo& info);
  Napi::Value BackingOpen(const Napi::CallbackInfo& info);
  Napi::Value BackingClose(const Napi::CallbackInfo& info);
  Napi::Value Clone(const Napi::CallbackInfo& info);
  Napi::Value NotifyAsync(const Napi::CallbackInfo& info);
  void Close(const Napi::CallbackInfo& info);
  void StopPolling();

  int fd_;
  Poll* poll_ = nullptr;
  Napi::FunctionReference onReadable_;
};

void Poll::Close(Poll* poll) {
  poll->channel = nullptr;
  if (poll->closing) return;
  poll->closing = true;
  uv_close(reinterpret_cast<uv_handle_t*>(&poll->handle), Poll::OnClosed);
}

void Poll::OnClosed(uv_handle_t* handle) {
  auto* poll = static_cast<Poll*>(handle->data);
  napi_remove_async_cleanup_hook(poll->hook);
  delete poll;
}

void Poll::OnReadable(uv_poll_t* handle, int, int) {
  auto* poll = static_cast<Poll*>(handle->data);
  if (poll->channel != nullptr) poll->channel->Readable();
}

void Poll::OnTeardown(napi_async_cleanup_hook_handle, void* data) {
  auto* poll = static_cast<Poll*>(data);
  // Closing the descriptor here aborts the connection, so that nobody waits for a reply which this
  // thread will never send.
  if (poll->channel != nullptr) {
    poll->channel->Shut();
  } else {
    Poll::Close(poll);
  }
}

Napi::Function FuseChannel::Define(Napi::Env env) {
  return DefineClass(env, "FuseChannel",
                     {
                         InstanceAccessor<&FuseChannel::Fd>("fd"),
                         InstanceMethod<&FuseChannel::Receive>("receive"),
                         InstanceMethod<&FuseChannel::Send>("send"),
                         InstanceMethod<&FuseChannel::Start>("start"),
                         InstanceMethod<&FuseChannel::Stop>("stop"),
                         InstanceMethod<&FuseChannel::BackingOpen>("backingOpen"),
                         InstanceMethod<&FuseChannel::BackingClose>("backingClose"),
                         InstanceMethod<&FuseChannel::Clone>("clone"),
                         InstanceMethod<&FuseChannel::NotifyAsync>("notifyAsync"),
                         InstanceMethod<&FuseChannel::Close>("close"),
                     });
}

void FuseChannel::Readable() {
  napi_env env = Env();
  Napi::HandleScope scope(env);
  // The handle scope keeps the function alive should it call stop() or close(). No async context
  // for the same reason: close() would free it under the call that uses it.
  napi_value callback = onReadable_.Value();
  napi_value receiver = Value();
  napi_status status = napi_make_callback(env, nullptr, receiver, callback, 0, nullptr, nullptr);
  bool pending = false;
  if (status != napi_ok && napi_is_exception_pending(env, &pending) == napi_ok && pending) {
    napi_value error;
    if (napi_get_and_clear_last_exception(env, &error) == napi_ok) napi_fatal_exception(env, error);
  }
}

void FuseChannel::StopPolling() {
  if (poll_ == nullptr) return;
  Poll::Close(poll_);
  poll_ = nullptr;
  onReadable_.Reset();
  Unref();
}

void FuseChannel::Shut() {
  StopPolling();
  if (fd_ >= 0) {
    close(fd_);
    fd_ = -1;
  }
}

Napi::Value FuseChannel::Fd(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), fd_);
}

Napi::Value FuseChannel::Receive(const Napi::CallbackInfo& info) {
  void* data = nullptr;
  size_t size = 0;
  napi_get_buffer_info(info.Env(), info[0], &data, &size);
  ssize_t n = read(fd_, data, size);
  return Napi::Number::New(info.Env(), static_cast<double>(n < 0 ? Fail() : n));
}

Napi::Value FuseChannel::Send(const Napi::CallbackInfo& info) {
  napi_env env = info.Env();
  iovec parts[2] = {};
  int count = 1;
  size_t size = 0;
  napi_get_buffer_info(env, info[0], &parts[0].iov_base, &size);
  parts[0].iov_len = info[1].As<Napi::Number>().Uint32Value();
  assert(parts[0].iov_len <= size);
  size_t length = info[4].As<Napi::Number>().Uint32Value();
  if (length > 0) {
    size_t start = info[3].As<Napi::Number>().Uint32Value();
    napi_get_buffer_info(env, info[2], &parts[1].iov_base, &size);
    assert(start + length <= size);
    parts[1].iov_base = static_cast<char*>(parts[1].iov_base) + start;
    parts[1].iov_len = length;
    count = 2;
  }
  ssize_t n = count == 1 ? write(fd_, parts[0].iov_base, parts[0].iov_len)
                         : writev(fd_, parts, count);
  return Napi::Number::New(env, static_cast<double>(n < 0 ? Fail() : n));
}

Napi::Value FuseChannel::Start(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  if (poll_ != nullptr) return Napi::Number::New(env, 0);
  uv_loop_t* loop = nullptr;
  napi_get_uv_event_loop(env, &loop);
  auto* poll = new Poll{};
  int error = uv_poll_init(loop, &poll->handle, fd_);
  if (error != 0) {
    delete poll;
    return Napi::Number::New(env, error);
  }
  poll->handle.data = poll;
  poll->channel = this;
  napi_add_async_cleanup_hook(env, Poll::OnTeardown, poll, &poll->hook);
  poll_ = poll;
  onReadable_ = Napi::Persistent(info[0].As<Napi::Function>());
  Ref();
  error = uv_poll_start(&poll->handle, UV_READABLE, Poll::OnReadable);
  if (error != 0) StopPolling();
  return Napi::Number::New(env, error);
}

void FuseChannel::Stop(const Napi::CallbackInfo&) { StopPolling(); }

void FuseChannel::Close(const Napi::CallbackInfo&) { Shut(); }

Napi::Value FuseChannel::BackingOpen(const Napi::CallbackInfo& info) {
  BackingMap map{info[0].As<Napi::Number>().Int32Value(), 0, 0};
  int id = ioctl(fd_, kIocBackingOpen, &map);
  return Napi::Number::New(info.Env(), id < 0 ? Fail() : id);
}

Napi::Value FuseChannel::BackingClose(const Napi::CallbackInfo& info) {
  uint32_t id = info[0].As<Napi::Number>().Uint32Value();
  int result = ioctl(fd_, kIocBackingClose, &id);
  return Napi::Number::New(info.Env(), result < 0 ? Fail() : result);
}

Napi::Value FuseChannel::Clone(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  int fd = open("/dev/fuse", O_RDWR | O_NONBLOCK | O_CLOEXEC);
  if (fd < 0) return Napi::Number::New(env, Fail());
  auto source = static_cast<uint32_t>(fd_);
  if (ioctl(fd, kIocClone, &source) != 0) {
    int error = Fail();
    close(fd);
    return Napi::Number::New(env, error);
  }
  Napi::Function constructor = info.This().As<Napi::Object>().Get("constructor").As<Napi::Function>();
  return constructor.New({Napi::Number::New(env, fd)});
}

Napi::Value FuseChannel::NotifyAsync(const Napi::CallbackInfo& info) {
  void* data = nullptr;
  size_t size = 0;
  napi_get_buffer_info(info.Env(), info[0], &data, &size);
  std::vector<char> message(static_cast<char*>(data), static_cast<char*>(data) + size);
  // A descriptor of its own, so that a close() meanwhile cannot make this write reach another file.
  int fd = fcntl(fd_, F_DUPFD_CLOEXEC, 3);
  int error = fd < 0 ? Fail() : 0;
  return BlockingCall::Run(info.Env(), [fd, error, message = std::move(message)] {
    if (fd < 0) return error;
    int result = write(fd, message.data(), message.size()) < 0 ? Fail() : 0;
    close(fd);
    return result;
  });
}

Napi::Object MakeChannel(const Napi::CallbackInfo& info, int fd) {
  auto* constructor = static_cast<Napi::FunctionReference*>(info.Data());
  return constructor->New({Napi::Number::New(info.Env(), fd)});
}

Napi::Value MountDirectCall(const Napi::CallbackInfo& info) {
  int fd = MountDirect(Bytes(info[0]), Bytes(info[1]), info[2].As<Napi::Number>().Uint32Value(),
                       Bytes(info[3]));
  if (fd < 0) return Napi::Number::New(info.Env(), fd);
  return MakeChannel(info, fd);
}

Napi::Value MountThroughHelperCall(const Napi::CallbackInfo& info) {
  std::string message;
  int fd = MountThroughHelper(Bytes(info[0]), Bytes(info[1]), message);
  if (fd >= 0) return MakeChannel(info, fd);
  if (!message.empty()) return Napi::String::New(info.Env(), message);
  return Napi::Number::New(info.Env(), fd);
}

Napi::Value FromDescriptorCall(const Napi::CallbackInfo& info) {
  return MakeChannel(info, info[0].As<Napi::Number>().Int32Value());
}

Napi::Value UmountAsyncCall(const Napi::CallbackInfo& info) {
  int flags = info[1].As<Napi::Number>().Int32Value();
  return BlockingCall::Run(info.Env(), [target = Bytes(info[0]), flags] {
    return umount2(target.c_str(), flags) != 0 ? Fail() : 0;
  });
}

}  // namespace

Napi::Object InitFuse(Napi::Env env) {
  // Lives as long as the environment: freed by the cleanup hook, after the last call.
  auto* constructor = new Napi::FunctionReference;
  *constructor = Napi::Persistent(FuseChannel::Define(env));
  env.AddCleanupHook([](Napi::FunctionReference* reference) { delete reference; }, constructor);

  Napi::Object fuse = Napi::Object::New(env);
  fuse.Set("mountDirect", Napi::Function::New(env, MountDirectCall, "mountDirect", constructor));
  fuse.Set("mountThroughHelper",
           Napi::Function::New(env, MountThroughHelperCall, "mountThroughHelper", constructor));
  fuse.Set("fromDescriptor",
           Napi::Function::New(env, FromDescriptorCall, "fromDescriptor", constructor));
  fuse.Set("umountAsync", Napi::Function::New(env, UmountAsyncCall, "umountAsync"));
  return fuse;
}
