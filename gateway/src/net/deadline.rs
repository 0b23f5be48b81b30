//! Time limits that never drop an operation in flight.
//!
//! A [`Deadline`] belongs to one direction of one socket. When it passes, the socket is shut down with
//! `shutdown(2)`: a pending receive completes with end-of-file, a pending send with EPIPE, in the io_uring and in
//! the epoll driver alike, and whoever awaits the operation finds [`Deadline::expired`] set. Nothing is cancelled
//! from outside, so no completion, no buffer and no received byte can be lost.
//!
//! Deadlines of a shard live in one hashed wheel with ticks of [`TICK`]. Moving a deadline later, which every
//! request does several times, is one store: the wheel looks at the entry when its old slot comes round and files
//! it anew. Only moving it to before the slot it is filed in costs an insertion, so an entry is filed at most
//! about once per its shortest limit, whatever the request rate.
//!
//! A send may pend for long although its receiver reads: the kernel asks for more only once a third of a send buffer of
//! megabytes is free. So a limit on sending ([`Deadline::arm_send`]) is given more time for as long as the receiver
//! acknowledges at the least rate that is asked of it; that is looked up when half of the time has gone, and never before.

use std::cell::{Cell, RefCell};
use std::os::fd::{BorrowedFd, RawFd};
use std::rc::Rc;
use std::time::Duration;

use socket2::SockRef;

use super::clock::now_ns;
use super::driver;

/// Resolution of deadlines. A limit fires between 0 and 2 ticks late, never early.
pub const TICK: Duration = Duration::from_millis(50);
const TICK_NS: u64 = TICK.as_nanos() as u64;
/// Slots of the wheel: 2048 x 50 ms = 102 s; longer limits are filed again when their last slot comes round.
const SLOTS: usize = 2048;
const NEVER: u64 = u64::MAX;

/// What an expired deadline shuts down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// Receiving only: an answer (408) can still be sent.
    Receive,
    /// Both directions: a send that does not move ends with EPIPE.
    Both,
}

/// How long a send may last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SendLimit {
    /// Longest time without progress.
    pub pause: Duration,
    /// Bytes a second that count as progress; 0: no progress counts but the end of the send.
    pub rate: u32,
}

impl SendLimit {
    /// A limit on the whole send, however fast it goes.
    pub const fn whole(pause: Duration) -> Self {
        Self { pause, rate: 0 }
    }
}

/// How a limit ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    NotYet,
    /// The time was over.
    Passed,
    /// A [`Cutter`] was used.
    Cut,
}

struct Entry {
    fd: Cell<RawFd>,
    cut: Cut,
    /// Tick at which the limit passes; NEVER when none is set.
    at: Cell<u64>,
    /// The earliest slot the entry is filed in; NEVER when in none.
    filed: Cell<u64>,
    end: Cell<End>,
    /// Bytes given to the kernel so far.
    sent: Cell<u64>,
    /// Of a limit on sending: ticks from one look at its progress to the next; else 0.
    stage: Cell<u64>,
    /// Bytes that must be acknowledged in a stage.
    least: Cell<u64>,
    /// Bytes acknowledged at the last look; NEVER before the first.
    acknowledged: Cell<u64>,
}

/// The time limit of one direction of one socket. Dropping it releases the socket from the wheel.
pub struct Deadline(Rc<Entry>);

impl Deadline {
    pub(super) fn new(fd: RawFd, cut: Cut) -> Self {
        Self(Rc::new(Entry {
            fd: Cell::new(fd),
            cut,
            at: Cell::new(NEVER),
            filed: Cell::new(NEVER),
            end: Cell::new(End::NotYet),
            sent: Cell::new(0),
            stage: Cell::new(0),
            least: Cell::new(0),
            acknowledged: Cell::new(NEVER),
        }))
    }

    /// Sets the limit to `after` from now, replacing the one before. Rounded up to the next tick.
    pub fn arm(&self, after: Duration) {
        arm(&self.0, after);
    }

    /// Sets a limit on a send that begins now, replacing the limit before.
    pub fn arm_send(&self, limit: SendLimit) {
        if limit.rate == 0 {
            return self.arm(limit.pause);
        }
        let stage = limit.pause / 2;
        arm(&self.0, stage);
        self.0.stage.set((stage.as_nanos() as u64).div_ceil(TICK_NS).max(1));
        self.0.least.set((u64::from(limit.rate) * stage.as_millis() as u64 / 1000).max(1));
    }

    /// Notes that the kernel has taken bytes to be sent.
    #[inline]
    pub(super) fn note_sent(&self, bytes: usize) {
        self.0.sent.set(self.0.sent.get() + bytes as u64);
    }

