# The machines of scripts/vm; sourced. Each boots DISK, which stays as it is, with $work/store.img as a second disk
# and $work/exchange as a directory shared with it, and returns when the machine is off.
# They read cache, work, results, kernel, cpus and memory.

# The fastest that works here. Some hypervisors give a /dev/kvm that boots kernels made for it only.
best_machine() {
  if [ -w /dev/kvm ] && grep -qE '^flags.* (vmx|svm) ' /proc/cpuinfo; then echo kvm; else echo uml; fi
}

boot_kvm() { boot_qemu kvm "$1"; }
boot_tcg() { boot_qemu tcg,thread=multi,tb-size=1024 "$1"; }

# boot_qemu ACCELERATOR DISK
boot_qemu() {
  qemu-system-x86_64 -machine q35 -accel "$1" -cpu max -smp "$cpus" -m "$memory" \
    -display none -no-reboot -nic none -serial "file:$results/serial.log" \
    -kernel "$cache/vmlinuz-$kernel" -initrd "$cache/initrd-$kernel" \
    -append "root=/dev/vda rw console=ttyS0" \
    -drive "file=$2,file.locking=off,format=raw,if=virtio,cache=unsafe,snapshot=on" \
    -drive "file=$work/store.img,format=raw,if=virtio,cache=unsafe,discard=unmap" \
    -device virtio-rng-pci \
    -virtfs "local,path=$work/exchange,mount_tag=exchange,security_model=none"
}

# In namespaces of its own: the kernel is a program that needs its own C library, and its processes end with it.
# Each page of a process in there can be a mapping out here, and who may have no more of them is killed.
boot_uml() {
  local disk limit=/proc/sys/vm/max_map_count
  [ "$(cat $limit)" -ge 1000000 ] || echo 1000000 >$limit
  disk=$(realpath "$1")
  unshare --mount --propagation slave --pid --fork --kill-child bash -euc '
    tree=$1 work=$2 disk=$3 memory=$4
    mount --bind "$tree" "$tree"
    mount -t proc proc "$tree/proc"
    mount --rbind /dev "$tree/dev"
    mount --bind "$work" "$tree/disks"
    mount --bind "$work/exchange" "$tree/exchange"
    touch "$work/base.img"
    mount --bind "$disk" "$tree/disks/base.img"
    # Not in place of this shell: the first process of a namespace cannot abort, as the kernel does in a panic.
    chroot "$tree" /usr/bin/linux.uml "mem=${memory}M" ubd0=/disks/cow.img,/disks/base.img ubd1=/disks/store.img \
      root=/dev/ubda rw uml_dir=/disks/uml con0=null,fd:1 con=null ssl=null || true' \
    bash "$cache/uml-$kernel" "$(realpath "$work")" "$disk" "$memory" </dev/null >"$results/serial.log" 2>&1
}
