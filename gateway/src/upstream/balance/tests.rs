//! Balancing: each algorithm's promise, and that nobody who is out is ever picked.

use std::cell::RefCell;

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug, Default)]
struct Targets {
    weights: Vec<u32>,
    down: Vec<usize>,
    loads: RefCell<Vec<u32>>,
}

impl Targets {
    fn new(weights: &[u32]) -> Targets {
        Targets { weights: weights.to_vec(), down: Vec::new(), loads: RefCell::new(vec![0; weights.len()]) }
    }

    fn without(mut self, down: &[usize]) -> Targets {
        self.down = down.to_vec();
        self
    }

    fn total(&self) -> u64 {
        self.weights.iter().map(|&weight| u64::from(weight)).sum()
    }
}

impl TargetView for Targets {
    fn len(&self) -> usize {
        self.weights.len()
    }

    fn weight(&self, target: TargetIndex) -> u32 {
        self.weights[target.index()]
    }

    fn available(&self, target: TargetIndex) -> bool {
        !self.down.contains(&target.index())
    }

    fn load(&self, target: TargetIndex) -> u32 {
        self.loads.borrow()[target.index()]
    }
}

fn picks(balancer: &mut Balancer, view: &Targets, count: usize) -> Vec<usize> {
    let mut one = || balancer.pick(view, &Tried::default(), None).expect("somebody is there").index();
    (0..count).map(|_| one()).collect()
}

fn counts(picks: &[usize], len: usize) -> Vec<u64> {
    let mut counts = vec![0; len];
    picks.iter().for_each(|&pick| counts[pick] += 1);
    counts
}

fn every_algorithm(targets: &Targets) -> Vec<Algorithm> {
    let keys: Vec<_> = (0..).zip(&targets.weights).map(|(key, &weight)| (key, weight)).collect();
    vec![
        Algorithm::RoundRobin,
        Algorithm::LeastConnections,
        Algorithm::Random,
        Algorithm::TwoChoices,
        Algorithm::Latency,
        Algorithm::ConsistentHashing(Arc::new(Ring::new(&keys))),
        Algorithm::Maglev(Arc::new(Maglev::new(&keys))),
    ]
}

#[test]
fn round_robin_is_smooth() {
    let view = Targets::new(&[5, 1, 1]);
    let mut balancer = Balancer::new(Algorithm::RoundRobin, 0, 1);
    assert_eq!(picks(&mut balancer, &view, 7), [0, 0, 1, 0, 2, 0, 0]);
}

#[test]
fn shards_start_apart() {
    let view = Targets::new(&[100, 100, 100, 100]);
    let first = |shard| picks(&mut Balancer::new(Algorithm::RoundRobin, shard, 1), &view, 1)[0];
    assert_eq!([0, 1, 2, 3, 4].map(first), [0, 1, 2, 3, 0]);
    let first = |shard| picks(&mut Balancer::new(Algorithm::LeastConnections, shard, 1), &view, 1)[0];
    assert_eq!([0, 1, 2, 3].map(first).map(|index| index < 4), [true; 4]);
    assert_ne!(first(0), first(1));
}

#[test]
fn round_robin_follows_a_change_of_the_list() {
    let mut balancer = Balancer::new(Algorithm::RoundRobin, 0, 1);
    picks(&mut balancer, &Targets::new(&[1, 1, 1]), 2);
    let two = Targets::new(&[3, 1]);
    assert_eq!(counts(&picks(&mut balancer, &two, 40), 2), [30, 10]);
}

#[test]
fn a_target_that_comes_back_does_not_catch_up() {
    let all = Targets::new(&[1, 1, 1]);
    let mut balancer = Balancer::new(Algorithm::RoundRobin, 0, 1);
    picks(&mut balancer, &all.clone().without(&[2]), 1001);
    let after = counts(&picks(&mut balancer, &all, 30), 3);
    assert!(after[2] <= 11, "{after:?}");
}

