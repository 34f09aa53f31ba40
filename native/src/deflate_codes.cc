#include "deflate_codes.hh"

#include <algorithm>
#include <cstring>

namespace varve::deflate {
namespace {

constexpr int kMaxCodeLength = 15;

// Lengths of an optimal code for `count` weights in ascending order, written over the weights: the
// method of Moffat and Katajainen, in place. First each weight of a joined pair becomes the index of
// its parent, then those become depths, then depths of joined nodes become those of the leaves.
void OptimalLengths(uint32_t* weights, int count) {
  int leaf = 2;
  int root = 0;
  weights[0] += weights[1];
  for (int next = 1; next < count - 1; next++) {
    uint32_t sum = 0;
    for (int part = 0; part < 2; part++) {
      const bool takeNode = root < next && (leaf >= count || weights[root] < weights[leaf]);
      if (takeNode) {
        sum += weights[root];
        weights[root++] = static_cast<uint32_t>(next);
      } else {
        sum += weights[leaf++];
      }
    }
    weights[next] = sum;
  }
  weights[count - 2] = 0;
  for (int node = count - 3; node >= 0; node--) weights[node] = weights[weights[node]] + 1;
  int available = 1;
  int node = count - 2;
  int next = count - 1;
  for (uint32_t depth = 0; available > 0; depth++) {
    int used = 0;
    while (node >= 0 && weights[node] == depth) {
      used++;
      node--;
    }
    for (; available > used; available--) weights[next--] = depth;
    available = 2 * used;
  }
}

// Moves codes that are too long up to `maxLength`, and pays for it with longer ones elsewhere.
void LimitLengths(uint32_t* countOf, int maxLength) {
  uint32_t space = 0;
  for (int length = 1; length <= maxLength; length++) {
    space += countOf[length] << (maxLength - length);
  }
  for (; space > 1u << maxLength; space--) {
    int length = maxLength - 1;
    while (countOf[length] == 0) length--;
    countOf[maxLength]--;
    countOf[length]--;
    countOf[length + 1] += 2;
  }
}

uint16_t Reverse(uint32_t bits, int length) {
  uint32_t reversed = 0;
  for (int i = 0; i < length; i++) reversed |= ((bits >> i) & 1) << (length - 1 - i);
  return static_cast<uint16_t>(reversed);
}

// Codes in the order of lengths and then symbols, as the header implies them.
void AssignCodes(Code* codes, int symbols, const uint32_t* countOf) {
  uint32_t next[kMaxCodeLength + 1] = {};
  for (int length = 1; length < kMaxCodeLength; length++) {
    next[length + 1] = (next[length] + countOf[length]) << 1;
  }
  for (int symbol = 0; symbol < symbols; symbol++) {
    const int length = codes[symbol].length;
    codes[symbol].bits = length == 0 ? 0 : Reverse(next[length]++, length);
  }
}

// log2(1 + i/256), in units of 2^-16: each squaring gives the next binary digit.
constexpr std::array<uint32_t, 256> MakeLogs() {
  std::array<uint32_t, 256> logs{};
  for (uint32_t i = 0; i < 256; i++) {
    uint64_t x = static_cast<uint64_t>(256 + i) << 22;  // 1.0 is 2^30
    uint32_t log = 0;
    for (int digit = 0; digit < 16; digit++) {
      x = (x * x) >> 30;
      log <<= 1;
      if (x >= uint64_t{1} << 31) {
        log |= 1;
        x >>= 1;
      }
    }
    logs[i] = log;
  }
  return logs;
}

constexpr auto kLogs = MakeLogs();

// The order in which lengths of the code of code lengths are sent.
constexpr uint8_t kLengthOrder[19] = {16, 17, 18, 0, 8,  7, 9,  6, 10, 5,
                                      11, 4,  12, 3, 13, 2, 14, 1, 15};
constexpr uint8_t kRunBits[3] = {2, 3, 7};  // of symbols 16, 17, 18

}  // namespace

void MakeCodes(const uint32_t* counts, int symbols, int maxLength, Code* codes) {
  uint32_t keys[kLiterals];
  uint32_t weights[kLiterals];
  int used = 0;
  for (int symbol = 0; symbol < symbols; symbol++) {
    codes[symbol] = {0, 0};
    if (counts[symbol] != 0) keys[used++] = counts[symbol] << 9 | static_cast<uint32_t>(symbol);
  }
  for (int symbol = 0; used < 2; symbol++) {
    if (counts[symbol] == 0) keys[used++] = 1u << 9 | static_cast<uint32_t>(symbol);
  }
  std::sort(keys, keys + used);
  for (int i = 0; i < used; i++) weights[i] = keys[i] >> 9;
  OptimalLengths(weights, used);
  uint32_t countOf[kMaxCodeLength + 1] = {};
  for (int i = 0; i < used; i++) {
    countOf[std::min(weights[i], static_cast<uint32_t>(maxLength))]++;
  }
  LimitLengths(countOf, maxLength);
  int at = 0;
  for (int length = maxLength; length > 0; length--) {
    for (uint32_t i = 0; i < countOf[length]; i++) {
      codes[keys[at++] & 511].length = static_cast<uint8_t>(length);
    }
  }
  AssignCodes(codes, symbols, countOf);
}

uint32_t FixedLog2(uint32_t n) {
  const int whole = 31 - __builtin_clz(n);
  const uint32_t fraction = static_cast<uint32_t>((static_cast<uint64_t>(n) << 8) >> whole) & 255;
  return static_cast<uint32_t>(whole) << 16 | kLogs[fraction];
}

void BitWriter::PutStored(const uint8_t* data, size_t length) {
  do {
    const size_t part = std::min<size_t>(length, 65535);
    Put(0, 3);
    heldBits_ = (heldBits_ + 7) & ~7;
    Put(part, 16);
    Put(part ^ 0xffff, 16);
    Flush();
    if (part > 0) std::memcpy(out_, data, part);
    out_ += part;
    data += part;
    length -= part;
  } while (length > 0);
}

BlockHeader::BlockHeader(const Code* literals, const Code* distances) {
  while (literals_ > 257 && literals[literals_ - 1].length == 0) literals_--;
  while (distances_ > 1 && distances[distances_ - 1].length == 0) distances_--;
  const int total = literals_ + distances_;
  const auto lengthAt = [&](int i) -> int {
    return i < literals_ ? literals[i].length : distances[i - literals_].length;
  };
  for (int i = 0; i < total;) {
    int end = i + 1;
    while (end < total && lengthAt(end) == lengthAt(i)) end++;
    AddRun(lengthAt(i), end - i);
    i = end;
  }
  uint32_t counts[19] = {};
  for (int i = 0; i < count_; i++) counts[items_[i].symbol]++;
  MakeCodes(counts, 19, 7, codes_);
  while (lengthCodes_ > 4 && codes_[kLengthOrder[lengthCodes_ - 1]].length == 0) lengthCodes_--;
  bits_ = 3 + 5 + 5 + 4 + 3 * static_cast<uint32_t>(lengthCodes_);
  for (int i = 0; i < count_; i++) {
    const int symbol = items_[i].symbol;
    bits_ += codes_[symbol].length + (symbol < 16 ? 0u : kRunBits[symbol - 16]);
  }
}

void BlockHeader::Add(int symbol, int extra) {
  items_[count_++] = {static_cast<uint8_t>(symbol), static_cast<uint8_t>(extra)};
}

void BlockHeader::AddRun(int length, int count) {
  if (length != 0) {
    Add(length);
    count--;
  }
  const int most = length == 0 ? 138 : 6;
  while (count >= 3) {
    const int part = std::min(count, most);
    if (length != 0) Add(16, part - 3);
    else if (part < 11) Add(17, part - 3);
    else Add(18, part - 11);
    count -= part;
  }
  for (; count > 0; count--) Add(length);
}

void BlockHeader::Write(BitWriter& to) const {
  to.Put(0b100, 3);  // not the last block; codes of its own
  to.Put(static_cast<uint64_t>(literals_ - 257), 5);
  to.Put(static_cast<uint64_t>(distances_ - 1), 5);
  to.Put(static_cast<uint64_t>(lengthCodes_ - 4), 4);
  to.Flush();
  for (int i = 0; i < lengthCodes_; i++) {
    to.Put(codes_[kLengthOrder[i]].length, 3);
    to.Flush();
  }
  for (int i = 0; i < count_; i++) {
    const auto [symbol, extra] = items_[i];
    to.Put(codes_[symbol].bits, codes_[symbol].length);
    if (symbol >= 16) to.Put(extra, kRunBits[symbol - 16]);
    to.Flush();
  }
}

}  // namespace varve::deflate
