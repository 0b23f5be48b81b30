//! From a list of routes to the tables of a [`Router`].
//!
//! Owns compilation; reports every fault of every route, not the first only. Never answers a request. Invariant: the
//! entries end up sorted by [`Rank`], so that their numbers compare as their precedence does.

use std::collections::{BTreeMap, HashMap};

use super::conditions::{Conditions, MethodTable};
use super::expression::{Expression, Place};
use super::hosts::HostTable;
use super::leaves::{Leaf, MOST_LEAVES};
use super::lengths::Lengths;
use super::paths::{EntryId, Group, NodeId, PathTable, Placed, Stop};
use super::rank::{Pair, Rank};
use super::sets::{Asked, Sets, WORTHWHILE};
use super::{
    ASKS_MORE, Entry, Fault, MAX_PATH, NO_EXPRESSION, PathPattern, Route, RouteError, RouteSpec, Router,
    SERVES_HTTP, SERVES_HTTPS, Taken,
};

impl Router {
    /// Compiles routes. Errors: all faults of all routes, in the order of the list.
    pub fn compile(specs: Vec<RouteSpec>) -> Result<Router, Vec<RouteError>> {
        let mut methods = MethodTable::default();
        let mut expressions = Expressions::default();
        let mut errors = Vec::new();
        let mut routes = Vec::with_capacity(specs.len());
        for spec in specs {
            let mut faults = Vec::new();
            for path in &spec.paths {
                faults.extend(check_path(path, spec.wants_captures, &mut expressions).err());
            }
            let conditions = Conditions::compile(&spec, &mut methods, &mut faults);
            let blame = |fault| RouteError { route: spec.id, name: spec.name.clone(), fault };
            errors.extend(faults.into_iter().map(blame));
            routes.push(Route { spec, conditions });
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        Ok(assemble(routes, methods, expressions))
    }
}

/// Expressions by their source: many routes may share one.
#[derive(Default)]
struct Expressions {
    compiled: Vec<Expression>,
    by_source: HashMap<String, u32>,
}

impl Expressions {
    fn add(&mut self, source: &str, wants_captures: bool) -> Result<(), String> {
        let id = match self.by_source.get(source) {
            Some(&id) => id,
            None => {
                let id = self.compiled.len() as u32;
                self.compiled.push(Expression::compile(source, Place::Start)?);
                self.by_source.insert(source.to_owned(), id);
                id
            }
        };
        match wants_captures {
            true => self.compiled[id as usize].keep_groups(source, Place::Start),
            false => Ok(()),
        }
    }
}

fn check_path(path: &PathPattern, wants_captures: bool, expressions: &mut Expressions) -> Result<(), Fault> {
    match path {
        PathPattern::Prefix(prefix) if !prefix.starts_with('/') => {
            Err(Fault::PathNotAbsolute(prefix.clone()))
        }
        PathPattern::Prefix(prefix) if prefix.len() > MAX_PATH => Err(Fault::PathTooLong(prefix.len())),
        PathPattern::Prefix(_) => Ok(()),
        // No literal beginning is longer than its expression.
        PathPattern::Regex { source, .. } if source.len() > MAX_PATH => Err(Fault::PathTooLong(source.len())),
        PathPattern::Regex { source, .. } => expressions
            .add(source, wants_captures)
            .map_err(|why| Fault::Expression { pattern: source.clone(), why }),
    }
}

/// Ranks every pair of host and path and files it under its host group and its path.
fn assemble(routes: Vec<Route>, methods: MethodTable, expressions: Expressions) -> Router {
    let mut pairs: Vec<(Rank, Pair<'_>)> = Vec::new();
    for (index, route) in routes.iter().enumerate() {
        pairs.extend(route.spec.pairs(index).map(|pair| (Rank::of(&route.spec, pair), pair)));
    }
    pairs.sort_by(|a, b| a.0.cmp(&b.0));

    let mut hosts = HostTable::default();
    let mut groups: Vec<Vec<EntryId>> = vec![Vec::new()];
    let mut entries = Vec::with_capacity(pairs.len());
    for (id, (_, pair)) in (0..).zip(&pairs) {
        let fresh = groups.len() as u32;
        let group = pair.host.map_or(ANY_HOST, |host| hosts.group_or_insert(&host.name, fresh));
        if group == fresh {
            groups.push(Vec::new());
        }
        groups[group as usize].push(id);
        entries.push(entry(*pair, &routes, &expressions));
    }
    let mut router = Router {
        routes,
        entries,
        methods,
        hosts,
        any_host: Group::default(),
        leaves: Vec::new(),
        lengths: Vec::new(),
        paths: PathTable::default(),
        expressions: expressions.compiled,
        sets: Vec::new(),
    };
    router.file(groups);
    router.sets = router.build_sets();
    router
}

impl Router {
    /// Files the entries of each host group; the first is that of the routes without hosts.
    fn file(&mut self, groups: Vec<Vec<EntryId>>) {
        let filed: Vec<Group> = groups.iter().map(|group| self.file_group(group)).collect();
        self.any_host = filed[ANY_HOST as usize];
        let leaves = &self.leaves;
        self.hosts.map(|group| {
            let group = filed[group as usize];
            let has_leaves = (1..=MOST_LEAVES).contains(&usize::from(group.leaves));
            (group, has_leaves.then(|| leaves[group.start as usize].clone()))
        });
    }

    /// In leaves if they are few, else in a table of paths or in a trie. The entries come best first.
    fn file_group(&mut self, group: &[EntryId]) -> Group {
        let best = group.first().copied().unwrap_or(EntryId::MAX);
        let leaf = |&id: &EntryId| {
            let key = self.key_of(id);
            (key, Leaf::new(id, &self.entries[id as usize], key))
        };
        if group.len() <= MOST_LEAVES {
            let start = self.leaves.len() as u32;
            let leaves: Vec<Leaf> = group.iter().map(|id| leaf(id).1).collect();
            self.leaves.extend(leaves);
            return Group { start, best, leaves: group.len() as u8 };
        }
        if let Some(lengths) = Lengths::new(group.iter().map(leaf).collect()) {
            self.lengths.push(lengths);
            return Group { start: self.lengths.len() as u32 - 1, best, leaves: Group::LENGTHS };
        }
        let placed = group.iter().map(|&id| Placed {
            key: self.key_of(id).to_vec(),
            entry: id,
            expression: self.entries[id as usize].taken.expression().is_some(),
        });
        let placed = placed.collect();
        Group { start: self.paths.add(placed), best, leaves: Group::TRIE }
    }

    fn build_sets(&self) -> Vec<(NodeId, Sets)> {
        let crowded = self.paths.stops().filter(|stop| stop.expressions.len() >= WORTHWHILE);
        let build = |stop: Stop<'_>| {
            let mut asked: BTreeMap<u32, Asked<'_>> = BTreeMap::new();
            for &id in stop.expressions {
                let entry = &self.entries[id as usize];
                let paths = &self.routes[entry.route as usize].spec.paths;
                if let Some(PathPattern::Regex { source, .. }) = paths.get(entry.path as usize) {
                    let heavy = self.expressions[entry.taken.expression as usize].is_heavy();
                    let fresh = || Asked { source, entries: Vec::new(), heavy };
                    asked.entry(entry.taken.expression).or_insert_with(fresh).entries.push(id);
                }
            }
            (stop.node, Sets::new(asked.into_values().collect()))
        };
        crowded.map(build).collect()
    }
}

fn entry(pair: Pair<'_>, routes: &[Route], expressions: &Expressions) -> Entry {
    let Route { spec, conditions } = &routes[pair.position.0];
    let expression = match pair.path {
        Some(PathPattern::Regex { source, .. }) => expressions.by_source.get(source).copied(),
        _ => None,
    };
    let flags = [
        (conditions.asks_more(), ASKS_MORE),
        (spec.protocols.http, SERVES_HTTP),
        (spec.protocols.https, SERVES_HTTPS),
    ];
    Entry {
        methods: conditions.methods,
        taken: Taken {
            id: spec.id,
            expression: expression.unwrap_or(NO_EXPRESSION),
            port: pair.host.and_then(|host| host.port).unwrap_or(0),
            flags: flags.iter().fold(0, |flags, (set, flag)| if *set { flags | flag } else { flags }),
        },
        route: pair.position.0 as u32,
        host: pair.position.1 as u32,
        path: pair.position.2 as u32,
    }
}

/// The group of the routes that list no host, always the first.
const ANY_HOST: u32 = 0;
