//! The two directions of one side of a tunnel: a connection, or a stream of HTTP/2.
//!
//! Owns receiving and sending of bytes whose meaning nobody here knows. From connection to connection they are sent from
//! where they were received; what a stream takes part in is copied once at most.

use std::cell::Cell;
use std::io;
use std::time::Duration;

use bytes::Bytes;

use super::channel::{Channel, Receive, UpstreamStream};
use super::client::{Client, Http1, Http2, StreamBody};
use super::cut::{Cut, unless};
use crate::http::h2::SendBody;
use crate::net::deadline::SendLimit;
use crate::tls::{Intake, Tx};
use crate::upstream::UpstreamConnection;

/// Limits on waiting for a stream are the tunnel's.
const NO_LIMIT: Duration = Duration::from_secs(365 * 86_400);

/// Where bytes come from.
pub enum Inflow<'a> {
    Socket(&'a mut Intake),
    Stream { body: &'a mut StreamBody, unread: Bytes, halt: &'a Cell<bool> },
}

/// Where bytes go to.
pub enum Outflow<'a> {
    Socket(&'a mut Tx),
    Stream { body: &'a mut SendBody, halt: &'a Cell<bool> },
}

/// Flags that end the two directions of a stream.
#[derive(Default)]
pub struct Halts {
    receiving: Cell<bool>,
    sending: Cell<bool>,
}

/// A side, and what ends its directions.
pub struct Side<'a> {
    pub inflow: Inflow<'a>,
    pub outflow: Outflow<'a>,
    pub cut_inflow: Cut<'a>,
    pub cut_outflow: Cut<'a>,
}

impl<'a> Side<'a> {
    /// A connection, whose time limits are disarmed.
    pub fn of_connection(intake: &'a mut Intake, tx: &'a mut Tx) -> Self {
        intake.rx.deadline().disarm();
        tx.deadline().disarm();
        Self {
            cut_inflow: Cut::Socket(intake.rx.deadline().cutter()),
            cut_outflow: Cut::Socket(tx.deadline().cutter()),
            inflow: Inflow::Socket(intake),
            outflow: Outflow::Socket(tx),
        }
    }

    /// The client's side, once it was told that the tunnel is open. `None`: a stream that was not.
    pub fn of_client(client: &'a mut Client<'_>, halts: &'a Halts) -> Option<Self> {
        match client {
            Client::Http1(Http1 { intake, tx, .. }) => Some(Self::of_connection(intake, tx)),
            Client::Http2(Http2 { body, reply, .. }) => Some(Self {
                inflow: Inflow::Stream { body, unread: Bytes::new(), halt: &halts.receiving },
                outflow: Outflow::Stream { body: reply.body.as_mut()?, halt: &halts.sending },
                cut_inflow: Cut::Stream(&halts.receiving),
                cut_outflow: Cut::Stream(&halts.sending),
            }),
        }
    }
}

impl<'a> Side<'a> {
    /// The target's side. `None`: a stream that is over.
    pub fn of_upstream(channel: &'a mut Channel, halts: &'a Halts) -> Option<Self> {
        match channel {
            Channel::Http1(connection) => {
                let UpstreamConnection { intake, tx, .. } = connection;
                Some(Self::of_connection(intake, tx))
            }
            Channel::Http2(stream) => {
                let UpstreamStream { send, receive: Receive::Body { body, .. }, .. } = &mut **stream else {
                    return None;
                };
                Some(Self {
                    inflow: Inflow::Stream { body, unread: Bytes::new(), halt: &halts.receiving },
                    outflow: Outflow::Stream { body: send, halt: &halts.sending },
                    cut_inflow: Cut::Stream(&halts.receiving),
                    cut_outflow: Cut::Stream(&halts.sending),
                })
            }
        }
    }
}

impl Inflow<'_> {
    /// What was received and not passed on.
    pub fn unread(&self) -> &[u8] {
        match self {
            Self::Socket(intake) => intake.unread(),
            Self::Stream { unread, .. } => unread,
        }
    }

    /// Receives more; zero bytes are the end.
    ///
    /// # Errors
    /// The other side broke off.
    pub async fn receive(&mut self, room: usize) -> io::Result<usize> {
        match self {
            Self::Socket(intake) => intake.receive(room).await,
            Self::Stream { body, unread, halt } => match unless(halt, body.body.data(NO_LIMIT)).await {
                None | Some(Ok(None)) => Ok(0),
                Some(Ok(Some(data))) => {
                    *unread = data;
                    Ok(unread.len())
                }
                Some(Err(_)) => Err(io::ErrorKind::ConnectionReset.into()),
            },
        }
    }

    /// Frees what a quiet side need not hold.
    pub fn relax(&mut self) {
        if let Self::Socket(intake) = self {
            intake.relax();
        }
    }

    /// Passes the first `len` bytes on, and forgets them.
    ///
    /// # Errors
    /// The receiver takes no more.
    pub async fn pass(&mut self, len: usize, to: &mut Outflow<'_>) -> io::Result<()> {
        match (&mut *self, &mut *to) {
            (Self::Socket(intake), Outflow::Socket(tx)) => {
                let (buffer, start) = intake.buffer_mut();
                buffer.truncate(start + len);
                if len > 0 {
                    tx.send_from(buffer, start).await?;
                }
                intake.consume(len);
            }
            (Self::Socket(intake), to) => {
                to.say(&intake.unread()[..len]).await?;
                intake.consume(len);
            }
            (Self::Stream { body, unread, .. }, to) => {
                let data = unread.split_to(len);
                body.body.beside(to.say(&data)).await?;
                body.body.release(len);
            }
        }
        Ok(())
    }
}

impl Outflow<'_> {
    /// Sends bytes.
    ///
    /// # Errors
    /// The receiver takes no more.
    pub async fn say(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            _ if bytes.is_empty() => Ok(()),
            Self::Socket(tx) => tx.send(&mut bytes.to_vec()).await,
            Self::Stream { body, halt } => {
                match unless(
                    halt,
                    body.data(Bytes::copy_from_slice(bytes), false, SendLimit::whole(NO_LIMIT)),
                )
                .await
                {
                    Some(Ok(())) => Ok(()),
                    _ => Err(io::ErrorKind::BrokenPipe.into()),
                }
            }
        }
    }

    /// Gives what is sent last a time limit of its own.
    pub fn limit(&self, time: Duration) {
        if let Self::Socket(tx) = self {
            tx.deadline().arm(time);
        }
    }

    /// Says that nothing more is sent.
    pub async fn finish(&mut self) {
        match self {
            Self::Socket(tx) => tx.finish().await,
            Self::Stream { body, .. } => {
                // A stream that is over has ended already.
                let _ = body.finish();
            }
        }
    }
}
