//! Clients: byte-exact connections, a builder for ordinary requests, real programs, and load.
//!
//! [`Connection`] sends exactly the bytes it is given and reads one response at a time; it never
//! retries, follows or decodes. [`programs`] runs curl, Python, Node and openssl; [`background`] runs one beside a test; [`load`] keeps
//! connections busy and counts every failure; [`tls`] negotiates what the test wants.

pub mod background;
pub mod load;
pub mod programs;
pub mod tls;

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use crate::wire::{Body, Head, Inbox};

/// Longest wait for bytes from the gateway before an exchange is a failure.
const PATIENCE: Duration = Duration::from_secs(20);

/// A response as received.
#[derive(Debug, Clone)]
pub struct Response {
    pub status: u16,
    pub head: Head,
    pub body: Body,
    /// Interim (1xx) heads that came before it.
    pub interim: Vec<Head>,
}

impl Response {
    /// First value of a field, or the empty string.
    pub fn header(&self, name: &str) -> &str {
        self.head.get(name).unwrap_or_default()
    }

    /// Whether the field is present.
    pub fn has(&self, name: &str) -> bool {
        self.head.get(name).is_some()
    }

    /// The body as text.
    pub fn text(&self) -> String {
        self.body.text()
    }

    /// The body as JSON.
    ///
    /// # Panics
    /// When it is none, with the whole response.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body.bytes)
            .unwrap_or_else(|error| panic!("no JSON body ({error}): {} {:?}", self.head.start, self.text()))
    }

    /// Asserts the status and gives the response back.
    #[track_caller]
    pub fn expect(self, status: u16) -> Response {
        assert_eq!(self.status, status, "{} {:?} {:?}", self.head.start, self.head.fields, self.text());
        self
    }

    /// Headers that the origin received, from the body of an [`crate::origin::Echo`].
    #[track_caller]
    pub fn echoed(&self) -> Echoed {
        Echoed(self.json())
    }
}

/// What an echo origin received.
#[derive(Debug)]
pub struct Echoed(pub serde_json::Value);

impl Echoed {
    /// All values of a header that the origin received.
    pub fn all(&self, name: &str) -> Vec<&str> {
        let fields = self.0["headers"].as_array().into_iter().flatten();
        fields
            .filter(|pair| pair[0].as_str().is_some_and(|n| n.eq_ignore_ascii_case(name)))
            .filter_map(|pair| pair[1].as_str())
            .collect()
    }

    /// First value of a header that the origin received.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.all(name).first().copied()
    }

    /// Request target that the origin received.
    pub fn target(&self) -> &str {
        self.0["target"].as_str().unwrap_or_default()
    }

    /// Name of the echo that answered.
    pub fn origin(&self) -> &str {
        self.0["origin"].as_str().unwrap_or_default()
    }
}

/// One client connection.
#[derive(Debug)]
pub struct Connection {
    inbox: Inbox<TcpStream>,
}

impl Connection {
    /// Connects to `addr`.
    ///
    /// # Panics
    /// When the connection is refused.
    #[track_caller]
    pub fn open(addr: SocketAddr) -> Connection {
        Self::try_open(addr).unwrap_or_else(|error| panic!("connecting to {addr}: {error}"))
    }

    /// [`Connection::open`] that reports a refusal.
    ///
    /// # Errors
    /// Of connect.
    pub fn try_open(addr: SocketAddr) -> io::Result<Connection> {
        Self::over(TcpStream::connect(addr)?)
    }

