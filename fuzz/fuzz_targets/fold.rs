//! Any messages, folded under small limits: what is kept stays within them.
//!
//! Each line of the input is a message: two bytes that choose channel and type, then its content.
#![no_main]

use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use sandkernel::execution::{Fold, Limits, Piece};
use sandkernel::protocol::{ChannelName, Header, Message};

const CHANNELS: [ChannelName; 4] =
    [ChannelName::Iopub, ChannelName::Shell, ChannelName::Stdin, ChannelName::Control];
const MSG_TYPES: [&str; 10] = [
    "stream",
    "display_data",
    "update_display_data",
    "execute_result",
    "error",
    "execute_reply",
    "status",
    "clear_output",
    "input_request",
    "execute_input",
];
const LIMITS: Limits = Limits { output_bytes: 64, result_bytes: 2048 };

fuzz_target!(|input: &[u8]| {
    let mut fold = Fold::new(LIMITS);
    for line in input.split(|byte| *byte == b'\n') {
        let [channel, msg_type, content @ ..] = line else { continue };
        let message = Message {
            channel: CHANNELS[usize::from(*channel) % CHANNELS.len()],
            header: Header {
                msg_type: MSG_TYPES[usize::from(*msg_type) % MSG_TYPES.len()].into(),
                ..Header::default()
            },
            parent_id: "p".into(),
            metadata: b"{}".to_vec().into(),
            content: content.to_vec().into(),
            buffers: vec![content.to_vec().into()],
            frame_bytes: 2 * content.len(),
        };
        fold.push(&message, &mut |_| {});
    }
    let execution = fold.finish(Duration::ZERO);
    let text = |piece| if let Piece::Text { text, .. } = piece { text.len() } else { 0 };
    assert!(execution.pieces().map(text).sum::<usize>() <= LIMITS.output_bytes);
    let buffers = execution.results.iter().flat_map(|item| &item.buffers);
    let data = execution.results.iter().flat_map(|item| item.data.iter());
    let kept = buffers.map(|buffer| buffer.len()).sum::<usize>()
        + data.map(|(_, value)| value.as_str().len()).sum::<usize>();
    assert!(kept <= LIMITS.result_bytes);
    assert!(execution.logs().len() >= execution.stdout().len());
});
