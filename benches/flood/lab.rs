//! Two namespaces, the gateway in one of them, and the flood out of the other.
//!
//! Owns every process and namespace that it makes; all go with it. Never touches another.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;

use crate::abuse::{Attack, Made, Seen};
use crate::client::Tally;

/// Honest addresses.
pub const HONEST: u8 = 16;
/// Addresses of [`crate::abuse`].
const ABUSING: u8 = 16;
/// Flooding addresses.
pub const ATTACKERS: u8 = 64;
/// New connections a second and source, with a burst of as many. Four times what an honest address opens.
pub const LIMIT: u32 = 100;

/// The kernel's USER_HZ.
const TICKS: f64 = 100.0;

/// Where the gateway listens.
pub const GATE: &str = "10.88.0.2:8080";
const ORIGIN: &str = "127.0.0.1:9090";
const CLIENT_MAC: &str = "02:00:00:00:88:01";
const SERVER_MAC: &str = "02:00:00:00:88:02";

/// What stands in front of the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guard {
    /// The gateway's kernel part.
    Kernel,
    /// Nothing.
    None,
    /// nftables, with a meter by source.
    Meter,
}

impl Guard {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Kernel => "kernel",
            Self::None => "none",
            Self::Meter => "nftables",
        }
    }

    pub fn title(self) -> &'static str {
        match self {
            Self::Kernel => "Portcullis, kernel part on",
            Self::None => "Portcullis, kernel part off",
            Self::Meter => "kernel part off, nftables meter",
        }
    }
}

/// The namespaces.
pub struct Lab {
    client: String,
    server: String,
    work: PathBuf,
    portcullis: PathBuf,
    _origin: Running,
}

/// A process that ends with the value, and whatever it has started: trafgen floods from children of its own.
pub struct Running {
    child: Child,
    /// Run afterwards, whatever came of it.
    cleanup: Vec<Command>,
}

impl Drop for Running {
    fn drop(&mut self) {
        let group = format!("-{}", self.child.id());
        let kill = |signal: &str| {
            let _ = Command::new("kill").args([signal, "--", &group]).stderr(Stdio::null()).status();
        };
        kill("-TERM");
        let start = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) && start.elapsed() < Duration::from_secs(8) {
            std::thread::sleep(Duration::from_millis(10));
        }
        kill("-KILL");
        let _ = self.child.wait();
        for command in &mut self.cleanup {
            let _ = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
        }
    }
}

impl Running {
    /// Processor seconds so far, user and kernel.
    fn cpu(&self) -> Result<f64> {
        let path = format!("/proc/{}/stat", self.child.id());
        let stat = std::fs::read_to_string(&path).with_context(|| path.clone())?;
        // The name may hold spaces; user and kernel ticks are the 12th and 13th field behind it (proc_pid_stat(5)).
        let fields = stat.rsplit(')').next().unwrap_or_default().split_ascii_whitespace().skip(11).take(2);
        let ticks: f64 = fields.filter_map(|field| field.parse::<f64>().ok()).sum();
        Ok(ticks / TICKS)
    }
}

impl Lab {
    pub fn new(work: &Path, portcullis: &Path) -> Result<Lab> {
        let id = std::process::id();
        let (client, server) = (format!("pc-flood-c{id}"), format!("pc-flood-s{id}"));
        let made = Names { client: client.clone(), server: server.clone() };
        for name in [&client, &server] {
            ip(&["netns", "add", name])?;
        }
        ip(&[
            "-n", &client, "link", "add", "dev", "ve0", "address", CLIENT_MAC, "type", "veth", "peer",
            "name", "ve0", "netns", &server, "address", SERVER_MAC,
        ])?;
        ip(&["-n", &client, "addr", "add", "10.88.0.1/16", "dev", "ve0"])?;
        ip(&["-n", &server, "addr", "add", "10.88.0.2/16", "dev", "ve0"])?;
        for honest in 0..HONEST {
            ip(&["-n", &client, "addr", "add", &format!("{}/16", honest_address(honest)), "dev", "ve0"])?;
        }
        for number in 0..ABUSING {
            ip(&["-n", &client, "addr", "add", &format!("{}/16", attacking_address(number)), "dev", "ve0"])?;
        }
        for name in [&client, &server] {
            ip(&["-n", name, "link", "set", "dev", "ve0", "up"])?;
            ip(&["-n", name, "link", "set", "dev", "lo", "up"])?;
        }
        // Answers to the flood go to the client's side, which throws them away: no ARP, no reset.
        ip(&["-n", &server, "route", "add", "10.99.0.0/16", "via", "10.88.0.1"])?;
        ip(&["-n", &client, "route", "add", "blackhole", "10.99.0.0/16"])?;
        let mut origin = inside(&server, &std::env::current_exe()?);
        origin.args(["origin", ORIGIN]);
        let origin = start(&mut origin, &work.join("origin.log"))?;
        std::mem::forget(made);
        Ok(Lab { client, server, work: work.into(), portcullis: portcullis.into(), _origin: origin })
    }

