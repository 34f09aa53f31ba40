#include "staged_body.hh"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>

#include "syscalls.hh"

namespace varve {
namespace {

// struct fuse_out_header
constexpr size_t kOutHeaderBytes = 16;
// What anybody may have (fs.pipe-max-size), in pages: the header and the 255 of the longest body. One that begins
// in the middle of a page has one too many, and is copied.
constexpr int kPipeBytes = 1 << 20;

bool OpenPipe(int (&ends)[2]) {
  return pipe2(ends, O_CLOEXEC | O_NONBLOCK) == 0 && fcntl(ends[0], F_SETPIPE_SZ, kPipeBytes) >= 0;
}

void ClosePipe(int (&ends)[2]) {
  for (int& end : ends) {
    if (end >= 0) close(end);
    end = -1;
  }
}

// splice(2) until all is through or the source ends.
ssize_t SpliceAll(int from, off64_t* offset, int to, size_t length) {
  size_t done = 0;
  while (done < length) {
    ssize_t n = splice(from, offset, to, nullptr, length - done, 0);
    if (n < 0) return -errno;
    if (n == 0) break;
    done += static_cast<size_t>(n);
  }
  return static_cast<ssize_t>(done);
}

// One per thread, since a thread puts together one reply at a time.
class StagedBody {
 public:
  ~StagedBody() { Close(); }

  // Takes up to `length` bytes of a file, fewer at its end only. Their number, or a negative errno:
  // then nothing is staged.
  ssize_t Stage(int fd, int64_t offset, size_t length);

  size_t length() const { return length_; }

  // Sends a header and then what is staged, as one message. As write(2); what was staged is gone.
  ssize_t Send(int fd, const void* header);

  // Nothing is staged any more.
  void Drop();

 private:
  bool Open();
  void Close();

  // Pages of the file, and the message: the header, then those pages. Ends of reading and writing.
  int pages_[2] = {-1, -1};
  int message_[2] = {-1, -1};
  size_t length_ = 0;
  bool isRefused_ = false;
};

bool StagedBody::Open() {
  if (isRefused_) return false;
  if (pages_[0] >= 0 || (OpenPipe(pages_) && OpenPipe(message_))) return true;
  // This user has too many pipes already, or may have small ones only.
  Close();
  isRefused_ = true;
  return false;
}

void StagedBody::Close() {
  ClosePipe(pages_);
  ClosePipe(message_);
}

ssize_t StagedBody::Stage(int fd, int64_t offset, size_t length) {
  if (length_ > 0) Drop();
  if (!Open()) return -ENOSYS;
  off64_t at = offset;
  ssize_t n = SpliceAll(fd, &at, pages_[1], length);
  if (n < 0) {
    Drop();
    return n;
  }
  length_ = static_cast<size_t>(n);
  return n;
}

ssize_t StagedBody::Send(int fd, const void* header) {
  const size_t total = kOutHeaderBytes + length_;
  ssize_t n = write(message_[1], header, kOutHeaderBytes);
  if (n >= 0) {
    n = SpliceAll(pages_[0], nullptr, message_[1], length_);
    if (n < 0) errno = static_cast<int>(-n);
  }
  if (n >= 0) n = splice(message_[0], nullptr, fd, nullptr, total, 0);
  length_ = 0;
  if (n == static_cast<ssize_t>(total)) return n;
  const int error = n < 0 ? errno : EIO;
  Close();
  errno = error;
  return -1;
}

void StagedBody::Drop() {
  length_ = 0;
  Close();
}

thread_local StagedBody stagedBody;

int64_t Stage(int32_t fd, int64_t offset, int64_t length) {
  return stagedBody.Stage(fd, offset, static_cast<size_t>(length));
}

constexpr Method kMethods[] = {{"stage", Bind<Stage>}};

}  // namespace

ssize_t SendMessage(int fd, const void* message, size_t length) {
  const size_t staged = stagedBody.length();
  if (staged > 0 && length == kOutHeaderBytes + staged) return stagedBody.Send(fd, message);
  if (staged > 0) stagedBody.Drop();  // What came of the request is an error.
  return write(fd, message, length);
}

Methods StagedBodyMethods() { return kMethods; }

}  // namespace varve
