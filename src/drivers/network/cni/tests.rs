//! CNI against real and bad plugins, in a network namespace that stands for the host.

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, unshare};

use crate::drivers::network::{BuiltInConfig, CniConfig, Network, PodNetwork};
use crate::drivers::store::Store;
use crate::ids::PodId;
use crate::layout::Layout;
use crate::pods::spec::{PortMapping, Protocol};

fn on_a_host<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send + 'static) {
    let run = move || {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        assert!(Command::new("ip").args(["link", "set", "lo", "up"]).status().unwrap().success());
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test());
    };
    std::thread::spawn(run).join().unwrap();
}

fn namespace() -> File {
    let make = || {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        File::open("/proc/thread-self/ns/net").unwrap()
    };
    std::thread::spawn(make).join().unwrap()
}

struct Host {
    dir: tempfile::TempDir,
    network: Network,
}

async fn host() -> Host {
    let dir = tempfile::tempdir().unwrap();
    for name in ["conf", "bin"] {
        std::fs::create_dir(dir.path().join(name)).unwrap();
    }
    let network = open(dir.path()).await;
    Host { dir, network }
}

async fn open(dir: &Path) -> Network {
    let store = Arc::new(Store::open(&dir.join("db")).unwrap());
    let cni = CniConfig {
        conf_dir: dir.join("conf"),
        bin_dirs: vec![dir.join("bin"), "/usr/lib/cni".into()],
        timeout: 2,
    };
    Network::open(cni, BuiltInConfig::default(), &Layout::new(dir, dir), store).await.unwrap()
}

