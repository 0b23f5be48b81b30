//! The gateway under test: the real binary, its files, and the guard that ends it.
//!
//! [`Setup`] turns the part of a configuration that a test is about into a whole file; what every
//! test needs (listeners on reserved ports, admin socket, access log, two shards) is added here
//! and only here. [`Gateway`] runs the binary on it. It never talks to a process it did not start.
//! Invariant: a gateway outlives neither its guard nor the test process.

mod process;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use self::process::Process;
pub use self::process::{binary, target_dirs};
use crate::admin::{self, Metrics};
use crate::client::Response;
use crate::eventually::{PATIENCE, eventually, within};
use crate::ports::Reserved;

/// A configuration in the making.
#[derive(Debug, Clone, Default)]
pub struct Setup {
    body: String,
    sections: String,
    listeners: String,
    h2c: bool,
    shards: Option<usize>,
    steering: Option<String>,
    driver: Option<String>,
    tls: Option<String>,
    admin_address: Option<SocketAddr>,
    timeouts: Option<String>,
    place: Option<(SocketAddr, PathBuf)>,
    format_version: Option<&'static str>,
    trust: Option<PathBuf>,
}

impl Setup {
    /// A gateway for `body`: the top-level sections that this type does not write (`services`,
    /// `upstreams`, `plugins`, `limits`, …) in YAML.
    pub fn new(body: impl Into<String>) -> Setup {
        Setup { body: body.into(), ..Setup::default() }
    }

    /// One service on `origin` with one route for every path, and `below` under that route.
    ///
    /// `below` is YAML at the indentation of the route's keys (eight blanks).
    pub fn proxy(origin: SocketAddr, below: &str) -> Setup {
        Setup::new(format!(
            "services:\n  - name: web\n    url: http://{origin}\n    routes:\n      - name: all\n        \
             paths: [/]\n        strip_path: false\n{below}"
        ))
    }

    /// Adds further top-level sections.
    pub fn with(mut self, sections: &str) -> Setup {
        self.sections.push_str(sections);
        self.sections.push('\n');
        self
    }

    /// Sets the version of the declarative format; 3.0 unless called.
    pub fn format_version(mut self, version: &'static str) -> Setup {
        self.format_version = Some(version);
        self
    }

    /// Sets the number of shards; 2 unless called.
    pub fn shards(mut self, count: usize) -> Setup {
        self.shards = Some(count);
        self
    }

    /// Says how new connections find their shard; the gateway's own choice unless called.
    pub fn steering(mut self, steering: &str) -> Setup {
        self.steering = Some(steering.to_owned());
        self
    }

    /// Forces an I/O driver; unless called, `PORTCULLIS_TESTS_DRIVER` or the gateway's own choice.
    pub fn driver(mut self, driver: &str) -> Setup {
        self.driver = Some(driver.to_owned());
        self
    }

    /// Adds a TLS listener; `settings` is the content of its `tls:` map as a YAML flow map.
    pub fn tls(mut self, settings: &str) -> Setup {
        self.tls = Some(settings.to_owned());
        self
    }

    /// Lets clients of the plain listener speak HTTP/2 by prior knowledge.
    pub fn h2c(mut self) -> Setup {
        self.h2c = true;
        self
    }

    /// Adds a TCP address of the admin interface.
    pub fn admin_address(mut self, addr: SocketAddr) -> Setup {
        self.admin_address = Some(addr);
        self
    }

    /// Adds a further plain listener.
    pub fn listener(mut self, name: &str, addr: SocketAddr) -> Setup {
        self.listeners.push_str(&format!("  - name: {name}\n    address: '{addr}'\n"));
        self
    }

    /// Adds a further listener; `keys` are lines of YAML below its address, each with its line end.
    pub fn listener_with(mut self, name: &str, addr: SocketAddr, keys: &str) -> Setup {
        self = self.listener(name, addr);
        for line in keys.lines() {
            self.listeners.push_str(&format!("    {line}\n"));
        }
        self
    }

    /// Adds a further plain listener whose balancers speak the PROXY protocol.
    pub fn proxied_listener(mut self, name: &str, addr: SocketAddr) -> Setup {
        self = self.listener(name, addr);
        self.listeners.push_str("    proxy_protocol: true\n");
        self
    }

    /// Runs it in a network namespace, its plain listener at an address of that namespace.
    pub fn inside(mut self, namespace: PathBuf, addr: SocketAddr) -> Setup {
        self.place = Some((addr, namespace));
        self
    }