    /// No limit until armed again.
    pub fn disarm(&self) {
        self.0.at.set(NEVER);
    }

    /// Whether the limit has passed and the socket was shut down for it.
    pub fn expired(&self) -> bool {
        self.0.end.get() != End::NotYet
    }

    /// Whether it was time that expired, and not a [`Cutter`] that was used.
    pub fn passed(&self) -> bool {
        self.0.end.get() == End::Passed
    }

    /// A handle that shuts the direction down at once, as if the limit had passed.
    pub fn cutter(&self) -> Cutter {
        Cutter(self.0.clone())
    }
}

/// What the other side has done to a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HangUp {
    No,
    /// It sends no more, and may receive still.
    Finished,
    /// It neither sends nor receives.
    Gone,
}

/// Shuts a direction down from elsewhere, while its owner is lent to a future.
#[derive(Clone)]
pub struct Cutter(Rc<Entry>);

impl Cutter {
    /// Shuts down at once, as if the limit had passed; nothing when the socket is gone.
    pub fn cut(&self) {
        if self.0.end.get() == End::NotYet {
            self.0.end.set(End::Cut);
            shut_down(&self.0);
        }
    }

    /// As [`Cutter::cut`], and what is closed then is reset (SO_LINGER 0). For another side whose acknowledgements no longer
    /// come in, as those of a banned source: an orderly end would wait behind what is unacknowledged.
    pub fn reset(&self) {
        let fd = self.0.fd.get();
        if fd >= 0 {
            // SAFETY: `fd` is open, see `shut_down`, and is borrowed for this call only.
            let socket = unsafe { BorrowedFd::borrow_raw(fd) };
            // Without it the end is an orderly one, which comes later.
            let _ = SockRef::from(&socket).set_linger(Some(Duration::ZERO));
        }
        self.cut();
    }

    /// As [`Deadline::disarm`].
    pub fn disarm(&self) {
        self.0.at.set(NEVER);
    }

    /// Whether the direction was shut down by us, for whatever reason.
    pub fn is_cut(&self) -> bool {
        self.0.end.get() != End::NotYet
    }

    /// Whether the connection has ended, or the other side's half of it. What we have shut down looks ended too.
    pub fn hang_up(&self) -> HangUp {
        let fd = self.0.fd.get();
        if fd < 0 {
            return HangUp::Gone;
        }
        let mut asked = libc::pollfd { fd, events: libc::POLLRDHUP, revents: 0 };
        // SAFETY: `fd` is open, see `shut_down`; the call writes to the one structure that it is given, and does not wait.
        let ready = unsafe { libc::poll(&raw mut asked, 1, 0) };
        match asked.revents {
            _ if ready < 1 => HangUp::No,
            told if told & (libc::POLLHUP | libc::POLLERR) != 0 => HangUp::Gone,
            told if told & libc::POLLRDHUP != 0 => HangUp::Finished,
            _ => HangUp::No,
        }
    }

    /// As [`Deadline::arm`]: shuts down unless the owner sets another limit within that time.
    pub fn cut_after(&self, time: Duration) {
        arm(&self.0, time);
    }
}

fn arm(entry: &Rc<Entry>, after: Duration) {
    let ticks = (after.as_nanos() as u64).div_ceil(TICK_NS) + 1;
    WHEEL.with(|wheel| {
        let at = wheel.tick.get() + ticks;
        entry.at.set(at);
        entry.stage.set(0);
        entry.acknowledged.set(NEVER);
        if at < entry.filed.get() {
            wheel.file(entry);
        }
    });
}

/// Whether a send that is at its limit has gone on well enough since the last look, and gets another stage.
fn goes_on(entry: &Entry, tick: u64) -> bool {
    let stage = entry.stage.get();
    if stage == 0 {
        return false;
    }
    let acknowledged = entry.sent.get().saturating_sub(unacknowledged(entry.fd.get()));
    let before = entry.acknowledged.replace(acknowledged);
    let goes_on = before == NEVER || acknowledged.saturating_sub(before) >= entry.least.get();
    if goes_on {
        entry.at.set(tick + stage);
    }
    goes_on
}

/// Bytes in the send queue of a socket that its receiver has not acknowledged.
fn unacknowledged(fd: RawFd) -> u64 {
    let mut bytes: libc::c_int = 0;
    // SAFETY: `fd` is open, see `shut_down`; the call writes one int to where it is told.
    let result = unsafe { libc::ioctl(fd, libc::TIOCOUTQ, &raw mut bytes) };
    if result == 0 { bytes.max(0) as u64 } else { 0 }
}

