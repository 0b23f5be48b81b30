//! Signals, as events of the control loop.
//!
//! | signal | first | again |
//! |---|---|---|
//! | SIGHUP | reload the configuration, reopen logs | the same |
//! | SIGUSR1 | reopen logs, as logrotate asks after a move | the same |
//! | SIGTERM, SIGINT | drain, then exit 0 | exit at once |
//!
//! Owns: the subscription. Never: the action. Invariant: after [`watch`] no listed signal kills the process.

use std::io;

use tokio::signal::unix::{SignalKind, signal};

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    Reload,
    ReopenLogs,
    Stop,
}

impl Signal {
    const ALL: [(SignalKind, Self); 4] = [
        (SignalKind::hangup(), Self::Reload),
        (SignalKind::user_defined1(), Self::ReopenLogs),
        (SignalKind::terminate(), Self::Stop),
        (SignalKind::interrupt(), Self::Stop),
    ];
}

/// Calls `deliver` for each signal from now on; it returns false to end the watch. Inside the runtime.
///
/// # Errors
/// The process may not install handlers.
pub fn watch(deliver: impl AsyncFn(Signal) -> bool + Clone + 'static) -> io::Result<()> {
    for (kind, meaning) in Signal::ALL {
        let mut arrivals = signal(kind)?;
        let deliver = deliver.clone();
        tokio::task::spawn_local(async move {
            while arrivals.recv().await.is_some() {
                if !deliver(meaning).await {
                    break;
                }
            }
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn each_signal_has_its_meaning() {
        for runtime in super::super::runtime::tests::both() {
            runtime.block_on(async {
                let (sender, mut receiver) = tokio::sync::mpsc::channel(8);
                watch(async move |meaning| sender.send(meaning).await.is_ok()).unwrap();
                let expected = [
                    ("HUP", Signal::Reload),
                    ("USR1", Signal::ReopenLogs),
                    ("TERM", Signal::Stop),
                    ("INT", Signal::Stop),
                ];
                for (name, meaning) in expected {
                    let own = std::process::id().to_string();
                    assert!(Command::new("kill").args(["-s", name, &own]).status().unwrap().success());
                    assert_eq!(receiver.recv().await, Some(meaning), "{name}");
                }
            });
        }
    }
}
