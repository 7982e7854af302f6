//! Files as people have them, of both runtimes.

use std::path::Path;

use super::*;

fn report(files: &[(&str, &str)]) -> (String, Report) {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = dir.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    let mut report = Report::default();
    for file in &Files::read(&[dir.path().join(files[0].0)]).unwrap().0 {
        report.take(file).unwrap();
    }
    (report.configuration("x").unwrap(), report)
}

fn parsed(text: &str) -> Config {
    Config::parse(text, Path::new("made")).unwrap()
}

fn lost(report: &Report) -> Vec<&str> {
    report.lost.iter().map(|(setting, _)| setting.as_str()).collect()
}

const VERSION_2: &str = r#"
version = 2
imports = ["conf.d/*.toml"]
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "registry.k8s.io/pause:3.9"
  stream_server_port = "10010"
  stream_idle_timeout = "1h30m0s"
  max_container_log_line_size = 16384
[plugins."io.containerd.grpc.v1.cri".registry]
  config_path = "/etc/containerd/certs.d:/etc/docker/certs.d"
[plugins."io.containerd.grpc.v1.cri".cni]
  bin_dir = "/opt/cni/bin"
  conf_dir = "/etc/cni/net.d"
[plugins."io.containerd.grpc.v1.cri".containerd]
  default_runtime_name = "nvidia"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.nvidia]
  runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.nvidia.options]
  BinaryName = "/usr/bin/nvidia-container-runtime"
  SystemdCgroup = true
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
  SystemdCgroup = true
"#;

#[test]
fn version_2_is_followed_into_its_imports() {
    let import = "version = 2\n[plugins.'io.containerd.grpc.v1.cri'.containerd.runtimes.kata]\n\
                  runtime_type = 'io.containerd.kata.v2'\n\
                  [plugins.'io.containerd.grpc.v1.cri'.cni]\nconf_dir = '/etc/other'\n";
    let (text, report) =
        report(&[("config.toml", VERSION_2), ("conf.d/kata.toml", import), ("conf.d/no.txt", "!")]);
    let config = parsed(&text);
    assert_eq!(config.registry.config_path, Path::new("/etc/containerd/certs.d"));
    assert_eq!(config.cni.conf_dir, Path::new("/etc/other"));
    assert_eq!(config.cni.bin_dirs, [Path::new("/opt/cni/bin")]);
    assert_eq!(config.cgroup.driver, crate::drivers::cgroup::Driver::Systemd);
    assert_eq!((config.streaming.port, config.streaming.idle_timeout.as_secs()), (10010, 5400));
    let lost = lost(&report);
    assert_eq!(lost.len(), 3, "{lost:#?}");
    for part in ["registry.config_path", "runtimes.nvidia.options.BinaryName", "runtimes.kata.runtime_type"] {
        assert!(lost.iter().any(|lost| lost.contains(part)), "{part} {lost:#?}");
    }
}

const VERSION_3: &str = r#"
version = 3
[plugins.'io.containerd.cri.v1.images']
  image_pull_progress_timeout = '7m0s'
  snapshotter = 'stargz'
[plugins.'io.containerd.cri.v1.images'.pinned_images]
  sandbox = 'registry.k8s.io/pause:3.10'
  agent = 'quay.io/team/agent:1'
[plugins.'io.containerd.cri.v1.runtime']
  enable_unprivileged_ports = false
  enable_cdi = true
  cdi_spec_dirs = ['/no/such/dir']
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
  SystemdCgroup = false
[proxy_plugins.stargz]
  type = 'snapshot'
[made_up]
  key = 1
"#;

#[test]
fn what_has_no_equal_is_named_and_the_rest_is_kept() {
    let (text, report) = report(&[("config.toml", VERSION_3)]);
    let config = parsed(&text);
    assert_eq!(config.registry.no_progress.as_secs(), 420);
    assert_eq!(config.cgroup.driver, crate::drivers::cgroup::Driver::Cgroupfs);
    assert!(text.contains("pinned = [\"quay.io/team/agent:1\"]"), "{text}");
    let lost = lost(&report);
    assert_eq!(lost.len(), 4, "{lost:#?}");
    for part in
        ["snapshotter = \"stargz\"", "enable_unprivileged_ports = false", "proxy_plugins", "made_up.key"]
    {
        assert!(lost.iter().any(|lost| lost.contains(part)), "{part} {lost:#?}");
    }
}

