// Inflating gzip, and its checksum, with ISA-L, where the library is installed.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>

namespace varve {

// Whether this addon was compiled with ISA-L's header and the library can be loaded.
bool CanGunzip();

// Continues gzip's checksum (CRC-32) of what came before, 0 at first. Only where CanGunzip().
uint32_t Crc32(uint32_t crc, const uint8_t* data, size_t length);

// Inflates a file of gzip members, one after another. Zeros and other bytes behind the last member
// are ignored, as gzip(1) and igzip(1) do.
class Gunzip {
 public:
  // `fd` is borrowed; it is read from where it stands, as it may be a pipe. Only where CanGunzip().
  explicit Gunzip(int fd);
  ~Gunzip();
  Gunzip(const Gunzip&) = delete;
  Gunzip& operator=(const Gunzip&) = delete;

  // Fills `target` as far as the data goes: the number of bytes, 0 at the end, or a negative errno;
  // -EBADMSG for damaged data, -EILSEQ for a wrong checksum or length, -ENODATA for a missing end.
  int64_t Read(uint8_t* target, size_t capacity);

  // Bytes of the file read so far; may be asked by any thread.
  int64_t consumed() const { return consumed_.load(std::memory_order_relaxed); }

 private:
  struct Inflater;
  // More input, at least `wanted` bytes unless the file ends: 0 or a negative errno.
  int64_t Refill(size_t wanted);
  // Moves to the next member: 1, 0 when there is none, or a negative errno.
  int64_t NextMember();
  // Looks at what ISA-L does not: 0 or a negative errno.
  int64_t CheckHeader();

  int fd_;
  std::unique_ptr<Inflater> inflater_;
  std::unique_ptr<uint8_t[]> input_;
  std::atomic<int64_t> consumed_ = 0;
  bool isAtHeader_ = true;
  bool isAtFileEnd_ = false;
  bool isAtEnd_ = false;
};

}  // namespace varve
