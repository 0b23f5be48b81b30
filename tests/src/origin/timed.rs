//! Origins whose timing a test controls.

use std::io;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use super::{Script, Wire};

/// Waits before its answer, and between the bytes of it.
///
/// The delays are the fault being simulated (a target slower than a timeout), not a way to order
/// events; for that use [`Held`].
#[derive(Debug, Default)]
pub struct Slow {
    /// Before the first byte of the response.
    pub before_head: Duration,
    /// Before each byte of the five-byte body.
    pub before_byte: Duration,
}

impl Script for Slow {
    fn serve(&self, wire: &mut Wire) -> io::Result<()> {
        while wire.request()?.is_some() {
            std::thread::sleep(self.before_head);
            wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n")?;
            for byte in b"slow\n" {
                std::thread::sleep(self.before_byte);
                wire.send(&[*byte])?;
            }
        }
        Ok(())
    }
}

/// A door that is shut until a test opens it.
#[derive(Debug, Clone, Default)]
pub struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    /// A shut gate.
    pub fn shut() -> Gate {
        Gate::default()
    }

    /// Lets everybody through, now and later.
    pub fn open(&self) {
        *self.0.0.lock().expect("gate") = true;
        self.0.1.notify_all();
    }

    /// Returns once the gate is open, or after a minute so that a failed test ends.
    pub fn pass(&self) {
        let open = self.0.0.lock().expect("gate");
        drop(self.0.1.wait_timeout_while(open, Duration::from_secs(60), |open| !*open));
    }
}

/// Holds each answer until its gate opens; the request is recorded before.
#[derive(Debug)]
pub struct Held {
    pub gate: Gate,
    /// Sends the head and half of the body first, and holds the rest.
    pub midway: bool,
}

impl Script for Held {
    fn serve(&self, wire: &mut Wire) -> io::Result<()> {
        while wire.request()?.is_some() {
            if self.midway {
                wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nheld")?;
                self.gate.pass();
                wire.send(b"-on\n")?;
            } else {
                self.gate.pass();
                wire.answer("200 OK", "", b"held-on\n")?;
            }
        }
        Ok(())
    }
}
