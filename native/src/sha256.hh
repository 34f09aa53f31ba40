// SHA-256 by the OpenSSL that Node brings.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace varve {

// Hashes outside Node's own threads. Where Node exports no OpenSSL, `isAvailable` is false and
// nothing may be called: the caller hashes in JavaScript.
class Sha256 {
 public:
  Sha256();
  ~Sha256();
  Sha256(const Sha256&) = delete;
  Sha256& operator=(const Sha256&) = delete;

  bool isAvailable() const { return context_ != nullptr; }
  void Update(const uint8_t* data, size_t length);
  // Once, after the last Update.
  std::array<uint8_t, 32> Finish();

 private:
  void* context_ = nullptr;
};

}  // namespace varve
