//! Writes the blocks of access log lines that shards hand over.
//!
//! Owns: the file or standard output, its reopening, and saying aloud that lines were lost. Never: the text
//! of a line (`log`), or a wait on a shard's thread. A disk that is slower than the traffic fills the
//! shards' queues; they drop and count.
//!
//! Invariant: one write is under way at a time, so blocks reach the file whole and in order.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::log::{Inbox, Lost};

/// Where lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    Off,
    Stdout,
    /// Appended to; created with mode 0640.
    File(PathBuf),
}

/// The running writer.
#[derive(Clone, Debug)]
pub struct AccessLog {
    orders: mpsc::Sender<Order>,
    inbox: Arc<Inbox>,
}

enum Order {
    Reopen,
    Switch(Destination, Sink),
    Finish(oneshot::Sender<()>),
}

enum Sink {
    Off,
    Stdout,
    /// Through the control thread's ring.
    Ring(tokio_uring::fs::File),
    /// Through a thread of its own, where there is no ring.
    Plain(Arc<std::fs::File>),
}

struct Writer {
    inbox: Arc<Inbox>,
    wake: UnixStream,
    orders: mpsc::Receiver<Order>,
    destination: Destination,
    sink: Sink,
    has_ring: bool,
    complaints: Complaints,
}

impl AccessLog {
    /// Opens the destination and starts the task that writes. Inside the runtime; `has_ring` says of which
    /// kind it is. `wake` is the socket of [`crate::log::channel`].
    ///
    /// # Errors
    /// The file cannot be opened for appending.
    pub fn start(
        inbox: Inbox,
        wake: StdUnixStream,
        destination: Destination,
        has_ring: bool,
    ) -> io::Result<Self> {
        let (sender, orders) = mpsc::channel(8);
        let inbox = Arc::new(inbox);
        let writer = Writer {
            inbox: Arc::clone(&inbox),
            wake: UnixStream::from_std(wake)?,
            orders,
            sink: Sink::open(&destination, has_ring)?,
            destination,
            has_ring,
            complaints: Complaints::default(),
        };
        tokio::task::spawn_local(writer.run());
        Ok(Self { orders: sender, inbox })
    }

    /// Opens the file anew, after logrotate has moved it.
    pub async fn reopen(&self) {
        let _ = self.orders.send(Order::Reopen).await;
    }

    /// Opens another destination; part of a reload, before it is published.
    ///
    /// # Errors
    /// The file cannot be opened for appending.
    pub fn prepare(&self, destination: &Destination, has_ring: bool) -> io::Result<Prepared> {
        Ok(Prepared(destination.clone(), Sink::open(destination, has_ring)?))
    }

    /// Writes to the prepared destination from the next block on.
    pub async fn switch(&self, prepared: Prepared) {
        let _ = self.orders.send(Order::Switch(prepared.0, prepared.1)).await;
    }

    /// Writes what is queued and ends the writer.
    pub async fn finish(&self) {
        let (sender, done) = oneshot::channel();
        if self.orders.send(Order::Finish(sender)).await.is_ok() {
            let _ = done.await;
        }
    }

    /// What shards had to drop so far.
    pub fn lost(&self) -> Lost {
        self.inbox.lost()
    }
}

/// A destination that is open and not yet written to.
pub struct Prepared(Destination, Sink);

impl Writer {
    async fn run(mut self) {
        loop {
            match self.next().await {
                None => {
                    self.inbox.clear_wake();
                    self.write_queued().await;
                }
                Some(Order::Reopen) => self.reopen().await,
                Some(Order::Switch(destination, sink)) => {
                    self.write_queued().await;
                    std::mem::replace(&mut self.sink, sink).close().await;
                    self.destination = destination;
                }
                Some(Order::Finish(done)) => {
                    self.write_queued().await;
                    std::mem::replace(&mut self.sink, Sink::Off).close().await;
                    let _ = done.send(());
                    return;
                }
            }
        }
    }

