//! nftables by nfnetlink: one transaction of tables, chains, rules, maps and their elements.
//! What does not live here: which rules there are.

use nix::libc;

use super::NetlinkError;
use super::expression::{self, Expression};
use super::message::{APPEND, Attributes, Batch, CREATE, Head};
use super::socket::Socket;

const SUBSYSTEM: u16 = 10;
const INET: u8 = 1;

/// Asks for the generation of the rule set: a kernel without nf_tables does not know the question.
pub fn probe() -> Result<(), NetlinkError> {
    let mut batch = Batch::new();
    batch.message(&head(libc::NFT_MSG_GETGEN, 0), |_| {});
    let answer = Socket::netfilter()?.ask(batch);
    answer.map(drop).map_err(|source| NetlinkError::new("ask for nftables", source))
}

/// A map from bytes to bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Map {
    /// Its name in the table.
    pub name: &'static str,
    /// Sizes in bytes of key and value, each part padded to four.
    pub sizes: (u32, u32),
    /// nft's numbers for the types of key and value: only for people who list the map.
    pub types: (u32, u32),
}

/// Where a base chain is hooked in.
#[derive(Clone, Copy, Debug)]
pub struct Hook {
    /// NF_INET_*.
    pub number: u32,
    /// Lower comes first.
    pub priority: i32,
    /// `nat` or `filter`.
    pub kind: &'static str,
}

/// Changes of one `inet` table that become visible together.
pub struct Transaction<'a> {
    table: &'a str,
    batch: Batch,
}

impl<'a> Transaction<'a> {
    /// Begins one.
    pub fn new(table: &'a str) -> Self {
        let mut batch = Batch::new();
        // res_id of the limits of a batch is the subsystem.
        let header = [0, 0, 0, SUBSYSTEM as u8];
        batch.message(&Head { kind: libc::NFNL_MSG_BATCH_BEGIN as u16, flags: 0, family: &header }, |_| {});
        Self { table, batch }
    }

    /// Makes the table if there is none.
    pub fn table(&mut self) {
        let table = self.table;
        self.batch.message(&head(libc::NFT_MSG_NEWTABLE, CREATE), |m| m.text(1, table));
    }

    /// Removes the table with all that is in it.
    pub fn drop_table(&mut self) {
        let table = self.table;
        self.batch.message(&head(libc::NFT_MSG_DELTABLE, 0), |m| m.text(1, table));
    }

    /// Makes a map if there is none, and empties it.
    pub fn empty_map(&mut self, map: &Map, id: u32) {
        const MAP: u32 = 8;
        let table = self.table;
        self.batch.message(&head(libc::NFT_MSG_NEWSET, CREATE), |m| {
            m.text(1, table);
            m.text(2, map.name);
            m.be32(3, MAP);
            m.be32(4, map.types.0);
            m.be32(5, map.sizes.0);
            m.be32(6, map.types.1);
            m.be32(7, map.sizes.1);
            m.be32(10, id);
        });
        self.batch.message(&head(libc::NFT_MSG_DELSETELEM, 0), |m| {
            m.text(1, table);
            m.text(2, map.name);
        });
    }

    /// Makes a chain if there is none, and empties it.
    pub fn empty_chain(&mut self, name: &str, hook: Option<&Hook>) {
        let table = self.table;
        self.batch.message(&head(libc::NFT_MSG_NEWCHAIN, CREATE), |m| {
            m.text(1, table);
            m.text(3, name);
            if let Some(hook) = hook {
                m.nest(4, |m| {
                    m.be32(1, hook.number);
                    m.be32(2, hook.priority as u32);
                });
                m.text(7, hook.kind);
            }
        });
        self.batch.message(&head(libc::NFT_MSG_DELRULE, 0), |m| {
            m.text(1, table);
            m.text(2, name);
        });
    }

    /// Adds a rule at the end of a chain.
    pub fn rule(&mut self, chain: &str, expressions: &[Expression]) {
        let table = self.table;
        self.batch.message(&head(libc::NFT_MSG_NEWRULE, CREATE | APPEND), |m| {
            m.text(1, table);
            m.text(2, chain);
            expression::write(m, 4, expressions);
        });
    }

    /// Adds one element; the same one again is fine.
    pub fn add_element(&mut self, map: &Map, key: &[u8], value: &[u8]) {
        self.element(libc::NFT_MSG_NEWSETELEM, map, (key, Some(value)));
    }

    /// Removes one element, which must be there.
    pub fn remove_element(&mut self, map: &Map, key: &[u8]) {
        self.element(libc::NFT_MSG_DELSETELEM, map, (key, None));
    }

    fn element(&mut self, kind: i32, map: &Map, (key, value): (&[u8], Option<&[u8]>)) {
        let table = self.table;
        let flags = if value.is_some() { CREATE } else { 0 };
        self.batch.message(&head(kind, flags), |m| {
            m.text(1, table);
            m.text(2, map.name);
            m.nest(3, |m| m.nest(1, |m| write_element(m, key, value)));
        });
    }

    /// The messages to send.
    pub fn finish(mut self) -> Batch {
        // Kernels before 6.10 do not answer the end of a batch; an error is answered unasked.
        self.batch.await_last();
        let header = [0, 0, 0, SUBSYSTEM as u8];
        self.batch
            .message(&Head { kind: libc::NFNL_MSG_BATCH_END as u16, flags: 0, family: &header }, |_| {});
        self.batch
    }
}

fn write_element(m: &mut Attributes<'_>, key: &[u8], value: Option<&[u8]>) {
    m.nest(1, |m| m.bytes(1, key));
    if let Some(value) = value {
        m.nest(2, |m| m.bytes(1, value));
    }
}

fn head(message: i32, flags: u16) -> Head<'static> {
    Head { kind: SUBSYSTEM << 8 | message as u16, flags, family: &[INET, 0, 0, 0] }
}
