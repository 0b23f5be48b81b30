//! A gateway in one network namespace and its clients in another, so that real SYNs meet the real program: two client
//! addresses share the link.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use socket2::{Domain, Socket, Type};

use crate::client::{Connection, Request};
use crate::gateway::{Gateway, Setup, binary};
use crate::netns::{Lab, VETH};
use crate::origin::{Counting, Origin};

/// Where the gateway listens.
pub const GATE: &str = "10.77.0.2:8080";
/// One client.
pub const BAD: &str = "10.77.0.1";
/// The other.
pub const GOOD: &str = "10.77.0.9";
/// A SYN that is not answered by then was dropped; on a veth an answer takes microseconds.
pub const PATIENCE: Duration = Duration::from_millis(250);

/// A lab with a gateway's surroundings, and a folder for pins that goes with it.
pub struct Site {
    /// Both namespaces.
    pub lab: Lab,
    origin: Option<Origin>,
    pins: PathBuf,
}

impl Site {
    /// Namespaces and an origin; no gateway yet.
    #[allow(clippy::new_without_default, reason = "it makes namespaces")]
    pub fn new() -> Site {
        Self::with(|| Origin::start(Counting::named("origin")))
    }

    /// As [`Site::new`], with an origin of one's own.
    pub fn with(origin: impl FnOnce() -> Origin + Send) -> Site {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let lab = Lab::new().expect("two namespaces");
        lab.client_ip(&["addr", "add", &format!("{GOOD}/16"), "dev", VETH]).expect("a second address");
        let origin = lab.in_server(origin);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let pins = PathBuf::from(format!("/sys/fs/bpf/portcullis-loop-{}-{number}", std::process::id()));
        Site { lab, origin: Some(origin), pins }
    }

    /// A gateway whose `xdp` section also holds `more`. A source may open 5 connections a second and
    /// 10 at once, so one token is 200 ms of debt; debt is capped at 5 s.
    pub fn setup(&self, more: &str) -> Setup {
        self.setup_with("auto", "{rate: 5/s, burst: 10}", more)
    }

    /// As [`Site::setup`], with a mode and a limit of its own.
    pub fn setup_with(&self, mode: &str, connections: &str, more: &str) -> Setup {
        self.bare_setup(&format!(
            "xdp: {{mode: {mode}, interfaces: [{VETH}], pin_path: {pins}, table_entries: 1024, penalty_cap: 5s, \
             limits: {{connections: {connections}}}, {more}}}\n",
            pins = self.pins.display(),
        ))
    }

    /// A gateway without an `xdp` section, with the sections of `more`.
    pub fn bare_setup(&self, more: &str) -> Setup {
        let origin = self.origin.as_ref().expect("an origin").addr();
        Setup::new(format!(
            "services:\n  - name: web\n    url: http://{origin}\n    routes:\n      - {{name: all, paths: [/]}}\n      \
             - {{name: private, paths: [/private], plugins: [{{name: key-auth}}]}}\n\
             consumers:\n  - username: amelie\n    keyauth_credentials: [{{key: open-sesame}}]\n{more}",
        ))
        .inside(self.lab.server_namespace(), GATE.parse().expect("an address"))
    }

    /// A connection from one of the addresses.
    pub fn connect(&self, from: &str) -> io::Result<Connection> {
        Connection::over(self.stream(from, GATE)?)
    }

    /// A bare connection from one of the addresses to a listener of the gateway's.
    pub fn stream(&self, from: &str, to: &str) -> io::Result<TcpStream> {
        self.lab.in_client(|| {
            let source: SocketAddr = format!("{from}:0").parse().expect("an address");
            let target: SocketAddr = to.parse().expect("an address");
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
            socket.bind(&source.into())?;
            socket.connect_timeout(&target.into(), PATIENCE)?;
            Ok(TcpStream::from(socket))
        })
    }

    /// The status of a request on a new connection; `None` when none is answered.
    pub fn status(&self, from: &str, path: &str) -> Option<u16> {
        let mut connection = self.connect(from).ok()?;
        connection.try_send(&Request::get(path).bytes()).ok()?;
        connection.try_response(false).ok().map(|response| response.status)
    }

    /// Whether a new connection from `from` is answered; false: its SYN was dropped.
    pub fn admitted(&self, from: &str) -> bool {
        match self.connect(from) {
            Ok(mut connection) => Request::get("/").send_on(&mut connection).status == 200,
            Err(error) => {
                assert_eq!(error.kind(), io::ErrorKind::TimedOut, "dropped, not refused");
                false
            }
        }
    }

    /// Sends malformed requests from the bad source until its SYNs are dropped.
    #[track_caller]
    pub fn misbehave(&self) {
        for _ in 0..20 {
            let Ok(mut connection) = self.connect(BAD) else { return };
            connection.send("NO HTTP\r\n\r\n").response().expect(400);
        }
        panic!("20 malformed requests closed no door");
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        let detached = Command::new(binary()).args(["xdp", "detach", "--pins"]).arg(&self.pins).output();
        if !detached.as_ref().is_ok_and(|output| output.status.success()) {
            eprintln!("detaching: {detached:?}");
        }
        drop(std::fs::remove_dir_all(&self.pins));
        // The origin stops by a connection to itself, which has to come from its own namespace.
        let origin = self.origin.take();
        self.lab.in_server(|| drop(origin));
    }
}

/// Packets that the program counted under a reason.
pub fn packets(gateway: &Gateway, reason: &str) -> f64 {
    gateway.metrics().get("portcullis_xdp_packets_total", &[("reason", reason)])
}
