//! `bandwidth-limit`: how fast bodies of responses go to clients, for all exchanges of one key together.
//!
//! Owns the accounts and their keys. Never delays anything itself: the exchange does, by the throttle that is left in it.
//!
//! **Invariant.** See [`Throttle`]. What the gateway answers by itself passes at once.

use std::any::Any;
use std::rc::Rc;
use std::sync::Arc;

use portcullis_config::{self as config, Diagnostics, Fault, Key, Kind, Section};

use super::limiting::key::{self, COMPOUND, LIMIT_BY};
use super::limiting::{Exempt, LimitKey, settings};
use super::{CompileCx, Cx, Flow, Plugin, PluginSpec, Registration, Wants};
use crate::http::RequestHead;
use crate::limit::{LimiterId, Table, Throttle, random_secret};

/// The plugin's line of the registry: after the limits that refuse.
pub static REGISTRATION: Registration =
    Registration { name: "bandwidth-limit", priority: 905, section: &SECTION, compile };

static SECTION: Section =
    Section::new("bandwidth-limit", "Limits the bytes of response bodies that pass in a second.", KEYS);

/// Less would keep what is received at once, up to 1 MiB, waiting for longer than others are waited for.
const RATE_MIN: u64 = 64 * 1024;

const KEYS: &[Key] = &[
    Key::new("rate", Kind::Size { min: RATE_MIN, max: 1 << 40 }, "Bytes a second, as in `1MiB`.").required(),
    Key::new("burst", Kind::Size { min: 0, max: 1 << 40 }, "Bytes at once after a pause.").default("64KiB"),
    LIMIT_BY,
    COMPOUND,
    key::KEYS[0],
    key::KEYS[1],
    key::KEYS[2],
    key::KEYS[3],
    settings::EXEMPT,
];

/// Keys whose accounts are told apart: beyond them, those forget that owe least.
const ACCOUNTS: usize = 1 << 14;

fn compile(plugin: &config::Plugin, cx: &CompileCx<'_>, found: &Diagnostics) -> Option<Arc<dyn PluginSpec>> {
    let fields = plugin.fields(&SECTION, found);
    let table = match Table::new(ACCOUNTS, random_secret()) {
        Ok(table) => Arc::new(table),
        Err(error) => {
            fields.error("rate", Fault::new(error.to_string()));
            return None;
        }
    };
    Some(Arc::new(BandwidthLimit {
        id: LimiterId::from_number(cx.instance),
        rate: fields.optional_size("rate")?,
        burst: fields.size("burst"),
        key: LimitKey::read_by(&fields)?,
        exempt: settings::exempt(&fields, cx),
        table,
    }))
}

struct BandwidthLimit {
    id: LimiterId,
    rate: u64,
    burst: u64,
    key: LimitKey,
    exempt: Exempt,
    table: Arc<Table>,
}

impl PluginSpec for BandwidthLimit {
    /// The accounts of the generation before go on.
    fn instantiate(self: Arc<Self>, previous: Option<Rc<dyn Any>>) -> Rc<dyn Plugin> {
        let kept = previous.and_then(|state| state.downcast::<Arc<Table>>().ok());
        let table = kept.map_or_else(|| self.table.clone(), |kept| Arc::clone(&kept));
        Rc::new(OnShard { plugin: self, table })
    }

    fn wants(&self) -> Wants {
        Wants { claims: self.key.wants_claims(), ..Wants::default() }
    }
}

struct OnShard {
    plugin: Arc<BandwidthLimit>,
    table: Arc<Table>,
}

impl Plugin for OnShard {
    fn on_request(&self, cx: &mut Cx<'_>, head: &mut RequestHead) -> Flow {
        let plugin = &*self.plugin;
        if !plugin.exempt.includes(cx) {
            let (_, key) = plugin.key.place(plugin.id, cx, head);
            let throttle =
                Throttle { table: self.table.clone(), key, rate: plugin.rate, burst: plugin.burst };
            cx.throttle = Some(Rc::new(throttle));
        }
        Flow::Continue
    }

    fn state(&self) -> Option<Rc<dyn Any>> {
        Some(Rc::new(self.table.clone()))
    }
}

#[cfg(test)]
mod tests {
    use crate::plugin::fixture::{Fixture, request_with};

    #[test]
    fn each_key_has_a_throttle_and_the_exempt_have_none() {
        let fixture = Fixture::default();
        let settings = "{rate: 1MiB, burst: 8KiB, exempt: {ips: [198.51.100.0/24]}}";
        let plugin = fixture.accepted("bandwidth-limit", settings);
        let throttle = |client: &str| {
            let mut cx = fixture.cx_from(client);
            let _ = plugin.on_request(&mut cx, &mut request_with("/", &[]));
            cx.throttle.map(|throttle| (throttle.key, throttle.rate, throttle.burst))
        };
        let one = throttle("203.0.113.1").expect("a throttle");
        assert_eq!((one.1, one.2), (1 << 20, 8 << 10));
        assert_eq!(throttle("203.0.113.1"), Some(one));
        assert_ne!(throttle("203.0.113.2"), Some(one));
        assert_eq!(throttle("198.51.100.9"), None);
        assert!(fixture.refused("bandwidth-limit", "{rate: 1KiB}").contains("rate"));
    }
}
