//! The proxies that are compared: how each is configured for the jobs, and started.
//!
//! The three configurations say the same thing: one worker, keep-alive on both sides, a pool of upstream
//! connections, TLS 1.3 with one P-256 certificate and neither tickets nor a session cache, no access
//! log. They tell the origin the same of the client ([`TOLD_ORIGIN`]), and the client the same of the exchange
//! ([`TOLD_CLIENT`]). Invariant: `check` sees the same answers from all.

mod haproxy;
mod nginx;
pub mod portcullis;

use crate::certs::Files;
use crate::child::{Child, free_address};
use crate::scenario::Door;
use anyhow::{Context, Result};
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The core of every proxy.
pub const CORE: usize = 0;

/// Fields that every proxy adds to a request, unless the others are bare.
pub const TOLD_ORIGIN: [&str; 7] = [
    "X-Forwarded-For",
    "X-Forwarded-Proto",
    "X-Forwarded-Host",
    "X-Forwarded-Port",
    "X-Real-IP",
    "X-Request-Id",
    "Via",
];
/// And those to a response.
pub const TOLD_CLIENT: [&str; 3] = ["Date", "Via", "X-Request-Id"];

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Proxy {
    Portcullis,
    Nginx,
    Haproxy,
}

impl Proxy {
    pub const ALL: [Self; 3] = [Self::Portcullis, Self::Nginx, Self::Haproxy];

    pub fn name(self) -> &'static str {
        match self {
            Self::Portcullis => "portcullis",
            Self::Nginx => "nginx",
            Self::Haproxy => "haproxy",
        }
    }
}

/// What all configurations are made from.
pub struct Lab {
    /// Folder of configurations and logs.
    pub folder: PathBuf,
    pub files: Files,
    pub origin: SocketAddr,
    /// Whether the token job is measured: Portcullis routes all jobs by one table, and a route that nobody
    /// asks for would still be looked at.
    pub with_tokens: bool,
    /// The others add to messages what they add by themselves and X-Forwarded-For.
    pub bare: bool,
    /// The gateway's binary, where it takes part.
    pub portcullis: Option<PathBuf>,
}

/// Listeners of one proxy, one for each kind of job.
#[derive(Clone, Copy, Debug)]
pub struct Doors {
    pub plain: SocketAddr,
    pub tls: SocketAddr,
    pub http2: SocketAddr,
    pub tokens: SocketAddr,
}

impl Doors {
    pub fn get(&self, door: Door) -> SocketAddr {
        match door {
            Door::Plain => self.plain,
            Door::Tls => self.tls,
            Door::Http2 => self.http2,
            Door::Tokens => self.tokens,
        }
    }
}

/// A proxy that accepts connections.
pub struct Running {
    pub proxy: Proxy,
    pub doors: Doors,
    pub child: Child,
}

/// Configures and starts one proxy on its core.
pub fn start(proxy: Proxy, lab: &Lab) -> Result<Running> {
    let doors = Doors {
        plain: free_address()?,
        tls: free_address()?,
        http2: free_address()?,
        tokens: free_address()?,
    };
    let (text, file) = match proxy {
        Proxy::Portcullis => (portcullis::config(lab, &doors), "portcullis.yaml"),
        Proxy::Nginx => (nginx::config(lab, &doors), "nginx.conf"),
        Proxy::Haproxy => (haproxy::config(lab, &doors), "haproxy.cfg"),
    };
    let path = lab.folder.join(file);
    fs::write(&path, text)?;
    let command = match proxy {
        Proxy::Portcullis => portcullis::command(lab, &path)?,
        Proxy::Nginx => nginx::command(lab, &path),
        Proxy::Haproxy => haproxy::command(&path),
    };
    let mut child = Child::start(proxy.name(), CORE, &command, &lab.folder)?;
    let log = lab.folder.join(format!("{}.log", proxy.name()));
    child.wait_for(doors.plain).with_context(|| fs::read_to_string(&log).unwrap_or_default())?;
    Ok(Running { proxy, doors, child })
}

/// The version a proxy gives of itself, for the report.
pub fn version(proxy: Proxy, lab: &Lab) -> String {
    let (program, argument) = match proxy {
        Proxy::Portcullis => (lab.portcullis.clone().unwrap_or_default(), "--version"),
        Proxy::Nginx => ("nginx".into(), "-v"),
        Proxy::Haproxy => ("haproxy".into(), "-v"),
    };
    let Ok(output) = Command::new(program).arg(argument).output() else { return "unknown".into() };
    let text = [output.stdout, output.stderr].concat();
    let first = String::from_utf8_lossy(&text).lines().next().unwrap_or_default().to_owned();
    // HAProxy adds its home page.
    first.split(" - ").next().unwrap_or_default().trim().to_owned()
}

fn text_of(path: &Path) -> String {
    path.display().to_string()
}
