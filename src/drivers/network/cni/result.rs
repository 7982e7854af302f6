//! What ADD printed, in every version of the format (CNI spec, section 5). What does not live here: executing plugins.

use std::net::IpAddr;

use serde_json::Value;

use crate::drivers::network::Interface;

/// The pod's addresses in the order of the result; what is wrong with it otherwise.
pub fn addresses(result: &Value) -> Result<Vec<IpAddr>, String> {
    let mut texts: Vec<&Value> = Vec::new();
    // 0.1 and 0.2 had one address of each family.
    texts.extend(["ip4", "ip6"].iter().filter_map(|key| result.get(key)?.get("ip")));
    for ip in result.get("ips").and_then(Value::as_array).into_iter().flatten() {
        let interface =
            ip.get("interface").and_then(Value::as_u64).and_then(|index| usize::try_from(index).ok());
        let on_host = interface
            .and_then(|index| result.get("interfaces")?.get(index))
            .is_some_and(|interface| sandbox(interface).is_empty());
        if !on_host {
            texts.push(ip.get("address").unwrap_or(&Value::Null));
        }
    }
    let ips: Vec<IpAddr> = texts.into_iter().map(address).collect::<Result<_, _>>()?;
    if ips.is_empty() { Err("it gave the pod no address".into()) } else { Ok(ips) }
}

fn address(value: &Value) -> Result<IpAddr, String> {
    let text = value.as_str().unwrap_or_default();
    let bad =
        || format!("{:?} is not an address with a prefix length", text.chars().take(80).collect::<String>());
    let (ip, prefix) = text.split_once('/').ok_or_else(bad)?;
    let ip: IpAddr = ip.parse().map_err(|_| bad())?;
    let prefix: u8 = prefix.parse().map_err(|_| bad())?;
    let most = if ip.is_ipv4() { 32 } else { 128 };
    if prefix > most || ip.is_unspecified() || ip.is_multicast() { Err(bad()) } else { Ok(ip) }
}

/// The links of the result.
pub fn interfaces(result: &Value) -> Vec<Interface> {
    let all = result.get("interfaces").and_then(Value::as_array).into_iter().flatten();
    let convert = |interface: &Value| {
        let name = interface.get("name")?.as_str()?.to_string();
        let mac =
            interface.get("mac").and_then(Value::as_str).filter(|mac| !mac.is_empty()).map(str::to_string);
        Some(Interface { name, mac, sandbox: !sandbox(interface).is_empty() })
    };
    all.filter_map(convert).collect()
}

fn sandbox(interface: &Value) -> &str {
    interface.get("sandbox").and_then(Value::as_str).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn results_of_all_versions_give_the_pods_addresses() {
        let old = json!({"ip4": {"ip": "10.0.0.2/24"}, "ip6": {"ip": "fd00::2/64"}});
        assert_eq!(addresses(&old).unwrap().len(), 2);
        let new = json!({"interfaces": [{"name": "cni0"}, {"name": "eth0", "mac": "aa", "sandbox": "/x"}],
            "ips": [{"address": "10.0.0.1/24", "interface": 0}, {"address": "10.0.0.3/24", "interface": 1}]});
        assert_eq!(addresses(&new).unwrap(), ["10.0.0.3".parse::<IpAddr>().unwrap()]);
        assert!(interfaces(&new)[1].sandbox);
        for bad in [
            json!({}),
            json!({"ips": [{"address": "10.0.0.1"}]}),
            json!({"ips": [{"address": "0.0.0.0/0"}]}),
            json!({"ips": [{}]}),
            json!({"ips": [{"address": "10.0.0.1/33"}]}),
            json!([]),
            json!("x"),
        ] {
            assert!(addresses(&bad).is_err(), "{bad}");
        }
    }
}
