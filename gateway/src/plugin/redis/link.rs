//! One connection to one Redis server, as one shard uses it.
//!
//! Owns connecting, logging in, and sending what is asked in batches: while one batch is answered, the next one gathers.
//! Never decides what a reply means.
//!
//! | state | who asks |
//! |---|---|
//! | new | waits for the connection |
//! | up | waits for the reply, at most the time limit |
//! | away: the last try failed | is told so at once; a try beside it finds out when the server is back |
//!
//! **Invariant.** Whoever asks is answered within the time limit and a little more, or told that the server is away. The
//! queue is bounded.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::task::{Poll, Waker};
use std::time::Duration;

use super::resp::{self, REPLY_MAX, Reply};
use super::sentinel::{self, Sentinels};
use super::{Away, Server};
use crate::net::{self, clock};
use crate::tls::{self, Intake, Tx};

/// Most that wait for one connection.
const QUEUE_MAX: usize = 4096;
/// Between two tries to reach a server that is away: at first, and at most.
const PAUSE_MIN: Duration = Duration::from_millis(200);
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// Between two looks at a name that is being looked up.
const RESOLVE_PAUSE: Duration = Duration::from_millis(5);

/// One server on one shard.
pub struct Link {
    server: Arc<Server>,
    host: String,
    port: u16,
    queue: RefCell<Vec<Rc<Question>>>,
    idle: RefCell<Option<Connection>>,
    /// A task sends, connects, or waits to try again.
    busy: Cell<bool>,
    away: Cell<bool>,
    /// The connection is to be given up for another one.
    outdated: Cell<bool>,
    /// The sentinel that answered last.
    sentinel: Cell<usize>,
}

/// What is asked, until it is answered.
struct Question {
    request: Vec<u8>,
    /// Commands in it; the reply to the last one is the answer.
    commands: usize,
    asked_ns: u64,
    answer: RefCell<Option<Result<Reply, Away>>>,
    waker: RefCell<Option<Waker>>,
}

struct Connection {
    intake: Intake,
    tx: Tx,
}

