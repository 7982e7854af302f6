//! Rows of `berth check` about metrics and traces.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::time::Duration;

use super::{Row, row};
use crate::config::Config;

/// How long who should be there may take.
const PATIENCE: Duration = Duration::from_secs(1);
/// As much of a page as has to be read to know whose it is.
const PAGE: u64 = 1 << 20;

pub(super) fn rows(config: &Config) -> [Row; 2] {
    [metrics(config.metrics.address), traces(config.traces.endpoint.as_deref())]
}

fn metrics(address: Option<SocketAddr>) -> Row {
    let Some(address) = address else { return row("metrics", "off", true, "") };
    let (found, good) = match TcpListener::bind(address) {
        Ok(_) => (address.to_string(), true),
        Err(_) if is_berth(address) => (format!("{address}, served"), true),
        Err(error) => (error.to_string(), false),
    };
    let cost = format!("no metrics while {address} can't be had: set [metrics] address");
    row("metrics", found, good, &cost)
}

/// Whether a running Berth serves there.
fn is_berth(address: SocketAddr) -> bool {
    let ask = || -> io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        write!(stream, "GET /metrics HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
        let mut page = String::new();
        stream.take(PAGE).read_to_string(&mut page)?;
        Ok(page)
    };
    ask().is_ok_and(|page| page.contains("\nberth_build_info{"))
}

fn traces(endpoint: Option<&str>) -> Row {
    let Some(endpoint) = endpoint else { return row("traces", "off", true, "") };
    let authority = endpoint.strip_prefix("http://").unwrap_or(endpoint).trim_end_matches('/');
    let reach = || -> io::Result<()> {
        let address = authority.to_socket_addrs()?.next().ok_or(io::ErrorKind::NotFound)?;
        TcpStream::connect_timeout(&address, PATIENCE).map(drop)
    };
    match reach() {
        Ok(()) => row("traces", endpoint, true, ""),
        Err(error) => {
            row("traces", error.to_string(), false, &format!("traces are lost: no collector at {endpoint}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::check::Verdict;

    #[test]
    fn a_taken_address_and_a_collector_that_is_away_are_told() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        // Nobody answers there.
        let told = metrics(Some(address));
        assert!(told.verdict == Verdict::Less && told.cost.contains(&address.to_string()), "{}", told.cost);
        assert!(traces(Some(&format!("http://{address}"))).verdict == Verdict::Good);
        drop(taken);
        assert!(metrics(Some(address)).verdict == Verdict::Good);
        assert!(traces(Some(&format!("http://{address}"))).verdict == Verdict::Less);
        assert!(metrics(None).verdict == Verdict::Good && traces(None).verdict == Verdict::Good);
    }
}