    /// Sets timeouts: the entries of a YAML flow map. Unless called, the drain delay is zero,
    /// because most tests that stop a gateway are not about it.
    pub fn timeouts(mut self, entries: &str) -> Setup {
        self.timeouts = Some(entries.to_owned());
        self
    }

    /// Makes the certificates in this file those that the machine trusts, and no others.
    pub fn trusting(mut self, authorities: &Path) -> Setup {
        self.trust = Some(authorities.to_owned());
        self
    }

    /// The whole file.
    fn text(&self, places: &Places) -> String {
        let driver = self.driver.clone().or_else(|| std::env::var("PORTCULLIS_TESTS_DRIVER").ok());
        let mut text = format!(
            "_format_version: \"{version}\"\ndefaults: portcullis\n\
             listeners:\n  - name: plain\n    address: {plain}\n{h2c}",
            version = self.format_version.unwrap_or("3.0"),
            plain = places.plain,
            h2c = if self.h2c { "    h2c: true\n" } else { "" },
        );
        if let Some(tls) = &self.tls {
            text.push_str(&format!(
                "  - name: secure\n    address: {}\n    tls: {tls}\n",
                places.secure.addr()
            ));
        }
        text.push_str(&self.listeners);
        text.push_str(&format!(
            "shards:\n  count: {count}\n  driver: {driver}\n  steering: {steering}\n\
             admin:\n  socket: {socket}\n{address}\
             telemetry:\n  access_log:\n    destination: {log}\n\
             timeouts: {{{timeouts}}}\n",
            count = self.shards.unwrap_or(2),
            driver = driver.as_deref().unwrap_or("auto"),
            steering = self.steering.as_deref().unwrap_or("auto"),
            socket = places.socket().display(),
            address = self.admin_address.map(|addr| format!("  address: {addr}\n")).unwrap_or_default(),
            log = places.access_log().display(),
            timeouts = self.timeouts.as_deref().unwrap_or("drain_delay: 0s"),
        ));
        text + &self.sections + &self.body + "\n"
    }
}

/// Where a gateway's sockets and files are; they stay the same over a restart.
#[derive(Debug)]
struct Places {
    dir: TempDir,
    plain: SocketAddr,
    _reserved: Reserved,
    secure: Reserved,
    namespace: Option<PathBuf>,
    trust: Option<PathBuf>,
}

impl Places {
    fn new(setup: &Setup) -> Places {
        let dir = tempfile::Builder::new().prefix("portcullis-").tempdir().expect("a temporary folder");
        let (reserved, secure) = (Reserved::new(), Reserved::new());
        let (plain, namespace) = match setup.place.clone() {
            Some((addr, namespace)) => (addr, Some(namespace)),
            None => (reserved.addr(), None),
        };
        Places { dir, plain, _reserved: reserved, secure, namespace, trust: setup.trust.clone() }
    }

    /// The command that runs the gateway here.
    fn command(&self) -> Command {
        let mut command = match &self.namespace {
            None => Command::new(binary()),
            Some(namespace) => {
                // `ip netns exec` would mount another /sys, in which pins are not to be seen.
                let mut nsenter = Command::new("nsenter");
                nsenter.arg(format!("--net={}", namespace.display())).arg(binary());
                nsenter
            }
        };
        if let Some(authorities) = &self.trust {
            command.env("SSL_CERT_FILE", authorities);
        }
        command.arg("run").arg("--config").arg(self.config());
        command
    }

    fn config(&self) -> PathBuf {
        self.dir.path().join("portcullis.yaml")
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("admin.sock")
    }

    fn access_log(&self) -> PathBuf {
        self.dir.path().join("access.log")
    }
}

/// A running gateway.
#[derive(Debug)]
pub struct Gateway {
    process: Process,
    places: Places,
}

impl Gateway {
    /// Starts a gateway and waits until it is ready.
    ///
    /// # Panics
    /// When it ends or is not ready in time, with what it wrote to standard error.
    #[track_caller]
    pub fn start(setup: &Setup) -> Gateway {
        let gateway = Self::spawn(setup);
        gateway.wait_ready();
        gateway
    }

    /// Starts a gateway and does not wait.
    ///
    /// # Panics
    /// When the binary cannot be started.
    #[track_caller]
    pub fn spawn(setup: &Setup) -> Gateway {
        let places = Places::new(setup);
        std::fs::write(places.config(), setup.text(&places)).expect("writing the configuration");
        Gateway { process: Process::start(&places.command(), places.dir.path()), places }
    }

