//! A server from its first connection to its last.

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use lumina_mgpt::Handle;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::connection::Connection;
use crate::options::Options;
use crate::router::router;
use crate::{Error, Result};

/// How long answers that are made may take to be sent, at the end.
const LAST_BYTES: Duration = Duration::from_secs(5);
/// How long to wait where the system accepts no connections, such as for lack of file descriptors.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// Listens at an address.
///
/// # Errors
/// [`Error::Bind`].
pub async fn bind(host: &str, port: u16) -> Result<TcpListener> {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    TcpListener::bind((host, port)).await.map_err(|source| Error::Bind { address: format!("{host}:{port}"), source })
}

/// Serves [`router`] until `shutdown` is ready and what runs then is answered.
///
/// From then on `/health` and further requests are answered 503. Requests that still run after
/// [`Options::grace`] are cancelled. Dropping the future ends all at once.
///
/// Clients that would keep a connection for nothing are cut off: [`Options::body_timeout`], [`Options::write_timeout`].
/// There are [`Options::max_connections`] at most.
///
/// # Errors
/// [`Error::Thread`] where the system starts no thread for the engine's end.
pub async fn serve(
    listener: TcpListener,
    handle: Handle,
    options: Options,
    shutdown: impl Future<Output = ()>,
) -> Result<()> {
    let (grace, header_timeout, write_timeout) = (options.grace, options.body_timeout, options.write_timeout);
    let places = Arc::new(Semaphore::new(options.max_connections));
    let router = router(handle.clone(), options);
    let connections = GracefulShutdown::new();
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(header_timeout);
    let accept = |stream: TcpStream, place: OwnedSemaphorePermit| {
        let router = router.clone();
        let service =
            service_fn(move |request: hyper::Request<Incoming>| answer(router.clone(), request.map(Body::new)));
        let _ = stream.set_nodelay(true);
        let io = TokioIo::new(Connection::new(stream, write_timeout));
        let connection = connections.watch(http.serve_connection(io, service));
        tokio::spawn(async move {
            let _place = place;
            // A client that goes away is no fault of the server's.
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection ended");
            }
        });
    };

    accept_until(&listener, &places, &accept, shutdown).await;
    tracing::info!(?grace, "shutting down");
    accept_until(&listener, &places, &accept, closed(handle, grace)?).await;
    drop(listener);
    let _ = tokio::time::timeout(LAST_BYTES, connections.shutdown()).await;
    Ok(())
}

async fn answer(router: axum::Router, request: Request) -> std::result::Result<Response, Infallible> {
    use hyper_util::service::TowerToHyperService;
    hyper::service::Service::call(&TowerToHyperService::new(router), request).await
}

/// Accepts connections until `end`, each when there is a place for it. Others wait in the system's queue meanwhile.
async fn accept_until(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
    accept: &impl Fn(TcpStream, OwnedSemaphorePermit),
    end: impl Future<Output = ()>,
) {
    tokio::pin!(end);
    loop {
        let next = async {
            let place = places.clone().acquire_owned().await.map_err(std::io::Error::other)?;
            Ok::<_, std::io::Error>((listener.accept().await?.0, place))
        };
        tokio::select! {
            () = &mut end => return,
            accepted = next => match accepted {
                Ok((stream, place)) => accept(stream, place),
                Err(error) => {
                    tracing::warn!(%error, "no connection was accepted");
                    tokio::time::sleep(ACCEPT_AGAIN).await;
                }
            },
        }
    }
}

/// Shuts the engine down on a thread of its own, so that a runtime that ends does not wait for it.
fn closed(handle: Handle, grace: Duration) -> Result<impl Future<Output = ()>> {
    let (done, is_done) = oneshot::channel();
    let close = move || {
        handle.shutdown(grace);
        let _ = done.send(());
    };
    std::thread::Builder::new().name("lumina-shutdown".to_owned()).spawn(close).map_err(Error::Thread)?;
    Ok(async move { drop(is_done.await) })
}

/// [`serve`] until the program is asked to end (Ctrl-C, and on Unix SIGTERM). Asked again, it ends at once.
///
/// # Errors
/// [`Error::Signals`], and those of [`serve`].
pub async fn serve_until_signal(listener: TcpListener, handle: Handle, options: Options) -> Result<()> {
    let mut signals = Signals::new()?;
    let (ask, asked) = oneshot::channel::<()>();
    let serving = serve(listener, handle, options, async move { drop(asked.await) });
    tokio::pin!(serving);
    tokio::select! {
        result = &mut serving => return result,
        () = signals.next() => {}
    }
    drop(ask);
    tokio::select! {
        result = &mut serving => result,
        () = signals.next() => Ok(()),
    }
}

/// The signals that ask a program to end.
struct Signals {
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
}

impl Signals {
    #[cfg(unix)]
    fn new() -> Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        let on = |kind| signal(kind).map_err(Error::Signals);
        Ok(Self { terminate: on(SignalKind::terminate())?, interrupt: on(SignalKind::interrupt())? })
    }

    #[cfg(unix)]
    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }

    #[cfg(not(unix))]
    fn new() -> Result<Self> {
        Ok(Self {})
    }

    #[cfg(not(unix))]
    async fn next(&mut self) {
        let _ = tokio::signal::ctrl_c().await;
    }
}
