// varve-keeper: holds the /dev/fuse descriptors of a daemon's views, so that a daemon which dies does
// not take the views with it. The kernel ends a FUSE connection when its last descriptor is closed;
// while this process has one, programs in the view wait, until a new daemon takes the descriptors
// over and answers. A daemon that dies without a word is started again.
//
//   varve-keeper SOCKET
//
// Messages, one per SOCK_SEQPACKET packet, each answered by "=" or "!" and an errno's number:
//   H argv, each word ended by NUL   this connection is the daemon's; argv starts another (may be empty)
//   P name  (one descriptor)         keep this, under this name
//   D name                           close it
//   G                                give all: "F" name with the descriptor for each, before the "="
//   B                                the daemon ends on purpose
//   N                                nothing
//
// It ends when it holds nothing and nobody is connected, and on SIGTERM. No state but this process:
// what it keeps cannot outlive the machine anyway.

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

extern char** environ;

namespace {

constexpr size_t kMaxMessage = 1 << 16;
// A daemon that lives so long counts as well again: a request that kills it comes again at once.
constexpr int64_t kHealthyMs = 1'000;
// Restarts in a row before the views are given up: programs get ENOTCONN instead of waiting for ever.
constexpr int kMaxRestarts = 10;
constexpr int64_t kFirstPauseMs = 50;
constexpr int64_t kLongestPauseMs = 1'000;
// How long views wait for a daemon that somebody else starts: whoever waits in a view cannot be killed.
constexpr int64_t kPatienceMs = 120'000;

int64_t Now() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * 1000 + now.tv_nsec / 1'000'000;
}

// A line in the form of the daemon's log, whose error stream this process shares.
void Log(const char* level, const std::string& text) {
  timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  tm utc;
  gmtime_r(&now.tv_sec, &utc);
  char time[32];
  strftime(time, sizeof time, "%FT%T", &utc);
  dprintf(STDERR_FILENO, "{\"level\":\"%s\",\"time\":\"%s.%03ldZ\",\"pid\":%d,\"msg\":\"keeper: %s\"}\n", level,
          time, now.tv_nsec / 1'000'000, getpid(), text.c_str());
}

[[noreturn]] void Fail(const char* what) {
  Log("fatal", std::string(what) + ": " + strerror(errno));
  exit(1);
}

class Keeper {
 public:
  Keeper(std::string path, int listener, int signals)
      : path_(std::move(path)), listener_(listener), signals_(signals) {}

  void Run();

 private:
  void Accept();
  void Receive(int client);
  int Handle(int client, std::string_view message, int descriptor);
  void GiveAll(int client);
  void Leave(int client);
  void Keep(std::string name, int descriptor);
  void Drop(const std::string& name);
  void Signalled();
  void DaemonEnded();
  void RestartLater(int64_t pauseMs);
  void Restart();
  void GiveUp(const char* why);
  bool IsDone() const { return held_.empty() && clients_.empty() && child_ == 0; }
  int Timeout() const;

  std::string path_;
  int listener_;
  int signals_;
  std::vector<int> clients_;
  // The connection of the daemon at work, or -1.
  int daemon_ = -1;
  bool saidGoodbye_ = false;
  std::vector<std::string> command_;
  int64_t daemonSince_ = 0;
  std::map<std::string, int> held_;
  // A daemon that was started and has not introduced itself.
  pid_t child_ = 0;
  int restarts_ = 0;
  // When to start a daemon, or (without a command) to give up.
  std::optional<int64_t> deadline_;
};

