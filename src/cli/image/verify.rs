//! `berth image verify`: what the daemon finds wrong with images on the disk. What does not live here: looking.

use anyhow::bail;
use berth_proto::admin::v1::{Condition, Part, Verified, VerifyRequest};
use clap::Args;
use indicatif::HumanBytes;

use super::super::client::{Client, said};
use super::super::print;

#[derive(Args)]
pub(super) struct Verify {
    /// Names, digests or ids; all images without any
    #[arg(value_name = "IMAGE")]
    images: Vec<String>,
    /// Print a JSON object for each layer and blob, a line each
    #[arg(long)]
    json: bool,
}

/// How many, and how many bytes on disk.
#[derive(Default)]
struct Seen {
    layers: u64,
    blobs: u64,
    unsealed: u64,
    damaged: u64,
    bytes: u64,
}

/// Each damaged thing as it is found, then a line about all. Fails if anything is damaged.
pub(super) async fn verify(mut client: Client, Verify { images, json }: Verify) -> anyhow::Result<()> {
    let mut found = client.admin.verify(VerifyRequest { images }).await.map_err(said)?.into_inner();
    let mut seen = Seen::default();
    while let Some(one) = found.message().await.map_err(said)? {
        seen.count(&one);
        if json {
            print(&format!("{}\n", as_json(&one)))?;
        } else if one.condition() == Condition::Damaged {
            print(&line(&one))?;
        }
    }
    if !json {
        print(&seen.sum())?;
    }
    if seen.damaged > 0 {
        bail!("{} damaged: pull the images named above again", seen.damaged);
    }
    Ok(())
}

fn kind(one: &Verified) -> &'static str {
    match one.part() {
        Part::Layer => "layer",
        Part::Blob => "blob",
    }
}

fn as_json(one: &Verified) -> serde_json::Value {
    let condition = match one.condition() {
        Condition::Whole => "whole",
        Condition::Unsealed => "unsealed",
        Condition::Damaged => "damaged",
    };
    serde_json::json!({
        "id": one.id, "part": kind(one), "bytes": one.bytes, "images": one.images,
        "condition": condition, "problem": one.problem,
    })
}

fn line(one: &Verified) -> String {
    let images = if one.images.is_empty() { "no image".into() } else { one.images.join(", ") };
    format!("damaged: {} {} of {images}: {}\n", kind(one), one.id, one.problem)
}

impl Seen {
    fn count(&mut self, one: &Verified) {
        *if one.part() == Part::Layer { &mut self.layers } else { &mut self.blobs } += 1;
        self.unsealed += u64::from(one.condition() == Condition::Unsealed);
        self.damaged += u64::from(one.condition() == Condition::Damaged);
        self.bytes += one.bytes;
    }

    fn sum(&self) -> String {
        let Self { layers, blobs, unsealed, damaged, bytes } = self;
        let mut text = format!("{layers} layers and {blobs} blobs, {}: ", HumanBytes(*bytes));
        text += &if *damaged == 0 { "all whole".to_string() } else { format!("{damaged} damaged") };
        if *unsealed > 0 {
            text += &format!(
                "; {unsealed} layers can't be verified, as an older Berth unpacked them: remove and pull their images to change that"
            );
        }
        text + "\n"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_says_what_was_not_verified() {
        let one = |part: Part, condition: Condition| Verified {
            part: part.into(),
            condition: condition.into(),
            bytes: 1 << 20,
            ..Verified::default()
        };
        let mut seen = Seen::default();
        seen.count(&one(Part::Layer, Condition::Whole));
        seen.count(&one(Part::Blob, Condition::Whole));
        assert_eq!(seen.sum(), "1 layers and 1 blobs, 2.00 MiB: all whole\n");
        seen.count(&one(Part::Layer, Condition::Unsealed));
        seen.count(&one(Part::Layer, Condition::Damaged));
        assert!(
            seen.sum().starts_with("3 layers and 1 blobs, 4.00 MiB: 1 damaged; 1 layers can't be verified")
        );
    }
}
