#include "xattr.hh"

#include <fcntl.h>
#include <sys/syscall.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>

#include "syscalls.hh"

namespace varve {
namespace {

// Linux 6.13; one number each on every architecture.
constexpr long kSysSetxattrat = 463;
constexpr long kSysGetxattrat = 464;
constexpr long kSysListxattrat = 465;
constexpr long kSysRemovexattrat = 466;

// struct xattr_args of linux/xattr.h, which Debian 12's headers lack.
struct XattrArgs {
  alignas(8) uint64_t value;
  uint32_t size;
  uint32_t flags;
};
static_assert(sizeof(XattrArgs) == 16);

// Asked once, with a descriptor that cannot be: EBADF means that the kernel has the calls, ENOSYS
// that it has not, EPERM that a container's filter does not know them.
bool ProbeXattrat() {
  // Lets the tests take the other path on a new kernel.
  if (const char* off = std::getenv("VARVE_NO_XATTRAT"); off != nullptr && *off == '1') return false;
  return ::syscall(kSysListxattrat, -1, "x", 0, nullptr, 0) < 0 && errno == EBADF;
}

const bool kHasXattrat = ProbeXattrat();

// A path for the calls that take no descriptor. /proc/self/fd/N is a jump to the very file, so it
// works for O_PATH descriptors and, as the last component with a following call, for symlinks too.
struct ProcPath {
  char bytes[PATH_MAX + 32];
  ProcPath(int dirfd, const char* name) {
    if (*name == '\0' && dirfd == AT_FDCWD) {
      std::snprintf(bytes, sizeof bytes, ".");
    } else if (*name == '\0') {
      std::snprintf(bytes, sizeof bytes, "/proc/self/fd/%d", dirfd);
    } else if (*name == '/' || dirfd == AT_FDCWD) {
      std::snprintf(bytes, sizeof bytes, "%s", name);
    } else {
      std::snprintf(bytes, sizeof bytes, "/proc/self/fd/%d/%s", dirfd, name);
    }
  }
};

// Name "" is the descriptor. The f*xattr calls (and *xattrat with AT_EMPTY_PATH, the same inside)
// refuse O_PATH ones with EBADF; those take the path through /proc.

int64_t SetXattr(int dirfd, const char* name, const char* attribute, const Bytes& value,
                 int flags) {
  if (*name == '\0') {
    const int64_t done = Result(::fsetxattr(dirfd, attribute, value.data, value.length, flags));
    if (done != -EBADF) return done;
    return Result(
        ::setxattr(ProcPath(dirfd, name).bytes, attribute, value.data, value.length, flags));
  }
  if (kHasXattrat) {
    XattrArgs args = {reinterpret_cast<uint64_t>(value.data), static_cast<uint32_t>(value.length),
                      static_cast<uint32_t>(flags)};
    return Result(::syscall(kSysSetxattrat, dirfd, name, AT_SYMLINK_NOFOLLOW, attribute, &args,
                            sizeof args));
  }
  return Result(
      ::lsetxattr(ProcPath(dirfd, name).bytes, attribute, value.data, value.length, flags));
}

int64_t RemoveXattr(int dirfd, const char* name, const char* attribute) {
  if (*name == '\0') {
    const int64_t done = Result(::fremovexattr(dirfd, attribute));
    if (done != -EBADF) return done;
    return Result(::removexattr(ProcPath(dirfd, name).bytes, attribute));
  }
  if (kHasXattrat) {
    return Result(::syscall(kSysRemovexattrat, dirfd, name, AT_SYMLINK_NOFOLLOW, attribute));
  }
  return Result(::lremovexattr(ProcPath(dirfd, name).bytes, attribute));
}

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
  if (*name == '\0') {
    const int64_t length = Result(::fgetxattr(dirfd, attribute, to, size));
    if (length != -EBADF) return length;
    return Result(::getxattr(ProcPath(dirfd, name).bytes, attribute, to, size));
  }
  if (kHasXattrat) {
    XattrArgs args = {reinterpret_cast<uint64_t>(to), static_cast<uint32_t>(size), 0};
    return Result(::syscall(kSysGetxattrat, dirfd, name, AT_SYMLINK_NOFOLLOW, attribute, &args,
                            sizeof args));
  }
  return Result(::lgetxattr(ProcPath(dirfd, name).bytes, attribute, to, size));
}

int64_t ListXattr(int dirfd, const char* name, char* to, size_t size) {
  if (*name == '\0') {
    const int64_t length = Result(::flistxattr(dirfd, to, size));
    if (length != -EBADF) return length;
    return Result(::listxattr(ProcPath(dirfd, name).bytes, to, size));
  }
  if (kHasXattrat) {
    return Result(::syscall(kSysListxattrat, dirfd, name, AT_SYMLINK_NOFOLLOW, to, size));
  }
  return Result(::llistxattr(ProcPath(dirfd, name).bytes, to, size));
}

Methods XattrMethods() { return kMethods; }

}  // namespace varve
