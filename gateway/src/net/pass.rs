//! Descriptors over a unix socket (SCM_RIGHTS, unix(7)): how listening sockets come to the process that takes over.
//!
//! Owns the messages of that. A socket that is passed is the same socket: its queue of connections is neither split nor
//! lost, whichever of the two processes closes its descriptor first.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;

/// Descriptors in one message; the kernel takes 253 (SCM_MAX_FD).
const IN_ONE_MESSAGE: usize = 128;

/// Room for the header and the descriptors of one message, in words so that it is aligned.
const CONTROL_WORDS: usize = 4 + IN_ONE_MESSAGE * size_of::<RawFd>() / size_of::<u64>();

/// Sends `descriptors`, in order, each message with one byte of data.
///
/// # Errors
/// Those of sendmsg(2).
pub fn send_descriptors(stream: &UnixStream, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    for some in descriptors.chunks(IN_ONE_MESSAGE) {
        send_some(stream, some)?;
    }
    Ok(())
}

/// Receives as many descriptors as [`send_descriptors`] sent. They are closed on exec.
///
/// # Errors
/// Those of recvmsg(2); `UnexpectedEof` when the other side sends fewer.
pub fn receive_descriptors(stream: &UnixStream, count: usize) -> io::Result<Vec<OwnedFd>> {
    let mut received = Vec::new();
    while received.len() < count {
        let some = receive_some(stream)?;
        if some.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        received.extend(some);
    }
    Ok(received)
}

fn send_some(stream: &UnixStream, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut byte = [0_u8];
    let mut part = libc::iovec { iov_base: byte.as_mut_ptr().cast(), iov_len: byte.len() };
    let mut control = [0_u64; CONTROL_WORDS];
    let data_len = size_of_val(descriptors) as u32;
    // SAFETY: all-zero bytes are a valid msghdr.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    // SAFETY: computes a size only.
    message.msg_controllen = unsafe { libc::CMSG_SPACE(data_len) } as _;
    // SAFETY: `control` is aligned and has room for one header with IN_ONE_MESSAGE descriptors, and chunks are no
    // longer than that, so the first header and its data lie within it.
    unsafe {
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        (*header).cmsg_level = libc::SOL_SOCKET;
        (*header).cmsg_type = libc::SCM_RIGHTS;
        (*header).cmsg_len = libc::CMSG_LEN(data_len) as _;
        let data = libc::CMSG_DATA(header).cast::<RawFd>();
        for (at, descriptor) in descriptors.iter().enumerate() {
            data.add(at).write_unaligned(descriptor.as_raw_fd());
        }
    }
    // SAFETY: everything that `message` points to lives to the end of the call.
    match unsafe { libc::sendmsg(stream.as_raw_fd(), &raw const message, libc::MSG_NOSIGNAL) } {
        1 => Ok(()),
        0 => Err(io::ErrorKind::WriteZero.into()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn receive_some(stream: &UnixStream) -> io::Result<Vec<OwnedFd>> {
    let mut byte = [0_u8];
    let mut part = libc::iovec { iov_base: byte.as_mut_ptr().cast(), iov_len: byte.len() };
    let mut control = [0_u64; CONTROL_WORDS];
    // SAFETY: all-zero bytes are a valid msghdr.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = size_of_val(&control) as _;
    // SAFETY: everything that `message` points to lives to the end of the call.
    let length = unsafe { libc::recvmsg(stream.as_raw_fd(), &raw mut message, libc::MSG_CMSG_CLOEXEC) };
    if length < 0 {
        return Err(io::Error::last_os_error());
    }
    let mut received = Vec::new();
    // SAFETY: the kernel has written whole headers within `msg_controllen`; each descriptor in an SCM_RIGHTS message is
    // new, open and ours alone.
    unsafe {
        let mut header = libc::CMSG_FIRSTHDR(&raw const message);
        while !header.is_null() {
            if ((*header).cmsg_level, (*header).cmsg_type) == (libc::SOL_SOCKET, libc::SCM_RIGHTS) {
                let bytes = (*header).cmsg_len as usize - libc::CMSG_LEN(0) as usize;
                let data = libc::CMSG_DATA(header).cast::<RawFd>();
                for at in 0..bytes / size_of::<RawFd>() {
                    received.push(OwnedFd::from_raw_fd(data.add(at).read_unaligned()));
                }
            }
            header = libc::CMSG_NXTHDR(&raw const message, header);
        }
    }
    if message.msg_flags & libc::MSG_CTRUNC != 0 {
        return Err(io::Error::other("descriptors were lost: the limit on open files is too low"));
    }
    Ok(received)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn a_passed_listener_keeps_the_connections_in_its_queue() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let mut client = TcpStream::connect(address).unwrap();
        client.write_all(b"early").unwrap();
        let (ours, theirs) = UnixStream::pair().unwrap();
        send_descriptors(&ours, &[listener.as_fd()]).unwrap();
        drop(listener);
        let passed = receive_descriptors(&theirs, 1).unwrap().remove(0);
        let (mut accepted, _) = TcpListener::from(passed).accept().unwrap();
        let mut word = [0; 5];
        accepted.read_exact(&mut word).unwrap();
        assert_eq!(&word, b"early");
    }

    #[test]
    fn many_come_in_order_and_too_few_are_an_error() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let listeners: Vec<_> = (0..300).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let descriptors: Vec<_> = listeners.iter().map(AsFd::as_fd).collect();
        let expected: Vec<_> = listeners.iter().map(|one| one.local_addr().unwrap().port()).collect();
        let receiver = std::thread::spawn(move || {
            let received = receive_descriptors(&theirs, 300).unwrap();
            let ports = received.into_iter().map(|one| TcpListener::from(one).local_addr().unwrap().port());
            (ports.collect::<Vec<_>>(), receive_descriptors(&theirs, 1).unwrap_err().kind())
        });
        send_descriptors(&ours, &descriptors).unwrap();
        drop(ours);
        assert_eq!(receiver.join().unwrap(), (expected, io::ErrorKind::UnexpectedEof));
    }
}
