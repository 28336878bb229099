#!/bin/sh
# Lets the installed units serve under a real systemd, which runs as process 1 of
# namespaces of its own, with this machine's /usr and nothing else of it.
#
# usage: systemd.sh DIRECTORY, after `make install DESTDIR=DIRECTORY`,
# as root; what the units did is in DIRECTORY/report.
set -eu

boot() {
    root=$1/root
    mkdir -p "$root"
    mount -t tmpfs tmpfs "$root"
    cd "$root"
    mkdir -p usr etc/systemd/system run tmp proc sys dev var/tmp root outside
    ln -s usr/bin usr/sbin usr/lib usr/lib64 .
    mount --rbind -o ro /usr usr
    mount --bind "$1" outside
    mount --bind "$1/usr/local" usr/local
    cp /etc/passwd /etc/group /etc/nsswitch.conf /etc/ld.so.cache etc
    echo 0123456789abcdef0123456789abcdef >etc/machine-id
    mount -t proc proc proc
    mount -t sysfs -o ro sysfs sys
    mount -t cgroup2 cgroup2 sys/fs/cgroup
    mount -t tmpfs tmpfs dev
    mkdir dev/pts dev/shm dev/mqueue dev/hugepages
    ln -s pts/ptmx dev/ptmx
    for node in null zero full random urandom tty; do
        touch "dev/$node"
        mount --bind "/dev/$node" "dev/$node"
    done
    cat >etc/systemd/system/try.service <<END
[Service]
Type=oneshot
ExecStart=/bin/sh /outside/systemd.sh try
ExecStopPost=/bin/systemctl --force --force poweroff
StandardOutput=append:/outside/report
StandardError=append:/outside/report
END
    mkdir old
    pivot_root . old
    umount -l /old
    ip link set lo up
    export container=test
    exec /lib/systemd/systemd --unit=try.service --log-target=null </dev/null
}

# Tries a command until it succeeds.
within_a_minute() {
    for _ in $(seq 600); do
        if "$@"; then return; fi
        sleep 0.1
    done
    return 1
}

# another PID UNIT: the unit has another main process, which is ready.
another() {
    test "$(systemctl show -P MainPID "$2")" != "$1" && systemctl -q is-active "$2"
}

# Runs under that systemd.
try() {
    systemctl start systemd-journald.service
    mkdir -p /etc/systemd/system/forkline@50005.service.d
    cat >/etc/systemd/system/forkline@50005.service.d/try.conf <<END
[Service]
Environment=SERVICE=rot13 "OPTIONS=-v -t 60"
END
    mkdir -p /etc/systemd/system/forkline-cpu@.service.d
    printf '[Service]\nEnvironment=PORT=7008 OPTIONS=-v\n' \
        >/etc/systemd/system/forkline-cpu@.service.d/try.conf
    systemctl start forkline@7007.socket forkline@50005.socket
    # The first client, who starts the server and stays for a while.
    { printf 'echo\n' && sleep 60; } | socat - tcp:127.0.0.1:7007 &
    first=$!
    within_a_minute grep -q echo /outside/report
    printf 'Hello\n' | socat -t60 - 'tcp:[::1]:50005'
    ss -tnoH state established '( sport = :7007 )' | grep -o 'timer:(keepalive'
    kill "$first"
    pid=$(systemctl show -P MainPID forkline@7007.service)
    tr '\0' ' ' <"/proc/$pid/cmdline"
    echo
    systemctl show -P OOMPolicy forkline@7007.service forkline-cpu@0.service
    # The socket outlives its server, and the next client starts another.
    systemctl stop forkline@7007.service 2>&-
    printf 'again\n' | socat -t60 - tcp:127.0.0.1:7007
    pid=$(systemctl show -P MainPID forkline@50005.service)
    tr '\0' ' ' <"/proc/$pid/cmdline"
    echo
    grep -E '^(Uid|CapBnd|NoNewPrivs|Seccomp):' "/proc/$pid/status"
    systemctl stop forkline@50005.service 2>&-
    systemctl show -P Result forkline@50005.service

    # A server on each of two processors, or twice the same if there is one.
    last=$(($(nproc --all) - 1))
    systemctl start forkline-cpu@0.service "forkline-cpu@$last.service"
    printf 'shared\n' | socat -t60 - tcp:127.0.0.1:7008
    for cpu in 0 "$last"; do
        pid=$(systemctl show -P MainPID "forkline-cpu@$cpu.service")
        tr '\0' ' ' <"/proc/$pid/cmdline"
        grep Cpus_allowed_list "/proc/$pid/status"
        # A stray signal ends it, but not for long.
        kill "$pid"
        within_a_minute another "$pid" "forkline-cpu@$cpu.service" && echo another
        systemctl stop "forkline-cpu@$cpu.service"
        systemctl show -P Result "forkline-cpu@$cpu.service"
    done
    # A wrong command line is not tried again.
    mkdir -p /etc/systemd/system/forkline-cpu@0.service.d
    printf '[Service]\nEnvironment=SERVICE=neither\n' \
        >/etc/systemd/system/forkline-cpu@0.service.d/wrong.conf
    systemctl daemon-reload
    systemctl start forkline-cpu@0.service 2>&- || echo refused
    until systemctl -q is-failed forkline-cpu@0.service; do sleep 0.1; done
    systemctl show -P ExecMainStatus -P NRestarts -P ActiveState forkline-cpu@0.service |
        tr '\n' ' '
    echo
    maintain
}

# What the scripts of the Debian package do. An upgrade starts the servers anew
# behind their sockets, a removal ends them, and a purge disables them.
maintain() {
    export DPKG_ROOT=/none # this machine's policy-rc.d may forbid everything
    systemctl -q enable forkline@7007.socket
    old=$(systemctl show -P MainPID forkline@7007.service)
    sh /outside/debian/postinst configure 0.1.0-1
    new=$(systemctl show -P MainPID forkline@7007.service)
    printf 'upgraded\n' | socat -t5 - tcp:127.0.0.1:7007
    test "$old" != "$new" && test ! -d "/proc/$old" && echo restarted
    sh /outside/debian/prerm remove
    systemctl show -P ActiveState forkline@7007.socket forkline@7007.service | tr '\n' ' '
    find /etc/systemd/system -type l -name 'forkline*'
    sh /outside/debian/postrm purge
    find /etc/systemd/system -type l -name 'forkline*' | wc -l
}

case $1 in
boot) boot "$2" ;;
try) try ;;
*)
    cp "$0" "$1/systemd.sh"
    exec unshare --fork --kill-child --mount --pid --net --ipc --uts --cgroup \
        --propagation private sh "$0" boot "$1"
    ;;
esac
