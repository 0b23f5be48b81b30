use bytes::Bytes;
use portcullis::http::h1::HeadLimits;
use portcullis::http::h2::*;
use portcullis::http::{RequestHead, ResponseHead};
use portcullis::net::{self, Driver};
use portcullis::tls::Stream;
use portcullis_abi::Reason;
use std::time::Duration;
struct App;
const LONG: Duration = Duration::from_secs(10);
impl Application for App {
    fn head_limits(&self) -> HeadLimits {
        HeadLimits::default()
    }
    fn take_head(&mut self) -> RequestHead {
        RequestHead::new()
    }
    fn malformed(&mut self, reason: Reason) {
        eprintln!("malformed {}", reason.as_str());
    }
    fn request(&mut self, mut r: Incoming) {
        net::spawn(async move {
            let mut head = ResponseHead::new();
            head.set_status(r.refusal.map_or(200, |x| x.status));
            while let Ok(Some(d)) = r.body.data(LONG).await {
                r.body.release(d.len());
            }
            let Ok(mut s) = r.responder.respond(&head, false) else { return };
            let _ = s.data(Bytes::from_static(b"hello world"), true, LONG).await;
        });
    }
}
fn main() {
    let port: u16 = std::env::args().nth(1).unwrap().parse().unwrap();
    net::block_on(Driver::IoUring, async move {
        net::spawn(async { net::deadline::turn_wheel().await });
        let l = net::Listener::new(net::bind(([127, 0, 0, 1], port).into(), 128).unwrap()).unwrap();
        while let Some((s, _)) = l.accept().await {
            net::spawn(async move {
                let (server, _c) = Server::new(
                    Stream::plain(s),
                    Vec::new(),
                    Settings::default(),
                    Times { head: LONG, idle: LONG, send: LONG },
                );
                let e = server.run(&mut App).await;
                if let Some(r) = e.reason {
                    eprintln!("ending {} {}", r.as_str(), e.abuse);
                }
            });
        }
    })
    .unwrap();
}
