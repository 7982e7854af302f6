//! CRI-O's crio.conf, as crio.conf(5) has it.

use toml::{Table, Value};

use super::rule::{Do, Rule, go_duration, port, rule};

/// Whether this is one.
pub(super) fn is(table: &Table) -> bool {
    table.contains_key("crio")
}

const ITS_OWN: &str = "concerns CRI-O's own parts";
const CONMON: &str = "there is no conmon: one shim watches over all containers of a pod";
const DIRECTORIES: &str = "berth has directories of its own: --root, --state and --socket of `berth serve`";
const STORE: &str = "berth has a layer cache of its own, on overlay";
const HANDLER: &str = "berth runs containers itself: pods of such a RuntimeClass are refused, unless `handlers` of [pods] has its name";
const PAUSE: &str = "pods need no pause image";
const MAPPED: &str = "user namespaces are what pods ask for (hostUsers: false)";
const POLICY: &str =
    "write its rules into [image.policy] (docs/image-policy.md); signatures of GPG have no equal";
const LOGS: &str = "logs are files that the kubelet rotates (containerLogMaxSize)";
const TELEMETRY: &str = "berth serves metrics and sends traces by itself: docs/configure.md";

pub(super) const RULES: &[Rule] = &[
    rule("crio.root", Do::Needless(DIRECTORIES)),
    rule("crio.runroot", Do::Needless(DIRECTORIES)),
    rule("crio.imagestore", Do::Needless(DIRECTORIES)),
    rule("crio.log_dir", Do::Needless(DIRECTORIES)),
    rule("crio.version_file", Do::Needless(DIRECTORIES)),
    rule("crio.version_file_persist", Do::Needless(DIRECTORIES)),
    rule("crio.clean_shutdown_file", Do::Needless(DIRECTORIES)),
    rule("crio.storage_driver", Do::Only(&["overlay"], STORE)),
    rule("crio.storage_option", Do::No(STORE)),
    rule("crio.internal_wipe", Do::Needless("images stay, and what a crash left is mended at the start")),
    rule("crio.internal_repair", Do::Needless("images stay, and what a crash left is mended at the start")),
    rule("crio.file_locking", Do::Needless(ITS_OWN)),
    rule("crio.collection_period", Do::Needless("usage is read when somebody asks")),
    // The API.
    rule("crio.api.listen", Do::Needless(DIRECTORIES)),
    rule("crio.api.host_ip", Do::No("a pod's status has the pod's own addresses")),
    rule("crio.api.stream_address", Do::Copy("streaming", "address")),
    rule("crio.api.stream_port", Do::With("streaming", "port", port)),
    rule("crio.api.stream_enable_tls", Do::Needless("set by tls_cert_file and tls_key_file")),
    rule("crio.api.stream_tls_cert", Do::Copy("streaming", "tls_cert_file")),
    rule("crio.api.stream_tls_key", Do::Copy("streaming", "tls_key_file")),
    rule(
        "crio.api.stream_tls_ca",
        Do::No("clients show no certificate: a session's address is secret and good once"),
    ),
    rule("crio.api.stream_tls_min_version", Do::Needless("TLS 1.2 and newer")),
    rule("crio.api.stream_tls_cipher_suites", Do::No("rustls's own choice")),
    rule("crio.api.stream_idle_timeout", Do::With("streaming", "idle_timeout", go_duration)),
    rule(
        "crio.api.grpc_max_send_msg_size",
        Do::Needless("16 MiB, as the kubelet takes; longer lists are streamed"),
    ),
    rule(
        "crio.api.grpc_max_recv_msg_size",
        Do::Needless("16 MiB, as the kubelet takes; longer lists are streamed"),
    ),
    // Containers.
    rule("crio.runtime.cgroup_manager", Do::Copy("cgroup", "driver")),
    rule("crio.runtime.default_runtime", Do::Needless("berth runs containers itself")),
    rule(
        "crio.runtime.default_ulimits",
        Do::No("containers inherit the limits of the berth service: LimitNOFILE and others of its unit"),
    ),
    rule("crio.runtime.no_pivot", Do::No("the root is always pivoted")),
    rule("crio.runtime.decryption_keys_path", Do::NoFiles("encrypted images are not supported")),
    rule("crio.runtime.conmon", Do::Needless(CONMON)),
    rule("crio.runtime.conmon_cgroup", Do::Needless(CONMON)),
    rule("crio.runtime.conmon_env", Do::Needless(CONMON)),
    rule("crio.runtime.default_env", Do::No("set it in pods, for instance by a mutating admission policy")),
    rule("crio.runtime.selinux", Do::Needless("berth labels wherever the kernel has SELinux")),
    rule(
        "crio.runtime.hostnetwork_disable_selinux",
        Do::No("pods in the host's network are labelled as others"),
    ),
    rule(
        "crio.runtime.seccomp_profile",
        Do::No("RuntimeDefault is berth's own profile: use a Localhost profile"),
    ),
    rule("crio.runtime.privileged_seccomp_profile", Do::No("privileged containers have no filter")),
    rule("crio.runtime.seccomp_use_default_when_empty", Do::No("use the kubelet's seccompDefault")),
    rule(
        "crio.runtime.apparmor_profile",
        Do::Only(&["crio-default"], "RuntimeDefault is berth-default: use a Localhost profile"),
    ),
    rule("crio.runtime.blockio_config_file", Do::No("blockio classes are not supported")),
    rule("crio.runtime.blockio_reload", Do::No("blockio classes are not supported")),
    rule("crio.runtime.rdt_config_file", Do::No("RDT classes are not supported")),
    rule(
        "crio.runtime.irqbalance_config_file",
        Do::No("annotations that disable interrupts on CPUs are not supported"),
    ),
    rule(
        "crio.runtime.irqbalance_config_restore_file",
        Do::Only(
            &["/etc/sysconfig/orig_irq_banned_cpus", "disable"],
            "annotations that disable interrupts on CPUs are not supported",
        ),
    ),
    rule("crio.runtime.default_capabilities", Do::Unless(capabilities)),
    rule(
        "crio.runtime.add_inheritable_capabilities",
        Do::No("inheritable sets are empty, as CVE-2022-24769 wants"),
    ),
    rule(
        "crio.runtime.default_sysctls",
        Do::No("set sysctls in pods; low ports and ping are open to containers anyway"),
    ),
    rule(
        "crio.runtime.allowed_devices",
        Do::No("annotations that ask for devices are not supported: use a device plugin"),
    ),
    rule(
        "crio.runtime.additional_devices",
        Do::No("containers have the devices that they ask for: use a device plugin"),
    ),
    rule(
        "crio.runtime.cdi_spec_dirs",
        Do::NoFiles("CDI devices are not supported yet: pods that ask for them are refused"),
    ),
    rule(
        "crio.runtime.device_ownership_from_security_context",
        Do::No("device nodes belong to whom they belong on the node"),
    ),
    rule("crio.runtime.hooks_dir", Do::NoFiles("OCI hooks are not supported")),
    rule("crio.runtime.default_mounts", Do::No("use volumes")),
    rule("crio.runtime.default_mounts_file", Do::No("use volumes")),
    rule("crio.runtime.absent_mount_sources_to_reject", Do::Needless("every absent source is refused")),
    rule("crio.runtime.pids_limit", Do::Only(&["-1", "0"], "use the kubelet's podPidsLimit")),
    rule("crio.runtime.log_size_max", Do::Only(&["-1", "0"], LOGS)),
    rule("crio.runtime.log_to_journald", Do::No(LOGS)),
    rule("crio.runtime.container_exits_dir", Do::Needless(CONMON)),
    rule("crio.runtime.container_attach_socket_dir", Do::Needless(CONMON)),
    rule("crio.runtime.container_min_memory", Do::Needless("the kernel says what is too little")),
    rule("crio.runtime.bind_mount_prefix", Do::No("berth runs on the node, not in a container of its own")),
    rule("crio.runtime.read_only", Do::No("use readOnlyRootFilesystem in pods")),
    rule("crio.runtime.log_level", Do::Needless("--log and BERTH_LOG of `berth serve`")),
    rule("crio.runtime.log_filter", Do::Needless("--log and BERTH_LOG of `berth serve`")),
    rule("crio.runtime.uid_mappings", Do::No(MAPPED)),
    rule("crio.runtime.gid_mappings", Do::No(MAPPED)),
    rule("crio.runtime.minimum_mappable_uid", Do::Needless(MAPPED)),
    rule("crio.runtime.minimum_mappable_gid", Do::Needless(MAPPED)),
    rule(
        "crio.runtime.ctr_stop_timeout",
        Do::Needless("the kubelet names the grace period of each container"),
    ),
    rule("crio.runtime.drop_infra_ctr", Do::Needless(PAUSE)),
    rule(
        "crio.runtime.infra_ctr_cpuset",
        Do::No("pods have no container of their own; the shim runs on any CPU"),
    ),
    rule("crio.runtime.shared_cpuset", Do::No("annotations that share CPUs are not supported")),
    rule("crio.runtime.namespaces_dir", Do::Needless(DIRECTORIES)),
    rule("crio.runtime.pinns_path", Do::Needless("namespaces are made by the shim")),
    rule(
        "crio.runtime.enable_criu_support",
        Do::Needless("checkpoints are not supported yet; the kubelet asks for them only where told"),
    ),
    rule("crio.runtime.enable_pod_events", Do::Needless("pod events are always there")),
    rule("crio.runtime.timezone", Do::No("set TZ in pods")),
    rule(
        "crio.runtime.disable_hostport_mapping",
        Do::Needless("CNI's portmap, or the built-in network, does host ports"),
    ),
    rule("crio.runtime.runtimes.runc.**", Do::Needless("berth runs containers itself")),
    rule("crio.runtime.runtimes.crun.**", Do::Needless("berth runs containers itself")),
    rule("crio.runtime.runtimes.**", Do::No(HANDLER)),
    rule("crio.runtime.workloads.**", Do::No("workload annotations are not supported")),
    // Images.
    rule("crio.image.default_transport", Do::Only(&["docker://"], "images come from registries")),
    rule("crio.image.global_auth_file", Do::Copy("registry", "auth_file")),
    rule(
        "crio.image.namespaced_auth_dir",
        Do::NoFiles("use imagePullSecrets or the kubelet's credential providers"),
    ),
    rule("crio.image.pause_image", Do::Needless(PAUSE)),
    rule("crio.image.pause_image_auth_file", Do::Needless(PAUSE)),
    rule("crio.image.pause_command", Do::Needless(PAUSE)),
    rule("crio.image.pinned_images", Do::Copy("image", "pinned")),
    rule("crio.image.signature_policy", Do::No(POLICY)),
    rule("crio.image.signature_policy_dir", Do::NoFiles(POLICY)),
    rule(
        "crio.image.insecure_registries",
        Do::No("write `server = \"http://HOST\"` or `skip_verify = true` into the registry's hosts.toml"),
    ),
    rule("crio.image.registries", Do::No("an image without a registry is docker.io's")),
    rule(
        "crio.image.image_volumes",
        Do::Only(&["bind", "mkdir"], "volumes of images are directories of the container's own"),
    ),
    rule("crio.image.big_files_temporary_dir", Do::Needless("layers are unpacked as they arrive")),
    rule("crio.image.auto_reload_registries", Do::Needless("hosts.toml is read at each pull")),
    rule("crio.image.pull_progress_timeout", Do::With("registry", "no_progress", go_duration)),
    rule("crio.image.oci_artifact_mount_support", Do::Needless("image volumes show artifacts")),
    rule("crio.image.short_name_mode", Do::Needless("an image without a registry is docker.io's")),
    // Network.
    rule(
        "crio.network.cni_default_network",
        Do::No("the first configuration of the directory is the network"),
    ),
    rule("crio.network.network_dir", Do::Copy("cni", "conf_dir")),
    rule("crio.network.plugin_dirs", Do::Copy("cni", "bin_dirs")),
    rule("crio.network.plugin_dir", Do::List("cni", "bin_dirs")),
    rule("crio.metrics.**", Do::Needless(TELEMETRY)),
    rule("crio.tracing.**", Do::Needless(TELEMETRY)),
    rule("crio.stats.**", Do::Needless("usage is read when somebody asks")),
    rule("crio.nri.nri_plugin_dir", Do::NoFiles("NRI plugins are not supported")),
    rule("crio.nri.**", Do::Needless("NRI plugins are not supported")),
];

/// CRI-O's own default is shorter than what containers get elsewhere, and here.
fn capabilities(value: &Value) -> Option<String> {
    let given: Vec<_> = value.as_array()?.iter().filter_map(Value::as_str).collect();
    let given: Vec<_> = given.iter().map(|name| name.trim_start_matches("CAP_")).collect();
    let ours = crate::containers::oci::DEFAULT_CAPABILITIES;
    let more: Vec<_> = ours.into_iter().filter(|name| !given.contains(name)).collect();
    let fewer: Vec<_> = given.into_iter().filter(|name| !ours.contains(name)).collect();
    let mut why = Vec::new();
    if !more.is_empty() {
        why.push(format!("containers also have {} unless pods drop them", more.join(", ")));
    }
    if !fewer.is_empty() {
        why.push(format!("containers lack {} unless pods add them", fewer.join(", ")));
    }
    (!why.is_empty()).then(|| why.join("; "))
}