impl Question {
    fn answered(&self, answer: Result<Reply, Away>) {
        *self.answer.borrow_mut() = Some(answer);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

impl Link {
    pub fn new(server: Arc<Server>, host: &str, port: u16) -> Rc<Self> {
        Rc::new(Self {
            server,
            host: host.to_owned(),
            port,
            queue: RefCell::default(),
            idle: RefCell::default(),
            busy: Cell::new(false),
            away: Cell::new(false),
            outdated: Cell::new(false),
            sentinel: Cell::new(0),
        })
    }

    /// Where it leads.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Whether the server is known to be away: asking is no use.
    pub fn is_away(self: &Rc<Self>) -> bool {
        self.away.get()
    }

    /// Connects anew before the next question.
    pub fn renew(&self) {
        self.outdated.set(true);
    }

    /// Sends `request`, of so many commands, and waits for the reply to the last.
    ///
    /// # Errors
    /// [`Away`] where there is no reply in time.
    pub async fn ask(self: &Rc<Self>, request: Vec<u8>, commands: usize) -> Result<Reply, Away> {
        if self.away.get() || self.queue.borrow().len() >= QUEUE_MAX {
            return Err(Away);
        }
        let question = Rc::new(Question {
            request,
            commands,
            asked_ns: clock::now_ns(),
            answer: RefCell::default(),
            waker: RefCell::default(),
        });
        self.queue.borrow_mut().push(question.clone());
        if !self.busy.replace(true) {
            net::spawn(self.clone().work());
        }
        poll_fn(move |cx| match question.answer.borrow_mut().take() {
            Some(answer) => Poll::Ready(answer),
            None => {
                *question.waker.borrow_mut() = Some(cx.waker().clone());
                Poll::Pending
            }
        })
        .await
    }

    /// Answers all that is asked, and ends.
    async fn work(self: Rc<Self>) {
        let kept = self.idle.take().filter(|connection| connection.intake.rx.is_quiet());
        let mut connection = match kept {
            Some(connection) => Some(connection),
            None => self.connect().await,
        };
        let mut batch = Vec::new();
        while let Some(open) = &mut connection {
            if self.outdated.take() {
                connection = self.connect().await;
                continue;
            }
            batch.clear();
            batch.append(&mut self.queue.borrow_mut());
            if batch.is_empty() {
                break;
            }
            let answered = open.exchange(&batch, self.server.timeout).await;
            if answered < batch.len() {
                batch.drain(answered..).for_each(|question| question.answered(Err(Away)));
                connection = None;
            }
        }
        match connection {
            Some(open) => {
                *self.idle.borrow_mut() = Some(open);
                self.busy.set(false);
            }
            None => self.recover().await,
        }
    }

    /// Tells those who wait that the server is away, and tries until it is back.
    async fn recover(self: &Rc<Self>) {
        self.away.set(true);
        self.server.lost(&self.host, self.port);
        let mut pause = PAUSE_MIN;
        loop {
            self.queue.take().into_iter().for_each(|question| question.answered(Err(Away)));
            // Nobody but this task uses the server any more.
            if Rc::strong_count(self) == 1 {
                break;
            }
            net::sleep(pause).await;
            if let Some(open) = self.connect().await {
                *self.idle.borrow_mut() = Some(open);
                self.server.found(&self.host, self.port);
                break;
            }
            pause = (pause * 2).min(PAUSE_MAX);
        }
        self.away.set(false);
        self.busy.set(false);
    }

    async fn connect(&self) -> Option<Connection> {
        let end = clock::now_ns().saturating_add(self.server.timeout.as_nanos() as u64);
        let Some(sentinels) = &self.server.sentinels else {
            return Some(self.open(&self.host, self.port, self.server.greeting(), end).await?.0);
        };
        let (host, port) = self.master(sentinels, end).await?;
        let (connection, role) = self.open(&host, port, self.server.greeting(), end).await?;
        sentinel::is_master(&role).then_some(connection)
    }

    /// Where the master is, by the first sentinel that knows. Each has its part of the time.
    async fn master(&self, sentinels: &Sentinels, end: u64) -> Option<(String, u16)> {
        let count = sentinels.nodes.len();
        for tried in 0..count {
            let at = (self.sentinel.get() + tried) % count;
            let (host, port) = &sentinels.nodes[at];
            let now = clock::now_ns();
            // One part is for the master itself.
            let part = now + end.saturating_sub(now) / (count - tried + 1) as u64;
            let asked = self.open(host, *port, sentinels.question(), part).await;
            if let Some(master) = asked.and_then(|(_, reply)| sentinel::master(&reply)) {
                self.sentinel.set(at);
                return Some(master);
            }
        }
        None
    }

    /// A connection whose greeting was answered without an error, until `end`, and the last answer.
    async fn open(
        &self,
        host: &str,
        port: u16,
        (greeting, commands): (Vec<u8>, usize),
        end: u64,
    ) -> Option<(Connection, Reply)> {
        let left = || Duration::from_nanos(end.saturating_sub(clock::now_ns()).max(1));
        let address = address(host, port, end).await?;
        let stream = net::connect(address, left()).await.ok()?;
        stream.rx.deadline.arm(left());
        stream.tx.deadline.arm(left());
        let stream = match &self.server.tls {
            None => tls::Stream::plain(stream),
            Some(config) => {
                let name = self.server.server_name.as_deref().unwrap_or(host);
                let session = tls::Session::client(&config.for_shard(), name).ok()?;
                tls::Stream::handshake(stream, session, Vec::new()).await.ok()?
            }
        };
        let mut connection = Connection { intake: Intake::new(stream.rx, 0), tx: stream.tx };
        connection.send(greeting, left()).await?;
        let mut last = Reply::Nil;
        for _ in 0..commands {
            last = connection.receive(left()).await?;
            if let Reply::Error(said) = &last {
                self.server.refused(host, port, said);
                return None;
            }
        }
        Some((connection, last))
    }
}

/// The address of a host. A name is looked up on a thread of its own, because that blocks.
async fn address(host: &str, port: u16, end: u64) -> Option<SocketAddr> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return Some(SocketAddr::new(address, port));
    }
    let found = look_up(host.to_owned(), port)?;
    loop {
        match found.try_recv() {
            Ok(address) => return address,
            Err(TryRecvError::Disconnected) => return None,
            Err(TryRecvError::Empty) if clock::now_ns() >= end => return None,
            Err(TryRecvError::Empty) => net::sleep(RESOLVE_PAUSE).await,
        }
    }
}

fn look_up(host: String, port: u16) -> Option<Receiver<Option<SocketAddr>>> {
    let (found, receiver) = channel();
    let look = move || {
        let address = (host.as_str(), port).to_socket_addrs().ok().and_then(|mut all| all.next());
        // The receiver is gone when it took too long.
        let _ = found.send(address);
    };
    std::thread::Builder::new().name("resolve".into()).spawn(look).ok()?;
    Some(receiver)
}

impl Connection {
    /// Sends all questions and answers them in order; how many had an answer.
    async fn exchange(&mut self, batch: &[Rc<Question>], timeout: Duration) -> usize {
        let end = batch[0].asked_ns.saturating_add(timeout.as_nanos() as u64);
        // What waited in the queue for long still gets a moment.
        let least = timeout / 4;
        let left = || Duration::from_nanos(end.saturating_sub(clock::now_ns())).max(least);
        let request = batch.iter().flat_map(|question| question.request.iter().copied()).collect();
        if self.send(request, left()).await.is_none() {
            return 0;
        }
        for (answered, question) in batch.iter().enumerate() {
            let mut reply = None;
            for _ in 0..question.commands {
                reply = self.receive(left()).await;
                if reply.is_none() {
                    return answered;
                }
            }
            question.answered(reply.ok_or(Away));
        }
        batch.len()
    }

    async fn send(&mut self, mut bytes: Vec<u8>, limit: Duration) -> Option<()> {
        self.tx.deadline().arm(limit);
        self.tx.send(&mut bytes).await.ok()
    }

    async fn receive(&mut self, limit: Duration) -> Option<Reply> {
        loop {
            if let Some((reply, length)) = resp::parse(self.intake.unread()).ok()? {
                self.intake.consume(length);
                self.intake.rx.deadline().disarm();
                return Some(reply);
            }
            self.intake.rx.deadline().arm(limit);
            match self.intake.receive(REPLY_MAX).await {
                Ok(1..) => {}
                _ => return None,
            }
        }
    }
}
