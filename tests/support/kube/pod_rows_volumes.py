"""Rows of the table of pods: volumes, and where they are mounted."""

from __future__ import annotations

from tests.support.kube.pod_row import C, mounted, of_account, row, volume

# Volumes.
row("volume of nothing", spec=volume(), volumeMounts=mounted())
row("emptyDir", spec=volume(emptyDir={"medium": "Memory", "sizeLimit": "64Mi"}), volumeMounts=mounted(subPath="a/b"))
row(
    "emptyDir's medium",
    "/spec/volumes/0/emptyDir/medium",
    ours=True,  # an API server takes it, and no kubelet can mount it
    spec=volume(emptyDir={"medium": "Disk"}),
)
row("emptyDir's size", "/spec/volumes/0/emptyDir/sizeLimit", spec=volume(emptyDir={"sizeLimit": "-1"}))
row("hostPath", spec=volume(hostPath={"path": "/srv", "type": "DirectoryOrCreate"}))
row("hostPath's type", "/spec/volumes/0/hostPath/type", spec=volume(hostPath={"path": "/srv", "type": "Dir"}))
row("hostPath with ..", "/spec/volumes/0/hostPath/path", spec=volume(hostPath={"path": "/srv/../etc"}))
row("two sources", "/spec/volumes/0/hostPath", spec=volume(emptyDir={}, hostPath={"path": "/srv"}))
row("volume's name", "/spec/volumes/0/name", spec={"volumes": [{"name": "a.b", "emptyDir": {}}]})
row("two volumes of a name", "/spec/volumes/1/name", spec={"volumes": [{"name": "v"}, {"name": "v"}]})
row("configMap", spec=volume(configMap={"name": "c", "defaultMode": 0o400, "items": [{"key": "k", "path": "a/b"}]}))
row("configMap without a name", "/spec/volumes/0/configMap/name", spec=volume(configMap={}))
row("mode", "/spec/volumes/0/configMap/defaultMode", spec=volume(configMap={"name": "c", "defaultMode": 0o1000}))
row(
    "absolute path of an item",
    "/spec/volumes/0/configMap/items/0/path",
    spec=volume(configMap={"name": "c", "items": [{"key": "k", "path": "/a"}]}),
)
row(
    "path of an item with ..",
    "/spec/volumes/0/secret/items/0/path",
    spec=volume(secret={"secretName": "s", "items": [{"key": "k", "path": "a/../../b"}]}),
)
row(
    "path of an item that begins with ..",
    "/spec/volumes/0/secret/items/0/path",
    spec=volume(secret={"secretName": "s", "items": [{"key": "k", "path": "..data"}]}),
)
row("secret without a name", "/spec/volumes/0/secret/secretName", spec=volume(secret={}))
row(
    "downwardAPI",
    spec=volume(downwardAPI={"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}),
)
row(
    "downwardAPI of an address",
    "/spec/volumes/0/downwardAPI/items/0/fieldRef/fieldPath",
    spec=volume(downwardAPI={"items": [{"path": "ip", "fieldRef": {"fieldPath": "status.podIP"}}]}),
)
row(
    "downwardAPI of a resource without a container",
    "/spec/volumes/0/downwardAPI/items/0/resourceFieldRef",
    spec=volume(downwardAPI={"items": [{"path": "cpu", "resourceFieldRef": {"resource": "limits.cpu"}}]}),
)
TOKEN = {"serviceAccountToken": {"path": "token"}}
row("projected", spec=of_account(volume(projected={"sources": [{"configMap": {"name": "c"}}, TOKEN]})))
row(
    "token of nobody",
    "/spec/volumes/0/projected/sources/0/serviceAccountToken",
    spec=volume(projected={"sources": [TOKEN]}),
)
row("projected of nothing", spec=volume(projected={"sources": [{}]}))
row(
    "two of a projected path",
    "/spec/volumes/0/projected/sources/1/secret/items/0/path",
    spec=volume(
        projected={
            "sources": [
                {"configMap": {"name": "c", "items": [{"key": "k", "path": "a"}]}},
                {"secret": {"name": "s", "items": [{"key": "k", "path": "a"}]}},
            ]
        }
    ),
)
row(
    "token of a minute",
    "/spec/volumes/0/projected/sources/0/serviceAccountToken/expirationSeconds",
    spec=of_account(volume(projected={"sources": [{"serviceAccountToken": {"path": "t", "expirationSeconds": 60}}]})),
)
row("mount of no volume", f"{C}/volumeMounts/0/name", volumeMounts=mounted())
row("mount of nowhere", f"{C}/volumeMounts/0/mountPath", spec=volume(), volumeMounts=[{"name": "v", "mountPath": ""}])
row("two mounts at a place", f"{C}/volumeMounts/1/mountPath", spec=volume(), volumeMounts=mounted() * 2)
row("subPath with ..", f"{C}/volumeMounts/0/subPath", spec=volume(), volumeMounts=mounted(subPath="a/../b"))
row("absolute subPath", f"{C}/volumeMounts/0/subPath", spec=volume(), volumeMounts=mounted(subPath="/a"))
row(
    "both subPaths",
    f"{C}/volumeMounts/0/subPathExpr",
    spec=volume(),
    volumeMounts=mounted(subPath="a", subPathExpr="$(A)"),
)
row(
    "Bidirectional without privileges",
    f"{C}/volumeMounts/0/mountPropagation",
    spec=volume(),
    volumeMounts=mounted(mountPropagation="Bidirectional"),
)
row(
    "Bidirectional",
    spec=volume(),
    volumeMounts=mounted(mountPropagation="Bidirectional"),
    securityContext={"privileged": True},
)
row(
    "recursive read-only without read-only",
    f"{C}/volumeMounts/0/recursiveReadOnly",
    spec=volume(),
    volumeMounts=mounted(recursiveReadOnly="Enabled"),
)
row("recursive read-only", spec=volume(), volumeMounts=mounted(readOnly=True, recursiveReadOnly="IfPossible"))
# Volumes that not every node has.
row("image", spec=volume(image={"reference": "i:1", "pullPolicy": "Never"}), volumeMounts=mounted())
row("image's policy by its tag", spec=volume(image={"reference": "i"}), volumeMounts=mounted(subPath="a"))
row("image's policy", "/spec/volumes/0/image/pullPolicy", spec=volume(image={"reference": "i", "pullPolicy": "Maybe"}))
row("claim", spec=volume(persistentVolumeClaim={"claimName": "data", "readOnly": True}), volumeMounts=mounted())
row(
    "claim without a name",
    "/spec/volumes/0/persistentVolumeClaim/claimName",
    spec=volume(persistentVolumeClaim={"claimName": ""}),
)
row("NFS", spec=volume(nfs={"server": "nas", "path": "/srv"}))
row("NFS of a relative path", "/spec/volumes/0/nfs/path", spec=volume(nfs={"server": "nas", "path": "srv"}))
row("NFS of no server", "/spec/volumes/0/nfs/server", spec=volume(nfs={"server": "", "path": "/srv"}))
row("emptyDir's mode", gate="EmptyDirVolumeMode", spec=volume(emptyDir={"mode": 0o750}))
row(
    "emptyDir of huge pages",
    spec=volume(emptyDir={"medium": "HugePages-2Mi"}),
    resources={"limits": {"hugepages-2Mi": "2Mi", "memory": "1Mi"}},
)
row(
    "downwardAPI of a resource",
    spec=volume(
        downwardAPI={"items": [{"path": "cpu", "resourceFieldRef": {"containerName": "web", "resource": "limits.cpu"}}]}
    ),
)
row(
    "downwardAPI of both",
    "/spec/volumes/0/downwardAPI/items/0",
    spec=volume(
        downwardAPI={
            "items": [
                {
                    "path": "a",
                    "fieldRef": {"fieldPath": "metadata.name"},
                    "resourceFieldRef": {"containerName": "web", "resource": "limits.cpu"},
                }
            ]
        }
    ),
)
row(
    "projected of two kinds",
    "/spec/volumes/0/projected/sources/0/secret",
    spec=volume(projected={"sources": [{"secret": {"name": "s"}, "configMap": {"name": "c"}}]}),
)
row(
    "item's mode",
    "/spec/volumes/0/secret/items/0/mode",
    spec=volume(secret={"secretName": "s", "items": [{"key": "k", "path": "a", "mode": 0o1777}]}),
)
row("optional files", spec=volume(configMap={"name": "c", "optional": True}), volumeMounts=mounted(readOnly=True))
row(
    "mount's options",
    gate="VolumeBindMountOptions",
    spec=volume(),
    volumeMounts=mounted(bindMountOptions=["noexec", "nosuid"]),
)
row(
    "mount by an expression",
    spec=volume(),
    env=[{"name": "A", "value": "a"}],
    volumeMounts=mounted(subPathExpr="$(A)/b"),
)
row(
    "mount's propagation",
    spec=volume(hostPath={"path": "/srv"}),
    volumeMounts=mounted(mountPropagation="HostToContainer"),
)
row(
    "propagation that is none",
    f"{C}/volumeMounts/0/mountPropagation",
    spec=volume(),
    volumeMounts=mounted(mountPropagation="Shared"),
)
row(
    "recursive read-only with propagation",
    f"{C}/volumeMounts/0/recursiveReadOnly",
    spec=volume(),
    volumeMounts=mounted(readOnly=True, recursiveReadOnly="Enabled", mountPropagation="HostToContainer"),
)
row(
    "mount with a colon",
    spec=volume(),
    volumeMounts=[{"name": "v", "mountPath": "/a:b"}],
)
row("relative mount", spec=volume(), volumeMounts=[{"name": "v", "mountPath": "a"}])
row(
    "device of an emptyDir",
    f"{C}/volumeDevices/0/name",
    spec=volume(emptyDir={}),
    volumeDevices=[{"name": "v", "devicePath": "/dev/a"}],
)
row(
    "device",
    spec=volume(persistentVolumeClaim={"claimName": "data"}),
    volumeDevices=[{"name": "v", "devicePath": "/dev/a"}],
)
