#!/bin/sh
# Installs pyrun in a Debian guest and makes it the runtime of containerd, podman and docker. Run in the guest, by root;
# the second time it only brings things up to date.
#
#   provision.sh                  builds pyrun from /srv/pyrun
#   provision.sh --prefix DIR     takes the copy in DIR, made by `./bootstrap install --prefix DIR` on the same Debian
#
# At its end it runs a container with each engine, so a guest that is up is a guest that works. runc stays beside pyrun:
# `podman --runtime runc`, `docker run --runtime runc`, and the CRI handler `runc`.
set -eu
umask 022

SOURCE=/srv/pyrun
PYRUN=/usr/local/bin/pyrun
IMAGE=localhost/busybox:latest
PACKAGES="containerd docker.io podman conmon crun runc containernetworking-plugins golang-github-containers-common
    fuse-overlayfs slirp4netns uidmap catatonit iptables busybox-static"
PREFIX_PACKAGES="python3 libseccomp2"

say() { echo "provision: $*"; }
die() { echo "provision: $*" >&2; exit 1; }

# install_packages NAME...: those that are not there yet, so that a box that has them needs no network.
install_packages() {
    missing=
    for package; do
        dpkg-query -W -f '${db:Status-Abbrev}' "$package" 2>/dev/null | grep -q '^ii' || missing="$missing $package"
    done
    [ -n "$missing" ] || return 0
    say "installing$missing"
    apt-get update -q
    # shellcheck disable=SC2086  # a list of words
    DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $missing
}

install_pyrun() {
    if [ -n "$prefix" ]; then
        [ -x "$prefix/bin/pyrun" ] || die "no pyrun in $prefix"
        rm -rf /usr/local/lib/pyrun
        cp -a --no-preserve=ownership "$prefix/." /usr/local/
        python3 -m compileall -q /usr/local/lib/pyrun
    else
        "$SOURCE/bootstrap" install
    fi
}

# write_file PATH, from stdin; what was there, unless it is ours, is kept as PATH.before-pyrun.
write_file() {
    mkdir -p "$(dirname "$1")"
    if [ -e "$1" ] && ! grep -q pyrun "$1"; then
        cp -p "$1" "$1.before-pyrun"
    fi
    cat >"$1"
}

configure_podman() {
    write_file /etc/containers/containers.conf.d/pyrun.conf <<END
[engine]
runtime = "pyrun"
runtime_supports_json = ["crun", "runc", "kata", "runsc", "pyrun"]
runtime_supports_nocgroups = ["crun", "pyrun"]
runtime_supports_nocgroup = ["crun", "pyrun"]

[engine.runtimes]
pyrun = ["$PYRUN"]
END
}

configure_docker() {
    write_file /etc/docker/daemon.json <<END
{
  "runtimes": {"pyrun": {"path": "$PYRUN"}},
  "default-runtime": "pyrun",
  "live-restore": true
}
END
}

# The first half is what Debian's package has.
configure_containerd() {
    write_file /etc/containerd/config.toml <<END
version = 2

[plugins."io.containerd.internal.v1.opt"]
  path = "/var/lib/containerd/opt"

[plugins."io.containerd.grpc.v1.cri".cni]
  bin_dir = "/usr/lib/cni"
  conf_dir = "/etc/cni/net.d"

[plugins."io.containerd.grpc.v1.cri".containerd]
  default_runtime_name = "pyrun"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.pyrun]
  runtime_type = "io.containerd.runc.v2"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.pyrun.options]
    BinaryName = "$PYRUN"
    SystemdCgroup = true

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
    SystemdCgroup = true
END
}

start_engines() {
    systemctl enable -q containerd docker
    systemctl restart containerd docker
}

# An image without a registry: busybox, imported into each engine.
import_image() {
    if docker image inspect $IMAGE && podman image exists $IMAGE && ctr image ls -q | grep -qx $IMAGE; then
        return
    fi >/dev/null 2>&1
    tree=$(mktemp -d)
    mkdir -p "$tree/root/bin" "$tree/root/tmp" "$tree/root/etc"
    cp /bin/busybox "$tree/root/bin/busybox"
    chroot "$tree/root" /bin/busybox --install -s /bin
    echo 'root:x:0:0:root:/:/bin/sh' >"$tree/root/etc/passwd"
    tar -C "$tree/root" -cf "$tree/root.tar" .
    docker import -c 'CMD ["sh"]' "$tree/root.tar" $IMAGE >/dev/null
    podman import -q -c 'CMD ["sh"]' "$tree/root.tar" $IMAGE >/dev/null
    podman save -q --format oci-archive -o "$tree/image.tar" $IMAGE
    ctr image import "$tree/image.tar" >/dev/null
    rm -rf "$tree"
}

# expect NAME WANTED FOUND
expect() {
    [ "$3" = "$2" ] || die "$1: expected '$2', found '$3'"
    say "$1: $3"
}

check_engines() {
    expect "podman's runtime" pyrun "$(podman info --format '{{.Host.OCIRuntime.Name}}')"
    expect "docker's runtime" pyrun "$(docker info --format '{{.DefaultRuntime}}')"
    expect "containerd's CRI plugin" ok "$(ctr plugin ls | awk '$1 == "io.containerd.grpc.v1" && $2 == "cri" {print $NF}')"
    expect "podman run" "hello from podman" "$(podman run --rm $IMAGE echo hello from podman)"
    expect "docker run" "hello from docker" "$(docker run --rm $IMAGE echo hello from docker)"
    expect "ctr run" "hello from ctr" \
        "$(ctr run --rm --runc-binary $PYRUN $IMAGE pyrun-check echo hello from ctr)"
}

prefix=
case "$#:${1:-}" in
0:) ;;
2:--prefix) prefix=$2 ;;
*) die "usage: provision.sh [--prefix DIR]" ;;
esac
[ "$(id -u)" = 0 ] || die "needs root"
# shellcheck disable=SC2086  # lists of words
install_packages $PACKAGES ${prefix:+$PREFIX_PACKAGES}
install_pyrun
configure_podman
configure_docker
configure_containerd
start_engines
import_image
check_engines
say "$($PYRUN --version | head -n 1) is the runtime of podman, docker and containerd; \`podman run -it $IMAGE\` to try it"
