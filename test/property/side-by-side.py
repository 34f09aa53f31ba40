"""Does the same operations in a view and in a plain directory, and says where they differ.

    side-by-side.py VIEW PLAIN [--fewer-set-id]     with the operations on standard input, as JSON, in one line

Each operation is a list: its name, then numbers that choose paths, descriptors and values. After each
one both results (a value, or the error's name) and both trees must agree: names, types, modes, owners,
link counts, sizes, contents, devices, targets, attributes, and times where somebody set them. An inode
number stands for the same object as long as that is there. "remount" closes everything, prints a line,
and waits for one. With --fewer-set-id the view may lack set-id bits that the plain tree has. The exit code is 0 when nothing differs.
"""

import ctypes
import errno
import json
import mmap
import os
import stat
import sys

libc = ctypes.CDLL(None, use_errno=True)
libc.getdents64.restype = ctypes.c_ssize_t

NAMES = ["a", "b", "d", "e", "one", "big", "x", "new"]
KNOWN = ["a/one", "a/b/two", "a/big", "d/uno", "d/e/eins", "a/b", "a/b/c", "d", "d/f", "d/f/x",
         "empty", "a/link", "a/b/three", "", "many", "many/n7"]
MODES = [0o644, 0o600, 0o755, 0o700, 0o4755, 0o2775, 0o1777, 0o640]
OWNERS = [0, 0, 7, 65534]
TIMES = [1, 1234567890123456789, -5 * 10**9 + 3, 4 * 10**9 * 10**9 + 999999999]
DEVICES = [(stat.S_IFIFO, 0), (stat.S_IFCHR, os.makedev(1, 3)), (stat.S_IFCHR, 0), (stat.S_IFSOCK, 0),
           (stat.S_IFBLK, os.makedev(7, 300)), (stat.S_IFREG, 0)]
OPENINGS = [os.O_RDONLY, os.O_RDWR, os.O_WRONLY, os.O_RDWR | os.O_APPEND, os.O_RDWR | os.O_TRUNC,
            os.O_RDWR | os.O_CREAT, os.O_RDWR | os.O_CREAT | os.O_EXCL, os.O_WRONLY | os.O_CREAT | os.O_TRUNC]
MOST_OPEN = 8
NOT_OPEN = 1 << 20
# Times before this were set by an operation or by the image; later ones are the clock's.
RECENT = 1_600_000_000 * 10**9
NEAR = range(RECENT, 3_000_000_000 * 10**9)


class Side:
    """One of the two trees, and what is open in it."""

    def __init__(self, root):
        self.root = root
        self.fds = []
        self.streams = []
        self.as_user = False

    def at(self, path):
        return os.path.join(self.root, path) if path else self.root

    def fd(self, which):
        return self.fds[which % len(self.fds)] if self.fds else NOT_OPEN

    def close(self):
        for fd in self.fds:
            os.close(fd)
        for stream in self.streams:
            os.close(stream.fd)
        self.fds, self.streams = [], []


class Stream:
    """A directory that is read little by little while its entries come and go."""

    def __init__(self, side, path):
        self.fd = os.open(side.at(path), os.O_RDONLY | os.O_DIRECTORY)
        self.always = set(os.listdir(self.fd))
        self.ever = set(self.always)
        self.seen = []
        os.lseek(self.fd, 0, os.SEEK_SET)

    def note(self):
        now = set(os.listdir("/proc/self/fd/%d" % self.fd))
        self.always &= now
        self.ever |= now

    def read(self):
        """Some more entries; at the end a complaint, or "right"."""
        buffer = ctypes.create_string_buffer(120)
        got = libc.getdents64(self.fd, buffer, len(buffer))
        if got < 0:
            return errno.errorcode[ctypes.get_errno()]
        at = 0
        while at < got:
            length = int.from_bytes(buffer.raw[at + 16:at + 18], "little")
            self.seen.append(buffer.raw[at + 19:at + length].split(b"\0")[0].decode())
            at += length
        if got > 0:
            return "more"
        names = [name for name in self.seen if name not in (".", "..")]
        missing = self.always - set(names)
        invented = set(names) - self.ever
        twice = {name for name in self.always if names.count(name) > 1}
        self.seen = []
        os.lseek(self.fd, 0, os.SEEK_SET)
        self.always = set(os.listdir("/proc/self/fd/%d" % self.fd))
        self.ever = set(self.always)
        return "missing %s, invented %s, twice %s" % (missing, invented, twice) if missing | invented | twice else "right"