#[test]
fn least_connections_weighs_and_takes_turns() {
    let view = Targets::new(&[1, 2, 1]);
    let mut balancer = Balancer::new(Algorithm::LeastConnections, 0, 1);
    // Requests that never end: the loads must end up as the weights.
    for _ in 0..400 {
        let pick = picks(&mut balancer, &view, 1)[0];
        view.loads.borrow_mut()[pick] += 1;
    }
    assert_eq!(*view.loads.borrow(), [100, 200, 100]);
    let idle = Targets::new(&[1, 1, 1]);
    assert_eq!(counts(&picks(&mut balancer, &idle, 300), 3), [100, 100, 100]);
}

#[test]
fn two_choices_avoids_the_loaded_one() {
    let view = Targets::new(&[1, 1, 1]);
    view.loads.borrow_mut()[1] = 1000;
    let mut balancer = Balancer::new(Algorithm::TwoChoices, 0, 1);
    // It is picked only where both choices are the same, which they never are.
    assert_eq!(counts(&picks(&mut balancer, &view, 1000), 3)[1], 0);
}

#[test]
fn random_keeps_the_shares() {
    let view = Targets::new(&[1, 2, 7, 0]);
    for algorithm in [Algorithm::Random, Algorithm::TwoChoices] {
        let mut balancer = Balancer::new(algorithm.clone(), 3, 42);
        let counts = counts(&picks(&mut balancer, &view, 50_000), 4);
        assert_eq!(counts[3], 0);
        if matches!(algorithm, Algorithm::Random) {
            for (count, weight) in counts.iter().zip([1, 2, 7]) {
                assert!(count.abs_diff(weight * 5_000) < 400, "{counts:?}");
            }
        }
    }
}

fn owners(ring: &Ring, hashes: u64) -> Vec<usize> {
    (0..hashes).map(|hash| ring.pick(hash, |_| true).expect("not empty").index()).collect()
}

#[test]
fn the_ring_shares_by_weight() {
    let ring = Ring::new(&[(11, 100), (22, 100), (33, 200), (44, 0)]);
    let counts = counts(&owners(&ring, 100_000), 4);
    assert_eq!(counts[3], 0);
    for (count, share) in counts.iter().zip([25_000_u64, 25_000, 50_000]) {
        assert!(count.abs_diff(share) < share / 5, "{counts:?}");
    }
    assert!(Ring::new(&[]).pick(1, |_| true).is_none());
    assert!(Ring::new(&[(1, 0)]).pick(1, |_| true).is_none());
    // A tiny weight beside a huge one still has a place.
    assert!(owners(&Ring::new(&[(1, 1), (2, 65_535)]), 100_000).contains(&0));
}

#[test]
fn the_ring_moves_only_the_keys_of_the_target_that_left() {
    let all = [(11, 100), (22, 100), (33, 100), (44, 100)];
    let (before, after) = (owners(&Ring::new(&all), 20_000), owners(&Ring::new(&all[..3]), 20_000));
    for (before, after) in before.iter().zip(&after) {
        assert!(before == after || *before == 3);
    }
    // Order of the list does not matter, only the keys do.
    let turned: Vec<_> = all.iter().rev().copied().collect();
    let turned: Vec<_> = owners(&Ring::new(&turned), 20_000).into_iter().map(|index| 3 - index).collect();
    assert_eq!(before, turned);
}

#[test]
fn the_ring_passes_over_who_is_out_and_requests_without_a_hash_go_round() {
    let view = Targets::new(&[1, 1, 1]);
    let ring = Arc::new(Ring::new(&[(1, 1), (2, 1), (3, 1)]));
    let mut balancer = Balancer::new(Algorithm::ConsistentHashing(ring), 0, 1);
    let mut tried = Tried::default();
    let mut seen = Vec::new();
    while let Some(target) = balancer.pick(&view, &tried, Some(77)) {
        assert_eq!(balancer.pick(&view, &tried, Some(77)), Some(target), "the same hash, the same target");
        tried.insert(target);
        seen.push(target.0);
    }
    seen.sort_unstable();
    assert_eq!(seen, [0, 1, 2]);
    assert_eq!(counts(&picks(&mut balancer, &view, 30), 3), [10, 10, 10]);
}

