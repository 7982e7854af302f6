//! The expressions of an nftables rule (include/uapi/linux/netfilter/nf_tables.h), each a few attributes.
//! What does not live here: tables, chains, and which rules there are.

use super::message::Attributes;

const LIST_ELEM: u16 = 1;
const EXPR_NAME: u16 = 1;
const EXPR_DATA: u16 = 2;
const DATA_VALUE: u16 = 1;
const DATA_VERDICT: u16 = 2;
const VERDICT_REGISTER: u32 = 0;
/// The first of sixteen registers of four bytes.
pub const REGISTER: u32 = 8;

/// What meta loads.
#[derive(Clone, Copy, Debug)]
pub enum Meta {
    /// Name of the link that the packet came by.
    InName = 6,
    /// Name of the link that it leaves by.
    OutName = 7,
    /// IPv4 or IPv6, one byte.
    Family = 15,
    /// TCP, UDP, SCTP ..., one byte.
    Protocol = 16,
}

/// Which header payload loads from.
#[derive(Clone, Copy, Debug)]
pub enum Base {
    /// IPv4 or IPv6.
    Network = 1,
    /// TCP, UDP, SCTP.
    Transport = 2,
}

/// What becomes of the packet.
#[derive(Clone, Copy, Debug)]
pub enum Verdict {
    /// It is gone.
    Drop = 0,
    /// This chain lets it pass.
    Accept = 1,
    /// Goes on in another chain, and returns.
    Jump = -3,
}

/// One step of a rule; registers are counted from zero.
#[derive(Clone, Debug)]
pub enum Expression {
    /// Loads a property of the packet.
    Meta(Meta, u32),
    /// Loads the type of the destination address, as the routing table sees it.
    DestinationType(u32),
    /// Loads conntrack's status bits.
    ConntrackStatus(u32),
    /// Loads bytes of a header: base, offset, length, register.
    Payload(Base, u32, u32, u32),
    /// Keeps the bits of the mask only.
    Mask(u32, Vec<u8>),
    /// Goes on if the register equals the value.
    Equal(u32, Vec<u8>),
    /// Goes on if the register differs from the value.
    Differs(u32, Vec<u8>),
    /// Goes on if the map has the key at the first register, with the value at the second.
    Lookup(&'static str, u32, u32),
    /// Gives the packet the destination address and port at two registers; family.
    Destination(u8, u32, u32),
    /// Gives the packet the source address of the link that it leaves by.
    Masquerade,
    /// The end of the rule; the chain for `Jump`.
    Verdict(Verdict, &'static str),
}

/// Writes a rule's expressions as its NFTA_RULE_EXPRESSIONS.
pub fn write(m: &mut Attributes<'_>, kind: u16, expressions: &[Expression]) {
    m.nest(kind, |m| {
        for expression in expressions {
            m.nest(LIST_ELEM, |m| {
                m.text(EXPR_NAME, name(expression));
                m.nest(EXPR_DATA, |m| write_one(m, expression));
            });
        }
    });
}

fn name(expression: &Expression) -> &'static str {
    match expression {
        Expression::Meta(..) => "meta",
        Expression::DestinationType(_) => "fib",
        Expression::ConntrackStatus(_) => "ct",
        Expression::Payload(..) => "payload",
        Expression::Mask(..) => "bitwise",
        Expression::Equal(..) | Expression::Differs(..) => "cmp",
        Expression::Lookup(..) => "lookup",
        Expression::Destination(..) => "nat",
        Expression::Masquerade => "masq",
        Expression::Verdict(..) => "immediate",
    }
}

fn write_one(m: &mut Attributes<'_>, expression: &Expression) {
    const FIB_RESULT_ADDRTYPE: u32 = 3;
    const FIB_DADDR: u32 = 2;
    const CT_STATUS: u32 = 2;
    match expression {
        Expression::Meta(key, register) => fields(m, &[(2, *key as u32), (1, REGISTER + register)]),
        Expression::DestinationType(register) => {
            fields(m, &[(1, REGISTER + register), (2, FIB_RESULT_ADDRTYPE), (3, FIB_DADDR)]);
        }
        Expression::ConntrackStatus(register) => fields(m, &[(1, REGISTER + register), (2, CT_STATUS)]),
        Expression::Payload(base, offset, length, register) => {
            fields(m, &[(1, REGISTER + register), (2, *base as u32), (3, *offset), (4, *length)]);
        }
        Expression::Mask(register, mask) => {
            fields(m, &[(1, REGISTER + register), (2, REGISTER + register), (3, mask.len() as u32)]);
            m.nest(4, |m| m.bytes(DATA_VALUE, mask));
            m.nest(5, |m| m.bytes(DATA_VALUE, &vec![0; mask.len()]));
        }
        Expression::Equal(register, value) => compare(m, *register, 0, value),
        Expression::Differs(register, value) => compare(m, *register, 1, value),
        Expression::Lookup(map, key, value) => {
            m.text(1, map);
            fields(m, &[(2, REGISTER + key), (3, REGISTER + value)]);
        }
        Expression::Destination(family, address, port) => {
            const DNAT: u32 = 1;
            fields(m, &[(1, DNAT), (2, u32::from(*family)), (3, REGISTER + address), (5, REGISTER + port)]);
        }
        Expression::Masquerade => {}
        Expression::Verdict(verdict, chain) => {
            m.be32(1, VERDICT_REGISTER);
            m.nest(2, |m| {
                m.nest(DATA_VERDICT, |m| {
                    m.be32(1, *verdict as i32 as u32);
                    if matches!(verdict, Verdict::Jump) {
                        m.text(2, chain);
                    }
                });
            });
        }
    }
}

fn compare(m: &mut Attributes<'_>, register: u32, operator: u32, value: &[u8]) {
    fields(m, &[(1, REGISTER + register), (2, operator)]);
    m.nest(3, |m| m.bytes(DATA_VALUE, value));
}

fn fields(m: &mut Attributes<'_>, fields: &[(u16, u32)]) {
    for (kind, value) in fields {
        m.be32(*kind, *value);
    }
}