    /// Waits for the admin interface to say ready.
    #[track_caller]
    pub fn wait_ready(&self) {
        within(Duration::from_secs(30), "readiness", || {
            if let Some(status) = self.process.ended() {
                panic!("the gateway ended ({status}):\n{}", self.stderr());
            }
            match self.try_admin("GET", "/status/ready") {
                Ok(response) if response.status == 200 => Ok(()),
                Ok(response) => Err(format!("{} {}", response.status, response.text())),
                Err(error) => Err(format!("{error}; standard error:\n{}", self.stderr())),
            }
        });
    }

    /// Address of the plain listener.
    pub fn addr(&self) -> SocketAddr {
        self.places.plain
    }

    /// Address of the TLS listener, when the setup has one.
    pub fn tls_addr(&self) -> SocketAddr {
        self.places.secure.addr()
    }

    /// `http://` and the plain address.
    pub fn url(&self) -> String {
        format!("http://{}", self.addr())
    }

    /// Folder of the configuration; a test may put more files there.
    pub fn dir(&self) -> &Path {
        self.places.dir.path()
    }

    /// The admin socket.
    pub fn socket(&self) -> PathBuf {
        self.places.socket()
    }

    /// The configuration file.
    pub fn config(&self) -> PathBuf {
        self.places.config()
    }

    /// One admin request.
    ///
    /// # Panics
    /// When the admin interface does not answer.
    #[track_caller]
    pub fn admin(&self, method: &str, target: &str) -> Response {
        self.try_admin(method, target).unwrap_or_else(|error| panic!("admin {target}: {error}"))
    }

    /// One admin request that may fail.
    ///
    /// # Errors
    /// Of the socket.
    pub fn try_admin(&self, method: &str, target: &str) -> std::io::Result<Response> {
        admin::request(&self.places.socket(), method, target, b"")
    }

    /// A scrape of all metrics.
    ///
    /// # Panics
    /// When the text is not well formed.
    #[track_caller]
    pub fn metrics(&self) -> Metrics {
        let text = self.admin("GET", "/metrics").expect(200).text();
        Metrics::parse(&text).unwrap_or_else(|error| panic!("{error}\n{text}"))
    }

    /// `/status` as JSON.
    #[track_caller]
    pub fn status(&self) -> Value {
        self.admin("GET", "/status").expect(200).json()
    }

