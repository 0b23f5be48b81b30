//! Which XDP program runs on an interface, as this thread's network namespace sees it.
//!
//! An index alone says little about a pinned link: every namespace counts its own. The program's id is the machine's, so
//! an interface is a link's if that very program runs on it. Asked by rtnetlink, as `ip link show` does.

use std::io::{self, Read as _, Write as _};

use socket2::{Domain, Protocol, Socket, Type};

/// Layouts and numbers of linux/netlink.h, linux/rtnetlink.h and linux/if_link.h.
const HEADER: usize = 16;
const NEW_LINK: u16 = 16;
const GET_LINK: u16 = 18;
const REQUEST: u16 = 1;
/// `struct ifinfomsg`; the index is at 4.
const INTERFACE: usize = 16;
const ATTRIBUTE: usize = 4;
const XDP: u16 = 43;
/// The program, where there is one; then those by mode: driver, generic, hardware.
const XDP_PROGRAMS: std::ops::RangeInclusive<u16> = 4..=7;
/// Flags in the type of an attribute: nested, and in network order.
const TYPE: u16 = 0x3fff;
/// More than one interface's message takes.
const ANSWER_MAX: usize = 1 << 15;

/// Whether the program with an id runs on the interface with an index; no, if there is no such interface.
///
/// # Errors
/// Where the kernel gives no netlink socket.
pub(super) fn runs_on(index: u32, program: u32) -> io::Result<bool> {
    let mut socket =
        Socket::new(Domain::from(libc::AF_NETLINK), Type::RAW, Some(Protocol::from(libc::NETLINK_ROUTE)))?;
    socket.write_all(&question(index))?;
    let mut answer = vec![0; ANSWER_MAX];
    let length = socket.read(&mut answer)?;
    Ok(programs_in(&answer[..length]).contains(&program))
}

fn question(index: u32) -> Vec<u8> {
    let mut message = ((HEADER + INTERFACE) as u32).to_ne_bytes().to_vec();
    message.extend(GET_LINK.to_ne_bytes());
    message.extend(REQUEST.to_ne_bytes());
    // Sequence and sender: one question, one answer.
    message.extend([0; 8]);
    // Family and type of the interface: any.
    message.extend([0; 4]);
    message.extend(index.to_ne_bytes());
    // Flags, and which of them to change: none.
    message.extend([0; 8]);
    message
}

fn programs_in(answer: &[u8]) -> Vec<u32> {
    let Some(xdp) = xdp_in(answer) else { return Vec::new() };
    let values = XDP_PROGRAMS.filter_map(|kind| attribute(xdp, kind)?.try_into().ok());
    values.map(u32::from_ne_bytes).collect()
}

fn xdp_in(answer: &[u8]) -> Option<&[u8]> {
    let kind = u16::from_ne_bytes(answer.get(4..6)?.try_into().ok()?);
    if kind != NEW_LINK {
        return None;
    }
    let length = u32::from_ne_bytes(answer.get(..4)?.try_into().ok()?) as usize;
    attribute(answer.get(HEADER + INTERFACE..length)?, XDP)
}

/// The value of the first attribute of a type.
fn attribute(mut attributes: &[u8], wanted: u16) -> Option<&[u8]> {
    loop {
        let length = usize::from(u16::from_ne_bytes(attributes.get(..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(attributes.get(2..4)?.try_into().ok()?);
        if kind & TYPE == wanted {
            return attributes.get(ATTRIBUTE..length);
        }
        // The next one begins at a multiple of four; a length below the header's would go round for ever.
        attributes = attributes.get(length.max(ATTRIBUTE).next_multiple_of(4)..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// NLMSG_ERROR.
    const ERROR: u16 = 2;

    fn with(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut bytes = ((ATTRIBUTE + value.len()) as u16).to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn answer(kind: u16, attributes: &[u8]) -> Vec<u8> {
        let mut bytes = question(7);
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes.extend(attributes);
        let length = bytes.len() as u32;
        bytes[..4].copy_from_slice(&length.to_ne_bytes());
        bytes
    }

    #[test]
    fn programs_are_found_among_other_attributes() {
        let xdp = [with(2, &[1]), with(4, &77u32.to_ne_bytes()), with(5, &77u32.to_ne_bytes())].concat();
        let nested = XDP | 0x8000;
        let all = [with(3, b"veth0\0"), with(nested, &xdp)].concat();
        assert_eq!(programs_in(&answer(NEW_LINK, &all)), [77, 77]);
        assert!(programs_in(&answer(NEW_LINK, &with(nested, &with(2, &[0])))).is_empty(), "nothing attached");
        assert!(programs_in(&answer(ERROR, &all)).is_empty(), "no such interface");
    }

    #[test]
    fn cut_answers_say_nothing() {
        let whole = answer(NEW_LINK, &with(XDP, &with(4, &77u32.to_ne_bytes())));
        for length in 0..whole.len() {
            assert!(programs_in(&whole[..length]).is_empty(), "{length}");
        }
        assert!(programs_in(&answer(NEW_LINK, &[0; 8])).is_empty());
    }

    #[test]
    fn the_kernel_answers() {
        // Loopback is the first interface of every namespace; no program has the id 0.
        assert!(!runs_on(1, 0).unwrap());
        assert!(!runs_on(u32::MAX >> 1, 0).unwrap());
    }
}
