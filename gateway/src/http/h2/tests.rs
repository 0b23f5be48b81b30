//! Both sides against each other, over a socket and without TLS.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use portcullis_abi::Reason;

use super::client::{Client, ClientError, Outgoing, Received};
use super::waiters::Waiters;
use super::*;
use crate::http::h1::{BodyFraming, HeadLimits};
use crate::http::{Head, PathPolicy, RequestHead, ResponseHead};
use crate::net::deadline::SendLimit;
use crate::net::{self, Driver, Listener};
use crate::tls::Stream;

const LONG: Duration = Duration::from_secs(20);

/// Serves every request with `serve`, in a task of its own.
struct Each<F> {
    serve: F,
    malformed: Vec<Reason>,
}

impl<F: Fn(Incoming) -> R, R: Future<Output = ()> + 'static> Application for Each<F> {
    fn head_limits(&self) -> HeadLimits {
        HeadLimits::default()
    }

    fn take_head(&mut self) -> RequestHead {
        RequestHead::new()
    }

    fn request(&mut self, request: Incoming) {
        net::spawn((self.serve)(request));
    }

    fn taken_back(&mut self) {
        self.malformed(Reason::ClientAborted);
    }

    fn malformed(&mut self, reason: Reason) {
        self.malformed.push(reason);
    }
}

/// Runs `story` with a client of a server that serves with `serve`, on both drivers; gives how the connection ended.
fn run<S, R, T, U>(settings: Settings, serve: S, story: T) -> Vec<Ending>
where
    S: Fn(Incoming) -> R + Clone + 'static,
    R: Future<Output = ()> + 'static,
    T: Fn(Client, Control) -> U,
    U: Future<Output = ()>,
{
    let mut drivers = vec![Driver::Epoll];
    if let Ok((Driver::IoUring, _)) = net::probe(net::DriverChoice::Auto) {
        drivers.push(Driver::IoUring);
    }
    let run_on = |driver| {
        net::block_on(driver, async {
            net::spawn(async { net::deadline::turn_wheel().await });
            let socket = net::bind("127.0.0.1:0".parse().unwrap(), 16).unwrap();
            let address = socket.local_addr().unwrap();
            let listener = Listener::new(socket).unwrap();
            let ours = net::connect(address, LONG).await.unwrap();
            let (theirs, _) = listener.accept().await.unwrap();
            let times = Times { head: LONG, idle: LONG, send: SendLimit::whole(LONG) };
            let (server, control) = Server::new(Stream::plain(theirs), Vec::new(), settings.clone(), times);
            let ended = Rc::new(Cell::new(None));
            let (told, serve) = (ended.clone(), serve.clone());
            net::spawn(async move {
                let mut each = Each { serve, malformed: Vec::new() };
                told.set(Some(server.run(&mut each).await));
            });
            let made =
                client::connect(Stream::plain(ours), &Settings::default(), LONG, Rc::new(Waiters::default()));
            let (client, driver) = made.unwrap();
            net::spawn(driver);
            story(client, control).await;
            for _ in 0..2000 {
                if let Some(ending) = ended.get() {
                    return ending;
                }
                net::sleep(Duration::from_millis(5)).await;
            }
            panic!("the connection does not end");
        })
        .unwrap()
    };
    drivers.into_iter().map(run_on).collect()
}

fn request(method: &str, path: &str) -> RequestHead {
    let mut head = RequestHead::new();
    head.set_method(method);
    head.set_target(path, &PathPolicy::default()).unwrap();
    head.head.append("Host", "example.com");
    head
}

fn ok() -> ResponseHead {
    let mut head = ResponseHead::new();
    head.set_status(200);
    head
}

/// Sends a request without a body, and gives status and body of the response.
async fn get(client: &Client, path: &str) -> Result<(u16, Vec<u8>), ClientError> {
    let lease = client.reserve().ok_or(ClientError::NotProcessed)?;
    let outgoing = Outgoing { end: true, ..Outgoing::default() };
    let (_send, mut response) = lease.request(&request("GET", path), outgoing)?;
    let mut head = ResponseHead::new();
    while response.head(&HeadLimits::default(), &mut head).await? == Received::Interim {}
    let mut body = response.into_body().unwrap();
    let mut bytes = Vec::new();
    while let Some(data) = body.0.data(LONG).await.map_err(|_| ClientError::Closed)? {
        body.0.release(data.len());
        bytes.extend_from_slice(&data);
    }
    Ok((head.status(), bytes))
}

async fn answer_path(request: Incoming) {
    let path = Bytes::copy_from_slice(request.head.path());
    let mut send = request.responder.respond(&ok(), false).unwrap();
    send.data(path, true, SendLimit::whole(LONG)).await.unwrap();
}

