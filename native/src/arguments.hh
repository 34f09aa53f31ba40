// Decoding of JavaScript arguments for system calls, without allocation.
//
// Bind<F> turns a plain C++ function into a Node-API callback by the types of its parameters, so
// that each system call in this directory is only its own few lines. Wrong types and ranges throw
// a TypeError or RangeError (they are bugs of the caller); everything else is a negative errno.
#pragma once

#include <node_api.h>

#include <cerrno>
#include <climits>
#include <cstdint>
#include <cstring>
#include <span>
#include <tuple>
#include <type_traits>
#include <utility>

namespace varve {

// A NUL-terminated path, name or attribute name: the low byte of each JavaScript character.
struct Path {
  Path() {}  // leaves the 4 KiB uninitialised
  size_t length = 0;
  char bytes[PATH_MAX + 1];
  const char* c_str() const { return bytes; }
  bool empty() const { return length == 0; }
};

// A whole Buffer or Uint8Array, borrowed for the call.
struct Bytes {
  uint8_t* data = nullptr;
  size_t length = 0;
};

// The part [start, start + length) of a Buffer, given as three arguments and checked.
struct Slice {
  uint8_t* data = nullptr;
  size_t length = 0;
};

// The same with the Buffer itself, for those who keep a reference to it beyond the call.
template <typename T>
struct Kept : T {
  napi_value value = nullptr;
};

// A Float64Array, borrowed for the call.
struct Doubles {
  double* data = nullptr;
  size_t length = 0;
};

// What a decoder answers: 0, a negative errno that becomes the result, or one of these.
inline constexpr int kWrongType = 1;
inline constexpr int kWrongRange = 2;

template <typename T>
struct Decoder;

template <>
struct Decoder<int32_t> {
  static constexpr size_t kCount = 1;
  static int Read(napi_env env, const napi_value* from, int32_t& to) {
    return napi_get_value_int32(env, from[0], &to) == napi_ok ? 0 : kWrongType;
  }
};

template <>
struct Decoder<uint32_t> {
  static constexpr size_t kCount = 1;
  static int Read(napi_env env, const napi_value* from, uint32_t& to) {
    return napi_get_value_uint32(env, from[0], &to) == napi_ok ? 0 : kWrongType;
  }
};

template <>
struct Decoder<int64_t> {
  static constexpr size_t kCount = 1;
  static int Read(napi_env env, const napi_value* from, int64_t& to) {
    return napi_get_value_int64(env, from[0], &to) == napi_ok ? 0 : kWrongType;
  }
};

template <>
struct Decoder<Path> {
  static constexpr size_t kCount = 1;
  static int Read(napi_env env, const napi_value* from, Path& to) {
    if (napi_get_value_string_latin1(env, from[0], to.bytes, sizeof to.bytes, &to.length) !=
        napi_ok) {
      return kWrongType;
    }
    // The copy stops silently at the end of the buffer; PATH_MAX counts the final NUL.
    if (to.length >= PATH_MAX) return -ENAMETOOLONG;
    // The kernel would silently use the part before a NUL, which is another file.
    if (std::memchr(to.bytes, 0, to.length) != nullptr) return -EINVAL;
    return 0;
  }
};

template <>
struct Decoder<Bytes> {
  static constexpr size_t kCount = 1;
  static int Read(napi_env env, const napi_value* from, Bytes& to) {
    void* data = nullptr;
    if (napi_get_buffer_info(env, from[0], &data, &to.length) != napi_ok) return kWrongType;
    to.data = static_cast<uint8_t*>(data);
    return 0;
  }
};

template <>
struct Decoder<Slice> {
  static constexpr size_t kCount = 3;
  static int Read(napi_env env, const napi_value* from, Slice& to) {
    Bytes whole;
    int64_t start = 0;
    int64_t length = 0;
    if (int status = Decoder<Bytes>::Read(env, from, whole); status != 0) return status;
    if (int status = Decoder<int64_t>::Read(env, from + 1, start); status != 0) return status;
    if (int status = Decoder<int64_t>::Read(env, from + 2, length); status != 0) return status;
    const auto size = static_cast<int64_t>(whole.length);
    if (start < 0 || length < 0 || start > size || length > size - start) return kWrongRange;
    // An empty Buffer may have no memory at all, to which nothing may be added.
    to.data = whole.data == nullptr ? nullptr : whole.data + start;
    to.length = static_cast<size_t>(length);
    return 0;
  }
};

template <typename T>
struct Decoder<Kept<T>> {
  static constexpr size_t kCount = Decoder<T>::kCount;
  static int Read(napi_env env, const napi_value* from, Kept<T>& to) {
    to.value = from[0];
    return Decoder<T>::Read(env, from, to);
  }
};

template <>
struct Decoder<Doubles> {
  static constexpr size_t kCount = 1;
  static int Read(napi_env env, const napi_value* from, Doubles& to) {
    napi_typedarray_type type;
    void* data = nullptr;
    if (napi_get_typedarray_info(env, from[0], &type, &to.length, &data, nullptr, nullptr) !=
        napi_ok) {
      return kWrongType;
    }
    if (type != napi_float64_array) return kWrongType;
    to.data = static_cast<double*>(data);
    return 0;
  }
};

inline napi_value MakeNumber(napi_env env, int64_t number) {
  napi_value value = nullptr;
  napi_create_int64(env, number, &value);
  return value;
}

// The result of a libc call: itself, or the negative errno.
inline int64_t Result(int64_t returned) { return returned < 0 ? -errno : returned; }

namespace internal {

inline napi_value Refuse(napi_env env, int status) {
  if (status < 0) return MakeNumber(env, status);
  if (status == kWrongRange) {
    napi_throw_range_error(env, "ERR_OUT_OF_RANGE", "the range lies outside its buffer");
  } else {
    napi_throw_type_error(env, "ERR_INVALID_ARG_TYPE", "an argument of a system call has the wrong type");
  }
  return nullptr;
}

template <typename... A>
int Decode(napi_env env, napi_callback_info info, std::tuple<A...>& to) {
  constexpr size_t kCount = (Decoder<A>::kCount + ... + 0);
  napi_value values[kCount + 1];
  size_t count = kCount;
  // Arguments that the caller left out arrive as undefined, which no decoder takes.
  if (napi_get_cb_info(env, info, &count, values, nullptr, nullptr) != napi_ok) return kWrongType;
  int status = 0;
  const napi_value* next = values;
  auto read = [&]<typename T>(T& one) {
    if (status == 0) status = Decoder<T>::Read(env, next, one);
    next += Decoder<T>::kCount;
  };
  std::apply([&](A&... each) { (read(each), ...); }, to);
  return status;
}

template <auto F>
struct Callback;

// int64_t F(arguments...): the result becomes a number.
template <typename... A, int64_t (*F)(A...)>
struct Callback<F> {
  static napi_value Call(napi_env env, napi_callback_info info) {
    std::tuple<std::remove_cvref_t<A>...> arguments;
    if (int status = Decode(env, info, arguments); status != 0) return Refuse(env, status);
    return MakeNumber(env, std::apply(F, arguments));
  }
};

// napi_value F(env, arguments...): makes its own result.
template <typename... A, napi_value (*F)(napi_env, A...)>
struct Callback<F> {
  static napi_value Call(napi_env env, napi_callback_info info) {
    std::tuple<std::remove_cvref_t<A>...> arguments;
    if (int status = Decode(env, info, arguments); status != 0) return Refuse(env, status);
    return std::apply([env](auto&... each) { return F(env, each...); }, arguments);
  }
};

}  // namespace internal

// A Node-API callback for F; see internal::Callback for the shapes F may have.
template <auto F>
inline constexpr napi_callback Bind = internal::Callback<F>::Call;

// One exported function.
struct Method {
  const char* name;
  napi_callback callback;
};

using Methods = std::span<const Method>;

// Adds functions to an object.
inline void DefineMethods(napi_env env, napi_value object, const Methods& methods) {
  for (const Method& method : methods) {
    napi_value function = nullptr;
    napi_create_function(env, method.name, NAPI_AUTO_LENGTH, method.callback, nullptr, &function);
    napi_set_named_property(env, object, method.name, function);
  }
}

}  // namespace varve