const CRIO: &str = r#"
[crio]
storage_driver = "overlay"
[crio.api]
stream_address = "127.0.0.1"
stream_port = "0"
stream_enable_tls = false
[crio.runtime]
cgroup_manager = "systemd"
default_runtime = "crun"
default_ulimits = ["nofile=1024:2048"]
default_capabilities = ["CHOWN", "DAC_OVERRIDE", "FSETID", "FOWNER", "SETGID", "SETUID", "SETPCAP", "NET_BIND_SERVICE", "KILL"]
pids_limit = -1
hooks_dir = ["/no/such/hooks.d"]
[crio.runtime.runtimes.crun]
runtime_path = "/usr/bin/crun"
[crio.image]
pause_image = "registry.k8s.io/pause:3.10"
pinned_images = ["quay.io/team/*"]
signature_policy = ""
[crio.network]
network_dir = "/etc/cni/net.d/"
plugin_dirs = ["/opt/cni/bin", "/usr/libexec/cni"]
[crio.metrics]
enable_metrics = true
"#;

#[test]
fn crio_s_drop_ins_win_and_its_capabilities_are_compared() {
    let drop_in =
        "[crio.runtime]\ncgroup_manager = 'cgroupfs'\n[crio.image]\nsignature_policy = '/etc/policy.json'\n";
    let (text, report) = report(&[("crio.conf", CRIO), ("crio.conf.d/10-site.conf", drop_in)]);
    let config = parsed(&text);
    assert_eq!(config.cgroup.driver, crate::drivers::cgroup::Driver::Cgroupfs);
    assert_eq!(config.cni.bin_dirs.len(), 2);
    let lost = &report.lost;
    assert_eq!(lost.len(), 3, "{lost:#?}");
    let why = |key: &str| &lost.iter().find(|lost| lost.0.contains(key)).unwrap().1;
    assert!(why("default_capabilities").contains("also have MKNOD, NET_RAW, SETFCAP"), "{lost:#?}");
    assert!(
        why("default_ulimits").contains("LimitNOFILE") && why("signature_policy").contains("[image.policy]")
    );
}

#[test]
fn mirrors_become_hosts_files() {
    let text = r#"
unqualified-search-registries = ["docker.io", "quay.io"]
[[registry]]
prefix = "docker.io"
location = "registry-1.docker.io"
[[registry.mirror]]
location = "mirror.example:5000/hub"
insecure = true
[[registry.mirror]]
location = "other.example"
pull-from-mirror = "digest-only"
[[registry]]
location = "bad.example"
blocked = true
"#;
    let (text, report) = report(&[("registries.conf", text)]);
    for line in [
        "# docker.io/hosts.toml, below config_path of [registry]:",
        "#   server = \"https://registry-1.docker.io\"",
        "#   [host.\"http://mirror.example:5000/v2/hub\"]",
        "#     override_path = true",
        "#     capabilities = [\"pull\"]",
    ] {
        assert!(text.lines().any(|made| made == line), "{line}\n{text}");
    }
    let lost = lost(&report);
    assert_eq!(
        lost,
        ["registry bad.example: blocked", "unqualified-search-registries = [\"docker.io\", \"quay.io\"]"]
    );
}

#[test]
fn every_rule_can_be_reached_and_sets_what_berth_has() {
    for rules in [containerd::RULES, crio::RULES] {
        for (index, rule) in rules.iter().enumerate() {
            let path: Vec<String> = rule.name.split('.').map(String::from).collect();
            let first = rules.iter().position(|other| other.is_of(&path));
            assert_eq!(first, Some(index), "{} is never reached", rule.name);
        }
    }
}
