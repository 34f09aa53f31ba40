/** Python for what programs see of a file system: Node hides too much of it. */

import { shell } from "./view-bench.js";

const PRELUDE = `
import ctypes, errno, fcntl, os, select, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
def inotify(path, mask):
    fd = libc.inotify_init1(os.O_NONBLOCK)
    assert libc.inotify_add_watch(fd, path.encode(), mask) >= 0, ctypes.get_errno()
    return fd
def events(fd):
    data = os.read(fd, 65536) if select.select([fd], [], [], 5)[0] else b""
    seen = []
    while data:
        wd, mask, cookie, length = struct.unpack("iIII", data[:16])
        seen.append((hex(mask), data[16:16 + length].rstrip(b"\\0").decode()))
        data = data[16 + length:]
    return seen
def attempt(call, *given):
    try: return call(*given)
    except OSError as e: return errno.errorcode[e.errno]
def lock(kind, path, command, type, start=0, length=0):
    fd = os.open(path, os.O_RDWR)
    wanted = struct.pack("hhqqi4x", type, 0, start, length, 0)
    return fd, attempt(lambda: bool(fcntl.fcntl(fd, command, wanted)))
def elsewhere(work):
    r, w = os.pipe()
    if os.fork() == 0:
        os.write(w, repr(work()).encode()); os._exit(0)
    os.close(w)
    answer = os.read(r, 65536).decode(); os.wait()
    return answer
`;

/** What a Python script prints when it runs in `cwd`, with the above at hand. */
export function python(cwd: string, script: string): string {
  return shell(cwd, `python3 - <<'PYTHON'\n${PRELUDE}${script}\nPYTHON`);
}
