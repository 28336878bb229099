#!/bin/sh
# Makes the Debian package of one architecture from `make install`.
#
# usage: build.sh ARCH BINARY DIRECTORY, in the project's directory: the package of
# BINARY, which is made for Debian's ARCH, is then DIRECTORY/forkline_VERSION_ARCH.deb.
#
# Modes, owners, order and times are set, so every build makes the same bytes.
set -eu
arch=$1 binary=$2 directory=$3

debian=deploy/debian
version=$(sed -n '1s/.*(\(.*\)).*/\1/p' $debian/changelog)
# The time of the package is that of its changelog.
: "${SOURCE_DATE_EPOCH:=$(date -d "$(sed -n 's/^ -- .*>  //p' $debian/changelog | head -n1)" +%s)}"
export SOURCE_DATE_EPOCH

root=$directory/root-$arch
doc=$root/usr/share/doc/forkline
rm -rf "$root"
make -s install BIN="$binary" DESTDIR="$root" PREFIX=/usr
gzip -9n "$root/usr/share/man/man8/forkline.8"
mkdir -p "$doc" "$root/usr/share/lintian/overrides" "$root/DEBIAN"
gzip -9nc CHANGELOG.md >"$doc/changelog.gz"
gzip -9nc $debian/changelog >"$doc/changelog.Debian.gz"
cp $debian/copyright "$doc"
cp $debian/lintian-overrides "$root/usr/share/lintian/overrides/forkline"

# The size as in dpkg-gencontrol(1): a file counts in whole KiB, a directory is one.
size=$(find "$root/usr" -type f -printf '%s\n' -o -printf '1\n' |
    awk '{ kib += int(($1 + 1023) / 1024) } END { print kib }')
sed "s/@VERSION@/$version/; s/@ARCH@/$arch/; s/@SIZE@/$size/" $debian/control >"$root/DEBIAN/control"
(cd "$root" && find usr -type f | LC_ALL=C sort | xargs md5sum >DEBIAN/md5sums)
for script in postinst prerm postrm; do
    install -m 755 $debian/$script "$root/DEBIAN"
done
chmod -R u=rwX,go=rX,a-s "$root"
find "$root" -exec touch -d "@$SOURCE_DATE_EPOCH" {} +
dpkg-deb --root-owner-group --threads-max=1 -Zxz --build "$root" "$directory"
rm -rf "$root"
