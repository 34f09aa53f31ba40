// The object of system calls (`Syscalls` in src/system/native.ts) and its parts, one per file.
#pragma once

#include <napi.h>

#include "arguments.hh"

Napi::Object InitSyscalls(Napi::Env env);

namespace varve {

Methods CallerMethods();
Methods CopyMethods();
Methods DirectoryMethods();
Methods ErrnoMethods();
Methods FileMethods();
Methods FsopsMethods();
Methods MemoryMethods();
Methods MessageMethods();
Methods StagedBodyMethods();
Methods MountMethods();
Methods SharedMemoryMethods();
Methods SmallFileMethods();
Methods StatMethods();
Methods SyncMethods();
Methods XattrMethods();

}  // namespace varve
