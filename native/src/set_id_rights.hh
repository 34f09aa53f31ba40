// What a thread may not do for a moment, so that the kernel remembers it of the descriptors registered then.
#pragma once

#include <linux/capability.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdint>

// Gives up CAP_FSETID on this thread while it exists, if the thread has it. The kernel writes to a
// backing file with the rights of who registered it, and without asking whether the writer himself may
// leave set-id bits on it: nobody may, then.
class WithoutSetIdRights {
 public:
  WithoutSetIdRights() {
    if (syscall(SYS_capget, &header_, data_) != 0) return;
    uint32_t had = data_[0].effective;
    if ((had & kBit) == 0) return;
    data_[0].effective = had & ~kBit;
    changed_ = syscall(SYS_capset, &header_, data_) == 0;
    data_[0].effective = had;
  }
  ~WithoutSetIdRights() {
    if (changed_) syscall(SYS_capset, &header_, data_);
  }
  WithoutSetIdRights(const WithoutSetIdRights&) = delete;
  WithoutSetIdRights& operator=(const WithoutSetIdRights&) = delete;

 private:
  static constexpr uint32_t kBit = 1u << CAP_FSETID;
  __user_cap_header_struct header_{_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct data_[2]{};
  bool changed_ = false;
};
