// Messages with descriptors over Unix sockets, which Node cannot send. Calls block, for a few seconds
// at most: the other side is a process of ours that does nothing else.
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "syscalls.hh"

namespace varve {
namespace {

constexpr time_t kPatienceSeconds = 5;

int64_t Connect(const Path& path, int type) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.length >= sizeof address.sun_path) return -ENAMETOOLONG;
  std::memcpy(address.sun_path, path.bytes, path.length + 1);
  const int fd = ::socket(AF_UNIX, type | SOCK_CLOEXEC, 0);
  if (fd < 0) return -errno;
  const timeval patience{kPatienceSeconds, 0};
  ::setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  ::setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
  socklen_t size = sizeof address;
  if (path.bytes[0] == '@') {
    // A name that is in no file system has a length instead of an end.
    address.sun_path[0] = '\0';
    size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + path.length);
  }
  if (::connect(fd, reinterpret_cast<const sockaddr*>(&address), size) == 0) return fd;
  const int error = errno;
  ::close(fd);
  return -error;
}

int64_t ConnectPackets(const Path& path) { return Connect(path, SOCK_SEQPACKET); }

int64_t ConnectDatagrams(const Path& path) { return Connect(path, SOCK_DGRAM); }

// `descriptor` -1: none.
int64_t SendPacket(int32_t socket, const Bytes& data, int32_t descriptor) {
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  iovec part{data.data, data.length};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  if (descriptor >= 0) {
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    cmsghdr* header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int));
    std::memcpy(CMSG_DATA(header), &descriptor, sizeof(int));
  }
  return Result(::sendmsg(socket, &message, MSG_NOSIGNAL));
}

// The packet's length; its descriptor, or -1, goes to out[0].
int64_t ReceivePacket(int32_t socket, const Bytes& data, const Doubles& out) {
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))];
  iovec part{data.data, data.length};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  const ssize_t length = ::recvmsg(socket, &message, MSG_CMSG_CLOEXEC);
  if (length < 0) return -errno;
  int descriptor = -1;
  const cmsghdr* header = CMSG_FIRSTHDR(&message);
  if (header != nullptr && header->cmsg_type == SCM_RIGHTS) {
    std::memcpy(&descriptor, CMSG_DATA(header), sizeof descriptor);
  }
  if (out.length > 0) out.data[0] = descriptor;
  return length;
}

int64_t Duplicate(int32_t fd) { return Result(::fcntl(fd, F_DUPFD_CLOEXEC, 3)); }

constexpr Method kMethods[] = {
    {"connectPackets", Bind<ConnectPackets>},
    {"connectDatagrams", Bind<ConnectDatagrams>},
    {"sendPacket", Bind<SendPacket>},
    {"receivePacket", Bind<ReceivePacket>},
    {"duplicate", Bind<Duplicate>},
};

}  // namespace

Methods MessageMethods() { return kMethods; }

}  // namespace varve