void Keeper::Run() {
  for (bool hadClient = false; !hadClient || !IsDone(); hadClient |= !clients_.empty()) {
    std::vector<pollfd> polled{{signals_, POLLIN, 0}, {listener_, POLLIN, 0}};
    for (int client : clients_) polled.push_back({client, POLLIN, 0});
    const size_t firstHeld = polled.size();
    // An ended FUSE connection reports POLLERR without being asked for anything. Only while there is no
    // daemon to say so: each request of the connection would wake this process too.
    for (const auto& [name, descriptor] : held_) {
      polled.push_back({daemon_ < 0 ? descriptor : -1, 0, 0});
    }
    const int ready = poll(polled.data(), polled.size(), Timeout());
    if (ready < 0 && errno != EINTR) Fail("poll");
    if (deadline_ && Now() >= *deadline_) Restart();
    if (ready <= 0) continue;
    std::vector<std::string> ended;
    size_t at = firstHeld;
    for (const auto& [name, descriptor] : held_) {
      if (polled[at++].revents != 0) ended.push_back(name);
    }
    for (const std::string& name : ended) Drop(name);
    for (size_t i = 2; i < firstHeld; i++) {
      if (polled[i].revents != 0) Receive(polled[i].fd);
    }
    if (polled[0].revents != 0) Signalled();
    if (polled[1].revents != 0) Accept();
  }
  unlink(path_.c_str());
}

int Keeper::Timeout() const {
  if (!deadline_) return -1;
  return static_cast<int>(std::clamp<int64_t>(*deadline_ - Now(), 0, 60'000));
}

void Keeper::Accept() {
  const int client = accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
  if (client < 0) return;
  ucred peer{};
  socklen_t size = sizeof peer;
  const bool isOurs = getsockopt(client, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 &&
                      (peer.uid == geteuid() || peer.uid == 0);
  if (isOurs) clients_.push_back(client);
  else close(client);
}

void Keeper::Receive(int client) {
  static char buffer[kMaxMessage];
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))];
  iovec part{buffer, sizeof buffer};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  const ssize_t length = recvmsg(client, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
  if (length < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (length <= 0) return Leave(client);
  int descriptor = -1;
  const cmsghdr* header = CMSG_FIRSTHDR(&message);
  if (header != nullptr && header->cmsg_type == SCM_RIGHTS) {
    memcpy(&descriptor, CMSG_DATA(header), sizeof descriptor);
  }
  const bool isWhole = (message.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) == 0;
  const int error =
      isWhole ? Handle(client, {buffer, static_cast<size_t>(length)}, descriptor) : EMSGSIZE;
  const std::string reply = error == 0 ? "=" : "!" + std::to_string(error);
  if (error != 0 && descriptor >= 0) close(descriptor);
  if (send(client, reply.data(), reply.size(), MSG_NOSIGNAL) < 0) Leave(client);
}

// Returns 0 or an errno. Owns `descriptor` only when it returns 0.
int Keeper::Handle(int client, std::string_view message, int descriptor) {
  const char kind = message.front();
  const std::string rest(message.substr(1));
  if ((kind == 'P') != (descriptor >= 0)) return EINVAL;
  switch (kind) {
    case 'H':
      if (daemon_ >= 0 && daemon_ != client) return EBUSY;
      command_.clear();
      for (size_t at = 0, end; (end = rest.find('\0', at)) != std::string::npos; at = end + 1) {
        command_.push_back(rest.substr(at, end - at));
      }
      daemon_ = client;
      daemonSince_ = Now();
      saidGoodbye_ = false;
      deadline_.reset();
      return 0;
    case 'P':
      if (rest.empty()) return EINVAL;
      Keep(rest, descriptor);
      return 0;
    case 'D':
      Drop(rest);
      return 0;
    case 'G':
      GiveAll(client);
      return 0;
    case 'B':
      if (client == daemon_) saidGoodbye_ = true;
      return 0;
    case 'N':
      return 0;
    default:
      return EINVAL;
  }
}

void Keeper::GiveAll(int client) {
  for (const auto& [name, descriptor] : held_) {
    std::string text = "F" + name;
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
    iovec part{text.data(), text.size()};
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    cmsghdr* header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(header), &descriptor, sizeof descriptor);
    // A client that went away is noticed by the reply that follows.
    if (sendmsg(client, &message, MSG_NOSIGNAL) < 0) return;
  }
}

void Keeper::Keep(std::string name, int descriptor) {
  Drop(name);
  held_.emplace(std::move(name), descriptor);
}

void Keeper::Drop(const std::string& name) {
  const auto found = held_.find(name);
  if (found == held_.end()) return;
  close(found->second);
  held_.erase(found);
}

void Keeper::Leave(int client) {
  close(client);
  std::erase(clients_, client);
  if (client != daemon_) return;
  daemon_ = -1;
  DaemonEnded();
}

void Keeper::DaemonEnded() {
  if (held_.empty()) return;
  if (Now() - daemonSince_ > kHealthyMs) restarts_ = 0;
  if (saidGoodbye_ || command_.empty()) {
    deadline_ = Now() + kPatienceMs;
    Log("info", "the daemon ended; its views wait for the next one");
    return;
  }
  Log("warn", "the daemon died; starting another for its views");
  RestartLater(restarts_ == 0 ? 0 : kFirstPauseMs << restarts_);
}

void Keeper::RestartLater(int64_t pauseMs) {
  deadline_ = Now() + std::min(pauseMs, kLongestPauseMs);
}

void Keeper::Restart() {
  deadline_.reset();
  if (daemon_ >= 0 || child_ != 0 || held_.empty()) return;
  if (saidGoodbye_ || command_.empty()) return GiveUp("no daemon came for them");
  if (++restarts_ > kMaxRestarts) return GiveUp("the daemon does not stay alive");
  std::vector<char*> arguments;
  for (std::string& word : command_) arguments.push_back(word.data());
  arguments.push_back(nullptr);
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  sigset_t none;
  sigemptyset(&none);
  posix_spawnattr_setsigmask(&attributes, &none);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSID | POSIX_SPAWN_SETSIGMASK);
  const int error = posix_spawn(&child_, arguments[0], nullptr, &attributes, arguments.data(), environ);
  posix_spawnattr_destroy(&attributes);
  if (error == 0) return;
  child_ = 0;
  Log("error", "cannot start " + command_[0] + ": " + strerror(error));
  RestartLater(kFirstPauseMs << restarts_);
}

