//! What one side of an HTTP/2 connection may do before it counts as an attack.
//!
//! Owns the counts of frames by type in a window of one second, and the thresholds. Looks at frame headers,
//! and at what header blocks put into the table of the decoder, on their way to and from the codec; never decodes, answers
//! or closes. No I/O, and the time is an argument.
//!
//! The codec keeps the protocol; this keeps the cost. Each rule names frames that cost the receiver much and the sender
//! nothing, and leaves out those that an honest client has a reason for:
//!
//! | frames of the client | counted | not counted | reason |
//! |---|---|---|---|
//! | RST_STREAM | all | | `h2_rapid_reset` (CVE-2023-44487) |
//! | PING | all | one for each DATA and HEADERS frame that we sent: round trips are measured by them | `h2_ping_flood` |
//! | SETTINGS | all but acknowledgements | the first, which every connection begins with | `h2_settings_flood` |
//! | DATA | without content and END_STREAM | | `h2_empty_data_flood` |
//! | DATA | of few octets on a stream that we have reset, from the 4097th on | what may have been on its way | `h2_empty_data_flood` |
//! | WINDOW_UPDATE | all | two for each stream opened, and for each 4 KiB begun in a DATA frame that we sent: readers with buffers of that size give leave so often | `h2_window_update_flood` |
//! | CONTINUATION | from the third of a header block | the first two: a head of 32 KiB needs them | `h2_continuation_flood` |
//! | PRIORITY, PRIORITY_UPDATE | all | one for each stream opened | `h2_priority_flood` |
//! | of unknown type, GOAWAY | all | | `h2_protocol_error` |
//! | any, that made us send RST_STREAM with an error | all | | `h2_made_you_reset` (CVE-2025-8671) |
//!
//! All counted frames together have a threshold too (`glitches`), so that attacks cannot be mixed. A header block may
//! have as many octets as the header list, which bounds what waits for its end (`h2_header_list`).
//!
//! Invariant: what is decided does not depend on how the bytes are cut.

use std::collections::VecDeque;

use portcullis_abi::Reason;

use super::frames::{Frame, Scanner, Seen, flag, kind};
use super::table::Table;

/// Frames of one second that are borne; one more ends the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thresholds {
    /// RST_STREAM, received and provoked, each for itself.
    pub resets: u32,
    pub pings: u32,
    pub settings: u32,
    pub empty_data: u32,
    pub window_updates: u32,
    pub continuations: u32,
    pub priorities: u32,
    /// All that is counted, together.
    pub glitches: u32,
    /// Octets of one header block, over all its frames.
    pub header_block: u32,
}

impl Default for Thresholds {
    /// Those of Sozu, for windows of one second, where it has them: 100 resets, 100 pings, 50 settings, 100 empty DATA, 100
    /// window updates, 20 continuations, and 100 of all together. Priorities are ours, and a header block is twice the
    /// default limit on heads, as what is over the one and not over the other gets an answer that says why.
    fn default() -> Thresholds {
        Thresholds {
            resets: 100,
            pings: 100,
            settings: 50,
            empty_data: 100,
            window_updates: 100,
            continuations: 20,
            priorities: 100,
            glitches: 100,
            header_block: 64 * 1024,
        }
    }
}

/// Why a connection is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Violation {
    /// A threshold was passed: ENHANCE_YOUR_CALM.
    TooMuch(Reason),
    /// A frame that RFC 9113 does not allow, with the error code for it. The codec would find it too, but under
    /// PROTOCOL_ERROR whatever it is.
    Forbidden(u32),
}

impl From<Reason> for Violation {
    fn from(reason: Reason) -> Violation {
        Violation::TooMuch(reason)
    }
}

/// What the codec found fault with by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A stream, which it reset.
    Stream(Reason),
    /// The connection.
    Connection(Reason),
}

