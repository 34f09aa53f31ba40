// The object of codecs (`Codecs` in src/system/native.ts).
#pragma once

#include <napi.h>

Napi::Object InitCodecs(Napi::Env env);
