// A reply's body that never comes into this process: pages of a file on their way through a pipe.
#pragma once

#include <sys/types.h>

#include <cstddef>

namespace varve {

// Writes a message to /dev/fuse. One that is longer than a reply's header by what this thread has staged
// consists of the two; with any other what was staged is forgotten. As write(2).
ssize_t SendMessage(int fd, const void* message, size_t length);

}  // namespace varve
