//! A listener for readers that nobody knows: few enough at once, and none that stands still.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep, sleep};

/// Takes [`CONNECTIONS_MAX`] connections at once; more wait in the system's queue.
pub(super) struct Patient {
    listener: TcpListener,
    room: Arc<Semaphore>,
}

impl Patient {
    pub(super) fn new(listener: TcpListener) -> Self {
        Self { listener, room: Arc::new(Semaphore::new(CONNECTIONS_MAX)) }
    }
}

impl Listener for Patient {
    type Io = Moving<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        // The semaphore is never closed; were it, connections would not be counted.
        let place = Arc::clone(&self.room).acquire_owned().await.ok();
        let (stream, address) = Listener::accept(&mut self.listener).await;
        (Moving::new(stream, STILL_MAX, place), address)
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

/// A connection that ends when no byte has moved for a while. An open stream of events moves a few every 15 s.
pub(super) struct Moving<S> {
    stream: S,
    still_max: Duration,
    until: Pin<Box<Sleep>>,
    /// Is given back with the connection.
    _place: Option<OwnedSemaphorePermit>,
}

impl<S: Unpin> Moving<S> {
    fn new(stream: S, still_max: Duration, place: Option<OwnedSemaphorePermit>) -> Self {
        Self { stream, still_max, until: Box::pin(sleep(still_max)), _place: place }
    }

    fn stream(&mut self) -> Pin<&mut S> {
        Pin::new(&mut self.stream)
    }

    /// Passes on what came of a read or a write, unless it has waited for too long.
    fn moved<R>(&mut self, polled: Poll<io::Result<R>>, cx: &mut Context<'_>) -> Poll<io::Result<R>> {
        if polled.is_ready() {
            let until = Instant::now() + self.still_max;
            self.until.as_mut().reset(until);
            return polled;
        }
        let Poll::Ready(()) = self.until.as_mut().poll(cx) else { return Poll::Pending };
        Poll::Ready(Err(io::Error::new(ErrorKind::TimedOut, "no byte has moved for a while")))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Moving<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let polled = self.stream().poll_read(cx, buffer);
        self.moved(polled, cx)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Moving<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let polled = self.stream().poll_write(cx, bytes);
        self.moved(polled, cx)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_shutdown(cx)
    }
}

/// Connections at once: every stream of events, and as many that fetch the page.
const CONNECTIONS_MAX: usize = 2 * super::http::READERS_MAX;
/// How long a connection may stand still: past one heartbeat that is lost.
const STILL_MAX: Duration = Duration::from_secs(40);

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    #[tokio::test]
    async fn a_reader_who_takes_nothing_is_dropped_and_one_who_does_is_not() {
        let (ours, mut theirs) = duplex(8);
        let mut ours = Moving::new(ours, Duration::from_millis(200), None);
        for _ in 0..4 {
            ours.write_all(&[7; 8]).await.unwrap();
            theirs.read_exact(&mut [0; 8]).await.unwrap();
        }
        let error = ours.write_all(&[7; 9]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn who_asks_nothing_is_dropped_as_well() {
        let (ours, _theirs) = duplex(8);
        let mut ours = Moving::new(ours, Duration::from_millis(20), None);
        assert_eq!(ours.read_u8().await.unwrap_err().kind(), ErrorKind::TimedOut);
    }
}
