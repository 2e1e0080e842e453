"""systemd-logind as far as an agent sees it, on a bus of its own: run by the system's python3 with DBUS_SYSTEM_BUS_ADDRESS set. Lines on standard input are what
happens (shutdown, cancel, delay SECONDS); lines on standard output are what was asked (inhibit …, released, reload)."""

import os
import sys

import dbus
import dbus.mainloop.glib
import dbus.service
from gi.repository import GLib

dbus.mainloop.glib.DBusGMainLoop(set_as_default=True)
MANAGER = "org.freedesktop.login1.Manager"
CONFIG = "/etc/systemd/logind.conf.d"


def say(*words):
    print(*words, flush=True)


class Logind(dbus.service.Object):
    delay_us, shuts_down = 5_000_000, False

    @dbus.service.method(MANAGER, in_signature="ssss", out_signature="h")
    def Inhibit(self, what, who, why, mode):
        say("inhibit", what, mode)
        ours, theirs = os.pipe()

        def ended(fd, condition):
            os.close(fd)
            say("released")
            return False
        GLib.io_add_watch(ours, GLib.IO_HUP, ended)
        fd = dbus.types.UnixFd(theirs)
        os.close(theirs)
        return fd

    @dbus.service.signal(MANAGER, signature="b")
    def PrepareForShutdown(self, active):
        self.shuts_down = active

    @dbus.service.method("org.freedesktop.DBus.Properties", in_signature="ss", out_signature="v")
    def Get(self, interface, name):
        return {"InhibitDelayMaxUSec": dbus.UInt64(self.delay_us), "PreparingForShutdown": dbus.Boolean(self.shuts_down)}[name]


class Systemd(dbus.service.Object):
    @dbus.service.method("org.freedesktop.systemd1.Manager", in_signature="ssi")
    def KillUnit(self, name, who, signal):
        say("reload", name, signal)
        for path in sorted(os.listdir(CONFIG)):
            for line in open(f"{CONFIG}/{path}"):
                if line.startswith("InhibitDelayMaxSec="):
                    logind.delay_us = int(line.split("=")[1]) * 1_000_000


def heard(stdin, condition):
    words = stdin.readline().split()
    if not words:
        loop.quit()
        return False
    if words[0] == "delay":
        logind.delay_us = int(words[1]) * 1_000_000
    else:
        logind.PrepareForShutdown(words[0] == "shutdown")
    return True


bus = dbus.SystemBus()
names = [dbus.service.BusName(f"org.freedesktop.{n}", bus) for n in ("login1", "systemd1")]
logind, systemd = Logind(bus, "/org/freedesktop/login1"), Systemd(bus, "/org/freedesktop/systemd1")
loop = GLib.MainLoop()
GLib.io_add_watch(sys.stdin, GLib.IO_IN | GLib.IO_HUP, heard)
say("up")
loop.run()
