#include "fuse_mount.hh"

#include <fcntl.h>
#include <spawn.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <vector>

extern char** environ;

namespace {

// Where the helper finds its end of the socket; any number that is not a standard stream will do.
constexpr int kHelperSocket = 3;
// A helper that floods its standard error gains nothing past this.
constexpr size_t kMessageLimit = 4096;

class Descriptor {
 public:
  explicit Descriptor(int fd = -1) : fd_(fd) {}
  ~Descriptor() { Reset(); }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const { return fd_; }
  int Release() {
    int fd = fd_;
    fd_ = -1;
    return fd;
  }
  void Reset(int fd = -1) {
    if (fd_ >= 0) close(fd_);
    fd_ = fd;
  }

 private:
  int fd_;
};

// Receives one descriptor sent with SCM_RIGHTS: the descriptor, or a negative errno (-EPIPE when
// the peer closed without sending one, which is how fusermount3 reports failure).
int ReceiveDescriptor(int socket) {
  char byte = 0;
  iovec part{&byte, 1};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))];
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof(control);
  ssize_t received;
  do {
    received = recvmsg(socket, &message, MSG_CMSG_CLOEXEC);
  } while (received < 0 && errno == EINTR);
  if (received < 0) return -errno;
  cmsghdr* header = CMSG_FIRSTHDR(&message);
  if (received == 0 || header == nullptr || header->cmsg_level != SOL_SOCKET ||
      header->cmsg_type != SCM_RIGHTS || header->cmsg_len != CMSG_LEN(sizeof(int))) {
    return -EPIPE;
  }
  int fd;
  memcpy(&fd, CMSG_DATA(header), sizeof(fd));
  return fd;
}

std::string ReadAll(int fd) {
  std::string text;
  char chunk[512];
  for (;;) {
    ssize_t n = read(fd, chunk, sizeof(chunk));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return text;
    if (text.size() < kMessageLimit) text.append(chunk, static_cast<size_t>(n));
  }
}

// The environment of the helper: ours plus _FUSE_COMMFD, and C messages.
std::vector<std::string> HelperEnvironment() {
  std::vector<std::string> result;
  for (char** entry = environ; *entry != nullptr; entry++) {
    if (strncmp(*entry, "_FUSE_COMMFD=", 13) != 0 && strncmp(*entry, "LC_ALL=", 7) != 0) {
      result.emplace_back(*entry);
    }
  }
  result.emplace_back("_FUSE_COMMFD=" + std::to_string(kHelperSocket));
  result.emplace_back("LC_ALL=C");
  return result;
}

std::vector<char*> Pointers(std::vector<std::string>& strings) {
  std::vector<char*> result;
  for (std::string& text : strings) result.push_back(text.data());
  result.push_back(nullptr);
  return result;
}

int Spawn(std::vector<std::string> arguments, int socket, int standardError, pid_t* pid) {
  std::vector<std::string> environment = HelperEnvironment();
  posix_spawn_file_actions_t actions;
  int error = posix_spawn_file_actions_init(&actions);
  if (error != 0) return -error;
  // The error stream first: `socket` may itself be one of the numbers that dup2 overwrites, so both
  // were made high enough by the caller (see AboveStandard).
  error = posix_spawn_file_actions_adddup2(&actions, standardError, STDERR_FILENO);
  if (error == 0) error = posix_spawn_file_actions_adddup2(&actions, socket, kHelperSocket);
  if (error == 0) {
    error = posix_spawnp(pid, arguments[0].c_str(), &actions, nullptr, Pointers(arguments).data(),
                         Pointers(environment).data());
  }
  posix_spawn_file_actions_destroy(&actions);
  return -error;
}

// Moves a descriptor above the numbers that Spawn overwrites in the child.
int AboveStandard(int fd) {
  int moved = fcntl(fd, F_DUPFD_CLOEXEC, 10);
  int error = errno;
  close(fd);
  return moved < 0 ? -error : moved;
}

}  // namespace

int MountDirect(const std::string& target, const std::string& source, unsigned long flags,
                const std::string& options) {
  Descriptor device(open("/dev/fuse", O_RDWR | O_NONBLOCK | O_CLOEXEC));
  if (device.get() < 0) return -errno;
  std::string data = "fd=" + std::to_string(device.get()) +
                     ",rootmode=40000,user_id=" + std::to_string(geteuid()) +
                     ",group_id=" + std::to_string(getegid());
  if (!options.empty()) data += "," + options;
  if (mount(source.c_str(), target.c_str(), "fuse", flags, data.c_str()) != 0) return -errno;
  return device.Release();
}

int MountThroughHelper(const std::string& target, const std::string& options,
                       std::string& message) {
  int pair[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0) return -errno;
  Descriptor ours(pair[0]);
  Descriptor theirs(AboveStandard(pair[1]));
  if (theirs.get() < 0) return theirs.get();
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return -errno;
  Descriptor errors(ends[0]);
  Descriptor errorsTheirs(AboveStandard(ends[1]));
  if (errorsTheirs.get() < 0) return errorsTheirs.get();

  pid_t pid;
  int spawned = Spawn({"fusermount3", "-o", options, "--", target}, theirs.get(),
                      errorsTheirs.get(), &pid);
  theirs.Reset();
  errorsTheirs.Reset();
  if (spawned < 0) return spawned;

  Descriptor device(ReceiveDescriptor(ours.get()));
  message = ReadAll(errors.get());
  int status;
  while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
  }
  if (device.get() < 0) return device.get();
  // fusermount3 opens /dev/fuse blocking; the session drains it until EAGAIN.
  int mode = fcntl(device.get(), F_GETFL);
  if (mode < 0 || fcntl(device.get(), F_SETFL, mode | O_NONBLOCK) != 0) return -errno;
  return device.Release();
}