#[test]
fn when_all_are_down() {
    let view = Targets::new(&[1, 1, 0]).without(&[0, 1, 2]);
    for algorithm in every_algorithm(&view) {
        let mut refusing = Balancer::new(algorithm.clone(), 0, 1);
        assert_eq!(refusing.pick(&view, &Tried::default(), Some(5)), None);
        let mut ignoring = Balancer::new(algorithm, 0, 1).when_all_down(WhenAllDown::Ignore);
        let mut tried = Tried::default();
        for _ in 0..2 {
            let picked = ignoring.pick(&view, &tried, Some(5)).unwrap();
            assert!(!tried.contains(picked) && picked.0 < 2);
            tried.insert(picked);
        }
        assert_eq!(ignoring.pick(&view, &tried, Some(5)), None, "weight 0 gets nothing even then");
    }
}

#[test]
fn below_the_threshold_everything_is_refused() {
    let mut balancer = Balancer::new(Algorithm::RoundRobin, 0, 1).threshold_percent(50);
    let view = Targets::new(&[50, 25, 25]);
    assert!(balancer.pick(&view.clone().without(&[0]), &Tried::default(), None).is_some());
    assert!(balancer.pick(&view.clone().without(&[0, 1]), &Tried::default(), None).is_none());
    assert!(balancer.pick(&view.without(&[1, 2]), &Tried::default(), None).is_some());
}

#[test]
fn an_empty_list_gives_nothing() {
    let view = Targets::new(&[]);
    for algorithm in every_algorithm(&view) {
        let mut balancer = Balancer::new(algorithm, 5, 1).threshold_percent(10);
        assert_eq!(balancer.pick(&view, &Tried::default(), Some(1)), None);
    }
}

#[test]
fn tried_forgets_past_its_capacity() {
    let mut tried = Tried::default();
    assert!(tried.is_empty());
    for target in 0..Tried::CAPACITY as u32 + 3 {
        tried.insert(TargetIndex(target));
    }
    assert_eq!(tried.len(), Tried::CAPACITY);
    assert!(tried.contains(TargetIndex(0)) && !tried.contains(TargetIndex(Tried::CAPACITY as u32)));
}

proptest! {
    #[test]
    fn round_robin_is_exact_over_a_cycle_and_never_a_pick_ahead(
        weights in prop::collection::vec(0u32..20, 1..8),
        shard in 0u32..20,
    ) {
        let view = Targets::new(&weights);
        let all = view.total();
        prop_assume!(all > 0);
        let mut balancer = Balancer::new(Algorithm::RoundRobin, 0, 1);
        let mut had = vec![0_u64; weights.len()];
        for n in 1..=2 * all {
            had[picks(&mut balancer, &view, 1)[0]] += 1;
            prop_assert_eq!(balancer.credits.iter().sum::<i64>(), 0);
            for (had, &weight) in had.iter().zip(&weights) {
                // had < n * weight / all + 1
                prop_assert!(had * all < n * u64::from(weight) + all);
            }
            if n % all == 0 {
                let expected: Vec<u64> = weights.iter().map(|&weight| u64::from(weight) * (n / all)).collect();
                prop_assert_eq!(&had, &expected);
            }
        }
        // Another shard has the same shares over a cycle, from another start.
        let turned = picks(&mut Balancer::new(Algorithm::RoundRobin, shard, 1), &view, all as usize);
        let expected: Vec<u64> = weights.iter().map(|&weight| u64::from(weight)).collect();
        prop_assert_eq!(counts(&turned, weights.len()), expected);
    }

    #[test]
    fn nobody_picks_who_is_out(
        weights in prop::collection::vec(0u32..5, 0..7),
        down in prop::collection::vec(0usize..7, 0..5),
        tried_list in prop::collection::vec(0u32..7, 0..5),
        hashes in prop::collection::vec(any::<u64>(), 1..20),
        loads in prop::collection::vec(0u32..9, 7),
    ) {
        let view = Targets::new(&weights).without(&down);
        *view.loads.borrow_mut() = loads;
        let mut tried = Tried::default();
        tried_list.iter().for_each(|&target| tried.insert(TargetIndex(target)));
        let eligible = |index: usize| {
            weights[index] > 0 && !down.contains(&index) && !tried_list.contains(&(index as u32))
        };
        let somebody = (0..weights.len()).any(eligible);
        for algorithm in every_algorithm(&view) {
            let mut balancer = Balancer::new(algorithm, 3, 9);
            for &hash in &hashes {
                match balancer.pick(&view, &tried, Some(hash)) {
                    Some(target) => prop_assert!(eligible(target.index())),
                    None => prop_assert!(!somebody),
                }
            }
        }
    }
}