void Keeper::Signalled() {
  signalfd_siginfo info;
  if (read(signals_, &info, sizeof info) != sizeof info) return;
  if (info.ssi_signo == SIGTERM) {
    unlink(path_.c_str());
    exit(0);
  }
  int status = 0;
  for (pid_t pid; (pid = waitpid(-1, &status, WNOHANG)) > 0;) {
    if (pid != child_) continue;
    child_ = 0;
    if (daemon_ >= 0 || saidGoodbye_ || held_.empty()) continue;
    // It may have found the locks of the dead one, which lose hold a moment after its sockets.
    RestartLater(kFirstPauseMs << restarts_);
  }
}

void Keeper::GiveUp(const char* why) {
  Log("fatal", "giving " + std::to_string(held_.size()) + " views up: " + why);
  for (const auto& [name, descriptor] : held_) close(descriptor);
  held_.clear();
}

int Listen(const char* path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (strlen(path) >= sizeof address.sun_path) {
    errno = ENAMETOOLONG;
    return -1;
  }
  strcpy(address.sun_path, path);
  const int listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (listener < 0) return -1;
  unlink(path);
  umask(0177);
  if (bind(listener, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) return -1;
  return listen(listener, 16) == 0 ? listener : -1;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    fprintf(stderr, "usage: varve-keeper SOCKET\n");
    return 2;
  }
  rlimit files;
  if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
  }
  sigset_t handled;
  sigemptyset(&handled);
  for (int signal : {SIGCHLD, SIGTERM}) sigaddset(&handled, signal);
  sigset_t blocked = handled;
  // Meant for the terminal's foreground, not for what outlives it.
  for (int signal : {SIGHUP, SIGINT, SIGQUIT}) sigaddset(&blocked, signal);
  sigprocmask(SIG_BLOCK, &blocked, nullptr);
  const int signals = signalfd(-1, &handled, SFD_CLOEXEC | SFD_NONBLOCK);
  if (signals < 0) Fail("signalfd");
  const int listener = Listen(argv[1]);
  if (listener < 0) Fail("listen");
  if (chdir("/") != 0) Fail("chdir /");
  Keeper(argv[1], listener, signals).Run();
}
