//! The table: keys, eviction order, marks.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::atomic::Ordering::Relaxed;

use portcullis_abi::{
    Block, Reason, Secret, Set, WAYS, aggregate_key, ban, bans, find, find_or_take, is_known_good, key_v4,
    key_v6, mark_established, next_level, offence_key, rule_key, set_index, unblock,
};
use proptest::prelude::*;

const NOW: u64 = 1_000_000_000_000;
const SECOND: u64 = 1_000_000_000;

fn v6(text: &str) -> u64 {
    key_v6(text.parse::<Ipv6Addr>().expect("an address").octets())
}

fn holds(set: &Set, key: u64) -> bool {
    find(set, key).is_some()
}

/// A set whose ways hold keys 1 to 4 with these TATs.
fn set_with(tats: [u64; WAYS]) -> Set {
    let set = Set::default();
    for (i, tat) in tats.into_iter().enumerate() {
        set.ways[i].key.store(i as u64 + 1, Relaxed);
        set.ways[i].packet_tat.store(tat, Relaxed);
    }
    set
}

#[test]
fn keys_name_the_subscriber() {
    assert_eq!(key_v4(u32::from(Ipv4Addr::new(192, 0, 2, 1))), 0x0001_0000_c000_0201);
    assert_eq!(v6("2001:db8:1:2:3:4:5:6"), 0x2001_0db8_0001_0002);
    assert_eq!(v6("2001:db8:1:2::"), v6("2001:db8:1:2:ffff:ffff:ffff:ffff"));
    assert_ne!(v6("2001:db8:1:2::1"), v6("2001:db8:1:3::1"));
}

