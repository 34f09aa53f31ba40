"""One of the programs that race in a view: race.py ROLE DIRECTORY SECONDS [ARGUMENT...]

swap A B ...      exchanges the names A and B (and so on, in pairs) and exchanges them back, over and over
churn NAME ...    does everything that changes or reads a file with these, and with new ones beside them
shuffle A B ...   moves directories into each other and back
watch             says of which events the kernel tells below DIRECTORY, until its input ends

All but watch are in a chroot in DIRECTORY: where a symlink leads the program itself is not the view's
business. At its end each prints one line of JSON.
"""

import ctypes
import json
import os
import random
import sys
import time

SECRET = b"secret of the host"
AT_FDCWD, RENAME_EXCHANGE, IN_ALL_EVENTS = -100, 2, 0xFFF
MADE = (".new", ".link", ".symlink", ".fifo", ".nameless")
libc = ctypes.CDLL(None, use_errno=True)
role, directory, seconds, *names = sys.argv[1:]
end = time.monotonic() + float(seconds)
counts = {"done": 0, "refused": 0, "leaks": 0}


def attempt(action):
    """Most of what races fails some of the time."""
    try:
        action()
        counts["done"] += 1
    except OSError:
        counts["refused"] += 1


def insist(action):
    """For what would leave nothing to race for, if it stayed undone."""
    for _ in range(100):
        try:
            return action()
        except OSError:
            pass
    raise OSError("not once")


def exchange(a, b):
    if libc.renameat2(AT_FDCWD, a.encode(), AT_FDCWD, b.encode(), RENAME_EXCHANGE) != 0:
        raise OSError(ctypes.get_errno(), a)


def swap():
    for a, b in zip(names[::2], names[1::2]):
        attempt(lambda: exchange(a, b))
        attempt(lambda: insist(lambda: exchange(a, b)))
        # In their places most of the time, so that others get into what they do there.
        time.sleep(random.random() / 2000)


def shuffle():
    for a, b in zip(names[::2], names[1::2]):
        attempt(lambda: os.rename(a, b + "/in"))
        attempt(lambda: insist(lambda: os.rename(b + "/in", a)))
        attempt(lambda: os.rename(a, a + ".aside"))
        attempt(lambda: insist(lambda: os.rename(a + ".aside", a)))
        time.sleep(random.random() / 2000)


def read(path):
    with open(path, "rb") as file:
        if SECRET in file.read(4096):
            counts["leaks"] += 1


def write(path, flags):
    fd = os.open(path, os.O_WRONLY | flags, 0o644)
    try:
        os.write(fd, b"from the view")
    finally:
        os.close(fd)


def link_nameless(path):
    fd = os.open(os.path.dirname(path), os.O_TMPFILE | os.O_WRONLY, 0o600)
    try:
        os.write(fd, b"from the view")
        os.link("/proc/self/fd/%d" % fd, path + ".nameless")
    finally:
        os.close(fd)


def churn():
    for name in names:
        for action in (
            lambda: read(name),
            lambda: write(name, os.O_APPEND),
            lambda: write(name + ".new", os.O_CREAT | os.O_EXCL),
            lambda: os.chmod(name, 0o4777),
            lambda: os.chown(name, 7, 7, follow_symlinks=False),
            lambda: os.utime(name, (5, 5)),
            lambda: os.setxattr(name, "user.race", b"in"),
            lambda: os.truncate(name, 3),
            lambda: os.link(name, name + ".link"),
            lambda: os.rename(name, name + ".moved"),
            lambda: insist(lambda: os.rename(name + ".moved", name)),
            lambda: os.symlink("/", name + ".symlink"),
            lambda: os.mkdir(name + ".dir"),
            lambda: os.mkfifo(name + ".fifo"),
            lambda: link_nameless(name),
            lambda: os.listdir(os.path.dirname(name)),
            *[lambda end=end: insist(lambda: os.unlink(name + end)) for end in MADE],
            lambda: insist(lambda: os.rmdir(name + ".dir")),
        ):
            attempt(action)
        if time.monotonic() > end:
            return


def watch():
    fd = libc.inotify_init1(os.O_NONBLOCK)
    for path, _, _ in os.walk(directory):
        libc.inotify_add_watch(fd, path.encode(), IN_ALL_EVENTS)
    # os.walk itself has opened and read them.
    drain(fd)
    print("watching", flush=True)
    sys.stdin.read()
    print(json.dumps({"events": drain(fd)}))


def drain(fd):
    seen = 0
    while True:
        try:
            seen += len(os.read(fd, 65536))
        except BlockingIOError:
            return seen


if role == "watch":
    watch()
else:
    os.chroot(directory)
    os.chdir("/")
    while time.monotonic() < end:
        {"swap": swap, "churn": churn, "shuffle": shuffle}[role]()
    print(json.dumps(counts))
