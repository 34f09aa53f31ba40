// Finding what was said before: hash chains over the last 32 KiB.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "deflate_codes.hh"

namespace varve::deflate {

inline constexpr uint32_t kWindow = 32768;

struct Match {
  uint32_t length = 0;  // 0: none
  uint32_t distance = 0;
};

inline uint32_t Load32(const uint8_t* at) {
  uint32_t value;
  std::memcpy(&value, at, sizeof value);
  return value;
}

inline uint64_t Load64(const uint8_t* at) {
  uint64_t value;
  std::memcpy(&value, at, sizeof value);
  return value;
}

// The number of equal bytes at two places, at most `limit`; nothing beyond that is read.
inline uint32_t CommonLength(const uint8_t* one, const uint8_t* other, uint32_t from, uint32_t limit) {
  uint32_t length = from;
  while (length + 8 <= limit) {
    const uint64_t difference = Load64(one + length) ^ Load64(other + length);
    if (difference != 0) return length + static_cast<uint32_t>(__builtin_ctzll(difference) >> 3);
    length += 8;
  }
  while (length < limit && one[length] == other[length]) length++;
  return length;
}

// Positions count from the start of the data. Each position is inserted at most once, in ascending
// order; those left out are not found.
class MatchFinder {
 public:
  void Reset(const uint8_t* data, uint32_t end) {
    data_ = data;
    end_ = end;
    std::memset(heads_, 0, sizeof heads_);
    std::memset(shortHeads_, 0, sizeof shortHeads_);
  }

  // True where a position can be inserted.
  bool HasRoom(uint32_t position) const { return position + 4 <= end_; }

  // For matches of four bytes and more: of what is in a match already, three are not worth the time.
  void Insert(uint32_t position) {
    uint32_t& head = heads_[HashOf(Load32(data_ + position))];
    previous_[position % kWindow] = head;
    head = position + 1;
  }

  // Inserts the position, and returns the longest match there that is longer than `longerThan` (2
  // at least); looks at `depth` places, and no further once one has `enough` bytes.
  [[gnu::always_inline]] inline Match FindAndInsert(uint32_t position, uint32_t longerThan, uint32_t depth, uint32_t enough) {
    const uint8_t* const here = data_ + position;
    const uint32_t value = Load32(here);
    const uint32_t lowest = position >= kWindow ? position - kWindow + 1 : 0;
    const uint32_t limit = std::min<uint32_t>(kMaxMatch, end_ - position);
    uint32_t& head = heads_[HashOf(value)];
    uint32_t& shortHead = shortHeads_[ShortHashOf(value)];
    uint32_t candidate = head;
    Match best;
    uint32_t length = longerThan;
    if (longerThan < 3 && shortHead > lowest) {
      const uint32_t at = shortHead - 1;
      // Three bytes from far away cost more than they save.
      if (position - at <= kNear && ((Load32(data_ + at) ^ value) & 0xffffff) == 0) {
        length = 3;
        best = {3, position - at};
      }
    }
    previous_[position % kWindow] = candidate;
    head = position + 1;
    shortHead = position + 1;
    if (candidate <= lowest || length >= limit) return best;
    // What a longer match must have at its end; at first, its beginning.
    uint32_t tail = length < 4 ? 0 : length - 3;
    uint32_t wanted = Load32(here + tail);
    do {
      const uint32_t at = candidate - 1;
      const uint8_t* const there = data_ + at;
      if (Load32(there + tail) == wanted && Load32(there) == value) {
        const uint32_t found = CommonLength(here, there, 4, limit);
        if (found > length) {
          length = found;
          best = {found, position - at};
          if (found >= enough || found >= limit) break;
          tail = length - 3;
          wanted = Load32(here + tail);
        }
      }
      candidate = previous_[at % kWindow];
    } while (candidate > lowest && --depth > 0);
    return best;
  }

  // The last inserted position whose four bytes are the same as here, as a claim: true or false.
  bool IsKnown(uint32_t position) const {
    const uint32_t value = Load32(data_ + position);
    const uint32_t head = heads_[HashOf(value)];
    return head != 0 && head - 1 + kWindow > position && Load32(data_ + head - 1) == value;
  }

 private:
  static constexpr int kHashBits = 15;
  static constexpr int kShortHashBits = 12;
  static constexpr uint32_t kNear = 4096;

  static uint32_t HashOf(uint32_t value) { return value * 0x9e3779b1u >> (32 - kHashBits); }
  static uint32_t ShortHashOf(uint32_t value) {
    return (value << 8) * 0x9e3779b1u >> (32 - kShortHashBits);
  }

  const uint8_t* data_ = nullptr;
  uint32_t end_ = 0;
  uint32_t heads_[1 << kHashBits];  // position + 1
  uint32_t shortHeads_[1 << kShortHashBits];
  uint32_t previous_[kWindow];  // of the same hash, by position
};

}  // namespace varve::deflate
