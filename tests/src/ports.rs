//! Ports from the kernel, reserved for as long as a test needs them.
//!
//! The gateway's listeners use SO_REUSEPORT, so two gateways that were given the same free port
//! would share it in silence instead of failing. A reservation keeps a bound socket that never
//! listens: the kernel then hands the port to nobody else, while the gateway (same user,
//! SO_REUSEPORT) may still bind it, also a second time after a restart.

use std::net::{Ipv4Addr, SocketAddr};

use socket2::{Domain, Socket, Type};

/// A TCP port of the loopback address that stays ours until the value is dropped.
#[derive(Debug)]
pub struct Reserved {
    addr: SocketAddr,
    _socket: Socket,
}

impl Reserved {
    /// Takes a free port of 127.0.0.1.
    ///
    /// # Panics
    /// When the kernel has no port left.
    pub fn new() -> Self {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        socket.set_reuse_port(true).expect("SO_REUSEPORT");
        socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).expect("a free port");
        let addr = socket.local_addr().ok().and_then(|addr| addr.as_socket()).expect("a bound address");
        Reserved { addr, _socket: socket }
    }

    /// The reserved address.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }
}

impl Default for Reserved {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use super::*;

    #[test]
    fn a_reserved_port_refuses_connections() {
        let reserved = Reserved::new();
        let error = TcpStream::connect(reserved.addr()).expect_err("nobody listens");
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
    }
}