#[test]
fn requests_share_a_connection() {
    let endings = run(Settings::default(), answer_path, |client, control| async move {
        let done = Rc::new(Cell::new(0));
        for n in 0..50 {
            let (client, done) = (client.clone(), done.clone());
            net::spawn(async move {
                let path = format!("/{n}");
                assert_eq!(get(&client, &path).await, Ok((200, path.into_bytes())));
                done.set(done.get() + 1);
            });
        }
        while done.get() < 50 {
            net::sleep(Duration::from_millis(1)).await;
        }
        assert!(control.is_idle());
        assert_eq!(client.streams(), 0);
    });
    // Without its client the connection ends, and nobody is to blame.
    assert!(endings.iter().all(|ending| *ending == Ending::default()), "{endings:?}");
}

/// Sends back what it gets, trailers too, and keeps the windows moving.
async fn echo(mut request: Incoming) {
    let mut head = ok();
    head.head.append("Connection", "close");
    let mut send = request.responder.respond(&head, false).unwrap();
    while let Some(data) = request.body.data(LONG).await.unwrap() {
        let octets = data.len();
        send.data(data, false, SendLimit::whole(LONG)).await.unwrap();
        request.body.release(octets);
    }
    if request.body.receive_trailers(LONG).await.unwrap() {
        send.trailers(request.body.trailers()).unwrap();
    } else {
        send.finish().unwrap();
    }
}

#[test]
fn bodies_larger_than_every_window_go_through_both_ways_with_trailers() {
    const CHUNKS: usize = 300;
    run(Settings::default(), echo, |client, _control| async move {
        let lease = client.reserve().unwrap();
        let (mut send, mut response) = lease.request(&request("POST", "/"), Outgoing::default()).unwrap();
        net::spawn(async move {
            for n in 0..CHUNKS {
                send.data(Bytes::from(vec![n as u8; 16_000]), false, SendLimit::whole(LONG)).await.unwrap();
            }
            let mut trailers = Head::new();
            trailers.append("X-Sum", "7");
            trailers.append("Content-Length", "3");
            send.trailers(&trailers).unwrap();
        });
        let mut head = ResponseHead::new();
        let received = response.head(&HeadLimits::default(), &mut head).await.unwrap();
        assert_eq!((received, head.status()), (Received::Final(BodyFraming::Chunked), 200));
        assert!(head.head.is_empty());
        let mut body = response.into_body().unwrap();
        let mut total = 0;
        while let Some(data) = body.0.data(LONG).await.unwrap() {
            assert!(data.iter().enumerate().all(|(at, byte)| *byte == ((total + at) / 16_000) as u8));
            total += data.len();
            body.0.release(data.len());
        }
        assert_eq!(total, CHUNKS * 16_000);
        assert!(body.0.receive_trailers(LONG).await.unwrap());
        let trailers: Vec<_> = body.0.trailers().iter().map(|(_, name, value)| (name, value)).collect();
        assert_eq!(trailers, [(&b"x-sum"[..], &b"7"[..])]);
    });
}

#[test]
fn a_receiver_that_does_not_read_stops_the_sender_at_its_window() {
    let sent = Rc::new(Cell::new(0));
    let told = sent.clone();
    let flood = move |request: Incoming| {
        let told = told.clone();
        async move {
            let mut send = request.responder.respond(&ok(), false).unwrap();
            let error = loop {
                let data = Bytes::from_static(&[7; 16_384]);
                match send.data(data, false, SendLimit::whole(Duration::from_millis(300))).await {
                    Ok(()) => told.set(told.get() + 16_384),
                    Err(error) => break error,
                }
            };
            assert_eq!(error, BodyError::TimedOut);
            send.reset(Code::Cancel);
        }
    };
    run(Settings::default(), flood, |client, _control| {
        let sent = sent.clone();
        async move {
            sent.set(0);
            let lease = client.reserve().unwrap();
            let outgoing = Outgoing { end: true, ..Outgoing::default() };
            let (_send, mut response) = lease.request(&request("GET", "/"), outgoing).unwrap();
            let mut head = ResponseHead::new();
            response.head(&HeadLimits::default(), &mut head).await.unwrap();
            let mut body = response.into_body().unwrap();
            // Reads, but gives no leave for more.
            let error = loop {
                match body.0.data(LONG).await {
                    Ok(Some(_)) => {}
                    other => break other,
                }
            };
            assert_eq!(error, Err(BodyError::Reset(8)));
            assert_eq!(sent.get(), 64 * 1024);
        }
    });
}

