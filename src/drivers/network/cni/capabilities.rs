//! What plugins learn of a pod: CNI_ARGS and runtimeConfig, of which each plugin gets only what it declares
//! (CNI CONVENTIONS.md). What does not live here: executing plugins.

use serde_json::{Map, Value, json};

use super::CniError;
use crate::drivers::network::{PodNetwork, Subnet};
use crate::pods::spec::Protocol;

/// Everything that a plugin could ask for.
pub fn all(pod: &PodNetwork, subnets: &[Subnet]) -> Result<Map<String, Value>, CniError> {
    let mut all = Map::new();
    if !pod.ports.is_empty() {
        let ports: Vec<Value> = pod.ports.iter().map(port).collect();
        all.insert("portMappings".into(), ports.into());
    }
    if let Some(bandwidth) = bandwidth(pod)? {
        all.insert("bandwidth".into(), bandwidth);
    }
    if let Some(dns) = &pod.dns {
        let dns = json!({"servers": dns.servers, "searches": dns.searches, "options": dns.options});
        all.insert("dns".into(), dns);
    }
    if !subnets.is_empty() {
        let ranges: Vec<Value> =
            subnets.iter().map(|subnet| json!([{"subnet": subnet.to_string()}])).collect();
        all.insert("ipRanges".into(), ranges.into());
    }
    if !pod.cgroup_parent.is_empty() {
        all.insert("cgroupPath".into(), pod.cgroup_parent.clone().into());
    }
    if !pod.annotations.is_empty() {
        all.insert("io.kubernetes.cri.pod-annotations".into(), json!(pod.annotations));
    }
    Ok(all)
}

/// CNI_ARGS as every plugin for Kubernetes expects it.
pub fn arguments(pod: &PodNetwork) -> Result<String, CniError> {
    let mut text = String::from("IgnoreUnknown=1");
    let fields = [
        ("K8S_POD_NAMESPACE", pod.namespace.as_str()),
        ("K8S_POD_NAME", pod.name.as_str()),
        ("K8S_POD_INFRA_CONTAINER_ID", pod.id.as_str()),
        ("K8S_POD_UID", pod.uid.as_str()),
    ];
    for (key, value) in fields {
        if value.chars().any(|c| c == ';' || c == '=' || c.is_control()) {
            return Err(CniError::Argument { key, value: value.chars().take(80).collect() });
        }
        text.push_str(&format!(";{key}={value}"));
    }
    Ok(text)
}

fn port(port: &crate::pods::spec::PortMapping) -> Value {
    let protocol = match port.protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
        Protocol::Sctp => "sctp",
    };
    let mut value =
        json!({"hostPort": port.host_port, "containerPort": port.container_port, "protocol": protocol});
    if let Some(ip) = port.host_ip {
        value["hostIP"] = ip.to_string().into();
    }
    value
}

fn bandwidth(pod: &PodNetwork) -> Result<Option<Value>, CniError> {
    let mut value = Map::new();
    for side in ["ingress", "egress"] {
        let key = format!("kubernetes.io/{side}-bandwidth");
        if let Some(text) = pod.annotations.get(&key) {
            let rate = bits(text)
                .ok_or_else(|| CniError::Bandwidth { key, value: text.chars().take(80).collect() })?;
            value.insert(format!("{side}Rate"), rate.into());
            // No smaller burst is asked for by anyone; plugins refuse a larger one.
            value.insert(format!("{side}Burst"), u32::MAX.into());
        }
    }
    Ok((!value.is_empty()).then_some(Value::Object(value)))
}

/// A Kubernetes quantity of bits a second, from 1k to 1P as the bandwidth annotations allow.
fn bits(text: &str) -> Option<u64> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let number: f64 = text[..end].parse().ok()?;
    let factor = match &text[end..] {
        "" => 1.0,
        "k" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "T" => 1e12,
        "P" => 1e15,
        "Ki" => 1024.0,
        "Mi" => 1024.0 * 1024.0,
        "Gi" => 1024.0 * 1024.0 * 1024.0,
        "Ti" => 1024.0 * 1024.0 * 1024.0 * 1024.0,
        _ => return None,
    };
    let bits = number * factor;
    (1e3..=1e15).contains(&bits).then_some(bits as u64)
}

#[cfg(test)]
mod tests {
    use super::bits;

    #[test]
    fn quantities_are_read_as_kubernetes_writes_them() {
        assert_eq!(
            (bits("10M"), bits("1Gi"), bits("1.5k"), bits("5000")),
            (Some(10_000_000), Some(1 << 30), Some(1500), Some(5000))
        );
        for bad in ["", "M", "10", "-1M", "1X", "1e99", "2000P"] {
            assert_eq!(bits(bad), None, "{bad}");
        }
    }
}
