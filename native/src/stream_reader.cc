#include "stream_reader.hh"

#include <fcntl.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <condition_variable>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "gunzip.hh"
#include "sha256.hh"

namespace {

// One buffer of the ring. It belongs to the reading thread until `isFull`, then to JavaScript until
// the buffer after it is asked for.
struct Slot {
  uint8_t* data = nullptr;
  size_t capacity = 0;
  int64_t result = 0;
  bool isFull = false;
};

class StreamReader : public Napi::ObjectWrap<StreamReader> {
 public:
  static Napi::Function Define(Napi::Env env) {
    return DefineClass(env, "StreamReader",
                       {
                           StaticValue("canHash", Napi::Boolean::New(env, varve::Sha256().isAvailable())),
                           StaticValue("canGunzip", Napi::Boolean::New(env, varve::CanGunzip())),
                           InstanceMethod<&StreamReader::Next>("next"),
                           InstanceMethod<&StreamReader::Consumed>("consumed"),
                           InstanceMethod<&StreamReader::Digest>("digest"),
                           InstanceMethod<&StreamReader::Close>("close"),
                       });
  }

  explicit StreamReader(const Napi::CallbackInfo& info);
  // Also at the end of the environment, when a worker thread is terminated.
  ~StreamReader() override { Stop(); }

 private:
  Napi::Value Next(const Napi::CallbackInfo& info);
  Napi::Value Consumed(const Napi::CallbackInfo& info);
  Napi::Value Digest(const Napi::CallbackInfo& info);
  Napi::Value Close(const Napi::CallbackInfo& info);

  bool TakeRing(const Napi::Value& value);
  void Run();
  int64_t Fill(Slot& slot);
  void Stop();

  int fd_ = -1;
  // Keeps the ring's memory, which JavaScript allocated.
  Napi::Reference<Napi::Array> buffers_;
  std::vector<Slot> ring_;
  // The slot that JavaScript has or is waiting for.
  size_t turn_ = 0;
  bool hasSlot_ = false;
  std::optional<varve::Gunzip> gunzip_;
  varve::Sha256 sha_;
  std::atomic<int64_t> consumed_ = 0;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool isStopped_ = false;
  std::thread thread_;
};

StreamReader::StreamReader(const Napi::CallbackInfo& info) : ObjectWrap(info) {
  if (!info[0].IsNumber() || !info[1].IsBoolean() || !TakeRing(info[2])) {
    Napi::TypeError::New(info.Env(), "StreamReader takes a descriptor, a boolean and a ring of buffers")
        .ThrowAsJavaScriptException();
    return;
  }
  const int fd = info[0].As<Napi::Number>().Int32Value();
  const bool isGzip = info[1].As<Napi::Boolean>();
  buffers_ = Napi::Persistent(info[2].As<Napi::Array>());
  // A descriptor of its own: the caller may close his while the thread still reads.
  fd_ = ::fcntl(fd, F_DUPFD_CLOEXEC, 3);
  if (isGzip) gunzip_.emplace(fd_);
  // Twice the read-ahead, for blobs that are not in the page cache. Pipes refuse it, harmlessly.
  ::posix_fadvise(fd_, 0, 0, POSIX_FADV_SEQUENTIAL);
  thread_ = std::thread([this] { Run(); });
}

bool StreamReader::TakeRing(const Napi::Value& value) {
  if (!value.IsArray()) return false;
  const auto buffers = value.As<Napi::Array>();
  for (uint32_t i = 0; i < buffers.Length(); i++) {
    const Napi::Value item = buffers.Get(i);
    if (!item.IsBuffer()) return false;
    const auto buffer = item.As<Napi::Buffer<uint8_t>>();
    if (buffer.Length() == 0 || buffer.Length() > UINT32_MAX) return false;
    ring_.push_back({buffer.Data(), buffer.Length(), 0, false});
  }
  // With one alone, the thread would have to write into what JavaScript reads.
  return ring_.size() >= 2;
}

int64_t StreamReader::Fill(Slot& slot) {
  if (gunzip_.has_value()) {
    const int64_t count = gunzip_->Read(slot.data, slot.capacity);
    consumed_.store(gunzip_->consumed(), std::memory_order_relaxed);
    return count;
  }
  // A pipe gives what it has: waiting for a whole buffer would only delay it.
  ssize_t count;
  do {
    count = ::read(fd_, slot.data, slot.capacity);
  } while (count < 0 && errno == EINTR);
  if (count < 0) return -errno;
  consumed_.fetch_add(count, std::memory_order_relaxed);
  return count;
}

void StreamReader::Run() {
  for (size_t at = 0;; at = (at + 1) % ring_.size()) {
    Slot& slot = ring_[at];
    {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [&] { return isStopped_ || !slot.isFull; });
      if (isStopped_) return;
    }
    const int64_t result = fd_ < 0 ? -EBADF : Fill(slot);
    if (result > 0 && sha_.isAvailable()) sha_.Update(slot.data, static_cast<size_t>(result));
    {
      std::lock_guard lock(mutex_);
      slot.result = result;
      slot.isFull = true;
    }
    changed_.notify_one();
    if (result <= 0) return;
  }
}

Napi::Value StreamReader::Next(const Napi::CallbackInfo& info) {
  std::unique_lock lock(mutex_);
  if (isStopped_) return Napi::Number::New(info.Env(), -ECANCELED);
  Slot* slot = &ring_[turn_];
  // The end stays the end, however often it is asked for.
  const bool isLast = hasSlot_ && slot->result <= 0;
  if (hasSlot_ && !isLast) {
    slot->isFull = false;
    changed_.notify_one();
    turn_ = (turn_ + 1) % ring_.size();
    slot = &ring_[turn_];
  }
  changed_.wait(lock, [&] { return slot->isFull; });
  hasSlot_ = true;
  return Napi::Number::New(info.Env(), static_cast<double>(slot->result));
}

Napi::Value StreamReader::Consumed(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), static_cast<double>(consumed_.load()));
}

Napi::Value StreamReader::Digest(const Napi::CallbackInfo& info) {
  Stop();
  if (!sha_.isAvailable()) return info.Env().Undefined();
  const auto digest = sha_.Finish();
  return Napi::Buffer<uint8_t>::Copy(info.Env(), digest.data(), digest.size());
}

Napi::Value StreamReader::Close(const Napi::CallbackInfo& info) {
  Stop();
  return info.Env().Undefined();
}

void StreamReader::Stop() {
  {
    std::lock_guard lock(mutex_);
    isStopped_ = true;
  }
  changed_.notify_all();
  if (thread_.joinable()) thread_.join();
  if (fd_ >= 0) ::close(fd_);
  fd_ = -1;
}

}  // namespace

Napi::Function DefineStreamReader(Napi::Env env) { return StreamReader::Define(env); }
