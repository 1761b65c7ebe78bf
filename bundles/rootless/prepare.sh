# One id is mapped: that of the user who runs this (or who called sudo).
uid=${SUDO_UID:-$(id -u)}
gid=${SUDO_GID:-$(id -g)}
sed -i "/uidMappings/s/\"hostID\": 1000/\"hostID\": $uid/; /gidMappings/s/\"hostID\": 1000/\"hostID\": $gid/" config.json
