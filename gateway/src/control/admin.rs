//! The operator's interface: HTTP over a unix socket, and a read-only part of it over loopback TCP.
//!
//! | request | answer | unix socket | TCP |
//! |---|---|---|---|
//! | `GET /metrics` | Prometheus text, version 0.0.4 | yes | yes |
//! | `GET /status` | JSON | yes | yes |
//! | `GET /status/ready` | 200 `ready`, 503 `starting` or `draining` | yes | yes |
//! | `GET /config` | the configuration in force, secrets masked | yes | 403 |
//! | `POST /reload` | JSON, 200 or 422 | yes | 403 |
//! | `GET`, `POST`, `DELETE /bans`, `GET /why`, `/top`, `/drops` | JSON, see [`super::operate`] | yes | 403 |
//!
//! Whoever may open the socket (mode 0600) is the operator. A TCP port of the loopback address is open to
//! every user of the machine, and to any web page that a browser on it shows: no change is made over it, and
//! a `Host` that is not the loopback address is refused, which stops DNS rebinding.
//!
//! Owns: the listeners and the shape of requests. Never: an answer of its own; each question goes to the
//! control loop ([`Ask`]), which alone knows the state. Invariant: nothing in here can panic.

use std::io;
use std::net::SocketAddr;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, post};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use super::status::{ReloadReport, State as Life, Status};
use super::{Event, ledger, operate};

/// A question to the control loop, with the way back for its answer.
pub enum Ask {
    Ledger(ledger::Ask),
    Config(oneshot::Sender<String>),
    Metrics(oneshot::Sender<String>),
    Ready(oneshot::Sender<Life>),
    Reload(oneshot::Sender<ReloadReport>),
    Status(oneshot::Sender<Box<Status>>),
}

/// The way to the control loop.
pub type Events = mpsc::Sender<Event>;

/// Answers over a unix socket until the runtime ends.
pub fn serve_socket(listener: UnixListener, events: Events) {
    let routes = readable().route("/config", get(config)).route("/reload", post(reload));
    let routes = operate::routes(routes).with_state(events);
    tokio::task::spawn_local(async move {
        if let Err(cause) = axum::serve(listener, routes).await {
            tracing::error!(%cause, "the admin socket is closed");
        }
    });
}

/// The admin interface's TCP port; nobody answers on it once this is dropped.
pub struct AdminPort {
    /// The same socket, for a successor.
    socket: std::net::TcpListener,
    task: JoinHandle<()>,
}

impl AdminPort {
    /// Answers on `socket`, which is bound to a loopback address.
    ///
    /// # Errors
    /// No descriptors are left.
    pub fn open(socket: std::net::TcpListener, events: Events) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        let task = serve_tcp(TcpListener::from_std(socket.try_clone()?)?, events);
        Ok(Self { socket, task })
    }

    /// The socket once more.
    ///
    /// # Errors
    /// No descriptors are left.
    pub fn socket(&self) -> io::Result<std::net::TcpListener> {
        self.socket.try_clone()
    }
}

impl Drop for AdminPort {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn serve_tcp(listener: TcpListener, events: Events) -> JoinHandle<()> {
    let routes = readable().route("/config", get(socket_only)).route("/reload", post(socket_only));
    let routes = operate::PATHS.iter().fold(routes, |routes, path| routes.route(path, any(socket_only)));
    let routes = routes.layer(middleware::from_fn(loopback_names_only)).with_state(events);
    tokio::task::spawn_local(async move {
        if let Err(cause) = axum::serve(listener, routes).await {
            tracing::error!(%cause, "the admin port is closed");
        }
    })
}

fn readable() -> Router<Events> {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/status", get(status))
        .route("/status/ready", get(ready))
}

/// Puts a question to the control loop; the error is the answer when the loop has ended.
pub async fn put<T>(events: &Events, ask: impl FnOnce(oneshot::Sender<T>) -> Ask) -> Result<T, StatusCode> {
    let (sender, answer) = oneshot::channel();
    events.send(Event::Ask(ask(sender))).await.map_err(|_| StatusCode::SERVICE_UNAVAILABLE)?;
    answer.await.map_err(|_| StatusCode::SERVICE_UNAVAILABLE)
}

async fn metrics(State(events): State<Events>) -> Result<impl IntoResponse, StatusCode> {
    let text = put(&events, Ask::Metrics).await?;
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text))
}

async fn status(State(events): State<Events>) -> Result<impl IntoResponse, StatusCode> {
    Ok(axum::Json(put(&events, Ask::Status).await?))
}

