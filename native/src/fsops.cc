// System calls on names: open, make, link, rename, remove, and change what a name refers to.
#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdio>

#include "old_kernel.hh"
#include "syscalls.hh"

#ifndef SYS_fchmodat2
#define SYS_fchmodat2 452  // Linux 6.6; one number on every architecture
#endif

namespace varve {
namespace {

// Every descriptor is close-on-exec: the daemon starts children, and one that kept a layer's
// directory or a FUSE connection open would keep it busy.

int64_t Open(const Path& path, int32_t flags, uint32_t mode) {
  return Result(::open(path.c_str(), flags | O_CLOEXEC, mode));
}

int64_t Openat(int32_t dirfd, const Path& name, int32_t flags, uint32_t mode) {
  return Result(::openat(dirfd, name.c_str(), flags | O_CLOEXEC, mode));
}

int64_t Openat2(int32_t dirfd, const Path& path, uint32_t flags, uint32_t mode, int64_t resolve) {
  struct open_how how = {};
  how.flags = flags | O_CLOEXEC;
  // Unlike openat, openat2 refuses a mode where nothing can be created, and bits beyond 07777.
  const bool creates = (flags & O_CREAT) != 0 || (flags & O_TMPFILE) == O_TMPFILE;
  how.mode = creates ? mode & 07777 : 0;
  how.resolve = static_cast<uint64_t>(resolve);
  return Result(::syscall(SYS_openat2, dirfd, path.c_str(), &how, sizeof how));
}

int64_t Close(int32_t fd) { return Result(::close(fd)); }

napi_value Readlinkat(napi_env env, int32_t dirfd, const Path& name) {
  char target[PATH_MAX];
  const ssize_t length = ::readlinkat(dirfd, name.c_str(), target, sizeof target);
  if (length < 0) return MakeNumber(env, -errno);
  napi_value value = nullptr;
  napi_create_string_latin1(env, target, static_cast<size_t>(length), &value);
  return value;
}

int64_t Symlinkat(const Path& target, int32_t dirfd, const Path& name) {
  return Result(::symlinkat(target.c_str(), dirfd, name.c_str()));
}

int64_t Mkdirat(int32_t dirfd, const Path& name, uint32_t mode) {
  return Result(::mkdirat(dirfd, name.c_str(), mode));
}

int64_t Mknodat(int32_t dirfd, const Path& name, uint32_t mode, uint32_t rdev) {
  // The raw call, because its device number already is in new_encode_dev form.
  return Result(::syscall(SYS_mknodat, dirfd, name.c_str(), mode, rdev));
}

int64_t Linkat(int32_t oldDirfd, const Path& oldName, int32_t newDirfd, const Path& newName,
               int32_t flags) {
  return Result(::linkat(oldDirfd, oldName.c_str(), newDirfd, newName.c_str(), flags));
}

int64_t Unlinkat(int32_t dirfd, const Path& name, int32_t flags) {
  return Result(::unlinkat(dirfd, name.c_str(), flags));
}

int64_t Renameat2(int32_t oldDirfd, const Path& oldName, int32_t newDirfd, const Path& newName,
                  uint32_t flags) {
  return Result(
      ::syscall(SYS_renameat2, oldDirfd, oldName.c_str(), newDirfd, newName.c_str(), flags));
}

int64_t Fchmod(int32_t fd, uint32_t mode) { return Result(::fchmod(fd, mode)); }

// A kernel without the call answers ENOSYS; a container's filter that never heard of it, EPERM.
const bool kHasFchmodat2 = !PretendsOldKernel() &&
                           ::syscall(SYS_fchmodat2, -1, "", 0, AT_EMPTY_PATH) != 0 &&
                           errno == EBADF;

int64_t Fchmodat(int32_t dirfd, const Path& name, uint32_t mode) {
  if (kHasFchmodat2) {
    const int flags = AT_SYMLINK_NOFOLLOW | (name.empty() ? AT_EMPTY_PATH : 0);
    return Result(::syscall(SYS_fchmodat2, dirfd, name.c_str(), mode, flags));
  }
  if (!name.empty()) return Result(::fchmodat(dirfd, name.c_str(), mode, AT_SYMLINK_NOFOLLOW));
  char path[64];
  std::snprintf(path, sizeof path, "/proc/self/fd/%d", dirfd);
  return Result(::chmod(path, mode));
}

int64_t Fchownat(int32_t dirfd, const Path& name, int64_t uid, int64_t gid, int32_t flags) {
  return Result(::fchownat(dirfd, name.c_str(), static_cast<uid_t>(uid), static_cast<gid_t>(gid),
                           flags));
}

int64_t Utimensat(int32_t dirfd, const Path& name, int64_t atimeSec, int64_t atimeNsec,
                  int64_t mtimeSec, int64_t mtimeNsec, int32_t flags) {
  const struct timespec times[2] = {{atimeSec, static_cast<long>(atimeNsec)},
                                    {mtimeSec, static_cast<long>(mtimeNsec)}};
  return Result(::utimensat(dirfd, name.c_str(), times, flags));
}

constexpr Method kMethods[] = {
    {"open", Bind<Open>},
    {"openat", Bind<Openat>},
    {"openat2", Bind<Openat2>},
    {"close", Bind<Close>},
    {"readlinkat", Bind<Readlinkat>},
    {"symlinkat", Bind<Symlinkat>},
    {"mkdirat", Bind<Mkdirat>},
    {"mknodat", Bind<Mknodat>},
    {"linkat", Bind<Linkat>},
    {"unlinkat", Bind<Unlinkat>},
    {"renameat2", Bind<Renameat2>},
    {"fchmod", Bind<Fchmod>},
    {"fchmodat", Bind<Fchmodat>},
    {"fchownat", Bind<Fchownat>},
    {"utimensat", Bind<Utimensat>},
};

}  // namespace

Methods FsopsMethods() { return kMethods; }

}  // namespace varve
