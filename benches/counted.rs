//! A fixed stream of messages, for valgrind to count what it costs: `benches/python/counts.py` runs it.
//!
//! Arguments: `v1` or `json`, the limit of the output in bytes, and how often the stream is folded. What one folding
//! costs is the difference between one and none.

use std::hint::black_box;
use std::time::Duration;

use sandkernel::execution::{Fold, Limits};
use sandkernel::protocol::{Frame, Message, Subprotocol};

#[path = "frames/mod.rs"]
mod frames;

const MESSAGES: usize = 10_000;

fn fold(subprotocol: Subprotocol, frames: &[Frame], output_bytes: usize) {
    let mut fold = Fold::new(Limits { output_bytes, ..Limits::default() });
    for frame in frames {
        let message = Message::decode(subprotocol, frame).expect("it is well formed");
        fold.push(&message, &mut |event| {
            black_box(event);
        });
    }
    black_box(fold.finish(Duration::ZERO));
}

fn main() {
    let arguments: Vec<_> = std::env::args().collect();
    let [_, subprotocol, output_bytes, times] = arguments.as_slice() else {
        // `cargo bench` runs every bench, with arguments of its own.
        return;
    };
    let subprotocol = if subprotocol == "json" { Subprotocol::Json } else { Subprotocol::V1 };
    let output_bytes = output_bytes.parse().expect("a number of bytes");
    let frames = frames::streams(subprotocol, MESSAGES);
    for _ in 0..times.parse().expect("a number") {
        fold(subprotocol, &frames, output_bytes);
    }
}
