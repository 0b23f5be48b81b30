//! Which plugin instance applies to a request, and in which order.
//!
//! Of the instances of one plugin, the most specific scope applies, by Kong's precedence:
//!
//! | consumer | route | service | rank |
//! |---|---|---|---|
//! | yes | yes | yes | 8 |
//! | yes | yes |     | 7 |
//! | yes |     | yes | 6 |
//! |     | yes | yes | 5 |
//! | yes |     |     | 4 |
//! |     | yes |     | 3 |
//! |     |     | yes | 2 |
//! |     |     |     | 1 (global) |
//!
//! Plugins run by priority, higher first; equal priorities by name. Who the consumer is may be known only after the
//! authentication plugins ran, so the choice between a consumer's instance and the others is made when the plugin's
//! turn comes.

use crate::id::ConsumerId;

/// Index of a plugin instance in the snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PluginIndex(pub u32);

/// Where an instance applies. `None` means everywhere.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scope<R, S> {
    pub consumer: Option<ConsumerId>,
    pub route: Option<R>,
    pub service: Option<S>,
}

impl<R, S> Scope<R, S> {
    fn rank(&self) -> u8 {
        match (self.consumer.is_some(), self.route.is_some(), self.service.is_some()) {
            (true, true, true) => 8,
            (true, true, false) => 7,
            (true, false, true) => 6,
            (false, true, true) => 5,
            (true, false, false) => 4,
            (false, true, false) => 3,
            (false, false, true) => 2,
            (false, false, false) => 1,
        }
    }
}

/// One instance as the chain sees it.
#[derive(Clone, Debug)]
pub struct Candidate<R, S> {
    pub name: &'static str,
    pub priority: u32,
    pub scope: Scope<R, S>,
    pub index: PluginIndex,
}

/// The turn of one plugin.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Step {
    /// For requests whose consumer has no instance of its own.
    default: Option<PluginIndex>,
    /// Sorted by consumer.
    by_consumer: Vec<(ConsumerId, PluginIndex)>,
}

/// The plugins of one route in the order of execution.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chain {
    steps: Vec<Step>,
}

impl Chain {
    /// The chain of `route`, which belongs to `service`.
    pub fn compile<R: PartialEq, S: PartialEq>(
        candidates: &[Candidate<R, S>],
        route: &R,
        service: Option<&S>,
    ) -> Self {
        let mut applying: Vec<_> = candidates
            .iter()
            .filter(|c| c.scope.route.as_ref().is_none_or(|r| r == route))
            .filter(|c| c.scope.service.is_none() || c.scope.service.as_ref() == service)
            .collect();
        // Most specific first within a plugin; stable, so that of equals the first written wins.
        applying.sort_by_key(|c| (std::cmp::Reverse(c.priority), c.name, std::cmp::Reverse(c.scope.rank())));
        let mut steps = Vec::new();
        for plugin in applying.chunk_by(|a, b| a.name == b.name) {
            let mut step = Step::default();
            for instance in plugin {
                match instance.scope.consumer {
                    Some(consumer) => {
                        let has_one = step.by_consumer.iter().any(|(known, _)| *known == consumer);
                        // A route+service instance outranks one of the consumer alone.
                        if !has_one && step.default.is_none() {
                            step.by_consumer.push((consumer, instance.index));
                        }
                    }
                    None if step.default.is_none() => step.default = Some(instance.index),
                    None => {}
                }
            }
            step.by_consumer.sort_unstable();
            steps.push(step);
        }
        Self { steps }
    }

    /// Number of turns.
    pub fn len(&self) -> usize {
        self.steps.len()
    }

    /// Every instance that some consumer's request may meet.
    pub fn instances(&self) -> impl Iterator<Item = PluginIndex> {
        let of = |step: &Step| {
            let consumers: Vec<_> = step.by_consumer.iter().map(|(_, index)| *index).collect();
            step.default.into_iter().chain(consumers)
        };
        self.steps.iter().flat_map(of)
    }

    /// No plugin applies, whoever the consumer is.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// The instance of turn `step` for `consumer`.
    #[inline]
    pub fn at(&self, step: usize, consumer: Option<ConsumerId>) -> Option<PluginIndex> {
        let step = &self.steps[step];
        if let Some(consumer) = consumer
            && let Ok(i) = step.by_consumer.binary_search_by_key(&consumer, |(id, _)| *id)
        {
            return Some(step.by_consumer[i].1);
        }
        step.default
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALICE: ConsumerId = ConsumerId(1);
    const BOB: ConsumerId = ConsumerId(2);

    fn candidate(
        index: u32,
        name: &'static str,
        priority: u32,
        consumer: Option<ConsumerId>,
        route: Option<u8>,
        service: Option<u8>,
    ) -> Candidate<u8, u8> {
        Candidate { name, priority, scope: Scope { consumer, route, service }, index: PluginIndex(index) }
    }

    fn run(chain: &Chain, consumer: Option<ConsumerId>) -> Vec<u32> {
        (0..chain.len()).filter_map(|step| chain.at(step, consumer)).map(|i| i.0).collect()
    }

    #[test]
    fn the_most_specific_scope_wins_in_kongs_order() {
        // Every scope that applies to route 7 of service 3, least specific first.
        let scopes = [
            (None, None, None),
            (None, None, Some(3)),
            (None, Some(7), None),
            (Some(ALICE), None, None),
            (None, Some(7), Some(3)),
            (Some(ALICE), None, Some(3)),
            (Some(ALICE), Some(7), None),
            (Some(ALICE), Some(7), Some(3)),
        ];
        for most in 1..=scopes.len() {
            let candidates: Vec<_> = scopes[..most]
                .iter()
                .enumerate()
                .map(|(i, (c, r, s))| candidate(i as u32, "p", 1, *c, *r, *s))
                .collect();
            let chain = Chain::compile(&candidates, &7, Some(&3));
            assert_eq!(run(&chain, Some(ALICE)), [most as u32 - 1], "of the first {most} scopes");
        }
    }

    #[test]
    fn other_routes_services_and_consumers_are_left_out() {
        let candidates = [
            candidate(0, "a", 1, None, Some(8), None),
            candidate(1, "a", 1, None, None, Some(4)),
            candidate(2, "a", 1, Some(BOB), None, None),
        ];
        let chain = Chain::compile(&candidates, &7, Some(&3));
        assert_eq!(run(&chain, Some(ALICE)), [] as [u32; 0]);
        assert_eq!(run(&chain, None), [] as [u32; 0]);
        assert_eq!(run(&chain, Some(BOB)), [2]);
        let bare = Chain::compile(&candidates, &7, None);
        assert_eq!(run(&bare, None), [] as [u32; 0]);
    }

    #[test]
    fn plugins_run_by_priority_and_each_only_once() {
        let candidates = [
            candidate(0, "late", 10, None, None, None),
            candidate(1, "early", 1000, None, None, None),
            candidate(2, "late", 10, None, Some(7), None),
            candidate(3, "middle", 500, Some(BOB), None, None),
        ];
        let chain = Chain::compile(&candidates, &7, None);
        assert_eq!(run(&chain, None), [1, 2]);
        assert_eq!(run(&chain, Some(BOB)), [1, 3, 2]);
    }
}
