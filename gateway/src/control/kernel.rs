//! The kernel part as the control thread runs it: from the `xdp` section to a loaded program, or to none.
//!
//! Owns: what is asked of [`crate::kernel`], the table of sources (in BPF memory with a program, in ordinary
//! memory without), and the words for what was obtained. Never: a reason to stop serving; without the kernel
//! part the gateway is correct, only `xdp.required` makes its absence an error.
//!
//! Invariant: the program is attached only after its maps hold the whole configuration.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use ipnet::IpNet;
use portcullis_abi::{Protocol, Rate, Reason};
use portcullis_config::{Config, Enforcement, Refusal, Xdp, XdpMode};

use super::blast::BlastRadius;
use super::facts;
use super::interfaces::Network;
use super::status::{KernelStatus, RuleStatus};
use crate::kernel::{Attachment, Kernel, Limits, Listener, Lists, Mode, Promotion, Settings};
use crate::limit::{KNOWN_GOOD_NS, Table, random_secret};
use crate::metrics::{Exposition, write_kernel_facts, write_kernel_mode, write_kernel_packets};
use crate::net::clock;
use crate::snapshot::{self, Snapshot};

/// The program, if there is one, and the table of sources.
pub struct KernelPart {
    kernel: Option<Kernel>,
    table: Arc<Table>,
    attachments: Option<Vec<Attachment>>,
    enforcement: Enforcement,
    required: bool,
    why: Option<String>,
    blast: BlastRadius,
    /// Prefixes that an operator has banned, and until when.
    banned: Vec<(IpNet, u64)>,
    rules: Vec<RuleStatus>,
    /// Whether a successor has them: the maps are its own from then on.
    handed_over: bool,
}

impl KernelPart {
    /// Loads the program, taking over the pins of an earlier run; attaches nothing yet.
    ///
    /// # Errors
    /// The program is required and cannot be had, or there is no memory for the table.
    pub fn load(config: &Config) -> Result<Self> {
        let xdp = &config.xdp;
        let (kernel, why) = match settings(config) {
            Ok(None) => (None, None),
            Ok(Some(settings)) => match Kernel::load(&settings) {
                Ok(kernel) => (Some(kernel), None),
                Err(cause) => (None, Some(cause.to_string())),
            },
            Err(why) => (None, Some(why)),
        };
        if let (true, Some(why)) = (xdp.required, &why) {
            bail!("xdp.required is set, and the kernel part cannot be had: {why}");
        }
        let table = match &kernel {
            Some(kernel) => Table::mapped(kernel.table(), kernel.secret()),
            None => Table::new(xdp.table_entries as usize, random_secret()),
        };
        Ok(Self {
            kernel,
            table: Arc::new(table.context("the table of sources")?),
            attachments: None,
            enforcement: xdp.enforcement,
            required: xdp.required,
            why,
            blast: BlastRadius::default(),
            banned: Vec::new(),
            rules: Vec::new(),
            handed_over: false,
        })
    }

    /// The table that shards and program charge.
    pub fn table(&self) -> &Arc<Table> {
        &self.table
    }

    /// The loaded program, for questions.
    pub fn kernel(&self) -> Option<&Kernel> {
        self.kernel.as_ref()
    }

    /// The loaded program, to take samples from.
    pub fn kernel_mut(&mut self) -> Option<&mut Kernel> {
        self.kernel.as_mut()
    }

    /// Takes a listener that is gone out of the program's maps.
    pub fn steer_no_more(&mut self, address: SocketAddr) {
        if let Some(Err(cause)) = self.kernel.as_mut().map(|kernel| kernel.steer_no_more(address)) {
            tracing::warn!(%address, %cause, "the listener is gone, its entries for steering are not");
        }
    }

    /// Sets the prefixes that an operator has banned, each until a moment of CLOCK_MONOTONIC; the next [`KernelPart::sync`] puts them into the lists.
    pub fn set_banned(&mut self, banned: Vec<(IpNet, u64)>) {
        self.banned = banned;
    }

