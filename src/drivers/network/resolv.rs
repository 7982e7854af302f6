//! The text of a pod's resolv.conf, hosts and hostname. What does not live here: writing them.

use std::net::IpAddr;

use crate::pods::spec::Dns;

/// A field that would break out of its line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} {value:?} contains a control character or is empty")]
pub struct FieldError {
    /// `DNS server`, ...
    pub field: &'static str,
    /// As given, shortened.
    pub value: String,
}

/// resolv.conf(5) with these servers, search domains and options.
pub fn resolv_conf(dns: &Dns) -> Result<String, FieldError> {
    let mut text = String::new();
    if !dns.searches.is_empty() {
        text.push_str(&format!("search {}\n", joined("DNS search domain", &dns.searches)?));
    }
    for server in &dns.servers {
        text.push_str(&format!("nameserver {}\n", checked("DNS server", server)?));
    }
    if !dns.options.is_empty() {
        text.push_str(&format!("options {}\n", joined("DNS option", &dns.options)?));
    }
    Ok(text)
}

/// The host's resolv.conf; that of systemd-resolved's uplinks if the host's names its stub on 127.0.0.53, which no pod reaches.
pub fn host_resolv_conf() -> std::io::Result<String> {
    let text = std::fs::read_to_string("/etc/resolv.conf")?;
    if text
        .lines()
        .any(|line| line.trim_start().strip_prefix("nameserver").is_some_and(|ip| ip.trim() == "127.0.0.53"))
    {
        return std::fs::read_to_string("/run/systemd/resolve/resolv.conf").or(Ok(text));
    }
    Ok(text)
}

/// hosts(5): localhost and the pod's own name.
pub fn hosts(hostname: &str, ips: &[IpAddr]) -> Result<String, FieldError> {
    let mut text = String::from("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n");
    if !hostname.is_empty() {
        let hostname = checked("hostname", hostname)?;
        ips.iter().for_each(|ip| text.push_str(&format!("{ip}\t{hostname}\n")));
    }
    Ok(text)
}

/// hostname(5).
pub fn hostname(name: &str) -> Result<String, FieldError> {
    Ok(format!("{}\n", checked("hostname", name)?))
}

fn joined(field: &'static str, values: &[String]) -> Result<String, FieldError> {
    let values: Vec<_> = values.iter().map(|value| checked(field, value)).collect::<Result<_, _>>()?;
    Ok(values.join(" "))
}

fn checked<'a>(field: &'static str, value: &'a str) -> Result<&'a str, FieldError> {
    if value.is_empty() || value.chars().any(char::is_control) {
        return Err(FieldError { field, value: value.chars().take(80).collect() });
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dns(server: &str, search: &str) -> Dns {
        Dns { servers: vec![server.into()], searches: vec![search.into()], options: vec!["ndots:5".into()] }
    }

    #[test]
    fn a_field_never_leaves_its_line() {
        let text = resolv_conf(&dns("10.0.0.1", "a\\nb")).unwrap();
        assert_eq!(text, "search a\\nb\nnameserver 10.0.0.1\noptions ndots:5\n");
        for bad in ["a\nb", "a\rb", "a\0b", "\u{7f}", ""] {
            assert!(
                resolv_conf(&dns(bad, "x")).is_err() && resolv_conf(&dns("1.1.1.1", bad)).is_err(),
                "{bad:?}"
            );
            assert!(hostname(bad).is_err());
        }
        assert!(hosts("a\n", &[]).is_err());
        assert!(hosts("web", &["10.0.0.2".parse().unwrap()]).unwrap().ends_with("10.0.0.2\tweb\n"));
    }
}