impl Drop for Deadline {
    fn drop(&mut self) {
        // The descriptor is about to be closed and may be reused by another socket.
        self.0.fd.set(-1);
        if self.0.filed.get() != NEVER {
            // Not while the thread ends, when the wheel may be gone.
            let _ = WHEEL.try_with(Wheel::note_dead);
        }
    }
}

fn shut_down(entry: &Entry) {
    let fd = entry.fd.get();
    if fd < 0 {
        return;
    }
    let how = match entry.cut {
        Cut::Receive => libc::SHUT_RD,
        Cut::Both => libc::SHUT_RDWR,
    };
    // SAFETY: `fd` is open: `Deadline::drop` sets it to -1 before the stream that owns it closes it. The call
    // takes no memory. ENOTCONN (the other side was faster) is of no interest.
    unsafe { libc::shutdown(fd, how) };
}

struct Wheel {
    tick: Cell<u64>,
    slots: RefCell<Vec<Vec<Rc<Entry>>>>,
    /// Entries in slots, those filed twice counted twice.
    filed: Cell<usize>,
    /// Among them those whose socket is gone; about.
    dead: Cell<usize>,
}

/// Dead entries that are not worth a walk over the wheel.
const DEAD_MIN: usize = 4096;

thread_local! {
    static WHEEL: Wheel = Wheel {
        tick: Cell::new(now_ns() / TICK_NS),
        slots: RefCell::new((0..SLOTS).map(|_| Vec::new()).collect()),
        filed: Cell::new(0),
        dead: Cell::new(0),
    };
}

impl Wheel {
    fn file(&self, entry: &Rc<Entry>) {
        let slot = entry.at.get().min(self.tick.get() + SLOTS as u64 - 1);
        entry.filed.set(slot);
        self.filed.set(self.filed.get() + 1);
        self.slots.borrow_mut()[slot as usize % SLOTS].push(entry.clone());
    }

    fn advance(&self, to: u64) {
        while self.tick.get() < to {
            let tick = self.tick.get() + 1;
            self.tick.set(tick);
            let mut due = std::mem::take(&mut self.slots.borrow_mut()[tick as usize % SLOTS]);
            self.filed.set(self.filed.get() - due.len());
            for entry in due.drain(..) {
                self.look_at(entry, tick);
            }
            // Keep the allocation of the slot unless something was filed into it meanwhile.
            let mut slots = self.slots.borrow_mut();
            let slot = &mut slots[tick as usize % SLOTS];
            if slot.is_empty() {
                *slot = due;
            }
        }
    }

    /// A socket is gone whose entry waits for its slot, which may be a minute from now. When more than half of the wheel is
    /// such, they are all taken out: a flood of short connections would fill it otherwise. Each entry pays for its own.
    fn note_dead(&self) {
        self.dead.set(self.dead.get() + 1);
        if self.dead.get() < DEAD_MIN || self.dead.get() * 2 < self.filed.get() {
            return;
        }
        let Ok(mut slots) = self.slots.try_borrow_mut() else { return };
        let mut filed = 0;
        for slot in slots.iter_mut() {
            slot.retain(|entry| entry.fd.get() >= 0);
            slot.shrink_to(64);
            filed += slot.len();
        }
        self.filed.set(filed);
        self.dead.set(0);
    }

    fn look_at(&self, entry: Rc<Entry>, tick: u64) {
        if entry.filed.get() != tick {
            return; // filed a second time, for an earlier tick: that copy counts
        }
        entry.filed.set(NEVER);
        if entry.fd.get() < 0 {
            self.dead.set(self.dead.get().saturating_sub(1));
        }
        if entry.fd.get() < 0 || entry.at.get() == NEVER {
            return;
        }
        if entry.at.get() > tick || goes_on(&entry, tick) {
            self.file(&entry);
        } else {
            entry.at.set(NEVER);
            if entry.end.get() == End::NotYet {
                entry.end.set(End::Passed);
            }
            shut_down(&entry);
        }
    }
}

