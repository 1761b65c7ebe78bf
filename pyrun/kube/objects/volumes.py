"""Types of Kubernetes: a pod's volumes.

Generated from lightkube-models 1.37.0.8 by `make kube-objects`; do not edit.
"""

from __future__ import annotations

from .base import Object, Quantity
from .meta import LabelSelector, ObjectMeta


class AWSElasticBlockStoreVolumeSource(Object):
    volumeID: str
    fsType: str | None = None
    partition: int | None = None
    readOnly: bool | None = None


class AzureDiskVolumeSource(Object):
    diskName: str
    diskURI: str
    cachingMode: str | None = None
    fsType: str | None = None
    kind: str | None = None
    readOnly: bool | None = None


class AzureFileVolumeSource(Object):
    secretName: str
    shareName: str
    readOnly: bool | None = None


class LocalObjectReference(Object):
    name: str | None = None


class CephFSVolumeSource(Object):
    monitors: list[str]
    path: str | None = None
    readOnly: bool | None = None
    secretFile: str | None = None
    secretRef: LocalObjectReference | None = None
    user: str | None = None


class CinderVolumeSource(Object):
    volumeID: str
    fsType: str | None = None
    readOnly: bool | None = None
    secretRef: LocalObjectReference | None = None


class KeyToPath(Object):
    key: str
    path: str
    mode: int | None = None
    user: int | None = None


class ConfigMapVolumeSource(Object):
    defaultMode: int | None = None
    defaultUser: int | None = None
    items: list[KeyToPath] | None = None
    name: str | None = None
    optional: bool | None = None


class CSIVolumeSource(Object):
    driver: str
    fsType: str | None = None
    nodePublishSecretRef: LocalObjectReference | None = None
    readOnly: bool | None = None
    volumeAttributes: dict[str, str] | None = None


class ObjectFieldSelector(Object):
    fieldPath: str
    apiVersion: str | None = None


class ResourceFieldSelector(Object):
    resource: str
    containerName: str | None = None
    divisor: Quantity | None = None


class DownwardAPIVolumeFile(Object):
    path: str
    fieldRef: ObjectFieldSelector | None = None
    mode: int | None = None
    resourceFieldRef: ResourceFieldSelector | None = None
    user: int | None = None


class DownwardAPIVolumeSource(Object):
    defaultMode: int | None = None
    defaultUser: int | None = None
    items: list[DownwardAPIVolumeFile] | None = None


class EmptyDirVolumeSource(Object):
    medium: str | None = None
    mode: int | None = None
    sizeLimit: Quantity | None = None


class TypedLocalObjectReference(Object):
    kind: str
    name: str
    apiGroup: str | None = None


class TypedObjectReference(Object):
    kind: str
    name: str
    apiGroup: str | None = None
    namespace: str | None = None


class VolumeResourceRequirements(Object):
    limits: dict[str, Quantity] | None = None
    requests: dict[str, Quantity] | None = None


class PersistentVolumeClaimSpec(Object):
    accessModes: list[str] | None = None
    dataSource: TypedLocalObjectReference | None = None
    dataSourceRef: TypedObjectReference | None = None
    resources: VolumeResourceRequirements | None = None
    selector: LabelSelector | None = None
    storageClassName: str | None = None
    volumeAttributesClassName: str | None = None
    volumeMode: str | None = None
    volumeName: str | None = None


class PersistentVolumeClaimTemplate(Object):
    spec: PersistentVolumeClaimSpec
    metadata: ObjectMeta | None = None


class EphemeralVolumeSource(Object):
    volumeClaimTemplate: PersistentVolumeClaimTemplate | None = None


class FCVolumeSource(Object):
    fsType: str | None = None
    lun: int | None = None
    readOnly: bool | None = None
    targetWWNs: list[str] | None = None
    wwids: list[str] | None = None


class FlexVolumeSource(Object):
    driver: str
    fsType: str | None = None
    options: dict[str, str] | None = None
    readOnly: bool | None = None
    secretRef: LocalObjectReference | None = None


class FlockerVolumeSource(Object):
    datasetName: str | None = None
    datasetUUID: str | None = None


class GCEPersistentDiskVolumeSource(Object):
    pdName: str
    fsType: str | None = None
    partition: int | None = None
    readOnly: bool | None = None


class GitRepoVolumeSource(Object):
    repository: str
    directory: str | None = None
    revision: str | None = None


class GlusterfsVolumeSource(Object):
    endpoints: str
    path: str
    readOnly: bool | None = None


class HostPathVolumeSource(Object):
    path: str
    type: str | None = None


class ImageVolumeSource(Object):
    pullPolicy: str | None = None
    reference: str | None = None


class ISCSIVolumeSource(Object):
    iqn: str
    lun: int
    targetPortal: str
    chapAuthDiscovery: bool | None = None
    chapAuthSession: bool | None = None
    fsType: str | None = None
    initiatorName: str | None = None
    iscsiInterface: str | None = None
    portals: list[str] | None = None
    readOnly: bool | None = None
    secretRef: LocalObjectReference | None = None


