//! Real Redis servers for tests: Debian's `redis-server`, each on a port and in a folder of its own.
//!
//! Owns their start and their end. A server keeps nothing on disk; it is killed by its id, and may be started again at
//! the same port. Never talks to a server that it did not start.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::eventually::{eventually, holds};
use crate::ports::Reserved;

/// A running server; it ends with its guard.
#[derive(Debug)]
pub struct Redis {
    child: Option<Child>,
    dir: TempDir,
    port: u16,
    options: Vec<String>,
    /// A configuration that it writes to.
    file: Option<PathBuf>,
}

impl Redis {
    /// A server without a password.
    ///
    /// # Panics
    /// When none comes up: it needs the package redis-server.
    #[track_caller]
    pub fn start() -> Redis {
        Self::start_with(&[])
    }

    /// A server with further options of its command line. `DIR` in one is its folder, `PORT` its port.
    ///
    /// # Panics
    /// As [`Redis::start`].
    #[track_caller]
    pub fn start_with(options: &[&str]) -> Redis {
        let dir = tempfile::Builder::new().prefix("redis-").tempdir().expect("a temporary folder");
        Self::start_in(dir, options)
    }

    /// As [`Redis::start_with`], in a folder that has what the options name.
    ///
    /// # Panics
    /// As [`Redis::start`].
    #[track_caller]
    pub fn start_in(dir: TempDir, options: &[&str]) -> Redis {
        let options = options.iter().map(|option| (*option).to_owned()).collect();
        Redis { child: None, dir, port: 0, options, file: None }.up()
    }

    /// A sentinel that watches the group `name` with its master at `port` of this machine, with further `lines` in its
    /// configuration. It alone decides.
    ///
    /// # Panics
    /// As [`Redis::start`].
    #[track_caller]
    pub fn sentinel(name: &str, port: u16, lines: &str) -> Redis {
        let dir = tempfile::Builder::new().prefix("redis-").tempdir().expect("a temporary folder");
        let file = dir.path().join("sentinel.conf");
        let text = format!("sentinel monitor {name} 127.0.0.1 {port} 1\n{lines}\n");
        std::fs::write(&file, text).expect("a file of our own");
        let options = vec!["--sentinel".to_owned()];
        Redis { child: None, dir, port: 0, options, file: Some(file) }.up()
    }

    #[track_caller]
    fn up(mut self) -> Redis {
        let redis = &mut self;
        for _ in 0..20 {
            // Redis does not share a port, so the reservation must go first; somebody may be quicker then.
            redis.port = Reserved::new().addr().port();
            if redis.try_start() {
                return self;
            }
        }
        panic!("no redis-server came up");
    }

    fn try_start(&mut self) -> bool {
        let (port, dir) = (self.port.to_string(), self.dir.path().display().to_string());
        let options = self.options.iter().map(|option| option.replace("DIR", &dir).replace("PORT", &port));
        let mut command = Command::new("redis-server");
        command.args(&self.file);
        command.args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", &dir]);
        if !self.options.iter().any(|option| option == "--tls-port") {
            command.args(["--port", &port]);
        }
        command.args(options).stdin(Stdio::null()).stdout(Stdio::null());
        let mut child = command.spawn().expect("redis-server, of the Debian package of that name");
        let up = eventually("a server that listens, or has ended", || {
            // Who asks a free port of this range may be given that port to ask from, and meets itself.
            let itself = |stream: &TcpStream| stream.local_addr().ok() == stream.peer_addr().ok();
            if TcpStream::connect(self.addr()).is_ok_and(|stream| !itself(&stream)) {
                return Ok(true);
            }
            let ended = child.try_wait().expect("its state").is_some();
            holds(ended, "not yet").map(|()| false)
        });
        if up {
            self.child = Some(child);
        }
        up
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Kills it without warning.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            drop(child.kill());
            drop(child.wait());
        }
    }

    /// Starts it again at the same port, with nothing in it.
    ///
    /// # Panics
    /// When the port is not to be had within the patience of a test.
    #[track_caller]
    pub fn restart(&mut self) {
        self.kill();
        eventually("the same port again", || holds(self.try_start(), "in use"));
    }

    /// One command on a connection of its own; the reply as text, the items of an array a line each.
    ///
    /// # Panics
    /// When it does not answer.
    #[track_caller]
    pub fn ask(&self, words: &[&str]) -> String {
        self.session().ask(words)
    }

    /// A connection.
    ///
    /// # Panics
    /// When there is none to be had.
    #[track_caller]
    pub fn session(&self) -> Session {
        let stream = TcpStream::connect(self.addr()).expect("a connection to Redis");
        Session { stream: BufReader::new(stream) }
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A connection to a server.
#[derive(Debug)]
pub struct Session {
    stream: BufReader<TcpStream>,
}

impl Session {
    /// One command; the reply as [`Redis::ask`] gives it.
    ///
    /// # Panics
    /// When there is no reply.
    #[track_caller]
    pub fn ask(&mut self, words: &[&str]) -> String {
        let mut out = format!("*{}\r\n", words.len());
        for word in words {
            out.push_str(&format!("${}\r\n{word}\r\n", word.len()));
        }
        self.stream.get_mut().write_all(out.as_bytes()).expect("Redis listens");
        self.reply()
    }

    fn reply(&mut self) -> String {
        let mut line = String::new();
        self.stream.read_line(&mut line).expect("a reply");
        let line = line.trim_end();
        let (kind, rest) = line.split_at_checked(1).expect("a whole reply");
        let length = || rest.parse::<i64>().expect("a length");
        match kind {
            "$" if length() >= 0 => {
                let mut bytes = vec![0; length() as usize + 2];
                self.stream.read_exact(&mut bytes).expect("a text");
                bytes.truncate(bytes.len() - 2);
                String::from_utf8_lossy(&bytes).into_owned()
            }
            "$" => String::new(),
            "*" => (0..length()).map(|_| self.reply()).collect::<Vec<_>>().join("\n"),
            _ => rest.to_owned(),
        }
    }
}
