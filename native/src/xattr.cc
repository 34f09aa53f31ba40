#include "xattr.hh"

#include <fcntl.h>
#include <sys/syscall.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>

#include "old_kernel.hh"
#include "syscalls.hh"

namespace varve {
namespace {

// Linux 6.13; one number each on every architecture.
constexpr long kSysSetxattrat = 463;
constexpr long kSysGetxattrat = 464;
constexpr long kSysListxattrat = 465;
constexpr long kSysRemovexattrat = 466;

// struct xattr_args of linux/xattr.h, which older headers lack.
struct XattrArgs {
  alignas(8) uint64_t value;
  uint32_t size;
  uint32_t flags;
};
static_assert(sizeof(XattrArgs) == 16);

// Asked once, with a descriptor that cannot be: EBADF means that the kernel has the calls, ENOSYS
// that it has not, EPERM that a container's filter does not know them.
bool ProbeXattrat() {
  return !PretendsOldKernel() &&
         ::syscall(kSysListxattrat, -1, "x", 0, nullptr, 0) < 0 &&
         errno == EBADF;
}

const bool kHasXattrat = ProbeXattrat();

// A path for the calls that take no descriptor. /proc/self/fd/N is a jump to the very file, so it
// works for O_PATH descriptors and, as the last component with a following call, for symlinks too.
class ProcPath {
 public:
  ProcPath(int dirfd, const char* name) : dirfd_(dirfd) {
    if (*name == '/' || dirfd == AT_FDCWD) {
      std::snprintf(bytes_, sizeof bytes_, "%s", *name == '\0' ? "." : name);
      dirfd_ = AT_FDCWD;
    } else {
      std::snprintf(bytes_, sizeof bytes_, "/proc/self/fd/%d%s%s", dirfd, *name == '\0' ? "" : "/",
                    name);
    }
  }

  const char* c_str() const { return bytes_; }

  // The result of a call on this path; /proc has no entry for what is no descriptor.
  int64_t Result(int64_t returned) const {
    if (returned >= 0) return returned;
    const int error = errno;
    const bool isBad = error == ENOENT && dirfd_ != AT_FDCWD && ::fcntl(dirfd_, F_GETFD) < 0;
    return isBad ? -EBADF : -error;
  }

