//! The same trouble five times a second is one trouble: said once, and again from time to time while it lasts.

use std::sync::Mutex;
use std::time::{Duration, Instant};

/// How long the same words are not repeated.
const AGAIN_AFTER: Duration = Duration::from_secs(60);

/// What was said last.
#[derive(Default)]
pub(super) struct Complaint(Mutex<Option<(String, Instant)>>);

impl Complaint {
    /// Whether these words are to be said now.
    pub(super) fn is_due(&self, words: String, now: Instant) -> bool {
        let mut last = self.0.lock().unwrap_or_else(|broken| broken.into_inner());
        if last.as_ref().is_some_and(|(said, at)| *said == words && now.duration_since(*at) < AGAIN_AFTER) {
            return false;
        }
        *last = Some((words, now));
        true
    }

    /// It went well: the same trouble later is a new one.
    pub(super) fn end(&self) {
        *self.0.lock().unwrap_or_else(|broken| broken.into_inner()) = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_words_are_said_once_a_minute_and_others_at_once() {
        let (complaint, start) = (Complaint::default(), Instant::now());
        let due =
            |words: &str, after_s| complaint.is_due(words.to_owned(), start + Duration::from_secs(after_s));
        assert!(due("no node", 0));
        assert!(!due("no node", 59));
        assert!(due("no node", 60));
        assert!(due("another", 61));
        assert!(due("no node", 62));
        complaint.end();
        assert!(due("no node", 63));
    }
}
