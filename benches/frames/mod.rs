//! Frames as a gateway sends them.

use sandkernel::protocol::{ChannelName, Frame, Subprotocol};
use serde_json::{Value, json};

/// A frame with a header and a parent header of the usual length.
pub(crate) fn frame(
    subprotocol: Subprotocol,
    channel: ChannelName,
    number: usize,
    msg_type: &str,
    content: &Value,
) -> Frame {
    let header = json!({
        "msg_id": format!("12df5120-6fcfe0d76c7586d60f8e1853_21184_{number}"),
        "msg_type": msg_type,
        "username": "username",
        "session": "12df5120-6fcfe0d76c7586d60f8e1853",
        "date": "2026-11-21T07:47:56.688489Z",
        "version": "5.4",
    });
    let parent = json!({
        "msg_id": "0f8fad5bd9cb469fa16570867728950e",
        "msg_type": "execute_request",
        "session": "7c9e6679742540de944be07fc1f90ae7",
        "username": "sandkernel",
        "version": "5.3",
        "date": "2026-11-21T07:47:56.689429Z",
    });
    if subprotocol == Subprotocol::Json {
        let message = json!({
            "header": header, "msg_id": header["msg_id"], "msg_type": msg_type, "parent_header": parent,
            "metadata": {}, "content": content, "buffers": [], "channel": channel.as_str(),
        });
        return Frame::Text(message.to_string().into());
    }
    let parts = [
        channel.as_str().to_owned(),
        header.to_string(),
        parent.to_string(),
        "{}".to_owned(),
        content.to_string(),
    ];
    let count = parts.len() as u64 + 1;
    let mut frame = count.to_le_bytes().to_vec();
    let mut offset = 8 * (1 + count);
    frame.extend(offset.to_le_bytes());
    for part in &parts {
        offset += part.len() as u64;
        frame.extend(offset.to_le_bytes());
    }
    for part in &parts {
        frame.extend(part.as_bytes());
    }
    Frame::Binary(frame.into())
}

/// `count` messages of one line of 100 bytes on standard output.
pub(crate) fn streams(subprotocol: Subprotocol, count: usize) -> Vec<Frame> {
    let text = format!("{}\n", "x".repeat(99));
    let content = json!({"name": "stdout", "text": text});
    (0..count).map(|number| frame(subprotocol, ChannelName::Iopub, number, "stream", &content)).collect()
}
