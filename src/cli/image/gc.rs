//! `berth image gc`: frees what nothing uses, and says what that was. What does not live here: finding it.

use berth_proto::admin::v1::{CollectRequest, Garbage};
use clap::Args;
use indicatif::HumanBytes;

use super::super::client::{Client, said};
use super::super::print;
use super::super::table::table;

#[derive(Args)]
pub(super) struct Gc {
    /// Only say what would go
    #[arg(long)]
    dry_run: bool,
}

pub(super) async fn gc(mut client: Client, Gc { dry_run }: Gc) -> anyhow::Result<()> {
    let garbage = client.admin.collect(CollectRequest { dry_run }).await.map_err(said)?.into_inner().garbage;
    print(&report(&garbage, dry_run))
}

fn report(garbage: &[Garbage], dry_run: bool) -> String {
    let row = |one: &Garbage| vec![one.kind.clone(), one.name.clone(), HumanBytes(one.bytes).to_string()];
    let bytes = HumanBytes(garbage.iter().map(|one| one.bytes).sum());
    let verb = if dry_run { "would be freed" } else { "freed" };
    format!("{}{bytes} {verb}\n", table(&garbage.iter().map(row).collect::<Vec<_>>(), &[]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_says_what_goes_and_how_much() {
        assert_eq!(report(&[], false), "0 B freed\n");
        let one = |kind: &str, bytes| Garbage { kind: kind.into(), name: "x".into(), bytes };
        let text = report(&[one("layer", 3 << 20), one("unfinished", 1 << 20)], true);
        assert_eq!(text, "layer       x  3.00 MiB\nunfinished  x  1.00 MiB\n4.00 MiB would be freed\n");
    }
}
