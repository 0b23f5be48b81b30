//! A name server for tests: answers from a table that the test edits, over UDP, with a lifetime of one second.
//!
//! Knows A and SRV records and nothing else: another type has an empty answer, another name does not exist (RFC 1035
//! section 4, RFC 2782).

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

const A: u16 = 1;
const SRV: u16 = 33;

/// What a name stands for.
#[derive(Clone, Debug)]
pub enum Records {
    A(Vec<Ipv4Addr>),
    /// Priority, weight, port, target.
    Srv(Vec<(u16, u16, u16, &'static str)>),
}

/// A running name server.
#[derive(Debug)]
pub struct NameServer {
    addr: SocketAddr,
    table: Arc<Mutex<BTreeMap<String, Records>>>,
    silent: Arc<AtomicBool>,
    stopping: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl NameServer {
    /// Starts one that knows nothing.
    ///
    /// # Panics
    /// When no port can be had.
    pub fn start() -> NameServer {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a port for a name server");
        socket.set_read_timeout(Some(Duration::from_millis(50))).expect("a time limit");
        let addr = socket.local_addr().expect("a bound address");
        let (table, silent, stopping) =
            <(Arc<Mutex<BTreeMap<_, _>>>, Arc<AtomicBool>, Arc<AtomicBool>)>::default();
        let thread = {
            let (table, silent, stopping) = (table.clone(), silent.clone(), stopping.clone());
            std::thread::spawn(move || {
                let mut question = [0; 512];
                while !stopping.load(Ordering::SeqCst) {
                    let Ok((len, from)) = socket.recv_from(&mut question) else { continue };
                    if silent.load(Ordering::SeqCst) {
                        continue;
                    }
                    if let Some(answer) = answer(&question[..len], &table.lock().expect("table")) {
                        // Whoever asked and left needs no answer.
                        let _ = socket.send_to(&answer, from);
                    }
                }
            })
        };
        NameServer { addr, table, silent, stopping, thread: Some(thread) }
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Has `name` stand for `records` from now on.
    pub fn set(&self, name: &str, records: Records) {
        self.table.lock().expect("table").insert(name.to_owned(), records);
    }

    /// Forgets a name: it does not exist from now on.
    pub fn forget(&self, name: &str) {
        self.table.lock().expect("table").remove(name);
    }

    /// Whether questions are left without an answer.
    pub fn be_silent(&self, silent: bool) {
        self.silent.store(silent, Ordering::SeqCst);
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn answer(question: &[u8], table: &BTreeMap<String, Records>) -> Option<Vec<u8>> {
    let (name, end) = read_name(question.get(12..)?)?;
    let asked = question.get(12..12 + end + 4)?;
    let kind = u16::from_be_bytes([asked[end], asked[end + 1]]);
    let known = table.get(&name);
    let data: Vec<Vec<u8>> = match (known, kind) {
        (Some(Records::A(addresses)), A) => addresses.iter().map(|a| a.octets().to_vec()).collect(),
        (Some(Records::Srv(places)), SRV) => places.iter().map(srv).collect(),
        _ => Vec::new(),
    };
    let mut out = question[..2].to_vec();
    // A response, recursion desired and available; NXDOMAIN where the name is unknown.
    out.extend([0x81, if known.is_some() { 0x80 } else { 0x83 }]);
    out.extend([0, 1, 0, data.len() as u8, 0, 0, 0, 0]);
    out.extend(asked);
    for data in data {
        // The name of the question, class IN, one second.
        out.extend([0xc0, 12]);
        out.extend(kind.to_be_bytes());
        out.extend([0, 1, 0, 0, 0, 1]);
        out.extend((data.len() as u16).to_be_bytes());
        out.extend(data);
    }
    Some(out)
}

fn srv(&(priority, weight, port, target): &(u16, u16, u16, &'static str)) -> Vec<u8> {
    let mut data = [priority, weight, port].map(u16::to_be_bytes).concat();
    for label in target.split('.') {
        data.push(label.len() as u8);
        data.extend(label.as_bytes());
    }
    data.push(0);
    data
}

/// The name at the start of `bytes`, lower case, and where it ends.
fn read_name(bytes: &[u8]) -> Option<(String, usize)> {
    let (mut labels, mut at) = (Vec::new(), 0);
    loop {
        let len = usize::from(*bytes.get(at)?);
        at += 1;
        if len == 0 {
            return Some((labels.join("."), at));
        }
        labels.push(String::from_utf8_lossy(bytes.get(at..at + len)?).to_ascii_lowercase());
        at += len;
    }
}
