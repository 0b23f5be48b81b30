//! A new process takes over from the old one, and no client notices.
//!
//! ```text
//! new  ── "portcullis-upgrade 1" ─────────►  old           over ADMIN_SOCKET.upgrade, mode 0600
//! new  ◄── what there is, the descriptors ─  old
//! new: starts, accepts on the same sockets as the old, replaces the admin socket
//! new  ── "serving" ──────────────────────►  old: accepts no more, finishes what is in flight, ends
//! ```
//!
//! The sockets are passed, not bound again: a connection in a queue belongs to a socket and not to a process, so none
//! is lost. If the new process fails before its last word, the old one goes on as if nothing had been. The kernel part
//! needs no word: its maps and links are pinned, and attaching switches the program in one step. The old process writes no
//! lists from its offer on, and nothing at all into the maps once the new one serves.
//!
//! Owns: that conversation, both ends. Never: a decision of the loop; the old end asks it ([`Ask`]). Invariant: at no
//! moment does nobody accept.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};

use super::Event;
use super::ledger::Given;
use super::socket::{self, SocketFile};
use crate::net::{receive_descriptors, send_descriptors};
use crate::tls::HandedKeys;

/// A step of the conversation, as a question to the control loop of the old process.
pub enum Ask {
    /// What there is to hand over; an error in words if this is no time for it.
    Offer(oneshot::Sender<Result<Handover, String>>),
    /// The new process serves: leave.
    Leave,
}

/// What is handed over.
#[derive(Debug, Default)]
pub struct Handover {
    pub listeners: Vec<(SocketAddr, Vec<TcpListener>)>,
    /// The admin interface's TCP port.
    pub admin: Option<TcpListener>,
    /// The orders of operators that are in force.
    pub bans: Vec<(String, Given)>,
    /// The random keys of session tickets.
    pub tickets: HandedKeys,
}

/// The same as it goes over the socket; the descriptors follow in this order, the admin port's last.
#[derive(Debug, Deserialize, Serialize)]
struct Offer {
    pid: u32,
    listeners: Vec<(SocketAddr, usize)>,
    admin: bool,
    bans: Vec<(String, Given)>,
    /// A process of an older version hands none over.
    #[serde(default)]
    tickets: HandedKeys,
}

/// Where the conversation is held.
pub fn path(admin_socket: &Path) -> PathBuf {
    let mut name = admin_socket.as_os_str().to_owned();
    name.push(".upgrade");
    name.into()
}

/// Listens for a successor on a thread of its own, which ends with the process.
pub fn listen(admin_socket: &Path, replace: bool, events: mpsc::Sender<Event>) -> io::Result<SocketFile> {
    let path = path(admin_socket);
    let (listener, file) = if replace { socket::replace(&path) } else { socket::bind(&path) }?;
    listener.set_nonblocking(false)?;
    std::thread::Builder::new().name("upgrade".into()).spawn(move || converse(&listener, &events))?;
    Ok(file)
}

fn converse(listener: &UnixListener, events: &mpsc::Sender<Event>) {
    for stream in listener.incoming().flatten() {
        match hand_over(stream, events) {
            Ok(()) => return,
            Err(cause) => tracing::warn!("a handover came to nothing, this process goes on: {cause:#}"),
        }
    }
}

/// The old end.
fn hand_over(mut stream: UnixStream, events: &mpsc::Sender<Event>) -> Result<()> {
    stream.set_read_timeout(Some(WORD_PATIENCE))?;
    stream.set_write_timeout(Some(WORD_PATIENCE))?;
    expect(&mut stream, HELLO).context("the first word")?;
    let (sender, answer) = oneshot::channel();
    events.blocking_send(Event::Upgrade(Ask::Offer(sender))).context("the control loop has ended")?;
    let handover = match answer.blocking_recv().context("the control loop has ended")? {
        Ok(handover) => handover,
        Err(why) => bail!(why),
    };
    let offer = Offer {
        pid: std::process::id(),
        listeners: handover.listeners.iter().map(|(address, sockets)| (*address, sockets.len())).collect(),
        admin: handover.admin.is_some(),
        bans: handover.bans,
        tickets: handover.tickets,
    };
    let text = serde_json::to_vec(&offer)?;
    stream.write_all(&u32::try_from(text.len())?.to_le_bytes())?;
    stream.write_all(&text)?;
    let sockets = handover.listeners.iter().flat_map(|(_, sockets)| sockets).chain(&handover.admin);
    let descriptors: Vec<_> = sockets.map(AsFd::as_fd).collect();
    send_descriptors(&stream, &descriptors).context("passing the sockets")?;
    stream.set_read_timeout(Some(START_PATIENCE))?;
    expect(&mut stream, SERVING).context("the new process did not come to serve")?;
    events.blocking_send(Event::Upgrade(Ask::Leave)).context("the control loop has ended")?;
    Ok(())
}

