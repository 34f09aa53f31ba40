// Mount table and file handles.
#include <fcntl.h>
#include <sys/mount.h>

#include "syscalls.hh"

namespace varve {
namespace {

int64_t Mount(const Path& source, const Path& target, const Path& type, int64_t flags,
              const Path& data) {
  return Result(::mount(source.c_str(), target.c_str(), type.c_str(),
                        static_cast<unsigned long>(flags), data.empty() ? nullptr : data.c_str()));
}

int64_t Umount2(const Path& target, int32_t flags) { return Result(::umount2(target.c_str(), flags)); }

napi_value NameToHandleAt(napi_env env, int32_t dirfd, const Path& name, int32_t flags) {
  alignas(struct file_handle) char room[sizeof(struct file_handle) + MAX_HANDLE_SZ];
  auto* handle = reinterpret_cast<struct file_handle*>(room);
  handle->handle_bytes = MAX_HANDLE_SZ;
  int mountId = 0;
  if (::name_to_handle_at(dirfd, name.c_str(), handle, &mountId, flags) != 0) {
    return MakeNumber(env, -errno);
  }
  napi_value result = nullptr;
  napi_value bytes = nullptr;
  napi_create_object(env, &result);
  napi_create_buffer_copy(env, handle->handle_bytes, handle->f_handle, nullptr, &bytes);
  napi_set_named_property(env, result, "type", MakeNumber(env, handle->handle_type));
  napi_set_named_property(env, result, "handle", bytes);
  napi_set_named_property(env, result, "mountId", MakeNumber(env, mountId));
  return result;
}

constexpr Method kMethods[] = {
    {"mount", Bind<Mount>},
    {"umount2", Bind<Umount2>},
    {"nameToHandleAt", Bind<NameToHandleAt>},
};

}  // namespace

Methods MountMethods() { return kMethods; }

}  // namespace varve
