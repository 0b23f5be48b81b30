//! Runs the request body beside the response.
//!
//! A request body that did not arrive with its head is sent upstream by a future of its own, while the exchange waits
//! for the response and relays it: an upstream may answer before it has read the body, and must not be made to
//! deadlock with us if it streams in both directions. The time limit of the whole exchange runs beside both.

use std::future::Future;
use std::pin::{Pin, pin};
use std::task::Poll;

use super::expiry::Expiry;
use super::relay::RelayError;

/// A request body on its way, or its result.
pub struct Pump<'a> {
    body: Body<'a>,
    expiry: &'a Expiry,
}

/// See [`Pump`].
pub enum Body<'a> {
    Running(Pin<Box<dyn Future<Output = Result<(), RelayError>> + 'a>>),
    /// Finished, or there never was a body to stream.
    Done(Result<(), RelayError>),
}

impl<'a> Pump<'a> {
    /// A body, and the limit of its exchange.
    pub fn new(body: Body<'a>, expiry: &'a Expiry) -> Self {
        Self { body, expiry }
    }

    /// The limit of the exchange.
    pub fn expiry(&self) -> &'a Expiry {
        self.expiry
    }

    /// Whether the body has been sent whole.
    pub fn is_complete(&self) -> bool {
        matches!(self.body, Body::Done(Ok(())))
    }

    /// How the body ended, if it has.
    pub fn result(&self) -> Option<&Result<(), RelayError>> {
        match &self.body {
            Body::Running(_) => None,
            Body::Done(result) => Some(result),
        }
    }

    /// Runs `other` to its end, and the pump beside it.
    ///
    /// When the body cannot be completed for the sender's fault, or the time of the exchange is over, `give_up` is called
    /// so that `other` ends too (it shuts the upstream connection down). Otherwise `over` is called once the target has
    /// all it will get of the body; a receiver that no longer reads does not end `other`, as its answer may be on the way.
    pub async fn beside<T>(
        &mut self,
        other: impl Future<Output = T>,
        give_up: impl Fn(),
        over: impl Fn(),
    ) -> T {
        if matches!(self.body, Body::Done(_)) && self.expiry.is_idle() {
            return other.await;
        }
        let mut other = pin!(other);
        std::future::poll_fn(|cx| {
            if self.expiry.poll(cx).is_ready() {
                give_up();
            }
            if let Body::Running(body) = &mut self.body
                && let Poll::Ready(result) = body.as_mut().poll(cx)
            {
                match &result {
                    Ok(()) => over(),
                    Err(error) if error.is_of_receiver() => over(),
                    Err(_) => give_up(),
                }
                self.body = Body::Done(result);
            }
            other.as_mut().poll(cx)
        })
        .await
    }

    /// Awaits a pump whose sockets were shut down; it must not be dropped while an operation is in flight.
    pub async fn settle(&mut self) {
        if let Body::Running(body) = &mut self.body {
            let result = body.as_mut().await;
            self.body = Body::Done(result);
        }
    }
}