/// What the codec says in a GOAWAY of its own about what was too much.
fn reason_of(debug_data: &[u8]) -> Option<Reason> {
    Some(match debug_data {
        b"too_many_continuations" => Reason::H2ContinuationFlood,
        b"header_list_way_too_large" => Reason::H2HeaderList,
        b"too_many_resets" => Reason::H2RapidReset,
        b"too_many_internal_resets" => Reason::H2MadeYouReset,
        b"too_many_data_frames" => Reason::H2EmptyDataFlood,
        _ => return None,
    })
}

/// Whether a frame has the length that its type always has (RFC 9113 section 6). Within a header block no other frame may
/// come, whatever its length: that is the codec's to find.
fn has_its_length(frame: &Frame) -> bool {
    match frame.kind {
        kind::PRIORITY => frame.length == 5,
        kind::RST_STREAM | kind::WINDOW_UPDATE => frame.length == 4,
        kind::SETTINGS if frame.has(flag::ACK) => frame.length == 0,
        kind::SETTINGS => frame.length.is_multiple_of(6),
        kind::PING => frame.length == 8,
        kind::GOAWAY => frame.length >= 8,
        _ => true,
    }
}

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Count {
    Reset,
    Provoked,
    Ping,
    Settings,
    EmptyData,
    WindowUpdate,
    Continuation,
    Priority,
    Other,
    /// Not among all together: it is no fault by itself.
    Late,
}

const COUNTS: usize = Count::Late as usize + 1;
/// Length of the window.
const WINDOW_NS: u64 = 1_000_000_000;
/// Frames that may be saved up as explained, so that a long quiet transfer earns no flood.
const CREDIT_MAX: u32 = 16_384;
/// DATA frames of fewer octets cost more to be looked at than to be sent.
const SMALL_DATA: u32 = 256;
/// As many of them may be on their way to a stream when it is reset: a window of frames of 16 octets.
const LATE_MAX: u32 = 4096;
/// Streams that are remembered as reset by us.
const RESET_MAX: usize = 100;
/// PING frames that may be saved up: who measures round trips has one under way at a time.
const PINGS_DUE_MAX: u32 = 100;
/// Octets of DATA for which an honest client may give leave by themselves, on the stream and on the connection.
const LEAST_READ: u32 = 4096;
/// CONTINUATION frames of one block that a large head needs.
const CONTINUATIONS_FREE: u32 = 2;
/// Error codes (RFC 9113 section 7) that tell of a fault of the other side.
const FAULTS: [u32; 7] = [0x1, 0x3, 0x5, 0x6, 0x7, 0x9, 0xb];
const PROTOCOL_ERROR: u32 = 0x1;
const STREAM_CLOSED: u32 = 0x5;
pub const COMPRESSION_ERROR: u32 = 0x9;
const FRAME_SIZE_ERROR: u32 = 0x6;
/// Streams that are followed at most: a client that leaves more unfinished than it may open is not held to their states.
const UNFINISHED_MAX: usize = 512;
/// Octets of the client's preface.
pub const PREFACE_LEN: u32 = 24;

/// The guard of one connection whose other side is a client.
#[derive(Clone, Debug)]
pub struct Guard {
    thresholds: Thresholds,
    inbound: Scanner,
    /// Of the codec's decoder.
    table: Table,
    outbound: Scanner,
    window_from_ns: u64,
    counts: [u32; COUNTS],
    total: u32,
    /// WINDOW_UPDATE frames that are explained.
    updates_due: u32,
    /// PING frames that are explained.
    pings_due: u32,
    /// PRIORITY frames that are explained.
    priorities_due: u32,
    block: Option<Block>,
    /// A frame was received.
    begun: bool,
    /// What was received last ends a header block.
    decodes: bool,
    /// It may break the protocol in another way than by what cannot be decoded.
    breaks: bool,
    /// Where in what is sent the error code of a GOAWAY is that should be COMPRESSION_ERROR.
    miscoded: Option<usize>,
    /// The stream that was last ended by a head of ours.
    ended: u32,
    /// The streams that we have reset last.
    reset: VecDeque<u32>,
    /// The highest stream that the client has opened.
    highest: u32,
    /// Streams whose end the client has not sent yet.
    unfinished: Vec<u32>,
    /// The first stream that the client has opened.
    first: u32,
    /// It has left out numbers, or more unfinished than are followed: what a stream is that is not among the unfinished
    /// cannot be said.
    lost: bool,
}

