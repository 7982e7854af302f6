//! containerd's config.toml, versions 2, 3 and 4 (containerd 1.3 and newer).

use toml::Table;

use super::rule::{Do, Rule, go_duration, port, rule};
use super::setting::{Setting, flatten};

/// Its CRI plugin: one in version 2, three parts since.
const CRI: [&str; 3] =
    ["io.containerd.grpc.v1.cri", "io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime"];

/// Whether this is one.
pub(super) fn is(table: &Table) -> bool {
    ["version", "plugins", "proxy_plugins"].iter().any(|key| table.contains_key(*key))
}

/// All settings; those of the CRI plugin, whichever its version calls it, begin with `cri`, those of other plugins with
/// the plugin's name, and those of the default runtime have `default` for its name.
pub(super) fn settings(table: &Table) -> Vec<Setting> {
    let mut all = flatten(table);
    for setting in all.iter_mut().filter(|setting| setting.written[0] == "plugins") {
        let plugin = setting.written.get(1).cloned().unwrap_or_default();
        let prefix = if CRI.contains(&plugin.as_str()) { 1 + plugin.split('.').count() } else { 1 };
        setting.path.drain(..prefix);
        if prefix > 1 {
            setting.path.insert(0, "cri".into());
        }
    }
    let named = |setting: &&Setting| setting.path == DEFAULT_RUNTIME;
    let default =
        all.iter().find(named).and_then(|setting| setting.value.as_str()).unwrap_or("runc").to_string();
    for setting in &mut all {
        if setting.path.len() > 4 && setting.path[..3] == RUNTIMES && setting.path[3] == default {
            setting.path[3] = "default".into();
        }
    }
    all
}

const DEFAULT_RUNTIME: [&str; 3] = ["cri", "containerd", "default_runtime_name"];
const RUNTIMES: [&str; 3] = ["cri", "containerd", "runtimes"];

const ITS_OWN: &str = "concerns containerd's own parts";
const DIRECTORIES: &str = "berth has directories of its own: --root, --state and --socket of `berth serve`";
const HANDLER: &str = "berth runs containers itself: pods of such a RuntimeClass are refused, unless `handlers` of [pods] has its name";
const HOSTS: &str = "write it into the registry's hosts.toml, which both runtimes read (docs/configure.md)";
const REMOTE: &str = "berth has one layer cache, on overlay; images are pulled whole";
const ENCRYPTED: &str = "encrypted images are not supported";

