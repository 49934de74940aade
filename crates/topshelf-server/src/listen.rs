//! Connections: accepting them, idleness, shutdown.
//!
//! **Shutdown.** On the first signal nobody is let in any more ([`crate::admission`]), the listener is
//! closed, and what is under way is brought to its end, for as long as the limit allows; on the second
//! everything ends at once.
//!
//! **Versions.** HTTP/2 where TLS agrees on it, HTTP/1.1 otherwise. To guess from the first bytes would be
//! to wait for them without an end.
//!
//! **Slow clients.** The head of a request has to come within its time, and so has its body
//! ([`crate::options::Limits`]); an idle connection counts as one whose next head does not come. A client
//! that does not take its answer is left after some time (`Patient`). So neither a trickle of bytes nor
//! ten thousand silent connections hold up anybody else.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::Sleep;
use tokio_rustls::TlsAcceptor;

use crate::app::App;

/// How long what is under way may take after a signal.
const DRAIN: Duration = Duration::from_secs(30);

/// How long no connection is accepted after the system refused one, as it does when there are no file
/// descriptors left.
const PAUSE: Duration = Duration::from_millis(50);

/// Serves connections of the listener, secret ones where there is an acceptor for them, until `stop`
/// becomes true; then drains.
///
/// # Errors
///
/// None at present: a connection that fails fails alone.
pub async fn serve(
    app: Arc<App>,
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    mut stop: watch::Receiver<bool>,
) -> io::Result<()> {
    let router = app.router();
    let limits = &app.options.limits;
    let (mut first, mut second) =
        (http1::Builder::new(), http2::Builder::new(TokioExecutor::new()));
    first.timer(TokioTimer::new()).header_read_timeout(limits.head_time);
    second.timer(TokioTimer::new()).keep_alive_interval(Some(limits.head_time));
    let graceful = GracefulShutdown::new();
    let places = Arc::new(Semaphore::new(limits.connections));
    loop {
        let accepted = tokio::select! {
            accepted = accept(&listener, &places) => accepted,
            _ = stop.wait_for(|stop| *stop) => break,
        };
        let (stream, place) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a connection was not accepted");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let _ = stream.set_nodelay(true); // an answer is one write; where it fails, it is only slower
        let service = TowerToHyperService::new(router.clone());
        let (first, second) = (first.clone(), second.clone());
        let (watcher, tls) = (graceful.watcher(), tls.clone());
        let (handshake, stream) = (limits.head_time, Patient::new(stream, limits.stall_time));
        tokio::spawn(async move {
            // Clients break off as they please; that is no event of ours.
            match tls {
                None => {
                    let _ =
                        watcher.watch(first.serve_connection(TokioIo::new(stream), service)).await;
                }
                Some(tls) => {
                    let secret = tokio::time::timeout(handshake, tls.accept(stream)).await;
                    if let Ok(Ok(stream)) = secret {
                        let is_second = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                        let stream = TokioIo::new(stream);
                        if is_second {
                            let _ = watcher.watch(second.serve_connection(stream, service)).await;
                        } else {
                            let _ = watcher.watch(first.serve_connection(stream, service)).await;
                        }
                    }
                }
            }
            drop(place);
        });
    }
    app.admission.close();
    drop(listener);
    let drained = tokio::time::timeout(DRAIN, graceful.shutdown()).await;
    if drained.is_err() {
        tracing::warn!("requests were still under way after {} s and were ended", DRAIN.as_secs());
    }
    Ok(())
}

/// A connection whose client may take nothing for a while, and not for longer.
struct Patient {
    stream: TcpStream,
    limit: Duration,
    /// Runs while the client takes nothing.
    stalled: Option<Pin<Box<Sleep>>>,
}

impl Patient {
    fn new(stream: TcpStream, limit: Duration) -> Self {
        Self { stream, limit, stalled: None }
    }

    /// What writing came to; an error if it could not go on for too long.
    fn judge(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let limit = self.limit;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        stalled.as_mut().poll(context).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Patient {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Patient {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.judge(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, parts);
        self.judge(context, written)
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

/// The next connection, once there is a place for it.
async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> io::Result<(TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    let place = Arc::clone(places).acquire_owned().await.map_err(io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    Ok((stream, place))
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    /// Writes more than the system keeps for a client that reads after each pause.
    async fn write(limit: Duration, pause: Duration) -> io::Result<()> {
        const BYTES: usize = 64 << 20;
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let mut client = TcpStream::connect(listener.local_addr()?).await?;
        let (stream, _) = listener.accept().await?;
        let reading = tokio::spawn(async move {
            let mut taken = vec![0; BYTES / 16];
            loop {
                tokio::time::sleep(pause).await;
                let Ok(_) = client.read_exact(&mut taken).await else { return };
            }
        });
        let mut patient = Patient::new(stream, limit);
        let written = patient.write_all(&vec![7; BYTES]).await;
        drop(patient);
        reading.abort();
        written
    }

    #[test]
    fn a_client_that_takes_nothing_is_left_and_a_slow_one_is_not() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let second = Duration::from_secs(1);
        let left = runtime.block_on(write(second / 20, 60 * second));
        assert_eq!(left.unwrap_err().kind(), io::ErrorKind::TimedOut);
        runtime.block_on(write(2 * second, second / 20)).unwrap();
    }
}
