//! What it costs to make an execution of its frames.

use std::hint::black_box;
use std::time::Duration;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use sandkernel::execution::{Execution, Fold, Limits};
use sandkernel::protocol::{ChannelName, Frame, Message, Subprotocol};
use serde_json::json;

#[path = "frames/mod.rs"]
mod frames;

fn fold(subprotocol: Subprotocol, frames: &[Frame], limits: Limits) -> Execution {
    let mut fold = Fold::new(limits);
    for frame in frames {
        let message = Message::decode(subprotocol, frame).expect("it is well formed");
        fold.push(&message, &mut |event| {
            black_box(event);
        });
    }
    fold.finish(Duration::ZERO)
}

fn fold_streams(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("decode and fold 10,000 stream messages of 100 bytes");
    group.throughput(Throughput::Elements(10_000));
    for subprotocol in [Subprotocol::V1, Subprotocol::Json] {
        let frames = frames::streams(subprotocol, 10_000);
        for (name, output_bytes) in [("kept whole", 64 << 20), ("kept to 100 kB", 100_000)] {
            let limits = Limits { output_bytes, ..Limits::default() };
            group.bench_function(format!("{subprotocol:?}, {name}"), |bencher| {
                bencher.iter_batched(|| (), |()| fold(subprotocol, &frames, limits), BatchSize::LargeInput);
            });
        }
    }
    group.finish();
}

fn fold_result(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("decode and fold an execute_result of 50 MB");
    group.sample_size(10);
    group.throughput(Throughput::Bytes(50_000_000));
    let plain = "x".repeat(50_000_000);
    let lines = format!("{}\n", "x".repeat(99)).repeat(500_000);
    for (name, text) in [("without an escape", plain), ("in lines of 100 bytes", lines)] {
        let content = json!({"data": {"text/plain": text}, "metadata": {}, "execution_count": 1});
        for subprotocol in [Subprotocol::V1, Subprotocol::Json] {
            let frames = [frames::frame(subprotocol, ChannelName::Iopub, 1, "execute_result", &content)];
            group.bench_function(format!("{subprotocol:?}, {name}"), |bencher| {
                bencher.iter_batched(
                    || (),
                    |()| fold(subprotocol, &frames, Limits::default()),
                    BatchSize::PerIteration,
                );
            });
        }
    }
    group.finish();
}

criterion_group!(folding, fold_streams, fold_result);
criterion_main!(folding);