    /// Every whole line of the access log so far.
    ///
    /// # Panics
    /// When a line is not a JSON object.
    #[track_caller]
    pub fn access_log(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.places.access_log()).unwrap_or_default();
        let whole = &text[..text.rfind('\n').map_or(0, |end| end + 1)];
        whole
            .lines()
            .map(|line| match serde_json::from_str(line) {
                Ok(value @ Value::Object(_)) => value,
                other => panic!("not a JSON object ({other:?}): {line}"),
            })
            .collect()
    }

    /// Waits for the access log line that `wanted` picks.
    #[track_caller]
    pub fn logged(&self, wanted: impl Fn(&Value) -> bool) -> Value {
        eventually("an access log line", || {
            let lines = self.access_log();
            let found = lines.iter().find(|line| wanted(line)).cloned();
            found.ok_or_else(|| format!("not among {} lines, last {:?}", lines.len(), lines.last()))
        })
    }

    /// Standard error so far.
    pub fn stderr(&self) -> String {
        self.process.stderr()
    }

    /// Process id.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Resident memory in bytes.
    ///
    /// # Panics
    /// When the process is gone.
    #[track_caller]
    pub fn resident(&self) -> u64 {
        self.process.resident()
    }

    /// Sends a signal by name, as `HUP`.
    #[track_caller]
    pub fn signal(&self, name: &str) {
        self.process.signal(name);
    }

    /// Writes a new configuration without telling the gateway.
    pub fn write(&self, setup: &Setup) {
        std::fs::write(self.places.config(), setup.text(&self.places)).expect("writing the configuration");
    }

    /// Writes a new configuration, sends SIGHUP and waits until the new generation is in force.
    ///
    /// # Panics
    /// When no new generation appears.
    #[track_caller]
    pub fn reload(&self, setup: &Setup) {
        let before = self.generation();
        self.write(setup);
        self.signal("HUP");
        eventually("a new generation", || {
            let now = self.generation();
            if now > before { Ok(()) } else { Err(format!("still {now}; stderr:\n{}", self.stderr())) }
        });
    }

    /// Number of the generation in force.
    #[track_caller]
    pub fn generation(&self) -> u64 {
        let status = self.status();
        status["generation"].as_u64().unwrap_or_else(|| panic!("no generation in {status}"))
    }

    /// Runs a subcommand that talks to this gateway's admin socket; its standard output and whether it succeeded.
    pub fn order(&self, args: &[&str]) -> (String, bool) {
        let mut command = Command::new(binary());
        let output =
            command.args(args).arg("--admin").arg(self.socket()).output().expect("the binary starts");
        let text =
            String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        (text, output.status.success())
    }

    /// Runs a subcommand of the binary against this gateway's configuration and admin socket.
    pub fn cli(&self, args: &[&str]) -> Output {
        Command::new(binary()).args(args).output().expect("the binary starts")
    }

    /// Sends SIGTERM and waits for the end.
    ///
    /// # Panics
    /// When it does not end in time or not with exit code 0.
    #[track_caller]
    pub fn stop(mut self) -> String {
        self.signal("TERM");
        let status = self.wait_end();
        let stderr = self.stderr();
        assert!(status.success(), "the gateway ended with {status}:\n{stderr}");
        stderr
    }

    /// Waits for the end without asking for it.
    ///
    /// # Panics
    /// When it does not end in time.
    #[track_caller]
    pub fn wait_end(&mut self) -> ExitStatus {
        let process = &self.process;
        within(PATIENCE * 3, "the end of the gateway", || {
            process.ended().ok_or_else(|| format!("still running; standard error:\n{}", process.stderr()))
        })
    }

    /// Kills without warning.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Starts a successor that takes over, and waits until it serves and the predecessor has ended by itself.
    ///
    /// # Panics
    /// When either does not happen in time, or the predecessor does not end with exit code 0.
    #[track_caller]
    pub fn upgrade(&mut self) {
        self.succeed().wait_end();
    }

    /// As [`Gateway::upgrade`], without waiting for the predecessor, which may have something to finish.
    ///
    /// # Panics
    /// When the successor does not serve in time.
    #[track_caller]
    pub fn succeed(&mut self) -> Predecessor {
        let mut command = self.places.command();
        command.arg("--upgrade");
        let successor = Process::start(&command, self.places.dir.path());
        let predecessor = std::mem::replace(&mut self.process, successor);
        eventually("the successor on the admin socket", || {
            let status = self.try_admin("GET", "/status").map_err(|error| error.to_string())?;
            let pid = status.json()["pid"].clone();
            let wanted = self.pid();
            if pid == wanted { Ok(()) } else { Err(format!("{pid} instead of {wanted}:\n{}", self.stderr())) }
        });
        Predecessor(predecessor)
    }

    /// Kills without warning and starts again on the same ports, files and configuration.
    #[track_caller]
    pub fn restart(&mut self) {
        self.kill();
        self.process = Process::start(&self.places.command(), self.places.dir.path());
        self.wait_ready();
    }
}

/// A gateway that has handed over and finishes what is under way.
#[derive(Debug)]
pub struct Predecessor(Process);

impl Predecessor {
    /// Whether it still runs.
    pub fn runs(&mut self) -> bool {
        self.0.ended().is_none()
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// When it does not end in time, or not with exit code 0.
    #[track_caller]
    pub fn wait_end(mut self) {
        let status = within(PATIENCE * 3, "the end of the predecessor", || {
            self.0.ended().ok_or_else(|| format!("still running; standard error:\n{}", self.0.stderr()))
        });
        assert!(status.success(), "the predecessor ended with {status}:\n{}", self.0.stderr());
        self.0.kill();
    }
}

/// A value that the tests of one suite share: made by the first, dropped with the last user.
///
/// A plain static would never be dropped, and a gateway in it would end unchecked.
#[derive(Debug)]
pub struct Shared<T>(Mutex<Weak<T>>);

impl<T> Shared<T> {
    /// Nothing yet.
    #[allow(clippy::new_without_default, reason = "only used in statics, where Default cannot be called")]
    pub const fn new() -> Self {
        Shared(Mutex::new(Weak::new()))
    }

    /// The value, made now if nobody holds it.
    pub fn get(&self, make: impl FnOnce() -> T) -> Arc<T> {
        // A test that failed inside `make` has poisoned nothing: the weak reference is still empty.
        let mut held = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(value) = held.upgrade() {
            return value;
        }
        let value = Arc::new(make());
        *held = Arc::downgrade(&value);
        value
    }
}
