//! What pages are given: the API as a client in the same process has it, the ledger to read, people's sessions. Pages come
//! in as a router that is made with it, so that they know this room and this room does not know them.
//! Must not: look of anything.

use crate::access::contents::Contents;
use crate::api::auth;
use crate::api::error::ApiError;
use crate::api::people::{self, SignedUp, WelcomeLeft};
use crate::clock::now_us;
use crate::gateway::Shared;
use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Method, Request, StatusCode, header};
use http_body_util::BodyExt;
use journal::LedgerClient;
use protocol::id::{AccountId, Hash32, JobId};
use protocol::receipt::SignedReceipt;
use serde_json::Value;
use std::path::Path;
use std::sync::Arc;
use tower::ServiceExt;

/// Makes the pages' routes, given what they may use. They are served beside the API, on the same port.
pub type Pages = Arc<dyn Fn(Desk) -> Router + Send + Sync>;

/// Largest answer of the API that a page reads.
const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;

/// A call of the API in this process.
pub struct Call<'a> {
    /// Its method.
    pub method: Method,
    /// Path and query.
    pub path: &'a str,
    /// The caller's session or key; `None` asks as nobody.
    pub bearer: Option<&'a str>,
    /// JSON body; `None` sends none.
    pub body: Option<Value>,
}

/// What the API answered.
#[derive(Clone, Debug)]
pub struct Answer {
    /// HTTP status.
    pub status: StatusCode,
    /// The body; `Null` when it was no JSON.
    pub body: Value,
}

/// The door for pages. Cheap to clone.
#[derive(Clone)]
pub struct Desk {
    shared: Arc<Shared>,
    api: Router,
}

impl Desk {
    pub(crate) fn new(shared: Arc<Shared>, api: Router) -> Desk {
        Desk { shared, api }
    }

    /// Calls the API as any client does: the same checks, the same answers.
    pub async fn call(&self, call: Call<'_>) -> Answer {
        let mut request = Request::builder().method(call.method).uri(call.path);
        if let Some(bearer) = call.bearer {
            request = request.header(header::AUTHORIZATION, format!("Bearer {bearer}"));
        }
        if call.body.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        let body = call.body.map_or_else(Body::empty, |body| Body::from(body.to_string()));
        let Ok(request) = request.body(body) else {
            return refused(&ApiError::malformed("This is no address of the API."));
        };
        let response = match self.api.clone().oneshot(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        };
        let status = response.status();
        let body = http_body_util::Limited::new(response.into_body(), ANSWER_BYTES_MAX);
        let bytes = body.collect().await.map(|collected| collected.to_bytes()).unwrap_or_default();
        Answer { status, body: serde_json::from_slice(&bytes).unwrap_or(Value::Null) }
    }

    /// The ledger, to read.
    pub fn ledger(&self) -> &LedgerClient {
        &self.shared.client
    }

    /// The data directory: `archive/` and `tlog/` in it where the log's followers are this process's neighbours.
    pub fn data_dir(&self) -> &Path {
        &self.shared.data_dir
    }

    /// Lane that jobs run in.
    pub fn lane(&self) -> &str {
        &self.shared.lane
    }

    /// Whether inclusion proofs are made here.
    pub fn proves(&self) -> bool {
        self.shared.proofs.is_some()
    }

    /// The session in the browser's cookie and its account, if it lives. No check of where the request came from: for
    /// pages that only show.
    pub fn visitor(&self, headers: &HeaderMap) -> Option<(AccountId, String)> {
        let text = auth::session_cookie(headers)?;
        let session = self.shared.store.session(text, now_us()).ok().flatten()?;
        Some((session.account, text.to_owned()))
    }

    /// Whether a request comes from one of our own pages, as far as the browser says.
    pub fn is_from_our_page(&self, headers: &HeaderMap) -> bool {
        headers.contains_key(header::ORIGIN) && auth::is_same_origin(headers)
    }

    /// Opens an account for a person.
    ///
    /// # Errors
    /// As the API answers them.
    pub async fn sign_up(&self) -> Result<SignedUp, ApiError> {
        people::sign_up(&self.shared).await
    }

    /// A session for whoever has the recovery code.
    ///
    /// # Errors
    /// As the API answers them.
    pub async fn sign_in(&self, code: &str) -> Result<String, ApiError> {
        people::sign_in(&self.shared, code).await.map(|(_, session)| session)
    }

    /// What the next person is given; `None` when nothing is.
    pub fn welcome(&self) -> Option<WelcomeLeft> {
        people::welcome_left(&self.shared).ok().flatten()
    }

    /// The owner's copy of a job's contents, opened; `None` when there is none or it was shredded.
    pub fn contents(&self, account: AccountId, job: &JobId) -> Option<Contents> {
        self.shared.store.contents_of(account, job).ok().flatten()
    }

    /// Hash of the weights that a job's stored receipt names.
    pub fn weights(&self, job: &JobId) -> Option<Hash32> {
        let bytes = self.shared.store.receipt(job).ok().flatten()?;
        Some(SignedReceipt::open(&bytes).ok()?.weights)
    }
}

fn refused(error: &ApiError) -> Answer {
    Answer { status: error.status, body: error.body() }
}
