// statx(2) and its record as JavaScript sees it.
#pragma once

#include <sys/stat.h>

#include <cstddef>

namespace varve {

// STAT_SLOTS of src/system/native.ts; the order of the slots is defined there.
inline constexpr size_t kStatSlots = 20;

// What every record asks the kernel for.
inline constexpr unsigned kStatMask = STATX_BASIC_STATS | STATX_BTIME | STATX_MNT_ID;

// Writes kStatSlots numbers.
void FillStat(const struct statx& from, double* to);

}  // namespace varve
