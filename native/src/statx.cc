#include "statx.hh"

#include <fcntl.h>

#include "syscalls.hh"

namespace varve {
namespace {

// The kernel's new_encode_dev: 12 bits of major between 8 low and 12 high bits of minor.
double EncodeDevice(uint32_t major, uint32_t minor) {
  return (minor & 0xff) | (major << 8) | ((minor & ~0xffu) << 12);
}

int64_t Statx(int32_t dirfd, const Path& name, int32_t flags, const Doubles& out) {
  if (out.length < kStatSlots) return -EINVAL;
  struct statx record;
  if (::statx(dirfd, name.c_str(), flags, kStatMask, &record) != 0) return -errno;
  FillStat(record, out.data);
  return 0;
}

constexpr Method kMethods[] = {{"statx", Bind<Statx>}};

}  // namespace

void FillStat(const struct statx& from, double* to) {
  to[0] = static_cast<double>(from.stx_ino);
  to[1] = from.stx_mode;
  to[2] = from.stx_nlink;
  to[3] = from.stx_uid;
  to[4] = from.stx_gid;
  to[5] = EncodeDevice(from.stx_rdev_major, from.stx_rdev_minor);
  to[6] = static_cast<double>(from.stx_size);
  to[7] = static_cast<double>(from.stx_blocks);
  to[8] = from.stx_blksize;
  to[9] = static_cast<double>(from.stx_atime.tv_sec);
  to[10] = from.stx_atime.tv_nsec;
  to[11] = static_cast<double>(from.stx_mtime.tv_sec);
  to[12] = from.stx_mtime.tv_nsec;
  to[13] = static_cast<double>(from.stx_ctime.tv_sec);
  to[14] = from.stx_ctime.tv_nsec;
  to[15] = EncodeDevice(from.stx_dev_major, from.stx_dev_minor);
  // A disk that keeps no birth time answers without the bit; the fields are then zero.
  to[16] = static_cast<double>(from.stx_btime.tv_sec);
  to[17] = from.stx_btime.tv_nsec;
  to[18] = static_cast<double>(from.stx_mnt_id);
  to[19] = 0;
}

Methods StatMethods() { return kMethods; }

}  // namespace varve
