//! Listens, serves connections, and stops in order: first readiness, then the socket, then the requests in progress.

use super::connections::{self, Connection, Connections};
use super::hyper_errors::HyperErrorRewriter;
use super::response_body::ResponseBody;
use super::write_timeout::WriteTimeout;
use crate::config::Settings;
use crate::lifecycle::Lifecycle;
use axum::Router;
use axum::extract::ConnectInfo;
use futures_util::FutureExt;
use hyper::body::{Body as _, Incoming};
use hyper::server::conn::http1;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
#[cfg(target_os = "linux")]
use socket2::SockRef;
use socket2::{Domain, Protocol, Socket, Type};
use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
#[cfg(target_os = "linux")]
use std::num::NonZeroU32;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::unconstrained;
use tower::Service as _;

/// How long a client may take to send a request's head.
const HEADER_READ_TIMEOUT: Duration = Duration::from_secs(30);

/// The size of a connection's buffers, in bytes. It limits the head and everything else that is read before a request is
/// handled, and the part of a response that is held for a client that does not read it.
const BUFFER_BYTES: usize = 64 * 1024;

/// How long a client may read nothing of a response.
const WRITE_PAUSE: Duration = Duration::from_secs(10);

/// How long the last packet of a handshake may be on its way once new connections are refused.
const HANDSHAKE_GRACE: Duration = Duration::from_millis(200);

/// After the listening socket is closed, the time to read requests that have already arrived.
const FINAL_READ_GRACE: Duration = Duration::from_millis(200);

/// After that, how long a client may take to send the rest of a head.
const FINAL_HEAD_GRACE: Duration = Duration::from_secs(2);

/// The most connections that the kernel holds until the process accepts them.
const BACKLOG: i32 = 1024;

/// The process cannot listen; the text says which variable to change.
#[derive(Debug, thiserror::Error)]
#[error("{}", self.text())]
pub struct BindError {
    variable: &'static str,
    host: IpAddr,
    port: u16,
    source: io::Error,
}

impl BindError {
    fn text(&self) -> String {
        let Self { variable, host, port, source } = self;
        match source.kind() {
            io::ErrorKind::AddrInUse => {
                format!("{variable}: {port} is in use on {host}; stop the other process or set {variable}")
            }
            io::ErrorKind::PermissionDenied => {
                format!("{variable}: {port} is not open to this user; set {variable} to 1024 or more")
            }
            io::ErrorKind::AddrNotAvailable => format!("HOST: {host} is not an address of this machine"),
            _ => format!("HOST: cannot listen on {host} port {port}: {source}"),
        }
    }
}

/// A port that is taken, and refuses connections until the process listens on it.
pub(super) struct TakenPort {
    socket: Socket,
    variable: &'static str,
    host: IpAddr,
    port: u16,
}

/// Takes the port, which `variable` sets, on `host`. `::` takes IPv4 too; on a machine without IPv6 it means `0.0.0.0`.
pub(super) fn bind(variable: &'static str, host: IpAddr, port: u16) -> Result<TakenPort, BindError> {
    let socket = match take(host, port) {
        Err(error) if host.is_ipv6() && host.is_unspecified() && no_ipv6(&error) => {
            take(Ipv4Addr::UNSPECIFIED.into(), port)
        }
        taken => taken,
    };
    let socket = socket.map_err(|source| BindError { variable, host, port, source })?;
    Ok(TakenPort { socket, variable, host, port })
}

impl TakenPort {
    /// Listens, and says where.
    pub(super) fn listen(self) -> Result<(TcpListener, SocketAddr), BindError> {
        let Self { socket, variable, host, port } = self;
        let listening = || {
            socket.listen(BACKLOG)?;
            let listener = TcpListener::from_std(socket.into())?;
            let address = listener.local_addr()?;
            Ok((listener, address))
        };
        listening().map_err(|source| BindError { variable, host, port, source })
    }
}

fn no_ipv6(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::Unsupported | io::ErrorKind::AddrNotAvailable)
        || error.raw_os_error() == Some(EAFNOSUPPORT)
}

/// "Address family not supported by protocol", which `io::ErrorKind` has no name for (Linux, all architectures).
const EAFNOSUPPORT: i32 = 97;