/// A header block without END_HEADERS so far.
#[derive(Clone, Copy, Debug)]
struct Block {
    octets: u32,
    continuations: u32,
}

impl Guard {
    /// Of a connection that begins with the preface.
    pub fn new(thresholds: Thresholds) -> Guard {
        Guard {
            thresholds,
            inbound: Scanner::after(PREFACE_LEN),
            table: Table::default(),
            outbound: Scanner::default(),
            window_from_ns: 0,
            counts: [0; COUNTS],
            total: 0,
            // The window of the connection is raised once, at its start.
            updates_due: 2,
            pings_due: 0,
            priorities_due: 0,
            block: None,
            begun: false,
            decodes: false,
            breaks: false,
            miscoded: None,
            ended: 0,
            reset: VecDeque::new(),
            highest: 0,
            unfinished: Vec::new(),
            first: 0,
            lost: false,
        }
    }

    /// Looks at bytes that were received, before the codec sees them.
    ///
    /// # Errors
    /// A threshold was passed. The connection is over; the guard is not to be asked again.
    pub fn received(&mut self, bytes: &[u8], now_ns: u64) -> Result<(), Violation> {
        self.turn(now_ns);
        (self.decodes, self.breaks) = (false, false);
        let mut rest = bytes;
        while let Some(frame) = self.inbound.next_with(&mut rest, |seen| match seen {
            Seen::Begins => self.table.begin(),
            Seen::Octets(octets) => self.table.take(octets),
        }) {
            self.breaks |= self.may_break(&frame);
            // RFC 9113 section 3.4: the preface ends with SETTINGS.
            let first = !std::mem::replace(&mut self.begun, true);
            if first && frame.kind != kind::SETTINGS {
                return Err(Violation::Forbidden(PROTOCOL_ERROR));
            }
            if !has_its_length(&frame) {
                return Err(Violation::Forbidden(FRAME_SIZE_ERROR));
            }
            if first {
                continue;
            }
            if self.block.is_none() {
                self.follow(&frame)?;
            }
            self.weigh(&frame)?;
        }
        Ok(())
    }

