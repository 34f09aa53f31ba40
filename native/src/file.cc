// System calls on an open file's content.
#include <fcntl.h>
#include <linux/fs.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <unistd.h>

#include "syscalls.hh"

namespace varve {
namespace {

int64_t Ftruncate(int32_t fd, int64_t size) { return Result(::ftruncate(fd, size)); }

int64_t Fallocate(int32_t fd, int32_t mode, int64_t offset, int64_t length) {
  return Result(::fallocate(fd, mode, offset, length));
}

int64_t Lseek(int32_t fd, int64_t offset, int32_t whence) {
  return Result(::lseek(fd, offset, whence));
}

int64_t Pread(int32_t fd, const Slice& target, int64_t offset) {
  return Result(::pread(fd, target.data, target.length, offset));
}

int64_t Pwrite(int32_t fd, const Slice& data, int64_t offset) {
  return Result(::pwrite(fd, data.data, data.length, offset));
}

int64_t Read(int32_t fd, const Slice& target) {
  return Result(::read(fd, target.data, target.length));
}

int64_t CopyFileRange(int32_t fromFd, int64_t fromOffset, int32_t toFd, int64_t toOffset,
                      int64_t length) {
  if (length < 0) return -EINVAL;
  loff_t from = fromOffset;
  loff_t to = toOffset;
  return Result(::copy_file_range(fromFd, &from, toFd, &to, static_cast<size_t>(length), 0));
}

int64_t Ficlone(int32_t toFd, int32_t fromFd) { return Result(::ioctl(toFd, FICLONE, fromFd)); }

napi_value Pipe(napi_env env) {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) return MakeNumber(env, -errno);
  napi_value result = nullptr;
  napi_create_array_with_length(env, 2, &result);
  for (uint32_t i = 0; i < 2; i++) napi_set_element(env, result, i, MakeNumber(env, ends[i]));
  return result;
}

napi_value Fstatfs(napi_env env, int32_t fd) {
  struct statfs fs;
  if (::fstatfs(fd, &fs) != 0) return MakeNumber(env, -errno);
  // f_type is signed in C but an unsigned 32-bit magic number to everyone.
  const double fields[] = {
      static_cast<double>(fs.f_blocks),  static_cast<double>(fs.f_bfree),
      static_cast<double>(fs.f_bavail),  static_cast<double>(fs.f_files),
      static_cast<double>(fs.f_ffree),   static_cast<double>(fs.f_bsize),
      static_cast<double>(fs.f_namelen), static_cast<double>(fs.f_frsize),
      static_cast<double>(static_cast<uint32_t>(fs.f_type)),
  };
  napi_value result = nullptr;
  napi_create_array_with_length(env, std::size(fields), &result);
  for (uint32_t i = 0; i < std::size(fields); i++) {
    napi_value field = nullptr;
    napi_create_double(env, fields[i], &field);
    napi_set_element(env, result, i, field);
  }
  return result;
}

int64_t Umask(uint32_t mask) { return ::umask(mask); }

int64_t Flock(int32_t fd, int32_t operation) { return Result(::flock(fd, operation)); }

int64_t SetPipeSize(int32_t fd, int32_t size) { return Result(::fcntl(fd, F_SETPIPE_SZ, size)); }

constexpr Method kMethods[] = {
    {"ftruncate", Bind<Ftruncate>},
    {"fallocate", Bind<Fallocate>},
    {"lseek", Bind<Lseek>},
    {"pread", Bind<Pread>},
    {"pwrite", Bind<Pwrite>},
    {"read", Bind<Read>},
    {"copyFileRange", Bind<CopyFileRange>},
    {"ficlone", Bind<Ficlone>},
    {"fstatfs", Bind<Fstatfs>},
    {"umask", Bind<Umask>},
    {"flock", Bind<Flock>},
    {"pipe", Bind<Pipe>},
    {"setPipeSize", Bind<SetPipeSize>},
};

}  // namespace

Methods FileMethods() { return kMethods; }

}  // namespace varve