fn take(host: IpAddr, port: u16) -> io::Result<Socket> {
    let address = SocketAddr::new(host, port);
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if host.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

/// Serves connections until the process has stopped in order.
pub(super) async fn serve(listener: TcpListener, router: Router, lifecycle: Lifecycle, settings: Arc<Settings>) {
    let graceful = GracefulShutdown::new();
    let connections = Connections::new(connections::limit(settings.max_connections, settings.database_max_connections));
    let server = Server { router, graceful, connections, settings };
    let delay = server.settings.shutdown_delay;
    let stop_accepting = async {
        lifecycle.draining().await;
        // Where it was never ready, no balancer has sent it anything.
        if lifecycle.has_served() {
            tokio::time::sleep(delay).await;
        }
    };
    server.accept_until(&listener, stop_accepting).await;
    #[cfg(target_os = "linux")]
    if let Err(error) = refuse_new_connections(&listener) {
        tracing::warn!(%error, "a connection that comes while the port is closed may be reset");
    }
    server.accept_until(&listener, tokio::time::sleep(HANDSHAKE_GRACE)).await;
    drop(listener);
    tokio::time::sleep(FINAL_READ_GRACE).await;
    server.drain().await;
}

/// Refuses new connections, while the listening socket takes those whose handshake has begun.
///
/// For a client whose connection the kernel has completed the server is there, and the request may be on its way; a close resets
/// what nobody accepted, and what is accepted a moment later. A proxy sends a POST that was reset nowhere else. So new
/// connections end first.
///
/// A socket that is bound to an interface takes only what arrives there, and Linux does not ask whether there is such an
/// interface (`sock_bindtoindex_locked` in net/core/sock.c; root's right is not needed for the first one since 5.7). A SYN then
/// finds no socket, and is refused at once. A handshake that has begun is found by its own entry, which has the interface of its
/// SYN (`inet_request_bound_dev_if` in include/net/inet_sock.h). A SYN that the kernel looks at in this very moment may get no answer;
/// its client sends another a second later, and is refused.
#[cfg(target_os = "linux")]
fn refuse_new_connections(listener: &TcpListener) -> io::Result<()> {
    // The greatest number that an interface can have, which none has: they are counted from 1.
    const NO_INTERFACE: Option<NonZeroU32> = NonZeroU32::new(i32::MAX.cast_unsigned());
    SockRef::from(listener).bind_device_by_index_v4(NO_INTERFACE)
}

struct Server {
    router: Router,
    graceful: GracefulShutdown,
    connections: Connections,
    settings: Arc<Settings>,
}

impl Server {
    /// Serves each connection that the kernel completes before `end`.
    async fn accept_until(&self, listener: &TcpListener, end: impl Future<Output = ()>) {
        let mut end = pin!(end);
        loop {
            tokio::select! {
                // First: connections may come faster than they are taken, so that there always is one.
                biased;
                () = &mut end => break,
                accepted = listener.accept() => match accepted {
                    Ok((stream, peer)) => self.connect(stream, peer).await,
                    Err(error) => accept_failed(&error).await,
                },
            }
        }
        // What has come by the end is taken, too: as many as the kernel holds, since others may go on coming.
        self.accept_waiting(listener, BACKLOG).await;
    }

    /// Serves the connections that wait, `most` at most.
    async fn accept_waiting(&self, listener: &TcpListener, most: i32) {
        for _ in 0..most {
            match unconstrained(listener.accept()).now_or_never() {
                Some(Ok((stream, peer))) => self.connect(stream, peer).await,
                Some(Err(error)) if is_clients(&error) => {}
                Some(Err(_)) | None => break,
            }
        }
    }

    async fn connect(&self, stream: TcpStream, peer: SocketAddr) {
        let Some(connection) = self.connections.open().await else { return };
        // Responses are written whole: waiting to fill a packet would only delay them.
        let _ = stream.set_nodelay(true);
        let stream = WriteTimeout::new(stream, WRITE_PAUSE, self.settings.request_timeout);
        let stream = HyperErrorRewriter::new(stream, peer.ip(), self.settings.environment);
        let (router, timeout) = (self.router.clone(), self.settings.request_timeout);
        let service = OneConnection { router, timeout, peer, connection: connection.clone() };
        let served = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_READ_TIMEOUT)
            .max_buf_size(BUFFER_BYTES)
            .serve_connection(TokioIo::new(stream), service);
        let served = self.graceful.watch(served);
        tokio::spawn(async move {
            tokio::select! {
                outcome = served => if let Err(error) = outcome {
                    tracing::debug!(%error, "connection ended early");
                },
                () = connection.closed() => tracing::debug!("closed a connection that waited for its client"),
            }
        });
    }

    /// Finishes the requests in progress, unless that takes longer than the settings allow.
    async fn drain(self) {
        let Self { graceful, connections, settings, .. } = self;
        let open = graceful.count();
        let late_heads = async {
            tokio::time::sleep(FINAL_HEAD_GRACE).await;
            connections.close_without_request();
            std::future::pending::<()>().await;
        };
        let ended = async {
            tokio::select! {
                () = graceful.shutdown() => {}
                () = late_heads => {}
            }
        };
        if tokio::time::timeout(settings.shutdown_drain, ended).await.is_err() {
            tracing::warn!(
                connections_at_stop = open,
                "requests were still in flight after {} s and are cut off; SHUTDOWN_DRAIN_SECONDS gives them longer",
                settings.shutdown_drain.as_secs()
            );
        }
    }
}