impl Host {
    fn plugin(&self, name: &str, body: &str) {
        let path = self.dir.path().join("bin").join(name);
        let log = self.dir.path().join("log").display().to_string();
        let script = format!("#!/bin/sh\necho \"$CNI_COMMAND {name} netns=$CNI_NETNS\" >>{log}\n{body}\n");
        std::fs::write(&path, script).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn conf(&self, name: &str, text: &str) {
        std::fs::write(self.dir.path().join("conf").join(name), text).unwrap();
    }

    fn chain(&self, version: &str, types: &[&str]) {
        let plugins: Vec<_> = types.iter().map(|name| format!(r#"{{"type":"{name}"}}"#)).collect();
        let plugins = plugins.join(",");
        self.conf(
            "10-x.conflist",
            &format!(r#"{{"cniVersion":"{version}","name":"x","plugins":[{plugins}]}}"#),
        );
    }

    fn log(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
        text.lines().map(|line| line.split(" netns").next().unwrap().to_string()).collect()
    }

    async fn refusal(&self) -> String {
        let error =
            self.network.attach(&pod(Path::new("/proc/self/ns/net")), namespace().as_fd()).await.unwrap_err();
        let source = std::error::Error::source(&error).unwrap();
        source.source().map_or(source.to_string(), |deeper| format!("{source}: {deeper}"))
    }
}

fn pod(netns: &Path) -> PodNetwork {
    let ports =
        vec![PortMapping { protocol: Protocol::Tcp, container_port: 80, host_port: 8080, host_ip: None }];
    PodNetwork {
        id: PodId::generate(),
        name: "web".into(),
        namespace: "default".into(),
        uid: "u".into(),
        netns: netns.to_path_buf(),
        ports,
        dns: None,
        annotations: BTreeMap::new(),
        cgroup_parent: String::new(),
    }
}

const OK: &str = r#"cat >/dev/null; echo '{"cniVersion":"1.0.0","ips":[{"address":"10.3.0.2/24"}]}'"#;

#[test]
fn the_usual_plugins_connect_and_disconnect_a_pod() {
    on_a_host(|| async {
        let host = host().await;
        let state = host.dir.path().join("ipam").display().to_string();
        host.conf(
            "10-net.conflist",
            &format!(
                r#"{{"cniVersion":"1.0.0","name":"pods","plugins":[
            {{"type":"loopback"}},
            {{"type":"bridge","bridge":"cni0","isGateway":true,"ipMasq":false,
              "ipam":{{"type":"host-local","dataDir":"{state}","ranges":[[{{"subnet":"10.99.0.0/24"}}]]}}}},
            {{"type":"portmap","capabilities":{{"portMappings":true}},"backend":"iptables"}}]}}"#
            ),
        );
        host.network.status().await.unwrap();
        let netns = namespace();
        let path = format!("/proc/{}/fd/{}", std::process::id(), std::os::fd::AsRawFd::as_raw_fd(&netns));
        let web = pod(Path::new(&path));
        let attachment = host.network.attach(&web, netns.as_fd()).await.unwrap();
        assert_eq!(attachment.ips, ["10.99.0.2".parse::<std::net::IpAddr>().unwrap()]);
        assert!(attachment.interfaces.iter().any(|interface| interface.name == "eth0" && interface.sandbox));
        // The configuration changes, the namespace goes and the daemon dies: DEL still gives the address back.
        host.conf("10-net.conflist", "{");
        drop(netns);
        let again = open(host.dir.path()).await;
        again.reconcile(&HashSet::new()).await.unwrap();
        let reserved = std::fs::read_dir(format!("{state}/pods")).unwrap().flatten();
        let reserved: Vec<_> =
            reserved.filter(|file| file.file_name().to_string_lossy().starts_with("10.")).collect();
        assert!(reserved.is_empty(), "{reserved:?}");
        again.detach(&web, Some(&attachment)).await.unwrap();
    });
}

#[test]
fn a_failing_plugin_is_named_and_everything_before_it_is_undone() {
    on_a_host(|| async {
        let host = host().await;
        host.plugin("one", OK);
        host.plugin("two", r#"[ $CNI_COMMAND = DEL ] && exit 0; echo '{"code":11,"msg":"no room"}'; exit 1"#);
        host.chain("1.0.0", &["one", "two"]);
        let refusal = host.refusal().await;
        assert!(refusal.contains("plugin two (ADD)") && refusal.contains("no room"), "{refusal}");
        assert_eq!(host.log(), ["ADD one", "ADD two", "DEL two", "DEL one"]);
    });
}

#[test]
fn a_hanging_plugin_is_killed_with_its_children() {
    on_a_host(|| async {
        let host = host().await;
        let marker = host.dir.path().join("marker");
        let body =
            format!("[ $CNI_COMMAND = DEL ] && exit 0; (sleep 4; touch {}) & sleep 60", marker.display());
        host.plugin("slow", &body);
        host.chain("1.0.0", &["slow"]);
        let start = Instant::now();
        let refusal = host.refusal().await;
        assert!(refusal.contains("plugin slow (ADD) did not end within 2 s"), "{refusal}");
        assert!(start.elapsed() < Duration::from_secs(4));
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert!(!marker.exists());
        host.plugin("slow", &format!("sleep 30 & {OK}"));
        let start = Instant::now();
        let held = host.network.attach(&pod(Path::new("/nowhere")), namespace().as_fd()).await;
        assert!(held.is_ok() && start.elapsed() < Duration::from_secs(2), "{held:?}");
    });
}

#[test]
fn garbage_is_refused_in_every_form() {
    on_a_host(|| async {
        let host = host().await;
        host.chain("1.0.0", &["bad"]);
        let cases = [
            ("echo nonsense", "nonsense"),
            ("true", "no valid result"),
            ("echo '{}'", "no address"),
            (r#"echo '{"ips":[{"address":"10.0.0.1"}]}'"#, "10.0.0.1"),
            ("head -c 100000000 /dev/zero", "more than 1 MiB"),
            ("echo oh no >&2; exit 3", "oh no"),
            ("kill -9 $$", "signal: 9"),
            ("head -c 100000 /dev/zero | tr '\\0' x >&2; exit 1", "xxxx"),
        ];
        for (body, expected) in cases {
            host.plugin("bad", &format!("[ $CNI_COMMAND = DEL ] && exit 0; {body}"));
            let refusal = host.refusal().await;
            assert!(refusal.contains("plugin bad (ADD)") && refusal.contains(expected), "{body}: {refusal}");
            assert!(refusal.len() < 1300);
        }
    });
}

#[test]
fn broken_configurations_are_not_replaced_by_the_built_in_network() {
    on_a_host(|| async {
        let host = host().await;
        assert_eq!(host.network.status().await, Ok(()));
        for text in [
            "{",
            "[]",
            r#"{"name":"x"}"#,
            r#"{"cniVersion":"1.0.0","name":"x","plugins":[{"type":"../../../bin/sh"}]}"#,
            r#"{"cniVersion":"9.0.0","name":"x","type":"y"}"#,
            r#"{"cniVersion":"1.0.0","name":"x","plugins":[]}"#,
            r#"{"name":"x","type":".."}"#,
        ] {
            host.conf("10-x.conflist", text);
            let not_ready = host.network.status().await.unwrap_err();
            assert!(not_ready.message.contains("10-x.conflist"), "{not_ready:?}");
            assert!(
                host.network.attach(&pod(Path::new("/nowhere")), namespace().as_fd()).await.is_err(),
                "{text}"
            );
        }
        host.conf("20-y.conf", r#"{"cniVersion":"1.0.0","name":"y","type":"absent"}"#);
        assert!(host.network.status().await.unwrap_err().message.contains("plugin absent is in none of"));
        host.plugin("absent", OK);
        assert_eq!(host.network.status().await, Ok(()));
    });
}

#[test]
fn a_pod_whose_plugin_cannot_del_stays_until_it_can() {
    on_a_host(|| async {
        let host = host().await;
        host.plugin("one", OK);
        host.chain("1.0.0", &["one"]);
        let web = pod(Path::new("/nowhere"));
        let attachment = host.network.attach(&web, namespace().as_fd()).await.unwrap();
        host.network.check(&web).await.unwrap();
        assert_eq!(host.log(), ["ADD one", "CHECK one"]);
        host.plugin("one", "exit 1");
        assert!(host.network.check(&web).await.is_err());
        for _ in 0..10 {
            assert!(host.network.detach(&web, Some(&attachment)).await.is_err());
        }
        host.plugin("one", "exit 0");
        host.network.detach(&web, Some(&attachment)).await.unwrap();
        let text = std::fs::read_to_string(host.dir.path().join("log")).unwrap();
        assert!(text.contains("DEL one netns=\n"), "a namespace that is gone is not named: {text}");
    });
}

#[test]
fn plugins_of_1_1_are_asked_for_status_and_told_to_collect() {
    on_a_host(|| async {
        let host = host().await;
        let gc = host.dir.path().join("gc").display().to_string();
        let body = format!(
            "[ $CNI_COMMAND = GC ] && cat >{gc} && exit 0; [ $CNI_COMMAND = STATUS ] && echo '{{\"code\":50,\"msg\":\"agent is down\"}}' && exit 1; {OK}"
        );
        host.plugin("new", &body);
        host.chain("1.1.0", &["new"]);
        let not_ready = host.network.status().await.unwrap_err();
        assert!(not_ready.message.contains("agent is down"), "{not_ready:?}");
        let (live, dead) = (pod(Path::new("/nowhere")), pod(Path::new("/nowhere")));
        for pod in [&live, &dead] {
            host.network.attach(pod, namespace().as_fd()).await.unwrap();
        }
        host.network.reconcile(&HashSet::from([live.id.clone()])).await.unwrap();
        let told = std::fs::read_to_string(gc).unwrap();
        assert!(told.contains(live.id.as_str()) && !told.contains(dead.id.as_str()), "{told}");
    });
}

#[test]
fn names_that_would_forge_arguments_are_refused_before_anything_runs() {
    on_a_host(|| async {
        let host = host().await;
        host.plugin("one", OK);
        host.chain("1.0.0", &["one"]);
        let mut forged = pod(Path::new("/nowhere"));
        forged.name = "a;K8S_POD_UID=b".into();
        assert!(host.network.attach(&forged, namespace().as_fd()).await.is_err());
        assert!(host.log().is_empty());
    });
}
