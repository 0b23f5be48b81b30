//! The kernel part as the control thread runs it: from the `xdp` section to a loaded program, or to none.
//!
//! Owns: what is asked of [`crate::kernel`], the table of sources (in BPF memory with a program, in ordinary
//! memory without), and the words for what was obtained. Never: a reason to stop serving; without the kernel
//! part the gateway is correct, only `xdp.required` makes its absence an error.
//!
//! Invariant: the program is attached only after its maps hold the whole configuration.

use std::net::IpAddr;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use ipnet::IpNet;
use portcullis_abi::{Protocol, Rate};
use portcullis_config::{Config, Enforcement, RateLimit, Xdp, XdpMode};

use super::interfaces::Network;
use super::status::KernelStatus;
use crate::kernel::{Attachment, Kernel, Limits, Listener, Lists, Mode, Settings};
use crate::limit::{Table, random_secret};
use crate::metrics::{Exposition, write_kernel_mode, write_kernel_packets};

/// The program, if there is one, and the table of sources.
pub struct KernelPart {
    kernel: Option<Kernel>,
    table: Arc<Table>,
    attachments: Option<Vec<Attachment>>,
    enforcement: Enforcement,
    required: bool,
    why: Option<String>,
    /// Prefixes that an operator has banned, dropped as if denied.
    banned: Vec<IpNet>,
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
            banned: Vec::new(),
        })
    }

    /// The table that shards and program charge.
    pub fn table(&self) -> &Arc<Table> {
        &self.table
    }

    /// Sets the prefixes that an operator has banned; the next [`KernelPart::sync`] puts them into the lists.
    pub fn set_banned(&mut self, banned: Vec<IpNet>) {
        self.banned = banned;
    }

    /// Brings the maps in line with a configuration that is in force. The first call attaches the program.
    ///
    /// `targets` are the addresses of all upstreams; like loopback and trusted proxies they are never dropped.
    ///
    /// # Errors
    /// The program is required and cannot be attached. Later failures are said and counted, not returned: the
    /// new configuration is in force already.
    pub fn sync(&mut self, config: &Config, targets: &[IpAddr], now_ns: u64) -> Result<()> {
        self.enforcement = config.xdp.enforcement;
        let Some(kernel) = &mut self.kernel else { return Ok(()) };
        kernel.set_limits(&limits(&config.xdp));
        kernel.heartbeat(now_ns);
        let mut wanted = lists(config, targets);
        wanted.deny.extend(&self.banned);
        let lists = kernel.sync_lists(&wanted);
        let synced = lists.and_then(|()| kernel.sync_listeners(&listeners(config)));
        match synced {
            Ok(()) => self.why = None,
            Err(cause) => {
                tracing::error!(%cause, "the kernel tables are not those of the configuration");
                self.why = Some(cause.to_string());
            }
        }
        if self.attachments.is_none() {
            self.attach()?;
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

    /// The sign of life, and the program's own log.
    pub fn beat(&mut self, now_ns: u64) {
        if let Some(kernel) = &mut self.kernel {
            kernel.heartbeat(now_ns);
            kernel.flush_logs();
        }
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
        KernelStatus {
            mode: if modes.is_empty() { "off".into() } else { modes.join("+") },
            enforcement: match self.enforcement {
                Enforcement::Shadow => "shadow".into(),
                Enforcement::Enforce => "enforce".into(),
            },
            interfaces: attached().map(|(attachment, _)| attachment.interface.clone()).collect(),
            why: self.why.clone(),
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
    let rate = |limit: &Option<RateLimit>| match limit {
        Some(limit) => Rate { interval_ns: limit.rate.interval_ns(), burst_ns: limit.burst_ns() },
        None => Rate::UNLIMITED,
    };
    Limits {
        packets: rate(&xdp.packets),
        connections: rate(&xdp.connections),
        shadow: xdp.enforcement == Enforcement::Shadow,
        dead_after_ns: u64::try_from(xdp.dead_after.as_nanos()).unwrap_or(u64::MAX),
    }
}

fn lists(config: &Config, targets: &[IpAddr]) -> Lists {
    let xdp = &config.xdp;
    let mut trusted = xdp.trusted.clone();
    trusted.extend(&config.trusted_proxies);
    trusted.extend(targets.iter().map(|target| IpNet::from(target.to_canonical())));
    trusted.extend(LOOPBACK.iter().filter_map(|text| text.parse::<IpNet>().ok()));
    Lists { trusted, allow: xdp.allow.clone(), deny: xdp.deny.clone() }
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

const LOOPBACK: [&str; 2] = ["127.0.0.0/8", "::1/128"];
