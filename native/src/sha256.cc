#include "sha256.hh"

#include <dlfcn.h>

namespace varve {
namespace {

// The EVP interface, unchanged since OpenSSL 1.1. Looked up rather than linked: the addon is built
// for every Node, whether its OpenSSL is inside the program or a library of the system.
struct Evp {
  void* (*create)() = nullptr;
  void (*destroy)(void*) = nullptr;
  const void* (*algorithm)() = nullptr;
  int (*init)(void*, const void*, void*) = nullptr;
  int (*update)(void*, const void*, size_t) = nullptr;
  int (*finish)(void*, unsigned char*, unsigned*) = nullptr;
  bool isComplete = false;
};

template <typename F>
bool Find(const char* name, F& to) {
  to = reinterpret_cast<F>(::dlsym(RTLD_DEFAULT, name));
  return to != nullptr;
}

const Evp& Load() {
  static const Evp evp = [] {
    Evp to;
    to.isComplete = Find("EVP_MD_CTX_new", to.create) && Find("EVP_MD_CTX_free", to.destroy) &&
                    Find("EVP_sha256", to.algorithm) && Find("EVP_DigestInit_ex", to.init) &&
                    Find("EVP_DigestUpdate", to.update) && Find("EVP_DigestFinal_ex", to.finish);
    return to;
  }();
  return evp;
}

}  // namespace

Sha256::Sha256() {
  const Evp& evp = Load();
  if (!evp.isComplete) return;
  context_ = evp.create();
  if (context_ == nullptr || evp.init(context_, evp.algorithm(), nullptr) == 1) return;
  evp.destroy(context_);
  context_ = nullptr;
}

Sha256::~Sha256() {
  if (context_ != nullptr) Load().destroy(context_);
}

void Sha256::Update(const uint8_t* data, size_t length) { Load().update(context_, data, length); }

std::array<uint8_t, 32> Sha256::Finish() {
  std::array<uint8_t, 32> digest{};
  Load().finish(context_, digest.data(), nullptr);
  return digest;
}

}  // namespace varve