    /// A gateway behind `guard`, ready to serve.
    pub fn gateway(&self, guard: Guard) -> Result<Running> {
        let pins = format!("/sys/fs/bpf/portcullis-flood-{}", std::process::id());
        let xdp = match guard {
            // Generic: a queue of veth for native programs holds 256 packets and loses honest ones with the flood's
            // before a program has seen either; this way packets wait where they do for the other guards.
            Guard::Kernel => format!(
                "xdp: {{mode: generic, interfaces: [ve0], enforcement: enforce, required: true, pin_path: {pins}, \
                 limits: {{connections: {{rate: {LIMIT}/s, burst: {LIMIT}}}}}, costs: {{unauthorized: 5}}}}\n"
            ),
            _ => String::new(),
        };
        let admin = self.work.join("admin.sock");
        let text = format!(
            "_format_version: \"3.0\"\nlisteners: [{{name: plain, address: '{GATE}', h2c: true}}]\n\
             admin: {{socket: {admin}}}\ntelemetry: {{access_log: 'off'}}\ntimeouts: {{drain_delay: 0s, drain: 2s}}\n\
             services: [{{name: web, url: 'http://{ORIGIN}', routes: [{{name: all, paths: [/], strip_path: false}}, {{name: \
             private, paths: [/private], plugins: [{{name: key-auth}}]}}]}}]\n{xdp}",
            admin = admin.display()
        );
        let config = self.work.join(format!("{}.yaml", guard.as_str()));
        std::fs::write(&config, text)?;
        // `ip netns exec` would mount another /sys, in which pins are not to be seen.
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.server)).arg(&self.portcullis);
        command.args(["run", "--config"]).arg(&config);
        let mut running = start(&mut command, &self.work.join(format!("{}.log", guard.as_str())))?;
        match guard {
            Guard::None => {}
            Guard::Kernel => {
                let mut detach = Command::new("nsenter");
                detach.arg(format!("--net=/run/netns/{}", self.server)).arg(&self.portcullis);
                detach.args(["xdp", "detach", "--forget", "--pins", &pins]);
                let mut remove = Command::new("rm");
                remove.args(["-rf", &pins]);
                running.cleanup.extend([detach, remove]);
            }
            Guard::Meter => {
                self.meter()?;
                let mut flush = inside(&self.server, Path::new("nft"));
                flush.args(["delete", "table", "ip", "flood"]);
                running.cleanup.push(flush);
            }
        }
        self.await_ready(&mut running)?;
        Ok(running)
    }

    /// The same limit as a dynamic set of nftables, as early as its hooks allow.
    fn meter(&self) -> Result<()> {
        let rules = format!(
            "table ip flood {{\n set sources {{ type ipv4_addr; size 65536; flags dynamic,timeout; timeout 1m; }}\n \
             chain early {{ type filter hook prerouting priority raw; policy accept;\n \
             tcp dport 8080 tcp flags & (syn|ack) == syn update @sources {{ ip saddr limit rate over {LIMIT}/second burst \
             {LIMIT} packets }} drop\n }}\n}}\n"
        );
        let path = self.work.join("meter.nft");
        std::fs::write(&path, rules)?;
        let status = inside(&self.server, Path::new("nft")).arg("-f").arg(&path).status()?;
        ensure!(status.success(), "nft refuses its rules");
        Ok(())
    }

    fn await_ready(&self, running: &mut Running) -> Result<()> {
        let start = Instant::now();
        loop {
            if self.honest(0).is_ok_and(|tally| tally.served > 0) {
                return Ok(());
            }
            if let Some(status) = running.child.try_wait()? {
                bail!("the gateway ended with {status}; its log is in {}", self.work.display());
            }
            ensure!(start.elapsed() < Duration::from_secs(20), "the gateway does not serve");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Honest clients for `seconds` under a flood of `rate` packets a second.
    pub fn measure(&self, rate: u64, seconds: u64) -> Result<Tally> {
        let _flood = if rate == 0 { None } else { Some(self.flood(rate)?) };
        // The burst of each flooding source is spent by then, and trafgen at its rate.
        std::thread::sleep(Duration::from_millis(1500));
        self.honest(seconds)
    }

    /// Honest clients for `seconds` beside an attack on `gateway`.
    pub fn abuse(&self, gateway: &Running, attack: Attack, seconds: u64) -> Result<Seen> {
        let name = attack.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
        let mut command = inside(&self.client, &std::env::current_exe()?);
        // It begins before the honest clients, and ends after them.
        command
            .args(["attack", &name, &(seconds + 2).to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        let attacker = command.spawn().context("the attacker")?;
        std::thread::sleep(Duration::from_secs(1));
        let (before, begun) = (gateway.cpu()?, Instant::now());
        let honest = self.honest(seconds)?;
        let cores = (gateway.cpu()? - before) / begun.elapsed().as_secs_f64();
        let output = attacker.wait_with_output()?;
        Ok(Seen { honest, made: Made::from_json(&output.stdout)?, cores })
    }

    /// What the gateway and the kernel have refused so far, by reason.
    pub fn refusals(&self) -> Result<String> {
        let mut admin = UnixStream::connect(self.work.join("admin.sock"))?;
        admin.write_all(b"GET /metrics HTTP/1.1\r\nHost: admin\r\nConnection: close\r\n\r\n")?;
        let mut text = String::new();
        admin.read_to_string(&mut text)?;
        let wanted = ["portcullis_refusals_total{", "portcullis_xdp_packets_total{"];
        let lines = text.lines().filter(|line| {
            wanted.iter().any(|name| line.starts_with(name))
                && !line.ends_with(" 0")
                && !line.contains("\"pass\"")
        });
        Ok(lines.map(|line| line.trim_start_matches("portcullis_")).collect::<Vec<_>>().join(", "))
    }

    fn honest(&self, seconds: u64) -> Result<Tally> {
        let mut command = inside(&self.client, &std::env::current_exe()?);
        let output = command.args(["client", &seconds.to_string()]).output()?;
        ensure!(output.status.success(), "the client failed: {}", String::from_utf8_lossy(&output.stderr));
        Tally::from_json(&output.stdout)
    }

    fn flood(&self, rate: u64) -> Result<Running> {
        let packet = |source: u8| {
            format!(
                "{{ eth(sa={CLIENT_MAC}, da={SERVER_MAC}, type=0x0800), ipv4(sa=10.99.0.{source}, da=10.88.0.2, ttl=64), \
                 tcp(sp=drnd(1024, 65535), dp=8080, seq=drnd(), win=64240, syn) }}\n"
            )
        };
        let path = self.work.join("flood.cfg");
        std::fs::write(&path, (1..=ATTACKERS).map(packet).collect::<String>())?;
        let mut command = inside(&self.client, Path::new("trafgen"));
        command.args(["--dev", "ve0", "--cpus", "1", "--rate", &format!("{rate}pps"), "--conf"]).arg(&path);
        start(&mut command, &self.work.join("trafgen.log"))
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        drop(Names { client: self.client.clone(), server: self.server.clone() });
    }
}

/// Removes the namespaces, also when the lab is only half made.
struct Names {
    client: String,
    server: String,
}

impl Drop for Names {
    fn drop(&mut self) {
        for name in [&self.client, &self.server] {
            let _ = Command::new("ip").args(["netns", "del", name]).stderr(Stdio::null()).status();
        }
    }
}

/// The address of an honest client.
pub fn honest_address(number: u8) -> std::net::Ipv4Addr {
    std::net::Ipv4Addr::new(10, 88, 1, number + 1)
}

/// The address of an attacker.
pub fn attacking_address(number: u8) -> std::net::Ipv4Addr {
    std::net::Ipv4Addr::new(10, 88, 2, number + 1)
}

/// The gateway's address.
pub fn gate() -> SocketAddr {
    GATE.parse().unwrap_or_else(|_| unreachable!("a constant address"))
}

fn inside(namespace: &str, program: &Path) -> Command {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", namespace]).arg(program);
    command
}

fn ip(arguments: &[&str]) -> Result<()> {
    let output = Command::new("ip").args(arguments).output().context("ip(8)")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "ip {}: {said}", arguments.join(" "));
    Ok(())
}

fn start(command: &mut Command, log: &Path) -> Result<Running> {
    let log = File::create(log)?;
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    let child = command.process_group(0).spawn().with_context(|| format!("{:?}", command.get_program()))?;
    Ok(Running { child, cleanup: Vec::new() })
}
