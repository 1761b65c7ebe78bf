"""What is asked of the node as a whole: version, status, configuration.

Rows for build.py: a message, then its fields as name, type, number; `[]` is repeated, `map` is string to string."""

MESSAGES = """
VersionRequest: version string 1
VersionResponse: version string 1, runtime_name string 2, runtime_version string 3, runtime_api_version string 4
NetworkConfig: pod_cidr string 1
RuntimeConfig: network_config NetworkConfig 1
UpdateRuntimeConfigRequest: runtime_config RuntimeConfig 1
UpdateRuntimeConfigResponse:
RuntimeCondition: type string 1, status bool 2, reason string 3, message string 4
RuntimeStatus: conditions RuntimeCondition[] 1
StatusRequest: verbose bool 1
RuntimeHandlerFeatures: recursive_read_only_mounts bool 1, user_namespaces bool 2
RuntimeHandler: name string 1, features RuntimeHandlerFeatures 2
RuntimeFeatures: supplemental_groups_policy bool 1, user_namespaces_host_network bool 2, mount_options bool 3
StatusResponse: status RuntimeStatus 1, info map 2, runtime_handlers RuntimeHandler[] 3, features RuntimeFeatures 4
RuntimeConfigRequest:
RuntimeConfigResponse: linux LinuxRuntimeConfiguration 1
LinuxRuntimeConfiguration: cgroup_driver CgroupDriver 1
"""