/// The service of one connection: the router, for one request at a time.
struct OneConnection {
    router: Router,
    timeout: Duration,
    peer: SocketAddr,
    connection: Connection,
}

impl hyper::service::Service<Request<Incoming>> for OneConnection {
    type Response = Response<ResponseBody>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        self.connection.set_busy();
        let deadline = tokio::time::Instant::now() + self.timeout;
        let connection = self.connection.clone();
        let mut request = request.map(axum::body::Body::new);
        request.extensions_mut().insert(ConnectInfo(self.peer));
        if !request.body().is_end_stream() {
            // For the layer that waits for the body.
            request.extensions_mut().insert(connection.clone());
        }
        // A router is always ready.
        let response = self.router.clone().call(request);
        Box::pin(async move { Ok(response.await?.map(|body| ResponseBody::new(body, deadline, connection))) })
    }
}

/// Whether the client has gone, and the next one can be accepted.
fn is_clients(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset
    )
}

async fn accept_failed(error: &io::Error) {
    if !is_clients(error) {
        // Most likely there are no file descriptors left; accepting again at once would fail in a busy loop.
        tracing::error!(%error, "cannot accept connections");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

#[cfg(target_os = "linux")]
#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use socket2::SockFilter;
    use std::io::Write as _;

    /// Drops packets without the flag SYN: the end of a handshake, and what comes after it. A packet begins with its TCP header
    /// here; RFC 9293, 3.1 has the flags in its byte 13. <https://www.kernel.org/doc/html/latest/networking/filter.html>
    const ONLY_SYN: [SockFilter; 4] = [
        SockFilter::new(0x30, 0, 0, 13),     // ldb [13]
        SockFilter::new(0x45, 1, 0, 0x02),   // jset #SYN
        SockFilter::new(0x06, 0, 0, 0),      // ret #0: drop
        SockFilter::new(0x06, 0, 0, 0xFFFF), // ret #65535: take whole
    ];

    #[tokio::test]
    async fn new_connections_are_refused_and_those_that_have_begun_are_taken() {
        for host in ["127.0.0.1", "::1"] {
            let (listener, address) = bind("PORT", host.parse().unwrap(), 0).unwrap().listen().unwrap();
            let mut complete = std::net::TcpStream::connect(address).unwrap();
            complete.write_all(b"complete").unwrap();
            assert_eq!(received(&listener).await, b"complete", "{host}");
            let mut waiting = std::net::TcpStream::connect(address).unwrap();
            let mut begun = match SockRef::from(&listener).attach_filter(&ONLY_SYN) {
                Ok(()) => Some(std::net::TcpStream::connect(address).unwrap()),
                // Such as in some containers.
                Err(error) => {
                    test_support::skip(&format!("a filter of packets ({error}): a handshake without its end"));
                    None
                }
            };

            refuse_new_connections(&listener).unwrap();
            if begun.is_some() {
                SockRef::from(&listener).detach_filter().unwrap();
            }
            let refused = std::net::TcpStream::connect(address).unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused, "{host}");
            waiting.write_all(b"waiting").unwrap();
            assert_eq!(received(&listener).await, b"waiting", "{host}");
            if let Some(begun) = &mut begun {
                begun.write_all(b"begun").unwrap();
                assert_eq!(received(&listener).await, b"begun", "{host}");
            }
        }
    }

    #[tokio::test]
    async fn no_more_waiting_connections_are_taken_than_is_said() {
        let (listener, address) = bind("PORT", Ipv4Addr::LOCALHOST.into(), 0).unwrap().listen().unwrap();
        let settings = Arc::new(Settings::read(&|_| None).0.unwrap());
        let server = Server {
            router: Router::new(),
            graceful: GracefulShutdown::new(),
            connections: Connections::new(10),
            settings,
        };
        let clients = [(); 5].map(|()| std::net::TcpStream::connect(address).unwrap());
        // It tells that there are some; what is left of the others is counted.
        let first = listener.accept().await.unwrap();
        server.accept_waiting(&listener, 2).await;
        let left = std::iter::from_fn(|| unconstrained(listener.accept()).now_or_never()).count();
        assert_eq!(left, 2);
        // None waits: it ends at once.
        server.accept_waiting(&listener, 2).await;
        drop((first, clients));
    }

    /// What the next connection sends first.
    async fn received(listener: &TcpListener) -> Vec<u8> {
        let (stream, _) = tokio::time::timeout(Duration::from_secs(5), listener.accept()).await.unwrap().unwrap();
        stream.readable().await.unwrap();
        let mut bytes = vec![0; 16];
        let length = stream.try_read(&mut bytes).unwrap();
        bytes.truncate(length);
        bytes
    }
}