    /// The next order; `None` when a shard rang.
    async fn next(&mut self) -> Option<Order> {
        std::future::poll_fn(|cx| {
            if let Poll::Ready(Some(order)) = self.orders.poll_recv(cx) {
                return Poll::Ready(Some(order));
            }
            match self.wake.poll_read_ready(cx) {
                Poll::Pending => Poll::Pending,
                Poll::Ready(_) => {
                    let mut rings = [0; 64];
                    match self.wake.try_read(&mut rings) {
                        // Readiness was stale; the read has re-armed it.
                        Err(cause) if cause.kind() == io::ErrorKind::WouldBlock => {
                            cx.waker().wake_by_ref();
                            Poll::Pending
                        }
                        _ => Poll::Ready(None),
                    }
                }
            }
        })
        .await
    }

    async fn write_queued(&mut self) {
        let mut from = 0;
        while let Some((shard, block)) = self.inbox.take(&mut from) {
            let (result, block) = self.sink.write(block).await;
            self.inbox.give_back(shard, block);
            if let Err(cause) = result {
                self.complaints.write_failed(&cause);
            }
        }
        self.complaints.lines_lost(self.inbox.lost());
    }

    async fn reopen(&mut self) {
        // What is queued belongs to the time before the move.
        self.write_queued().await;
        match Sink::open(&self.destination, self.has_ring) {
            Ok(sink) => {
                std::mem::replace(&mut self.sink, sink).close().await;
                tracing::info!("access log reopened");
            }
            Err(cause) => {
                tracing::error!(%cause, "the access log cannot be reopened: lines go on into the old file");
            }
        }
    }
}

impl Sink {
    fn open(destination: &Destination, has_ring: bool) -> io::Result<Self> {
        let path = match destination {
            Destination::Off => return Ok(Self::Off),
            Destination::Stdout => return Ok(Self::Stdout),
            Destination::File(path) => path,
        };
        let file = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o640)
            .open(path)
            .map_err(|cause| io::Error::new(cause.kind(), format!("{}: {cause}", path.display())))?;
        Ok(if has_ring {
            Self::Ring(tokio_uring::fs::File::from_std(file))
        } else {
            Self::Plain(Arc::new(file))
        })
    }

    /// Writes a whole block and gives it back.
    async fn write(&self, block: Vec<u8>) -> (io::Result<()>, Vec<u8>) {
        match self {
            Self::Off => (Ok(()), block),
            // The offset counts for nothing: with O_APPEND the kernel writes at the end (pwrite(2), BUGS).
            Self::Ring(file) => file.write_all_at(block, 0).await,
            Self::Plain(file) => {
                let file = Arc::clone(file);
                on_a_thread(block, move |block| (&*file).write_all(block)).await
            }
            // A pipe whose reader is slow blocks, and must not block the control thread.
            Self::Stdout => on_a_thread(block, |block| io::stdout().lock().write_all(block)).await,
        }
    }

    async fn close(self) {
        if let Self::Ring(file) = self
            && let Err(cause) = file.close().await
        {
            tracing::warn!(%cause, "closing the access log");
        }
    }
}

async fn on_a_thread(
    block: Vec<u8>,
    write: impl FnOnce(&[u8]) -> io::Result<()> + Send + 'static,
) -> (io::Result<()>, Vec<u8>) {
    let job = tokio::task::spawn_blocking(move || {
        let result = write(&block);
        (result, block)
    });
    job.await.unwrap_or_else(|cause| (Err(io::Error::other(cause)), Vec::new()))
}

/// Says once in a while what goes wrong all the time.
#[derive(Default)]
struct Complaints {
    failed_writes: u64,
    lost: Lost,
    write_said: Option<Instant>,
    lost_said: Option<Instant>,
}

