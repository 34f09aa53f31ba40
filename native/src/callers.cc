// Who is at the other end of a socket, and doing to files what that user may do.
//
// The kernel keeps credentials per thread, and the C library's wrappers change them for all threads of
// a process. So a thread of its own makes the bare system calls and ends afterwards: nothing else of the
// process ever runs with them. It changes fsuid and fsgid only, not the user ID: a thread with the
// caller's user ID could be signalled by the caller, and a signal ends the process.
#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
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

int OpenPath(const Identity& who, const std::string& path, int flags, uint32_t mode) {
  open_how how{};
  how.flags = static_cast<uint64_t>(flags);
  how.mode = (flags & O_CREAT) != 0 ? mode : 0;
  how.resolve = who.isOwn() ? 0 : kCallersResolve;
  const auto fd = ::syscall(SYS_openat2, AT_FDCWD, path.c_str(), &how, sizeof how);
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

napi_value OpenAs(napi_env env, int64_t uid, int64_t gid, const Doubles& groups, const Path& path,
                  int32_t flags, uint32_t mode) {
  return RunAs(env, uid, gid, groups,
               [path = std::string(path.c_str()), flags, mode](const Identity& who) {
                 return OpenPath(who, path, flags | O_CLOEXEC, mode);
               });
}

// Splits off the last part; what comes before is resolved as OpenPath does.
template <typename F>
napi_value InDirectory(napi_env env, int64_t uid, int64_t gid, const Doubles& groups,
                       const Path& path, F work) {
  std::string whole = path.c_str();
  while (whole.size() > 1 && whole.back() == '/') whole.pop_back();
  const size_t slash = whole.rfind('/');
  if (slash == std::string::npos) return MakeNumber(env, -EINVAL);
  return RunAs(env, uid, gid, groups,
               [parent = whole.substr(0, slash + 1), name = whole.substr(slash + 1),
                work](const Identity& who) {
                 const int directory =
                     OpenPath(who, parent, O_PATH | O_DIRECTORY | O_CLOEXEC, 0);
                 if (directory < 0) return directory;
                 const int error = work(directory, name.c_str()) == 0 ? 0 : -errno;
                 ::close(directory);
                 return error;
               });
}

napi_value MkdirAs(napi_env env, int64_t uid, int64_t gid, const Doubles& groups, const Path& path,
                   uint32_t mode) {
  return InDirectory(env, uid, gid, groups, path, [mode](int directory, const char* name) {
    return ::mkdirat(directory, name, mode);
  });
}

napi_value UnlinkAs(napi_env env, int64_t uid, int64_t gid, const Doubles& groups,
                    const Path& path) {
  return InDirectory(env, uid, gid, groups, path, [](int directory, const char* name) {
    return ::unlinkat(directory, name, 0);
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
