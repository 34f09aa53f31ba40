// Registers the addon. Node calls this once per environment: the main thread and each worker.
#include <napi.h>

#include "codecs.hh"
#include "fuse_channel.hh"
#include "memory.hh"
#include "stream_reader.hh"
#include "syscalls.hh"

static Napi::Object Init(Napi::Env env, Napi::Object exports) {
  varve::BoundMalloc();
  exports.Set("syscalls", InitSyscalls(env));
  exports.Set("codecs", InitCodecs(env));
  exports.Set("fuse", InitFuse(env));
  exports.Set("StreamReader", DefineStreamReader(env));
  return exports;
}

NODE_API_MODULE(varve_native, Init)
