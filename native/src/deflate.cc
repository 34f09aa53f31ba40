#include "deflate.hh"

#include <memory>

#include "deflate_codes.hh"
#include "deflate_matches.hh"

namespace varve {
namespace deflate {
namespace {

// Tokens of a block at most: bounds memory, and a block's codes fit what is near.
constexpr uint32_t kMaxTokens = 32768;
// Tokens after which it is asked whether a block of new codes should begin.
constexpr uint32_t kChunkTokens = 4096;
// What a block's header costs, in bits, as a rule.
constexpr uint64_t kHeaderCost = 600;
// Bytes that are looked at together for being noise.
constexpr uint32_t kSegment = 16384;
// One byte in so many is looked at, and one position of noise in so many remembered.
constexpr uint32_t kStride = 16;

struct Effort {
  uint32_t depth;   // places looked at for a match
  uint32_t enough;  // a match this long is taken without looking further
  bool isLazy;      // look whether the next position has a longer one
};

constexpr Effort kEfforts[] = {
    {2, 32, false}, {6, 32, false},  {5, 24, true},    {8, 32, true},    {14, 48, true},
    {24, 96, true}, {50, 192, true}, {150, 258, true}, {600, 258, true},
};

// Literals are their byte; matches have the distance above the length.
constexpr uint32_t kLengthBits = 9;
constexpr uint32_t kMatchFlag = 1u << 31;

struct Counts {
  uint32_t literals[kLiterals];
  uint32_t distances[kDistances];
};

uint64_t EntropyCost(const uint32_t* one, const uint32_t* other, int symbols) {
  uint64_t cost = 0;
  uint32_t total = 0;
  for (int i = 0; i < symbols; i++) {
    const uint32_t count = one[i] + (other == nullptr ? 0 : other[i]);
    if (count == 0) continue;
    total += count;
    cost += static_cast<uint64_t>(count) * FixedLog2(count);
  }
  return total == 0 ? 0 : static_cast<uint64_t>(total) * FixedLog2(total) - cost;
}

// Bits that the symbols cost with ideal codes, in units of 2^-16.
uint64_t Cost(const Counts& one, const Counts* other = nullptr) {
  return EntropyCost(one.literals, other ? other->literals : nullptr, kLiterals) +
         EntropyCost(one.distances, other ? other->distances : nullptr, kDistances);
}

// One call of Deflate. Large, so a thread keeps one.
class Deflater {
 public:
  uint8_t* Run(int level, const uint8_t* data, uint32_t begin, uint32_t end, uint8_t* out) {
    const Effort effort = kEfforts[level - 1];
    data_ = data;
    end_ = end;
    matches_.Reset(data, end);
    BitWriter writer(out);
    writer_ = &writer;
    StartBlock(begin);
    for (uint32_t i = begin > kWindow ? begin - kWindow : 0; i < begin; i++) Learn(i);
    uint32_t position = begin;
    uint32_t nextSegment = begin;
    while (position < end) {
      if (position >= nextSegment) {
        nextSegment = position + kSegment;
        if (IsNoise(position)) {
          EndBlock(position);
          position = SkipNoise(position);
          nextSegment = position + kSegment;
          StartBlock(position);
          continue;
        }
      }
      position = effort.isLazy ? ParseLazily(effort, position) : ParseGreedily(effort, position);
      if (chunkTokens_ >= kChunkTokens) EndChunk(position);
    }
    EndBlock(end);
    writer.PutStored(data, 0);
    return writer.end();
  }

 private:
  void Learn(uint32_t position) {
    if (matches_.HasRoom(position)) matches_.Insert(position);
  }

  Match Find(uint32_t position, uint32_t longerThan, uint32_t depth, uint32_t enough) {
    if (!matches_.HasRoom(position)) return {};
    return matches_.FindAndInsert(position, longerThan, depth, enough);
  }

  // One literal or match; returns the position after it.
  uint32_t ParseGreedily(const Effort& effort, uint32_t position) {
    const Match match = Find(position, 2, effort.depth, effort.enough);
    if (match.length == 0) {
      PutLiteral(data_[position]);
      return position + 1;
    }
    return PutMatch(position, 1, match);
  }