#[test]
fn embedded_v4_addresses_share_the_v4_bucket() {
    let plain = key_v4(u32::from(Ipv4Addr::new(192, 0, 2, 1)));
    assert_eq!(v6("::ffff:192.0.2.1"), plain);
    assert_eq!(v6("64:ff9b::192.0.2.1"), plain);
    assert_ne!(v6("::192.0.2.1"), plain);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// No spoofed IPv6 source reaches the empty key, an IPv4 bucket, or the proxy's own keys.
    #[test]
    fn v6_keys_stay_in_their_space(network: u64, host: u64, low in 0u64..0x1000_0000_0000_0000) {
        for network in [network, low] {
            let key = portcullis_abi::key_v6_halves(network, host);
            let top = key >> 56;
            prop_assert!(!(0x08..=0x0f).contains(&top));
            prop_assert_ne!(key, 0);
            let embeds_v4 = (network == 0 && host >> 32 == 0xffff) || (network == 0x0064_ff9b_0000_0000 && host >> 32 == 0);
            prop_assert_eq!(key >> 48 == 1, embeds_v4);
        }
    }

    /// The way taken is the one that loses least.
    #[test]
    fn the_lowest_tat_is_evicted(tats in prop::array::uniform4(0u64..2 * NOW)) {
        let set = set_with(tats);
        find_or_take(&set, 99, NOW);
        let lowest = *tats.iter().min().expect("four ways");
        let gone: Vec<u64> = (1..=4).filter(|key| !holds(&set, *key)).collect();
        prop_assert_eq!(gone.len(), 1);
        prop_assert_eq!(tats[gone[0] as usize - 1], lowest);
        let taken = find(&set, 99).expect("taken");
        prop_assert!(taken.packet_tat.load(Relaxed) <= NOW, "a newcomer starts without debt");
    }

    /// Any stream of newcomers, each with one token of debt, leaves a debtor in place.
    #[test]
    fn newcomers_cannot_wash_out_a_debtor(keys in prop::collection::vec(10u64..1_000_000, 1..400)) {
        let set = Set::default();
        find_or_take(&set, 1, NOW).request_tat.store(NOW + 60 * SECOND, Relaxed);
        for (step, key) in keys.into_iter().enumerate() {
            let now = NOW + step as u64;
            find_or_take(&set, key, now).packet_tat.store(now + SECOND, Relaxed);
        }
        prop_assert_eq!(find(&set, 1).expect("kept").request_tat.load(Relaxed), NOW + 60 * SECOND);
    }

    /// Block words say what was written, to the resolution of their time, and end by themselves.
    #[test]
    fn block_words_round_trip(
        until in NOW + 16_384..NOW * 2,
        level in 0u8..4,
        reason in 0..Reason::COUNT,
        known_good: bool,
    ) {
        let reason = Reason::from_index(reason).expect("in range");
        let rounded = until & !0x1fff;
        let word = Block::Banned { until, level, reason, known_good }.to_word();
        prop_assert_eq!(Block::from_word(word, NOW), Block::Banned { until: rounded, level, reason, known_good });
        prop_assert_eq!(Block::from_word(word, until), Block::None);
        let word = Block::Established { until }.to_word();
        prop_assert_eq!(Block::from_word(word, NOW), Block::Established { until: rounded });
    }

    /// A mark says no more than it should, keeps the level of the last ban, and forgets it in time.
    #[test]
    fn marks_remember_the_last_ban(level in 0u8..4, quiet in 0u64..30_000, for_seconds in 1u64..3_600) {
        let set = Set::default();
        let ended = NOW + for_seconds * SECOND;
        ban(&set, 7, NOW, ended, level, Reason::BadChunk);
        let marked = ended + SECOND;
        mark_established(&set, 7, marked, marked + 60 * SECOND);
        let later = marked + quiet * SECOND;
        let word = find(&set, 7).expect("has a way").block.load(Relaxed);
        let next = next_level(word, later, 3_600 * SECOND);
        // The end is remembered to 275 s, and after 9.8 hours not at all.
        let after = |quiet: u64| (i64::from(level) - (quiet / 3_600) as i64 + 1).clamp(0, 3);
        let (least, most) = (after(quiet + 280), after(quiet.saturating_sub(280)));
        prop_assert!((least..=most).contains(&i64::from(next)), "{next} not in {least}..={most}");
        prop_assert!(!bans(word, later) && !is_known_good(word, later));
    }

    /// The coarse key of a source depends on its network alone, and no source or rule shares it.
    #[test]
    fn aggregates_hold_their_networks(a: u32, b: u32, host: u8, v6: u128, low: u128, secret in any::<(u64, u64)>()) {
        let same = (a >> 8) == (b >> 8);
        prop_assert_eq!(aggregate_key(key_v4(a)) == aggregate_key(key_v4(b)), same);
        let sibling = a & !0xff | u32::from(host);
        prop_assert_eq!(aggregate_key(key_v4(a)), aggregate_key(key_v4(sibling)));
        // Within one /48: the low 80 bits are free. Below ::/4, keys are folded.
        let v6 = v6 | 1 << 127;
        let other = v6 & !((1 << 80) - 1) | low & ((1 << 80) - 1);
        let key = |bits: u128| key_v6(bits.to_be_bytes());
        prop_assert_eq!(aggregate_key(key(v6)), aggregate_key(key(other)));
        prop_assert_ne!(aggregate_key(key(v6)), aggregate_key(key(v6 ^ 1 << 80)));
        let secret = Secret { a: secret.0, b: secret.1 };
        let kinds = [
            key_v4(a) >> 48,
            aggregate_key(key_v4(a)) >> 48,
            aggregate_key(key(v6)) >> 48,
            rule_key(key_v4(a), 3, &secret) >> 48,
            offence_key(key_v4(a), 3, &secret) >> 48,
        ];
        prop_assert_eq!(kinds, [1, 3, 4, 6, 7]);
    }

    /// Keys spread: no set gets far more than its share, whatever the secret.
    #[test]
    fn hash_spreads_neighbours(a: u64, b: u64, base: u32) {
        const SETS: usize = 256;
        let secret = Secret { a, b };
        let mut load = [0u32; SETS];
        for i in 0..SETS as u32 * 16 {
            load[set_index(key_v4(base.wrapping_add(i)), &secret, SETS)] += 1;
        }
        prop_assert!(load.iter().all(|n| *n <= 64), "{load:?}");
    }
}

