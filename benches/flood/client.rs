//! Honest clients, and the origin they end up at.
//!
//! Owns the tally: what was served, how long it took, what was not. A request that takes longer than [`PATIENCE`] is a
//! failure, as it would be to a person.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};

use crate::lab;

/// From the first SYN to the last byte of the answer. Three tries of a SYN, after one and three seconds, fit.
const PATIENCE: Duration = Duration::from_secs(4);
/// Between two requests of one address: 25 a second.
const PAUSE: Duration = Duration::from_millis(40);
/// Octets of the large answer.
const LARGE: usize = 1_000_000;
/// It is sent in such pieces, which no connection has a copy of: a thousand of them are not to cost the machine anything.
static PIECE: [u8; 20_000] = [b'x'; 20_000];

/// What became of the requests.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    pub seconds: f64,
    pub served: u64,
    pub failed: u64,
    /// Of those served, in microseconds, rising.
    latencies_us: Vec<u64>,
}

impl Tally {
    pub fn per_second(&self) -> f64 {
        self.served as f64 / self.seconds
    }

    /// In milliseconds. Requests that failed took longer than any other.
    pub fn percentile(&self, percent: u64) -> f64 {
        let wanted = (self.served + self.failed) * percent / 100;
        let last = PATIENCE.as_micros() as u64;
        self.latencies_us.get(wanted as usize).copied().unwrap_or(last) as f64 / 1e3
    }

    pub fn to_json(&self) -> Value {
        json!({
            "seconds": self.seconds, "served": self.served, "failed": self.failed, "latencies_us": self.latencies_us,
        })
    }

    pub fn from_json(text: &[u8]) -> Result<Tally> {
        let value: Value = serde_json::from_slice(text).context("the client's tally")?;
        let number = |key: &str| value[key].as_u64().unwrap_or(0);
        let list = value["latencies_us"].as_array().cloned().unwrap_or_default();
        Ok(Tally {
            seconds: value["seconds"].as_f64().unwrap_or(1.0),
            served: number("served"),
            failed: number("failed"),
            latencies_us: list.iter().filter_map(Value::as_u64).collect(),
        })
    }

    /// The tally in few words.
    pub fn summary(&self) -> String {
        let (half, most) = (self.percentile(50), self.percentile(99));
        format!(
            "{:.0}/s served, {} failed, half within {half:.2} ms, 99 % within {most:.2} ms",
            self.per_second(),
            self.failed
        )
    }
}

/// One thread for each honest address, for `seconds`; 0 is one request each.
pub fn honest(seconds: u64) -> Result<Tally> {
    let begun = Instant::now();
    let end = begun + Duration::from_secs(seconds);
    let tallies: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> =
            (0..lab::HONEST).map(|number| scope.spawn(move || one_address(number, end))).collect();
        threads.into_iter().filter_map(|thread| thread.join().ok()).collect()
    });
    let mut sum = Tally { seconds: begun.elapsed().as_secs_f64(), ..Tally::default() };
    for tally in tallies {
        sum.served += tally.served;
        sum.failed += tally.failed;
        sum.latencies_us.extend(tally.latencies_us);
    }
    sum.latencies_us.sort_unstable();
    Ok(sum)
}

fn one_address(number: u8, end: Instant) -> Tally {
    let mut tally = Tally::default();
    let source = SocketAddr::new(lab::honest_address(number).into(), 0);
    // Not all at once.
    std::thread::sleep(PAUSE * u32::from(number) / u32::from(lab::HONEST));
    loop {
        let begun = Instant::now();
        match request(source) {
            Ok(()) => {
                tally.served += 1;
                tally.latencies_us.push(begun.elapsed().as_micros() as u64);
            }
            Err(_) => tally.failed += 1,
        }
        let now = Instant::now();
        if now >= end {
            return tally;
        }
        std::thread::sleep((begun + PAUSE).saturating_duration_since(now));
    }
}

fn request(source: SocketAddr) -> Result<()> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&source.into())?;
    socket.connect_timeout(&lab::gate().into(), PATIENCE)?;
    let mut stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: flood.test\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    anyhow::ensure!(answer.starts_with(b"HTTP/1.1 200"), "another answer");
    Ok(())
}

/// Answers every request on every connection with the same few bytes, when it has all of it.
pub fn origin(address: SocketAddr) -> Result<()> {
    for stream in TcpListener::bind(address)?.incoming().flatten() {
        std::thread::spawn(move || answer(stream));
    }
    Ok(())
}

fn answer(mut stream: TcpStream) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut unread: Vec<u8> = Vec::new();
    let mut some = [0; 4096];
    loop {
        let n = stream.read(&mut some)?;
        if n == 0 {
            return Ok(());
        }
        unread.extend(&some[..n]);
        while let Some(end) = unread.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&unread[..end]).to_ascii_lowercase();
            unread.drain(..end + 4);
            let length =
                head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
            let mut missing: usize = length.unwrap_or(0);
            while missing > unread.len() {
                missing -= unread.len();
                let n = stream.read(&mut some)?;
                if n == 0 {
                    return Ok(());
                }
                unread.clear();
                unread.extend(&some[..n]);
            }
            unread.drain(..missing);
            if head.starts_with("get /large ") {
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")?;
                for _ in 0..LARGE / PIECE.len() {
                    stream.write_all(&PIECE)?;
                }
            } else {
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")?;
            }
        }
    }
}
