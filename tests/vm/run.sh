#!/bin/bash
# Runs a command on a whole Debian 12 of its own: `tests/vm/run.sh [COMMAND]` boots Debian's kernel and systemd in qemu (2 CPUs, 2 GB, no network device,
# emulated, so that any machine can do it), with a copy of this checkout and its build in /mnt/skiff, and runs COMMAND there as root. What it prints is
# shown as it comes; the exit status is COMMAND's. Nothing that it does reaches this machine: changes to the disks are dropped.
#
# The default command is tests/vm/inside.sh: cgroup v2 alone, netem, the service unit and a reboot are tested nowhere else.
#
# SKIFF_VM_SECONDS: the longest time (3600). SKIFF_VM_ACCEL: tcg, or kvm where the machine has it (much faster). SKIFF_VM_MEMORY: MB (2048).
# The system is made once, by debootstrap from this machine's mirror, and kept as build/vm/debian-*.img until scripts/packages.sh changes.
set -euo pipefail
cd "$(dirname "$0")/../.."
. scripts/packages.sh
[ "$(id -u)" = 0 ] || { echo "$0: must be root, to make the system's files" >&2; exit 1; }
install_packages debootstrap e2fsprogs qemu-system-x86
[ -x build/skiff ] && [ -d build/test/linux ] || { echo "$0: build/skiff or its unit tests are missing: run make all unit-build first" >&2; exit 1; }

packages="systemd systemd-sysv dbus udev kmod linux-image-cloud-amd64 kubernetes-client python3-pytest iperf3 $run_packages $build_packages $test_packages"
vm=build/vm
mkdir -p $vm
work=$(mktemp -d "$PWD/$vm/run.XXXXXX")
qemu=
clean() {
	[ -z "$qemu" ] || kill -KILL "$qemu" 2>/dev/null || true
	rm -rf "$work"
}
trap clean EXIT
trap 'exit 130' INT TERM

make_base() {
	echo "making $base.img (once)" >&2
	root=$work/root
	mirror=$(apt-get indextargets --format '$(SITE)' 'Release: bookworm' | head -n 1)
	debootstrap --variant=minbase --include="$(echo $packages | tr ' ' ',')" bookworm "$root" "${mirror:?no mirror of Debian 12 is known to apt}" >"$work/debootstrap.log" ||
		{ tail -n 20 "$work/debootstrap.log" >&2; return 1; }
	cat >"$root/etc/systemd/system/vm-command.service" <<-'UNIT'
		[Unit]
		Description=The command that this machine was started for
		After=multi-user.target
		[Service]
		ExecStart=/usr/local/sbin/vm-command
		StandardOutput=file:/dev/ttyS1
		StandardError=inherit
		Environment=HOME=/root LC_ALL=C.UTF-8
	UNIT
	cat >"$root/usr/local/sbin/vm-command" <<-'RUN'
		#!/bin/sh
		mount /dev/vdb /mnt && cd /mnt/skiff && sh -c "$(cat /mnt/command)"
		status=$?
		# After a reboot that the command asked for it is run once more: it can tell by its own files.
		[ ! -e /run/vm-reboots ] || exit 0
		echo "exit status: $status"
		systemctl poweroff
	RUN
	chmod 755 "$root/usr/local/sbin/vm-command"
	mkdir -p "$root/etc/systemd/system/graphical.target.wants"
	ln -s /etc/systemd/system/vm-command.service "$root/etc/systemd/system/graphical.target.wants/"
	echo vm >"$root/etc/hostname"
	echo "127.0.0.1 localhost vm" >"$root/etc/hosts"
	rm -f $vm/debian-*
	cp "$root"/boot/vmlinuz-* $base.kernel
	cp "$root"/boot/initrd.img-* $base.initrd
	rm -rf "$root"/var/cache/apt "$root"/var/lib/apt/lists/*
	mke2fs -q -t ext4 -d "$root" "$work/base.img" 6G
	rm -rf "$root"
	mv "$work/base.img" $base.img
}
base=$vm/debian-$(printf '%s\n' $packages "$(declare -f make_base)" | sha256sum | cut -c1-12)
[ -e $base.img ] || make_base

# The checkout as it is, with what make and the fetch scripts left in build/.
mkdir "$work/disk" "$work/disk/skiff"
git ls-files -z | tar -c --null -T - | tar -x -C "$work/disk/skiff"
tar -c --exclude='*.gcda' $(ls -d build/skiff build/schemac build/gen build/src build/*.a build/test/{linux,network,proxy} build/clients build/etcd build/bench 2>/dev/null) | tar -x -C "$work/disk/skiff"
printf '%s\n' "${*:-tests/vm/inside.sh}" >"$work/disk/command"
mke2fs -q -t ext4 -d "$work/disk" "$work/work.img" 4G
rm -rf "$work/disk"

: >"$work/output"
qemu-system-x86_64 -accel "${SKIFF_VM_ACCEL:-tcg}" -cpu max -smp 2 -m "${SKIFF_VM_MEMORY:-2048}" -nodefaults -nic none -display none -snapshot \
	-kernel $base.kernel -initrd $base.initrd -append "root=/dev/vda rw console=ttyS0 quiet panic=-1" \
	-drive "file=$base.img,format=raw,if=virtio" -drive "file=$work/work.img,format=raw,if=virtio" \
	-serial "file:$work/console" -serial "file:$work/output" </dev/null &
qemu=$!
tail -n +1 -f --pid=$qemu "$work/output" &
reader=$!
( end=$((SECONDS + ${SKIFF_VM_SECONDS:-3600})); while kill -0 $qemu 2>/dev/null; do [ $SECONDS -lt $end ] || { echo "$0: ended after ${SKIFF_VM_SECONDS:-3600} s" >&2; kill -KILL $qemu; }; sleep 1; done ) &
wait $qemu || true
qemu=
wait $reader || true
status=$(tr -d '\r' <"$work/output" | sed -n 's/^exit status: //p' | tail -n 1)
[ -n "$status" ] || { echo "$0: the machine ended before its command did; its console:" >&2; tail -n 30 "$work/console" >&2; exit 1; }
exit "$status"