#[test]
fn both_words_count_for_eviction() {
    let set = set_with([NOW + 5, NOW + 6, NOW + 7, NOW + 8]);
    set.ways[0].request_tat.store(NOW + 9, Relaxed);
    find_or_take(&set, 99, NOW);
    assert!(holds(&set, 1) && !holds(&set, 2));
}

#[test]
fn established_goes_after_debt_and_a_ban_goes_last() {
    let set = Set::default();
    ban(&set, 1, NOW, NOW + 10 * SECOND, 0, Reason::BadChunk);
    mark_established(&set, 2, NOW, NOW + 10 * SECOND);
    for key in [3, 4] {
        find_or_take(&set, key, NOW).packet_tat.store(NOW + 1_000 * SECOND, Relaxed);
    }
    for (newcomer, gone) in [(5, 3), (6, 5)] {
        find_or_take(&set, newcomer, NOW).packet_tat.store(NOW + 2 * SECOND, Relaxed);
        assert!(holds(&set, 1) && holds(&set, 2) && !holds(&set, gone), "{newcomer}");
    }
    for key in [4, 6] {
        mark_established(&set, key, NOW, NOW + 10 * SECOND);
    }
    find_or_take(&set, 7, NOW);
    assert!(holds(&set, 1), "the ban outlives every mark");
    assert_eq!((2..=6).filter(|key| holds(&set, *key)).count(), 2);
}

#[test]
fn marks_end_with_time() {
    let set = set_with([NOW + 5, NOW + 6, NOW + 7, NOW + 8]);
    ban(&set, 1, NOW, NOW + SECOND, 2, Reason::RateLimited);
    let way = find(&set, 1).expect("banned");
    assert!(way.is_banned(NOW) && !way.is_banned(NOW + SECOND));
    find_or_take(&set, 99, NOW + SECOND);
    assert!(!holds(&set, 1), "a ban that has ended protects nothing");
}

#[test]
fn a_mark_does_not_lift_a_ban_but_unblock_does() {
    let set = Set::default();
    ban(&set, 1, NOW, NOW + SECOND, 1, Reason::Forbidden);
    mark_established(&set, 1, NOW, NOW + 5 * SECOND);
    let way = find(&set, 1).expect("banned");
    assert!(matches!(way.block_at(NOW), Block::Banned { level: 1, reason: Reason::Forbidden, .. }));
    unblock(&set, 1);
    assert_eq!(way.block_at(NOW), Block::None);
}

#[test]
fn a_newcomer_inherits_no_block() {
    let set = Set::default();
    for key in 1..=4 {
        ban(&set, key, NOW, NOW + key * SECOND, 0, Reason::BadHeader);
    }
    let way = find_or_take(&set, 5, NOW);
    assert_eq!(way.block_at(NOW), Block::None);
    assert!(!holds(&set, 1), "of bans the one that ends first goes");
}

#[test]
fn reasons_are_consistent() {
    for (i, reason) in Reason::ALL.iter().enumerate() {
        assert_eq!(*reason as usize, i);
        assert_eq!(Reason::from_index(i), Some(*reason));
        assert_eq!(reason.drops_packet(), reason.as_str().starts_with("drop_"), "{reason:?}");
        if let Some(shadow) = reason.shadow() {
            assert_eq!(shadow.as_str().strip_prefix("shadow_"), reason.as_str().strip_prefix("drop_"));
        }
    }
    assert_eq!(Reason::from_index(Reason::COUNT), None);
    let names: std::collections::BTreeSet<_> = Reason::ALL.iter().map(|reason| reason.as_str()).collect();
    assert_eq!(names.len(), Reason::COUNT);
}
