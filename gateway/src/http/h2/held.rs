//! Octets of a stream that have left the codec and wait to be passed on.
//!
//! Owns their order. Flow control counts octets, not frames, so a window full of frames of an octet each costs the codec
//! hundreds of times its size; the codec ends a connection on which that happens, and with it the streams of everybody
//! else. What is taken from it at once and put together here costs what the window says.
//!
//! Invariant: holds no more than the window of its stream, since none of it was given back.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

/// Frames of fewer octets are put together; larger ones are kept as they are, for which nothing need be copied.
pub(super) const SMALL: usize = 1024;

/// Octets that wait.
#[derive(Debug, Default)]
pub(super) struct Held {
    whole: VecDeque<Bytes>,
    /// The last of them, which may be added to.
    small: BytesMut,
}

impl Held {
    pub fn is_empty(&self) -> bool {
        self.whole.is_empty() && self.small.is_empty()
    }

    /// Adds octets behind all others.
    pub fn push(&mut self, data: Bytes) {
        if data.len() < SMALL {
            self.small.extend_from_slice(&data);
            return;
        }
        if !self.small.is_empty() {
            self.whole.push_back(self.small.split().freeze());
        }
        self.whole.push_back(data);
    }

    /// Takes the first of them.
    pub fn pop(&mut self) -> Option<Bytes> {
        let small = &mut self.small;
        self.whole.pop_front().or_else(|| (!small.is_empty()).then(|| std::mem::take(small).freeze()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn octets_keep_their_order_and_small_pieces_become_one() {
        let mut held = Held::default();
        let (mut pushed, mut number) = (Vec::new(), 0_u8);
        for len in [1, 2, SMALL - 1, SMALL, 3, 1, SMALL + 7, SMALL, 5] {
            number += 1;
            pushed.extend(std::iter::repeat_n(number, len));
            held.push(Bytes::from(vec![number; len]));
        }
        let mut popped = Vec::new();
        let mut pieces = 0;
        while let Some(piece) = held.pop() {
            assert!(!piece.is_empty());
            popped.extend_from_slice(&piece);
            pieces += 1;
        }
        assert!(popped == pushed && held.is_empty() && held.pop().is_none());
        assert_eq!(pieces, 6);
    }
}
