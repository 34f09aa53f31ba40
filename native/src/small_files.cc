// Reading many small files in one call.
#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstring>

#include "pool_call.hh"
#include "syscalls.hh"

namespace varve {
namespace {

// Numbers of each file: before, the bytes wanted; after, the bytes read or a negative errno, the
// inode number and the size.
constexpr size_t kSlots = 3;

int OpenFile(int directory, const char* path) {
  open_how how{};
  // O_NONBLOCK: should a fifo have taken the place of a file meanwhile, opening it must not hang.
  how.flags = O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK;
  how.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS;
  return static_cast<int>(::syscall(SYS_openat2, directory, path, &how, sizeof how));
}

// Up to `length` bytes from the start; fewer only at the end. A negative errno on failure.
int64_t ReadFrom(int fd, uint8_t* to, size_t length) {
  size_t done = 0;
  while (done < length) {
    const ssize_t count = ::pread(fd, to + done, length - done, static_cast<off_t>(done));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return -errno;
    if (count == 0) break;
    done += static_cast<size_t>(count);
  }
  return static_cast<int64_t>(done);
}

void ReadFile(int directory, const char* path, double* numbers, uint8_t* to) {
  const auto wanted = static_cast<size_t>(numbers[0]);
  const int fd = OpenFile(directory, path);
  struct stat stat;
  if (fd < 0 || ::fstat(fd, &stat) != 0) {
    numbers[0] = -errno;
  } else {
    numbers[0] = static_cast<double>(ReadFrom(fd, to, wanted));
    numbers[1] = static_cast<double>(stat.st_ino);
    numbers[2] = static_cast<double>(stat.st_size);
  }
  if (fd >= 0) ::close(fd);
}

// True when there is a path for each file, and room for all bytes wanted.
bool IsSound(const Bytes& paths, const Doubles& numbers, const Bytes& out) {
  if (numbers.length % kSlots != 0) return false;
  size_t ends = 0;
  for (size_t i = 0; i < paths.length; i++) ends += paths.data[i] == 0 ? 1 : 0;
  if (ends != numbers.length / kSlots) return false;
  double room = static_cast<double>(out.length);
  for (size_t i = 0; i < numbers.length; i += kSlots) {
    if (!(numbers.data[i] >= 0 && numbers.data[i] <= room)) return false;
    room -= numbers.data[i];
  }
  return true;
}

napi_value ReadFilesAsync(napi_env env, int32_t directory, const Kept<Bytes>& paths,
                          const Kept<Doubles>& numbers, const Kept<Bytes>& out) {
  if (!IsSound(paths, numbers, out)) return MakeNumber(env, -EINVAL);
  const auto work = [directory, path = reinterpret_cast<const char*>(paths.data),
                     all = Doubles{numbers}, to = out.data]() mutable {
    for (size_t i = 0; i < all.length; i += kSlots) {
      const auto wanted = static_cast<size_t>(all.data[i]);
      ReadFile(directory, path, all.data + i, to);
      path += std::strlen(path) + 1;
      to += wanted;
    }
    return int64_t{0};
  };
  return CallOnPool(env, "varve:read-files", work, {paths.value, numbers.value, out.value});
}

constexpr Method kMethods[] = {
    {"readFilesAsync", Bind<ReadFilesAsync>},
};

}  // namespace

Methods SmallFileMethods() { return kMethods; }

}  // namespace varve