    /// Takes a connected socket.
    ///
    /// # Errors
    /// Of setting its options.
    pub fn over(stream: TcpStream) -> io::Result<Connection> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Connection { inbox: Inbox::new(stream) })
    }

    /// Sends bytes as they are.
    ///
    /// # Panics
    /// When they cannot be sent.
    #[track_caller]
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        self.try_send(bytes.as_ref()).expect("sending to the gateway");
        self
    }

    /// [`Connection::send`] that reports failure.
    ///
    /// # Errors
    /// Of the socket.
    pub fn try_send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.inbox.stream().write_all(bytes)
    }

    /// Reads the next final response.
    ///
    /// # Panics
    /// When none comes whole.
    #[track_caller]
    pub fn response(&mut self) -> Response {
        self.try_response(false).expect("a response from the gateway")
    }

    /// Reads the response to a HEAD request.
    ///
    /// # Panics
    /// When none comes whole.
    #[track_caller]
    pub fn response_to_head(&mut self) -> Response {
        self.try_response(true).expect("a response from the gateway")
    }

    /// Reads the next final response; `to_head` tells that it has no body.
    ///
    /// # Errors
    /// `UnexpectedEof` when the connection ends before or inside it, and those of the socket.
    pub fn try_response(&mut self, to_head: bool) -> io::Result<Response> {
        let mut interim = Vec::new();
        loop {
            let head = self.try_head()?;
            let status = head.word(1).parse().unwrap_or(0);
            if (100..200).contains(&status) && status != 101 {
                interim.push(head);
                continue;
            }
            let body = self.inbox.body(head.response_framing(to_head))?;
            return Ok(Response { status, head, body, interim });
        }
    }

    /// Reads one head, interim or final, and nothing after it.
    ///
    /// # Errors
    /// As [`Connection::try_response`].
    pub fn try_head(&mut self) -> io::Result<Head> {
        self.inbox.head()?.ok_or_else(|| {
            io::Error::new(io::ErrorKind::UnexpectedEof, "the connection ended without a response")
        })
    }

    /// Reads exactly `len` bytes, whatever they are.
    ///
    /// # Panics
    /// When they do not come.
    #[track_caller]
    pub fn take(&mut self, len: usize) -> Vec<u8> {
        self.inbox.take(len).unwrap_or_else(|error| panic!("{len} bytes from the gateway: {error}"))
    }

    /// What else comes until the connection ends, in whatever way.
    pub fn read_to_end(&mut self) -> Vec<u8> {
        let mut rest = self.inbox.pending().to_vec();
        let _ = self.inbox.stream().read_to_end(&mut rest);
        rest
    }

    /// Asserts that the gateway closes the connection without another byte.
    #[track_caller]
    pub fn expect_closed(&mut self) {
        let mut rest = self.inbox.pending().to_vec();
        match self.inbox.stream().read_to_end(&mut rest) {
            Ok(_) => assert!(rest.is_empty(), "more bytes: {:?}", String::from_utf8_lossy(&rest)),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {}
            Err(error) => panic!("the connection was kept open: {error}"),
        }
    }

    /// Asserts that the connection is kept, by another exchange on it.
    #[track_caller]
    pub fn expect_kept(&mut self) {
        let response = self.send("GET / HTTP/1.1\r\nHost: kept.test\r\n\r\n").try_response(false);
        response.expect("the connection should have been kept open");
    }

    /// How many bytes have come that no response has used yet.
    pub fn pending(&self) -> usize {
        self.inbox.pending().len()
    }

    /// Whether bytes or the end come within `patience`; what comes stays to be read.
    pub fn readable_within(&mut self, patience: Duration) -> bool {
        let stream = self.inbox.stream();
        stream.set_read_timeout(Some(patience)).expect("a time limit");
        let peeked = stream.peek(&mut [0]);
        stream.set_read_timeout(Some(PATIENCE)).expect("a time limit");
        peeked.map_or_else(|error| error.kind() != io::ErrorKind::WouldBlock, |_| true)
    }

    /// Ends the connection with a TCP reset, as a program does that crashes.
    pub fn reset(mut self) {
        let stream = self.inbox.stream();
        socket2::SockRef::from(&*stream).set_linger(Some(Duration::ZERO)).expect("SO_LINGER");
    }

    /// Tells the gateway that no more bytes will come.
    #[track_caller]
    pub fn finish_sending(&mut self) {
        self.inbox.stream().shutdown(Shutdown::Write).expect("half-closing");
    }

    /// The socket, for what this type does not offer.
    pub fn stream(&mut self) -> &mut TcpStream {
        self.inbox.stream()
    }

    /// The local address.
    pub fn local_addr(&mut self) -> SocketAddr {
        self.inbox.stream().local_addr().expect("a bound socket")
    }
}

/// Sends `bytes` on a fresh connection and reads one response.
#[track_caller]
pub fn exchange(addr: SocketAddr, bytes: impl AsRef<[u8]>) -> Response {
    Connection::open(addr).send(bytes).response()
}

/// An ordinary request, written out as HTTP/1.1.
#[derive(Debug, Clone)]
pub struct Request {
    method: String,
    target: String,
    fields: Vec<(String, String)>,
    body: Option<Vec<u8>>,
    close: bool,
}

impl Request {
    /// A request with any method.
    pub fn new(method: &str, target: &str) -> Request {
        let (method, target) = (method.to_owned(), target.to_owned());
        Request { method, target, fields: Vec::new(), body: None, close: true }
    }

    /// A GET request.
    pub fn get(target: &str) -> Request {
        Request::new("GET", target)
    }

    /// A POST request with a body by `Content-Length`.
    pub fn post(target: &str, body: impl Into<Vec<u8>>) -> Request {
        let mut request = Request::new("POST", target);
        request.body = Some(body.into());
        request
    }

    /// Adds a header line.
    pub fn header(mut self, name: &str, value: impl AsRef<str>) -> Request {
        self.fields.push((name.to_owned(), value.as_ref().to_owned()));
        self
    }

    /// Leaves out `Connection: close`.
    pub fn keep(mut self) -> Request {
        self.close = false;
        self
    }

    /// The bytes. `Host: test` is added when no Host was given.
    pub fn bytes(&self) -> Vec<u8> {
        let mut text = format!("{} {} HTTP/1.1\r\n", self.method, self.target);
        if !self.fields.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
            text.push_str("Host: test\r\n");
        }
        for (name, value) in &self.fields {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        if self.close {
            text.push_str("Connection: close\r\n");
        }
        if let Some(body) = &self.body {
            text.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        text.push_str("\r\n");
        let mut bytes = text.into_bytes();
        bytes.extend_from_slice(self.body.as_deref().unwrap_or_default());
        bytes
    }

    /// Sends it on a fresh connection and reads the response.
    ///
    /// # Panics
    /// When no whole response comes.
    #[track_caller]
    pub fn send(&self, addr: SocketAddr) -> Response {
        self.send_on(&mut Connection::open(addr))
    }

    /// Sends it on a given connection and reads the response.
    ///
    /// # Panics
    /// When no whole response comes.
    #[track_caller]
    pub fn send_on(&self, connection: &mut Connection) -> Response {
        let to_head = self.method == "HEAD";
        let sent = connection.try_send(&self.bytes()).and_then(|()| connection.try_response(to_head));
        sent.unwrap_or_else(|error| panic!("{} {}: {error}", self.method, self.target))
    }
}
