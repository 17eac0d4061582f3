//! The few files that pages load: one stylesheet, a script for each page that has one. They lie in the binary; their address
//! carries a hash of all of them, so that a browser keeps them until they change. Must not: anything of another host.

use axum::extract::Path;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use std::sync::LazyLock;

const SCRIPT: &str = "text/javascript; charset=utf-8";

/// Name, kind, text.
const FILES: &[(&str, &str, &str)] = &[
    ("style.css", "text/css; charset=utf-8", include_str!("../assets/style.css")),
    ("chat.js", SCRIPT, include_str!("../assets/chat.js")),
    ("transcript.js", SCRIPT, include_str!("../assets/transcript.js")),
    ("conversations.js", SCRIPT, include_str!("../assets/conversations.js")),
    ("markdown.js", SCRIPT, include_str!("../assets/markdown.js")),
    ("receipt.js", SCRIPT, include_str!("../assets/receipt.js")),
    ("proof.js", SCRIPT, include_str!("../assets/proof.js")),
    ("wallet.js", SCRIPT, include_str!("../assets/wallet.js")),
    ("nodes.js", SCRIPT, include_str!("../assets/nodes.js")),
    ("icon.svg", "image/svg+xml", include_str!("../assets/icon.svg")),
];

/// Scripts import each other by plain names, so these may be asked for without the hash and are revalidated.
static TAG: LazyLock<String> = LazyLock::new(|| {
    // FNV-1a: a name for what we ship ourselves, not a proof of anything.
    let bytes = FILES.iter().flat_map(|(name, _, text)| name.bytes().chain(text.bytes()));
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    format!("{hash:016x}")
});

/// Where a page finds a file.
pub(crate) fn address(name: &str) -> String {
    format!("/assets/{name}?{}", *TAG)
}

/// `GET /assets/{name}`
pub(crate) async fn serve(Path(name): Path<String>, headers: HeaderMap) -> Response {
    let Some((_, kind, text)) = FILES.iter().find(|(known, ..)| *known == name) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let tag = format!("\"{}\"", *TAG);
    let mut response =
        if headers.get(header::IF_NONE_MATCH).is_some_and(|seen| seen.as_bytes() == tag.as_bytes()) {
            StatusCode::NOT_MODIFIED.into_response()
        } else {
            (*text).into_response()
        };
    let answer = response.headers_mut();
    answer.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    // Always asked for again, most often answered by "not modified": a restart with newer scripts is seen at once.
    answer.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        answer.insert(header::ETAG, tag);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_first_visit_loads_is_small() {
        let all: usize = FILES.iter().map(|(_, _, text)| text.len()).sum();
        assert!(all <= 120 * 1024, "{all} bytes of scripts and style; a whole page may have 150 KB");
    }

    #[test]
    fn scripts_write_no_markup() {
        for (name, _, text) in FILES.iter().filter(|(_, kind, _)| *kind == SCRIPT) {
            for banned in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("] {
                assert!(
                    !text.contains(banned),
                    "{name} has {banned}: what a model wrote could become markup"
                );
            }
        }
    }
}