#[test]
fn interim_responses_come_before_the_final_one() {
    let serve = |mut request: Incoming| async move {
        let mut hints = Head::new();
        hints.append("Link", "</a>");
        request.responder.interim(103, &hints).unwrap();
        request.responder.interim(100, &Head::new()).unwrap();
        request.responder.respond(&ok(), true).unwrap();
    };
    run(Settings::default(), serve, |client, _control| async move {
        let lease = client.reserve().unwrap();
        let outgoing = Outgoing { end: true, ..Outgoing::default() };
        let (_send, mut response) = lease.request(&request("GET", "/"), outgoing).unwrap();
        let mut head = ResponseHead::new();
        let mut seen = Vec::new();
        loop {
            let received = response.head(&HeadLimits::default(), &mut head).await.unwrap();
            seen.push((head.status(), head.head.get("link").map(<[u8]>::to_vec)));
            if let Received::Final(framing) = received {
                assert_eq!(framing, BodyFraming::None);
                break;
            }
        }
        assert_eq!(seen, [(103, Some(b"</a>".to_vec())), (100, None), (200, None)]);
    });
}

#[test]
fn each_side_learns_of_the_others_reset() {
    let seen = Rc::new(RefCell::new(Vec::new()));
    let told = seen.clone();
    let serve = move |mut request: Incoming| {
        let told = told.clone();
        async move {
            match request.head.path() {
                b"/refused" => request.responder.reset(Code::RefusedStream),
                b"/broken" => request.responder.reset(Code::InternalError),
                _ => {
                    let closed = request.responder.closed().await;
                    told.borrow_mut().push(closed);
                }
            }
        }
    };
    run(Settings::default(), serve, |client, _control| {
        let seen = seen.clone();
        async move {
            seen.borrow_mut().clear();
            assert_eq!(get(&client, "/refused").await, Err(ClientError::NotProcessed));
            assert_eq!(get(&client, "/broken").await, Err(ClientError::Reset(2)));
            let lease = client.reserve().unwrap();
            let (send, response) = lease.request(&request("POST", "/wait"), Outgoing::default()).unwrap();
            net::sleep(Duration::from_millis(20)).await;
            drop((send, response));
            for _ in 0..1000 {
                if !seen.borrow().is_empty() {
                    break;
                }
                net::sleep(Duration::from_millis(5)).await;
            }
            assert_eq!(*seen.borrow(), [BodyError::Reset(8)]);
        }
    });
}

#[test]
fn a_drain_lets_streams_finish_and_takes_no_more() {
    let serve = |request: Incoming| async move {
        net::sleep(Duration::from_millis(100)).await;
        answer_path(request).await;
    };
    run(Settings::default(), serve, |client, control| async move {
        let done = Rc::new(Cell::new(false));
        let (one, told) = (client.clone(), done.clone());
        net::spawn(async move {
            assert_eq!(get(&one, "/last").await, Ok((200, b"/last".to_vec())));
            told.set(true);
        });
        net::sleep(Duration::from_millis(30)).await;
        control.drain();
        net::sleep(Duration::from_millis(30)).await;
        assert!(!done.get());
        assert_eq!(get(&client, "/late").await, Err(ClientError::NotProcessed));
        while !done.get() {
            net::sleep(Duration::from_millis(5)).await;
        }
        assert!(client.is_leaving());
    });
}

#[test]
fn streams_beyond_the_bound_have_no_place() {
    let settings = Settings { concurrent_streams: 3, ..Settings::default() };
    let serve = |mut request: Incoming| async move {
        let _ = request.responder.closed().await;
    };
    run(settings, serve, |client, control| async move {
        // Until the settings are there, the client goes by its own bound.
        let outgoing = Outgoing { end: true, ..Outgoing::default() };
        let first = client.reserve().unwrap().request(&request("GET", "/"), outgoing).unwrap();
        net::sleep(Duration::from_millis(50)).await;
        let leases: Vec<_> = std::iter::from_fn(|| client.reserve()).collect();
        assert_eq!(leases.len(), 2);
        drop(leases);
        assert!(client.reserve().is_some());
        drop(first);
        control.close();
    });
}

#[test]
fn a_connection_ends_after_its_last_stream() {
    let settings = Settings { streams_max: 3, ..Settings::default() };
    run(settings, answer_path, |client, _control| async move {
        let mut served = 0;
        while get(&client, "/").await.is_ok() {
            served += 1;
            // The word that it is over takes a moment.
            net::sleep(Duration::from_millis(30)).await;
        }
        assert_eq!(served, 3);
    });
}

#[test]
fn a_preface_is_told_from_http1() {
    assert_eq!(looks_like_preface(PREFACE), Preface::Yes);
    assert_eq!(looks_like_preface(&[PREFACE, b"more"].concat()), Preface::Yes);
    assert_eq!(looks_like_preface(b"PRI * HTTP/2.0\r\n"), Preface::Partial);
    assert_eq!(looks_like_preface(b""), Preface::Partial);
    assert_eq!(looks_like_preface(b"PRINT / HTTP/1.1"), Preface::No);
    assert_eq!(looks_like_preface(b"GET /"), Preface::No);
}
