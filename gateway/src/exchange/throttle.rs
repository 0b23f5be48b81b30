//! A body that passes no faster than it may.
//!
//! Owns the pauses. The body's own future is left alone meanwhile: nothing new is received or sent, and an operation that
//! is under way completes by itself.

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::Poll;

use crate::limit::Throttle;
use crate::net::{self, clock};

/// Awaits `body`, which counts its bytes in `payload`, with pauses.
pub async fn throttled<T>(
    throttle: Option<&Throttle>,
    payload: &Cell<u64>,
    body: impl Future<Output = T>,
) -> T {
    let Some(throttle) = throttle else { return body.await };
    let mut body = pin!(body);
    let mut pause: Option<Pin<Box<dyn Future<Output = ()>>>> = None;
    let mut counted = 0;
    poll_fn(|cx| {
        loop {
            if let Some(waiting) = &mut pause {
                if waiting.as_mut().poll(cx).is_pending() {
                    return Poll::Pending;
                }
                pause = None;
            }
            let outcome = body.as_mut().poll(cx);
            let bytes = payload.get() - counted;
            if outcome.is_ready() || bytes == 0 {
                return outcome;
            }
            counted += bytes;
            let wait = throttle.passed(clock::now_ns(), bytes);
            if wait.is_zero() {
                return outcome;
            }
            pause = Some(Box::pin(net::sleep(wait)));
        }
    })
    .await
}
