// Tells the parts that choose between a new system call and an older way.
#pragma once

#include <cstdlib>

namespace varve {

// VARVE_OLD_KERNEL=1 takes the older way everywhere, which lets the tests cover it on any kernel.
inline bool PretendsOldKernel() {
  const char* pretend = std::getenv("VARVE_OLD_KERNEL");
  return pretend != nullptr && *pretend == '1';
}

}  // namespace varve
