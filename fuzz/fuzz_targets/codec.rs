//! Any bytes as a frame, and as the content of each type of message.
//!
//! The first byte chooses the subprotocol and the kind of frame.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sandkernel::protocol::{Content, Frame, Message, Subprotocol};

fuzz_target!(|input: &[u8]| {
    let Some((choice, rest)) = input.split_first() else { return };
    let subprotocol = if choice & 1 == 0 { Subprotocol::V1 } else { Subprotocol::Json };
    let payload = rest.to_vec().into();
    let frame = if choice & 2 == 0 { Frame::Binary(payload) } else { Frame::Text(payload) };
    let Ok(mut message) = Message::decode(subprotocol, &frame) else { return };
    let _ = Content::decode(&message);
    for msg_type in [
        "stream",
        "display_data",
        "execute_result",
        "error",
        "execute_reply",
        "status",
        "clear_output",
        "input_request",
        "execute_input",
    ] {
        message.header.msg_type = msg_type.into();
        let _ = Content::decode(&message);
    }
});
