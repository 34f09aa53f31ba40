// The codes of deflate: alphabets, Huffman codes, and the header that describes them.
//
// RFC 1951, section 3.2. Everything here counts in whole numbers, so that the same symbols give the
// same bits on every machine.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace varve::deflate {

inline constexpr int kLiterals = 286;  // literals, end of block, lengths
inline constexpr int kDistances = 30;
inline constexpr int kEndOfBlock = 256;
inline constexpr int kMinMatch = 3;
inline constexpr int kMaxMatch = 258;

// A length or distance symbol and what follows it.
struct Symbol {
  uint16_t symbol;
  uint8_t extraBits;
};

namespace internal {

constexpr std::array<Symbol, kMaxMatch + 1> MakeLengths() {
  std::array<Symbol, kMaxMatch + 1> table{};
  int length = kMinMatch;
  for (int code = 0; code < 28; code++) {
    const int extra = code < 8 ? 0 : code / 4 - 1;
    for (int i = 0; i < 1 << extra && length < kMaxMatch; i++, length++) {
      table[length] = {static_cast<uint16_t>(257 + code), static_cast<uint8_t>(extra)};
    }
  }
  table[kMaxMatch] = {285, 0};
  return table;
}

// Where each symbol's range begins, to be subtracted for its extra bits.
constexpr std::array<uint16_t, 29> MakeLengthBases() {
  std::array<uint16_t, 29> bases{};
  const auto lengths = MakeLengths();
  for (int length = kMaxMatch; length >= kMinMatch; length--) {
    bases[lengths[length].symbol - 257] = static_cast<uint16_t>(length);
  }
  return bases;
}

}  // namespace internal

inline constexpr auto kLengths = internal::MakeLengths();
inline constexpr auto kLengthBases = internal::MakeLengthBases();

// The symbol of a distance (1 to 32768): two for each power of two.
inline Symbol DistanceSymbol(uint32_t distance) {
  const uint32_t zeroBased = distance - 1;
  if (zeroBased < 4) return {static_cast<uint16_t>(zeroBased), 0};
  const int log = 31 - __builtin_clz(zeroBased);
  const uint32_t half = (zeroBased >> (log - 1)) & 1;
  return {static_cast<uint16_t>(2 * log + half), static_cast<uint8_t>(log - 1)};
}

// The part of a distance that its extra bits hold.
inline uint32_t DistanceExtra(uint32_t distance, Symbol symbol) {
  return (distance - 1) & ((1u << symbol.extraBits) - 1);
}

// A code: its bits as they go into the stream, first bit lowest.
struct Code {
  uint16_t bits;
  uint8_t length;  // 0: the symbol does not occur
};

// Gives each symbol that occurs a code of at most `maxLength` bits; always two symbols at least, as
// some readers refuse a code of one.
void MakeCodes(const uint32_t* counts, int symbols, int maxLength, Code* codes);

// log2(n) in units of 2^-16, n at least 1.
uint32_t FixedLog2(uint32_t n);

// Appends bits to memory, 8 bytes at a time: there must be room for 8 more than is written.
class BitWriter {
 public:
  explicit BitWriter(uint8_t* out) : out_(out) {}
  // At most 56 bits between two calls of Flush.
  void Put(uint64_t bits, int count) {
    held_ |= bits << heldBits_;
    heldBits_ += count;
  }
  // Leaves fewer than 8 bits held.
  void Flush() {
    __builtin_memcpy(out_, &held_, sizeof held_);  // little-endian, as all that Node runs on
    out_ += heldBits_ >> 3;
    held_ >>= heldBits_ & ~7;
    heldBits_ &= 7;
  }
  // Bytes [data, data + length) as stored blocks; ends at a byte boundary. Empty: one empty block.
  void PutStored(const uint8_t* data, size_t length);
  // To be read at a byte boundary.
  uint8_t* end() const { return out_; }

 private:
  uint8_t* out_;
  uint64_t held_ = 0;
  int heldBits_ = 0;
};

// The header of a block with codes of its own.
class BlockHeader {
 public:
  BlockHeader(const Code* literals, const Code* distances);
  uint32_t bits() const { return bits_; }
  void Write(BitWriter& to) const;

 private:
  struct Item {
    uint8_t symbol;
    uint8_t extra;
  };
  void Add(int symbol, int extra = 0);
  void AddRun(int length, int count);

  int literals_ = kLiterals;
  int distances_ = kDistances;
  int lengthCodes_ = 19;
  int count_ = 0;
  uint32_t bits_ = 0;
  Item items_[kLiterals + kDistances];
  Code codes_[19];
};

}  // namespace varve::deflate
