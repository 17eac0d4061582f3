//! Who looks: the person of the session's cookie, with the balance that every page shows; cookies set and taken away.

use crate::Room;
use crate::error::PageError;
use crate::figures;
use axum::http::{HeaderMap, HeaderValue, Method};
use dispatcher::{Answer, Call};
use protocol::id::AccountId;
use serde_json::Value;

/// As long as a session lives, seconds.
const COOKIE_LIFE_S: u64 = 90 * 86_400;

/// Somebody who is signed in.
pub(crate) struct Viewer {
    /// Whose pages these are.
    pub account: AccountId,
    /// The session's text. Never shown.
    pub session: String,
    /// `GET /v1/balance`.
    pub balance: Value,
}

impl Viewer {
    /// Whoever the cookie says; `None` is nobody.
    pub async fn of(room: &Room, headers: &HeaderMap) -> Option<Viewer> {
        let (account, session) = room.desk.visitor(headers)?;
        let call = Call { method: Method::GET, path: "/v1/balance", bearer: Some(&session), body: None };
        let balance = room.desk.call(call).await.body;
        Some(Viewer { account, session, balance })
    }

    /// The same, or the sign-in page.
    pub async fn required(room: &Room, headers: &HeaderMap) -> Result<Viewer, PageError> {
        Viewer::of(room, headers).await.ok_or(PageError::SignInFirst)
    }

    /// Calls the API with this person's rights.
    pub async fn ask(&self, room: &Room, method: Method, path: &str, body: Option<Value>) -> Answer {
        room.desk.call(Call { method, path, bearer: Some(&self.session), body }).await
    }

    /// The network's first asset of this account: what is available, and its symbol.
    pub fn available(&self) -> (String, String) {
        let first = &self.balance["balances"][0];
        let amount = first["available"].as_str().unwrap_or("0");
        (figures::cut(amount), first["asset"].as_str().unwrap_or("").to_owned())
    }
}

/// The form came from one of our pages; else it is refused.
pub(crate) fn check_origin(room: &Room, headers: &HeaderMap) -> Result<(), PageError> {
    if room.desk.is_from_our_page(headers) { Ok(()) } else { Err(PageError::ForeignForm) }
}

/// The cookie that carries a session; with `Secure` where the browser came by TLS.
pub(crate) fn session_cookie(session: &str, headers: &HeaderMap) -> Option<HeaderValue> {
    cookie(session, COOKIE_LIFE_S, headers)
}

/// Takes the cookie away.
pub(crate) fn no_cookie(headers: &HeaderMap) -> Option<HeaderValue> {
    cookie("", 0, headers)
}

fn cookie(value: &str, life_s: u64, headers: &HeaderMap) -> Option<HeaderValue> {
    let name = dispatcher::api::auth::SESSION_COOKIE;
    let secure = headers.get("x-forwarded-proto").is_some_and(|proto| proto == "https");
    let secure = if secure { "; Secure" } else { "" };
    let text = format!("{name}={value}; Path=/; Max-Age={life_s}; HttpOnly; SameSite=Strict{secure}");
    HeaderValue::from_str(&text).ok()
}

/// What the API answered, or why it refused.
pub(crate) fn accepted(answer: Answer) -> Result<Value, PageError> {
    if answer.status.is_success() { Ok(answer.body) } else { Err(PageError::of(&answer)) }
}
