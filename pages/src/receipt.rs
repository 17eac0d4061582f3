//! One answer's receipt in plain words, the bytes that let a browser check it by itself, and the same job run again on
//! request. A receipt is public (commitments only); its entry's bytes and a new run are for the job's owner.

mod facts;

use crate::Room;
use crate::error::PageError;
use crate::layout::{Here, Page, State as Shape, state};
use crate::viewer::{self, Viewer, accepted};
use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, Method};
use axum::response::{IntoResponse, Response};
use facts::Facts;
use maud::{Markup, html};
use projector::subject::Finder;
use protocol::event::EventBody;
use protocol::event::job::UsageCaptured;
use protocol::id::{Hash32, JobId};
use protocol::job_message::JobBody;
use serde::Serialize;
use serde_json::{Value, json};
use std::sync::Arc;

/// A job to be run again: what it was asked, what it answered, what the receipt claims.
pub struct Rerun {
    /// The job.
    pub job: JobId,
    /// The model's name on its card.
    pub model: String,
    /// SHA-256 of the weights' file.
    pub weights: Hash32,
    /// Its body, with the sampling key.
    pub body: JobBody,
    /// What it answered, as far as it was billed.
    pub output_ids: Vec<u32>,
    /// The digest chain's head after them, from the log.
    pub chain_head: Hash32,
}

/// What a second run came to.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case", tag = "verdict", content = "detail")]
pub enum Verdict {
    /// Every token and the digest are the same.
    Identical,
    /// Something is not; in words.
    Differs(String),
    /// It could not be run; in words.
    Unavailable(String),
}

/// Runs jobs again; brought by the binary, which knows the kernels.
pub trait Reruns: Send + Sync {
    /// Runs it; takes as long as the job took, on a thread that may wait.
    fn rerun(&self, job: &Rerun) -> Verdict;
}

fn job_id(text: &str) -> Result<JobId, PageError> {
    text.parse().map_err(|_| PageError::Missing("This is no job's number; it begins with job_.".to_owned()))
}

/// `GET /receipt/{job}/facts`: for the drawer.
pub(crate) async fn facts(
    State(room): State<Arc<Room>>,
    Path(job): Path<String>,
    headers: HeaderMap,
) -> Response {
    let job = match job_id(&job) {
        Ok(job) => job,
        Err(error) => return failed(&error),
    };
    let viewer = Viewer::of(&room, &headers).await;
    match Facts::gather(&room, viewer.as_ref(), job).await {
        Ok(facts) => Json(facts).into_response(),
        Err(error) => failed(&error),
    }
}

fn failed(error: &PageError) -> Response {
    let body = json!({ "error": { "message": error.to_string() } });
    (axum::http::StatusCode::NOT_FOUND, Json(body)).into_response()
}

/// `GET /receipt/{job}`: the same as a page, read without script.
pub(crate) async fn show(
    State(room): State<Arc<Room>>,
    Path(job): Path<String>,
    headers: HeaderMap,
) -> Result<Response, PageError> {
    let viewer = Viewer::of(&room, &headers).await;
    let facts = Facts::gather(&room, viewer.as_ref(), job_id(&job)?).await?;
    let body = body(&facts);
    let page = Page {
        title: "Receipt",
        here: Here::Elsewhere,
        viewer: viewer.as_ref(),
        class: "",
        scripts: &["receipt.js"],
        body,
    };
    Ok(page.into_response())
}

