//! What a pod takes for names: its own, its neighbours', and who resolves them.

use anyhow::Result;
use berth_e2e_kubernetes::isolation::NODE;
use berth_e2e_kubernetes::pods::{alone, shell, with};
use berth_e2e_kubernetes::scenario::scenario;
use serde_json::json;

#[test]
fn a_pods_resolver_is_the_clusters_the_nodes_or_its_own() -> Result<()> {
    scenario("dns", |s| {
        let cluster = format!(
            "search {0}.svc.cluster.local svc.cluster.local cluster.local\nnameserver 10.96.0.10\noptions ndots:5",
            s.namespace()
        );
        let own = json!({
            "nameservers": ["192.0.2.1", "2001:db8::1"],
            "searches": ["a.example", "b.example"],
            "options": [{ "name": "ndots", "value": "2" }, { "name": "edns0" }],
        });
        let own_text =
            "search a.example b.example\nnameserver 192.0.2.1\nnameserver 2001:db8::1\noptions ndots:2 edns0";
        for (name, more, expected) in [
            ("cluster", json!({}), cluster.as_str()),
            ("node", json!({ "dnsPolicy": "Default" }), "nameserver 10.96.0.10"),
            ("own", json!({ "dnsPolicy": "None", "dnsConfig": own }), own_text),
        ] {
            let said = s.said(name, with(alone(shell("cat /etc/resolv.conf")), more))?;
            let (mut seen, mut wanted): (Vec<_>, Vec<_>) =
                (said.lines().collect(), expected.lines().collect());
            seen.sort_unstable();
            wanted.sort_unstable();
            assert_eq!(seen, wanted, "{name}: {said}");
        }
        Ok(())
    })
}

#[test]
fn a_pod_is_called_what_its_spec_says() -> Result<()> {
    scenario("hostname", |s| {
        let domain = format!("sub.{}.svc.cluster.local", s.namespace());
        let full = format!("web-0.{domain}");
        let both = json!({ "hostname": "web-0", "subdomain": "sub" });
        for (name, more, host, whole) in [
            ("plain", json!({}), "plain", "plain"),
            ("given", json!({ "hostname": "web-0" }), "web-0", "web-0"),
            ("both", both.clone(), "web-0", &full),
            ("fqdn", with(both, json!({ "setHostnameAsFQDN": true })), &full, &full),
            ("override", json!({ "hostnameOverride": "other.example" }), "other.example", "other.example"),
            ("node", json!({ "hostNetwork": true }), NODE, NODE),
        ] {
            let script = "hostname; cat /etc/hostname; hostname -f; cat /etc/hosts";
            let said = s.said(name, with(alone(shell(script)), more))?;
            let lines: Vec<_> = said.lines().collect();
            assert_eq!(lines[..2], [host, host], "{name}: {said}");
            // The node's own name is in nobody's hosts here, and the cluster has no name server.
            assert!(name == "node" || lines[2] == whole, "{name}: {said}");
        }
        Ok(())
    })
}

#[test]
fn host_aliases_are_resolved() -> Result<()> {
    scenario("aliases", |s| {
        let aliases = json!({ "hostAliases": [{ "ip": "192.0.2.7", "hostnames": ["db.example", "db"] }] });
        let script = "ping -c1 -W1 -w1 db | head -n1; cat /etc/hosts";
        let said = s.said("aliased", with(alone(shell(script)), aliases))?;
        assert!(said.starts_with("PING db (192.0.2.7)"), "{said}");
        assert!(said.contains("192.0.2.7\tdb.example\tdb"), "{said}");
        Ok(())
    })
}
