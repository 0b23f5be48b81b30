//! Memory of idle keep-alive connections: resident bytes before and after 3000 of them.

use crate::proxies::{self, Lab, Proxy};
use crate::scenario::Scenario;
use crate::{account, child};
use anyhow::{Context, Result, bail};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

/// Connections held.
pub const CONNECTIONS: usize = 3000;
/// Time for buffers to be given back before memory is read.
const SETTLE: Duration = Duration::from_millis(1500);

/// Bytes per connection of a freshly started proxy. Each connection has carried one request.
pub fn measure(proxy: Proxy, lab: &Lab) -> Result<f64> {
    let mut running = proxies::start(proxy, lab)?;
    let address = running.doors.get(Scenario::Idle.door());
    // The first connections grow what is there once for all of them.
    drop(Held::start(address, 100)?);
    thread::sleep(SETTLE);
    let before = account::resident(running.child.pid());
    let held = Held::start(address, CONNECTIONS)?;
    thread::sleep(SETTLE);
    let after = account::resident(running.child.pid());
    running.child.alive()?;
    drop(held);
    Ok(after.saturating_sub(before) as f64 / CONNECTIONS as f64)
}

/// A process of its own, for its own limit of open files. It ends when its standard input does.
struct Held(std::process::Child);

impl Held {
    fn start(address: SocketAddr, connections: usize) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["hold", &address.to_string(), &connections.to_string()]);
        let mut pinned = child::pinned(crate::wrk::CORE, &command);
        let mut process = pinned.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let mut said = [0; 5];
        let mut output = process.stdout.take().context("piped")?;
        let held = Self(process);
        if output.read_exact(&mut said).is_err() || &said != b"held\n" {
            bail!("{connections} connections to {address} could not be opened");
        }
        Ok(held)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

/// Opens connections, one request on each, says `held`, and keeps them until standard input ends.
pub fn hold(address: SocketAddr, connections: usize) -> Result<()> {
    let mut held = Vec::with_capacity(connections);
    for _ in 0..connections {
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(5))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.write_all(b"GET /small HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
        let mut got = Vec::new();
        let mut buffer = [0; 4096];
        // The small body is all `s`, and no header ends so.
        while !got.ends_with(b"ssssssss") {
            match stream.read(&mut buffer)? {
                0 => bail!("closed after {} bytes", got.len()),
                n => got.extend_from_slice(&buffer[..n]),
            }
        }
        held.push(stream);
    }
    println!("held");
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}