/// Turns the wheel of this shard for ever; the first task of a shard.
pub async fn turn_wheel() -> ! {
    loop {
        driver::sleep(TICK).await;
        WHEEL.with(|wheel| wheel.advance(now_ns() / TICK_NS));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsRawFd;

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let a = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (a, listener.accept().unwrap().0)
    }

    fn ticks(n: u64) {
        WHEEL.with(|w| w.advance(w.tick.get() + n));
    }

    fn queued() -> usize {
        WHEEL.with(|w| w.slots.borrow().iter().map(Vec::len).sum())
    }

    #[test]
    fn an_expired_receive_limit_ends_the_read_and_leaves_sending_open() {
        let (mut a, mut b) = pair();
        let limit = Deadline::new(a.as_raw_fd(), Cut::Receive);
        limit.arm(TICK * 3);
        ticks(3);
        assert!(!limit.expired(), "fires early");
        ticks(2);
        assert!(limit.expired());
        assert_eq!(a.read(&mut [0; 8]).unwrap(), 0);
        std::io::Write::write_all(&mut a, b"408").unwrap();
        let mut got = [0; 3];
        b.read_exact(&mut got).unwrap();
        assert_eq!(&got, b"408");
    }

    #[test]
    fn moving_a_limit_later_files_nothing_and_fires_at_the_new_time() {
        let (a, _b) = pair();
        let limit = Deadline::new(a.as_raw_fd(), Cut::Both);
        limit.arm(TICK * 10);
        for _ in 0..1000 {
            limit.arm(TICK * 20);
            limit.arm(TICK * 30);
        }
        assert_eq!(queued(), 1);
        ticks(25);
        assert!(!limit.expired());
        limit.disarm();
        ticks(100);
        assert!(!limit.expired());
        assert_eq!(queued(), 0);
    }

    #[test]
    fn limits_longer_than_the_wheel_and_earlier_ones_are_kept() {
        let (a, _b) = pair();
        let limit = Deadline::new(a.as_raw_fd(), Cut::Both);
        limit.arm(TICK * (SLOTS as u32 * 2));
        ticks(SLOTS as u64 + 5);
        assert!(!limit.expired());
        limit.arm(TICK * 2);
        ticks(4);
        assert!(limit.expired());
    }

    #[test]
    fn a_send_goes_on_while_its_receiver_reads_fast_enough() {
        let (a, mut b) = pair();
        a.set_nonblocking(true).unwrap();
        let limit = Deadline::new(a.as_raw_fd(), Cut::Both);
        let fill = || {
            while let Ok(n) = std::io::Write::write(&mut &a, &[0; 65536]) {
                limit.note_sent(n);
            }
        };
        fill();
        limit.arm_send(SendLimit { pause: TICK * 20, rate: 1024 });
        let mut piece = vec![0; 4 << 20];
        for _ in 0..5 {
            ticks(11);
            assert!(!limit.expired(), "cut while its receiver reads");
            // Until the kernel says so to the sender: the window opens in steps.
            while unacknowledged(a.as_raw_fd()) as usize > 64 * 1024 && b.read(&mut piece).unwrap() > 0 {}
            fill();
        }
        ticks(11);
        assert!(!limit.expired(), "what was read since the last look counts");
        ticks(11);
        assert!(limit.expired() && limit.passed());
    }

    #[test]
    fn a_send_that_nobody_reads_is_cut_when_its_time_is_over() {
        let (a, _b) = pair();
        a.set_nonblocking(true).unwrap();
        let limit = Deadline::new(a.as_raw_fd(), Cut::Both);
        while let Ok(n) = std::io::Write::write(&mut &a, &[0; 65536]) {
            limit.note_sent(n);
        }
        limit.arm_send(SendLimit { pause: TICK * 20, rate: 1024 });
        ticks(15);
        assert!(!limit.expired());
        ticks(8);
        assert!(limit.passed());
    }

    #[test]
    fn limits_of_closed_sockets_do_not_pile_up() {
        let (a, _b) = pair();
        let kept = Deadline::new(a.as_raw_fd(), Cut::Both);
        kept.arm(TICK * 100);
        for _ in 0..10 * DEAD_MIN {
            Deadline::new(a.as_raw_fd(), Cut::Both).arm(TICK * 1200);
        }
        assert!(queued() <= DEAD_MIN + 1, "{}", queued());
        assert_eq!(WHEEL.with(|wheel| wheel.filed.get()), queued());
        ticks(102);
        assert!(kept.expired(), "the one that is open is in its place still");
        ticks(1200);
        assert_eq!((queued(), WHEEL.with(|wheel| wheel.filed.get())), (0, 0));
    }

    #[test]
    fn a_dropped_limit_never_touches_the_descriptor_again() {
        let (a, mut b) = pair();
        let limit = Deadline::new(a.as_raw_fd(), Cut::Both);
        limit.arm(TICK);
        drop(limit);
        ticks(10);
        std::io::Write::write_all(&mut &a, b"x").unwrap();
        assert_eq!(b.read(&mut [0; 1]).unwrap(), 1);
    }
}
