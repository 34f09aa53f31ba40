#include "gunzip.hh"

#include <unistd.h>

#include <cerrno>
#include <cstring>

// Without the header (package libisal-dev) layers are inflated by a program or by Node.
#if __has_include(<isa-l/igzip_lib.h>)

#include <dlfcn.h>
#include <isa-l/crc.h>
#include <isa-l/igzip_lib.h>

namespace varve {
namespace {

constexpr size_t kInput = 256 * 1024;

struct Library {
  decltype(&isal_inflate_init) init = nullptr;
  decltype(&isal_inflate_reset) reset = nullptr;
  decltype(&isal_inflate) inflate = nullptr;
  decltype(&crc32_gzip_refl) crc32 = nullptr;
  bool isComplete() const {
    return init != nullptr && reset != nullptr && inflate != nullptr && crc32 != nullptr;
  }
};

// Loaded rather than linked, so that one build runs with the library and without it.
const Library& Load() {
  static const Library library = [] {
    Library to;
    void* handle = ::dlopen("libisal.so.2", RTLD_NOW | RTLD_LOCAL);
    if (handle == nullptr) return to;
    to.init = reinterpret_cast<decltype(to.init)>(::dlsym(handle, "isal_inflate_init"));
    to.reset = reinterpret_cast<decltype(to.reset)>(::dlsym(handle, "isal_inflate_reset"));
    to.inflate = reinterpret_cast<decltype(to.inflate)>(::dlsym(handle, "isal_inflate"));
    to.crc32 = reinterpret_cast<decltype(to.crc32)>(::dlsym(handle, "crc32_gzip_refl"));
    return to;
  }();
  return library;
}

}  // namespace

struct Gunzip::Inflater {
  inflate_state state;
};

bool CanGunzip() { return Load().isComplete(); }

uint32_t Crc32(uint32_t crc, const uint8_t* data, size_t length) {
  return Load().crc32(crc, data, length);
}

Gunzip::Gunzip(int fd)
    : fd_(fd),
      inflater_(std::make_unique<Inflater>()),
      input_(std::make_unique_for_overwrite<uint8_t[]>(kInput)) {
  Load().init(&inflater_->state);
  inflater_->state.crc_flag = ISAL_GZIP;
  inflater_->state.next_in = input_.get();
}

Gunzip::~Gunzip() = default;

int64_t Gunzip::Refill(size_t wanted) {
  inflate_state& state = inflater_->state;
  if (state.avail_in >= wanted || isAtFileEnd_) return 0;
  std::memmove(input_.get(), state.next_in, state.avail_in);
  state.next_in = input_.get();
  while (state.avail_in < wanted && !isAtFileEnd_) {
    const ssize_t count =
        ::read(fd_, input_.get() + state.avail_in, kInput - state.avail_in);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return -errno;
    isAtFileEnd_ = count == 0;
    state.avail_in += static_cast<uint32_t>(count);
    consumed_.fetch_add(count, std::memory_order_relaxed);
  }
  return 0;
}

int64_t Gunzip::NextMember() {
  inflate_state& state = inflater_->state;
  if (const int64_t status = Refill(2); status < 0) return status;
  if (state.avail_in < 2 || state.next_in[0] != 0x1f || state.next_in[1] != 0x8b) return 0;
  Load().reset(&state);
  state.crc_flag = ISAL_GZIP;
  isAtHeader_ = true;
  return 1;
}

int64_t Gunzip::CheckHeader() {
  isAtHeader_ = false;
  if (const int64_t status = Refill(4); status < 0) return status;
  const inflate_state& state = inflater_->state;
  // RFC 1952, 2.3.1.2: reserved flags must be refused; ISA-L 2.30 passes over them.
  return state.avail_in >= 4 && (state.next_in[3] & 0xe0) != 0 ? -EBADMSG : 0;
}

int64_t Gunzip::Read(uint8_t* target, size_t capacity) {
  inflate_state& state = inflater_->state;
  state.next_out = target;
  state.avail_out = static_cast<uint32_t>(capacity);
  while (state.avail_out > 0 && !isAtEnd_) {
    if (state.block_state == ISAL_BLOCK_FINISH) {
      const int64_t more = NextMember();
      if (more < 0) return more;
      isAtEnd_ = more == 0;
      continue;
    }
    if (const int64_t status = isAtHeader_ ? CheckHeader() : Refill(1); status < 0) return status;
    const uint32_t room = state.avail_out;
    const uint32_t input = state.avail_in;
    const auto stage = state.block_state;
    const int result = Load().inflate(&state);
    if (result == ISAL_INCORRECT_CHECKSUM) return -EILSEQ;
    // What asks for more (END_INPUT) or for room is above zero.
    if (result < 0) return -EBADMSG;
    const bool isStuck =
        state.avail_out == room && state.avail_in == input && state.block_state == stage;
    if (isStuck) return isAtFileEnd_ ? -ENODATA : -EBADMSG;
  }
  return static_cast<int64_t>(capacity - state.avail_out);
}

}  // namespace varve

#else

namespace varve {

struct Gunzip::Inflater {};

bool CanGunzip() { return false; }
uint32_t Crc32(uint32_t, const uint8_t*, size_t) { return 0; }

Gunzip::Gunzip(int fd) : fd_(fd) {}
Gunzip::~Gunzip() = default;
int64_t Gunzip::Refill(size_t) { return -ENOSYS; }
int64_t Gunzip::NextMember() { return -ENOSYS; }
int64_t Gunzip::CheckHeader() { return -ENOSYS; }
int64_t Gunzip::Read(uint8_t*, size_t) { return -ENOSYS; }

}  // namespace varve

#endif
