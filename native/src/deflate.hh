// A deflate encoder whose output depends on nothing but its input and level: not on the processor,
// the C library or a release of zlib.
#pragma once

#include <cstddef>
#include <cstdint>

namespace varve {

inline constexpr int kDeflateLowest = 1;
inline constexpr int kDeflateHighest = 9;

// Room that `Deflate` may need for `length` bytes.
size_t DeflateBound(size_t length);

// Compresses data[begin, end) as raw deflate blocks (RFC 1951), none of them the last one, that end at a
// byte boundary: so pieces that were compressed apart can follow one another. data[0, begin) is what
// a reader has seen before; only its last 32 KiB count.
//
// `end` is below 2^31. Returns the number of bytes written to `out`, which has room for DeflateBound(end - begin).
size_t Deflate(int level, const uint8_t* data, size_t begin, size_t end, uint8_t* out);

}  // namespace varve
