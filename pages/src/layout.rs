//! The frame around every page: head, navigation, balance, main, foot. Must not: know what a page shows.

use crate::assets;
use crate::viewer::Viewer;
use axum::response::{Html, IntoResponse, Response};
use maud::{DOCTYPE, Markup, html};

/// Where in the navigation a page stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Here {
    /// The conversation.
    Chat,
    /// One's own money.
    Money,
    /// Machines that answer.
    Nodes,
    /// The log and its books.
    Books,
    /// Public figures.
    Network,
    /// None of these.
    Elsewhere,
}

const PLACES: &[(Here, &str, &str)] = &[
    (Here::Chat, "/chat", "Chat"),
    (Here::Money, "/money", "Money"),
    (Here::Nodes, "/nodes", "Nodes"),
    (Here::Books, "/books", "Books"),
    (Here::Network, "/network", "Network"),
];

/// One page, ready to be sent.
pub(crate) struct Page<'a> {
    /// In the window's title.
    pub title: &'a str,
    /// Which entry of the navigation is current.
    pub here: Here,
    /// Whose balance stands in the head.
    pub viewer: Option<&'a Viewer>,
    /// Class of `main`.
    pub class: &'a str,
    /// Files of scripts, as modules.
    pub scripts: &'a [&'a str],
    /// Inside `main`.
    pub body: Markup,
}

impl Page<'_> {
    fn markup(&self) -> Markup {
        html! {
            (DOCTYPE)
            html lang="en" {
                head {
                    meta charset="utf-8";
                    meta name="viewport" content="width=device-width,initial-scale=1";
                    title { (self.title) " · Counterfoil" }
                    link rel="icon" href=(assets::address("icon.svg")) type="image/svg+xml";
                    link rel="stylesheet" href=(assets::address("style.css"));
                    @for script in self.scripts {
                        script type="module" src=(assets::address(script)) {}
                    }
                }
                body {
                    (self.top())
                    main #main tabindex="-1" class=[(!self.class.is_empty()).then_some(self.class)] { (self.body) }
                    @if self.here != Here::Chat {
                        footer {
                            "Counterfoil keeps the stub of everything it charges. "
                            a href="/books" { "Check the books" }
                            " · "
                            a href="/v1/openapi.yaml" { "API" }
                        }
                    }
                }
            }
        }
    }

    fn top(&self) -> Markup {
        html! {
            header.top {
                a.skip href="#main" { "Skip to content" }
                a.brand href="/" aria-label="Counterfoil, first page" { "Counter" b { "foil" } }
                nav aria-label="Main" {
                    @for (here, address, name) in PLACES {
                        a href=(address) aria-current=[(*here == self.here).then_some("page")] { (name) }
                    }
                }
                @match self.viewer {
                    Some(viewer) => {
                        @let (amount, asset) = viewer.available();
                        a.bal href="/money" {
                            span.vh { "Balance " }
                            b.n #balance { (amount) }
                            " "
                            span.q { (asset) }
                        }
                    }
                    None => { a.bal href="/sign-in" { "Sign in" } }
                }
            }
        }
    }
}

impl IntoResponse for Page<'_> {
    fn into_response(self) -> Response {
        Html(self.markup().into_string()).into_response()
    }
}

/// A state: a shape and a word, never a colour alone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum State {
    /// As it should be.
    Ok,
    /// Under way.
    Wait,
    /// Something is wrong.
    Fail,
    /// Not there, or not asked for.
    Off,
}

/// The state's word with its shape.
pub(crate) fn state(state: State, word: &str) -> Markup {
    let class = match state {
        State::Ok => "st ok",
        State::Wait => "st wait",
        State::Fail => "st fail",
        State::Off => "st off",
    };
    html! { span class=(class) { (word) } }
}

/// A table in a box of its own that scrolls sideways; by keyboard too.
pub(crate) fn scroll(label: &str, table: Markup) -> Markup {
    html! { div.scroll tabindex="0" role="region" aria-label={ "Table: " (label) } { (table) } }
}
