// A reply's body that never comes into this process: pages of a file on their way through a pipe.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>

// One per thread, since a thread puts together one reply at a time.
class StagedBody {
 public:
  ~StagedBody() { Close(); }

  // Takes up to `length` bytes of a file, fewer at its end only. Their number, or a negative errno:
  // then nothing is staged.
  ssize_t Stage(int fd, int64_t offset, size_t length);

  size_t length() const { return length_; }

  // Sends a header and then what is staged, as one message. As write(2); what was staged is gone.
  ssize_t Send(int fd, const void* header, size_t headerLength);

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
