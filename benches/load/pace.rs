//! Requests at a steady rate, each with another API key, and how long every single one took.
//!
//! Each connection has a timetable: a request is due every so often, and its time counts from when it was due, so that
//! a gateway that stops for a while is charged for all requests that it kept waiting. Prints when standard input ends:
//! one line a request, with the Unix time at which it was due and its time, both in microseconds, or `failed`.

use anyhow::{Context, Result, bail};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Connections, and the requests of each in a second.
pub const CONNECTIONS: u64 = 8;
pub const RATE: u64 = 500;
/// Keys that the gateway has.
pub const KEYS: u64 = 1_000_000;
/// A request that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(5);

/// A request in microseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Answer {
    /// Since 1970.
    pub due: u64,
    /// Nothing where the request failed.
    pub took: Option<u64>,
}

/// The key of a number.
pub fn key(number: u64) -> String {
    format!("key-{number:016}")
}

/// Sends until standard input ends, then prints.
pub fn run(address: SocketAddr) -> Result<()> {
    let ended = Arc::new(AtomicBool::new(false));
    let threads: Vec<_> = (0..CONNECTIONS)
        .map(|number| {
            let ended = Arc::clone(&ended);
            thread::spawn(move || connection(address, number, &ended))
        })
        .collect();
    println!("paced");
    std::io::stdin().read_to_end(&mut Vec::new())?;
    ended.store(true, Ordering::Relaxed);
    let mut out = String::new();
    for thread in threads {
        for answer in thread.join().map_err(|_| anyhow::anyhow!("a connection's thread ended"))? {
            let took = answer.took.map_or_else(|| "failed".to_owned(), |took| took.to_string());
            out.push_str(&format!("{} {took}\n", answer.due));
        }
    }
    std::io::stdout().write_all(out.as_bytes())?;
    Ok(())
}

/// The lines of [`run`].
pub fn parse(text: &str) -> Vec<Answer> {
    let line = |line: &str| {
        let (due, took) = line.split_once(' ')?;
        Some(Answer { due: due.parse().ok()?, took: took.parse().ok() })
    };
    text.lines().filter_map(line).collect()
}

fn connection(address: SocketAddr, number: u64, ended: &AtomicBool) -> Vec<Answer> {
    let every = Duration::from_secs(1) / RATE as u32;
    let (start, unix) = (Instant::now(), SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default());
    // Connections take turns.
    let mut due = every * number as u32 / CONNECTIONS as u32;
    let mut answers = Vec::new();
    let mut stream = None;
    let mut asked = number;
    while !ended.load(Ordering::Relaxed) {
        thread::sleep(due.saturating_sub(start.elapsed()));
        // A step of a linear congruential generator; its high bits are its best.
        asked = asked.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let outcome = exchange(&mut stream, address, &key((asked >> 33) % KEYS));
        let took = start.elapsed().saturating_sub(due).as_micros() as u64;
        if outcome.is_err() {
            stream = None;
        }
        let due_unix = (unix + due).as_micros() as u64;
        answers.push(Answer { due: due_unix, took: outcome.is_ok().then_some(took) });
        due += every;
    }
    answers
}

fn exchange(stream: &mut Option<TcpStream>, address: SocketAddr, key: &str) -> Result<()> {
    if stream.is_none() {
        let fresh = TcpStream::connect_timeout(&address, PATIENCE)?;
        fresh.set_nodelay(true)?;
        fresh.set_read_timeout(Some(PATIENCE))?;
        *stream = Some(fresh);
    }
    let stream = stream.as_mut().context("connected")?;
    stream
        .write_all(format!("GET /small HTTP/1.1\r\nHost: keys.test\r\napikey: {key}\r\n\r\n").as_bytes())?;
    let (mut got, mut buffer) = (Vec::new(), [0; 2048]);
    loop {
        match stream.read(&mut buffer)? {
            0 => bail!("closed after {} bytes", got.len()),
            n => got.extend_from_slice(&buffer[..n]),
        }
        let Some(head) = got.windows(4).position(|w| w == b"\r\n\r\n") else { continue };
        if !got.starts_with(b"HTTP/1.1 200 ") {
            bail!("{}", String::from_utf8_lossy(&got[..head.min(60)]));
        }
        if got.len() >= head + 4 + crate::origin::SMALL {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read() {
        let found = parse("paced\n1000 250\n2000 failed\n");
        let expected = [Answer { due: 1000, took: Some(250) }, Answer { due: 2000, took: None }];
        assert_eq!(found, expected);
    }
}
