//! What a page says when it cannot show what was asked for: what happened, what happened to the money, one next step.

use crate::layout::{Here, Page};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use dispatcher::Answer;
use maud::html;

/// Why a page is not shown.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum PageError {
    /// Nobody is signed in.
    #[error("nobody is signed in")]
    SignInFirst,
    /// The form did not come from one of our pages.
    #[error("the form did not come from a page of this network; open the page again and send it from there")]
    ForeignForm,
    /// There is no such thing.
    #[error("{0}")]
    Missing(String),
    /// What was typed is wrong.
    #[error("{0}")]
    Invalid(String),
    /// The API refused.
    #[error("{message}")]
    Refused {
        /// HTTP status of its answer.
        status: StatusCode,
        /// Its words.
        message: String,
    },
    /// Not now.
    #[error("{0}")]
    Unavailable(String),
}

impl PageError {
    /// The API's answer, when it is a refusal.
    pub fn of(answer: &Answer) -> PageError {
        let message =
            answer.body["error"]["message"].as_str().unwrap_or("The gateway did not say why.").to_owned();
        match answer.status {
            StatusCode::UNAUTHORIZED => PageError::SignInFirst,
            status => PageError::Refused { status, message },
        }
    }

    fn status(&self) -> StatusCode {
        match self {
            PageError::SignInFirst => StatusCode::SEE_OTHER,
            PageError::ForeignForm => StatusCode::FORBIDDEN,
            PageError::Missing(_) => StatusCode::NOT_FOUND,
            PageError::Invalid(_) => StatusCode::BAD_REQUEST,
            PageError::Refused { status, .. } => *status,
            PageError::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

impl From<journal::SubmitError> for PageError {
    fn from(error: journal::SubmitError) -> Self {
        tracing::warn!(target: "pages", %error, "the ledger did not answer");
        PageError::Unavailable("The ledger does not answer now. Nothing was changed.".to_owned())
    }
}

impl From<dispatcher::api::error::ApiError> for PageError {
    fn from(error: dispatcher::api::error::ApiError) -> Self {
        PageError::Refused { status: error.status, message: error.message }
    }
}

impl IntoResponse for PageError {
    fn into_response(self) -> Response {
        if matches!(self, PageError::SignInFirst) {
            return axum::response::Redirect::to("/sign-in").into_response();
        }
        let body = html! {
            div.sheet {
                h1 { "This did not work" }
                p role="alert" { (self) }
                p { "Nothing was charged." }
                p { a.btn.p href="/" { "To the first page" } }
            }
        };
        let page = Page {
            title: "This did not work",
            here: Here::Elsewhere,
            viewer: None,
            class: "",
            scripts: &[],
            body,
        };
        (self.status(), page).into_response()
    }
}
