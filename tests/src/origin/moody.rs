//! An origin whose health a test turns while it runs.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use super::{Script, Wire};

/// How an origin treats requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Mood {
    /// Answers 200 with its name.
    Well,
    /// Answers 503.
    Ill,
    /// Resets the connection once it has the request.
    Resets,
    /// Never answers.
    Silent,
    /// Answers as [`Mood::Well`] does, after 300 ms.
    Slow,
}

const MOODS: [Mood; 5] = [Mood::Well, Mood::Ill, Mood::Resets, Mood::Silent, Mood::Slow];

/// The mood of an origin, in a test's hand.
#[derive(Debug, Clone)]
pub struct Handle(Arc<AtomicU8>);

impl Handle {
    /// Turns it, for requests that come from now on.
    pub fn set(&self, mood: Mood) {
        self.0.store(mood as u8, Ordering::SeqCst);
    }

    fn get(&self) -> Mood {
        MOODS[usize::from(self.0.load(Ordering::SeqCst))]
    }
}

/// See the module.
#[derive(Debug)]
pub struct Moody {
    name: &'static str,
    mood: Handle,
}

impl Moody {
    /// An origin in this mood, and the handle to turn it.
    pub fn new(name: &'static str, mood: Mood) -> (Moody, Handle) {
        let handle = Handle(Arc::new(AtomicU8::new(mood as u8)));
        (Moody { name, mood: handle.clone() }, handle)
    }
}

impl Script for Moody {
    fn serve(&self, wire: &mut Wire) -> io::Result<()> {
        let origin = format!("X-Origin: {}\r\n", self.name);
        while wire.request()?.is_some() {
            match self.mood.get() {
                Mood::Well => wire.answer("200 OK", &origin, self.name.as_bytes())?,
                Mood::Ill => wire.answer("503 Service Unavailable", &origin, b"ill")?,
                Mood::Resets => return wire.reset(),
                Mood::Silent => return wire.drain(),
                Mood::Slow => {
                    std::thread::sleep(Duration::from_millis(300));
                    wire.answer("200 OK", &origin, self.name.as_bytes())?;
                }
            }
        }
        Ok(())
    }
}
