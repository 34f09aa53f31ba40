// Names and texts of error numbers, from the C library.
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "syscalls.hh"

namespace varve {
namespace {

napi_value MakeString(napi_env env, const char* text) {
  napi_value value = nullptr;
  napi_create_string_utf8(env, text, NAPI_AUTO_LENGTH, &value);
  return value;
}

napi_value ErrnoName(napi_env env, int32_t number) {
  const int32_t positive = std::abs(number);
#ifdef __GLIBC__
  if (const char* name = ::strerrorname_np(positive); name != nullptr) return MakeString(env, name);
#endif
  char unknown[24];
  std::snprintf(unknown, sizeof unknown, "E?%d", positive);
  return MakeString(env, unknown);
}

napi_value ErrnoText(napi_env env, int32_t number) {
  const int32_t positive = std::abs(number);
#ifdef __GLIBC__
  // Not strerror: its text may be overwritten by another thread and follows the locale.
  if (const char* text = ::strerrordesc_np(positive); text != nullptr) return MakeString(env, text);
#endif
  char unknown[40];
  std::snprintf(unknown, sizeof unknown, "Unknown error %d", positive);
  return MakeString(env, unknown);
}

constexpr Method kMethods[] = {
    {"errnoName", Bind<ErrnoName>},
    {"errnoText", Bind<ErrnoText>},
};

}  // namespace

Methods ErrnoMethods() { return kMethods; }

}  // namespace varve
