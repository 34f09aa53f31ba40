#include "fuse_channel.hh"

#include <fcntl.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <unistd.h>
#include <uv.h>

#include <cassert>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

#include "blocking_call.hh"
#include "fuse_mount.hh"
#include "set_id_rights.hh"
#include "staged_body.hh"

namespace {

// linux/fuse.h of Debian 12 is 7.38; these came with 7.40.
struct BackingMap {
  int32_t fd;
  uint32_t flags;
  uint64_t padding;
};
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

class FuseChannel;

// Below it lie the errors of a reply in what an exchange returns, above it those of receiving.
constexpr int32_t kUnsent = -4096;

// What one exchange function works on. It keeps the JavaScript objects of all three alive.
struct Exchanged {
  FuseChannel* channel;
  void* request;
  size_t requestSize;
  void* reply;
  size_t replySize;
};

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
  ssize_t ReadPatiently(void* data, size_t size, uint32_t microseconds);
  Napi::Value Fd(const Napi::CallbackInfo& info);
  static napi_value Receive(napi_env env, napi_callback_info info);
  static napi_value Send(napi_env env, napi_callback_info info);
  static napi_value Exchange(napi_env env, napi_callback_info info);
  Napi::Value Exchanger(const Napi::CallbackInfo& info);
  Napi::Value Start(const Napi::CallbackInfo& info);
  void Stop(const Napi::CallbackInfo& info);
  Napi::Value BackingOpen(const Napi::CallbackInfo& info);
  Napi::Value BackingClose(const Napi::CallbackInfo& info);
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

// A method without node-addon-api around it. Those that serve requests run up to the very moment in
// which a thread is terminated; from then on `this` cannot be unwrapped, and node-addon-api's answer
// to that, an exception that cannot be thrown either, ends the process.
Napi::ClassPropertyDescriptor<FuseChannel> PlainMethod(const char* name, napi_callback call) {
  napi_property_descriptor method{};
  method.utf8name = name;
  method.method = call;
  method.attributes = napi_default_method;
  return Napi::ClassPropertyDescriptor<FuseChannel>(method);
}

// The channel that a plain method was called on, and its arguments; nullptr while the thread ends.
template <size_t N>
FuseChannel* ChannelOf(napi_env env, napi_callback_info info, napi_value (&arguments)[N]) {
  size_t count = N;
  napi_value receiver = nullptr;
  void* channel = nullptr;
  if (napi_get_cb_info(env, info, &count, arguments, &receiver, nullptr) != napi_ok) return nullptr;
  return napi_unwrap(env, receiver, &channel) == napi_ok ? static_cast<FuseChannel*>(channel)
                                                         : nullptr;
}

uint32_t ToUint32(napi_env env, napi_value value) {
  uint32_t number = 0;
  napi_get_value_uint32(env, value, &number);
  return number;
}

// A message's length or an error; no message is as long as 2 GiB.
napi_value FromResult(napi_env env, ssize_t result) {
  napi_value value = nullptr;
  napi_create_int32(env, static_cast<int32_t>(result), &value);
  return value;
}

Napi::Function FuseChannel::Define(Napi::Env env) {
  return DefineClass(env, "FuseChannel",
                     {
                         InstanceAccessor<&FuseChannel::Fd>("fd"),
                         PlainMethod("receive", FuseChannel::Receive),
                         PlainMethod("send", FuseChannel::Send),
                         InstanceMethod<&FuseChannel::Exchanger>("exchanger"),
                         InstanceMethod<&FuseChannel::Start>("start"),
                         InstanceMethod<&FuseChannel::Stop>("stop"),
                         InstanceMethod<&FuseChannel::BackingOpen>("backingOpen"),
                         InstanceMethod<&FuseChannel::BackingClose>("backingClose"),
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

// Tries again for so many microseconds. Each try first lets whoever shares this CPU run: it may be
// the very caller whose next request we wait for. Leaves errno as read(2) does.
ssize_t FuseChannel::ReadPatiently(void* data, size_t size, uint32_t microseconds) {
  using Clock = std::chrono::steady_clock;
  const auto deadline = Clock::now() + std::chrono::microseconds(microseconds);
  ssize_t n = -1;
  do {
    sched_yield();
    n = read(fd_, data, size);
  } while (n < 0 && errno == EAGAIN && Clock::now() < deadline);
  return n;
}

napi_value FuseChannel::Receive(napi_env env, napi_callback_info info) {
  napi_value arguments[1];
  FuseChannel* channel = ChannelOf(env, info, arguments);
  if (channel == nullptr) return nullptr;
  void* data = nullptr;
  size_t size = 0;
  napi_get_buffer_info(env, arguments[0], &data, &size);
  const ssize_t n = read(channel->fd_, data, size);
  return FromResult(env, n < 0 ? Fail() : n);
}

napi_value FuseChannel::Send(napi_env env, napi_callback_info info) {
  napi_value arguments[2];
  FuseChannel* channel = ChannelOf(env, info, arguments);
  if (channel == nullptr) return nullptr;
  void* data = nullptr;
  size_t size = 0;
  napi_get_buffer_info(env, arguments[0], &data, &size);
  const size_t length = ToUint32(env, arguments[1]);
  assert(length <= size);
  const ssize_t n = varve::SendMessage(channel->fd_, data, length);
  return FromResult(env, n < 0 ? Fail() : n);
}

// Called once for each request: finds all that it needs in its own data, where looking into
// JavaScript objects would take as long as the system calls of many requests.
napi_value FuseChannel::Exchange(napi_env env, napi_callback_info info) {
  napi_value arguments[2];
  size_t count = 2;
  void* data = nullptr;
  if (napi_get_cb_info(env, info, &count, arguments, nullptr, &data) != napi_ok) return nullptr;
  const auto& exchanged = *static_cast<Exchanged*>(data);
  FuseChannel& channel = *exchanged.channel;
  const size_t length = ToUint32(env, arguments[0]);
  assert(length <= exchanged.replySize);
  if (length > 0 && varve::SendMessage(channel.fd_, exchanged.reply, length) < 0) {
    return FromResult(env, kUnsent + Fail());
  }
  const uint32_t patience = ToUint32(env, arguments[1]);
  ssize_t n = read(channel.fd_, exchanged.request, exchanged.requestSize);
  if (n < 0 && errno == EAGAIN && patience > 0) {
    n = channel.ReadPatiently(exchanged.request, exchanged.requestSize, patience);
  }
  return FromResult(env, n < 0 ? Fail() : n);
}

Napi::Value FuseChannel::Exchanger(const Napi::CallbackInfo& info) {
  napi_env env = info.Env();
  auto* exchanged = new Exchanged{this, nullptr, 0, nullptr, 0};
  napi_get_buffer_info(env, info[0], &exchanged->request, &exchanged->requestSize);
  napi_get_buffer_info(env, info[1], &exchanged->reply, &exchanged->replySize);
  napi_value made = nullptr;
  napi_create_function(env, "exchange", NAPI_AUTO_LENGTH, Exchange, exchanged, &made);
  Napi::Function function(env, made);
  const char* const names[] = {"channel", "request", "reply"};
  const napi_value values[] = {info.This(), info[0], info[1]};
  for (int i = 0; i < 3; i++) {
    function.DefineProperty(Napi::PropertyDescriptor::Value(names[i], values[i]));
  }
  function.AddFinalizer([](Napi::Env, Exchanged* data) { delete data; }, exchanged);
  return function;
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
  WithoutSetIdRights dropped;
  int id = ioctl(fd_, kIocBackingOpen, &map);
  return Napi::Number::New(info.Env(), id < 0 ? Fail() : id);
}

Napi::Value FuseChannel::BackingClose(const Napi::CallbackInfo& info) {
  uint32_t id = info[0].As<Napi::Number>().Uint32Value();
  int result = ioctl(fd_, kIocBackingClose, &id);
  return Napi::Number::New(info.Env(), result < 0 ? Fail() : result);
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
