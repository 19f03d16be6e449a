//! The HTTP port: `GET /metrics`, and nothing else.

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;

use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus_client::encoding::prometheus_text::CONTENT_TYPE;

use super::super::ServerError;
use super::super::shared::Shared;
use super::exposition::exposition;

/// Takes the port, so that a start fails where it cannot be had.
pub(in super::super) fn bind(address: SocketAddr) -> Result<TcpListener, ServerError> {
    let failed = |why| ServerError::Metrics { address, why };
    let listener = TcpListener::bind(address).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    Ok(listener)
}

/// Answers scrapes until it is dropped.
pub(in super::super) async fn serve(listener: TcpListener, shared: Arc<Shared>, store: Option<PathBuf>) {
    let scrape = move || {
        let (shared, store) = (Arc::clone(&shared), store.clone());
        async move { answer(&shared, store) }
    };
    let served = async {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        axum::serve(listener, Router::new().route("/metrics", get(scrape))).await
    };
    if let Err(error) = served.await {
        tracing::error!(%error, "metrics are no longer served");
    }
}

fn answer(shared: &Shared, store: Option<PathBuf>) -> Response {
    match exposition(shared, store) {
        Ok(text) => ([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
