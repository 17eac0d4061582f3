//! The books, read-only: overview, accounts, jobs, batches, entries. Every number links to the events behind it, every page
//! says as of which size. Must not: write anything but its own index, which may be deleted.

mod entry;
mod lists;
mod overview;
mod shelf;

pub(crate) use lists::statement_table;
pub(crate) use shelf::Shelf;

use crate::error::PageError;
use crate::figures;
use crate::viewer;
use crate::{BooksAccess, Room};
use axum::Form;
use axum::Router;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, HeaderValue, Method, header};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use dispatcher::Call;
use maud::{Markup, html};
use projector::subject::Subject;
use serde::Deserialize;
use shelf::OpenBooks;
use std::sync::Arc;

/// Holds the auditors' key for the books, in the auditor's browser only.
const AUDITOR_COOKIE: &str = "counterfoil_auditor";
/// A working day.
const AUDITOR_COOKIE_LIFE_S: u32 = 12 * 3_600;

/// The routes of the books.
pub(crate) fn routes() -> Router<Arc<Room>> {
    Router::new()
        .route("/books", get(overview::show))
        .route("/books/enter", post(enter))
        .route("/books/find", get(find))
        .route("/books/accounts", get(lists::accounts))
        .route("/books/account/{account}", get(lists::account))
        .route("/books/jobs", get(lists::jobs))
        .route("/books/batches", get(lists::batches))
        .route("/books/batch/{batch}", get(lists::batch))
        .route("/books/about/{subject}", get(entry::about))
        .route("/books/entry/{leaf}", get(entry::show))
        .route("/books/entry/{leaf}/bytes", get(entry::bytes))
}

/// Whether the caller may read all books; else the page that asks for the auditors' key.
async fn admitted(room: &Room, headers: &HeaderMap) -> Result<(), Response> {
    match room.options.books {
        BooksAccess::Everybody => Ok(()),
        BooksAccess::Auditors => {
            let key = auditor_key(headers);
            match key {
                Some(key) if opens(room, &key).await => Ok(()),
                given => Err(overview::ask_for_key(given.is_some())),
            }
        }
    }
}

fn auditor_key(headers: &HeaderMap) -> Option<String> {
    let cookies = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = cookies.flat_map(|value| value.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(name, _)| *name == AUDITOR_COOKIE).map(|(_, key)| key.to_owned())
}

/// The API itself says whether a key is an auditor's.
async fn opens(room: &Room, key: &str) -> bool {
    let path = "/v1/audit/commits?from=1&limit=1";
    let call = Call { method: Method::GET, path, bearer: Some(key), body: None };
    room.desk.call(call).await.status.is_success()
}

#[derive(Deserialize)]
struct Enter {
    key: String,
}

/// `POST /books/enter`
async fn enter(
    State(room): State<Arc<Room>>,
    headers: HeaderMap,
    Form(form): Form<Enter>,
) -> Result<Response, PageError> {
    viewer::check_origin(&room, &headers)?;
    let key = form.key.trim();
    if !opens(&room, key).await {
        return Ok(overview::ask_for_key(true));
    }
    let mut response = Redirect::to("/books").into_response();
    let life = AUDITOR_COOKIE_LIFE_S;
    let cookie = format!("{AUDITOR_COOKIE}={key}; Path=/books; Max-Age={life}; HttpOnly; SameSite=Strict");
    if let Ok(cookie) = HeaderValue::from_str(&cookie) {
        response.headers_mut().insert(header::SET_COOKIE, cookie);
    }
    Ok(response)
}

#[derive(Deserialize)]
struct Find {
    q: String,
}

/// `GET /books/find?q=`: an entry's number, or the name of anything that events are about.
async fn find(Query(asked): Query<Find>) -> Result<Redirect, PageError> {
    let text: String = asked.q.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
    if let Ok(leaf) = text.parse::<u64>() {
        return Ok(Redirect::to(&format!("/books/entry/{leaf}")));
    }
    match Subject::parse(&text) {
        Some(Subject::Account(account)) => Ok(Redirect::to(&format!("/books/account/{account}"))),
        Some(Subject::Batch(batch)) => Ok(Redirect::to(&format!("/books/batch/{batch}"))),
        Some(_) => Ok(Redirect::to(&format!("/books/about/{text}"))),
        None => Err(PageError::Missing(format!(
            "Nothing is called {text:?}. The books know entries by number, and acct_, job_, hold_, batch_, vouch_, node_."
        ))),
    }
}

/// Head of every page of the books: what it is, and as of which size.
fn head(title: &str, open: &OpenBooks) -> Markup {
    let position = open.position();
    html! {
        div.head {
            h1 { (title) }
            p.asof { "as of size " b.n { (figures::count(position.size)) } ", " (figures::utc(position.time_us)) }
        }
        (navigation(title))
    }
}

fn navigation(title: &str) -> Markup {
    let places = [
        ("Books", "/books", "Overview"),
        ("Accounts", "/books/accounts", "Accounts"),
        ("Jobs", "/books/jobs", "Jobs"),
        ("Batches", "/books/batches", "Batches"),
    ];
    html! {
        nav.sub aria-label="Books" {
            @for (name, address, word) in places {
                a href=(address) aria-current=[(name == title).then_some("page")] { (word) }
            }
        }
    }
}

/// A link to an entry, in stamp ink.
fn entry_link(leaf: u64) -> Markup {
    html! { a.proof href={ "/books/entry/" (leaf) } { (figures::count(leaf)) } }
}