impl Complaints {
    fn write_failed(&mut self, cause: &io::Error) {
        self.failed_writes += 1;
        if due(&mut self.write_said) {
            let blocks = std::mem::take(&mut self.failed_writes);
            tracing::error!(%cause, blocks, "access log: blocks of lines could not be written");
        }
    }

    fn lines_lost(&mut self, lost: Lost) {
        if lost != self.lost && due(&mut self.lost_said) {
            let lines = lost.lines - self.lost.lines;
            tracing::warn!(lines, "access log: lines dropped, as the writer does not keep up");
            self.lost = lost;
        }
    }
}

fn due(said: &mut Option<Instant>) -> bool {
    let now = Instant::now();
    let due = said.is_none_or(|last| now - last >= COMPLAINT_INTERVAL);
    if due {
        *said = Some(now);
    }
    due
}

const COMPLAINT_INTERVAL: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::log::{Durations, Format, Hop, Record, ShardLog, channel};

    fn write_line(log: &mut ShardLog, path: &str) {
        let record = Record {
            unix_ms: 0,
            request_id: None,
            source: "192.0.2.1:4321".parse().unwrap(),
            client: "192.0.2.1".parse().unwrap(),
            method: Some(b"GET"),
            host: None,
            path: Some(path.as_bytes()),
            query: None,
            status: 200,
            reason: None,
            route: None,
            service: None,
            consumer: None,
            upstream: None,
            attempts: 0,
            request_bytes: 0,
            response_bytes: 0,
            durations: Durations::default(),
            user_agent: None,
            headers: &[],
            tls: None,
            hop: Hop::default(),
            http: "1.1",
            generation: 1,
            shard: 0,
        };
        log.write(0, &record);
    }

    fn paths(file: &std::path::Path) -> Vec<String> {
        let text = fs::read_to_string(file).unwrap();
        let parse = |line| serde_json::from_str::<serde_json::Value>(line).unwrap();
        text.lines().map(|line| parse(line)["path"].as_str().unwrap().to_owned()).collect()
    }

    async fn until(mut done: impl FnMut() -> bool) {
        for _ in 0..500 {
            if done() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("not within 5 s");
    }

    #[test]
    fn lines_reach_the_file_across_a_rotation_and_a_switch() {
        for runtime in super::super::runtime::tests::both() {
            let has_ring = runtime.refused().is_none();
            runtime.block_on(async {
                let folder = tempfile::tempdir().unwrap();
                let file = folder.path().join("access.log");
                let (inbox, mut outboxes, wake) = channel(2).unwrap();
                let destination = Destination::File(file.clone());
                let log = AccessLog::start(inbox, wake, destination, has_ring).unwrap();
                let mut shard = ShardLog::new(Format::default(), outboxes.remove(1));

                write_line(&mut shard, "/one");
                shard.flush();
                until(|| fs::metadata(&file).is_ok_and(|meta| meta.len() > 0)).await;
                assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o640);

                let moved = folder.path().join("access.log.1");
                fs::rename(&file, &moved).unwrap();
                write_line(&mut shard, "/two");
                shard.flush();
                log.reopen().await;
                until(|| file.exists()).await;
                write_line(&mut shard, "/three");
                shard.flush();
                assert_eq!(paths(&moved), ["/one", "/two"]);

                let other = folder.path().join("other.log");
                let bad = Destination::File(folder.path().join("no/such/folder/x.log"));
                assert!(log.prepare(&bad, has_ring).is_err());
                let prepared = log.prepare(&Destination::File(other.clone()), has_ring).unwrap();
                log.switch(prepared).await;
                until(|| paths(&file) == ["/three"]).await;
                for _ in 0..5_000 {
                    write_line(&mut shard, "/four");
                }
                shard.flush();
                log.finish().await;
                assert_eq!(paths(&other), vec!["/four"; 5_000]);
                assert_eq!(log.lost(), Lost::default());
            });
        }
    }
}
