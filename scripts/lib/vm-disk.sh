# The disk of scripts/vm; sourced.

# make_base_disk CACHE: base.img, vmlinuz-* and initrd-* in it, unless they are there.
make_base_disk() {
  local cache=$1 root mirror=http://deb.debian.org/debian
  [ ! -f "$cache/base.img" ] || return 0
  echo "vm: building a Debian 12 disk" >&2
  root=$(mktemp -d "$cache/base.XXXXXX")
  mmdebstrap --quiet --variant=important --mode=root \
    --include=linux-image-amd64,systemd-sysv,udev,dbus,ca-certificates,xfsprogs,btrfs-progs,sudo,git,zstd \
    --customize-hook='printf "deb %s %s main\n" '"$mirror"' bookworm-backports >"$1/etc/apt/sources.list.d/backports.list"' \
    --customize-hook='chroot "$1" sh -ec "apt-get update -qq; apt-get install -y -qq -t bookworm-backports linux-image-amd64"' \
    bookworm "$root" "deb $mirror bookworm main" "deb $mirror bookworm-updates main" \
    "deb http://deb.debian.org/debian-security bookworm-security main"
  install_boot_service "$root"
  local image
  for image in "$root"/boot/vmlinuz-*; do
    local name=debian version=${image##*/vmlinuz-}
    [[ $version == 6.1.* ]] || name=backports
    cp "$image" "$cache/vmlinuz-$name"
    cp "$root/boot/initrd.img-$version" "$cache/initrd-$name"
  done
  truncate -s 24G "$cache/base.img.tmp"
  mke2fs -q -t ext4 -d "$root" "$cache/base.img.tmp"
  rm -rf --one-file-system "$root"
  mv "$cache/base.img.tmp" "$cache/base.img"
}

# install_boot_service ROOT: at boot, what scripts/vm shares as "exchange" is run.
install_boot_service() {
  cat >"$1/etc/systemd/system/varve-vm.service" <<'UNIT'
[Unit]
After=network-online.target
Wants=network-online.target

[Service]
Type=oneshot
ExecStart=/bin/bash -c 'mkdir -p /exchange; modprobe 9pnet_virtio; mount -t 9p -o trans=virtio,version=9p2000.L,msize=262144 exchange /exchange && exec /bin/bash /exchange/guest'
ExecStopPost=/bin/systemctl --no-block poweroff
LimitNOFILE=1048576
Delegate=yes

[Install]
WantedBy=multi-user.target
UNIT
  printf '[Match]\nName=en*\n[Network]\nDHCP=yes\n' >"$1/etc/systemd/network/80-vm.network"
  echo "nameserver 10.0.2.3" >"$1/etc/resolv.conf"
  echo varve-vm >"$1/etc/hostname"
  printf '127.0.0.1 localhost varve-vm\n' >"$1/etc/hosts"
  chroot "$1" systemctl -q enable varve-vm.service systemd-networkd.service systemd-networkd-wait-online.service
  chroot "$1" useradd -m -s /bin/bash varve
}

# prepare_disk BASE PROJECT_TAR OUT: a copy of the disk with the project in /srv/varve, provisioned.
# Where NODE_EXTRA_CA_CERTS is set here (a proxy that looks into TLS), the machine trusts the same.
prepare_disk() {
  local tree log=$3.log certificates=${NODE_EXTRA_CA_CERTS:-/dev/null}
  echo "vm: provisioning the disk" >&2
  cp --sparse=always "$1" "$3.tmp"
  tree=$(mktemp -d "$3.XXXXXX")
  # A mount namespace of its own: whatever happens, nothing stays mounted.
  if ! unshare --mount --propagation slave bash -euc '
    mount -o loop "$1" "$2"
    for name in proc sys dev; do mount --rbind "/$name" "$2/$name"; done
    mount --bind /etc/resolv.conf "$2/etc/resolv.conf"
    printf "#!/bin/sh\nexit 101\n" >"$2/usr/sbin/policy-rc.d"
    chmod 755 "$2/usr/sbin/policy-rc.d"
    cat "$4" >"$2/usr/local/share/host-certificates.crt"
    mkdir -p "$2/srv/varve"
    tar -C "$2/srv/varve" -xf "$3"
    env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 \
      NODE_EXTRA_CA_CERTS=/usr/local/share/host-certificates.crt \
      chroot "$2" sh -ec "cd /srv/varve; scripts/provision --test; apt-get clean"
    rm "$2/usr/sbin/policy-rc.d"' sh "$3.tmp" "$tree" "$2" "$certificates" >"$log" 2>&1; then
    tail -n 30 "$log" >&2
    rm -rf --one-file-system "$tree" "$3.tmp"
    echo "vm: provisioning failed; $log has it all" >&2
    return 1
  fi
  rmdir "$tree"
  rm -f "$log"
  mv "$3.tmp" "$3"
}
