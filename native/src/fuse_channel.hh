// The /dev/fuse side of the addon: channels (one connection each) and the ways to mount one.
// Mechanism only; src/fuse/session.ts holds the protocol and the policy.
#pragma once

#include <napi.h>

// Makes the `fuse` object that src/system/native.ts describes as FuseNative.
Napi::Object InitFuse(Napi::Env env);