def c(result):
    """A libc call's result, or its errno as an exception."""
    if result < 0:
        raise OSError(ctypes.get_errno(), "")
    return result


def path_of(number):
    """One of the paths that there may be: known ones, or up to three names."""
    if number % 2 == 0:
        return KNOWN[number // 2 % len(KNOWN)]
    number //= 2
    depth = 1 + number % 3
    number //= 3
    parts = []
    for _ in range(depth):
        parts.append(NAMES[number % len(NAMES)])
        number //= len(NAMES)
    return "/".join(parts)


def data_of(number):
    return bytes([33 + number % 90]) * (1 + number * 37 % 5000)


def opened(side, path, flags, use):
    fd = os.open(side.at(path), flags | os.O_NOFOLLOW | os.O_NONBLOCK, 0o644)
    try:
        return use(fd)
    finally:
        os.close(fd)


def is_file(fd):
    return stat.S_ISREG(os.fstat(fd).st_mode)


def map_and_write(fd, where, number):
    size = os.fstat(fd).st_size if is_file(fd) else 0
    if size == 0:
        return "empty"
    with mmap.mmap(fd, size) as memory:
        data = data_of(number)[:size - where % size]
        memory[where % size:where % size + len(data)] = data
        if number % 2:
            memory.flush()
        return memory[(where * 7) % size]


def map_and_read(fd, where):
    size = os.fstat(fd).st_size if is_file(fd) else 0
    if size == 0:
        return "empty"
    with mmap.mmap(fd, size, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE) as memory:
        memory[0] = 1
        return memory[where % size]


def open_file(s, p, q, n):
    # What is no file has no contents to compare, and a device is the machine's own.
    if len(s.fds) == MOST_OPEN:
        return "enough"
    fd = os.open(s.at(path_of(p)), OPENINGS[n % len(OPENINGS)] | os.O_NOFOLLOW | os.O_NONBLOCK, 0o644)
    if not is_file(fd):
        os.close(fd)
        return "no file"
    s.fds.append(fd)
    return "open"


def close_file(s, p, q, n):
    return os.close(s.fds.pop(n % len(s.fds))) if s.fds else "none"


def make_unnamed(s, p, q, n):
    if len(s.fds) == MOST_OPEN:
        return "enough"
    s.fds.append(os.open(s.at(path_of(p)), os.O_TMPFILE | os.O_RDWR, 0o600))
    return os.write(s.fds[-1], data_of(n))


def name_open(s, p, q, n):
    return c(libc.linkat(-100, b"/proc/self/fd/%d" % s.fd(n), -100, s.at(path_of(p)).encode(), 0x400))


def open_stream(s, p, q, n):
    if len(s.streams) == 2:
        return "enough"
    s.streams.append(Stream(s, path_of(p)))
    return "open"


def read_stream(s, p, q, n):
    if not s.streams:
        return "none"
    answer = s.streams[n % len(s.streams)].read()
    # How many entries fit in one portion is each file system's own.
    return answer if answer not in ("more", "right") else "some"


def change_user(s, p, q, n):
    s.as_user = n % 3 == 0
    return s.as_user


def seek_hole(s, p, q, n):
    fd = s.fd(n)
    size = os.fstat(fd).st_size
    end = os.lseek(fd, 0, os.SEEK_END)
    # Where holes are is the disk's choice; that there is one at the end is not.
    return (end == size, size == 0 or os.lseek(fd, size - 1, os.SEEK_HOLE) in (size - 1, size))


OPERATIONS = {
    "create": lambda s, p, q, n: opened(s, path_of(p), os.O_CREAT | os.O_EXCL | os.O_RDWR, lambda fd: os.write(fd, data_of(n))),
    "mkdir": lambda s, p, q, n: os.mkdir(s.at(path_of(p)), MODES[n % len(MODES)]),
    "mknod": lambda s, p, q, n: os.mknod(s.at(path_of(p)), DEVICES[n % len(DEVICES)][0] | 0o640, DEVICES[n % len(DEVICES)][1]),
    "symlink": lambda s, p, q, n: os.symlink("../" * (n % 3) + path_of(q), s.at(path_of(p))),
    "link": lambda s, p, q, n: os.link(s.at(path_of(p)), s.at(path_of(q)), follow_symlinks=False),
    "unlink": lambda s, p, q, n: os.unlink(s.at(path_of(p))),
    "rmdir": lambda s, p, q, n: os.rmdir(s.at(path_of(p))) if path_of(p) else "the root",
    # The root is the mount point of one and a directory of the other.
    "rename": lambda s, p, q, n: "the root" if "" in (path_of(p), path_of(q)) else c(libc.renameat2(-100, s.at(path_of(p)).encode(), -100, s.at(path_of(q)).encode(), [0, 0, 1, 2][n % 4])),
    "write": lambda s, p, q, n: opened(s, path_of(p), [os.O_WRONLY, os.O_WRONLY | os.O_APPEND][n % 2],
                                       lambda fd: os.pwrite(fd, data_of(n), q % 50000) if is_file(fd) else "no file"),
    "truncate": lambda s, p, q, n: os.truncate(s.at(path_of(p)), q % 60000),
    "map": lambda s, p, q, n: opened(s, path_of(p), os.O_RDWR, lambda fd: map_and_write(fd, q, n)),
    "map privately": lambda s, p, q, n: opened(s, path_of(p), os.O_RDONLY, lambda fd: map_and_read(fd, q)),
    "chmod": lambda s, p, q, n: os.chmod(s.at(path_of(p)), MODES[n % len(MODES)]),
    "chown": lambda s, p, q, n: os.chown(s.at(path_of(p)), OWNERS[n % 4], OWNERS[q % 4], follow_symlinks=False),
    "utimens": lambda s, p, q, n: os.utime(s.at(path_of(p)), ns=(TIMES[q % 4], TIMES[n % 4]), follow_symlinks=False),
    "setxattr": lambda s, p, q, n: os.setxattr(s.at(path_of(p)), "user.k%d" % (q % 3), data_of(n)[:200], [0, 0, 1, 2][n % 4]),
    "removexattr": lambda s, p, q, n: os.removexattr(s.at(path_of(p)), "user.k%d" % (q % 3)),
    "open": open_file,
    "close": close_file,
    "unnamed": make_unnamed,
    "name": name_open,
    "pread": lambda s, p, q, n: os.pread(s.fd(n), 9000, q % 50000),
    "pwrite": lambda s, p, q, n: os.pwrite(s.fd(n), data_of(q), p % 50000),
    "map open": lambda s, p, q, n: map_and_write(s.fd(n), p, q),
    "ftruncate": lambda s, p, q, n: os.ftruncate(s.fd(n), q % 60000),
    "fchmod": lambda s, p, q, n: os.fchmod(s.fd(n), MODES[q % len(MODES)]),
    "fchown": lambda s, p, q, n: os.fchown(s.fd(n), OWNERS[p % 4], OWNERS[q % 4]),
    "futimens": lambda s, p, q, n: os.utime(s.fd(n), ns=(TIMES[p % 4], TIMES[q % 4])),
    "fallocate": lambda s, p, q, n: c(libc.fallocate(s.fd(n), [0, 1, 3, 3, 16][p % 5], ctypes.c_long(q % 50000), ctypes.c_long(1 + p % 9000))),
    "copy range": lambda s, p, q, n: os.copy_file_range(s.fd(n), s.fd(p), 1 + q % 9000, q % 40000, p % 40000),
    "seek": seek_hole,
    "fsync": lambda s, p, q, n: os.fsync(s.fd(n)),
    "open directory": open_stream,
    "read directory": read_stream,
    "user": change_user,
}


def attempt(work):
    try:
        return work()
    except OSError as error:
        return errno.errorcode[error.errno]


def perform(side, name, numbers):
    if side.as_user and name != "user":
        libc.setfsgid(65534)
        libc.setfsuid(65534)
    try:
        return attempt(lambda: OPERATIONS[name](side, *numbers))
    finally:
        libc.setfsuid(0)
        libc.setfsgid(0)


def look(stat_of, contents, attributes, target):
    """What must agree of one object, and its inode number."""
    s = stat_of
    seen = [oct(s.st_mode), s.st_uid, s.st_gid, s.st_nlink, s.st_rdev]
    seen.append(s.st_mtime_ns if s.st_mtime_ns not in NEAR else "now")
    if stat.S_ISREG(s.st_mode):
        seen += [s.st_size, contents()]
    if stat.S_ISLNK(s.st_mode):
        seen.append(target())
    else:
        seen.append(attributes())
    return seen, s.st_ino


def own_attributes(where):
    return sorted((k, os.getxattr(where, k, follow_symlinks=False)) for k in os.listxattr(where, follow_symlinks=False) if k.startswith("user."))


def read_all(path):
    fd = os.open(path, os.O_RDONLY)
    try:
        return os.pread(fd, 1 << 20, 0)
    finally:
        os.close(fd)


def tree(side):
    """Everything that can be seen of one side: by path, and by open descriptor."""
    found = {}

    def visit(path):
        where = side.at(path)
        s = os.lstat(where)
        found[path] = look(s, lambda: read_all(where), lambda: own_attributes(where), lambda: os.readlink(where))
        if stat.S_ISDIR(s.st_mode):
            with os.scandir(where) as entries:
                listed = [(e.name, e.inode(), e.is_dir(follow_symlinks=False)) for e in entries]
            for name, ino, is_dir in sorted(listed):
                below = os.path.join(path, name)
                visit(below)
                if found[below][1] != ino or is_dir != stat.S_ISDIR(int(found[below][0][0], 8)):
                    found[below][0].append("listed with another number or type")

    visit("")
    for number, fd in enumerate(side.fds):
        found["fd %d" % number] = look(os.fstat(fd), lambda: read_fd(fd), lambda: [], str)
    return found


def read_fd(fd):
    return attempt(lambda: os.pread(fd, 1 << 20, 0))


class Numbers:
    """Which inode of the view stands for which of the plain tree."""

    def __init__(self):
        self.known = {}

    def check(self, view, plain):
        now = {}
        for path, (_, ino) in plain.items():
            shown = view[path][1]
            before = self.known.get(ino, now.get(ino, shown))
            if shown != before:
                return "%s: inode number %d was %d" % (path, shown, before)
            now[ino] = shown
        if len(set(now.values())) < len(now):
            return "two objects with one inode number"
        self.known = now
        return None


def without_set_id(entry, kept):
    mode = int(entry[0][0], 8)
    return [oct(mode & ~0o6000 | mode & kept)] + entry[0][1:], entry[1]


def difference(view, plain, fewer_set_id):
    for path in sorted(set(view) | set(plain)):
        ours, theirs = view.get(path), plain.get(path)
        if fewer_set_id and ours and theirs:
            theirs = without_set_id(theirs, int(ours[0][0], 8))
        if (ours and ours[0]) != (theirs and theirs[0]):
            return "%s: view %s, plain %s" % (path, brief(ours), brief(theirs))
    return None


def brief(entry):
    return repr(entry and entry[0])[:600]


def main():
    view, plain = Side(sys.argv[1]), Side(sys.argv[2])
    fewer_set_id = "--fewer-set-id" in sys.argv[3:]
    numbers = Numbers()
    os.umask(0o022)
    for step, (name, *given) in enumerate(json.loads(sys.stdin.readline())):
        if name == "remount":
            for side in (view, plain):
                side.close()
            print("remount", flush=True)
            sys.stdin.readline()
            results = [None, None]
        else:
            results = [perform(side, name, given) for side in (view, plain)]
        for side in (view, plain):
            for stream in side.streams:
                stream.note()
        trees = [tree(side) for side in (view, plain)]
        wrong = difference(*trees, fewer_set_id) or numbers.check(*trees)
        if results[0] != results[1]:
            wrong = "result: view %r, plain %r" % (results[0], results[1])
        if wrong:
            paths = [path_of(number) for number in given[:2]]
            print("step %d, %s %s (%s): %s" % (step, name, given, " ".join(paths), wrong))
            return 1
    view.close()
    plain.close()
    return 0


sys.exit(main())
