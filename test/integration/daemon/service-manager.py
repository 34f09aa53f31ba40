"""What systemd does for a service with FileDescriptorStoreMax= and Restart=always: service-manager.py DIRECTORY COMMAND...

Keeps the descriptors that the service sends and gives them to the next one, which it starts when one
dies. What it kept when one was started is in DIRECTORY/given, a name per line; DIRECTORY/ready is there
once the service said so. Ends when the service ends with code 0.
"""

import array
import os
import select
import socket
import sys

directory, *command = sys.argv[1:]
path = os.path.join(directory, "notify.sock")
notifications = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
notifications.bind(path)
kept = []


def receive():
    size = array.array("i").itemsize
    data, control, _, _ = notifications.recvmsg(4096, socket.CMSG_SPACE(size))
    fields = dict(line.split("=", 1) for line in data.decode().splitlines())
    name = fields.get("FDNAME")
    if "READY" in fields:
        open(os.path.join(directory, "ready"), "w").close()
    if "FDSTORE" in fields:
        kept.extend((name, int.from_bytes(part[2][:size], sys.byteorder)) for part in control)
    if "FDSTOREREMOVE" in fields:
        for entry in [entry for entry in kept if entry[0] == name]:
            os.close(entry[1])
            kept.remove(entry)


def start():
    with open(os.path.join(directory, "given"), "w") as file:
        file.writelines(name + "\n" for name, _ in kept)
    pid = os.fork()
    if pid:
        return pid
    # Above all targets first, so that no dup2 overwrites what is still to be moved.
    copies = [os.dup(descriptor) for _, descriptor in kept]
    high = [os.dup2(copy, 500 + at) for at, copy in enumerate(copies)]
    for at, descriptor in enumerate(high):
        os.dup2(descriptor, 3 + at)
    os.closerange(3 + len(kept), 1000)
    pid = str(os.getpid())
    os.environ.update(NOTIFY_SOCKET=path, FDSTORE="100", LISTEN_PID=pid, SYSTEMD_EXEC_PID=pid)
    os.environ.update(LISTEN_FDS=str(len(kept)), LISTEN_FDNAMES=":".join(name for name, _ in kept))
    os.execvp(command[0], command)


while True:
    pid = start()
    ended = os.pidfd_open(pid)
    while True:
        readable = select.select([notifications, ended], [], [])[0]
        if notifications in readable:
            receive()
        elif os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0:
            sys.exit(0)
        else:
            break
    os.close(ended)
