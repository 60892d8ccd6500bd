//! The sockets to the name servers. What the system refuses is told here: all that comes of it elsewhere is that no server
//! could be asked.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use hickory_resolver::net::runtime::{DnsUdpSocket, RuntimeProvider, TokioRuntimeProvider};
use tokio::net::UdpSocket;

/// Makes sockets of tokio's; a clone complains together with its original.
#[derive(Clone, Default)]
pub(super) struct Sockets {
    runtime: TokioRuntimeProvider,
    trouble: Arc<Trouble>,
}

/// A socket for one question.
pub(super) struct Watched {
    socket: UdpSocket,
    trouble: Arc<Trouble>,
    server: SocketAddr,
}

/// How long a complaint stands for all of its kind: a question is asked several times.
const STANDS: Duration = Duration::from_millis(100);

/// The number of the error that was complained of last, and when.
#[derive(Default)]
struct Trouble(Mutex<Option<(i32, Instant)>>);

impl Trouble {
    fn note(&self, server: SocketAddr, error: &io::Error) {
        // What has no number is that time is over.
        let Some(number) = error.raw_os_error() else { return };
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if told.is_none_or(|(known, when)| known != number || when.elapsed() >= STANDS) {
            *told = Some((number, Instant::now()));
            ipc::log::warning!("look up names at {server}: {error}");
        }
    }
}

type Opening<T> = Pin<Box<dyn Send + Future<Output = io::Result<T>>>>;

impl RuntimeProvider for Sockets {
    type Handle = <TokioRuntimeProvider as RuntimeProvider>::Handle;
    type Timer = <TokioRuntimeProvider as RuntimeProvider>::Timer;
    type Udp = Watched;
    type Tcp = <TokioRuntimeProvider as RuntimeProvider>::Tcp;

    fn create_handle(&self) -> Self::Handle {
        self.runtime.create_handle()
    }

    fn connect_tcp(
        &self,
        server: SocketAddr,
        own: Option<SocketAddr>,
        timeout: Option<Duration>,
    ) -> Opening<Self::Tcp> {
        let trouble = Arc::clone(&self.trouble);
        let opening = self.runtime.connect_tcp(server, own, timeout);
        Box::pin(async move { opening.await.inspect_err(|error| trouble.note(server, error)) })
    }

    fn bind_udp(&self, own: SocketAddr, server: SocketAddr) -> Opening<Self::Udp> {
        let trouble = Arc::clone(&self.trouble);
        let opening = self.runtime.bind_udp(own, server);
        Box::pin(async move {
            let socket = opening.await.inspect_err(|error| trouble.note(server, error))?;
            Ok(Watched { socket, trouble, server })
        })
    }
}

impl DnsUdpSocket for Watched {
    type Time = <UdpSocket as DnsUdpSocket>::Time;

    fn poll_recv_from(
        &self,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<(usize, SocketAddr)>> {
        let received = DnsUdpSocket::poll_recv_from(&self.socket, cx, buffer);
        if let Poll::Ready(Err(error)) = &received {
            self.trouble.note(self.server, error);
        }
        received
    }

    fn poll_send_to(
        &self,
        cx: &mut Context<'_>,
        bytes: &[u8],
        target: SocketAddr,
    ) -> Poll<io::Result<usize>> {
        let sent = DnsUdpSocket::poll_send_to(&self.socket, cx, bytes, target);
        if let Poll::Ready(Err(error)) = &sent {
            self.trouble.note(self.server, error);
        }
        sent
    }
}
