#pragma once

namespace varve {

// Has malloc give back what is freed. Call it before there are many threads; again does nothing new.
void BoundMalloc();

}  // namespace varve
