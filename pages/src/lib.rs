//! Room `pages`: what people see of a network. Every page is rendered here; the chat and the check of a receipt have a script
//! of their own. A client of the gateway's API like any other, in the same process, and a reader of ledger and books.
//!
//! Invariant: a page changes nothing but through the API, with the caller's own rights.
//! Invariant: no script or style in the markup, nothing from another host, nothing a model wrote is markup.

#![forbid(unsafe_code)]

mod assets;
mod books;
mod chat;
mod error;
mod figures;
mod layout;
mod money;
mod network;
mod nodes;
mod plot;
mod receipt;
mod start;
mod viewer;

pub use receipt::{Rerun, Reruns, Verdict};

use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::{get, post};
use dispatcher::Desk;
use std::sync::Arc;

/// Scripts and styles from here only; forms go here only; nobody frames us.
const CONTENT_SECURITY_POLICY: &str = "default-src 'self'; base-uri 'none'; form-action 'self'; \
     frame-ancestors 'none'; object-src 'none'";

/// Who may read all books.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BooksAccess {
    /// Everybody who reaches the page: a network on one's own machine.
    Everybody,
    /// Whoever has the auditors' key.
    Auditors,
}

/// What pages are given beside the desk.
#[derive(Clone)]
pub struct PagesOptions {
    /// Runs jobs again; `None` where the weights are not at hand.
    pub reruns: Option<Arc<dyn Reruns>>,
    /// Who may read all books.
    pub books: BooksAccess,
}

/// What the pages share.
pub(crate) struct Room {
    pub desk: Desk,
    pub options: PagesOptions,
    pub books: books::Shelf,
    /// One re-execution at a time: it takes the machine.
    pub rerunning: tokio::sync::Semaphore,
}

/// The pages' routes, to be served beside the API.
pub fn router(desk: Desk, options: PagesOptions) -> Router {
    let books = books::Shelf::of(&desk);
    let room = Arc::new(Room { desk, options, books, rerunning: tokio::sync::Semaphore::new(1) });
    Router::new()
        .route("/", get(start::show))
        .route("/start", post(start::sign_up))
        .route("/sign-in", get(start::sign_in_page).post(start::sign_in))
        .route("/sign-out", post(start::sign_out))
        .route("/chat", get(chat::show))
        .route("/receipt/{job}", get(receipt::show))
        .route("/receipt/{job}/facts", get(receipt::facts))
        .route("/receipt/{job}/rerun", post(receipt::rerun))
        .merge(money::routes())
        .merge(nodes::routes())
        .merge(books::routes())
        .route("/network", get(network::show))
        .route("/assets/{name}", get(assets::serve))
        .layer(middleware::from_fn(safe_headers))
        .with_state(room)
}

async fn safe_headers(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    let fixed = [
        (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
        // Not `no-referrer`: browsers then send forms with the origin `null`.
        (header::REFERRER_POLICY, "same-origin"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    for (name, value) in fixed {
        headers.insert(name, HeaderValue::from_static(value));
    }
    let opener = HeaderName::from_static("cross-origin-opener-policy");
    headers.insert(opener, HeaderValue::from_static("same-origin"));
    keep_private(headers);
    response
}

/// A page shows one person's money: no cache keeps it, unless it said otherwise.
fn keep_private(headers: &mut HeaderMap) {
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("private, no-store"));
}