fn body(facts: &Facts) -> Markup {
    html! {
        article.cf aria-labelledby="receipt-title" {
            div {
                p.no { (facts.number) }
                @if let Some(cost) = &facts.cost { p.big { (cost) } p.s.q { (facts.asset) } }
                dl.kv.r {
                    @for row in &facts.shares { dt { (row.name) } dd { (row.value) } }
                }
            }
            div {
                h1 #receipt-title { "Receipt" }
                @for sentence in &facts.sentences { p { (sentence) } }
                ul.steps {
                    @for step in &facts.steps {
                        li {
                            (state(if step.holds { Shape::Ok } else { Shape::Off }, &step.name))
                            " " (step.text)
                        }
                    }
                }
                section #checks data-job=(facts.job) aria-label="Checked by this browser" {
                    noscript { p.q.s { "With JavaScript this browser checks signature and proof by itself." } }
                }
                dl.kv { @for row in &facts.details { dt { (row.name) } dd.m { (row.value) } } }
                @if let Some(leaf) = facts.leaf {
                    p.s { a.proof href={ "/books/entry/" (leaf) } { "Open the entry" } }
                }
            }
        }
    }
}

/// `POST /receipt/{job}/rerun`: runs the caller's job again, here.
pub(crate) async fn rerun(
    State(room): State<Arc<Room>>,
    Path(job): Path<String>,
    headers: HeaderMap,
) -> Result<Json<Value>, PageError> {
    viewer::check_origin(&room, &headers)?;
    let viewer = Viewer::required(&room, &headers).await?;
    let job = job_id(&job)?;
    let reruns = room.options.reruns.clone();
    let reruns = reruns.ok_or_else(|| PageError::Missing(facts::NO_RERUN.to_owned()))?;
    let gone = || PageError::Missing("This answer's contents are not kept here any more.".to_owned());
    let own = own_job(&room, Some(&viewer), job).await.ok_or_else(gone)?;
    let charged = charge_of(&room, &own).await?.ok_or_else(gone)?;
    let contents = room.desk.contents(viewer.account, &job).ok_or_else(gone)?;
    let weights = room.desk.weights(&job).ok_or_else(gone)?;
    let output_ids = contents.output_ids.ok_or_else(gone)?;
    let _one = room.rerunning.try_acquire().map_err(|_| {
        PageError::Unavailable(
            "Another answer is being run again just now; try again in a moment.".to_owned(),
        )
    })?;
    let job = rerun_of(&own, &charged, Asked { weights, body: contents.body, output_ids });
    let tokens = job.output_ids.len();
    let verdict = tokio::task::spawn_blocking(move || reruns.rerun(&job)).await;
    let verdict = verdict.map_err(|_| PageError::Unavailable("The second run broke off.".to_owned()))?;
    Ok(Json(json!({ "verdict": verdict, "tokens": tokens })))
}

/// What was asked and answered.
struct Asked {
    weights: Hash32,
    body: JobBody,
    output_ids: Vec<u32>,
}

/// The billed part of the answer: what the entry in the log speaks of.
fn rerun_of(own: &Value, charged: &UsageCaptured, asked: Asked) -> Rerun {
    let Asked { weights, body, mut output_ids } = asked;
    let billed = charged.output_units_worker.min(charged.output_units_gateway);
    output_ids.truncate(usize::try_from(billed).unwrap_or(usize::MAX));
    Rerun {
        job: charged.job,
        model: own["model"].as_str().unwrap_or_default().to_owned(),
        weights,
        body,
        output_ids,
        chain_head: charged.chain_head,
    }
}

/// The entry that charged a job, out of the log.
async fn charge_of(room: &Room, own: &Value) -> Result<Option<UsageCaptured>, PageError> {
    let Some(leaf) = own["charge"]["leaf"].as_u64() else { return Ok(None) };
    let event = room.books.ask(&room.desk, move |books| books.event(leaf)).await?;
    Ok(event.and_then(|event| match event.body {
        EventBody::UsageCaptured(captured) => Some(captured),
        _ => None,
    }))
}

/// The job as its owner sees it; `None` for anybody else, and for one that is finished and settled.
async fn own_job(room: &Room, viewer: Option<&Viewer>, job: JobId) -> Option<Value> {
    accepted(viewer?.ask(room, Method::GET, &format!("/v1/jobs/{job}"), None).await).ok()
}