fn expect(stream: &mut UnixStream, word: &[u8]) -> Result<()> {
    let mut said = vec![0; word.len()];
    stream.read_exact(&mut said)?;
    if said != word {
        bail!("{:?} was said", String::from_utf8_lossy(&said));
    }
    Ok(())
}

/// The new process's hold of the old one, until the last word.
pub struct Predecessor {
    stream: UnixStream,
    pid: u32,
}

impl Predecessor {
    /// Takes over from the gateway behind `admin_socket`; `None` if nobody is there to take over from.
    ///
    /// # Errors
    /// Somebody is, and something else goes wrong.
    pub fn meet(admin_socket: &Path) -> Result<Option<(Self, Handover)>> {
        let path = path(admin_socket);
        let mut stream = match UnixStream::connect(&path) {
            Ok(stream) => stream,
            Err(cause)
                if matches!(cause.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) =>
            {
                return Ok(None);
            }
            Err(cause) => return Err(cause).with_context(|| path.display().to_string()),
        };
        stream.set_read_timeout(Some(WORD_PATIENCE))?;
        stream.write_all(HELLO)?;
        let mut length = [0; 4];
        stream.read_exact(&mut length).context("the gateway does not hand over; its log says why")?;
        let length = u32::from_le_bytes(length);
        if length > LONGEST_OFFER {
            bail!("an offer of {length} bytes is not one of ours");
        }
        let mut text = vec![0; length as usize];
        stream.read_exact(&mut text)?;
        let offer: Offer = serde_json::from_slice(&text).context("an offer of another shape")?;
        let count = offer.listeners.iter().map(|(_, count)| count).sum::<usize>() + usize::from(offer.admin);
        let received = receive_descriptors(&stream, count).context("taking the sockets")?;
        let mut received = received.into_iter().map(|one: OwnedFd| TcpListener::from(one));
        let mut listeners = Vec::new();
        for (address, count) in offer.listeners {
            listeners.push((address, received.by_ref().take(count).collect()));
        }
        let (bans, tickets) = (offer.bans, offer.tickets);
        let handover = Handover { listeners, admin: received.next(), bans, tickets };
        Ok(Some((Self { stream, pid: offer.pid }, handover)))
    }

    /// The last word: the old process leaves now.
    ///
    /// # Errors
    /// It is gone.
    pub fn dismiss(mut self) -> io::Result<()> {
        tracing::info!(predecessor = self.pid, "this process serves; its predecessor finishes what it has");
        self.stream.write_all(SERVING)
    }
}

const HELLO: &[u8] = b"portcullis-upgrade 1\n";
const SERVING: &[u8] = b"serving\n";
const LONGEST_OFFER: u32 = 16 * 1024 * 1024;
/// For words that need no thought.
const WORD_PATIENCE: Duration = Duration::from_secs(10);
/// For a start: names to resolve, a million prefixes to load.
const START_PATIENCE: Duration = Duration::from_secs(300);

#[cfg(test)]
mod tests {
    use super::*;

    /// An old process whose loop offers one listener.
    fn old(folder: &Path, refuse: bool) -> (SocketFile, SocketAddr, mpsc::Receiver<Event>) {
        let (events, mut asked) = mpsc::channel(8);
        let file = listen(&folder.join("admin.sock"), false, events).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (forward, left) = mpsc::channel(8);
        std::thread::spawn(move || {
            while let Some(event) = asked.blocking_recv() {
                match event {
                    Event::Upgrade(Ask::Offer(reply)) if refuse => drop(reply.send(Err("draining".into()))),
                    Event::Upgrade(Ask::Offer(reply)) => {
                        let listeners = vec![(address, vec![listener.try_clone().unwrap()])];
                        drop(reply.send(Ok(Handover { listeners, ..Handover::default() })));
                    }
                    other => drop(forward.blocking_send(other)),
                }
            }
        });
        (file, address, left)
    }

    #[test]
    fn sockets_change_hands_and_the_old_leaves_at_the_last_word() {
        let folder = tempfile::tempdir().unwrap();
        let admin = folder.path().join("admin.sock");
        assert!(Predecessor::meet(&admin).unwrap().is_none(), "nobody is there");
        let (_file, address, mut left) = old(folder.path(), false);
        // One that gives up changes nothing.
        drop(Predecessor::meet(&admin).unwrap().unwrap());
        let (predecessor, handover) = Predecessor::meet(&admin).unwrap().unwrap();
        assert_eq!(handover.listeners[0].0, address);
        let _client = std::net::TcpStream::connect(address).unwrap();
        handover.listeners[0].1[0].accept().unwrap();
        assert!(left.try_recv().is_err());
        predecessor.dismiss().unwrap();
        assert!(matches!(left.blocking_recv(), Some(Event::Upgrade(Ask::Leave))));
    }

    #[test]
    fn a_refusal_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let (_file, ..) = old(folder.path(), true);
        let Err(error) = Predecessor::meet(&folder.path().join("admin.sock")) else { panic!("handed over") };
        assert!(format!("{error:#}").contains("does not hand over"), "{error:#}");
    }
}
