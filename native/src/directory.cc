// Reading whole directories in one call.
#include <dirent.h>
#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <memory>
#include <string>
#include <vector>

#include "statx.hh"
#include "syscalls.hh"
#include "xattr.hh"

namespace varve {
namespace {

// Room for a thousand ordinary names at each call; more gains nothing measurable.
constexpr size_t kDentBuffer = 128 * 1024;

// struct linux_dirent64, which no header exports.
struct Dirent64 {
  uint64_t d_ino;
  int64_t d_off;
  uint16_t d_reclen;
  uint8_t d_type;
  char d_name[];
};

struct Entry {
  std::string name;
  uint8_t type;
};

bool IsDot(const char* name) {
  return name[0] == '.' && (name[1] == '\0' || (name[1] == '.' && name[2] == '\0'));
}

// All entries but "." and "..", from the start of the directory. 0 or a negative errno.
int64_t ReadEntries(int fd, std::vector<Entry>& entries) {
  if (::lseek(fd, 0, SEEK_SET) < 0) return -errno;
  const auto buffer = std::make_unique_for_overwrite<char[]>(kDentBuffer);
  for (;;) {
    const long length = ::syscall(SYS_getdents64, fd, buffer.get(), kDentBuffer);
    if (length < 0) return -errno;
    if (length == 0) return 0;
    for (long at = 0; at < length;) {
      const auto* dirent = reinterpret_cast<const Dirent64*>(buffer.get() + at);
      if (!IsDot(dirent->d_name)) entries.push_back({dirent->d_name, dirent->d_type});
      at += dirent->d_reclen;
    }
  }
}

// The DT_* of a name whose disk does not say; DT_UNKNOWN when it is gone meanwhile.
uint8_t ResolveType(int fd, const std::string& name) {
  struct statx record;
  const int flags = AT_SYMLINK_NOFOLLOW | AT_STATX_DONT_SYNC;
  if (::statx(fd, name.c_str(), flags, STATX_TYPE, &record) != 0) return DT_UNKNOWN;
  return static_cast<uint8_t>(IFTODT(record.stx_mode));
}

napi_value MakeName(napi_env env, const char* bytes, size_t length) {
  napi_value value = nullptr;
  napi_create_string_latin1(env, bytes, length, &value);
  return value;
}

napi_value MakeArray(napi_env env, size_t length) {
  napi_value array = nullptr;
  napi_create_array_with_length(env, length, &array);
  return array;
}

// A handle scope around each entry keeps a directory of a million from holding millions of handles.
class EntryScope {
 public:
  explicit EntryScope(napi_env env) : env_(env) { napi_open_handle_scope(env, &scope_); }
  ~EntryScope() { napi_close_handle_scope(env_, scope_); }
  EntryScope(const EntryScope&) = delete;
  EntryScope& operator=(const EntryScope&) = delete;