pub(super) const RULES: &[Rule] = &[
    rule("version", Do::Needless("of the file")),
    rule("root", Do::Needless(DIRECTORIES)),
    rule("state", Do::Needless(DIRECTORIES)),
    rule("temp", Do::Needless(DIRECTORIES)),
    rule("oom_score", Do::Needless("OOMScoreAdjust of the systemd unit")),
    rule("debug.**", Do::Needless("--log and BERTH_LOG of `berth serve`")),
    rule("required_plugins", Do::Needless(ITS_OWN)),
    rule("disabled_plugins", Do::Needless(ITS_OWN)),
    rule("proxy_plugins.**", Do::No(REMOTE)),
    rule("grpc.**", Do::Needless(DIRECTORIES)),
    rule("ttrpc.**", Do::Needless(ITS_OWN)),
    rule("metrics.address", Do::Copy("metrics", "address")),
    rule("metrics.**", Do::Needless(ITS_OWN)),
    rule("timeouts.**", Do::Needless(ITS_OWN)),
    rule("cgroup.path", Do::No("the systemd unit decides the daemon's own cgroup")),
    // The same for every containerd, and of use with encrypted images only.
    rule("stream_processors.io.containerd.ocicrypt.decoder.v1.tar.**", Do::Needless(ENCRYPTED)),
    rule("stream_processors.**", Do::No("layers are plain, gzip or zstd")),
    // Images.
    rule("cri.registry.config_path", Do::FirstPath("registry", "config_path")),
    rule("cri.registry.**", Do::No(HOSTS)),
    rule("cri.pinned_images.sandbox", Do::Needless("pods need no pause image")),
    rule("cri.pinned_images.*", Do::List("image", "pinned")),
    rule("cri.sandbox_image", Do::Needless("pods need no pause image")),
    rule("cri.snapshotter", Do::Only(&["overlayfs"], REMOTE)),
    rule("cri.containerd.snapshotter", Do::Only(&["overlayfs"], REMOTE)),
    rule("cri.runtime_platforms.**", Do::No(REMOTE)),
    rule("cri.disable_snapshot_annotations", Do::Needless(ITS_OWN)),
    rule("cri.containerd.disable_snapshot_annotations", Do::Needless(ITS_OWN)),
    rule("cri.discard_unpacked_layers", Do::Needless("compressed layers are never kept")),
    rule("cri.containerd.discard_unpacked_layers", Do::Needless("compressed layers are never kept")),
    rule("cri.max_concurrent_downloads", Do::Needless("as many as the node has cores for")),
    rule("cri.max_concurrent_unpacks", Do::Needless("as many as the node has cores for")),
    rule("cri.concurrent_layer_fetch_buffer", Do::Needless("layers are unpacked as they arrive")),
    rule("cri.image_pull_progress_timeout", Do::With("registry", "no_progress", go_duration)),
    rule("cri.image_pull_with_sync_fs", Do::Needless("a layer is on the disk before an image has it")),
    rule("cri.use_local_image_pull", Do::Needless(ITS_OWN)),
    rule("cri.image_decryption.key_model", Do::Needless(ENCRYPTED)),
    rule("cri.stats_collect_period", Do::Needless("usage is read when somebody asks")),
    rule("cri.stats_retention_period", Do::Needless("usage is read when somebody asks")),
    // Containers.
    rule("cri.enable_selinux", Do::Needless("berth labels wherever the kernel has SELinux")),
    rule("cri.selinux_category_range", Do::Only(&["1024"], "a pod's level is made of 1024 categories")),
    rule("cri.max_container_log_line_size", Do::Only(&["16384"], "log lines are split at 16384 bytes")),
    rule("cri.disable_apparmor", Do::No("RuntimeDefault means AppArmor wherever the kernel has it")),
    rule("cri.restrict_oom_score_adj", Do::No("berth sets what the kubelet asks for")),
    rule("cri.disable_proc_mount", Do::No("masked paths are what the kubelet asks for")),
    rule("cri.unset_seccomp_profile", Do::Only(&["unconfined"], "use the kubelet's seccompDefault")),
    rule(
        "cri.tolerate_missing_hugetlb_controller",
        Do::Only(&["true"], "a missing controller is passed over"),
    ),
    rule(
        "cri.tolerate_missing_hugepages_controller",
        Do::Only(&["true"], "a missing controller is passed over"),
    ),
    rule(
        "cri.disable_hugetlb_controller",
        Do::Needless("hugepage limits are set where the node has the controller"),
    ),
    rule(
        "cri.device_ownership_from_security_context",
        Do::No("device nodes belong to whom they belong on the node"),
    ),
    rule(
        "cri.ignore_image_defined_volumes",
        Do::Only(&["false"], "volumes of images are directories of the container's own"),
    ),
    rule("cri.netns_mounts_under_state_dir", Do::Needless("they are below --state")),
    rule("cri.enable_unprivileged_ports", Do::Only(&["true"], "containers may use low ports")),
    rule("cri.enable_unprivileged_icmp", Do::Only(&["true"], "containers may ping")),
    rule("cri.enable_cdi", Do::Needless("see cdi_spec_dirs")),
    rule(
        "cri.cdi_spec_dirs",
        Do::NoFiles("CDI devices are not supported yet: pods that ask for them are refused"),
    ),
    rule(
        "cri.drain_exec_sync_io_timeout",
        Do::No("output of what a probe left in the background is not waited for"),
    ),
    rule("cri.ignore_deprecation_warnings", Do::Needless(ITS_OWN)),
    rule(
        "cri.enable_criu",
        Do::Needless("checkpoints are not supported yet; the kubelet asks for them only where told"),
    ),
    rule("cri.enable_experimental_restore_via_create", Do::No("checkpoints are not supported yet")),
    rule("cri.cgroup_writable", Do::No("/sys/fs/cgroup is read-only in unprivileged containers")),
    rule("cri.containerd.default_runtime_name", Do::Needless("berth runs containers itself")),
    rule(
        "cri.containerd.ignore_blockio_not_enabled_errors",
        Do::Needless("blockio classes are not supported"),
    ),
    rule("cri.containerd.ignore_rdt_not_enabled_errors", Do::Needless("RDT classes are not supported")),
    rule(
        "cri.containerd.runtimes.default.options.SystemdCgroup",
        Do::With("cgroup", "driver", cgroup_driver),
    ),
    rule("cri.containerd.runtimes.default.runtime_type", Do::Only(&["io.containerd.runc.v2"], HANDLER)),
    rule("cri.containerd.runtimes.default.sandboxer", Do::Only(&["podsandbox"], HANDLER)),
    rule(
        "cri.containerd.runtimes.default.base_runtime_spec",
        Do::No("berth makes the spec from the request alone"),
    ),
    rule(
        "cri.containerd.runtimes.default.privileged_without_host_devices",
        Do::No("privileged containers have the node's devices"),
    ),
    rule("cri.containerd.runtimes.default.options.**", Do::No("there is no runc")),
    rule("cri.containerd.runtimes.default.**", Do::No("berth runs containers itself")),
    // Where they are not the default. Pods that ask for them find Berth by the same name.
    rule("cri.containerd.runtimes.runc.**", Do::Needless("berth runs containers itself")),
    rule("cri.containerd.runtimes.crun.**", Do::Needless("berth runs containers itself")),
    rule("cri.containerd.runtimes.**", Do::No(HANDLER)),
    rule("cri.containerd.**", Do::No("berth does not know this setting")),
    // Network and streams.
    rule("cri.cni.bin_dir", Do::List("cni", "bin_dirs")),
    rule("cri.cni.bin_dirs", Do::Copy("cni", "bin_dirs")),
    rule("cri.cni.conf_dir", Do::Copy("cni", "conf_dir")),
    rule("cri.cni.max_conf_num", Do::Only(&["1"], "the first configuration is the network")),
    rule("cri.cni.setup_serially", Do::Needless("there is one network")),
    rule(
        "cri.cni.conf_template",
        Do::No("install the CNI configuration itself, or use the built-in network"),
    ),
    rule(
        "cri.cni.ip_pref",
        Do::Only(&["ipv4", "cni"], "a pod's primary address is the first of the plugin's result"),
    ),
    rule("cri.cni.use_internal_loopback", Do::Needless("loopback is set up without a plugin")),
    rule("cri.disable_tcp_service", Do::Needless("only streams are served over TCP")),
    rule("cri.stream_server_address", Do::Copy("streaming", "address")),
    rule("cri.stream_server_port", Do::With("streaming", "port", port)),
    rule("cri.stream_idle_timeout", Do::With("streaming", "idle_timeout", go_duration)),
    rule("cri.enable_tls_streaming", Do::Needless("set by tls_cert_file and tls_key_file")),
    rule("cri.x509_key_pair_streaming.tls_cert_file", Do::Copy("streaming", "tls_cert_file")),
    rule("cri.x509_key_pair_streaming.tls_key_file", Do::Copy("streaming", "tls_key_file")),
    // Other plugins.
    rule("io.containerd.nri.v1.nri.plugin_path", Do::NoFiles("NRI plugins are not supported")),
    rule("io.containerd.nri.v1.nri.default_validator.enable", Do::No("NRI plugins are not supported")),
    rule("io.containerd.nri.v1.nri.**", Do::Needless("NRI plugins are not supported")),
    rule(
        "io.containerd.image-verifier.v1.bindir.bin_dir",
        Do::NoFiles("programs verify no images; [image.policy] verifies signatures (docs/image-policy.md)"),
    ),
    rule("io.containerd.image-verifier.v1.bindir.**", Do::Needless(ITS_OWN)),
    rule(
        "io.containerd.service.v1.tasks-service.blockio_config_file",
        Do::No("blockio classes are not supported"),
    ),
    rule("io.containerd.service.v1.tasks-service.rdt_config_file", Do::No("RDT classes are not supported")),
    rule("io.containerd.server.v1.metrics.address", Do::Copy("metrics", "address")),
    rule("io.containerd.shim.v1.manager.env", Do::No("shims have no environment")),
    rule("io.containerd.transfer.v1.local.config_path", Do::Needless("of `ctr image pull`")),
    rule("io.containerd.differ.v1.erofs.**", Do::Needless(ITS_OWN)),
    rule("io.containerd.differ.v1.walking.**", Do::Needless(ITS_OWN)),
    rule("io.containerd.gc.v1.scheduler.**", Do::Needless(ITS_OWN)),
    rule("io.containerd.internal.v1.*.**", Do::Needless(ITS_OWN)),
    rule("io.containerd.metadata.v1.bolt.**", Do::Needless(ITS_OWN)),
    rule("io.containerd.metrics.v1.grpc-prometheus.**", Do::Needless(ITS_OWN)),
    rule("io.containerd.snapshotter.v1.*.**", Do::Needless(ITS_OWN)),
    rule("io.containerd.**", Do::Needless(ITS_OWN)),
];

fn cgroup_driver(value: &toml::Value) -> Option<toml::Value> {
    let driver = if value.as_bool()? { "systemd" } else { "cgroupfs" };
    Some(toml::Value::String(driver.into()))
}
