//! What a kernel gateway 3.0 with ipykernel 7 sent for two cells: one that prints to both streams, displays,
//! updates, clears, sends buffers and asks for input; and one that prints and then divides by zero.
//!
//! Each frame: a byte that says whether it is binary, its length as a little-endian u32, its payload.

use bytes::{Buf, Bytes};
use sandkernel::protocol::{Frame, Subprotocol};

pub(crate) fn frames(subprotocol: Subprotocol) -> Vec<Frame> {
    let mut file = Bytes::from_static(match subprotocol {
        Subprotocol::V1 => include_bytes!("v1.frames"),
        Subprotocol::Json => include_bytes!("json.frames"),
    });
    let mut frames = Vec::new();
    while file.has_remaining() {
        let is_binary = file.get_u8() == 1;
        let length = file.get_u32_le() as usize;
        let payload = file.split_to(length);
        frames.push(if is_binary { Frame::Binary(payload) } else { Frame::Text(payload) });
    }
    frames
}
