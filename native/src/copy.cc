// Copying much data between files, on the thread pool.
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <memory>

#include "pool_call.hh"
#include "syscalls.hh"

namespace varve {
namespace {

constexpr size_t kBufferBytes = 1 << 20;
// What one copy_file_range(2) is asked for: the kernel may stop for signals only between them.
constexpr int64_t kPieceBytes = 64 << 20;

// True for the errors of disks or kernels that cannot copy between these two files by themselves.
bool MustCopyByHand(int error) {
  return error == EXDEV || error == EOPNOTSUPP || error == EINVAL || error == ENOSYS;
}

int64_t CopyByHand(int from, int to, int64_t at, int64_t end) {
  auto buffer = std::make_unique<char[]>(kBufferBytes);
  while (at < end) {
    const size_t wanted = static_cast<size_t>(std::min<int64_t>(kBufferBytes, end - at));
    const ssize_t got = ::pread(from, buffer.get(), wanted, at);
    if (got < 0) return -errno;
    if (got == 0) return -EIO;
    for (ssize_t done = 0; done < got;) {
      const ssize_t put = ::pwrite(to, buffer.get() + done, static_cast<size_t>(got - done), at + done);
      if (put < 0) return -errno;
      done += put;
    }
    at += got;
  }
  return 0;
}

int64_t CopyRange(int from, int to, int64_t at, int64_t end) {
  while (at < end) {
    off_t in = at;
    off_t out = at;
    const auto piece = static_cast<size_t>(std::min(kPieceBytes, end - at));
    const ssize_t copied = ::copy_file_range(from, &in, to, &out, piece, 0);
    if (copied < 0 && MustCopyByHand(errno)) return CopyByHand(from, to, at, end);
    if (copied < 0) return -errno;
    if (copied == 0) return -EIO;
    at += copied;
  }
  return 0;
}

napi_value CopyRangeAsync(napi_env env, int32_t from, int32_t to, int64_t start, int64_t end) {
  return CallOnPool(env, "varve:copy", [=] { return CopyRange(from, to, start, end); });
}

constexpr Method kMethods[] = {
    {"copyRangeAsync", Bind<CopyRangeAsync>},
};

}  // namespace

Methods CopyMethods() { return kMethods; }

}  // namespace varve
