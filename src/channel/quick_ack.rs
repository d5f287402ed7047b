//! A TCP stream that acknowledges at once, and tells that its bytes come and leave.
//!
//! A stock gateway writes an execution's messages as many small segments with Nagle's algorithm on, so each
//! waits for the acknowledgement of the one before, and the client's kernel delays that by up to 40 ms. Linux
//! lets a reader ask for an immediate acknowledgement, but forgets the wish whenever it sees fit: it has to be
//! asked for after every read.
//!
//! Linux takes megabytes to send at once. On a slow way they leave over minutes, and a ping behind them comes too late: a
//! peer that takes all it is sent would pass for dead. So Linux is to take little that it can't send yet, and what it has
//! taken is counted. The other way, a ping's answer waits behind the message that the peer is sending: what comes is noted
//! before it is a whole frame.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::traffic::Traffic;

/// How many bytes wait in the system that can't be sent yet.
#[cfg(any(target_os = "linux", target_os = "android"))]
const MOST_UNSENT: u32 = 256 * 1024;

/// A [`TcpStream`] that asks for an immediate acknowledgement of whatever it reads.
#[derive(Debug)]
pub(super) struct QuickAck {
    stream: TcpStream,
    traffic: Arc<Traffic>,
}

impl QuickAck {
    pub(super) fn new(stream: TcpStream, traffic: Arc<Traffic>) -> Self {
        let stream = Self { stream, traffic };
        stream.take_little();
        stream.acknowledge();
        stream
    }

    #[cfg(any(target_os = "linux", target_os = "android"))]
    fn take_little(&self) {
        // Without it everything works, unless the way is slow.
        let _ = socket2::SockRef::from(&self.stream).set_tcp_notsent_lowat(MOST_UNSENT);
    }

    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    fn take_little(&self) {}

    #[cfg(any(target_os = "linux", target_os = "android"))]
    fn acknowledge(&self) {
        // Without it everything works, only slower.
        let _ = socket2::SockRef::from(&self.stream).set_tcp_quickack(true);
    }

    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    fn acknowledge(&self) {}

    /// Counts what was taken.
    fn note(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(count)) = &written {
            self.traffic.note_taken(*count);
        }
        written
    }
}

impl AsyncRead for QuickAck {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let poll = Pin::new(&mut self.stream).poll_read(context, buffer);
        let count = buffer.filled().len() - before;
        if matches!(poll, Poll::Ready(Ok(()))) && count > 0 {
            self.acknowledge();
            self.traffic.note_heard(count);
        }
        poll
    }
}

impl AsyncWrite for QuickAck {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.note(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.note(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
