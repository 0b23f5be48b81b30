//! A body that passes no faster than it may.
//!
//! Owns the pauses. The body's own future is left alone meanwhile: nothing new is received or sent, and an operation that
//! is under way completes by itself.

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

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
    // Who owes for earlier bodies waits before this one: many small bodies are not to pass for nothing.
    let mut pause = pause(throttle.passed(clock::now_ns(), 0));
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
            if bytes > 0 {
                counted += bytes;
                pause = self::pause(throttle.passed(clock::now_ns(), bytes));
            }
            if outcome.is_ready() || pause.is_none() {
                return outcome;
            }
        }
    })
    .await
}

type Pause = Pin<Box<dyn Future<Output = ()>>>;

fn pause(time: Duration) -> Option<Pause> {
    (!time.is_zero()).then(|| -> Pause { Box::pin(net::sleep(time)) })
}
