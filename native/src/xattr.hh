// Extended attributes by directory descriptor and name, never through a symlink.
#pragma once

#include <cstddef>
#include <cstdint>

namespace varve {

// Limits of linux/limits.h: no value, and no list of names, is longer.
inline constexpr size_t kXattrMax = 65536;

// Both fill `to` and answer the length, or a negative errno. Name "" is the descriptor itself.
int64_t GetXattr(int dirfd, const char* name, const char* attribute, void* to, size_t size);
int64_t ListXattr(int dirfd, const char* name, char* to, size_t size);

}  // namespace varve
