// Who is at the other end of a socket, and doing to files what that user may do.
//
// The kernel keeps credentials per thread, and the C library's wrappers change them for all threads of
// a process. So a thread of its own makes the bare system calls and ends afterwards: nothing else of the
// process ever runs with them. It changes fsuid and fsgid only, not the user ID: a thread with the
// caller's user ID could be signalled by the caller, and a signal ends the process.
#include <fcntl.h>
#include <linux/magic.h>
#include <linux/openat2.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <string>
#include <vector>

#include "blocking_call.hh"
#include "syscalls.hh"

namespace varve {
namespace {

// More than any login has; the kernel allows 65,536.
constexpr size_t kMaxGroups = 65536;

// [pid, uid, gid, ...groups] of who connected, or a negative errno.
napi_value PeerCredentials(napi_env env, int32_t socket) {
  ucred peer{};
  socklen_t size = sizeof peer;
  if (::getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0) {
    return MakeNumber(env, -errno);
  }
  std::vector<gid_t> groups(64);
  for (;;) {
    size = static_cast<socklen_t>(groups.size() * sizeof(gid_t));
    if (::getsockopt(socket, SOL_SOCKET, SO_PEERGROUPS, groups.data(), &size) == 0) break;
    // ERANGE: it says how much it wants.
    if (errno != ERANGE || size > kMaxGroups * sizeof(gid_t)) return MakeNumber(env, -errno);
    groups.resize(size / sizeof(gid_t));
  }
  groups.resize(size / sizeof(gid_t));
  napi_value result = nullptr;
  napi_create_array(env, &result);
  uint32_t at = 0;
  const auto add = [&](int64_t number) { napi_set_element(env, result, at++, MakeNumber(env, number)); };
  add(peer.pid);
  add(peer.uid);
  add(peer.gid);
  for (gid_t group : groups) add(group);
  return result;
}

struct Identity {
  // -1: this process's own.
  int64_t uid;
  int64_t gid;
  std::vector<gid_t> groups;
  bool isOwn() const { return uid < 0; }
};

// Makes this thread act on files as `who`: 0 or a negative errno.
int Assume(const Identity& who) {
  if (who.isOwn()) return 0;
  if (::syscall(SYS_setgroups, who.groups.size(), who.groups.data()) != 0) return -errno;
  // They answer with the old value whether or not they could; asking for -1 changes nothing.
  ::syscall(SYS_setfsgid, who.gid);
  if (::syscall(SYS_setfsgid, -1) != who.gid) return -EPERM;
  ::syscall(SYS_setfsuid, who.uid);
  if (::syscall(SYS_setfsuid, -1) != who.uid) return -EPERM;
  return 0;
}

// A path of the caller's is not to lead through /proc/self: that would be this process.
constexpr uint64_t kCallersResolve = RESOLVE_NO_MAGICLINKS;

int OpenPath(const Identity& who, int directory, const std::string& path, int flags, uint32_t mode) {
  open_how how{};
  how.flags = static_cast<uint64_t>(flags);
  how.mode = (flags & O_CREAT) != 0 ? mode : 0;
  how.resolve = who.isOwn() ? 0 : kCallersResolve;
  const auto fd = ::syscall(SYS_openat2, directory, path.c_str(), &how, sizeof how);
  return fd < 0 ? -errno : static_cast<int>(fd);
}

// Runs `work` as that user and resolves a promise with its result.
napi_value RunAs(napi_env env, int64_t uid, int64_t gid, const Doubles& groups,
                 std::function<int(const Identity&)> work) {
  Identity who{uid, gid, {}};
  for (size_t i = 0; i < groups.length; i++) who.groups.push_back(static_cast<gid_t>(groups.data[i]));
  return BlockingCall::Run(Napi::Env(env), [who = std::move(who), work = std::move(work)] {
    const int error = Assume(who);
    return error != 0 ? error : work(who);
  });
}

// Of /proc, what is read is about this process, whoever opened it. A FUSE mount is served by whoever it
// likes, and may keep who reads or writes waiting for ever. To ask for the kind may wait, too: here.
int CheckKind(const Identity& who, int fd) {
  if (who.isOwn()) return 0;
  struct statfs facts {};
  if (::fstatfs(fd, &facts) != 0) return -errno;
  const auto type = static_cast<uint64_t>(facts.f_type);
  return type == PROC_SUPER_MAGIC || type == FUSE_SUPER_MAGIC ? -EOPNOTSUPP : 0;
}

// Closes a descriptor that was opened when its file system is of a kind that is not to be used.
int OpenChecked(const Identity& who, int fd) {
  if (fd < 0) return fd;
  const int error = CheckKind(who, fd);
  if (error == 0) return fd;
  ::close(fd);
  return error;
}

// Calls `work` with the directory of a path, opened, and the path's last part.
int InDirectory(const Identity& who, std::string path, const std::function<int(int, const char*)>& work) {
  while (path.size() > 1 && path.back() == '/') path.pop_back();
  const size_t slash = path.rfind('/');
  if (slash == std::string::npos) return -EINVAL;
  const std::string parent = path.substr(0, slash + 1);
  const int directory = OpenChecked(who, OpenPath(who, AT_FDCWD, parent, O_PATH | O_DIRECTORY | O_CLOEXEC, 0));
  if (directory < 0) return directory;
  const int result = work(directory, path.c_str() + slash + 1);
  ::close(directory);
  return result;
}

napi_value OpenAs(napi_env env, int64_t uid, int64_t gid, const Doubles& groups, const Path& path,
                  int32_t flags, uint32_t mode) {
  return RunAs(env, uid, gid, groups, [path = std::string(path.c_str()), flags, mode](const Identity& who) {
    const auto open = [&](int directory, const std::string& name) {
      return OpenChecked(who, OpenPath(who, directory, name, flags | O_CLOEXEC, mode));
    };
    if ((flags & O_CREAT) == 0 || who.isOwn()) return open(AT_FDCWD, path);
    // Nothing is made where it could not be used.
    return InDirectory(who, path, open);
  });
}

napi_value MkdirAs(napi_env env, int64_t uid, int64_t gid, const Doubles& groups, const Path& path,
                   uint32_t mode) {
  return RunAs(env, uid, gid, groups, [path = std::string(path.c_str()), mode](const Identity& who) {
    return InDirectory(who, path, [mode](int directory, const char* name) {
      return ::mkdirat(directory, name, mode) == 0 ? 0 : -errno;
    });
  });
}

napi_value UnlinkAs(napi_env env, int64_t uid, int64_t gid, const Doubles& groups,
                    const Path& path) {
  return RunAs(env, uid, gid, groups, [path = std::string(path.c_str())](const Identity& who) {
    return InDirectory(who, path, [](int directory, const char* name) {
      return ::unlinkat(directory, name, 0) == 0 ? 0 : -errno;
    });
  });
}

constexpr Method kMethods[] = {
    {"peerCredentials", Bind<PeerCredentials>},
    {"openAs", Bind<OpenAs>},
    {"mkdirAs", Bind<MkdirAs>},
    {"unlinkAs", Bind<UnlinkAs>},
};

}  // namespace

Methods CallerMethods() { return kMethods; }

}  // namespace varve
