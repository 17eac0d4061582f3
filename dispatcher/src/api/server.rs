//! Listening, routes, limits on connections and headers, the headers that every answer carries.

use super::error::ApiError;
use super::{
    accounts, admin, audit, balance, chat, completions, earnings, events, jobs, log, models, nodes, people,
    quote, responses, sessions, unserved, usage, withdrawals,
};
use crate::access::random_16;
use crate::desk::{Desk, Pages};
use crate::gateway::{Shared, until_raised};
use crate::metrics;
use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post, put as put_route};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;

/// The interface as a file; `specs/openapi.yaml`.
pub const OPENAPI: &str = include_str!("../../../specs/openapi.yaml");
/// Connections at once.
pub const CONNECTIONS_MAX: usize = 20_000;
/// How long a client has for its headers.
pub const HEADERS_MS_MAX: u64 = 10_000;
/// Most bytes of request line and headers.
pub const HEADERS_BYTES_MAX: usize = 64 * 1024;
/// Pause after a connection could not be accepted.
const ACCEPT_AGAIN_MS: u64 = 50;
/// Longest `X-Request-Id` of a client that is echoed.
const CLIENT_REQUEST_ID_BYTES_MAX: usize = 128;

/// A listening server.
pub(crate) struct Server {
    address: SocketAddr,
    stop: watch::Sender<bool>,
    task: JoinHandle<GracefulShutdown>,
}

impl Server {
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Stops listening; waits for the answers that are under way, at most so long.
    pub async fn shutdown(self, limit: Duration) {
        self.stop.send_replace(true);
        if let Ok(connections) = self.task.await
            && tokio::time::timeout(limit, connections.shutdown()).await.is_err()
        {
            tracing::warn!(target: "api", "connections were still open when the gateway stopped");
        }
    }
}

/// Listens and serves until told to stop.
pub(crate) async fn start(
    shared: Arc<Shared>,
    pages: Option<Pages>,
    listen: SocketAddr,
) -> io::Result<Server> {
    let listener = TcpListener::bind(listen).await?;
    let address = listener.local_addr()?;
    let (stop, stopped) = watch::channel(false);
    let task = tokio::spawn(accept(listener, routes(shared, pages), stopped));
    Ok(Server { address, stop, task })
}

async fn accept(
    listener: TcpListener,
    routes: Router,
    mut stopped: watch::Receiver<bool>,
) -> GracefulShutdown {
    let connections = GracefulShutdown::new();
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let permit = match Arc::clone(&permits).acquire_owned().await {
            Ok(permit) => permit,
            Err(_) => return connections,
        };
        let stream = tokio::select! {
            () = until_raised(&mut stopped) => return connections,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(target: "api", %error, "connection not accepted");
                    // Out of file descriptors: the next attempt would fail as fast.
                    let pause = Duration::from_millis(ACCEPT_AGAIN_MS);
                    let _ = tokio::time::timeout(pause, until_raised(&mut stopped)).await;
                    continue;
                }
            }
        };
        serve(stream, routes.clone(), &connections, permit);
    }
}

fn serve(
    stream: TcpStream,
    routes: Router,
    connections: &GracefulShutdown,
    permit: tokio::sync::OwnedSemaphorePermit,
) {
    // Token by token: small writes must leave at once.
    let _ = stream.set_nodelay(true);
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_millis(HEADERS_MS_MAX))
        .max_buf_size(HEADERS_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(routes));
    let connection = connections.watch(connection);
    tokio::spawn(async move {
        // A client that breaks its connection is no event of ours.
        let _ = connection.await;
        drop(permit);
    });
}

/// The API, and the pages beside it where there are any.
fn routes(shared: Arc<Shared>, pages: Option<Pages>) -> Router {
    let api = api().with_state(Arc::clone(&shared));
    let all = match pages {
        Some(pages) => api.clone().merge(pages(Desk::new(Arc::clone(&shared), api))),
        None => api,
    };
    all.fallback(|| async {
        ApiError::not_found("unknown_url", "There is no such call; see the API's description.")
    })
    .method_not_allowed_fallback(method_not_allowed)
    .layer(middleware::from_fn_with_state(shared, standard_headers))
}

