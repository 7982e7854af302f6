//! Random profiles and calls.

use proptest::prelude::*;

use super::*;

const NAMES: [&str; 12] = [
    "read",
    "write",
    "open",
    "openat",
    "socket",
    "socketcall",
    "clone",
    "clone3",
    "bpf",
    "ioctl",
    "mmap2",
    "futex_waitv",
];

fn value() -> impl Strategy<Value = u64> {
    let edges = [
        0,
        1,
        2,
        0x7fff_ffff,
        0x8000_0000,
        0xffff_ffff,
        0x1_0000_0000,
        0x1_0000_0001,
        u64::MAX - 1,
        u64::MAX,
    ];
    prop_oneof![proptest::sample::select(edges.to_vec()), any::<u64>(), 0..8_u64]
}

fn action() -> impl Strategy<Value = Action> {
    use Action::{Allow, Errno, KillProcess, KillThread, Log, Trace, Trap};
    proptest::sample::select(vec![Allow, Errno(1), Errno(38), Trace(7), Trap, Log, KillThread, KillProcess])
}

fn condition() -> impl Strategy<Value = Condition> {
    use Compare::{Eq, Ge, Gt, Le, Lt, Ne};
    let plain = proptest::sample::select(vec![Ne, Lt, Le, Eq, Ge, Gt]);
    let compare = prop_oneof![plain, value().prop_map(Compare::Masked)];
    let parts = (0..6_u8, compare, value(), any::<bool>());
    parts.prop_map(|(index, compare, value, narrow)| Condition { index, compare, value, narrow })
}

fn profile() -> impl Strategy<Value = Profile> {
    let names = proptest::collection::vec(proptest::sample::select(NAMES.to_vec()), 1..6);
    let held = proptest::sample::select(vec![Set::EMPTY, caps(&["KILL"]), caps(&["SYS_ADMIN"])]);
    let when = (held.clone(), held).prop_map(|(with, without)| When { with, without, ..When::default() });
    let rule = (names, action(), proptest::collection::vec(condition(), 0..4), when);
    let rule = rule.prop_map(|(names, action, conditions, when)| {
        let names = names.into_iter().map(String::from).collect();
        Rule { names, action, conditions, when }
    });
    let arches = proptest::sample::subsequence(Arch::family()[1..].to_vec(), 0..Arch::family().len());
    let parts = (action(), arches, proptest::collection::vec(rule, 0..12));
    parts.prop_map(|(default, mut arches, rules)| {
        arches.insert(0, Arch::NATIVE);
        Profile { default, arches, rules, flags: vec![] }
    })
}

fn any_call() -> impl Strategy<Value = Call> {
    let arches = vec![Arch::X86_64, Arch::X86, Arch::X32, Arch::Aarch64, Arch::Arm];
    let name = proptest::sample::select(NAMES.to_vec());
    let known =
        (proptest::sample::select(arches.clone()), name, 0..3_u32).prop_map(|(arch, name, offset)| {
            let number = arch.number(name).unwrap_or(0).wrapping_add(offset).wrapping_sub(1);
            (arch.token(), number)
        });
    let odd =
        (proptest::sample::select(arches), any::<u32>()).prop_map(|(arch, number)| (arch.token(), number));
    let target = prop_oneof![4 => known, 1 => odd];
    (target, proptest::array::uniform6(value())).prop_map(|((arch, number), args)| Call {
        number,
        arch,
        args,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]
    #[test]
    fn a_filter_says_what_its_profile_says(
        profile in profile(),
        calls in proptest::collection::vec(any_call(), 64),
        held in proptest::sample::select(vec![Set::EMPTY, Set::ALL]),
    ) {
        let code = compile::compile(&profile, held, (6, 18)).unwrap();
        for call in calls {
            let wanted = bpf::verdict(expected(&profile, held, &call));
            prop_assert_eq!(run(&code, &call), wanted, "{:?}", call);
        }
    }

    #[test]
    fn the_default_filter_says_what_the_default_profile_says(
        number in 0..600_u32, args in proptest::array::uniform6(value()), x32 in any::<bool>(), x86 in any::<bool>(),
    ) {
        let profile = default::profile();
        let token = if x86 { Arch::X86.token() } else { Arch::NATIVE.token() };
        let call = Call { number: if x32 { number | X32_BIT } else { number }, arch: token, args };
        let wanted = bpf::verdict(expected(&profile, Set::EMPTY, &call));
        prop_assert_eq!(verdict(&profile, Set::EMPTY, &call), wanted, "{:?}", call);
    }

    #[test]
    fn any_text_is_a_profile_or_an_error(text in ".{0,200}") {
        let _ = json::parse(text.as_bytes());
    }
}
