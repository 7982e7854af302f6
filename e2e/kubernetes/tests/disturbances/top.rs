//! `kubectl top`, by way of metrics-server, which runs as a pod and asks the kubelet, which asks the runtime or the cgroups.
//! Alone, since a namespace's deletion waits for every API that is registered, and this one comes and goes.

use anyhow::{Context, Result, ensure};
use berth_e2e::images::{Image, Layer};
use berth_e2e::registry::Registry;
use berth_e2e::runtime::tool;
use berth_e2e_kubernetes::isolation::NODE;
use berth_e2e_kubernetes::pods::{alone, shell, with};
use berth_e2e_kubernetes::scenario::{Scenario, disturbance};
use serde_json::json;

const API: &str = "v1beta1.metrics.k8s.io";

/// The API, registered. Dropping it takes it away, with what in the cluster is no namespace's.
struct Api<'a>(&'a Scenario);

impl Drop for Api<'_> {
    fn drop(&mut self) {
        let name = self.0.namespace();
        let _ = self.0.kubectl(&["delete", "apiservice", API]);
        let _ = self.0.kubectl(&[
            "delete",
            "clusterrole,clusterrolebinding",
            "--selector",
            &format!("of={name}"),
        ]);
        let _ = self.0.kubectl(&["delete", "rolebinding", name, "--namespace=kube-system"]);
    }
}

/// metrics-server's own program in an image of nothing else.
fn image() -> Result<Image> {
    let program = tool("metrics-server", "metrics-server")?;
    let program = std::fs::read(&program).with_context(|| format!("read {}", program.display()))?;
    let mut image = Image::of(Layer::default().file("metrics-server", 0o755, program).dir("tmp"));
    image.run.entrypoint = vec!["/metrics-server".into()];
    Ok(image)
}

/// What metrics-server is allowed to do, as its own manifests have it.
fn rights(s: &Scenario) -> Result<()> {
    let name = s.namespace();
    let subject = json!([{ "kind": "ServiceAccount", "name": "default", "namespace": name }]);
    let bound = |kind: &str, role_kind: &str, role: &str, metadata: serde_json::Value| {
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": kind, "metadata": metadata, "subjects": subject,
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": role_kind, "name": role },
        })
    };
    let mine = |suffix: &str| json!({ "name": format!("{name}{suffix}"), "labels": { "of": name } });
    let role = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": mine(""),
        "rules": [
            { "apiGroups": [""], "resources": ["nodes/metrics"], "verbs": ["get"] },
            { "apiGroups": [""], "resources": ["pods", "nodes"], "verbs": ["get", "list", "watch"] },
        ],
    });
    s.apply(&role.to_string())?;
    s.apply(&bound("ClusterRoleBinding", "ClusterRole", name, mine("")).to_string())?;
    s.apply(&bound("ClusterRoleBinding", "ClusterRole", "system:auth-delegator", mine("-auth")).to_string())?;
    // In the namespace of the configuration that it reads.
    let reader = "extension-apiserver-authentication-reader";
    let binding = bound("RoleBinding", "Role", reader, json!({ "name": name, "namespace": "kube-system" }));
    s.kubectl_with(&binding.to_string(), &["apply", "--namespace=kube-system", "-f", "-"]).map(drop)
}

fn serve<'a>(s: &'a Scenario, image: &str) -> Result<Api<'a>> {
    let api = Api(s);
    rights(s)?;
    let server = json!({
        "name": "metrics-server",
        "image": image,
        "args": [
            "--secure-port=10250", "--cert-dir=/tmp", "--metric-resolution=10s",
            "--kubelet-request-timeout=5s",
            "--kubelet-preferred-address-types=InternalIP",
            "--kubelet-certificate-authority=/var/run/secrets/kubernetes.io/serviceaccount/ca.crt",
        ],
        "ports": [{ "name": "https", "containerPort": 10250 }],
        "readinessProbe": { "httpGet": { "path": "/readyz", "port": "https", "scheme": "HTTPS" }, "periodSeconds": 2 },
    });
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "metrics-server" },
        "spec": {
            "selector": { "matchLabels": { "app": "metrics-server" } },
            "template": { "metadata": { "labels": { "app": "metrics-server" } }, "spec": { "containers": [server] } },
        },
    });
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": { "name": "metrics-server" },
        "spec": {
            "selector": { "app": "metrics-server" },
            "ports": [{ "name": "https", "port": 443, "targetPort": "https" }],
        },
    });
    s.apply(&deployment.to_string())?;
    s.apply(&service.to_string())?;
    s.kubectl(&["rollout", "status", "deployment/metrics-server", "--timeout=240s"])?;
    let registration = json!({
        "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": { "name": API },
        "spec": {
            "group": "metrics.k8s.io", "version": "v1beta1", "groupPriorityMinimum": 100, "versionPriority": 100,
            "insecureSkipTLSVerify": true,
            "service": { "name": "metrics-server", "namespace": s.namespace() },
        },
    });
    s.apply(&registration.to_string())?;
    s.wait(&format!("apiservice/{API}"), "condition=Available")?;
    Ok(api)
}

/// Millicores and MiB of a line of `kubectl top`, which ends with them and, for a node, with percents behind each.
fn figures(line: &str) -> Result<(u64, u64)> {
    let number = |end: &str| line.split_whitespace().find_map(|word| word.strip_suffix(end)?.parse().ok());
    number("m").zip(number("Mi")).with_context(|| format!("no figures in {line:?}"))
}

#[test]
fn kubectl_top_shows_what_pods_and_the_node_use() -> Result<()> {
    disturbance("top", |s| {
        let script = "head -c 60000000 /dev/zero > /dev/shm/held; while :; do :; done";
        let idle = with(shell("exec sleep 100000"), json!({ "name": "idle" }));
        s.start("busy", json!({ "containers": [shell(script), idle] }))?;
        s.start("quiet", alone(shell("exec sleep 100000")))?;
        let registry = Registry::start()?;
        let _api = serve(s, &registry.publish("metrics-server", "1", &image()?)?)?;

        let top = |words: &[&str]| s.kubectl(&[&["top"], words, &["--no-headers"]].concat());
        // Two looks at the kubelet make a rate, and the first of them may have come before the pod.
        let pod = || figures(&top(&["pod", "busy"])?);
        let (cpu, memory) = s.until(pod, |(cpu, memory)| *cpu > 100 && *memory >= 57)?;
        ensure!(cpu < 2000 && memory < 100, "one busy loop and 60 MB: {cpu}m, {memory}Mi");
        let lines = top(&["pod", "busy", "--containers"])?;
        let of = |name: &str| {
            let line = lines.lines().find(|line| line.split_whitespace().nth(1) == Some(name));
            figures(line.with_context(|| format!("no {name} in {lines}"))?)
        };
        let (main, idle) = (of("main")?, of("idle")?);
        ensure!(main.0 > 100 && main.1 >= 57, "main: {main:?}");
        ensure!(idle.0 < 20 && idle.1 < 10, "idle: {idle:?}");
        let quiet = figures(&top(&["pod", "quiet"])?)?;
        ensure!(quiet.0 < 20 && quiet.1 < 10, "quiet: {quiet:?}");
        let node = figures(&top(&["node", NODE])?)?;
        ensure!(node.0 >= main.0 / 2 && node.1 >= main.1, "the node {node:?} uses less than a pod {main:?}");
        Ok(())
    })
}
