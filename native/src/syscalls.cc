#include "syscalls.hh"

Napi::Object InitSyscalls(Napi::Env env) {
  Napi::Object exports = Napi::Object::New(env);
  const varve::Methods parts[] = {
      varve::CopyMethods(),  varve::DirectoryMethods(), varve::ErrnoMethods(),
      varve::FileMethods(),  varve::FsopsMethods(),     varve::MountMethods(),
      varve::StatMethods(),  varve::SyncMethods(),      varve::XattrMethods(),
  };
  for (const varve::Methods& part : parts) {
    for (const varve::Method& method : part) {
      napi_value function = nullptr;
      napi_create_function(env, method.name, NAPI_AUTO_LENGTH, method.callback, nullptr, &function);
      exports.Set(method.name, Napi::Value(env, function));
    }
  }
  return exports;
}