 private:
  int dirfd_;
  char bytes_[PATH_MAX + 32];
};

// Name "" is the descriptor. The f*xattr calls (and *xattrat with AT_EMPTY_PATH, the same inside)
// refuse O_PATH ones with EBADF; those take the path through /proc.

int64_t SetXattr(int dirfd, const char* name, const char* attribute, const Bytes& value,
                 int flags) {
  if (*name == '\0') {
    const int64_t done = Result(::fsetxattr(dirfd, attribute, value.data, value.length, flags));
    if (done != -EBADF) return done;
    const ProcPath path(dirfd, name);
    return path.Result(::setxattr(path.c_str(), attribute, value.data, value.length, flags));
  }
  if (kHasXattrat) {
    XattrArgs args = {reinterpret_cast<uint64_t>(value.data), static_cast<uint32_t>(value.length),
                      static_cast<uint32_t>(flags)};
    return Result(::syscall(kSysSetxattrat, dirfd, name, AT_SYMLINK_NOFOLLOW, attribute, &args,
                            sizeof args));
  }
  const ProcPath path(dirfd, name);
  return path.Result(::lsetxattr(path.c_str(), attribute, value.data, value.length, flags));
}

int64_t RemoveXattr(int dirfd, const char* name, const char* attribute) {
  if (*name == '\0') {
    const int64_t done = Result(::fremovexattr(dirfd, attribute));
    if (done != -EBADF) return done;
    const ProcPath path(dirfd, name);
    return path.Result(::removexattr(path.c_str(), attribute));
  }
  if (kHasXattrat) {
    return Result(::syscall(kSysRemovexattrat, dirfd, name, AT_SYMLINK_NOFOLLOW, attribute));
  }
  const ProcPath path(dirfd, name);
  return path.Result(::lremovexattr(path.c_str(), attribute));
}

int64_t GetOnce(int dirfd, const char* name, const char* attribute, void* to, size_t size) {
  if (*name == '\0') {
    const int64_t length = Result(::fgetxattr(dirfd, attribute, to, size));
    if (length != -EBADF) return length;
    const ProcPath path(dirfd, name);
    return path.Result(::getxattr(path.c_str(), attribute, to, size));
  }
  if (kHasXattrat) {
    XattrArgs args = {reinterpret_cast<uint64_t>(to), static_cast<uint32_t>(size), 0};
    return Result(::syscall(kSysGetxattrat, dirfd, name, AT_SYMLINK_NOFOLLOW, attribute, &args,
                            sizeof args));
  }
  const ProcPath path(dirfd, name);
  return path.Result(::lgetxattr(path.c_str(), attribute, to, size));
}

int64_t ListOnce(int dirfd, const char* name, char* to, size_t size) {
  if (*name == '\0') {
    const int64_t length = Result(::flistxattr(dirfd, to, size));
    if (length != -EBADF) return length;
    const ProcPath path(dirfd, name);
    return path.Result(::listxattr(path.c_str(), to, size));
  }
  if (kHasXattrat) {
    return Result(::syscall(kSysListxattrat, dirfd, name, AT_SYMLINK_NOFOLLOW, to, size));
  }
  const ProcPath path(dirfd, name);
  return path.Result(::llistxattr(path.c_str(), to, size));
}

// The kernel allocates (and for a value clears) as much as the caller offers, before it looks: 64 KiB
// at once made a call three times as slow. Hardly any value or list is longer than this.
constexpr size_t kFirstTry = 1024;

napi_value CopyToBuffer(napi_env env, const void* data, int64_t length) {
  if (length < 0) return MakeNumber(env, length);
  napi_value buffer = nullptr;
  napi_create_buffer_copy(env, static_cast<size_t>(length), data, nullptr, &buffer);
  return buffer;
}

napi_value Getxattrat(napi_env env, int32_t dirfd, const Path& name, const Path& attribute) {
  char value[kXattrMax];
  return CopyToBuffer(env, value,
                      GetXattr(dirfd, name.c_str(), attribute.c_str(), value, sizeof value));
}

int64_t Setxattrat(int32_t dirfd, const Path& name, const Path& attribute, const Bytes& value,
                   int32_t flags) {
  return SetXattr(dirfd, name.c_str(), attribute.c_str(), value, flags);
}

napi_value Listxattrat(napi_env env, int32_t dirfd, const Path& name) {
  char names[kXattrMax];
  return CopyToBuffer(env, names, ListXattr(dirfd, name.c_str(), names, sizeof names));
}

int64_t Removexattrat(int32_t dirfd, const Path& name, const Path& attribute) {
  return RemoveXattr(dirfd, name.c_str(), attribute.c_str());
}

constexpr Method kMethods[] = {
    {"getxattrat", Bind<Getxattrat>},
    {"setxattrat", Bind<Setxattrat>},
    {"listxattrat", Bind<Listxattrat>},
    {"removexattrat", Bind<Removexattrat>},
};

}  // namespace

int64_t GetXattr(int dirfd, const char* name, const char* attribute, void* to, size_t size) {
  const int64_t length = GetOnce(dirfd, name, attribute, to, std::min(size, kFirstTry));
  return length == -ERANGE ? GetOnce(dirfd, name, attribute, to, size) : length;
}

int64_t ListXattr(int dirfd, const char* name, char* to, size_t size) {
  const int64_t length = ListOnce(dirfd, name, to, std::min(size, kFirstTry));
  return length == -ERANGE ? ListOnce(dirfd, name, to, size) : length;
}

Methods XattrMethods() { return kMethods; }

}  // namespace varve
