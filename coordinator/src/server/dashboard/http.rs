//! The HTTP port: the page and what it is made of, the picture, and the stream of pictures.

use std::convert::Infallible;
use std::future::Future;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures_util::Stream;
use futures_util::stream::unfold;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::sleep;

use super::super::ServerError;
use super::patient::Patient;
use super::{INTERVAL_MS, Text};

/// Takes the port, so that a start fails where it cannot be had.
pub(in super::super) fn bind(address: SocketAddr) -> Result<TcpListener, ServerError> {
    let failed = |why| ServerError::Dashboard { address, why };
    let listener = TcpListener::bind(address).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    Ok(listener)
}

/// Answers readers until it is dropped, or the pictures end.
pub(in super::super) fn serve(
    listener: TcpListener,
    pictures: watch::Receiver<Text>,
) -> impl Future<Output = ()> + use<> {
    serve_to(listener, pictures, READERS_MAX)
}

/// As [`serve`], to so many streams of events at once.
pub(super) async fn serve_to(listener: TcpListener, pictures: watch::Receiver<Text>, readers_max: usize) {
    let served = async {
        let address = listener.local_addr()?;
        let desk = Desk { address, pictures, readers: Arc::new(Semaphore::new(readers_max)), readers_max };
        let listener = tokio::net::TcpListener::from_std(listener)?;
        axum::serve(Patient::new(listener), router(desk)).await
    };
    if let Err(error) = served.await {
        tracing::error!(%error, "the dashboard is no longer served");
    }
}

/// What a request is answered from.
#[derive(Clone)]
struct Desk {
    address: SocketAddr,
    pictures: watch::Receiver<Text>,
    /// One permit for every stream of events.
    readers: Arc<Semaphore>,
    readers_max: usize,
}

fn router(desk: Desk) -> Router {
    let file = |kind: &'static str, text: &'static str| {
        get(async move || ([(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, "no-cache")], text))
    };
    Router::new()
        .route("/", file("text/html; charset=utf-8", include_str!("page.html")))
        .route("/page.css", file("text/css; charset=utf-8", include_str!("page.css")))
        .route("/page.js", file(JAVASCRIPT, include_str!("page.js")))
        .route("/charts.js", file(JAVASCRIPT, include_str!("charts.js")))
        .route("/sections.js", file(JAVASCRIPT, include_str!("sections.js")))
        .route("/dom.js", file(JAVASCRIPT, include_str!("dom.js")))
        .route("/icon.svg", file("image/svg+xml", include_str!("icon.svg")))
        .route("/picture.json", get(picture))
        .route("/events", get(events))
        .layer(middleware::from_fn_with_state(desk.clone(), guarded))
        .with_state(desk)
}

async fn picture(State(desk): State<Desk>) -> Response {
    let text = desk.pictures.borrow().to_string();
    ([(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")], text).into_response()
}

async fn events(State(desk): State<Desk>) -> Response {
    let Ok(place) = desk.readers.try_acquire_owned() else {
        let max = desk.readers_max;
        let text = format!("{max} readers watch the run already, which is the most; close one and load the page again");
        return (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "10")], text).into_response();
    };
    let stream = Sse::new(stream(desk.pictures, place)).keep_alive(KeepAlive::new().interval(HEARTBEAT));
    ([(header::CACHE_CONTROL, "no-store")], stream).into_response()
}

/// The picture on show, and every later one that the reader is there for; ends with the server.
fn stream(
    pictures: watch::Receiver<Text>,
    place: OwnedSemaphorePermit,
) -> impl Stream<Item = Result<Event, Infallible>> {
    unfold((pictures, place, true), async |(mut pictures, place, first)| {
        if !first {
            sleep(Duration::from_millis(INTERVAL_MS)).await;
            pictures.changed().await.ok()?;
        }
        let text = Text::clone(&pictures.borrow_and_update());
        let event = Event::default().event("picture").data(text).retry(RETRY);
        Some((Ok(event), (pictures, place, false)))
    })
}

/// Refuses what the page never asks, and says to every answer what a browser may do with it.
async fn guarded(State(desk): State<Desk>, request: Request, next: Next) -> Response {
    let mut response = match refusal(&desk, request.method(), request.headers()) {
        Some(refusal) => refusal,
        None => next.run(request).await,
    };
    for (name, value) in HEADERS {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

fn refusal(desk: &Desk, method: &Method, headers: &HeaderMap) -> Option<Response> {
    if method != Method::GET && method != Method::HEAD {
        let text = format!("{method} is not possible: the dashboard only shows, use `coordinator` to change something");
        return Some((StatusCode::METHOD_NOT_ALLOWED, [(header::ALLOW, "GET, HEAD")], text).into_response());
    }
    let hosts: Vec<&HeaderValue> = headers.get_all(header::HOST).iter().collect();
    // Elsewhere than on loopback it is the operator's network that says who may read, under whatever name.
    if !desk.address.ip().is_loopback() || matches!(hosts[..], [host] if is_loopback(host)) {
        return None;
    }
    let address = desk.address;
    let text = format!("host {hosts:?} is not this machine; the dashboard listens on loopback: open http://{address}/");
    Some((StatusCode::FORBIDDEN, text).into_response())
}

/// Whether a name leads to this machine, whoever says so: a page from elsewhere cannot have been loaded under it.
fn is_loopback(host: &HeaderValue) -> bool {
    let authority = host.to_str().ok().and_then(|host| host.parse::<Authority>().ok());
    authority.is_some_and(|authority| {
        let host = authority.host();
        let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        host.eq_ignore_ascii_case("localhost") || address.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
    })
}

/// Streams of events at once.
pub(super) const READERS_MAX: usize = 64;
/// Time after which a comment says that the stream still stands.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// After which a browser that lost the stream tries again.
const RETRY: Duration = Duration::from_secs(2);
const JAVASCRIPT: &str = "text/javascript; charset=utf-8";
/// What every answer says.
const HEADERS: [(HeaderName, &str); 6] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("permissions-policy"), "camera=(), geolocation=(), microphone=()"),
];
