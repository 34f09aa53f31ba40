// Opening a FUSE connection: mount(2) with a /dev/fuse descriptor, or the fusermount3 handshake.
#pragma once

#include <string>

// Opens /dev/fuse (non-blocking, close-on-exec) and mounts it with `options` after the fd=,
// rootmode=, user_id= and group_id= that the kernel insists on. Returns the descriptor, or a
// negative errno; nothing stays open or mounted on failure.
int MountDirect(const std::string& target, const std::string& source, unsigned long flags,
                const std::string& options);

// Runs fusermount3, which mounts and passes the descriptor back over a socket. Returns the
// descriptor, or a negative errno; `message` is what fusermount3 said on its standard error.
int MountThroughHelper(const std::string& target, const std::string& options,
                       std::string& message);
