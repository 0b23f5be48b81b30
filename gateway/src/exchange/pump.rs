//! Runs the request body beside the response.
//!
//! A request body that did not arrive with its head is sent upstream by a future of its own, while the exchange waits
//! for the response and relays it: an upstream may answer before it has read the body, and must not be made to
//! deadlock with us if it streams in both directions.

use std::future::Future;
use std::pin::{Pin, pin};
use std::task::Poll;

use super::relay::RelayError;

/// A request body on its way, or its result.
pub enum Pump<'a> {
    Running(Pin<Box<dyn Future<Output = Result<(), RelayError>> + 'a>>),
    /// Finished, or there never was a body to stream.
    Done(Result<(), RelayError>),
}

impl Pump<'_> {
    /// Whether the body has been sent whole.
    pub fn is_complete(&self) -> bool {
        matches!(self, Self::Done(Ok(())))
    }

    /// Runs `other` to its end, and the pump beside it.
    ///
    /// When the body cannot be completed for the sender's fault, `give_up` is called so that `other` ends too (it shuts
    /// the upstream connection down). Otherwise `over` is called once the target has all it will get of the body; a
    /// receiver that no longer reads does not end `other`, as its answer may be on the way.
    pub async fn beside<T>(
        &mut self,
        other: impl Future<Output = T>,
        give_up: impl Fn(),
        over: impl Fn(),
    ) -> T {
        let Self::Running(_) = self else { return other.await };
        let mut other = pin!(other);
        std::future::poll_fn(|cx| {
            if let Self::Running(body) = self
                && let Poll::Ready(result) = body.as_mut().poll(cx)
            {
                match &result {
                    Ok(()) | Err(RelayError::Sink | RelayError::SinkTimedOut) => over(),
                    Err(_) => give_up(),
                }
                *self = Self::Done(result);
            }
            other.as_mut().poll(cx)
        })
        .await
    }

    /// Awaits a pump whose sockets were shut down; it must not be dropped while an operation is in flight.
    pub async fn settle(&mut self) {
        if let Self::Running(body) = self {
            let result = body.as_mut().await;
            *self = Self::Done(result);
        }
    }
}