  // One literal, or a match with the literals before it that made it longer.
  uint32_t ParseLazily(const Effort& effort, uint32_t position) {
    Match match = Find(position, 2, effort.depth, effort.enough);
    if (match.length == 0) {
      PutLiteral(data_[position]);
      return position + 1;
    }
    while (match.length < effort.enough) {
      const uint32_t depth = std::max(effort.depth >> (match.length >= 8 ? 2 : 1), 1u);
      const Match next = Find(position + 1, match.length, depth, effort.enough);
      if (next.length == 0) return PutMatch(position, 2, match);
      PutLiteral(data_[position++]);
      match = next;
    }
    return PutMatch(position, 1, match);
  }

  void PutLiteral(uint8_t byte) {
    chunk_.literals[byte]++;
    tokens_[tokenCount_++] = byte;
    chunkTokens_++;
  }

  // `known` positions of the match are in the finder already.
  uint32_t PutMatch(uint32_t position, uint32_t known, Match match) {
    chunk_.literals[kLengths[match.length].symbol]++;
    chunk_.distances[DistanceSymbol(match.distance).symbol]++;
    tokens_[tokenCount_++] = kMatchFlag | (match.distance - 1) << kLengthBits | match.length;
    chunkTokens_++;
    const uint32_t after = position + match.length;
    for (uint32_t i = position + known; i < after; i++) Learn(i);
    return after;
  }

  void StartBlock(uint32_t position) {
    blockStart_ = position;
    chunkStart_ = position;
    tokenCount_ = 0;
    chunkTokens_ = 0;
    block_ = {};
    chunk_ = {};
  }

  // Joins the chunk to the block, or ends the block before it if both are cheaper apart.
  void EndChunk(uint32_t position) {
    const uint64_t apart = Cost(block_) + Cost(chunk_) + (kHeaderCost << 16);
    const bool isOther = tokenCount_ > chunkTokens_ && apart < Cost(block_, &chunk_);
    if (isOther) {
      const uint32_t count = chunkTokens_;
      const uint32_t first = tokenCount_ - count;
      WriteBlock(chunkStart_, first);
      std::memmove(tokens_, tokens_ + first, count * sizeof tokens_[0]);
      blockStart_ = chunkStart_;
      tokenCount_ = count;
      block_ = chunk_;
    } else {
      AddChunk();
    }
    chunk_ = {};
    chunkTokens_ = 0;
    chunkStart_ = position;
    if (tokenCount_ + 2 * kChunkTokens <= kMaxTokens) return;
    WriteBlock(position, tokenCount_);
    StartBlock(position);
  }

  void AddChunk() {
    for (int i = 0; i < kLiterals; i++) block_.literals[i] += chunk_.literals[i];
    for (int i = 0; i < kDistances; i++) block_.distances[i] += chunk_.distances[i];
  }

  void EndBlock(uint32_t position) {
    AddChunk();
    if (tokenCount_ > 0) WriteBlock(position, tokenCount_);
  }

  // Writes the first `count` tokens, which stand for data[blockStart_, blockEnd).
  void WriteBlock(uint32_t blockEnd, uint32_t count) {
    block_.literals[kEndOfBlock]++;
    MakeCodes(block_.literals, kLiterals, 15, literalCodes_);
    MakeCodes(block_.distances, kDistances, 15, distanceCodes_);
    const BlockHeader header(literalCodes_, distanceCodes_);
    uint64_t bits = header.bits();
    for (int i = 0; i < kLiterals; i++) {
      const int extra = i < 257 ? 0 : kLengths[kLengthBases[i - 257]].extraBits;
      bits += uint64_t{block_.literals[i]} * (literalCodes_[i].length + static_cast<uint32_t>(extra));
    }
    for (uint32_t i = 0; i < kDistances; i++) {
      const uint32_t extra = i < 4 ? 0 : i / 2 - 1;
      bits += uint64_t{block_.distances[i]} * (distanceCodes_[i].length + extra);
    }
    const uint32_t bytes = blockEnd - blockStart_;
    if (bits >= uint64_t{8} * (bytes + 5 * (bytes / 65535 + 1))) {
      writer_->PutStored(data_ + blockStart_, bytes);
      return;
    }
    header.Write(*writer_);
    WriteTokens(count);
  }

