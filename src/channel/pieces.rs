//! A message in pieces, as it is sent again after a connection broke: each new connection goes on in the middle of it.
//!
//! A piece begins with eight zero bytes, as no message does. Four numbers of eight bytes are its head: that zero, the
//! message's identity, its length, and where in it the piece belongs. `pieces.py` is the other end.

use std::hash::{DefaultHasher, Hasher};

use bytes::{BufMut, Bytes, BytesMut};

/// How much of a message is in a piece, and may be carried in vain.
pub const PIECE_BYTES: usize = 256 * 1024;

const HEAD_BYTES: usize = 32;

/// What tells a message from others: it begins with an id of its own.
const IDENTIFYING_BYTES: usize = 4096;

/// The identity of a message, the same whenever it is asked for in this process.
#[must_use]
pub fn identity(message: &Bytes) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(&message[..message.len().min(IDENTIFYING_BYTES)]);
    hasher.write_usize(message.len());
    hasher.finish()
}

/// The piece of a message that begins at `offset`, and where the next one does.
#[must_use]
pub fn piece(message: &Bytes, offset: usize) -> (Bytes, usize) {
    let end = message.len().min(offset.saturating_add(PIECE_BYTES));
    let part = message.get(offset..end).unwrap_or_default();
    let mut piece = BytesMut::with_capacity(HEAD_BYTES + part.len());
    for number in [0, identity(message), message.len() as u64, offset as u64] {
        piece.put_u64_le(number);
    }
    piece.put_slice(part);
    (piece.freeze(), end)
}

/// What has come of a message in pieces.
#[derive(Debug, Default)]
pub struct Assembly(Vec<u8>);

/// What a frame is that is no message.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// A piece that others follow.
    Part,
    /// The last piece: this is the message.
    Whole(Bytes),
    /// No piece of the message that is awaited.
    Nothing,
}

impl Assembly {
    /// How much there is.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes a frame for a piece of a message of at most `limit` bytes.
    pub(super) fn take(&mut self, frame: &Bytes, limit: usize) -> Taken {
        let Some((head, part)) = frame.split_first_chunk::<HEAD_BYTES>() else { return Taken::Nothing };
        let numbers = head.as_chunks::<8>().0.iter().map(|number| u64::from_le_bytes(*number));
        let mut numbers = numbers.map(|number| usize::try_from(number).unwrap_or(usize::MAX));
        let mut next = || numbers.next().unwrap_or_default();
        let (mark, _, total, offset) = (next(), next(), next(), next());
        if mark != 0 || total > limit || part.is_empty() || offset.saturating_add(part.len()) > total {
            return Taken::Nothing;
        }
        if offset == 0 {
            self.0.clear();
        }
        if offset != self.0.len() {
            return Taken::Nothing;
        }
        self.0.extend_from_slice(part);
        if self.0.len() < total { Taken::Part } else { Taken::Whole(std::mem::take(&mut self.0).into()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_make_the_message() {
        let message: Bytes = (0..=255_u8).cycle().skip(1).take(3 * PIECE_BYTES + 1).collect();
        let mut assembly = Assembly::default();
        let mut offset = 0;
        for number in 0..4 {
            let (part, next) = piece(&message, offset);
            offset = next;
            let taken = assembly.take(&part, message.len());
            if number == 3 {
                assert_eq!(taken, Taken::Whole(message.clone()));
            } else {
                assert_eq!((taken, assembly.len()), (Taken::Part, next));
            }
        }
        assert!(assembly.is_empty());
    }

    #[test]
    fn nothing_else_is_a_piece() {
        let message = Bytes::from(vec![7; 2 * PIECE_BYTES]);
        let ((first, next), limit) = (piece(&message, 0), message.len());
        let (second, _) = piece(&message, next);
        let mut assembly = Assembly::default();
        // Out of its turn, too large, cut short, without the mark.
        assert_eq!(assembly.take(&second, limit), Taken::Nothing);
        assert_eq!(assembly.take(&first, limit - 1), Taken::Nothing);
        assert_eq!(assembly.take(&first.slice(..32), limit), Taken::Nothing);
        assert_eq!(assembly.take(&first.slice(..31), limit), Taken::Nothing);
        assert_eq!(assembly.take(&message, limit), Taken::Nothing);
        assert_eq!(assembly.take(&first, limit), Taken::Part);
        // From the beginning again.
        assert_eq!(assembly.take(&first, limit), Taken::Part);
        assert_eq!(assembly.take(&first.slice(..40), limit), Taken::Part);
        assert_eq!(assembly.len(), 8);
        let mut endless = first.to_vec();
        endless[24..32].copy_from_slice(&u64::MAX.to_le_bytes());
        assert_eq!(assembly.take(&endless.into(), limit), Taken::Nothing);
    }
}
