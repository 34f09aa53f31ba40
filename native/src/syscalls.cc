#include "syscalls.hh"

Napi::Object InitSyscalls(Napi::Env env) {
  Napi::Object exports = Napi::Object::New(env);
  const varve::Methods parts[] = {
      varve::CopyMethods(),  varve::DirectoryMethods(), varve::ErrnoMethods(),
      varve::FileMethods(),  varve::FsopsMethods(),     varve::MountMethods(),
      varve::StatMethods(),  varve::SyncMethods(),      varve::XattrMethods(),
      varve::MessageMethods(), varve::SharedMemoryMethods(), varve::CallerMethods(),
      varve::StagedBodyMethods(), varve::MemoryMethods(),     varve::SmallFileMethods(),
  };
  for (const varve::Methods& part : parts) varve::DefineMethods(env, exports, part);
  return exports;
}
