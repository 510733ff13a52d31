//! A TCP socket that the runtime need not watch between two reads.
//!
//! tokio's own is watched from beginning to end: every packet that comes wakes the runtime, and the
//! sender's process pays for that, even while nobody wants to read yet. Then a nap of the stream would
//! gather a heap and save nothing. A stream that does not nap has it watched all the time: to begin and
//! to end that takes two system calls a read.

use std::io::{self, Write};
use std::net;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Sleep;

/// When to try again where the kernel has no room for what is sent. Little is sent, and seldom.
const FULL_WAIT: Duration = Duration::from_millis(100);

/// Whether a socket is watched while nobody reads from it; TLS may lie between the two.
#[derive(Clone, Debug, Default)]
pub(super) struct Watch(Arc<AtomicBool>);

impl Watch {
    /// From the end of the next read on.
    pub(super) fn between_reads(&self, watch: bool) {
        self.0.store(watch, Ordering::Relaxed);
    }
}

pub(super) struct Socket {
    idle: Option<net::TcpStream>,
    watched: Option<TcpStream>,
    watch: Watch,
    sender: net::TcpStream,
    /// Runs while there is no room.
    full: Option<Pin<Box<Sleep>>>,
}

impl Socket {
    pub(super) fn new(socket: TcpStream, watch: Watch) -> io::Result<Self> {
        let idle = socket.into_std()?;
        let sender = idle.try_clone()?;
        Ok(Self { idle: Some(idle), watched: None, watch, sender, full: None })
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if let Some(idle) = this.idle.take() {
            this.watched = Some(TcpStream::from_std(idle)?);
        }
        let Some(watched) = &mut this.watched else {
            return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
        };
        ready!(Pin::new(watched).poll_read(context, buffer))?;
        if !this.watch.0.load(Ordering::Relaxed) {
            this.idle = this.watched.take().map(TcpStream::into_std).transpose()?;
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        loop {
            if let Some(full) = &mut this.full {
                ready!(full.as_mut().poll(context));
                this.full = None;
            }
            match this.sender.write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    this.full = Some(Box::pin(tokio::time::sleep(FULL_WAIT)));
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                written => return Poll::Ready(written),
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// Closing is dropping.
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    /// Ours, with its watch, and theirs.
    async fn pair() -> (Socket, Watch, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let ours = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (theirs, _) = listener.accept().await.unwrap();
        let watch = Watch::default();
        (Socket::new(ours, watch.clone()).unwrap(), watch, theirs)
    }

    #[tokio::test]
    async fn it_is_watched_between_reads_where_that_is_wanted() {
        let (mut socket, watch, mut theirs) = pair().await;
        for wanted in [false, true, true, false, false, true] {
            watch.between_reads(wanted);
            theirs.write_all(&[1; 10]).await.unwrap();
            assert_eq!(socket.read(&mut [0; 64]).await.unwrap(), 10);
            assert_eq!((socket.watched.is_some(), socket.idle.is_none()), (wanted, wanted));
        }
    }

    #[tokio::test]
    async fn both_directions_wait_and_a_dropped_read_loses_nothing() {
        let (socket, watch, mut theirs) = pair().await;
        let (mut read, mut write) = tokio::io::split(socket);
        let mut buffer = [0; 64];
        for round in 0..6 {
            watch.between_reads(round % 4 < 2);
            let waiting = read.read(&mut buffer);
            assert!(tokio::time::timeout(Duration::from_millis(20), waiting).await.is_err());
            theirs.write_all(&[round; 10]).await.unwrap();
            assert_eq!(read.read(&mut buffer).await.unwrap(), 10);
            assert_eq!(buffer.first(), Some(&round));
        }
        // More than the kernel holds, while the other direction is waited for.
        let sent = vec![7; 16 << 20];
        let sending = async {
            write.write_all(&sent).await.unwrap();
            drop(write);
        };
        let receiving = async {
            let mut received = vec![0; sent.len()];
            theirs.read_exact(&mut received).await.unwrap();
            assert_eq!(received, sent);
            theirs.write_all(&[9; 10]).await.unwrap();
        };
        let (read, (), ()) = tokio::join!(read.read(&mut buffer), sending, receiving);
        assert_eq!((read.unwrap(), buffer.first()), (10, Some(&9)));
        // Who drops it closes it.
    }
}
