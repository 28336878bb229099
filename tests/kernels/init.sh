#!/bin/sh
# Process 1 of a guest, with busybox. Its arguments are those of the tests.
export PATH=/bin RUST_TEST_THREADS=4 FORKLINE_CONSOLE=/dev/console
/bin/busybox --install -s /bin
rm /bin/setpriv # it knows too little
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir /dev/pts
mount -t devpts pts /dev/pts
ip link set lo up
# shellcheck disable=SC3045 # busybox has it
ulimit -n 65536
cd /tmp || exit
echo "kernel $(uname -r), $(uname -m), $(awk '/KernelPageSize/ { print $2; exit }' /proc/self/smaps) KiB"
# shellcheck disable=SC2046 # each word is an argument
/guest $(cat /arguments) 2>&1
echo "status $?"
poweroff -f
