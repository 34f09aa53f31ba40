// Reading a blob ahead on a thread of its own: inflated, hashed, in a ring of buffers.
#pragma once

#include <napi.h>

Napi::Function DefineStreamReader(Napi::Env env);
