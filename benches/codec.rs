//! What it costs to take messages out of frames, and to read their content.

use std::hint::black_box;

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use sandkernel::protocol::{
    ChannelName, Content, ExecuteRequest, Frame, Message, Subprotocol, encode_request,
};

#[path = "frames/mod.rs"]
mod frames;

fn decode_streams(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("decode 10,000 stream messages of 100 bytes");
    group.throughput(Throughput::Elements(10_000));
    for subprotocol in [Subprotocol::V1, Subprotocol::Json] {
        let frames = frames::streams(subprotocol, 10_000);
        group.bench_function(format!("{subprotocol:?}, envelope"), |bencher| {
            bencher.iter(|| {
                for frame in &frames {
                    black_box(Message::decode(subprotocol, frame).expect("it is well formed"));
                }
            });
        });
        group.bench_function(format!("{subprotocol:?}, envelope and content"), |bencher| {
            bencher.iter(|| {
                for frame in &frames {
                    let message = Message::decode(subprotocol, frame).expect("it is well formed");
                    black_box(Content::decode(&message));
                }
            });
        });
    }
    group.finish();
}

fn encode_requests(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("encode an execute_request");
    let long = "x = 1\n".repeat(200_000);
    for (name, code) in [("of one line", "x = 1"), ("of 1.2 MB", long.as_str())] {
        for subprotocol in [Subprotocol::V1, Subprotocol::Json] {
            let encode = || -> Frame {
                let content = ExecuteRequest::new(black_box(code));
                let buffers: &[Bytes] = &[];
                encode_request(
                    subprotocol,
                    ChannelName::Shell,
                    "execute_request",
                    "1",
                    "s",
                    &content,
                    buffers,
                )
                .expect("it serializes")
            };
            group.bench_function(format!("{name}, {subprotocol:?}"), |bencher| bencher.iter(encode));
        }
    }
    group.finish();
}

criterion_group!(codec, decode_streams, encode_requests);
criterion_main!(codec);
