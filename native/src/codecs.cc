// Compression and hashing on the thread pool.
#include "codecs.hh"

#include <unistd.h>

#include <algorithm>
#include <memory>

#include "arguments.hh"
#include "deflate.hh"
#include "gunzip.hh"
#include "pool_call.hh"
#include "sha256.hh"

namespace varve {

// What CreateSha256 made.
struct Hash {
  Sha256* state = nullptr;
  napi_value value = nullptr;
};

template <>
struct Decoder<Hash> {
  static constexpr size_t kCount = 1;
  static int Read(napi_env env, const napi_value* from, Hash& to) {
    to.value = from[0];
    void* data = nullptr;
    if (napi_get_value_external(env, from[0], &data) != napi_ok) return kWrongType;
    to.state = static_cast<Sha256*>(data);
    return 0;
  }
};

namespace {

napi_value DeflateAsync(napi_env env, int32_t level, const Kept<Slice>& data, int64_t history,
                        const Kept<Bytes>& out) {
  const auto length = static_cast<int64_t>(data.length);
  const bool isInRange = level >= kDeflateLowest && level <= kDeflateHighest && history >= 0 &&
                         history <= length && length <= INT32_MAX &&
                         out.length >= DeflateBound(static_cast<size_t>(length - history));
  if (!isInRange) return MakeNumber(env, -EINVAL);
  const auto work = [level, from = Slice{data}, history, to = Bytes{out}] {
    return static_cast<int64_t>(
        Deflate(level, from.data, static_cast<size_t>(history), from.length, to.data));
  };
  return CallOnPool(env, "varve:deflate", work, {data.value, out.value});
}

int64_t RoomForDeflate(int64_t length) {
  return length < 0 ? -EINVAL : static_cast<int64_t>(DeflateBound(static_cast<size_t>(length)));
}

void DestroyHash(napi_env, void* data, void*) { delete static_cast<Sha256*>(data); }

// undefined where Node exports no OpenSSL.
napi_value CreateSha256(napi_env env) {
  auto hash = std::make_unique<Sha256>();
  napi_value value = nullptr;
  if (!hash->isAvailable()) {
    napi_get_undefined(env, &value);
    return value;
  }
  if (napi_create_external(env, hash.get(), DestroyHash, nullptr, &value) != napi_ok) return nullptr;
  hash.release();  // DestroyHash frees it
  return value;
}

napi_value HashAsync(napi_env env, const Hash& hash, const Kept<Slice>& data) {
  const auto work = [state = hash.state, from = Slice{data}] {
    state->Update(from.data, from.length);
    return int64_t{0};
  };
  return CallOnPool(env, "varve:hash", work, {hash.value, data.value});
}

int64_t WriteFully(int fd, const uint8_t* data, size_t length) {
  while (length > 0) {
    const ssize_t count = ::write(fd, data, length);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return -errno;
    data += count;
    length -= static_cast<size_t>(count);
  }
  return 0;
}

napi_value WriteHashedAsync(napi_env env, const Hash& hash, int32_t fd, const Kept<Slice>& data) {
  const auto work = [state = hash.state, fd, from = Slice{data}] {
    state->Update(from.data, from.length);
    return WriteFully(fd, from.data, from.length);
  };
  return CallOnPool(env, "varve:write-hashed", work, {hash.value, data.value});
}

int64_t FinishHash(const Hash& hash, const Bytes& out) {
  const auto digest = hash.state->Finish();
  if (out.length != digest.size()) return -EINVAL;
  std::copy(digest.begin(), digest.end(), out.data);
  return 0;
}

// undefined without ISA-L.
napi_value ContinueCrc32(napi_env env, uint32_t crc, const Slice& data) {
  napi_value nothing = nullptr;
  if (CanGunzip()) return MakeNumber(env, Crc32(crc, data.data, data.length));
  napi_get_undefined(env, &nothing);
  return nothing;
}

constexpr Method kMethods[] = {
    {"crc32", Bind<ContinueCrc32>},
    {"createSha256", Bind<CreateSha256>},
    {"hashAsync", Bind<HashAsync>},
    {"writeHashedAsync", Bind<WriteHashedAsync>},
    {"finishHash", Bind<FinishHash>},
    {"deflateAsync", Bind<DeflateAsync>},
    {"deflateBound", Bind<RoomForDeflate>},
};

}  // namespace
}  // namespace varve

Napi::Object InitCodecs(Napi::Env env) {
  Napi::Object exports = Napi::Object::New(env);
  varve::DefineMethods(env, exports, varve::kMethods);
  return exports;
}
