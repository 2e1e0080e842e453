"""A slow and lossy link for kernels without netem: `relay.py LINK TAP DELAY_MS LOSS_PERCENT SEED` carries every frame between a link and a tap device that it
makes, each direction late by DELAY_MS, and drops each with a chance of LOSS_PERCENT. Says "ready"; ends with its standard input, and the tap with it.

Frames carry the kernel's header of unfinished checksums and segmentation both ways, so nothing is computed here and large frames stay whole."""

import fcntl
import os
import random
import select
import socket
import struct
import sys
import time

TUNSETIFF, TUNSETOFFLOAD = 0x400454CA, 0x400454D0
IFF_TAP, IFF_NO_PI, IFF_VNET_HDR = 0x2, 0x1000, 0x4000
TUN_F_CSUM, TUN_F_TSO4, TUN_F_TSO6 = 1, 2, 4
SOL_PACKET, PACKET_ADD_MEMBERSHIP, PACKET_VNET_HDR, PACKET_IGNORE_OUTGOING = 263, 1, 15, 23
ETH_P_ALL = 3
QUEUE = 2000  # frames under way in one direction; more are dropped, as a router does


def open_tap(name):
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TAP | IFF_NO_PI | IFF_VNET_HDR))
    fcntl.ioctl(fd, TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6)
    return fd


def open_link(name):
    s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    s.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
    s.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
    s.setsockopt(SOL_PACKET, PACKET_ADD_MEMBERSHIP, struct.pack("iHH8x", socket.if_nametoindex(name), 1, 0))
    s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
    s.bind((name, ETH_P_ALL))
    s.setblocking(False)
    return s


def main(link, tap, delay_ms, loss, seed):
    rng = random.Random(int(seed))
    delay, loss = float(delay_ms) / 1000, float(loss) / 100
    a, b = open_link(link).detach(), open_tap(tap)
    other, late = {a: b, b: a}, {a: [], b: []}
    print("ready", flush=True)
    while True:
        due = min((q[0][0] for q in late.values() if q), default=None)
        readable = select.select([a, b, 0], [], [], None if due is None else max(0, due - time.monotonic()))[0]
        if 0 in readable and not os.read(0, 1):
            return
        for fd in (a, b):
            if fd in readable:
                try:
                    frame = os.read(fd, 1 << 17)
                except OSError:  # the link is down
                    continue
                if rng.random() >= loss and len(late[other[fd]]) < QUEUE:
                    late[other[fd]].append((time.monotonic() + delay, frame))
        now = time.monotonic()
        for fd, queue in late.items():
            while queue and queue[0][0] <= now:
                try:
                    os.write(fd, queue.pop(0)[1])
                except OSError:
                    pass


if __name__ == "__main__":
    main(*sys.argv[1:])
