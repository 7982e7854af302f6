//! `berth image explain`: whom a pull would ask, and what the policy says, told from the files that a pull reads. Asks neither daemon nor registry.

use std::fmt::Write;
use std::path::PathBuf;

use anyhow::Context;
use clap::Args;

use super::print;
use super::serve::read_config;
use crate::drivers::registry::{self, Asked};
use crate::error::chain;
use crate::images::reference::Reference;

#[derive(Args)]
pub(super) struct Explain {
    /// For instance registry.k8s.io/pause:3.10
    image: String,
    /// Configuration file of the daemon, - for standard input [default: /etc/berth/config.toml, which may be missing]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl Explain {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let reference =
            Reference::parse(&self.image).with_context(|| format!("{:?} names no image", self.image))?;
        let config = read_config(self.config.as_deref())?;
        let asked = registry::explain(&config.registry, &reference)
            .map_err(|error| anyhow::anyhow!("a pull of {reference} would fail: {}", chain(&error)))?;
        let policy = config.image.policy.explain(&reference);
        print(&format!("{}\nPolicy: {policy}\n", text(&reference, &asked)))
    }
}

fn text(reference: &Reference, asked: &[Asked]) -> String {
    let what = match reference.digest() {
        Some(_) => "its digest",
        None => "its tag, then content by digest",
    };
    let mut text = format!("{reference}: {what}, of these hosts in this order\n");
    for (index, host) in asked.iter().enumerate() {
        let file =
            host.file.as_ref().map_or("the image's name".to_string(), |file| file.display().to_string());
        let uses = match (host.resolve, host.pull) {
            (true, true) => "tags, and content by digest",
            (true, false) => "tags only",
            (false, true) => "content by digest only",
            (false, false) => "nothing: it has no capability",
        };
        let proxy = host.proxy.as_deref().unwrap_or("none");
        let _ =
            writeln!(text, "\n{}. {}\n   from         {file}\n   asked for    {uses}", index + 1, host.url);
        let _ = writeln!(text, "   TLS          {}", host.tls.join("\n                "));
        let _ = writeln!(
            text,
            "   proxy        {proxy}, by the environment of this command; the daemon has its own"
        );
        let _ = writeln!(text, "   credentials  {}", host.credentials.join("\n                else "));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_host_is_told_in_order_with_all_that_counts() {
        let host = |url: &str, resolve| Asked {
            url: url.into(),
            file: Some("/etc/berth/certs.d/r.example/hosts.toml".into()),
            resolve,
            pull: true,
            tls: vec!["verified".into(), "authority /etc/ca.pem".into()],
            proxy: None,
            credentials: vec!["of the pull".into(), "of /etc/auth.json".into()],
        };
        let own = Asked {
            file: None,
            proxy: Some("http://p:3128/".into()),
            ..host("https://r.example/v2/a", true)
        };
        let reference = Reference::parse("r.example/a").unwrap();
        let text = text(&reference, &[host("https://m.example/v2/a", false), own]);
        let expected = "r.example/a:latest: its tag, then content by digest, of these hosts in this order

1. https://m.example/v2/a
   from         /etc/berth/certs.d/r.example/hosts.toml
   asked for    content by digest only
   TLS          verified
                authority /etc/ca.pem
   proxy        none, by the environment of this command; the daemon has its own
   credentials  of the pull
                else of /etc/auth.json

2. https://r.example/v2/a
   from         the image's name
   asked for    tags, and content by digest
   TLS          verified
                authority /etc/ca.pem
   proxy        http://p:3128/, by the environment of this command; the daemon has its own
   credentials  of the pull
                else of /etc/auth.json
";
        assert_eq!(text, expected);
    }
}