  void WriteTokens(uint32_t count) {
    // A copy in registers: the compiler cannot know that the output is not this object.
    BitWriter to = *writer_;
    for (uint32_t i = 0; i < count; i++) {
      const uint32_t token = tokens_[i];
      if ((token & kMatchFlag) == 0) {
        to.Put(literalCodes_[token].bits, literalCodes_[token].length);
        to.Flush();
        continue;
      }
      const uint32_t length = token & ((1 << kLengthBits) - 1);
      const uint32_t distance = ((token & ~kMatchFlag) >> kLengthBits) + 1;
      const Symbol lengthSymbol = kLengths[length];
      const Code lengthCode = literalCodes_[lengthSymbol.symbol];
      to.Put(lengthCode.bits, lengthCode.length);
      to.Put(length - kLengthBases[lengthSymbol.symbol - 257], lengthSymbol.extraBits);
      const Symbol distanceSymbol = DistanceSymbol(distance);
      const Code distanceCode = distanceCodes_[distanceSymbol.symbol];
      to.Put(distanceCode.bits, distanceCode.length);
      to.Put(DistanceExtra(distance, distanceSymbol), distanceSymbol.extraBits);
      to.Flush();
    }
    to.Put(literalCodes_[kEndOfBlock].bits, literalCodes_[kEndOfBlock].length);
    to.Flush();
    *writer_ = to;
  }

  // Whether the segment from here on is as good as random: bytes nearly equally frequent, and
  // (nearly) nothing that was seen before. Compressing such data takes longest and gains nothing.
  bool IsNoise(uint32_t position) const {
    if (end_ - position < kSegment) return false;
    uint32_t counts[256] = {};
    for (uint32_t i = 0; i < kSegment; i += kStride) counts[data_[position + i]]++;
    uint64_t squares = 0;
    for (const uint32_t count : counts) squares += uint64_t{count} * count;
    // Of n random bytes the sum is n + n * (n - 1) / 256 on average, 5116 here, and within 2% of it.
    static_assert(kSegment / kStride == 1024);
    if (squares > 5400) return false;
    int known = 0;
    // Runs of a stride, so that one of their positions is in step with those that SkipNoise keeps.
    for (uint32_t i = 0; i < kSegment; i += 16 * kStride) {
      for (uint32_t j = 0; j < kStride; j++) known += matches_.IsKnown(position + i + j) ? 1 : 0;
    }
    return known <= 2;
  }

  // Stores segments of noise as they are. Some of their positions stay findable, so that a copy
  // of them is not taken for noise.
  uint32_t SkipNoise(uint32_t position) {
    const uint32_t start = position;
    do {
      for (uint32_t i = 0; i < kSegment; i += kStride) Learn(position + i);
      position += kSegment;
    } while (IsNoise(position));
    writer_->PutStored(data_ + start, position - start);
    return position;
  }

  const uint8_t* data_ = nullptr;
  uint32_t end_ = 0;
  uint32_t blockStart_ = 0;
  uint32_t chunkStart_ = 0;
  uint32_t tokenCount_ = 0;
  uint32_t chunkTokens_ = 0;
  BitWriter* writer_ = nullptr;
  Counts block_;
  Counts chunk_;
  Code literalCodes_[kLiterals];
  Code distanceCodes_[kDistances];
  MatchFinder matches_;
  uint32_t tokens_[kMaxTokens];
};

}  // namespace
}  // namespace deflate

size_t DeflateBound(size_t length) {
  // Stored blocks of 64 KiB, a partly filled one for each piece that ends early, and the writer's slack.
  return length + length / 512 + 64;
}

size_t Deflate(int level, const uint8_t* data, size_t begin, size_t end, uint8_t* out) {
  thread_local const auto deflater = std::make_unique<deflate::Deflater>();
  const uint8_t* const last = deflater->Run(level, data, static_cast<uint32_t>(begin),
                                            static_cast<uint32_t>(end), out);
  return static_cast<size_t>(last - out);
}

}  // namespace varve