class NFSVolumeSource(Object):
    path: str
    server: str
    readOnly: bool | None = None


class PersistentVolumeClaimVolumeSource(Object):
    claimName: str
    readOnly: bool | None = None


class PhotonPersistentDiskVolumeSource(Object):
    pdID: str
    fsType: str | None = None


class PortworxVolumeSource(Object):
    volumeID: str
    fsType: str | None = None
    readOnly: bool | None = None


class ClusterTrustBundleProjection(Object):
    path: str
    labelSelector: LabelSelector | None = None
    name: str | None = None
    optional: bool | None = None
    signerName: str | None = None
    user: int | None = None


class ConfigMapProjection(Object):
    items: list[KeyToPath] | None = None
    name: str | None = None
    optional: bool | None = None


class DownwardAPIProjection(Object):
    items: list[DownwardAPIVolumeFile] | None = None


class PodCertificateProjection(Object):
    keyType: str
    signerName: str
    certificateChainPath: str | None = None
    credentialBundlePath: str | None = None
    keyPath: str | None = None
    maxExpirationSeconds: int | None = None
    user: int | None = None
    userAnnotations: dict[str, str] | None = None


class SecretProjection(Object):
    items: list[KeyToPath] | None = None
    name: str | None = None
    optional: bool | None = None


class ServiceAccountTokenProjection(Object):
    path: str
    audience: str | None = None
    expirationSeconds: int | None = None
    user: int | None = None


class VolumeProjection(Object):
    clusterTrustBundle: ClusterTrustBundleProjection | None = None
    configMap: ConfigMapProjection | None = None
    downwardAPI: DownwardAPIProjection | None = None
    podCertificate: PodCertificateProjection | None = None
    secret: SecretProjection | None = None
    serviceAccountToken: ServiceAccountTokenProjection | None = None


class ProjectedVolumeSource(Object):
    defaultMode: int | None = None
    defaultUser: int | None = None
    sources: list[VolumeProjection] | None = None


class QuobyteVolumeSource(Object):
    registry: str
    volume: str
    group: str | None = None
    readOnly: bool | None = None
    tenant: str | None = None
    user: str | None = None


class RBDVolumeSource(Object):
    image: str
    monitors: list[str]
    fsType: str | None = None
    keyring: str | None = None
    pool: str | None = None
    readOnly: bool | None = None
    secretRef: LocalObjectReference | None = None
    user: str | None = None


class ScaleIOVolumeSource(Object):
    gateway: str
    secretRef: LocalObjectReference
    system: str
    fsType: str | None = None
    protectionDomain: str | None = None
    readOnly: bool | None = None
    sslEnabled: bool | None = None
    storageMode: str | None = None
    storagePool: str | None = None
    volumeName: str | None = None


class SecretVolumeSource(Object):
    defaultMode: int | None = None
    defaultUser: int | None = None
    items: list[KeyToPath] | None = None
    optional: bool | None = None
    secretName: str | None = None


class StorageOSVolumeSource(Object):
    fsType: str | None = None
    readOnly: bool | None = None
    secretRef: LocalObjectReference | None = None
    volumeName: str | None = None
    volumeNamespace: str | None = None


class VsphereVirtualDiskVolumeSource(Object):
    volumePath: str
    fsType: str | None = None
    storagePolicyID: str | None = None
    storagePolicyName: str | None = None


class Volume(Object):
    name: str
    awsElasticBlockStore: AWSElasticBlockStoreVolumeSource | None = None
    azureDisk: AzureDiskVolumeSource | None = None
    azureFile: AzureFileVolumeSource | None = None
    cephfs: CephFSVolumeSource | None = None
    cinder: CinderVolumeSource | None = None
    configMap: ConfigMapVolumeSource | None = None
    csi: CSIVolumeSource | None = None
    downwardAPI: DownwardAPIVolumeSource | None = None
    emptyDir: EmptyDirVolumeSource | None = None
    ephemeral: EphemeralVolumeSource | None = None
    fc: FCVolumeSource | None = None
    flexVolume: FlexVolumeSource | None = None
    flocker: FlockerVolumeSource | None = None
    gcePersistentDisk: GCEPersistentDiskVolumeSource | None = None
    gitRepo: GitRepoVolumeSource | None = None
    glusterfs: GlusterfsVolumeSource | None = None
    hostPath: HostPathVolumeSource | None = None
    image: ImageVolumeSource | None = None
    iscsi: ISCSIVolumeSource | None = None
    nfs: NFSVolumeSource | None = None
    persistentVolumeClaim: PersistentVolumeClaimVolumeSource | None = None
    photonPersistentDisk: PhotonPersistentDiskVolumeSource | None = None
    portworxVolume: PortworxVolumeSource | None = None
    projected: ProjectedVolumeSource | None = None
    quobyte: QuobyteVolumeSource | None = None
    rbd: RBDVolumeSource | None = None
    scaleIO: ScaleIOVolumeSource | None = None
    secret: SecretVolumeSource | None = None
    storageos: StorageOSVolumeSource | None = None
    vsphereVolume: VsphereVirtualDiskVolumeSource | None = None