async fn ready(State(events): State<Events>) -> Result<impl IntoResponse, StatusCode> {
    Ok(match put(&events, Ask::Ready).await? {
        Life::Starting => (StatusCode::SERVICE_UNAVAILABLE, "starting\n"),
        Life::Serving => (StatusCode::OK, "ready\n"),
        Life::Draining => (StatusCode::SERVICE_UNAVAILABLE, "draining\n"),
    })
}

async fn config(State(events): State<Events>) -> Result<impl IntoResponse, StatusCode> {
    let text = put(&events, Ask::Config).await?;
    Ok(([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], text))
}

async fn reload(State(events): State<Events>) -> Result<impl IntoResponse, StatusCode> {
    let report = put(&events, Ask::Reload).await?;
    let code = if report.ok { StatusCode::OK } else { StatusCode::UNPROCESSABLE_ENTITY };
    Ok((code, axum::Json(report)))
}

async fn socket_only() -> impl IntoResponse {
    (StatusCode::FORBIDDEN, "only over the admin socket\n")
}

async fn loopback_names_only(request: Request, next: Next) -> Response {
    if names_loopback(request.headers()) {
        next.run(request).await
    } else {
        (StatusCode::FORBIDDEN, "the Host must be the loopback address\n").into_response()
    }
}

fn names_loopback(headers: &HeaderMap) -> bool {
    let Some(host) = headers.get(header::HOST) else { return true };
    let Ok(host) = host.to_str() else { return false };
    if let Ok(address) = host.parse::<SocketAddr>() {
        return address.ip().is_loopback();
    }
    let name = host.split_once(':').map_or(host, |(name, _)| name);
    name.eq_ignore_ascii_case("localhost")
        || name.parse::<std::net::Ipv4Addr>().is_ok_and(|address| address.is_loopback())
        || host == "[::1]"
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpStream;

    use super::*;

    /// A port whose questions are all answered, except that nobody may ask for a reload or the configuration.
    async fn open_port() -> SocketAddr {
        let (events, mut questions) = mpsc::channel(8);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        serve_tcp(listener, events);
        tokio::task::spawn_local(async move {
            while let Some(Event::Ask(ask)) = questions.recv().await {
                match ask {
                    Ask::Metrics(reply) => drop(reply.send("a 1\n".into())),
                    Ask::Ready(reply) => drop(reply.send(Life::Serving)),
                    // Dropping the way back makes it a 503, which no test expects.
                    _ => {}
                }
            }
        });
        address
    }

    async fn ask(address: SocketAddr, line: &'static str, host: String) -> String {
        let job = tokio::task::spawn_blocking(move || {
            let mut stream = TcpStream::connect(address).unwrap();
            write!(stream, "{line} HTTP/1.0\r\n{host}Content-Length: 0\r\n\r\n").unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            answer
        });
        job.await.unwrap()
    }

    #[test]
    fn the_port_only_reads_and_only_for_loopback_names() {
        for runtime in super::super::runtime::tests::both() {
            runtime.block_on(async {
                let address = open_port().await;
                let host = format!("Host: {address}\r\n");
                let metrics = ask(address, "GET /metrics", host.clone()).await;
                assert!(metrics.starts_with("HTTP/1.0 200") && metrics.ends_with("a 1\n"), "{metrics}");
                assert!(metrics.contains("text/plain; version=0.0.4"), "{metrics}");
                let ready = ask(address, "GET /status/ready", "Host: localhost\r\n".into()).await;
                assert!(ready.starts_with("HTTP/1.0 200"), "{ready}");
                for line in ["POST /reload", "GET /config"] {
                    let answer = ask(address, line, host.clone()).await;
                    assert!(answer.starts_with("HTTP/1.0 403"), "{line}: {answer}");
                }
                let rebound = ask(address, "GET /metrics", "Host: attacker.example\r\n".into()).await;
                assert!(rebound.starts_with("HTTP/1.0 403"), "{rebound}");
            });
        }
    }

    #[test]
    fn loopback_names() {
        let check = |host: &'static str, expected: bool| {
            let headers = HeaderMap::from_iter([(header::HOST, header::HeaderValue::from_static(host))]);
            assert_eq!(names_loopback(&headers), expected, "{host}");
        };
        for host in ["localhost", "LOCALHOST:9", "127.0.0.1", "127.0.0.2:80", "[::1]", "[::1]:80"] {
            check(host, true);
        }
        for host in ["", "a.example", "localhost.a.example", "127.0.0.1.a.example", "10.0.0.1:80", "[::2]:80"]
        {
            check(host, false);
        }
        assert!(names_loopback(&HeaderMap::new()));
    }
}