fn api() -> Router<Arc<Shared>> {
    Router::new()
        .route("/healthz", get(models::healthz))
        .route("/readyz", get(models::readyz))
        .route("/metrics", get(metrics::show))
        .route("/v1/openapi.yaml", get(openapi))
        .route("/v1/chat/completions", post(chat::create))
        .route("/v1/completions", post(completions::create))
        .route("/v1/responses", post(responses::create))
        .route("/v1/embeddings", post(unserved::embeddings))
        .route("/v1/images/generations", post(unserved::images))
        .route("/v1/models", get(models::list))
        .route("/v1/models/{model}", get(models::one))
        .route("/v1/quote", post(quote::create))
        .route("/v1/accounts", post(accounts::open))
        .route("/v1/keys", post(accounts::create_key).get(accounts::list_keys))
        .route("/v1/keys/{id}", delete(accounts::revoke_key))
        .route("/v1/keys/{id}/spend_cap", put_route(accounts::cap_key))
        .route("/v1/accounts/close", post(accounts::close))
        .route("/v1/balance", get(balance::show))
        .route("/v1/deposits", get(usage::deposits))
        .route("/v1/events", get(events::follow))
        .route("/v1/money", get(usage::everywhere))
        .route("/v1/statements", get(usage::statements))
        .route("/v1/usage", get(usage::usage))
        .route("/v1/jobs", post(jobs::submit))
        .route("/v1/jobs/{job}", get(jobs::job))
        .route("/v1/jobs/{job}/answer", get(jobs::answer))
        .route("/v1/receipts/{job}", get(jobs::receipt))
        .route("/v1/sessions/nonce", post(sessions::nonce))
        .route("/v1/authorisations/typed-data", get(sessions::typed_data))
        .route("/v1/authorisations", post(sessions::authorise))
        .route("/v1/chain", get(sessions::manifest))
        .route("/v1/withdrawals", post(withdrawals::create))
        .route("/v1/withdrawals/{voucher}", get(withdrawals::show))
        .route("/v1/earnings", get(earnings::show))
        .route("/v1/earnings/take", post(earnings::take))
        .route("/v1/operators", post(nodes::register_operator))
        .route("/v1/nodes", post(nodes::register_node).get(nodes::list))
        .route("/v1/nodes/{node}", get(nodes::one))
        .route("/v1/admin/grants", post(admin::grant))
        .route("/v1/audit/receipts", get(audit::receipts))
        .route("/v1/audit/contents/{job}", get(audit::contents))
        .route("/v1/audit/commits", get(log::commits))
        .route("/tlog/{*path}", get(log::tile))
        .merge(people::routes())
}

/// `GET /v1/openapi.yaml`: what this gateway takes and answers.
async fn openapi() -> Response {
    ([("content-type", "application/yaml")], OPENAPI).into_response()
}

async fn method_not_allowed() -> Response {
    let mut error = ApiError::malformed("This call does not take that method.");
    error.status = StatusCode::METHOD_NOT_ALLOWED;
    error.code = "method_not_allowed";
    error.into_response()
}

/// What every answer carries, errors too.
async fn standard_headers(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let id = random_16().map(|bytes| format!("req_{}", data_encoding::HEXLOWER.encode(&bytes)));
    let id = id.unwrap_or_else(|_| "req_unnumbered".to_owned());
    let client_id = client_request_id(request.headers());
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let mut response = next.run(request).await;
    let status = response.status().as_u16();
    shared.metrics.answered(response.status(), started.elapsed());
    let elapsed_ms = started.elapsed().as_millis() as u64;
    tracing::info!(target: "api", request_id = id, %method, path, status, elapsed_ms, "answered");
    let headers = response.headers_mut();
    put(headers, "x-request-id", &id);
    put(headers, "openai-version", "2020-10-01");
    put(headers, "openai-processing-ms", &elapsed_ms.to_string());
    if let Some(client_id) = client_id {
        headers.insert("x-client-request-id", client_id);
    }
    headers.entry("x-content-type-options").or_insert(HeaderValue::from_static("nosniff"));
    response
}

fn client_request_id(headers: &HeaderMap) -> Option<HeaderValue> {
    let value = headers.get("x-request-id").or_else(|| headers.get("x-client-request-id"))?;
    (value.len() <= CLIENT_REQUEST_ID_BYTES_MAX && value.to_str().is_ok()).then(|| value.clone())
}

/// Sets a header; a value that cannot be one is left out.
pub(crate) fn put(headers: &mut HeaderMap, name: &'static str, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(HeaderName::from_static(name), value);
    }
}
