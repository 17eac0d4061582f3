//! One entry in words, with its arithmetic, its legs, the entries it belongs with, and its bytes; and the timeline of a
//! job, a hold, a voucher or a node.

use super::shelf::no_entry;
use super::{admitted, entry_link, head};
use crate::Room;
use crate::error::PageError;
use crate::figures::{count, utc};
use crate::layout::{Here, Page, scroll};
use crate::viewer::Viewer;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use maud::{Markup, html};
use projector::describe::{Description, explain};
use projector::subject::{Finder, Subject};
use protocol::event::Event;
use std::sync::Arc;

/// `GET /books/entry/{leaf}`
pub(super) async fn show(
    State(room): State<Arc<Room>>,
    Path(leaf): Path<u64>,
    headers: HeaderMap,
) -> Result<Response, PageError> {
    if let Err(asks) = admitted(&room, &headers).await {
        return Ok(asks);
    }
    let viewer = Viewer::of(&room, &headers).await;
    let body = room.books.ask(&room.desk, move |books| {
        let Some(event) = books.event(leaf)? else { return Ok(None) };
        let description = explain(&books.index, books, &event)?;
        Ok(Some(html! { (head("Entry", books)) (entry(&event, &description)) }))
    });
    let body = body.await?.ok_or_else(|| no_entry(leaf))?;
    let page =
        Page { title: "Entry", here: Here::Books, viewer: viewer.as_ref(), class: "", scripts: &[], body };
    Ok(page.into_response())
}

fn entry(event: &Event, description: &Description) -> Markup {
    let header = &event.header;
    html! {
        article.cf aria-labelledby="entry" {
            div {
                p.no { "No. " (count(header.leaf)) }
                dl.kv {
                    dt { "kind" } dd { (event.body.kind().replace('_', " ")) }
                    dt { "when" } dd { time { (utc(header.time_us)) } }
                    dt { "commit" } dd.n { (count(header.commit)) }
                }
                p.s {
                    a href={ "/books/entry/" (header.leaf) "/bytes" } { "Its bytes" }
                    @if header.leaf > 0 { " · " a href={ "/books/entry/" (header.leaf - 1) } { "Before" } }
                    " · " a href={ "/books/entry/" (header.leaf + 1) } { "Next" }
                }
            }
            div {
                h2 #entry { (description.sentence) }
                @if !description.arithmetic.is_empty() {
                    h3 { "How its figures follow" }
                    ul { @for line in &description.arithmetic { li { (line) } } }
                }
                @if !description.words.is_empty() {
                    h3 { "Who got what" }
                    ul { @for line in &description.words { li { (line) } } }
                    details {
                        summary { "As postings" }
                        pre tabindex="0" { @for leg in &description.legs { (leg) "\n" } }
                    }
                }
            }
        }
        @if !description.links.is_empty() {
            section.sheet aria-labelledby="with" {
                h2 #with { "Belongs with" }
                (scroll("Entries it belongs with", html! {
                    table {
                        thead { tr { th scope="col" { "Entry" } th scope="col" { "Kind" } } }
                        tbody {
                            @for link in &description.links {
                                tr { td { (entry_link(link.leaf)) } td { (link.kind.replace('_', " ")) } }
                            }
                        }
                    }
                }))
            }
        }
    }
}

/// `GET /books/entry/{leaf}/bytes`: the leaf of the transparency log, for whoever hashes it.
pub(super) async fn bytes(
    State(room): State<Arc<Room>>,
    Path(leaf): Path<u64>,
    headers: HeaderMap,
) -> Result<Response, PageError> {
    if let Err(asks) = admitted(&room, &headers).await {
        return Ok(asks);
    }
    let mut response = room.books.entry_bytes(&room.desk, leaf).await?.into_response();
    let answer = response.headers_mut();
    answer.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/cbor"));
    let name = format!("attachment; filename=\"entry-{leaf}.cbor\"");
    if let Ok(name) = HeaderValue::from_str(&name) {
        answer.insert(header::CONTENT_DISPOSITION, name);
    }
    Ok(response)
}

/// `GET /books/about/{subject}`: everything that happened to one thing, in the log's order.
pub(super) async fn about(
    State(room): State<Arc<Room>>,
    Path(subject): Path<String>,
    headers: HeaderMap,
) -> Result<Response, PageError> {
    if let Err(asks) = admitted(&room, &headers).await {
        return Ok(asks);
    }
    let viewer = Viewer::of(&room, &headers).await;
    let known = Subject::parse(&subject)
        .ok_or_else(|| PageError::Missing(format!("Nothing is called {subject:?}.")))?;
    let name = subject.clone();
    let body = room.books.ask(&room.desk, move |books| {
        let mut lines = Vec::new();
        for leaf in books.leaves(&known)? {
            if let Some(event) = books.event(leaf)? {
                let sentence = explain(&books.index, books, &event)?.sentence;
                lines.push((event, sentence));
            }
        }
        Ok(html! { (head("Timeline", books)) (timeline(&name, &lines)) })
    });
    let body = body.await?;
    let page =
        Page { title: "Timeline", here: Here::Books, viewer: viewer.as_ref(), class: "", scripts: &[], body };
    Ok(page.into_response())
}

fn timeline(name: &str, lines: &[(Event, String)]) -> Markup {
    html! {
        section.sheet aria-labelledby="about" {
            h2 #about.m { (name) }
            @if lines.is_empty() {
                p { "The log says nothing about it yet." }
            } @else {
                (scroll("What happened, in the log's order", html! {
                    table {
                        caption { "In the log's order" }
                        thead { tr {
                            th scope="col" { "Entry" } th scope="col" { "When" } th scope="col" { "What" }
                        } }
                        tbody {
                            @for (event, sentence) in lines {
                                tr {
                                    td { (entry_link(event.header.leaf)) }
                                    td.when { (utc(event.header.time_us)) }
                                    td { (sentence) }
                                }
                            }
                        }
                    }
                }))
            }
            @if name.starts_with("job_") { p { a.proof href={ "/receipt/" (name) } { "Its receipt" } } }
        }
    }
}