#[test]
fn maglev_gives_exact_shares_and_moves_little() {
    let keys = |names: &[u64], weight: u32| names.iter().map(|&key| (key, weight)).collect::<Vec<_>>();
    let shares = |table: &Maglev, len: usize| {
        let picks: Vec<_> =
            (0..20_000).map(|hash| table.pick(hash, |_| true).expect("somebody").index()).collect();
        (counts(&picks, len), picks)
    };
    let (even, before) = shares(&Maglev::new(&keys(&[11, 22, 33, 44], 100)), 4);
    assert!(even.iter().all(|&count| (4_700..5_300).contains(&count)), "{even:?}");
    // Without the last target, what the others had stays with them, but for a little.
    let (_, after) = shares(&Maglev::new(&keys(&[11, 22, 33], 100)), 3);
    let moved = before.iter().zip(&after).filter(|(before, after)| **before != 3 && before != after).count();
    assert!(moved < 15_000 / 5, "{moved}");
    let (weighted, _) = shares(&Maglev::new(&[(1, 300), (2, 100), (3, 0)]), 3);
    assert!((14_500..15_500).contains(&weighted[0]) && weighted[2] == 0, "{weighted:?}");
    assert!(Maglev::new(&[]).pick(7, |_| true).is_none());
    assert!(Maglev::new(&[(1, 0)]).pick(7, |_| true).is_none());
}

#[derive(Debug, Default)]
struct Timed {
    latency: Vec<u64>,
    loads: Vec<u32>,
    backups: Vec<usize>,
    down: Vec<usize>,
}

impl TargetView for Timed {
    fn len(&self) -> usize {
        self.latency.len()
    }

    fn weight(&self, _: TargetIndex) -> u32 {
        1
    }

    fn available(&self, target: TargetIndex) -> bool {
        !self.down.contains(&target.index())
    }

    fn load(&self, target: TargetIndex) -> u32 {
        self.loads[target.index()]
    }

    fn latency_ns(&self, target: TargetIndex) -> u64 {
        self.latency[target.index()]
    }

    fn is_backup(&self, target: TargetIndex) -> bool {
        self.backups.contains(&target.index())
    }
}

#[test]
fn latency_prefers_who_would_answer_sooner() {
    let pick = |latency: &[u64], loads: &[u32]| {
        let view = Timed { latency: latency.to_vec(), loads: loads.to_vec(), ..Timed::default() };
        Balancer::new(Algorithm::Latency, 0, 1).pick(&view, &Tried::default(), None).map(TargetIndex::index)
    };
    assert_eq!(pick(&[5, 50], &[0, 0]), Some(0));
    assert_eq!(pick(&[5, 50], &[20, 0]), Some(1), "21 x 5 is more than 50");
    assert_eq!(pick(&[5, 0], &[0, 0]), Some(1), "nobody has measured it yet");
    assert_eq!(pick(&[5, 0], &[0, 1]), Some(0), "it is being measured");
}

#[test]
fn backups_wait_until_the_others_are_out() {
    for algorithm in every_algorithm(&Targets::new(&[1, 1, 1])) {
        let mut view = Timed { latency: vec![0; 3], loads: vec![0; 3], backups: vec![1], ..Timed::default() };
        let mut balancer = Balancer::new(algorithm, 0, 1);
        let mut picked =
            |view: &Timed| balancer.pick(view, &Tried::default(), Some(9)).map(TargetIndex::index);
        assert!((0..50).all(|_| picked(&view) != Some(1)));
        view.down = vec![0, 2];
        assert!((0..50).all(|_| picked(&view) == Some(1)));
    }
}