    /// Looks at bytes that are about to be sent; calls `fault` for each stream that the codec resets or answers for a
    /// fault of the client, and for the GOAWAY that says why the codec gives up.
    ///
    /// # Errors
    /// As [`Guard::received`].
    pub fn sending(
        &mut self,
        bytes: &[u8],
        now_ns: u64,
        mut fault: impl FnMut(Fault),
    ) -> Result<(), Violation> {
        self.turn(now_ns);
        let mut rest = bytes;
        while let Some(frame) = self.outbound.next(&mut rest) {
            if frame.kind == kind::RST_STREAM {
                self.reset.truncate(RESET_MAX - 1);
                self.reset.push_front(frame.stream);
            }
            if matches!(frame.kind, kind::DATA | kind::HEADERS) {
                self.pings_due = (self.pings_due + 1).min(PINGS_DUE_MAX);
            }
            match frame.kind {
                kind::DATA => {
                    let pieces = 1 + frame.length / LEAST_READ;
                    self.updates_due = (self.updates_due + 2 * pieces).min(CREDIT_MAX);
                }
                kind::HEADERS if frame.has(flag::END_STREAM) => self.ended = frame.stream,
                kind::RST_STREAM if FAULTS.contains(&frame.word) => {
                    // The codec's answer to a header list over the limit is a 431 and this.
                    let too_large = std::mem::take(&mut self.ended) == frame.stream;
                    let reason = if too_large { Reason::HeaderTooLarge } else { Reason::H2ProtocolError };
                    fault(Fault::Stream(reason));
                    self.count(Count::Provoked)?;
                }
                kind::GOAWAY => {
                    let data = rest.get(8..frame.length as usize).unwrap_or_default();
                    if let Some(reason) = reason_of(data) {
                        fault(Fault::Connection(reason));
                    }
                    self.miscoded = self.place_of_wrong_code(bytes.len() - rest.len(), rest);
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Where a GOAWAY, whose payload is at `at` and begins `payload`, has PROTOCOL_ERROR for want of COMPRESSION_ERROR: the
    /// codec does not tell what cannot be decoded (RFC 9113 section 4.3) from what may not be sent. It is the former where
    /// a header block has just ended and nothing else can be at fault.
    fn place_of_wrong_code(&self, at: usize, payload: &[u8]) -> Option<usize> {
        let code: &[u8; 4] = payload.get(4..8)?.try_into().ok()?;
        (u32::from_be_bytes(*code) == PROTOCOL_ERROR && self.decodes && !self.breaks).then_some(at + 4)
    }

    /// Where in the bytes that [`Guard::sending`] saw last COMPRESSION_ERROR is to be put, in four octets.
    pub fn take_miscoded(&mut self) -> Option<usize> {
        self.miscoded.take()
    }

    /// Whether a frame may break the protocol by its header, or by what is not looked at of its payload.
    fn may_break(&self, frame: &Frame) -> bool {
        let opened = frame.stream != 0 && frame.stream <= self.highest;
        match frame.kind {
            kind::CONTINUATION => self.block.is_none() || frame.stream != self.highest,
            _ if self.block.is_some() => true,
            kind::HEADERS => {
                let new = frame.stream > self.highest && frame.stream % 2 == 1;
                let goes_on = self.unfinished.contains(&frame.stream);
                !(new || goes_on) || frame.has(flag::PADDED) || frame.has(flag::PRIORITY)
            }
            kind::DATA => !opened || frame.has(flag::PADDED),
            kind::SETTINGS => frame.stream != 0 || (frame.length > 0 && !frame.has(flag::ACK)),
            kind::WINDOW_UPDATE => frame.word == 0 || frame.stream > self.highest,
            kind::RST_STREAM => !opened,
            kind::PING => frame.stream != 0,
            _ => true,
        }
    }

    /// Whether a header block has begun whose end is not there yet.
    pub fn in_header_block(&self) -> bool {
        self.block.is_some()
    }

    /// Whether the client has reset a stream in the window of now.
    pub fn has_seen_resets(&self) -> bool {
        self.counts[Count::Reset as usize] > 0
    }

    fn turn(&mut self, now_ns: u64) {
        if now_ns.saturating_sub(self.window_from_ns) >= WINDOW_NS {
            self.window_from_ns = now_ns;
            self.counts = [0; COUNTS];
            self.total = 0;
        }
    }

    /// Keeps to the states of RFC 9113 section 5.1, as far as the codec does not or under another error code: no DATA and
    /// no HEADERS on a stream that the client itself has ended, and no pseudo-field in trailers.
    fn follow(&mut self, frame: &Frame) -> Result<(), Violation> {
        match frame.kind {
            kind::HEADERS if frame.stream > self.highest => {
                if self.highest == 0 {
                    self.first = frame.stream;
                } else {
                    self.lost |= frame.stream != self.highest + 2;
                }
                self.highest = frame.stream;
                if !frame.has(flag::END_STREAM) {
                    self.lost |= self.unfinished.len() >= UNFINISHED_MAX;
                    if !self.lost {
                        self.unfinished.push(frame.stream);
                    }
                }
            }
            kind::HEADERS if self.is_ended(frame.stream) => return Err(Violation::Forbidden(STREAM_CLOSED)),
            // Trailers (RFC 9113 section 8.1): the codec would pass over it.
            kind::HEADERS if frame.pseudo || self.table.begins_with_pseudo() => {
                return Err(Violation::Forbidden(PROTOCOL_ERROR));
            }
            kind::DATA if self.is_ended(frame.stream) => return Err(Violation::Forbidden(STREAM_CLOSED)),
            kind::RST_STREAM => self.unfinished.retain(|stream| *stream != frame.stream),
            kind::HEADERS | kind::DATA if frame.has(flag::END_STREAM) => {
                self.unfinished.retain(|stream| *stream != frame.stream);
            }
            _ => {}
        }
        Ok(())
    }

    /// Whether the client has opened that stream and ended it. On stream 0, and on one that was never opened, a frame is
    /// another error, and the codec's.
    fn is_ended(&self, stream: u32) -> bool {
        let opened = stream % 2 == 1 && (self.first..=self.highest).contains(&stream);
        opened && !self.lost && !self.unfinished.contains(&stream)
    }

    fn weigh(&mut self, frame: &Frame) -> Result<(), Reason> {
        match frame.kind {
            kind::DATA => match frame.length.saturating_sub(frame.padding) {
                0 if !frame.has(flag::END_STREAM) => self.count(Count::EmptyData),
                1..SMALL_DATA if self.reset.contains(&frame.stream) => self.count(Count::Late),
                _ => Ok(()),
            },
            kind::HEADERS => {
                self.updates_due = (self.updates_due + 2).min(CREDIT_MAX);
                self.priorities_due = (self.priorities_due + 1).min(CREDIT_MAX);
                let block = Block { octets: frame.length, continuations: 0 };
                self.block_goes_on(frame, block)
            }
            kind::CONTINUATION => {
                // One without a block is an error of the protocol, which the codec finds.
                let Some(block) = self.block else { return Ok(()) };
                let continuations = block.continuations + 1;
                if continuations > CONTINUATIONS_FREE {
                    self.count(Count::Continuation)?;
                }
                let octets = block.octets.saturating_add(frame.length);
                self.block_goes_on(frame, Block { octets, continuations })
            }
            kind::PRIORITY | kind::PRIORITY_UPDATE if self.priorities_due > 0 => {
                self.priorities_due -= 1;
                Ok(())
            }
            kind::PRIORITY | kind::PRIORITY_UPDATE => self.count(Count::Priority),
            kind::RST_STREAM => self.count(Count::Reset),
            kind::SETTINGS if frame.has(flag::ACK) => Ok(()),
            kind::SETTINGS => self.count(Count::Settings),
            kind::PING if self.pings_due > 0 => {
                self.pings_due -= 1;
                Ok(())
            }
            kind::PING => self.count(Count::Ping),
            kind::WINDOW_UPDATE if self.updates_due > 0 => {
                self.updates_due -= 1;
                Ok(())
            }
            kind::WINDOW_UPDATE => self.count(Count::WindowUpdate),
            _ => self.count(Count::Other),
        }
    }

    fn block_goes_on(&mut self, frame: &Frame, block: Block) -> Result<(), Reason> {
        if block.octets > self.thresholds.header_block {
            return Err(Reason::H2HeaderList);
        }
        self.block = (!frame.has(flag::END_HEADERS)).then_some(block);
        self.decodes |= self.block.is_none();
        Ok(())
    }

    fn count(&mut self, what: Count) -> Result<(), Reason> {
        let limits = &self.thresholds;
        let (limit, reason) = match what {
            Count::Reset => (limits.resets, Reason::H2RapidReset),
            Count::Provoked => (limits.resets, Reason::H2MadeYouReset),
            Count::Ping => (limits.pings, Reason::H2PingFlood),
            Count::Settings => (limits.settings, Reason::H2SettingsFlood),
            Count::EmptyData => (limits.empty_data, Reason::H2EmptyDataFlood),
            Count::WindowUpdate => (limits.window_updates, Reason::H2WindowUpdateFlood),
            Count::Continuation => (limits.continuations, Reason::H2ContinuationFlood),
            Count::Priority => (limits.priorities, Reason::H2PriorityFlood),
            Count::Other => (limits.glitches, Reason::H2ProtocolError),
            Count::Late => (LATE_MAX, Reason::H2EmptyDataFlood),
        };
        let count = &mut self.counts[what as usize];
        *count += 1;
        self.total += u32::from(what != Count::Late);
        if *count > limit || self.total > limits.glitches { Err(reason) } else { Ok(()) }
    }
}

#[cfg(test)]
#[path = "guard_tests.rs"]
mod tests;