 private:
  napi_env env_;
  napi_handle_scope scope_ = nullptr;
};

// A typed array with a copy of `data`.
template <typename T>
napi_value MakeTypedArray(napi_env env, napi_typedarray_type type, const std::vector<T>& data) {
  void* memory = nullptr;
  napi_value backing = nullptr;
  napi_value array = nullptr;
  napi_create_arraybuffer(env, data.size() * sizeof(T), &memory, &backing);
  if (!data.empty()) std::memcpy(memory, data.data(), data.size() * sizeof(T));
  napi_create_typedarray(env, type, data.size(), backing, 0, &array);
  return array;
}

napi_value ReadDirectory(napi_env env, int32_t fd) {
  std::vector<Entry> entries;
  if (int64_t status = ReadEntries(fd, entries); status < 0) return MakeNumber(env, status);
  std::erase_if(entries, [fd](Entry& entry) {
    if (entry.type == DT_UNKNOWN) entry.type = ResolveType(fd, entry.name);
    return entry.type == DT_UNKNOWN;
  });
  napi_value names = MakeArray(env, entries.size());
  std::vector<uint8_t> types;
  types.reserve(entries.size());
  for (const Entry& entry : entries) {
    EntryScope scope(env);
    const auto at = static_cast<uint32_t>(types.size());
    napi_set_element(env, names, at, MakeName(env, entry.name.data(), entry.name.size()));
    types.push_back(entry.type);
  }
  napi_value result = nullptr;
  napi_create_object(env, &result);
  napi_set_named_property(env, result, "names", names);
  napi_set_named_property(env, result, "types", MakeTypedArray(env, napi_uint8_array, types));
  return result;
}

// What a scan learns of one entry. The buffers are large, so one of these serves a whole scan.
struct Details {
  struct statx stat;
  ssize_t targetLength = 0;
  char target[PATH_MAX];
  struct Attribute {
    std::string name;
    std::string value;
  };
  std::vector<Attribute> attributes;
  char list[kXattrMax];
  char value[kXattrMax];
};

// 0 or a negative errno. A disk without extended attributes has none.
int64_t ReadAttributes(int fd, const char* name, Details& to) {
  to.attributes.clear();
  const int64_t length = ListXattr(fd, name, to.list, sizeof to.list);
  if (length == -EOPNOTSUPP) return 0;
  if (length < 0) return length;
  for (const char* attribute = to.list; attribute < to.list + length;
       attribute += std::strlen(attribute) + 1) {
    const int64_t size = GetXattr(fd, name, attribute, to.value, sizeof to.value);
    if (size == -ENODATA) continue;  // removed since it was listed
    if (size < 0) return size;
    to.attributes.push_back({attribute, std::string(to.value, static_cast<size_t>(size))});
  }
  return 0;
}

// 0, or a negative errno (ENOENT: gone since it was listed).
int64_t ReadDetails(int fd, const char* name, Details& to) {
  const int flags = AT_SYMLINK_NOFOLLOW | AT_STATX_DONT_SYNC;
  if (::statx(fd, name, flags, kStatMask, &to.stat) != 0) return -errno;
  if (S_ISLNK(to.stat.stx_mode)) {
    to.targetLength = ::readlinkat(fd, name, to.target, sizeof to.target);
    if (to.targetLength < 0) return -errno;
  }
  return ReadAttributes(fd, name, to);
}

napi_value MakeAttributes(napi_env env, const Details& from) {
  napi_value list = MakeArray(env, from.attributes.size());
  uint32_t at = 0;
  for (const auto& [name, value] : from.attributes) {
    napi_value pair = MakeArray(env, 2);
    napi_value bytes = nullptr;
    napi_create_buffer_copy(env, value.size(), value.data(), nullptr, &bytes);
    napi_set_element(env, pair, 0, MakeName(env, name.data(), name.size()));
    napi_set_element(env, pair, 1, bytes);
    napi_set_element(env, list, at++, pair);
  }
  return list;
}

// The growing result of a scan: parallel arrays.
struct Scan {
  napi_value names;
  napi_value targets;
  napi_value attributes;
  napi_value undefined;
  std::vector<double> stats;
};

void AppendDetails(napi_env env, const std::string& name, const Details& details, Scan& scan) {
  EntryScope scope(env);
  const auto at = static_cast<uint32_t>(scan.stats.size() / kStatSlots);
  scan.stats.resize(scan.stats.size() + kStatSlots);
  FillStat(details.stat, &scan.stats[at * kStatSlots]);
  const bool isLink = S_ISLNK(details.stat.stx_mode);
  const auto length = static_cast<size_t>(details.targetLength);
  napi_set_element(env, scan.names, at, MakeName(env, name.data(), name.size()));
  napi_set_element(env, scan.targets, at,
                   isLink ? MakeName(env, details.target, length) : scan.undefined);
  napi_set_element(env, scan.attributes, at,
                   details.attributes.empty() ? scan.undefined : MakeAttributes(env, details));
}

napi_value ScanDirectory(napi_env env, int32_t fd) {
  std::vector<Entry> entries;
  if (int64_t status = ReadEntries(fd, entries); status < 0) return MakeNumber(env, status);
  Scan scan = {MakeArray(env, 0), MakeArray(env, 0), MakeArray(env, 0), nullptr, {}};
  napi_get_undefined(env, &scan.undefined);
  scan.stats.reserve(entries.size() * kStatSlots);
  const auto details = std::make_unique_for_overwrite<Details>();
  for (const Entry& entry : entries) {
    const int64_t status = ReadDetails(fd, entry.name.c_str(), *details);
    if (status == -ENOENT) continue;
    if (status < 0) return MakeNumber(env, status);
    AppendDetails(env, entry.name, *details, scan);
  }
  napi_value result = nullptr;
  napi_create_object(env, &result);
  napi_set_named_property(env, result, "names", scan.names);
  napi_set_named_property(env, result, "stats",
                          MakeTypedArray(env, napi_float64_array, scan.stats));
  napi_set_named_property(env, result, "targets", scan.targets);
  napi_set_named_property(env, result, "xattrs", scan.attributes);
  return result;
}

constexpr Method kMethods[] = {
    {"readDirectory", Bind<ReadDirectory>},
    {"scanDirectory", Bind<ScanDirectory>},
};

}  // namespace

Methods DirectoryMethods() { return kMethods; }

}  // namespace varve