    /// Brings the maps in line with a configuration that is in force. The first call attaches the program.
    ///
    /// # Errors
    /// The program is required and cannot be attached. Later failures are said and counted, not returned: the
    /// new configuration is in force already.
    pub fn sync(&mut self, snapshot: &Snapshot, now_ns: u64) -> Result<()> {
        let config = &snapshot.config;
        self.enforcement = config.xdp.enforcement;
        self.blast.configure(config.xdp.blast_radius);
        self.rules = facts::rules(&config.xdp);
        let Some(kernel) = self.kernel.as_mut().filter(|_| !self.handed_over) else { return Ok(()) };
        kernel.set_limits(&limits(&config.xdp));
        kernel.heartbeat(now_ns);
        let with_bans = (!self.banned.is_empty())
            .then(|| Lists { banned: self.banned.clone(), ..snapshot.kernel_lists.clone() });
        let overruled = kernel.sync_lists(with_bans.as_ref().unwrap_or(&snapshot.kernel_lists));
        let synced = overruled.and_then(|overruled| {
            for case in overruled {
                let (refused, trusted) = (case.refused, case.trusted);
                tracing::warn!(%refused, %trusted, "not denied: it is within a trusted prefix");
            }
            kernel.sync_listeners(&listeners(config))
        });
        match synced {
            Ok(()) => self.why = None,
            Err(cause) if self.required && self.attachments.is_none() => {
                return Err(cause).context("xdp.required is set, and the kernel tables cannot be written");
            }
            Err(cause) => {
                tracing::error!(%cause, "the kernel tables are not those of the configuration");
                self.why = Some(cause.to_string());
            }
        }
        if self.attachments.is_none() {
            self.attach()?;
        }
        if let Some(kernel) = &self.kernel {
            // Loading and a million prefixes take their time: longer, perhaps, than a gateway may be silent.
            kernel.heartbeat(clock::now_ns());
        }
        Ok(())
    }

    fn attach(&mut self) -> Result<()> {
        let Some(kernel) = &mut self.kernel else { return Ok(()) };
        let attachments = match kernel.attach() {
            Ok(attachments) => attachments,
            Err(cause) if self.required => return Err(cause).context("xdp.required is set"),
            Err(cause) => {
                self.why = Some(cause.to_string());
                Vec::new()
            }
        };
        for attachment in &attachments {
            let interface = &attachment.interface;
            attachment.refused.iter().for_each(|refusal| tracing::warn!("{interface}: {refusal}"));
        }
        let without = attachments.iter().filter(|attachment| attachment.style.is_none());
        let without = without.map(|attachment| attachment.interface.as_str()).collect::<Vec<_>>();
        if !without.is_empty() {
            if self.required {
                bail!("xdp.required is set, and nothing could be attached to {}", without.join(", "));
            }
            self.why = Some(format!("nothing could be attached to {}", without.join(", ")));
        }
        self.attachments = Some(attachments);
        Ok(())
    }

    /// The sign of life, the program's own log, and a look at what limits cost the innocent.
    /// True: the lists are to be synced, as one of them, or a rule, is in shadow now.
    #[must_use]
    pub fn beat(&mut self, now_ns: u64) -> bool {
        let Some(kernel) = self.kernel.as_mut().filter(|_| !self.handed_over) else { return false };
        kernel.heartbeat(now_ns);
        kernel.flush_logs();
        self.blast.look(kernel, &self.table, now_ns)
    }

    /// Arms what was switched to shadow to spare known-good sources; the next [`KernelPart::sync`] puts lists and rules in
    /// force again.
    pub fn rearm(&mut self) {
        if let Some(kernel) = &mut self.kernel {
            kernel.rearm();
        }
    }

    /// Leaves the maps to a successor: nothing is written to them any more, nor is there a sign of life, which would hide
    /// that the successor gives none.
    pub fn hand_over(&mut self) {
        self.handed_over = true;
    }

    /// Packets by reason so far; empty without the program.
    pub fn packets(&self) -> Vec<u64> {
        let counters = self.kernel.as_ref().and_then(|kernel| kernel.counters().ok());
        counters.map(|counters| counters.to_vec()).unwrap_or_default()
    }

    /// What was obtained.
    pub fn status(&self) -> KernelStatus {
        let attached = || self.attachments.iter().flatten().filter_map(|a| Some((a, a.style?)));
        let mut modes = attached().map(|(_, style)| style.as_str()).collect::<Vec<_>>();
        modes.sort_unstable();
        modes.dedup();
        let seen = self.kernel.as_ref().map(|kernel| kernel.facts(clock::now_ns()));
        KernelStatus {
            mode: if modes.is_empty() { "off".into() } else { modes.join("+") },
            enforcement: match self.enforcement {
                Enforcement::Shadow => "shadow".into(),
                Enforcement::Enforce => "enforce".into(),
            },
            interfaces: attached().map(|(attachment, _)| attachment.interface.clone()).collect(),
            why: self.why.clone(),
            dead: seen.is_some_and(|seen| seen.dead),
            heartbeat_age_ms: seen.map_or(0, |seen| seen.heartbeat_age_ns / 1_000_000),
            rules: if modes.is_empty() { Vec::new() } else { self.rules.clone() },
            tripped: self.kernel.as_ref().map(Kernel::tripped_names).unwrap_or_default(),
            known_good: facts::known_good(&self.blast.counts()),
        }
    }

