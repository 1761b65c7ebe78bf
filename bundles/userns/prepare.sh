# Ids in the root file system as the container's mappings want them: 0 becomes 100000, and so on.
find rootfs -printf '%U:%G %p\n' | while IFS= read -r line; do
    owner=${line%% *}
    uid=${owner%%:*} gid=${owner##*:}
    [ "$uid" -ge 100000 ] || chown -h "$((uid + 100000)):$((gid + 100000))" "${line#* }"
done