    /// Every reason that the program counts, and the mode of each interface.
    pub fn write_metrics(&self, out: &mut Exposition) {
        let Some(kernel) = &self.kernel else { return write_kernel_mode(out, [("none", "off")]) };
        let attachments = self.attachments.iter().flatten();
        let mode = |attachment: &'_ Attachment| attachment.style.map_or("off", |style| style.as_str());
        write_kernel_mode(out, attachments.map(|a| (a.interface.as_str(), mode(a))));
        match kernel.counters() {
            Ok(counters) => write_kernel_packets(out, &counters),
            Err(cause) => tracing::warn!(%cause, "the kernel's counters cannot be read"),
        }
        let facts = kernel.facts(clock::now_ns());
        write_kernel_facts(out, facts.resets_sent, facts.tripped, &self.blast.counts());
    }
}

/// `Ok(None)`: not wanted. `Err`: wanted, and there is no interface to have it on.
fn settings(config: &Config) -> Result<Option<Settings>, String> {
    let xdp = &config.xdp;
    let mode = match xdp.mode {
        XdpMode::Off => return Ok(None),
        XdpMode::Auto => Mode::Auto,
        XdpMode::Native => Mode::Native,
        XdpMode::Generic => Mode::Generic,
    };
    let interfaces = if xdp.interfaces.is_empty() {
        let addresses = config.listeners.iter().map(|listener| listener.address.ip()).collect::<Vec<_>>();
        Network::read().carrying(&addresses).map_err(|missing| {
            let missing = missing.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            format!("no interface is found for {missing}: name it in xdp.interfaces")
        })?
    } else {
        xdp.interfaces.clone()
    };
    if interfaces.is_empty() {
        return Err("every listener is on loopback, which is never dropped".into());
    }
    let sets = xdp.table_entries as usize / portcullis_abi::WAYS;
    Ok(Some(Settings { mode, interfaces, pin_root: xdp.pin_path.clone(), sets, ..Settings::default() }))
}

fn limits(xdp: &Xdp) -> Limits {
    let refusals = xdp.refusals;
    let by_reason = [
        (Reason::DropBanned, refusals.banned),
        (Reason::DropPacketRate, refusals.packets),
        (Reason::DropConnectionRate, refusals.connections),
        (Reason::DropAggregateRate, refusals.networks),
        (Reason::DropUnknownRate, refusals.unknown),
    ];
    // That of `denied` is with the prefixes: other lists have their own.
    let bits = |wanted: fn(Refusal) -> bool| {
        let chosen = by_reason.iter().filter(|(_, refusal)| wanted(*refusal));
        chosen.fold(0, |bits, (reason, _)| bits | reason.drop_bit())
    };
    let plain = |rate: portcullis_config::Rate| Rate {
        interval_ns: rate.interval_ns(),
        // What it gives in a second.
        burst_ns: rate.interval_ns().max(1_000_000_000),
    };
    let lasts_ns = u64::try_from(xdp.promotion.lasts.as_nanos()).unwrap_or(u64::MAX);
    Limits {
        packets: snapshot::rate(xdp.packets),
        connections: snapshot::rate(xdp.connections),
        v4_net: snapshot::rate(xdp.aggregates.v4_24),
        v6_net: snapshot::rate(xdp.aggregates.v6_48),
        unknown: snapshot::rate(xdp.aggregates.unknown),
        promotion: Promotion {
            factor: xdp.promotion.factor,
            above_ns: KNOWN_GOOD_NS.saturating_sub(lasts_ns),
        },
        shadow: xdp.enforcement == Enforcement::Shadow,
        shadow_reasons: bits(|refusal| matches!(refusal, Refusal::Shadow | Refusal::Pass)),
        reset_reasons: bits(|refusal| refusal == Refusal::Reset),
        resets: xdp.resets.map_or(Rate::UNLIMITED, plain),
        samples: xdp.samples.map_or(Rate::UNLIMITED, plain),
        dead_after_ns: match xdp.hold_when_dead {
            true => 0,
            false => u64::try_from(xdp.dead_after.as_nanos()).unwrap_or(u64::MAX),
        },
    }
}

fn listeners(config: &Config) -> Vec<Listener> {
    let listeners = config.listeners.iter();
    listeners
        .map(|listener| Listener {
            address: listener.address.ip(),
            port: listener.address.port(),
            protocol: Protocol::Tcp,
        })
        .collect()
}
